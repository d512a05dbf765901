//! The live stream: what changes, to everybody who watches. A bounded ring of the last events lets a watcher go
//! on where it was; one that was away too long gets the full picture first. `bench` makes the picture.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cardshop_protocol::ids::Channel;
use cardshop_protocol::time::Timestamp;
use serde::Serialize;
use serde_json::Value;
use tokio::sync::broadcast;

use crate::core::rights::{Action, Principal};
use crate::{Scheduler, SchedulerError};

/// Events a watcher may have missed and still go on: about a minute of a busy site.
const RING_LENGTH: usize = 4096;
/// How soon a stream ends after its watcher's token did.
const CHECK_EVERY: Duration = Duration::from_secs(2);
/// Events that may wait for a slow watcher; it gets the full picture when it falls behind.
const BACKLOG: usize = 1024;

/// Streams that may be open: each holds its backlog and gets the full picture when it falls behind.
const MAX_WATCHERS: usize = 1000;
/// Streams of one login: a shop's screens may share one.
const MAX_WATCHERS_OF_ONE: usize = 100;

/// Something changed.
#[derive(Debug, Clone, PartialEq)]
pub struct LiveEvent {
    /// Grows, also over restarts; 0 = not one to resume from.
    pub id: u64,
    /// `slot`, `progress`, `order`, `appliance` or `alert`.
    pub kind: &'static str,
    /// Whose it is.
    pub channels: Vec<Channel>,
    /// The object as the API shows it.
    pub json: Value,
}

/// Streams that are open, by login name.
#[derive(Clone, Default)]
struct Seats(Arc<Mutex<BTreeMap<String, usize>>>);

/// One open stream.
struct Seat {
    seats: Seats,
    sub: String,
}

impl Seats {
    fn take(&self, sub: &str) -> Option<Seat> {
        let mut open = self.0.lock().expect("no holder panics");
        let own = open.get(sub).copied().unwrap_or(0);
        if own >= MAX_WATCHERS_OF_ONE || open.values().sum::<usize>() >= MAX_WATCHERS {
            return None;
        }
        open.insert(sub.to_owned(), own + 1);
        Some(Seat { seats: self.clone(), sub: sub.to_owned() })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut open = self.seats.0.lock().expect("no holder panics");
        if let Some(own) = open.get_mut(&self.sub) {
            *own -= 1;
            if *own == 0 {
                open.remove(&self.sub);
            }
        }
    }
}

type Receiver = broadcast::Receiver<Arc<LiveEvent>>;

/// The ring and the watchers.
pub(crate) struct Live {
    ring: Mutex<(u64, VecDeque<Arc<LiveEvent>>)>,
    watchers: broadcast::Sender<Arc<LiveEvent>>,
    seats: Seats,
}

impl Live {
    /// Ids begin with the time of the start, so that those of an earlier run are older.
    pub(crate) fn new(started: Timestamp) -> Self {
        Self {
            ring: Mutex::new((started.as_ms() << 10, VecDeque::with_capacity(RING_LENGTH))),
            watchers: broadcast::channel(BACKLOG).0,
            seats: Seats::default(),
        }
    }

    pub(crate) fn send(&self, kind: &'static str, channels: Vec<Channel>, object: &impl Serialize) {
        let json = serde_json::to_value(object).expect("a view is plain JSON");
        let mut ring = self.ring.lock().expect("no holder panics");
        ring.0 += 1;
        let event = Arc::new(LiveEvent { id: ring.0, kind, channels, json });
        if ring.1.len() == RING_LENGTH {
            ring.1.pop_front();
        }
        ring.1.push_back(event.clone());
        // Inside the lock, so that watchers get ids in order. No watcher is no error.
        let _ = self.watchers.send(event);
    }

    /// Subscribes, and gives the events after `last`; `None` when they are not all there.
    fn resume(&self, last: Option<u64>) -> (u64, Option<Vec<Arc<LiveEvent>>>, Receiver) {
        let ring = self.ring.lock().expect("no holder panics");
        let receiver = self.watchers.subscribe();
        let oldest = ring.1.front().map_or(ring.0 + 1, |e| e.id);
        let missed = last
            .filter(|last| *last + 1 >= oldest && *last <= ring.0)
            .map(|last| ring.1.iter().filter(|e| e.id > last).cloned().collect());
        (ring.0, missed, receiver)
    }
}

/// One watcher's stream.
pub struct LiveFeed {
    scheduler: Scheduler,
    watcher: Principal,
    first: VecDeque<Arc<LiveEvent>>,
    receiver: Receiver,
    _seat: Seat,
}

impl LiveFeed {
    /// The next event; waits for it. `None` when the watcher's token has ended or the scheduler is gone.
    pub async fn next(&mut self) -> Option<Arc<LiveEvent>> {
        loop {
            let event = match self.first.pop_front() {
                Some(event) => event,
                None => match tokio::time::timeout(CHECK_EVERY, self.receiver.recv()).await {
                    Ok(Ok(event)) => event,
                    Ok(Err(broadcast::error::RecvError::Closed)) => return None,
                    Ok(Err(broadcast::error::RecvError::Lagged(_))) => {
                        let (id, _, receiver) = self.scheduler.inner.live.resume(None);
                        self.receiver = receiver;
                        self.first = self.scheduler.picture_events(id);
                        continue;
                    }
                    Err(_) if self.scheduler.is_current(&self.watcher) => continue,
                    Err(_) => return None,
                },
            };
            if !self.scheduler.is_current(&self.watcher) {
                return None;
            }
            let may = event.kind != "appliance" || self.watcher.may(Action::Look);
            if may && self.watcher.sees_any(&event.channels) {
                return Some(self.for_eyes(event));
            }
        }
    }
}

impl LiveFeed {
    /// Without the recipient for who may not know.
    fn for_eyes(&self, event: Arc<LiveEvent>) -> Arc<LiveEvent> {
        if event.kind != "order" || self.watcher.sees_recipients() {
            return event;
        }
        let mut event = LiveEvent::clone(&event);
        event.json["recipient"] = Value::Null;
        Arc::new(event)
    }
}

impl Scheduler {
    /// What changes from now on; first what `last_event_id` missed, or the full picture.
    ///
    /// # Errors
    /// `NotAllowed`, `Busy` when too many streams are open.
    pub fn live(&self, watcher: &Principal, last_event_id: Option<u64>) -> Result<LiveFeed, SchedulerError> {
        watcher.must(Action::Watch)?;
        let seat = self.inner.live.seats.take(&watcher.sub).ok_or(SchedulerError::Busy)?;
        let (id, missed, receiver) = self.inner.live.resume(last_event_id);
        let first = missed.map_or_else(|| self.picture_events(id), VecDeque::from);
        Ok(LiveFeed { scheduler: self.clone(), watcher: watcher.clone(), first, receiver, _seat: seat })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watcher_resumes_while_the_ring_reaches_back_and_not_after() {
        let live = Live::new(Timestamp::from_ms(1));
        let first = 1 << 10;
        for n in 0..3 {
            live.send("slot", vec![], &n);
        }
        let missed = live.resume(Some(first + 1)).1.unwrap();
        assert_eq!(missed.iter().map(|e| e.id).collect::<Vec<_>>(), [first + 2, first + 3]);
        assert!(live.resume(Some(first + 3)).1.unwrap().is_empty());
        assert!(live.resume(Some(first + 4)).1.is_none(), "an id that was never given");
        assert!(live.resume(None).1.is_none());
        for n in 0..RING_LENGTH {
            live.send("slot", vec![], &n);
        }
        assert!(live.resume(Some(first + 1)).1.is_none(), "too long away");
    }

    #[test]
    fn streams_are_counted_by_login_and_in_all_and_a_closed_one_makes_room() {
        let seats = Seats::default();
        let mut open: Vec<Seat> = (0..MAX_WATCHERS_OF_ONE).map(|_| seats.take("ada").unwrap()).collect();
        assert!(seats.take("ada").is_none());
        for n in MAX_WATCHERS_OF_ONE..MAX_WATCHERS {
            open.push(seats.take(&format!("screen{n}")).unwrap());
        }
        assert!(seats.take("bob").is_none());
        open.swap_remove(0);
        assert!(seats.take("ada").is_some());
        drop(open);
        assert!(seats.0.lock().unwrap().is_empty(), "nothing is remembered of closed ones");
    }
}
