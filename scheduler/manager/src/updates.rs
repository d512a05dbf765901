//! Versions of the appliances: what is rolled out, how far it is, and the buttons that hold, resume and end it. A version is
//! put there by `cardshop admin update publish`; this page makes none.

use askama::Template;
use axum::Form;
use axum::extract::{Path, Query, State};
use axum::response::{Html, IntoResponse, Response};
use cardshop_scheduler::core::rollout::{Outcome, RolloutState, RolloutView};
use cardshop_scheduler::{Scheduler, SchedulerError};
use serde::Deserialize;

use crate::page::{After, InLanguage, Refused, Shell, all, back_to, read_id, show};
use crate::session::Session;
use crate::words::Words;

/// An appliance of a roll-out.
struct Row {
    id: String,
    label: String,
    runs: String,
    ring: usize,
    outcome: &'static str,
    text: String,
}

/// A roll-out.
struct Version {
    id: String,
    version: String,
    kid: String,
    state: &'static str,
    word: &'static str,
    reason: String,
    created: String,
    done: usize,
    rows: Vec<Row>,
}

impl Version {
    fn new(rollout: RolloutView, session: &Session) -> Self {
        let w = session.locale.words;
        let (state, word) = match rollout.state {
            RolloutState::Paused => ("paused", w.update_paused),
            RolloutState::Running => ("running", w.update_running),
            RolloutState::Stopped => ("stopped", w.update_stopped),
        };
        let done = rollout.appliances.iter().filter(|member| member.outcome == Outcome::Done).count();
        let rows = rollout.appliances.into_iter().map(|member| Row {
            id: member.appliance.to_string(),
            label: member.label,
            runs: member.runs.map_or_else(|| "–".to_owned(), |version| version.to_string()),
            ring: member.ring + 1,
            outcome: word_of(member.outcome, w),
            text: member.text,
        });
        Self {
            id: rollout.id.to_string(),
            version: rollout.version.to_string(),
            kid: rollout.kid.to_string(),
            state,
            word,
            reason: rollout.reason.unwrap_or_default(),
            created: session.locale.moment(&rollout.created),
            done,
            rows: rows.collect(),
        }
    }
}

fn word_of(outcome: Outcome, w: &Words) -> &'static str {
    match outcome {
        Outcome::Waiting => w.update_waits,
        Outcome::UnderWay => w.update_under_way,
        Outcome::Done => w.update_done,
        Outcome::Failed => w.update_failed,
        Outcome::Lost => w.update_lost,
    }
}

#[derive(Template)]
#[template(path = "updates.html")]
struct UpdatesPage {
    shell: Shell,
    versions: Vec<Version>,
}

pub(crate) async fn page(
    State(scheduler): State<Scheduler>,
    session: Session,
    Query(after): Query<After>,
) -> Result<Html<String>, Refused> {
    let draw = || {
        let rollouts = all(|page| scheduler.updates(&session.principal, page))?;
        let versions = rollouts.into_iter().map(|rollout| Version::new(rollout, &session)).collect();
        Ok(UpdatesPage { shell: Shell::new(&scheduler, &session, &after)?, versions })
    };
    Ok(show(&draw().told(&session)?))
}

#[derive(Deserialize)]
pub(crate) struct Asked {
    #[serde(rename = "do")]
    what: String,
}

pub(crate) async fn act(
    State(scheduler): State<Scheduler>,
    session: Session,
    Path(id): Path<String>,
    Form(asked): Form<Asked>,
) -> Result<Response, Refused> {
    let none = SchedulerError::NotFound("update");
    let to = match asked.what.as_str() {
        "pause" => Ok(RolloutState::Paused),
        "resume" => Ok(RolloutState::Running),
        "stop" => Ok(RolloutState::Stopped),
        _ => Err(none),
    };
    let to = to.told(&session)?;
    let id = read_id(&id, "update").told(&session)?;
    scheduler.change_update(&session.principal, id, to).await.told(&session)?;
    Ok(back_to("/updates", "update").into_response())
}
