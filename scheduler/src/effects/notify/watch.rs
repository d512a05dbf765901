//! Watches the bench for what nobody tells by a message: appliances in trouble, and work that waits for cards.

use std::time::Duration;

use cardshop_protocol::api::Membership;
use cardshop_protocol::ids::{Channel, OrderId};
use cardshop_protocol::message::{Presence, SlotStatus};
use cardshop_protocol::time::Timestamp;

use crate::core::blame::BenchRecord;
use crate::core::documents::Appliance;
use crate::core::notify::trouble::{Complaint, SILENT, Troubles};
use crate::core::order::{Order, TaskStatus};
use crate::store::Batch;
use crate::{Scheduler, SchedulerError};

/// How long work waits for cards before somebody is called: an operator who is there needs no letter.
const WANTED_FOR: Duration = Duration::from_secs(300);

impl Scheduler {
    /// Looks at the bench once.
    pub(crate) async fn watch_bench(&self) -> Result<(), SchedulerError> {
        let approved: Vec<Appliance> = self.all(None)?;
        let approved: Vec<_> =
            approved.into_iter().filter(|appliance| appliance.state == Membership::Approved).collect();
        for appliance in &approved {
            self.watch_appliance(appliance).await?;
        }
        self.watch_work(&approved).await
    }

    async fn watch_appliance(&self, appliance: &Appliance) -> Result<(), SchedulerError> {
        let (mut complaints, heard) = self.complaints(appliance);
        let record = self.inner.store.get::<BenchRecord>(&appliance.id.to_string())?;
        complaints.extend(record.iter().flat_map(|record| failing_slots(&record.value)));
        let decide = || {
            let now = self.now();
            let stored = self.inner.store.get::<Troubles>(&appliance.id.to_string())?;
            let before = stored.as_ref().map(|stored| stored.value.clone());
            let mut troubles = before.clone().unwrap_or_else(|| Troubles::new(appliance.id));
            troubles.observe(now, &complaints, heard);
            let due = troubles.take_due(now);
            if before.is_none() && troubles.is_empty() || before.as_ref() == Some(&troubles) {
                return Ok((None, ()));
            }
            let mut batch = Batch::new();
            batch.upsert(stored.as_ref(), &troubles);
            if let Some(mut values) = due {
                values["label"] = appliance.label.clone().into();
                self.add_troubles(appliance, &values, &mut batch)?;
            }
            Ok((Some(batch), ()))
        };
        self.change(decide).await.map(drop)
    }

    /// What an appliance complains of now, and whether it was heard since the start.
    fn complaints(&self, appliance: &Appliance) -> (Vec<Complaint>, bool) {
        let now = self.now();
        let picture = self.inner.picture.lock().expect("no holder panics");
        let Some(known) = picture.get(appliance.id) else { return (Vec::new(), false) };
        let alerts = known.alerts.iter();
        let mut complaints: Vec<_> = alerts
            .map(|(code, alert)| Complaint {
                code: code.clone(),
                text: alert.text.clone(),
                since: Some(alert.since),
            })
            .collect();
        if known.presence(now) == Presence::Offline {
            let text = "It is offline: switched off, or its network is gone.".to_owned();
            complaints.push(Complaint { code: SILENT.into(), text, since: None });
        }
        (complaints, known.heard.is_some())
    }

    /// Calls for cards where work has waited long enough.
    async fn watch_work(&self, appliances: &[Appliance]) -> Result<(), SchedulerError> {
        let now = self.now();
        let orders: Vec<Order> = self.all(Some(("shelf", "write")))?;
        let waiting: Vec<OrderId> = orders
            .iter()
            .filter(|order| {
                has_free_copies(order) && cards_are_wanted(&self.slot_states_for(appliances, &order.channel))
            })
            .map(|order| order.id)
            .collect();
        let due: Vec<OrderId> = {
            let mut wanted = self.inner.post.wanted.lock().expect("no holder panics");
            wanted.retain(|order, _| waiting.contains(order));
            let lasts = |since: Timestamp| now.since(since) >= WANTED_FOR;
            waiting.into_iter().filter(|order| lasts(*wanted.entry(*order).or_insert(now))).collect()
        };
        for id in due {
            let decide = || {
                let Some(stored) = self.inner.store.get::<Order>(&id.to_string())? else {
                    return Ok((None, ()));
                };
                let mut order = stored.value.clone();
                let Some(due) = order.take_wanted(now).filter(|_| order.takes_writes()) else {
                    return Ok((None, ()));
                };
                let mut batch = Batch::new();
                batch.update(&stored, &order);
                self.add_messages(&order, vec![due], &mut batch)?;
                Ok((Some(batch), ()))
            };
            self.change(decide).await?;
        }
        Ok(())
    }

    /// States of the slots of the channel's appliances that are online.
    fn slot_states_for(&self, appliances: &[Appliance], channel: &Channel) -> Vec<SlotStatus> {
        let now = self.now();
        let picture = self.inner.picture.lock().expect("no holder panics");
        let serving = appliances.iter().filter(|appliance| appliance.channels.contains(channel));
        let known = serving.filter_map(|appliance| picture.get(appliance.id));
        let online = known.filter(|known| known.presence(now) == Presence::Online);
        online.flat_map(|known| known.slots.values().map(|slot| slot.state.state)).collect()
    }
}

/// Slots that were taken out because cards failed in them; one that a person holds is no trouble.
fn failing_slots(record: &BenchRecord) -> impl Iterator<Item = Complaint> {
    record.slots.iter().filter_map(|(slot, known)| {
        let hold = known.hold.as_ref().filter(|hold| hold.by.is_none())?;
        let name = known.name.clone().unwrap_or_else(|| slot.to_string());
        let text = format!("Slot {name}: {}", hold.reason);
        Some(Complaint { code: format!("slot_failing_{slot}"), text, since: Some(hold.since) })
    })
}

/// True when a copy waits for a card.
fn has_free_copies(order: &Order) -> bool {
    let running = order.writes.values().filter(|write| write.status == TaskStatus::Running).count();
    let begun = order.verified().saturating_add(u32::try_from(running).unwrap_or(u32::MAX));
    begun < order.quantity
}

/// True when no slot is at work and one could take a card.
fn cards_are_wanted(slots: &[SlotStatus]) -> bool {
    use SlotStatus as S;
    let works = |slot: &SlotStatus| {
        matches!(slot, S::Checking | S::Waiting | S::Writing | S::Verifying | S::Confirm | S::Retry)
    };
    let takes = |slot: &SlotStatus| {
        matches!(slot, S::Empty | S::Wanted | S::Unsuitable | S::Guarded | S::BadCard | S::Done)
    };
    !slots.iter().any(works) && slots.iter().any(takes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cards_are_wanted_when_no_slot_is_at_work_and_one_could_take_a_card() {
        use SlotStatus as S;
        assert!(cards_are_wanted(&[S::Wanted, S::Held]));
        assert!(cards_are_wanted(&[S::Done, S::Unsuitable]));
        assert!(!cards_are_wanted(&[S::Wanted, S::Writing]));
        assert!(!cards_are_wanted(&[S::Held, S::Absent]));
        assert!(!cards_are_wanted(&[]));
    }
}
