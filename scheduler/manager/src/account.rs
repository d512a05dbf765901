//! The own account: its password, what it is told of, where it is logged in, and its end.

use axum::extract::{Query, State};
use axum::http::header;
use axum::response::{Html, IntoResponse, Redirect, Response};
use cardshop_scheduler::core::notify::Notice;
use cardshop_scheduler::core::rights::Action;
use cardshop_scheduler::{Scheduler, SchedulerError};
use serde_json::{Map, Value, json};

use crate::first::{change_password, wrong_password};
use crate::office::{
    Cell, Field, Form, Part, Row, Sent, Sheet, Table, language_options, notice_word, settle,
};
use crate::page::{After, InLanguage, Refused, back_to, show};
use crate::session::{Agent, Session, end_cookie};

const PATH: &str = "/account";

/// What people may switch off.
fn optional() -> impl Iterator<Item = Notice> {
    Notice::ALL.into_iter().filter(|notice| notice.is_optional())
}

/// What the visitor is told of, and in which language and time zone.
fn letters(scheduler: &Scheduler, session: &Session, sent: &Sent) -> Result<Form, SchedulerError> {
    let b = session.locale.words.language.back();
    let own = scheduler.own_preferences(&session.principal)?;
    let on: Vec<String> = own.events.into_iter().filter(|(_, on)| *on).map(|(name, _)| name).collect();
    // What was typed stays when it is refused.
    let typed = sent.what() == "letters";
    let on = if typed { sent.all("events") } else { on };
    let shown = |name: &str, kept: Option<String>| {
        if typed { sent.text(name).to_owned() } else { kept.unwrap_or_default() }
    };
    let mut languages = language_options();
    if own.language.is_none() {
        languages.insert(0, (String::new(), b.language_of_organization.to_owned()));
    }
    let events = optional().map(|notice| (notice.name().to_owned(), notice_word(notice, b).to_owned()));
    Ok(Form::new(b.letters_title, PATH)
        .help(b.letters_help)
        .field(Field::many("events", b.told_of, &on, events))
        .field(Field::one("language", b.language, &shown("language", own.language), languages))
        .field(Field::line("zone", b.letters_zone, shown("zone", own.time_zone), 64))
        .deed("letters", b.save))
}

/// What a form of [`letters`] says, as the API takes it.
fn said(sent: &Sent) -> Value {
    let on = sent.all("events");
    let events: Map<String, Value> = optional()
        .map(|notice| (notice.name().to_owned(), json!(on.iter().any(|name| name == notice.name()))))
        .collect();
    json!({"language": sent.json("language"), "time_zone": sent.json("zone"), "events": events})
}

fn sheet(
    scheduler: &Scheduler,
    session: &Session,
    after: &After,
    sent: &Sent,
    fault: String,
) -> Result<Sheet, SchedulerError> {
    let (caller, locale) = (&session.principal, &session.locale);
    let sheet = Sheet::new(scheduler, session, after, "")?;
    let (b, w) = (sheet.b, locale.words);
    let channels: Vec<&str> = caller.channels.iter().map(|c| c.as_str()).collect();
    let zone = locale.zone.iana_name().unwrap_or_default();
    let facts = vec![
        (w.user_name, Cell::Text(caller.sub.clone())),
        (b.your_role, Cell::Text(crate::office::role_word(caller.role, b).into())),
        (b.channels, Cell::Text(if channels.is_empty() { b.all.into() } else { channels.join(", ") })),
        (b.preferences_at, Cell::Link("/preferences".into(), format!("{} {zone}", w.language_name))),
    ];
    let password = Form::new(b.password_title, PATH)
        .help(b.change_password_help)
        .field(Field::password("old", b.old_password).required())
        .field(Field::password("new", b.new_password).required())
        .deed("password", b.change_password);
    let rows = scheduler.sessions(caller)?.items.into_iter().map(|session| Row {
        cells: vec![
            Cell::Text(session.agent.clone()),
            Cell::Text(session.address),
            Cell::Text(locale.moment(&session.created)),
            Cell::Text(locale.moment(&session.seen)),
            Cell::Text(locale.moment(&session.ends)),
        ],
        id: session.id.to_string(),
        name: session.agent,
    });
    let heads = vec![b.browser, b.address, b.since, b.last_used, b.expires];
    let sessions = Table { title: b.sessions, heads, rows: rows.collect(), ..Table::default() };
    let confirm = || Field::password("confirm", b.confirm_password).required();
    let end = Form::new(b.end_sessions, PATH).help(b.end_sessions_help).field(confirm());
    let delete = Form::new(b.delete_account, PATH).help(b.delete_account_help).field(confirm());
    let sheet = Sheet { title: b.account.into(), above: None, ..sheet };
    Ok(sheet
        .help(b.account_help)
        .fault(fault)
        .with(Part::Facts(facts))
        .with_if(caller.may(Action::Listen) && !caller.may(Action::Look), || {
            Part::Links("", vec![("/office/webhooks".into(), b.webhooks.into(), b.webhooks_help.into())])
        })
        .with(password.part())
        .with(letters(scheduler, session, sent)?.part())
        .with(Part::Table(sessions))
        .with(end.deed("end", b.end_sessions).part())
        .with(delete.deed("delete", b.delete_account).part()))
}

pub(crate) async fn page(
    State(scheduler): State<Scheduler>,
    session: Session,
    Query(after): Query<After>,
) -> Result<Html<String>, Refused> {
    Ok(show(&sheet(&scheduler, &session, &after, &Sent::default(), String::new()).told(&session)?))
}

pub(crate) async fn act(
    State(scheduler): State<Scheduler>,
    session: Session,
    Agent(agent): Agent,
    sent: Sent,
) -> Result<Response, Refused> {
    let caller = &session.principal;
    let confirmed = json!({"password": sent.raw("confirm")});
    let out = || ([(header::SET_COOKIE, end_cookie(&scheduler))], Redirect::to("/login")).into_response();
    let wrong = |error| wrong_password(error, "password", &session);
    let done = async {
        match sent.what() {
            "password" => {
                let cookie = change_password(&scheduler, &session, &sent, &agent).await?;
                Ok(([(header::SET_COOKIE, cookie)], back_to(PATH, "saved")).into_response())
            }
            "letters" => {
                scheduler.set_own_preferences(caller, said(&sent)).await?;
                Ok(back_to(PATH, "saved").into_response())
            }
            "end" => {
                scheduler.end_all_sessions(caller, confirmed).await.map_err(wrong)?;
                Ok(out())
            }
            "delete" => {
                scheduler.delete_own_account(caller, confirmed).await.map_err(wrong)?;
                Ok(out())
            }
            _ => Err(SchedulerError::NotFound("command")),
        }
    };
    settle(&session, done.await, |fault| sheet(&scheduler, &session, &After::default(), &sent, fault))
}
