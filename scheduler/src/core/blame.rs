//! Whose fault failed cards are, where more than one card has to be known: this decides which card is bad, which
//! slot is held, and which hub is doubted, from the facts of one appliance. `effects::bench_records` stores what it
//! decides with the fact that led to it; each decision is a line in the order's story, with its reason.
//!
//! ```text
//! card differs at read-back ──► written again in place, once        the agent, which has the card in its hands
//!        again ──► note on the card, "put it into another slot"     the agent
//!        in a second slot ──► the card is bad, no slot is to blame  the agent tells the person; here the slots are
//!                                                                    cleared of it, on whatever appliance they are
//! two cards fail in one slot ──► the slot is held                   here, until a person lets it go on
//! three slots of one hub are held ──► the hub is doubted: an alert  here, until fewer are held
//! the image's bytes do not match its index ──► the image is held    `order::writes`; no card and no slot is blamed
//! ```
//!
//! A verified card clears its slot of what was held against it so far.

use std::collections::BTreeMap;

use cardshop_protocol::ids::{ApplianceId, ObjectId, SlotId};
use cardshop_protocol::message::{DesiredSlot, Fault, Remedy};
use cardshop_protocol::time::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::order::Note;

/// Cards that fail in a slot before it is held: one may be the card's fault, of two the slot has a part in both.
const CARDS_THAT_HOLD_A_SLOT: usize = 2;
/// Held slots on a hub before the hub is doubted.
const SLOTS_THAT_DOUBT_A_HUB: usize = 3;
/// Slots remembered of one appliance.
const MAX_SLOTS: usize = 256;

/// Why a slot takes no cards.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Hold {
    /// For people.
    pub reason: String,
    /// Since when.
    pub since: Timestamp,
    /// Login name of who holds it; `None` = two cards failed in it.
    #[serde(default)]
    pub by: Option<String>,
}

/// Longest name of a slot, characters: it is to be read at three metres.
pub(crate) const MAX_SLOT_NAME: usize = 24;

/// What is known of one slot.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SlotRecord {
    /// Cards that failed in it since one was verified in it, or a person let it go on.
    pub(crate) failed: Vec<String>,
    pub(crate) hold: Option<Hold>,
    /// What people call it.
    #[serde(default)]
    pub(crate) name: Option<String>,
    /// Cards verified in it, and tries that failed, so far.
    #[serde(default)]
    pub(crate) verified: u64,
    #[serde(default)]
    pub(crate) failures: u64,
}

/// The hub of each slot, as far as it is known.
pub(crate) type Hubs = BTreeMap<SlotId, String>;

/// What is known of the slots of one appliance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct BenchRecord {
    pub(crate) appliance: ApplianceId,
    pub(crate) slots: BTreeMap<SlotId, SlotRecord>,
    /// Hubs that are doubted, since when.
    pub(crate) hubs: BTreeMap<String, Timestamp>,
}

/// A card that failed.
pub(crate) struct Failed<'a> {
    pub(crate) slot: &'a SlotId,
    pub(crate) fault: &'a Fault,
    pub(crate) remedy: Remedy,
    /// The card, where it can be known again.
    pub(crate) card: Option<ObjectId>,
    /// Number of the fact that told it: what stands for a card that cannot be known again.
    pub(crate) fact: u64,
}

/// What a failure says.
enum Says {
    /// The card is bad whatever the slot.
    CardIsBad,
    /// It is the card or the slot.
    CardOrSlot,
    /// Neither.
    Nothing,
}

fn says(fault: &Fault) -> Says {
    match fault.code.as_str() {
        "fake_capacity" => Says::CardIsBad,
        "verify_mismatch" | "io_error" | "stuck" | "not_invalidated" => Says::CardOrSlot,
        _ => Says::Nothing,
    }
}

impl Failed<'_> {
    /// The card, when the appliance has found it bad: it failed in two slots.
    pub(crate) fn bad_card(&self) -> Option<ObjectId> {
        self.card
            .filter(|_| self.remedy == Remedy::ReplaceCard && matches!(says(self.fault), Says::CardOrSlot))
    }
}

/// The hub that a reader hangs on, from its port path: all up to the last port of the USB chain.
pub(crate) fn hub_of(port_path: &str) -> &str {
    let is_chain =
        |part: &str| part.contains('.') && part.bytes().all(|b| b.is_ascii_digit() || b == b'.' || b == b'-');
    let between = [':', '/', '_'];
    let mut at = port_path.find("usb").unwrap_or(port_path.len());
    for part in port_path[at..].split_inclusive(between) {
        let ports = part.trim_end_matches(between);
        if is_chain(ports.trim_start_matches(|c: char| c.is_ascii_alphabetic() || c == '-')) {
            return &port_path[..at + ports.rfind('.').expect("a chain has one")];
        }
        at += part.len();
    }
    port_path.rsplit_once(['/', ':']).map_or(port_path, |(hub, _)| hub)
}

impl BenchRecord {
    pub(crate) fn new(appliance: ApplianceId) -> Self {
        Self { appliance, slots: BTreeMap::new(), hubs: BTreeMap::new() }
    }

    /// The record of a slot; `None` when too many are remembered.
    fn record(&mut self, slot: &SlotId) -> Option<&mut SlotRecord> {
        if self.slots.len() >= MAX_SLOTS && !self.slots.contains_key(slot) {
            return None;
        }
        Some(self.slots.entry(slot.clone()).or_default())
    }

    /// A card was verified in `slot`: what failed in it before was the cards' fault.
    pub(crate) fn card_verified(&mut self, slot: &SlotId) {
        if let Some(record) = self.record(slot) {
            record.failed.clear();
            record.verified += 1;
        }
    }

    /// A card failed.
    pub(crate) fn card_failed(
        &mut self,
        failed: &Failed<'_>,
        now: Timestamp,
        hubs: &Hubs,
        notes: &mut Vec<Note>,
    ) {
        let Failed { slot, fault, .. } = failed;
        if let Some(record) = self.record(slot) {
            record.failures += 1;
        }
        match says(fault) {
            Says::Nothing => {}
            Says::CardIsBad => {
                let text = format!(
                    "The card in slot {slot} is bad: it has less memory than it says. The slot is not to blame."
                );
                self.note("card_bad", text, notes);
            }
            Says::CardOrSlot => match failed.bad_card() {
                Some(card) => {
                    let text = format!(
                        "Card {card} failed in another slot before and now in slot {slot}: the card is bad, and no \
                         slot is to blame."
                    );
                    self.note("card_bad", text, notes);
                    self.clear_of(card, hubs, notes);
                }
                None => self.doubt(failed, now, hubs, notes),
            },
        }
    }

    /// A card is bad: slots are not held because of it.
    pub(crate) fn clear_of(&mut self, card: ObjectId, hubs: &Hubs, notes: &mut Vec<Note>) {
        let (card, mut freed) = (card.to_string(), Vec::new());
        for (slot, record) in &mut self.slots {
            let before = record.failed.len();
            record.failed.retain(|failed| *failed != card);
            let cleared = record.failed.len() < before && record.failed.len() < CARDS_THAT_HOLD_A_SLOT;
            if cleared && record.hold.take_if(|hold| hold.by.is_none()).is_some() {
                freed.push(slot.clone());
            }
        }
        for slot in freed {
            let text =
                format!("Slot {slot} takes cards again: one of those that failed in it is bad itself.");
            self.note("slot_freed", text, notes);
        }
        self.forget_hubs(hubs);
    }

    /// True when a slot has something held against it because of `card`.
    pub(crate) fn knows(&self, card: ObjectId) -> bool {
        let card = card.to_string();
        self.slots.values().any(|record| record.failed.contains(&card))
    }

    fn doubt(&mut self, failed: &Failed<'_>, now: Timestamp, hubs: &Hubs, notes: &mut Vec<Note>) {
        let slot = failed.slot;
        let Some(record) = self.record(slot) else { return };
        let card = failed.card.map_or_else(|| format!("fact {}", failed.fact), |card| card.to_string());
        if record.failed.contains(&card) || record.failed.len() >= CARDS_THAT_HOLD_A_SLOT {
            return;
        }
        record.failed.push(card);
        if record.failed.len() < CARDS_THAT_HOLD_A_SLOT || record.hold.is_some() {
            return;
        }
        let reason =
            format!("{CARDS_THAT_HOLD_A_SLOT} cards failed in it, the last with: {}", failed.fault.text);
        let text = format!(
            "Slot {slot} is held: {reason}. It takes no card until a person has looked at its reader and lets it go on."
        );
        record.hold = Some(Hold { reason, since: now, by: None });
        self.note("slot_held", text, notes);
        self.doubt_hub_of(slot, now, hubs, notes);
    }

    fn doubt_hub_of(&mut self, slot: &SlotId, now: Timestamp, hubs: &Hubs, notes: &mut Vec<Note>) {
        let Some(hub) = hubs.get(slot) else { return };
        let held = self.held_on(hub, hubs);
        if held.len() < SLOTS_THAT_DOUBT_A_HUB || self.hubs.contains_key(hub) {
            return;
        }
        self.hubs.insert(hub.clone(), now);
        let text =
            format!("Slots {} hang on one hub, {hub}: look at that hub and its supply.", held.join(", "));
        self.note("hub_doubted", text, notes);
    }

    /// Slots on a hub that are held because cards failed in them.
    fn held_on(&self, hub: &str, hubs: &Hubs) -> Vec<String> {
        let is_held = |record: &SlotRecord| record.hold.as_ref().is_some_and(|hold| hold.by.is_none());
        let held = self
            .slots
            .iter()
            .filter(|(slot, record)| is_held(record) && hubs.get(*slot).is_some_and(|h| h == hub));
        held.map(|(slot, _)| slot.to_string()).collect()
    }

    fn forget_hubs(&mut self, hubs: &Hubs) {
        let fewer = |hub: &String| self.held_on(hub, hubs).len() < SLOTS_THAT_DOUBT_A_HUB;
        let gone: Vec<String> = self.hubs.keys().filter(|hub| fewer(hub)).cloned().collect();
        gone.iter().for_each(|hub| {
            self.hubs.remove(hub);
        });
    }

    /// A person holds a slot.
    pub(crate) fn hold(&mut self, slot: &SlotId, hold: Hold) {
        self.slots.entry(slot.clone()).or_default().hold = Some(hold);
    }

    /// A person lets a slot go on; false when it was not held.
    pub(crate) fn resume(&mut self, slot: &SlotId, hubs: &Hubs) -> bool {
        let Some(record) = self.slots.get_mut(slot) else { return false };
        record.failed.clear();
        let was_held = record.hold.take().is_some();
        self.forget_hubs(hubs);
        was_held
    }

    /// Names a slot, or takes its name away; gives the slot that has this name already.
    pub(crate) fn rename(&mut self, slot: &SlotId, name: Option<&str>) -> Result<(), SlotId> {
        let same = |other: &SlotRecord| {
            other.name.as_deref().zip(name).is_some_and(|(a, b)| a.to_lowercase() == b.to_lowercase())
        };
        if let Some((other, _)) = self.slots.iter().find(|(id, record)| *id != slot && same(record)) {
            return Err(other.clone());
        }
        self.slots.entry(slot.clone()).or_default().name = name.map(str::to_owned);
        Ok(())
    }

    /// Slots with a name or a hold, as their appliance is to know them.
    pub(crate) fn desired(&self) -> Vec<DesiredSlot> {
        let slots = self.slots.iter().map(|(slot, record)| DesiredSlot {
            slot: slot.clone(),
            name: record.name.clone(),
            hold: record.hold.as_ref().map(|hold| hold.reason.clone()),
        });
        slots.filter(|slot| slot.name.is_some() || slot.hold.is_some()).collect()
    }

    /// The doubted hubs, for people.
    pub(crate) fn doubts(&self) -> Option<(String, Timestamp)> {
        let since = *self.hubs.values().min()?;
        let hubs: Vec<&str> = self.hubs.keys().map(String::as_str).collect();
        let text = format!(
            "{SLOTS_THAT_DOUBT_A_HUB} slots or more of hub {} are held: look at that hub and its supply",
            hubs.join(" and of hub ")
        );
        Some((text, since))
    }

    fn note(&self, kind: &'static str, text: String, notes: &mut Vec<Note>) {
        notes.push(Note { kind, text, appliance: Some(self.appliance) });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: ApplianceId = ApplianceId([1; 8]);

    fn now() -> Timestamp {
        Timestamp::from_ms(1_790_000_000_000)
    }
    fn hubs() -> Hubs {
        let on = |n: u32, hub: &str| (SlotId::numbered(n), hub.to_owned());
        BTreeMap::from([on(1, "usb-3"), on(2, "usb-3"), on(3, "usb-3"), on(4, "usb-4")])
    }
    fn card(n: u128) -> ObjectId {
        ObjectId::from_parts(1, n)
    }

    /// A bench whose decisions are kept.
    struct Bench(BenchRecord, Vec<Note>, u64);

    impl Bench {
        fn new() -> Self {
            Self(BenchRecord::new(OURS), Vec::new(), 0)
        }
        fn fails(&mut self, slot: u32, code: &str, card: Option<ObjectId>, remedy: Remedy) {
            self.2 += 1;
            let fault = Fault { code: code.into(), text: "it differs".into(), offset: None };
            let failed = Failed { slot: &SlotId::numbered(slot), fault: &fault, remedy, card, fact: self.2 };
            self.0.card_failed(&failed, now(), &hubs(), &mut self.1);
        }
        fn held(&self) -> Vec<String> {
            let held = self.0.slots.iter().filter(|(_, record)| record.hold.is_some());
            held.map(|(slot, _)| slot.to_string()).collect()
        }
        fn kinds(&self) -> Vec<&'static str> {
            self.1.iter().map(|n| n.kind).collect()
        }
    }

    #[test]
    fn two_cards_failing_in_one_slot_hold_it_and_one_card_twice_does_not() {
        let mut bench = Bench::new();
        for _ in 0..3 {
            bench.fails(1, "verify_mismatch", Some(card(1)), Remedy::Retry);
        }
        assert!(bench.held().is_empty() && bench.1.is_empty());
        bench.fails(1, "verify_mismatch", Some(card(2)), Remedy::Retry);
        assert_eq!((bench.held(), bench.kinds()), (vec!["s01".to_owned()], vec!["slot_held"]));
        assert!(bench.1[0].text.contains("it differs"), "the reason is told: {}", bench.1[0].text);
        bench.fails(1, "io_error", None, Remedy::ReplaceCard);
        assert_eq!(bench.kinds().len(), 1, "it is decided once");
        assert!(bench.0.resume(&SlotId::numbered(1), &hubs()));
        bench.fails(1, "io_error", None, Remedy::ReplaceCard);
        assert!(bench.held().is_empty(), "a person's word begins anew");
    }

    #[test]
    fn cards_that_cannot_be_known_again_count_each_time_and_a_verified_card_clears_the_slot() {
        let mut bench = Bench::new();
        bench.fails(1, "io_error", None, Remedy::ReplaceCard);
        bench.0.card_verified(&SlotId::numbered(1));
        bench.fails(1, "stuck", None, Remedy::ReplaceCard);
        assert!(bench.held().is_empty());
        bench.fails(1, "io_error", None, Remedy::ReplaceCard);
        assert_eq!(bench.held(), ["s01"]);
    }

    #[test]
    fn a_card_that_failed_in_two_slots_is_bad_and_slots_held_for_it_are_free_again() {
        let mut bench = Bench::new();
        bench.fails(1, "verify_mismatch", Some(card(7)), Remedy::Retry);
        bench.fails(1, "verify_mismatch", Some(card(8)), Remedy::Retry);
        assert_eq!(bench.held(), ["s01"]);
        bench.fails(2, "verify_mismatch", Some(card(7)), Remedy::ReplaceCard);
        assert_eq!(bench.kinds(), ["slot_held", "card_bad", "slot_freed"]);
        assert!(bench.held().is_empty());
        assert!(!bench.0.knows(card(7)) && bench.0.knows(card(8)));
    }

    #[test]
    fn what_is_not_the_slots_fault_is_not_held_against_it() {
        let mut bench = Bench::new();
        for code in ["card_removed", "withdrawn", "chunk_mismatch", "source_corrupt", "card_too_small"] {
            bench.fails(1, code, None, Remedy::Retry);
        }
        assert!(bench.1.is_empty());
        bench.fails(1, "fake_capacity", None, Remedy::ReplaceCard);
        bench.fails(1, "fake_capacity", None, Remedy::ReplaceCard);
        assert_eq!((bench.held().len(), bench.kinds()), (0, vec!["card_bad", "card_bad"]));
    }

    #[test]
    fn three_held_slots_of_one_hub_doubt_the_hub_until_fewer_are_held() {
        let mut bench = Bench::new();
        for slot in [4, 1, 2, 3] {
            assert!(bench.0.doubts().is_none());
            for _ in 0..2 {
                bench.fails(slot, "io_error", None, Remedy::ReplaceCard);
            }
        }
        assert_eq!(bench.kinds().iter().filter(|k| **k == "hub_doubted").count(), 1);
        assert!(bench.0.doubts().unwrap().0.contains("usb-3"));
        bench.0.resume(&SlotId::numbered(2), &hubs());
        assert!(bench.0.doubts().is_none());
    }

    #[test]
    fn a_hub_is_the_port_path_without_the_last_port() {
        for (path, hub) in [
            ("pci-0000:00:14.0-usb-0:3.2.1:1.0-scsi-0:0:0:1", "pci-0000:00:14.0-usb-0:3.2"),
            ("pci-0000:00:14.0/usb-3.2/lun0", "pci-0000:00:14.0/usb-3"),
            ("pci-0000:00:14.0/usb3-1.4/lun1", "pci-0000:00:14.0/usb3-1"),
            ("0000:00:14.0/usb-3.2/0", "0000:00:14.0/usb-3"),
            ("0000:00:14.0/usb-3/1", "0000:00:14.0/usb-3"),
            ("0000:00:05.0/mmc", "0000:00:05.0"),
            ("virtual/s01", "virtual"),
            ("mmc", "mmc"),
        ] {
            assert_eq!(hub_of(path), hub, "{path}");
        }
    }
}
