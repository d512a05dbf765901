//! Auto-images: listed, made, changed, paused, built now, ended.

use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use cardshop_protocol::ids::ObjectId;
use cardshop_scheduler::core::auto_image::AutoImageView;
use cardshop_scheduler::core::rights::Action;
use cardshop_scheduler::{Scheduler, SchedulerError};
use serde_json::{Value, json};

use super::{Cell, Field, Form, Part, Row, Sent, Sheet, Table, ask_first, channel_options, must, settle};
use crate::page::{After, InLanguage, Refused, all, back_to, read_id};
use crate::session::Session;
use crate::words::Back;

const PATH: &str = "/office/auto-images";
/// Longest pause between two builds. **Source:** `core::auto_image`.
const MAX_DAYS: i64 = 365;

fn state(auto: &AutoImageView, b: &Back) -> Cell {
    match auto {
        auto if auto.paused => Cell::State("paused", b.is_paused.into()),
        auto if auto.failure.is_some() => Cell::State("failed", b.task_failed.into()),
        auto if auto.building.is_some() => Cell::State("running", b.task_running.into()),
        _ => Cell::State("active", b.is_active.into()),
    }
}

fn fields(
    scheduler: &Scheduler,
    session: &Session,
    form: Form,
    sent: &Sent,
    before: Option<&AutoImageView>,
) -> Result<Form, SchedulerError> {
    let b = session.locale.words.language.back();
    let configurations = all(|page| scheduler.configurations(&session.principal, page))?;
    let configurations =
        configurations.into_iter().map(|c| (c.configuration.id.to_string(), c.configuration.name));
    let chosen = before.map(|a| a.configuration.to_string()).unwrap_or_default();
    let days = before.map_or(30, |a| a.every_days);
    let public = sent.is_on_or("public", before.is_some_and(|a| a.public));
    Ok(form
        .field(
            Field::one("configuration", b.configuration, &sent.or("configuration", chosen), configurations)
                .required(),
        )
        .field(Field::number(
            "every_days",
            b.every_days,
            sent.or("every_days", days.to_string()),
            (1, MAX_DAYS),
        ))
        .field(Field::check("public", b.is_public, public)))
}

fn body(sent: &Sent, session: &Session) -> Result<Value, SchedulerError> {
    Ok(json!({
        "configuration": sent.json("configuration"), "public": sent.is_on("public"),
        "every_days": sent.number("every_days", &session.locale)?,
    }))
}

pub(super) fn list_sheet(
    scheduler: &Scheduler,
    session: &Session,
    after: &After,
    sent: &Sent,
    fault: String,
) -> Result<Sheet, SchedulerError> {
    must(session, Action::Order)?;
    let sheet = Sheet::new(scheduler, session, after, "")?;
    let b = sheet.b;
    let rows = all(|page| scheduler.auto_images(&session.principal, page))?.into_iter().map(|auto| Row {
        cells: vec![
            Cell::Link(format!("{PATH}/{}", auto.id), auto.name.to_string()),
            Cell::Text(auto.channel.to_string()),
            state(&auto, b),
            Cell::Text(session.locale.moment_or_dash(&auto.built)),
            Cell::Text(session.locale.moment(&auto.next_at)),
        ],
        id: auto.id.to_string(),
        name: auto.name.to_string(),
    });
    let heads = vec![b.name, b.channel, b.state, b.served_since, b.next_build];
    let table = Table { heads, rows: rows.collect(), ..Table::default() };
    let form = Form::new(b.new_auto_image, PATH)
        .field(Field::line("name", b.slug, sent.text("name"), 40).required())
        .field(Field::one("channel", b.channel, sent.text("channel"), channel_options(scheduler, session)?));
    let form = fields(scheduler, session, form, sent, None)?.deed("", b.make);
    let sheet = Sheet { title: b.auto_images.into(), ..sheet };
    Ok(sheet.help(b.auto_images_help).fault(fault).with(Part::Table(table)).with(form.part()))
}

pub(super) async fn make(
    State(scheduler): State<Scheduler>,
    session: Session,
    sent: Sent,
) -> Result<Response, Refused> {
    let done = async {
        let mut body = body(&sent, &session)?;
        body["name"] = json!(sent.text("name"));
        body["channel"] = sent.json("channel");
        let made = scheduler.create_auto_image(&session.principal, body, None).await?;
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
    must(session, Action::Order)?;
    let auto = scheduler.auto_image(&session.principal, id)?;
    let sheet = Sheet::new(scheduler, session, after, auto.name.to_string())?;
    let (b, path) = (sheet.b, format!("{PATH}/{id}"));
    let there = |id: ObjectId| scheduler.order(&session.principal, id).is_ok();
    let order = |id: Option<ObjectId>| match id.filter(|id| there(*id)) {
        Some(id) => Cell::Link(format!("/orders/{id}"), id.to_string()),
        None => Cell::Text("–".into()),
    };
    let mut facts = vec![
        (b.state, state(&auto, b)),
        (b.channel, Cell::Text(auto.channel.to_string())),
        (b.served_since, Cell::Text(session.locale.moment_or_dash(&auto.built))),
        (b.next_build, Cell::Text(session.locale.moment(&auto.next_at))),
        (b.is_public, Cell::Text(if auto.public { b.yes } else { b.no }.into())),
        (session.locale.words.order, order(auto.building.or(auto.current))),
    ];
    if auto.link.is_some() {
        facts.push((
            b.download,
            Cell::Code(format!("{}/api/v1/auto/{}/image", scheduler.public_url(), auto.name)),
        ));
    }
    if let Some(size) = auto.size {
        facts.push((b.size, Cell::Text(session.locale.size(&size))));
    }
    if let Some(failure) = &auto.failure {
        facts.push((b.last_failure, Cell::Text(failure.clone())));
    }
    let toggle = Form::inline(path.clone());
    let toggle = if auto.paused {
        toggle.deed("resume", b.resume)
    } else {
        toggle.deed("trigger", b.build_now).deed("pause", b.pause)
    };
    let form = fields(scheduler, session, Form::new(b.edit, path.clone()), sent, Some(&auto))?;
    let delete = Form::inline(path).deed("delete", b.delete_auto_image);
    Ok(sheet
        .above(PATH, b.auto_images)
        .fault(fault)
        .with(Part::Facts(facts))
        .with(toggle.part())
        .with(form.deed("save", b.save).part())
        .with(delete.part()))
}

pub(super) async fn act(
    State(scheduler): State<Scheduler>,
    session: Session,
    Path(id): Path<String>,
    sent: Sent,
) -> Result<Response, Refused> {
    let id = read_id(&id, "auto-image").told(&session)?;
    let (caller, path) = (&session.principal, format!("{PATH}/{id}"));
    let done = async {
        let change = match sent.what() {
            "save" => body(&sent, &session)?,
            "pause" => json!({"paused": true}),
            "resume" => json!({"paused": false}),
            "trigger" => {
                scheduler.trigger_auto_image(caller, id).await?;
                return Ok(back_to(&path, "saved").into_response());
            }
            "delete" if !sent.is_sure() => {
                must(&session, Action::Order)?;
                let name = scheduler.auto_image(caller, id)?.name;
                let sheet = Sheet::new(&scheduler, &session, &After::default(), name.to_string())?;
                let b = sheet.b;
                let deed = ("delete", b.delete_auto_image);
                return Ok(ask_first(sheet, &path, &sent, b.are_you_sure.into(), deed));
            }
            "delete" => {
                scheduler.delete_auto_image(caller, id).await?;
                return Ok(back_to(PATH, "deleted").into_response());
            }
            _ => return Err(SchedulerError::NotFound("command")),
        };
        scheduler.update_auto_image(caller, id, change).await?;
        Ok(back_to(&path, "saved").into_response())
    };
    settle(&session, done.await, |fault| sheet(&scheduler, &session, id, &After::default(), &sent, fault))
}
