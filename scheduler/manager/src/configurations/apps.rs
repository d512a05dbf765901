//! The containers of a hotspot: a group of fields for each, and empty ones for more.

use std::collections::BTreeMap;

use askama::Template;
use axum::Form;
use axum::extract::{Path, State};
use axum::response::{Html, IntoResponse, Response};
use cardshop_protocol::configuration::App;
use cardshop_scheduler::{InvalidField, Scheduler, SchedulerError};

use super::{Edited, again, is_mendable};
use crate::page::{After, InLanguage, Refused, Shell, show};
use crate::session::Session;

/// Empty groups for new apps.
const SPARE: usize = 2;
/// Most apps of one form.
const MAX_APPS: usize = 50;

/// An app as it is typed.
#[derive(Clone, Default, PartialEq, Debug)]
struct Row {
    name: String,
    image: String,
    ports: String,
    volumes: String,
    environment: String,
}

#[derive(Template)]
#[template(path = "configuration_apps.html")]
struct AppsPage {
    shell: Shell,
    id: String,
    name: String,
    version: u64,
    rows: Vec<Row>,
    fault: String,
}

impl Row {
    fn of(app: &App) -> Self {
        let environment = app.environment.iter().map(|(name, value)| format!("{name}={value}"));
        Self {
            name: app.name.clone(),
            image: app.image.clone(),
            ports: app.ports.join("\n"),
            volumes: app.volumes.join("\n"),
            environment: environment.collect::<Vec<_>>().join("\n"),
        }
    }

    /// The app; `before` keeps what has no field here.
    fn app(&self, before: &[App]) -> Result<App, InvalidField> {
        let mut environment = BTreeMap::new();
        for line in lines(&self.environment) {
            let fault = || InvalidField::new("environment", format!("{line:?} is not NAME=value"));
            let (name, value) = line.split_once('=').ok_or_else(fault)?;
            environment.insert(name.trim().to_owned(), value.trim().to_owned());
        }
        let name = self.name.trim();
        Ok(App {
            name: name.to_owned(),
            image: self.image.trim().to_owned(),
            platform: before.iter().find(|app| app.name == name).and_then(|app| app.platform.clone()),
            ports: lines(&self.ports),
            volumes: lines(&self.volumes),
            environment,
        })
    }
}

fn lines(text: &str) -> Vec<String> {
    text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

/// The groups of a form, in order: a `name` begins one.
fn rows(sent: &[(String, String)]) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    for (field, value) in sent {
        if field == "name" && rows.len() < MAX_APPS {
            rows.push(Row::default());
        }
        let Some(row) = rows.last_mut() else { continue };
        let place = match field.as_str() {
            "name" => &mut row.name,
            "image" => &mut row.image,
            "ports" => &mut row.ports,
            "volumes" => &mut row.volumes,
            "environment" => &mut row.environment,
            _ => continue,
        };
        *place = value.clone();
    }
    rows
}

fn draw(
    scheduler: &Scheduler,
    session: &Session,
    edited: &Edited,
    mut rows: Vec<Row>,
    fault: String,
) -> Result<AppsPage, SchedulerError> {
    rows.retain(|row| *row != Row::default());
    rows.extend(std::iter::repeat_n(Row::default(), SPARE));
    Ok(AppsPage {
        shell: Shell::new(scheduler, session, &After::default())?,
        id: edited.id.to_string(),
        name: edited.name.clone(),
        version: edited.version,
        rows,
        fault,
    })
}

pub(crate) async fn form(
    State(scheduler): State<Scheduler>,
    session: Session,
    Path(id): Path<String>,
) -> Result<Html<String>, Refused> {
    let page = || {
        let edited = Edited::read(&scheduler, &session, &id)?;
        draw(&scheduler, &session, &edited, edited.wanted.apps.iter().map(Row::of).collect(), String::new())
    };
    Ok(show(&page().told(&session)?))
}

pub(crate) async fn keep(
    State(scheduler): State<Scheduler>,
    session: Session,
    Path(id): Path<String>,
    Form(sent): Form<Vec<(String, String)>>,
) -> Result<Response, Refused> {
    let mut edited = Edited::read(&scheduler, &session, &id).told(&session)?;
    let version = sent.iter().find(|(n, _)| n == "version").and_then(|(_, v)| v.parse().ok()).unwrap_or(0);
    let rows = rows(&sent);
    let before = std::mem::take(&mut edited.wanted.apps);
    let kept = async {
        let named = rows.iter().filter(|row| !row.name.trim().is_empty());
        edited.wanted.apps = named.map(|row| row.app(&before)).collect::<Result<_, _>>()?;
        edited.keep(&scheduler, &session, version).await
    };
    match kept.await {
        Ok(back) => Ok(back.into_response()),
        Err(error) if is_mendable(&error) => {
            edited.version = version;
            Ok(again(&draw(&scheduler, &session, &edited, rows, error.to_string()).told(&session)?))
        }
        Err(error) => Err(Refused::new(&session.locale, error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_of_fields_become_apps_and_keep_what_has_no_field() {
        let sent = [
            ("version", "3"),
            ("name", "kiwix"),
            ("image", "ghcr.io/x:1"),
            ("ports", "80:80\r\n\r\n443:443"),
            ("volumes", ""),
            ("environment", "TITLE={name}\nA=b=c"),
            ("name", ""),
            ("image", ""),
        ];
        let sent: Vec<_> = sent.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        let rows = rows(&sent);
        assert_eq!(rows.len(), 2);
        let platform = Some("linux/arm/v7".to_owned());
        let old = App { platform: platform.clone(), ..rows[0].app(&[]).unwrap() };
        let app = rows[0].app(std::slice::from_ref(&old)).unwrap();
        assert_eq!(
            (app.ports.clone(), app.platform.clone()),
            (vec!["80:80".to_owned(), "443:443".to_owned()], platform)
        );
        assert_eq!(app.environment["A"], "b=c");
        assert_eq!(Row::of(&app).environment, "A=b=c\nTITLE={name}");
        let wrong = Row { environment: "no value".into(), ..Row::default() };
        assert!(wrong.app(&[]).unwrap_err().reason.contains("NAME=value"));
    }
}
