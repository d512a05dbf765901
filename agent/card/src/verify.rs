//! Reads a card back past every cache and compares each mapped byte with the index: while a piece is digested the
//! next ones are on their way. Says the first byte that differs as exactly as can be known: with the image at hand
//! by comparing bytes, without it by the chunk's digest, or to the byte where one that must be zero is not.

use std::ops::Range;

use cardshop_protocol::index::Index;
use cardshop_protocol::message::WritePhase;

use crate::claim::ReadableCard;
use crate::device::{AlignedBuffer, CardDevice, read_full};
use crate::error::{CardError, Operation};
use crate::lanes::{Lanes, Moved, Work};
use crate::plan::{Action, batches, bytes_of, mapped, mapped_bytes, request_size, runs};
use crate::source::ChunkSource;
use crate::stop::StopFlag;
use crate::write::Progress;

/// What a card that was read back looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VerifyOutcome {
    /// Bytes read back and compared: every mapped byte.
    pub verified_bytes: u64,
    /// How long it took.
    pub duration: std::time::Duration,
}

/// Compares a card with an index, without the image. Three buffers of 512 KiB or one chunk.
///
/// # Errors
/// `Mismatch` names a chunk that differs, the first of the card, or the byte in it that must be zero and is not;
/// `CardTooSmall`, `Io`, `Removed`, `Stuck`, `Stopped`.
pub fn verify_card(
    card: &mut ReadableCard,
    index: &Index,
    stop: &StopFlag,
    progress: &mut dyn FnMut(Progress),
) -> Result<VerifyOutcome, CardError> {
    let began = std::time::Instant::now();
    fits(card.size(), index)?;
    let mut lanes = Lanes::new(card.device.clone(), request_size(index))?;
    lanes.run(|device, _| drop_caches(device))?;
    let total = mapped_bytes(index, 0..index.chunks().len());
    let mut verified_bytes = 0;
    let mut look = |chunks: Range<usize>, bytes: &[u8]| {
        compare(index, chunks.clone(), bytes, &mut |chunk, bytes| locate(index, chunk, bytes, None))?;
        verified_bytes += mapped_bytes(index, chunks);
        progress(Progress { phase: WritePhase::Verifying, done: verified_bytes, total });
        Ok(())
    };
    read_chunks(&mut lanes, index, &mut batches(index, 0), stop, &mut look)?;
    Ok(VerifyOutcome { verified_bytes, duration: began.elapsed() })
}

/// Refuses a card on which the image does not fit.
pub(crate) fn fits(card_size: u64, index: &Index) -> Result<(), CardError> {
    let needed = index.image_size();
    if card_size < needed { Err(CardError::CardTooSmall { card_size, needed }) } else { Ok(()) }
}

pub(crate) fn drop_caches(device: &dyn CardDevice) -> Result<(), CardError> {
    device.drop_caches().map_err(|error| CardError::from_io(Operation::Sync, 0, error))
}

/// What is done with chunks that were read, and their bytes.
type Look<'a> = &'a mut dyn FnMut(Range<usize>, &[u8]) -> Result<(), CardError>;

/// Reads the mapped bytes of some groups of chunks and shows each group with its bytes, from its first chunk's start
/// to its last one's end; what is not mapped may be anything.
pub(crate) fn read_chunks(
    lanes: &mut Lanes,
    index: &Index,
    groups: &mut dyn Iterator<Item = Range<usize>>,
    stop: &StopFlag,
    look: Look<'_>,
) -> Result<(), CardError> {
    let mut groups = groups.filter(|chunks| mapped_bytes(index, chunks.clone()) > 0);
    let mut prepare = |_: &mut AlignedBuffer| match groups.next() {
        Some(_) if stop.is_stopped() => Err(CardError::Stopped),
        group => Ok(group.map(|chunks| reading(index, chunks))),
    };
    lanes.pump(&mut prepare, &mut |buffer, moved| {
        let bytes = bytes_of(index, &moved.chunks);
        look(moved.chunks, &buffer[..(bytes.end - bytes.start) as usize])
    })
}

fn reading(index: &Index, chunks: Range<usize>) -> Work {
    let start = bytes_of(index, &chunks).start;
    let ranges = mapped(index, chunks.clone());
    Box::new(move |device, buffer| {
        for range in ranges {
            let from = (range.start - start) as usize;
            // The image may end within a block; the card's next bytes are read and not looked at.
            let padded = ((range.end - range.start) as usize).next_multiple_of(device.alignment());
            read_full(device, range.start, &mut buffer[from..from + padded])?;
        }
        Ok(Moved { chunks, ..Moved::default() })
    })
}

/// Compares some chunks, read from the card, with the index.
///
/// # Errors
/// What `mismatch` says of the first that differs.
pub(crate) fn compare(
    index: &Index,
    chunks: Range<usize>,
    bytes: &[u8],
    mismatch: &mut dyn FnMut(usize, &[u8]) -> CardError,
) -> Result<(), CardError> {
    let start = bytes_of(index, &chunks).start;
    for chunk in chunks {
        let range = index.chunk_range(chunk);
        let bytes = &bytes[(range.start - start) as usize..(range.end - start) as usize];
        if !is_right(index, chunk, bytes) {
            return Err(mismatch(chunk, bytes));
        }
    }
    Ok(())
}

/// True when a chunk on the card is what the index says, or may be anything.
pub(crate) fn is_right(index: &Index, chunk: usize, bytes: &[u8]) -> bool {
    index.chunks()[chunk].nothing_listed || index.chunk_matches(chunk, bytes)
}

/// Names where `bytes`, read from the card, differ from chunk `chunk`; `expected` are the image's bytes.
pub(crate) fn locate(index: &Index, chunk: usize, bytes: &[u8], expected: Option<&[u8]>) -> CardError {
    let start = index.chunk_range(chunk).start;
    let differs = |run: &crate::plan::Run| {
        let range = (run.offset - start) as usize..(run.end() - start) as usize;
        let card = &bytes[range.clone()];
        let bad = match (run.action, expected) {
            (Action::Zero, _) => first_and_last(card, |at| card[at] != 0),
            (Action::Copy, Some(image)) => first_and_last(card, |at| card[at] != image[range.start + at]),
            (Action::Copy, None) => None,
        };
        bad.map(|(first, last)| (run.offset + first as u64, run.offset + last as u64))
    };
    let bad: Vec<(u64, u64)> = runs(index, chunk..chunk + 1).iter().filter_map(differs).collect();
    match (bad.first(), bad.last()) {
        (Some((offset, _)), Some((_, last))) => mismatch(*offset, *last),
        _ => {
            let ranges = mapped(index, chunk..chunk + 1);
            let offset = ranges.first().map_or(start, |r| r.start);
            let end = ranges.last().map_or(start, |r| r.end);
            CardError::Mismatch { offset, length: end - offset, exact: false }
        }
    }
}

/// Bytes that are known to differ, both ends included.
pub(crate) fn mismatch(first: u64, last: u64) -> CardError {
    CardError::Mismatch { offset: first, length: last + 1 - first, exact: true }
}

/// First and last position in `bytes` for which `is_bad` holds.
pub(crate) fn first_and_last(bytes: &[u8], is_bad: impl Fn(usize) -> bool) -> Option<(usize, usize)> {
    let first = (0..bytes.len()).find(|at| is_bad(*at))?;
    let last = (0..bytes.len()).rev().find(|at| is_bad(*at))?;
    Some((first, last))
}

/// The image's bytes of a chunk, if they can be had and are right: only then can bytes be compared.
pub(crate) fn expected_bytes(
    index: &Index,
    source: &dyn ChunkSource,
    chunk: usize,
    stop: &StopFlag,
) -> Option<Vec<u8>> {
    let range = index.chunk_range(chunk);
    let mut bytes = vec![0; (range.end - range.start) as usize];
    if index.chunks()[chunk].travels() {
        source.read_chunk(chunk, &mut bytes, stop).ok()?;
    }
    index.chunk_matches(chunk, &bytes).then_some(bytes)
}
