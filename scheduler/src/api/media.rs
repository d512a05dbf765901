//! `/media`, the cards that are sold, and `/content`, what can be put on them.

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use cardshop_protocol::api::Page;
use cardshop_protocol::ids::ObjectId;
use serde_json::Value;

use super::caller::{Body, Caller, Id, IdempotencyKey, Query};
use super::error::ApiError;
use crate::Scheduler;
use crate::core::content::{ContentFilter, ContentOrder, ContentView};
use crate::core::documents::Media;
use crate::core::media::Measured;

pub(super) fn routes() -> Router<Scheduler> {
    Router::new()
        .route("/media", get(list).post(create))
        .route("/media/{id}/update", post(update))
        .route("/media/{id}/delete", post(delete))
        .route("/media/{id}/measured", get(measured))
        .route("/content", get(content))
}

async fn list(
    State(scheduler): State<Scheduler>,
    Caller(caller): Caller,
    query: Query,
) -> Result<Json<Page<Media>>, ApiError> {
    Ok(Json(scheduler.media(&caller, &query.page()?)?))
}

async fn create(
    State(scheduler): State<Scheduler>,
    Caller(caller): Caller,
    key: IdempotencyKey,
    body: Body,
) -> Result<(StatusCode, Json<Media>), ApiError> {
    let once = key.once(&caller, "media", &body)?;
    let made = scheduler.create_media(&caller, body.json, once).await?;
    Ok((StatusCode::CREATED, Json(made)))
}

async fn update(
    State(scheduler): State<Scheduler>,
    Caller(caller): Caller,
    Id(id): Id<ObjectId>,
    body: Body,
) -> Result<Json<Media>, ApiError> {
    Ok(Json(scheduler.update_media(&caller, id, body.json).await?))
}

async fn delete(
    State(scheduler): State<Scheduler>,
    Caller(caller): Caller,
    Id(id): Id<ObjectId>,
) -> Result<Json<Media>, ApiError> {
    Ok(Json(scheduler.delete_media(&caller, id).await?))
}

async fn measured(
    State(scheduler): State<Scheduler>,
    Caller(caller): Caller,
    Id(id): Id<ObjectId>,
) -> Result<Json<Measured>, ApiError> {
    Ok(Json(scheduler.measure_media(&caller, id)?))
}

async fn content(
    State(scheduler): State<Scheduler>,
    Caller(caller): Caller,
    query: Query,
) -> Result<Json<Page<ContentView>>, ApiError> {
    let order = match query.get::<String>("sort")? {
        None => ContentOrder::default(),
        Some(text) => serde_json::from_value(Value::String(text))
            .map_err(|_| ApiError::bad_body("query parameter sort: must be title, size or updated"))?,
    };
    let search = query.get("search")?.unwrap_or_default();
    let language = query.get("language")?.unwrap_or_default();
    let filter = ContentFilter { search, language, only: Vec::new(), order };
    Ok(Json(scheduler.content(&caller, &filter, &query.page()?)?))
}
