//! What a hotspot is called and who may get in: the form of a new configuration and the first section of its editor.

use askama::Template;
use axum::Form;
use axum::extract::{Path, State};
use axum::response::{Html, IntoResponse, Response};
use cardshop_protocol::configuration::{Admin, Configuration};
use cardshop_protocol::token::Role;
use cardshop_scheduler::core::documents::ChannelDocument;
use cardshop_scheduler::core::rights::Action;
use cardshop_scheduler::{InvalidField, Once, Scheduler, SchedulerError, random_password};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Edited, again, is_mendable};
use crate::page::{After, InLanguage, Refused, Shell, all, back_to, show};
use crate::session::Session;
use crate::words::Words;

/// What is typed.
#[derive(Clone, Default, Deserialize)]
pub(crate) struct Typed {
    /// Sent again by a second press of the button: it is made once.
    #[serde(default)]
    key: String,
    #[serde(default)]
    version: u64,
    #[serde(default)]
    channel: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    ssid: String,
    #[serde(default)]
    wifi_password: String,
    #[serde(default)]
    admin_username: String,
    #[serde(default)]
    admin_password: String,
    #[serde(default)]
    language: String,
    #[serde(default)]
    time_zone: String,
    #[serde(default)]
    base: String,
    #[serde(default)]
    base_size: String,
}

#[derive(Template)]
#[template(path = "configuration_general.html")]
struct GeneralPage {
    shell: Shell,
    /// Empty for a new one.
    id: String,
    typed: Typed,
    channels: Vec<ChannelDocument>,
    staff: bool,
    fault: String,
}

fn draw(
    scheduler: &Scheduler,
    session: &Session,
    id: String,
    mut typed: Typed,
    fault: String,
) -> Result<GeneralPage, SchedulerError> {
    if typed.key.is_empty() {
        typed.key = random_password();
    }
    let channels = all(|page| scheduler.channels(&session.principal, page))?;
    let staff = session.principal.role == Role::Staff;
    let shell = Shell::new(scheduler, session, &After::default())?;
    Ok(GeneralPage { shell, id, typed, channels, staff, fault })
}

/// A text that is there.
fn some(text: &str) -> Option<String> {
    Some(text.trim().to_owned()).filter(|text| !text.is_empty())
}

impl Typed {
    fn of(edited: &Edited) -> Self {
        let wanted = &edited.wanted;
        let text = |field: &Option<String>| field.clone().unwrap_or_default();
        let source = wanted.base.as_str().or_else(|| wanted.base["source"].as_str()).unwrap_or_default();
        Self {
            key: String::new(),
            version: edited.version,
            channel: String::new(),
            name: edited.name.clone(),
            ssid: text(&wanted.ssid),
            wifi_password: text(&wanted.wifi_password),
            admin_username: wanted.admin.as_ref().map(|a| a.username.clone()).unwrap_or_default(),
            admin_password: wanted.admin.as_ref().map(|a| a.password.clone()).unwrap_or_default(),
            language: text(&wanted.language),
            time_zone: text(&wanted.time_zone),
            base: source.to_owned(),
            base_size: wanted.base["size"].as_u64().map(|size| size.to_string()).unwrap_or_default(),
        }
    }

    /// Puts what was typed into a configuration; the rest of it stays.
    fn put(&self, wanted: &mut Configuration, w: &Words) -> Result<(), SchedulerError> {
        wanted.name = self.name.trim().to_owned();
        wanted.ssid = some(&self.ssid);
        wanted.wifi_password = some(&self.wifi_password);
        wanted.admin = match (some(&self.admin_username), some(&self.admin_password)) {
            (None, None) => None,
            (username, password) => {
                Some(Admin { username: username.unwrap_or_default(), password: password.unwrap_or_default() })
            }
        };
        wanted.language = some(&self.language);
        wanted.time_zone = some(&self.time_zone);
        let size = match self.base_size.trim() {
            "" => None,
            text => Some(text.parse::<u64>().map_err(|_| InvalidField::new("base_size", w.not_a_number))?),
        };
        wanted.base = match (some(&self.base), wanted.base.take()) {
            (None, _) => Value::Null,
            (Some(source), Value::Object(mut base)) if base.get("source") == Some(&json!(source)) => {
                base.remove("size");
                base.extend(size.map(|size| ("size".to_owned(), json!(size))));
                Value::Object(base)
            }
            (Some(source), _) => match size {
                Some(size) => json!({"source": source, "size": size}),
                None => json!({"source": source}),
            },
        };
        Ok(())
    }
}

pub(crate) async fn new(
    State(scheduler): State<Scheduler>,
    session: Session,
) -> Result<Html<String>, Refused> {
    let page = || {
        if !session.principal.may(Action::Order) {
            return Err(SchedulerError::NotAllowed(session.locale.words.not_allowed.into()));
        }
        draw(&scheduler, &session, String::new(), Typed::default(), String::new())
    };
    Ok(show(&page().told(&session)?))
}

pub(crate) async fn make(
    State(scheduler): State<Scheduler>,
    session: Session,
    Form(typed): Form<Typed>,
) -> Result<Response, Refused> {
    let made = async {
        let mut wanted = Configuration::default();
        typed.put(&mut wanted, session.locale.words)?;
        let channel = some(&typed.channel);
        let body = json!({"name": typed.name, "recipe": wanted.to_value(), "channel": channel});
        let once = Once::new(&session.principal, "configurations", &typed.key, body.to_string().as_bytes())?;
        scheduler.create_configuration(&session.principal, body, Some(once)).await
    };
    match made.await {
        Ok(made) => {
            Ok(back_to(&format!("/configurations/{}", made.configuration.id), "made").into_response())
        }
        Err(error) if is_mendable(&error) => {
            let typed = Typed { key: String::new(), ..typed };
            Ok(again(&draw(&scheduler, &session, String::new(), typed, error.to_string()).told(&session)?))
        }
        Err(error) => Err(Refused::new(&session.locale, error)),
    }
}

pub(crate) async fn form(
    State(scheduler): State<Scheduler>,
    session: Session,
    Path(id): Path<String>,
) -> Result<Html<String>, Refused> {
    let page = || {
        let edited = Edited::read(&scheduler, &session, &id)?;
        draw(&scheduler, &session, edited.id.to_string(), Typed::of(&edited), String::new())
    };
    Ok(show(&page().told(&session)?))
}

pub(crate) async fn keep(
    State(scheduler): State<Scheduler>,
    session: Session,
    Path(id): Path<String>,
    Form(typed): Form<Typed>,
) -> Result<Response, Refused> {
    let kept = async {
        let mut edited = Edited::read(&scheduler, &session, &id)?;
        typed.put(&mut edited.wanted, session.locale.words)?;
        edited.name = typed.name.clone();
        edited.keep(&scheduler, &session, typed.version).await
    };
    match kept.await {
        Ok(back) => Ok(back.into_response()),
        Err(error) if is_mendable(&error) => {
            Ok(again(&draw(&scheduler, &session, id, typed, error.to_string()).told(&session)?))
        }
        Err(error) => Err(Refused::new(&session.locale, error)),
    }
}
