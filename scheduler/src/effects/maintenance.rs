//! Maintenance: while it is on, nobody but staff places orders, no creator and no appliance gets new work, and nothing is
//! built by itself. What runs goes on to its end, and whatever is reported is taken.

use serde_json::Value;

use super::catalogue::not_an_object;
use crate::core::documents::Maintenance;
use crate::core::fields::Fields;
use crate::core::rights::{Action, Principal};
use crate::store::Batch;
use crate::{Scheduler, SchedulerError};

/// Longest reason, characters.
const MAX_REASON: usize = 200;

impl Scheduler {
    /// Whether maintenance is on, and why.
    ///
    /// # Errors
    /// Those of the store.
    pub fn maintenance(&self) -> Result<Maintenance, SchedulerError> {
        let found = self.inner.store.get::<Maintenance>("site")?;
        Ok(found.map(|m| m.value).unwrap_or_default())
    }

    /// Turns maintenance on or off: `{on, reason?}`.
    ///
    /// # Errors
    /// `NotAllowed`, `Invalid`.
    pub async fn set_maintenance(
        &self,
        caller: &Principal,
        body: Value,
    ) -> Result<Maintenance, SchedulerError> {
        caller.must(Action::Administer)?;
        let mut fields = Fields::new(body).ok_or_else(not_an_object)?;
        let on: bool = fields.required("on")?;
        let reason = fields.text("reason", MAX_REASON)?.filter(|_| on);
        let decide = || {
            let stored = self.inner.store.get::<Maintenance>("site")?;
            let since = on.then(|| self.now());
            let maintenance = Maintenance { on, reason: reason.clone(), since };
            let mut batch: Batch =
                self.audited(caller, if on { "maintenance.on" } else { "maintenance.off" }, "site");
            batch.upsert(stored.as_ref(), &maintenance);
            Ok((Some(batch), maintenance))
        };
        let (maintenance, _) = self.change(decide).await?;
        self.inner.replan.notify_one();
        self.inner.work.notify_waiters();
        Ok(maintenance)
    }

    /// # Errors
    /// `Maintenance` while it is on, for everybody but staff.
    pub(crate) fn must_not_rest(&self, caller: &Principal) -> Result<(), SchedulerError> {
        let maintenance = self.maintenance()?;
        if !maintenance.on || caller.may(Action::Administer) {
            return Ok(());
        }
        let reason = maintenance.reason.map(|r| format!(": {r}")).unwrap_or_default();
        Err(SchedulerError::Maintenance(format!("the site is being maintained{reason}")))
    }
}
