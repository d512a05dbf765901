//! Gives images and their indexes out, by range, to those who may read them.
//! **Source:** RFC 9110 §13 (conditions), §14 (ranges), §14.6 (multipart/byteranges).

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use axum::http::header::{
    ACCEPT_RANGES, CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG,
    HOST, IF_MATCH, IF_NONE_MATCH, IF_RANGE, LOCATION, RANGE,
};
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use cardshop_protocol::api::{Page, StoredImage};
use cardshop_protocol::ids::ImageId;
use serde::Deserialize;

use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::body::{self, Gate, Segment};
use super::login::Login;
use super::refusal::Refusal;
use super::{Id, Warehouse, text};
use crate::core::difference::{Difference, difference};
use crate::core::precondition::{self, Conditions, Verdict};
use crate::core::range::{Selection, select};
use crate::core::{link, rights, torrent};
use crate::now;
use crate::store::Store;

/// Most images of one page.
const MAX_PAGE: usize = 1000;
const BYTES: &str = "application/octet-stream";
const TORRENT: &str = "application/x-bittorrent";
/// How long a request waits for an image to be read for its block map; 5 GB on a slow core. Then it asks again.
const DERIVE_PATIENCE: Duration = Duration::from_secs(25);

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
    serve_image(&warehouse, image.id, None, None, &method, &headers).await
}

/// `GET｜HEAD /p/{link token}/{name}.img`: what a public link leads to, until it ends.
pub(crate) async fn public(
    State(warehouse): State<Arc<Warehouse>>,
    Path((token, _name)): Path<(String, String)>,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let link = warehouse.store.link_by_token(&token).ok_or(Refusal::NotFound)?;
    if link.expires <= now() {
        return Err(Refusal::LinkEnded);
    }
    let shared = warehouse.clone();
    let gate: Gate = Arc::new(move || shared.store.link(link.id).is_some_and(|link| now() < link.expires));
    let name = format!("{}.img", link::file_name(&link.name));
    serve_image(&warehouse, link.image, Some(&name), Some(gate), &method, &headers).await
}

/// `GET｜HEAD /images/{image id}/bmap`: its block map, for bmaptool.
pub(crate) async fn bmap(
    State(warehouse): State<Arc<Warehouse>>,
    login: Login,
    Id(id): Id,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let image = readable(&warehouse, login, &id)?;
    derived(&warehouse, image.id).await?;
    let path = warehouse.store.bmap_path(image.id);
    serve(&warehouse, path, format!("{}-bmap", image.id), "application/xml", None, &method, &headers).await
}

/// `GET /images/{image id}/torrent`: of a public image, with this warehouse as web seed.
pub(crate) async fn torrent(
    State(warehouse): State<Arc<Warehouse>>,
    login: Login,
    Id(id): Id,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    let image = readable(&warehouse, login, &id)?;
    if !image.public {
        return Err(Refusal::NotPublic);
    }
    derived(&warehouse, image.id).await?;
    let path = warehouse.store.pieces_path(image.id);
    let pieces = warehouse.blocking(move |store| store.read_file(&path)).await?.ok_or(Refusal::NotFound)?;
    // Clients fetch from where they got the torrent.
    let host = text(&headers, HOST.as_str()).ok_or(Refusal::Header { name: "host", wanted: "there" })?;
    let scheme = if warehouse.encrypted { "https" } else { "http" };
    let url = format!("{scheme}://{host}/images/{}", image.id);
    let name = format!("{}.img", link::file_name(&image.name));
    let bytes = torrent::torrent(&name, image.size, &pieces, &url);
    let file = format!("attachment; filename=\"{name}.torrent\"");
    Ok(([(CONTENT_TYPE, TORRENT.to_owned()), (CONTENT_DISPOSITION, file)], bytes).into_response())
}

#[derive(Deserialize)]
pub(crate) struct Have {
    have: Option<String>,
}

/// `GET /images/{image id}/chunks?have={older id}`: which chunks somebody lacks who has the older image.
pub(crate) async fn chunks(
    State(warehouse): State<Arc<Warehouse>>,
    login: Login,
    Id(id): Id,
    query: Result<Query<Have>, QueryRejection>,
) -> Result<Json<Difference>, Refusal> {
    let wrong = Refusal::Query { name: "have", wanted: "the id of an image" };
    let have = query.ok().and_then(|Query(query)| query.have).ok_or(wrong)?;
    let login_again = Login(login.0.clone());
    let image = readable(&warehouse, login, &id)?.id;
    let older = readable(&warehouse, login_again, &have)?.id;
    let indexes = move |store: &Store| Ok((store.stored_index(image)?, store.stored_index(older)?));
    match warehouse.blocking(indexes).await? {
        (Some(image), Some(older)) => Ok(Json(difference(&image, &older))),
        _ => Err(Refusal::NotFound),
    }
}

/// Has the image read for its block map and torrent, unless that was done. Goes on when the caller is gone.
pub(crate) fn begin_derive(warehouse: &Arc<Warehouse>, id: ImageId) -> JoinHandle<Result<bool, Refusal>> {
    let warehouse = warehouse.clone();
    tokio::spawn(async move {
        let _turn = warehouse.deriving.lock().await;
        warehouse.blocking(move |store| store.derive(id)).await
    })
}

async fn derived(warehouse: &Arc<Warehouse>, id: ImageId) -> Result<(), Refusal> {
    if warehouse.store.is_derived(id) {
        return Ok(());
    }
    match timeout(DERIVE_PATIENCE, begin_derive(warehouse, id)).await {
        Err(_) => Err(Refusal::BeingMade),
        Ok(made) => match made.expect("the store does not panic")? {
            true => Ok(()),
            false => Err(Refusal::NotFound),
        },
    }
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
    serve(&warehouse, path, tag, BYTES, None, &method, &headers).await
}

/// The image, if it is there and the caller may read it; who may not learns no more than that.
fn readable(warehouse: &Warehouse, login: Login, id: &str) -> Result<StoredImage, Refusal> {
    let image = id.parse::<ImageId>().ok().and_then(|id| warehouse.store.image(id));
    match image.filter(|image| rights::may_read(login.0.as_deref(), image)) {
        Some(image) => Ok(image),
        None => login.required().and(Err(Refusal::NotFound)),
    }
}

/// The bytes of an image, or where they are.
async fn serve_image(
    warehouse: &Arc<Warehouse>,
    id: ImageId,
    name: Option<&str>,
    gate: Option<Gate>,
    method: &Method,
    headers: &HeaderMap,
) -> Result<Response, Refusal> {
    let path = warehouse.store.image_path(id);
    match serve(warehouse, path, id.to_string(), BYTES, gate, method, headers).await {
        // Not here, or no more since a moment ago.
        Err(Refusal::NotFound) if warehouse.store.is_stored_away(id) => (),
        served => return served,
    }
    let address = warehouse.store.address_of(id, method.clone(), name).await?;
    // The address is a key to the image for as long as it is good.
    let headers = [(LOCATION, address.ok_or(Refusal::NotFound)?), (CACHE_CONTROL, "no-store".into())];
    Ok((StatusCode::TEMPORARY_REDIRECT, headers).into_response())
}

async fn serve(
    warehouse: &Arc<Warehouse>,
    path: PathBuf,
    tag: String,
    kind: &'static str,
    gate: Option<Gate>,
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
            let headers = [(CONTENT_TYPE, kind.to_owned()), (CONTENT_LENGTH, size.to_string())];
            (headers, ()).into_response()
        }
        Selection::Whole => {
            let whole = body::stream(file, vec![Segment::File(0..size)], gate);
            bytes(StatusCode::OK, kind.into(), None, size, whole)
        }
        Selection::Parts(parts) => match <[_; 1]>::try_from(parts) {
            Ok([part]) => {
                let range = content_range(&part, size);
                let length = part.end - part.start;
                let part = body::stream(file, vec![Segment::File(part)], gate);
                bytes(StatusCode::PARTIAL_CONTENT, kind.into(), Some(range), length, part)
            }
            Err(parts) => multipart(file, parts, size, kind, gate)?,
        },
    };
    Ok((general, answer).into_response())
}

fn content_range(part: &std::ops::Range<u64>, size: u64) -> String {
    format!("bytes {}-{}/{size}", part.start, part.end - 1)
}

fn multipart(
    file: File,
    parts: Vec<std::ops::Range<u64>>,
    size: u64,
    kind: &'static str,
    gate: Option<Gate>,
) -> Result<Response, Refusal> {
    let mut random = [0; 16];
    getrandom::fill(&mut random).map_err(|_| crate::store::StoreError::NoRandomness)?;
    // 128 random bits are in no image by chance, and nobody could put them there in time.
    let boundary = format!("{:032x}", u128::from_ne_bytes(random));
    let mut segments = Vec::new();
    for part in parts {
        let range = content_range(&part, size);
        let head = format!("\r\n--{boundary}\r\nContent-Type: {kind}\r\nContent-Range: {range}\r\n\r\n");
        segments.push(Segment::Text(head));
        segments.push(Segment::File(part));
    }
    segments.push(Segment::Text(format!("\r\n--{boundary}--\r\n")));
    let kind = format!("multipart/byteranges; boundary={boundary}");
    let length = segments.iter().map(Segment::size).sum();
    Ok(bytes(StatusCode::PARTIAL_CONTENT, kind, None, length, body::stream(file, segments, gate)))
}

fn bytes(status: StatusCode, kind: String, range: Option<String>, length: u64, body: Body) -> Response {
    let headers = [(CONTENT_TYPE, kind), (CONTENT_LENGTH, length.to_string())];
    let range = range.map(|range| [(CONTENT_RANGE, range)]);
    (status, headers, range.map(axum::response::AppendHeaders), body).into_response()
}
