//! Links that do one thing to one order. The token is in the body, so that no log of addresses has it, and only POST acts.

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use axum::{Json, Router};
use cardshop_protocol::ids::OrderId;

use super::caller::{Address, Body, Caller, Id};
use super::error::ApiError;
use super::orders::MAX_TRACKING;
use crate::core::fields::InvalidField;
use crate::core::rights::Action;
use crate::core::views::{ActionLink, ActionLinkView, LinkToken, OrderView, UseLink};
use crate::{Scheduler, SchedulerError};

pub(super) fn routes() -> Router<Scheduler> {
    Router::new()
        .route("/orders/{id}/action-links", post(make))
        .route("/action-links/look", post(look))
        .route("/action-links/use", post(act))
}

async fn make(
    State(scheduler): State<Scheduler>,
    Caller(caller): Caller,
    Id(order): Id<OrderId>,
    body: Body,
) -> Result<(StatusCode, Json<ActionLink>), ApiError> {
    // Whose order it is matters before what is asked of it.
    caller.must(Action::Ship)?;
    scheduler.order(&caller, order)?;
    let made = scheduler.make_action_link(&caller, order, body.read()?).await?;
    Ok((StatusCode::CREATED, Json(made)))
}

async fn look(State(scheduler): State<Scheduler>, body: Body) -> Result<Json<ActionLinkView>, ApiError> {
    let link: LinkToken = body.read()?;
    Ok(Json(scheduler.look_at_action_link(&link.token)?))
}

async fn act(
    State(scheduler): State<Scheduler>,
    Address(address): Address,
    body: Body,
) -> Result<Json<OrderView>, ApiError> {
    let link: UseLink = body.read()?;
    let tracking = link.tracking.as_deref().map(str::trim).filter(|t| !t.is_empty());
    if tracking.is_some_and(|t| t.chars().count() > MAX_TRACKING || t.chars().any(char::is_control)) {
        let reason = format!("must have at most {MAX_TRACKING} characters, none of them control characters");
        return Err(SchedulerError::from(InvalidField::new("tracking", reason)).into());
    }
    Ok(Json(scheduler.use_action_link(&link.token, tracking.map(str::to_owned), &address).await?))
}
