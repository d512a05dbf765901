//! Gives images and their indexes out, by range, to those who may read them.
//! **Source:** RFC 9110 §13 (conditions), §14 (ranges), §14.6 (multipart/byteranges).

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, IF_MATCH, IF_NONE_MATCH,
    IF_RANGE, RANGE,
};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use cardshop_protocol::api::{Page, StoredImage};
use cardshop_protocol::ids::ImageId;
use serde::Deserialize;

use super::body::{self, Segment};
use super::login::Login;
use super::refusal::Refusal;
use super::{Id, Warehouse, text};
use crate::core::precondition::{self, Conditions, Verdict};
use crate::core::range::{Selection, select};
use crate::core::rights;

/// Most images of one page.
const MAX_PAGE: usize = 1000;
const BYTES: &str = "application/octet-stream";

#[derive(Deserialize)]
pub(crate) struct PageQuery {
    limit: Option<String>,
    cursor: Option<String>,
}

/// `GET /images`: what the caller may read, by id.
pub(crate) async fn list(
    State(warehouse): State<Arc<Warehouse>>,
    login: Login,
    query: Result<Query<PageQuery>, QueryRejection>,
) -> Result<Json<Page<StoredImage>>, Refusal> {
    let claims = login.required()?;
    let Query(query) =
        query.map_err(|_| Refusal::Query { name: "form", wanted: "limit and cursor, once each" })?;
    let wrong = |_| Refusal::Query { name: "cursor", wanted: "what a former page gave" };
    let after = query.cursor.map(|c| c.parse()).transpose().map_err(wrong)?;
    let wrong = |_| Refusal::Query { name: "limit", wanted: "a number" };
    let limit = query.limit.map(|l| l.parse()).transpose().map_err(wrong)?;
    let limit = limit.unwrap_or(MAX_PAGE).clamp(1, MAX_PAGE);
    let mut items = warehouse.store.images(after);
    items.retain(|image| rights::may_read(Some(&claims), image));
    let more = items.len() > limit;
    items.truncate(limit);
    let next_cursor = items.last().filter(|_| more).map(|image| image.id.to_string());
    Ok(Json(Page { items, next_cursor }))
}

/// `GET｜HEAD /images/{image id}`.
pub(crate) async fn image(
    State(warehouse): State<Arc<Warehouse>>,
    login: Login,
    Id(id): Id,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let image = readable(&warehouse, login, &id)?;
    let path = warehouse.store.image_path(image.id);
    serve(&warehouse, path, image.id.to_string(), &method, &headers).await
}

/// `GET｜HEAD /images/{image id}/index`.
pub(crate) async fn index(
    State(warehouse): State<Arc<Warehouse>>,
    login: Login,
    Id(id): Id,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let image = readable(&warehouse, login, &id)?;
    let path = warehouse.store.index_path(image.id);
    // The signature is part of the bytes, and another key gives another one.
    let tag = format!("{}-{}", image.id, warehouse.store.public_key().kid);
    serve(&warehouse, path, tag, &method, &headers).await
}

/// The image, if it is there and the caller may read it; who may not learns no more than that.
fn readable(warehouse: &Warehouse, login: Login, id: &str) -> Result<StoredImage, Refusal> {
    let image = id.parse::<ImageId>().ok().and_then(|id| warehouse.store.image(id));
    match image.filter(|image| rights::may_read(login.0.as_deref(), image)) {
        Some(image) => Ok(image),
        None => login.required().and(Err(Refusal::NotFound)),
    }
}

async fn serve(
    warehouse: &Arc<Warehouse>,
    path: PathBuf,
    tag: String,
    method: &Method,
    headers: &HeaderMap,
) -> Result<Response, Refusal> {
    let etag = format!("\"{tag}\"");
    let conditions = Conditions {
        if_match: text(headers, IF_MATCH.as_str()),
        if_none_match: text(headers, IF_NONE_MATCH.as_str()),
        if_range: text(headers, IF_RANGE.as_str()),
    };
    let ranges_count = match precondition::decide(conditions, &etag) {
        Verdict::Failed => return Err(Refusal::PreconditionFailed),
        Verdict::NotModified => return Ok((StatusCode::NOT_MODIFIED, [(ETAG, etag)]).into_response()),
        Verdict::Go { range } => range && method == Method::GET, // HEAD knows no ranges, RFC 9110 §14.2
    };
    let file = warehouse.blocking(move |store| store.open_file(&path)).await?;
    let (file, size) = file.ok_or(Refusal::NotFound)?;
    let header = text(headers, RANGE.as_str()).filter(|_| ranges_count);
    let general = [(ETAG, etag), (ACCEPT_RANGES, "bytes".into()), (CACHE_CONTROL, "private".into())];
    let answer = match select(header, size) {
        Selection::Unsatisfiable => return Err(Refusal::Unsatisfiable { size }),
        Selection::TooMany => return Err(Refusal::TooManyRanges { size }),
        Selection::Whole if method == Method::HEAD => {
            let headers = [(CONTENT_TYPE, BYTES.into()), (CONTENT_LENGTH, size.to_string())];
            (headers, ()).into_response()
        }
        Selection::Whole => bytes(StatusCode::OK, BYTES.into(), None, file, vec![Segment::File(0..size)]),
        Selection::Parts(parts) => match <[_; 1]>::try_from(parts) {
            Ok([part]) => {
                let range = content_range(&part, size);
                bytes(StatusCode::PARTIAL_CONTENT, BYTES.into(), Some(range), file, vec![Segment::File(part)])
            }
            Err(parts) => multipart(file, parts, size)?,
        },
    };
    Ok((general, answer).into_response())
}

fn content_range(part: &std::ops::Range<u64>, size: u64) -> String {
    format!("bytes {}-{}/{size}", part.start, part.end - 1)
}

fn multipart(file: File, parts: Vec<std::ops::Range<u64>>, size: u64) -> Result<Response, Refusal> {
    let mut random = [0; 16];
    getrandom::fill(&mut random).map_err(|_| crate::store::StoreError::NoRandomness)?;
    // 128 random bits are in no image by chance, and nobody could put them there in time.
    let boundary = format!("{:032x}", u128::from_ne_bytes(random));
    let mut segments = Vec::new();
    for part in parts {
        let range = content_range(&part, size);
        let head = format!("\r\n--{boundary}\r\nContent-Type: {BYTES}\r\nContent-Range: {range}\r\n\r\n");
        segments.push(Segment::Text(head));
        segments.push(Segment::File(part));
    }
    segments.push(Segment::Text(format!("\r\n--{boundary}--\r\n")));
    let kind = format!("multipart/byteranges; boundary={boundary}");
    Ok(bytes(StatusCode::PARTIAL_CONTENT, kind, None, file, segments))
}

fn bytes(
    status: StatusCode,
    kind: String,
    range: Option<String>,
    file: File,
    segments: Vec<Segment>,
) -> Response {
    let length: u64 = segments.iter().map(Segment::size).sum();
    let headers = [(CONTENT_TYPE, kind), (CONTENT_LENGTH, length.to_string())];
    let range = range.map(|range| [(CONTENT_RANGE, range)]);
    (status, headers, range.map(axum::response::AppendHeaders), body::stream(file, segments)).into_response()
}
