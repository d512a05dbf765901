//! Resumable upload: tus 1.0 with creation, creation-with-upload, creation-defer-length, checksum, expiration
//! and termination. Only a creator whose token names the upload's task gets at it.
//! **Source:** <https://tus.io/protocols/resumable-upload>, version 1.0.0.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{FromRequestParts, Request, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, LOCATION};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{AppendHeaders, IntoResponse, Response};
use cardshop_protocol::time::Timestamp;

use super::login::Login;
use super::receive::receive;
use super::refusal::Refusal;
use super::{Id, Warehouse, text};
use crate::core::checksum::{ALGORITHMS, Checksum};
use crate::core::metadata::{self, Kind};
use crate::core::rights;
use crate::now;
use crate::store::{Turn, Upload};

/// `Tus-Version` and `Tus-Resumable`.
pub(crate) const TUS_VERSION: &str = "1.0.0";
const EXTENSIONS: &str =
    "creation,creation-with-upload,creation-defer-length,checksum,expiration,termination";
const OFFSET_BYTES: &str = "application/offset+octet-stream";
const UPLOAD_OFFSET: &str = "upload-offset";
const UPLOAD_LENGTH: &str = "upload-length";

/// Middleware: refuses other versions, and names ours in every answer.
pub(crate) async fn version(request: Request, next: Next) -> Response {
    let fits = request.method() == Method::OPTIONS
        || text(request.headers(), "tus-resumable").is_some_and(|v| v == TUS_VERSION);
    let mut response = if fits { next.run(request).await } else { Refusal::TusVersion.into_response() };
    response.headers_mut().insert("tus-resumable", HeaderValue::from_static(TUS_VERSION));
    response
}

/// `OPTIONS /files`.
pub(crate) async fn discover(State(warehouse): State<Arc<Warehouse>>) -> impl IntoResponse {
    let headers = [
        ("tus-version", TUS_VERSION.to_owned()),
        ("tus-extension", EXTENSIONS.to_owned()),
        ("tus-max-size", warehouse.store.limits.max_image_size.to_string()),
        ("tus-checksum-algorithm", ALGORITHMS.to_owned()),
    ];
    (StatusCode::NO_CONTENT, AppendHeaders(headers))
}

/// `POST /files`.
pub(crate) async fn create(
    State(warehouse): State<Arc<Warehouse>>,
    login: Login,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    let claims = login.required()?;
    let task = rights::uploads_for(&claims).ok_or(Refusal::NotAnUploader)?;
    let header = text(&headers, "upload-metadata").unwrap_or_default().to_owned();
    let metadata = metadata::parse(&header)?;
    if metadata.task != task {
        return Err(Refusal::OtherTask);
    }
    let length = match (text(&headers, UPLOAD_LENGTH), text(&headers, "upload-defer-length")) {
        (Some(length), None) => Some(upload_length(&warehouse, metadata.kind, length)?),
        (None, Some("1")) => None,
        _ => return Err(Refusal::Header { name: UPLOAD_LENGTH, wanted: "there, or upload-defer-length: 1" }),
    };
    let with_bytes = is_offset_bytes(&headers);
    let checksum = checksum(&headers)?;
    if with_bytes {
        fits(&headers, 0, length)?;
    }
    let channels = claims.channel.clone();
    let upload = warehouse
        .blocking(move |store| store.create_upload(metadata, header, channels, length, now()))
        .await?;
    let place = [(LOCATION, format!("/files/{}", upload.id))];
    if !with_bytes {
        let expires = upload_expires(now() + warehouse.store.limits.upload_life);
        return Ok((StatusCode::CREATED, place, expires).into_response());
    }
    let turn = turn_of(&upload).await?;
    // The upload exists also when its first bytes are refused: the client goes on from there.
    let answer = match receive(&warehouse, &upload, turn, body, checksum).await {
        Ok(offset) => received(&warehouse, StatusCode::CREATED, offset),
        Err(refusal) => refusal.into_response(),
    };
    Ok((place, answer).into_response())
}

/// `HEAD /files/{upload}`.
pub(crate) async fn head(
    State(warehouse): State<Arc<Warehouse>>,
    login: Login,
    Id(id): Id,
) -> Result<Response, Refusal> {
    let upload = find(&warehouse, login, &id)?;
    let Turn { part, .. } = turn_of(&upload).await?;
    let state = &part.state;
    let length = match state.length {
        Some(length) => (UPLOAD_LENGTH, length.to_string()),
        None => ("upload-defer-length", "1".into()),
    };
    let headers =
        [(UPLOAD_OFFSET, state.offset.to_string()), length, ("upload-metadata", state.header.clone())];
    let expires = upload_expires(state.expires);
    Ok((AppendHeaders(headers), [(CACHE_CONTROL, "no-store")], expires).into_response())
}

/// `PATCH /files/{upload}`.
pub(crate) async fn patch(
    State(warehouse): State<Arc<Warehouse>>,
    login: Login,
    Id(id): Id,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Refusal> {
    let upload = find(&warehouse, login, &id)?;
    if !is_offset_bytes(&headers) {
        return Err(Refusal::ContentType);
    }
    let given = number(&headers, UPLOAD_OFFSET)?
        .ok_or(Refusal::Header { name: UPLOAD_OFFSET, wanted: "there: the offset of the first byte" })?;
    let checksum = checksum(&headers)?;
    let mut turn = turn_of(&upload).await?;
    let actual = turn.part.state.offset;
    if given != actual {
        return Err(Refusal::OffsetConflict { actual, given });
    }
    if let Some(text) = text(&headers, UPLOAD_LENGTH) {
        let kind = turn.part.state.metadata.kind;
        turn.part.tell_length(upload_length(&warehouse, kind, text)?)?;
    }
    fits(&headers, given, turn.part.state.length)?;
    if turn.part.state.done {
        return Ok(received(&warehouse, StatusCode::NO_CONTENT, actual));
    }
    let offset = receive(&warehouse, &upload, turn, body, checksum).await?;
    Ok(received(&warehouse, StatusCode::NO_CONTENT, offset))
}

/// `DELETE /files/{upload}`.
pub(crate) async fn delete(
    State(warehouse): State<Arc<Warehouse>>,
    login: Login,
    Id(id): Id,
) -> Result<StatusCode, Refusal> {
    let upload = find(&warehouse, login, &id)?;
    let mut turn = turn_of(&upload).await?;
    warehouse.blocking(move |store| store.remove_upload(&upload, &mut turn.part)).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /files/{upload}` with `X-HTTP-Method-Override`, for clients that cannot say PATCH or DELETE.
pub(crate) async fn overridden(
    State(warehouse): State<Arc<Warehouse>>,
    request: Request,
) -> Result<Response, Refusal> {
    let (mut parts, body) = request.into_parts();
    let login = Login::from_request_parts(&mut parts, &warehouse).await?;
    let id = Id::from_request_parts(&mut parts, &warehouse).await?;
    match text(&parts.headers, "x-http-method-override") {
        Some("PATCH") => patch(State(warehouse), login, id, parts.headers, body).await,
        Some("DELETE") => Ok(delete(State(warehouse), login, id).await?.into_response()),
        _ => Err(Refusal::MethodNotAllowed),
    }
}

/// The upload, if the caller's token is for its task; who has another learns no more than that.
fn find(warehouse: &Warehouse, login: Login, id: &str) -> Result<Arc<Upload>, Refusal> {
    let task = rights::uploads_for(&*login.required()?).ok_or(Refusal::NotAnUploader)?;
    let upload = id.parse().ok().and_then(|id| warehouse.store.upload(id));
    upload.filter(|u| u.task == task).ok_or(Refusal::NotFound)
}

async fn turn_of(upload: &Upload) -> Result<Turn, Refusal> {
    let turn = upload.take_turn().await.ok_or(Refusal::Locked)?;
    // Deleted while this request waited.
    if turn.part.is_gone() { Err(Refusal::NotFound) } else { Ok(turn) }
}

fn upload_length(warehouse: &Warehouse, kind: Kind, text: &str) -> Result<u64, Refusal> {
    let wrong = Refusal::Header { name: UPLOAD_LENGTH, wanted: "a number of bytes above 0" };
    let size = text.parse().ok().filter(|n| *n > 0).ok_or(wrong)?;
    let limit = warehouse.store.limits.max_size(kind);
    if size > limit { Err(Refusal::TooLarge { size, limit }) } else { Ok(size) }
}

/// Refuses at once what says that it is too long.
fn fits(headers: &HeaderMap, offset: u64, length: Option<u64>) -> Result<(), Refusal> {
    let (Some(size), Some(length)) = (number(headers, CONTENT_LENGTH.as_str())?, length) else {
        return Ok(());
    };
    let limit = length.saturating_sub(offset);
    if size > limit { Err(Refusal::TooLarge { size, limit }) } else { Ok(()) }
}

fn is_offset_bytes(headers: &HeaderMap) -> bool {
    text(headers, CONTENT_TYPE.as_str()) == Some(OFFSET_BYTES)
}

fn checksum(headers: &HeaderMap) -> Result<Option<Checksum>, Refusal> {
    Ok(text(headers, "upload-checksum").map(Checksum::parse).transpose()?)
}

fn number(headers: &HeaderMap, name: &'static str) -> Result<Option<u64>, Refusal> {
    let wrong = |_| Refusal::Header { name, wanted: "a number" };
    text(headers, name).map(|t| t.parse().map_err(wrong)).transpose()
}

fn received(warehouse: &Warehouse, status: StatusCode, offset: u64) -> Response {
    let expires = upload_expires(now() + warehouse.store.limits.upload_life);
    (status, [(UPLOAD_OFFSET, offset.to_string())], expires).into_response()
}

/// `Upload-Expires`, as an HTTP date. **Source:** RFC 9110 §5.6.7.
fn upload_expires(at: Timestamp) -> [(&'static str, String); 1] {
    let printer = jiff::fmt::rfc2822::DateTimePrinter::new();
    let moment = i64::try_from(at.as_secs()).ok().and_then(|s| jiff::Timestamp::from_second(s).ok());
    let text = moment.and_then(|m| printer.timestamp_to_rfc9110_string(&m).ok());
    [("upload-expires", text.expect("a timestamp ends with the year 9999"))]
}
