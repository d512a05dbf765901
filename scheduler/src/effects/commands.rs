//! Reflexes of an appliance for a person at a page: sent over the broker at once, answered within seconds, never
//! kept. What an appliance should be like is desired state, which the planner tells.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::Ordering;
use std::time::Duration;

use cardshop_protocol::ids::{ApplianceId, ObjectId, SlotId};
use cardshop_protocol::message::{Action as Reflex, Command, CommandReply, Presence, VERSION};
use cardshop_protocol::topic::{ApplianceTopic, Topic};
use tokio::sync::oneshot;

use crate::core::documents::Appliance;
use crate::core::rights::{Action, Principal};
use crate::{Scheduler, SchedulerError};

/// How long a person waits for a light to strobe; a command that arrives later is void.
const DEADLINE: Duration = Duration::from_secs(5);
/// Reflexes that may wait for their answers.
const MAX_WAITING: usize = 1000;

/// How long a person waits for an appliance's file: packing takes seconds, half a megabyte on a slow line the rest.
const SUPPORT_PATIENCE: Duration = Duration::from_secs(60);
/// Files that may be waited for at once: each is up to half a megabyte.
const MAX_SUPPORTS: usize = 16;

/// Who waits for an answer.
#[derive(Default)]
pub(crate) struct Reflexes(Mutex<BTreeMap<ObjectId, (ApplianceId, oneshot::Sender<CommandReply>)>>);

/// Takes the waiting entry away, however the wait ends.
struct Wait<'a>(&'a Reflexes, ObjectId);

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        self.0.0.lock().expect("no holder panics").remove(&self.1);
    }
}

/// Whose file, and who waits for it.
type Awaited = (ApplianceId, oneshot::Sender<Vec<u8>>);

/// Who waits for a file of an appliance.
#[derive(Default)]
pub(crate) struct Supports(Mutex<BTreeMap<ObjectId, Awaited>>);

/// Takes the waiting entry away, however the wait ends.
struct SupportWait<'a>(&'a Supports, ObjectId);

impl Drop for SupportWait<'_> {
    fn drop(&mut self) {
        self.0.0.lock().expect("no holder panics").remove(&self.1);
    }
}

impl Supports {
    fn wait(
        &self,
        id: ObjectId,
        appliance: ApplianceId,
        sender: oneshot::Sender<Vec<u8>>,
    ) -> Option<SupportWait<'_>> {
        let mut waiting = self.0.lock().expect("no holder panics");
        (waiting.len() < MAX_SUPPORTS).then(|| {
            waiting.insert(id, (appliance, sender));
            SupportWait(self, id)
        })
    }

    /// False when nobody waits for this one's file.
    fn take(&self, id: ObjectId, appliance: ApplianceId, bundle: Vec<u8>) -> bool {
        let mut waiting = self.0.lock().expect("no holder panics");
        let is_asked = waiting.get(&id).is_some_and(|(asked, _)| *asked == appliance);
        is_asked && waiting.remove(&id).is_some_and(|(_, sender)| sender.send(bundle).is_ok())
    }
}

impl Reflexes {
    fn wait(
        &self,
        id: ObjectId,
        appliance: ApplianceId,
    ) -> Option<(Wait<'_>, oneshot::Receiver<CommandReply>)> {
        let (sender, receiver) = oneshot::channel();
        let mut waiting = self.0.lock().expect("no holder panics");
        if waiting.len() >= MAX_WAITING {
            return None;
        }
        waiting.insert(id, (appliance, sender));
        Some((Wait(self, id), receiver))
    }

    /// `appliance` answers; nothing when nobody asked it.
    pub(crate) fn answered(&self, appliance: ApplianceId, reply: CommandReply) {
        let mut waiting = self.0.lock().expect("no holder panics");
        if waiting.get(&reply.id).is_some_and(|(asked, _)| *asked == appliance)
            && let Some((_, sender)) = waiting.remove(&reply.id)
        {
            // Whoever asked may have gone.
            let _ = sender.send(reply);
        }
    }
}

/// Name of a reflex in the audit.
fn audit_name(reflex: &Reflex) -> &'static str {
    match reflex {
        Reflex::Identify { .. } => "slot.identify",
        Reflex::Eject { .. } => "slot.eject",
        Reflex::Retry { .. } => "slot.retry",
        Reflex::Release { .. } => "slot.release",
        Reflex::Reboot => "appliance.reboot",
        Reflex::Logs => "appliance.logs",
        Reflex::Update => "appliance.update",
        Reflex::Support => "appliance.support",
        Reflex::LogLevel { .. } => "appliance.log-level",
    }
}

impl Scheduler {
    /// Has the appliance of `slot` do what `reflex` makes of the slot; gives its answer.
    ///
    /// # Errors
    /// `NotAllowed`, `NotFound`, `Conflict` when it is offline or refuses, `Unreachable` when it does not answer.
    pub async fn command_slot(
        &self,
        caller: &Principal,
        appliance: ApplianceId,
        slot: SlotId,
        reflex: fn(SlotId) -> Reflex,
    ) -> Result<CommandReply, SchedulerError> {
        caller.must(Action::Tend)?;
        self.tended(caller, appliance)?.ok_or(SchedulerError::NotFound("slot"))?;
        {
            let picture = self.inner.picture.lock().expect("no holder panics");
            let known = picture.get(appliance).is_some_and(|p| p.slots.contains_key(&slot));
            known.then_some(()).ok_or(SchedulerError::NotFound("slot"))?;
        }
        let object = format!("{appliance}/{slot}");
        self.command(caller, appliance, reflex(slot), &object).await
    }

    /// Has an appliance do what concerns it as a whole: restart when no card is being written, or tell the newest lines of
    /// its log.
    ///
    /// # Errors
    /// As [`Scheduler::command_slot`].
    pub async fn command_appliance(
        &self,
        caller: &Principal,
        appliance: ApplianceId,
        reflex: Reflex,
    ) -> Result<CommandReply, SchedulerError> {
        caller.must(Action::Tend)?;
        self.tended(caller, appliance)?.ok_or(SchedulerError::NotFound("appliance"))?;
        self.command(caller, appliance, reflex, &appliance.to_string()).await
    }

    /// The file for whoever helps with an appliance: a tar.gz without secrets, made there now.
    ///
    /// # Errors
    /// As [`Scheduler::command_slot`].
    pub async fn support(
        &self,
        caller: &Principal,
        appliance: ApplianceId,
    ) -> Result<Vec<u8>, SchedulerError> {
        caller.must(Action::Tend)?;
        self.tended(caller, appliance)?.ok_or(SchedulerError::NotFound("appliance"))?;
        let id = self.next_id();
        let (sender, receiver) = oneshot::channel();
        let _wait = self.inner.supports.wait(id, appliance, sender).ok_or(SchedulerError::Busy)?;
        self.command_as(id, caller, appliance, Reflex::Support, &appliance.to_string()).await?;
        match tokio::time::timeout(SUPPORT_PATIENCE, receiver).await {
            Ok(Ok(bundle)) => Ok(bundle),
            _ => Err(SchedulerError::Unreachable(
                "the appliance's file did not arrive in time: try again".into(),
            )),
        }
    }

    /// An appliance hands in the file that it was asked for.
    ///
    /// # Errors
    /// `NotAllowed`, `Conflict` when nobody waits for it here.
    pub fn take_support(
        &self,
        caller: &Principal,
        command: ObjectId,
        bundle: Vec<u8>,
    ) -> Result<(), SchedulerError> {
        caller.must(Action::Log)?;
        let taken =
            caller.sub.parse().is_ok_and(|appliance| self.inner.supports.take(command, appliance, bundle));
        taken.then_some(()).ok_or_else(|| SchedulerError::Conflict {
            code: "nobody_waits",
            text: "nobody waits for this file any more, or not at this server".into(),
        })
    }

    /// An appliance, if it is the caller's to see.
    pub(crate) fn tended(
        &self,
        caller: &Principal,
        id: ApplianceId,
    ) -> Result<Option<Appliance>, SchedulerError> {
        let appliance = self.inner.store.get::<Appliance>(&id.to_string())?.map(|a| a.value);
        Ok(appliance.filter(|a| caller.sees_any(&a.channels)))
    }

    async fn command(
        &self,
        caller: &Principal,
        appliance: ApplianceId,
        reflex: Reflex,
        object: &str,
    ) -> Result<CommandReply, SchedulerError> {
        self.command_as(self.next_id(), caller, appliance, reflex, object).await
    }

    async fn command_as(
        &self,
        id: ObjectId,
        caller: &Principal,
        appliance: ApplianceId,
        reflex: Reflex,
        object: &str,
    ) -> Result<CommandReply, SchedulerError> {
        let online = {
            let picture = self.inner.picture.lock().expect("no holder panics");
            picture.get(appliance).is_some_and(|p| p.presence(self.now()) == Presence::Online)
        };
        if !online || !self.inner.metrics.broker_connected.load(Ordering::Relaxed) {
            let text = "the appliance is offline: look at its network and power".into();
            return Err(SchedulerError::Conflict { code: "appliance_offline", text });
        }
        let (_wait, answer) = self.inner.reflexes.wait(id, appliance).ok_or(SchedulerError::Busy)?;
        // Before it is sent: what somebody did is known even when the answer is lost.
        self.inner.store.apply(self.audited(caller, audit_name(&reflex), object)).await?;
        let deadline_s = u32::try_from(DEADLINE.as_secs()).expect("a few seconds");
        let command = Command { v: VERSION, id, deadline_s, action: reflex };
        let topic = Topic::Appliance(appliance, ApplianceTopic::Cmd);
        if !self.inner.retained.reflex(&topic, &command) {
            return Err(SchedulerError::Busy);
        }
        match tokio::time::timeout(DEADLINE, answer).await {
            Ok(Ok(reply)) if reply.ok => Ok(reply),
            Ok(Ok(reply)) => Err(SchedulerError::Conflict { code: "appliance_refused", text: reply.text }),
            _ => Err(SchedulerError::Unreachable("the appliance did not answer in time: try again".into())),
        }
    }
}
