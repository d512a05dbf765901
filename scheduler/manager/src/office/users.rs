//! Users: listed, made with a password or by invitation, changed, locked out one by one or several, forgotten.

use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{Html, IntoResponse, Response};
use cardshop_protocol::ids::ObjectId;
use cardshop_protocol::token::Role;
use cardshop_scheduler::core::rights::Action;
use cardshop_scheduler::core::views::UserView;
use cardshop_scheduler::{InvalidField, NewUser, Scheduler, SchedulerError, random_password};
use serde_json::json;

use super::organizations::{name_of, options as organization_options};
use super::sheet::Bulk;
use super::sheet::Deed;
use super::{
    Cell, Field, Form, Part, Row, Secret, Sent, Sheet, Table, ask_first, channel_options, must, none_or,
    settle,
};
use crate::page::{After, InLanguage, Refused, all, back_to, read_id, show};
use crate::session::Session;
use crate::words::Back;

const PATH: &str = "/office/users";
/// What a user may be.
const ROLES: [Role; 5] = [Role::Staff, Role::Manager, Role::Operator, Role::Creator, Role::Integrator];

/// A role in words.
pub(crate) fn role_word(role: Role, b: &Back) -> &'static str {
    match role {
        Role::Staff => b.role_staff,
        Role::Manager => b.role_manager,
        Role::Operator => b.role_operator,
        Role::Creator => b.role_creator,
        Role::Integrator => b.role_integrator,
        Role::Appliance | Role::Scheduler => "",
    }
}

/// As it is sent.
fn role_key(role: Role) -> String {
    format!("{role:?}").to_lowercase()
}

fn role_options(b: &Back) -> impl Iterator<Item = (String, String)> {
    ROLES.into_iter().map(|role| (role_key(role), role_word(role, b).to_owned()))
}

fn read_role(sent: &Sent) -> Result<Role, SchedulerError> {
    let role = ROLES.into_iter().find(|role| role_key(*role) == sent.text("role"));
    Ok(role.ok_or_else(|| InvalidField::new("role", "is missing"))?)
}

/// For programs, and in words.
fn state(user: &UserView, session: &Session, scheduler: &Scheduler) -> (&'static str, &'static str) {
    let b = session.locale.words.language.back();
    match user {
        user if user.anonymised => ("forgotten", b.is_forgotten),
        user if user.disabled => ("disabled", b.is_disabled),
        user if user.expires.is_some_and(|end| end <= scheduler.now()) => ("expired", b.is_expired),
        _ => ("active", b.is_active),
    }
}

/// What a list is filtered by.
#[derive(Default)]
struct Wanted {
    role: String,
    state: String,
    name: String,
}

fn list_sheet(
    scheduler: &Scheduler,
    session: &Session,
    after: &After,
    asked: &Sent,
    sent: &Sent,
    fault: String,
) -> Result<Sheet, SchedulerError> {
    must(session, Action::Administer)?;
    let sheet = Sheet::new(scheduler, session, after, "")?;
    let b = sheet.b;
    let wanted = Wanted {
        role: asked.text("role").into(),
        state: asked.text("state").into(),
        name: asked.text("name").to_lowercase(),
    };
    let organizations = organization_options(scheduler, session)?;
    let fits = |user: &UserView| {
        let text = |text: &str| text.to_lowercase().contains(&wanted.name);
        (wanted.role.is_empty() || role_key(user.role) == wanted.role)
            && (wanted.state.is_empty() || state(user, session, scheduler).0 == wanted.state)
            && (text(&user.username) || user.email.as_deref().is_some_and(text))
    };
    let rows = all(|page| scheduler.users(&session.principal, page))?.into_iter().filter(fits).map(|user| {
        let (key, word) = state(&user, session, scheduler);
        let channels: Vec<&str> = user.channels.iter().map(|c| c.as_str()).collect();
        Row {
            cells: vec![
                Cell::Link(format!("{PATH}/{}", user.id), user.username.clone()),
                Cell::Text(role_word(user.role, b).into()),
                Cell::Text(name_of(&organizations, user.organization)),
                Cell::Text(if channels.is_empty() { b.all.into() } else { channels.join(", ") }),
                Cell::State(key, word.into()),
                Cell::Text(session.locale.moment_or_dash(&user.expires)),
            ],
            id: user.id.to_string(),
            name: user.username,
        }
    });
    let deed = |value, word| Deed { value, word, of: String::new() };
    let table = Table {
        heads: vec![b.user, b.role, b.organization, b.channels, b.state, b.expires],
        rows: rows.collect(),
        bulk: Some(Bulk { action: PATH, deeds: vec![deed("disable", b.disable), deed("enable", b.enable)] }),
        ..Table::default()
    };
    let states = [("active", b.is_active), ("disabled", b.is_disabled), ("expired", b.is_expired)];
    let states = states.map(|(key, word)| (key.to_owned(), word.to_owned())).to_vec();
    let filter = Form::asking(PATH)
        .field(Field::line("name", b.name, asked.text("name"), 64))
        .field(Field::one("role", b.role, &wanted.role, none_or(b.all, role_options(b).collect())))
        .field(Field::one("state", b.state, &wanted.state, none_or(b.all, states)))
        .deed("", b.filter);
    let form = Form::new(b.new_user, PATH)
        .help(b.new_user_help)
        .field(Field::line("username", session.locale.words.user_name, sent.text("username"), 64).required())
        .field(Field::one("role", b.role, &sent.or("role", "manager"), role_options(b)))
        .field(Field::email("email", b.email, sent.text("email")))
        .field(Field::password("password", session.locale.words.password))
        .field(Field::one(
            "organization",
            b.organization,
            sent.text("organization"),
            none_or(b.none, organizations),
        ))
        .field(Field::many(
            "channels",
            b.channels,
            &sent.all("channels"),
            channel_options(scheduler, session)?,
        ))
        .field(Field::check("cards", b.may_order_cards, sent.is_on_or("cards", true)))
        .field(Field::date("expires", b.expires, sent.text("expires")).hint(b.expires_help))
        .deed("make", b.make);
    let sheet = Sheet { title: b.users.into(), ..sheet };
    Ok(sheet.help(b.users_help).fault(fault).with(filter.part()).with(Part::Table(table)).with(form.part()))
}

pub(super) async fn list(
    State(scheduler): State<Scheduler>,
    session: Session,
    Query(after): Query<After>,
    asked: Sent,
) -> Result<Html<String>, Refused> {
    let sheet = list_sheet(&scheduler, &session, &after, &asked, &Sent::default(), String::new());
    Ok(show(&sheet.told(&session)?))
}

/// Makes a user, or does something with those that are chosen.
pub(super) async fn act_on_list(
    State(scheduler): State<Scheduler>,
    session: Session,
    sent: Sent,
) -> Result<Response, Refused> {
    let done = async {
        match sent.what() {
            "make" => make(&scheduler, &session, &sent).await,
            "disable" | "enable" => act_on_chosen(&scheduler, &session, &sent).await,
            _ => Err(SchedulerError::NotFound("command")),
        }
    };
    settle(&session, done.await, |fault| {
        list_sheet(&scheduler, &session, &After::default(), &Sent::default(), &sent, fault)
    })
}

async fn make(scheduler: &Scheduler, session: &Session, sent: &Sent) -> Result<Response, SchedulerError> {
    let password = sent.raw("password");
    let invites = password.is_empty();
    let read = |name| {
        let text = sent.text(name);
        (!text.is_empty()).then(|| text.to_owned())
    };
    let email = read("email");
    let mut channels = Vec::new();
    for slug in sent.all("channels") {
        channels.push(slug.parse().map_err(|_| InvalidField::new("channels", "has a name that is none"))?);
    }
    let organization = read("organization").map(|id| id.parse());
    let new = NewUser {
        username: sent.text("username").to_lowercase(),
        password: if invites { random_password() } else { password },
        role: read_role(sent)?,
        channels,
        organization: organization
            .transpose()
            .map_err(|_| InvalidField::new("organization", "there is no such organization"))?,
        email,
        expires: sent.day("expires", &session.locale, true)?,
        links_only: !sent.is_on("cards"),
    };
    let user = scheduler.create_user(&session.principal, new, None).await?;
    if !invites {
        return Ok(back_to(&format!("{PATH}/{}", user.id), "made").into_response());
    }
    Ok((StatusCode::CREATED, with_link(scheduler, session, user.id, true).await?).into_response())
}

/// The page of a user with a link that is shown once.
async fn with_link(
    scheduler: &Scheduler,
    session: &Session,
    id: ObjectId,
    invitation: bool,
) -> Result<Html<String>, SchedulerError> {
    let link = scheduler.password_link(&session.principal, id, invitation).await?;
    let mut sheet = sheet(scheduler, session, id, &After::default(), &Sent::default(), String::new())?;
    let text = format!("{}/password#{}", scheduler.public_url(), link.token);
    sheet.secret = Some(Secret { help: sheet.b.link_shown_once, text });
    Ok(show(&sheet))
}

/// Each by itself, with the checks of one; what was refused is told by name.
async fn act_on_chosen(
    scheduler: &Scheduler,
    session: &Session,
    sent: &Sent,
) -> Result<Response, SchedulerError> {
    let (caller, chosen) = (&session.principal, sent.all("chosen"));
    let b = session.locale.words.language.back();
    if chosen.is_empty() {
        return Err(InvalidField::new("chosen", b.none_chosen).into());
    }
    let mut refusals = Vec::new();
    for text in chosen {
        let id: Result<ObjectId, _> = text.parse().map_err(|_| SchedulerError::NotFound("user"));
        let done = match (id, sent.what()) {
            (Ok(id), "disable") => scheduler.disable_user(caller, id).await.map(drop),
            (Ok(id), _) => scheduler.enable_user(caller, id).await.map(drop),
            (Err(error), _) => Err(error),
        };
        if let Err(error) = done {
            let id = text.parse().ok().and_then(|id| scheduler.user(caller, id).ok());
            refusals.push((id.map_or(text, |user| user.username), error.to_string()));
        }
    }
    if refusals.is_empty() {
        return Ok(back_to(PATH, "all").into_response());
    }
    let sheet = Sheet::new(scheduler, session, &After::default(), b.some_refused)?;
    let sheet = sheet.above(PATH, b.users).with(Part::Refusals(refusals));
    Ok((StatusCode::CONFLICT, show(&sheet)).into_response())
}

pub(super) fn sheet(
    scheduler: &Scheduler,
    session: &Session,
    id: ObjectId,
    after: &After,
    sent: &Sent,
    fault: String,
) -> Result<Sheet, SchedulerError> {
    let user = scheduler.user(&session.principal, id)?;
    let sheet = Sheet::new(scheduler, session, after, user.username.clone())?;
    let (b, path) = (sheet.b, format!("{PATH}/{id}"));
    let (key, word) = state(&user, session, scheduler);
    let facts = vec![
        (b.state, Cell::State(key, word.into())),
        (b.created, Cell::Text(session.locale.moment(&user.created))),
        (b.expires, Cell::Text(session.locale.moment_or_dash(&user.expires))),
        (b.audit, Cell::Link(format!("/office/audit?who={}", user.username), b.audit.into())),
    ];
    let sheet = sheet.above(PATH, b.users).fault(fault).with(Part::Facts(facts));
    if user.anonymised {
        return Ok(sheet);
    }
    let channels: Vec<String> = user.channels.iter().map(ToString::to_string).collect();
    let organization = user.organization.map(|id| id.to_string()).unwrap_or_default();
    let form = Form::new(b.edit, path.clone())
        .field(Field::one("role", b.role, &sent.or("role", role_key(user.role)), role_options(b)))
        .field(Field::email("email", b.email, sent.or("email", user.email.clone().unwrap_or_default())))
        .field(Field::one(
            "organization",
            b.organization,
            &sent.or("organization", organization),
            none_or(b.none, organization_options(scheduler, session)?),
        ))
        .field(Field::many(
            "channels",
            b.channels,
            &sent.all_or("channels", &channels),
            channel_options(scheduler, session)?,
        ))
        .field(Field::check("cards", b.may_order_cards, sent.is_on_or("cards", !user.links_only)))
        .deed("save", b.save);
    let ends = user.expires.map(|end| session.locale.day(end)).unwrap_or_default();
    let expiry = Form::new(b.expiry_title, path.clone())
        .field(Field::date("expires", b.expires, sent.or("expires", ends)).hint(b.expires_help))
        .deed("expiry", b.save);
    let password = Form::new(b.password_title, path.clone())
        .field(Field::password("password", b.new_password))
        .deed("password", b.set_password)
        .deed("invite", b.invite)
        .deed("reset", b.reset_link);
    let lock = Form::inline(path.clone());
    let lock = if user.disabled { lock.deed("enable", b.enable) } else { lock.deed("disable", b.disable) };
    let forget = Form::new(b.forget_user, path).help(b.forget_help).deed("forget", b.forget_user);
    Ok(sheet
        .with(lock.part())
        .with(form.part())
        .with(expiry.part())
        .with(password.part())
        .with(forget.part()))
}

pub(super) async fn act(
    State(scheduler): State<Scheduler>,
    session: Session,
    Path(id): Path<String>,
    sent: Sent,
) -> Result<Response, Refused> {
    let id = read_id(&id, "user").told(&session)?;
    let (caller, path) = (&session.principal, format!("{PATH}/{id}"));
    let done = async {
        let done = match sent.what() {
            "save" => {
                let change = json!({
                    "role": sent.text("role"), "email": sent.json("email"),
                    "organization": sent.json("organization"), "channels": sent.all("channels"),
                    "links_only": !sent.is_on("cards"),
                });
                scheduler.update_user(caller, id, change).await.map(|_| "saved")
            }
            "expiry" => {
                let expires = sent.day("expires", &session.locale, true)?;
                scheduler.expire_user(caller, id, expires).await.map(|_| "saved")
            }
            "password" => scheduler.reset_password(caller, id, sent.raw("password")).await.map(|_| "saved"),
            "invite" | "reset" => {
                let invites = sent.what() == "invite";
                return Ok(with_link(&scheduler, &session, id, invites).await?.into_response());
            }
            "disable" => scheduler.disable_user(caller, id).await.map(|_| "saved"),
            "enable" => scheduler.enable_user(caller, id).await.map(|_| "saved"),
            "forget" if !sent.is_sure() => {
                let user = scheduler.user(caller, id)?;
                let sheet = Sheet::new(&scheduler, &session, &After::default(), user.username)?;
                let b = sheet.b;
                let what = format!("{} {}", b.forget_help, b.are_you_sure);
                return Ok(ask_first(sheet, &path, &sent, what, ("forget", b.forget_user)));
            }
            "forget" => scheduler.anonymise_user(caller, id).await.map(|_| "saved"),
            _ => Err(SchedulerError::NotFound("command")),
        };
        Ok(back_to(&path, done?).into_response())
    };
    settle(&session, done.await, |fault| sheet(&scheduler, &session, id, &After::default(), &sent, fault))
}
