//! What of an image to fetch next: runs of neighbouring chunks that are missing, lowest first, because that is
//! the order in which cards are written. Keeps count of chunks that arrive wrong. Bytes, files and addresses
//! are the fetcher's.

use std::collections::BTreeMap;
use std::ops::Range;

use std::time::Duration;

use cardshop_protocol::index::Index;

use super::sources::SourceId;

/// Most bytes of one request. Large enough to hide a round trip at 100 MB/s, small enough that eight of them
/// share an image and that a deadline means something.
pub const MAX_RUN_SIZE: u64 = 16 * 1024 * 1024;
/// Fewest bytes of one request, but for the rest of a run: a round trip of 80 ms is then below a tenth of it even
/// at 1 MB/s.
pub const MIN_RUN_SIZE: u64 = 1024 * 1024;
/// A request should take about this long at the rate its connection had: longer, and the last one keeps the
/// others waiting at the end of an image; shorter, and round trips show.
const RUN_TIME: Duration = Duration::from_secs(4);
/// A chunk that does not match its digest is fetched again this often, then the image is refused.
pub const MAX_REFETCHES: usize = 3;

/// Where one chunk is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    /// It has no data: nobody needs its bytes.
    Nowhere,
    Missing,
    UnderWay,
    Here,
}

/// What follows when a chunk does not match its digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Fetch it again.
    Again,
    /// It was wrong too often: the image cannot be had.
    Refuse,
}

/// The chunks of one image.
#[derive(Debug)]
pub struct Ranges {
    places: Vec<Place>,
    data_bytes: Vec<u32>,
    /// No chunk below it is missing.
    first_missing: usize,
    chunk_size: u64,
    /// Who gave a chunk wrong, once for each time.
    wrong: BTreeMap<usize, Vec<SourceId>>,
    here_bytes: u64,
    under_way_bytes: u64,
    total_bytes: u64,
}

/// True when there is such a chunk and it travels.
pub fn travels(index: &Index, chunk: usize) -> bool {
    index.chunks().get(chunk).is_some_and(|c| c.travels())
}

/// True when a bitmap (lowest bit of the first byte first) lists a chunk.
pub fn has_bit(bitmap: &[u8], chunk: usize) -> bool {
    bitmap.get(chunk / 8).is_some_and(|byte| byte >> (chunk % 8) & 1 == 1)
}

/// Adds a chunk to a bitmap that is long enough.
pub fn set_bit(bitmap: &mut [u8], chunk: usize) {
    if let Some(byte) = bitmap.get_mut(chunk / 8) {
        *byte |= 1 << (chunk % 8);
    }
}

/// How many bytes the next request of a connection asks for: what takes `RUN_TIME` at `rate_bps` (`None` before
/// the first), and towards the end of the image so little that all `connections` end together.
pub fn run_size(rate_bps: Option<u64>, missing_bytes: u64, connections: u64) -> u64 {
    let by_rate = rate_bps.map_or(MIN_RUN_SIZE, |bps| bps.saturating_mul(RUN_TIME.as_secs()));
    let by_share = missing_bytes / (2 * connections.max(1));
    by_rate.min(by_share).clamp(MIN_RUN_SIZE, MAX_RUN_SIZE)
}

impl Ranges {
    /// Everything that travels is missing, but for what `have` (one bit a chunk, lowest bit first) says.
    pub fn new(index: &Index, have: &[u8]) -> Self {
        let place = |chunk: usize| match travels(index, chunk) {
            false => Place::Nowhere,
            true if has_bit(have, chunk) => Place::Here,
            true => Place::Missing,
        };
        let places: Vec<Place> = (0..index.chunks().len()).map(place).collect();
        let data_bytes: Vec<u32> = index.chunks().iter().map(|c| c.data_bytes).collect();
        let sum = |wanted: &[Place]| {
            let bytes = places.iter().zip(&data_bytes).filter(|(place, _)| wanted.contains(place));
            bytes.map(|(_, bytes)| u64::from(*bytes)).sum()
        };
        Self {
            here_bytes: sum(&[Place::Here]),
            under_way_bytes: 0,
            total_bytes: sum(&[Place::Here, Place::Missing]),
            first_missing: 0,
            wrong: BTreeMap::new(),
            chunk_size: u64::from(index.chunk_size()),
            data_bytes,
            places,
        }
    }

    /// The next run of chunks to fetch, of at most `most_bytes` but at least one chunk; it is under way until
    /// every chunk arrived or was given back.
    pub fn take(&mut self, most_bytes: u64) -> Option<Range<usize>> {
        let missing = |place: &Place| *place == Place::Missing;
        let from = self.first_missing + self.places[self.first_missing..].iter().position(missing)?;
        // A chunk that was wrong travels alone, so that only it is asked of another warehouse.
        let longest =
            if self.wrong.contains_key(&from) { 1 } else { (most_bytes / self.chunk_size).max(1) as usize };
        let run = self.places[from..].iter().take(longest);
        let count = run
            .enumerate()
            .take_while(|(i, p)| missing(p) && (*i == 0 || !self.wrong.contains_key(&(from + i))));
        let end = from + count.count();
        self.places[from..end].fill(Place::UnderWay);
        self.under_way_bytes += self.data_bytes[from..end].iter().map(|b| u64::from(*b)).sum::<u64>();
        self.first_missing = end;
        Some(from..end)
    }

    /// Takes this one chunk if it is missing.
    pub fn claim(&mut self, chunk: usize) -> bool {
        let missing = self.places.get(chunk) == Some(&Place::Missing);
        if missing {
            self.places[chunk] = Place::UnderWay;
            self.under_way_bytes += u64::from(self.data_bytes[chunk]);
        }
        missing
    }

    /// A chunk is in the cache and matches.
    pub fn arrived(&mut self, chunk: usize) {
        if matches!(self.places[chunk], Place::UnderWay | Place::Missing) {
            self.leave(chunk);
            self.places[chunk] = Place::Here;
            self.here_bytes += u64::from(self.data_bytes[chunk]);
        }
    }

    /// A request has ended before the end of its run: the rest of it is missing again.
    pub fn give_back(&mut self, run: Range<usize>) {
        for chunk in run {
            if self.places[chunk] == Place::UnderWay {
                self.miss(chunk);
            }
        }
    }

    /// A chunk came that does not match.
    pub fn was_wrong(&mut self, chunk: usize, from: SourceId) -> Verdict {
        let sources = self.wrong.entry(chunk).or_default();
        sources.push(from);
        if sources.len() > MAX_REFETCHES {
            // Not missing: nobody is to ask for it once more while the refusal is told.
            return Verdict::Refuse;
        }
        self.miss(chunk);
        Verdict::Again
    }

    /// A chunk in the cache no longer matches: the disk lost it.
    pub fn lost(&mut self, chunk: usize) {
        if self.places[chunk] == Place::Here {
            self.here_bytes -= u64::from(self.data_bytes[chunk]);
            self.miss(chunk);
        }
    }

    /// It is no longer under way, if it was.
    fn leave(&mut self, chunk: usize) {
        if self.places[chunk] == Place::UnderWay {
            self.under_way_bytes -= u64::from(self.data_bytes[chunk]);
        }
    }

    fn miss(&mut self, chunk: usize) {
        self.leave(chunk);
        self.places[chunk] = Place::Missing;
        self.first_missing = self.first_missing.min(chunk);
    }

    /// Who gave a chunk wrong, once for each time: others are asked first.
    pub fn wrong_from(&self, chunk: usize) -> &[SourceId] {
        self.wrong.get(&chunk).map_or(&[], Vec::as_slice)
    }

    /// Bytes that nobody is fetching yet.
    pub fn missing_bytes(&self) -> u64 {
        self.total_bytes - self.here_bytes - self.under_way_bytes
    }

    /// True when a chunk can be read, or needs no bytes.
    pub fn is_here(&self, chunk: usize) -> bool {
        matches!(self.places.get(chunk), Some(Place::Here | Place::Nowhere))
    }

    /// True when nothing is missing or under way.
    pub fn is_complete(&self) -> bool {
        !self.places.iter().any(|p| matches!(p, Place::Missing | Place::UnderWay))
    }

    /// Bytes of data here, and of all that travels.
    pub fn bytes(&self) -> (u64, u64) {
        (self.here_bytes, self.total_bytes)
    }

    /// One bit for each chunk that is here: what [`Ranges::new`] takes.
    pub fn bitmap(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.places.len().div_ceil(8)];
        for (chunk, place) in self.places.iter().enumerate() {
            if *place == Place::Here {
                set_bit(&mut bytes, chunk);
            }
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::sources::{Choice, Sources};
    use cardshop_protocol::index::{Extent, ExtentKind, ImageMap, IndexBuilder, MIN_CHUNK_SIZE};
    use proptest::prelude::*;

    const CHUNK: u64 = MIN_CHUNK_SIZE as u64;
    const MOST: u64 = MAX_RUN_SIZE;

    fn somebody() -> SourceId {
        let mut sources = Sources::default();
        sources.set(&["x".into()]);
        match sources.choose(Duration::ZERO, &[]) {
            Choice::Ask(id, _) => id,
            other => panic!("{other:?}"),
        }
    }

    /// Ten chunks: data everywhere but 3 (all zero), 4 (must be zero) and 5 (not listed).
    fn image() -> Index {
        let data = |first: u64, count: u64| Extent {
            offset: first * CHUNK,
            length: count * CHUNK,
            kind: ExtentKind::Data,
        };
        let zero = Extent { offset: 4 * CHUNK, length: CHUNK, kind: ExtentKind::Zero };
        let map = ImageMap {
            image_size: 10 * CHUNK,
            extents: vec![data(0, 4), zero, data(6, 4)],
            passport: vec![],
        };
        let mut builder = IndexBuilder::new(map, MIN_CHUNK_SIZE).unwrap();
        for chunk in [1, 2, 3, 0, 6, 7, 8, 9] {
            builder.data(&vec![chunk; CHUNK as usize]).unwrap();
        }
        builder.finish().unwrap()
    }

    #[test]
    fn neighbouring_data_chunks_are_asked_for_together_and_the_rest_never() {
        let mut ranges = Ranges::new(&image(), &[]);
        assert_eq!(ranges.bytes(), (0, 7 * CHUNK));
        assert_eq!(
            (ranges.take(MOST), ranges.take(MOST), ranges.take(MOST)),
            (Some(0..3), Some(6..10), None)
        );
        (0..10).for_each(|chunk| ranges.arrived(chunk));
        assert!(ranges.is_complete());
        assert_eq!(ranges.bytes(), (7 * CHUNK, 7 * CHUNK));
        let again = Ranges::new(&image(), &ranges.bitmap());
        assert!(again.is_complete(), "what is on the disk is not fetched again");
    }

    #[test]
    fn after_a_cut_only_what_did_not_arrive_is_asked_for_again() {
        let mut ranges = Ranges::new(&image(), &[]);
        let run = ranges.take(MOST).unwrap();
        ranges.arrived(0);
        ranges.give_back(1..run.end);
        assert_eq!(ranges.take(MOST), Some(1..3));
    }

    #[test]
    fn a_wrong_chunk_travels_alone_and_is_refused_after_three_more_tries() {
        let mut ranges = Ranges::new(&image(), &[]);
        assert_eq!(ranges.take(MOST), Some(0..3));
        ranges.arrived(0);
        let mut verdict = ranges.was_wrong(1, somebody());
        ranges.arrived(2);
        for times in 1..=MAX_REFETCHES {
            assert_eq!((verdict, ranges.wrong_from(1).len()), (Verdict::Again, times));
            assert_eq!(ranges.take(MOST), Some(1..2));
            verdict = ranges.was_wrong(1, somebody());
        }
        assert_eq!((verdict, ranges.take(MOST)), (Verdict::Refuse, Some(6..10)), "nobody asks for it again");
    }

    #[test]
    fn a_chunk_the_disk_lost_is_fetched_again() {
        let mut ranges = Ranges::new(&image(), &[0xff; 2]);
        assert!(ranges.is_complete());
        ranges.lost(7);
        assert!(!ranges.is_here(7) && ranges.is_here(4));
        assert_eq!(ranges.bytes(), (6 * CHUNK, 7 * CHUNK));
        assert_eq!((ranges.take(MOST), ranges.take(MOST)), (Some(7..8), None));
    }

    #[test]
    fn a_request_takes_seconds_on_a_slow_line_and_the_end_is_shared() {
        const MIB: u64 = 1024 * 1024;
        let plenty = 100_000 * MIB;
        assert_eq!(run_size(None, plenty, 8), MIN_RUN_SIZE, "nothing is known yet");
        assert_eq!(run_size(Some(500_000), plenty, 8), 2_000_000);
        assert_eq!(run_size(Some(100_000_000), plenty, 8), MAX_RUN_SIZE);
        assert_eq!(run_size(Some(100_000_000), 64 * MIB, 8), 4 * MIB, "half of an eighth");
        assert_eq!(run_size(Some(100_000_000), 0, 0), MIN_RUN_SIZE);
    }

    proptest! {
        /// Whatever connections do, each chunk is fetched by one of them at a time, what arrived stays, and the
        /// counts of bytes are those of the chunks.
        #[test]
        fn each_chunk_is_under_way_once_and_the_counts_are_right(
            have in any::<[u8; 2]>(), steps in prop::collection::vec((0u8..5, 0usize..10, 1u64..8), 1..80),
        ) {
            let index = image();
            let mut ranges = Ranges::new(&index, &have);
            let mut under_way: Vec<usize> = Vec::new();
            for (what, which, most) in steps {
                match what {
                    0 | 1 => {
                        let Some(run) = ranges.take(most * CHUNK) else { continue };
                        prop_assert!(run.end > run.start && (run.end - run.start) as u64 <= most);
                        for chunk in run {
                            prop_assert!(travels(&index, chunk) && !under_way.contains(&chunk));
                            under_way.push(chunk);
                        }
                    }
                    2 if !under_way.is_empty() => {
                        let chunk = under_way.swap_remove(which % under_way.len());
                        ranges.arrived(chunk);
                        prop_assert!(ranges.is_here(chunk));
                    }
                    3 if !under_way.is_empty() => {
                        let chunk = under_way.swap_remove(which % under_way.len());
                        ranges.give_back(chunk..chunk + 1);
                        prop_assert!(!ranges.is_here(chunk));
                    }
                    4 if most > 4 => ranges.lost(which),
                    4 if ranges.claim(which) => under_way.push(which),
                    _ => {}
                }
                let bytes = |chunks: &mut dyn Iterator<Item = usize>| chunks.count() as u64 * CHUNK;
                let here = bytes(&mut (0..10).filter(|c| travels(&index, *c) && ranges.is_here(*c)));
                let all = bytes(&mut (0..10).filter(|c| travels(&index, *c)));
                let moving = bytes(&mut under_way.iter().copied());
                prop_assert_eq!(ranges.bytes(), (here, all));
                prop_assert_eq!(ranges.missing_bytes(), all - here - moving);
                prop_assert_eq!(Ranges::new(&index, &ranges.bitmap()).bytes(), (here, all));
            }
        }
    }
}
