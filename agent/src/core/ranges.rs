//! What of an image to fetch next: runs of neighbouring chunks that are missing, lowest first, because that is
//! the order in which cards are written. Keeps count of chunks that arrive wrong. Bytes, files and addresses
//! are the fetcher's.

use std::collections::BTreeMap;
use std::ops::Range;

use cardshop_protocol::index::Index;

/// Bytes of one request. Large enough to hide a round trip at 100 MB/s, small enough that four of them share
/// the start of an image and that a cut connection repeats little.
pub const RANGE_SIZE: u64 = 16 * 1024 * 1024;
/// A chunk that does not match its digest is fetched again this often, then the image is refused.
pub const MAX_REFETCHES: u32 = 3;

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
    max_chunks: usize,
    wrong: BTreeMap<usize, u32>,
    here_bytes: u64,
    total_bytes: u64,
}

/// True when a chunk travels: it has data that is not all zero.
pub fn travels(index: &Index, chunk: usize) -> bool {
    index.chunks().get(chunk).is_some_and(|c| c.data_bytes > 0 && !c.all_zero)
}

impl Ranges {
    /// Everything that travels is missing, but for what `have` (one bit a chunk, lowest bit first) says.
    pub fn new(index: &Index, have: &[u8]) -> Self {
        let place = |chunk: usize| match travels(index, chunk) {
            false => Place::Nowhere,
            true if have.get(chunk / 8).is_some_and(|byte| byte >> (chunk % 8) & 1 == 1) => Place::Here,
            true => Place::Missing,
        };
        let places: Vec<Place> = (0..index.chunks().len()).map(place).collect();
        let data_bytes: Vec<u32> = index.chunks().iter().map(|c| c.data_bytes).collect();
        let sum = |wanted: &[Place]| {
            let bytes = places.iter().zip(&data_bytes).filter(|(place, _)| wanted.contains(place));
            bytes.map(|(_, bytes)| u64::from(*bytes)).sum()
        };
        let max_chunks = (RANGE_SIZE / u64::from(index.chunk_size())).max(1) as usize;
        Self {
            here_bytes: sum(&[Place::Here]),
            total_bytes: sum(&[Place::Here, Place::Missing]),
            first_missing: 0,
            wrong: BTreeMap::new(),
            max_chunks,
            data_bytes,
            places,
        }
    }

    /// The next run of chunks to fetch; it is under way until every chunk arrived or was given back.
    pub fn take(&mut self) -> Option<Range<usize>> {
        let missing = |place: &Place| *place == Place::Missing;
        let from = self.first_missing + self.places[self.first_missing..].iter().position(missing)?;
        // A chunk that was wrong travels alone, so that only it is asked of another warehouse.
        let longest = if self.wrong.contains_key(&from) { 1 } else { self.max_chunks };
        let run = self.places[from..].iter().take(longest);
        let count = run
            .enumerate()
            .take_while(|(i, p)| missing(p) && (*i == 0 || !self.wrong.contains_key(&(from + i))));
        let end = from + count.count();
        self.places[from..end].fill(Place::UnderWay);
        self.first_missing = end;
        Some(from..end)
    }

    /// A chunk is in the cache and matches.
    pub fn arrived(&mut self, chunk: usize) {
        if matches!(self.places[chunk], Place::UnderWay | Place::Missing) {
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
    pub fn was_wrong(&mut self, chunk: usize) -> Verdict {
        let times = self.wrong.entry(chunk).or_default();
        *times += 1;
        if *times > MAX_REFETCHES {
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

    fn miss(&mut self, chunk: usize) {
        self.places[chunk] = Place::Missing;
        self.first_missing = self.first_missing.min(chunk);
    }

    /// How often a chunk came wrong: says which warehouse to ask.
    pub fn wrong_times(&self, chunk: usize) -> u32 {
        self.wrong.get(&chunk).copied().unwrap_or(0)
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
                bytes[chunk / 8] |= 1 << (chunk % 8);
            }
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cardshop_protocol::index::{Extent, ExtentKind, ImageMap, IndexBuilder, MIN_CHUNK_SIZE};

    const CHUNK: u64 = MIN_CHUNK_SIZE as u64;

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
        assert_eq!((ranges.take(), ranges.take(), ranges.take()), (Some(0..3), Some(6..10), None));
        (0..10).for_each(|chunk| ranges.arrived(chunk));
        assert!(ranges.is_complete());
        assert_eq!(ranges.bytes(), (7 * CHUNK, 7 * CHUNK));
        let again = Ranges::new(&image(), &ranges.bitmap());
        assert!(again.is_complete(), "what is on the disk is not fetched again");
    }

    #[test]
    fn after_a_cut_only_what_did_not_arrive_is_asked_for_again() {
        let mut ranges = Ranges::new(&image(), &[]);
        let run = ranges.take().unwrap();
        ranges.arrived(0);
        ranges.give_back(1..run.end);
        assert_eq!(ranges.take(), Some(1..3));
    }

    #[test]
    fn a_wrong_chunk_travels_alone_and_is_refused_after_three_more_tries() {
        let mut ranges = Ranges::new(&image(), &[]);
        assert_eq!(ranges.take(), Some(0..3));
        ranges.arrived(0);
        let mut verdict = ranges.was_wrong(1);
        ranges.arrived(2);
        for times in 1..=MAX_REFETCHES {
            assert_eq!((verdict, ranges.wrong_times(1)), (Verdict::Again, times));
            assert_eq!(ranges.take(), Some(1..2));
            verdict = ranges.was_wrong(1);
        }
        assert_eq!((verdict, ranges.take()), (Verdict::Refuse, Some(6..10)), "nobody asks for it again");
    }

    #[test]
    fn a_chunk_the_disk_lost_is_fetched_again() {
        let mut ranges = Ranges::new(&image(), &[0xff; 2]);
        assert!(ranges.is_complete());
        ranges.lost(7);
        assert!(!ranges.is_here(7) && ranges.is_here(4));
        assert_eq!(ranges.bytes(), (6 * CHUNK, 7 * CHUNK));
        assert_eq!((ranges.take(), ranges.take()), (Some(7..8), None));
    }
}
