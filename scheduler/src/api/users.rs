//! `/users`: people and creators.

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use cardshop_protocol::api::Page;
use cardshop_protocol::ids::ObjectId;

use super::caller::{Body, Caller, Id, IdempotencyKey, Query};
use super::error::ApiError;
use crate::core::fields::Fields;
use crate::core::rights::{Action, Principal};
use crate::core::views::{ActionLink, UserView};
use crate::effects::catalogue::not_an_object;
use crate::{NewUser, Scheduler};

pub(super) fn routes() -> Router<Scheduler> {
    Router::new()
        .route("/me", get(me))
        .route("/users", get(users).post(create))
        .route("/me/password", post(change_password))
        .route("/users/{id}", get(one))
        .route("/users/{id}/update", post(update))
        .route("/users/{id}/disable", post(disable))
        .route("/users/{id}/enable", post(enable))
        .route("/users/{id}/password", post(reset_password))
        .route("/users/{id}/expiry", post(expire))
        .route("/users/{id}/invite", post(invite))
        .route("/users/{id}/reset", post(reset))
        .route("/users/{id}/anonymise", post(anonymise))
}

async fn me(Caller(caller): Caller) -> Json<Principal> {
    Json(caller)
}

async fn users(
    State(scheduler): State<Scheduler>,
    Caller(caller): Caller,
    query: Query,
) -> Result<Json<Page<UserView>>, ApiError> {
    Ok(Json(scheduler.users(&caller, &query.page()?)?))
}

async fn create(
    State(scheduler): State<Scheduler>,
    Caller(caller): Caller,
    key: IdempotencyKey,
    body: Body,
) -> Result<(StatusCode, Json<UserView>), ApiError> {
    caller.must(Action::Administer)?;
    let once = key.once(&caller, "users", &body)?;
    let fields = Fields::new(body.json).ok_or_else(not_an_object)?;
    let new = NewUser::read(fields).map_err(crate::SchedulerError::from)?;
    let made = scheduler.create_user(&caller, new, once).await?;
    Ok((StatusCode::CREATED, Json(made)))
}

async fn change_password(
    State(scheduler): State<Scheduler>,
    Caller(caller): Caller,
    body: Body,
) -> Result<Json<UserView>, ApiError> {
    let mut fields = Fields::new(body.json).ok_or_else(not_an_object)?;
    let old: String = fields.required("old").map_err(crate::SchedulerError::from)?;
    let new = fields.required("new").map_err(crate::SchedulerError::from)?;
    Ok(Json(scheduler.change_password(&caller, &old, new).await?))
}

async fn reset_password(
    State(scheduler): State<Scheduler>,
    Caller(caller): Caller,
    Id(id): Id<ObjectId>,
    body: Body,
) -> Result<Json<UserView>, ApiError> {
    caller.must(Action::Administer)?;
    let mut fields = Fields::new(body.json).ok_or_else(not_an_object)?;
    let password = fields.required("password").map_err(crate::SchedulerError::from)?;
    Ok(Json(scheduler.reset_password(&caller, id, password).await?))
}

async fn expire(
    State(scheduler): State<Scheduler>,
    Caller(caller): Caller,
    Id(id): Id<ObjectId>,
    body: Body,
) -> Result<Json<UserView>, ApiError> {
    caller.must(Action::Administer)?;
    let mut fields = Fields::new(body.json).ok_or_else(not_an_object)?;
    let expires = fields.optional("expires").map_err(crate::SchedulerError::from)?;
    Ok(Json(scheduler.expire_user(&caller, id, expires).await?))
}

async fn invite(
    State(scheduler): State<Scheduler>,
    Caller(caller): Caller,
    Id(id): Id<ObjectId>,
) -> Result<Json<ActionLink>, ApiError> {
    Ok(Json(scheduler.password_link(&caller, id, true).await?))
}

async fn reset(
    State(scheduler): State<Scheduler>,
    Caller(caller): Caller,
    Id(id): Id<ObjectId>,
) -> Result<Json<ActionLink>, ApiError> {
    Ok(Json(scheduler.password_link(&caller, id, false).await?))
}

async fn anonymise(
    State(scheduler): State<Scheduler>,
    Caller(caller): Caller,
    Id(id): Id<ObjectId>,
) -> Result<Json<UserView>, ApiError> {
    Ok(Json(scheduler.anonymise_user(&caller, id).await?))
}

async fn enable(
    State(scheduler): State<Scheduler>,
    Caller(caller): Caller,
    Id(id): Id<ObjectId>,
) -> Result<Json<UserView>, ApiError> {
    Ok(Json(scheduler.enable_user(&caller, id).await?))
}

async fn disable(
    State(scheduler): State<Scheduler>,
    Caller(caller): Caller,
    Id(id): Id<ObjectId>,
) -> Result<Json<UserView>, ApiError> {
    Ok(Json(scheduler.disable_user(&caller, id).await?))
}

async fn one(
    State(scheduler): State<Scheduler>,
    Caller(caller): Caller,
    Id(id): Id<ObjectId>,
) -> Result<Json<UserView>, ApiError> {
    Ok(Json(scheduler.user(&caller, id)?))
}

async fn update(
    State(scheduler): State<Scheduler>,
    Caller(caller): Caller,
    Id(id): Id<ObjectId>,
    body: Body,
) -> Result<Json<UserView>, ApiError> {
    Ok(Json(scheduler.update_user(&caller, id, body.json).await?))
}
