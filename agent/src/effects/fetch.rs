//! Gets images: one thread and some connections for each that a lease needs. Here is who is being fetched and
//! what all fetches share; what happens to one image is in the files beside:
//!
//! ```text
//!   image    from an image's id to a whole image: index, signature, room, then all of these at once
//!   ranges   one connection: takes a run of chunks, asks a warehouse, puts what matches
//!   request  one HTTP request, and what an answer means
//!   local    chunks that need not travel: from older images in the cache, and from a disk brought by hand
//! ```

mod image;
mod local;
mod ranges;
mod request;

use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use cardshop_card::StopFlag;
use cardshop_protocol::ids::ImageId;
use cardshop_protocol::keys::PublicKey;
use cardshop_protocol::message::{Fault, Settings};

use super::address::check_http;
use super::cache::Cache;
use super::cache_disk::CacheDisk;
use super::clock::Clock;
use super::http::Http;
use super::session::{Session, Token};
use super::store::ImageStore;
use crate::core::Event;
use crate::core::bucket::Bucket;
use crate::core::sources::Sources;

/// A range may take this long plus its bytes at [`SLOWEST_BPS`], and nothing may come for this long.
const PATIENCE: Duration = Duration::from_secs(30);
/// Below this rate a request is given up and asked again, bytes a second.
const SLOWEST_BPS: u64 = 64 * 1024;

/// What an index must be signed with.
#[derive(Debug, Clone, Default)]
pub(crate) struct SignatureRule {
    /// Keys that may sign.
    pub(crate) keys: Vec<PublicKey>,
    /// Refuse what nobody signed.
    pub(crate) required: bool,
}

impl From<&Settings> for SignatureRule {
    fn from(settings: &Settings) -> Self {
        Self { keys: settings.index_keys.clone(), required: settings.require_signature }
    }
}

/// How fast, and how many at once.
#[derive(Debug, Clone)]
pub(crate) struct Pace {
    /// Connections for one image.
    pub(crate) connections: u32,
    /// Below this a request is given up, bytes a second.
    slowest_bps: u64,
    /// Longest time without a byte.
    pub(crate) patience: Duration,
    bucket: Arc<Mutex<Bucket>>,
    started: Instant,
}

impl Pace {
    /// So many connections for an image, and at most `max_bps` for all images together.
    pub(crate) fn new(connections: u32, max_bps: Option<u64>) -> Self {
        // A limit of ours is no reason to give up on a warehouse: it is shared by all connections of two images.
        let share = max_bps.map_or(SLOWEST_BPS, |most| most / (4 * u64::from(connections.max(1))));
        Self {
            connections: connections.max(1),
            slowest_bps: share.clamp(1, SLOWEST_BPS),
            patience: PATIENCE,
            bucket: Arc::new(Mutex::new(Bucket::new(max_bps))),
            started: Instant::now(),
        }
    }

    /// Bytes have arrived: how long to wait before reading on.
    fn take(&self, bytes: usize) -> Duration {
        self.bucket.lock().expect("no holder panics").take(self.now(), bytes as u64)
    }

    /// Time since the start, for machines that take it as an argument.
    fn now(&self) -> Duration {
        self.started.elapsed()
    }
}

/// Where the access token comes from.
#[derive(Clone)]
pub(crate) enum Tokens {
    /// From the appliance's login.
    Session(Session),
    /// It is this one for ever.
    Fixed(String),
}

impl Tokens {
    fn newest(&self) -> Option<Token> {
        match self {
            Self::Session(session) => session.token(),
            Self::Fixed(text) => Some(Token { text: text.clone(), generation: 1 }),
        }
    }
    fn refused(&self, generation: u64) {
        if let Self::Session(session) = self {
            session.refused(generation);
        }
    }
}

/// What all fetches share.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) http: Http,
    pub(crate) tokens: Tokens,
    pub(crate) cache: Cache,
    pub(crate) disk: CacheDisk,
    pub(crate) pace: Pace,
    pub(crate) clock: Clock,
    pub(crate) events: SyncSender<Event>,
    /// Bytes of images received, for the health message.
    pub(crate) received: Arc<AtomicU64>,
    /// Plain text may go to any address: for benchmarks, whose network and token are made up.
    pub(crate) any_address: bool,
}

/// One image being fetched.
struct Running {
    stop: StopFlag,
    sources: Arc<Mutex<Sources>>,
    store: Arc<OnceLock<Arc<ImageStore>>>,
    thread: std::thread::JoinHandle<()>,
}

/// All images being fetched or here.
pub(crate) struct Fetcher {
    shared: Shared,
    running: BTreeMap<ImageId, Running>,
    /// Threads told to end.
    ending: Vec<std::thread::JoinHandle<()>>,
}

impl Fetcher {
    pub(crate) fn new(shared: Shared) -> Self {
        Self { shared, running: BTreeMap::new(), ending: Vec::new() }
    }

    /// Begins to get an image; its readiness, progress or refusal comes as events. One that is being fetched is
    /// fetched on, from these warehouses.
    ///
    /// # Errors
    /// A warehouse may not be asked, or there is no thread to fetch with: no event follows.
    pub(crate) fn fetch(
        &mut self,
        image: ImageId,
        warehouses: &[String],
        rule: SignatureRule,
    ) -> Result<(), Fault> {
        for warehouse in warehouses.iter().filter(|_| !self.shared.any_address) {
            check_http(warehouse).map_err(|error| fault("bad_address", error.to_string()))?;
        }
        if let Some(running) = self.running.get(&image).filter(|running| !running.thread.is_finished()) {
            running.sources.lock().expect("no holder panics").set(warehouses);
            return Ok(());
        }
        self.abandon(image);
        let sources = Arc::new(Mutex::new(Sources::default()));
        sources.lock().expect("no holder panics").set(warehouses);
        let (stop, store) = (StopFlag::new(), Arc::new(OnceLock::new()));
        self.shared.cache.need(image);
        let fetch = image::Fetch {
            shared: self.shared.clone(),
            image,
            sources: Arc::clone(&sources),
            rule,
            stop: stop.clone(),
            troubles: Mutex::default(),
        };
        let filled = Arc::clone(&store);
        let spawned = std::thread::Builder::new().name("fetch".into()).spawn(move || fetch.run(&filled));
        let thread =
            spawned.map_err(|error| fault("no_thread", format!("no thread to fetch with: {error}")))?;
        self.running.insert(image, Running { stop, sources, store, thread });
        Ok(())
    }

    /// Nobody needs an image any more.
    pub(crate) fn abandon(&mut self, image: ImageId) {
        self.ending.retain(|thread| !thread.is_finished());
        self.shared.cache.release(image);
        if let Some(running) = self.running.remove(&image) {
            running.stop.stop();
            if let Some(store) = running.store.get() {
                store.close();
            }
            self.ending.push(running.thread);
        }
    }

    /// The store of an image whose readiness was told.
    pub(crate) fn store(&self, image: ImageId) -> Option<Arc<ImageStore>> {
        self.running.get(&image)?.store.get().cloned()
    }

    /// Asks all threads to end; one that waits for a silent warehouse ends when its request does.
    pub(crate) fn end(mut self) {
        let images: Vec<ImageId> = self.running.keys().copied().collect();
        images.into_iter().for_each(|image| self.abandon(image));
    }
}

/// Longest text of a fault, characters.
const MAX_TEXT_CHARS: usize = 500;

fn fault(code: &str, text: String) -> Fault {
    Fault { code: code.into(), text: text.chars().take(MAX_TEXT_CHARS).collect(), offset: None }
}
