//! The own account: its password, where it is logged in, and its end.

use axum::extract::{Query, State};
use axum::http::header;
use axum::response::{Html, IntoResponse, Redirect, Response};
use cardshop_scheduler::{Scheduler, SchedulerError};
use serde_json::json;

use crate::first::{change_password, wrong_password};
use crate::office::{Cell, Field, Form, Part, Row, Sent, Sheet, Table, settle};
use crate::page::{After, InLanguage, Refused, back_to, show};
use crate::session::{Agent, Session, end_cookie};

const PATH: &str = "/account";

fn sheet(
    scheduler: &Scheduler,
    session: &Session,
    after: &After,
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
        .with(password.part())
        .with(Part::Table(sessions))
        .with(end.deed("end", b.end_sessions).part())
        .with(delete.deed("delete", b.delete_account).part()))
}

pub(crate) async fn page(
    State(scheduler): State<Scheduler>,
    session: Session,
    Query(after): Query<After>,
) -> Result<Html<String>, Refused> {
    Ok(show(&sheet(&scheduler, &session, &after, String::new()).told(&session)?))
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
    settle(&session, done.await, |fault| sheet(&scheduler, &session, &After::default(), fault))
}
