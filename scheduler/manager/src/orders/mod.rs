//! The orders: the list with its filters, one order as a timeline with its cards, and what can be done with it. `form`
//! places new ones.

pub(crate) mod form;

use askama::Template;
use axum::Form;
use axum::extract::{Path, Query, State};
use axum::response::{Html, Redirect};
use cardshop_protocol::ids::OrderId;
use cardshop_scheduler::core::estimate::Estimate;
use cardshop_scheduler::core::explain::Explanation;
use cardshop_scheduler::core::order::{OrderKind, OrderStatus};
use cardshop_scheduler::core::views::{CardView, OrderView};
use cardshop_scheduler::{PageRequest, Scheduler, SchedulerError};
use serde::Deserialize;

use crate::locale::Locale;
use crate::page::{After, InLanguage, Refused, Shell, all, back_to, read_id, show};
use crate::session::Session;
use crate::words::Words;

/// Orders of one page of the list.
const PER_PAGE: usize = 50;

/// The states, in the order of an order's life.
pub(crate) const STATUSES: [OrderStatus; 10] = [
    OrderStatus::Created,
    OrderStatus::Creating,
    OrderStatus::Ready,
    OrderStatus::Writing,
    OrderStatus::Written,
    OrderStatus::Shipped,
    OrderStatus::Available,
    OrderStatus::Expired,
    OrderStatus::Canceled,
    OrderStatus::Failed,
];

/// A state in words.
pub(crate) fn status_word(status: OrderStatus, w: &Words) -> &'static str {
    match status {
        OrderStatus::Created => w.status_created,
        OrderStatus::Creating => w.status_creating,
        OrderStatus::Ready => w.status_ready,
        OrderStatus::Writing => w.status_writing,
        OrderStatus::Written => w.status_written,
        OrderStatus::Shipped => w.status_shipped,
        OrderStatus::Available => w.status_available,
        OrderStatus::Expired => w.status_expired,
        OrderStatus::Canceled => w.status_canceled,
        OrderStatus::Failed => w.status_failed,
    }
}

/// An order in a table.
pub(crate) struct OrderRow {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) created: String,
    pub(crate) verified: String,
    /// For programs.
    pub(crate) status: &'static str,
    pub(crate) status_word: &'static str,
}

impl OrderRow {
    pub(crate) fn of(order: &OrderView, locale: &Locale) -> Self {
        let cards = order.kind == OrderKind::Physical;
        Self {
            id: order.id.to_string(),
            name: order.name.clone(),
            created: locale.moment(&order.created),
            verified: if cards {
                locale.words.verified_of(&order.verified, &order.quantity)
            } else {
                "–".into()
            },
            status: order.status.as_str(),
            status_word: status_word(order.status, locale.words),
        }
    }
}

#[derive(Default, Deserialize)]
pub(crate) struct Filter {
    #[serde(default)]
    status: String,
    #[serde(default)]
    search: String,
    #[serde(default)]
    cursor: String,
}

#[derive(Template)]
#[template(path = "orders.html")]
struct OrdersPage {
    shell: Shell,
    filter: Filter,
    /// Key, word, chosen.
    statuses: Vec<(&'static str, &'static str, bool)>,
    orders: Vec<OrderRow>,
    next: Option<String>,
}

pub(crate) async fn list(
    State(scheduler): State<Scheduler>,
    session: Session,
    Query(filter): Query<Filter>,
    Query(after): Query<After>,
) -> Result<Html<String>, Refused> {
    let draw = || {
        let (principal, locale) = (&session.principal, &session.locale);
        let status = STATUSES.into_iter().find(|s| s.as_str() == filter.status);
        let wanted = filter.search.trim().to_lowercase();
        let (orders, next) = if wanted.is_empty() {
            let cursor = Some(filter.cursor.clone()).filter(|c| !c.is_empty());
            let page = scheduler.orders(principal, status, &PageRequest { limit: Some(PER_PAGE), cursor })?;
            (page.items, page.next_cursor)
        } else {
            let found = |order: &OrderView| {
                let recipient = order.recipient.to_string().to_lowercase();
                order.name.to_lowercase().contains(&wanted)
                    || order.id.to_string().contains(&wanted)
                    || recipient.contains(&wanted)
                    || order.created_by.contains(&wanted)
            };
            let all = all(|page| scheduler.orders(principal, status, page))?;
            (all.into_iter().filter(found).take(PER_PAGE).collect(), None)
        };
        let statuses = STATUSES.map(|s| (s.as_str(), status_word(s, locale.words), Some(s) == status));
        Ok(OrdersPage {
            shell: Shell::new(&scheduler, &session, &after)?,
            statuses: statuses.to_vec(),
            orders: orders.iter().map(|order| OrderRow::of(order, locale)).collect(),
            next,
            filter,
        })
    };
    Ok(show(&draw().told(&session)?))
}

#[derive(Template)]
#[template(path = "order.html")]
struct OrderPage {
    shell: Shell,
    order: OrderView,
    row: OrderRow,
    explanation: Explanation,
    estimate: Estimate,
    cards: Vec<CardView>,
    /// Each state and when it began.
    history: Vec<(&'static str, String)>,
    /// Name and value, as the order has them.
    recipient: Vec<(String, String)>,
    deeds: Vec<Deed>,
    /// Cards that can be shipped now.
    shippable: u32,
    /// A parcel goes out.
    has_slip: bool,
}

/// A button on an order's page.
struct Deed {
    key: &'static str,
    word: &'static str,
}

/// What means something in the order's state.
fn deeds(order: &OrderView, w: &Words) -> Vec<Deed> {
    let deed = |key, word| Deed { key, word };
    let mut deeds = Vec::new();
    if order.status == OrderStatus::Failed || order.hold.is_some() {
        deeds.push(deed("retry", w.retry_order));
    }
    if order.status == OrderStatus::Available {
        deeds.push(deed("extend", w.extend_order));
        deeds.push(deed("expire", w.expire_order));
    }
    if !order.status.is_ended() && order.status != OrderStatus::Available {
        deeds.push(deed("cancel", w.cancel_order));
    }
    deeds
}

/// What an order says of its recipient, whatever it is made of; what our form asks for comes first, in words.
fn recipient(value: &serde_json::Value, w: &Words) -> Vec<(String, String)> {
    let text = |v: &serde_json::Value| v.as_str().map_or_else(|| v.to_string(), str::to_owned);
    let known = [
        ("name", w.recipient_name),
        ("company", w.company),
        ("address", w.recipient_address),
        ("country", w.recipient_country),
        ("email", w.recipient_email),
        ("phone", w.phone),
        ("language", w.language_of_letters),
    ];
    match value {
        serde_json::Value::Object(map) => {
            let asked =
                known.iter().filter_map(|(key, word)| Some(((*word).to_owned(), text(map.get(*key)?))));
            let others = map.iter().filter(|(key, _)| known.iter().all(|(k, _)| k != key));
            asked.chain(others.map(|(key, v)| (key.clone(), text(v)))).collect()
        }
        serde_json::Value::Null => vec![],
        other => vec![(String::new(), text(other))],
    }
}

pub(crate) async fn detail(
    State(scheduler): State<Scheduler>,
    session: Session,
    Path(id): Path<String>,
    Query(after): Query<After>,
) -> Result<Html<String>, Refused> {
    let draw = || {
        let (principal, locale) = (&session.principal, &session.locale);
        let id: OrderId = read_id(&id, "order")?;
        let order = scheduler.order(principal, id)?;
        let shell = Shell::new(&scheduler, &session, &after)?;
        let w = locale.words;
        Ok(OrderPage {
            row: OrderRow::of(&order, locale),
            explanation: scheduler.explain_order(principal, id)?,
            estimate: scheduler.estimate_order(principal, id)?,
            cards: all(|page| scheduler.cards(principal, Some(id), page))?,
            history: order.history.iter().map(|h| (status_word(h.status, w), locale.moment(&h.at))).collect(),
            recipient: recipient(&order.recipient, w),
            deeds: if shell.may_order { deeds(&order, w) } else { vec![] },
            shippable: if shell.may_ship { order.verified.saturating_sub(order.shipped) } else { 0 },
            has_slip: order.kind == OrderKind::Physical,
            shell,
            order,
        })
    };
    Ok(show(&draw().told(&session)?))
}

#[derive(Deserialize)]
pub(crate) struct Asked {
    #[serde(rename = "do")]
    what: String,
    #[serde(default)]
    count: String,
    #[serde(default)]
    tracking: String,
}

/// A button of an order's page.
pub(crate) async fn act(
    State(scheduler): State<Scheduler>,
    session: Session,
    Path(id): Path<String>,
    Form(asked): Form<Asked>,
) -> Result<Redirect, Refused> {
    let caller = &session.principal;
    let done = async {
        let id: OrderId = read_id(&id, "order")?;
        match asked.what.as_str() {
            "cancel" => scheduler.cancel_order(caller, id).await.map(|_| "cancel"),
            "retry" => scheduler.retry_order(caller, id).await.map(|_| "retry_order"),
            "expire" => scheduler.expire_order(caller, id).await.map(|_| "expire"),
            "extend" => scheduler.extend_order(caller, id).await.map(|_| "extend"),
            "ship" => {
                let count = form::number(&asked.count, "count", session.locale.words)?;
                let tracking = Some(asked.tracking.trim().to_owned()).filter(|t| !t.is_empty());
                scheduler.ship_order(caller, id, count, tracking).await.map(|_| "ship")
            }
            _ => Err(SchedulerError::NotFound("command")),
        }
    };
    let done = done.await.told(&session)?;
    Ok(back_to(&format!("/orders/{id}"), done))
}
