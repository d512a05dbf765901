//! Tells Home Assistant of every slot: on each connection to the broker, when an appliance tells of new slots, and
//! after Home Assistant's birth.

use std::sync::atomic::Ordering;

use cardshop_protocol::api::Membership;
use cardshop_protocol::ids::ApplianceId;

use super::clock::random_bytes;
use crate::core::documents::{Appliance, DesiredDocument};
use crate::core::homeassistant::{discovery, pause_after_birth};
use crate::{Scheduler, SchedulerError};

impl Scheduler {
    /// Home Assistant was born: tells it everything in a moment. Births until then need no answer of their own.
    pub(crate) fn home_assistant_is_born(&self) {
        if self.inner.discovery_due.swap(true, Ordering::AcqRel) {
            return;
        }
        let pause = pause_after_birth(random_bytes::<1>()[0]);
        let scheduler = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(pause).await;
            scheduler.inner.discovery_due.store(false, Ordering::Release);
            scheduler.discover_all();
        });
    }

    /// Tells of all slots of all appliances.
    pub(crate) fn discover_all(&self) {
        match self.all::<Appliance>(None) {
            Ok(appliances) => appliances.iter().for_each(|appliance| self.discover(appliance)),
            Err(error) => tracing::error!(%error, "Home Assistant is not told of the slots"),
        }
    }

    /// Tells of the slots of one appliance.
    pub(crate) fn discover(&self, appliance: &Appliance) {
        if appliance.state != Membership::Approved || !self.leads() {
            return;
        }
        let slots = {
            let picture = self.inner.picture.lock().expect("no holder panics");
            picture.get(appliance.id).and_then(|p| p.info.as_ref()).map(|info| info.slots.clone())
        };
        let names = match self.names_of(appliance.id) {
            Ok(names) => names,
            Err(error) => return tracing::error!(%error, "Home Assistant is not told of a slot"),
        };
        for slot in slots.unwrap_or_default() {
            let name = names.iter().find(|(id, _)| *id == slot.slot).map(|(_, name)| name.clone());
            let (topic, payload) =
                discovery(appliance, &slot, &name.unwrap_or_else(|| slot.slot.to_string()));
            self.inner.retained.pass(topic, &payload);
        }
    }

    fn names_of(
        &self,
        id: ApplianceId,
    ) -> Result<Vec<(cardshop_protocol::ids::SlotId, String)>, SchedulerError> {
        let told = self.inner.store.get::<DesiredDocument>(&id.to_string())?;
        let slots = told.map(|t| t.value.desired.slots).unwrap_or_default();
        Ok(slots.into_iter().filter_map(|s| Some((s.slot, s.name?))).collect())
    }
}
