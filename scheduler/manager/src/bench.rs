//! The bench: a tile per slot and a row per order, first as a page, then live.

use std::collections::BTreeMap;
use std::time::Duration;

use askama::Template;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{Html, IntoResponse, Response};
use cardshop_protocol::api::SlotView;
use cardshop_scheduler::core::rights::Principal;
use cardshop_scheduler::core::views::OrderView;
use cardshop_scheduler::{LiveFeed, PageRequest, Scheduler, SchedulerError};
use serde_json::json;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::session::Session;
use crate::tile::Tile;

/// Orders shown, newest first.
const ORDERS: usize = 20;
/// Slots read at once.
const SLOTS_AT_ONCE: usize = 500;
/// Events drawn ahead of a slow browser.
const BACKLOG: usize = 64;
/// How often a stream that has nothing to say looks whether its session still counts.
const SESSION_CHECK: Duration = Duration::from_secs(2);
/// A comment line this often keeps proxies from closing the stream.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

#[derive(Template)]
#[template(path = "bench.html")]
struct BenchPage {
    username: String,
    benches: Vec<Bench>,
    orders: Vec<OrderRow>,
}

/// One appliance's tiles.
struct Bench {
    appliance: String,
    label: String,
    tiles: Vec<Tile>,
}

#[derive(Template)]
#[template(path = "tile.html")]
struct TileFragment {
    tile: Tile,
}

#[derive(Template)]
#[template(path = "order.html")]
struct OrderFragment {
    order: OrderRow,
}

struct OrderRow {
    id: String,
    name: String,
    quantity: u32,
    verified: u32,
    status: String,
}

impl OrderRow {
    fn of(order: &OrderView) -> Self {
        let status = serde_json::to_value(order.status).ok();
        Self {
            id: order.id.to_string(),
            name: order.name.clone(),
            quantity: order.quantity,
            verified: order.verified,
            status: status.and_then(|s| s.as_str().map(str::to_owned)).unwrap_or_default(),
        }
    }
}

pub(crate) async fn page(State(scheduler): State<Scheduler>, session: Session) -> Response {
    match draw(&scheduler, &session.principal) {
        Ok(page) => Html(page.render().expect("the template is complete at build time")).into_response(),
        Err(error @ SchedulerError::NotAllowed(_)) => {
            (StatusCode::FORBIDDEN, error.to_string()).into_response()
        }
        Err(error) => {
            tracing::error!(%error, "the bench cannot be shown");
            (StatusCode::SERVICE_UNAVAILABLE, error.to_string()).into_response()
        }
    }
}

fn draw(scheduler: &Scheduler, principal: &Principal) -> Result<BenchPage, SchedulerError> {
    let orders = scheduler.orders(principal, None, &PageRequest::first(ORDERS))?.items;
    Ok(BenchPage {
        username: principal.sub.clone(),
        benches: benches(&slots(scheduler, principal)?),
        orders: orders.iter().map(OrderRow::of).collect(),
    })
}

/// All slots the caller may see.
fn slots(scheduler: &Scheduler, principal: &Principal) -> Result<Vec<SlotView>, SchedulerError> {
    let mut all = Vec::new();
    let mut page = PageRequest::first(SLOTS_AT_ONCE);
    loop {
        let slots = scheduler.slots(principal, &page)?;
        all.extend(slots.items);
        page.cursor = slots.next_cursor;
        if page.cursor.is_none() {
            return Ok(all);
        }
    }
}

/// Slots by appliance, in the order of their ids.
fn benches(slots: &[SlotView]) -> Vec<Bench> {
    let mut by_appliance: BTreeMap<_, Vec<&SlotView>> = BTreeMap::new();
    for slot in slots {
        by_appliance.entry(slot.appliance).or_default().push(slot);
    }
    let bench = |(appliance, slots): (cardshop_protocol::ids::ApplianceId, Vec<&SlotView>)| Bench {
        appliance: appliance.to_string(),
        label: slots[0].label.clone(),
        tiles: slots.into_iter().map(Tile::of).collect(),
    };
    by_appliance.into_iter().map(bench).collect()
}

/// Tiles and rows as they change, drawn here: the browser puts them in place.
pub(crate) async fn live(
    State(scheduler): State<Scheduler>,
    session: Session,
    headers: HeaderMap,
) -> Result<impl IntoResponse, StatusCode> {
    let last = headers.get("last-event-id").and_then(|v| v.to_str().ok()).and_then(|v| v.parse().ok());
    let feed = scheduler.live(&session.principal, last).map_err(|_| StatusCode::FORBIDDEN)?;
    let (sender, receiver) = mpsc::channel(BACKLOG);
    tokio::spawn(pass_on(scheduler, session, feed, sender));
    let stream = ReceiverStream::new(receiver);
    Ok(Sse::new(stream).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)))
}

/// Ends when the browser is gone, the session no longer counts, or the scheduler ends.
async fn pass_on(
    scheduler: Scheduler,
    session: Session,
    mut feed: LiveFeed,
    sender: mpsc::Sender<Result<Event, axum::Error>>,
) {
    loop {
        let event = tokio::select! {
            event = feed.next() => match event {
                Some(event) => Some(event),
                None => return,
            },
            () = tokio::time::sleep(SESSION_CHECK) => None,
        };
        if !session.still_counts(&scheduler) {
            let _ = sender.send(Ok(Event::default().event("bye").data("{}"))).await;
            return;
        }
        let Some(event) = event else {
            if sender.is_closed() {
                return;
            }
            continue;
        };
        let Some(drawn) = fragment(event.kind, &event.json) else { continue };
        if sender.send(Ok(drawn.id(event.id.to_string()))).await.is_err() {
            return;
        }
    }
}

/// A live event drawn as the piece of page it changes.
fn fragment(kind: &str, json: &serde_json::Value) -> Option<Event> {
    let (name, id, html) = match kind {
        "slot" | "progress" => {
            let slot: SlotView = serde_json::from_value(json.clone()).ok()?;
            let tile = Tile::of(&slot);
            ("tile", tile.id.clone(), TileFragment { tile }.render())
        }
        "order" => {
            let order: OrderView = serde_json::from_value(json.clone()).ok()?;
            let order = OrderRow::of(&order);
            ("order", order.id.clone(), OrderFragment { order }.render())
        }
        _ => return None,
    };
    let html = html.expect("the template is complete at build time");
    Some(Event::default().event(name).data(json!({"id": id, "html": html}).to_string()))
}
