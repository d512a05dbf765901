//! Papers: the slip of an order, labels of cards and slots.

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use cardshop_protocol::ids::{ApplianceId, ObjectId, OrderId};

use super::caller::{Caller, Id, Query};
use super::error::{ApiError, broke_off};
use crate::effects::papers::LabelRequest;
use crate::papers::{Format, Paper, code_points};
use crate::{Scheduler, SchedulerError};

/// Characters that the font does not have, as `U+5B66 U+6821`: they show as `�` on the paper.
pub(super) const MISSING: HeaderName = HeaderName::from_static("cardshop-missing-characters");
/// Of them, as many as this are named: a header has limits.
const MAX_NAMED: usize = 100;

pub(super) fn routes() -> Router<Scheduler> {
    Router::new()
        .route("/orders/{id}/slip.pdf", get(slip))
        .route("/orders/{id}/labels", get(order_labels))
        .route("/cards/{uid}/label", get(card_label))
        .route("/appliances/{id}/labels", get(slot_labels))
}

async fn slip(
    State(scheduler): State<Scheduler>,
    Caller(caller): Caller,
    Id(id): Id<OrderId>,
    query: Query,
) -> Result<Response, ApiError> {
    let language = query.get("lang")?;
    let draw = move || scheduler.order_slip(&caller, id, language);
    answer(draw, "application/pdf", format!("slip-{id}.pdf")).await
}

async fn order_labels(
    State(scheduler): State<Scheduler>,
    Caller(caller): Caller,
    Id(id): Id<OrderId>,
    query: Query,
) -> Result<Response, ApiError> {
    let request = label_request(&query)?;
    let (kind, name) = (request.format.media_type(), format!("labels-{id}.{}", request.format.ending()));
    answer(move || scheduler.order_labels(&caller, id, &request), kind, name).await
}

async fn card_label(
    State(scheduler): State<Scheduler>,
    Caller(caller): Caller,
    Id(uid): Id<ObjectId>,
    query: Query,
) -> Result<Response, ApiError> {
    let request = label_request(&query)?;
    let (kind, name) = (request.format.media_type(), format!("label-{uid}.{}", request.format.ending()));
    answer(move || scheduler.card_label(&caller, uid, &request), kind, name).await
}

async fn slot_labels(
    State(scheduler): State<Scheduler>,
    Caller(caller): Caller,
    Id(id): Id<ApplianceId>,
    query: Query,
) -> Result<Response, ApiError> {
    let request = label_request(&query)?;
    let (kind, name) = (request.format.media_type(), format!("slots-{id}.{}", request.format.ending()));
    answer(move || scheduler.slot_labels(&caller, id, &request), kind, name).await
}

/// `?format=&start=&lang=`.
fn label_request(query: &Query) -> Result<LabelRequest, ApiError> {
    Ok(LabelRequest {
        format: query.get("format")?.unwrap_or(Format::ALL[0]),
        start: query.get("start")?.unwrap_or(1),
        language: query.get("lang")?,
    })
}

/// Draws a paper beside the requests of others, and shows it in the browser.
async fn answer(
    draw: impl FnOnce() -> Result<Paper, SchedulerError> + Send + 'static,
    kind: &'static str,
    name: String,
) -> Result<Response, ApiError> {
    let paper = tokio::task::spawn_blocking(draw).await.map_err(|error| {
        tracing::error!(%error, "a paper broke off");
        broke_off()
    })??;
    let disposition = format!("inline; filename=\"{name}\"");
    let headers = [(header::CONTENT_TYPE, kind.to_owned()), (header::CONTENT_DISPOSITION, disposition)];
    let mut response = (headers, paper.bytes).into_response();
    // Names of people are on it.
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-store"));
    if !paper.missing.is_empty() {
        let value = code_points(&paper.missing, MAX_NAMED);
        response.headers_mut().insert(MISSING, HeaderValue::from_str(&value).expect("digits and letters"));
    }
    Ok(response)
}
