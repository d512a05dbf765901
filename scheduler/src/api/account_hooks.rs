//! `/account-hooks`: accounts for what was bought elsewhere.

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::{get, post};
use axum::{Json, Router};
use cardshop_protocol::api::Page;
use cardshop_protocol::ids::ObjectId;

use super::caller::{Address, Body, Caller, Id, Query};
use super::error::ApiError;
use crate::Scheduler;
use crate::core::account_hook::AccountHook;
use crate::core::views::{HookAnswer, NewAccountHook};

pub(super) fn routes() -> Router<Scheduler> {
    Router::new()
        .route("/account-hooks", get(list).post(create))
        .route("/account-hooks/{id}/revoke", post(revoke))
        .route("/account-hooks/{id}/purchase", post(purchase))
}

async fn list(
    State(scheduler): State<Scheduler>,
    Caller(caller): Caller,
    query: Query,
) -> Result<Json<Page<AccountHook>>, ApiError> {
    Ok(Json(scheduler.account_hooks(&caller, &query.page()?)?))
}

async fn create(
    State(scheduler): State<Scheduler>,
    Caller(caller): Caller,
    body: Body,
) -> Result<(StatusCode, Json<NewAccountHook>), ApiError> {
    Ok((StatusCode::CREATED, Json(scheduler.create_account_hook(&caller, body.json).await?)))
}

async fn revoke(
    State(scheduler): State<Scheduler>,
    Caller(caller): Caller,
    Id(id): Id<ObjectId>,
) -> Result<Json<AccountHook>, ApiError> {
    Ok(Json(scheduler.revoke_account_hook(&caller, id).await?))
}

/// The signature is over the bytes as they came.
async fn purchase(
    State(scheduler): State<Scheduler>,
    Address(address): Address,
    Id(id): Id<ObjectId>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<HookAnswer>, ApiError> {
    let signature = headers.get("x-cardshop-signature").and_then(|v| v.to_str().ok()).unwrap_or_default();
    Ok(Json(scheduler.take_purchase(id, signature, &body.bytes, &address).await?))
}
