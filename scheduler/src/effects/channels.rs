//! Channels over time: changed by staff, and removed while nothing names them. They are made in `catalogue`.

use cardshop_protocol::api::Membership;
use cardshop_protocol::ids::ObjectId;
use serde_json::Value;

use super::catalogue::{MAX_NAME, in_use, not_an_object};
use crate::core::account_hook::AccountHook;
use crate::core::auto_image::AutoImage;
use crate::core::documents::{
    ApiKey, Appliance, ChannelDocument, Configuration, DEFAULT_CHANNEL, Unique, User,
};
use crate::core::fields::Fields;
use crate::core::order::Order;
use crate::core::rights::{Action, Principal};
use crate::core::units::Organization;
use crate::{Scheduler, SchedulerError};

/// Longest postal address of a sender, characters.
const MAX_ADDRESS: usize = 500;

impl Scheduler {
    /// One channel.
    ///
    /// # Errors
    /// `NotAllowed`, `NotFound`.
    pub fn channel(&self, caller: &Principal, id: ObjectId) -> Result<ChannelDocument, SchedulerError> {
        caller.must(Action::Watch)?;
        let found = self.inner.store.get::<ChannelDocument>(&id.to_string())?.map(|c| c.value);
        found.filter(|c| caller.sees(&c.slug)).ok_or(SchedulerError::NotFound("channel"))
    }

    /// Changes `{name?, active?, private?, sender_name?, sender_address?, sender_email?}`; an empty text takes one away. The slug
    /// stays: orders, cards and tokens name it.
    ///
    /// # Errors
    /// `NotAllowed`, `NotFound`, `Invalid`.
    pub async fn update_channel(
        &self,
        caller: &Principal,
        id: ObjectId,
        body: Value,
    ) -> Result<ChannelDocument, SchedulerError> {
        caller.must(Action::Administer)?;
        let decide = || {
            let stored = self.inner.store.get::<ChannelDocument>(&id.to_string())?;
            let stored = stored.ok_or(SchedulerError::NotFound("channel"))?;
            let mut channel = stored.value.clone();
            let mut fields = Fields::new(body.clone()).ok_or_else(not_an_object)?;
            channel.name = fields.text("name", MAX_NAME)?.unwrap_or(channel.name);
            channel.active = fields.optional("active")?.unwrap_or(channel.active);
            channel.private = fields.optional("private")?.unwrap_or(channel.private);
            for (field, most, text) in [
                ("sender_name", MAX_NAME, &mut channel.sender_name),
                ("sender_address", MAX_ADDRESS, &mut channel.sender_address),
                ("sender_email", MAX_NAME, &mut channel.sender_email),
            ] {
                if fields.has(field) {
                    *text = fields.text(field, most)?.unwrap_or_default();
                }
            }
            let mut batch = self.audited(caller, "channel.update", &id.to_string());
            batch.update(&stored, &channel);
            Ok((Some(batch), channel))
        };
        let (channel, _) = self.change(decide).await?;
        self.inner.replan.notify_one();
        Ok(channel)
    }

    /// Removes a channel that nothing names any more. What ended in it stays for staff to see.
    ///
    /// # Errors
    /// `NotAllowed`, `NotFound`, `Conflict` while something names it.
    pub async fn delete_channel(
        &self,
        caller: &Principal,
        id: ObjectId,
    ) -> Result<ChannelDocument, SchedulerError> {
        caller.must(Action::Administer)?;
        let decide = || {
            let stored = self.inner.store.get::<ChannelDocument>(&id.to_string())?;
            let channel = stored.ok_or(SchedulerError::NotFound("channel"))?.value;
            self.must_be_unused(&channel)?;
            let mut batch = self.audited(caller, "channel.delete", &id.to_string());
            batch.remove::<ChannelDocument>(&id.to_string());
            batch.remove::<Unique>(&format!("channel:{}", channel.slug));
            Ok((Some(batch), channel))
        };
        let (channel, _) = self.change(decide).await?;
        self.inner.replan.notify_one();
        Ok(channel)
    }

    fn must_be_unused(&self, channel: &ChannelDocument) -> Result<(), SchedulerError> {
        let slug = &channel.slug;
        if slug.as_str() == DEFAULT_CHANNEL {
            return Err(in_use("it is what counts when nobody names a channel: close it instead"));
        }
        let orders =
            self.all::<Order>(Some(("shelf", "open")))?.iter().filter(|o| o.channel == *slug).count();
        let users = self.all::<User>(None)?;
        let users = users.iter().filter(|u| !u.anonymised && u.channels.contains(slug));
        let users = users.count();
        let keys = self.all::<ApiKey>(None)?.into_iter().filter(|k| k.revoked.is_none());
        let appliances = self.all::<Appliance>(None)?.into_iter().filter(|a| a.state != Membership::Rejected);
        let hooks = self.all::<AccountHook>(None)?.into_iter().filter(|h| h.revoked.is_none());
        let configurations = self.all::<Configuration>(None)?;
        let counts = [
            (orders, "open orders"),
            (users, "users"),
            (keys.filter(|k| k.channels.contains(slug)).count(), "API keys"),
            (appliances.filter(|a| a.channels.contains(slug)).count(), "appliances"),
            (hooks.filter(|h| h.channel == *slug).count(), "account hooks"),
            (configurations.iter().filter(|c| c.channel.as_ref() == Some(slug)).count(), "configurations"),
            (self.all::<Organization>(None)?.iter().filter(|o| o.channel == *slug).count(), "organizations"),
            (self.all::<AutoImage>(None)?.iter().filter(|a| a.channel == *slug).count(), "auto-images"),
        ];
        let named: Vec<String> =
            counts.iter().filter(|(n, _)| *n > 0).map(|(n, what)| format!("{n} {what}")).collect();
        if named.is_empty() {
            return Ok(());
        }
        Err(in_use(&format!("{} name it: close it instead, or move them first", named.join(", "))))
    }
}
