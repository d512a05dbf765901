//! The warehouse's routes. Handlers read requests, ask `core`, have `store` do it on blocking threads, and
//! put the answer into HTTP; errors are RFC 9457 problem documents. Called by `server`.

mod body;
mod drain;
mod images;
mod login;
mod manage;
mod observe;
mod receive;
mod refusal;
mod status;
mod tus;

use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, FromRequestParts, Path};
use axum::http::HeaderMap;
use axum::http::request::Parts;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::{get, options, post, put};
use cardshop_protocol::token::SharedKeys;
use tokio::sync::Semaphore;

use crate::Limits;
use crate::store::{Store, StoreError};
pub(crate) use login::token;
pub(crate) use manage::read_bodies;
use observe::Metrics;
use refusal::Refusal;
pub(crate) use refusal::chain;

/// What handlers share.
pub(crate) struct Warehouse {
    pub(crate) store: Store,
    pub(crate) keys: SharedKeys,
    metrics: Metrics,
    /// Places for uploads that move.
    moving: Arc<Semaphore>,
    /// One image at a time is read for its block map and torrent.
    deriving: tokio::sync::Mutex<()>,
    /// Clients reach us by https.
    encrypted: bool,
}

impl Warehouse {
    pub(crate) fn new(store: Store, keys: SharedKeys, limits: &Limits, encrypted: bool) -> Self {
        let moving = Arc::new(Semaphore::new(limits.max_moving_uploads));
        let deriving = tokio::sync::Mutex::default();
        Self { store, keys, metrics: Metrics::default(), moving, deriving, encrypted }
    }

    /// Waits until every moving upload has put down what it got, then gives the folder free.
    pub(crate) async fn close(&self) {
        self.store.end();
        let all = u32::try_from(self.store.limits.max_moving_uploads).unwrap_or(u32::MAX);
        let _ = self.moving.acquire_many(all).await;
        self.store.release();
    }

    /// Runs something of the store on a blocking thread.
    async fn blocking<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, Refusal> {
        let warehouse = self.clone();
        let done = tokio::task::spawn_blocking(move || work(&warehouse.store)).await;
        Ok(done.expect("the store does not panic")?)
    }
}

/// All routes.
pub(crate) fn router(warehouse: Arc<Warehouse>) -> Router {
    let tus = Router::new()
        .route("/files", post(tus::create).merge(options(tus::discover)))
        .route(
            "/files/{upload}",
            axum::routing::head(tus::head)
                .patch(tus::patch)
                .delete(tus::delete)
                .post(tus::overridden)
                .options(tus::discover),
        )
        .layer(from_fn(tus::version));
    let manage = Router::new()
        .route("/links/{link}", put(manage::put_link).delete(manage::end_link))
        .route("/images/{image}", get(images::image).patch(manage::change).delete(manage::remove))
        .route("/retention", get(manage::retention))
        .layer(DefaultBodyLimit::max(manage::MAX_BODY));
    Router::new()
        .route("/images", get(images::list))
        .merge(manage)
        .route("/images/{image}/index", get(images::index))
        .route("/images/{image}/bmap", get(images::bmap))
        .route("/images/{image}/torrent", get(images::torrent))
        .route("/images/{image}/chunks", get(images::chunks))
        .route("/p/{token}/{name}", get(images::public))
        .route("/keys", get(status::keys))
        .route("/health", get(status::health))
        .route("/metrics", get(status::metrics))
        .merge(tus)
        .fallback(async || Refusal::NoSuchRoute)
        .method_not_allowed_fallback(async || Refusal::MethodNotAllowed)
        .layer(from_fn(drain::drain))
        .layer(from_fn_with_state(warehouse.clone(), observe::observe))
        .with_state(warehouse)
}

/// The id in a request's path, as text. What is no text is no id of anything.
struct Id(String);

impl<S: Send + Sync> FromRequestParts<S> for Id {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let path = Path::from_request_parts(parts, state).await;
        path.map(|Path(id)| Self(id)).map_err(|_| Refusal::NotFound)
    }
}

/// A header's text; what is no text counts as absent.
fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}
