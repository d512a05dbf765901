//! Orders of all organizations that the visitor may see, by what they are asked for, and acts for several at once: each with
//! the checks of one.

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{Html, IntoResponse, Response};
use cardshop_protocol::ids::OrderId;
use cardshop_protocol::time::Timestamp;
use cardshop_scheduler::core::order::OrderKind;
use cardshop_scheduler::core::rights::Action;
use cardshop_scheduler::core::views::OrderView;
use cardshop_scheduler::{InvalidField, Scheduler, SchedulerError};

use super::organizations::{may_choose, name_of, options as organization_options};
use super::sheet::{Bulk, Deed};
use super::{
    Cell, Field, Form, PER_PAGE, Part, Row, Sent, Sheet, Table, ask_first, channel_options, must, none_or,
};
use crate::orders::{OrderRow, STATUSES, status_word};
use crate::page::{After, InLanguage, Refused, back_to, show, some};
use crate::session::Session;

const PATH: &str = "/office/orders";
/// What the next page of the list asks for too.
const ASKED: [&str; 8] = ["text", "organization", "channel", "status", "kind", "who", "from", "to"];

/// What orders are asked for.
struct Wanted {
    text: String,
    organization: String,
    channel: String,
    kind: String,
    who: String,
    from: Option<Timestamp>,
    to: Option<Timestamp>,
}

impl Wanted {
    fn read(asked: &Sent, session: &Session) -> Result<Self, SchedulerError> {
        let text = |name| asked.text(name).to_owned();
        Ok(Self {
            text: text("text").to_lowercase(),
            organization: text("organization"),
            channel: text("channel"),
            kind: text("kind"),
            who: text("who"),
            from: asked.day("from", &session.locale, false)?,
            to: asked.day("to", &session.locale, true)?,
        })
    }

    fn fits(&self, order: &OrderView) -> bool {
        let kind = if order.kind == OrderKind::Physical { "physical" } else { "virtual" };
        let organization = order.organization.map(|id| id.to_string()).unwrap_or_default();
        let same = |wanted: &str, has: &str| wanted.is_empty() || wanted == has;
        same(&self.organization, &organization)
            && same(&self.channel, order.channel.as_str())
            && same(&self.kind, kind)
            && same(&self.who, &order.created_by)
            && self.from.is_none_or(|from| order.created >= from)
            && self.to.is_none_or(|to| order.created < to)
            && (order.name.to_lowercase().contains(&self.text)
                || order.id.to_string().contains(&self.text)
                || order.recipient.to_string().to_lowercase().contains(&self.text))
    }
}

fn filter(
    scheduler: &Scheduler,
    session: &Session,
    asked: &Sent,
    organizations: Vec<(String, String)>,
) -> Result<Form, SchedulerError> {
    let w = session.locale.words;
    let b = w.language.back();
    let statuses = STATUSES.map(|s| (s.as_str().to_owned(), status_word(s, w).to_owned())).to_vec();
    let kinds = [("physical", w.physical), ("virtual", w.virtual_kind)];
    let kinds = kinds.map(|(key, word)| (key.to_owned(), word.to_owned())).to_vec();
    let channels = none_or(b.all, channel_options(scheduler, session)?);
    let mut form = Form::asking(PATH).field(Field::line("text", w.search, asked.text("text"), 100));
    if may_choose(session) {
        let all = none_or(b.all, organizations);
        form = form.field(Field::one("organization", b.organization, asked.text("organization"), all));
    }
    Ok(form
        .field(Field::one("channel", b.channel, asked.text("channel"), channels))
        .field(Field::one("status", b.state, asked.text("status"), none_or(b.all, statuses)))
        .field(Field::one("kind", b.kind, asked.text("kind"), none_or(b.all, kinds)))
        .field(Field::line("who", b.made_by, asked.text("who"), 64))
        .field(Field::date("from", b.from, asked.text("from")))
        .field(Field::date("to", b.to, asked.text("to")))
        .deed("", b.filter))
}

pub(super) async fn list(
    State(scheduler): State<Scheduler>,
    session: Session,
    Query(after): Query<After>,
    asked: Sent,
) -> Result<Html<String>, Refused> {
    let draw = || {
        must(&session, Action::Order)?;
        let (caller, locale) = (&session.principal, &session.locale);
        let sheet = Sheet::new(&scheduler, &session, &after, "")?;
        let b = sheet.b;
        let wanted = Wanted::read(&asked, &session)?;
        let status = STATUSES.into_iter().find(|s| s.as_str() == asked.text("status"));
        let (orders, next) = some(
            |page| scheduler.orders(caller, status, page),
            asked.text("cursor"),
            PER_PAGE,
            |order| wanted.fits(order),
            |order| order.id.to_string(),
        )?;
        let organizations = organization_options(&scheduler, &session)?;
        let rows = orders.iter().map(|order| {
            let drawn = OrderRow::of(order, locale);
            Row {
                cells: vec![
                    Cell::Link(format!("/orders/{}", order.id), order.name.clone()),
                    Cell::Text(name_of(&organizations, order.organization)),
                    Cell::Text(order.channel.to_string()),
                    Cell::Text(order.created_by.clone()),
                    Cell::Text(drawn.created),
                    Cell::Text(drawn.verified),
                    Cell::State(drawn.status, drawn.status_word.into()),
                    Cell::Link(format!("/office/tasks?order={}", order.id), b.logs.into()),
                ],
                id: drawn.id,
                name: order.name.clone(),
            }
        });
        let deed = |value, word| Deed { value, word, of: String::new() };
        let table = Table {
            heads: vec![b.name, b.organization, b.channel, b.made_by, b.created, b.cards, b.state, b.tasks],
            rows: rows.collect(),
            next: next.map(|cursor| format!("{PATH}?{}&cursor={cursor}", asked.query(&ASKED))),
            bulk: Some(Bulk { action: PATH, deeds: vec![deed("cancel", b.cancel), deed("retry", b.retry)] }),
            ..Table::default()
        };
        let filter = filter(&scheduler, &session, &asked, organizations)?;
        let sheet = Sheet { title: b.all_orders.into(), ..sheet };
        Ok(sheet.help(b.all_orders_help).with(filter.part()).with(Part::Table(table)))
    };
    Ok(show(&draw().told(&session)?))
}

/// Does one thing to each of the chosen orders.
pub(super) async fn act(
    State(scheduler): State<Scheduler>,
    session: Session,
    sent: Sent,
) -> Result<Response, Refused> {
    let done = async {
        must(&session, Action::Order)?;
        let caller = &session.principal;
        let b = session.locale.words.language.back();
        let chosen = sent.all("chosen");
        if chosen.is_empty() {
            return Err(InvalidField::new("chosen", b.none_chosen).into());
        }
        let what = match sent.what() {
            what @ ("cancel" | "retry") => what,
            _ => return Err(SchedulerError::NotFound("command")),
        };
        let named = |text: &str| text.parse::<OrderId>().ok().and_then(|id| scheduler.order(caller, id).ok());
        if what == "cancel" && !sent.is_sure() {
            let names =
                chosen.iter().map(|text| named(text).map_or_else(|| text.clone(), |order| order.name));
            let names: Vec<String> = names.collect();
            let said = format!("{}: {}. {}", b.cancel, names.join(", "), b.are_you_sure);
            let sheet = Sheet::new(&scheduler, &session, &After::default(), b.all_orders)?;
            return Ok(ask_first(sheet, PATH, &sent, said, ("cancel", b.cancel)));
        }
        let mut refusals = Vec::new();
        for text in chosen {
            let id = text.parse::<OrderId>().map_err(|_| SchedulerError::NotFound("order"));
            let done = match (id, what) {
                (Ok(id), "cancel") => scheduler.cancel_order(caller, id).await.map(drop),
                (Ok(id), _) => scheduler.retry_order(caller, id).await.map(drop),
                (Err(error), _) => Err(error),
            };
            if let Err(error) = done {
                refusals.push((named(&text).map_or(text, |order| order.name), error.to_string()));
            }
        }
        if refusals.is_empty() {
            return Ok(back_to(PATH, "all").into_response());
        }
        let sheet = Sheet::new(&scheduler, &session, &After::default(), b.some_refused)?;
        let sheet = sheet.above(PATH, b.all_orders).with(Part::Refusals(refusals));
        Ok((StatusCode::CONFLICT, show(&sheet)).into_response())
    };
    done.await.told(&session)
}
