//! Updates of appliances: staff makes a roll-out, its file goes to the warehouse as an image, and `core::rollout` says who
//! is to run it. Signatures are the appliances' to check: a scheduler that was taken over can offer them nothing new.

use std::collections::BTreeMap;

use cardshop_protocol::api::{Membership, Page};
use cardshop_protocol::ids::{ApplianceId, ImageId, KeyId, ObjectId, TaskId};
use cardshop_protocol::keys::{KeyUse, PublicKey, decode_public};
use cardshop_protocol::message::DesiredUpdate;
use cardshop_protocol::update::{MAX_KEYS, MAX_UPDATE_SIZE, Version};
use serde_json::{Value, json};

use super::ask::{Answer, Question};
use super::catalogue::{MAX_NAME, not_an_object};
use super::paging::PageRequest;
use crate::core::documents::{Appliance, WarehouseDocument};
use crate::core::fields::{Fields, InvalidField};
use crate::core::rights::{Action, Principal};
use crate::core::rollout::{
    MAX_LABELS, MAX_RINGS, Member, NewRollout, Rollout, RolloutState, RolloutView, current,
};
use crate::store::Batch;
use crate::{Scheduler, SchedulerError};

/// Share of the first ring when nobody says, percent.
const DEFAULT_RING: u8 = 10;
/// Largest answer of the warehouse that is read, bytes.
const MAX_ANSWER: u64 = 64 * 1024;

impl Scheduler {
    /// Makes a roll-out from `{version, image, size, kid, keys?, rings?, first?, allow_older?}`, paused; the answer says where
    /// its file is to be put.
    ///
    /// # Errors
    /// `NotAllowed`, `Invalid`, `Conflict` when there is no warehouse.
    pub async fn create_update(&self, caller: &Principal, body: Value) -> Result<NewRollout, SchedulerError> {
        caller.must(Action::Administer)?;
        let mut fields = Fields::new(body).ok_or_else(not_an_object)?;
        let version: Version = fields.required("version")?;
        let image: ImageId = fields.required("image")?;
        let size: u64 = fields.required("size")?;
        let kid: KeyId = fields.required("kid")?;
        let keys: Vec<String> = fields.optional("keys")?.unwrap_or_default();
        let rings: Vec<u8> = fields.optional("rings")?.unwrap_or_default();
        let first: Vec<String> = fields.optional("first")?.unwrap_or_default();
        let wrong = |field, reason: String| Err(SchedulerError::from(InvalidField::new(field, reason)));
        if !(1..=MAX_UPDATE_SIZE).contains(&size) {
            return wrong("size", format!("must be 1 to {MAX_UPDATE_SIZE}"));
        }
        if keys.len() > MAX_KEYS || keys.iter().any(|key| decode_public(key).is_none()) {
            return wrong("keys", format!("must be at most {MAX_KEYS} public keys, base64url"));
        }
        let rings = if rings.is_empty() { vec![DEFAULT_RING] } else { rings };
        let sum: u32 = rings.iter().map(|ring| u32::from(*ring)).sum();
        if rings.len() > MAX_RINGS || rings.contains(&0) || sum > 100 {
            return wrong(
                "rings",
                format!("must be at most {MAX_RINGS} shares in percent, together at most 100"),
            );
        }
        if first.len() > MAX_LABELS || first.iter().any(|label| label.chars().count() > MAX_NAME) {
            return wrong("first", format!("must be at most {MAX_LABELS} labels"));
        }
        let warehouse = self.all::<WarehouseDocument>(None)?.into_iter().next();
        let warehouse = warehouse.ok_or_else(|| SchedulerError::Conflict {
            code: "no_warehouse",
            text: "there is no warehouse to put an update into: add one".into(),
        })?;
        let rollout = Rollout {
            id: self.next_id(),
            version,
            image,
            size,
            kid,
            keys,
            warehouse: warehouse.url.clone(),
            rings,
            first,
            allow_older: fields.optional("allow_older")?.unwrap_or(false),
            shown: false,
            state: RolloutState::Paused,
            reason: None,
            open: 0,
            quiet: None,
            told: BTreeMap::new(),
            created_by: caller.sub.clone(),
            created: self.now(),
        };
        let mut batch = self.audited(caller, "update.create", &rollout.id.to_string());
        batch.create(&rollout);
        self.inner.store.apply(batch).await?;
        self.publish_keys()?;
        let task = TaskId::creation(rollout.id);
        Ok(NewRollout {
            view: rollout.view(&self.fleet()?, self.now()),
            warehouse: warehouse.url,
            task: task.to_string(),
            upload_token: self.upload_token(caller, task, &self.default_channel()?),
        })
    }

    /// An upload names a channel; an update is public once it runs, so any will do.
    fn default_channel(&self) -> Result<cardshop_protocol::ids::Channel, SchedulerError> {
        let channels = self.all::<crate::core::documents::ChannelDocument>(None)?;
        channels.into_iter().next().map(|channel| channel.slug).ok_or(SchedulerError::NotFound("channel"))
    }

    /// All roll-outs, the newest first.
    ///
    /// # Errors
    /// `NotAllowed`, `Invalid` for a wrong cursor.
    pub fn updates(
        &self,
        caller: &Principal,
        page: &PageRequest,
    ) -> Result<Page<RolloutView>, SchedulerError> {
        caller.must(Action::Administer)?;
        let (fleet, now) = (self.fleet()?, self.now());
        self.page::<Rollout, _>(page, None, true, |rollout| Some(rollout.value.view(&fleet, now)))
    }

    /// Lets a roll-out go on, holds it, or ends it.
    ///
    /// # Errors
    /// `NotAllowed`, `NotFound`, `Conflict` when it has ended.
    pub async fn change_update(
        &self,
        caller: &Principal,
        id: ObjectId,
        to: RolloutState,
    ) -> Result<RolloutView, SchedulerError> {
        caller.must(Action::Administer)?;
        let decide = || {
            let stored = self.inner.store.get::<Rollout>(&id.to_string())?;
            let stored = stored.ok_or(SchedulerError::NotFound("update"))?;
            if stored.value.state == to {
                return Ok((None, stored.value));
            }
            if stored.value.state == RolloutState::Stopped {
                let text = "this roll-out has ended: publish the update again".into();
                return Err(SchedulerError::Conflict { code: "update_stopped", text });
            }
            let reason = (to == RolloutState::Stopped).then(|| format!("stopped by {}", caller.sub));
            let rollout = Rollout { state: to, reason, ..stored.value.clone() };
            let action = match to {
                RolloutState::Paused => "update.pause",
                RolloutState::Running => "update.resume",
                RolloutState::Stopped => "update.stop",
            };
            let mut batch = self.audited(caller, action, &id.to_string());
            batch.update(&stored, &rollout);
            Ok((Some(batch), rollout))
        };
        let (rollout, _) = self.change(decide).await?;
        self.inner.replan.notify_one();
        Ok(rollout.view(&self.fleet()?, self.now()))
    }

    /// An update is free software and has no secret: every appliance may read it, and it stays.
    async fn show_to_everybody(&self, rollout: &Rollout) -> Result<(), SchedulerError> {
        let url = format!("{}/images/{}", rollout.warehouse, rollout.image);
        let told = Question::patch(url, json!({"public": true, "keep_until": null}));
        match self.ask(told, Some(self.own_token()), MAX_ANSWER).await {
            Answer::Body(_) => Ok(()),
            Answer::NotFound => Err(SchedulerError::Unreachable(format!(
                "the file of update {} is not in the warehouse: cardshop admin update publish puts it there",
                rollout.version
            ))),
            Answer::TooLarge => {
                Err(SchedulerError::Unreachable("the warehouse's answer is too large".into()))
            }
            Answer::Failed(text) => Err(SchedulerError::Unreachable(text)),
        }
    }

    /// What is known of the approved appliances.
    fn fleet(&self) -> Result<Vec<Member>, SchedulerError> {
        let appliances = self.all::<Appliance>(None)?;
        let picture = self.inner.picture.lock().expect("no holder panics");
        let approved = appliances.into_iter().filter(|a| a.state == Membership::Approved);
        let member = |appliance: Appliance| {
            let heard = picture.get(appliance.id);
            Member {
                id: appliance.id,
                label: appliance.label,
                runs: heard.and_then(|p| Some(p.info.as_ref()?.system.as_ref()?.version.clone())),
                report: heard.and_then(|p| p.reported.as_ref()?.update.clone()),
                heard: heard.and_then(|p| p.heard),
            }
        };
        Ok(approved.map(member).collect())
    }

    /// What each appliance is to run.
    pub(crate) fn wanted_updates(&self) -> Result<BTreeMap<ApplianceId, DesiredUpdate>, SchedulerError> {
        let rollouts = self.all::<Rollout>(None)?;
        let Some(rollout) = current(&rollouts) else { return Ok(BTreeMap::new()) };
        let fleet = self.fleet()?;
        Ok(fleet.iter().filter_map(|member| Some((member.id, rollout.wants(member)?))).collect())
    }

    /// Lets the newest roll-out go on.
    pub(crate) async fn tick_updates(&self) -> Result<(), SchedulerError> {
        let rollouts = self.all::<Rollout>(None)?;
        let Some(newest) = current(&rollouts) else { return Ok(()) };
        if !newest.shown {
            self.show_to_everybody(newest).await?;
        }
        let (fleet, now, id) = (self.fleet()?, self.now(), newest.id.to_string());
        let decide = || {
            let stored = self.inner.store.get::<Rollout>(&id)?.ok_or(SchedulerError::NotFound("update"))?;
            let mut rollout = Rollout { shown: true, ..stored.value.clone() };
            rollout.step(&fleet, now);
            let mut batch = Batch::new();
            batch.update(&stored, &rollout);
            Ok(((rollout != stored.value).then_some(batch), rollout))
        };
        let (rollout, changed) = self.change(decide).await?;
        if changed {
            self.inner.replan.notify_one();
        }
        if let (RolloutState::Stopped, Some(reason)) = (rollout.state, &rollout.reason) {
            tracing::warn!(version = %rollout.version, reason, "a roll-out has stopped");
        }
        Ok(())
    }

    /// Keys that sign updates, as roll-outs have brought them.
    pub(crate) fn update_keys(&self) -> Result<Vec<PublicKey>, SchedulerError> {
        let mut keys: BTreeMap<KeyId, PublicKey> = BTreeMap::new();
        for rollout in self.all::<Rollout>(None)? {
            for key in rollout.keys.iter().filter_map(|key| decode_public(key)) {
                let listed = PublicKey::new(&key, KeyUse::Update);
                keys.insert(listed.kid, listed);
            }
        }
        Ok(keys.into_values().collect())
    }
}
