//! `/tasks`: creators claim and report, people look.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use cardshop_protocol::api::{Claim, CreationReport, Page, ReportAnswer};
use cardshop_protocol::ids::TaskId;

use super::caller::{Body, Caller, Id, Query};
use super::error::ApiError;
use crate::Scheduler;
use crate::core::views::TaskView;

pub(super) fn routes() -> Router<Scheduler> {
    Router::new()
        .route("/tasks", get(tasks))
        .route("/tasks/claim", post(claim))
        .route("/tasks/{id}/report", post(report))
}

async fn tasks(
    State(scheduler): State<Scheduler>,
    Caller(caller): Caller,
    query: Query,
) -> Result<Json<Page<TaskView>>, ApiError> {
    Ok(Json(scheduler.tasks(&caller, query.get("order")?, &query.page()?)?))
}

async fn claim(
    State(scheduler): State<Scheduler>,
    Caller(caller): Caller,
    body: Body,
) -> Result<Response, ApiError> {
    let claim: Claim = body.read()?;
    Ok(match scheduler.claim_task(&caller, claim.wait_s).await? {
        Some(task) => Json(task).into_response(),
        None => StatusCode::NO_CONTENT.into_response(),
    })
}

async fn report(
    State(scheduler): State<Scheduler>,
    Caller(caller): Caller,
    Id(task): Id<TaskId>,
    body: Body,
) -> Result<Json<ReportAnswer>, ApiError> {
    let report: CreationReport = body.read()?;
    Ok(Json(scheduler.report_task(&caller, task, report).await?))
}
