//! `/me/sessions` and `/me/delete`: what people do with their own account. Changes ask for the password again.

use axum::extract::State;
use axum::routing::{get, post};
use axum::{Json, Router};
use cardshop_protocol::api::Page;

use super::caller::{Body, Caller};
use super::error::ApiError;
use crate::Scheduler;
use crate::core::views::UserView;
use crate::core::web_session::SessionView;

pub(super) fn routes() -> Router<Scheduler> {
    Router::new()
        .route("/me/sessions", get(sessions))
        .route("/me/sessions/end", post(end_all))
        .route("/me/delete", post(delete))
}

async fn sessions(
    State(scheduler): State<Scheduler>,
    Caller(caller): Caller,
) -> Result<Json<Page<SessionView>>, ApiError> {
    Ok(Json(scheduler.sessions(&caller)?))
}

async fn end_all(
    State(scheduler): State<Scheduler>,
    Caller(caller): Caller,
    body: Body,
) -> Result<Json<UserView>, ApiError> {
    Ok(Json(scheduler.end_all_sessions(&caller, body.json).await?))
}

async fn delete(
    State(scheduler): State<Scheduler>,
    Caller(caller): Caller,
    body: Body,
) -> Result<Json<UserView>, ApiError> {
    Ok(Json(scheduler.delete_own_account(&caller, body.json).await?))
}
