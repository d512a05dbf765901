//! `/live`: what changes, as server-sent events. **Source:** WHATWG HTML, server-sent events.

use std::convert::Infallible;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::routing::get;
use tokio::sync::mpsc;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;

use super::caller::{Caller, Query};
use super::error::ApiError;
use crate::Scheduler;

/// A comment line this often keeps proxies from closing the stream.
const COMMENT_EVERY: Duration = Duration::from_secs(15);
/// A watcher that takes nothing for this long while its queue is full is gone.
const SEND_WITHIN: Duration = Duration::from_secs(30);
/// Events that may wait for one connection.
const QUEUE_LENGTH: usize = 64;

pub(super) fn routes() -> Router<Scheduler> {
    Router::new().route("/live", get(live))
}

async fn live(
    State(scheduler): State<Scheduler>,
    Caller(caller): Caller,
    query: Query,
    headers: HeaderMap,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, ApiError> {
    let header = headers.get("last-event-id").and_then(|v| v.to_str().ok()).and_then(|v| v.parse().ok());
    // A page that was loaded with a picture may name its id; a browser that reconnects sends the header.
    let last = match header {
        Some(id) => Some(id),
        None => query.get("last_event_id")?,
    };
    let mut feed = scheduler.live(&caller, last)?;
    let (sender, receiver) = mpsc::channel(QUEUE_LENGTH);
    tokio::spawn(async move {
        loop {
            let event = tokio::select! {
                event = feed.next() => event,
                () = sender.closed() => return,
            };
            let Some(event) = event else { return };
            let mut line = Event::default().event(event.kind).data(event.json.to_string());
            if event.id != 0 {
                line = line.id(event.id.to_string());
            }
            if sender.send_timeout(Ok(line), SEND_WITHIN).await.is_err() {
                return;
            }
        }
    });
    let alive = KeepAlive::new().interval(COMMENT_EVERY).text("");
    Ok(Sse::new(ReceiverStream::new(receiver)).keep_alive(alive))
}
