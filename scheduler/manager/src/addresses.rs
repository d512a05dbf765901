//! The address book: a list, a form for one address, and its end.

use askama::Template;
use axum::Form;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{Html, IntoResponse, Response};
use cardshop_scheduler::core::address::{Address, AddressView};
use cardshop_scheduler::core::country::{countries, country};
use cardshop_scheduler::core::rights::Action;
use cardshop_scheduler::{Once, Scheduler, SchedulerError, random_password};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::page::{After, InLanguage, Refused, Shell, all, back_to, read_id, show};
use crate::session::Session;
use crate::words::Words;

/// An address in the list.
struct Row {
    id: String,
    name: String,
    lines: String,
    country: &'static str,
    phone: String,
    parcels: String,
}

#[derive(Template)]
#[template(path = "addresses.html")]
struct ListPage {
    shell: Shell,
    search: String,
    rows: Vec<Row>,
}

#[derive(Default, Deserialize)]
pub(crate) struct Filter {
    #[serde(default)]
    search: String,
}

/// What people call it.
pub(crate) fn label(address: &Address) -> String {
    [&address.name, &address.company].into_iter().flatten().cloned().collect::<Vec<_>>().join(", ")
}

/// Whether a parcel reaches it, in words.
fn parcels(view: &AddressView, w: &Words) -> String {
    let word = |field: &String| match field.as_str() {
        "street" => w.street,
        "postal_code" => w.postal_code,
        "city" => w.city,
        _ => w.country,
    };
    match view.missing.iter().map(word).collect::<Vec<_>>() {
        none if none.is_empty() => w.reaches.to_owned(),
        some => w.reaches_not(&some.join(", ")),
    }
}

pub(crate) async fn list(
    State(scheduler): State<Scheduler>,
    session: Session,
    Query(filter): Query<Filter>,
    Query(after): Query<After>,
) -> Result<Html<String>, Refused> {
    let draw = || {
        let w = session.locale.words;
        let wanted = filter.search.trim().to_lowercase();
        let row = |view: AddressView| {
            let it = &view.address;
            let code = it.country.as_deref().and_then(country);
            Row {
                id: it.id.to_string(),
                name: label(it),
                lines: it.lines().join(", "),
                country: code.map(|c| c.name(w.language.tag())).unwrap_or_default(),
                phone: it.phone.clone().unwrap_or_default(),
                parcels: parcels(&view, w),
            }
        };
        let rows = all(|page| scheduler.addresses(&session.principal, page))?.into_iter().map(row);
        let fits = |row: &Row| {
            format!("{} {} {}", row.name, row.lines, row.country).to_lowercase().contains(&wanted)
        };
        let rows = rows.filter(fits).collect();
        Ok(ListPage { shell: Shell::new(&scheduler, &session, &after)?, search: filter.search.clone(), rows })
    };
    Ok(show(&draw().told(&session)?))
}

/// What is typed.
#[derive(Clone, Default, Deserialize)]
pub(crate) struct Typed {
    #[serde(default, rename = "do")]
    what: String,
    /// Sent again by a second press of the button: it is made once.
    #[serde(default)]
    key: String,
    #[serde(default)]
    version: u64,
    #[serde(default)]
    name: String,
    #[serde(default)]
    company: String,
    #[serde(default)]
    street: String,
    #[serde(default)]
    postal_code: String,
    #[serde(default)]
    city: String,
    #[serde(default)]
    region: String,
    #[serde(default)]
    country: String,
    #[serde(default)]
    email: String,
    #[serde(default)]
    phone: String,
    #[serde(default)]
    language: String,
}

impl Typed {
    fn of(view: &AddressView) -> Self {
        let it = &view.address;
        let text = |field: &Option<String>| field.clone().unwrap_or_default();
        Self {
            what: String::new(),
            key: String::new(),
            version: view.version,
            name: text(&it.name),
            company: text(&it.company),
            street: it.street.join("\n"),
            postal_code: text(&it.postal_code),
            city: text(&it.city),
            region: text(&it.region),
            country: text(&it.country),
            email: text(&it.email),
            phone: text(&it.phone),
            language: text(&it.language),
        }
    }

    /// The body the API takes.
    fn body(&self) -> Value {
        let text = |text: &str| match text.trim() {
            "" => Value::Null,
            text => json!(text),
        };
        let street: Vec<&str> = self.street.lines().map(str::trim).filter(|l| !l.is_empty()).collect();
        json!({
            "name": text(&self.name), "company": text(&self.company), "street": street,
            "postal_code": text(&self.postal_code), "city": text(&self.city), "region": text(&self.region),
            "country": text(&self.country), "email": text(&self.email), "phone": text(&self.phone),
            "language": text(&self.language),
        })
    }
}

#[derive(Template)]
#[template(path = "address.html")]
struct AddressPage {
    shell: Shell,
    /// Empty for a new one.
    id: String,
    label: String,
    typed: Typed,
    /// Code, name, chosen.
    countries: Vec<(&'static str, &'static str, bool)>,
    parcels: String,
    asks: bool,
    fault: String,
}

fn draw(
    scheduler: &Scheduler,
    session: &Session,
    id: String,
    mut typed: Typed,
    fault: String,
) -> Result<AddressPage, SchedulerError> {
    if !session.principal.may(Action::Order) {
        return Err(SchedulerError::NotAllowed(session.locale.words.not_allowed.into()));
    }
    if typed.key.is_empty() {
        typed.key = random_password();
    }
    let tag = session.locale.words.language.tag();
    let mut countries: Vec<_> =
        countries().map(|c| (c.code, c.name(tag), typed.country.eq_ignore_ascii_case(c.code))).collect();
    countries.sort_by_key(|(_, name, _)| sorted_as(name));
    let label =
        [typed.name.trim(), typed.company.trim()].into_iter().filter(|t| !t.is_empty()).collect::<Vec<_>>();
    Ok(AddressPage {
        shell: Shell::new(scheduler, session, &After::default())?,
        label: label.join(", "),
        id,
        typed,
        countries,
        parcels: String::new(),
        asks: false,
        fault,
    })
}

/// A name of a country without the accents that would sort behind z.
fn sorted_as(name: &str) -> String {
    let plain = |c| match c {
        'É' => 'E',
        'Î' => 'I',
        'Å' => 'A',
        'é' | 'è' => 'e',
        'ô' => 'o',
        'ã' => 'a',
        'ü' => 'u',
        'ç' => 'c',
        c => c,
    };
    name.chars().map(plain).collect()
}

pub(crate) async fn new(
    State(scheduler): State<Scheduler>,
    session: Session,
) -> Result<Html<String>, Refused> {
    Ok(show(&draw(&scheduler, &session, String::new(), Typed::default(), String::new()).told(&session)?))
}

#[derive(Default, Deserialize)]
pub(crate) struct Asks {
    #[serde(default)]
    delete: String,
}

pub(crate) async fn form(
    State(scheduler): State<Scheduler>,
    session: Session,
    Path(id): Path<String>,
    Query(asks): Query<Asks>,
    Query(after): Query<After>,
) -> Result<Html<String>, Refused> {
    let page = || {
        let view = scheduler.address(&session.principal, read_id(&id, "address")?)?;
        let mut page = draw(&scheduler, &session, id.clone(), Typed::of(&view), String::new())?;
        page.shell = Shell::new(&scheduler, &session, &after)?;
        page.parcels = parcels(&view, session.locale.words);
        page.asks = !asks.delete.is_empty();
        Ok(page)
    };
    Ok(show(&page().told(&session)?))
}

pub(crate) async fn make(
    State(scheduler): State<Scheduler>,
    session: Session,
    Form(typed): Form<Typed>,
) -> Result<Response, Refused> {
    let made = async {
        let body = typed.body();
        let once = Once::new(&session.principal, "addresses", &typed.key, body.to_string().as_bytes())?;
        scheduler.create_address(&session.principal, body, Some(once)).await
    };
    let made = made.await.map(|_| back_to("/addresses", "made").into_response());
    answer(&scheduler, &session, String::new(), Typed { key: String::new(), ..typed }, made)
}

pub(crate) async fn act(
    State(scheduler): State<Scheduler>,
    session: Session,
    Path(id): Path<String>,
    Form(typed): Form<Typed>,
) -> Result<Response, Refused> {
    let done = async {
        let (caller, object) = (&session.principal, read_id(&id, "address")?);
        if typed.what == "delete" {
            scheduler.delete_address(caller, object).await?;
            return Ok(back_to("/addresses", "deleted").into_response());
        }
        let mut body = typed.body();
        body["version"] = json!(typed.version);
        scheduler.update_address(caller, object, body).await?;
        Ok(back_to(&format!("/addresses/{object}"), "saved").into_response())
    };
    let done = done.await;
    answer(&scheduler, &session, id, typed, done)
}

/// Where a form leads, or the form again with what was typed.
fn answer(
    scheduler: &Scheduler,
    session: &Session,
    id: String,
    typed: Typed,
    done: Result<Response, SchedulerError>,
) -> Result<Response, Refused> {
    match done {
        Ok(response) => Ok(response),
        Err(error @ (SchedulerError::Invalid(_) | SchedulerError::Conflict { .. })) => {
            let page = draw(scheduler, session, id, typed, error.to_string()).told(session)?;
            Ok((StatusCode::UNPROCESSABLE_ENTITY, show(&page)).into_response())
        }
        Err(error) => Err(Refused::new(&session.locale, error)),
    }
}
