//! Load on a real site: appliances that join as real ones do, log in, connect to the broker, show what their slots do, take
//! leases and tell facts, as many as one machine can play; and a person at the dashboard who sees how late it shows.
//!
//! ```text
//! enrol (HTTP: join token, join, approve, log in) ─► appliance × N (MQTT) ──► broker ──► scheduler ──► SSE ──► watch
//!                                                        └ notes when each state was sent ──────────────────────┘
//! ```
//!
//! It asks for nothing that an appliance or a manager may not do. `cardshop sim` and `cardshop bench scheduler` are its
//! callers.

mod appliance;
mod enrol;
mod watch;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use cardshop_card::StopFlag;
use ureq::tls::RootCerts;

use crate::client::{Client, ClientError};
pub use watch::Latencies;
use watch::Watch;

/// Connections begun a second: below the broker's limit of 200 from one address.
const CONNECTS_PER_SECOND: u64 = 150;
/// How long is waited for what is still under way at the end.
const LAST_WORDS: Duration = Duration::from_secs(20);
/// How often it is looked whether something is there that is waited for.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// What is played.
#[derive(Clone)]
pub struct Load {
    /// Web address of the site.
    pub server: String,
    /// Its broker: `mqtt://host:port`.
    pub mqtt: String,
    /// Whose certificate the server has.
    pub roots: RootCerts,
    /// A manager or staff.
    pub username: String,
    /// Password.
    pub password: String,
    /// Appliances.
    pub appliances: usize,
    /// Slots of each.
    pub slots: u32,
    /// For how long.
    pub duration: Duration,
    /// Slot states a second, of all together.
    pub states_per_second: u64,
}

/// Why there is no load.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The site's API says no.
    #[error("the site does not let the appliances in")]
    Site(#[from] ClientError),
    /// The broker's address.
    #[error("{0} is no address of a broker such as mqtt://127.0.0.1:1883")]
    Address(String),
    /// Not everybody got through.
    #[error("{connected} of {wanted} appliances reached the broker: {reason}")]
    NotConnected {
        /// So many did.
        connected: u64,
        /// Of so many.
        wanted: usize,
        /// The last failure.
        reason: String,
    },
    /// No threads or sockets.
    #[error("this machine cannot play so many")]
    Machine(#[from] std::io::Error),
}

/// What is counted while it runs.
#[derive(Default)]
struct Counters {
    connected: AtomicU64,
    states: AtomicU64,
    progress: AtomicU64,
    facts: AtomicU64,
    facts_stored: AtomicU64,
    cards: AtomicU64,
}

/// What came of it.
#[derive(Debug, Clone)]
pub struct Report {
    /// Appliances that joined, and how long that took in all.
    pub joined: usize,
    /// Seconds of it.
    pub join_seconds: f64,
    /// Messages that were published: states, progress, facts.
    pub messages: u64,
    /// Seconds of load.
    pub seconds: f64,
    /// Slot states sent, after the first of each slot.
    pub states: u64,
    /// Of these, seen at the dashboard; a slot that changes twice at once may be seen once.
    pub states_seen: u64,
    /// From a state's publish to its line at the dashboard.
    pub latencies: Latencies,
    /// Facts told, and stored by the scheduler.
    pub facts: u64,
    /// Stored.
    pub facts_stored: u64,
    /// Cards told to be verified.
    pub cards: u64,
}

/// Plays it.
///
/// # Errors
/// Any [`LoadError`].
pub fn run(load: &Load, stop: &StopFlag) -> Result<Report, LoadError> {
    let manager = Client::login_trusting(&load.server, load.roots.clone(), &load.username, &load.password)?;
    let began = Instant::now();
    let members = enrol::all(load, &manager, stop)?;
    let join_seconds = began.elapsed().as_secs_f64();
    let (host, port) = broker_address(&load.mqtt)?;
    let counters = Arc::new(Counters::default());
    let watch = Watch::begin(load, stop)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let pace = Duration::from_secs_f64(
        (load.appliances as u64 * u64::from(load.slots)) as f64 / load.states_per_second.max(1) as f64,
    );
    let ended = StopFlag::new();
    let mut tasks = Vec::new();
    for (n, member) in members.iter().enumerate() {
        let part = appliance::Part {
            member: member.clone(),
            broker: (host.clone(), port),
            slots: load.slots,
            pace,
            begins_in: Duration::from_millis(n as u64 * 1000 / CONNECTS_PER_SECOND),
            counters: Arc::clone(&counters),
            sent: watch.sent(),
            ended: ended.clone(),
        };
        tasks.push(runtime.spawn(appliance::run(part)));
    }
    let connecting = Duration::from_millis(load.appliances as u64 * 1000 / CONNECTS_PER_SECOND);
    let all = || counters.connected.load(Ordering::Relaxed) >= load.appliances as u64;
    wait(connecting + LAST_WORDS, stop, &all);
    if !all() {
        let reason = "the broker is too slow, or refuses them".to_owned();
        let connected = counters.connected.load(Ordering::Relaxed);
        ended.stop();
        return Err(LoadError::NotConnected { connected, wanted: load.appliances, reason });
    }
    let from = (messages(&counters), watch.begin_counting(), Instant::now());
    wait(load.duration, stop, &|| false);
    let seconds = from.2.elapsed().as_secs_f64();
    let messages = messages(&counters) - from.0;
    ended.stop();
    runtime.block_on(async {
        for task in tasks {
            let _ = task.await;
        }
    });
    let (latencies, states, states_seen) = watch.end(LAST_WORDS);
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    Ok(Report {
        joined: members.len(),
        join_seconds,
        messages,
        seconds,
        states,
        states_seen,
        latencies,
        facts: count(&counters.facts),
        facts_stored: count(&counters.facts_stored),
        cards: count(&counters.cards),
    })
}

fn messages(counters: &Counters) -> u64 {
    [&counters.states, &counters.progress, &counters.facts].iter().map(|c| c.load(Ordering::Relaxed)).sum()
}

/// Waits so long, or until `done` or `stop`.
fn wait(how_long: Duration, stop: &StopFlag, done: &dyn Fn() -> bool) {
    let until = Instant::now() + how_long;
    while Instant::now() < until && !stop.is_stopped() && !done() {
        std::thread::sleep(LOOK_EVERY.min(how_long));
    }
}

fn broker_address(url: &str) -> Result<(String, u16), LoadError> {
    let wrong = || LoadError::Address(url.to_owned());
    let (host, port) = url.strip_prefix("mqtt://").ok_or_else(wrong)?.rsplit_once(':').ok_or_else(wrong)?;
    Ok((host.trim_matches(['[', ']']).to_owned(), port.parse().map_err(|_| wrong())?))
}
