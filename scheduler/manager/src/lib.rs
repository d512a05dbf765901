//! The web pages: server-rendered, with real forms that work without JavaScript and one small script that keeps
//! tiles live. They call the functions of [`Scheduler`] that the API calls, with the rights of who is logged in;
//! they decide nothing about orders. `cardshop up` and `demo` mount them beside the API.

mod addresses;
mod appliances;
mod bench;
mod cards;
mod configurations;
mod locale;
mod login;
mod media;
mod orders;
mod page;
mod scan;
mod session;
mod statistics;
mod tile;
mod tv;
mod words;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request};
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
        .route("/preferences", get(login::preferences).post(login::keep_preferences))
        .route("/scan", post(scan::scan))
        .route("/bench", get(bench::page))
        .route("/bench/live", get(bench::live))
        .route("/slots/{appliance}/{slot}", post(bench::act))
        .route("/orders", get(orders::list).post(orders::form::place))
        .route("/orders/new", get(orders::form::form))
        .route("/orders/{id}", get(orders::detail).post(orders::act))
        .merge(office())
        .route("/appliances", get(appliances::list))
        .route("/appliances/join", post(appliances::join_file))
        .route("/appliances/{id}", get(appliances::detail).post(appliances::act))
        .route("/appliances/{id}/labels", get(cards::slot_labels))
        .route("/cards", get(cards::list))
        .route("/cards/labels", get(cards::labels))
        .route("/cards/cards.csv", get(cards::csv))
        .route("/cards/cards.json", get(cards::json))
        .route("/cards/{uid}", get(cards::detail))
        .route("/statistics", get(statistics::page))
        .route("/screens", get(tv::screens).post(tv::make))
        .route("/screens/{id}", post(tv::revoke))
        .route("/tv", get(tv::page).post(tv::let_in))
        .route("/tv/live", get(tv::live))
        .route("/static/tv.js", get(|| asset("text/javascript", include_str!("../static/tv.js"))))
        .route("/static/office.js", get(|| asset("text/javascript", include_str!("../static/office.js"))))
        .route("/static/style.css", get(|| asset("text/css", include_str!("../static/style.css"))))
        .route("/static/live.js", get(|| asset("text/javascript", include_str!("../static/live.js"))))
        .layer(middleware::from_fn(session::refuse_foreign_posts))
        .layer(middleware::from_fn(protect))
        .with_state(scheduler)
}

/// Configurations, addresses and sizes of cards.
fn office() -> Router<Scheduler> {
    use configurations::{apps, branding, content, general};
    let pictures = post(branding::keep).layer(DefaultBodyLimit::max(branding::MAX_FORM));
    Router::new()
        .route("/configurations", get(configurations::list).post(general::make))
        .route("/configurations/new", get(general::new))
        .route("/configurations/import", post(configurations::import))
        .route("/configurations/{id}", get(configurations::detail).post(configurations::act))
        .route("/configurations/{id}/export", get(configurations::export))
        .route("/configurations/{id}/general", get(general::form).post(general::keep))
        .route("/configurations/{id}/branding", get(branding::form).merge(pictures))
        .route("/configurations/{id}/branding/{name}", get(branding::picture))
        .route("/configurations/{id}/content", get(content::form).post(content::keep))
        .route("/configurations/{id}/apps", get(apps::form).post(apps::keep))
        .route("/addresses", get(addresses::list).post(addresses::make))
        .route("/addresses/new", get(addresses::new))
        .route("/addresses/{id}", get(addresses::form).post(addresses::act))
        .route("/media", get(media::list).post(media::make))
        .route("/media/{id}", post(media::act))
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
