//! What the scheduler and staff tell the warehouse about images that are here: who may read them, how long they stay,
//! which public links lead to them.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::{BytesRejection, QueryRejection};
use axum::extract::{Query, State};
use axum::http::StatusCode;
use cardshop_protocol::api::StoredImage;
use cardshop_protocol::ids::{ImageId, ObjectId};
use cardshop_protocol::time::Timestamp;
use serde::{Deserialize, Deserializer, Serialize};

use super::login::Login;
use super::refusal::Refusal;
use super::{Id, Warehouse, images};
use crate::core::link;
use crate::core::rights;
use crate::now;
use crate::store::Link;

/// Largest body read, bytes. Ours are below 300.
pub(crate) const MAX_BODY: usize = 4096;

/// `PATCH /images/{image id}`: what is not named stays.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Change {
    public: Option<bool>,
    /// `null` keeps it for good.
    #[serde(default, deserialize_with = "named")]
    keep_until: Option<Option<Timestamp>>,
}

/// Tells `null` from absent.
fn named<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Option<Timestamp>>, D::Error> {
    Deserialize::deserialize(from).map(Some)
}

/// `PATCH /images/{image id}`.
pub(crate) async fn change(
    State(warehouse): State<Arc<Warehouse>>,
    login: Login,
    Id(id): Id,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<StoredImage>, Refusal> {
    let id = managed(login, &id)?;
    let change: Change = json(body, "public (true or false), keep_until (a time or null)")?;
    let changed = warehouse.blocking(move |store| {
        store.change_image(id, |image| {
            image.public = change.public.unwrap_or(image.public);
            image.keep_until = change.keep_until.unwrap_or(image.keep_until);
        })
    });
    let image = changed.await?.ok_or(Refusal::NotFound)?;
    if image.public {
        // So that the torrent is there when the first asks.
        images::begin_derive(&warehouse, id);
    }
    Ok(Json(image))
}

/// `DELETE /images/{image id}`.
pub(crate) async fn remove(
    State(warehouse): State<Arc<Warehouse>>,
    login: Login,
    Id(id): Id,
) -> Result<StatusCode, Refusal> {
    let id = managed(login, &id)?;
    match warehouse.blocking(move |store| store.remove_image(id)).await? {
        true => Ok(StatusCode::NO_CONTENT),
        false => Err(Refusal::NotFound),
    }
}

#[derive(Deserialize)]
pub(crate) struct At {
    at: Option<String>,
}

/// An image whose time is up.
#[derive(Serialize)]
pub(crate) struct Due {
    #[serde(flatten)]
    image: StoredImage,
    stored_bytes: u64,
}

/// The answer to `GET /retention`.
#[derive(Serialize)]
pub(crate) struct Retention {
    at: Timestamp,
    items: Vec<Due>,
    freed_bytes: u64,
}

/// `GET /retention?at=`: a dry run: what would be removed at that time (now by default), were it that time.
pub(crate) async fn retention(
    State(warehouse): State<Arc<Warehouse>>,
    login: Login,
    query: Result<Query<At>, QueryRejection>,
) -> Result<Json<Retention>, Refusal> {
    may_manage(login)?;
    let wrong = Refusal::Query { name: "at", wanted: "an RFC 3339 time" };
    let at = match query.ok().and_then(|Query(query)| query.at) {
        Some(text) => text.parse().map_err(|_| wrong)?,
        None => now(),
    };
    let due = warehouse.blocking(move |store| {
        let due = store.due(at).into_iter();
        Ok(due.map(|image| Due { stored_bytes: store.stored_bytes(image.id), image }).collect::<Vec<_>>())
    });
    let items = due.await?;
    let freed_bytes = items.iter().map(|due| due.stored_bytes).sum();
    Ok(Json(Retention { at, items, freed_bytes }))
}

/// `PUT /links/{link id}`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewLink {
    image: ImageId,
    name: String,
    expires: Timestamp,
}

/// A link, and where it is.
#[derive(Serialize)]
pub(crate) struct LinkView {
    id: ObjectId,
    image: ImageId,
    expires: Timestamp,
    /// Below this warehouse's address.
    path: String,
}

/// `PUT /links/{link id}`: makes the link, or says anew when it ends; the address stays the same.
pub(crate) async fn put_link(
    State(warehouse): State<Arc<Warehouse>>,
    login: Login,
    Id(id): Id,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<LinkView>, Refusal> {
    let id = managed(login, &id)?;
    let NewLink { image, name, expires } = json(body, "image, name, expires")?;
    let name = link::file_name(&name);
    let link = Link { id, image, name: name.clone(), expires };
    let token = warehouse.blocking(move |store| store.put_link(link)).await?.ok_or(Refusal::NotFound)?;
    Ok(Json(LinkView { id, image, expires, path: format!("/p/{token}/{name}.img") }))
}

/// `DELETE /links/{link id}`: it ends now, also for who is in the middle of a download.
pub(crate) async fn end_link(
    State(warehouse): State<Arc<Warehouse>>,
    login: Login,
    Id(id): Id,
) -> Result<StatusCode, Refusal> {
    let id = managed(login, &id)?;
    let link = warehouse.store.link(id).ok_or(Refusal::NotFound)?;
    let ended = Link { expires: link.expires.min(now()), ..link };
    warehouse.blocking(move |store| store.put_link(ended)).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn may_manage(login: Login) -> Result<(), Refusal> {
    if rights::may_manage(&*login.required()?) { Ok(()) } else { Err(Refusal::NotManager) }
}

/// The id in the path, if the caller may do something about it.
fn managed<T: std::str::FromStr>(login: Login, id: &str) -> Result<T, Refusal> {
    may_manage(login)?;
    id.parse().map_err(|_| Refusal::NotFound)
}

fn json<T: for<'de> Deserialize<'de>>(
    body: Result<Bytes, BytesRejection>,
    wanted: &'static str,
) -> Result<T, Refusal> {
    let wrong = Refusal::Body { wanted };
    body.ok().and_then(|body| serde_json::from_slice(&body).ok()).ok_or(wrong)
}

/// For the fuzzer: what is made of a body, if it is let in at all.
pub(crate) fn read_bodies(bytes: &[u8]) {
    if bytes.len() > MAX_BODY {
        return;
    }
    let body = || Ok(Bytes::copy_from_slice(bytes));
    let _ = json::<Change>(body(), "");
    if let Ok(link) = json::<NewLink>(body(), "") {
        let file = link::file_name(&link.name);
        assert!(!file.is_empty() && !file.contains(['/', '\\', '"', '\r', '\n']), "{file:?}");
    }
}
