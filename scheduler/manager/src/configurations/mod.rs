//! The configurations: the list, one with what it needs on a card, copies, files to take along, and the end of one.
//! `general`, `branding`, `content` and `apps` are the sections of its editor, each a form of its own, so that nothing that
//! was typed in one is lost by another.

pub(crate) mod apps;
pub(crate) mod branding;
pub(crate) mod content;
pub(crate) mod general;
pub(crate) mod needs;

use askama::Template;
use axum::extract::{Multipart, Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse, Redirect, Response};
use axum::{Form, Json};
use cardshop_protocol::configuration::Configuration;
use cardshop_protocol::ids::ObjectId;
use cardshop_protocol::token::Role;
use cardshop_scheduler::core::configurations::ConfigurationView;
use cardshop_scheduler::core::documents::ChannelDocument;
use cardshop_scheduler::core::rights::Action;
use cardshop_scheduler::{InvalidField, Scheduler, SchedulerError};
use serde::Deserialize;
use serde_json::{Value, json};

use self::needs::Needs;
use crate::page::{After, InLanguage, Refused, Shell, all, back_to, read_id, show};
use crate::session::Session;
use crate::words::Words;

/// Configurations the list shows: each is looked up in the catalogue.
const PER_PAGE: usize = 200;
/// Largest file that is imported, bytes: what the API takes.
const MAX_IMPORT: usize = 512 * 1024;

/// A configuration in the list.
struct Row {
    id: String,
    name: String,
    whose: String,
    changed: String,
    /// Content that is gone.
    gone: bool,
}

#[derive(Default, Deserialize)]
pub(crate) struct Filter {
    #[serde(default)]
    mine: String,
    #[serde(default)]
    search: String,
}

#[derive(Template)]
#[template(path = "configurations.html")]
struct ListPage {
    shell: Shell,
    filter: Filter,
    rows: Vec<Row>,
    channels: Vec<ChannelDocument>,
    staff: bool,
    fault: String,
}

fn draw_list(
    scheduler: &Scheduler,
    session: &Session,
    filter: Filter,
    after: &After,
    fault: String,
) -> Result<ListPage, SchedulerError> {
    let (caller, locale) = (&session.principal, &session.locale);
    let wanted = filter.search.trim().to_lowercase();
    let found = all(|page| scheduler.configurations(caller, page))?.into_iter().filter(|view| {
        let mine = filter.mine.is_empty() || view.configuration.created_by == caller.sub;
        mine && view.configuration.name.to_lowercase().contains(&wanted)
    });
    let row = |view: ConfigurationView| -> Result<Row, SchedulerError> {
        let size = scheduler.recipe_size(caller, &view.configuration.recipe)?;
        let it = view.configuration;
        Ok(Row {
            id: it.id.to_string(),
            whose: it.channel.map_or_else(|| locale.words.everybodys.into(), |_| it.created_by.clone()),
            changed: locale.moment(&it.changed.unwrap_or(it.created)),
            gone: !size.vanished.is_empty(),
            name: it.name,
        })
    };
    let rows = found.take(PER_PAGE).map(row).collect::<Result<_, _>>()?;
    let channels = all(|page| scheduler.channels(caller, page))?;
    let shell = Shell::new(scheduler, session, after)?;
    Ok(ListPage { shell, filter, rows, channels, staff: caller.role == Role::Staff, fault })
}

pub(crate) async fn list(
    State(scheduler): State<Scheduler>,
    session: Session,
    Query(filter): Query<Filter>,
    Query(after): Query<After>,
) -> Result<Html<String>, Refused> {
    Ok(show(&draw_list(&scheduler, &session, filter, &after, String::new()).told(&session)?))
}

/// The id in a path; one that is no id names nothing.
#[derive(Template)]
#[template(path = "configuration.html")]
struct DetailPage {
    shell: Shell,
    view: ConfigurationView,
    /// Its fields, when it is not written by hand.
    wanted: Option<Configuration>,
    needs: Needs,
    /// The visitor may change it.
    may_edit: bool,
    /// The visitor may take its passwords along.
    sees_secrets: bool,
    /// It is asked whether to delete it.
    asks: bool,
    picture: bool,
}

#[derive(Default, Deserialize)]
pub(crate) struct Asks {
    #[serde(default)]
    delete: String,
}

/// Whether the visitor may change it: what is everybody's is staff's.
fn may_edit(session: &Session, view: &ConfigurationView) -> bool {
    let caller = &session.principal;
    caller.may(Action::Order) && (view.configuration.channel.is_some() || caller.role == Role::Staff)
}

pub(crate) async fn detail(
    State(scheduler): State<Scheduler>,
    session: Session,
    Path(id): Path<String>,
    Query(asks): Query<Asks>,
    Query(after): Query<After>,
) -> Result<Html<String>, Refused> {
    let draw = || {
        let view = scheduler.configuration(&session.principal, read_id(&id, "configuration")?)?;
        let size = scheduler.recipe_size(&session.principal, &view.configuration.recipe)?;
        let wanted = wanted(&view);
        let may_edit = may_edit(&session, &view);
        Ok(DetailPage {
            shell: Shell::new(&scheduler, &session, &after)?,
            needs: Needs::of(&size, &session.locale),
            asks: !asks.delete.is_empty() && may_edit,
            sees_secrets: view.secrets_left_out.is_empty() && may_edit,
            picture: wanted.as_ref().is_some_and(|w| w.branding.contains_key(branding::LOGO)),
            may_edit,
            wanted,
            view,
        })
    };
    Ok(show(&draw().told(&session)?))
}

/// The fields of a configuration; nothing for a recipe that a program wrote.
fn wanted(view: &ConfigurationView) -> Option<Configuration> {
    Configuration::of_value(&view.configuration.recipe).ok().flatten()
}

#[derive(Deserialize)]
pub(crate) struct Asked {
    #[serde(rename = "do")]
    what: String,
    #[serde(default)]
    channel: String,
}

/// A button of a configuration's page.
pub(crate) async fn act(
    State(scheduler): State<Scheduler>,
    session: Session,
    Path(id): Path<String>,
    Form(asked): Form<Asked>,
) -> Result<Redirect, Refused> {
    let done = async {
        let (caller, id) = (&session.principal, read_id(&id, "configuration")?);
        match asked.what.as_str() {
            "delete" => {
                scheduler.delete_configuration(caller, id).await?;
                Ok(back_to("/configurations", "deleted"))
            }
            "duplicate" => {
                let channel = Some(asked.channel).filter(|c| !c.is_empty());
                let channel = channel.or_else(|| first_channel(&session));
                let body = json!({"channel": channel});
                let copy = scheduler.duplicate_configuration(caller, id, body, None).await?;
                Ok(back_to(&format!("/configurations/{}", copy.configuration.id), "duplicated"))
            }
            _ => Err(SchedulerError::NotFound("command")),
        }
    };
    done.await.told(&session)
}

/// Where something new belongs when nobody says.
fn first_channel(session: &Session) -> Option<String> {
    session.principal.channels.first().map(ToString::to_string)
}

#[derive(Default, Deserialize)]
pub(crate) struct Export {
    #[serde(default)]
    secrets: String,
}

pub(crate) async fn export(
    State(scheduler): State<Scheduler>,
    session: Session,
    Path(id): Path<String>,
    Query(export): Query<Export>,
) -> Result<Response, Refused> {
    let file = read_id(&id, "configuration")
        .and_then(|id| scheduler.export_configuration(&session.principal, id, !export.secrets.is_empty()));
    let file = file.told(&session)?;
    let disposition = format!("attachment; filename=\"configuration-{id}.json\"");
    Ok(([(header::CONTENT_DISPOSITION, disposition)], Json(file)).into_response())
}

/// What a form with files says: its texts by name, and files that were chosen.
struct Sent {
    texts: Vec<(String, String)>,
    files: Vec<(String, Vec<u8>)>,
}

impl Sent {
    async fn read(mut form: Multipart, w: &Words) -> Result<Self, SchedulerError> {
        let unreadable = || SchedulerError::from(InvalidField::new("form", w.not_a_form));
        let mut sent = Self { texts: Vec::new(), files: Vec::new() };
        while let Some(field) = form.next_field().await.map_err(|_| unreadable())? {
            let name = field.name().unwrap_or_default().to_owned();
            let is_file = field.file_name().is_some();
            let bytes = field.bytes().await.map_err(|_| unreadable())?.to_vec();
            match is_file {
                // A browser sends a field of files nobody chose as an empty one.
                true if bytes.is_empty() => {}
                true => sent.files.push((name, bytes)),
                false => sent.texts.push((name, String::from_utf8(bytes).map_err(|_| unreadable())?)),
            }
        }
        Ok(sent)
    }

    fn text(&self, name: &str) -> &str {
        self.texts.iter().find(|(n, _)| n == name).map_or("", |(_, text)| text.trim())
    }
}

pub(crate) async fn import(
    State(scheduler): State<Scheduler>,
    session: Session,
    form: Multipart,
) -> Result<Response, Refused> {
    let w = session.locale.words;
    let made = async {
        let sent = Sent::read(form, w).await?;
        let Some((_, bytes)) = sent.files.first() else {
            return Err(InvalidField::new("file", w.no_file).into());
        };
        if bytes.len() > MAX_IMPORT {
            return Err(InvalidField::new("file", format!("has more than {MAX_IMPORT} bytes")).into());
        }
        let mut body: Value = serde_json::from_slice(bytes)
            .map_err(|e| InvalidField::new("file", format!("is not JSON: {e}")))?;
        let channel = Some(sent.text("channel")).filter(|c| !c.is_empty());
        if let (Some(channel), Some(map)) = (channel, body.as_object_mut()) {
            map.insert("channel".into(), json!(channel));
        }
        scheduler.import_configuration(&session.principal, body, None).await
    };
    match made.await {
        Ok(made) => {
            Ok(back_to(&format!("/configurations/{}", made.configuration.id), "imported").into_response())
        }
        Err(error @ SchedulerError::Invalid(_)) => {
            let page =
                draw_list(&scheduler, &session, Filter::default(), &After::default(), error.to_string());
            Ok((StatusCode::UNPROCESSABLE_ENTITY, show(&page.told(&session)?)).into_response())
        }
        Err(error) => Err(Refused::new(&session.locale, error)),
    }
}

/// A configuration that a section edits, as it is kept.
struct Edited {
    id: ObjectId,
    version: u64,
    name: String,
    wanted: Configuration,
}

impl Edited {
    /// The one with this id, when the visitor may change it and it has fields.
    fn read(scheduler: &Scheduler, session: &Session, id: &str) -> Result<Self, SchedulerError> {
        let view = scheduler.configuration(&session.principal, read_id(id, "configuration")?)?;
        if !may_edit(session, &view) {
            return Err(SchedulerError::NotAllowed(session.locale.words.copy_first.into()));
        }
        let wanted = wanted(&view).ok_or(SchedulerError::NotFound("form for this configuration"))?;
        let it = view.configuration;
        Ok(Self { id: it.id, version: view.version, name: it.name, wanted })
    }

    /// Keeps it as the next version of the one that the form was made from.
    async fn keep(
        &self,
        scheduler: &Scheduler,
        session: &Session,
        version: u64,
    ) -> Result<Redirect, SchedulerError> {
        let body = json!({"version": version, "name": self.name, "recipe": self.wanted.to_value()});
        scheduler.update_configuration(&session.principal, self.id, body).await?;
        Ok(back_to(&format!("/configurations/{}", self.id), "saved"))
    }
}

/// True for what a corrected form can mend: it is shown again with what was typed.
fn is_mendable(error: &SchedulerError) -> bool {
    matches!(error, SchedulerError::Invalid(_) | SchedulerError::Conflict { .. })
}

/// The page of a form that was not taken.
fn again(page: &impl Template) -> Response {
    (StatusCode::UNPROCESSABLE_ENTITY, show(page)).into_response()
}
