//! Keeps what `core::blame` decides of slots, cards and hubs, in the same batch as the fact that led to it; lets
//! people hold slots and let them go on. The planner tells appliances of holds.

use std::collections::BTreeMap;

use cardshop_protocol::ids::{ApplianceId, SlotId};
use cardshop_protocol::message::{Alert, DesiredSlot, Event, Fact, VERSION};

use crate::core::blame::{BenchRecord, Failed, Hold, Hubs, hub_of};
use crate::core::documents::{Appliance, Story};
use crate::core::order::Note;
use crate::core::picture::{News, Sighting};
use crate::core::rights::{Action, Principal};
use crate::core::views::{SlotCount, SlotHoldView};
use crate::store::{Batch, Stored};
use crate::{Scheduler, SchedulerError};

/// The alert of an appliance whose hub is doubted.
const HUB_ALERT: &str = "hub_doubted";

/// What a fact means for the slots: records as they were and as they are to be, and the reasons.
#[derive(Default)]
pub(crate) struct Blamed {
    changes: Vec<(Option<Stored<BenchRecord>>, BenchRecord)>,
    pub(crate) notes: Vec<Note>,
}

impl Blamed {
    pub(crate) fn add_to(&self, batch: &mut Batch) {
        for (read, record) in &self.changes {
            batch.upsert(read.as_ref(), record);
        }
    }
}

impl Scheduler {
    fn hubs(&self, id: ApplianceId) -> Hubs {
        let picture = self.inner.picture.lock().expect("no holder panics");
        let info = picture.get(id).and_then(|p| p.info.as_ref());
        let slots = info.map(|info| &info.slots[..]).unwrap_or_default();
        slots.iter().map(|s| (s.slot.clone(), hub_of(&s.port_path).to_owned())).collect()
    }

    /// What a fact of `id` says of its slots; changes nothing yet.
    pub(crate) fn blame(&self, id: ApplianceId, event: &Event) -> Result<Blamed, SchedulerError> {
        let mut blamed = Blamed::default();
        let (verified_in, failed) = match &event.fact {
            Fact::CardVerified { record, .. } => (Some(&record.slot), None),
            Fact::WriteFailed { slot, fault, remedy, card, .. } => {
                (None, Some(Failed { slot, fault, remedy: *remedy, card: *card, fact: event.n }))
            }
            Fact::Started { .. }
            | Fact::WriteStarted { .. }
            | Fact::WriteRepeated { .. }
            | Fact::ImageRefused { .. } => return Ok(blamed),
        };
        let stored = self.inner.store.get::<BenchRecord>(&id.to_string())?;
        let before = stored.as_ref().map_or_else(|| BenchRecord::new(id), |s| s.value.clone());
        let mut record = before.clone();
        if let Some(slot) = verified_in {
            record.card_verified(slot);
        }
        if let Some(failed) = failed {
            record.card_failed(&failed, self.now(), &self.hubs(id), &mut blamed.notes);
            if let Some(card) = failed.bad_card() {
                self.clear_elsewhere(id, card, &mut blamed)?;
            }
        }
        if record != before {
            blamed.changes.push((stored, record));
        }
        Ok(blamed)
    }

    /// Slots of other appliances in which a bad card failed before are not to blame either.
    fn clear_elsewhere(
        &self,
        id: ApplianceId,
        card: cardshop_protocol::ids::ObjectId,
        blamed: &mut Blamed,
    ) -> Result<(), SchedulerError> {
        let others = self.all::<BenchRecord>(None)?.into_iter();
        for other in others.filter(|other| other.appliance != id && other.knows(card)) {
            let Some(stored) = self.inner.store.get::<BenchRecord>(&other.appliance.to_string())? else {
                continue;
            };
            let mut record = stored.value.clone();
            record.clear_of(card, &self.hubs(other.appliance), &mut blamed.notes);
            blamed.changes.push((Some(stored), record));
        }
        Ok(())
    }

    /// It is stored: whoever has to hear of it does.
    pub(crate) fn blame_stored(&self, blamed: &Blamed) -> Result<(), SchedulerError> {
        for (_, record) in &blamed.changes {
            self.show_doubts(record)?;
            self.inner.replan.notify_one();
        }
        Ok(())
    }

    /// Raises or clears the alert of doubted hubs.
    pub(crate) fn show_doubts(&self, record: &BenchRecord) -> Result<(), SchedulerError> {
        let alert = record.doubts().map(|(text, since)| Alert { v: VERSION, text, since, slot: None });
        let news = {
            let mut picture = self.inner.picture.lock().expect("no holder panics");
            picture.see(record.appliance, Sighting::Alert(HUB_ALERT.into(), alert), true, self.now())
        };
        if let Some(appliance) = self.inner.store.get::<Appliance>(&record.appliance.to_string())? {
            self.tell(&appliance.value, news);
        }
        Ok(())
    }

    /// Names and holds of slots, by appliance.
    pub(crate) fn desired_slots(&self) -> Result<BTreeMap<ApplianceId, Vec<DesiredSlot>>, SchedulerError> {
        let records = self.all::<BenchRecord>(None)?;
        Ok(records.iter().map(|record| (record.appliance, record.desired())).collect())
    }

    /// How the cards of every slot ended so far, for the caller's appliances.
    ///
    /// # Errors
    /// `NotAllowed`.
    pub fn slot_counts(&self, caller: &Principal) -> Result<Vec<SlotCount>, SchedulerError> {
        caller.must(Action::Watch)?;
        let mut counts = Vec::new();
        for record in self.all::<BenchRecord>(None)? {
            let appliance = self.inner.store.get::<Appliance>(&record.appliance.to_string())?;
            if appliance.is_none_or(|a| !caller.sees_any(&a.value.channels)) {
                continue;
            }
            let counted = record.slots.iter().filter(|(_, slot)| slot.verified + slot.failures > 0);
            counts.extend(counted.map(|(slot, of)| SlotCount {
                id: format!("{}/{slot}", record.appliance),
                verified: of.verified,
                failed: of.failures,
            }));
        }
        Ok(counts)
    }

    /// A slot takes no cards until somebody lets it go on.
    ///
    /// # Errors
    /// `NotAllowed`, `NotFound`.
    pub async fn hold_slot(
        &self,
        caller: &Principal,
        appliance: ApplianceId,
        slot: SlotId,
        reason: Option<String>,
    ) -> Result<SlotHoldView, SchedulerError> {
        // Shown on the slot's screens, also on a wall: who it was stands in the record and in the story.
        let reason = reason.unwrap_or_else(|| "a person holds it".to_owned());
        let hold = Hold { reason, since: self.now(), by: Some(caller.sub.clone()) };
        let change = |record: &mut BenchRecord| {
            record.hold(&slot, hold.clone());
            Ok(Some(format!("{} holds slot {slot}: {}.", caller.sub, hold.reason)))
        };
        self.change_slot(caller, appliance, &slot, ("slot.hold", "slot_held"), change).await
    }

    /// A held slot takes cards again; what failed in it is forgotten.
    ///
    /// # Errors
    /// `NotAllowed`, `NotFound`.
    pub async fn resume_slot(
        &self,
        caller: &Principal,
        appliance: ApplianceId,
        slot: SlotId,
    ) -> Result<SlotHoldView, SchedulerError> {
        let hubs = self.hubs(appliance);
        let change = |record: &mut BenchRecord| {
            Ok(record.resume(&slot, &hubs).then(|| format!("{} lets slot {slot} go on.", caller.sub)))
        };
        self.change_slot(caller, appliance, &slot, ("slot.resume", "slot_freed"), change).await
    }

    /// Names a slot; no name takes its name away.
    ///
    /// # Errors
    /// `NotAllowed`, `NotFound`, `Conflict` when another slot of the appliance has this name.
    pub async fn name_slot(
        &self,
        caller: &Principal,
        appliance: ApplianceId,
        slot: SlotId,
        name: Option<String>,
    ) -> Result<SlotHoldView, SchedulerError> {
        let name = name.map(|name| name.trim().to_owned()).filter(|name| !name.is_empty());
        let change = |record: &mut BenchRecord| {
            let before = record.clone();
            record.rename(&slot, name.as_deref()).map_err(|other| SchedulerError::Conflict {
                code: "name_taken",
                text: format!("slot {other} of this appliance has this name: choose another"),
            })?;
            let called = name.as_deref().unwrap_or("nothing");
            Ok((*record != before).then(|| format!("{} calls slot {slot} {called}.", caller.sub)))
        };
        let view = self.change_slot(caller, appliance, &slot, ("slot.name", "slot_named"), change).await?;
        if let Some(appliance) = self.inner.store.get::<Appliance>(&appliance.to_string())? {
            self.tell(&appliance.value, News::Slot(slot));
        }
        Ok(view)
    }

    async fn change_slot(
        &self,
        caller: &Principal,
        id: ApplianceId,
        slot: &SlotId,
        (action, kind): (&'static str, &'static str),
        change: impl Fn(&mut BenchRecord) -> Result<Option<String>, SchedulerError>,
    ) -> Result<SlotHoldView, SchedulerError> {
        caller.must(Action::Tend)?;
        let appliance = self.tended(caller, id)?.ok_or(SchedulerError::NotFound("slot"))?;
        let decide = || {
            let stored = self.inner.store.get::<BenchRecord>(&id.to_string())?;
            let mut record = stored.as_ref().map_or_else(|| BenchRecord::new(id), |s| s.value.clone());
            let shown = {
                let picture = self.inner.picture.lock().expect("no holder panics");
                picture.get(id).is_some_and(|p| p.slots.contains_key(slot))
            };
            if !shown && !record.slots.contains_key(slot) {
                return Err(SchedulerError::NotFound("slot"));
            }
            let Some(text) = change(&mut record)? else { return Ok((None, record)) };
            let mut batch = self.audited(caller, action, &format!("{id}/{slot}"));
            batch.upsert(stored.as_ref(), &record).create(&Story {
                id: self.next_id(),
                at: self.now(),
                kind: kind.to_owned(),
                text,
                order: None,
                appliance: Some(id),
                channel: appliance.channels.first().cloned(),
            });
            Ok((Some(batch), record))
        };
        let (record, stored) = self.change(decide).await?;
        if stored {
            self.show_doubts(&record)?;
            self.inner.replan.notify_one();
        }
        Ok(SlotHoldView::new(&record, slot))
    }
}
