//! `/auth/*` and `/keys`: logins of people, creators and appliances; the published keys.

use axum::Json;
use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use cardshop_protocol::api::{ApplianceLogin, Login, NonceAnswer, NonceRequest, Refresh, TokenPair};

use cardshop_protocol::keys::KeyList;

use super::caller::{Address, Body, Caller};
use super::error::ApiError;
use crate::Scheduler;
use crate::core::rights::Action;
use crate::core::views::{ForgotPassword, Forgotten, NewPassword, Rotation, UserView, ValidToken, Validate};

pub(super) fn routes() -> Router<Scheduler> {
    Router::new()
        .route("/auth/login", post(login))
        .route("/auth/refresh", post(refresh))
        .route("/auth/nonce", post(nonce))
        .route("/auth/appliance", post(appliance))
        .route("/auth/validate", post(validate))
        .route("/auth/password", post(set_password))
        .route("/auth/forgot", post(forgot))
        .route("/keys", get(keys))
        .route("/keys/rotate", post(rotate))
}

async fn login(
    State(scheduler): State<Scheduler>,
    Address(address): Address,
    body: Body,
) -> Result<Json<TokenPair>, ApiError> {
    let login: Login = body.read()?;
    Ok(Json(scheduler.login(&login.username, &login.password, &address).await?))
}

async fn refresh(State(scheduler): State<Scheduler>, body: Body) -> Result<Json<TokenPair>, ApiError> {
    let refresh: Refresh = body.read()?;
    Ok(Json(scheduler.refresh(&refresh.refresh_token).await?))
}

async fn validate(State(scheduler): State<Scheduler>, body: Body) -> Result<Json<ValidToken>, ApiError> {
    let asked: Validate = body.read()?;
    Ok(Json(scheduler.validate(&asked.token)?))
}

async fn set_password(
    State(scheduler): State<Scheduler>,
    Address(address): Address,
    body: Body,
) -> Result<Json<UserView>, ApiError> {
    let new: NewPassword = body.read()?;
    Ok(Json(scheduler.set_password_by_link(&new.token, new.password, &address).await?))
}

/// The same answer for everybody: whether there is such an account is not told.
async fn forgot(
    State(scheduler): State<Scheduler>,
    Address(address): Address,
    body: Body,
) -> Result<Json<Forgotten>, ApiError> {
    let asked: ForgotPassword = body.read()?;
    drop(scheduler.forgot_password(&asked.username, &address)?);
    Ok(Json(Forgotten { taken: true }))
}

async fn rotate(
    State(scheduler): State<Scheduler>,
    Caller(caller): Caller,
    body: Body,
) -> Result<Json<KeyList>, ApiError> {
    caller.must(Action::Administer)?;
    let rotation: Rotation = body.read()?;
    Ok(Json(scheduler.rotate_keys(&caller, rotation.revoke).await?))
}

async fn nonce(State(scheduler): State<Scheduler>, body: Body) -> Result<Json<NonceAnswer>, ApiError> {
    let request: NonceRequest = body.read()?;
    Ok(Json(scheduler.nonce(request.appliance)))
}

async fn appliance(State(scheduler): State<Scheduler>, body: Body) -> Result<Json<TokenPair>, ApiError> {
    let login: ApplianceLogin = body.read()?;
    Ok(Json(scheduler.appliance_login(&login).await?))
}

async fn keys(State(scheduler): State<Scheduler>, headers: HeaderMap) -> Response {
    let (etag, list) = scheduler.tagged_keys();
    let known = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|v| v.to_str().ok());
    let same = known.flat_map(|v| v.split(',')).any(|tag| tag.trim().trim_start_matches("W/") == etag);
    let tag = [(header::ETAG, etag), (header::CACHE_CONTROL, "no-cache".to_owned())];
    if same {
        return (StatusCode::NOT_MODIFIED, tag).into_response();
    }
    (tag, Json((*list).clone())).into_response()
}
