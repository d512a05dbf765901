//! `/channels`, `/media`, `/warehouses`, `/configurations`, `/events`, `/audit`.

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use cardshop_protocol::api::Page;
use cardshop_protocol::ids::ObjectId;

use super::caller::{Body, Caller, Id, IdempotencyKey, Query};
use super::error::ApiError;
use crate::Scheduler;
use crate::core::documents::{Audit, ChannelDocument, Configuration, Media, Story, WarehouseDocument};

pub(super) fn routes() -> Router<Scheduler> {
    Router::new()
        .route("/channels", get(channels).post(create_channel))
        .route("/media", get(media))
        .route("/warehouses", get(warehouses))
        .route("/configurations", get(configurations).post(create_configuration))
        .route("/configurations/{id}", get(configuration))
        .route("/events", get(events))
        .route("/audit", get(audit))
}

async fn channels(
    State(scheduler): State<Scheduler>,
    Caller(caller): Caller,
    query: Query,
) -> Result<Json<Page<ChannelDocument>>, ApiError> {
    Ok(Json(scheduler.channels(&caller, &query.page()?)?))
}

async fn create_channel(
    State(scheduler): State<Scheduler>,
    Caller(caller): Caller,
    key: IdempotencyKey,
    body: Body,
) -> Result<(StatusCode, Json<ChannelDocument>), ApiError> {
    let once = key.once(&caller, "channels", &body)?;
    let made = scheduler.create_channel(&caller, body.json, once).await?;
    Ok((StatusCode::CREATED, Json(made)))
}

async fn media(
    State(scheduler): State<Scheduler>,
    Caller(caller): Caller,
    query: Query,
) -> Result<Json<Page<Media>>, ApiError> {
    Ok(Json(scheduler.media(&caller, &query.page()?)?))
}

async fn warehouses(
    State(scheduler): State<Scheduler>,
    Caller(caller): Caller,
    query: Query,
) -> Result<Json<Page<WarehouseDocument>>, ApiError> {
    Ok(Json(scheduler.warehouses(&caller, &query.page()?)?))
}

async fn configurations(
    State(scheduler): State<Scheduler>,
    Caller(caller): Caller,
    query: Query,
) -> Result<Json<Page<Configuration>>, ApiError> {
    Ok(Json(scheduler.configurations(&caller, &query.page()?)?))
}

async fn create_configuration(
    State(scheduler): State<Scheduler>,
    Caller(caller): Caller,
    key: IdempotencyKey,
    body: Body,
) -> Result<(StatusCode, Json<Configuration>), ApiError> {
    let once = key.once(&caller, "configurations", &body)?;
    let made = scheduler.create_configuration(&caller, body.json, once).await?;
    Ok((StatusCode::CREATED, Json(made)))
}

async fn configuration(
    State(scheduler): State<Scheduler>,
    Caller(caller): Caller,
    Id(id): Id<ObjectId>,
) -> Result<Json<Configuration>, ApiError> {
    Ok(Json(scheduler.configuration(&caller, id)?))
}

async fn events(
    State(scheduler): State<Scheduler>,
    Caller(caller): Caller,
    query: Query,
) -> Result<Json<Page<Story>>, ApiError> {
    Ok(Json(scheduler.events(&caller, query.get("order")?, &query.page()?)?))
}

async fn audit(
    State(scheduler): State<Scheduler>,
    Caller(caller): Caller,
    query: Query,
) -> Result<Json<Page<Audit>>, ApiError> {
    Ok(Json(scheduler.audit(&caller, &query.page()?)?))
}
