//! `/auto-images`: images that are made anew on a schedule; `/auto/{name}`: where they are served by a name that stays.

use axum::extract::{FromRequestParts, State};
use axum::http::request::Parts;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use cardshop_protocol::api::Page;
use cardshop_protocol::ids::{Channel, ObjectId};

use super::caller::{Body, Caller, Id, IdempotencyKey, Query};
use super::error::ApiError;
use crate::core::auto_image::AutoImageView;
use crate::core::rights::Principal;
use crate::{Scheduler, SchedulerError};

pub(super) fn routes() -> Router<Scheduler> {
    Router::new()
        .route("/auto-images", get(list).post(create))
        .route("/auto-images/{id}", get(one))
        .route("/auto-images/{id}/update", post(update))
        .route("/auto-images/{id}/trigger", post(trigger))
        .route("/auto-images/{id}/delete", post(delete))
        .route("/auto/{name}", get(served))
        .route("/auto/{name}/image", get(image))
}

/// Who calls, if a token says so.
struct Anybody(Option<Principal>);

impl FromRequestParts<Scheduler> for Anybody {
    type Rejection = std::convert::Infallible;
    async fn from_request_parts(parts: &mut Parts, scheduler: &Scheduler) -> Result<Self, Self::Rejection> {
        let caller = Caller::from_request_parts(parts, scheduler).await;
        Ok(Self(caller.ok().map(|caller| caller.0)))
    }
}

async fn list(
    State(scheduler): State<Scheduler>,
    Caller(caller): Caller,
    query: Query,
) -> Result<Json<Page<AutoImageView>>, ApiError> {
    Ok(Json(scheduler.auto_images(&caller, &query.page()?)?))
}

async fn create(
    State(scheduler): State<Scheduler>,
    Caller(caller): Caller,
    key: IdempotencyKey,
    body: Body,
) -> Result<(StatusCode, Json<AutoImageView>), ApiError> {
    let once = key.once(&caller, "auto-images", &body)?;
    let made = scheduler.create_auto_image(&caller, body.json, once).await?;
    Ok((StatusCode::CREATED, Json(made)))
}

async fn one(
    State(scheduler): State<Scheduler>,
    Caller(caller): Caller,
    Id(id): Id<ObjectId>,
) -> Result<Json<AutoImageView>, ApiError> {
    Ok(Json(scheduler.auto_image(&caller, id)?))
}

async fn update(
    State(scheduler): State<Scheduler>,
    Caller(caller): Caller,
    Id(id): Id<ObjectId>,
    body: Body,
) -> Result<Json<AutoImageView>, ApiError> {
    Ok(Json(scheduler.update_auto_image(&caller, id, body.json).await?))
}

async fn trigger(
    State(scheduler): State<Scheduler>,
    Caller(caller): Caller,
    Id(id): Id<ObjectId>,
) -> Result<Json<AutoImageView>, ApiError> {
    Ok(Json(scheduler.trigger_auto_image(&caller, id).await?))
}

async fn delete(
    State(scheduler): State<Scheduler>,
    Caller(caller): Caller,
    Id(id): Id<ObjectId>,
) -> Result<Json<AutoImageView>, ApiError> {
    Ok(Json(scheduler.delete_auto_image(&caller, id).await?))
}

async fn served(
    State(scheduler): State<Scheduler>,
    Anybody(caller): Anybody,
    Id(name): Id<Channel>,
) -> Result<Json<AutoImageView>, ApiError> {
    Ok(Json(scheduler.served_auto_image(caller.as_ref(), &name)?))
}

/// To where it is downloaded now. The address changes with every build, so nobody may remember it.
async fn image(
    State(scheduler): State<Scheduler>,
    Anybody(caller): Anybody,
    Id(name): Id<Channel>,
) -> Result<Response, ApiError> {
    let served = scheduler.served_auto_image(caller.as_ref(), &name)?;
    let link = served.link.ok_or(SchedulerError::NotFound("image"))?;
    let headers = [(header::LOCATION, link), (header::CACHE_CONTROL, "no-store".to_owned())];
    Ok((StatusCode::TEMPORARY_REDIRECT, headers).into_response())
}
