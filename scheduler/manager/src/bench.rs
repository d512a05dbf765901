//! The bench: a tile per slot and a row per order, first as a page, then live.

use std::collections::BTreeMap;
use std::time::Duration;

use askama::Template;
use axum::extract::{Form, Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{Html, IntoResponse, Redirect};
use cardshop_protocol::api::SlotView;
use cardshop_protocol::ids::{ApplianceId, SlotId};
use cardshop_protocol::message::Action as Reflex;
use cardshop_protocol::time::Timestamp;
use cardshop_scheduler::core::rights::Action;
use cardshop_scheduler::core::views::OrderView;
use cardshop_scheduler::{LiveFeed, PageRequest, Scheduler, SchedulerError};
use serde::Deserialize;
use serde_json::json;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use crate::orders::OrderRow;
use crate::page::{After, InLanguage, Refused, Shell, all, show};
use crate::session::Session;
use crate::tile::Tile;

/// Orders shown, newest first.
const ORDERS: usize = 20;
/// Events drawn ahead of a slow browser.
const BACKLOG: usize = 64;
/// How often a stream that has nothing to say looks whether its session still counts.
const SESSION_CHECK: Duration = Duration::from_secs(2);
/// A comment line this often keeps proxies from closing the stream.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

#[derive(Template)]
#[template(path = "bench.html")]
struct BenchPage {
    shell: Shell,
    benches: Vec<Bench>,
    orders: Vec<OrderRow>,
}

/// One appliance's tiles.
pub(crate) struct Bench {
    pub(crate) appliance: String,
    pub(crate) label: String,
    pub(crate) tiles: Vec<Tile>,
}

#[derive(Template)]
#[template(path = "tile.html")]
struct TileFragment {
    tile: Tile,
}

#[derive(Template)]
#[template(path = "order_row.html")]
struct OrderFragment {
    order: OrderRow,
}

pub(crate) async fn page(
    State(scheduler): State<Scheduler>,
    session: Session,
    Query(after): Query<After>,
) -> Result<Html<String>, Refused> {
    let draw = || {
        let orders = scheduler.orders(&session.principal, None, &PageRequest::first(ORDERS))?.items;
        Ok(BenchPage {
            shell: Shell::new(&scheduler, &session, &after)?,
            benches: benches(&scheduler, &session)?,
            orders: orders.iter().map(|order| OrderRow::of(order, &session.locale)).collect(),
        })
    };
    Ok(show(&draw().told(&session)?))
}

/// Slots by appliance, in the order of their ids; those of one appliance by their names, A2 before A10.
pub(crate) fn benches(scheduler: &Scheduler, session: &Session) -> Result<Vec<Bench>, SchedulerError> {
    let Session { principal, locale, .. } = session;
    let slots = all(|page| scheduler.slots(principal, page))?;
    let (now, may_tend) = (scheduler.now(), principal.may(Action::Tend));
    let mut by_appliance: BTreeMap<_, Vec<&SlotView>> = BTreeMap::new();
    for slot in &slots {
        by_appliance.entry(slot.appliance).or_default().push(slot);
    }
    let bench = |(appliance, slots): (cardshop_protocol::ids::ApplianceId, Vec<&SlotView>)| Bench {
        appliance: appliance.to_string(),
        label: slots[0].label.clone(),
        tiles: slots.into_iter().map(|slot| Tile::of(slot, locale, now, may_tend)).collect(),
    };
    let mut benches: Vec<Bench> = by_appliance.into_iter().map(bench).collect();
    for bench in &mut benches {
        bench.tiles.sort_by_cached_key(|tile| natural(&tile.name));
    }
    Ok(benches)
}

/// Sorts numbers inside names by their value.
fn natural(name: &str) -> (String, u64, String) {
    let is_digit = |c: char| c.is_ascii_digit();
    let (word, rest) = name.split_at(name.find(is_digit).unwrap_or(name.len()));
    let (digits, rest) = rest.split_at(rest.find(|c| !is_digit(c)).unwrap_or(rest.len()));
    (word.to_lowercase(), digits.parse().unwrap_or(0), rest.to_owned())
}

/// What a tile's form asks for.
#[derive(Deserialize)]
pub(crate) struct Deed {
    /// What to do.
    #[serde(rename = "do")]
    what: String,
    /// A name or a reason.
    #[serde(default)]
    text: String,
}

/// A button of a tile.
pub(crate) async fn act(
    State(scheduler): State<Scheduler>,
    session: Session,
    Path((appliance, slot)): Path<(String, String)>,
    Form(deed): Form<Deed>,
) -> Result<Redirect, Refused> {
    let path = format!("{appliance}/{slot}");
    let done = carry_out(&scheduler, &session, &path, &deed.what, &deed.text).await.told(&session)?;
    Ok(Redirect::to(&format!("/bench?done={done}&slot={path}#{path}")))
}

/// Does something with the slot `{appliance}/{slot}`; gives the key of the word that says so.
pub(crate) async fn carry_out(
    scheduler: &Scheduler,
    session: &Session,
    path: &str,
    what: &str,
    text: &str,
) -> Result<&'static str, SchedulerError> {
    let none = || SchedulerError::NotFound("slot");
    let (appliance, slot) = path.split_once('/').ok_or_else(none)?;
    let appliance: ApplianceId = appliance.parse().map_err(|_| none())?;
    let slot: SlotId = slot.parse().map_err(|_| none())?;
    let (caller, text) = (&session.principal, Some(text.trim().to_owned()).filter(|t| !t.is_empty()));
    let (done, reflex): (_, fn(SlotId) -> Reflex) = match what {
        "hold" => {
            scheduler.hold_slot(caller, appliance, slot, text).await?;
            return Ok("hold");
        }
        "resume" => {
            scheduler.resume_slot(caller, appliance, slot).await?;
            return Ok("resume");
        }
        "name" => {
            scheduler.name_slot(caller, appliance, slot, text).await?;
            return Ok("name");
        }
        "identify" => ("identify", |slot| Reflex::Identify { slot }),
        "retry" => ("retry", |slot| Reflex::Retry { slot }),
        "release" => ("release", |slot| Reflex::Release { slot }),
        "eject" => ("eject", |slot| Reflex::Eject { slot }),
        _ => return Err(SchedulerError::NotFound("command")),
    };
    scheduler.command_slot(caller, appliance, slot, reflex).await?;
    Ok(done)
}

/// Tiles and rows as they change, drawn here: the browser puts them in place.
pub(crate) async fn live(
    State(scheduler): State<Scheduler>,
    session: Session,
    headers: HeaderMap,
) -> Result<impl IntoResponse, StatusCode> {
    stream(scheduler, session, &headers, true)
}

/// The live stream of a session, with or without orders.
pub(crate) fn stream(
    scheduler: Scheduler,
    session: Session,
    headers: &HeaderMap,
    with_orders: bool,
) -> Result<impl IntoResponse + use<>, StatusCode> {
    let last = headers.get("last-event-id").and_then(|v| v.to_str().ok()).and_then(|v| v.parse().ok());
    let feed = scheduler.live(&session.principal, last).map_err(|_| StatusCode::FORBIDDEN)?;
    let (sender, receiver) = mpsc::channel(BACKLOG);
    tokio::spawn(pass_on(scheduler, session, feed, with_orders, sender));
    let stream = ReceiverStream::new(receiver);
    Ok(Sse::new(stream).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)))
}

/// Ends when the browser is gone, the session no longer counts, or the scheduler ends.
async fn pass_on(
    scheduler: Scheduler,
    session: Session,
    mut feed: LiveFeed,
    with_orders: bool,
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
        if event.kind == "order" && !with_orders {
            continue;
        }
        let Some(drawn) = fragment(event.kind, &event.json, &session, scheduler.now()) else { continue };
        if sender.send(Ok(drawn.id(event.id.to_string()))).await.is_err() {
            return;
        }
    }
}

/// A live event drawn as the piece of page it changes.
fn fragment(kind: &str, json: &serde_json::Value, session: &Session, now: Timestamp) -> Option<Event> {
    let Session { principal, locale, .. } = session;
    let (name, id, html) = match kind {
        "slot" | "progress" => {
            let slot: SlotView = serde_json::from_value(json.clone()).ok()?;
            let tile = Tile::of(&slot, locale, now, principal.may(Action::Tend));
            ("tile", tile.id.clone(), TileFragment { tile }.render())
        }
        "order" => {
            let order: OrderView = serde_json::from_value(json.clone()).ok()?;
            let order = OrderRow::of(&order, locale);
            ("order", order.id.clone(), OrderFragment { order }.render())
        }
        _ => return None,
    };
    let html = html.expect("the template is complete at build time");
    Some(Event::default().event(name).data(json!({"id": id, "html": html}).to_string()))
}
