//! `/channels/{id}` and `/warehouses`: what staff adds, changes and takes away. Lists are in `catalogue`.

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use cardshop_protocol::ids::ObjectId;

use super::caller::{Body, Caller, Id, IdempotencyKey};
use super::error::ApiError;
use crate::Scheduler;
use crate::core::documents::{ChannelDocument, WarehouseDocument};

pub(super) fn routes() -> Router<Scheduler> {
    Router::new()
        .route("/channels/{id}", get(channel))
        .route("/channels/{id}/update", post(update))
        .route("/channels/{id}/delete", post(delete))
        .route("/warehouses", post(add_warehouse))
        .route("/warehouses/{id}/delete", post(delete_warehouse))
}

async fn channel(
    State(scheduler): State<Scheduler>,
    Caller(caller): Caller,
    Id(id): Id<ObjectId>,
) -> Result<Json<ChannelDocument>, ApiError> {
    Ok(Json(scheduler.channel(&caller, id)?))
}

async fn update(
    State(scheduler): State<Scheduler>,
    Caller(caller): Caller,
    Id(id): Id<ObjectId>,
    body: Body,
) -> Result<Json<ChannelDocument>, ApiError> {
    Ok(Json(scheduler.update_channel(&caller, id, body.json).await?))
}

async fn delete(
    State(scheduler): State<Scheduler>,
    Caller(caller): Caller,
    Id(id): Id<ObjectId>,
) -> Result<Json<ChannelDocument>, ApiError> {
    Ok(Json(scheduler.delete_channel(&caller, id).await?))
}

async fn add_warehouse(
    State(scheduler): State<Scheduler>,
    Caller(caller): Caller,
    key: IdempotencyKey,
    body: Body,
) -> Result<(StatusCode, Json<WarehouseDocument>), ApiError> {
    let once = key.once(&caller, "warehouses", &body)?;
    let added = scheduler.add_warehouse(&caller, body.json, once).await?;
    Ok((StatusCode::CREATED, Json(added)))
}

async fn delete_warehouse(
    State(scheduler): State<Scheduler>,
    Caller(caller): Caller,
    Id(id): Id<ObjectId>,
) -> Result<Json<WarehouseDocument>, ApiError> {
    Ok(Json(scheduler.delete_warehouse(&caller, id).await?))
}
