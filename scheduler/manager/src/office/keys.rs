//! What others get in with: API keys of programs, account hooks of web shops, join tokens of appliances. Their texts are shown
//! once, when they are made.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use cardshop_protocol::token::ApiRight;
use cardshop_scheduler::core::rights::Action;
use cardshop_scheduler::{Scheduler, SchedulerError};
use serde_json::json;

use super::organizations::{name_of, options as organization_options};
use super::{
    Cell, Field, Form, Part, Row, Secret, Sent, Sheet, Table, ask_first, channel_options, must, none_or,
    settle,
};
use crate::page::{After, Refused, all, back_to, read_id, show};
use crate::session::Session;
use crate::words::Back;

const API_KEYS: &str = "/office/api-keys";
const HOOKS: &str = "/office/hooks";
const JOIN_TOKENS: &str = "/office/join-tokens";
const RIGHTS: [ApiRight; 3] = [ApiRight::Watch, ApiRight::Order, ApiRight::Ship];

/// A right: as it is sent, and in words.
fn right(right: ApiRight, b: &Back) -> (&'static str, &'static str) {
    match right {
        ApiRight::Watch => ("watch", b.right_watch),
        ApiRight::Order => ("order", b.right_order),
        ApiRight::Ship => ("ship", b.right_ship),
    }
}

/// A button that ends one of a list.
fn end(path: &'static str, id: &str, name: &str, b: &'static Back) -> Cell {
    Form::inline(path).field(Field::hidden("chosen", id)).deed_of("revoke", b.revoke, name).cell()
}

/// Asks whether something is to be ended.
fn ask(
    scheduler: &Scheduler,
    session: &Session,
    path: &'static str,
    sent: &Sent,
    title: fn(&Back) -> &'static str,
) -> Result<Response, SchedulerError> {
    must(session, Action::Enrol)?;
    let sheet = Sheet::new(scheduler, session, &After::default(), "")?;
    let b = sheet.b;
    let sheet = Sheet { title: title(b).into(), ..sheet };
    Ok(ask_first(sheet, path, sent, b.are_you_sure.into(), ("revoke", b.revoke)))
}

/// The page with what was just made; not to be loaded again, for the text is shown once.
fn made(mut sheet: Sheet, help: &'static str, text: String) -> Response {
    sheet.secret = Some(Secret { help, text });
    (StatusCode::CREATED, show(&sheet)).into_response()
}

pub(super) fn api_key_sheet(
    scheduler: &Scheduler,
    session: &Session,
    after: &After,
    sent: &Sent,
    fault: String,
) -> Result<Sheet, SchedulerError> {
    must(session, Action::Enrol)?;
    let sheet = Sheet::new(scheduler, session, after, "")?;
    let b = sheet.b;
    let now = scheduler.now();
    let rows = all(|page| scheduler.api_keys(&session.principal, page))?.into_iter().rev().map(|key| {
        let rights: Vec<_> = key.rights.iter().map(|r| right(*r, b).1).collect();
        let channels: Vec<&str> = key.channels.iter().map(|c| c.as_str()).collect();
        let id = key.id.to_string();
        let over = key.revoked.is_some() || key.expires <= now;
        let act =
            if over { Cell::State("ended", b.is_revoked.into()) } else { end(API_KEYS, &id, &key.name, b) };
        Row {
            cells: vec![
                Cell::Code(key.name.clone()),
                Cell::Text(rights.join(", ")),
                Cell::Text(channels.join(", ")),
                Cell::Text(key.created_by),
                Cell::Text(session.locale.moment_or_dash(&key.last_used)),
                Cell::Text(session.locale.moment(&key.expires)),
                act,
            ],
            id,
            name: key.name,
        }
    });
    let table = Table {
        heads: vec![b.name, b.rights, b.channels, b.made_by, b.last_used, b.expires, b.actions],
        rows: rows.collect(),
        ..Table::default()
    };
    let rights = RIGHTS.map(|r| right(r, b)).map(|(key, word)| (key.to_owned(), word.to_owned()));
    let form = Form::new(b.new_api_key, API_KEYS)
        .field(Field::once())
        .field(Field::line("name", b.name, sent.text("name"), 64).required())
        .field(Field::many("rights", b.rights, &sent.all_or("rights", &["watch".into()]), rights))
        .field(Field::many(
            "channels",
            b.channels,
            &sent.all("channels"),
            channel_options(scheduler, session)?,
        ))
        .field(Field::number("days", b.days_valid, sent.or("days", "365"), (1, 1825)))
        .deed("make", b.make);
    let sheet = Sheet { title: b.api_keys.into(), ..sheet };
    Ok(sheet.help(b.api_keys_help).fault(fault).with(Part::Table(table)).with(form.part()))
}

pub(super) async fn act_on_api_keys(
    State(scheduler): State<Scheduler>,
    session: Session,
    sent: Sent,
) -> Result<Response, Refused> {
    let caller = &session.principal;
    let again = |sent: &Sent, fault| api_key_sheet(&scheduler, &session, &After::default(), sent, fault);
    let done = async {
        match sent.what() {
            "make" => {
                let channels = Some(sent.all("channels")).filter(|c| !c.is_empty());
                let body = json!({
                    "name": sent.text("name"), "rights": sent.all("rights"), "channels": channels,
                    "days": sent.number("days", &session.locale)?,
                });
                let once = sent.once(caller, "api-keys", &body)?;
                let key = scheduler.create_api_key(caller, body, once).await?;
                let sheet = again(&Sent::default(), String::new())?;
                let help = sheet.b.key_shown_once;
                Ok(made(sheet, help, key.key))
            }
            "revoke" if !sent.is_sure() => ask(&scheduler, &session, API_KEYS, &sent, |b| b.api_keys),
            "revoke" => {
                scheduler.revoke_api_key(caller, read_id(sent.text("chosen"), "API key")?).await?;
                Ok(back_to(API_KEYS, "ended").into_response())
            }
            _ => Err(SchedulerError::NotFound("command")),
        }
    };
    settle(&session, done.await, |fault| again(&sent, fault))
}

pub(super) fn hook_sheet(
    scheduler: &Scheduler,
    session: &Session,
    after: &After,
    sent: &Sent,
    fault: String,
) -> Result<Sheet, SchedulerError> {
    must(session, Action::Administer)?;
    let sheet = Sheet::new(scheduler, session, after, "")?;
    let b = sheet.b;
    let organizations = organization_options(scheduler, session)?;
    let rows = all(|page| scheduler.account_hooks(&session.principal, page))?.into_iter().rev().map(|hook| {
        let id = hook.id.to_string();
        let act = match hook.revoked {
            Some(_) => Cell::State("ended", b.is_revoked.into()),
            None => end(HOOKS, &id, &hook.name, b),
        };
        let url = format!("{}/api/v1/account-hooks/{id}/purchase", scheduler.public_url());
        Row {
            cells: vec![
                Cell::Text(hook.name.clone()),
                Cell::Code(url),
                Cell::Text(hook.channel.to_string()),
                Cell::Text(name_of(&organizations, hook.organization)),
                Cell::Text(session.locale.moment(&hook.created)),
                act,
            ],
            id,
            name: hook.name,
        }
    });
    let table = Table {
        heads: vec![b.name, b.address, b.channel, b.organization, b.created, b.actions],
        rows: rows.collect(),
        ..Table::default()
    };
    let channels = none_or(b.none, channel_options(scheduler, session)?);
    let form = Form::new(b.new_hook, HOOKS)
        .field(Field::line("name", b.name, sent.text("name"), 120).required())
        .field(Field::one(
            "organization",
            b.organization,
            sent.text("organization"),
            none_or(b.none, organizations),
        ))
        .field(Field::one("channel", b.channel, sent.text("channel"), channels))
        .deed("make", b.make);
    let sheet = Sheet { title: b.hooks.into(), ..sheet };
    Ok(sheet.help(b.hooks_help).fault(fault).with(Part::Table(table)).with(form.part()))
}

pub(super) async fn act_on_hooks(
    State(scheduler): State<Scheduler>,
    session: Session,
    sent: Sent,
) -> Result<Response, Refused> {
    let caller = &session.principal;
    let again = |sent: &Sent, fault| hook_sheet(&scheduler, &session, &After::default(), sent, fault);
    let done = async {
        match sent.what() {
            "make" => {
                let body = json!({
                    "name": sent.text("name"), "organization": sent.json("organization"),
                    "channel": sent.json("channel"),
                });
                let hook = scheduler.create_account_hook(caller, body).await?;
                let sheet = again(&Sent::default(), String::new())?;
                let help = sheet.b.hook_shown_once;
                Ok(made(sheet, help, hook.secret))
            }
            "revoke" if !sent.is_sure() => {
                must(&session, Action::Administer)?;
                ask(&scheduler, &session, HOOKS, &sent, |b| b.hooks)
            }
            "revoke" => {
                scheduler.revoke_account_hook(caller, read_id(sent.text("chosen"), "account hook")?).await?;
                Ok(back_to(HOOKS, "ended").into_response())
            }
            _ => Err(SchedulerError::NotFound("command")),
        }
    };
    settle(&session, done.await, |fault| again(&sent, fault))
}

pub(super) fn join_sheet(
    scheduler: &Scheduler,
    session: &Session,
    after: &After,
    sent: &Sent,
    fault: String,
) -> Result<Sheet, SchedulerError> {
    must(session, Action::Enrol)?;
    let sheet = Sheet::new(scheduler, session, after, "")?;
    let b = sheet.b;
    let now = scheduler.now();
    let rows = all(|page| scheduler.join_tokens(&session.principal, page))?.into_iter().map(|token| {
        let id = token.id.to_string();
        let channels: Vec<&str> = token.channels.iter().map(|c| c.as_str()).collect();
        let act = match token.used_by {
            Some(appliance) => Cell::Link(format!("/appliances/{appliance}"), b.is_used.into()),
            None if token.expires <= now => Cell::State("ended", b.is_revoked.into()),
            None => end(JOIN_TOKENS, &id, &token.token_id, b),
        };
        Row {
            cells: vec![
                Cell::Code(token.token_id.clone()),
                Cell::Text(channels.join(", ")),
                Cell::Text(token.created_by),
                Cell::Text(session.locale.moment(&token.expires)),
                act,
            ],
            id,
            name: token.token_id,
        }
    });
    let table = Table {
        heads: vec![b.name, b.channels, b.made_by, b.expires, b.actions],
        rows: rows.collect(),
        ..Table::default()
    };
    let form = Form::new(b.new_join_token, JOIN_TOKENS)
        .field(Field::once())
        .field(Field::many(
            "channels",
            b.channels,
            &sent.all("channels"),
            channel_options(scheduler, session)?,
        ))
        .deed("make", b.make);
    let file = vec![("/appliances".into(), session.locale.words.appliances.into(), b.join_file_at.into())];
    let sheet = Sheet { title: b.join_tokens.into(), ..sheet };
    let sheet = sheet.help(b.join_tokens_help).fault(fault).with(Part::Table(table)).with(form.part());
    Ok(sheet.with(Part::Links("JOIN.TXT", file)))
}

pub(super) async fn act_on_join_tokens(
    State(scheduler): State<Scheduler>,
    session: Session,
    sent: Sent,
) -> Result<Response, Refused> {
    let caller = &session.principal;
    let again = |sent: &Sent, fault| join_sheet(&scheduler, &session, &After::default(), sent, fault);
    let done = async {
        match sent.what() {
            "make" => {
                let channels = Some(sent.all("channels")).filter(|c| !c.is_empty());
                let body = json!({"channels": channels});
                let once = sent.once(caller, "join-tokens", &body)?;
                let token = scheduler.create_join_token(caller, body, once).await?;
                let sheet = again(&Sent::default(), String::new())?;
                let help = sheet.b.token_shown_once;
                Ok(made(sheet, help, token.token))
            }
            "revoke" if !sent.is_sure() => ask(&scheduler, &session, JOIN_TOKENS, &sent, |b| b.join_tokens),
            "revoke" => {
                scheduler.revoke_join_token(caller, read_id(sent.text("chosen"), "join token")?).await?;
                Ok(back_to(JOIN_TOKENS, "ended").into_response())
            }
            _ => Err(SchedulerError::NotFound("command")),
        }
    };
    settle(&session, done.await, |fault| again(&sent, fault))
}
