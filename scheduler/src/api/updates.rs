//! `/updates`: versions of the appliances, rolled out.

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use cardshop_protocol::api::Page;
use cardshop_protocol::ids::ObjectId;

use super::caller::{Body, Caller, Id, Query};
use super::error::ApiError;
use crate::Scheduler;
use crate::core::rollout::{NewRollout, RolloutState, RolloutView};

pub(super) fn routes() -> Router<Scheduler> {
    Router::new()
        .route("/updates", get(list).post(create))
        .route("/updates/{id}/pause", post(pause))
        .route("/updates/{id}/resume", post(resume))
        .route("/updates/{id}/stop", post(stop))
}

async fn list(
    State(scheduler): State<Scheduler>,
    Caller(caller): Caller,
    query: Query,
) -> Result<Json<Page<RolloutView>>, ApiError> {
    Ok(Json(scheduler.updates(&caller, &query.page()?)?))
}

async fn create(
    State(scheduler): State<Scheduler>,
    Caller(caller): Caller,
    body: Body,
) -> Result<(StatusCode, Json<NewRollout>), ApiError> {
    Ok((StatusCode::CREATED, Json(scheduler.create_update(&caller, body.json).await?)))
}

async fn pause(
    State(scheduler): State<Scheduler>,
    Caller(caller): Caller,
    Id(id): Id<ObjectId>,
) -> Result<Json<RolloutView>, ApiError> {
    Ok(Json(scheduler.change_update(&caller, id, RolloutState::Paused).await?))
}

async fn resume(
    State(scheduler): State<Scheduler>,
    Caller(caller): Caller,
    Id(id): Id<ObjectId>,
) -> Result<Json<RolloutView>, ApiError> {
    Ok(Json(scheduler.change_update(&caller, id, RolloutState::Running).await?))
}

async fn stop(
    State(scheduler): State<Scheduler>,
    Caller(caller): Caller,
    Id(id): Id<ObjectId>,
) -> Result<Json<RolloutView>, ApiError> {
    Ok(Json(scheduler.change_update(&caller, id, RolloutState::Stopped).await?))
}
