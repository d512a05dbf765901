//! Webhooks: programs and topics that are told, made with a secret that is shown once, tried out, removed, and what each was
//! told. For staff, and for integrators their channels' own.

use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{Html, IntoResponse, Response};
use cardshop_protocol::ids::ObjectId;
use cardshop_scheduler::core::notify::{HookKind, Notice, WebhookView};
use cardshop_scheduler::core::rights::Action;
use cardshop_scheduler::{PageRequest, Scheduler, SchedulerError};
use serde_json::json;

use super::messages::{chosen, language_options, notice_word, standing};
use super::{
    Cell, Field, Form, PER_PAGE, Part, Row, Secret, Sent, Sheet, Table, ask_first, channel_options, must,
    settle,
};
use crate::page::{After, InLanguage, Refused, all, back_to, show};
use crate::session::Session;
use crate::words::Back;

const PATH: &str = "/office/webhooks";
/// Longest address, characters.
const MAX_URL: usize = 1000;

fn kind_word(kind: HookKind, b: &Back) -> &'static str {
    match kind {
        HookKind::Webhook => b.hook_signed,
        HookKind::Ntfy => b.hook_ntfy,
    }
}

/// A page for who may listen. Integrators have no back office to go back to.
fn hook_page(scheduler: &Scheduler, session: &Session, after: &After) -> Result<Sheet, SchedulerError> {
    must(session, Action::Listen)?;
    let sheet = Sheet::new(scheduler, session, after, "")?;
    let above = sheet.above.filter(|_| session.principal.may(Action::Look));
    Ok(Sheet { title: sheet.b.webhooks.into(), above, ..sheet })
}

fn events_of(hook: &WebhookView, b: &Back) -> String {
    hook.events.iter().map(|notice| notice_word(*notice, b)).collect::<Vec<_>>().join(", ")
}

fn channels_of(hook: &WebhookView, b: &Back) -> String {
    let channels: Vec<&str> = hook.channels.iter().map(|c| c.as_str()).collect();
    if channels.is_empty() { b.all.into() } else { channels.join(", ") }
}

pub(super) fn list_sheet(
    scheduler: &Scheduler,
    session: &Session,
    after: &After,
    sent: &Sent,
    fault: String,
) -> Result<Sheet, SchedulerError> {
    let sheet = hook_page(scheduler, session, after)?;
    let b = sheet.b;
    let rows = all(|page| scheduler.webhooks(&session.principal, page))?.into_iter().map(|hook| Row {
        cells: vec![
            Cell::Link(format!("{PATH}/{}", hook.id), hook.url.clone()),
            Cell::Text(kind_word(hook.kind, b).into()),
            Cell::Text(events_of(&hook, b)),
            Cell::Text(channels_of(&hook, b)),
            Cell::Text(hook.created_by),
            Cell::Text(session.locale.moment(&hook.created)),
        ],
        id: hook.id.to_string(),
        name: hook.url,
    });
    let table = Table {
        heads: vec![b.address, b.kind, b.told_of, b.channels, b.made_by, b.created],
        rows: rows.collect(),
        ..Table::default()
    };
    let kinds = [("webhook", b.hook_signed), ("ntfy", b.hook_ntfy)];
    let kinds = kinds.map(|(key, word)| (key.to_owned(), word.to_owned()));
    let events = Notice::ALL.into_iter().filter(|notice| notice.is_public());
    let events = events.map(|notice| (notice.name().to_owned(), notice_word(notice, b).to_owned()));
    let channels = channel_options(scheduler, session)?;
    let form = Form::new(b.new_webhook, PATH)
        .field(Field::line("url", b.address, sent.text("url"), MAX_URL).required().hint(b.webhook_address))
        .field(Field::one("kind", b.kind, sent.text("kind"), kinds))
        .field(Field::many("events", b.told_of, &sent.all("events"), events))
        .field(Field::many("channels", b.channels, &sent.all("channels"), channels))
        .field(Field::one("language", b.language, sent.text("language"), language_options()))
        .deed("make", b.make);
    Ok(sheet.help(b.webhooks_help).fault(fault).with(Part::Table(table)).with(form.part()))
}

pub(super) async fn make(
    State(scheduler): State<Scheduler>,
    session: Session,
    sent: Sent,
) -> Result<Response, Refused> {
    let again = |sent: &Sent, fault| list_sheet(&scheduler, &session, &After::default(), sent, fault);
    let done = async {
        let channels = Some(sent.all("channels")).filter(|channels| !channels.is_empty());
        let body = json!({
            "url": sent.text("url"), "kind": sent.json("kind"), "events": sent.all("events"),
            "channels": channels, "language": sent.json("language"),
        });
        let made = scheduler.create_webhook(&session.principal, body).await?;
        let mut sheet = again(&Sent::default(), String::new())?;
        sheet.secret = Some(Secret { help: sheet.b.webhook_shown_once, text: made.secret });
        Ok((StatusCode::CREATED, show(&sheet)).into_response())
    };
    settle(&session, done.await, |fault| again(&sent, fault))
}

/// The visitor's webhook of this id.
fn hook_of(scheduler: &Scheduler, session: &Session, id: &str) -> Result<WebhookView, SchedulerError> {
    must(session, Action::Listen)?;
    let hooks = all(|page| scheduler.webhooks(&session.principal, page))?;
    hooks.into_iter().find(|hook| hook.id.to_string() == id).ok_or(SchedulerError::NotFound("webhook"))
}

fn detail_sheet(
    scheduler: &Scheduler,
    session: &Session,
    after: &After,
    asked: &Sent,
    hook: &WebhookView,
    fault: String,
) -> Result<Sheet, SchedulerError> {
    let sheet = hook_page(scheduler, session, after)?;
    let b = sheet.b;
    let sheet = sheet.above(PATH, b.webhooks);
    let path = format!("{PATH}/{}", hook.id);
    let facts = vec![
        (b.address, Cell::Code(hook.url.clone())),
        (b.kind, Cell::Text(kind_word(hook.kind, b).into())),
        (b.told_of, Cell::Text(events_of(hook, b))),
        (b.channels, Cell::Text(channels_of(hook, b))),
        (b.language, Cell::Text(hook.language.clone())),
        (b.made_by, Cell::Text(hook.created_by.clone())),
        (b.created, Cell::Text(session.locale.moment(&hook.created))),
    ];
    let cursor = Some(asked.text("cursor").to_owned()).filter(|c| !c.is_empty());
    let request = PageRequest { limit: Some(PER_PAGE), cursor };
    let told = scheduler.deliveries(&session.principal, hook.id, &request)?;
    let rows = told.items.iter().map(|message| {
        let (id, what) = (message.id.to_string(), notice_word(message.event, b));
        let again = Form::inline(path.clone()).field(Field::hidden("chosen", id.clone()));
        let [state, sent, why] = standing(message, session);
        // Of one that was not taken the answer is the reason.
        let answer = message.tries.last().filter(|_| message.reason.is_none());
        Row {
            cells: vec![
                Cell::Text(session.locale.moment(&message.created)),
                Cell::Text(what.into()),
                state,
                sent,
                Cell::Text(answer.map(|t| t.result.clone()).unwrap_or_default()),
                why,
                again.deed_of("send", b.send_again, what).cell(),
            ],
            name: what.into(),
            id,
        }
    });
    let table = Table {
        title: b.deliveries,
        heads: vec![b.when, b.event, b.state, b.sent, b.answer, b.reason, b.actions],
        rows: rows.collect(),
        next: told.next_cursor.map(|cursor| format!("{path}?cursor={cursor}")),
        ..Table::default()
    };
    let acts = Form::inline(path).deed("test", b.send_test).deed("delete", b.delete);
    let sheet = Sheet { title: hook.url.clone(), ..sheet };
    Ok(sheet.fault(fault).with(Part::Facts(facts)).with(acts.part()).with(Part::Table(table)))
}

pub(super) async fn detail(
    State(scheduler): State<Scheduler>,
    session: Session,
    Path(id): Path<String>,
    Query(after): Query<After>,
    asked: Sent,
) -> Result<Html<String>, Refused> {
    let hook = hook_of(&scheduler, &session, &id).told(&session)?;
    let sheet = detail_sheet(&scheduler, &session, &after, &asked, &hook, String::new());
    Ok(show(&sheet.told(&session)?))
}

pub(super) async fn act(
    State(scheduler): State<Scheduler>,
    session: Session,
    Path(id): Path<String>,
    sent: Sent,
) -> Result<Response, Refused> {
    let caller = &session.principal;
    let hook = hook_of(&scheduler, &session, &id).told(&session)?;
    let path = format!("{PATH}/{}", hook.id);
    let hook_id: ObjectId = hook.id;
    let done = async {
        match sent.what() {
            "test" => {
                scheduler.test_webhook(caller, hook_id).await?;
                Ok(back_to(&path, "queued").into_response())
            }
            "send" => {
                scheduler.deliver_again(caller, hook_id, chosen(&sent)?).await?;
                Ok(back_to(&path, "queued").into_response())
            }
            "delete" if !sent.is_sure() => {
                let sheet = hook_page(&scheduler, &session, &After::default())?;
                let b = sheet.b;
                let what = format!("{} {}", hook.url, b.are_you_sure);
                Ok(ask_first(sheet, &path, &sent, what, ("delete", b.delete)))
            }
            "delete" => {
                scheduler.delete_webhook(caller, hook_id).await?;
                Ok(back_to(PATH, "deleted").into_response())
            }
            _ => Err(SchedulerError::NotFound("command")),
        }
    };
    settle(&session, done.await, |fault| {
        detail_sheet(&scheduler, &session, &After::default(), &Sent::default(), &hook, fault)
    })
}
