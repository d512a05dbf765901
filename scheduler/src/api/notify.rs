//! `/messages`, `/webhooks`, `/templates` and what people said about the messages they get.

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use cardshop_protocol::api::Page;
use cardshop_protocol::ids::ObjectId;

use super::caller::{Body, Caller, Id, Names, Query};
use super::error::ApiError;
use crate::core::notify::{MessageView, NewWebhook, PreferencesView, Preview, TemplateView, WebhookView};
use crate::{Scheduler, SchedulerError};

pub(super) fn routes() -> Router<Scheduler> {
    Router::new()
        .route("/messages", get(messages))
        .route("/messages/test", post(test_mail))
        .route("/messages/{id}/send", post(send))
        .route("/webhooks", get(webhooks).post(create_webhook))
        .route("/webhooks/{id}/delete", post(delete_webhook))
        .route("/webhooks/{id}/test", post(test_webhook))
        .route("/webhooks/{id}/deliveries", get(deliveries))
        .route("/webhooks/{id}/deliveries/{message}/send", post(deliver))
        .route("/templates", get(templates))
        .route("/templates/{event}/{language}", post(set_template))
        .route("/templates/{event}/{language}/reset", post(reset_template))
        .route("/templates/{event}/{language}/preview", post(preview_template))
        .route("/templates/{event}/{language}/test", post(test_template))
        .route("/me/notifications", get(own).post(set_own))
        .route("/users/{id}/notifications", get(of_user).post(set_of_user))
}

async fn messages(
    State(scheduler): State<Scheduler>,
    Caller(caller): Caller,
    query: Query,
) -> Result<Json<Page<MessageView>>, ApiError> {
    let state: Option<String> = query.get("state")?;
    Ok(Json(scheduler.messages(&caller, query.get("order")?, state.as_deref(), &query.page()?)?))
}

async fn test_mail(
    State(scheduler): State<Scheduler>,
    Caller(caller): Caller,
    body: Body,
) -> Result<Json<MessageView>, ApiError> {
    Ok(Json(scheduler.test_mail(&caller, body.json).await?))
}

async fn send(
    State(scheduler): State<Scheduler>,
    Caller(caller): Caller,
    Id(id): Id<ObjectId>,
) -> Result<Json<MessageView>, ApiError> {
    Ok(Json(scheduler.send_again(&caller, id).await?))
}

async fn webhooks(
    State(scheduler): State<Scheduler>,
    Caller(caller): Caller,
    query: Query,
) -> Result<Json<Page<WebhookView>>, ApiError> {
    Ok(Json(scheduler.webhooks(&caller, &query.page()?)?))
}

async fn create_webhook(
    State(scheduler): State<Scheduler>,
    Caller(caller): Caller,
    body: Body,
) -> Result<(StatusCode, Json<NewWebhook>), ApiError> {
    Ok((StatusCode::CREATED, Json(scheduler.create_webhook(&caller, body.json).await?)))
}

async fn delete_webhook(
    State(scheduler): State<Scheduler>,
    Caller(caller): Caller,
    Id(id): Id<ObjectId>,
) -> Result<Json<WebhookView>, ApiError> {
    Ok(Json(scheduler.delete_webhook(&caller, id).await?))
}

async fn test_webhook(
    State(scheduler): State<Scheduler>,
    Caller(caller): Caller,
    Id(id): Id<ObjectId>,
) -> Result<Json<MessageView>, ApiError> {
    Ok(Json(scheduler.test_webhook(&caller, id).await?))
}

async fn deliveries(
    State(scheduler): State<Scheduler>,
    Caller(caller): Caller,
    Id(id): Id<ObjectId>,
    query: Query,
) -> Result<Json<Page<MessageView>>, ApiError> {
    Ok(Json(scheduler.deliveries(&caller, id, &query.page()?)?))
}

async fn deliver(
    State(scheduler): State<Scheduler>,
    Caller(caller): Caller,
    Names(id, message): Names,
) -> Result<Json<MessageView>, ApiError> {
    let id = id.parse().map_err(|_| SchedulerError::NotFound("webhook"))?;
    let message = message.parse().map_err(|_| SchedulerError::NotFound("message"))?;
    Ok(Json(scheduler.deliver_again(&caller, id, message).await?))
}

async fn templates(
    State(scheduler): State<Scheduler>,
    Caller(caller): Caller,
) -> Result<Json<Page<TemplateView>>, ApiError> {
    Ok(Json(scheduler.templates(&caller)?))
}

async fn set_template(
    State(scheduler): State<Scheduler>,
    Caller(caller): Caller,
    Names(event, language): Names,
    body: Body,
) -> Result<Json<TemplateView>, ApiError> {
    Ok(Json(scheduler.set_template(&caller, &event, &language, body.json).await?))
}

async fn reset_template(
    State(scheduler): State<Scheduler>,
    Caller(caller): Caller,
    Names(event, language): Names,
) -> Result<Json<TemplateView>, ApiError> {
    Ok(Json(scheduler.reset_template(&caller, &event, &language).await?))
}

async fn preview_template(
    State(scheduler): State<Scheduler>,
    Caller(caller): Caller,
    Names(event, language): Names,
    body: Body,
) -> Result<Json<Preview>, ApiError> {
    Ok(Json(scheduler.preview_template(&caller, &event, &language, body.json)?))
}

async fn test_template(
    State(scheduler): State<Scheduler>,
    Caller(caller): Caller,
    Names(event, language): Names,
    body: Body,
) -> Result<Json<MessageView>, ApiError> {
    Ok(Json(scheduler.test_template(&caller, &event, &language, body.json).await?))
}

async fn own(
    State(scheduler): State<Scheduler>,
    Caller(caller): Caller,
) -> Result<Json<PreferencesView>, ApiError> {
    Ok(Json(scheduler.own_preferences(&caller)?))
}

async fn set_own(
    State(scheduler): State<Scheduler>,
    Caller(caller): Caller,
    body: Body,
) -> Result<Json<PreferencesView>, ApiError> {
    Ok(Json(scheduler.set_own_preferences(&caller, body.json).await?))
}

async fn of_user(
    State(scheduler): State<Scheduler>,
    Caller(caller): Caller,
    Id(id): Id<ObjectId>,
) -> Result<Json<PreferencesView>, ApiError> {
    Ok(Json(scheduler.user_preferences(&caller, id)?))
}

async fn set_of_user(
    State(scheduler): State<Scheduler>,
    Caller(caller): Caller,
    Id(id): Id<ObjectId>,
    body: Body,
) -> Result<Json<PreferencesView>, ApiError> {
    Ok(Json(scheduler.set_user_preferences(&caller, id, body.json).await?))
}
