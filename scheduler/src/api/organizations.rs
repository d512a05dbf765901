//! `/organizations`: who pays for orders, and their units.

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use cardshop_protocol::api::Page;
use cardshop_protocol::ids::ObjectId;

use super::caller::{Body, Caller, Id, IdempotencyKey, Query};
use super::error::ApiError;
use crate::Scheduler;
use crate::core::units::Organization;

pub(super) fn routes() -> Router<Scheduler> {
    Router::new()
        .route("/organizations", get(list).post(create))
        .route("/organizations/{id}", get(one))
        .route("/organizations/{id}/update", post(update))
        .route("/organizations/{id}/delete", post(delete))
        .route("/organizations/{id}/units", post(add_units))
}

async fn list(
    State(scheduler): State<Scheduler>,
    Caller(caller): Caller,
    query: Query,
) -> Result<Json<Page<Organization>>, ApiError> {
    Ok(Json(scheduler.organizations(&caller, &query.page()?)?))
}

async fn create(
    State(scheduler): State<Scheduler>,
    Caller(caller): Caller,
    key: IdempotencyKey,
    body: Body,
) -> Result<(StatusCode, Json<Organization>), ApiError> {
    let once = key.once(&caller, "organizations", &body)?;
    let made = scheduler.create_organization(&caller, body.json, once).await?;
    Ok((StatusCode::CREATED, Json(made)))
}

async fn add_units(
    State(scheduler): State<Scheduler>,
    Caller(caller): Caller,
    Id(id): Id<ObjectId>,
    key: IdempotencyKey,
    body: Body,
) -> Result<Json<Organization>, ApiError> {
    let once = key.once(&caller, &format!("units {id}"), &body)?;
    Ok(Json(scheduler.add_units(&caller, id, body.json, once).await?))
}

async fn one(
    State(scheduler): State<Scheduler>,
    Caller(caller): Caller,
    Id(id): Id<ObjectId>,
) -> Result<Json<Organization>, ApiError> {
    Ok(Json(scheduler.organization(&caller, id)?))
}

async fn update(
    State(scheduler): State<Scheduler>,
    Caller(caller): Caller,
    Id(id): Id<ObjectId>,
    body: Body,
) -> Result<Json<Organization>, ApiError> {
    Ok(Json(scheduler.update_organization(&caller, id, body.json).await?))
}

async fn delete(
    State(scheduler): State<Scheduler>,
    Caller(caller): Caller,
    Id(id): Id<ObjectId>,
) -> Result<Json<Organization>, ApiError> {
    Ok(Json(scheduler.delete_organization(&caller, id).await?))
}
