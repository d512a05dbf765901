//! Fetching against a warehouse over real TCP that does everything wrong a warehouse can do.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use cardshop_card::{ChunkSource, SourceError, StopFlag};
use cardshop_protocol::index::{Extent, ExtentKind, ImageMap, Index, IndexBuilder, MIN_CHUNK_SIZE};
use cardshop_protocol::keys::{KeyUse, PublicKey};
use cardshop_protocol::message::Fault;
use ed25519_dalek::SigningKey;

use super::cache::Cache;
use super::clock::Clock;
use super::fetch::{Fetcher, Shared, SignatureRule};
use super::http;
use super::session::Session;
use super::test_warehouse::{Faults, Warehouse};
use crate::core::Event;

const CHUNK: u64 = MIN_CHUNK_SIZE as u64;
const CHUNKS: u64 = 40;
const LIMIT: Duration = Duration::from_secs(60);

/// An image of 40 chunks: 0–19 data, 20–29 must be zero, 30–39 data; and its index.
fn image() -> (Vec<u8>, Index) {
    let data = |first: u64, count: u64| Extent {
        offset: first * CHUNK,
        length: count * CHUNK,
        kind: ExtentKind::Data,
    };
    let zero = Extent { offset: 20 * CHUNK, length: 10 * CHUNK, kind: ExtentKind::Zero };
    let extents = vec![data(0, 20), zero, data(30, 10)];
    let map = ImageMap { image_size: CHUNKS * CHUNK, extents, passport: vec![] };
    let mut bytes = vec![0; (CHUNKS * CHUNK) as usize];
    blake3::Hasher::new().update(b"a fixed seed").finalize_xof().fill(&mut bytes);
    bytes[(20 * CHUNK) as usize..(30 * CHUNK) as usize].fill(0);
    let mut builder = IndexBuilder::new(map, MIN_CHUNK_SIZE).unwrap();
    builder.data(&bytes[..(20 * CHUNK) as usize]).unwrap();
    builder.data(&bytes[(30 * CHUNK) as usize..]).unwrap();
    (bytes, builder.finish().unwrap())
}

/// An agent's fetching half.
struct Bench {
    fetcher: Fetcher,
    session: Session,
    events: Receiver<Event>,
    folder: Arc<tempfile::TempDir>,
}

impl Bench {
    fn new() -> Self {
        Self::in_folder(Arc::new(tempfile::tempdir().unwrap()), "good")
    }
    fn in_folder(folder: Arc<tempfile::TempDir>, token: &str) -> Self {
        let (events, happened) = sync_channel(1024);
        let session = Session::fixed(token);
        let fetcher = Fetcher::new(Shared {
            http: http::client(),
            session: session.clone(),
            cache: Cache::open(folder.path()).unwrap(),
            clock: Clock::default(),
            events,
            received: Arc::new(AtomicU64::new(0)),
        });
        Self { fetcher, session, events: happened, folder }
    }
    fn fetch(&mut self, index: &Index, warehouses: &[&Warehouse], rule: SignatureRule) {
        let warehouses = warehouses.iter().map(|w| w.address.clone()).collect();
        self.fetcher.fetch(index.id(), warehouses, rule).unwrap();
    }
    /// Waits for the image's readiness or refusal.
    fn outcome(&self) -> Result<(), Fault> {
        loop {
            match self.events.recv_timeout(LIMIT).expect("the fetch says something") {
                Event::ImageReady { .. } => return Ok(()),
                Event::ImageRefused { fault, .. } => return Err(fault),
                _ => {}
            }
        }
    }
    fn refusal(&self) -> Fault {
        loop {
            if let Err(fault) = self.outcome() {
                return fault;
            }
        }
    }
    /// Reads every chunk, as a writer does; waits for what is not here.
    fn read_all(&self, index: &Index) -> Result<Vec<u8>, SourceError> {
        self.outcome().expect("the index is good");
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

const DATA_BYTES: u64 = 30 * CHUNK;

#[test]
fn an_image_arrives_whole_by_ranges_and_zero_chunks_never_travel() {
    let (bytes, index) = image();
    let warehouse = Warehouse::start(bytes.clone(), &index, Faults::default());
    let mut bench = Bench::new();
    bench.fetch(&index, &[&warehouse], SignatureRule::default());
    assert!(bench.read_all(&index).unwrap() == bytes);
    assert_eq!(warehouse.given_bytes(), DATA_BYTES);
    assert_eq!(warehouse.log.lock().unwrap().given.len(), 2, "neighbouring chunks travel together");
}

#[test]
fn what_is_in_the_cache_is_not_fetched_again_and_what_the_disk_lost_is() {
    let (bytes, index) = image();
    let warehouse = Warehouse::start(bytes.clone(), &index, Faults::default());
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let mut bench = Bench::in_folder(Arc::clone(&folder), "good");
    bench.fetch(&index, &[&warehouse], SignatureRule::default());
    bench.read_all(&index).unwrap();
    bench.fetcher.end();

    let path = folder.path().join(format!("{}.img", index.id()));
    let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"rot", 33 * CHUNK).unwrap();
    let mut bench = Bench::in_folder(folder, "good");
    bench.fetch(&index, &[&warehouse], SignatureRule::default());
    assert!(bench.read_all(&index).unwrap() == bytes);
    assert_eq!(warehouse.given_bytes(), DATA_BYTES + CHUNK);
}

#[test]
fn a_chunk_corrupted_once_is_fetched_again_alone() {
    let (bytes, index) = image();
    let faults = Faults { corrupt: Some((7 * CHUNK + 5, 1)), ..Faults::default() };
    let warehouse = Warehouse::start(bytes.clone(), &index, faults);
    let mut bench = Bench::new();
    bench.fetch(&index, &[&warehouse], SignatureRule::default());
    assert!(bench.read_all(&index).unwrap() == bytes);
    assert_eq!(warehouse.given_bytes(), DATA_BYTES + CHUNK);
}

#[test]
fn a_chunk_always_corrupted_refuses_the_image_and_names_the_offset() {
    let (bytes, index) = image();
    let faults = Faults { corrupt: Some((7 * CHUNK + 5, u32::MAX)), ..Faults::default() };
    let warehouse = Warehouse::start(bytes, &index, faults);
    let mut bench = Bench::new();
    bench.fetch(&index, &[&warehouse], SignatureRule::default());
    let fault = bench.refusal();
    assert_eq!((fault.code.as_str(), fault.offset), ("chunk_mismatch", Some(7 * CHUNK)));
    let times = warehouse.log.lock().unwrap().given.iter().filter(|r| r.contains(&(7 * CHUNK))).count();
    assert_eq!(times, 4, "once, and three times again");
    let store = bench.fetcher.store(index.id()).unwrap();
    let mut buffer = vec![0; CHUNK as usize];
    let error = store.read_chunk(7, &mut buffer, &StopFlag::new()).unwrap_err();
    assert!(matches!(error, SourceError::Unavailable { chunk: 7, .. }), "{error}");
}

#[test]
fn a_corrupted_chunk_is_asked_of_the_other_warehouse() {
    let (bytes, index) = image();
    let faults = Faults { corrupt: Some((7 * CHUNK, u32::MAX)), ..Faults::default() };
    let bad = Warehouse::start(bytes.clone(), &index, faults);
    let good = Warehouse::start(bytes.clone(), &index, Faults::default());
    let mut bench = Bench::new();
    bench.fetch(&index, &[&bad, &good], SignatureRule::default());
    assert!(bench.read_all(&index).unwrap() == bytes);
    assert_eq!(good.given_bytes(), CHUNK, "only the wrong chunk");
}

#[test]
fn a_cut_connection_is_resumed_where_it_was_cut() {
    let (bytes, index) = image();
    let faults = Faults { cut_at: Some(12 * CHUNK + 100), ..Faults::default() };
    let warehouse = Warehouse::start(bytes.clone(), &index, faults);
    let mut bench = Bench::new();
    bench.fetch(&index, &[&warehouse], SignatureRule::default());
    assert!(bench.read_all(&index).unwrap() == bytes);
    assert_eq!(warehouse.given_bytes(), DATA_BYTES + 100, "only the chunk that was cut is repeated");
}

#[test]
fn a_refused_token_is_reported_and_the_fetch_goes_on_with_the_next() {
    let (bytes, index) = image();
    let faults = Faults { token: Some("good".into()), ..Faults::default() };
    let warehouse = Warehouse::start(bytes.clone(), &index, faults);
    let mut bench = Bench::in_folder(Arc::new(tempfile::tempdir().unwrap()), "old");
    bench.fetch(&index, &[&warehouse], SignatureRule::default());
    while bench.session.refused_generation() == 0 {
        std::thread::yield_now();
    }
    warehouse.faults.lock().unwrap().token = Some("old".into());
    assert!(bench.read_all(&index).unwrap() == bytes);
    assert!(warehouse.log.lock().unwrap().refused > 0);
}

#[test]
fn a_warehouse_that_is_ill_is_asked_again_and_one_that_says_no_ends_in_a_refusal() {
    let (bytes, index) = image();
    let faults = Faults { status: Some((503, 2)), ..Faults::default() };
    let warehouse = Warehouse::start(bytes.clone(), &index, faults);
    let mut bench = Bench::new();
    bench.fetch(&index, &[&warehouse], SignatureRule::default());
    assert!(bench.read_all(&index).unwrap() == bytes);

    // Four threads are refused at a time: eight refusals come before the pauses grow long.
    let gone = Warehouse::start(bytes, &index, Faults { whole: true, ..Faults::default() });
    let mut bench = Bench::new();
    bench.fetch(&index, &[&gone], SignatureRule::default());
    let fault = bench.refusal();
    assert_eq!(fault.code, "image_unavailable");
    assert!(fault.text.contains("other bytes"), "{}", fault.text);
}

#[test]
fn a_warehouse_that_moves_is_followed_without_starting_over() {
    let (bytes, index) = image();
    let gone = Warehouse::start(
        bytes.clone(),
        &index,
        Faults { cut_at: Some(12 * CHUNK), then_silent: true, ..Faults::default() },
    );
    let moved = Warehouse::start(bytes.clone(), &index, Faults::default());
    let mut bench = Bench::new();
    bench.fetch(&index, &[&gone], SignatureRule::default());
    bench.outcome().unwrap();
    let store = bench.fetcher.store(index.id()).unwrap();
    while gone.log.lock().unwrap().given.is_empty() {
        std::thread::yield_now();
    }
    bench.fetch(&index, &[&moved], SignatureRule::default());
    let mut buffer = vec![0; CHUNK as usize];
    for chunk in 0..CHUNKS as usize {
        store.read_chunk(chunk, &mut buffer, &StopFlag::new()).unwrap();
        assert!(buffer[..] == bytes[chunk * CHUNK as usize..][..CHUNK as usize]);
    }
    assert!(moved.given_bytes() < DATA_BYTES, "what the first one gave is kept");
}

#[test]
fn an_index_must_be_signed_by_a_listed_key_when_there_are_any() {
    let (bytes, mut index) = image();
    let unsigned = index.clone();
    let (ours, other) = (SigningKey::from_bytes(&[1; 32]), SigningKey::from_bytes(&[2; 32]));
    index.sign(&ours);
    let rule = |key: &SigningKey, required| SignatureRule {
        keys: vec![PublicKey::new(&key.verifying_key(), KeyUse::Index)],
        required,
    };
    let cases = [
        (&index, rule(&ours, true), true),
        (&index, rule(&other, false), false),
        (&index, SignatureRule::default(), true),
        (&unsigned, rule(&ours, false), true),
        (&unsigned, rule(&ours, true), false),
        (&index, SignatureRule { keys: vec![], required: true }, false),
    ];
    for (number, (index, rule, accepted)) in cases.into_iter().enumerate() {
        let warehouse = Warehouse::start(bytes.clone(), index, Faults::default());
        let mut bench = Bench::new();
        bench.fetch(index, &[&warehouse], rule);
        let outcome = bench.outcome();
        assert_eq!(outcome.is_ok(), accepted, "case {number}: {outcome:?}");
        if let Err(fault) = outcome {
            assert_eq!(fault.code, "index_signature", "case {number}");
        }
        bench.fetcher.abandon(index.id());
        drop(bench.folder);
    }
}

#[test]
fn abandoning_an_image_lets_its_readers_go() {
    let (bytes, index) = image();
    // The first range is cut before its first byte, and nothing comes after.
    let faults = Faults { cut_at: Some(0), then_silent: true, ..Faults::default() };
    let warehouse = Warehouse::start(bytes, &index, faults);
    let mut bench = Bench::new();
    bench.fetch(&index, &[&warehouse], SignatureRule::default());
    bench.outcome().unwrap();
    let store = bench.fetcher.store(index.id()).unwrap();
    let reader =
        std::thread::spawn(move || store.read_chunk(0, &mut vec![0; CHUNK as usize], &StopFlag::new()));
    bench.fetcher.abandon(index.id());
    let result = reader.join().unwrap();
    assert!(matches!(result, Err(SourceError::Stopped { chunk: 0 })), "{result:?}");
}
