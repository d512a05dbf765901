//! Writes an image to a claimed card so that a card that is not complete never looks complete. Called by the
//! agent and the command line, one thread per card; a slow card holds nobody up.
//!
//! ```text
//!  CardTooSmall? ──► zero the first MiB and chunk 0, zero the last MiB, sync     card neither boots nor mounts
//!                        │
//!                    wipe the rest: discard | zero | nothing
//!                        │           refresh: read the card and compare; chunks that are right are left out below
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
//! of it is written, so that a mismatch at read-back is the card's. The source is read, and what was read back
//! is digested, while requests to the card are in flight (`lanes`). Memory: three buffers of 512 KiB (one chunk
//! where that is larger), whatever the image's size, and two bytes of bookkeeping per chunk.

mod clear;
mod copy;
mod ledger;
mod seal;

use std::time::{Duration, Instant};

use cardshop_protocol::index::Index;
use cardshop_protocol::message::{Verify, Wipe, WritePhase};

use crate::claim::ClaimedCard;
use crate::device::sync;
use crate::error::CardError;
use crate::lanes::Lanes;
use crate::passport::PassportFiles;
use crate::plan::{batches, mapped_bytes, request_size, wanted};
use crate::source::ChunkSource;
use crate::stop::StopFlag;
use crate::verify::{compare, drop_caches, expected_bytes, fits, is_right, locate, read_chunks};
use ledger::Ledger;

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
    /// Mapped bytes that a refresh found right on the card and did not write.
    pub kept_bytes: u64,
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
    Writer::new(card, job, stop, progress, false)?.write()
}

/// Brings a card that holds an earlier build of the image up to date: what it holds is read and compared first,
/// and only chunks that differ are written. Nothing is wiped but the partition tables at both ends. Verified as
/// any other card; on a card that holds something else it does what [`write_card`] does, after one more read.
///
/// # Errors
/// As [`write_card`].
pub fn refresh_card(
    card: &mut ClaimedCard,
    job: &Job<'_>,
    stop: &StopFlag,
    progress: &mut dyn FnMut(Progress),
) -> Result<Outcome, CardError> {
    Writer::new(card, job, stop, progress, true)?.write()
}

struct Writer<'a> {
    lanes: Lanes,
    /// Bytes of the card.
    size: u64,
    /// Bytes that requests are multiples of.
    alignment: u64,
    job: &'a Job<'a>,
    stop: &'a StopFlag,
    refresh: bool,
    /// Chunks that are to be written.
    stale: Vec<bool>,
    ledger: Ledger<'a>,
}

impl<'a> Writer<'a> {
    fn new(
        card: &ClaimedCard,
        job: &'a Job<'a>,
        stop: &'a StopFlag,
        progress: &'a mut dyn FnMut(Progress),
        refresh: bool,
    ) -> Result<Self, CardError> {
        fits(card.size(), job.index)?;
        let device = card.device();
        Ok(Self {
            size: device.size(),
            alignment: device.alignment() as u64,
            lanes: Lanes::new(device, request_size(job.index))?,
            job,
            stop,
            refresh,
            stale: vec![true; job.index.chunks().len()],
            ledger: Ledger::new(job.index, progress),
        })
    }

    fn write(&mut self) -> Result<Outcome, CardError> {
        let (index, began) = (self.job.index, Instant::now());
        let discarded = self.clear_card()?;
        if self.refresh {
            self.find_stale()?;
        }
        self.write_chunks()?;
        self.write_passport_blocks(&PassportFiles::default())?;
        self.asked_to_stop()?;
        self.sync()?;
        let write_duration = began.elapsed();

        let began = Instant::now();
        let (mut verified_bytes, mut passport_written) = (0, false);
        // A passport says `verified`: a card nobody read back gets none.
        if self.job.verify != Verify::None {
            (verified_bytes, passport_written) = self.read_back().map_err(|cause| self.unmark(cause))?;
        }
        self.asked_to_stop().map_err(|cause| self.unmark(cause))?;
        verified_bytes += self.seal().map_err(|cause| self.invalidate_again(cause))?;
        let later = 1.min(index.chunks().len())..index.chunks().len();
        Ok(Outcome {
            written_bytes: self.ledger.written_bytes,
            zero_written_bytes: self.ledger.zero_written_bytes,
            kept_bytes: later.filter(|c| !self.stale[*c]).map(|c| mapped_bytes(index, c..c + 1)).sum(),
            verified_bytes,
            verified: self.job.verify,
            discarded,
            write_duration,
            verify_duration: began.elapsed(),
            passport_written,
        })
    }

    /// Compares what the card holds, but for chunk 0, with the index: chunks that are right are not written.
    fn find_stale(&mut self) -> Result<(), CardError> {
        let Self { lanes, job, stop, stale, ledger, .. } = self;
        let index = job.index;
        let first = 1.min(index.chunks().len());
        lanes.run(|device, _| drop_caches(device))?;
        ledger.begin(mapped_bytes(index, first..index.chunks().len()));
        read_chunks(lanes, index, &mut batches(index, first), stop, &mut |chunks, bytes| {
            ledger.advance(WritePhase::Probing, mapped_bytes(index, chunks.clone()));
            for chunk in chunks.clone() {
                let from = (index.chunk_range(chunk).start - index.chunk_range(chunks.start).start) as usize;
                let length = (index.chunk_range(chunk).end - index.chunk_range(chunk).start) as usize;
                stale[chunk] = !is_right(index, chunk, &bytes[from..from + length]);
            }
            Ok(())
        })?;
        (first..stale.len())
            .filter(|chunk| index.chunks()[*chunk].nothing_listed)
            .for_each(|chunk| stale[chunk] = false);
        Ok(())
    }

    /// Compares all but chunk 0, then writes the passport; gives the bytes compared and whether there is one.
    fn read_back(&mut self) -> Result<(u64, bool), CardError> {
        let index = self.job.index;
        self.mark_first_chunk()?;
        self.lanes.run(|device, _| drop_caches(device))?;
        let verified_bytes =
            self.verify_chunks(1.min(index.chunks().len())..index.chunks().len(), self.stop)?;
        Ok((verified_bytes, self.write_passport()?))
    }

    /// Compares those of the chunks that are to be compared with the index; gives how many bytes.
    fn verify_chunks(&mut self, chunks: std::ops::Range<usize>, stop: &StopFlag) -> Result<u64, CardError> {
        let Self { lanes, job, ledger, .. } = self;
        let index = job.index;
        let touched = ledger.touched.clone();
        let is_wanted = |chunk: usize| job.verify == Verify::Full || touched[chunk];
        // Neighbouring chunks that are to be read become one request.
        let all = || batches(index, chunks.start).map(|b| b.start..b.end.min(chunks.end));
        let groups = || all().take_while(|b| !b.is_empty()).flat_map(|batch| wanted(batch, is_wanted));
        ledger.begin(groups().map(|group| mapped_bytes(index, group)).sum());
        let mut verified = 0;
        read_chunks(lanes, index, &mut groups(), stop, &mut |chunks, bytes| {
            compare(index, chunks.clone(), bytes, &mut |chunk, bytes| {
                let expected = expected_bytes(index, job.source, chunk, stop);
                locate(index, chunk, bytes, expected.as_deref())
            })?;
            let length = mapped_bytes(index, chunks);
            verified += length;
            ledger.advance(WritePhase::Verifying, length);
            Ok(())
        })?;
        Ok(verified)
    }

    fn sync(&mut self) -> Result<(), CardError> {
        self.lanes.run(|device, _| sync(device))
    }

    fn asked_to_stop(&self) -> Result<(), CardError> {
        if self.stop.is_stopped() { Err(CardError::Stopped) } else { Ok(()) }
    }
}
