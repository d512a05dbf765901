//! Several schedulers on one database: which of them leads, and what each hears of the others. Every one serves HTTP
//! and sees all appliances; the leader alone speaks to them, plans leases, takes facts and looks after timers. Where
//! there can be only one, it leads from the start.
//!
//! ```text
//! following ── the leader's lock is ours ──► a higher number, the picture anew from the store ──► leading
//!     ▲                                                                                             │
//!     └──────────────────── the connection that holds the lock is lost ◄────────────────────────────┘
//! ```

use std::sync::atomic::Ordering;

use tokio::sync::broadcast::{self, error::RecvError};
use tokio::sync::watch;

use super::clock::random_bytes;
use crate::core::blame::BenchRecord;
use crate::core::documents::{Appliance, Starts};
use crate::core::order::Order;
use crate::store::{Batch, Document, News, StoreAddress};
use crate::{Scheduler, SchedulerError};

/// Runs until `stop`.
pub(crate) async fn run(scheduler: Scheduler, mut stop: watch::Receiver<bool>) {
    let mut leads = scheduler.inner.leads.clone();
    let mut led = scheduler.leads();
    let mut news = scheduler.inner.store.news();
    loop {
        tokio::select! {
            heard = hear(&mut news) => {
                if let Err(error) = scheduler.take_news(&heard) {
                    tracing::error!(%error, "what another scheduler changed is not told here");
                }
            }
            changed = leads.changed() => {
                if changed.is_err() {
                    // It never changes: there is only one.
                    let _ = stop.changed().await;
                    return;
                }
                let leads = *leads.borrow_and_update();
                if leads && !led
                    && let Err(error) = scheduler.take_over().await
                {
                    tracing::error!(%error, "the picture of the site could not be read whole");
                }
                led = leads;
            }
            _ = stop.changed() => return,
        }
    }
}

async fn hear(news: &mut Option<broadcast::Receiver<News>>) -> News {
    let Some(receiver) = news else { return std::future::pending().await };
    match receiver.recv().await {
        Ok(heard) => heard,
        Err(RecvError::Lagged(_)) => News::Everything,
        Err(RecvError::Closed) => {
            *news = None;
            std::future::pending().await
        }
    }
}

impl Scheduler {
    /// True while this one speaks to appliances and looks after timers.
    pub(crate) fn leads(&self) -> bool {
        *self.inner.leads.borrow()
    }

    /// Under which it is known to the broker: its own where there may be several.
    pub(crate) fn client_id(&self) -> String {
        match &self.inner.config.keeping.store {
            Some(StoreAddress::Postgres(_)) => {
                format!("scheduler-{:016x}", u64::from_be_bytes(random_bytes::<8>()))
            }
            _ => "scheduler".to_owned(),
        }
    }

    /// A number for the broker that is higher than those of all before.
    pub(crate) async fn next_start(&self) -> Result<(), SchedulerError> {
        let (start, _) = self
            .change(|| {
                let starts = self.inner.store.get::<Starts>("scheduler")?;
                let start = starts.as_ref().map_or(0, |s| s.value.count) + 1;
                let mut batch = Batch::new();
                batch.upsert(starts.as_ref(), &Starts { count: start });
                Ok((Some(batch), start))
            })
            .await?;
        self.inner.start.store(start, Ordering::Release);
        Ok(())
    }

    /// From here on this one leads: what the one before told is told anew, as the store has it.
    async fn take_over(&self) -> Result<(), SchedulerError> {
        self.next_start().await?;
        self.show_site()?;
        self.publish_keys()?;
        self.inner.link_anew.notify_one();
        self.inner.replan.notify_one();
        Ok(())
    }

    /// What appliances, screens and the dashboard are told, into the retained picture.
    pub(crate) fn show_site(&self) -> Result<(), SchedulerError> {
        self.retain_desired()?;
        self.retain_acks()?;
        for record in self.all::<BenchRecord>(None)? {
            self.show_doubts(&record)?;
        }
        for order in self.all::<Order>(Some(("shelf", "open")))? {
            self.publish_order(&order);
        }
        self.publish_boards()
    }

    /// Tells those who watch here what another scheduler has changed.
    fn take_news(&self, news: &News) -> Result<(), SchedulerError> {
        let News::Documents(names) = news else {
            self.publish_keys()?;
            self.inner.work.notify_waiters();
            self.inner.replan.notify_one();
            return Ok(());
        };
        let mut keys = false;
        for (kind, id) in names {
            match kind.as_str() {
                Order::KIND => {
                    if let Some(order) = self.inner.store.get::<Order>(id)? {
                        self.announce_order(&order.value);
                    }
                }
                Appliance::KIND => {
                    keys = true;
                    if let Some(appliance) = self.inner.store.get::<Appliance>(id)? {
                        self.appliance_changed(&appliance.value);
                    }
                }
                "user" | "api-key" | "warehouse" | "secret" | "token-key" => keys = true,
                // What is sent is looked for by who leads.
                "message" | "notifications" | "template" | "trouble" | "webhook" => {}
                // What leases are planned from.
                _ => self.inner.replan.notify_one(),
            }
        }
        if keys { self.publish_keys() } else { Ok(()) }
    }
}
