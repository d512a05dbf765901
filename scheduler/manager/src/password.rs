//! A password by a letter: an invitation, or a reset. The token is in the fragment of the link, which browsers send to nobody; a
//! script moves it into the form, and without one it is pasted.

use askama::Template;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use cardshop_scheduler::{Scheduler, SchedulerError};

use crate::locale::Locale;
use crate::office::Sent;
use crate::page::show;
use crate::session::Address;
use crate::words::{Back, Words};

#[derive(Template)]
#[template(path = "password.html")]
struct PasswordPage {
    w: &'static Words,
    b: &'static Back,
    /// What the link had; it is kept when only the password was wrong.
    token: String,
    fault: String,
    /// The fault is the scheduler's own text, in English.
    english: bool,
    done: bool,
}

fn draw(status: StatusCode, locale: &Locale, token: String, fault: String, english: bool) -> Response {
    let w = locale.words;
    let done = status == StatusCode::OK && !token.is_empty();
    (status, show(&PasswordPage { w, b: w.language.back(), token, fault, english, done })).into_response()
}

pub(crate) async fn page(locale: Locale) -> Response {
    draw(StatusCode::OK, &locale, String::new(), String::new(), false)
}

pub(crate) async fn set(
    State(scheduler): State<Scheduler>,
    Address(address): Address,
    locale: Locale,
    sent: Sent,
) -> Response {
    let token = sent.text("token").trim_start_matches('#').to_owned();
    match scheduler.set_password_by_link(&token, sent.raw("new"), &address).await {
        Ok(_) => draw(StatusCode::OK, &locale, token, String::new(), false),
        Err(error @ SchedulerError::Invalid(_)) => {
            draw(StatusCode::UNPROCESSABLE_ENTITY, &locale, token, error.to_string(), true)
        }
        Err(SchedulerError::NotKnown) => {
            let fault = locale.words.language.back().link_bad.to_owned();
            draw(StatusCode::UNAUTHORIZED, &locale, String::new(), fault, false)
        }
        Err(error) => draw(StatusCode::SERVICE_UNAVAILABLE, &locale, token, error.to_string(), true),
    }
}
