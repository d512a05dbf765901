//! `/appliances`, `/join-tokens`, `/join` and `/slots`.

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::{MethodRouter, get, post};
use axum::{Json, Router};
use cardshop_protocol::api::{Join, JoinAnswer, Page, SlotView, SupportFile};
use cardshop_protocol::ids::{ApplianceId, ObjectId, SlotId};
use cardshop_protocol::message::{Action as Reflex, CommandReply};
use data_encoding::BASE64;

use super::caller::{Body, Caller, Id, IdempotencyKey, Query, SlotPath};
use super::error::ApiError;
use crate::core::blame::MAX_SLOT_NAME;
use crate::core::fields::{Fields, InvalidField};
use crate::core::rights::Action;
use crate::core::views::{ApplianceView, JoinTokenView, NewJoinToken, SlotHoldView};
use crate::effects::catalogue::{channel_list, not_an_object};
use crate::{Scheduler, SchedulerError};

/// Longest reason of a hold, characters.
const MAX_REASON: usize = 200;

pub(super) fn routes() -> Router<Scheduler> {
    Router::new()
        .route("/appliances", get(appliances))
        .route("/appliances/{id}", get(appliance))
        .route("/appliances/{id}/approve", post(approve))
        .route("/appliances/{id}/reject", post(reject))
        .route("/appliances/{id}/reboot", post(reboot))
        .route("/appliances/{id}/logs", post(logs))
        .route("/appliances/{id}/update", post(update))
        .route("/appliances/{id}/support", post(support))
        .route("/appliances/{id}/log-level", post(log_level))
        .route("/support", post(take_support))
        .route("/join-tokens", get(join_tokens).post(create_join_token))
        .route("/join-tokens/{id}/revoke", post(revoke_join_token))
        .route("/join", post(join))
        .route("/join/{appliance}", get(join_state))
        .route("/slots", get(slots))
        .route("/slots/{appliance}/{slot}/hold", post(hold_slot))
        .route("/slots/{appliance}/{slot}/resume", post(resume_slot))
        .route("/slots/{appliance}/{slot}/name", post(name_slot))
        .route("/slots/{appliance}/{slot}/identify", reflex(|slot| Reflex::Identify { slot }))
        .route("/slots/{appliance}/{slot}/eject", reflex(|slot| Reflex::Eject { slot }))
        .route("/slots/{appliance}/{slot}/retry", reflex(|slot| Reflex::Retry { slot }))
        .route("/slots/{appliance}/{slot}/release", reflex(|slot| Reflex::Release { slot }))
}

async fn appliances(
    State(scheduler): State<Scheduler>,
    Caller(caller): Caller,
    query: Query,
) -> Result<Json<Page<ApplianceView>>, ApiError> {
    Ok(Json(scheduler.appliances(&caller, &query.page()?)?))
}

async fn appliance(
    State(scheduler): State<Scheduler>,
    Caller(caller): Caller,
    Id(id): Id<ApplianceId>,
) -> Result<Json<ApplianceView>, ApiError> {
    Ok(Json(scheduler.appliance(&caller, id)?))
}

async fn approve(
    State(scheduler): State<Scheduler>,
    Caller(caller): Caller,
    Id(id): Id<ApplianceId>,
    body: Body,
) -> Result<Json<ApplianceView>, ApiError> {
    caller.must(Action::Enrol)?;
    let mut fields = Fields::new(body.json).ok_or_else(not_an_object)?;
    let channels = channel_list(&mut fields, "channels").map_err(SchedulerError::from)?;
    Ok(Json(scheduler.approve_appliance(&caller, id, channels).await?))
}

async fn reject(
    State(scheduler): State<Scheduler>,
    Caller(caller): Caller,
    Id(id): Id<ApplianceId>,
) -> Result<Json<ApplianceView>, ApiError> {
    Ok(Json(scheduler.reject_appliance(&caller, id).await?))
}

async fn join_tokens(
    State(scheduler): State<Scheduler>,
    Caller(caller): Caller,
    query: Query,
) -> Result<Json<Page<JoinTokenView>>, ApiError> {
    Ok(Json(scheduler.join_tokens(&caller, &query.page()?)?))
}

async fn create_join_token(
    State(scheduler): State<Scheduler>,
    Caller(caller): Caller,
    key: IdempotencyKey,
    body: Body,
) -> Result<(StatusCode, Json<NewJoinToken>), ApiError> {
    let once = key.once(&caller, "join-tokens", &body)?;
    let made = scheduler.create_join_token(&caller, body.json, once).await?;
    Ok((StatusCode::CREATED, Json(made)))
}

async fn join(State(scheduler): State<Scheduler>, body: Body) -> Result<Json<JoinAnswer>, ApiError> {
    let join: Join = body.read()?;
    Ok(Json(scheduler.join(&join).await?))
}

async fn join_state(
    State(scheduler): State<Scheduler>,
    Id(id): Id<ApplianceId>,
) -> Result<Json<JoinAnswer>, ApiError> {
    Ok(Json(scheduler.join_state(id)?))
}

async fn hold_slot(
    State(scheduler): State<Scheduler>,
    Caller(caller): Caller,
    SlotPath(appliance, slot): SlotPath,
    body: Body,
) -> Result<Json<SlotHoldView>, ApiError> {
    caller.must(Action::Tend)?;
    let mut fields = Fields::new(body.json).ok_or_else(not_an_object)?;
    let reason = fields.text("reason", MAX_REASON).map_err(SchedulerError::from)?;
    Ok(Json(scheduler.hold_slot(&caller, appliance, slot, reason).await?))
}

async fn resume_slot(
    State(scheduler): State<Scheduler>,
    Caller(caller): Caller,
    SlotPath(appliance, slot): SlotPath,
) -> Result<Json<SlotHoldView>, ApiError> {
    Ok(Json(scheduler.resume_slot(&caller, appliance, slot).await?))
}

async fn name_slot(
    State(scheduler): State<Scheduler>,
    Caller(caller): Caller,
    SlotPath(appliance, slot): SlotPath,
    body: Body,
) -> Result<Json<SlotHoldView>, ApiError> {
    caller.must(Action::Tend)?;
    let mut fields = Fields::new(body.json).ok_or_else(not_an_object)?;
    let name = fields.text("name", MAX_SLOT_NAME).map_err(SchedulerError::from)?;
    Ok(Json(scheduler.name_slot(&caller, appliance, slot, name).await?))
}

/// Has the appliance of a slot do something with it.
fn reflex(of: fn(SlotId) -> Reflex) -> MethodRouter<Scheduler> {
    post(async move |State(scheduler): State<Scheduler>, Caller(caller): Caller, at: SlotPath| {
        let SlotPath(appliance, slot) = at;
        let reply = scheduler.command_slot(&caller, appliance, slot, of).await?;
        Ok::<_, ApiError>(Json(reply))
    })
}

async fn reboot(
    State(scheduler): State<Scheduler>,
    Caller(caller): Caller,
    Id(id): Id<ApplianceId>,
) -> Result<Json<CommandReply>, ApiError> {
    Ok(Json(scheduler.command_appliance(&caller, id, Reflex::Reboot).await?))
}

async fn logs(
    State(scheduler): State<Scheduler>,
    Caller(caller): Caller,
    Id(id): Id<ApplianceId>,
) -> Result<Json<CommandReply>, ApiError> {
    Ok(Json(scheduler.command_appliance(&caller, id, Reflex::Logs).await?))
}

async fn update(
    State(scheduler): State<Scheduler>,
    Caller(caller): Caller,
    Id(id): Id<ApplianceId>,
) -> Result<Json<CommandReply>, ApiError> {
    Ok(Json(scheduler.command_appliance(&caller, id, Reflex::Update).await?))
}

/// A tar.gz: it begins with the answer, not with a page.
async fn support(
    State(scheduler): State<Scheduler>,
    Caller(caller): Caller,
    Id(id): Id<ApplianceId>,
) -> Result<impl IntoResponse, ApiError> {
    let bundle = scheduler.support(&caller, id).await?;
    let name = format!("attachment; filename=\"support-{id}.tar.gz\"");
    Ok(([(header::CONTENT_TYPE, "application/gzip".to_owned()), (header::CONTENT_DISPOSITION, name)], bundle))
}

async fn take_support(
    State(scheduler): State<Scheduler>,
    Caller(caller): Caller,
    body: Body,
) -> Result<Json<serde_json::Value>, ApiError> {
    caller.must(Action::Log)?;
    let SupportFile { command, bundle } = body.read()?;
    let bundle = BASE64.decode(bundle.as_bytes()).map_err(|_| InvalidField::new("bundle", "is not base64"));
    scheduler.take_support(&caller, command, bundle.map_err(SchedulerError::from)?)?;
    Ok(Json(serde_json::json!({})))
}

async fn log_level(
    State(scheduler): State<Scheduler>,
    Caller(caller): Caller,
    Id(id): Id<ApplianceId>,
    body: Body,
) -> Result<Json<CommandReply>, ApiError> {
    caller.must(Action::Tend)?;
    let mut fields = Fields::new(body.json).ok_or_else(not_an_object)?;
    let level = fields.text("level", MAX_REASON).map_err(SchedulerError::from)?.unwrap_or_default();
    Ok(Json(scheduler.command_appliance(&caller, id, Reflex::LogLevel { level }).await?))
}

async fn slots(
    State(scheduler): State<Scheduler>,
    Caller(caller): Caller,
    query: Query,
) -> Result<Json<Page<SlotView>>, ApiError> {
    Ok(Json(scheduler.slots(&caller, &query.page()?)?))
}

async fn revoke_join_token(
    State(scheduler): State<Scheduler>,
    Caller(caller): Caller,
    Id(id): Id<ObjectId>,
) -> Result<Json<JoinTokenView>, ApiError> {
    Ok(Json(scheduler.revoke_join_token(&caller, id).await?))
}
