//! The image's bytes onto the card: each chunk checked before it is written, zeros only where the card holds
//! something else. Called by `write` for all chunks but the first, and by `seal` for that one.

use std::ops::Range;

use cardshop_protocol::index::GRANULE;
use cardshop_protocol::message::{Wipe, WritePhase};

use super::{Job, Writer};
use crate::device::{AlignedBuffer, CardDevice, read_full, write_full};
use crate::error::CardError;
use crate::lanes::{Moved, Work};
use crate::plan::{Action, Run, batches, bytes_of, runs, wanted};
use crate::source::SourceError;
use crate::stop::StopFlag;

/// Bytes read at a time where zeros and data share a buffer that is full of data.
const SCRATCH_SIZE: usize = 256 * 1024;

impl Writer<'_> {
    /// Writes all chunks but the first that are not right already.
    pub(super) fn write_chunks(&mut self) -> Result<(), CardError> {
        let zeros_are_there = self.zeros_are_there();
        let Self { lanes, job, stop, stale, ledger, .. } = self;
        let index = job.index;
        let first = 1.min(index.chunks().len());
        let groups = || batches(index, first).flat_map(|batch| wanted(batch, |chunk| stale[chunk]));
        ledger.begin(groups().map(|group| crate::plan::mapped_bytes(index, group)).sum());
        let mut groups = groups().filter(|group| crate::plan::mapped_bytes(index, group.clone()) > 0);
        let mut prepare = |buffer: &mut AlignedBuffer| {
            if stop.is_stopped() {
                return Err(CardError::Stopped);
            }
            let Some(chunks) = groups.next() else { return Ok(None) };
            read_source(job, chunks.clone(), buffer, stop)?;
            let (start, runs) = (bytes_of(index, &chunks).start, runs(index, chunks));
            let stop = stop.clone();
            let work: Work = Box::new(move |device, buffer| {
                write_runs(device, buffer, &runs, start, zeros_are_there, &stop)
            });
            Ok(Some(work))
        };
        lanes.pump(&mut prepare, &mut |_, moved| {
            ledger.note(&moved);
            ledger.advance(WritePhase::Writing, moved.done);
            Ok(())
        })
    }

    /// True when everything that is not copied was just written with zeros.
    pub(super) fn zeros_are_there(&self) -> bool {
        self.job.wipe == Wipe::Zero && !self.refresh
    }
}

/// Fills a buffer with the chunks that travel, each checked.
pub(super) fn read_source(
    job: &Job<'_>,
    chunks: Range<usize>,
    buffer: &mut [u8],
    stop: &StopFlag,
) -> Result<(), CardError> {
    let index = job.index;
    let start = bytes_of(index, &chunks).start;
    for chunk in chunks {
        if !index.chunks()[chunk].travels() {
            continue;
        }
        let range = index.chunk_range(chunk);
        let bytes = &mut buffer[(range.start - start) as usize..(range.end - start) as usize];
        job.source.read_chunk(chunk, bytes, stop).map_err(|error| match error {
            SourceError::Stopped { .. } => CardError::Stopped,
            // A source that waits may end in an error of its own then.
            _ if stop.is_stopped() => CardError::Stopped,
            error => CardError::SourceFailed(error),
        })?;
        if !job.source.gives_checked_chunks() && !index.chunk_matches(chunk, bytes) {
            let offset = range.start;
            return Err(CardError::SourceFailed(SourceError::Corrupt { chunk, offset }));
        }
    }
    Ok(())
}

/// Does what some runs need; `start` is the image offset of the buffer's first byte. Runs in a lane.
pub(super) fn write_runs(
    device: &dyn CardDevice,
    buffer: &mut AlignedBuffer,
    runs: &[Run],
    start: u64,
    zeros_are_there: bool,
    stop: &StopFlag,
) -> Result<Moved, CardError> {
    let mut moved = Moved::default();
    let shared = runs.iter().any(|run| run.action == Action::Copy);
    let mut scratch = None;
    for run in runs {
        if stop.is_stopped() {
            return Err(CardError::Stopped);
        }
        match run.action {
            Action::Copy => {
                let from = (run.offset - start) as usize;
                let end = from + run.length as usize;
                let padded = from + (run.length as usize).next_multiple_of(device.alignment());
                buffer[end..padded].fill(0);
                write_full(device, run.offset, &buffer[from..padded])?;
                moved.copied += run.length;
                moved.touched.push(run.offset..run.end());
            }
            Action::Zero if zeros_are_there => moved.touched.push(run.offset..run.end()),
            Action::Zero if shared => {
                let scratch = scratch.get_or_insert_with(|| AlignedBuffer::new(SCRATCH_SIZE));
                make_zero(device, *run, scratch, &mut moved)?;
            }
            Action::Zero => make_zero(device, *run, buffer, &mut moved)?,
        }
        moved.done += run.length;
    }
    Ok(moved)
}

/// Reads a run and writes zeros over the 4 KiB granules in which the card holds something else.
fn make_zero(
    device: &dyn CardDevice,
    run: Run,
    buffer: &mut AlignedBuffer,
    moved: &mut Moved,
) -> Result<(), CardError> {
    let mut offset = run.offset;
    while offset < run.end() {
        let length = (buffer.len() as u64).min(run.end() - offset) as usize;
        let piece = &mut buffer[..length.next_multiple_of(device.alignment())];
        read_full(device, offset, piece)?;
        let mut at = 0;
        while at < piece.len() {
            let dirty = next_dirty(piece, at);
            if dirty.is_empty() {
                break;
            }
            piece[dirty.clone()].fill(0);
            let from = offset + dirty.start as u64;
            write_full(device, from, &piece[dirty.clone()])?;
            moved.zeroed += dirty.len() as u64;
            moved.touched.push(from..run.end().min(from + dirty.len() as u64));
            at = dirty.end;
        }
        offset += length as u64;
    }
    Ok(())
}

/// The next range of whole granules from `from` on in each of which some byte is not zero.
fn next_dirty(bytes: &[u8], from: usize) -> Range<usize> {
    const ZEROS: [u8; GRANULE as usize] = [0; GRANULE as usize];
    let granule = GRANULE as usize;
    let is_dirty = |at: &usize| {
        let piece = &bytes[*at..(at + granule).min(bytes.len())];
        *piece != ZEROS[..piece.len()]
    };
    let Some(first) = (from..bytes.len()).step_by(granule).find(is_dirty) else {
        return bytes.len()..bytes.len();
    };
    let end = (first..bytes.len()).step_by(granule).find(|at| !is_dirty(at)).unwrap_or(bytes.len());
    first..end
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_granules_that_are_not_zero_are_written() {
        let mut bytes = vec![0; 5 * 4096 + 512];
        assert_eq!(next_dirty(&bytes, 0), bytes.len()..bytes.len());
        bytes[4096 + 7] = 1;
        bytes[3 * 4096 - 1] = 1;
        bytes[5 * 4096 + 511] = 1;
        assert_eq!(next_dirty(&bytes, 0), 4096..3 * 4096);
        assert_eq!(next_dirty(&bytes, 3 * 4096), 5 * 4096..5 * 4096 + 512);
    }
}
