//! The sizes of cards that are sold: their real sizes as they were measured, changed and removed by staff.

use askama::Template;
use axum::Form;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{Html, IntoResponse, Response};
use cardshop_protocol::ids::ObjectId;
use cardshop_scheduler::core::rights::Action;
use cardshop_scheduler::{InvalidField, Scheduler, SchedulerError};
use serde::Deserialize;
use serde_json::json;

use crate::page::{After, InLanguage, Refused, Shell, all, back_to, read_id, show};
use crate::session::Session;
use crate::words::Words;

/// A size of card.
struct Row {
    id: String,
    name: String,
    usable: u64,
    /// What was measured, in words.
    measured: String,
    asks: bool,
}

#[derive(Template)]
#[template(path = "media.html")]
struct MediaPage {
    shell: Shell,
    rows: Vec<Row>,
    fault: String,
}

#[derive(Default, Deserialize)]
pub(crate) struct Asks {
    #[serde(default)]
    delete: String,
}

fn draw(
    scheduler: &Scheduler,
    session: &Session,
    asks: &str,
    after: &After,
    fault: String,
) -> Result<MediaPage, SchedulerError> {
    let (caller, locale) = (&session.principal, &session.locale);
    let mut rows = Vec::new();
    for media in all(|page| scheduler.media(caller, page))? {
        let measured = scheduler.measure_media(caller, media.id)?;
        let smallest = measured.smallest_bytes.map(|bytes| locale.size(&bytes));
        rows.push(Row {
            id: media.id.to_string(),
            name: media.name,
            usable: media.usable_bytes,
            measured: smallest
                .map(|smallest| locale.words.measured_cards(&measured.cards, &smallest))
                .unwrap_or_default(),
            asks: asks == media.id.to_string(),
        });
    }
    Ok(MediaPage { shell: Shell::new(scheduler, session, after)?, rows, fault })
}

pub(crate) async fn list(
    State(scheduler): State<Scheduler>,
    session: Session,
    Query(asks): Query<Asks>,
    Query(after): Query<After>,
) -> Result<Html<String>, Refused> {
    let page = || {
        if !session.principal.may(Action::Administer) {
            return Err(SchedulerError::NotAllowed(session.locale.words.not_allowed.into()));
        }
        draw(&scheduler, &session, &asks.delete, &after, String::new())
    };
    Ok(show(&page().told(&session)?))
}

#[derive(Deserialize)]
pub(crate) struct New {
    #[serde(default)]
    name: String,
    #[serde(default)]
    advertised: String,
}

/// A number of bytes, however it is grouped.
fn bytes(text: &str, field: &'static str, w: &Words) -> Result<u64, SchedulerError> {
    let digits: String = text.chars().filter(|c| !c.is_whitespace() && *c != '_').collect();
    Ok(digits.parse().map_err(|_| InvalidField::new(field, w.not_a_number))?)
}

pub(crate) async fn make(
    State(scheduler): State<Scheduler>,
    session: Session,
    Form(new): Form<New>,
) -> Result<Response, Refused> {
    let made = async {
        let advertised = bytes(&new.advertised, "advertised_bytes", session.locale.words)?;
        let body = json!({"name": new.name, "advertised_bytes": advertised});
        scheduler.create_media(&session.principal, body, None).await.map(|_| "made")
    };
    let made = made.await;
    answer(&scheduler, &session, made)
}

#[derive(Deserialize)]
pub(crate) struct Asked {
    #[serde(rename = "do")]
    what: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    usable: String,
}

pub(crate) async fn act(
    State(scheduler): State<Scheduler>,
    session: Session,
    Path(id): Path<String>,
    Form(asked): Form<Asked>,
) -> Result<Response, Refused> {
    let done = async {
        let caller = &session.principal;
        let id: ObjectId = read_id(&id, "media")?;
        let body = match asked.what.as_str() {
            "delete" => return scheduler.delete_media(caller, id).await.map(|_| "deleted"),
            "measure" => json!({"usable_bytes": scheduler.measure_media(caller, id)?.usable_bytes}),
            "save" => {
                let usable = bytes(&asked.usable, "usable_bytes", session.locale.words)?;
                json!({"name": asked.name, "usable_bytes": usable})
            }
            _ => return Err(SchedulerError::NotFound("command")),
        };
        scheduler.update_media(caller, id, body).await.map(|_| "saved")
    };
    let done = done.await;
    answer(&scheduler, &session, done)
}

fn answer(
    scheduler: &Scheduler,
    session: &Session,
    done: Result<&'static str, SchedulerError>,
) -> Result<Response, Refused> {
    match done {
        Ok(done) => Ok(back_to("/media", done).into_response()),
        Err(error @ (SchedulerError::Invalid(_) | SchedulerError::Conflict { .. })) => {
            let page = draw(scheduler, session, "", &After::default(), error.to_string()).told(session)?;
            Ok((StatusCode::UNPROCESSABLE_ENTITY, show(&page)).into_response())
        }
        Err(error) => Err(Refused::new(&session.locale, error)),
    }
}
