//! Several cards on one source: what is read once, what is spilled, and who fails when.

use std::io::Read;
use std::sync::atomic::{AtomicUsize, Ordering};

use cardshop_protocol::index::IndexBuilder;
use proptest::prelude::*;

use super::*;

const CHUNK: u32 = 64 * 1024;

fn noise(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new_derive_key("cardshop-card shared tests").finalize_xof().fill(&mut bytes);
    bytes
}

/// An image of `chunks` chunks and a bit, the third of them zeros.
fn image(chunks: usize) -> (Arc<Vec<u8>>, Arc<Index>) {
    let mut bytes = noise(chunks * CHUNK as usize + 100);
    bytes[2 * CHUNK as usize..3 * CHUNK as usize].fill(0);
    let mut builder = IndexBuilder::of_stream(CHUNK).unwrap();
    builder.data(&bytes).unwrap();
    (Arc::new(bytes), Arc::new(builder.finish_here().unwrap()))
}

/// Counts how often each byte is read.
struct Once {
    bytes: Arc<Vec<u8>>,
    at: usize,
    given: Arc<AtomicUsize>,
    cut_at: usize,
}

impl Read for Once {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let end = self.bytes.len().min(self.cut_at);
        let count = buffer.len().min(end - self.at).min(5000);
        buffer[..count].copy_from_slice(&self.bytes[self.at..self.at + count]);
        self.at += count;
        self.given.fetch_add(count, Ordering::Relaxed);
        Ok(count)
    }
}

impl ImageStream for Once {}

impl ChunkSource for Once {
    fn read_chunk(&self, chunk: usize, buffer: &mut [u8], _: &StopFlag) -> Result<(), SourceError> {
        self.given.fetch_add(1, Ordering::Relaxed);
        let start = chunk * CHUNK as usize;
        buffer.copy_from_slice(&self.bytes[start..start + buffer.len()]);
        Ok(())
    }
}

struct Fixture {
    bytes: Arc<Vec<u8>>,
    index: Arc<Index>,
    given: Arc<AtomicUsize>,
    spills: Arc<AtomicUsize>,
}

impl Fixture {
    fn new(chunks: usize) -> Self {
        let (bytes, index) = image(chunks);
        Self { bytes, index, given: Arc::default(), spills: Arc::default() }
    }

    fn once(&self, cut_at: usize) -> Once {
        Once { bytes: self.bytes.clone(), at: 0, given: self.given.clone(), cut_at }
    }

    fn stream(&self, cut_at: usize) -> Arc<SharedSource> {
        let spills = self.spills.clone();
        let spill: MakeSpill = Box::new(move || {
            spills.fetch_add(1, Ordering::Relaxed);
            tempfile::tempfile()
        });
        SharedSource::of_stream(self.index.clone(), Box::new(self.once(cut_at)), spill)
    }

    fn take(&self, card: &CardSource, chunk: usize) -> Result<(), SourceError> {
        let range = self.index.chunk_range(chunk);
        let mut buffer = vec![7; (range.end - range.start) as usize];
        card.read_chunk(chunk, &mut buffer, &StopFlag::new())?;
        assert!(buffer == self.bytes[range.start as usize..range.end as usize], "chunk {chunk}");
        Ok(())
    }

    /// Chunks in the order in which a card asks for them.
    fn order(&self) -> Vec<usize> {
        let last = self.index.chunks().len();
        (1..last).filter(|c| !self.index.chunks()[*c].all_zero).chain([0]).collect()
    }
}

#[test]
fn cards_at_once_get_every_chunk_from_one_read_of_a_stream() {
    let fixture = Fixture::new(40);
    let shared = fixture.stream(usize::MAX);
    let cards: Vec<_> = (0..5).map(|_| shared.card()).collect();
    std::thread::scope(|scope| {
        for card in &cards {
            scope.spawn(|| fixture.order().into_iter().for_each(|chunk| fixture.take(card, chunk).unwrap()));
        }
    });
    assert_eq!(fixture.given.load(Ordering::Relaxed), fixture.bytes.len(), "read once");
}

#[test]
fn a_straggler_gets_from_the_spill_what_left_the_window_and_one_card_spills_nothing() {
    let chunks = 3 * WINDOW_BYTES / CHUNK as usize;
    let fixture = Fixture::new(chunks);
    let shared = fixture.stream(usize::MAX);
    let (fast, slow, dead) = (shared.card(), shared.card(), shared.card());
    fixture.take(&slow, 1).unwrap();
    drop(dead);
    for chunk in fixture.order() {
        fixture.take(&fast, chunk).unwrap();
    }
    let peak = shared.spill_peak_bytes();
    assert!(peak > WINDOW_BYTES as u64 && fixture.spills.load(Ordering::Relaxed) == 1, "{peak}");
    for chunk in fixture.order() {
        fixture.take(&slow, chunk).unwrap();
    }
    assert_eq!(fixture.given.load(Ordering::Relaxed), fixture.bytes.len(), "unpacked once");
    assert!(shared.state().spilled.is_empty(), "nobody needs anything any more");

    let alone = Fixture::new(chunks);
    let shared = alone.stream(usize::MAX);
    let card = shared.card();
    alone.order().into_iter().for_each(|chunk| alone.take(&card, chunk).unwrap());
    assert_eq!((shared.spill_peak_bytes(), alone.spills.load(Ordering::Relaxed)), (0, 0));
    assert!(shared.state().window_bytes <= WINDOW_BYTES);
}

#[test]
fn without_room_for_the_spill_only_the_straggler_fails() {
    let fixture = Fixture::new(2 * WINDOW_BYTES / CHUNK as usize);
    let spill: MakeSpill = Box::new(|| Err(io::ErrorKind::StorageFull.into()));
    let shared = SharedSource::of_stream(fixture.index.clone(), Box::new(fixture.once(usize::MAX)), spill);
    let (fast, slow) = (shared.card(), shared.card());
    fixture.order().into_iter().for_each(|chunk| fixture.take(&fast, chunk).unwrap());
    let error = fixture.take(&slow, 1).unwrap_err();
    assert!(matches!(&error, SourceError::Unavailable { reason, .. } if reason.contains("room")), "{error}");
}

#[test]
fn a_stream_that_is_cut_fails_every_card_with_what_happened_and_gives_what_came_before() {
    let fixture = Fixture::new(10);
    let shared = fixture.stream(5 * CHUNK as usize + 7);
    let (one, other) = (shared.card(), shared.card());
    fixture.take(&one, 4).unwrap();
    let error = fixture.take(&one, 5).unwrap_err();
    assert!(matches!(error, SourceError::EndedEarly { .. }), "{error}");
    fixture.take(&other, 1).unwrap();
    let error = fixture.take(&other, 6).unwrap_err();
    assert!(error.to_string().contains("ends at byte"), "{error}");
}

#[test]
fn a_file_is_read_once_for_cards_together_and_again_for_a_straggler() {
    let fixture = Fixture::new(2 * WINDOW_BYTES / CHUNK as usize);
    let shared = SharedSource::of_chunks(fixture.index.clone(), Arc::new(fixture.once(usize::MAX)));
    let cards: Vec<_> = (0..3).map(|_| shared.card()).collect();
    for chunk in fixture.order() {
        cards[..2].iter().for_each(|card| fixture.take(card, chunk).unwrap());
    }
    let count = fixture.order().len();
    assert_eq!(fixture.given.load(Ordering::Relaxed), count);
    fixture.take(&cards[2], 1).unwrap();
    assert_eq!(fixture.given.load(Ordering::Relaxed), count + 1);
    assert!(shared.state().window_bytes <= WINDOW_BYTES);

    let shared = SharedSource::of_chunks(fixture.index.clone(), Arc::new(fixture.once(usize::MAX)));
    let card = shared.card();
    fixture.order().into_iter().for_each(|chunk| fixture.take(&card, chunk).unwrap());
    assert_eq!(shared.state().window_bytes, 0, "nothing is kept for a card that is alone");
}

#[test]
fn a_card_that_is_stopped_while_it_waits_leaves_and_the_others_go_on() {
    let fixture = Fixture::new(4);
    let shared = fixture.stream(usize::MAX);
    let (stopped, other) = (shared.card(), shared.card());
    let stop = StopFlag::new();
    stop.stop();
    let result = stopped.read_chunk(1, &mut vec![0; CHUNK as usize], &stop);
    assert!(matches!(result, Err(SourceError::Stopped { chunk: 1 })));
    fixture.take(&other, 1).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn cards_of_any_pace_over_any_window_get_every_chunk_of_one_read(
        chunks in 3_usize..40,
        window in 0..6 * CHUNK as usize,
        turns in proptest::collection::vec((0_usize..4, 1_usize..12), 1..60),
        leaves in proptest::option::of(0_usize..4),
    ) {
        let fixture = Fixture::new(chunks);
        let stream = Mutex::new(ChunkStream::new(Box::new(fixture.once(usize::MAX))));
        let origin = Origin::Forward(stream, Box::new(tempfile::tempfile));
        let shared = SharedSource::new(fixture.index.clone(), origin, window);
        let mut cards: Vec<_> = (0..4).map(|_| Some((shared.card(), fixture.order().into_iter()))).collect();
        for (number, (card, steps)) in turns.iter().enumerate() {
            if leaves == Some(*card) && number > turns.len() / 2 {
                cards[*card] = None;
            }
            let Some((source, order)) = &mut cards[*card] else { continue };
            for chunk in order.take(*steps) {
                fixture.take(source, chunk).unwrap();
            }
            prop_assert!(shared.state().window_bytes <= window);
        }
        for (source, order) in cards.iter_mut().flatten() {
            order.for_each(|chunk| fixture.take(source, chunk).unwrap());
        }
        prop_assert!(fixture.given.load(Ordering::Relaxed) <= fixture.bytes.len(), "unpacked once");
        drop(cards);
        prop_assert!(shared.state().spilled.is_empty());
    }
}
