//! One image: its index from the cache, from a disk brought by hand or from a warehouse; who signed it; room in
//! the cache; then its connections, and what is told of them, until nobody needs the image any more.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use cardshop_card::StopFlag;
use cardshop_protocol::ids::ImageId;
use cardshop_protocol::index::{Index, MAX_INDEX_SIZE};
use cardshop_protocol::keys::KeyUse;
use cardshop_protocol::message::Fault;

use super::request::{FetchError, Wanted, get};
use super::{Shared, SignatureRule, fault};
use crate::core::sources::{SourceId, Sources};
use crate::core::{Event, Trouble};
use crate::effects::http::jitter;
use crate::effects::state::replace_file;
use crate::effects::store::ImageStore;

/// Progress is told this often.
const TELL_EVERY: Duration = Duration::from_secs(1);
/// What arrived is synced, and the bitmap saved, this often: what a power cut may cost.
const SAVE_EVERY: Duration = Duration::from_secs(5);
/// Whoever waits for a login or a disk looks again after this.
pub(super) const LOOK_AGAIN: Duration = Duration::from_millis(500);
/// Whoever waits for room looks again after this.
const ROOM_AGAIN: Duration = Duration::from_secs(2);
/// Warehouses that are away this long are told of: shorter outages heal by themselves.
const AWAY_AFTER: Duration = Duration::from_secs(30);
/// A wait asks this often whether to end.
const ASK_STOP_EVERY: Duration = Duration::from_millis(50);

/// One image's fetch.
pub(super) struct Fetch {
    pub(super) shared: Shared,
    pub(super) image: ImageId,
    pub(super) sources: Arc<Mutex<Sources>>,
    pub(super) rule: SignatureRule,
    pub(super) stop: StopFlag,
    /// Troubles that were told and not taken back.
    pub(super) troubles: Mutex<BTreeSet<Trouble>>,
}

impl Fetch {
    pub(super) fn run(&self, filled: &OnceLock<Arc<ImageStore>>) {
        let store = match self.open_store() {
            Ok(store) => Arc::new(store),
            Err(FetchError::Refused(fault)) => {
                self.shared.cache.remove(self.image);
                self.tell(Event::ImageRefused { image: self.image, fault });
                return;
            }
            Err(error) => return tracing::debug!(%error, image = %self.image, "fetch ended"),
        };
        let (_, total) = store.bytes();
        // Before the first connection looks for something to do: what is here in another file need not travel.
        let copies = self.claim_local(&store);
        let _ = filled.set(Arc::clone(&store));
        self.tell(Event::ImageReady { image: self.image, total });
        let fetched = store.bytes().0;
        self.tell(Event::ImageProgress { image: self.image, fetched });
        std::thread::scope(|scope| {
            scope.spawn(|| self.copy_local(&store, copies));
            for _ in 0..self.shared.pace.connections {
                scope.spawn(|| self.fetch_ranges(&store));
            }
            self.watch(&store, fetched);
        });
    }

    pub(super) fn tell(&self, event: Event) {
        // Fails only when the agent has ended.
        let _ = self.shared.events.send(event);
    }

    /// Tells of a trouble, or that it is over; what was told is not repeated.
    pub(super) fn trouble(&self, trouble: Trouble, text: Option<String>) {
        let mut told = self.troubles.lock().expect("no holder panics");
        let changed = if text.is_some() { told.insert(trouble) } else { told.remove(&trouble) };
        if changed {
            match &text {
                Some(text) => tracing::error!(?trouble, text, image = %self.image, "trouble with an image"),
                None => tracing::info!(?trouble, image = %self.image, "a trouble is over"),
            }
            self.tell(Event::ImageTrouble { image: self.image, trouble, text });
        }
    }

    /// Tells progress and saves what is here until the store is closed or refused.
    fn watch(&self, store: &ImageStore, mut told: u64) {
        let (mut saved, mut away_since) = (Instant::now(), None);
        while store.is_open() {
            store.wait_for_end(TELL_EVERY);
            let (fetched, _) = store.bytes();
            if fetched != told {
                told = fetched;
                self.tell(Event::ImageProgress { image: self.image, fetched });
            }
            if saved.elapsed() >= SAVE_EVERY || store.is_complete() || !store.is_open() {
                saved = Instant::now();
                if let Err(error) = store.save() {
                    tracing::warn!(%error, "what is here is not on record: a power cut costs it");
                }
            }
            if store.is_complete() {
                self.trouble(Trouble::WarehousesAway, None);
            } else {
                self.tell_away(&mut away_since);
            }
        }
    }

    /// Tells when no warehouse has given anything for a while.
    fn tell_away(&self, since: &mut Option<Instant>) {
        let away = self.sources.lock().expect("no holder panics").all_away();
        *since = away.then(|| since.unwrap_or_else(Instant::now));
        let long = since.is_some_and(|since| since.elapsed() >= AWAY_AFTER);
        if !away || long {
            let text = long.then(|| "no warehouse of the image is reached".to_owned());
            self.trouble(Trouble::WarehousesAway, text);
        }
    }

    fn open_store(&self) -> Result<ImageStore, FetchError> {
        let index = self.index()?;
        self.check_signature(&index)?;
        loop {
            let opened = self.reserve(&index).and_then(|()| {
                replace_file(&self.shared.cache.path(self.image, "cardindex"), &index.encode())?;
                Ok(ImageStore::open(&self.shared.cache, index.clone())?)
            });
            match opened {
                Err(FetchError::Disk(error)) => self.make_room_again(&index, &error)?,
                other => return other,
            }
        }
    }

    /// Room for the whole image.
    fn reserve(&self, index: &Index) -> Result<(), FetchError> {
        match self.shared.cache.make_room(self.image, travelling_bytes(index)) {
            Ok(()) => {
                self.trouble(Trouble::CacheFull, None);
                Ok(())
            }
            Err(missing) => Err(FetchError::Disk(std::io::Error::new(
                std::io::ErrorKind::StorageFull,
                format!(
                    "{} MB more are needed for the image beside those that open orders need",
                    missing / 1_000_000 + 1
                ),
            ))),
        }
    }

    /// The disk did not take something: says so, waits a moment and makes room.
    pub(super) fn make_room_again(&self, index: &Index, error: &std::io::Error) -> Result<(), FetchError> {
        use std::io::ErrorKind::{QuotaExceeded, StorageFull};
        let full = matches!(error.kind(), StorageFull | QuotaExceeded);
        let trouble = if full { Trouble::CacheFull } else { Trouble::CacheFailing };
        self.trouble(trouble, Some(error.to_string()));
        self.wait(ROOM_AGAIN)?;
        if !self.shared.cache.is_tight()
            && self.shared.cache.make_room(self.image, travelling_bytes(index)).is_ok()
        {
            self.trouble(Trouble::CacheFull, None);
            self.trouble(Trouble::CacheFailing, None);
        }
        Ok(())
    }

    /// The index from the first place that gives it.
    fn index(&self) -> Result<Index, FetchError> {
        let cached = std::fs::read(self.shared.cache.path(self.image, "cardindex")).ok();
        let cached = cached.and_then(|bytes| Index::decode(&bytes).ok()).filter(|i| i.id() == self.image);
        if let Some(index) = cached {
            return Ok(index);
        }
        let mut away_since = None;
        loop {
            // Asked in every round: the disk may be the way out when nobody else is reached.
            if let Some(index) = self.shared.disk.index(self.image) {
                return Ok(index);
            }
            let asked = self.choose(&[]).and_then(|(id, warehouse)| {
                let now = self.shared.pace.now();
                let result = self.ask_index(&warehouse);
                if let Err(error) = &result {
                    tracing::warn!(warehouse, %error, "no index yet");
                }
                self.note(id, now, &result);
                result
            });
            match asked {
                Ok(index) => return Ok(index),
                Err(FetchError::NotLoggedIn) => self.wait(LOOK_AGAIN)?,
                Err(FetchError::Resting(time)) => self.wait(time.min(LOOK_AGAIN))?,
                Err(FetchError::Again { .. } | FetchError::Denied(_)) => {}
                Err(error) => return Err(error),
            }
            self.tell_away(&mut away_since);
        }
    }

    fn ask_index(&self, warehouse: &str) -> Result<Index, FetchError> {
        let wanted = Wanted { image: self.image, range: None, size: MAX_INDEX_SIZE };
        let response = get(&self.shared, &format!("{warehouse}/images/{}/index", self.image), &wanted)?;
        let body = response.into_body().into_with_config().limit(MAX_INDEX_SIZE).read_to_vec();
        let bytes = body.map_err(FetchError::again)?;
        let index = Index::decode(&bytes).map_err(|error| FetchError::Denied(error.to_string()))?;
        if index.id() != self.image {
            return Err(FetchError::Denied(format!("it has the index of image {}", index.id())));
        }
        Ok(index)
    }

    /// Notes how a warehouse did.
    pub(super) fn note<T>(&self, id: SourceId, asked: Duration, result: &Result<T, FetchError>) {
        let now = self.shared.pace.now();
        let mut sources = self.sources.lock().expect("no holder panics");
        match result {
            Ok(_) => sources.worked(id),
            Err(FetchError::Again { rest, .. }) => sources.failed(id, asked, now, *rest, jitter()),
            Err(FetchError::Denied(why)) => sources.denied(id, asked, now, why, jitter()),
            Err(_) => {}
        }
    }

    fn check_signature(&self, index: &Index) -> Result<(), FetchError> {
        let refuse = |text: String| Err(FetchError::Refused(fault("index_signature", text)));
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

    /// The event goes out before the store wakes its writers: their ends are then known not to be the cards'.
    pub(super) fn refuse(&self, store: &ImageStore, fault: Fault) {
        if store.is_open() {
            self.tell(Event::ImageRefused { image: self.image, fault: fault.clone() });
            store.refuse(&fault.text);
            self.shared.cache.remove(self.image);
        }
    }

    /// Waits, or until stopped.
    pub(super) fn wait(&self, time: Duration) -> Result<(), FetchError> {
        let until = Instant::now() + time;
        loop {
            if self.stop.is_stopped() {
                return Err(FetchError::Stopped);
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            std::thread::sleep(ASK_STOP_EVERY.min(left));
        }
    }
}

/// Bytes an image takes in the cache.
fn travelling_bytes(index: &Index) -> u64 {
    index.travelling().count() as u64 * u64::from(index.chunk_size())
}
