//! `/configurations`: what cards are made from.

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use cardshop_protocol::api::Page;
use cardshop_protocol::ids::ObjectId;

use super::caller::{Body, Caller, Id, IdempotencyKey, Query};
use super::error::ApiError;
use crate::Scheduler;
use crate::core::configurations::{ConfigurationView, ExportedConfiguration, SizeView};

pub(super) fn routes() -> Router<Scheduler> {
    Router::new()
        .route("/configurations", get(list).post(create))
        .route("/configurations/import", post(import))
        .route("/configurations/{id}", get(one))
        .route("/configurations/{id}/update", post(update))
        .route("/configurations/{id}/duplicate", post(duplicate))
        .route("/configurations/{id}/delete", post(delete))
        .route("/configurations/{id}/export", get(export))
        .route("/configurations/{id}/size", get(size))
}

async fn list(
    State(scheduler): State<Scheduler>,
    Caller(caller): Caller,
    query: Query,
) -> Result<Json<Page<ConfigurationView>>, ApiError> {
    Ok(Json(scheduler.configurations(&caller, &query.page()?)?))
}

async fn create(
    State(scheduler): State<Scheduler>,
    Caller(caller): Caller,
    key: IdempotencyKey,
    body: Body,
) -> Result<(StatusCode, Json<ConfigurationView>), ApiError> {
    let once = key.once(&caller, "configurations", &body)?;
    let made = scheduler.create_configuration(&caller, body.json, once).await?;
    Ok((StatusCode::CREATED, Json(made)))
}

async fn import(
    State(scheduler): State<Scheduler>,
    Caller(caller): Caller,
    key: IdempotencyKey,
    body: Body,
) -> Result<(StatusCode, Json<ConfigurationView>), ApiError> {
    let once = key.once(&caller, "configurations/import", &body)?;
    let made = scheduler.import_configuration(&caller, body.json, once).await?;
    Ok((StatusCode::CREATED, Json(made)))
}

async fn one(
    State(scheduler): State<Scheduler>,
    Caller(caller): Caller,
    Id(id): Id<ObjectId>,
) -> Result<Json<ConfigurationView>, ApiError> {
    Ok(Json(scheduler.configuration(&caller, id)?))
}

async fn update(
    State(scheduler): State<Scheduler>,
    Caller(caller): Caller,
    Id(id): Id<ObjectId>,
    body: Body,
) -> Result<Json<ConfigurationView>, ApiError> {
    Ok(Json(scheduler.update_configuration(&caller, id, body.json).await?))
}

async fn duplicate(
    State(scheduler): State<Scheduler>,
    Caller(caller): Caller,
    Id(id): Id<ObjectId>,
    key: IdempotencyKey,
    body: Body,
) -> Result<(StatusCode, Json<ConfigurationView>), ApiError> {
    let once = key.once(&caller, &format!("configurations/{id}/duplicate"), &body)?;
    let made = scheduler.duplicate_configuration(&caller, id, body.json, once).await?;
    Ok((StatusCode::CREATED, Json(made)))
}

async fn delete(
    State(scheduler): State<Scheduler>,
    Caller(caller): Caller,
    Id(id): Id<ObjectId>,
) -> Result<Json<ConfigurationView>, ApiError> {
    Ok(Json(scheduler.delete_configuration(&caller, id).await?))
}

async fn export(
    State(scheduler): State<Scheduler>,
    Caller(caller): Caller,
    Id(id): Id<ObjectId>,
    query: Query,
) -> Result<Json<ExportedConfiguration>, ApiError> {
    let secrets = query.get("secrets")?.unwrap_or(false);
    Ok(Json(scheduler.export_configuration(&caller, id, secrets)?))
}

async fn size(
    State(scheduler): State<Scheduler>,
    Caller(caller): Caller,
    Id(id): Id<ObjectId>,
) -> Result<Json<SizeView>, ApiError> {
    Ok(Json(scheduler.configuration_size(&caller, id)?))
}
