//! `/api-keys`: what integrators' programs log in with.

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use cardshop_protocol::api::Page;
use cardshop_protocol::ids::ObjectId;

use super::caller::{Body, Caller, Id, IdempotencyKey, Query};
use super::error::ApiError;
use crate::Scheduler;
use crate::core::views::{ApiKeyView, NewApiKey};

pub(super) fn routes() -> Router<Scheduler> {
    Router::new().route("/api-keys", get(list).post(create)).route("/api-keys/{id}/revoke", post(revoke))
}

async fn list(
    State(scheduler): State<Scheduler>,
    Caller(caller): Caller,
    query: Query,
) -> Result<Json<Page<ApiKeyView>>, ApiError> {
    Ok(Json(scheduler.api_keys(&caller, &query.page()?)?))
}

async fn create(
    State(scheduler): State<Scheduler>,
    Caller(caller): Caller,
    key: IdempotencyKey,
    body: Body,
) -> Result<(StatusCode, Json<NewApiKey>), ApiError> {
    let once = key.once(&caller, "api-keys", &body)?;
    let made = scheduler.create_api_key(&caller, body.json, once).await?;
    Ok((StatusCode::CREATED, Json(made)))
}

async fn revoke(
    State(scheduler): State<Scheduler>,
    Caller(caller): Caller,
    Id(id): Id<ObjectId>,
) -> Result<Json<ApiKeyView>, ApiError> {
    Ok(Json(scheduler.revoke_api_key(&caller, id).await?))
}
