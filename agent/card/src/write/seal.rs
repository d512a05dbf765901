//! The last steps of a write: the passport, and the first chunk, which makes the card valid. A failure here
//! takes the first chunk away again. Called by `write` when all else is verified.

use std::ops::Range;

use cardshop_protocol::index::GRANULE;
use cardshop_protocol::message::{Verify, WritePhase};

use super::Writer;
use crate::device::{read_full, sync, write_full};
use crate::error::CardError;
use crate::passport::{PassportFiles, passport_blocks};
use crate::plan::{Run, runs};
use crate::verify::{drop_caches, first_and_last, mismatch};

impl Writer<'_> {
    /// Overwrites the passport's files in place; false when the image has no room or the caller no passport.
    pub(super) fn write_passport(&mut self) -> Result<bool, CardError> {
        let has_room = !self.job.index.passport().is_empty();
        let Some(make) = self.job.passport.filter(|_| has_room) else { return Ok(false) };
        self.asked_to_stop()?;
        let blocks = self.write_passport_blocks(&make())?;
        sync(self.device)?;
        drop_caches(self.device)?;
        for (offset, bytes) in &blocks {
            read_full(self.device, *offset, &mut self.other[..bytes.len()])?;
            if let Some((first, last)) = first_and_last(bytes, |at| bytes[at] != self.other[at]) {
                return Err(mismatch(offset + first as u64, offset + last as u64));
            }
        }
        Ok(true)
    }

    /// Writes both files, padded; gives what was written where.
    pub(super) fn write_passport_blocks(
        &mut self,
        files: &PassportFiles,
    ) -> Result<Vec<(u64, Vec<u8>)>, CardError> {
        let blocks = passport_blocks(self.job.index.passport(), files)?;
        for (offset, bytes) in &blocks {
            self.other[..bytes.len()].copy_from_slice(bytes);
            write_full(self.device, *offset, &self.other[..bytes.len()])?;
        }
        Ok(blocks)
    }

    /// Writes the mark over chunk 0, but for its first 512 bytes and the passport's files.
    pub(super) fn mark_first_chunk(&mut self) -> Result<(), CardError> {
        for range in self.markable() {
            let bytes = &mut self.other[..(range.end - range.start) as usize];
            for (at, byte) in (range.start..).zip(bytes.iter_mut()) {
                *byte = mark_at(at);
            }
            write_full(self.device, range.start, bytes)?;
        }
        sync(self.device)
    }

    /// Compares chunk 0 with the mark, past all caches.
    fn expect_mark(&mut self) -> Result<(), CardError> {
        drop_caches(self.device)?;
        for range in self.markable() {
            let bytes = &mut self.other[..(range.end - range.start) as usize];
            read_full(self.device, range.start, bytes)?;
            let is_bad = |at: usize| bytes[at] != mark_at(range.start + at as u64);
            if let Some((first, last)) = first_and_last(bytes, is_bad) {
                return Err(mismatch(range.start + first as u64, range.start + last as u64));
            }
        }
        Ok(())
    }

    fn clear_mark(&mut self) -> Result<(), CardError> {
        self.markable().into_iter().try_for_each(|range| self.write_zeros(range))
    }

    /// Chunk 0 without the passport's files, in whole blocks of the card.
    fn markable(&self) -> Vec<Range<u64>> {
        let (index, block) = (self.job.index, self.device.alignment() as u64);
        let end = index.chunk_range(0).end.next_multiple_of(block);
        let mut files: Vec<Range<u64>> =
            index.passport().iter().map(|file| file.offset..file.offset + file.length).collect();
        files.sort_by_key(|file| file.start);
        files.push(end..end);
        let mut at = 0;
        let gaps = files.into_iter().map(|file| {
            let gap = at..file.start.min(end);
            at = at.max(file.end);
            gap
        });
        gaps.filter(|gap| !gap.is_empty()).collect()
    }

    /// Makes the card valid: chunk 0, its first 4 KiB last of all. Not to be stopped: it takes milliseconds.
    pub(super) fn seal(&mut self) -> Result<u64, CardError> {
        if self.job.index.chunks().is_empty() {
            return Ok(0);
        }
        if self.job.verify != Verify::None {
            self.expect_mark()?;
            self.clear_mark()?;
        }
        self.read_source(0..1)?;
        let (first, rest) = split_at_granule(runs(self.job.index, 0..1));
        for part in [rest, first] {
            for run in part {
                self.write_run(run, 0)?;
            }
            sync(self.device)?;
        }
        if self.job.verify == Verify::None {
            return Ok(0);
        }
        drop_caches(self.device)?;
        let verified = self.verify_chunks(0..1)?;
        self.advance(WritePhase::Verifying, verified);
        Ok(verified)
    }

    /// Clears chunk 0 after a failure of [`Writer::seal`]; gives what is to be reported.
    pub(super) fn invalidate_again(&mut self, cause: CardError) -> CardError {
        match self.clear_first_chunk() {
            Ok(()) => cause,
            Err(source) => CardError::NotInvalidated { cause: Box::new(cause), source: Box::new(source) },
        }
    }

    /// Takes the mark away after a failure, if it can be: a card that bears it is not valid either.
    pub(super) fn unmark(&mut self, cause: CardError) -> CardError {
        if let Err(error) = self.clear_first_chunk() {
            tracing::debug!("the mark stays on the card: {error}");
        }
        cause
    }

    fn clear_first_chunk(&mut self) -> Result<(), CardError> {
        let end = self.job.index.chunk_range(0).end.next_multiple_of(self.device.alignment() as u64);
        self.write_zeros(0..end)?;
        sync(self.device)
    }
}

/// What chunk 0 holds, from byte 512 on, while the rest is read back. A fake card that wraps around shows it
/// where the image has something else, zeros included; were chunk 0 zero, it would pass for the image's zeros.
/// Plain text, so that no firmware and no kernel takes it for a boot record or a file system.
const MARK: &[u8; 64] = b"This card is not complete: its image was not yet verified there\n";

fn mark_at(offset: u64) -> u8 {
    if offset < 512 { 0 } else { MARK[(offset % 64) as usize] }
}

/// The runs in the first granule of the card, and those behind it.
fn split_at_granule(runs: Vec<Run>) -> (Vec<Run>, Vec<Run>) {
    let (mut first, mut rest) = (Vec::new(), Vec::new());
    for run in runs {
        let cut = GRANULE.clamp(run.offset, run.end());
        if cut > run.offset {
            first.push(Run { length: cut - run.offset, ..run });
        }
        if cut < run.end() {
            rest.push(Run { offset: cut, length: run.end() - cut, ..run });
        }
    }
    (first, rest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Action::{Copy, Zero};

    #[test]
    fn a_card_with_the_mark_has_no_boot_record() {
        assert!((0..512).all(|at| mark_at(at) == 0));
        assert!((512..70_000).all(|at| mark_at(at).is_ascii() && mark_at(at) != 0));
    }

    #[test]
    fn the_first_granule_is_told_apart_from_the_rest_of_the_chunk() {
        let run = |offset, length, action| Run { offset, length, action };
        let (first, rest) = split_at_granule(vec![run(0, 12_288, Copy), run(12_288, 4096, Zero)]);
        assert_eq!(first, [run(0, 4096, Copy)]);
        assert_eq!(rest, [run(4096, 8192, Copy), run(12_288, 4096, Zero)]);
        let (first, rest) = split_at_granule(vec![run(0, 100, Copy)]);
        assert_eq!((first.len(), rest.len()), (1, 0));
        let (first, rest) = split_at_granule(vec![run(4096, 4096, Copy)]);
        assert_eq!((first.len(), rest.len()), (0, 1));
    }
}
