//! The appliances: those that wait for approval with their codes, one with its hardware, slots, alerts and log, and the
//! join file of the next one.

use std::time::Duration;

use askama::Template;
use axum::Form;
use axum::extract::{Path, Query, State};
use axum::http::header;
use axum::response::{Html, IntoResponse, Response};
use cardshop_protocol::api::{Membership, SlotView};
use cardshop_protocol::ids::ApplianceId;
use cardshop_protocol::message::{Action as Reflex, Presence};
use cardshop_scheduler::core::views::ApplianceView;
use cardshop_scheduler::{Scheduler, SchedulerError};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::page::{After, InLanguage, Refused, Shell, all, back_to, read_id, show};
use crate::session::Session;
use crate::words::Words;

/// Longest label in a join file, characters. **Source:** what joining accepts.
const MAX_LABEL: usize = 100;
/// An appliance that was heard this recently counts its silence in "now".
const JUST_NOW: Duration = Duration::from_secs(90);

/// An appliance in a table.
struct Row {
    id: String,
    label: String,
    code: String,
    /// For programs: `pending`, `online` …
    state: &'static str,
    word: &'static str,
    heard: String,
    alerts: usize,
}

/// Membership and presence as one word.
fn state(appliance: &ApplianceView, w: &Words) -> (&'static str, &'static str) {
    match (appliance.state, appliance.presence) {
        (Membership::Pending, _) => ("pending", w.waiting_for_approval),
        (Membership::Rejected, _) => ("rejected", w.rejected),
        (Membership::Retired, _) => ("retired", w.retired),
        (Membership::Approved, Presence::Online) => ("online", w.online),
        (Membership::Approved, Presence::Updating) => ("updating", w.updating),
        (Membership::Approved, Presence::Stopped) => ("stopped", w.stopped),
        (Membership::Approved, Presence::Offline) => ("offline", w.offline),
    }
}

#[derive(Template)]
#[template(path = "appliances.html")]
struct AppliancesPage {
    shell: Shell,
    pending: Vec<Row>,
    others: Vec<Row>,
}

pub(crate) async fn list(
    State(scheduler): State<Scheduler>,
    session: Session,
    Query(after): Query<After>,
) -> Result<Html<String>, Refused> {
    let draw = || {
        let (w, now) = (session.locale.words, scheduler.now());
        let row = |appliance: &ApplianceView| {
            let (state, word) = state(appliance, w);
            Row {
                id: appliance.id.to_string(),
                label: appliance.label.clone(),
                code: appliance.code.clone(),
                state,
                word,
                heard: match appliance.heard {
                    Some(heard) if now.since(heard) < JUST_NOW => w.online.into(),
                    heard => session.locale.moment_or_dash(&heard),
                },
                alerts: appliance.alerts.len(),
            }
        };
        let appliances = all(|page| scheduler.appliances(&session.principal, page))?;
        let (pending, others): (Vec<_>, Vec<_>) =
            appliances.iter().map(row).partition(|row| row.state == "pending");
        Ok(AppliancesPage { shell: Shell::new(&scheduler, &session, &after)?, pending, others })
    };
    Ok(show(&draw().told(&session)?))
}

/// A slot in an appliance's table.
struct SlotRow {
    id: String,
    name: String,
    state: &'static str,
    reader: String,
    port_path: String,
    /// Depth in the tree of hubs.
    depth: usize,
}

#[derive(Template)]
#[template(path = "appliance.html")]
struct AppliancePage {
    shell: Shell,
    appliance: ApplianceView,
    state: &'static str,
    word: &'static str,
    slots: Vec<SlotRow>,
    log: String,
}

/// How deep a port path is in the tree of hubs.
fn depth(port_path: &str) -> usize {
    port_path.matches('.').count()
}

async fn page(
    scheduler: &Scheduler,
    session: &Session,
    id: ApplianceId,
    after: &After,
    log: String,
) -> Result<Html<String>, SchedulerError> {
    let caller = &session.principal;
    let appliance = scheduler.appliance(caller, id)?;
    let reported = all(|page| scheduler.slots(caller, page))?;
    let info = appliance.info.iter().flat_map(|info| &info.slots);
    let mut slots: Vec<SlotRow> = info
        .map(|slot| {
            let seen: Option<&SlotView> = reported.iter().find(|s| s.appliance == id && s.slot == slot.slot);
            SlotRow {
                id: format!("{id}/{}", slot.slot),
                name: seen.map_or_else(|| slot.slot.to_string(), |s| s.name.clone()),
                state: seen.map_or("", |s| crate::tile::word(s.state.state, session.locale.words)),
                reader: slot.reader.clone(),
                port_path: slot.port_path.clone(),
                depth: depth(&slot.port_path).min(6),
            }
        })
        .collect();
    slots.sort_by(|a, b| a.port_path.cmp(&b.port_path));
    let (state, word) = state(&appliance, session.locale.words);
    let shell = Shell::new(scheduler, session, after)?;
    Ok(show(&AppliancePage { shell, appliance, state, word, slots, log }))
}

pub(crate) async fn detail(
    State(scheduler): State<Scheduler>,
    session: Session,
    Path(id): Path<String>,
    Query(after): Query<After>,
) -> Result<Html<String>, Refused> {
    let id = read_id(&id, "appliance").told(&session)?;
    page(&scheduler, &session, id, &after, String::new()).await.told(&session)
}

#[derive(Deserialize)]
pub(crate) struct Asked {
    #[serde(rename = "do")]
    what: String,
}

/// A button of an appliance's page, or of the list's waiting ones.
pub(crate) async fn act(
    State(scheduler): State<Scheduler>,
    session: Session,
    Path(id): Path<String>,
    Form(asked): Form<Asked>,
) -> Result<Response, Refused> {
    let caller = &session.principal;
    let id = read_id(&id, "appliance").told(&session)?;
    let done = match asked.what.as_str() {
        "approve" => scheduler.approve_appliance(caller, id, None).await.map(|_| "approve"),
        "reject" => scheduler.reject_appliance(caller, id).await.map(|_| "reject"),
        "reboot" => scheduler.command_appliance(caller, id, Reflex::Reboot).await.map(|_| "reboot"),
        "support" => {
            let bundle = scheduler.support(caller, id).await.told(&session)?;
            let name = format!("attachment; filename=\"support-{id}.tar.gz\"");
            let kind = "application/gzip".to_owned();
            return Ok(
                ([(header::CONTENT_TYPE, kind), (header::CONTENT_DISPOSITION, name)], bundle).into_response()
            );
        }
        "logs" => {
            let log = scheduler.command_appliance(caller, id, Reflex::Logs).await.told(&session)?.text;
            let page = page(&scheduler, &session, id, &After::default(), log).await;
            return Ok(page.told(&session)?.into_response());
        }
        _ => Err(SchedulerError::NotFound("command")),
    };
    let done = done.told(&session)?;
    let path = if asked.what == "reboot" { format!("/appliances/{id}") } else { "/appliances".into() };
    Ok(back_to(&path, done).into_response())
}

#[derive(Deserialize)]
pub(crate) struct Wanted {
    #[serde(default)]
    label: String,
}

/// What `JOIN.TXT` says.
#[derive(Serialize)]
struct JoinFile<'a> {
    server: &'a str,
    token: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    label: &'a str,
}

/// A new join token, as the file that an appliance reads at its first boot.
pub(crate) async fn join_file(
    State(scheduler): State<Scheduler>,
    session: Session,
    Form(wanted): Form<Wanted>,
) -> Result<Response, Refused> {
    let label: String = wanted.label.trim().chars().filter(|c| !c.is_control()).take(MAX_LABEL).collect();
    let made = scheduler.create_join_token(&session.principal, json!({}), None).await.told(&session)?;
    let file = JoinFile { server: &made.server, token: &made.token, label: &label };
    let text = toml::to_string(&file).expect("three texts are TOML");
    let attachment = "attachment; filename=\"JOIN.TXT\"";
    Ok((
        [(header::CONTENT_TYPE, "text/plain; charset=utf-8"), (header::CONTENT_DISPOSITION, attachment)],
        text,
    )
        .into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_behind_two_hubs_is_two_steps_in() {
        assert_eq!([depth("1-1:0"), depth("1-1.2:0"), depth("1-1.2.4:1")], [0, 1, 2]);
    }
}
