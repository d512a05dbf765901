//! Creation tasks: creators claim them by long poll and report. Of two claimers exactly one wins, because the
//! store compares versions. A reported image is checked in the warehouse before the order is ready.

use std::time::Duration;

use cardshop_protocol::api::{CreationReport, CreationTask, Grant, ReportAnswer};
use cardshop_protocol::ids::{OrderId, TaskId};
use cardshop_protocol::time::Timestamp;

use super::index::ImageFault;
use super::users::LOCAL_CREATOR;
use crate::core::documents::{ChannelDocument, Media, OrderRecipe};
use crate::core::order::{Answer, Input, Order};
use crate::core::queue::queue;
use crate::core::rights::{Action, Principal};
use crate::store::Batch;
use crate::{Scheduler, SchedulerError};

/// Longest wait of one claim, seconds.
pub(crate) const MAX_WAIT_S: u32 = 30;
/// A waiting claim looks again at least this often: retries become due without anybody saying so.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

impl Scheduler {
    /// The next creation task of the caller's channels, by priority and in turn; waits up to `wait_s` (at most 30) seconds for one.
    ///
    /// # Errors
    /// `NotAllowed` for anybody but a creator.
    pub async fn claim_task(
        &self,
        caller: &Principal,
        wait_s: u32,
    ) -> Result<Option<CreationTask>, SchedulerError> {
        caller.must(Action::Create)?;
        let wait = Duration::from_secs(u64::from(wait_s.min(MAX_WAIT_S)));
        let deadline = tokio::time::Instant::now() + wait;
        loop {
            // Registered before looking, so that work arriving in between is not missed.
            let work = self.inner.work.notified();
            tokio::pin!(work);
            work.as_mut().enable();
            if let Some(task) = self.try_claim(caller).await? {
                return Ok(Some(task));
            }
            let look_again = (tokio::time::Instant::now() + LOOK_AGAIN).min(deadline);
            if tokio::time::timeout_at(look_again, work).await.is_err()
                && tokio::time::Instant::now() >= deadline
            {
                return Ok(None);
            }
        }
    }

    async fn try_claim(&self, caller: &Principal) -> Result<Option<CreationTask>, SchedulerError> {
        let now = self.now();
        self.see_creator(caller, None);
        if self.maintenance()?.on {
            return Ok(None);
        }
        // A private channel is served by those who name it, and by the site's own creator.
        let is_general = caller.channels.is_empty() && caller.sub != LOCAL_CREATOR;
        let channels = if is_general { self.all::<ChannelDocument>(None)? } else { Vec::new() };
        let private: Vec<_> = channels.into_iter().filter(|c| c.private).map(|c| c.slug).collect();
        let serves =
            |order: &Order| caller.sees(&order.channel) && !(is_general && private.contains(&order.channel));
        let build = self.all::<Order>(Some(("shelf", "build")))?;
        // Whose lease is over waits again, which its document says only once somebody looked.
        let due: Vec<Order> = build.iter().map(|order| order.at(now)).collect();
        let mut claimed = None;
        for next in queue(&due, now).into_iter().filter(|order| serves(order)) {
            let taken = self.inner.store.claim::<Order, Order>(("shelf", "build"), |stored| {
                if stored.value.id != next.id {
                    return None;
                }
                let mut order = stored.value.clone();
                let mut notes = Vec::new();
                order.step(now, Input::Claim { owner: caller.sub.clone() }, &mut notes).ok()?;
                let mut batch = Batch::new();
                batch.update(stored, &order);
                self.add_story(&order, notes, &mut batch);
                Some((batch, order))
            });
            // None: another creator was faster.
            claimed = taken.await?;
            if claimed.is_some() {
                break;
            }
        }
        let Some(order) = claimed else { return Ok(None) };
        self.inner.metrics.tasks_claimed.add();
        self.announce_order(&order);
        let recipe = self.inner.store.get::<OrderRecipe>(&order.id.to_string())?;
        let recipe = recipe.ok_or(SchedulerError::NotFound("recipe"))?.value.recipe;
        let task = TaskId::creation(order.id);
        self.see_creator(caller, Some(task));
        Ok(Some(CreationTask {
            task,
            name: order.file_name(),
            channel: order.channel.clone(),
            recipe,
            max_image_bytes: self.max_image_bytes(&order)?,
            warehouse: order.warehouse.clone(),
            mirrors: order.mirrors.clone(),
            grant: self.grant(caller, &order, now),
        }))
    }

    /// What the order's media takes; the largest of the catalogue when none was asked for.
    pub(crate) fn max_image_bytes(&self, order: &Order) -> Result<u64, SchedulerError> {
        if let Some(media) = &order.media {
            return Ok(media.usable_bytes);
        }
        Ok(self.all::<Media>(None)?.iter().map(|m| m.usable_bytes).max().unwrap_or(u64::MAX))
    }

    fn grant(&self, caller: &Principal, order: &Order, now: Timestamp) -> Grant {
        Grant {
            lease_until: order.creation.lease_until.unwrap_or(now),
            upload_token: self.upload_token(caller, TaskId::creation(order.id), &order.channel),
        }
    }

    /// Takes a creator's report; on `succeeded` the image is looked at first.
    ///
    /// # Errors
    /// `NotAllowed`, `NotFound`, `Unreachable` when the warehouse cannot be asked: report again.
    pub async fn report_task(
        &self,
        caller: &Principal,
        task: TaskId,
        report: CreationReport,
    ) -> Result<ReportAnswer, SchedulerError> {
        caller.must(Action::Create)?;
        if task.copy.is_some() {
            return Err(SchedulerError::NotFound("creation task"));
        }
        self.order_of(caller, task.order)?;
        self.see_creator(caller, Some(task));
        let owner = caller.sub.clone();
        let input = Input::Report { owner: owner.clone(), report };
        let (order, answer) = self.step_order(task.order, input, |_, _, _| {}).await?;
        match answer {
            Answer::Check(image) => self.check_image(caller, task.order, order, image).await,
            Answer::Renewed => {
                let grant = Some(self.grant(caller, &order, self.now()));
                Ok(ReportAnswer { stop: false, grant })
            }
            Answer::Stop => Ok(ReportAnswer { stop: true, grant: None }),
            _ => Ok(ReportAnswer { stop: false, grant: None }),
        }
    }

    async fn check_image(
        &self,
        caller: &Principal,
        id: OrderId,
        order: Order,
        image: cardshop_protocol::ids::ImageId,
    ) -> Result<ReportAnswer, SchedulerError> {
        let owner = caller.sub.clone();
        let limit = self.max_image_bytes(&order)?;
        let input = match self.look_at_image(&order.warehouse, image, limit).await {
            Ok(image) => Input::ImageChecked { owner, image },
            Err(ImageFault::Unreachable(text)) => return Err(SchedulerError::Unreachable(text)),
            Err(ImageFault::Wrong { reason, permanent }) => Input::ImageRefused { owner, reason, permanent },
        };
        let (_, answer) = self.step_order(id, input, |_, _, _| {}).await?;
        Ok(ReportAnswer { stop: answer == Answer::Stop, grant: None })
    }
}
