//! What the site has to do and who is there to do it: load, the guess of each order's end, and who was seen.

use std::collections::BTreeMap;

use cardshop_protocol::api::Page;
use cardshop_protocol::ids::{Channel, OrderId, TaskId};
use cardshop_protocol::message::Presence;
use cardshop_protocol::time::Timestamp;

use crate::core::documents::{Appliance, CardDocument};
use crate::core::estimate::{Ahead, Estimate, LOOK_BACK, Measured, build_ms, estimate};
use crate::core::order::{Order, TaskStatus};
use crate::core::queue::queue;
use crate::core::rights::{Action, Principal};
use crate::core::views::{LoadView, PresenceView};
use crate::store::Select;
use crate::{Scheduler, SchedulerError};

/// A creator that has not asked for work for this long is away: a claim waits 30 s at most.
const AWAY_AFTER: std::time::Duration = std::time::Duration::from_secs(90);
/// Creators that are remembered; those seen longest ago go first.
const MAX_CREATORS: usize = 1000;

/// A creator that asked for work or told of it.
#[derive(Debug, Clone)]
pub(crate) struct SeenCreator {
    channels: Vec<Channel>,
    at: Timestamp,
    task: Option<TaskId>,
}

/// Creators by login name.
pub(crate) type Creators = BTreeMap<String, SeenCreator>;

impl Scheduler {
    /// A creator was heard: it asks for work, or works at `task`.
    pub(crate) fn see_creator(&self, caller: &Principal, task: Option<TaskId>) {
        let mut creators = self.inner.creators.lock().expect("no holder panics");
        if creators.len() >= MAX_CREATORS && !creators.contains_key(&caller.sub) {
            let oldest = creators.iter().min_by_key(|(_, seen)| seen.at).map(|(name, _)| name.clone());
            creators.remove(&oldest.unwrap_or_default());
        }
        let seen = SeenCreator { channels: caller.channels.clone(), at: self.now(), task };
        creators.insert(caller.sub.clone(), seen);
    }

    /// Creators that are there and may serve one of `channels`.
    fn creators_for(&self, serves: impl Fn(&[Channel]) -> bool) -> usize {
        let now = self.now();
        let creators = self.inner.creators.lock().expect("no holder panics");
        creators.values().filter(|c| now.since(c.at) <= AWAY_AFTER && serves(&c.channels)).count()
    }

    /// Slots of online appliances that `serves` their channels.
    fn slots_for(&self, serves: impl Fn(&[Channel]) -> bool) -> Result<(usize, usize), SchedulerError> {
        let now = self.now();
        let appliances = self.all::<Appliance>(None)?;
        let picture = self.inner.picture.lock().expect("no holder panics");
        let online = |id| picture.get(id).is_some_and(|p| p.presence(now) == Presence::Online);
        let there: Vec<_> = appliances.iter().filter(|a| online(a.id) && serves(&a.channels)).collect();
        Ok((there.len(), there.iter().map(|a| a.slots as usize).sum()))
    }

    fn measured(&self) -> Result<(Measured, Measured), SchedulerError> {
        let newest = Select { newest_first: true, limit: LOOK_BACK, ..Select::default() };
        let orders = self.inner.store.list::<Order>(newest)?;
        let cards = self.inner.store.list::<CardDocument>(newest)?;
        let card_ms = |c: &CardDocument| {
            u64::try_from(c.record.finished.since(c.record.started).as_millis()).unwrap_or(u64::MAX)
        };
        let images = orders.iter().filter_map(|o| build_ms(&o.value)).collect();
        Ok((Measured::new(images), Measured::new(cards.iter().map(|c| card_ms(&c.value)).collect())))
    }

    /// Orders that wait for a creator, creators that are there, and cards that are wanted.
    pub(crate) fn work_to_do(&self) -> Result<(usize, usize, u64), SchedulerError> {
        let waiting = queue(&self.all::<Order>(Some(("shelf", "build")))?, self.now()).len();
        let write = self.all::<Order>(Some(("shelf", "write")))?;
        let wanted = write.iter().map(|o| u64::from(o.quantity - o.verified())).sum();
        Ok((waiting, self.creators_for(|_| true), wanted))
    }

    /// What waits, what is being made, who is there, and how long things took lately. Of the whole site, without a name:
    /// creators and slots serve several channels.
    ///
    /// # Errors
    /// `NotAllowed`.
    pub fn load(&self, caller: &Principal) -> Result<LoadView, SchedulerError> {
        caller.must(Action::Watch)?;
        let now = self.now();
        let build = self.all::<Order>(Some(("shelf", "build")))?;
        let write = self.all::<Order>(Some(("shelf", "write")))?;
        let working = |o: &&Order| matches!(o.creation.status, TaskStatus::Leased | TaskStatus::Running);
        let (images, cards) = self.measured()?;
        let (appliances, slots) = self.slots_for(|_| true)?;
        let seconds = |measured: &Measured, percent| measured.percentile(percent).map(|d| d.as_secs());
        Ok(LoadView {
            waiting: queue(&build, now).len(),
            building: build.iter().filter(working).count(),
            creators: self.creators_for(|_| true),
            cards_wanted: write.iter().map(|o| u64::from(o.quantity - o.verified())).sum(),
            appliances,
            slots,
            image_p50_s: seconds(&images, 50),
            image_p90_s: seconds(&images, 90),
            card_p50_s: seconds(&cards, 50),
            card_p90_s: seconds(&cards, 90),
        })
    }

    /// An order's place in the queue, and when it will be done.
    ///
    /// # Errors
    /// `NotAllowed`, `NotFound`.
    pub fn estimate_order(&self, caller: &Principal, id: OrderId) -> Result<Estimate, SchedulerError> {
        caller.must(Action::Watch)?;
        let order = self.order_of(caller, id)?;
        let now = self.now();
        let build = self.all::<Order>(Some(("shelf", "build")))?;
        let position = queue(&build, now).iter().position(|o| o.id == id).map(|at| at + 1);
        let first = |o: &&Order| (std::cmp::Reverse(o.priority), o.id);
        let write = self.all::<Order>(Some(("shelf", "write")))?;
        let before =
            write.iter().filter(|o| o.channel == order.channel && o.id != id && first(o) < first(&&order));
        let ahead = Ahead {
            position,
            creators: self.creators_for(|all| all.is_empty() || all.contains(&order.channel)),
            cards: before.map(|o| o.quantity - o.verified()).sum(),
            slots: self.slots_for(|of| of.contains(&order.channel))?.1,
        };
        let (images, cards) = self.measured()?;
        Ok(estimate(&order, ahead, &images, &cards, now))
    }

    /// Who works for the caller's channels, when each was seen, what it does, and who calls for help.
    ///
    /// # Errors
    /// `NotAllowed`.
    pub fn presence(&self, caller: &Principal) -> Result<Page<PresenceView>, SchedulerError> {
        caller.must(Action::Look)?;
        let now = self.now();
        let mut items = Vec::new();
        for (name, seen) in self.inner.creators.lock().expect("no holder panics").iter() {
            if !seen.channels.is_empty() && !caller.sees_any(&seen.channels) {
                continue;
            }
            let of_another = |task: &TaskId| {
                let order = self.inner.store.get::<Order>(&task.order.to_string()).ok().flatten();
                order.is_none_or(|o| !caller.sees(&o.value.channel))
            };
            items.push(PresenceView {
                id: name.clone(),
                kind: "creator".into(),
                label: name.clone(),
                channels: seen.channels.clone(),
                online: now.since(seen.at) <= AWAY_AFTER,
                seen: Some(seen.at),
                task: seen.task.filter(|task| !of_another(task)),
                slots: BTreeMap::new(),
                sos: Vec::new(),
            });
        }
        let appliances = self.all::<Appliance>(None)?;
        let picture = self.inner.picture.lock().expect("no holder panics");
        for appliance in appliances.iter().filter(|a| caller.sees_any(&a.channels)) {
            let heard = picture.get(appliance.id);
            items.push(PresenceView {
                id: appliance.id.to_string(),
                kind: "appliance".into(),
                label: appliance.label.clone(),
                channels: appliance.channels.clone(),
                online: heard.is_some_and(|p| p.presence(now) == Presence::Online),
                seen: heard.and_then(|p| p.heard),
                task: None,
                slots: heard
                    .map(|p| p.slots.iter().map(|(slot, s)| (slot.clone(), s.state.state)).collect())
                    .unwrap_or_default(),
                sos: heard.map(|p| p.alerts.values().map(|a| a.text.clone()).collect()).unwrap_or_default(),
            });
        }
        Ok(Page { items, next_cursor: None })
    }
}
