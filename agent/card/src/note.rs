//! The note on a card that did not keep what was written to it: its own identity, and the slots in which that
//! happened. USB readers hide a card's serial number, so that without a note nobody could tell "the same card in
//! another slot" from "another card". Any appliance reads it, after any restart. It lies in the first MiB, which the
//! next write clears before all else: a verified card never bears one.
//!
//! ```text
//! offset 8192   This card did not keep what was written to it.
//!               CARDSHOP NOTE 1
//!               01k…                        the card
//!               3f0c…/s02                   where it failed, a line each
//! ```
//!
//! Plain text behind everything that tells a file system or a boot record. Decides nothing: who retries what is the
//! agent's.

use cardshop_protocol::ids::{ApplianceId, ObjectId, SlotId};

use crate::claim::ClaimedCard;
use crate::device::{read_full, sync, write_full};
use crate::error::CardError;
use crate::lanes::Lanes;
use crate::verify::drop_caches;

/// Where the note lies, bytes.
const OFFSET: u64 = 8192;
/// Bytes of the note.
const SIZE: usize = 4096;
/// Slots a note lists: what follows depends on two.
const MAX_SLOTS: usize = 8;
/// What it begins with.
const HEAD: &str = "This card did not keep what was written to it.\nCARDSHOP NOTE 1\n";

/// Where a card has failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailureNote {
    /// The card's identity, made with the note.
    pub card: ObjectId,
    /// Appliances and slots it failed in, each once.
    pub slots: Vec<(ApplianceId, SlotId)>,
}

impl FailureNote {
    /// The note of a card that has none yet.
    pub fn new(card: ObjectId) -> Self {
        Self { card, slots: Vec::new() }
    }

    /// Adds a slot, once.
    pub fn add(&mut self, appliance: ApplianceId, slot: &SlotId) {
        if self.slots.len() < MAX_SLOTS && !self.slots.iter().any(|(a, s)| *a == appliance && s == slot) {
            self.slots.push((appliance, slot.clone()));
        }
    }

    /// True when it failed in more than one slot: no slot is to blame.
    pub fn failed_in_two_slots(&self) -> bool {
        self.slots.len() > 1
    }

    /// The note in a card's first bytes (12 KiB are enough), if there is a whole one.
    pub fn find(first: &[u8]) -> Option<Self> {
        let block = first.get(OFFSET as usize..OFFSET as usize + SIZE)?;
        let end = block.iter().position(|b| *b == 0)?;
        let text = std::str::from_utf8(&block[..end]).ok()?.strip_prefix(HEAD)?;
        let mut lines = text.lines();
        let mut note = Self::new(lines.next()?.parse().ok()?);
        for line in lines {
            let (appliance, slot) = line.split_once('/')?;
            note.add(appliance.parse().ok()?, &slot.parse().ok()?);
        }
        Some(note)
    }

    fn block(&self) -> Vec<u8> {
        let lines: String = self.slots.iter().map(|(a, s)| format!("{a}/{s}\n")).collect();
        let mut block = format!("{HEAD}{}\n{lines}", self.card).into_bytes();
        block.resize(SIZE, 0);
        block
    }

    /// Leaves the note on the card and reads it back.
    ///
    /// # Errors
    /// `Mismatch` when the card does not keep even that; `CardTooSmall`, `Io`, `Removed`, `Stuck`, `WriteProtected`.
    pub fn leave_on(&self, card: &mut ClaimedCard) -> Result<(), CardError> {
        let needed = OFFSET + SIZE as u64;
        if card.size() < needed {
            return Err(CardError::CardTooSmall { card_size: card.size(), needed });
        }
        let block = self.block();
        Lanes::new(card.device(), SIZE)?.run(move |device, buffer| {
            buffer[..SIZE].copy_from_slice(&block);
            write_full(device, OFFSET, &buffer[..SIZE])?;
            sync(device).and_then(|()| drop_caches(device))?;
            read_full(device, OFFSET, &mut buffer[..SIZE])?;
            match buffer[..SIZE] == block[..] {
                true => Ok(()),
                false => Err(CardError::Mismatch { offset: OFFSET, length: SIZE as u64, exact: false }),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::{FaultPlan, MemoryCard};

    fn note() -> FailureNote {
        let mut note = FailureNote::new(ObjectId::from_parts(1, 7));
        note.add(ApplianceId([3; 8]), &SlotId::numbered(2));
        note
    }

    #[test]
    fn a_note_left_on_a_card_is_found_and_a_slot_counts_once() {
        let card = MemoryCard::new(vec![0xff; 1 << 20], 512, FaultPlan::default());
        let mut note = note();
        note.add(ApplianceId([3; 8]), &SlotId::numbered(2));
        assert!(!note.failed_in_two_slots());
        note.leave_on(&mut card.claim()).unwrap();
        assert_eq!(FailureNote::find(&card.bytes()), Some(note.clone()));
        note.add(ApplianceId([4; 8]), &SlotId::numbered(2));
        note.leave_on(&mut card.claim()).unwrap();
        assert!(FailureNote::find(&card.bytes()).unwrap().failed_in_two_slots());
    }

    #[test]
    fn a_card_that_does_not_keep_even_the_note_says_so() {
        let plan = FaultPlan { reads_as: Some(0), ..FaultPlan::default() };
        let card = MemoryCard::new(vec![0; 1 << 20], 512, plan);
        assert!(matches!(note().leave_on(&mut card.claim()), Err(CardError::Mismatch { .. })));
    }

    #[test]
    fn bytes_that_are_no_note_are_none() {
        let mut bytes = vec![0; 12_288];
        assert_eq!(FailureNote::find(&bytes), None);
        assert_eq!(FailureNote::find(&bytes[..9000]), None);
        bytes[8192..].copy_from_slice(&note().block());
        assert!(FailureNote::find(&bytes).is_some());
        bytes[8192 + HEAD.len()] = b'/';
        assert_eq!(FailureNote::find(&bytes), None);
        bytes[8192..].fill(b'x');
        assert_eq!(FailureNote::find(&bytes), None);
    }
}
