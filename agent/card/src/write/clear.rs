//! The first step of a write: the card stops being valid, then it is cleared as asked. Called by `write`.

use std::ops::Range;

use cardshop_protocol::message::{Wipe, WritePhase};

use super::Writer;
use crate::device::sync;
use crate::error::{CardError, Operation};
use crate::plan::not_copied;

/// Bytes zeroed at both ends of a card before anything else: MBR, GPT and its copy, RAID and LVM labels all
/// lie in the first or last MiB.
const TABLE_SIZE: u64 = 1 << 20;
/// Bytes discarded by one request, so that stopping takes seconds: cards discard above 1 GB/s.
const DISCARD_SIZE: u64 = 1 << 30;

impl Writer<'_> {
    /// Makes the card invalid, then clears the rest as asked; true when it was discarded.
    pub(super) fn clear_card(&mut self) -> Result<bool, CardError> {
        let index = self.job.index;
        let size = self.device.size();
        let alignment = self.device.alignment() as u64;
        let first_chunk = index.chunks().first().map_or(0, |_| index.chunk_range(0).end);
        let head = first_chunk.max(TABLE_SIZE).next_multiple_of(alignment).min(size);
        let tail = (size.saturating_sub(TABLE_SIZE) / alignment * alignment).max(head);
        self.asked_to_stop()?;
        self.write_zeros(0..head)?;
        self.write_zeros(tail..size)?;
        sync(self.device)?;
        // Both ends stay out of it: a discarded block may read as what it held before.
        match self.job.wipe {
            Wipe::Discard => self.discard(head..tail),
            Wipe::Zero => self.wipe_with_zeros(head..tail).map(|()| false),
            Wipe::None => Ok(false),
        }
    }

    fn discard(&mut self, range: Range<u64>) -> Result<bool, CardError> {
        self.begin(range.end - range.start);
        let mut at = range.start;
        while at < range.end {
            self.asked_to_stop()?;
            let length = DISCARD_SIZE.min(range.end - at);
            match self.device.discard(at, length) {
                Ok(true) => {}
                Ok(false) => return Ok(false),
                Err(error) => match CardError::from_io(Operation::Write, at, error) {
                    CardError::Removed => return Err(CardError::Removed),
                    // It only saves work: the card is judged by what is written and read back.
                    error => {
                        tracing::warn!(offset = at, "discard failed, going on without: {error}");
                        return Ok(false);
                    }
                },
            }
            at += length;
            self.advance(WritePhase::Wiping, length);
        }
        Ok(true)
    }

    fn wipe_with_zeros(&mut self, range: Range<u64>) -> Result<(), CardError> {
        let alignment = self.device.alignment() as u64;
        self.begin(not_copied(self.job.index, range.clone(), alignment).map(|gap| gap.end - gap.start).sum());
        for gap in not_copied(self.job.index, range, alignment) {
            let mut at = gap.start;
            while at < gap.end {
                self.asked_to_stop()?;
                let end = gap.end.min(at + self.other.len() as u64);
                self.write_zeros(at..end)?;
                self.advance(WritePhase::Wiping, end - at);
                at = end;
            }
        }
        Ok(())
    }
}
