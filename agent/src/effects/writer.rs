//! One thread per card: claims the device, writes and verifies it through the card crate, and tells the shop
//! how it goes and how it ended. Exactly one `Ended` follows every thread that starts, whatever happens in between.

use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant};

use cardshop_card::{
    CardError, ChunkSource, ClaimedCard, DeviceClass, FailureNote, Job, Outcome, PassportFiles, Policy,
    SourceError, StopFlag, claim, probe, write_card,
};
use cardshop_protocol::api::CardRecord;
use cardshop_protocol::ids::{ApplianceId, ObjectId, SlotId};
use cardshop_protocol::message::{Passport, Remedy};
use cardshop_protocol::time::Timestamp;
use ed25519_dalek::SigningKey;

use super::clock::Clock;
use super::devices::Device;
use super::passport;
use super::store::{ASK_STOP_EVERY, ImageStore};
use crate::core::rate::Meter;
use crate::core::{Event, Failure, SlotEvent, Work};

/// A writer that waits this long for a chunk says that it is waiting: shorter pauses are the network's.
const STALLED_AFTER: Duration = Duration::from_secs(1);

/// All a writer needs.
pub(crate) struct Task {
    pub(crate) slot: SlotId,
    pub(crate) job: u64,
    pub(crate) card_size: u64,
    pub(crate) work: Work,
    /// As in [`crate::core::Effect::Write`].
    pub(crate) again: Option<Option<FailureNote>>,
    pub(crate) device: Device,
    pub(crate) store: Arc<ImageStore>,
    pub(crate) key: Arc<SigningKey>,
    pub(crate) appliance: ApplianceId,
    pub(crate) shop: String,
    /// What the reader calls itself.
    pub(crate) reader: String,
    /// Virtual cards take bytes no faster than this, bytes a second.
    pub(crate) write_bps: Option<u64>,
    pub(crate) clock: Clock,
    pub(crate) events: SyncSender<Event>,
}

/// Starts the thread.
///
/// # Errors
/// There is no thread to be had: the write has failed, and no `Ended` follows.
pub(crate) fn start(task: Task, stop: StopFlag) -> std::io::Result<()> {
    std::thread::Builder::new().name(format!("write-{}", task.slot)).spawn(move || {
        let ended =
            Ended { slot: task.slot.clone(), job: task.job, events: task.events.clone(), sent: false };
        let result = task.run(&stop);
        ended.send(result);
    })?;
    Ok(())
}

/// Sends the end of a write, also when its thread panics.
struct Ended {
    slot: SlotId,
    job: u64,
    events: SyncSender<Event>,
    sent: bool,
}

impl Ended {
    fn send(mut self, result: Result<Box<CardRecord>, Failure>) {
        self.tell(result);
    }
    fn tell(&mut self, result: Result<Box<CardRecord>, Failure>) {
        self.sent = true;
        let event = SlotEvent::Ended { job: self.job, result };
        // Fails only when the agent has ended.
        let _ = self.events.send(Event::Slot { slot: self.slot.clone(), event });
    }
}

impl Drop for Ended {
    fn drop(&mut self) {
        if !self.sent {
            self.tell(Err(Failure::new("writer_panicked", "the writer ended without a result", Remedy::Bug)));
        }
    }
}

impl Task {
    fn run(&self, stop: &StopFlag) -> Result<Box<CardRecord>, Failure> {
        let started = self.clock.now();
        let uid = new_uid(started)?;
        let policy = match &self.device.reader {
            Some(reader) => Policy::readers(vec![reader.clone()]),
            None => Policy::named(),
        };
        let policy = Policy { probed: self.device.probed, ..policy };
        let mut card = claim(&self.device.path, &policy).map_err(|e| failure(&e))?;
        if card.size() != self.card_size {
            return Err(Failure::new(
                "card_changed",
                "the card is not the one that was probed",
                Remedy::Retry,
            ));
        }
        self.try_out(&mut card, stop).map_err(|e| failure(&e))?;
        let cid = card.facts().cid.clone();
        // Made when all but the first chunk is verified, and kept for the record.
        let issued: std::cell::OnceCell<Passport> = std::cell::OnceCell::new();
        let make_passport = || -> PassportFiles {
            let passport = issued.get_or_init(|| {
                passport::issue(&self.key, self.appliance, uid, &self.work, &self.shop, self.clock.now())
            });
            passport::files(passport, &self.work.order_name)
        };
        let source =
            Source { task: self, started: Instant::now(), given: std::sync::atomic::AtomicU64::new(0) };
        let job = Job {
            index: self.store.index(),
            source: &source,
            wipe: self.work.wipe,
            verify: self.work.verify,
            passport: Some(&make_passport),
        };
        let index = self.store.index();
        let mut meter = Meter::new(index.data_bytes() + index.zero_bytes());
        let begun = Instant::now();
        let mut progress = |step: cardshop_card::Progress| {
            if let Some(progress) = meter.step(begun.elapsed(), step.phase, step.done, step.total) {
                self.tell(SlotEvent::Progress { job: self.job, progress });
            }
        };
        let outcome = match write_card(&mut card, &job, stop, &mut progress) {
            Ok(outcome) => outcome,
            Err(error) => {
                let note = self.note(&error, &mut card, uid).map(Box::new);
                return Err(Failure { note, ..failure(&error) });
            }
        };
        if !outcome.is_verified() {
            return Err(Failure::new("not_verified", "the card was not read back", Remedy::Bug));
        }
        let passport = issued.into_inner().filter(|_| outcome.passport_written);
        Ok(Box::new(self.record(uid, cid, &outcome, started, passport)))
    }

    /// Leaves a note on a card that was written again and did not hold it again; none when it does not keep that
    /// either.
    fn note(&self, error: &CardError, card: &mut ClaimedCard, uid: ObjectId) -> Option<FailureNote> {
        let before = self.again.as_ref().filter(|_| matches!(error, CardError::Mismatch { .. }))?;
        let mut note = before.clone().unwrap_or_else(|| FailureNote::new(uid));
        note.add(self.appliance, &self.slot);
        match note.leave_on(card) {
            Ok(()) => Some(note),
            Err(error) => {
                tracing::info!(slot = %self.slot, %error, "the card keeps no note of its failure");
                None
            }
        }
    }

    /// Finds a fake card in seconds, while the image may still be on its way. A plain file is what it says.
    fn try_out(&self, card: &mut ClaimedCard, stop: &StopFlag) -> Result<(), CardError> {
        if card.facts().class == DeviceClass::PlainFile {
            return Ok(());
        }
        let report = probe(card, stop)?;
        let (slot, read_bps, write_bps) = (&self.slot, report.read_bps, report.write_bps);
        tracing::info!(%slot, marks = report.marks, read_bps, write_bps, "the card is as large as it says");
        Ok(())
    }

    fn record(
        &self,
        uid: ObjectId,
        cid: Option<String>,
        outcome: &Outcome,
        started: Timestamp,
        passport: Option<Passport>,
    ) -> CardRecord {
        let written_bytes = outcome.written_bytes + outcome.zero_written_bytes;
        CardRecord {
            uid,
            order: self.work.order,
            copy: self.work.copy,
            total: self.work.total,
            lease: self.work.lease,
            image: self.work.image,
            card_size: self.card_size,
            cid,
            appliance: self.appliance,
            slot: self.slot.clone(),
            reader: self.reader.clone(),
            written_bytes,
            verified_bytes: outcome.verified_bytes,
            write_bps: per_second(written_bytes, outcome.write_duration),
            verify_bps: per_second(outcome.verified_bytes, outcome.verify_duration),
            started,
            finished: self.clock.now(),
            passport,
        }
    }

    fn tell(&self, event: SlotEvent) {
        // Fails only when the agent has ended.
        let _ = self.events.send(Event::Slot { slot: self.slot.clone(), event });
    }
}

fn failure(error: &CardError) -> Failure {
    let mut fault = error.fault();
    fault.text = fault.text.chars().take(500).collect();
    Failure { fault, remedy: error.remedy(), note: None }
}

fn per_second(bytes: u64, duration: Duration) -> u64 {
    (bytes as f64 / duration.as_secs_f64().max(1e-6)) as u64
}

fn new_uid(now: Timestamp) -> Result<ObjectId, Failure> {
    let mut random = [0; 16];
    getrandom::fill(&mut random).map_err(|e| {
        Failure::new("no_randomness", format!("no randomness for a card id: {e}"), Remedy::CallOperator)
    })?;
    Ok(ObjectId::from_parts(now.as_ms(), u128::from_le_bytes(random)))
}

/// The store as one card's writer sees it: says when it has to wait, and slows virtual cards down.
struct Source<'a> {
    task: &'a Task,
    started: Instant,
    given: std::sync::atomic::AtomicU64,
}

impl ChunkSource for Source<'_> {
    fn read_chunk(&self, chunk: usize, buffer: &mut [u8], stop: &StopFlag) -> Result<(), SourceError> {
        self.slow_down(buffer.len() as u64, chunk, stop)?;
        let store = &self.task.store;
        if !self.waits_long(chunk, stop) {
            return store.read_chunk(chunk, buffer, stop);
        }
        self.task.tell(SlotEvent::Stalled { job: self.task.job, stalled: true });
        let result = store.read_chunk(chunk, buffer, stop);
        self.task.tell(SlotEvent::Stalled { job: self.task.job, stalled: false });
        result
    }

    /// The store compares what it reads.
    fn gives_checked_chunks(&self) -> bool {
        true
    }
}

impl Source<'_> {
    /// Waits for a chunk; true when it did not come at once.
    fn waits_long(&self, chunk: usize, stop: &StopFlag) -> bool {
        let store = &self.task.store;
        let until = Instant::now() + STALLED_AFTER;
        while !store.wait_for(chunk, ASK_STOP_EVERY) {
            if stop.is_stopped() || !store.is_open() || Instant::now() >= until {
                return true;
            }
        }
        false
    }

    fn slow_down(&self, bytes: u64, chunk: usize, stop: &StopFlag) -> Result<(), SourceError> {
        let Some(write_bps) = self.task.write_bps else { return Ok(()) };
        let given = self.given.fetch_add(bytes, std::sync::atomic::Ordering::Relaxed) + bytes;
        let due = self.started + Duration::from_secs_f64(given as f64 / write_bps.max(1) as f64);
        while Instant::now() < due {
            if stop.is_stopped() {
                return Err(SourceError::Stopped { chunk });
            }
            std::thread::sleep(Duration::from_millis(50).min(due.saturating_duration_since(Instant::now())));
        }
        Ok(())
    }
}
