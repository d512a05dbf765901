//! What a request carries: who calls, from where, which page, which body and which `Idempotency-Key`.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::str::FromStr;

use axum::body::Bytes;
use axum::extract::{ConnectInfo, FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{Method, StatusCode, header};
use cardshop_protocol::ids::{ApplianceId, SlotId, TaskId};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::MAX_BODY;
use super::error::ApiError;
use crate::core::rights::Principal;
use crate::core::task_log::LogKind;
use crate::{Once, PageRequest, Scheduler, SchedulerError};

/// The cookie that the manager's pages set; taken for GET only, so that no other site can make a change with it.
const COOKIE: &str = "cardshop_session";

/// Address the request came from.
pub(super) struct Address(pub(super) String);

impl<S: Sync> FromRequestParts<S> for Address {
    type Rejection = Infallible;
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let info = parts.extensions.get::<ConnectInfo<SocketAddr>>();
        Ok(Self(info.map_or_else(|| "unknown".to_owned(), |i| i.0.ip().to_string())))
    }
}

/// Who calls.
pub(super) struct Caller(pub(super) Principal);

impl FromRequestParts<Scheduler> for Caller {
    type Rejection = ApiError;
    async fn from_request_parts(parts: &mut Parts, scheduler: &Scheduler) -> Result<Self, ApiError> {
        let Ok(Address(address)) = Address::from_request_parts(parts, scheduler).await;
        let token = bearer(parts).or_else(|| cookie(parts)).ok_or(SchedulerError::NotKnown)?;
        Ok(Self(scheduler.authenticate(token, &address)?))
    }
}

fn bearer(parts: &Parts) -> Option<&str> {
    let value = parts.headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
}

fn cookie(parts: &Parts) -> Option<&str> {
    if parts.method != Method::GET || parts.headers.contains_key(header::AUTHORIZATION) {
        return None;
    }
    let values = parts.headers.get_all(header::COOKIE).iter().filter_map(|v| v.to_str().ok());
    let mut pairs = values.flat_map(|v| v.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(name, _)| *name == COOKIE).map(|(_, token)| token)
}

/// A JSON body with its bytes; an empty one is an empty object.
pub(super) struct Body {
    pub(super) json: Value,
    pub(super) bytes: Bytes,
}

impl FromRequest<Scheduler> for Body {
    type Rejection = ApiError;
    async fn from_request(request: Request, state: &Scheduler) -> Result<Self, ApiError> {
        let bytes = Bytes::from_request(request, state).await.map_err(|e| match e.status() {
            StatusCode::PAYLOAD_TOO_LARGE => {
                ApiError::large_body(format!("the body has more than {MAX_BODY} bytes"))
            }
            _ => ApiError::bad_body(format!("the body cannot be read: {e}")),
        })?;
        if bytes.is_empty() {
            return Ok(Self { json: Value::Object(Default::default()), bytes });
        }
        let json = serde_json::from_slice(&bytes)
            .map_err(|e| ApiError::bad_body(format!("the body is not JSON: {e}")))?;
        Ok(Self { json, bytes })
    }
}

impl Body {
    /// The body as a type of the protocol.
    pub(super) fn read<T: DeserializeOwned>(self) -> Result<T, ApiError> {
        serde_json::from_value(self.json).map_err(|e| ApiError::bad_body(e.to_string()))
    }
}

/// The `Idempotency-Key` of a request, if it has one.
pub(super) struct IdempotencyKey(Option<String>);

impl<S: Sync> FromRequestParts<S> for IdempotencyKey {
    type Rejection = Infallible;
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let value = parts.headers.get("idempotency-key");
        Ok(Self(value.map(|v| String::from_utf8_lossy(v.as_bytes()).into_owned())))
    }
}

impl IdempotencyKey {
    pub(super) fn once(self, caller: &Principal, route: &str, body: &Body) -> Result<Option<Once>, ApiError> {
        Ok(self.0.map(|key| Once::new(caller, route, &key, &body.bytes)).transpose()?)
    }
}

/// `?limit=&cursor=` and filters.
pub(super) struct Query(Vec<(String, String)>);

impl<S: Send + Sync> FromRequestParts<S> for Query {
    type Rejection = ApiError;
    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let query = axum::extract::Query::<Vec<(String, String)>>::from_request_parts(parts, state).await;
        Ok(Self(query.map_err(|e| ApiError::bad_body(e.to_string()))?.0))
    }
}

impl Query {
    /// A parameter, read as `T`.
    pub(super) fn get<T: FromStr>(&self, name: &'static str) -> Result<Option<T>, ApiError> {
        let Some((_, text)) = self.0.iter().find(|(n, _)| n == name) else { return Ok(None) };
        let value = text.parse();
        value.map(Some).map_err(|_| ApiError::bad_body(format!("query parameter {name}: not valid")))
    }

    pub(super) fn page(&self) -> Result<PageRequest, ApiError> {
        Ok(PageRequest { limit: self.get("limit")?, cursor: self.get("cursor")? })
    }
}

/// An id in the path; one that is no id names nothing.
pub(super) struct Id<T>(pub(super) T);

impl<T: FromStr + Send> FromRequestParts<Scheduler> for Id<T> {
    type Rejection = ApiError;
    async fn from_request_parts(parts: &mut Parts, state: &Scheduler) -> Result<Self, ApiError> {
        let path = axum::extract::Path::<String>::from_request_parts(parts, state).await;
        let text = path.map_err(|_| SchedulerError::NotFound("object"))?.0;
        Ok(Self(text.parse().map_err(|_| SchedulerError::NotFound("object"))?))
    }
}

/// Task and kind of log in the path.
pub(super) struct LogPath(pub(super) TaskId, pub(super) LogKind);

impl FromRequestParts<Scheduler> for LogPath {
    type Rejection = ApiError;
    async fn from_request_parts(parts: &mut Parts, state: &Scheduler) -> Result<Self, ApiError> {
        let none = || SchedulerError::NotFound("log");
        let path = axum::extract::Path::<(String, String)>::from_request_parts(parts, state).await;
        let (task, kind) = path.map_err(|_| none())?.0;
        Ok(Self(task.parse().map_err(|_| none())?, kind.parse().map_err(|_| none())?))
    }
}

/// Two names in the path; what is none of text names nothing.
pub(super) struct Names(pub(super) String, pub(super) String);

impl FromRequestParts<Scheduler> for Names {
    type Rejection = ApiError;
    async fn from_request_parts(parts: &mut Parts, state: &Scheduler) -> Result<Self, ApiError> {
        let path = axum::extract::Path::<(String, String)>::from_request_parts(parts, state).await;
        let (first, second) = path.map_err(|_| SchedulerError::NotFound("object"))?.0;
        Ok(Self(first, second))
    }
}

/// Appliance and slot in the path.
pub(super) struct SlotPath(pub(super) ApplianceId, pub(super) SlotId);

impl FromRequestParts<Scheduler> for SlotPath {
    type Rejection = ApiError;
    async fn from_request_parts(parts: &mut Parts, state: &Scheduler) -> Result<Self, ApiError> {
        let none = || SchedulerError::NotFound("slot");
        let path = axum::extract::Path::<(String, String)>::from_request_parts(parts, state).await;
        let (appliance, slot) = path.map_err(|_| none())?.0;
        Ok(Self(appliance.parse().map_err(|_| none())?, slot.parse().map_err(|_| none())?))
    }
}
