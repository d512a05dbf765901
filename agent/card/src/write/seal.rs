//! The last steps of a write: the passport, and the first chunk, which makes the card valid. A failure here
//! takes the first chunk away again. Called by `write` when all else is verified.

use std::ops::Range;

use cardshop_protocol::index::GRANULE;
use cardshop_protocol::message::Verify;

use super::Writer;
use super::copy::{read_source, write_runs};
use crate::device::{AlignedBuffer, CardDevice, read_full, sync, write_full};
use crate::error::CardError;
use crate::passport::{PassportFiles, passport_blocks};
use crate::plan::{Run, runs};
use crate::stop::StopFlag;
use crate::verify::{drop_caches, first_and_last, mismatch};

impl Writer<'_> {
    /// Overwrites the passport's files in place; false when the image has no room or the caller no passport.
    pub(super) fn write_passport(&mut self) -> Result<bool, CardError> {
        let has_room = !self.job.index.passport().is_empty();
        let Some(make) = self.job.passport.filter(|_| has_room) else { return Ok(false) };
        self.asked_to_stop()?;
        let blocks = self.write_passport_blocks(&make())?;
        self.sync()?;
        self.lanes.run(move |device, buffer| {
            drop_caches(device)?;
            blocks.iter().try_for_each(|(offset, bytes)| {
                expect(device, buffer, *offset..*offset + bytes.len() as u64, |at| {
                    bytes[(at - offset) as usize]
                })
            })
        })?;
        Ok(true)
    }

    /// Writes both files, padded; gives what was written where.
    pub(super) fn write_passport_blocks(
        &mut self,
        files: &PassportFiles,
    ) -> Result<Vec<(u64, Vec<u8>)>, CardError> {
        let blocks = passport_blocks(self.job.index.passport(), files)?;
        self.lanes.run(move |device, buffer| {
            for (offset, bytes) in &blocks {
                buffer[..bytes.len()].copy_from_slice(bytes);
                write_full(device, *offset, &buffer[..bytes.len()])?;
            }
            Ok(blocks)
        })
    }

    /// Writes the mark over chunk 0, but for its first 512 bytes and the passport's files.
    pub(super) fn mark_first_chunk(&mut self) -> Result<(), CardError> {
        let markable = self.markable();
        self.lanes.run(move |device, buffer| {
            for range in markable {
                let bytes = &mut buffer[..(range.end - range.start) as usize];
                for (at, byte) in (range.start..).zip(bytes.iter_mut()) {
                    *byte = mark_at(at);
                }
                write_full(device, range.start, bytes)?;
            }
            sync(device)
        })
    }

    /// Compares chunk 0 with the mark, past all caches.
    fn expect_mark(&mut self) -> Result<(), CardError> {
        let markable = self.markable();
        self.lanes.run(move |device, buffer| {
            drop_caches(device)?;
            markable.into_iter().try_for_each(|range| expect(device, buffer, range, mark_at))
        })
    }

    fn clear_mark(&mut self) -> Result<(), CardError> {
        let markable = self.markable();
        self.write_zeros(markable.into_iter(), None)
    }

    /// Chunk 0 without the passport's files, in whole blocks of the card.
    fn markable(&self) -> Vec<Range<u64>> {
        let index = self.job.index;
        let end = index.chunk_range(0).end.next_multiple_of(self.alignment);
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
        let mut bytes = vec![0; self.job.index.chunk_range(0).end as usize];
        read_source(self.job, 0..1, &mut bytes, self.stop)?;
        let (first, rest) = split_at_granule(runs(self.job.index, 0..1));
        let zeros_are_there = self.zeros_are_there();
        for part in [rest, first] {
            let bytes = bytes.clone();
            let moved = self.lanes.run(move |device, buffer| {
                buffer[..bytes.len()].copy_from_slice(&bytes);
                let moved = write_runs(device, buffer, &part, 0, zeros_are_there, &StopFlag::new())?;
                sync(device)?;
                Ok(moved)
            })?;
            self.ledger.note(&moved);
        }
        if self.job.verify == Verify::None {
            return Ok(0);
        }
        self.lanes.run(|device, _| drop_caches(device))?;
        // Written a moment ago, so compared whatever else is.
        self.ledger.touched[0] = true;
        self.verify_chunks(0..1, &StopFlag::new())
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
        let end = self.job.index.chunk_range(0).end.next_multiple_of(self.alignment);
        self.write_zeros(std::iter::once(0..end), None)?;
        self.sync()
    }
}

/// Reads a range and compares it with what each of its bytes should be.
fn expect(
    device: &dyn CardDevice,
    buffer: &mut AlignedBuffer,
    range: Range<u64>,
    byte_at: impl Fn(u64) -> u8,
) -> Result<(), CardError> {
    let bytes = &mut buffer[..(range.end - range.start) as usize];
    read_full(device, range.start, bytes)?;
    let is_bad = |at: usize| bytes[at] != byte_at(range.start + at as u64);
    match first_and_last(bytes, is_bad) {
        Some((first, last)) => Err(mismatch(range.start + first as u64, range.start + last as u64)),
        None => Ok(()),
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
