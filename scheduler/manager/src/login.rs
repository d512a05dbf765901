//! Logging in and out.

use askama::Template;
use axum::Form;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse, Redirect, Response};
use cardshop_protocol::api::Login;
use cardshop_scheduler::{Scheduler, SchedulerError};

use crate::session::{Address, set_cookie};

#[derive(Template)]
#[template(path = "login.html")]
struct LoginPage {
    username: String,
    fault: String,
}

fn show(status: StatusCode, username: String, fault: String) -> Response {
    let page = LoginPage { username, fault }.render().expect("the template is complete at build time");
    (status, Html(page)).into_response()
}

pub(crate) async fn form() -> Response {
    show(StatusCode::OK, String::new(), String::new())
}

pub(crate) async fn log_in(
    State(scheduler): State<Scheduler>,
    Address(address): Address,
    Form(login): Form<Login>,
) -> Response {
    match scheduler.login(&login.username, &login.password, &address).await {
        Ok(pair) => {
            let cookie = set_cookie(&pair.access_token, pair.expires_in);
            ([(header::SET_COOKIE, cookie)], Redirect::to("/bench")).into_response()
        }
        Err(error) => {
            let status = match error {
                SchedulerError::NotKnown => StatusCode::UNAUTHORIZED,
                SchedulerError::TooManyAttempts => StatusCode::TOO_MANY_REQUESTS,
                _ => StatusCode::SERVICE_UNAVAILABLE,
            };
            show(status, login.username, error.to_string())
        }
    }
}

pub(crate) async fn log_out() -> Response {
    ([(header::SET_COOKIE, set_cookie("", 0))], Redirect::to("/login")).into_response()
}
