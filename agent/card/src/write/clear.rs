//! The first step of a write: the card stops being valid, then it is cleared as asked. Called by `write`.

use std::ops::Range;

use cardshop_protocol::message::{Wipe, WritePhase};

use super::Writer;
use crate::device::{AlignedBuffer, write_full};
use crate::error::{CardError, Operation};
use crate::lanes::{Moved, Work};
use crate::plan::{not_copied, not_mapped};

/// Bytes zeroed at both ends of a card before anything else: MBR, GPT and its copy, RAID and LVM labels all
/// lie in the first or last MiB.
const TABLE_SIZE: u64 = 1 << 20;
/// Bytes discarded by one request, so that stopping takes seconds: cards discard above 1 GB/s.
const DISCARD_SIZE: u64 = 1 << 30;

impl Writer<'_> {
    /// Makes the card invalid, then clears the rest as asked; true when it was discarded.
    pub(super) fn clear_card(&mut self) -> Result<bool, CardError> {
        let (index, size, alignment) = (self.job.index, self.size, self.alignment);
        let first_chunk = index.chunks().first().map_or(0, |_| index.chunk_range(0).end);
        let head = first_chunk.max(TABLE_SIZE).next_multiple_of(alignment).min(size);
        let tail = (size.saturating_sub(TABLE_SIZE) / alignment * alignment).max(head);
        self.asked_to_stop()?;
        if self.refresh {
            // What is mapped behind chunk 0 is compared, not cleared.
            let valid = first_chunk.next_multiple_of(alignment).min(size);
            let gaps: Vec<_> = [valid..head, tail..size]
                .into_iter()
                .flat_map(|end| not_mapped(index, end, alignment).collect::<Vec<_>>())
                .collect();
            self.write_zeros(std::iter::once(0..valid), None)?;
            self.sync()?;
            self.write_zeros(gaps.into_iter(), None)?;
            return Ok(false);
        }
        // One after the other, and the first is one request: the card is invalid before anything else of it changes.
        let first = head.min(self.lanes.buffer_size() as u64);
        self.write_zeros(std::iter::once(0..first), None)?;
        self.write_zeros(std::iter::once(first..head), None)?;
        self.write_zeros(std::iter::once(tail..size), None)?;
        self.sync()?;
        // Both ends stay out of it: a discarded block may read as what it held before.
        match self.job.wipe {
            Wipe::Discard => self.discard(head..tail),
            Wipe::Zero => self.wipe_with_zeros(head..tail).map(|()| false),
            Wipe::None => Ok(false),
        }
    }

    fn discard(&mut self, range: Range<u64>) -> Result<bool, CardError> {
        self.ledger.begin(range.end - range.start);
        let mut at = range.start;
        while at < range.end {
            self.asked_to_stop()?;
            let length = DISCARD_SIZE.min(range.end - at);
            let discarded = self.lanes.run(move |device, _| {
                device.discard(at, length).map_err(|error| CardError::from_io(Operation::Write, at, error))
            });
            match discarded {
                Ok(true) => {}
                Ok(false) => return Ok(false),
                Err(error @ (CardError::Removed | CardError::Stuck { .. })) => return Err(error),
                // It only saves work: the card is judged by what is written and read back.
                Err(error) => {
                    tracing::warn!(offset = at, "discard failed, going on without: {error}");
                    return Ok(false);
                }
            }
            at += length;
            self.ledger.advance(WritePhase::Wiping, length);
        }
        Ok(true)
    }

    fn wipe_with_zeros(&mut self, range: Range<u64>) -> Result<(), CardError> {
        let (index, alignment) = (self.job.index, self.alignment);
        self.ledger.begin(not_copied(index, range.clone(), alignment).map(|gap| gap.end - gap.start).sum());
        self.write_zeros(not_copied(index, range, alignment), Some(WritePhase::Wiping))
    }

    /// Zeros over some ranges, told as progress of `phase`. To be stopped only within a phase.
    pub(super) fn write_zeros(
        &mut self,
        ranges: impl Iterator<Item = Range<u64>>,
        phase: Option<WritePhase>,
    ) -> Result<(), CardError> {
        let Self { lanes, stop, ledger, .. } = self;
        let size = lanes.buffer_size() as u64;
        let mut pieces = ranges.flat_map(move |range| {
            let end = range.end;
            range.step_by(size as usize).map(move |at| at..(at + size).min(end))
        });
        let mut prepare = |_: &mut AlignedBuffer| match pieces.next() {
            Some(_) if phase.is_some() && stop.is_stopped() => Err(CardError::Stopped),
            piece => Ok(piece.map(zeroing)),
        };
        lanes.pump(&mut prepare, &mut |_, moved| {
            if let Some(phase) = phase {
                ledger.advance(phase, moved.zeroed);
            }
            Ok(())
        })
    }
}

fn zeroing(range: Range<u64>) -> Work {
    Box::new(move |device, buffer| {
        let zeros = &mut buffer[..(range.end - range.start) as usize];
        zeros.fill(0);
        write_full(device, range.start, zeros)?;
        Ok(Moved { zeroed: range.end - range.start, ..Moved::default() })
    })
}
