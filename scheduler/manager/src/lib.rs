//! The web pages: server-rendered, with real forms that work without JavaScript and one small script that keeps
//! tiles live. They call the functions of [`Scheduler`] that the API calls, with the rights of who is logged in;
//! they decide nothing about orders. `cardshop up` and `demo` mount them beside the API.

mod bench;
mod login;
mod session;
mod tile;

use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderValue, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use cardshop_scheduler::Scheduler;

/// Nothing but our own style, script and live stream; no frames, no inline code. **Source:** CSP Level 3.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; \
     img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// All pages. To be merged with [`Scheduler::router`] on one port.
pub fn pages(scheduler: Scheduler) -> Router {
    Router::new()
        .route("/", get(|| async { Redirect::to("/bench") }))
        .route("/login", get(login::form).post(login::log_in))
        .route("/logout", post(login::log_out))
        .route("/bench", get(bench::page))
        .route("/bench/live", get(bench::live))
        .route("/static/style.css", get(|| asset("text/css", include_str!("../static/style.css"))))
        .route("/static/live.js", get(|| asset("text/javascript", include_str!("../static/live.js"))))
        .layer(middleware::from_fn(session::refuse_foreign_posts))
        .layer(middleware::from_fn(protect))
        .with_state(scheduler)
}

async fn asset(kind: &'static str, text: &'static str) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, kind), (header::CACHE_CONTROL, "no-cache")], text)
}

/// Headers that every page has.
async fn protect(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(CONTENT_SECURITY_POLICY));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    // Not `no-referrer`: with it browsers send our own forms with `Origin: null`.
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("same-origin"));
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}
