//! `/addresses`: the address book of an organization.

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use cardshop_protocol::api::Page;
use cardshop_protocol::ids::ObjectId;

use super::caller::{Body, Caller, Id, IdempotencyKey, Query};
use super::error::ApiError;
use crate::Scheduler;
use crate::core::address::AddressView;

pub(super) fn routes() -> Router<Scheduler> {
    Router::new()
        .route("/addresses", get(list).post(create))
        .route("/addresses/{id}", get(one))
        .route("/addresses/{id}/update", post(update))
        .route("/addresses/{id}/delete", post(delete))
}

async fn list(
    State(scheduler): State<Scheduler>,
    Caller(caller): Caller,
    query: Query,
) -> Result<Json<Page<AddressView>>, ApiError> {
    Ok(Json(scheduler.addresses(&caller, &query.page()?)?))
}

async fn create(
    State(scheduler): State<Scheduler>,
    Caller(caller): Caller,
    key: IdempotencyKey,
    body: Body,
) -> Result<(StatusCode, Json<AddressView>), ApiError> {
    let once = key.once(&caller, "addresses", &body)?;
    let made = scheduler.create_address(&caller, body.json, once).await?;
    Ok((StatusCode::CREATED, Json(made)))
}

async fn one(
    State(scheduler): State<Scheduler>,
    Caller(caller): Caller,
    Id(id): Id<ObjectId>,
) -> Result<Json<AddressView>, ApiError> {
    Ok(Json(scheduler.address(&caller, id)?))
}

async fn update(
    State(scheduler): State<Scheduler>,
    Caller(caller): Caller,
    Id(id): Id<ObjectId>,
    body: Body,
) -> Result<Json<AddressView>, ApiError> {
    Ok(Json(scheduler.update_address(&caller, id, body.json).await?))
}

async fn delete(
    State(scheduler): State<Scheduler>,
    Caller(caller): Caller,
    Id(id): Id<ObjectId>,
) -> Result<Json<AddressView>, ApiError> {
    Ok(Json(scheduler.delete_address(&caller, id).await?))
}
