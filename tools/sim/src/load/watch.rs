//! The dashboard's side: when each slot state was sent, and when its line came out of the live stream.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use cardshop_card::StopFlag;
use cardshop_protocol::ids::{ApplianceId, SlotId};
use serde_json::Value;

use super::{Load, LoadError, wait};
use crate::client::Client;

/// Which state: of which slot, and its number.
type Name = (String, u64);

/// States that were sent and not seen.
#[derive(Default)]
struct Open {
    sent: HashMap<Name, Instant>,
    seen: Vec<Duration>,
    counting: bool,
}

/// Where appliances note what they send.
#[derive(Clone, Default)]
pub(super) struct Sent {
    open: Arc<Mutex<Open>>,
    count: Arc<AtomicU64>,
}

impl Sent {
    /// A state is about to be sent.
    pub(super) fn note(&self, appliance: ApplianceId, slot: &SlotId, n: u64) {
        let mut open = self.open.lock().expect("no holder panics");
        if open.counting {
            open.sent.insert((format!("{appliance}/{slot}"), n), Instant::now());
            self.count.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn see(&self, slot: &Value) {
        let (Some(id), Some(n)) = (slot["id"].as_str(), slot["state"]["n"].as_u64()) else { return };
        let now = Instant::now();
        let mut open = self.open.lock().expect("no holder panics");
        if let Some(sent) = open.sent.remove(&(id.to_owned(), n)) {
            open.seen.push(now - sent);
        }
    }

    fn all_seen(&self) -> bool {
        self.open.lock().expect("no holder panics").sent.is_empty()
    }
}

/// Somebody watches.
pub(super) struct Watch {
    sent: Sent,
    client: Arc<Client>,
    ended: StopFlag,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    pub(super) fn begin(load: &Load, stop: &StopFlag) -> Result<Self, LoadError> {
        let client =
            Client::login_trusting(&load.server, load.roots.clone(), &load.username, &load.password)?;
        let (client, sent, ended) = (Arc::new(client), Sent::default(), StopFlag::new());
        let (watching, seen, over, stop) = (Arc::clone(&client), sent.clone(), ended.clone(), stop.clone());
        let watch = move || {
            while !over.is_stopped() && !stop.is_stopped() {
                let _ = watching.live(&mut |name, data| {
                    if name == "slot" || name == "progress" {
                        seen.see(data);
                    }
                    !over.is_stopped()
                });
            }
        };
        let thread = std::thread::Builder::new().name("dashboard".into()).spawn(watch)?;
        Ok(Self { sent, client, ended, thread: Some(thread) })
    }

    pub(super) fn sent(&self) -> Sent {
        self.sent.clone()
    }

    /// From here on states count.
    pub(super) fn begin_counting(&self) {
        self.sent.open.lock().expect("no holder panics").counting = true;
    }

    /// Waits a while for what was not seen yet. Latencies, and how many states were sent and seen.
    pub(super) fn end(mut self, patience: Duration) -> (Latencies, u64, u64) {
        wait(patience, &StopFlag::new(), &|| self.sent.all_seen());
        self.ended.stop();
        self.client.hang_up();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        let mut open = self.sent.open.lock().expect("no holder panics");
        let seen = std::mem::take(&mut open.seen);
        let count = seen.len() as u64;
        (Latencies::of(seen), self.sent.count.load(Ordering::Relaxed), count)
    }
}

/// How late, milliseconds.
#[derive(Debug, Clone, Copy, Default)]
pub struct Latencies {
    /// Half are faster.
    pub median_ms: f64,
    /// 99 of 100 are.
    pub p99_ms: f64,
    /// None is slower.
    pub max_ms: f64,
}

impl Latencies {
    /// Of these.
    pub fn of(mut all: Vec<Duration>) -> Self {
        all.sort_unstable();
        let at = |percent: usize| {
            let index = (all.len() * percent / 100).min(all.len().saturating_sub(1));
            all.get(index).map_or(0.0, |d| d.as_secs_f64() * 1000.0)
        };
        Self { median_ms: at(50), p99_ms: at(99), max_ms: at(100) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_of_the_sorted_list() {
        let all = (1..=200).rev().map(Duration::from_millis).collect();
        let Latencies { median_ms, p99_ms, max_ms } = Latencies::of(all);
        assert_eq!((median_ms, p99_ms, max_ms), (101.0, 199.0, 200.0));
        assert_eq!(Latencies::of(Vec::new()).max_ms, 0.0);
    }
}
