//! Naming slots one after the other: "put any card into the slot you call A". Pure; the shop asks it, and takes no work
//! meanwhile, so that a card that is put in to show a slot is never written.
//!
//! ```text
//!   start ──► all cards are out? ──no──► "take all cards out"
//!                  │ yes                      │ the last one is out
//!                  ▼                          ▼
//!              "put any card into the slot you call A" ──a card──► A is that slot ──► … B … ──► all are named
//! ```

use std::collections::{BTreeMap, BTreeSet};

use cardshop_protocol::ids::SlotId;

/// Where the naming is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Naming {
    /// Slots with a card in them.
    full: BTreeSet<SlotId>,
    /// What was named so far.
    named: BTreeMap<SlotId, String>,
    begun: bool,
}

/// What a person is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Question {
    /// Take the cards out of these slots.
    Empty(Vec<SlotId>),
    /// Put any card into the slot that is to have this name.
    PutIn(String),
}

/// What a card that was put in has shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shown {
    /// The slot of this name.
    Slot(String),
    /// A slot that has this name since a moment ago.
    Again(String),
    /// Nothing: not all cards had been taken out.
    Nothing,
}

impl Naming {
    /// Begins; `full` are the slots with a card.
    pub fn start(full: BTreeSet<SlotId>) -> Self {
        let begun = full.is_empty();
        Self { full, named: BTreeMap::new(), begun }
    }

    /// What is asked now.
    pub fn question(&self) -> Question {
        if self.begun {
            Question::PutIn(letter(self.named.len()))
        } else {
            Question::Empty(self.full.iter().cloned().collect())
        }
    }

    /// A card was put into a slot.
    pub fn card_in(&mut self, slot: &SlotId) -> Shown {
        self.full.insert(slot.clone());
        if !self.begun {
            return Shown::Nothing;
        }
        if let Some(name) = self.named.get(slot) {
            return Shown::Again(name.clone());
        }
        let name = letter(self.named.len());
        self.named.insert(slot.clone(), name.clone());
        Shown::Slot(name)
    }

    /// A card was taken out, or its reader was.
    pub fn card_out(&mut self, slot: &SlotId) {
        self.full.remove(slot);
        self.begun |= self.full.is_empty();
    }

    /// True when every one of these slots has a name.
    pub fn is_over(&self, slots: &BTreeSet<SlotId>) -> bool {
        slots.iter().all(|slot| self.named.contains_key(slot))
    }
}

/// `A` to `Z`, then `A2` …
fn letter(index: usize) -> String {
    let letter = char::from(b'A' + (index % 26) as u8);
    match index / 26 {
        0 => letter.to_string(),
        round => format!("{letter}{}", round + 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(n: u32) -> SlotId {
        SlotId::numbered(n)
    }

    #[test]
    fn each_card_that_is_put_in_names_one_slot_and_no_slot_is_named_twice() {
        let mut naming = Naming::start(BTreeSet::new());
        let all = BTreeSet::from([slot(1), slot(2), slot(3)]);
        assert_eq!(naming.question(), Question::PutIn("A".into()));
        assert_eq!(naming.card_in(&slot(3)), Shown::Slot("A".into()));
        assert_eq!(naming.question(), Question::PutIn("B".into()));
        naming.card_out(&slot(3));
        assert_eq!(naming.card_in(&slot(3)), Shown::Again("A".into()));
        assert_eq!(naming.card_in(&slot(1)), Shown::Slot("B".into()), "the first may stay in");
        assert!(!naming.is_over(&all));
        naming.card_in(&slot(2));
        assert!(naming.is_over(&all));
        assert_eq!((letter(25), letter(26)), ("Z".into(), "A2".into()));
    }

    #[test]
    fn cards_that_lie_in_slots_are_asked_out_first_and_name_nothing() {
        let mut naming = Naming::start(BTreeSet::from([slot(1), slot(2)]));
        assert_eq!(naming.question(), Question::Empty(vec![slot(1), slot(2)]));
        naming.card_out(&slot(1));
        assert_eq!(naming.card_in(&slot(3)), Shown::Nothing);
        naming.card_out(&slot(3));
        naming.card_out(&slot(2));
        assert_eq!(naming.card_in(&slot(2)), Shown::Slot("A".into()));
    }
}
