//! The web pages: server-rendered, with real forms that work without JavaScript and one small script that keeps
//! tiles live. They call the functions of [`Scheduler`] that the API calls, with the rights of who is logged in;
//! they decide nothing about orders. `cardshop up` and `demo` mount them beside the API.

mod account;
mod addresses;
mod api;
mod appliances;
mod bench;
mod cards;
mod configurations;
mod first;
mod forgot;
mod locale;
mod login;
mod media;
mod office;
mod orders;
mod page;
mod password;
mod scan;
mod session;
mod statistics;
mod status;
mod tile;
mod tv;
mod updates;
mod words;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderName, HeaderValue, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use cardshop_scheduler::Scheduler;

/// Nothing but our own style, script and live stream; no frames, no inline code. **Source:** CSP Level 3.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; \
     img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// Nothing of the machine: pages need a screen, keys and sound. **Source:** Permissions Policy.
const PERMISSIONS_POLICY: &str = "accelerometer=(), bluetooth=(), camera=(), geolocation=(), gyroscope=(), hid=(), \
     magnetometer=(), microphone=(), midi=(), payment=(), serial=(), usb=()";
/// Half a year: a browser that was here once asks under TLS from then on. **Source:** RFC 6797.
const STRICT_TRANSPORT: &str = "max-age=15768000";
/// Largest form, bytes: as large as a body of the API.
const MAX_FORM: usize = 512 * 1024;

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
        .route("/updates", get(updates::page))
        .route("/updates/{id}", post(updates::act))
        .route("/screens", get(tv::screens).post(tv::make))
        .route("/screens/{id}", post(tv::revoke))
        .route("/tv", get(tv::page).post(tv::let_in))
        .route("/tv/live", get(tv::live))
        .route("/account", get(account::page).post(account::act))
        .route("/password", get(password::page).post(password::set))
        .route("/forgot", get(forgot::form).post(forgot::ask))
        .route("/first", get(first::page).post(first::act))
        .route("/status", get(status::page))
        .route("/status/{part}", get(status::part))
        .route("/api", get(api::page))
        .merge(office::routes())
        .route("/static/log.js", get(|| asset("text/javascript", include_str!("../static/log.js"))))
        .route("/static/password.js", get(|| asset("text/javascript", include_str!("../static/password.js"))))
        .route("/static/tv.js", get(|| asset("text/javascript", include_str!("../static/tv.js"))))
        .route("/static/office.js", get(|| asset("text/javascript", include_str!("../static/office.js"))))
        .route("/static/style.css", get(|| asset("text/css", include_str!("../static/style.css"))))
        .route("/static/live.js", get(|| asset("text/javascript", include_str!("../static/live.js"))))
        .layer(DefaultBodyLimit::max(MAX_FORM))
        .layer(middleware::from_fn_with_state(scheduler.clone(), session::keep_open))
        .layer(middleware::from_fn(session::refuse_foreign_posts))
        .layer(middleware::from_fn_with_state(scheduler.clone(), protect))
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
async fn protect(State(scheduler): State<Scheduler>, request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    let mut say = |name, text| headers.insert(name, HeaderValue::from_static(text));
    say(header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY);
    say(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    say(HeaderName::from_static("permissions-policy"), PERMISSIONS_POLICY);
    say(HeaderName::from_static("cross-origin-opener-policy"), "same-origin");
    // Not `no-referrer`: with it browsers send our own forms with `Origin: null`.
    say(header::REFERRER_POLICY, "same-origin");
    if scheduler.is_all_encrypted() {
        say(header::STRICT_TRANSPORT_SECURITY, STRICT_TRANSPORT);
    }
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}
