//! What happens because time passes: lost creators, ended links, silent appliances, warehouses to be asked for
//! their keys, and old documents to be cleared.

use std::collections::BTreeMap;
use std::time::Duration;

use cardshop_protocol::api::Membership;
use cardshop_protocol::ids::ApplianceId;
use cardshop_protocol::message::Presence;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior};

use crate::core::documents::{Appliance, Idempotent, RefreshFamily, UsedLink};
use crate::core::notify::message::Message;
use crate::core::order::{Input, Order, OrderStatus};
use crate::core::token_keys::{TokenKey, is_over};
use crate::core::web_session::WebSession;
use crate::store::{Batch, Document, Select};
use crate::{Scheduler, SchedulerError};

/// How often it is looked what is due.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// How often leases are planned anew without any change.
const REPLAN_EVERY: Duration = Duration::from_secs(60);
/// Days an `Idempotency-Key` is remembered.
const REMEMBER_DAYS: u64 = 2;
/// How long messages are kept: they hold addresses.
const KEEP_MESSAGES: Duration = Duration::from_secs(90 * 86_400);
/// Documents removed in one batch.
const CLEAR_AT_ONCE: usize = 200;

/// Runs until `stop`. Who speaks to others has a loop of its own: a warehouse, a mail server or a webhook that does not
/// answer delays no lease.
pub(crate) async fn run(scheduler: Scheduler, stop: watch::Receiver<bool>) {
    tokio::join!(
        run_own(&scheduler, stop.clone()),
        run_jobs(&scheduler, &["links", "updates", "warehouses", "catalogue", "reach"], stop.clone()),
        run_jobs(&scheduler, &["mail"], stop.clone()),
        run_jobs(&scheduler, &["webhooks"], stop),
    );
}

async fn run_jobs(scheduler: &Scheduler, jobs: &[&str], mut stop: watch::Receiver<bool>) {
    let mut look = tokio::time::interval(LOOK_EVERY);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = look.tick() => {}
            _ = stop.changed() => return,
        }
        scheduler.run_due(jobs).await;
    }
}

async fn run_own(scheduler: &Scheduler, mut stop: watch::Receiver<bool>) {
    let mut look = tokio::time::interval(LOOK_EVERY);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut planned = None;
    let mut presences = BTreeMap::new();
    loop {
        tokio::select! {
            _ = look.tick() => {}
            _ = stop.changed() => return,
        }
        scheduler
            .run_due(&[
                "orders",
                "auto-images",
                "bench",
                "keys",
                "api-keys",
                "old-documents",
                "history",
                "backups",
            ])
            .await;
        if let Err(error) = scheduler.notice_silence(&mut presences) {
            tracing::error!(%error, "silent appliances could not be looked for; it is tried again");
        }
        if due(&mut planned, REPLAN_EVERY) {
            scheduler.inner.replan.notify_one();
        }
    }
}

fn due(last: &mut Option<Instant>, every: Duration) -> bool {
    let due = last.is_none_or(|at| at.elapsed() >= every);
    if due {
        *last = Some(Instant::now());
    }
    due
}

impl Scheduler {
    /// Lets time pass for orders that wait for it.
    pub(crate) async fn tick_orders(&self) -> Result<(), SchedulerError> {
        let now = self.now();
        for order in self.all::<Order>(Some(("shelf", "build")))? {
            if order.creation.lease_until.is_some_and(|end| now > end) {
                self.tick(&order).await;
            }
        }
        for order in self.all::<Order>(Some(("shelf", "expiring")))? {
            if order.status(now) == OrderStatus::Expired {
                self.tick(&order).await;
            }
        }
        for order in self.all::<Order>(Some(("shelf", "write")))? {
            if order.has_overdue_cards(now) {
                self.tick(&order).await;
            }
        }
        Ok(())
    }

    /// One order that cannot be changed now does not hold up the others: it comes again with the next look.
    async fn tick(&self, order: &Order) {
        if let Err(error) = self.step_order(order.id, Input::Tick, |_, _, _| {}).await {
            tracing::error!(order = %order.id, %error, "an order's time could not be noted; it comes again");
        }
    }

    /// Tells everybody about appliances that fell silent: no message says so.
    pub(crate) fn notice_silence(
        &self,
        presences: &mut BTreeMap<ApplianceId, Presence>,
    ) -> Result<(), SchedulerError> {
        let now = self.now();
        let seen: BTreeMap<_, _> = {
            let picture = self.inner.picture.lock().expect("no holder panics");
            picture.appliances().map(|(id, p)| (id, p.presence(now))).collect()
        };
        for (id, presence) in &seen {
            if presences.get(id).is_some_and(|was| was != presence) {
                let appliance = self.inner.store.get::<Appliance>(&id.to_string())?.map(|a| a.value);
                if let Some(appliance) = appliance.filter(|a| a.state == Membership::Approved) {
                    self.appliance_changed(&appliance);
                }
            }
        }
        *presences = seen;
        Ok(())
    }

    /// Removes what nobody needs any more.
    pub(crate) async fn clear_old(&self) -> Result<(), SchedulerError> {
        let now = self.now();
        let today = now.as_secs() / 86_400;
        self.clear::<Idempotent>(|d| d.day + REMEMBER_DAYS < today).await?;
        self.free_former_names().await?;
        self.clear::<UsedLink>(|d| d.expires < now).await?;
        self.clear::<TokenKey>(|key| is_over(key, now)).await?;
        self.clear::<WebSession>(|d| d.until(d.seen) < now).await?;
        self.clear::<Message>(|m| now.since(m.queued) > KEEP_MESSAGES).await?;
        self.clear::<RefreshFamily>(|d| d.expires < now).await
    }

    async fn clear<T: Document>(&self, is_old: impl Fn(&T) -> bool) -> Result<(), SchedulerError> {
        let mut after: Option<String> = None;
        loop {
            let select = Select { after: after.as_deref(), limit: CLEAR_AT_ONCE, ..Select::default() };
            let found = self.inner.store.list::<T>(select)?;
            let Some(last) = found.last() else { return Ok(()) };
            after = Some(last.value.id());
            let mut batch = Batch::new();
            for old in found.iter().filter(|d| is_old(&d.value)) {
                batch.remove::<T>(&old.value.id());
            }
            self.inner.store.apply(batch).await?;
        }
    }
}
