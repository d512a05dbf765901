//! What the site is doing: `/load`, `/presence`, `/jobs`, `/maintenance`, and the logs of tasks.

use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use cardshop_protocol::api::Page;
use cardshop_protocol::ids::{OrderId, TaskId};

use super::caller::{Body, Caller, Id, LogPath};
use super::error::ApiError;
use crate::Scheduler;
use crate::core::documents::Maintenance;
use crate::core::estimate::Estimate;
use crate::core::rights::Action;
use crate::core::views::{LoadView, LogView, PresenceView};
use crate::effects::jobs::JobView;

pub(super) fn routes() -> Router<Scheduler> {
    Router::new()
        .route("/load", get(load))
        .route("/orders/{id}/estimate", get(estimate))
        .route("/presence", get(presence))
        .route("/jobs", get(jobs))
        .route("/jobs/{id}/run", post(run_job))
        .route("/maintenance", get(maintenance).post(set_maintenance))
        .route("/tasks/{id}/log", post(append))
        .route("/tasks/{id}/logs", get(logs))
        .route("/tasks/{id}/logs/{kind}", get(log))
}

async fn load(
    State(scheduler): State<Scheduler>,
    Caller(caller): Caller,
) -> Result<Json<LoadView>, ApiError> {
    Ok(Json(scheduler.load(&caller)?))
}

async fn estimate(
    State(scheduler): State<Scheduler>,
    Caller(caller): Caller,
    Id(id): Id<OrderId>,
) -> Result<Json<Estimate>, ApiError> {
    Ok(Json(scheduler.estimate_order(&caller, id)?))
}

async fn presence(
    State(scheduler): State<Scheduler>,
    Caller(caller): Caller,
) -> Result<Json<Page<PresenceView>>, ApiError> {
    Ok(Json(scheduler.presence(&caller)?))
}

async fn jobs(
    State(scheduler): State<Scheduler>,
    Caller(caller): Caller,
) -> Result<Json<Page<JobView>>, ApiError> {
    Ok(Json(scheduler.jobs(&caller)?))
}

async fn run_job(
    State(scheduler): State<Scheduler>,
    Caller(caller): Caller,
    Id(name): Id<String>,
) -> Result<Json<JobView>, ApiError> {
    Ok(Json(scheduler.run_job(&caller, &name).await?))
}

async fn maintenance(
    State(scheduler): State<Scheduler>,
    Caller(_): Caller,
) -> Result<Json<Maintenance>, ApiError> {
    Ok(Json(scheduler.maintenance()?))
}

async fn set_maintenance(
    State(scheduler): State<Scheduler>,
    Caller(caller): Caller,
    body: Body,
) -> Result<Json<Maintenance>, ApiError> {
    Ok(Json(scheduler.set_maintenance(&caller, body.json).await?))
}

async fn append(
    State(scheduler): State<Scheduler>,
    Caller(caller): Caller,
    Id(task): Id<TaskId>,
    body: Body,
) -> Result<Json<LogView>, ApiError> {
    caller.must(Action::Log)?;
    scheduler.order_of(&caller, task.order)?;
    Ok(Json(scheduler.append_log(&caller, task, &body.read()?).await?))
}

async fn logs(
    State(scheduler): State<Scheduler>,
    Caller(caller): Caller,
    Id(task): Id<TaskId>,
) -> Result<Json<Page<LogView>>, ApiError> {
    Ok(Json(scheduler.task_logs(&caller, task)?))
}

async fn log(
    State(scheduler): State<Scheduler>,
    Caller(caller): Caller,
    LogPath(task, kind): LogPath,
) -> Result<Response, ApiError> {
    let text = scheduler.task_log(&caller, task, kind)?;
    Ok(([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], text).into_response())
}
