//! Carries out the plan of `core::lease`: reads the site, stores what changed and retains it for the appliances.
//! The background's planning task is its only caller, so that two plans never cross.

use std::collections::BTreeMap;

use cardshop_protocol::api::Membership;
use cardshop_protocol::ids::ApplianceId;
use cardshop_protocol::topic::{ApplianceTopic, Topic};

use crate::core::documents::{Appliance, ChannelDocument, DesiredDocument};
use crate::core::lease::{Plan, Site, Worker, plan};
use crate::core::order::{Input, Order};
use crate::store::{Batch, Stored};
use crate::{Scheduler, SchedulerError};

impl Scheduler {
    /// Plans once. Planning again right after changes nothing.
    pub(crate) async fn plan_leases(&self) -> Result<(), SchedulerError> {
        let now = self.now();
        let orders = self.all::<Order>(Some(("shelf", "write")))?;
        let unshipped = self.all::<Order>(Some(("shelf", "unshipped")))?;
        let channels = self.all::<ChannelDocument>(None)?;
        let shops = channels
            .into_iter()
            .map(|c| (c.slug, if c.sender_name.is_empty() { c.name } else { c.sender_name }))
            .collect();
        let updates = self.wanted_updates()?;
        let told: Vec<_> = self.told()?;
        let desired: BTreeMap<_, _> =
            told.iter().map(|t| (t.value.appliance, t.value.desired.clone())).collect();
        let site = Site {
            orders: &orders,
            unshipped: &unshipped,
            workers: &self.workers()?,
            told: &desired,
            paused: self.maintenance()?.on,
            index_keys: &self.index_keys(),
            shops: &shops,
            slots: &self.desired_slots()?,
            updates: &updates,
        };
        let plan = plan(&site, now, &mut || self.next_id());
        self.store_plan(&plan, &told).await?;
        for (appliance, desired) in &plan.desired {
            let topic = Topic::Appliance(*appliance, ApplianceTopic::Desired);
            self.inner.retained.set(&topic, desired);
        }
        for lease in plan.ended {
            tracing::warn!(lease = %lease.lease, order = %lease.order, "a lease is over: its copies are free");
            self.step_order(lease.order, Input::LeaseEnded { lease: lease.lease }, |_, _, _| {}).await?;
        }
        Ok(())
    }

    async fn store_plan(&self, plan: &Plan, told: &[Stored<DesiredDocument>]) -> Result<(), SchedulerError> {
        let mut batch = Batch::new();
        for (appliance, desired) in &plan.desired {
            let old = told.iter().find(|t| t.value.appliance == *appliance);
            batch.upsert(old, &DesiredDocument { appliance: *appliance, desired: desired.clone() });
        }
        for grant in &plan.granted {
            batch.create(grant);
        }
        Ok(self.inner.store.apply(batch).await?)
    }

    fn told(&self) -> Result<Vec<Stored<DesiredDocument>>, SchedulerError> {
        let all = self.all::<DesiredDocument>(None)?;
        let mut told = Vec::with_capacity(all.len());
        for document in all {
            told.extend(self.inner.store.get::<DesiredDocument>(&document.appliance.to_string())?);
        }
        Ok(told)
    }

    fn workers(&self) -> Result<Vec<Worker>, SchedulerError> {
        let appliances = self.all::<Appliance>(None)?;
        let picture = self.inner.picture.lock().expect("no holder panics");
        let approved = appliances.into_iter().filter(|a| a.state == Membership::Approved);
        Ok(approved
            .map(|a| Worker {
                id: a.id,
                // Not heard since this start, or since its approval: it gets the time to call.
                heard: picture
                    .get(a.id)
                    .and_then(|p| p.heard)
                    .unwrap_or(self.inner.started)
                    .max(a.approved.unwrap_or(self.inner.started)),
                channels: a.channels,
                slots: a.slots,
            })
            .collect())
    }

    /// What every appliance was told, into the retained picture: after a start.
    pub(crate) fn retain_desired(&self) -> Result<(), SchedulerError> {
        for told in self.all::<DesiredDocument>(None)? {
            let topic = Topic::Appliance(told.appliance, ApplianceTopic::Desired);
            self.inner.retained.set(&topic, &told.desired);
        }
        Ok(())
    }

    /// How far every appliance's facts are applied, into the retained picture: after a start.
    pub(crate) fn retain_acks(&self) -> Result<(), SchedulerError> {
        for applied in self.all::<crate::core::documents::Applied>(None)? {
            self.acknowledge(applied.appliance, applied.upto, false);
        }
        Ok(())
    }

    pub(crate) fn acknowledge(&self, appliance: ApplianceId, upto: u64, again: bool) {
        let topic = Topic::Appliance(appliance, ApplianceTopic::EventAck);
        let ack = cardshop_protocol::message::Ack { v: cardshop_protocol::message::VERSION, upto };
        if again {
            self.inner.retained.send_again(&topic, &ack);
        } else {
            self.inner.retained.set(&topic, &ack);
        }
    }
}
