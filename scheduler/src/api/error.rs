//! Every error as a problem document with a stable code. **Source:** RFC 9457.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use cardshop_protocol::api::Problem;

use crate::{SchedulerError, StoreError};

/// An error on its way out.
pub(super) struct ApiError {
    status: StatusCode,
    code: &'static str,
    title: &'static str,
    detail: String,
}

impl ApiError {
    /// A body that cannot be read.
    pub(super) fn bad_body(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad_body", "The body cannot be read", detail)
    }

    /// A body that is too large.
    pub(super) fn large_body(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "large_body", "The body is too large", detail)
    }

    fn new(status: StatusCode, code: &'static str, title: &'static str, detail: impl Into<String>) -> Self {
        Self { status, code, title, detail: detail.into() }
    }
}

impl From<SchedulerError> for ApiError {
    fn from(error: SchedulerError) -> Self {
        use SchedulerError as E;
        let detail = error.to_string();
        let (status, code, title) = match error {
            E::NotKnown => (StatusCode::UNAUTHORIZED, "not_known", "Not known"),
            E::NotAllowed(_) => (StatusCode::FORBIDDEN, "not_allowed", "Not allowed"),
            E::NotFound(_) => (StatusCode::NOT_FOUND, "not_found", "Not found"),
            E::Conflict { code, .. } => (StatusCode::CONFLICT, code, "Conflict"),
            E::Refused(refusal) => (StatusCode::CONFLICT, refusal.code, "Means nothing in this state"),
            E::Invalid(_) => (StatusCode::UNPROCESSABLE_ENTITY, "invalid_field", "A field is not valid"),
            E::TooManyAttempts => (StatusCode::TOO_MANY_REQUESTS, "too_many_attempts", "Too many attempts"),
            E::Store(StoreError::Conflict { .. }) => (StatusCode::CONFLICT, "changed", "Changed meanwhile"),
            E::Store(StoreError::TooLarge { .. }) => {
                (StatusCode::UNPROCESSABLE_ENTITY, "too_large", "Too large to be kept")
            }
            E::Busy => (StatusCode::SERVICE_UNAVAILABLE, "busy", "Busy"),
            E::Maintenance(_) => (StatusCode::SERVICE_UNAVAILABLE, "maintenance", "Being maintained"),
            E::Unreachable(_) => (StatusCode::SERVICE_UNAVAILABLE, "unreachable", "A service is away"),
            E::Store(_) | E::Config(_) | E::NoRandomness(_) => {
                tracing::error!(error = detail, "a request failed");
                let detail = "the scheduler could not do this: its log says why";
                return Self::new(StatusCode::SERVICE_UNAVAILABLE, "store", "The store is away", detail);
            }
        };
        Self { status, code, title, detail }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let problem = Problem {
            kind: "about:blank".into(),
            title: self.title.into(),
            status: self.status.as_u16(),
            detail: self.detail,
            code: self.code.into(),
        };
        let mut response = (self.status, Json(problem)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        match self.status {
            StatusCode::UNAUTHORIZED => {
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            StatusCode::TOO_MANY_REQUESTS => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static("30"));
            }
            StatusCode::SERVICE_UNAVAILABLE => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static("2"));
            }
            _ => {}
        }
        response
    }
}

/// A request that ended in a mistake of ours.
pub(super) fn broke_off() -> ApiError {
    let detail = "the scheduler made a mistake: its log says which";
    ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "broke_off", "Broke off", detail)
}

/// Any path below the API that is none of ours.
pub(super) async fn no_such_path() -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, "no_such_path", "Not found", "there is no such path in this API")
}

/// A path that does not know this method.
pub(super) async fn no_such_method() -> ApiError {
    let detail = "this path does not know this method";
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "no_such_method", "Method not allowed", detail)
}
