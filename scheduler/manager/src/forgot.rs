//! A forgotten password: who says a user name or an address gets a letter with a link, if there is such an account. What the
//! page answers is the same in any case, so that it tells nobody who has one.

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
#[template(path = "forgot.html")]
struct ForgotPage {
    w: &'static Words,
    b: &'static Back,
    name: String,
    fault: &'static str,
    asked: bool,
}

fn draw(status: StatusCode, locale: &Locale, name: String, fault: &'static str, asked: bool) -> Response {
    let w = locale.words;
    (status, show(&ForgotPage { w, b: w.language.back(), name, fault, asked })).into_response()
}

pub(crate) async fn form(locale: Locale) -> Response {
    draw(StatusCode::OK, &locale, String::new(), "", false)
}

pub(crate) async fn ask(
    State(scheduler): State<Scheduler>,
    Address(address): Address,
    locale: Locale,
    sent: Sent,
) -> Response {
    let name = sent.text("name").to_owned();
    // What comes of it is done behind the answer: its time tells nothing either.
    match scheduler.forgot_password(&name, &address) {
        Ok(_) => draw(StatusCode::OK, &locale, String::new(), "", true),
        Err(SchedulerError::TooManyAttempts) => {
            draw(StatusCode::TOO_MANY_REQUESTS, &locale, name, locale.words.too_many_attempts, false)
        }
        Err(error) => {
            tracing::error!(%error, "a letter for a forgotten password cannot be asked for");
            draw(StatusCode::SERVICE_UNAVAILABLE, &locale, name, locale.words.page_failed, false)
        }
    }
}
