//! The creation task's part of [`Order::step`](super::Order::step): claims, reports, lost leases and retries.

use std::time::Duration;

use cardshop_protocol::api::{CreationPhase, CreationReport};
use cardshop_protocol::ids::ImageId;
use cardshop_protocol::time::Timestamp;

use super::limits::{MAX_CREATION, allowed};
use super::step::{Answer, Notes, Refusal, refuse, shorten};
use super::{Creation, Order, OrderImage, OrderKind, TaskStatus};

/// A creator that has not reported for this long has lost its task.
pub(crate) const CREATION_LEASE: Duration = Duration::from_secs(60);
/// Failed creations before the order fails.
const MAX_CREATION_FAILURES: u32 = 3;
/// Claims before the order fails: a recipe that kills its creators must not go round for ever.
const MAX_CREATION_CLAIMS: u32 = 10;
/// Pause after the first failure; four times longer after each further one.
const FIRST_RETRY_DELAY: Duration = Duration::from_secs(10);
/// A virtual order is available this long, times its quantity. **Source:** the first Cardshop.
pub(super) const VIRTUAL_VALIDITY: Duration = Duration::from_secs(14 * 86_400);

impl Order {
    pub(super) fn end_lost_lease(&mut self, now: Timestamp, notes: &mut Notes<'_>) {
        let creation = &mut self.creation;
        let working = matches!(creation.status, TaskStatus::Leased | TaskStatus::Running);
        if !working || creation.lease_until.is_none_or(|end| now <= end) || self.canceled.is_some() {
            return;
        }
        let lost_by = creation.owner.take();
        let who = lost_by.as_deref().unwrap_or("a creator");
        let last = creation.claims >= MAX_CREATION_CLAIMS;
        let next = if last { "it is not tried again" } else { "the image waits for a creator again" };
        notes.add("creation_lost", format!("Creator {who} fell silent; {next}."));
        creation.lost_by = lost_by;
        creation.status = TaskStatus::Pending;
        creation.lease_until = None;
        if last {
            creation.status = TaskStatus::Failed;
            creation.failure = Some(format!("{MAX_CREATION_CLAIMS} creators fell silent over it"));
        }
    }

    pub(super) fn end_lost_lease_quietly(&mut self, now: Timestamp) {
        self.end_lost_lease(now, &mut Notes::new(&mut Vec::new()));
    }

    pub(super) fn claim(
        &mut self,
        now: Timestamp,
        owner: String,
        notes: &mut Notes<'_>,
    ) -> Result<Answer, Refusal> {
        if !self.is_claimable(now) {
            return refuse("not_claimable", "the task is not waiting for a creator");
        }
        notes.add("creation_claimed", format!("Creator {owner} took the image."));
        let creation = &mut self.creation;
        *creation = Creation {
            status: TaskStatus::Leased,
            claims: creation.claims + 1,
            failures: creation.failures,
            owner: Some(owner),
            claimed_at: Some(now),
            lease_until: Some(now + CREATION_LEASE),
            failure: creation.failure.take(),
            ..Creation::default()
        };
        Ok(Answer::Done)
    }

    pub(super) fn is_worked_on_by(&self, owner: &str) -> bool {
        self.canceled.is_none()
            && matches!(self.creation.status, TaskStatus::Leased | TaskStatus::Running)
            && self.creation.owner.as_deref() == Some(owner)
    }

    pub(super) fn report(
        &mut self,
        now: Timestamp,
        owner: &str,
        report: CreationReport,
        notes: &mut Notes<'_>,
    ) -> Answer {
        if self.canceled.is_none()
            && self.creation.status == TaskStatus::Pending
            && self.creation.lost_by.as_deref() == Some(owner)
        {
            notes.add("creation_resumed", format!("Creator {owner} is back and goes on."));
            self.creation.owner = self.creation.lost_by.take();
            self.creation.status = TaskStatus::Running;
        }
        if !self.is_worked_on_by(owner) {
            return match report {
                CreationReport::Succeeded { image } if self.is_made_by(owner, image) => Answer::Unchanged,
                _ => Answer::Stop,
            };
        }
        let creation = &mut self.creation;
        creation.lease_until = Some(now + CREATION_LEASE);
        creation.status = TaskStatus::Running;
        match report {
            CreationReport::Running { phase, done, total, .. } => {
                if creation.phase != Some(phase) || creation.phase_since.is_none() {
                    creation.phase_since = Some(now);
                }
                (creation.phase, creation.done, creation.total) = (Some(phase), done, total);
                let Some(reason) = creation.overdue(now) else { return Answer::Renewed };
                self.creation_failed(now, &reason, false, notes);
                Answer::Stop
            }
            CreationReport::Returned => {
                notes.add("creation_returned", format!("Creator {owner} ended and gave the image back."));
                // It counts neither as a failure nor as a creator that fell silent.
                let (claims, failures) = (creation.claims.saturating_sub(1), creation.failures);
                let failure = creation.failure.take();
                *creation = Creation { claims, failures, failure, ..Creation::default() };
                Answer::Done
            }
            CreationReport::Succeeded { image } => {
                creation.phase = Some(CreationPhase::Uploading);
                Answer::Check(image)
            }
            CreationReport::Failed { reason, permanent } => {
                self.creation_failed(now, &reason, permanent, notes);
                Answer::Done
            }
        }
    }

    fn is_made_by(&self, owner: &str, image: ImageId) -> bool {
        self.canceled.is_none()
            && self.creation.owner.as_deref() == Some(owner)
            && self.image.as_ref().is_some_and(|i| i.id == image)
    }

    pub(super) fn image_checked(
        &mut self,
        now: Timestamp,
        owner: &str,
        image: OrderImage,
        notes: &mut Notes<'_>,
    ) -> Answer {
        if self.is_made_by(owner, image.id) {
            return Answer::Unchanged;
        }
        if !self.is_worked_on_by(owner) {
            return Answer::Stop;
        }
        notes.add("image_ready", format!("The image is in the warehouse and checked: {} bytes.", image.size));
        self.creation.status = TaskStatus::Succeeded;
        self.creation.lease_until = None;
        self.creation.failure = None;
        if self.kind == OrderKind::Virtual {
            self.available_until = Some(now + VIRTUAL_VALIDITY * self.quantity);
        }
        self.image = Some(image);
        Answer::Done
    }

    pub(super) fn creation_failed(
        &mut self,
        now: Timestamp,
        reason: &str,
        permanent: bool,
        notes: &mut Notes<'_>,
    ) {
        let reason = shorten(reason);
        let creation = &mut self.creation;
        creation.failures += 1;
        creation.owner = None;
        creation.lost_by = None;
        creation.lease_until = None;
        creation.phase = None;
        if permanent || creation.failures >= MAX_CREATION_FAILURES {
            creation.status = TaskStatus::Failed;
            notes.add("creation_failed", format!("The image could not be made: {reason}."));
        } else {
            let delay = FIRST_RETRY_DELAY * 4u32.pow(creation.failures - 1);
            creation.status = TaskStatus::Pending;
            creation.retry_at = Some(now + delay);
            let seconds = delay.as_secs();
            let text = format!("Making the image failed: {reason}. It is tried again in {seconds} s.");
            notes.add("creation_failed", text);
        }
        creation.failure = Some(reason);
    }
}

impl Creation {
    /// Why it has taken too long, if it has.
    fn overdue(&self, now: Timestamp) -> Option<String> {
        let (phase, since) = (self.phase?, self.phase_since?);
        let allowed = allowed(phase, self.total);
        if now.since(since) > allowed {
            let minutes = allowed.as_secs() / 60;
            return Some(format!("{phase:?} {} bytes took more than {minutes} minutes", self.total));
        }
        let all = self.claimed_at.is_some_and(|at| now.since(at) > MAX_CREATION);
        all.then(|| format!("it took more than {} hours", MAX_CREATION.as_secs() / 3600))
    }
}
