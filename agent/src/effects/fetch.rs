//! Gets images: the index first, then what is missing by HTTP range, several requests at once, each with its
//! own deadline. Where to ask, when to ask again and when to give up is decided here by few rules:
//!
//! ```text
//!   206, chunk matches        in the cache                     401       another access token, then again
//!   chunk does not match      again, next warehouse, 3 times,  403…416   a "no": next warehouse; after 8 in a
//!                             then the image is refused                  row the image is refused
//!   cut, slow, 5xx, no route  what arrived counts, the rest again after a pause of up to 30 s, for ever
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;
use std::ops::Range;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use cardshop_card::StopFlag;
use cardshop_protocol::ids::ImageId;
use cardshop_protocol::index::{Index, MAX_INDEX_SIZE};
use cardshop_protocol::keys::{KeyUse, PublicKey};
use cardshop_protocol::message::{Fault, Settings};
use ureq::http::StatusCode;

use super::address::check_http;
use super::cache::Cache;
use super::clock::Clock;
use super::http::jitter;
use super::session::Session;
use super::state::replace_file;
use super::store::{ImageStore, Put};
use crate::core::Event;
use crate::core::backoff::Backoff;

/// Requests at the same time for one image: four saturate a gigabit, more only share it (measured: one
/// connection gives 700 MB/s over loopback, four 1,095).
const THREADS: usize = 4;
/// A range may take this long plus its bytes at [`SLOWEST_BPS`].
const RANGE_PATIENCE: Duration = Duration::from_secs(30);
/// Below this rate a request is given up and asked again, bytes a second.
const SLOWEST_BPS: u64 = 64 * 1024;
/// A warehouse may send us on to a store of its own; the token stays behind, and plain text is no way on.
const MAX_REDIRECTS: u32 = 2;
/// Definite refusals in a row after which an image cannot be had.
const MAX_DENIALS: u32 = 8;
/// Progress is told, and the bitmap saved, this often.
const TELL_EVERY: Duration = Duration::from_secs(1);

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

/// What all fetches share.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) http: ureq::Agent,
    pub(crate) session: Session,
    pub(crate) cache: Cache,
    pub(crate) clock: Clock,
    pub(crate) events: SyncSender<Event>,
    /// Bytes received, for the health message.
    pub(crate) received: Arc<AtomicU64>,
}

/// One image being fetched.
struct Running {
    stop: StopFlag,
    warehouses: Arc<Mutex<Vec<String>>>,
    store: Arc<std::sync::OnceLock<Arc<ImageStore>>>,
    thread: std::thread::JoinHandle<()>,
}

/// All images being fetched or here.
pub(crate) struct Fetcher {
    shared: Shared,
    running: BTreeMap<ImageId, Running>,
    /// Its images, for threads that make room: none of these is deleted.
    keep: Arc<Mutex<BTreeSet<ImageId>>>,
    /// Threads told to end.
    ending: Vec<std::thread::JoinHandle<()>>,
}

impl Fetcher {
    pub(crate) fn new(shared: Shared) -> Self {
        Self { shared, running: BTreeMap::new(), keep: Arc::default(), ending: Vec::new() }
    }

    /// Begins to get an image; its readiness, progress or refusal comes as events. One that is being fetched is
    /// fetched on, from these warehouses.
    ///
    /// # Errors
    /// There is no thread to fetch with: no event follows.
    pub(crate) fn fetch(
        &mut self,
        image: ImageId,
        warehouses: Vec<String>,
        rule: SignatureRule,
    ) -> Result<(), Fault> {
        if let Some(running) = self.running.get(&image).filter(|running| !running.thread.is_finished()) {
            *running.warehouses.lock().expect("no holder panics") = warehouses;
            return Ok(());
        }
        self.abandon(image);
        let warehouses = Arc::new(Mutex::new(warehouses));
        let (stop, store) = (StopFlag::new(), Arc::new(std::sync::OnceLock::new()));
        self.keep.lock().expect("no holder panics").insert(image);
        let fetch = Fetch {
            shared: self.shared.clone(),
            image,
            warehouses: Arc::clone(&warehouses),
            rule,
            stop: stop.clone(),
            denials: AtomicU32::new(0),
            keep: Arc::clone(&self.keep),
        };
        let filled = Arc::clone(&store);
        let spawned = std::thread::Builder::new().name("fetch".into()).spawn(move || fetch.run(&filled));
        let thread =
            spawned.map_err(|error| refusal("no_thread", format!("no thread to fetch with: {error}")))?;
        self.running.insert(image, Running { stop, warehouses, store, thread });
        Ok(())
    }

    /// Nobody needs an image any more.
    pub(crate) fn abandon(&mut self, image: ImageId) {
        self.ending.retain(|thread| !thread.is_finished());
        self.keep.lock().expect("no holder panics").remove(&image);
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

fn refusal(code: &str, text: String) -> Fault {
    Fault { code: code.into(), text: text.chars().take(500).collect(), offset: None }
}

/// Why a request gave less than it should.
#[derive(Debug, thiserror::Error)]
enum FetchError {
    /// Worth asking again after a pause.
    #[error("{0}")]
    Again(String),
    /// A definite no.
    #[error("the warehouse refuses: {0}")]
    Denied(String),
    /// The image cannot be had.
    #[error("{}", .0.text)]
    Refused(Fault),
    /// The agent or the image's lease has ended.
    #[error("stopped")]
    Stopped,
}

/// One image's fetch.
struct Fetch {
    shared: Shared,
    image: ImageId,
    warehouses: Arc<Mutex<Vec<String>>>,
    rule: SignatureRule,
    stop: StopFlag,
    denials: AtomicU32,
    keep: Arc<Mutex<BTreeSet<ImageId>>>,
}

impl Fetch {
    fn run(&self, filled: &std::sync::OnceLock<Arc<ImageStore>>) {
        let store = match self.open_store() {
            Ok(store) => Arc::new(store),
            Err(FetchError::Refused(fault)) => {
                self.shared.cache.remove(self.image);
                self.tell(Event::ImageRefused { image: self.image, fault });
                return;
            }
            Err(error) => return tracing::debug!(%error, image = %self.image, "fetch ended"),
        };
        let (fetched, total) = store.bytes();
        let _ = filled.set(Arc::clone(&store));
        self.tell(Event::ImageReady { image: self.image, total });
        self.tell(Event::ImageProgress { image: self.image, fetched });
        std::thread::scope(|scope| {
            for number in 0..THREADS {
                let store = &store;
                scope.spawn(move || self.fetch_ranges(store, number));
            }
            self.watch(&store, fetched);
        });
    }

    fn tell(&self, event: Event) {
        // Fails only when the agent has ended.
        let _ = self.shared.events.send(event);
    }

    /// Tells progress and saves the bitmap until the store is closed or refused.
    fn watch(&self, store: &ImageStore, mut told: u64) {
        while store.is_open() {
            store.wait_for_end(TELL_EVERY);
            let (fetched, _) = store.bytes();
            if fetched != told {
                told = fetched;
                self.tell(Event::ImageProgress { image: self.image, fetched });
            }
            if let Err(error) = store.save() {
                tracing::warn!(%error, "the cache's bitmap is not saved");
            }
        }
    }

    fn open_store(&self) -> Result<ImageStore, FetchError> {
        self.warehouse(0)?;
        let index = self.index()?;
        self.check_signature(&index)?;
        let path = self.shared.cache.path(self.image, "cardindex");
        let mut pause = Backoff::new(Duration::from_secs(1), Duration::from_secs(30));
        loop {
            let needed = index.data_bytes().saturating_sub(self.shared.cache.size_of(self.image));
            let opened = if self
                .shared
                .cache
                .make_room(needed, &self.keep.lock().expect("no holder panics").clone())
            {
                let saved = replace_file(&path, &index.encode());
                saved.and_then(|()| ImageStore::open(&self.shared.cache, index.clone()))
            } else {
                Err(std::io::Error::other(format!("{needed} more bytes are needed")))
            };
            match opened {
                Ok(store) => return Ok(store),
                Err(error) => tracing::error!(%error, "no room in the cache: trying again"),
            }
            self.pause(&mut pause)?;
        }
    }

    /// The warehouse to ask when `turn` requests before went wrong. Refused unless all of them may be asked.
    fn warehouse(&self, turn: usize) -> Result<String, FetchError> {
        let warehouses = self.warehouses.lock().expect("no holder panics");
        for warehouse in warehouses.iter() {
            check_http(warehouse).map_err(|e| FetchError::Refused(refusal("bad_address", e.to_string())))?;
        }
        let chosen = warehouses.get(turn % warehouses.len().max(1)).cloned();
        chosen.ok_or_else(|| {
            FetchError::Refused(refusal("no_warehouse", "the lease names no warehouse".into()))
        })
    }

    /// The index from the cache, or from the first warehouse that gives it.
    fn index(&self) -> Result<Index, FetchError> {
        let cached = std::fs::read(self.shared.cache.path(self.image, "cardindex")).ok();
        if let Some(index) =
            cached.and_then(|bytes| Index::decode(&bytes).ok()).filter(|i| i.id() == self.image)
        {
            return Ok(index);
        }
        let mut pause = Backoff::new(Duration::from_millis(500), Duration::from_secs(30));
        loop {
            let warehouse = self.warehouse(pause.failures() as usize)?;
            let address = format!("{warehouse}/images/{}/index", self.image);
            match self.get(&address, None, MAX_INDEX_SIZE).and_then(|r| self.read_index(r)) {
                Ok(index) => return Ok(index),
                Err(FetchError::Denied(why)) => self.denied(&why)?,
                Err(FetchError::Again(why)) => tracing::warn!(warehouse, why, "no index yet"),
                Err(error) => return Err(error),
            }
            self.pause(&mut pause)?;
        }
    }

    fn read_index(&self, response: ureq::http::Response<ureq::Body>) -> Result<Index, FetchError> {
        let body = response.into_body().into_with_config().limit(MAX_INDEX_SIZE).read_to_vec();
        let bytes = body.map_err(|error| FetchError::Again(error.to_string()))?;
        let index = Index::decode(&bytes).map_err(|error| FetchError::Denied(error.to_string()))?;
        if index.id() != self.image {
            return Err(FetchError::Denied(format!("it has the index of image {}", index.id())));
        }
        Ok(index)
    }

    fn check_signature(&self, index: &Index) -> Result<(), FetchError> {
        let refuse = |text: String| Err(FetchError::Refused(refusal("index_signature", text)));
        let Some(signature) = index.signature() else {
            return if self.rule.required {
                refuse("nobody signed the image's index".into())
            } else {
                Ok(())
            };
        };
        if self.rule.keys.is_empty() && !self.rule.required {
            return Ok(());
        }
        let now = self.shared.clock.now();
        let key = self.rule.keys.iter().filter(|k| k.kid == signature.key);
        let Some(key) = key.filter_map(|k| k.usable(KeyUse::Index, now)).next() else {
            return refuse(format!(
                "the image's index is signed by key {}, which is not listed",
                signature.key
            ));
        };
        index.verify_signature(&key).or_else(|error| refuse(error.to_string()))
    }

    /// One thread: takes runs and fetches them until the store ends.
    fn fetch_ranges(&self, store: &ImageStore, number: usize) {
        let mut pause = Backoff::new(Duration::from_millis(500), Duration::from_secs(30));
        let mut buffer = vec![0; store.index().chunk_size() as usize];
        while let Some((run, wrong)) = store.take() {
            let turn = pause.failures() as usize + wrong as usize;
            let mut rest = run.clone();
            let result = self.fetch_run(store, &mut rest, turn, &mut buffer);
            store.give_back(rest);
            match result {
                Ok(()) => pause.reset(),
                Err(FetchError::Refused(fault)) => self.refuse(store, fault),
                Err(FetchError::Stopped) => return,
                Err(error) => {
                    tracing::warn!(warehouse = ?self.warehouse(turn).ok(), number, chunks = ?run, %error, "a range did not arrive");
                    if let FetchError::Denied(why) = &error
                        && let Err(FetchError::Refused(fault)) = self.denied(why)
                    {
                        self.refuse(store, fault);
                    }
                    if self.pause(&mut pause).is_err() {
                        return;
                    }
                }
            }
        }
    }

    /// The event goes out before the store wakes its writers: their ends are then known not to be the cards'.
    fn refuse(&self, store: &ImageStore, fault: Fault) {
        if store.is_open() {
            self.tell(Event::ImageRefused { image: self.image, fault: fault.clone() });
            store.refuse(&fault.text);
            self.shared.cache.remove(self.image);
        }
    }

    /// Fetches a run; what is left in `run` at the end did not arrive. A chunk that came wrong is no longer in
    /// it: another thread may be fetching it already.
    fn fetch_run(
        &self,
        store: &ImageStore,
        run: &mut Range<usize>,
        turn: usize,
        buffer: &mut [u8],
    ) -> Result<(), FetchError> {
        let warehouse = self.warehouse(turn)?;
        let index = store.index();
        let bytes = index.chunk_range(run.start).start..index.chunk_range(run.end - 1).end;
        let address = format!("{warehouse}/images/{}", self.image);
        let response = self.get(&address, Some(&bytes), bytes.end - bytes.start)?;
        let mut reader = response.into_body().into_reader();
        for chunk in run.clone() {
            if self.stop.is_stopped() {
                return Err(FetchError::Stopped);
            }
            let range = index.chunk_range(chunk);
            let buffer = &mut buffer[..(range.end - range.start) as usize];
            reader.read_exact(buffer).map_err(|error| FetchError::Again(error.to_string()))?;
            self.shared.received.fetch_add(buffer.len() as u64, Ordering::Relaxed);
            let put = store.put(chunk, buffer).map_err(|error| FetchError::Again(error.to_string()))?;
            run.start = chunk + 1;
            match put {
                Put::Good => self.denials.store(0, Ordering::Relaxed),
                Put::Wrong => tracing::warn!(warehouse, chunk, "a chunk does not match: it is fetched again"),
                Put::WrongTooOften => {
                    let text =
                        format!("chunk {chunk} (offset {}) never matches the image's index", range.start);
                    let fault = Fault { offset: Some(range.start), ..refusal("chunk_mismatch", text) };
                    return Err(FetchError::Refused(fault));
                }
            }
        }
        Ok(())
    }

    /// One request: a range of the image, or the whole of something else.
    fn get(
        &self,
        address: &str,
        range: Option<&Range<u64>>,
        size: u64,
    ) -> Result<ureq::http::Response<ureq::Body>, FetchError> {
        let token = self.token()?;
        let mut request =
            self.shared.http.get(address).header("Authorization", format!("Bearer {}", token.text));
        if let Some(range) = range {
            request = request
                .header("Range", format!("bytes={}-{}", range.start, range.end - 1))
                .header("If-Range", format!("\"{}\"", self.image));
        }
        let deadline = RANGE_PATIENCE + Duration::from_secs(size.min(MAX_INDEX_SIZE) / SLOWEST_BPS);
        let tls = address.starts_with("https:");
        let request = request.config().max_redirects(MAX_REDIRECTS).https_only(tls);
        let request = request.timeout_global(Some(deadline)).timeout_per_read(Some(RANGE_PATIENCE)).build();
        let response = request.call().map_err(|error| FetchError::Again(error.to_string()))?;
        match (response.status(), range) {
            (StatusCode::PARTIAL_CONTENT, Some(range)) if starts_at(&response, range) => Ok(response),
            (StatusCode::OK, None) => Ok(response),
            (StatusCode::UNAUTHORIZED, _) => {
                self.shared.session.refused(token.generation);
                Err(FetchError::Again("the access token was refused".into()))
            }
            (StatusCode::OK | StatusCode::PARTIAL_CONTENT, _) => {
                Err(FetchError::Denied("it has other bytes under this address".into()))
            }
            (status, _) if status.is_client_error() && status != StatusCode::TOO_MANY_REQUESTS => {
                Err(FetchError::Denied(format!("status {status}")))
            }
            (status, _) => Err(FetchError::Again(format!("status {status}"))),
        }
    }

    fn token(&self) -> Result<super::session::Token, FetchError> {
        self.shared.session.token().ok_or_else(|| FetchError::Again("not logged in".into()))
    }

    /// Counts a definite no.
    fn denied(&self, why: &str) -> Result<(), FetchError> {
        let denials = self.denials.fetch_add(1, Ordering::Relaxed) + 1;
        tracing::warn!(image = %self.image, why, denials, "a warehouse refuses");
        if denials < MAX_DENIALS {
            return Ok(());
        }
        Err(FetchError::Refused(refusal("image_unavailable", format!("no warehouse gives the image: {why}"))))
    }

    /// Waits as long as the back-off says, or until stopped.
    fn pause(&self, backoff: &mut Backoff) -> Result<(), FetchError> {
        let until = Instant::now() + backoff.failed(jitter());
        while Instant::now() < until {
            if self.stop.is_stopped() {
                return Err(FetchError::Stopped);
            }
            std::thread::sleep(
                Duration::from_millis(50).min(until.saturating_duration_since(Instant::now())),
            );
        }
        if self.stop.is_stopped() { Err(FetchError::Stopped) } else { Ok(()) }
    }
}

/// True when a partial answer begins where it was asked to.
fn starts_at(response: &ureq::http::Response<ureq::Body>, range: &Range<u64>) -> bool {
    let header = response.headers().get("Content-Range").and_then(|value| value.to_str().ok());
    header.is_some_and(|text| text.starts_with(&format!("bytes {}-{}/", range.start, range.end - 1)))
}
