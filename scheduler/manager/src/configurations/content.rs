//! What is on the cards: the catalogue by language, words and order, with what is chosen ticked. Each change tells the size
//! again: by a button, or by itself where there is JavaScript.

use askama::Template;
use axum::Form;
use axum::extract::{Path, Query, State};
use axum::response::{Html, IntoResponse, Response};
use cardshop_protocol::configuration::Wanted;
use cardshop_scheduler::core::content::{ContentFilter, ContentOrder, is_named};
use cardshop_scheduler::{PageRequest, Scheduler, SchedulerError};
use serde::Deserialize;

use super::needs::Needs;
use super::{Edited, again, is_mendable};
use crate::page::{After, InLanguage, Refused, Shell, show};
use crate::session::Session;

/// Entries of one page.
const PER_PAGE: usize = 50;

/// What is looked for.
#[derive(Clone, Default, Deserialize)]
pub(crate) struct Filter {
    #[serde(default)]
    search: String,
    #[serde(default)]
    language: String,
    #[serde(default)]
    sort: String,
    /// Only what is chosen.
    #[serde(default)]
    chosen: String,
    #[serde(default)]
    cursor: String,
}

/// Content in the list.
struct Row {
    /// Name and flavour, with a `/` between.
    key: String,
    title: String,
    what: String,
    language: String,
    size: String,
    chosen: bool,
    gone: bool,
}

#[derive(Template)]
#[template(path = "configuration_content.html")]
struct ContentPage {
    shell: Shell,
    id: String,
    name: String,
    version: u64,
    filter: Filter,
    /// Language and whether it is chosen.
    languages: Vec<(String, bool)>,
    rows: Vec<Row>,
    next: Option<String>,
    needs: Needs,
    has_catalogue: bool,
    fault: String,
}

fn key(name: &str, flavour: Option<&str>) -> String {
    format!("{name}/{}", flavour.unwrap_or_default())
}

fn wanted_of(key: &str) -> Wanted {
    let (name, flavour) = key.split_once('/').unwrap_or((key, ""));
    let flavour = (!flavour.is_empty()).then(|| flavour.to_owned());
    Wanted { name: name.to_owned(), flavour }
}

fn draw(
    scheduler: &Scheduler,
    session: &Session,
    edited: &Edited,
    filter: Filter,
    fault: String,
) -> Result<ContentPage, SchedulerError> {
    let (caller, locale) = (&session.principal, &session.locale);
    let order = match filter.sort.as_str() {
        "size" => ContentOrder::Size,
        "updated" => ContentOrder::Updated,
        _ => ContentOrder::Title,
    };
    let wanted = &edited.wanted.content;
    let only = if filter.chosen.is_empty() { Vec::new() } else { wanted.clone() };
    let nothing_chosen = !filter.chosen.is_empty() && only.is_empty();
    let look =
        ContentFilter { search: filter.search.clone(), language: filter.language.clone(), only, order };
    let size = scheduler.recipe_size(caller, &edited.wanted.to_value())?;
    let cursor = Some(filter.cursor.clone()).filter(|c| !c.is_empty());
    let page = scheduler.content(caller, &look, &PageRequest { limit: Some(PER_PAGE), cursor })?;
    let (entries, next) = if nothing_chosen { (Vec::new(), None) } else { (page.items, page.next_cursor) };
    let vanished = size.vanished.iter().filter(|_| !filter.chosen.is_empty());
    let gone: Vec<String> = vanished.map(|v| key(&v.name, v.flavour.as_deref())).collect();
    let mut rows: Vec<Row> = gone
        .into_iter()
        .map(|key| Row {
            title: key.replace('/', " "),
            what: String::new(),
            language: String::new(),
            size: "–".into(),
            chosen: true,
            gone: true,
            key,
        })
        .collect();
    rows.extend(entries.iter().map(|entry| {
        let by = wanted.iter().find(|w| is_named(w, &entry.name, &entry.flavour));
        Row {
            // What is wanted without a flavour stays so.
            key: by.map_or_else(
                || key(&entry.name, Some(&entry.flavour)),
                |w| key(&w.name, w.flavour.as_deref()),
            ),
            title: entry.title.clone(),
            what: format!("{} {}", entry.category, entry.flavour).trim().to_owned(),
            language: entry.language.clone(),
            size: entry.bytes.map_or_else(|| "–".into(), |bytes| locale.size(&bytes)),
            chosen: by.is_some(),
            gone: false,
        }
    }));
    let languages = scheduler.content_languages(caller)?;
    let has_catalogue = languages.is_some();
    let languages = languages.map(|(all, _)| all).unwrap_or_default();
    Ok(ContentPage {
        shell: Shell::new(scheduler, session, &After::default())?,
        id: edited.id.to_string(),
        name: edited.name.clone(),
        version: edited.version,
        languages: languages.into_iter().map(|l| (l == filter.language, l)).map(|(on, l)| (l, on)).collect(),
        rows,
        next,
        needs: Needs::of(&size, locale),
        has_catalogue,
        filter,
        fault,
    })
}

pub(crate) async fn form(
    State(scheduler): State<Scheduler>,
    session: Session,
    Path(id): Path<String>,
    Query(filter): Query<Filter>,
) -> Result<Html<String>, Refused> {
    let page = || {
        let edited = Edited::read(&scheduler, &session, &id)?;
        draw(&scheduler, &session, &edited, filter.clone(), String::new())
    };
    Ok(show(&page().told(&session)?))
}

/// Ticks of one page: what it showed, and what of that is ticked. The rest of what is chosen stays.
fn tick(content: &mut Vec<Wanted>, sent: &[(String, String)]) {
    let named = |field: &'static str| sent.iter().filter(move |(n, _)| n == field).map(|(_, v)| wanted_of(v));
    let ticked: Vec<Wanted> = named("tick").collect();
    let shown: Vec<Wanted> = named("shown").collect();
    content.retain(|wanted| !shown.contains(wanted) || ticked.contains(wanted));
    for wanted in ticked {
        if !content.contains(&wanted) {
            content.push(wanted);
        }
    }
}

pub(crate) async fn keep(
    State(scheduler): State<Scheduler>,
    session: Session,
    Path(id): Path<String>,
    Form(sent): Form<Vec<(String, String)>>,
) -> Result<Response, Refused> {
    let text = |name: &str| sent.iter().find(|(n, _)| n == name).map(|(_, v)| v.clone()).unwrap_or_default();
    let mut edited = Edited::read(&scheduler, &session, &id).told(&session)?;
    tick(&mut edited.wanted.content, &sent);
    // A catalogue is named while there is content of it.
    if edited.wanted.content.is_empty() {
        edited.wanted.catalogue = None;
    } else if edited.wanted.catalogue.is_none() {
        edited.wanted.catalogue = scheduler.catalogue_url().map(str::to_owned);
    }
    let version = text("version").parse().unwrap_or(0);
    edited.version = version;
    let fault = if text("do") == "save" {
        match edited.keep(&scheduler, &session, version).await {
            Ok(back) => return Ok(back.into_response()),
            Err(error) if is_mendable(&error) => error.to_string(),
            Err(error) => return Err(Refused::new(&session.locale, error)),
        }
    } else {
        String::new()
    };
    let filter = Filter {
        search: text("search"),
        language: text("language"),
        sort: text("sort"),
        chosen: text("chosen"),
        cursor: text("cursor"),
    };
    let refused = !fault.is_empty();
    let page = draw(&scheduler, &session, &edited, filter, fault).told(&session)?;
    Ok(if refused { again(&page) } else { show(&page).into_response() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_of_a_page_change_what_it_showed_and_nothing_else() {
        let pairs = |list: &[(&str, &str)]| -> Vec<(String, String)> {
            list.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect()
        };
        let mut content = vec![wanted_of("elsewhere/"), wanted_of("wiki/maxi"), wanted_of("ted/")];
        tick(
            &mut content,
            &pairs(&[
                ("shown", "wiki/maxi"),
                ("shown", "ted/"),
                ("shown", "new/x"),
                ("tick", "ted/"),
                ("tick", "new/x"),
            ]),
        );
        assert_eq!(content, [wanted_of("elsewhere/"), wanted_of("ted/"), wanted_of("new/x")]);
        assert_eq!(wanted_of("wiki/maxi").flavour.as_deref(), Some("maxi"));
    }
}
