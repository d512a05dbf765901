//! Templates of letters, by what they tell of and language: changed with a preview, refused with the reason while they are
//! wrong, set back to ours, and sent as a test. The preview's HTML is shown as its source: no frame, nothing of it runs.

use axum::extract::{Path, Query, State};
use axum::response::{Html, IntoResponse, Response};
use cardshop_scheduler::core::notify::{Notice, TemplateView};
use cardshop_scheduler::core::rights::Action;
use cardshop_scheduler::{Scheduler, SchedulerError};
use serde_json::json;

use super::messages::notice_word;
use super::{Cell, Field, Form, Part, Row, Sent, Sheet, Table, ask_first, must, settle};
use crate::page::{After, InLanguage, Refused, back_to, show};
use crate::session::Session;
use crate::words::Language;

const PATH: &str = "/office/templates";
/// Longest subject and text, characters; the scheduler says so too.
const MAX_SUBJECT: usize = 250;
const MAX_BODY: usize = 20_000;

pub(super) async fn list(
    State(scheduler): State<Scheduler>,
    session: Session,
    Query(after): Query<After>,
) -> Result<Html<String>, Refused> {
    let draw = || {
        let templates = scheduler.templates(&session.principal)?.items;
        let sheet = Sheet::new(&scheduler, &session, &after, "")?;
        let b = sheet.b;
        let of = |notice: Notice, language: Language| {
            let found = templates.iter().find(|t| t.event == notice && t.language == language.tag());
            found.map_or(Cell::Text(String::new()), |template| {
                let mark = if template.changed { format!(" · {}", b.changed) } else { String::new() };
                let word = format!("{}{mark}", template.subject);
                Cell::Link(format!("{PATH}/{}/{}", notice.name(), template.language), word)
            })
        };
        let rows = Notice::ALL.into_iter().map(|notice| Row {
            cells: std::iter::once(Cell::Text(notice_word(notice, b).into()))
                .chain(Language::ALL.map(|language| of(notice, language)))
                .collect(),
            id: notice.name().into(),
            name: notice_word(notice, b).into(),
        });
        let languages = Language::ALL.map(|language| language.words().language_name);
        let table = Table {
            heads: std::iter::once(b.event).chain(languages).collect(),
            rows: rows.collect(),
            ..Table::default()
        };
        let sheet = Sheet { title: b.templates.into(), ..sheet };
        Ok(sheet.help(b.templates_help).with(Part::Table(table)))
    };
    Ok(show(&draw().told(&session)?))
}

/// The template of this name.
fn template_of(
    scheduler: &Scheduler,
    session: &Session,
    event: &str,
    language: &str,
) -> Result<TemplateView, SchedulerError> {
    let templates = scheduler.templates(&session.principal)?.items;
    let found = templates.into_iter().find(|t| t.event.name() == event && t.language == language);
    found.ok_or(SchedulerError::NotFound("template"))
}

fn sheet(
    scheduler: &Scheduler,
    session: &Session,
    after: &After,
    template: &TemplateView,
    sent: &Sent,
    fault: String,
) -> Result<Sheet, SchedulerError> {
    must(session, Action::Administer)?;
    let sheet = Sheet::new(scheduler, session, after, "")?;
    let b = sheet.b;
    let path = path(template);
    let mut facts = vec![
        (b.language, Cell::Text(template.language.clone())),
        (b.may_use, Cell::Code(template.variables.join(", "))),
    ];
    if let (Some(by), Some(at)) = (&template.changed_by, &template.changed_at) {
        facts.push((b.changed, Cell::Text(format!("{by}, {}", session.locale.moment(at)))));
    }
    let was_typed = matches!(sent.what(), "save" | "preview");
    let body = if was_typed { typed_body(sent) } else { template.body.clone() };
    let edit = Form::new("", path.clone())
        .field(Field::line("subject", b.subject, sent.or("subject", template.subject.clone()), MAX_SUBJECT))
        .field(Field::area("body", b.letter_text, body, MAX_BODY).hint(b.letter_text_help))
        .deed("save", b.save)
        .deed("preview", b.preview);
    let test = Form::inline(path.clone())
        .field(Field::email("to", b.test_to, sent.text("to")))
        .deed("test", b.send_test);
    let sheet = Sheet { title: notice_word(template.event, b).into(), ..sheet };
    Ok(sheet
        .above(PATH, b.templates)
        .fault(fault)
        .with(edit.part())
        .with(Part::Facts(facts))
        .with(test.part())
        .with_if(template.changed, || Form::inline(path).deed("reset", b.reset_template).part()))
}

fn path(template: &TemplateView) -> String {
    format!("{PATH}/{}/{}", template.event.name(), template.language)
}

/// The text as it was typed: browsers send line breaks as CR LF.
fn typed_body(sent: &Sent) -> String {
    sent.raw("body").replace("\r\n", "\n")
}

pub(super) async fn form(
    State(scheduler): State<Scheduler>,
    session: Session,
    Path((event, language)): Path<(String, String)>,
    Query(after): Query<After>,
) -> Result<Html<String>, Refused> {
    let draw = || {
        let template = template_of(&scheduler, &session, &event, &language)?;
        sheet(&scheduler, &session, &after, &template, &Sent::default(), String::new())
    };
    Ok(show(&draw().told(&session)?))
}

pub(super) async fn act(
    State(scheduler): State<Scheduler>,
    session: Session,
    Path((event, language)): Path<(String, String)>,
    sent: Sent,
) -> Result<Response, Refused> {
    let caller = &session.principal;
    let template = template_of(&scheduler, &session, &event, &language).told(&session)?;
    let path = path(&template);
    let again = |fault| sheet(&scheduler, &session, &After::default(), &template, &sent, fault);
    let typed = || json!({"subject": sent.text("subject"), "body": typed_body(&sent)});
    let done = async {
        match sent.what() {
            "save" => {
                scheduler.set_template(caller, &event, &language, typed()).await?;
                Ok(back_to(&path, "saved").into_response())
            }
            "preview" => {
                let letter = scheduler.preview_template(caller, &event, &language, typed())?;
                let sheet = again(String::new())?;
                let b = sheet.b;
                let sheet = sheet
                    .with(Part::Facts(vec![(b.subject, Cell::Text(letter.subject))]))
                    .with(Part::Source(b.preview_text, letter.text))
                    .with(Part::Source(b.preview_html, letter.html));
                Ok(show(&sheet).into_response())
            }
            "reset" if !sent.is_sure() => {
                let sheet = Sheet::new(&scheduler, &session, &After::default(), "")?;
                let b = sheet.b;
                let sheet = Sheet { title: notice_word(template.event, b).into(), ..sheet };
                Ok(ask_first(sheet, &path, &sent, b.are_you_sure.into(), ("reset", b.reset_template)))
            }
            "reset" => {
                scheduler.reset_template(caller, &event, &language).await?;
                Ok(back_to(&path, "saved").into_response())
            }
            "test" => {
                scheduler.test_template(caller, &event, &language, json!({"to": sent.json("to")})).await?;
                Ok(back_to(&path, "queued").into_response())
            }
            _ => Err(SchedulerError::NotFound("command")),
        }
    };
    settle(&session, done.await, again)
}
