//! A screen on the wall: the tiles, live, without a login, a menu or anybody's name. What lets it in is an API key that may
//! only watch: it says which channels, and is revoked like any key. The key comes in the fragment of the screen's address,
//! which browsers send to nobody, and then lies in a cookie: no log has it.

use askama::Template;
use axum::Form;
use axum::extract::{FromRequestParts, Path, Query, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{Html, IntoResponse, Redirect, Response};
use cardshop_protocol::ids::ObjectId;
use cardshop_protocol::token::ApiRight;
use cardshop_scheduler::core::rights::Principal;
use cardshop_scheduler::core::views::ApiKeyView;
use cardshop_scheduler::{Scheduler, SchedulerError};
use serde::Deserialize;
use serde_json::json;

use crate::bench::{Bench, benches, stream};
use crate::locale::Locale;
use crate::page::{After, InLanguage, Refused, Shell, all, back_to, read_id, show};
use crate::session::{Address, Session, make_cookie};
use crate::words::Words;

const COOKIE: &str = "cardshop_tv";
/// A screen stays for years, as long as its key; seconds.
const COOKIE_LIFE_S: u64 = 5 * 365 * 86_400;

/// A screen that was let in.
pub(crate) struct Screen(Session);

impl FromRequestParts<Scheduler> for Screen {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, scheduler: &Scheduler) -> Result<Self, Response> {
        let session = Session::of(COOKIE, parts, scheduler).await.filter(|s| may_only_watch(&s.principal));
        let Ok(locale) = Locale::from_request_parts(parts, scheduler).await;
        session.map(Self).ok_or_else(|| enter(&locale, StatusCode::UNAUTHORIZED))
    }
}

/// Keys that may do more, and people, are not for a screen that anybody can touch.
fn may_only_watch(principal: &Principal) -> bool {
    principal.rights.as_deref() == Some(&[ApiRight::Watch])
}

#[derive(Template)]
#[template(path = "tv_enter.html")]
struct EnterPage {
    w: &'static Words,
}

fn enter(locale: &Locale, status: StatusCode) -> Response {
    (status, show(&EnterPage { w: locale.words })).into_response()
}

#[derive(Deserialize)]
pub(crate) struct Key {
    key: String,
}

/// Lets a screen in: its key moves from the address to a cookie.
pub(crate) async fn let_in(
    State(scheduler): State<Scheduler>,
    Address(address): Address,
    locale: Locale,
    Form(Key { key }): Form<Key>,
) -> Response {
    let principal = scheduler.authenticate(&key, &address);
    if !principal.is_ok_and(|p| may_only_watch(&p)) {
        return enter(&locale, StatusCode::UNAUTHORIZED);
    }
    let cookie = make_cookie(&scheduler, &format!("{COOKIE}={key}; Path=/tv"), "Strict", COOKIE_LIFE_S);
    ([(header::SET_COOKIE, cookie)], Redirect::to("/tv")).into_response()
}

#[derive(Template)]
#[template(path = "tv.html")]
struct TvPage {
    w: &'static Words,
    benches: Vec<Bench>,
}

pub(crate) async fn page(
    State(scheduler): State<Scheduler>,
    Screen(session): Screen,
) -> Result<Html<String>, Refused> {
    let benches = benches(&scheduler, &session).told(&session)?;
    Ok(show(&TvPage { w: session.locale.words, benches }))
}

pub(crate) async fn live(
    State(scheduler): State<Scheduler>,
    Screen(session): Screen,
    headers: HeaderMap,
) -> Result<impl IntoResponse, StatusCode> {
    stream(scheduler, session, &headers, false)
}

#[derive(Template)]
#[template(path = "screens.html")]
struct ScreensPage {
    shell: Shell,
    screens: Vec<ApiKeyView>,
    /// Path of a screen that was just made; shown once.
    made: String,
}

fn screens_page(
    scheduler: &Scheduler,
    session: &Session,
    after: &After,
    made: String,
) -> Result<Html<String>, SchedulerError> {
    let mut screens = all(|page| scheduler.api_keys(&session.principal, page))?;
    screens.retain(|key| key.rights == [ApiRight::Watch] && key.revoked.is_none());
    Ok(show(&ScreensPage { shell: Shell::new(scheduler, session, after)?, screens, made }))
}

pub(crate) async fn screens(
    State(scheduler): State<Scheduler>,
    session: Session,
    Query(after): Query<After>,
) -> Result<Html<String>, Refused> {
    screens_page(&scheduler, &session, &after, String::new()).told(&session)
}

#[derive(Deserialize)]
pub(crate) struct Wanted {
    name: String,
}

pub(crate) async fn make(
    State(scheduler): State<Scheduler>,
    session: Session,
    Form(wanted): Form<Wanted>,
) -> Result<Html<String>, Refused> {
    let body = json!({"name": wanted.name.trim(), "rights": ["watch"]});
    let made = scheduler.create_api_key(&session.principal, body, None).await.told(&session)?;
    screens_page(&scheduler, &session, &After::default(), format!("/tv#{}", made.key)).told(&session)
}

pub(crate) async fn revoke(
    State(scheduler): State<Scheduler>,
    session: Session,
    Path(id): Path<String>,
) -> Result<Redirect, Refused> {
    let id: Result<ObjectId, _> = read_id(&id, "API key");
    scheduler.revoke_api_key(&session.principal, id.told(&session)?).await.told(&session)?;
    Ok(back_to("/screens", "revoked"))
}
