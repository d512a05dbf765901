//! A few counters for `/metrics`. **Source:** Prometheus text exposition format 0.0.4.

use std::fmt::Write;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::Scheduler;

/// Counts up.
#[derive(Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Text of another service in this program, in the same format.
type Beside = Box<dyn Fn() -> String + Send + Sync>;

/// What is counted.
#[derive(Default)]
pub(crate) struct Metrics {
    beside: Mutex<Vec<Beside>>,
    pub(crate) requests: Counter,
    pub(crate) logins_failed: Counter,
    pub(crate) orders_created: Counter,
    pub(crate) tasks_claimed: Counter,
    pub(crate) events_applied: Counter,
    pub(crate) events_ignored: Counter,
    pub(crate) cards_verified: Counter,
    pub(crate) messages_dropped: Counter,
    pub(crate) messages_sent: Counter,
    pub(crate) messages_refused: Counter,
    pub(crate) messages_failed: Counter,
    pub(crate) broker_connections: Counter,
    pub(crate) broker_connected: AtomicBool,
    pub(crate) background_failed: AtomicBool,
}

impl Metrics {
    /// The text for Prometheus.
    pub(crate) fn render(&self, store_healthy: bool, gauges: &[(&str, &str, u64)]) -> String {
        let mut text = String::new();
        let counters = [
            ("http_requests", "HTTP requests answered", &self.requests),
            ("logins_failed", "Failed logins", &self.logins_failed),
            ("orders_created", "Orders placed", &self.orders_created),
            ("creation_tasks_claimed", "Creation tasks given to creators", &self.tasks_claimed),
            ("appliance_events_applied", "Facts of appliances applied", &self.events_applied),
            (
                "appliance_events_ignored",
                "Facts of appliances that came twice or too early",
                &self.events_ignored,
            ),
            ("cards_verified", "Cards verified", &self.cards_verified),
            ("mqtt_messages_dropped", "Messages not understood or not taken", &self.messages_dropped),
            ("messages_sent", "Letters and calls that were taken", &self.messages_sent),
            ("messages_refused", "Tries of letters and calls that were not taken", &self.messages_refused),
            ("messages_failed", "Letters and calls that are not tried any more", &self.messages_failed),
            ("mqtt_connections", "Connections made to the broker", &self.broker_connections),
        ];
        for (name, help, counter) in counters {
            let _ = write!(
                text,
                "# HELP cardshop_{name}_total {help}.\n# TYPE cardshop_{name}_total counter\n\
                 cardshop_{name}_total {}\n",
                counter.get()
            );
        }
        let connected = u64::from(self.broker_connected.load(Ordering::Relaxed));
        let healthy = u64::from(store_healthy);
        let own = [
            ("broker_connected", "1 while connected to the broker", connected),
            ("store_healthy", "1 while the store takes writes", healthy),
        ];
        for (name, help, value) in own.iter().chain(gauges) {
            let _ = write!(
                text,
                "# HELP cardshop_{name} {help}.\n# TYPE cardshop_{name} gauge\ncardshop_{name} {value}\n"
            );
        }
        for beside in self.beside.lock().expect("no holder panics").iter() {
            text.push_str(&beside());
        }
        text
    }
}

impl Scheduler {
    /// Has `/metrics` also show what `text` gives: for a service that runs in the same program. It is asked for each
    /// answer.
    pub fn add_metrics(&self, text: impl Fn() -> String + Send + Sync + 'static) {
        self.inner.metrics.beside.lock().expect("no holder panics").push(Box::new(text));
    }
}
