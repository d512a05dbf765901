//! The back office: what staff and managers look after. This file has its routes and its start page; `sheet` is how its pages
//! look, `sent` what their forms send. Every change goes through the functions of [`Scheduler`] that the API calls.

mod ansi;
mod audit;
mod auto_images;
mod channels;
mod demand;
mod keys;
mod messages;
mod orders;
mod organizations;
mod sent;
mod sheet;
mod site;
mod tasks;
mod templates;
mod users;
mod webhooks;
mod work;

use axum::Router;
use axum::extract::{Path, Query, State};
use axum::response::Html;
use axum::routing::{MethodRouter, get};
use cardshop_protocol::ids::ObjectId;
use cardshop_scheduler::core::documents::ChannelDocument;
use cardshop_scheduler::core::rights::Action;
use cardshop_scheduler::{Scheduler, SchedulerError};

pub(crate) use self::messages::{language_options, notice_word};
pub(crate) use self::sent::Sent;
pub(crate) use self::sheet::{Cell, Field, Form, Part, Row, Secret, Sheet, Table, ask_first, settle};
pub(crate) use self::users::role_word;
use crate::first;
use crate::page::{After, InLanguage, Refused, all, read_id, show};
use crate::session::Session;

/// Rows of one page of a list.
const PER_PAGE: usize = 100;

pub(crate) fn routes() -> Router<Scheduler> {
    Router::new()
        .route("/office", get(start))
        .route("/office/organizations", sheet_at(organizations::list_sheet).post(organizations::make))
        .route(
            "/office/organizations/{id}",
            sheet_of("organization", organizations::sheet).post(organizations::act),
        )
        .route("/office/users", get(users::list).post(users::act_on_list))
        .route("/office/users/{id}", sheet_of("user", users::sheet).post(users::act))
        .route("/office/channels", sheet_at(channels::list_sheet).post(channels::make))
        .route("/office/channels/{id}", sheet_of("channel", channels::sheet).post(channels::act))
        .route("/office/warehouses", sheet_at(channels::warehouse_sheet).post(channels::act_on_warehouses))
        .route("/office/auto-images", sheet_at(auto_images::list_sheet).post(auto_images::make))
        .route("/office/auto-images/{id}", sheet_of("auto-image", auto_images::sheet).post(auto_images::act))
        .route("/office/api-keys", sheet_at(keys::api_key_sheet).post(keys::act_on_api_keys))
        .route("/office/hooks", sheet_at(keys::hook_sheet).post(keys::act_on_hooks))
        .route("/office/join-tokens", sheet_at(keys::join_sheet).post(keys::act_on_join_tokens))
        .route("/office/site", sheet_at(site::sheet).post(site::act))
        .route("/office/jobs", get(site::jobs).post(site::run_job))
        .route("/office/work", get(work::page))
        .route("/office/orders", get(orders::list).post(orders::act))
        .route("/office/tasks", get(tasks::list))
        .route("/office/tasks/{task}", get(tasks::detail))
        .route("/office/tasks/{task}/{kind}", get(tasks::log))
        .route("/office/tasks/{task}/{kind}/text", get(tasks::text))
        .route("/office/tasks/{task}/{kind}/live", get(tasks::live))
        .route("/office/audit", get(audit::page))
        .route("/office/audit/audit.csv", get(audit::csv))
        .route("/office/audit/audit.json", get(audit::json))
        .route("/office/statistics", get(demand::page))
        .route("/office/messages", get(messages::list).post(messages::act))
        .route("/office/webhooks", sheet_at(webhooks::list_sheet).post(webhooks::make))
        .route("/office/webhooks/{id}", get(webhooks::detail).post(webhooks::act))
        .route("/office/templates", get(templates::list))
        .route("/office/templates/{event}/{language}", get(templates::form).post(templates::act))
}

/// Draws a page: what its form sent, and why that was not carried out.
type Draw = fn(&Scheduler, &Session, &After, &Sent, String) -> Result<Sheet, SchedulerError>;
/// The same, of one object.
type DrawOne = fn(&Scheduler, &Session, ObjectId, &After, &Sent, String) -> Result<Sheet, SchedulerError>;

/// A page whose form was not sent yet.
fn sheet_at(draw: Draw) -> MethodRouter<Scheduler> {
    get(move |State(scheduler): State<Scheduler>, session: Session, Query(after): Query<After>| async move {
        let sheet = draw(&scheduler, &session, &after, &Sent::default(), String::new());
        Ok::<_, Refused>(show(&sheet.told(&session)?))
    })
}

/// The same, of the object that the address names; `what` says of which kind.
fn sheet_of(what: &'static str, draw: DrawOne) -> MethodRouter<Scheduler> {
    get(
        move |State(scheduler): State<Scheduler>,
              session: Session,
              Path(id): Path<String>,
              Query(after): Query<After>| async move {
            let id = read_id(&id, what).told(&session)?;
            let sheet = draw(&scheduler, &session, id, &after, &Sent::default(), String::new());
            Ok::<_, Refused>(show(&sheet.told(&session)?))
        },
    )
}

/// # Errors
/// `NotAllowed` when the visitor's role may not.
fn must(session: &Session, action: Action) -> Result<(), SchedulerError> {
    if session.principal.may(action) {
        return Ok(());
    }
    Err(SchedulerError::NotAllowed(session.locale.words.not_allowed.into()))
}

/// The channels the visitor sees, for a list to choose from.
fn channel_options(
    scheduler: &Scheduler,
    session: &Session,
) -> Result<Vec<(String, String)>, SchedulerError> {
    let channels: Vec<ChannelDocument> = all(|page| scheduler.channels(&session.principal, page))?;
    Ok(channels.into_iter().map(|c| (c.slug.to_string(), c.name)).collect())
}

/// Before the options of a list that need not be chosen from.
fn none_or(word: &str, options: Vec<(String, String)>) -> Vec<(String, String)> {
    std::iter::once((String::new(), word.to_owned())).chain(options).collect()
}

async fn start(
    State(scheduler): State<Scheduler>,
    session: Session,
    Query(after): Query<After>,
) -> Result<Html<String>, Refused> {
    let draw = || {
        must(&session, Action::Look)?;
        let sheet = Sheet::new(&scheduler, &session, &after, "")?;
        let (b, may) = (sheet.b, |action| session.principal.may(action));
        let (staff, manages) = (may(Action::Administer), may(Action::Enrol));
        let room = |yes: bool, path: &str, word: &str, hint: &str| {
            yes.then(|| (path.to_owned(), word.to_owned(), hint.to_owned()))
        };
        let people = [
            room(staff, "/office/organizations", b.organizations, b.organizations_help),
            room(staff, "/office/users", b.users, b.users_help),
            room(staff, "/office/channels", b.channels, b.channels_help),
            room(manages, "/office/api-keys", b.api_keys, b.api_keys_help),
            room(staff, "/office/hooks", b.hooks, b.hooks_help),
            room(may(Action::Listen), "/office/webhooks", b.webhooks, b.webhooks_help),
            room(staff, "/office/templates", b.templates, b.templates_help),
        ];
        let work = [
            room(may(Action::Order), "/office/orders", b.all_orders, b.all_orders_help),
            room(may(Action::Order), "/office/messages", b.messages, b.messages_help),
            room(true, "/office/tasks", b.tasks, b.tasks_help),
            room(true, "/office/work", b.workers, b.workers_help),
            room(may(Action::Order), "/office/auto-images", b.auto_images, b.auto_images_help),
            room(staff, "/office/statistics", b.shop_statistics, b.shop_statistics_help),
        ];
        let site = [
            room(staff, "/office/site", b.site, b.maintenance_help),
            room(staff, "/office/warehouses", b.warehouses, b.warehouses_help),
            room(manages, "/office/join-tokens", b.join_tokens, b.join_tokens_help),
            room(manages, "/screens", session.locale.words.screens, session.locale.words.screens_help),
            room(staff, "/office/jobs", b.jobs, b.jobs_help),
            room(staff, "/office/audit", b.audit, b.audit_help),
            room(true, "/status", b.health_title, ""),
            room(true, "/api", b.api_title, ""),
        ];
        let left = if staff { Some(first::left(&scheduler, &session)?) } else { None };
        let rooms = |links: Vec<Option<_>>| links.into_iter().flatten().collect::<Vec<_>>();
        let people = rooms(people.into());
        let mut sheet = Sheet { title: b.back_office.into(), above: None, ..sheet };
        if let Some(left) = left {
            let links: Vec<_> =
                left.iter().map(|(path, word)| ((*path).into(), (*word).into(), String::new())).collect();
            let part = if links.is_empty() {
                Part::Say(b.left_done.into())
            } else {
                Part::Links(b.left_title, links)
            };
            sheet = sheet.with(part);
        }
        Ok(sheet
            .with_if(!people.is_empty(), || Part::Links(b.group_people, people))
            .with(Part::Links(b.group_work, rooms(work.into())))
            .with(Part::Links(b.group_site, rooms(site.into()))))
    };
    Ok(show(&draw().told(&session)?))
}
