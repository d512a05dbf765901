//! Channels with the sender they name, and warehouses: listed, made, changed, removed while nothing needs them.

use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use cardshop_protocol::ids::ObjectId;
use cardshop_scheduler::core::documents::ChannelDocument;
use cardshop_scheduler::core::rights::Action;
use cardshop_scheduler::{Scheduler, SchedulerError};
use serde_json::{Value, json};

use super::{Cell, Field, Form, Part, Row, Sent, Sheet, Table, ask_first, must, settle};
use crate::page::{After, InLanguage, Refused, all, back_to, read_id};
use crate::session::Session;
use crate::words::Back;

const CHANNELS: &str = "/office/channels";
const WAREHOUSES: &str = "/office/warehouses";

fn state(channel: &ChannelDocument, b: &Back) -> Cell {
    let (key, word) = if channel.active { ("open", b.is_open) } else { ("closed", b.is_closed) };
    let word = if channel.private { format!("{word}, {}", b.is_private) } else { word.into() };
    Cell::State(key, word)
}

/// What may be changed later too.
fn fields(form: Form, sent: &Sent, before: Option<&ChannelDocument>, b: &'static Back) -> Form {
    let was = |text: fn(&ChannelDocument) -> &str| before.map(text).unwrap_or_default();
    form.field(Field::line("name", b.name, sent.or("name", was(|c| &c.name)), 120))
        .field(Field::check(
            "active",
            b.takes_orders,
            sent.is_on_or("active", before.is_none_or(|c| c.active)),
        ))
        .field(Field::check(
            "private",
            b.private_help,
            sent.is_on_or("private", before.is_some_and(|c| c.private)),
        ))
        .field(Field::line(
            "sender_name",
            b.sender_name,
            sent.or("sender_name", was(|c| &c.sender_name)),
            120,
        ))
        .field(Field::area(
            "sender_address",
            b.sender_address,
            sent.or("sender_address", was(|c| &c.sender_address)),
            500,
        ))
        .field(Field::email(
            "sender_email",
            b.sender_email,
            sent.or("sender_email", was(|c| &c.sender_email)),
        ))
}

fn body(sent: &Sent) -> Value {
    json!({
        "name": sent.json("name"), "active": sent.is_on("active"), "private": sent.is_on("private"),
        "sender_name": sent.text("sender_name"), "sender_address": sent.text("sender_address").replace("\r\n", "\n"),
        "sender_email": sent.text("sender_email"),
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
    let rows = all(|page| scheduler.channels(&session.principal, page))?.into_iter().map(|channel| Row {
        cells: vec![
            Cell::Link(format!("{CHANNELS}/{}", channel.id), channel.name.clone()),
            Cell::Code(channel.slug.to_string()),
            state(&channel, b),
            Cell::Text(channel.sender_name),
        ],
        id: channel.id.to_string(),
        name: channel.name,
    });
    let heads = vec![b.name, b.channel, b.state, b.sender];
    let table = Table { heads, rows: rows.collect(), ..Table::default() };
    let slug = Field::line("slug", b.slug, sent.text("slug"), 40).required();
    let form = fields(Form::new(b.new_channel, CHANNELS).field(slug), sent, None, b).deed("", b.make);
    let sheet = Sheet { title: b.channels.into(), ..sheet };
    Ok(sheet.help(b.channels_help).fault(fault).with(Part::Table(table)).with(form.part()))
}

pub(super) async fn make(
    State(scheduler): State<Scheduler>,
    session: Session,
    sent: Sent,
) -> Result<Response, Refused> {
    let done = async {
        let mut body = body(&sent);
        body["slug"] = json!(sent.text("slug"));
        let made = scheduler.create_channel(&session.principal, body, None).await?;
        Ok(back_to(&format!("{CHANNELS}/{}", made.id), "made").into_response())
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
    must(session, Action::Administer)?;
    let channel = scheduler.channel(&session.principal, id)?;
    let sheet = Sheet::new(scheduler, session, after, channel.name.clone())?;
    let (b, path) = (sheet.b, format!("{CHANNELS}/{id}"));
    let facts = vec![
        (b.channel, Cell::Code(channel.slug.to_string())),
        (b.state, state(&channel, b)),
        (b.orders, Cell::Link(format!("/office/orders?channel={}", channel.slug), b.all_orders.into())),
    ];
    let form = fields(Form::new(b.edit, path.clone()), sent, Some(&channel), b).deed("save", b.save);
    let delete = Form::inline(path).deed("delete", b.delete_channel);
    let sheet = sheet.above(CHANNELS, b.channels).fault(fault).with(Part::Facts(facts));
    Ok(sheet.with(form.part()).with(delete.part()))
}

pub(super) async fn act(
    State(scheduler): State<Scheduler>,
    session: Session,
    Path(id): Path<String>,
    sent: Sent,
) -> Result<Response, Refused> {
    let id = read_id(&id, "channel").told(&session)?;
    let (caller, path) = (&session.principal, format!("{CHANNELS}/{id}"));
    let done = async {
        match sent.what() {
            "save" => {
                scheduler.update_channel(caller, id, body(&sent)).await?;
                Ok(back_to(&path, "saved").into_response())
            }
            "delete" if !sent.is_sure() => {
                must(&session, Action::Administer)?;
                let name = scheduler.channel(caller, id)?.name;
                let sheet = Sheet::new(&scheduler, &session, &After::default(), name)?;
                let b = sheet.b;
                Ok(ask_first(sheet, &path, &sent, b.are_you_sure.into(), ("delete", b.delete_channel)))
            }
            "delete" => {
                scheduler.delete_channel(caller, id).await?;
                Ok(back_to(CHANNELS, "deleted").into_response())
            }
            _ => Err(SchedulerError::NotFound("command")),
        }
    };
    settle(&session, done.await, |fault| sheet(&scheduler, &session, id, &After::default(), &sent, fault))
}

pub(super) fn warehouse_sheet(
    scheduler: &Scheduler,
    session: &Session,
    after: &After,
    sent: &Sent,
    fault: String,
) -> Result<Sheet, SchedulerError> {
    must(session, Action::Administer)?;
    let sheet = Sheet::new(scheduler, session, after, "")?;
    let b = sheet.b;
    let rows = all(|page| scheduler.warehouses(&session.principal, page))?.into_iter().map(|warehouse| {
        let id = warehouse.id.to_string();
        let keys: Vec<String> = warehouse.keys.iter().map(|key| key.kid.to_string()).collect();
        let keys =
            if keys.is_empty() { Cell::Text(b.not_reached.into()) } else { Cell::Code(keys.join(" ")) };
        let deed = Form::inline(WAREHOUSES).field(Field::hidden("chosen", id.clone()));
        let deed = deed.deed_of("delete", b.delete, &warehouse.url).cell();
        Row {
            cells: vec![
                Cell::Code(warehouse.url.clone()),
                keys,
                if warehouse.added { deed } else { Cell::Text(b.by_settings.into()) },
            ],
            id,
            name: warehouse.url,
        }
    });
    let heads = vec![b.address, b.pinned_keys, b.actions];
    let table = Table { heads, rows: rows.collect(), ..Table::default() };
    let url = Field::line("url", b.address, sent.text("url"), 500).required();
    let form = Form::new(b.add_warehouse, WAREHOUSES).field(url).deed("add", b.add);
    let sheet = Sheet { title: b.warehouses.into(), ..sheet };
    Ok(sheet.help(b.warehouses_help).fault(fault).with(Part::Table(table)).with(form.part()))
}

pub(super) async fn act_on_warehouses(
    State(scheduler): State<Scheduler>,
    session: Session,
    sent: Sent,
) -> Result<Response, Refused> {
    let caller = &session.principal;
    let done = async {
        match sent.what() {
            "add" => {
                scheduler.add_warehouse(caller, json!({"url": sent.text("url")}), None).await?;
                Ok(back_to(WAREHOUSES, "made").into_response())
            }
            "delete" if !sent.is_sure() => {
                must(&session, Action::Administer)?;
                let sheet = Sheet::new(&scheduler, &session, &After::default(), "")?;
                let b = sheet.b;
                let sheet = Sheet { title: b.warehouse.into(), ..sheet };
                Ok(ask_first(sheet, WAREHOUSES, &sent, b.are_you_sure.into(), ("delete", b.delete)))
            }
            "delete" => {
                scheduler.delete_warehouse(caller, read_id(sent.text("chosen"), "warehouse")?).await?;
                Ok(back_to(WAREHOUSES, "deleted").into_response())
            }
            _ => Err(SchedulerError::NotFound("command")),
        }
    };
    settle(&session, done.await, |fault| {
        warehouse_sheet(&scheduler, &session, &After::default(), &sent, fault)
    })
}
