//! Writes an image to a claimed card so that a card that is not complete never looks complete. Called by the
//! agent and the command line, one thread per card; a slow card holds nobody up.
//!
//! ```text
//!  CardTooSmall? ──► zero the first MiB and chunk 0, zero the last MiB, sync     card neither boots nor mounts
//!                        │
//!                    wipe the rest: discard | zero | nothing
//!                        │
//!                    chunks 1…n: copy data; read what must be zero, write it only where it is not;
//!                        │ sync    blank passport files: a re-used card may hold an old passport there
//!                    mark chunk 0 from byte 512 on: text that no image holds, sync
//!                        │
//!                    read back chunks 1…n past all caches, compare with the index
//!                        │
//!                    passport files, if the image has room for them: write, sync, read back, compare
//!                        │
//!                    mark still there? (a fake card that wraps around has written the image's end there,
//!                        │                or has shown the mark at the image's end)
//!                    mark zeroed
//!                        │
//!                    chunk 0 but its first 4 KiB, sync ─► first 4 KiB, sync ─► read back chunk 0 ─► Ok(Outcome)
//!                                                   │
//!                                                   └── any failure: chunk 0 is zeroed again
//! ```
//!
//! Every failure before the last line leaves chunk 0 zero; power lost, or the card pulled out, while it is read
//! back leaves the mark, which neither boots nor mounts. The stop flag is asked between requests up to the
//! last line, which takes milliseconds. Each chunk of the source is checked against the index before a byte
//! of it is written, so that a mismatch at read-back is the card's. Memory: two buffers of 1 MiB (one chunk
//! where that is larger), whatever the image's size, and one byte of bookkeeping per chunk.

mod clear;
mod copy;
mod seal;

use std::ops::Range;
use std::time::{Duration, Instant};

use cardshop_protocol::index::Index;
use cardshop_protocol::message::{Verify, Wipe, WritePhase};

use crate::claim::ClaimedCard;
use crate::device::{AlignedBuffer, CardDevice, sync, write_full};
use crate::error::CardError;
use crate::passport::PassportFiles;
use crate::plan::{batches, mapped_bytes, request_size};
use crate::source::ChunkSource;
use crate::stop::StopFlag;
use crate::verify::{drop_caches, expected_bytes, fits, locate, verify_batch};

/// What to write, and how.
pub struct Job<'a> {
    /// The image's index.
    pub index: &'a Index,
    /// The image's bytes.
    pub source: &'a dyn ChunkSource,
    /// What happens to the bytes that are not mapped.
    pub wipe: Wipe,
    /// How much is read back.
    pub verify: Verify,
    /// Makes the passport's files, once, after all but chunk 0 is verified. Not called when the image has no
    /// room for them, or when nothing is read back: a passport says that the card is verified.
    pub passport: Option<&'a dyn Fn() -> PassportFiles>,
}

/// How far a step is. `total` may differ from step to step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Step.
    pub phase: WritePhase,
    /// Bytes of this step the device has acknowledged.
    pub done: u64,
    /// Bytes of this step.
    pub total: u64,
}

/// What a finished write did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// Bytes of the image copied to the card.
    pub written_bytes: u64,
    /// Bytes that had to be made zero because the card held something else.
    pub zero_written_bytes: u64,
    /// Bytes read back and compared with the index.
    pub verified_bytes: u64,
    /// What was read back: `Full` every mapped byte, `Written` every chunk this run wrote to.
    pub verified: Verify,
    /// True when the device was told that its other bytes are of no use.
    pub discarded: bool,
    /// Clearing and writing.
    pub write_duration: Duration,
    /// Reading back.
    pub verify_duration: Duration,
    /// True when the passport is on the card, read back and compared.
    pub passport_written: bool,
}

impl Outcome {
    /// True when the card may be called verified: never without a read-back, nor when there was nothing to read.
    pub fn is_verified(&self) -> bool {
        self.verified != Verify::None && self.verified_bytes > 0
    }
}

/// Writes and verifies one card.
///
/// # Errors
/// Any [`CardError`] but `Refused`, `Open` and `FakeCapacity`. The card is then left without its first chunk,
/// unless it is `CardTooSmall` (untouched) or `NotInvalidated`.
pub fn write_card(
    card: &mut ClaimedCard,
    job: &Job<'_>,
    stop: &StopFlag,
    progress: &mut dyn FnMut(Progress),
) -> Result<Outcome, CardError> {
    fits(card.size(), job.index)?;
    let index = job.index;
    let buffer = || AlignedBuffer::new(request_size(index));
    let mut run = Writer {
        device: card.device(),
        job,
        stop,
        progress,
        batch: buffer(),
        other: buffer(),
        done: 0,
        total: 0,
        touched: vec![false; index.chunks().len()],
        written_bytes: 0,
        zero_written_bytes: 0,
    };
    run.write()
}

struct Writer<'a> {
    device: &'a mut dyn CardDevice,
    job: &'a Job<'a>,
    stop: &'a StopFlag,
    progress: &'a mut dyn FnMut(Progress),
    /// The chunks being written or compared.
    batch: AlignedBuffer,
    /// What the card holds where it must be zero; zeros to write; the image's bytes of a bad chunk.
    other: AlignedBuffer,
    done: u64,
    total: u64,
    /// Chunks this run wrote to.
    touched: Vec<bool>,
    written_bytes: u64,
    zero_written_bytes: u64,
}

impl Writer<'_> {
    fn write(&mut self) -> Result<Outcome, CardError> {
        let (index, began) = (self.job.index, Instant::now());
        let discarded = self.clear_card()?;
        let later = 1.min(index.chunks().len())..index.chunks().len();
        self.begin(mapped_bytes(index, later.clone()));
        for batch in batches(index, later.start) {
            self.write_batch(batch)?;
        }
        self.write_passport_blocks(&PassportFiles::default())?;
        self.asked_to_stop()?;
        sync(self.device)?;
        let write_duration = began.elapsed();

        let began = Instant::now();
        let (mut verified_bytes, mut passport_written) = (0, false);
        // A passport says `verified`: a card nobody read back gets none.
        if self.job.verify != Verify::None {
            (verified_bytes, passport_written) = self.read_back().map_err(|cause| self.unmark(cause))?;
        }
        self.asked_to_stop().map_err(|cause| self.unmark(cause))?;
        verified_bytes += self.seal().map_err(|cause| self.invalidate_again(cause))?;
        Ok(Outcome {
            written_bytes: self.written_bytes,
            zero_written_bytes: self.zero_written_bytes,
            verified_bytes,
            verified: self.job.verify,
            discarded,
            write_duration,
            verify_duration: began.elapsed(),
            passport_written,
        })
    }

    /// Compares all but chunk 0, then writes the passport; gives the bytes compared and whether there is one.
    fn read_back(&mut self) -> Result<(u64, bool), CardError> {
        let index = self.job.index;
        self.mark_first_chunk()?;
        drop_caches(self.device)?;
        self.begin(index.data_bytes() + index.zero_bytes());
        let mut verified_bytes = 0;
        for batch in batches(index, 1.min(index.chunks().len())) {
            verified_bytes += self.verify_batch(batch)?;
        }
        Ok((verified_bytes, self.write_passport()?))
    }

    fn asked_to_stop(&self) -> Result<(), CardError> {
        if self.stop.is_stopped() { Err(CardError::Stopped) } else { Ok(()) }
    }

    fn begin(&mut self, total: u64) {
        (self.done, self.total) = (0, total);
    }

    fn advance(&mut self, phase: WritePhase, by: u64) {
        self.done += by;
        (self.progress)(Progress { phase, done: self.done, total: self.total });
    }

    fn write_zeros(&mut self, range: Range<u64>) -> Result<(), CardError> {
        self.other.fill(0);
        let mut at = range.start;
        while at < range.end {
            let length = (range.end - at).min(self.other.len() as u64);
            write_full(self.device, at, &self.other[..length as usize])?;
            at += length;
        }
        Ok(())
    }

    /// Notes that bytes of these chunks were written.
    fn touch(&mut self, written: Range<u64>) {
        let size = u64::from(self.job.index.chunk_size());
        self.touched[(written.start / size) as usize..=((written.end - 1) / size) as usize].fill(true);
    }

    /// Compares some chunks with the index, all or those written; gives how many bytes.
    fn verify_batch(&mut self, chunks: Range<usize>) -> Result<u64, CardError> {
        let mut verified = 0;
        let mut at = chunks.start;
        while at < chunks.end {
            // Neighbouring chunks that are to be read become one request.
            let wanted = |chunk: &usize| self.job.verify == Verify::Full || self.touched[*chunk];
            let first = (at..chunks.end).find(wanted).unwrap_or(chunks.end);
            let end = (first..chunks.end).find(|c| !wanted(c)).unwrap_or(chunks.end);
            if first < end {
                self.asked_to_stop()?;
                verified += self.verify_chunks(first..end)?;
            }
            at = end;
        }
        self.advance(WritePhase::Verifying, mapped_bytes(self.job.index, chunks));
        Ok(verified)
    }

    fn verify_chunks(&mut self, chunks: Range<usize>) -> Result<u64, CardError> {
        let (job, stop, other) = (self.job, self.stop, &mut self.other);
        verify_batch(self.device, job.index, chunks, &mut self.batch, &mut |chunk, bytes| {
            let expected = expected_bytes(job.index, job.source, chunk, other, stop);
            locate(job.index, chunk, bytes, expected)
        })
    }
}
