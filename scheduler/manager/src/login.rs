//! Logging in and out, and the preferences of a browser: language and time zone.

use askama::Template;
use axum::Form;
use axum::extract::{Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{AppendHeaders, IntoResponse, Redirect, Response};
use cardshop_protocol::api::Login;
use cardshop_scheduler::{Scheduler, SchedulerError};
use serde::Deserialize;

use crate::first;
use crate::locale::{LANGUAGE_COOKIE, Locale, ZONE_COOKIE, zone};
use crate::page::{After, InLanguage, Refused, Shell, back_to, show};
use crate::session::{Address, Agent, Session, end_cookie, make_cookie, set_cookie, token_of};
use crate::words::{Language, Words};

/// Preferences last a year, seconds.
const PREFERENCE_LIFE_S: u64 = 365 * 86_400;

#[derive(Template)]
#[template(path = "login.html")]
struct LoginPage {
    w: &'static Words,
    username: String,
    fault: &'static str,
}

fn login_page(status: StatusCode, locale: &Locale, username: String, fault: &'static str) -> Response {
    (status, show(&LoginPage { w: locale.words, username, fault })).into_response()
}

pub(crate) async fn form(locale: Locale) -> Response {
    login_page(StatusCode::OK, &locale, String::new(), "")
}

pub(crate) async fn log_in(
    State(scheduler): State<Scheduler>,
    Address(address): Address,
    locale: Locale,
    Agent(agent): Agent,
    Form(login): Form<Login>,
) -> Response {
    match scheduler.begin_session(&login.username, &login.password, &address, &agent).await {
        Ok(open) => {
            let caller = scheduler.authenticate(&open.token, &address);
            let is_new = caller.is_ok_and(|caller| first::is_new(&scheduler, &caller));
            let page = if is_new { "/first" } else { "/bench" };
            ([(header::SET_COOKIE, set_cookie(&scheduler, &open))], Redirect::to(page)).into_response()
        }
        Err(error) => {
            let w = locale.words;
            let (status, fault) = match error {
                SchedulerError::NotKnown => (StatusCode::UNAUTHORIZED, w.wrong_login),
                SchedulerError::TooManyAttempts => (StatusCode::TOO_MANY_REQUESTS, w.too_many_attempts),
                _ => (StatusCode::SERVICE_UNAVAILABLE, w.page_failed),
            };
            login_page(status, &locale, login.username, fault)
        }
    }
}

pub(crate) async fn log_out(State(scheduler): State<Scheduler>, headers: HeaderMap) -> Response {
    if let Some(token) = token_of(&headers)
        && let Err(error) = scheduler.end_session(token).await
    {
        // Its cookie goes in any case, and without it nobody has the token.
        tracing::error!(%error, "a session could not be ended");
    }
    ([(header::SET_COOKIE, end_cookie(&scheduler))], Redirect::to("/login")).into_response()
}

#[derive(Template)]
#[template(path = "preferences.html")]
struct PreferencesPage {
    shell: Shell,
    languages: Vec<(&'static str, &'static str, bool)>,
    zone: String,
}

pub(crate) async fn preferences(
    State(scheduler): State<Scheduler>,
    session: Session,
    Query(after): Query<After>,
) -> Result<Response, Refused> {
    let shell = Shell::new(&scheduler, &session, &after).told(&session)?;
    let own = session.locale.words.language;
    let languages = Language::ALL.map(|l| (l.tag(), l.words().language_name, l == own)).to_vec();
    let zone = session.locale.zone.iana_name().unwrap_or_default().to_owned();
    Ok(show(&PreferencesPage { shell, languages, zone }).into_response())
}

#[derive(Deserialize)]
pub(crate) struct Preferences {
    language: String,
    zone: String,
}

/// Keeps what is known; an unknown language or zone leaves the one before.
pub(crate) async fn keep_preferences(
    State(scheduler): State<Scheduler>,
    Form(chosen): Form<Preferences>,
) -> Response {
    let keep = |name: &str, value: &str| {
        let life = if value.is_empty() { 0 } else { PREFERENCE_LIFE_S };
        (header::SET_COOKIE, make_cookie(&scheduler, &format!("{name}={value}; Path=/"), "Lax", life))
    };
    let mut cookies = Vec::new();
    if Language::from_tag(&chosen.language).is_some() {
        cookies.push(keep(LANGUAGE_COOKIE, &chosen.language));
    }
    let name = chosen.zone.trim();
    if name.is_empty() || zone(name).is_some() {
        cookies.push(keep(ZONE_COOKIE, name));
    }
    (AppendHeaders(cookies), back_to("/preferences", "saved")).into_response()
}
