//! Looks every half minute at what lies outside of the scheduler: warehouses, downloads of public auto-images, who works. What
//! it saw is what `/status` says, so that a public page costs a few reads of memory however often it is asked for.

use std::sync::atomic::Ordering;

use cardshop_protocol::api::Membership;
use cardshop_protocol::message::Presence;

use super::ask::{Answer, Question};
use crate::core::auto_image::AutoImage;
use crate::core::documents::{Appliance, WarehouseDocument};
use crate::core::health::{Health, Part, Seen, parts};
use crate::core::order::Order;
use crate::{Scheduler, SchedulerError};

/// Largest answer of a warehouse's `/health` that is read, bytes.
const MAX_HEALTH: u64 = 64 * 1024;
/// Auto-images whose download is tried in one look, in turns of their ids.
const MAX_TRIED: usize = 50;

impl Scheduler {
    /// Looks once.
    pub(crate) async fn look_around(&self) -> Result<(), SchedulerError> {
        let mut seen = Seen { at: Some(self.now()), ..Seen::default() };
        for warehouse in self.all::<WarehouseDocument>(None)? {
            let answer = self.ask(Question::get(format!("{}/health", warehouse.url)), None, MAX_HEALTH).await;
            seen.warehouses.0 += usize::from(matches!(answer, Answer::Body(_)));
            seen.warehouses.1 += 1;
        }
        for auto in self.all::<AutoImage>(None)?.into_iter().filter(|a| a.public).take(MAX_TRIED) {
            let Some(id) = auto.current else { continue };
            let order = self.inner.store.get::<Order>(&id.to_string())?.map(|o| o.value);
            let Some((warehouse, path)) = order.and_then(|o| Some((o.warehouse, o.link.path?))) else {
                continue;
            };
            let answer = self.ask(Question::head(format!("{warehouse}{path}")), None, 0).await;
            seen.auto_images.0 += usize::from(matches!(answer, Answer::Body(_)));
            seen.auto_images.1 += 1;
        }
        let (waiting, creators, cards_wanted) = self.work_to_do()?;
        (seen.waiting, seen.creators, seen.cards_wanted) = (waiting, creators, cards_wanted);
        let mut appliances = self.all::<Appliance>(None)?;
        appliances.retain(|a| a.state == Membership::Approved);
        let now = self.now();
        let picture = self.inner.picture.lock().expect("no holder panics");
        let online = |a: &&Appliance| picture.get(a.id).is_some_and(|p| p.presence(now) == Presence::Online);
        seen.appliances = (appliances.iter().filter(online).count(), appliances.len());
        drop(picture);
        *self.inner.seen.lock().expect("no holder panics") = seen;
        Ok(())
    }

    /// How each part of the site is. Says nothing that not everybody may know.
    pub fn health(&self) -> Vec<Part> {
        let own = |key, good: bool| Part {
            key,
            health: if good { Health::Good } else { Health::Failed },
            count: usize::from(good),
            of: 1,
        };
        let metrics = &self.inner.metrics;
        let mut all = vec![
            own("store", self.inner.store.is_healthy()),
            own("broker", metrics.broker_connected.load(Ordering::Relaxed)),
            own("background", !metrics.background_failed.load(Ordering::Relaxed)),
        ];
        let seen = self.inner.seen.lock().expect("no holder panics");
        // Nobody has looked yet: a scheduler that has just started says nothing of others.
        if seen.at.is_some() {
            all.extend(parts(&seen));
        }
        all
    }
}
