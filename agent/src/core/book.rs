//! The slots of this appliance: which port each one is, what people call it, which are held or forgotten, and whether
//! the appliance takes work at all. Pure; the shop decides with it, `effects::slot_book` keeps it in `slots.json`, so that
//! names survive reboots and re-plugging.
//!
//! ```text
//!   a port never seen ──bind──► slot s07 ──name──► "C"        no name twice; a slot's id is never given again
//!                                  │
//!        reader gone, and one like it where slot s09 came up ──move──► s07 is that port now, s09 is forgotten
//! ```

use std::collections::{BTreeMap, BTreeSet};

use cardshop_protocol::ids::SlotId;
use serde::{Deserialize, Serialize};

use crate::config::MAX_SLOTS;

/// Longest name, characters: what fits under a slot on a label and a screen.
pub const MAX_NAME_CHARS: usize = 20;
/// Longest text that tells one reader from another, characters.
const MAX_READER_CHARS: usize = 80;
/// Slot numbers ever given. Past it people reset.
const MAX_NUMBER: usize = 999;

/// One port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "KeptPort")]
struct Port {
    key: String,
    /// What the reader that was plugged in there last calls itself.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    reader: String,
}

/// A port as files have it: those of the first release have the key only.
#[derive(Deserialize)]
#[serde(untagged)]
enum KeptPort {
    Key(String),
    Port {
        key: String,
        #[serde(default)]
        reader: String,
    },
}

impl From<KeptPort> for Port {
    fn from(kept: KeptPort) -> Self {
        match kept {
            KeptPort::Key(key) => Self { key, reader: String::new() },
            KeptPort::Port { key, reader } => Self { key, reader },
        }
    }
}

/// The slots, as they are kept.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Book {
    /// Of the slots `s01`, `s02` …; nothing where one was forgotten.
    ports: Vec<Option<Port>>,
    names: BTreeMap<SlotId, String>,
    /// Held by a person at the appliance itself, and why.
    holds: BTreeMap<SlotId, String>,
    /// What became of cards.
    counts: BTreeMap<SlotId, Counts>,
    /// The appliance was switched off: it takes no work.
    off: bool,
}

/// What became of the cards of a slot, until it is forgotten or all are reset.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Counts {
    /// Verified.
    pub verified: u64,
    /// Not, for whatever reason.
    pub failed: u64,
}

/// Why a slot is not named, moved or forgotten.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BookError {
    /// There is none.
    #[error("there is no such slot")]
    NoSuchSlot,
    /// Nothing that could be read on a label.
    #[error("a name has 1 to {MAX_NAME_CHARS} characters")]
    NoName,
    /// Another slot has this name.
    #[error("slot {0} is called that already")]
    NameTaken(SlotId),
    /// Its reader is there, and would come up as a new slot.
    #[error("its reader is plugged in: pull it out first")]
    PluggedIn,
    /// Only a slot whose reader is away moves, and only to one whose reader is there.
    #[error("slot {0} cannot be moved to slot {1}")]
    NotMoved(SlotId, SlotId),
}

/// A reader that seems to have been plugged in elsewhere.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moved {
    /// The slot whose reader is away.
    pub slot: SlotId,
    /// The slot that came up.
    pub to: SlotId,
}

impl Book {
    /// The slot of a port, if it has one.
    pub fn slot(&self, key: &str) -> Option<SlotId> {
        let at = self.ports.iter().position(|port| port.as_ref().is_some_and(|port| port.key == key))?;
        Some(SlotId::numbered(at as u32 + 1))
    }

    /// Gives a port the next slot, unless it has one; `None` when there are as many as there can be. A reader that says
    /// another name is another reader in the same place.
    pub fn bind(&mut self, key: &str, reader: &str) -> Option<SlotId> {
        let reader: String = reader.chars().take(MAX_READER_CHARS).collect();
        let known = self.ports.iter_mut().flatten().find(|port| port.key == key);
        if let Some(port) = known {
            port.reader = reader;
        } else if self.ports.iter().flatten().count() < MAX_SLOTS && self.ports.len() < MAX_NUMBER {
            self.ports.push(Some(Port { key: key.into(), reader }));
        }
        self.slot(key)
    }

    /// All slots that are ports, with their key and reader.
    pub fn all(&self) -> impl Iterator<Item = (SlotId, &str, &str)> {
        let numbered = (1..).zip(&self.ports).filter_map(|(number, port)| Some((number, port.as_ref()?)));
        numbered
            .take(MAX_SLOTS)
            .map(|(number, port)| (SlotId::numbered(number), port.key.as_str(), port.reader.as_str()))
    }

    fn port(&mut self, slot: &SlotId) -> Option<&mut Option<Port>> {
        let at = self.ports.iter().zip(1..).position(|(_, number)| SlotId::numbered(number) == *slot)?;
        self.ports.get_mut(at)
    }

    fn is_port(&self, slot: &SlotId) -> bool {
        self.all().any(|(id, ..)| id == *slot)
    }

    /// What people call a slot.
    pub fn name(&self, slot: &SlotId) -> Option<&str> {
        self.names.get(slot).map(String::as_str)
    }

    /// All names.
    pub fn names(&self) -> &BTreeMap<SlotId, String> {
        &self.names
    }

    /// Calls a slot something, or nothing any more. `known` are all slots there are.
    ///
    /// # Errors
    /// `NoSuchSlot`, `NoName` or `NameTaken`.
    pub fn rename(
        &mut self,
        slot: &SlotId,
        name: Option<&str>,
        known: &BTreeSet<SlotId>,
    ) -> Result<(), BookError> {
        if !known.contains(slot) {
            return Err(BookError::NoSuchSlot);
        }
        let Some(name) = name else {
            self.names.remove(slot);
            return Ok(());
        };
        let name = name.trim();
        let fits =
            (1..=MAX_NAME_CHARS).contains(&name.chars().count()) && !name.chars().any(char::is_control);
        if !fits {
            return Err(BookError::NoName);
        }
        // People tell "a" from "A" no better than "A" from "A".
        let same = |other: &str| other.to_lowercase() == name.to_lowercase();
        if let Some((other, _)) = self.names.iter().find(|(id, other)| *id != slot && same(other)) {
            return Err(BookError::NameTaken(other.clone()));
        }
        self.names.insert(slot.clone(), name.to_owned());
        Ok(())
    }

    /// Why a person at the appliance holds a slot.
    pub fn hold(&self, slot: &SlotId) -> Option<&str> {
        self.holds.get(slot).map(String::as_str)
    }

    /// Holds a slot, or lets it go on.
    pub fn set_hold(&mut self, slot: &SlotId, reason: Option<String>) {
        match reason {
            Some(reason) => drop(self.holds.insert(slot.clone(), reason)),
            None => drop(self.holds.remove(slot)),
        }
    }

    /// What became of the cards of a slot.
    pub fn counts(&self, slot: &SlotId) -> Counts {
        self.counts.get(slot).copied().unwrap_or_default()
    }

    /// A card was verified, or was not.
    pub fn count(&mut self, slot: &SlotId, verified: bool) {
        let counts = self.counts.entry(slot.clone()).or_default();
        let counter = if verified { &mut counts.verified } else { &mut counts.failed };
        *counter = counter.saturating_add(1);
    }

    /// True when the appliance takes work.
    pub fn is_on(&self) -> bool {
        !self.off
    }

    /// Switches the appliance on or off.
    pub fn switch(&mut self, on: bool) {
        self.off = !on;
    }

    /// Forgets a slot whose reader is not plugged in.
    ///
    /// # Errors
    /// `NoSuchSlot` or `PluggedIn`.
    pub fn remove(&mut self, slot: &SlotId, present: &BTreeSet<SlotId>) -> Result<(), BookError> {
        if !self.is_port(slot) {
            return Err(BookError::NoSuchSlot);
        }
        if present.contains(slot) {
            return Err(BookError::PluggedIn);
        }
        self.forget(slot);
        Ok(())
    }

    fn forget(&mut self, slot: &SlotId) {
        if let Some(port) = self.port(slot) {
            *port = None;
        }
        self.names.remove(slot);
        self.holds.remove(slot);
        self.counts.remove(slot);
    }

    /// Forgets all names and holds, and the slots whose readers are not plugged in; gives those.
    pub fn reset(&mut self, present: &BTreeSet<SlotId>) -> Vec<SlotId> {
        let gone: Vec<SlotId> =
            self.all().map(|(slot, ..)| slot).filter(|slot| !present.contains(slot)).collect();
        gone.iter().for_each(|slot| self.forget(slot));
        self.names.clear();
        self.holds.clear();
        self.counts.clear();
        gone
    }

    /// Readers that seem to have moved: a slot with a name is away, and a reader of the same kind came up in a place
    /// without a name: `came(slot, to)` says whether that was since then (`true`) or a moment before. Of several one that
    /// came since then is meant, and of those the one with the same way behind its hub. Nothing is moved before a person
    /// says so.
    pub fn moved(
        &self,
        present: &BTreeSet<SlotId>,
        came: impl Fn(&SlotId, &SlotId) -> Option<bool>,
    ) -> Vec<Moved> {
        let away = self.all().filter(|(id, ..)| !present.contains(id) && self.names.contains_key(id));
        let mut new: Vec<_> =
            self.all().filter(|(id, ..)| present.contains(id) && !self.names.contains_key(id)).collect();
        let mut moved = Vec::new();
        for (slot, key, reader) in away {
            let alike = new.iter().filter(|(_, other, model)| *model == reader && lun(other) == lun(key));
            let ranked =
                alike.filter_map(|(to, other, _)| Some((came(&slot, to)?, common_tail(other, key), to)));
            let best = ranked.max_by_key(|(since, tail, _)| (*since, *tail));
            if let Some(best) = best.map(|(.., best)| best.clone()) {
                new.retain(|(id, ..)| *id != best);
                moved.push(Moved { slot, to: best });
            }
        }
        moved
    }

    /// A person says that it has moved.
    ///
    /// # Errors
    /// `NotMoved`.
    pub fn accept(&mut self, moved: &Moved, present: &BTreeSet<SlotId>) -> Result<(), BookError> {
        let Moved { slot, to } = moved;
        let may = self.is_port(slot) && !present.contains(slot) && self.is_port(to) && present.contains(to);
        let place = if may { self.port(to).and_then(Option::take) } else { None };
        let Some(place) = place else { return Err(BookError::NotMoved(slot.clone(), to.clone())) };
        self.forget(to);
        if let Some(port) = self.port(slot) {
            *port = Some(place);
        }
        Ok(())
    }
}

/// What is behind the last `/` of a key.
fn lun(key: &str) -> &str {
    key.rsplit('/').next().unwrap_or(key)
}

/// How many bytes two keys have in common at their ends.
fn common_tail(one: &str, other: &str) -> usize {
    one.bytes().rev().zip(other.bytes().rev()).take_while(|(a, b)| a == b).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slots(numbers: &[u32]) -> BTreeSet<SlotId> {
        numbers.iter().map(|n| SlotId::numbered(*n)).collect()
    }
    fn slot(n: u32) -> SlotId {
        SlotId::numbered(n)
    }

    /// Two ports of a hub with readers of one kind, named A and B.
    fn bench() -> Book {
        let mut book = Book::default();
        for (key, name) in [("pci/usb-3.1/0", "A"), ("pci/usb-3.2/0", "B")] {
            let slot = book.bind(key, "Genesys").unwrap();
            book.rename(&slot, Some(name), &slots(&[1, 2])).unwrap();
        }
        book
    }

    #[test]
    fn a_port_keeps_its_slot_and_there_are_no_more_than_can_be() {
        let mut book = Book::default();
        let first = book.bind("a", "").unwrap();
        assert_eq!(
            (first.to_string(), book.bind("b", "").unwrap().to_string()),
            ("s01".into(), "s02".into())
        );
        assert_eq!(book.bind("a", ""), Some(first));
        (2..MAX_SLOTS).for_each(|n| assert!(book.bind(&n.to_string(), "").is_some()));
        assert_eq!(book.bind("one too many", ""), None);
        assert_eq!(book.all().count(), MAX_SLOTS);
    }

    #[test]
    fn names_holds_and_ports_survive_a_restart_and_so_does_a_file_of_the_first_release() {
        let mut book = bench();
        book.set_hold(&slot(2), Some("loose".into()));
        book.switch(false);
        let text = serde_json::to_string(&book).unwrap();
        let again: Book = serde_json::from_str(&text).unwrap();
        assert_eq!(again, book);
        assert_eq!(
            (again.name(&slot(1)), again.hold(&slot(2)), again.is_on()),
            (Some("A"), Some("loose"), false)
        );
        let old: Book = serde_json::from_str(r#"{"ports":["pci/usb-3.1/0","pci/usb-3.2/0"]}"#).unwrap();
        assert_eq!(old.slot("pci/usb-3.2/0"), Some(slot(2)));
        assert!(old.is_on());
    }

    #[test]
    fn no_name_is_given_twice_and_none_that_a_label_cannot_bear() {
        let (mut book, known) = (bench(), slots(&[1, 2, 3]));
        assert_eq!(book.rename(&slot(3), Some(" a "), &known), Err(BookError::NameTaken(slot(1))));
        for name in ["", "  ", "\u{7}", "a name that is far too long for a label"] {
            assert_eq!(book.rename(&slot(3), Some(name), &known), Err(BookError::NoName), "{name:?}");
        }
        assert_eq!(book.rename(&slot(4), Some("C"), &known), Err(BookError::NoSuchSlot));
        book.rename(&slot(1), Some("a"), &known).unwrap();
        book.rename(&slot(1), None, &known).unwrap();
        book.rename(&slot(3), Some("Ä 1"), &known).unwrap();
        assert_eq!(book.names().values().collect::<Vec<_>>(), ["B", "Ä 1"]);
    }

    #[test]
    fn a_slot_is_forgotten_only_without_its_reader_and_its_number_is_not_given_again() {
        let mut book = bench();
        assert_eq!(book.remove(&slot(2), &slots(&[1, 2])), Err(BookError::PluggedIn));
        book.remove(&slot(2), &slots(&[1])).unwrap();
        assert_eq!(book.remove(&slot(2), &slots(&[1])), Err(BookError::NoSuchSlot));
        assert_eq!(book.bind("pci/usb-3.2/0", "Genesys"), Some(slot(3)));
        assert_eq!(book.name(&slot(3)), None);
        assert_eq!(book.reset(&slots(&[3])), [slot(1)]);
        assert!(book.names().is_empty() && book.all().count() == 1);
    }

    #[test]
    fn a_hub_plugged_in_elsewhere_asks_for_each_of_its_slots_to_be_moved() {
        let mut book = bench();
        for key in ["pci/usb-5.2/0", "pci/usb-5.1/0", "pci/usb-5.1/1"] {
            book.bind(key, "Genesys").unwrap();
        }
        book.bind("pci/usb-6/0", "Other").unwrap();
        assert_eq!(book.moved(&slots(&[1, 2, 3, 4, 5, 6]), |_, _| Some(true)), [], "nothing is away");
        let present = slots(&[3, 4, 5, 6]);
        assert_eq!(book.moved(&present, |_, _| None), [], "they stood there before");
        let since = |from: &SlotId, to: &SlotId| (from == &slot(1)).then_some(to == &slot(3));
        let before = book.moved(&present, since);
        assert_eq!(before, [Moved { slot: slot(1), to: slot(3) }], "one that came since then is meant");
        let moved = book.moved(&present, |_, _| Some(true));
        let (a, b) = (Moved { slot: slot(1), to: slot(4) }, Moved { slot: slot(2), to: slot(3) });
        assert_eq!(moved, [a.clone(), b]);
        book.accept(&a, &present).unwrap();
        assert_eq!(book.slot("pci/usb-5.1/0"), Some(slot(1)));
        assert_eq!((book.slot("pci/usb-3.1/0"), book.name(&slot(1))), (None, Some("A")));
        assert_eq!(book.accept(&a, &present), Err(BookError::NotMoved(slot(1), slot(4))), "once");
        let back = Moved { slot: slot(3), to: slot(2) };
        assert!(book.accept(&back, &present).is_err(), "what is there does not move");
    }
}
