//! `/channels`, `/warehouses`, `/events`, `/audit`.

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use cardshop_protocol::api::Page;

use super::caller::{Body, Caller, IdempotencyKey, Query};
use super::error::ApiError;
use crate::Scheduler;
use crate::core::audit_filter::AuditFilter;
use crate::core::documents::{Audit, ChannelDocument, Story, WarehouseDocument};

pub(super) fn routes() -> Router<Scheduler> {
    Router::new()
        .route("/channels", get(channels).post(create_channel))
        .route("/warehouses", get(warehouses))
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

async fn warehouses(
    State(scheduler): State<Scheduler>,
    Caller(caller): Caller,
    query: Query,
) -> Result<Json<Page<WarehouseDocument>>, ApiError> {
    Ok(Json(scheduler.warehouses(&caller, &query.page()?)?))
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
    let filter = AuditFilter {
        who: query.get("who")?,
        action: query.get("action")?,
        object: query.get("object")?,
        from: query.get("from")?,
        to: query.get("to")?,
    };
    Ok(Json(scheduler.audit(&caller, &filter, &query.page()?)?))
}
