//! Channels and warehouses, stories and the audit.

use cardshop_protocol::api::Page;
use cardshop_protocol::ids::Channel;
use serde_json::Value;

use super::idempotency::Once;
use super::paging::PageRequest;
use crate::core::audit_filter::AuditFilter;
use crate::core::documents::{Audit, ChannelDocument, Story, Unique, WarehouseDocument};
use crate::core::fields::{Fields, InvalidField};
use crate::core::rights::{Action, Principal};
use crate::{Scheduler, SchedulerError};

/// Channels one user, appliance or token may have.
const MAX_CHANNELS: usize = 64;
/// Longest name of anything, characters.
pub(crate) const MAX_NAME: usize = 120;

/// A list of channel slugs, without repeats.
pub(crate) fn channel_list(
    fields: &mut Fields,
    field: &'static str,
) -> Result<Option<Vec<Channel>>, InvalidField> {
    let Some(mut channels) = fields.optional::<Vec<Channel>>(field)? else { return Ok(None) };
    channels.sort();
    channels.dedup();
    if channels.len() > MAX_CHANNELS {
        return Err(InvalidField::new(field, format!("has more than {MAX_CHANNELS} channels")));
    }
    Ok(Some(channels))
}

impl Scheduler {
    /// The channel with this slug.
    pub(crate) fn channel_by_slug(&self, slug: &Channel) -> Result<Option<ChannelDocument>, SchedulerError> {
        let unique = self.inner.store.get::<Unique>(&format!("channel:{slug}"))?;
        let Some(unique) = unique else { return Ok(None) };
        let found = self.inner.store.get::<ChannelDocument>(&unique.value.owner.to_string())?;
        Ok(found.map(|c| c.value))
    }

    /// Channels the caller works for.
    ///
    /// # Errors
    /// `NotAllowed`, `Invalid` for a wrong cursor.
    pub fn channels(
        &self,
        caller: &Principal,
        page: &PageRequest,
    ) -> Result<Page<ChannelDocument>, SchedulerError> {
        caller.must(Action::Watch)?;
        self.page::<ChannelDocument, _>(page, None, false, |c| caller.sees(&c.value.slug).then_some(c.value))
    }

    /// Makes a channel from `{slug, name, active, private, sender_name, sender_address, sender_email}`.
    ///
    /// # Errors
    /// `NotAllowed`, `Invalid`, `Conflict` when the slug is taken.
    pub async fn create_channel(
        &self,
        caller: &Principal,
        body: Value,
        once: Option<Once>,
    ) -> Result<ChannelDocument, SchedulerError> {
        caller.must(Action::Administer)?;
        if let Some(answer) = self.answered(once.as_ref()).await? {
            return Ok(answer);
        }
        let mut fields = Fields::new(body).ok_or_else(not_an_object)?;
        let slug: Channel = fields.required("slug")?;
        let channel = ChannelDocument {
            id: self.next_id(),
            name: fields.text("name", MAX_NAME)?.unwrap_or_else(|| slug.to_string()),
            active: fields.optional("active")?.unwrap_or(true),
            private: fields.optional("private")?.unwrap_or(false),
            sender_name: fields.text("sender_name", MAX_NAME)?.unwrap_or_default(),
            sender_address: fields.text("sender_address", 500)?.unwrap_or_default(),
            sender_email: fields.text("sender_email", MAX_NAME)?.unwrap_or_default(),
            slug,
        };
        let mut batch = self.audited(caller, "channel.create", &channel.id.to_string());
        batch.create(&unique_slug(&channel)).create(&channel);
        let view = channel.clone();
        let made = self.apply_once(batch, once, view, |kind| {
            (kind == "unique").then(|| SchedulerError::Conflict {
                code: "slug_taken",
                text: format!("there is a channel {} already", channel.slug),
            })
        });
        let made = made.await?;
        self.inner.replan.notify_one();
        Ok(made)
    }

    /// The warehouses.
    ///
    /// # Errors
    /// `NotAllowed`, `Invalid` for a wrong cursor.
    pub fn warehouses(
        &self,
        caller: &Principal,
        page: &PageRequest,
    ) -> Result<Page<WarehouseDocument>, SchedulerError> {
        caller.must(Action::Watch)?;
        self.page::<WarehouseDocument, _>(page, None, false, |w| Some(w.value))
    }

    /// The story of one order, oldest first, or of the caller's whole site, newest first.
    ///
    /// # Errors
    /// `NotAllowed`, `NotFound`, `Invalid` for a wrong cursor.
    pub fn events(
        &self,
        caller: &Principal,
        order: Option<cardshop_protocol::ids::OrderId>,
        page: &PageRequest,
    ) -> Result<Page<Story>, SchedulerError> {
        caller.must(Action::Watch)?;
        if let Some(order) = order {
            self.order_of(caller, order)?;
            let id = order.to_string();
            return self.page::<Story, _>(page, Some(("order", &id)), false, |s| Some(s.value));
        }
        self.page::<Story, _>(page, None, true, |s| {
            let seen = s.value.channel.as_ref().map_or(caller.may(Action::Administer), |c| caller.sees(c));
            seen.then_some(s.value)
        })
    }

    /// Who changed what, newest first.
    ///
    /// # Errors
    /// `NotAllowed`, `Invalid` for a wrong cursor.
    pub fn audit(
        &self,
        caller: &Principal,
        filter: &AuditFilter,
        page: &PageRequest,
    ) -> Result<Page<Audit>, SchedulerError> {
        caller.must(Action::Administer)?;
        self.page::<Audit, _>(page, None, true, |a| filter.wants(&a.value).then_some(a.value))
    }
}

pub(crate) fn unique_slug(channel: &ChannelDocument) -> Unique {
    Unique { kind: "channel".into(), name: channel.slug.to_string(), owner: channel.id }
}

/// Something that is to be removed is needed.
pub(crate) fn in_use(why: &str) -> SchedulerError {
    SchedulerError::Conflict { code: "in_use", text: format!("this is in use: {why}") }
}

pub(crate) fn not_an_object() -> SchedulerError {
    InvalidField::new("body", "must be a JSON object").into()
}
