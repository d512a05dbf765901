//! What the shop does about its slots as places: readers that come, names, holds, the way of naming, readers that moved,
//! slots whose reader is away, and what a person at the appliance itself wants. [`Shop`] in another file.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use cardshop_protocol::ids::SlotId;
use cardshop_protocol::message::{Action, Alert, Fact, SlotState, VERSION};
use cardshop_protocol::time::Timestamp;

use super::book::{Book, BookError, Counts, Moved};
use super::commands::Said;
use super::event::{Effect, Message, Wish};
use super::naming::{Naming, Question, Shown};
use super::shop::{Shop, held};
use super::slot::{Face, Slot, Stage};

/// A reader that is away for so long is missing; a hub that is reset takes seconds.
const MISSING_AFTER: Duration = Duration::from_secs(10);
/// A reader may be heard at its new place before it is missed at the old one, by so much.
const HEARD_LATER: Duration = Duration::from_secs(5);
/// How long the light of a slot that was named strobes.
const NAMED_FOR: Duration = Duration::from_secs(3);

/// The parts of the shop that this file is about.
#[derive(Debug, Default)]
pub(super) struct Places {
    book: Book,
    naming: Option<Naming>,
    /// The machine can be restarted from here.
    may_reboot: bool,
    /// It is to be, when no card is being written.
    rebooting: bool,
    away_since: BTreeMap<SlotId, Timestamp>,
    /// Slots whose reader was there in this run.
    was_here: BTreeSet<SlotId>,
    /// Slots that came up in this run.
    came_up: BTreeMap<SlotId, Timestamp>,
    raised: BTreeMap<String, Alert>,
}

/// One slot, for a screen.
#[derive(Debug, Clone, PartialEq)]
pub struct SlotLine {
    /// Which.
    pub slot: SlotId,
    /// What people call it.
    pub name: Option<String>,
    /// What it shows.
    pub state: SlotState,
    /// A person at the appliance holds it.
    pub held_here: bool,
    /// What became of its cards.
    pub counts: Counts,
}

/// The whole bench, for a screen.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct BenchView {
    /// All slots.
    pub slots: Vec<SlotLine>,
    /// What is asked while slots are being named.
    pub question: Option<Question>,
    /// Readers that seem to have been plugged in elsewhere.
    pub moved: Vec<Moved>,
    /// The appliance takes work.
    pub on: bool,
}

impl Shop {
    /// Opens the book of slots that was kept; `may_reboot` says whether this machine can be restarted. To be called
    /// before the first event.
    pub fn open_book(&mut self, book: Book, may_reboot: bool) {
        for (id, ..) in book.all() {
            self.slots.entry(id.clone()).or_insert_with(|| Slot::new(id));
        }
        self.places.book = book;
        self.places.may_reboot = may_reboot;
        self.refresh_holds();
    }

    /// The book of slots.
    pub fn book(&self) -> &Book {
        &self.places.book
    }

    /// Everything a screen shows of the bench.
    pub fn bench(&self) -> BenchView {
        let lines = self.shown().map(|(slot, state)| SlotLine {
            slot: slot.clone(),
            name: self.name(slot),
            state: state.clone(),
            held_here: self.places.book.hold(slot).is_some(),
            counts: self.places.book.counts(slot),
        });
        BenchView {
            slots: lines.collect(),
            question: self.places.naming.as_ref().map(Naming::question),
            moved: self.moved(),
            on: self.places.book.is_on(),
        }
    }

    /// What people call a slot: what the scheduler says counts more than what was said here.
    fn name(&self, slot: &SlotId) -> Option<String> {
        let told = self.desired().and_then(|d| d.slots.iter().find(|s| s.slot == *slot)?.name.clone());
        told.or_else(|| self.places.book.name(slot).map(str::to_owned))
    }

    /// Slots whose reader is plugged in, as far as that is known.
    fn present(&self) -> BTreeSet<SlotId> {
        let there = self.slots.values().filter(|slot| !matches!(slot.stage, Stage::Absent));
        there.map(|slot| slot.id.clone()).collect()
    }

    /// Readers that seem to have been plugged in elsewhere since they were pulled out, or since the last run.
    fn moved(&self) -> Vec<Moved> {
        let Places { book, away_since, was_here, came_up, .. } = &self.places;
        book.moved(&self.present(), |slot, to| {
            let (up, away) = (came_up.get(to)?, away_since.get(slot)?);
            let may_be = !was_here.contains(slot) || *up + HEARD_LATER >= *away;
            may_be.then_some(up >= away)
        })
    }

    fn known(&self) -> BTreeSet<SlotId> {
        self.slots.keys().cloned().collect()
    }

    /// Why each slot takes no work, if it does not.
    pub(super) fn refresh_holds(&mut self) {
        let everywhere = match &self.places {
            places if !places.book.is_on() => Some("the appliance is switched off"),
            places if places.naming.is_some() => Some("slots are being named"),
            places if places.rebooting => Some("the appliance restarts"),
            _ => None,
        };
        let (desired, book) = (&self.desired, &self.places.book);
        for slot in self.slots.values_mut() {
            let told = desired.as_deref().and_then(|desired| held(desired, &slot.id));
            let here = || book.hold(&slot.id).map(str::to_owned);
            slot.hold = everywhere.map(str::to_owned).or(told).or_else(here);
        }
    }

    /// Counts what became of a card, where there is such a slot.
    pub(super) fn count(&mut self, outcome: Option<(SlotId, bool)>, effects: &mut Vec<Effect>) {
        if let Some((slot, verified)) = outcome.filter(|(slot, _)| self.slots.contains_key(slot)) {
            self.places.book.count(&slot, verified);
            effects.push(Effect::KeepBook(Box::new(self.places.book.clone())));
        }
    }

    fn keep_book(&mut self, effects: &mut Vec<Effect>) {
        effects.push(Effect::KeepBook(Box::new(self.places.book.clone())));
        self.refresh_holds();
    }

    /// A reader is plugged into a port: one more slot, or one that was known.
    pub(super) fn reader_here(&mut self, now: Timestamp, key: &str, reader: &str, effects: &mut Vec<Effect>) {
        let before = self.places.book.clone();
        let is_new = self.places.book.slot(key).is_none();
        let slot = self.places.book.bind(key, reader);
        if let (true, Some(slot)) = (is_new, &slot) {
            self.places.came_up.insert(slot.clone(), now);
        }
        if self.places.book != before {
            if let Some(slot) = slot {
                self.slots.entry(slot.clone()).or_insert_with(|| Slot::new(slot));
            }
            self.keep_book(effects);
        }
    }

    /// A slot's reader is there, with a card or without.
    pub(super) fn reader_answers(&mut self, slot: &SlotId) {
        self.places.was_here.insert(slot.clone());
    }

    /// A slot's card came or went: what shows which slot is meant while slots are being named.
    pub(super) fn card_moved(
        &mut self,
        now: Timestamp,
        slot: &SlotId,
        came: bool,
        effects: &mut Vec<Effect>,
    ) {
        let known = self.known();
        let Some(naming) = &mut self.places.naming else { return };
        if !came {
            return naming.card_out(slot);
        }
        match naming.card_in(slot) {
            Shown::Slot(name) => {
                // A name that was given to another slot earlier goes over to this one.
                let others: Vec<SlotId> = self.places.book.names().keys().cloned().collect();
                let same =
                    |id: &&SlotId| self.places.book.name(id).is_some_and(|n| n.eq_ignore_ascii_case(&name));
                if let Some(other) = others.iter().find(same) {
                    let _ = self.places.book.rename(other, None, &known);
                }
                let named = self.places.book.rename(slot, Some(&name), &known);
                effects.push(Effect::Tell(match named {
                    Ok(()) => format!("This one is {name}."),
                    Err(error) => error.to_string(),
                }));
                self.strobe(slot, now + NAMED_FOR);
                self.keep_book(effects);
            }
            Shown::Again(name) => effects.push(Effect::Tell(format!("This one is {name} already."))),
            Shown::Nothing => {}
        }
        let present = self.present();
        if self.places.naming.as_ref().is_some_and(|naming| naming.is_over(&present)) {
            self.places.naming = None;
            effects.push(Effect::Tell("All slots have a name.".into()));
            self.refresh_holds();
        }
    }

    fn strobe(&mut self, slot: &SlotId, until: Timestamp) {
        if let Some(slot) = self.slots.get_mut(slot) {
            slot.identify_until = Some(until);
        }
    }

    /// The button at a slot: what a person would do about what it shows.
    pub(super) fn pressed(&mut self, now: Timestamp, slot: &SlotId, effects: &mut Vec<Effect>) {
        let slot = slot.clone();
        let action = match self.slots.get(&slot).map(|slot| &slot.stage) {
            Some(Stage::Ready { face: Face::Confirm, .. }) => Action::Release { slot },
            Some(Stage::Failed { .. } | Stage::Locked(_)) => Action::Retry { slot },
            Some(_) => Action::Identify { slot },
            None => return,
        };
        let _ = self.act(now, &action, effects);
    }

    /// A person at the appliance wants something.
    pub(super) fn wish(&mut self, now: Timestamp, wish: Wish, effects: &mut Vec<Effect>) {
        let said: Said = match wish {
            Wish::Act(action) => self.act(now, &action, effects),
            Wish::Name { slot, name } => self.rename(now, &slot, name.as_deref(), effects),
            Wish::Remove { slot } => self.remove(&slot, effects),
            Wish::Move(moved) => self.accept_move(&moved, effects),
            Wish::ResetNames => {
                let present = self.present();
                let gone = self.places.book.reset(&present);
                self.forget(&gone, effects);
                Ok("all names are forgotten")
            }
            Wish::Hold { slot, hold } => {
                let reason = hold.then(|| "held at the appliance".to_owned());
                self.places.book.set_hold(&slot, reason);
                self.keep_book(effects);
                Ok(if hold { "the slot takes no cards" } else { "the slot goes on" })
            }
            Wish::Switch { on } => {
                self.places.book.switch(on);
                self.keep_book(effects);
                Ok(if on { "the appliance takes work" } else { "no card is begun any more" })
            }
            Wish::NameAll { on } => {
                let full = |slot: &&Slot| !matches!(slot.stage, Stage::Empty { .. } | Stage::Absent);
                let full = self.slots.values().filter(full).map(|slot| slot.id.clone()).collect();
                self.places.naming = on.then(|| Naming::start(full));
                self.refresh_holds();
                Ok(if on { "slots are being named" } else { "naming has ended" })
            }
        };
        effects.push(Effect::Tell(match said {
            Ok(text) => text.to_owned(),
            Err(text) => text.into_owned(),
        }));
    }

    /// Calls a slot something. What the scheduler calls others is taken, too.
    fn rename(
        &mut self,
        now: Timestamp,
        slot: &SlotId,
        name: Option<&str>,
        effects: &mut Vec<Effect>,
    ) -> Said {
        let told = self.desired().map_or(&[][..], |desired| &desired.slots);
        let same = |other: &str| name.is_some_and(|name| name.trim().to_lowercase() == other.to_lowercase());
        let taken = told.iter().find(|other| other.slot != *slot && other.name.as_deref().is_some_and(same));
        if let Some(other) = taken.map(|other| other.slot.clone()) {
            return Err(wrong(BookError::NameTaken(other)));
        }
        let known = self.known();
        self.places.book.rename(slot, name, &known).map_err(wrong)?;
        self.strobe(slot, now + NAMED_FOR);
        self.keep_book(effects);
        Ok("the slot has its name")
    }

    fn remove(&mut self, slot: &SlotId, effects: &mut Vec<Effect>) -> Said {
        let present = self.present();
        self.places.book.remove(slot, &present).map_err(wrong)?;
        self.forget(std::slice::from_ref(slot), effects);
        Ok("the slot is forgotten")
    }

    fn accept_move(&mut self, moved: &Moved, effects: &mut Vec<Effect>) -> Said {
        if self.slots.get(&moved.to).is_some_and(|slot| slot.work().is_some()) {
            return Err("a card is being written there".into());
        }
        let present = self.present();
        self.places.book.accept(moved, &present).map_err(wrong)?;
        self.forget(std::slice::from_ref(&moved.to), effects);
        Ok("the slot is here now")
    }

    fn forget(&mut self, gone: &[SlotId], effects: &mut Vec<Effect>) {
        for slot in gone {
            self.slots.remove(slot);
            self.places.away_since.remove(slot);
            self.places.came_up.remove(slot);
            self.places.was_here.remove(slot);
            effects.push(Effect::Forget(slot.clone()));
        }
        self.keep_book(effects);
    }

    /// Asks for a restart of the machine.
    pub(super) fn ask_reboot(&mut self) -> Said {
        if !self.places.may_reboot {
            return Err("not on this machine".into());
        }
        self.places.rebooting = true;
        self.refresh_holds();
        Ok("it restarts when no card is being written")
    }

    /// Restarts the machine once nothing is in the way.
    pub(super) fn reboot_if_quiet(&mut self, effects: &mut Vec<Effect>) {
        if self.places.rebooting && self.is_quiet() {
            self.places.rebooting = false;
            self.places.may_reboot = false;
            effects.push(Effect::Reboot);
        }
    }

    /// Raises an alert for each slot whose reader is away, and for each reader that asks to be moved; clears those that
    /// are over. With `again` every one is said, also that it is not raised.
    pub(super) fn raise_alerts(&mut self, now: Timestamp, again: bool, effects: &mut Vec<Effect>) {
        let mut wanted: BTreeMap<String, (SlotId, String)> = BTreeMap::new();
        for slot in self.slots.values() {
            if !matches!(slot.stage, Stage::Absent) {
                self.places.away_since.remove(&slot.id);
                continue;
            }
            let since = *self.places.away_since.entry(slot.id.clone()).or_insert(now);
            if now.since(since) >= MISSING_AFTER {
                let text = format!("the reader of slot {} is not plugged in", self.label(&slot.id));
                wanted.insert(code("slot_missing", &slot.id), (slot.id.clone(), text));
            }
        }
        for Moved { slot, to } in self.moved() {
            let text = format!(
                "the reader of slot {} seems to be at {to} now: move the slot there?",
                self.label(&slot)
            );
            wanted.insert(code("reader_moved", &to), (to, text));
        }
        let mut say = |code: &str, alert: Option<Alert>| {
            effects.push(Effect::Publish(Message::Alert { code: code.to_owned(), alert }));
        };
        let over: BTreeSet<String> =
            self.places.raised.keys().filter(|code| !wanted.contains_key(*code)).cloned().collect();
        over.iter().for_each(|code| say(code, None));
        self.places.raised.retain(|code, _| !over.contains(code));
        if again {
            let never = self.slots.keys().flat_map(|id| [code("slot_missing", id), code("reader_moved", id)]);
            never.filter(|code| !wanted.contains_key(code)).for_each(|code| say(&code, None));
        }
        for (code, (slot, text)) in wanted {
            let known = self.places.raised.get(&code);
            let since = known.map_or(now, |alert| alert.since);
            let alert = Alert { v: VERSION, text, since, slot: Some(slot) };
            if again || known != Some(&alert) {
                say(&code, Some(alert.clone()));
                self.places.raised.insert(code, alert);
            }
        }
    }

    fn label(&self, slot: &SlotId) -> String {
        self.name(slot).map_or_else(|| slot.to_string(), |name| format!("{name} ({slot})"))
    }
}

/// Where a card was verified, or was not.
pub(super) fn outcome_of(fact: &Fact) -> Option<(SlotId, bool)> {
    match fact {
        Fact::CardVerified { record, .. } => Some((record.slot.clone(), true)),
        Fact::WriteFailed { slot, .. } => Some((slot.clone(), false)),
        _ => None,
    }
}

fn wrong(error: BookError) -> Cow<'static, str> {
    error.to_string().into()
}

/// The code of an alert about a slot; codes have no `-`.
fn code(what: &str, slot: &SlotId) -> String {
    format!("{what}_{}", slot.to_string().replace('-', "_"))
}
