//! The first five minutes of a new shop: its first password, who orders, who sends, mail, the first appliance. Each step can be
//! skipped; what is left stands on the start page of the back office.

use axum::extract::{Query, State};
use axum::http::header;
use axum::response::{Html, IntoResponse, Redirect, Response};
use cardshop_protocol::api::Membership;
use cardshop_scheduler::core::rights::{Action, Principal};
use cardshop_scheduler::{PageRequest, Scheduler, SchedulerError};
use serde::Deserialize;
use serde_json::json;

use crate::office::{Field, Form, Part, Sent, Sheet, settle};
use crate::page::{After, InLanguage, Refused, show};
use crate::session::{Agent, Session, set_cookie};

const PATH: &str = "/first";
/// Password, organization, channel, mail, appliance.
const STEPS: usize = 5;

/// True for the first of the staff in a shop in which nobody has done anything yet.
pub(crate) fn is_new(scheduler: &Scheduler, caller: &Principal) -> bool {
    let one = PageRequest::first(1);
    let empty = || -> Result<bool, SchedulerError> {
        Ok(scheduler.organizations(caller, &one)?.items.is_empty()
            && scheduler.configurations(caller, &one)?.items.is_empty()
            && scheduler.join_tokens(caller, &one)?.items.is_empty()
            && scheduler.appliances(caller, &one)?.items.is_empty())
    };
    caller.may(Action::Administer) && caller.epoch == 0 && empty().unwrap_or(false)
}

/// What is left to set up: where, and in words.
pub(crate) fn left(
    scheduler: &Scheduler,
    session: &Session,
) -> Result<Vec<(&'static str, &'static str)>, SchedulerError> {
    let (caller, b) = (&session.principal, session.locale.words.language.back());
    let one = PageRequest::first(1);
    let channels = crate::page::all(|page| scheduler.channels(caller, page))?;
    let appliances = crate::page::all(|page| scheduler.appliances(caller, page))?;
    let joined = appliances.iter().any(|a| a.state == Membership::Approved);
    let left = [
        (caller.epoch == 0, "/first?step=1", b.left_password),
        (scheduler.organizations(caller, &one)?.items.is_empty(), "/first?step=2", b.left_organization),
        (channels.iter().all(|c| c.sender_name.is_empty()), "/first?step=3", b.left_channel),
        (!joined, "/first?step=5", b.left_join),
        (scheduler.configurations(caller, &one)?.items.is_empty(), "/orders/new", b.left_configuration),
        (scheduler.orders(caller, None, &one)?.items.is_empty(), "/orders/new", b.left_order),
    ];
    Ok(left.into_iter().filter(|(left, _, _)| *left).map(|(_, path, word)| (path, word)).collect())
}

#[derive(Deserialize)]
pub(crate) struct At {
    #[serde(default = "first")]
    step: usize,
}

fn first() -> usize {
    1
}

fn sheet(
    scheduler: &Scheduler,
    session: &Session,
    step: usize,
    sent: &Sent,
    fault: String,
) -> Result<Sheet, SchedulerError> {
    let w = session.locale.words;
    let b = w.language.back();
    if !session.principal.may(Action::Administer) {
        return Err(SchedulerError::NotAllowed(w.not_allowed.into()));
    }
    let sheet = Sheet::new(scheduler, session, &After::default(), b.first_title)?;
    let step_field = || Field::hidden("step", step.to_string());
    let form = |title| Form::new(title, PATH).field(step_field());
    let part = match step {
        1 => form(b.first_password)
            .help(b.first_password_help)
            .field(Field::password("old", b.old_password).required())
            .field(Field::password("new", b.new_password).required())
            .deed("save", b.change_password)
            .part(),
        2 => form(b.first_organization)
            .help(b.organizations_help)
            .field(Field::line("name", b.name, sent.text("name"), 120).required())
            .field(Field::number("units", b.units, sent.or("units", "100"), (0, 1_000_000)))
            .deed("save", b.make)
            .part(),
        3 => form(b.first_channel)
            .help(b.first_channel_help)
            .field(Field::line("sender_name", b.sender_name, sent.text("sender_name"), 120).required())
            .field(Field::area("sender_address", b.sender_address, sent.text("sender_address"), 500))
            .field(Field::email("sender_email", b.sender_email, sent.text("sender_email")))
            .deed("save", b.save)
            .part(),
        4 => Part::Links(
            b.first_mail,
            vec![(format!("{PATH}?step=5"), b.next.into(), b.first_mail_help.into())],
        ),
        5 => Form::new(b.first_join, "/appliances/join")
            .help(b.first_join_help)
            .field(Field::line("label", w.label, "", 100))
            .deed("", w.make_join_file)
            .part(),
        _ => Part::Say(b.first_done.into()),
    };
    let mut ways = Vec::new();
    if step < STEPS {
        ways.push((format!("{PATH}?step={}", step + 1), b.skip.to_owned(), String::new()));
        ways.push(("/bench".to_owned(), b.skip_all.to_owned(), String::new()));
    } else if step == STEPS {
        ways.push((format!("{PATH}?step={}", step + 1), b.next.to_owned(), String::new()));
    } else {
        for (path, word) in left(scheduler, session)? {
            ways.push((path.to_owned(), word.to_owned(), String::new()));
        }
        ways.push(("/bench".to_owned(), b.to_bench.to_owned(), String::new()));
    }
    let help = if step > STEPS { "" } else { b.first_help };
    let sheet = Sheet { above: None, ..sheet };
    let sheet = sheet.help(help).fault(fault);
    let sheet = sheet.with_if(step <= STEPS, || Part::Say(b.first_step(step, STEPS)));
    Ok(sheet.with(part).with(Part::Links("", ways)))
}

pub(crate) async fn page(
    State(scheduler): State<Scheduler>,
    session: Session,
    Query(at): Query<At>,
) -> Result<Html<String>, Refused> {
    let step = at.step.clamp(1, STEPS + 1);
    Ok(show(&sheet(&scheduler, &session, step, &Sent::default(), String::new()).told(&session)?))
}

pub(crate) async fn act(
    State(scheduler): State<Scheduler>,
    session: Session,
    Agent(agent): Agent,
    sent: Sent,
) -> Result<Response, Refused> {
    let caller = &session.principal;
    let step = sent.text("step").parse().unwrap_or(1).clamp(1, STEPS);
    let done = async {
        let next = Redirect::to(&format!("{PATH}?step={}", step + 1));
        match step {
            1 => {
                let cookie = change_password(&scheduler, &session, &sent, &agent).await?;
                return Ok(([(header::SET_COOKIE, cookie)], next).into_response());
            }
            2 => {
                let units = sent.number("units", &session.locale)?;
                let body = json!({"name": sent.json("name"), "units": units});
                scheduler.create_organization(caller, body, None).await?;
            }
            3 => {
                let channel = scheduler.channels(caller, &PageRequest::first(1))?.items.into_iter().next();
                let channel = channel.ok_or(SchedulerError::NotFound("channel"))?;
                let body = json!({
                    "sender_name": sent.text("sender_name"),
                    "sender_address": sent.text("sender_address").replace("\r\n", "\n"),
                    "sender_email": sent.text("sender_email"),
                });
                scheduler.update_channel(caller, channel.id, body).await?;
            }
            _ => {}
        }
        Ok(next.into_response())
    };
    settle(&session, done.await, |fault| sheet(&scheduler, &session, step, &sent, fault))
}

/// Changes the password that `sent` has as `old` to `new`, which ends all logins, and begins one for this browser.
pub(crate) async fn change_password(
    scheduler: &Scheduler,
    session: &Session,
    sent: &Sent,
    agent: &str,
) -> Result<String, SchedulerError> {
    let caller = &session.principal;
    let new = sent.raw("new");
    let changed = scheduler.change_password(caller, &sent.raw("old"), new.clone()).await;
    changed.map_err(|error| wrong_password(error, "old", session))?;
    let open = scheduler.begin_session(&caller.sub, &new, &caller.address, agent).await?;
    Ok(set_cookie(scheduler, &open))
}

/// A wrong password on a page that asks for it again is a wrong field.
pub(crate) fn wrong_password(
    error: SchedulerError,
    field: &'static str,
    session: &Session,
) -> SchedulerError {
    match error {
        SchedulerError::NotKnown => {
            let why = session.locale.words.language.back().wrong_password;
            cardshop_scheduler::InvalidField::new(field, why).into()
        }
        error => error,
    }
}
