//! The bench as people see it: slots, and the full picture that begins a live stream.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use cardshop_protocol::api::{Page, SlotView};
use cardshop_protocol::ids::{ApplianceId, Channel, SlotId};
use cardshop_protocol::message::Presence;
use serde::Serialize;
use serde_json::Value;

use super::live::LiveEvent;
use super::paging::PageRequest;
use crate::core::blame::BenchRecord;
use crate::core::documents::Appliance;
use crate::core::order::Order;
use crate::core::picture::AppliancePicture;
use crate::core::rights::{Action, Principal};
use crate::core::views::{ApplianceView, OrderView};
use crate::{Scheduler, SchedulerError};

impl Scheduler {
    /// Slots of the caller's channels.
    ///
    /// # Errors
    /// `NotAllowed`, `Invalid` for a wrong cursor.
    pub fn slots(&self, caller: &Principal, page: &PageRequest) -> Result<Page<SlotView>, SchedulerError> {
        caller.must(Action::Watch)?;
        page.check()?;
        let mut items: Vec<SlotView> = self
            .all_slots()?
            .into_iter()
            .filter(|(channels, _)| caller.sees_any(channels))
            .map(|(_, view)| view)
            .filter(|view| page.cursor.as_ref().is_none_or(|after| view.id > *after))
            .collect();
        let more = items.len() > page.limit();
        items.truncate(page.limit());
        let next_cursor = items.last().filter(|_| more).map(|s| s.id.clone());
        Ok(Page { items, next_cursor })
    }

    /// Every slot with the channels of its appliance, by id.
    fn all_slots(&self) -> Result<Vec<(Vec<Channel>, SlotView)>, SchedulerError> {
        let names = self.slot_names()?;
        let appliances = self.all::<Appliance>(None)?;
        let picture = self.inner.picture.lock().expect("no holder panics");
        let now = self.now();
        let mut slots = Vec::new();
        for appliance in appliances {
            let Some(seen) = picture.get(appliance.id) else { continue };
            let online = seen.presence(now) == Presence::Online;
            for slot in seen.slots.keys() {
                let name = names.get(&(appliance.id, slot.clone()));
                if let Some(view) = slot_view(&appliance, seen, slot, name, online) {
                    slots.push((appliance.channels.clone(), view));
                }
            }
        }
        Ok(slots)
    }

    /// Names that people gave to slots.
    fn slot_names(&self) -> Result<BTreeMap<(ApplianceId, SlotId), String>, SchedulerError> {
        let all = self.all::<BenchRecord>(None)?;
        let slots = all.into_iter().flat_map(|r| r.slots.into_iter().map(move |s| (r.appliance, s)));
        Ok(slots.filter_map(|(a, (slot, s))| Some(((a, slot), s.name?))).collect())
    }

    /// One slot, for the live stream.
    pub(crate) fn slot(&self, appliance: &Appliance, slot: &SlotId) -> Option<SlotView> {
        let record = self.inner.store.get::<BenchRecord>(&appliance.id.to_string()).ok().flatten();
        let name = record.and_then(|r| r.value.slots.get(slot)?.name.clone());
        let picture = self.inner.picture.lock().expect("no holder panics");
        let seen = picture.get(appliance.id)?;
        let online = seen.presence(self.now()) == Presence::Online;
        slot_view(appliance, seen, slot, name.as_ref(), online)
    }

    /// The full picture as live events. Only the last has an id: a watcher that loses the stream in the middle of
    /// the picture has none to resume from, and gets it again.
    pub(crate) fn picture_events(&self, id: u64) -> VecDeque<Arc<LiveEvent>> {
        let mut events: Vec<LiveEvent> = Vec::new();
        let mut add = |kind, channels, json| events.push(LiveEvent { id: 0, kind, channels, json });
        let now = self.now();
        match self.all::<Appliance>(None) {
            Ok(appliances) => {
                let picture = self.inner.picture.lock().expect("no holder panics");
                for appliance in appliances {
                    let view = ApplianceView::new(&appliance, picture.get(appliance.id), now);
                    add("appliance", appliance.channels.clone(), json(&view));
                }
            }
            Err(error) => tracing::error!(%error, "the live picture lacks its appliances"),
        }
        match self.all_slots() {
            Ok(slots) => slots.iter().for_each(|(channels, view)| add("slot", channels.clone(), json(view))),
            Err(error) => tracing::error!(%error, "the live picture lacks its slots"),
        }
        match self.all::<Order>(Some(("shelf", "open"))) {
            Ok(orders) => orders.iter().for_each(|order| {
                add("order", vec![order.channel.clone()], json(&OrderView::new(order, now)));
            }),
            Err(error) => tracing::error!(%error, "the live picture lacks its orders"),
        }
        if let Some(last) = events.last_mut() {
            last.id = id;
        }
        events.into_iter().map(Arc::new).collect()
    }
}

fn slot_view(
    appliance: &Appliance,
    seen: &AppliancePicture,
    slot: &SlotId,
    name: Option<&String>,
    online: bool,
) -> Option<SlotView> {
    let known = seen.slots.get(slot)?;
    // Named at the appliance itself; what was named here comes first, there too.
    let own_name = seen.info.as_ref().and_then(|info| info.names.get(slot));
    Some(SlotView {
        id: format!("{}/{slot}", appliance.id),
        appliance: appliance.id,
        label: appliance.label.clone(),
        slot: slot.clone(),
        name: name.or(own_name).cloned().unwrap_or_else(|| slot.to_string()),
        state: known.state.clone(),
        progress: known.progress.clone(),
        online,
    })
}

fn json(view: &impl Serialize) -> Value {
    serde_json::to_value(view).expect("a view is plain JSON")
}
