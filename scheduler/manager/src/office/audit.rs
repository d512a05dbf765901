//! The audit log: who changed what, from where; by who, what, object and time, and as CSV or JSON.

use axum::extract::{Query, State};
use axum::response::{Html, Response};
use cardshop_scheduler::core::audit_filter::AuditFilter;
use cardshop_scheduler::core::documents::Audit;
use cardshop_scheduler::core::rights::Action;
use cardshop_scheduler::{PageRequest, Scheduler, SchedulerError};
use serde::Serialize;

use super::{Cell, Field, Form, PER_PAGE, Part, Row, Sent, Sheet, Table, must};
use crate::cards::{attachment, no_formula};
use crate::page::{After, InLanguage, Refused, all, show};
use crate::session::Session;

const PATH: &str = "/office/audit";
const ASKED: [&str; 5] = ["who", "what", "object", "from", "to"];

fn wanted(asked: &Sent, session: &Session) -> Result<AuditFilter, SchedulerError> {
    let text = |name| Some(asked.text(name).to_owned()).filter(|text| !text.is_empty());
    Ok(AuditFilter {
        who: text("who"),
        action: text("what"),
        object: text("object"),
        from: asked.day("from", &session.locale, false)?,
        to: asked.day("to", &session.locale, true)?,
    })
}

/// The page of what a line is about, while there is one.
fn object(line: &Audit, scheduler: &Scheduler, session: &Session) -> Cell {
    let caller = &session.principal;
    let text = line.object.as_str();
    let (room, is_there) = match line.action.split(['.', ' ']).next().unwrap_or_default() {
        "order" => ("/orders", text.parse().is_ok_and(|id| scheduler.order(caller, id).is_ok())),
        "user" => ("/office/users", text.parse().is_ok_and(|id| scheduler.user(caller, id).is_ok())),
        "channel" => ("/office/channels", text.parse().is_ok_and(|id| scheduler.channel(caller, id).is_ok())),
        "organization" => {
            ("/office/organizations", text.parse().is_ok_and(|id| scheduler.organization(caller, id).is_ok()))
        }
        "auto-image" => {
            ("/office/auto-images", text.parse().is_ok_and(|id| scheduler.auto_image(caller, id).is_ok()))
        }
        "appliance" => ("/appliances", text.parse().is_ok_and(|id| scheduler.appliance(caller, id).is_ok())),
        _ => ("", false),
    };
    let text = line.object.clone();
    if is_there { Cell::Link(format!("{room}/{text}"), text) } else { Cell::Code(text) }
}

pub(super) async fn page(
    State(scheduler): State<Scheduler>,
    session: Session,
    Query(after): Query<After>,
    asked: Sent,
) -> Result<Html<String>, Refused> {
    let draw = || {
        must(&session, Action::Administer)?;
        let sheet = Sheet::new(&scheduler, &session, &after, "")?;
        let b = sheet.b;
        let cursor = Some(asked.text("cursor").to_owned()).filter(|c| !c.is_empty());
        let request = PageRequest { limit: Some(PER_PAGE), cursor };
        let lines = scheduler.audit(&session.principal, &wanted(&asked, &session)?, &request)?;
        let rows = lines.items.iter().map(|line| Row {
            id: line.id.to_string(),
            name: String::new(),
            cells: vec![
                Cell::Text(session.locale.moment(&line.at)),
                Cell::Text(line.who.clone()),
                Cell::Code(line.action.clone()),
                object(line, &scheduler, &session),
                Cell::Text(line.address.clone()),
            ],
        });
        let query = asked.query(&ASKED);
        let table = Table {
            heads: vec![b.when, b.who, b.what, b.object, b.address],
            rows: rows.collect(),
            next: lines.next_cursor.map(|cursor| format!("{PATH}?{query}&cursor={cursor}")),
            ..Table::default()
        };
        let filter = Form::asking(PATH)
            .field(Field::line("who", b.who, asked.text("who"), 64))
            .field(Field::line("what", b.what, asked.text("what"), 64))
            .field(Field::line("object", b.object, asked.text("object"), 64))
            .field(Field::date("from", b.from, asked.text("from")))
            .field(Field::date("to", b.to, asked.text("to")))
            .deed("", b.filter);
        let exports = vec![
            (format!("{PATH}/audit.csv?{query}"), b.export_csv.into(), String::new()),
            (format!("{PATH}/audit.json?{query}"), b.export_json.into(), String::new()),
        ];
        let sheet = Sheet { title: b.audit.into(), ..sheet };
        Ok(sheet
            .help(b.audit_help)
            .with(filter.part())
            .with(Part::Table(table))
            .with(Part::Links("", exports)))
    };
    Ok(show(&draw().told(&session)?))
}

fn lines(scheduler: &Scheduler, session: &Session, asked: &Sent) -> Result<Vec<Audit>, SchedulerError> {
    let wanted = wanted(asked, session)?;
    all(|page| scheduler.audit(&session.principal, &wanted, page))
}

/// A line in a spreadsheet.
#[derive(Serialize)]
struct Line {
    at: String,
    who: String,
    action: String,
    object: String,
    address: String,
}

pub(super) async fn csv(
    State(scheduler): State<Scheduler>,
    session: Session,
    asked: Sent,
) -> Result<Response, Refused> {
    let lines = lines(&scheduler, &session, &asked).told(&session)?;
    let mut writer = ::csv::Writer::from_writer(Vec::new());
    for line in lines {
        let line = Line {
            at: line.at.to_string(),
            who: no_formula(&line.who),
            action: no_formula(&line.action),
            object: no_formula(&line.object),
            address: line.address,
        };
        writer.serialize(line).expect("into memory");
    }
    Ok(attachment("text/csv; charset=utf-8", "audit.csv", writer.into_inner().expect("into memory")))
}

pub(super) async fn json(
    State(scheduler): State<Scheduler>,
    session: Session,
    asked: Sent,
) -> Result<Response, Refused> {
    let lines = lines(&scheduler, &session, &asked).told(&session)?;
    let body = serde_json::to_vec_pretty(&lines).expect("lines are plain JSON");
    Ok(attachment("application/json", "audit.json", body))
}
