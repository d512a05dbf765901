//! The image's bytes onto the card: each chunk checked before it is written, zeros only where the card holds
//! something else. Called by `write` for all chunks but the first, and by `seal` for that one.

use std::ops::Range;

use cardshop_protocol::index::GRANULE;
use cardshop_protocol::message::{Wipe, WritePhase};

use super::Writer;
use crate::device::{read_full, write_full};
use crate::error::CardError;
use crate::plan::{Action, Run, bytes_of, runs};
use crate::source::SourceError;

impl Writer<'_> {
    /// Writes some chunks.
    pub(super) fn write_batch(&mut self, chunks: Range<usize>) -> Result<(), CardError> {
        self.asked_to_stop()?;
        self.read_source(chunks.clone())?;
        let start = bytes_of(self.job.index, &chunks).start;
        for run in runs(self.job.index, chunks) {
            self.asked_to_stop()?;
            self.write_run(run, start)?;
            self.advance(WritePhase::Writing, run.length);
        }
        Ok(())
    }

    /// Fills the batch buffer with the chunks that travel, each checked.
    pub(super) fn read_source(&mut self, chunks: Range<usize>) -> Result<(), CardError> {
        let index = self.job.index;
        let start = bytes_of(index, &chunks).start;
        for chunk in chunks {
            let record = &index.chunks()[chunk];
            if record.data_bytes == 0 || record.all_zero {
                continue;
            }
            let range = index.chunk_range(chunk);
            let bytes = &mut self.batch[(range.start - start) as usize..(range.end - start) as usize];
            self.job.source.read_chunk(chunk, bytes, self.stop).map_err(|error| match error {
                SourceError::Stopped { .. } => CardError::Stopped,
                error => CardError::SourceFailed(error),
            })?;
            if !index.chunk_matches(chunk, bytes) {
                let offset = range.start;
                return Err(CardError::SourceFailed(SourceError::Corrupt { chunk, offset }));
            }
        }
        Ok(())
    }

    /// Does what one run needs; `start` is the image offset of the batch buffer's first byte.
    pub(super) fn write_run(&mut self, run: Run, start: u64) -> Result<(), CardError> {
        match run.action {
            Action::Copy => {
                let from = (run.offset - start) as usize;
                let end = from + run.length as usize;
                let padded = from + (run.length as usize).next_multiple_of(self.device.alignment());
                self.batch[end..padded].fill(0);
                write_full(self.device, run.offset, &self.batch[from..padded])?;
                self.written_bytes += run.length;
                self.touch(run.offset..run.end());
            }
            // Known: everything that is not copied was just written.
            Action::Zero if self.job.wipe == Wipe::Zero => self.touch(run.offset..run.end()),
            Action::Zero => self.make_zero(run)?,
        }
        Ok(())
    }

    /// Reads a run and writes zeros over the 4 KiB granules in which the card holds something else.
    fn make_zero(&mut self, run: Run) -> Result<(), CardError> {
        let padded = (run.length as usize).next_multiple_of(self.device.alignment());
        read_full(self.device, run.offset, &mut self.other[..padded])?;
        let mut at = 0;
        while at < padded {
            let dirty = next_dirty(&self.other[..padded], at);
            if dirty.is_empty() {
                break;
            }
            self.other[dirty.clone()].fill(0);
            let offset = run.offset + dirty.start as u64;
            write_full(self.device, offset, &self.other[dirty.clone()])?;
            self.zero_written_bytes += dirty.len() as u64;
            self.touch(offset..run.end().min(offset + dirty.len() as u64));
            at = dirty.end;
        }
        Ok(())
    }
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
