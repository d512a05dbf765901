//! Tasks and their logs: in colour, as plain text, and live while the task runs. Without a script the page is loaded anew.

use std::time::Duration;

use axum::extract::{Path, Query, State};
use axum::http::header;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{Html, IntoResponse, Response};
use cardshop_protocol::ids::{OrderId, TaskId};
use cardshop_scheduler::core::order::TaskStatus;
use cardshop_scheduler::core::task_log::LogKind;
use cardshop_scheduler::core::views::TaskView;
use cardshop_scheduler::{PageRequest, Scheduler, SchedulerError};
use serde_json::json;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::ansi::Painter;
use super::{Cell, Field, Form, PER_PAGE, Part, Row, Sent, Sheet, Table, none_or};
use crate::page::{After, InLanguage, Refused, show, some};
use crate::session::Session;
use crate::words::Back;

const PATH: &str = "/office/tasks";
/// How often a log is looked at while somebody watches it.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Pieces that may wait for a browser.
const BACKLOG: usize = 4;
/// Proxies close what is silent for longer.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// A task's state: for programs, and in words.
fn state(status: TaskStatus, b: &Back) -> (&'static str, &'static str) {
    match status {
        TaskStatus::Pending => ("pending", b.task_pending),
        TaskStatus::Leased => ("leased", b.task_leased),
        TaskStatus::Running => ("running", b.task_running),
        TaskStatus::Succeeded => ("succeeded", b.task_succeeded),
        TaskStatus::Failed => ("failed", b.task_failed),
        TaskStatus::Canceled => ("canceled", b.task_canceled),
        TaskStatus::Expired => ("expired", b.task_expired),
    }
}

const STATUSES: [TaskStatus; 7] = [
    TaskStatus::Pending,
    TaskStatus::Leased,
    TaskStatus::Running,
    TaskStatus::Succeeded,
    TaskStatus::Failed,
    TaskStatus::Canceled,
    TaskStatus::Expired,
];

fn kind_word(task: &TaskView, b: &Back) -> &'static str {
    if task.copy.is_none() { b.kind_creation } else { b.kind_write }
}

fn log_word(kind: LogKind, b: &Back) -> &'static str {
    match kind {
        LogKind::Download => b.log_download,
        LogKind::Build => b.log_build,
        LogKind::Index => b.log_index,
        LogKind::Upload => b.log_upload,
        LogKind::Write => b.log_write,
        LogKind::Verify => b.log_verify,
    }
}

pub(super) async fn list(
    State(scheduler): State<Scheduler>,
    session: Session,
    Query(after): Query<After>,
    asked: Sent,
) -> Result<Html<String>, Refused> {
    let draw = || -> Result<_, SchedulerError> {
        let sheet = Sheet::new(&scheduler, &session, &after, "")?;
        let b = sheet.b;
        let order = match asked.text("order") {
            "" => None,
            text => Some(text.parse::<OrderId>().map_err(|_| SchedulerError::NotFound("order"))?),
        };
        let fits = |task: &TaskView| {
            let same = |wanted: &str, has: &str| wanted.is_empty() || wanted == has;
            same(asked.text("kind"), &task.kind) && same(asked.text("status"), state(task.status, b).0)
        };
        let (tasks, next) = some(
            |page| scheduler.tasks(&session.principal, order, page),
            asked.text("cursor"),
            PER_PAGE,
            fits,
            |task| task.id.to_string(),
        )?;
        let rows = tasks.into_iter().map(|task| {
            let (key, word) = state(task.status, b);
            Row {
                cells: vec![
                    Cell::Link(format!("{PATH}/{}", task.id), task.id.to_string()),
                    Cell::Text(kind_word(&task, b).into()),
                    Cell::Link(format!("/orders/{}", task.order), task.order.to_string()),
                    Cell::Text(task.channel.to_string()),
                    Cell::Text(task.worker.unwrap_or_default()),
                    Cell::State(key, word.into()),
                    Cell::Text(task.attempts.to_string()),
                    Cell::Text(task.failure.unwrap_or_default()),
                ],
                id: task.id.to_string(),
                name: task.id.to_string(),
            }
        });
        let w = session.locale.words;
        let table = Table {
            heads: vec![b.task, b.kind, w.order, b.channel, b.worker, b.state, b.attempts, b.last_failure],
            rows: rows.collect(),
            next: next.map(|cursor| {
                format!("{PATH}?{}&cursor={cursor}", asked.query(&["order", "kind", "status"]))
            }),
            ..Table::default()
        };
        let kinds = [("creation", b.kind_creation), ("write", b.kind_write)];
        let kinds = kinds.map(|(key, word)| (key.to_owned(), word.to_owned())).to_vec();
        let statuses = STATUSES.map(|s| state(s, b)).map(|(key, word)| (key.to_owned(), word.to_owned()));
        let filter = Form::asking(PATH)
            .field(Field::line("order", w.order, asked.text("order"), 26))
            .field(Field::one("kind", b.kind, asked.text("kind"), none_or(b.all, kinds)))
            .field(Field::one("status", b.state, asked.text("status"), none_or(b.all, statuses.to_vec())))
            .deed("", b.filter);
        let sheet = Sheet { title: b.tasks.into(), ..sheet };
        Ok(sheet.help(b.tasks_help).with(filter.part()).with(Part::Table(table)))
    };
    Ok(show(&draw().told(&session)?))
}

fn read_task(text: &str) -> Result<TaskId, SchedulerError> {
    text.parse().map_err(|_| SchedulerError::NotFound("task"))
}

/// A task that the visitor may see.
fn task_of(scheduler: &Scheduler, session: &Session, id: TaskId) -> Result<TaskView, SchedulerError> {
    let all =
        crate::page::all(|page: &PageRequest| scheduler.tasks(&session.principal, Some(id.order), page))?;
    all.into_iter().find(|task| task.id == id).ok_or(SchedulerError::NotFound("task"))
}

pub(super) async fn detail(
    State(scheduler): State<Scheduler>,
    session: Session,
    Path(id): Path<String>,
    Query(after): Query<After>,
) -> Result<Html<String>, Refused> {
    let draw = || -> Result<_, SchedulerError> {
        let task = task_of(&scheduler, &session, read_task(&id)?)?;
        let logs = scheduler.task_logs(&session.principal, task.id)?.items;
        let sheet = Sheet::new(&scheduler, &session, &after, "")?;
        let (b, w) = (sheet.b, session.locale.words);
        let (key, word) = state(task.status, b);
        let mut facts = vec![
            (b.kind, Cell::Text(kind_word(&task, b).into())),
            (w.order, Cell::Link(format!("/orders/{}", task.order), task.order.to_string())),
            (b.state, Cell::State(key, word.into())),
            (b.worker, Cell::Text(task.worker.clone().unwrap_or_else(|| "–".into()))),
            (b.attempts, Cell::Text(task.attempts.to_string())),
        ];
        if let Some(failure) = &task.failure {
            facts.push((b.last_failure, Cell::Text(failure.clone())));
        }
        if let Some(card) = task.card {
            facts.push((w.card, Cell::Link(format!("/cards/{card}"), card.to_string())));
        }
        let rows = logs.into_iter().map(|log| {
            let kind = log.kind.name();
            let path = format!("{PATH}/{}/{kind}", task.id);
            Row {
                cells: vec![
                    Cell::Link(path.clone(), log_word(log.kind, b).into()),
                    Cell::Text(session.locale.size(&log.size)),
                    Cell::Text(session.locale.moment(&log.changed)),
                    Cell::Link(format!("{path}/text"), b.as_text.into()),
                ],
                id: kind.into(),
                name: kind.into(),
            }
        });
        let rows: Vec<Row> = rows.collect();
        let sheet = Sheet { title: format!("{} {}", b.task, task.id), ..sheet };
        let none = rows.is_empty();
        let heads = vec![b.logs, b.size, b.changed, b.as_text];
        let sheet = sheet.above(PATH, b.tasks).with(Part::Facts(facts));
        if none {
            return Ok(sheet.with(Part::Say(b.no_logs.into())));
        }
        Ok(sheet.with(Part::Table(Table { title: b.logs, heads, rows, ..Table::default() })))
    };
    Ok(show(&draw().told(&session)?))
}

fn read_log(task: &str, kind: &str) -> Result<(TaskId, LogKind), SchedulerError> {
    Ok((read_task(task)?, kind.parse().map_err(|()| SchedulerError::NotFound("log"))?))
}

fn is_running(task: &TaskView) -> bool {
    matches!(task.status, TaskStatus::Leased | TaskStatus::Running)
}

pub(super) async fn log(
    State(scheduler): State<Scheduler>,
    session: Session,
    Path((task, kind)): Path<(String, String)>,
) -> Result<Html<String>, Refused> {
    let draw = || -> Result<_, SchedulerError> {
        let (id, kind) = read_log(&task, &kind)?;
        let text = scheduler.task_log(&session.principal, id, kind)?;
        let task = task_of(&scheduler, &session, id)?;
        let sheet = Sheet::new(&scheduler, &session, &After::default(), "")?;
        let (b, path) = (sheet.b, format!("{PATH}/{id}"));
        let (key, word) = state(task.status, b);
        let mut live = String::new();
        let mut help = "";
        if is_running(&task) {
            live = format!("{path}/{}/live", kind.name());
            help = b.log_live;
        }
        let sheet = Sheet { title: format!("{} · {} {id}", log_word(kind, b), b.task), ..sheet };
        let facts = vec![
            (b.state, Cell::State(key, word.into())),
            (b.as_text, Cell::Link(format!("{path}/{}/text", kind.name()), format!("{}.txt", kind.name()))),
        ];
        let sheet = sheet.above(&path, &format!("{} {id}", b.task)).help(help).with(Part::Facts(facts));
        Ok(sheet.with(Part::Log { html: Painter::default().paint(&text), live }))
    };
    Ok(show(&draw().told(&session)?))
}

/// Without its colours, for programs and for letters.
pub(super) async fn text(
    State(scheduler): State<Scheduler>,
    session: Session,
    Path((task, kind)): Path<(String, String)>,
) -> Result<Response, Refused> {
    let read = || {
        let (task, kind) = read_log(&task, &kind)?;
        scheduler.task_log(&session.principal, task, kind)
    };
    let text = read().told(&session)?;
    Ok(([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], super::ansi::plain(&text)).into_response())
}

/// The whole log anew whenever it grew, until its task ends or nobody watches.
pub(super) async fn live(
    State(scheduler): State<Scheduler>,
    session: Session,
    Path((task, kind)): Path<(String, String)>,
) -> Result<impl IntoResponse, Refused> {
    let read = || {
        let (task, kind) = read_log(&task, &kind)?;
        scheduler.task_log(&session.principal, task, kind).map(|_| (task, kind))
    };
    let (task, kind) = read().told(&session)?;
    let (sender, receiver) = mpsc::channel(BACKLOG);
    tokio::spawn(follow(scheduler, session, task, kind, sender));
    let stream = ReceiverStream::new(receiver);
    Ok(Sse::new(stream).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)))
}

async fn follow(
    scheduler: Scheduler,
    session: Session,
    id: TaskId,
    kind: LogKind,
    sender: mpsc::Sender<Result<Event, axum::Error>>,
) {
    let mut shown = String::new();
    loop {
        let Ok(text) = scheduler.task_log(&session.principal, id, kind) else { return };
        if text != shown {
            // What is only added to is sent as what was added.
            let added = text.strip_prefix(shown.as_str()).filter(|_| !shown.is_empty());
            let mut painter = Painter::default();
            let event = match added {
                Some(added) => {
                    painter.paint(&shown);
                    json!({"add": painter.paint(added)})
                }
                None => json!({"all": painter.paint(&text)}),
            };
            if sender.send(Ok(Event::default().event("log").data(event.to_string()))).await.is_err() {
                return;
            }
            shown = text;
        }
        let running = task_of(&scheduler, &session, id).is_ok_and(|task| is_running(&task));
        if !running || !session.still_counts(&scheduler) {
            let _ = sender.send(Ok(Event::default().event("end").data("{}"))).await;
            return;
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => {}
            () = sender.closed() => return,
        }
    }
}
