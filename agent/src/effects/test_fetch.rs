//! An image and an appliance's fetching half, for tests.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use cardshop_card::{ChunkSource, SourceError, StopFlag};
use cardshop_protocol::index::{Extent, ExtentKind, ImageMap, Index, IndexBuilder, MIN_CHUNK_SIZE};
use cardshop_protocol::message::Fault;

use super::cache::Cache;
use super::cache_disk::{self, CacheDisk};
use super::clock::Clock;
use super::fetch::{Fetcher, Pace, Shared, SignatureRule, Tokens};
use super::http;
use super::session::Session;
use super::test_warehouse::Warehouse;
use crate::config::CacheConfig;
use crate::core::{Event, Trouble};

pub(crate) const CHUNK: u64 = MIN_CHUNK_SIZE as u64;
pub(crate) const CHUNKS: u64 = 40;
/// Bytes of [`image`] that travel.
pub(crate) const DATA_BYTES: u64 = 30 * CHUNK;
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// An image of 40 chunks: 0–19 data, 20–29 must be zero, 30–39 data; and its index.
pub(crate) fn image() -> (Vec<u8>, Index) {
    let mut bytes = vec![0; (CHUNKS * CHUNK) as usize];
    blake3::Hasher::new().update(b"a fixed seed").finalize_xof().fill(&mut bytes);
    bytes[(20 * CHUNK) as usize..(30 * CHUNK) as usize].fill(0);
    let index = index_of(&bytes);
    (bytes, index)
}

/// The next build of an image: these chunks are others.
pub(crate) fn changed(bytes: &[u8], chunks: &[u64]) -> (Vec<u8>, Index) {
    let mut bytes = bytes.to_vec();
    for chunk in chunks {
        bytes[(chunk * CHUNK + 17) as usize] ^= 0x55;
    }
    let index = index_of(&bytes);
    (bytes, index)
}

fn index_of(bytes: &[u8]) -> Index {
    let data = |first: u64, count: u64| Extent {
        offset: first * CHUNK,
        length: count * CHUNK,
        kind: ExtentKind::Data,
    };
    let zero = Extent { offset: 20 * CHUNK, length: 10 * CHUNK, kind: ExtentKind::Zero };
    let extents = vec![data(0, 20), zero, data(30, 10)];
    let map = ImageMap { image_size: CHUNKS * CHUNK, extents, passport: vec![] };
    let mut builder = IndexBuilder::new(map, MIN_CHUNK_SIZE).unwrap();
    builder.data(&bytes[..(20 * CHUNK) as usize]).unwrap();
    builder.data(&bytes[(30 * CHUNK) as usize..]).unwrap();
    builder.finish().unwrap()
}

/// What a test wants otherwise than usual.
pub(crate) struct Setup {
    pub(crate) token: &'static str,
    pub(crate) cache: CacheConfig,
    pub(crate) connections: u32,
    pub(crate) max_bps: Option<u64>,
    pub(crate) patience: Duration,
}

impl Default for Setup {
    fn default() -> Self {
        let cache = CacheConfig { keep_free_bytes: 0, ..CacheConfig::default() };
        Self { token: "good", cache, connections: 4, max_bps: None, patience: LIMIT }
    }
}

/// An agent's fetching half.
pub(crate) struct Bench {
    pub(crate) fetcher: Fetcher,
    pub(crate) session: Session,
    pub(crate) events: Receiver<Event>,
    pub(crate) folder: Arc<tempfile::TempDir>,
    disk_stop: StopFlag,
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.disk_stop.stop();
    }
}

impl Bench {
    pub(crate) fn new() -> Self {
        Self::with(Setup::default())
    }
    pub(crate) fn with(setup: Setup) -> Self {
        Self::in_folder(Arc::new(tempfile::tempdir().unwrap()), setup)
    }
    pub(crate) fn in_folder(folder: Arc<tempfile::TempDir>, setup: Setup) -> Self {
        let (events, happened) = sync_channel(1024);
        let session = Session::fixed(setup.token);
        let (disk, disk_stop) = (CacheDisk::default(), StopFlag::new());
        if setup.cache.disk.is_some() {
            let (place, wanted) = (folder.path().join("mounted"), setup.cache.disk.clone());
            let wanted = wanted.filter(|folder| !folder.as_os_str().is_empty());
            cache_disk::start(disk.clone(), wanted, place, disk_stop.clone()).unwrap();
        }
        let mut pace = Pace::new(setup.connections, setup.max_bps);
        pace.patience = setup.patience;
        let fetcher = Fetcher::new(Shared {
            http: http::Http::new(http::client()),
            tokens: Tokens::Session(session.clone()),
            cache: Cache::open(folder.path(), setup.cache).unwrap(),
            disk,
            pace,
            clock: Clock::default(),
            events,
            received: Arc::new(AtomicU64::new(0)),
            any_address: false,
        });
        Self { fetcher, session, events: happened, folder, disk_stop }
    }
    pub(crate) fn fetch(&mut self, index: &Index, warehouses: &[&Warehouse], rule: SignatureRule) {
        let warehouses: Vec<String> = warehouses.iter().map(|w| w.address.clone()).collect();
        self.fetcher.fetch(index.id(), &warehouses, rule).unwrap();
    }
    /// Waits for the image's readiness or refusal.
    pub(crate) fn outcome(&self) -> Result<(), Fault> {
        loop {
            match self.events.recv_timeout(LIMIT).expect("the fetch says something") {
                Event::ImageReady { .. } => return Ok(()),
                Event::ImageRefused { fault, .. } => return Err(fault),
                _ => {}
            }
        }
    }
    pub(crate) fn refusal(&self) -> Fault {
        loop {
            if let Err(fault) = self.outcome() {
                return fault;
            }
        }
    }
    /// Waits until a trouble is told (true) or over (false).
    pub(crate) fn trouble(&self, wanted: Trouble, there: bool) -> String {
        loop {
            if let Event::ImageTrouble { trouble, text, .. } =
                self.events.recv_timeout(LIMIT).expect("the fetch says something")
                && trouble == wanted
                && text.is_some() == there
            {
                return text.unwrap_or_default();
            }
        }
    }
    /// Reads every chunk, as a writer does; waits for what is not here.
    pub(crate) fn read_all(&self, index: &Index) -> Result<Vec<u8>, SourceError> {
        self.outcome().expect("the index is good");
        self.read_chunks(index)
    }
    /// The same once readiness was told.
    pub(crate) fn read_chunks(&self, index: &Index) -> Result<Vec<u8>, SourceError> {
        let store = self.fetcher.store(index.id()).expect("readiness was told");
        let mut bytes = Vec::new();
        for chunk in 0..index.chunks().len() {
            let mut buffer = vec![0xee; CHUNK as usize];
            store.read_chunk(chunk, &mut buffer, &StopFlag::new())?;
            bytes.extend(buffer);
        }
        store.save().unwrap();
        Ok(bytes)
    }
}
