//! How a hotspot looks: its colour, logo and icon, with what they are now. Pictures are made anew by the scheduler; what is
//! shown here is what a card gets.

use askama::Template;
use axum::extract::{Multipart, Path, State};
use axum::http::header;
use axum::response::{Html, IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use cardshop_scheduler::{Scheduler, SchedulerError};

use super::{Edited, Sent, again, is_mendable, wanted};
use crate::page::{After, InLanguage, Refused, Shell, read_id, show};
use crate::session::Session;

/// Names of the pictures, as they are kept.
pub(crate) const LOGO: &str = "logo.png";
const FAVICON: &str = "favicon.png";
/// Largest form with both pictures, bytes: a photograph has 5 MB.
pub(crate) const MAX_FORM: usize = 16 * 1024 * 1024;

#[derive(Template)]
#[template(path = "configuration_branding.html")]
struct BrandingPage {
    shell: Shell,
    id: String,
    name: String,
    version: u64,
    colour: String,
    logo: bool,
    favicon: bool,
    fault: String,
}

fn draw(
    scheduler: &Scheduler,
    session: &Session,
    id: &str,
    typed: Option<(u64, String)>,
    fault: String,
) -> Result<BrandingPage, SchedulerError> {
    let edited = Edited::read(scheduler, session, id)?;
    let colour = edited.wanted.colour.clone().unwrap_or_default();
    let (version, colour) = typed.unwrap_or((edited.version, colour));
    Ok(BrandingPage {
        shell: Shell::new(scheduler, session, &After::default())?,
        id: id.to_owned(),
        name: edited.name,
        version,
        colour,
        logo: edited.wanted.branding.contains_key(LOGO),
        favicon: edited.wanted.branding.contains_key(FAVICON),
        fault,
    })
}

pub(crate) async fn form(
    State(scheduler): State<Scheduler>,
    session: Session,
    Path(id): Path<String>,
) -> Result<Html<String>, Refused> {
    Ok(show(&draw(&scheduler, &session, &id, None, String::new()).told(&session)?))
}

pub(crate) async fn keep(
    State(scheduler): State<Scheduler>,
    session: Session,
    Path(id): Path<String>,
    form: Multipart,
) -> Result<Response, Refused> {
    let sent = Sent::read(form, session.locale.words).await.told(&session)?;
    let version = sent.text("version").parse().unwrap_or(0);
    let kept = async {
        let mut edited = Edited::read(&scheduler, &session, &id)?;
        let colour = sent.text("colour");
        edited.wanted.colour = (!colour.is_empty()).then(|| colour.to_owned());
        for (field, name) in [("logo", LOGO), ("favicon", FAVICON)] {
            if !sent.text(&format!("remove_{field}")).is_empty() {
                edited.wanted.branding.remove(name);
            }
            if let Some((_, bytes)) = sent.files.iter().find(|(n, _)| n == field) {
                edited.wanted.branding.insert(name.to_owned(), BASE64.encode(bytes));
            }
        }
        edited.keep(&scheduler, &session, version).await
    };
    match kept.await {
        Ok(back) => Ok(back.into_response()),
        Err(error) if is_mendable(&error) => {
            let typed = Some((version, sent.text("colour").to_owned()));
            Ok(again(&draw(&scheduler, &session, &id, typed, error.to_string()).told(&session)?))
        }
        Err(error) => Err(Refused::new(&session.locale, error)),
    }
}

/// A picture as a card gets it.
pub(crate) async fn picture(
    State(scheduler): State<Scheduler>,
    session: Session,
    Path((id, name)): Path<(String, String)>,
) -> Result<Response, Refused> {
    let read = || {
        let none = || SchedulerError::NotFound("picture");
        let view = scheduler.configuration(&session.principal, read_id(&id, "configuration")?)?;
        let wanted = wanted(&view).ok_or_else(none)?;
        let base64 = wanted.branding.get(&name).filter(|_| [LOGO, FAVICON].contains(&name.as_str()));
        BASE64.decode(base64.ok_or_else(none)?).map_err(|_| none())
    };
    Ok(([(header::CONTENT_TYPE, "image/png")], read().told(&session)?).into_response())
}
