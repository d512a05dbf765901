//! `/orders`, `/images` and `/cards`.

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use cardshop_protocol::api::Page;
use cardshop_protocol::ids::{ObjectId, OrderId};
use serde_json::Value;

use super::caller::{Body, Caller, Id, IdempotencyKey, Query};
use super::error::ApiError;
use crate::core::explain::Explanation;
use crate::core::fields::Fields;
use crate::core::order::OrderStatus;
use crate::core::rights::Action;
use crate::core::views::{CardView, ImageView, OrderView};
use crate::effects::catalogue::not_an_object;
use crate::{Scheduler, SchedulerError};

/// Longest tracking code, characters.
pub(super) const MAX_TRACKING: usize = 200;

pub(super) fn routes() -> Router<Scheduler> {
    Router::new()
        .route("/orders", get(orders).post(create))
        .route("/orders/{id}", get(order))
        .route("/orders/{id}/cancel", post(cancel))
        .route("/orders/{id}/retry", post(retry))
        .route("/orders/{id}/expire", post(expire))
        .route("/orders/{id}/extend", post(extend))
        .route("/orders/{id}/ship", post(ship))
        .route("/orders/{id}/anonymise", post(anonymise))
        .route("/orders/{id}/delete", post(delete))
        .route("/orders/{id}/explain", get(explain))
        .route("/images", get(images))
        .route("/cards", get(cards))
        .route("/cards/{uid}", get(card))
}

async fn orders(
    State(scheduler): State<Scheduler>,
    Caller(caller): Caller,
    query: Query,
) -> Result<Json<Page<OrderView>>, ApiError> {
    let status = match query.get::<String>("status")? {
        None => None,
        Some(text) => Some(
            serde_json::from_value::<OrderStatus>(Value::String(text))
                .map_err(|_| ApiError::bad_body("query parameter status: not a status of orders"))?,
        ),
    };
    Ok(Json(scheduler.orders(&caller, status, &query.page()?)?))
}

async fn create(
    State(scheduler): State<Scheduler>,
    Caller(caller): Caller,
    key: IdempotencyKey,
    body: Body,
) -> Result<(StatusCode, Json<OrderView>), ApiError> {
    let once = key.once(&caller, "orders", &body)?;
    let made = scheduler.create_order(&caller, body.json, once).await?;
    Ok((StatusCode::CREATED, Json(made)))
}

async fn order(
    State(scheduler): State<Scheduler>,
    Caller(caller): Caller,
    Id(id): Id<OrderId>,
) -> Result<Json<OrderView>, ApiError> {
    Ok(Json(scheduler.order(&caller, id)?))
}

async fn cancel(
    State(scheduler): State<Scheduler>,
    Caller(caller): Caller,
    Id(id): Id<OrderId>,
) -> Result<Json<OrderView>, ApiError> {
    Ok(Json(scheduler.cancel_order(&caller, id).await?))
}

async fn retry(
    State(scheduler): State<Scheduler>,
    Caller(caller): Caller,
    Id(id): Id<OrderId>,
) -> Result<Json<OrderView>, ApiError> {
    Ok(Json(scheduler.retry_order(&caller, id).await?))
}

async fn expire(
    State(scheduler): State<Scheduler>,
    Caller(caller): Caller,
    Id(id): Id<OrderId>,
) -> Result<Json<OrderView>, ApiError> {
    Ok(Json(scheduler.expire_order(&caller, id).await?))
}

async fn extend(
    State(scheduler): State<Scheduler>,
    Caller(caller): Caller,
    Id(id): Id<OrderId>,
) -> Result<Json<OrderView>, ApiError> {
    Ok(Json(scheduler.extend_order(&caller, id).await?))
}

async fn ship(
    State(scheduler): State<Scheduler>,
    Caller(caller): Caller,
    Id(id): Id<OrderId>,
    body: Body,
) -> Result<Json<OrderView>, ApiError> {
    caller.must(Action::Ship)?;
    let mut fields = Fields::new(body.json).ok_or_else(not_an_object)?;
    let count = fields.optional("count").map_err(SchedulerError::from)?;
    let tracking = fields.text("tracking", MAX_TRACKING).map_err(SchedulerError::from)?;
    Ok(Json(scheduler.ship_order(&caller, id, count, tracking).await?))
}

async fn anonymise(
    State(scheduler): State<Scheduler>,
    Caller(caller): Caller,
    Id(id): Id<OrderId>,
) -> Result<Json<OrderView>, ApiError> {
    Ok(Json(scheduler.anonymise_order(&caller, id).await?))
}

async fn delete(
    State(scheduler): State<Scheduler>,
    Caller(caller): Caller,
    Id(id): Id<OrderId>,
) -> Result<Json<OrderView>, ApiError> {
    Ok(Json(scheduler.delete_order(&caller, id).await?))
}

async fn explain(
    State(scheduler): State<Scheduler>,
    Caller(caller): Caller,
    Id(id): Id<OrderId>,
) -> Result<Json<Explanation>, ApiError> {
    Ok(Json(scheduler.explain_order(&caller, id)?))
}

async fn images(
    State(scheduler): State<Scheduler>,
    Caller(caller): Caller,
    query: Query,
) -> Result<Json<Page<ImageView>>, ApiError> {
    Ok(Json(scheduler.images(&caller, &query.page()?)?))
}

async fn cards(
    State(scheduler): State<Scheduler>,
    Caller(caller): Caller,
    query: Query,
) -> Result<Json<Page<CardView>>, ApiError> {
    Ok(Json(scheduler.cards(&caller, query.get("order")?, &query.page()?)?))
}

async fn card(
    State(scheduler): State<Scheduler>,
    Caller(caller): Caller,
    Id(uid): Id<ObjectId>,
) -> Result<Json<CardView>, ApiError> {
    Ok(Json(scheduler.card(&caller, uid)?))
}
