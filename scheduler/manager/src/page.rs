//! What every page has: the visitor's rights and language, the banner of appliances that wait, and what the last
//! form did; and how a page, a refusal and the way back are answered.

use std::str::FromStr;

use askama::Template;
use axum::http::StatusCode;
use axum::response::{Html, IntoResponse, Redirect, Response};
use cardshop_protocol::api::Page;
use cardshop_scheduler::core::rights::Action;
use cardshop_scheduler::papers::Format;
use cardshop_scheduler::{PageRequest, Scheduler, SchedulerError};
use serde::Deserialize;

use crate::locale::Locale;
use crate::session::Session;
use crate::words::Words;

/// Objects read at once where a page needs all.
const AT_ONCE: usize = 500;
/// Objects a page shows at most where it needs all: a browser becomes slow beyond.
const AT_MOST: usize = 5000;

/// The frame of a page.
pub(crate) struct Shell {
    pub(crate) locale: Locale,
    pub(crate) w: &'static Words,
    pub(crate) username: String,
    pub(crate) may_tend: bool,
    pub(crate) may_order: bool,
    pub(crate) may_ship: bool,
    pub(crate) may_enrol: bool,
    pub(crate) may_look: bool,
    /// May see and do what concerns the whole site.
    pub(crate) may_administer: bool,
    /// Appliances that wait for approval.
    pub(crate) waiting: usize,
    /// The site is being maintained.
    pub(crate) maintenance: bool,
    /// What the last form did.
    pub(crate) notice: String,
    /// The slot that was scanned last.
    pub(crate) scanned: String,
}

/// The query that a form's redirect carries.
#[derive(Default, Deserialize)]
pub(crate) struct After {
    /// Key of a word that says what was done.
    #[serde(default)]
    done: String,
    /// The slot that was scanned last.
    #[serde(default)]
    slot: String,
}

impl Shell {
    pub(crate) fn new(
        scheduler: &Scheduler,
        session: &Session,
        after: &After,
    ) -> Result<Self, SchedulerError> {
        let principal = &session.principal;
        let may_enrol = principal.may(Action::Enrol);
        let mut waiting = 0;
        if may_enrol {
            waiting = scheduler.waiting_appliances(principal)?;
        }
        let w = session.locale.words;
        Ok(Self {
            locale: session.locale.clone(),
            w,
            username: principal.sub.clone(),
            may_tend: principal.may(Action::Tend),
            may_order: principal.may(Action::Order),
            may_ship: principal.may(Action::Ship),
            may_enrol,
            may_look: principal.may(Action::Look),
            may_administer: principal.may(Action::Administer),
            waiting,
            notice: said(w, &after.done).unwrap_or_default().to_owned(),
            maintenance: scheduler.maintenance()?.on,
            scanned: after.slot.clone(),
        })
    }
}

impl Shell {
    /// What labels are printed on: name and title.
    pub(crate) fn label_formats(&self) -> [(&'static str, &'static str); Format::ALL.len()] {
        Format::ALL.map(|format| (format.name(), format.title()))
    }
}

/// The words behind a key of a redirect; a key of somebody else's making says nothing.
fn said(w: &Words, key: &str) -> Option<&'static str> {
    Some(match key {
        "identify" => w.done_identify,
        "retry" => w.done_retry,
        "hold" => w.done_hold,
        "resume" => w.done_resume,
        "release" => w.done_release,
        "eject" => w.done_eject,
        "name" => w.done_name,
        "placed" => w.placed,
        "update" => w.done_update,
        "cancel" => w.done_cancel,
        "retry_order" => w.done_retry_order,
        "expire" => w.done_expire,
        "extend" => w.done_extend,
        "ship" => w.done_ship,
        "approve" => w.done_approve,
        "reject" => w.done_reject,
        "reboot" => w.done_reboot,
        "revoked" => w.done_revoke,
        "saved" => w.saved,
        "made" => w.done_made,
        "deleted" => w.done_deleted,
        "duplicated" => w.done_duplicated,
        "imported" => w.done_imported,
        key => return w.language.back().done(key),
    })
}

/// An id in the address of a page; what is none names no `what`.
///
/// # Errors
/// `NotFound`.
pub(crate) fn read_id<T: FromStr>(id: &str, what: &'static str) -> Result<T, SchedulerError> {
    id.parse().map_err(|_| SchedulerError::NotFound(what))
}

/// All objects of a list, at most `AT_MOST`.
pub(crate) fn all<T>(
    read: impl Fn(&PageRequest) -> Result<Page<T>, SchedulerError>,
) -> Result<Vec<T>, SchedulerError> {
    let mut items = Vec::new();
    let mut request = PageRequest::first(AT_ONCE);
    while items.len() < AT_MOST {
        let page = read(&request)?;
        items.extend(page.items);
        request.cursor = page.next_cursor;
        if request.cursor.is_none() {
            break;
        }
    }
    items.truncate(AT_MOST);
    Ok(items)
}

#[derive(Template)]
#[template(path = "refused.html")]
struct RefusedPage {
    w: &'static Words,
    title: &'static str,
    text: String,
}

/// A page that could not be shown, or a form that was not carried out.
pub(crate) struct Refused {
    w: &'static Words,
    error: SchedulerError,
}

impl Refused {
    pub(crate) fn new(locale: &Locale, error: SchedulerError) -> Self {
        Self { w: locale.words, error }
    }
}

/// Adds the visitor's language to what the scheduler refuses.
pub(crate) trait InLanguage<T> {
    fn told(self, session: &Session) -> Result<T, Refused>;
}

impl<T> InLanguage<T> for Result<T, SchedulerError> {
    fn told(self, session: &Session) -> Result<T, Refused> {
        self.map_err(|error| Refused::new(&session.locale, error))
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        use SchedulerError as E;
        let Self { w, error } = self;
        let (status, title) = match &error {
            E::NotKnown => (StatusCode::UNAUTHORIZED, w.wrong_login),
            E::NotAllowed(_) => (StatusCode::FORBIDDEN, w.not_allowed),
            E::NotFound(_) => (StatusCode::NOT_FOUND, w.not_found),
            E::Conflict { .. } | E::Refused(_) => (StatusCode::CONFLICT, w.went_wrong),
            E::Invalid(_) => (StatusCode::UNPROCESSABLE_ENTITY, w.went_wrong),
            E::TooManyAttempts => (StatusCode::TOO_MANY_REQUESTS, w.too_many_attempts),
            _ => (StatusCode::SERVICE_UNAVAILABLE, w.page_failed),
        };
        if status == StatusCode::SERVICE_UNAVAILABLE {
            tracing::error!(%error, "a page cannot be shown");
        }
        (status, show(&RefusedPage { w, title, text: error.to_string() })).into_response()
    }
}

/// Draws a page.
pub(crate) fn show(page: &impl Template) -> Html<String> {
    Html(page.render().expect("the template is complete at build time"))
}

/// Objects one look at a list goes through for what is asked for.
const MAX_LOOKED_AT: usize = 5000;

/// The next `count` objects of a list that are wanted, and where to go on. `id` is what cursors are made of.
pub(crate) fn some<T>(
    read: impl Fn(&PageRequest) -> Result<Page<T>, SchedulerError>,
    cursor: &str,
    count: usize,
    wanted: impl Fn(&T) -> bool,
    id: impl Fn(&T) -> String,
) -> Result<(Vec<T>, Option<String>), SchedulerError> {
    let mut found = Vec::new();
    let mut request = PageRequest::first(AT_ONCE);
    request.cursor = Some(cursor.to_owned()).filter(|c| !c.is_empty());
    let mut looked_at = 0;
    loop {
        let page = read(&request)?;
        looked_at += page.items.len();
        for item in page.items {
            if !wanted(&item) {
                continue;
            }
            if found.len() == count {
                let last = found.last().map(&id);
                return Ok((found, last));
            }
            found.push(item);
        }
        request.cursor = page.next_cursor;
        if request.cursor.is_none() || looked_at >= MAX_LOOKED_AT {
            return Ok((found, request.cursor));
        }
    }
}

/// After a form: the page to look at, with what was done.
pub(crate) fn back_to(path: &str, done: &str) -> Redirect {
    Redirect::to(&format!("{path}?done={done}"))
}
