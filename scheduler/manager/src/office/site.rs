//! The site itself: maintenance with its reason, keys that sign tokens, and the jobs that run by themselves.

use axum::extract::{Query, State};
use axum::response::{Html, IntoResponse, Response};
use cardshop_scheduler::core::rights::Action;
use cardshop_scheduler::{Scheduler, SchedulerError};
use serde_json::json;

use super::{Cell, Field, Form, Part, Row, Sent, Sheet, Table, ask_first, must, settle};
use crate::page::{After, InLanguage, Refused, back_to, show};
use crate::session::Session;

const SITE: &str = "/office/site";
const JOBS: &str = "/office/jobs";

pub(super) fn sheet(
    scheduler: &Scheduler,
    session: &Session,
    after: &After,
    sent: &Sent,
    fault: String,
) -> Result<Sheet, SchedulerError> {
    must(session, Action::Administer)?;
    let sheet = Sheet::new(scheduler, session, after, "")?;
    let b = sheet.b;
    let maintenance = scheduler.maintenance()?;
    let (said, form) = if maintenance.on {
        let since = session.locale.moment_or_dash(&maintenance.since);
        let reason = maintenance.reason.unwrap_or_default();
        let form = Form::new(b.maintenance, SITE).deed("end", b.end_maintenance);
        (format!("{} {since}. {reason}", b.maintenance_on), form)
    } else {
        let form = Form::new(b.maintenance, SITE)
            .help(b.maintenance_help)
            .field(Field::line("reason", b.reason, sent.text("reason"), 200).required())
            .deed("begin", b.begin_maintenance);
        (b.maintenance_off.to_owned(), form)
    };
    let rotation = Form::new(b.rotate_title, SITE)
        .help(b.rotate_help)
        .field(Field::check("revoke", b.rotate_revoke, false))
        .deed("rotate", b.rotate);
    let sheet = Sheet { title: b.site.into(), ..sheet };
    Ok(sheet.fault(fault).with(Part::Say(said)).with(form.part()).with(rotation.part()))
}

pub(super) async fn act(
    State(scheduler): State<Scheduler>,
    session: Session,
    sent: Sent,
) -> Result<Response, Refused> {
    let caller = &session.principal;
    let done = async {
        match sent.what() {
            "begin" | "end" => {
                let on = sent.what() == "begin";
                scheduler.set_maintenance(caller, json!({"on": on, "reason": sent.json("reason")})).await?;
                Ok(back_to(SITE, "saved").into_response())
            }
            "rotate" if !sent.is_sure() => {
                must(&session, Action::Administer)?;
                let sheet = Sheet::new(&scheduler, &session, &After::default(), "")?;
                let b = sheet.b;
                let what = if sent.is_on("revoke") { b.rotate_revoke } else { b.rotate_help };
                let what = format!("{what} {}", b.are_you_sure);
                let sheet = Sheet { title: b.rotate_title.into(), ..sheet };
                Ok(ask_first(sheet, SITE, &sent, what, ("rotate", b.rotate)))
            }
            "rotate" => {
                scheduler.rotate_keys(caller, sent.is_on("revoke")).await?;
                Ok(back_to(SITE, "rotated").into_response())
            }
            _ => Err(SchedulerError::NotFound("command")),
        }
    };
    settle(&session, done.await, |fault| sheet(&scheduler, &session, &After::default(), &sent, fault))
}

fn job_sheet(scheduler: &Scheduler, session: &Session, after: &After) -> Result<Sheet, SchedulerError> {
    let jobs = scheduler.jobs(&session.principal)?.items;
    let sheet = Sheet::new(scheduler, session, after, "")?;
    let b = sheet.b;
    let rows = jobs.into_iter().map(|job| {
        let failures = match &job.error {
            Some(error) => format!("{}: {error}", job.failures),
            None => job.failures.to_string(),
        };
        let run = Form::inline(JOBS).field(Field::hidden("chosen", job.id.clone()));
        Row {
            cells: vec![
                Cell::Code(job.id.clone()),
                Cell::Text(job.purpose),
                Cell::Text(format!("{} s", job.every_s)),
                Cell::Text(session.locale.moment_or_dash(&job.last)),
                Cell::Text(job.last_ms.map(|ms| format!("{ms} ms")).unwrap_or_default()),
                Cell::Text(failures),
                run.deed_of("run", b.run_now, &job.id).cell(),
            ],
            name: job.id.clone(),
            id: job.id,
        }
    });
    let table = Table {
        heads: vec![b.name, b.purpose, b.every, b.last_run, b.durations, b.failures, b.actions],
        rows: rows.collect(),
        ..Table::default()
    };
    let sheet = Sheet { title: b.jobs.into(), ..sheet };
    Ok(sheet.help(b.jobs_help).with(Part::Table(table)))
}

pub(super) async fn jobs(
    State(scheduler): State<Scheduler>,
    session: Session,
    Query(after): Query<After>,
) -> Result<Html<String>, Refused> {
    Ok(show(&job_sheet(&scheduler, &session, &after).told(&session)?))
}

pub(super) async fn run_job(
    State(scheduler): State<Scheduler>,
    session: Session,
    sent: Sent,
) -> Result<Response, Refused> {
    // Whether it failed stands in its row.
    let ran = scheduler.run_job(&session.principal, sent.text("chosen")).await;
    ran.told(&session)?;
    Ok(back_to(JOBS, "ran").into_response())
}
