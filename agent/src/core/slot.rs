//! One slot: what is in it and what is being done to it. [`super::Shop`] owns it, gives it work and asks it
//! for its face; the slot never looks at leases, other slots or the disk.
//!
//! ```text
//!   Absent ◄─reader─► Empty ──card──► Checking ──► Ready ──give──► Waiting ──begin──► Writing ──► Done
//!                                        │         ▲ (idle, unsuitable,   image not yet   │ thread ends
//!                                        ├► Locked │  guarded, confirm,   here            ├► Failed (bad card,
//!                                        └► Failed │  held: the shop's                    │  retry, out of service)
//!                                                  │  choice, made anew                   ├► Ejected
//!                                                  └──at every event)──── withdrawn ──────┘
//!   A card that does not hold what was written is written again in place, once. Failing again it gets a note and
//!   goes to another slot (retry); a card whose note names two slots, or that keeps no note, is bad. What concerns
//!   more than one card (a slot, a hub, an image) is the scheduler's to decide.
//!
//!   from every state: card out ──► Empty. The thread of a write outlives the card: until it has ended its copy
//!   is still taken, and a card put in meanwhile waits as Arrived.
//! ```

use cardshop_card::FailureNote;
use cardshop_protocol::ids::{OrderId, SlotId};
use cardshop_protocol::message::{Fact, Fault, Remedy, SlotState, WritePhase};
use cardshop_protocol::time::Timestamp;

use super::event::{Effect, Failure, Finding, Message, PassportFacts, SlotEvent, Work};

/// A card in a slot.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Card {
    pub(super) size: u64,
    pub(super) passport: Option<PassportFacts>,
    pub(super) in_use: bool,
    /// A person allowed one write over what is on it.
    pub(super) released: bool,
    /// Guarded once, guarded until it is released or taken out: shipping the order elsewhere does not make
    /// the card that lies here free.
    pub(super) guard: Option<OrderId>,
    /// Where it has failed before.
    pub(super) note: Option<FailureNote>,
    /// Its identification register, where the reader shows it.
    pub(super) cid: Option<String>,
}

impl Card {
    fn new(size: u64) -> Self {
        Self { size, passport: None, in_use: false, released: false, guard: None, note: None, cid: None }
    }
}

/// What a good card waits for.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Face {
    Idle,
    Unsuitable { min_bytes: u64 },
    Guarded { order: OrderId },
    Confirm,
}

/// What a slot is doing.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Stage {
    Absent,
    Empty {
        /// Bytes of the smallest card that has work, when one is wanted here.
        wanted: Option<u64>,
    },
    /// A card came before the thread of the card before it had ended.
    Arrived(Card),
    Checking(Card),
    Locked(Card),
    Ready {
        card: Card,
        face: Face,
    },
    /// A copy is reserved; its image is not here.
    Waiting {
        card: Card,
        work: Work,
    },
    Writing {
        card: Card,
        work: Work,
        phase: WritePhase,
        stalled: bool,
    },
    Done {
        card: Card,
        work: Work,
    },
    Failed {
        card: Card,
        failure: Failure,
        work: Option<Work>,
    },
    Ejected(Card),
}

/// Why a write is stopped before its end.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum StopCause {
    Removed,
    Withdrawn,
    Ejected,
    ImageRefused(Fault),
    Ending,
}

impl StopCause {
    fn failure(&self) -> Failure {
        match self {
            Self::Removed => {
                Failure::new("card_removed", "the card was taken out before it was finished", Remedy::Retry)
            }
            Self::Withdrawn => Failure::new("withdrawn", "the copy was withdrawn", Remedy::Retry),
            Self::Ejected => Failure::new("ejected", "a person ejected the card", Remedy::Retry),
            Self::ImageRefused(fault) => {
                Failure { fault: fault.clone(), remedy: Remedy::CallOperator, note: None }
            }
            Self::Ending => Failure::new("agent_stopped", "the agent was stopped", Remedy::Retry),
        }
    }
}

/// A write whose thread has not ended.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Job {
    pub(super) number: u64,
    pub(super) work: Work,
    pub(super) stop: Option<StopCause>,
    /// It is the second time, in place.
    again: bool,
}

/// The card does not hold what was written.
const VERIFY_MISMATCH: &str = "verify_mismatch";

/// What a second failure in place means: the card is given another slot, unless it had one.
fn judged(failure: Failure) -> Failure {
    let Some(note) = failure.note.as_ref() else { return failure };
    let (text, remedy) = if note.failed_in_two_slots() {
        ("it failed in two slots: the card is bad", Remedy::ReplaceCard)
    } else {
        ("twice in this slot: put it into another slot", Remedy::Retry)
    };
    let fault = Fault { text: format!("{}; {text}", failure.fault.text), ..failure.fault.clone() };
    Failure { fault, remedy, ..failure }
}

/// One slot.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) id: SlotId,
    pub(super) stage: Stage,
    pub(super) job: Option<Job>,
    /// Why a person holds it.
    pub(super) hold: Option<String>,
    pub(super) identify_until: Option<Timestamp>,
    /// The state last shown.
    pub(super) shown: Option<SlotState>,
    /// Counts looks at cards.
    visit: u64,
}

impl Slot {
    pub(super) fn new(id: SlotId) -> Self {
        Self {
            id,
            stage: Stage::Empty { wanted: None },
            job: None,
            hold: None,
            identify_until: None,
            shown: None,
            visit: 0,
        }
    }

    /// Takes in what happened here. Facts are to be recorded before any effect is carried out.
    pub(super) fn step(&mut self, event: SlotEvent, facts: &mut Vec<Fact>, effects: &mut Vec<Effect>) {
        match event {
            SlotEvent::ReaderGone => self.card_gone(Stage::Absent, effects),
            SlotEvent::CardGone => self.card_gone(Stage::Empty { wanted: None }, effects),
            SlotEvent::CardHere { size } => self.card_here(size, effects),
            SlotEvent::Probed { visit, finding } => self.probed(visit, finding),
            SlotEvent::Progress { job, progress } => {
                if self.is_writing(job) {
                    if let Stage::Writing { phase, .. } = &mut self.stage {
                        *phase = progress.phase;
                    }
                    effects.push(Effect::Publish(Message::Progress(self.id.clone(), progress)));
                }
            }
            SlotEvent::Stalled { job, stalled: now_stalled } => {
                if self.is_writing(job)
                    && let Stage::Writing { stalled, .. } = &mut self.stage
                {
                    *stalled = now_stalled;
                }
            }
            SlotEvent::Ended { job, result } => {
                if let Some(job) = self.job.take_if(|j| j.number == job) {
                    match result {
                        Ok(mut record) => {
                            // The lease may have been replaced by another that asks for the same copy.
                            record.lease = job.work.lease;
                            facts.push(Fact::CardVerified { lease: job.work.lease, record });
                            self.finished(job.work);
                        }
                        Err(failure) if self.is_repeated(&job, &failure) => {
                            self.repeat(job, failure, facts, effects);
                        }
                        Err(failure) => self.failed(job, failure, facts),
                    }
                    self.check_arrived(effects);
                }
            }
        }
    }

    fn is_writing(&self, job: u64) -> bool {
        self.job.as_ref().is_some_and(|j| j.number == job)
    }

    fn card_gone(&mut self, to: Stage, effects: &mut Vec<Effect>) {
        if matches!(self.stage, Stage::Writing { .. }) {
            self.stop(StopCause::Removed, effects);
        }
        self.stage = to;
    }

    fn card_here(&mut self, size: u64, effects: &mut Vec<Effect>) {
        if !matches!(self.stage, Stage::Empty { .. } | Stage::Absent) {
            // Swapped while nobody looked.
            self.card_gone(Stage::Empty { wanted: None }, effects);
        }
        self.stage = Stage::Arrived(Card::new(size));
        self.check_arrived(effects);
    }

    fn check_arrived(&mut self, effects: &mut Vec<Effect>) {
        if self.job.is_none()
            && let Stage::Arrived(card) = &self.stage
        {
            let card = card.clone();
            self.check(card, effects);
        }
    }

    fn check(&mut self, card: Card, effects: &mut Vec<Effect>) {
        if self.job.is_some() {
            // Also when a person asks: two threads on one slot would lose the end of the first.
            self.stage = Stage::Arrived(card);
            return;
        }
        self.visit += 1;
        effects.push(Effect::Probe { slot: self.id.clone(), visit: self.visit });
        self.stage = Stage::Checking(Card::new(card.size));
    }

    fn probed(&mut self, visit: u64, finding: Finding) {
        let Stage::Checking(card) = &self.stage else { return };
        if visit != self.visit {
            return;
        }
        let card = card.clone();
        self.stage = match finding {
            Finding::Card { passport, in_use, note, cid } => {
                Stage::Ready { card: Card { passport, in_use, note, cid, ..card }, face: Face::Idle }
            }
            Finding::Locked => Stage::Locked(card),
            Finding::Failed(failure) => Stage::Failed { card, failure, work: None },
        };
    }

    /// Reserves a copy for the card. Only a ready card takes work.
    pub(super) fn give(&mut self, work: Work) {
        if let Stage::Ready { card, .. } = &self.stage {
            self.stage = Stage::Waiting { card: card.clone(), work };
        }
    }

    /// The image is here: the write begins, on record first.
    pub(super) fn begin(&mut self, number: u64, facts: &mut Vec<Fact>, effects: &mut Vec<Effect>) {
        let Stage::Waiting { card, work } = &self.stage else { return };
        let (card, work) = (Card { released: false, ..card.clone() }, work.clone());
        facts.push(Fact::WriteStarted {
            task: work.task(),
            lease: work.lease,
            slot: self.id.clone(),
            card_size: card.size,
        });
        effects.push(Effect::Write {
            slot: self.id.clone(),
            job: number,
            card_size: card.size,
            work: Box::new(work.clone()),
            again: None,
        });
        self.job = Some(Job { number, work: work.clone(), stop: None, again: false });
        self.stage = Stage::Writing { card, work, phase: WritePhase::Probing, stalled: false };
    }

    /// Takes back a copy that is reserved, or stops its write.
    pub(super) fn stop(&mut self, cause: StopCause, effects: &mut Vec<Effect>) {
        if let Stage::Waiting { card, .. } = &self.stage {
            let card = card.clone();
            self.stage = if cause == StopCause::Ejected {
                Stage::Ejected(card)
            } else {
                Stage::Ready { card, face: Face::Idle }
            };
        } else if let Some(job) = &mut self.job
            && job.stop.is_none()
        {
            job.stop = Some(cause);
            effects.push(Effect::Stop { slot: self.id.clone(), job: job.number });
        }
    }

    /// The lease of the work here was replaced by another for the same copy.
    pub(super) fn adopt_lease(&mut self, lease: cardshop_protocol::ids::LeaseId) {
        if let Some(job) = &mut self.job {
            job.work.lease = lease;
        }
        if let Stage::Waiting { work, .. } = &mut self.stage {
            work.lease = lease;
        }
    }

    fn finished(&mut self, work: Work) {
        if let Stage::Writing { card, .. } = &self.stage {
            self.stage = Stage::Done { card: card.clone(), work };
        }
    }

    /// Once, while the card is there and nobody wants it stopped.
    fn is_repeated(&self, job: &Job, failure: &Failure) -> bool {
        let is_here = matches!(self.stage, Stage::Writing { .. });
        failure.fault.code == VERIFY_MISMATCH && is_here && !job.again && job.stop.is_none()
    }

    /// The same write, by the same number: its first thread has ended.
    fn repeat(&mut self, job: Job, failure: Failure, facts: &mut Vec<Fact>, effects: &mut Vec<Effect>) {
        let Stage::Writing { card, phase, .. } = &mut self.stage else { return };
        *phase = WritePhase::Probing;
        let (task, lease) = (job.work.task(), job.work.lease);
        facts.push(Fact::WriteRepeated { task, lease, slot: self.id.clone(), fault: failure.fault });
        effects.push(Effect::Write {
            slot: self.id.clone(),
            job: job.number,
            card_size: card.size,
            work: Box::new(job.work.clone()),
            again: Some(card.note.clone()),
        });
        self.job = Some(Job { again: true, ..job });
    }

    fn failed(&mut self, job: Job, failure: Failure, facts: &mut Vec<Fact>) {
        let failure = judged(failure);
        let told = job.stop.as_ref().map_or_else(|| failure.clone(), StopCause::failure);
        facts.push(Fact::WriteFailed {
            task: job.work.task(),
            lease: job.work.lease,
            slot: self.id.clone(),
            fault: told.fault,
            remedy: told.remedy,
            card: told.note.map(|note| note.card),
        });
        let Stage::Writing { card, .. } = &self.stage else { return };
        // What was on the card is gone, whatever it was.
        let card = Card { cid: card.cid.clone(), ..Card::new(card.size) };
        self.stage = match job.stop {
            None => Stage::Failed { card, failure, work: Some(job.work) },
            Some(StopCause::Ejected) => Stage::Ejected(card),
            // The card is as good as before: removed cards do not get here.
            Some(_) => Stage::Ready { card, face: Face::Idle },
        };
    }

    /// The copy this slot holds: no other slot may take it.
    pub(super) fn work(&self) -> Option<&Work> {
        match (&self.job, &self.stage) {
            (Some(job), _) => Some(&job.work),
            (None, Stage::Waiting { work, .. }) => Some(work),
            _ => None,
        }
    }

    /// Lets go of the card.
    ///
    /// # Errors
    /// Why there is nothing to let go of.
    pub(super) fn eject(&mut self, effects: &mut Vec<Effect>) -> Result<&'static str, &'static str> {
        match &self.stage {
            Stage::Absent | Stage::Empty { .. } => Err("there is no card"),
            Stage::Waiting { .. } | Stage::Writing { .. } => {
                self.stop(StopCause::Ejected, effects);
                Ok("the write is stopped; take the card when the light is off")
            }
            Stage::Done { .. } | Stage::Ejected(_) => Ok("the card can be taken"),
            Stage::Arrived(card) | Stage::Checking(card) | Stage::Locked(card) => {
                self.stage = Stage::Ejected(card.clone());
                Ok("the card can be taken")
            }
            Stage::Ready { card, .. } | Stage::Failed { card, .. } => {
                self.stage = Stage::Ejected(card.clone());
                Ok("the card can be taken")
            }
        }
    }

    /// Looks at the card again.
    ///
    /// # Errors
    /// Why that makes no sense now.
    pub(super) fn retry(&mut self, effects: &mut Vec<Effect>) -> Result<&'static str, &'static str> {
        match &self.stage {
            Stage::Absent | Stage::Empty { .. } => Err("there is no card"),
            Stage::Arrived(_) | Stage::Checking(_) => Ok("the card is being checked"),
            Stage::Waiting { .. } | Stage::Writing { .. } => Err("the card is being written"),
            Stage::Done { .. } => Err("the card is finished: take it out"),
            Stage::Locked(card) | Stage::Ejected(card) => {
                self.check(card.clone(), effects);
                Ok("checking the card again")
            }
            Stage::Ready { card, .. } | Stage::Failed { card, .. } => {
                self.check(card.clone(), effects);
                Ok("checking the card again")
            }
        }
    }

    /// Allows one write over a guarded card or over somebody's data.
    ///
    /// # Errors
    /// Why there is nothing to allow.
    pub(super) fn release(&mut self) -> Result<&'static str, &'static str> {
        match &mut self.stage {
            Stage::Ready { card, face: face @ (Face::Guarded { .. } | Face::Confirm) } => {
                card.released = true;
                card.guard = None;
                *face = Face::Idle;
                Ok("one write is allowed")
            }
            _ => Err("this slot asks for no permission"),
        }
    }
}
