//! The HTTP API: routes, bodies and answers around the functions of [`Scheduler`]. It decides nothing: who may do
//! what is asked by those functions. Errors are problem documents.

mod account;
mod account_hooks;
mod action_links;
mod addresses;
mod api_keys;
mod appliances;
mod auth;
mod auto_images;
mod caller;
mod catalogue;
mod channels;
mod configurations;
mod error;
mod health;
mod live;
mod media;
mod notify;
mod openapi;
mod orders;
mod organizations;
mod papers;
mod site;
pub(crate) mod table;
mod tasks;
mod updates;
mod users;

use std::time::Instant;

use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderValue, Method};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::{Router, middleware};
use tracing::Instrument;

use crate::Scheduler;

/// Largest body of a request, bytes: a configuration's recipe and its envelope.
const MAX_BODY: usize = 512 * 1024;

impl Scheduler {
    /// `/api/v1/*`, `/health` and `/metrics`. Serve it with
    /// `into_make_service_with_connect_info::<SocketAddr>()`, so that logins are limited per address.
    pub fn router(&self) -> Router {
        let api = Router::new()
            .merge(auth::routes())
            .merge(addresses::routes())
            .merge(catalogue::routes())
            .merge(configurations::routes())
            .merge(media::routes())
            .merge(channels::routes())
            .merge(account::routes())
            .merge(users::routes())
            .merge(api_keys::routes())
            .merge(action_links::routes())
            .merge(account_hooks::routes())
            .merge(auto_images::routes())
            .merge(orders::routes())
            .merge(organizations::routes())
            .merge(papers::routes())
            .merge(tasks::routes())
            .merge(appliances::routes())
            .merge(updates::routes())
            .merge(live::routes())
            .merge(notify::routes())
            .merge(site::routes())
            .merge(openapi::routes())
            .fallback(error::no_such_path)
            .method_not_allowed_fallback(error::no_such_method);
        Router::new()
            .nest("/api/v1", api)
            .merge(health::routes().method_not_allowed_fallback(error::no_such_method))
            .layer(middleware::from_fn(carry_through))
            .layer(DefaultBodyLimit::max(MAX_BODY))
            .layer(middleware::from_fn_with_state(self.clone(), count))
            .with_state(self.clone())
    }
}

/// Counts a request and gives it an id, which its answer and every line that is logged for it have. Addresses hold no
/// secrets: tokens are in headers and bodies; the query is not logged.
async fn count(State(scheduler): State<Scheduler>, request: Request, next: Next) -> Response {
    scheduler.inner.metrics.requests.add();
    let id = scheduler.next_id().to_string();
    let span = tracing::info_span!("request", id, method = %request.method(), path = request.uri().path());
    let started = Instant::now();
    let mut response = next.run(request).instrument(span.clone()).await;
    let ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    span.in_scope(|| tracing::info!(status = response.status().as_u16(), ms, "answered"));
    let id = HeaderValue::from_str(&id).expect("an id is letters and digits");
    response.headers_mut().insert("x-request-id", id);
    response
}

/// A change goes on when its caller hangs up in the middle: what is stored is also announced. Not so a claim,
/// which waits long and should end with its creator.
async fn carry_through(request: Request, next: Next) -> Response {
    if request.method() == Method::GET || request.uri().path().ends_with("/tasks/claim") {
        return next.run(request).await;
    }
    tokio::spawn(next.run(request).in_current_span()).await.unwrap_or_else(|error| {
        tracing::error!(%error, "a request broke off");
        error::broke_off().into_response()
    })
}
