//! All slots together: takes in events, gives each card its copy, keeps the fetches and the facts going. The
//! one deciding owner of the appliance's state; the agent's main thread calls [`Shop::step`].

use std::collections::{BTreeMap, BTreeSet};

use cardshop_protocol::ids::ImageId;
use cardshop_protocol::ids::{OrderId, SlotId};
use cardshop_protocol::message::{
    Confirm, Desired, DesiredUpdate, Fact, Fault, LeaseUse, Reported, SlotState, UpdateReport, VERSION,
};
use cardshop_protocol::time::Timestamp;

use super::bench::{Places, outcome_of};
use super::commands::Commands;
use super::dispatch::{Choice, Dispatch, is_doable, lease_for};
use super::event::{Effect, Event, Failure, Message, SlotEvent};
use super::guard::{asks_before_erasing, guarded_by};
use super::history::{History, Record};
use super::images::Images;
use super::sender::Sender;
use super::slot::{Face, Slot, Stage, StopCause};
use super::view::{Generation, show};
use cardshop_protocol::message::Remedy;

/// Errors in one `reported`, so that it stays far below its 64 KiB.
const MAX_REPORTED_ERRORS: usize = 20;

/// Numbers of facts beyond this are nobody's: they are exact in JSON up to here, and leave room to count on.
const MAX_FACT_NUMBER: u64 = 1 << 53;
/// Longest reason of a hold and of an error shown, characters: a slot's state has at most 8 KiB.
const MAX_TEXT_CHARS: usize = 300;

/// The appliance's slots, images and facts.
#[derive(Debug)]
pub struct Shop {
    pub(super) slots: BTreeMap<SlotId, Slot>,
    pub(super) desired: Option<Box<Desired>>,
    unreadable: Option<String>,
    history: History,
    images: Images,
    sender: Sender,
    pub(super) commands: Commands,
    pub(super) places: Places,
    reported: Option<Reported>,
    /// The update whose bytes are to be fetched, the image that has to stay here for it, and how far it is.
    update: (Option<DesiredUpdate>, Option<ImageId>, Option<UpdateReport>),
    last_job: u64,
    shown: u64,
    connected: bool,
    /// The broker is to be told every state, changed or not.
    republish: bool,
    ending: bool,
}

impl Shop {
    /// Starts with what the journal says. The first effects record this start, and that writes which were
    /// under way when the agent ended have failed: nothing that was not verified is ever called good.
    pub fn start(now: Timestamp, history: History, slots: &[SlotId], effects: &mut Vec<Effect>) -> Self {
        let mut shop = Self {
            slots: slots.iter().map(|id| (id.clone(), Slot::new(id.clone()))).collect(),
            desired: None,
            unreadable: None,
            history,
            images: Images::default(),
            sender: Sender::default(),
            commands: Commands::default(),
            places: Places::default(),
            reported: None,
            update: (None, None, None),
            last_job: 0,
            shown: 0,
            connected: false,
            republish: false,
            ending: false,
        };
        shop.record(now, Fact::Started { boot: shop.history.boot() + 1 }, effects);
        let open: Vec<_> = shop.history.open_writes().cloned().collect();
        for write in open {
            let failure =
                Failure::new("interrupted", "the agent ended while it wrote the card", Remedy::Retry);
            let fact = Fact::WriteFailed {
                task: write.task,
                lease: write.lease,
                slot: write.slot,
                fault: failure.fault,
                remedy: failure.remedy,
                card: None,
            };
            shop.record(now, fact, effects);
        }
        shop.settle(now, effects);
        shop
    }

    /// Takes in one event. Effects are to be carried out in order.
    pub fn step(&mut self, now: Timestamp, event: Event, effects: &mut Vec<Effect>) {
        match event {
            Event::Slot { slot, event } => {
                if matches!(event, SlotEvent::CardHere { .. } | SlotEvent::CardGone) {
                    self.reader_answers(&slot);
                }
                match &event {
                    SlotEvent::CardHere { .. } => self.card_moved(now, &slot, true, effects),
                    SlotEvent::CardGone | SlotEvent::ReaderGone => {
                        self.card_moved(now, &slot, false, effects);
                    }
                    _ => {}
                }
                let mut facts = Vec::new();
                let mut done = Vec::new();
                if let Some(slot) = self.slots.get_mut(&slot) {
                    slot.step(event, &mut facts, &mut done);
                }
                for fact in facts {
                    let outcome = outcome_of(&fact);
                    self.record(now, fact, effects);
                    self.count(outcome, effects);
                }
                effects.append(&mut done);
            }
            Event::Reader { key, reader } => self.reader_here(now, &key, &reader, effects),
            Event::Pressed(slot) => self.pressed(now, &slot, effects),
            Event::Wish(wish) => self.wish(now, wish, effects),
            Event::Desired(mut desired) => {
                self.unreadable = None;
                // Looked up for every copy: tens of thousands fit into one message.
                desired.leases.iter_mut().for_each(|lease| lease.done.sort_unstable());
                self.desired = Some(desired);
                self.refresh_holds();
                self.forget_settled_orders(effects);
            }
            Event::UnreadableDesired(text) => self.unreadable = Some(shorten(&text)),
            Event::Acked(upto) => self.acked(now, upto, effects),
            Event::Connected => {
                self.connected = true;
                self.reported = None;
                self.republish = true;
                self.sender.restart(now);
            }
            Event::Disconnected => self.connected = false,
            Event::Command { command, received } => self.command(now, command, received, effects),
            Event::ImageReady { image, total } => self.images.ready(image, total),
            Event::ImageProgress { image, fetched } => self.images.progress(image, fetched),
            Event::ImageTrouble { image, trouble, text } => {
                self.images.trouble(image, trouble, text.as_deref().map(shorten));
            }
            Event::ImageRefused { image, fault } => self.image_refused(now, image, fault, effects),
            Event::Tick => {}
            Event::Stop => {
                self.ending = true;
                self.slots.values_mut().for_each(|slot| slot.stop(StopCause::Ending, effects));
            }
        }
        self.settle(now, effects);
    }

    /// True when no card is being written: the agent may end.
    pub fn is_quiet(&self) -> bool {
        self.slots.values().all(|slot| slot.job.is_none())
    }

    /// True when all of an image is here.
    pub fn has_whole(&self, image: ImageId) -> bool {
        self.images.is_whole(image)
    }

    /// The update that is to be fetched, the image that has to stay for it, and what the scheduler is told of it. What
    /// follows comes with the next event.
    pub fn follow_update(
        &mut self,
        wanted: Option<DesiredUpdate>,
        needed: Option<ImageId>,
        report: Option<UpdateReport>,
    ) {
        self.update = (wanted, needed, report);
    }

    /// What must outlive the process; compacted by whoever keeps the journal.
    pub fn history(&self) -> &History {
        &self.history
    }

    /// The settings and leases last heard.
    pub fn desired(&self) -> Option<&Desired> {
        self.desired.as_deref()
    }

    /// The state each slot shows.
    pub fn shown(&self) -> impl Iterator<Item = (&SlotId, &SlotState)> {
        self.slots.values().filter_map(|s| Some((&s.id, s.shown.as_ref()?)))
    }

    fn record(&mut self, now: Timestamp, fact: Fact, effects: &mut Vec<Effect>) {
        effects.push(Effect::Append(self.history.record(now, fact)));
    }

    fn acked(&mut self, now: Timestamp, upto: u64, effects: &mut Vec<Effect>) {
        if upto > MAX_FACT_NUMBER {
            return;
        }
        let record = if upto > self.history.last() {
            // The journal was lost or restored from an old copy: a number used twice would be taken for a
            // repetition, and its fact for stored.
            Record::Renumbered { last: upto }
        } else if upto > self.history.acked() {
            Record::Acked { upto }
        } else {
            return;
        };
        self.history.apply(&record);
        effects.push(Effect::Append(record));
        self.sender.acked(now);
        self.forget_settled_orders(effects);
    }

    /// An order that is neither leased nor guarded, and whose facts are all stored, needs no memory here.
    fn forget_settled_orders(&mut self, effects: &mut Vec<Effect>) {
        let Some(desired) = &self.desired else { return };
        let lives = |order: &OrderId| {
            desired.settings.guarded_orders.contains(order)
                || desired.leases.iter().any(|l| l.order == *order)
        };
        let over: Vec<OrderId> = self.history.settled_orders().into_iter().filter(|o| !lives(o)).collect();
        for order in over {
            let record = Record::Forgotten { order };
            self.history.apply(&record);
            effects.push(Effect::Append(record));
        }
    }

    fn image_refused(
        &mut self,
        now: Timestamp,
        image: cardshop_protocol::ids::ImageId,
        fault: Fault,
        effects: &mut Vec<Effect>,
    ) {
        effects.push(Effect::Abandon(image));
        for lease in self.images.refuse(image, &fault, self.desired.as_deref()) {
            self.record(now, Fact::ImageRefused { image, lease, fault: fault.clone() }, effects);
        }
        for slot in self.slots.values_mut().filter(|s| s.work().is_some_and(|w| w.image == image)) {
            slot.stop(StopCause::ImageRefused(fault.clone()), effects);
        }
    }

    /// Makes everything follow from what is known now. Running it again changes nothing.
    fn settle(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        self.withdraw(now, effects);
        if let (Some(desired), false) = (&self.desired, self.ending) {
            self.images.plan(desired, self.update.0.as_ref(), self.update.1, &self.history, effects);
        }
        self.give_work(now);
        self.begin_writes(now, effects);
        self.ask_for_cards(now);
        let how = (!self.connected, std::mem::take(&mut self.republish));
        self.raise_alerts(now, how.1, effects);
        self.reboot_if_quiet(effects);
        let mut generation = Generation { boot: self.history.boot(), n: self.shown };
        for slot in self.slots.values_mut() {
            show(slot, now, &self.images, how, &mut generation, effects);
        }
        self.shown = generation.n;
        if self.connected {
            self.sender.fill(now, &self.history, effects);
            self.report(effects);
        }
    }

    /// Stops what no lease asks for any more; what is not begun yet also at its lease's end and when the slot is
    /// held.
    fn withdraw(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        for slot in self.slots.values_mut() {
            let Some(work) = slot.work().cloned() else { continue };
            let begun = slot.job.is_some();
            match lease_for(self.desired.as_deref(), &work) {
                Some(lease) if begun || (now <= lease.not_after && slot.hold.is_none()) => {
                    slot.adopt_lease(lease.lease);
                }
                _ => slot.stop(StopCause::Withdrawn, effects),
            }
        }
    }

    fn taken(&self) -> BTreeSet<(OrderId, u32)> {
        self.slots.values().filter_map(Slot::work).map(|w| (w.order, w.copy)).collect()
    }

    fn give_work(&mut self, now: Timestamp) {
        let confirm = self.desired.as_ref().map_or(Confirm::default(), |d| d.settings.confirm);
        let mut taken = self.taken();
        let may_begin = !self.ending && self.history.has_room();
        for slot in self.slots.values_mut() {
            let held = slot.hold.is_some();
            let Stage::Ready { card, face } = &mut slot.stage else { continue };
            if let (None, false, Some(passport)) = (card.guard, card.released, card.passport) {
                card.guard = guarded_by(passport, &self.history, self.desired.as_deref());
            }
            if let Some(order) = card.guard {
                *face = Face::Guarded { order };
                continue;
            }
            let desired = self.desired.as_deref();
            let dispatch = Dispatch::new(now, desired, self.images.refused(), &self.history, &taken);
            let choice = if may_begin && !held { dispatch.choose(card.size) } else { Choice::Nothing };
            match choice {
                Choice::Take(_)
                    if !card.released
                        && asks_before_erasing(confirm, card.passport.is_some(), card.in_use) =>
                {
                    *face = Face::Confirm;
                }
                Choice::Take(work) => {
                    taken.insert((work.order, work.copy));
                    slot.give(*work);
                }
                Choice::TooSmall { min_bytes } => *face = Face::Unsuitable { min_bytes },
                Choice::Nothing => *face = Face::Idle,
            }
        }
    }

    fn begin_writes(&mut self, now: Timestamp, effects: &mut Vec<Effect>) {
        let (mut facts, mut begun) = (Vec::new(), Vec::new());
        for slot in self.slots.values_mut() {
            let Stage::Waiting { work, .. } = &slot.stage else { continue };
            if self.images.is_ready(work.image) {
                self.last_job += 1;
                slot.begin(self.last_job, &mut facts, &mut begun);
            }
        }
        facts.into_iter().for_each(|fact| self.record(now, fact, effects));
        effects.append(&mut begun);
    }

    /// Lights as many empty slots as there are copies that no card is being checked for.
    fn ask_for_cards(&mut self, now: Timestamp) {
        let taken = self.taken();
        let dispatch =
            Dispatch::new(now, self.desired.as_deref(), self.images.refused(), &self.history, &taken);
        let may_begin = !self.ending && self.history.has_room();
        let checking = |s: &&Slot| matches!(s.stage, Stage::Checking(_) | Stage::Arrived(_));
        let checked = self.slots.values().filter(checking).count();
        let sizes = if may_begin { dispatch.wanted_sizes(self.slots.len() + checked) } else { Vec::new() };
        let mut sizes = sizes.into_iter().skip(checked);
        for slot in self.slots.values_mut() {
            let free = slot.hold.is_none() && slot.job.is_none();
            if let Stage::Empty { wanted } = &mut slot.stage {
                *wanted = if free { sizes.next() } else { None };
            }
        }
    }

    fn report(&mut self, effects: &mut Vec<Effect>) {
        let Some(desired) = &self.desired else { return };
        let uses = |lease: &cardshop_protocol::message::Lease| {
            let (fetched_bytes, total_bytes) = self.images.bytes(lease.image);
            let mut writing: Vec<u32> = self
                .slots
                .values()
                .filter_map(Slot::work)
                .filter(|w| w.lease == lease.lease)
                .map(|w| w.copy)
                .collect();
            writing.sort_unstable();
            let verified = self.history.verified_copies(lease.order, lease.copies.first, lease.copies.last);
            LeaseUse { lease: lease.lease, verified, writing, fetched_bytes, total_bytes }
        };
        let reported = Reported {
            v: VERSION,
            rev: desired.rev,
            errors: self.errors(desired),
            leases: desired.leases.iter().map(uses).collect(),
            update: self.update.2.clone(),
        };
        if self.reported.as_ref() != Some(&reported) {
            effects.push(Effect::Publish(Message::Reported(Box::new(reported.clone()))));
            self.reported = Some(reported);
        }
    }

    fn errors(&self, desired: &Desired) -> Vec<String> {
        let unreadable = self.unreadable.iter().map(|text| format!("desired state not readable: {text}"));
        let refused = self.images.refused().iter();
        let refused = refused.map(|(lease, fault)| {
            format!("{}: lease {lease}: image refused: {}", fault.code, shorten(&fault.text))
        });
        let undoable = desired.leases.iter().filter(|l| !is_doable(l));
        let undoable =
            undoable.map(|l| format!("lease {}: without verification no card would ever count", l.lease));
        let full = (!self.history.has_room()).then(|| "too many facts wait for the scheduler".to_owned());
        let troubles = self.images.troubles();
        unreadable
            .chain(refused)
            .chain(troubles)
            .chain(undoable)
            .chain(full)
            .take(MAX_REPORTED_ERRORS)
            .collect()
    }

    /// The copies in slots, for tests of the invariants.
    #[cfg(test)]
    pub(super) fn work_in_slots(&self) -> Vec<super::event::Work> {
        self.slots.values().filter_map(|s| s.work().cloned()).collect()
    }
}

/// Why the scheduler holds a slot.
pub(super) fn held(desired: &Desired, slot: &SlotId) -> Option<String> {
    desired.slots.iter().find(|s| s.slot == *slot)?.hold.as_deref().map(shorten)
}

fn shorten(text: &str) -> String {
    text.chars().take(MAX_TEXT_CHARS).collect()
}
