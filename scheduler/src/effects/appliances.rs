//! Appliances as people handle them: list, approve, reject; cards and join tokens as lists.

use cardshop_protocol::api::{Membership, Page};
use cardshop_protocol::ids::{ApplianceId, Channel, ObjectId, OrderId};

use super::paging::PageRequest;
use crate::core::documents::{Appliance, CardDocument, JoinTokenDocument, Story};
use crate::core::rights::{Action, Principal};
use crate::core::views::{ApplianceView, CardView, JoinTokenView};
use crate::{Scheduler, SchedulerError};

impl Scheduler {
    fn appliance_view(&self, appliance: &Appliance) -> ApplianceView {
        let picture = self.inner.picture.lock().expect("no holder panics");
        ApplianceView::new(appliance, picture.get(appliance.id), self.now())
    }

    /// Tells everybody who watches.
    pub(crate) fn announce_appliance(&self, appliance: &Appliance) {
        let view = self.appliance_view(appliance);
        self.inner.live.send("appliance", appliance.channels.clone(), &view);
    }

    /// Appliances of the caller's channels.
    ///
    /// # Errors
    /// `NotAllowed`, `Invalid` for a wrong cursor.
    pub fn appliances(
        &self,
        caller: &Principal,
        page: &PageRequest,
    ) -> Result<Page<ApplianceView>, SchedulerError> {
        caller.must(Action::Look)?;
        self.page::<Appliance, _>(page, None, false, |a| {
            caller.sees_any(&a.value.channels).then(|| self.appliance_view(&a.value))
        })
    }

    /// How many appliances of the caller's channels wait for approval: read by an index, for every page shows it.
    ///
    /// # Errors
    /// `NotAllowed`.
    pub fn waiting_appliances(&self, caller: &Principal) -> Result<usize, SchedulerError> {
        caller.must(Action::Look)?;
        let waiting = self.all::<Appliance>(Some(("waiting", "yes")))?;
        Ok(waiting.iter().filter(|a| caller.sees_any(&a.channels)).count())
    }

    /// One appliance.
    ///
    /// # Errors
    /// `NotAllowed`, `NotFound`.
    pub fn appliance(&self, caller: &Principal, id: ApplianceId) -> Result<ApplianceView, SchedulerError> {
        caller.must(Action::Look)?;
        let found = self.inner.store.get::<Appliance>(&id.to_string())?.map(|a| a.value);
        let found = found.filter(|a| caller.sees_any(&a.channels));
        Ok(self.appliance_view(&found.ok_or(SchedulerError::NotFound("appliance"))?))
    }

    /// Lets an appliance work for `channels` (those of its join token when `None`).
    ///
    /// # Errors
    /// `NotAllowed`, `NotFound`, `Invalid` for channels that are not the caller's.
    pub async fn approve_appliance(
        &self,
        caller: &Principal,
        id: ApplianceId,
        channels: Option<Vec<Channel>>,
    ) -> Result<ApplianceView, SchedulerError> {
        let channels = match channels {
            Some(channels) => Some(self.own_channels(caller, Some(channels))?),
            None => None,
        };
        self.decide(caller, id, Membership::Approved, channels).await
    }

    /// Refuses an appliance, or takes an approved one out: its tokens end within seconds, its leases at once.
    ///
    /// # Errors
    /// `NotAllowed`, `NotFound`.
    pub async fn reject_appliance(
        &self,
        caller: &Principal,
        id: ApplianceId,
    ) -> Result<ApplianceView, SchedulerError> {
        self.decide(caller, id, Membership::Rejected, None).await
    }

    async fn decide(
        &self,
        caller: &Principal,
        id: ApplianceId,
        state: Membership,
        channels: Option<Vec<Channel>>,
    ) -> Result<ApplianceView, SchedulerError> {
        caller.must(Action::Enrol)?;
        let approved = state == Membership::Approved;
        let decide = || {
            let now = self.now();
            let stored = self.inner.store.get::<Appliance>(&id.to_string())?;
            let stored = stored.filter(|a| caller.sees_any(&a.value.channels));
            let stored = stored.ok_or(SchedulerError::NotFound("appliance"))?;
            let mut appliance = stored.value.clone();
            if let Some(channels) = &channels {
                appliance.channels.clone_from(channels);
            }
            if appliance.state == state && appliance.channels == stored.value.channels {
                return Ok((None, appliance));
            }
            appliance.state = state;
            if approved {
                appliance.approved = Some(now);
            }
            if stored.value.state == Membership::Approved {
                // Tokens it holds name its old channels, or nothing it may use any more.
                appliance.epoch += 1;
                appliance.epoch_raised = Some(now);
            }
            let action = if approved { "appliance.approve" } else { "appliance.reject" };
            let mut batch = self.audited(caller, action, &id.to_string());
            let word = if approved { "approved" } else { "rejected" };
            batch.update(&stored, &appliance).create(&Story {
                id: self.next_id(),
                at: now,
                kind: format!("appliance_{word}"),
                text: format!("{} {word} appliance {}.", caller.sub, appliance.label),
                order: None,
                appliance: Some(id),
                channel: appliance.channels.first().cloned(),
            });
            Ok((Some(batch), appliance))
        };
        let (appliance, stored) = self.change(decide).await?;
        if stored {
            if !approved {
                self.inner.picture.lock().expect("no holder panics").forget(id);
            }
            self.publish_keys()?;
            self.announce_appliance(&appliance);
            self.inner.replan.notify_one();
        }
        Ok(self.appliance_view(&appliance))
    }

    /// Join tokens of the caller's channels, newest first.
    ///
    /// # Errors
    /// `NotAllowed`, `Invalid` for a wrong cursor.
    pub fn join_tokens(
        &self,
        caller: &Principal,
        page: &PageRequest,
    ) -> Result<Page<JoinTokenView>, SchedulerError> {
        caller.must(Action::Enrol)?;
        self.page::<JoinTokenDocument, _>(page, None, true, |t| {
            caller.sees_any(&t.value.channels).then(|| JoinTokenView::from(&t.value))
        })
    }

    /// Ends a join token that nobody has used.
    ///
    /// # Errors
    /// `NotAllowed`, `NotFound`, `Conflict` when it was used.
    pub async fn revoke_join_token(
        &self,
        caller: &Principal,
        id: ObjectId,
    ) -> Result<JoinTokenView, SchedulerError> {
        caller.must(Action::Enrol)?;
        let decide = || {
            let now = self.now();
            let stored = self.inner.store.get::<JoinTokenDocument>(&id.to_string())?;
            let stored = stored.filter(|t| caller.sees_any(&t.value.channels));
            let stored = stored.ok_or(SchedulerError::NotFound("join token"))?;
            if stored.value.used_by.is_some() {
                let text = "this token was used: reject the appliance instead".to_owned();
                return Err(SchedulerError::Conflict { code: "token_used", text });
            }
            let token = JoinTokenDocument { expires: stored.value.expires.min(now), ..stored.value.clone() };
            let mut batch = self.audited(caller, "join-token.revoke", &id.to_string());
            batch.update(&stored, &token);
            Ok((Some(batch), token))
        };
        Ok(JoinTokenView::from(&self.change(decide).await?.0))
    }

    /// The record of a written card.
    ///
    /// # Errors
    /// `NotAllowed`, `NotFound`.
    pub fn card(&self, caller: &Principal, uid: ObjectId) -> Result<CardView, SchedulerError> {
        caller.must(Action::Watch)?;
        let found = self.inner.store.get::<CardDocument>(&uid.to_string())?.map(|c| c.value);
        let found = found.filter(|c| sees_card(caller, c));
        Ok(found.ok_or(SchedulerError::NotFound("card"))?.into())
    }

    /// Records of written cards, newest first; `order` narrows them.
    ///
    /// # Errors
    /// `NotAllowed`, `NotFound`, `Invalid` for a wrong cursor.
    pub fn cards(
        &self,
        caller: &Principal,
        order: Option<OrderId>,
        page: &PageRequest,
    ) -> Result<Page<CardView>, SchedulerError> {
        caller.must(Action::Watch)?;
        let id = match order {
            Some(order) => Some(self.order_of(caller, order)?.id.to_string()),
            None => None,
        };
        let index = id.as_deref().map(|id| ("order", id));
        self.page::<CardDocument, _>(page, index, true, |c| {
            sees_card(caller, &c.value).then(|| c.value.into())
        })
    }
}

fn sees_card(caller: &Principal, card: &CardDocument) -> bool {
    card.channel.as_ref().map_or(caller.may(Action::Administer), |c| caller.sees(c))
}
