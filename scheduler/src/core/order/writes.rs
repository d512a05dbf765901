//! The write tasks' part of [`Order::step`](super::Order::step): what appliances tell of copies and cards.

use cardshop_protocol::ids::{ApplianceId, LeaseId, ObjectId, SlotId};
use cardshop_protocol::time::Timestamp;

use super::step::{Answer, Notes, cut, shorten};
use super::{ImageHold, Order, TaskStatus, Write};

/// Longest reason kept with a copy, characters; the story has all of it. A thousand copies are one document, and
/// a document that grows too large would refuse its facts for ever.
const MAX_COPY_REASON: usize = 120;

impl Order {
    /// True when a card for `copy` would still count.
    fn needs(&self, copy: u32) -> bool {
        self.wants_cards() && (1..=self.quantity).contains(&copy) && !self.is_verified(copy)
    }

    pub(super) fn write_started(
        &mut self,
        copy: u32,
        lease: LeaseId,
        appliance: ApplianceId,
        slot: SlotId,
        now: Timestamp,
        notes: &mut Notes<'_>,
    ) -> Answer {
        if !self.needs(copy) {
            return Answer::Unchanged;
        }
        notes.by(appliance, "write_started", format!("Copy {copy} is being written in slot {slot}."));
        let write = self.writes.entry(copy).or_default();
        write.status = TaskStatus::Running;
        write.attempts += 1;
        write.appliance = Some(appliance);
        write.slot = Some(slot);
        write.lease = Some(lease);
        write.started = Some(now);
        Answer::Done
    }

    pub(super) fn card_verified(
        &mut self,
        copy: u32,
        card: ObjectId,
        lease: LeaseId,
        appliance: ApplianceId,
        slot: SlotId,
        notes: &mut Notes<'_>,
    ) -> Answer {
        if self.writes.values().any(|w| w.card == Some(card)) {
            return Answer::Unchanged;
        }
        if !self.needs(copy) {
            self.spare = self.spare.saturating_add(1);
            let text =
                format!("A card for copy {copy} from slot {slot} is not needed any more: it is spare.");
            notes.by(appliance, "card_spare", text);
            return Answer::Spare;
        }
        let write = self.writes.entry(copy).or_default();
        *write = Write {
            status: TaskStatus::Succeeded,
            attempts: write.attempts.max(1),
            appliance: Some(appliance),
            slot: Some(slot.clone()),
            lease: Some(lease),
            card: Some(card),
            started: None,
            failure: None,
        };
        let (verified, quantity) = (self.verified(), self.quantity);
        let text =
            format!("Copy {copy} is written and verified in slot {slot}: {verified} of {quantity} cards.");
        notes.by(appliance, "card_verified", text);
        Answer::Counted
    }

    pub(super) fn write_failed(
        &mut self,
        copy: u32,
        appliance: ApplianceId,
        slot: &SlotId,
        reason: &str,
        notes: &mut Notes<'_>,
    ) -> Answer {
        if !self.needs(copy) {
            return Answer::Unchanged;
        }
        let reason = shorten(reason);
        let text = format!(
            "A card in slot {slot} failed at copy {copy}: {reason}. The copy waits for another card."
        );
        notes.by(appliance, "write_failed", text);
        let write = self.writes.entry(copy).or_default();
        write.status = TaskStatus::Pending;
        write.attempts = write.attempts.max(1);
        write.lease = None;
        write.failure = Some(cut(&reason, MAX_COPY_REASON));
        Answer::Done
    }

    pub(super) fn write_repeated(
        &mut self,
        copy: u32,
        appliance: ApplianceId,
        slot: &SlotId,
        reason: &str,
        notes: &mut Notes<'_>,
    ) -> Answer {
        if !self.needs(copy) {
            return Answer::Unchanged;
        }
        let reason = shorten(reason);
        let text = format!(
            "The card in slot {slot} did not hold copy {copy}: {reason}. It is written again in place, once."
        );
        notes.by(appliance, "write_repeated", text);
        let write = self.writes.entry(copy).or_default();
        write.attempts = write.attempts.saturating_add(1);
        Answer::Done
    }

    pub(super) fn image_wrong(
        &mut self,
        now: Timestamp,
        appliance: ApplianceId,
        reason: &str,
        notes: &mut Notes<'_>,
    ) -> Answer {
        let reason = shorten(reason);
        notes.by(
            appliance,
            "image_refused",
            format!("Appliance {appliance} cannot use the image: {reason}."),
        );
        if self.hold.is_some() || !self.wants_cards() {
            return Answer::Unchanged;
        }
        let text = "The image is held: its bytes are not those of its index. No card is to blame. A manager retries \
                    the order when the warehouse is put right.";
        notes.by(appliance, "image_held", text);
        self.hold = Some(ImageHold { reason: cut(&reason, MAX_COPY_REASON), appliance, at: now });
        Answer::Done
    }

    pub(super) fn lease_ended(&mut self, lease: LeaseId, notes: &mut Notes<'_>) -> Answer {
        let mut freed = Vec::new();
        for (copy, write) in &mut self.writes {
            if write.status == TaskStatus::Running && write.lease == Some(lease) {
                write.status = TaskStatus::Pending;
                write.lease = None;
                freed.push(copy.to_string());
            }
        }
        if freed.is_empty() {
            return Answer::Unchanged;
        }
        let text = format!("The appliance fell silent; offered again: copy {}.", freed.join(", "));
        notes.add("lease_ended", text);
        Answer::Done
    }
}
