//! What is to be done where: turns an index into runs of bytes to copy and runs to make zero, batch by batch.
//! Pure; `write` and `verify` follow it.

use std::ops::Range;

use cardshop_protocol::index::{ExtentKind, Index};

/// Bytes of a request to the card and of each buffer (a chunk's size where that is larger). A card of 90 MB/s takes
/// 6 ms for it, so that what a request costs by itself does not show; with 1 MiB eight cards took 51 to 56 MiB of
/// memory, above the 48 they may take (2026-11-25).
const REQUEST_SIZE: usize = 512 << 10;

/// What a run of bytes needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// The image's bytes are written.
    Copy,
    /// It must read as zero: written only where it does not.
    Zero,
}

/// Neighbouring bytes of the image that need the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) offset: u64,
    pub(crate) length: u64,
    pub(crate) action: Action,
}

impl Run {
    pub(crate) fn end(&self) -> u64 {
        self.offset + self.length
    }
}

/// Bytes of a request for images of this chunk size.
pub(crate) fn request_size(index: &Index) -> usize {
    REQUEST_SIZE.max(index.chunk_size() as usize)
}

/// All chunks from `first` on, in groups that fill one request and end on multiples of its size.
pub(crate) fn batches(index: &Index, first: usize) -> impl Iterator<Item = Range<usize>> + use<> {
    let each = request_size(index) / index.chunk_size() as usize;
    let count = index.chunks().len();
    let mut at = first;
    std::iter::from_fn(move || {
        let batch = at..((at / each + 1) * each).min(count);
        at = batch.end;
        (!batch.is_empty()).then_some(batch)
    })
}

/// The bytes of the image from the first chunk of `chunks` to the end of the last.
pub(crate) fn bytes_of(index: &Index, chunks: &Range<usize>) -> Range<u64> {
    index.chunk_range(chunks.start).start..index.chunk_range(chunks.end - 1).end
}

/// What the chunks need, ascending, neighbours joined. Data that is all zero in its chunk is made zero and
/// not copied: it does not travel.
pub(crate) fn runs(index: &Index, chunks: Range<usize>) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for chunk in chunks {
        for extent in index.extents_in(index.chunk_range(chunk)) {
            let copy = extent.kind == ExtentKind::Data && index.chunks()[chunk].travels();
            let action = if copy { Action::Copy } else { Action::Zero };
            match runs.last_mut() {
                Some(last) if last.action == action && last.end() == extent.offset => {
                    last.length += extent.length;
                }
                _ => runs.push(Run { offset: extent.offset, length: extent.length, action }),
            }
        }
    }
    runs
}

/// Mapped bytes of some chunks, neighbours joined whatever they need.
pub(crate) fn mapped(index: &Index, chunks: Range<usize>) -> Vec<Range<u64>> {
    if chunks.is_empty() { Vec::new() } else { index.mapped_in(bytes_of(index, &chunks)) }
}

/// How many bytes of these chunks are mapped.
pub(crate) fn mapped_bytes(index: &Index, chunks: Range<usize>) -> u64 {
    if chunks.is_empty() {
        return 0;
    }
    index.extents_in(bytes_of(index, &chunks)).map(|e| e.length).sum()
}

/// The parts of a batch that are wanted, neighbours joined.
pub(crate) fn wanted(
    batch: Range<usize>,
    is_wanted: impl Fn(usize) -> bool + Copy,
) -> impl Iterator<Item = Range<usize>> {
    let mut at = batch.start;
    std::iter::from_fn(move || {
        let first = (at..batch.end).find(|chunk| is_wanted(*chunk))?;
        at = (first..batch.end).find(|chunk| !is_wanted(*chunk)).unwrap_or(batch.end);
        Some(first..at)
    })
}

/// Everything in `within` that nothing is copied to, in multiples of `alignment`.
pub(crate) fn not_copied(
    index: &Index,
    within: Range<u64>,
    alignment: u64,
) -> impl Iterator<Item = Range<u64>> + '_ {
    let copied = batches(index, 0).flat_map(|batch| runs(index, batch)).filter(|r| r.action == Action::Copy);
    gaps(copied.map(|run| run.offset..run.end()), within, alignment)
}

/// Everything in `within` that is not mapped, in multiples of `alignment`.
pub(crate) fn not_mapped(
    index: &Index,
    within: Range<u64>,
    alignment: u64,
) -> impl Iterator<Item = Range<u64>> + '_ {
    gaps(index.extents().iter().map(|extent| extent.offset..extent.end()), within, alignment)
}

/// What lies between and behind some ascending ranges.
fn gaps(
    ranges: impl Iterator<Item = Range<u64>>,
    within: Range<u64>,
    alignment: u64,
) -> impl Iterator<Item = Range<u64>> {
    let mut at = within.start;
    ranges.chain(std::iter::once(within.end..within.end)).filter_map(move |range| {
        let gap = at..range.start.min(within.end);
        at = at.max(range.end.next_multiple_of(alignment));
        (!gap.is_empty()).then_some(gap)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use cardshop_protocol::index::{Extent, ImageMap, IndexBuilder};

    const CHUNK: u64 = 64 * 1024;

    /// Data is one byte per KiB so that no chunk with data is all zero, but for the fourth (from 3 × 64 KiB).
    fn index(extents: &[(u64, u64, ExtentKind)], image_size: u64) -> Index {
        let extents: Vec<Extent> = extents
            .iter()
            .map(|(offset, length, kind)| Extent { offset: *offset, length: *length, kind: *kind })
            .collect();
        let data = extents.iter().filter(|e| e.kind == ExtentKind::Data);
        let bytes: Vec<u8> = data
            .flat_map(|e| e.offset..e.end())
            .map(|at| u8::from(at / CHUNK != 3 && at % 1024 == 0))
            .collect();
        let map = ImageMap { image_size, extents, passport: Vec::new() };
        let mut builder = IndexBuilder::new(map, CHUNK as u32).unwrap();
        builder.data(&bytes).unwrap();
        builder.finish().unwrap()
    }

    use ExtentKind::{Data, Zero};

    #[test]
    fn neighbours_are_joined_over_chunks_and_zero_data_is_not_copied() {
        let index =
            index(&[(0, 4 * CHUNK, Data), (4 * CHUNK, 4096, Zero), (5 * CHUNK, 100, Data)], 5 * CHUNK + 100);
        let copy = |offset, length| Run { offset, length, action: Action::Copy };
        let zero = |offset, length| Run { offset, length, action: Action::Zero };
        assert_eq!(
            runs(&index, 0..6),
            [copy(0, 3 * CHUNK), zero(3 * CHUNK, CHUNK + 4096), copy(5 * CHUNK, 100)]
        );
        assert_eq!(mapped(&index, 0..6), [0..4 * CHUNK + 4096, 5 * CHUNK..5 * CHUNK + 100]);
        assert_eq!(mapped_bytes(&index, 1..6), 3 * CHUNK + 4096 + 100);
        assert_eq!(mapped_bytes(&index, 6..6), 0);
    }

    #[test]
    fn batches_cover_every_chunk_once_and_end_on_multiples_of_the_request() {
        let index = index(&[], 40 * CHUNK + 1);
        let batches: Vec<_> = batches(&index, 1).collect();
        assert_eq!(batches, [1..8, 8..16, 16..24, 24..32, 32..40, 40..41]);
    }

    #[test]
    fn what_is_not_copied_is_everything_between_and_behind() {
        let index =
            index(&[(8192, 4096, Data), (CHUNK, 4096, Zero), (2 * CHUNK, 100, Data)], 2 * CHUNK + 100);
        let gaps: Vec<_> = not_copied(&index, 0..4 * CHUNK, 512).collect();
        assert_eq!(gaps, [0..8192, 12288..2 * CHUNK, 2 * CHUNK + 512..4 * CHUNK]);
        let gaps: Vec<_> = not_copied(&index, 10_240..CHUNK, 512).collect();
        assert_eq!((gaps.len(), gaps[0].clone()), (1, 12288..CHUNK));
    }
}
