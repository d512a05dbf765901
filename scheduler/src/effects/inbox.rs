//! Messages of appliances: read, checked, and given to the picture or to the event store. Everything here comes
//! from outside and may be anything.

use cardshop_protocol::api::Membership;
use cardshop_protocol::ids::{ApplianceId, SlotId};
use cardshop_protocol::message::{CommandReply, Event};
use cardshop_protocol::topic::{ApplianceTopic, Topic};
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::core::documents::Appliance;
use crate::core::picture::{News, Sighting};
use crate::store::{Batch, StoreError};
use crate::{Scheduler, SchedulerError};

/// A message as the broker gave it.
#[derive(Debug, Clone)]
pub(crate) struct Incoming {
    pub(crate) topic: String,
    pub(crate) payload: Vec<u8>,
    /// The broker kept it from earlier.
    pub(crate) retained: bool,
}

enum Content {
    Event(Event),
    Sighting(Sighting),
    Reply(CommandReply),
    /// Nothing for us.
    Other,
}

fn read<T: DeserializeOwned>(payload: &[u8]) -> Option<T> {
    serde_json::from_slice(payload).ok()
}

/// What a message says; `None` when it is not one of ours or not well-formed.
fn content(topic: ApplianceTopic, payload: &[u8]) -> Option<Content> {
    Some(Content::Sighting(match topic {
        ApplianceTopic::Event => return read(payload).map(Content::Event),
        ApplianceTopic::CmdReply => return read(payload).map(Content::Reply),
        ApplianceTopic::Status => Sighting::Status(read(payload)?),
        ApplianceTopic::Info => Sighting::Info(read(payload)?),
        ApplianceTopic::Health => Sighting::Health(read(payload)?),
        ApplianceTopic::Reported => Sighting::Reported(read(payload)?),
        ApplianceTopic::SlotState(slot) if payload.is_empty() => Sighting::SlotGone(slot),
        ApplianceTopic::SlotState(slot) => Sighting::Slot(slot, read(payload)?),
        ApplianceTopic::SlotProgress(slot) => Sighting::Progress(slot, read(payload)?),
        ApplianceTopic::Alert(code) if payload.is_empty() => Sighting::Alert(code, None),
        ApplianceTopic::Alert(code) => Sighting::Alert(code, Some(read(payload)?)),
        ApplianceTopic::Cmd | ApplianceTopic::Desired | ApplianceTopic::EventAck => {
            return Some(Content::Other);
        }
    }))
}

impl Scheduler {
    /// Takes one message. Those of one appliance must be given in their order.
    pub(crate) async fn take_message(&self, message: Incoming) {
        let topic = message.topic.parse::<Topic>();
        let Ok(Topic::Appliance(id, topic)) = topic else { return };
        let Some(content) = content(topic, &message.payload) else {
            tracing::debug!(topic = message.topic, "a message is not understood");
            self.inner.metrics.messages_dropped.add();
            return;
        };
        match content {
            // The appliance sends it again until somebody who leads says that it is stored.
            Content::Event(event) if self.leads() => self.take_event_surely(id, &event).await,
            Content::Sighting(sighting) => {
                if let Err(error) = self.take_sighting(id, sighting, message.retained).await {
                    tracing::error!(appliance = %id, %error, "a message is lost");
                }
            }
            Content::Reply(reply) => self.inner.reflexes.answered(id, reply),
            Content::Event(_) | Content::Other => {}
        }
    }

    async fn take_sighting(
        &self,
        id: ApplianceId,
        sighting: Sighting,
        retained: bool,
    ) -> Result<(), SchedulerError> {
        let Some(stored) = self.inner.store.get::<Appliance>(&id.to_string())? else { return Ok(()) };
        let appliance = &stored.value;
        if appliance.state != Membership::Approved {
            return Ok(());
        }
        let slots = match &sighting {
            Sighting::Info(info) => u32::try_from(info.slots.len()).ok(),
            _ => None,
        };
        let news = {
            let mut picture = self.inner.picture.lock().expect("no holder panics");
            picture.see(id, sighting, retained, self.now())
        };
        if slots.is_some() && news != News::None {
            self.discover(appliance);
        }
        self.tell(appliance, news);
        if let Some(slots) = slots.filter(|s| *s != appliance.slots) {
            let mut changed = appliance.clone();
            changed.slots = slots;
            let mut batch = Batch::new();
            batch.update(&stored, &changed);
            match self.inner.store.apply(batch).await {
                // Somebody approved or rejected it meanwhile: the next info will do.
                Ok(()) | Err(StoreError::Conflict { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Tells everybody who watches.
    pub(crate) fn tell(&self, appliance: &Appliance, news: News) {
        let channels = || appliance.channels.clone();
        match news {
            News::None => {}
            News::Appliance => self.appliance_changed(appliance),
            News::Slot(slot) => {
                if let Some(view) = self.slot(appliance, &slot) {
                    self.inner.live.send("slot", channels(), &view);
                }
            }
            News::Progress(slot) => {
                if let Some(view) = self.slot(appliance, &slot) {
                    self.inner.live.send("progress", channels(), &view);
                }
            }
            News::Alert(code) => {
                let picture = self.inner.picture.lock().expect("no holder panics");
                let alert = picture.get(appliance.id).and_then(|p| p.alerts.get(&code).cloned());
                drop(picture);
                let event = json!({
                    "id": format!("{}/{code}", appliance.id), "appliance": appliance.id,
                    "label": appliance.label, "code": code, "alert": alert,
                });
                self.inner.live.send("alert", channels(), &event);
            }
        }
    }

    /// Its presence or its info changed: whether it is online shows on its slots and on the board.
    pub(crate) fn appliance_changed(&self, appliance: &Appliance) {
        self.announce_appliance(appliance);
        self.inner.replan.notify_one();
        for slot in self.slots_of(appliance.id) {
            if let Some(view) = self.slot(appliance, &slot) {
                self.inner.live.send("slot", appliance.channels.clone(), &view);
            }
        }
    }

    fn slots_of(&self, id: ApplianceId) -> Vec<SlotId> {
        let picture = self.inner.picture.lock().expect("no holder panics");
        picture.get(id).map(|p| p.slots.keys().cloned().collect()).unwrap_or_default()
    }
}
