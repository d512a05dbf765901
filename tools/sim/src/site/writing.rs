//! What the agent's threads do, played: looks at cards, writes and fetches take simulated time, and end as the card, the
//! reader and the warehouse let them. A card is really written, into memory, at the end of its time.

use cardshop_agent::core::{Event, Failure, Finding, SlotEvent, Trouble, Work};
use cardshop_card::FailureNote;
use cardshop_protocol::api::CardRecord;
use cardshop_protocol::ids::{ImageId, SlotId};
use cardshop_protocol::message::{Progress, Remedy, VERSION, WritePhase};

use super::appliance::Slot;
use super::cards::{Kind, Writer, Written};
use super::plants::Plant;
use super::world::{Happening, World};

/// A write that is under way.
pub(super) struct Job {
    number: u64,
    work: Work,
    card: Option<usize>,
    again: Option<Option<FailureNote>>,
    stopped: bool,
    stalled: bool,
}

/// How much of an image comes with each step of a fetch, of a hundred.
const FETCH_STEP: u64 = 25;

impl World {
    /// A look at a card has ended.
    pub(super) fn probed(&mut self, a: usize, life: u64, slot: SlotId, visit: u64) {
        if self.appliances[a].life != life {
            return;
        }
        let finding = match self.appliances[a].slots[&slot] {
            Slot { card: Some(card), unplugged: 0, .. } => self.cards[card].look(),
            _ => Finding::Failed(Failure::new("card_removed", "gone", Remedy::Retry)),
        };
        self.tell_agent(a, Event::Slot { slot, event: SlotEvent::Probed { visit, finding } });
    }

    pub(super) fn begin_write(
        &mut self,
        a: usize,
        slot: SlotId,
        number: u64,
        work: Work,
        again: Option<Option<FailureNote>>,
    ) {
        let place = self.appliances[a].slots[&slot];
        let life = self.appliances[a].life;
        let card = place.card.filter(|_| place.unplugged == 0);
        let mut takes = 10;
        if let Some(card) = card {
            self.check_overwrite(a, &slot, card);
            self.cards[card].spoil();
            self.cards[card].finished = None;
            self.cards[card].released = false;
            let slow = if self.cards[card].kind == Kind::Slow { 10 } else { 1 };
            takes = self.wire.from(40_000..240_000) * slow;
        }
        // Without a card it is the next one's turn, whose arrival still waits in the queue.
        let job = Job { number, work, card, again, stopped: false, stalled: false };
        let Some(agent) = &mut self.appliances[a].agent else { return };
        agent.jobs.insert(slot.clone(), job);
        for (part, phase) in [(10, WritePhase::Writing), (60, WritePhase::Verifying)] {
            let (slot, at) = (slot.clone(), takes * part / 100);
            self.after(at, Happening::WriteGoesOn { a, life, slot, job: number, phase });
        }
        self.after(takes, Happening::WriteEnds { a, life, slot, job: number });
    }

    pub(super) fn stop_write(&mut self, a: usize, slot: SlotId, number: u64) {
        let (life, pause) = (self.appliances[a].life, self.wire.from(50..2_000));
        let Some(agent) = &mut self.appliances[a].agent else { return };
        if let Some(job) = agent.jobs.get_mut(&slot).filter(|job| job.number == number) {
            job.stopped = true;
            self.after(pause, Happening::WriteEnds { a, life, slot, job: number });
        }
    }

    fn job(&mut self, a: usize, life: u64, slot: &SlotId, number: u64) -> Option<&mut Job> {
        let appliance = &mut self.appliances[a];
        let agent = appliance.agent.as_mut().filter(|_| appliance.life == life)?;
        agent.jobs.get_mut(slot).filter(|job| job.number == number)
    }

    pub(super) fn write_goes_on(&mut self, a: usize, life: u64, slot: SlotId, job: u64, phase: WritePhase) {
        if self.job(a, life, &slot, job).is_none_or(|job| job.stopped) {
            return;
        }
        let progress = Progress { v: VERSION, phase, done: 1, total: 2, rate_bps: 1, eta_s: None };
        self.tell_agent(a, Event::Slot { slot, event: SlotEvent::Progress { job, progress } });
    }

    pub(super) fn write_ends(&mut self, a: usize, life: u64, slot: SlotId, number: u64) {
        let Some(job) = self.job(a, life, &slot, number) else { return };
        let (stopped, stalled, card, work) = (job.stopped, job.stalled, job.card, job.work.clone());
        let again = job.again.clone();
        let place = self.appliances[a].slots[&slot];
        let here = card.filter(|card| place.card == Some(*card) && place.unplugged == 0);
        let result = match here {
            None => Err(Failure::new("card_removed", "the card was taken out", Remedy::Retry)),
            Some(_) if stopped => Err(Failure::new("stopped", "stopped", Remedy::Retry)),
            Some(_) if self.appliances[a].disk.images.get(&work.image) != Some(&100) => {
                // It waits for bytes.
                self.after(10_000, Happening::WriteEnds { a, life, slot: slot.clone(), job: number });
                if !stalled {
                    self.job(a, life, &slot, number).expect("found above").stalled = true;
                    let event = SlotEvent::Stalled { job: number, stalled: true };
                    self.tell_agent(a, Event::Slot { slot, event });
                }
                return;
            }
            Some(card) => self.write_card(a, &slot, card, &work, again.as_ref()),
        };
        self.tell_agent(a, Event::Slot { slot, event: SlotEvent::Ended { job: number, result } });
    }

    pub(super) fn begin_fetch(&mut self, a: usize, image: ImageId) {
        let life = self.appliances[a].life;
        let pause = self.wire.from(500..5_000);
        let Some(agent) = &mut self.appliances[a].agent else { return };
        if agent.fetching.insert(image) {
            self.after(pause, Happening::Fetches { a, life, image });
        }
    }

    /// More of an image comes, or something keeps it from coming.
    pub(super) fn fetches(&mut self, a: usize, life: u64, image: ImageId) {
        let appliance = &self.appliances[a];
        let Some(agent) = appliance.agent.as_ref().filter(|_| appliance.life == life) else { return };
        if !agent.fetching.contains(&image) {
            return;
        }
        let here = appliance.disk.images.get(&image).copied();
        let away = appliance.fetch_cut > 0 || self.warehouse.is_away() || !self.warehouse.has(image);
        let trouble = match here {
            Some(100) => None,
            _ if away => Some(Trouble::WarehousesAway),
            _ if appliance.cache_full > 0 => Some(Trouble::CacheFull),
            _ => None,
        };
        for which in [Trouble::WarehousesAway, Trouble::CacheFull] {
            let text = (trouble == Some(which)).then(|| "as simulated".to_owned());
            self.tell_agent(a, Event::ImageTrouble { image, trouble: which, text });
        }
        if trouble.is_some() {
            return self.after(20_000, Happening::Fetches { a, life, image });
        }
        if here != Some(100) && self.appliances[a].lied_to > 0 {
            self.appliances[a].agent.iter_mut().for_each(|agent| {
                agent.fetching.remove(&image);
            });
            let fault = Failure::new("chunk_mismatch", "not what its index says", Remedy::CallOperator).fault;
            return self.tell_agent(a, Event::ImageRefused { image, fault });
        }
        self.tell_agent(a, Event::ImageReady { image, total: 100 });
        let fetched = here.map_or(0, |here| (here + FETCH_STEP).min(100));
        self.appliances[a].disk.images.insert(image, fetched);
        self.tell_agent(a, Event::ImageProgress { image, fetched });
        if fetched < 100 {
            let pause = self.wire.from(2_000..30_000);
            self.after(pause, Happening::Fetches { a, life, image });
        }
    }

    /// Writes a card with the real engine, and makes its record.
    fn write_card(
        &mut self,
        a: usize,
        slot: &SlotId,
        card: usize,
        work: &Work,
        again: Option<&Option<FailureNote>>,
    ) -> Result<Box<CardRecord>, Failure> {
        let uid = self.wire.id(self.now_ms);
        let image = self.images[&work.image].clone();
        let appliance = &self.appliances[a];
        let now = appliance.now(self.now_ms);
        let writer = Writer {
            key: &appliance.key,
            appliance: appliance.id,
            slot,
            bad_reader: appliance.slots[slot].bad > 0,
            now,
        };
        let written = self.cards[card].write(&image, work, again, uid, &writer);
        let written = match written {
            Err(_) if self.plant == Plant::BelievesWrites => {
                Ok(Written { uid, passport: None, bytes: (1, 1) })
            }
            other => other,
        };
        let Written { uid, passport, bytes: (written_bytes, verified_bytes) } = written?;
        Ok(Box::new(CardRecord {
            uid,
            order: work.order,
            copy: work.copy,
            total: work.total,
            lease: work.lease,
            image: work.image,
            card_size: self.cards[card].size,
            cid: None,
            appliance: self.appliances[a].id,
            slot: slot.clone(),
            reader: "simulated reader".into(),
            written_bytes,
            verified_bytes,
            write_bps: 1,
            verify_bps: 1,
            started: now,
            finished: now,
            passport,
        }))
    }
}
