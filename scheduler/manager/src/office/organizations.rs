//! Organizations: listed, made, changed, given and taken units, removed.

use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use cardshop_protocol::ids::ObjectId;
use cardshop_protocol::token::Role;
use cardshop_scheduler::core::rights::Action;
use cardshop_scheduler::core::units::Organization;
use cardshop_scheduler::{Scheduler, SchedulerError};
use serde_json::{Value, json};

use super::{Cell, Field, Form, Part, Row, Sent, Sheet, Table, ask_first, channel_options, must, settle};
use crate::page::{After, InLanguage, Refused, all, back_to, read_id};
use crate::session::Session;
use crate::words::Language;

const PATH: &str = "/office/organizations";
/// Most units of one booking: far more than anybody has.
const MOST: i64 = 1_000_000_000;

/// All of them, for a list to choose from.
pub(super) fn options(
    scheduler: &Scheduler,
    session: &Session,
) -> Result<Vec<(String, String)>, SchedulerError> {
    let organizations: Vec<Organization> = all(|page| scheduler.organizations(&session.principal, page))?;
    Ok(organizations.into_iter().map(|o| (o.id.to_string(), o.name)).collect())
}

fn fields(
    scheduler: &Scheduler,
    session: &Session,
    form: Form,
    sent: &Sent,
    before: Option<&Organization>,
) -> Result<Form, SchedulerError> {
    let b = session.locale.words.language.back();
    let was = |text: fn(&Organization) -> String| before.map(text).unwrap_or_default();
    let languages = Language::ALL.map(|l| (l.tag().to_owned(), l.words().language_name.to_owned()));
    let warehouses = all(|page| scheduler.warehouses(&session.principal, page))?;
    let kept: Vec<String> =
        before.iter().flat_map(|o| o.warehouses.iter().map(ToString::to_string)).collect();
    let warehouses = warehouses.into_iter().map(|w| (w.id.to_string(), w.url));
    let several = sent.is_on_or("several_orders", before.is_some_and(|o| o.several_orders));
    Ok(form
        .field(Field::line("name", b.name, sent.or("name", was(|o| o.name.clone())), 120).required())
        .field(Field::one(
            "channel",
            b.channel,
            &sent.or("channel", was(|o| o.channel.to_string())),
            channel_options(scheduler, session)?,
        ))
        .field(Field::one(
            "language",
            b.language,
            &sent.or("language", was(|o| o.language.clone())),
            languages,
        ))
        .field(Field::many("warehouses", b.warehouses_of, &sent.all_or("warehouses", &kept), warehouses))
        .field(Field::check("several_orders", b.several_orders, several)))
}

fn body(sent: &Sent) -> Value {
    json!({
        "name": sent.json("name"), "channel": sent.json("channel"), "language": sent.json("language"),
        "warehouses": sent.all("warehouses"), "several_orders": sent.is_on("several_orders"),
    })
}

pub(super) fn list_sheet(
    scheduler: &Scheduler,
    session: &Session,
    after: &After,
    sent: &Sent,
    fault: String,
) -> Result<Sheet, SchedulerError> {
    must(session, Action::Administer)?;
    let sheet = Sheet::new(scheduler, session, after, "")?;
    let b = sheet.b;
    let organizations = all(|page| scheduler.organizations(&session.principal, page))?;
    let rows = organizations.into_iter().map(|o| Row {
        cells: vec![
            Cell::Link(format!("{PATH}/{}", o.id), o.name.clone()),
            Cell::Text(o.units.to_string()),
            Cell::Text(o.channel.to_string()),
            Cell::Text(session.locale.moment(&o.created)),
        ],
        id: o.id.to_string(),
        name: o.name,
    });
    let heads = vec![b.name, b.units, b.channel, b.created];
    let table = Table { heads, rows: rows.collect(), ..Table::default() };
    let form = Form::new(b.new_organization, PATH).field(Field::once());
    let form = fields(scheduler, session, form, sent, None)?;
    let units = Field::number("units", b.units, sent.or("units", "0"), (0, MOST));
    let form = form.field(units).deed("", b.make);
    let sheet = Sheet { title: b.organizations.into(), ..sheet };
    Ok(sheet.help(b.organizations_help).fault(fault).with(Part::Table(table)).with(form.part()))
}

pub(super) async fn make(
    State(scheduler): State<Scheduler>,
    session: Session,
    sent: Sent,
) -> Result<Response, Refused> {
    let done = async {
        let mut body = body(&sent);
        body["units"] = json!(sent.number("units", &session.locale)?);
        let once = sent.once(&session.principal, "organizations", &body)?;
        let made = scheduler.create_organization(&session.principal, body, once).await?;
        Ok(back_to(&format!("{PATH}/{}", made.id), "made").into_response())
    };
    settle(&session, done.await, |fault| list_sheet(&scheduler, &session, &After::default(), &sent, fault))
}

pub(super) fn sheet(
    scheduler: &Scheduler,
    session: &Session,
    id: ObjectId,
    after: &After,
    sent: &Sent,
    fault: String,
) -> Result<Sheet, SchedulerError> {
    let organization = scheduler.organization(&session.principal, id)?;
    let sheet = Sheet::new(scheduler, session, after, organization.name.clone())?;
    let (b, path) = (sheet.b, format!("{PATH}/{id}"));
    let users = all(|page| scheduler.users(&session.principal, page))?;
    let rows = users.into_iter().filter(|u| u.organization == Some(id)).map(|u| Row {
        cells: vec![
            Cell::Link(format!("/office/users/{}", u.id), u.username.clone()),
            Cell::Text(super::users::role_word(u.role, b).into()),
        ],
        id: u.id.to_string(),
        name: u.username,
    });
    let users =
        Table { title: b.users, heads: vec![b.user, b.role], rows: rows.collect(), ..Table::default() };
    let facts = vec![
        (b.units, Cell::Text(organization.units.to_string())),
        (b.orders, Cell::Link(format!("/office/orders?organization={id}"), b.all_orders.into())),
        (b.created, Cell::Text(session.locale.moment(&organization.created))),
    ];
    let units = Form::new(b.units_book, path.clone())
        .field(Field::once())
        .field(Field::number("add", b.units_add, sent.text("add"), (-MOST, MOST)).required())
        .field(Field::line("reason", b.reason, sent.text("reason"), 200).required())
        .deed("units", b.book);
    let form = fields(scheduler, session, Form::new(b.edit, path.clone()), sent, Some(&organization))?;
    let delete = Form::inline(path).deed("delete", b.delete_organization);
    Ok(sheet
        .above(PATH, b.organizations)
        .fault(fault)
        .with(Part::Facts(facts))
        .with(units.part())
        .with(form.deed("save", b.save).part())
        .with(Part::Table(users))
        .with(delete.part()))
}

pub(super) async fn act(
    State(scheduler): State<Scheduler>,
    session: Session,
    Path(id): Path<String>,
    sent: Sent,
) -> Result<Response, Refused> {
    let id = read_id(&id, "organization").told(&session)?;
    let (caller, path) = (&session.principal, format!("{PATH}/{id}"));
    let done = async {
        match sent.what() {
            "save" => {
                scheduler.update_organization(caller, id, body(&sent)).await?;
                Ok(back_to(&path, "saved").into_response())
            }
            "units" => {
                let add = sent.number("add", &session.locale)?;
                let units = json!({"add": add, "reason": sent.json("reason")});
                let once = sent.once(caller, &format!("units {id}"), &units)?;
                scheduler.add_units(caller, id, units, once).await?;
                Ok(back_to(&path, "units").into_response())
            }
            "delete" if !sent.is_sure() => {
                let organization = scheduler.organization(caller, id)?;
                let sheet = Sheet::new(&scheduler, &session, &After::default(), organization.name)?;
                let b = sheet.b;
                let deed = ("delete", b.delete_organization);
                Ok(ask_first(sheet, &path, &sent, b.are_you_sure.into(), deed))
            }
            "delete" => {
                scheduler.delete_organization(caller, id).await?;
                Ok(back_to(PATH, "deleted").into_response())
            }
            _ => Err(SchedulerError::NotFound("command")),
        }
    };
    settle(&session, done.await, |fault| sheet(&scheduler, &session, id, &After::default(), &sent, fault))
}

/// Whoever belongs to none.
pub(super) fn name_of(options: &[(String, String)], id: Option<ObjectId>) -> String {
    let found = id.and_then(|id| options.iter().find(|(value, _)| *value == id.to_string()));
    found.map_or_else(|| "–".into(), |(_, name)| name.clone())
}

/// Staff sees all, others their own: only staff chooses.
pub(super) fn may_choose(session: &Session) -> bool {
    session.principal.role == Role::Staff
}
