//! Channels, media, warehouses and configurations.

use cardshop_protocol::api::Page;
use cardshop_protocol::ids::{Channel, ObjectId};
use serde_json::Value;

use super::idempotency::Once;
use super::paging::PageRequest;
use crate::core::documents::{
    Audit, ChannelDocument, Configuration, Media, Story, Unique, WarehouseDocument,
};
use crate::core::fields::{Fields, InvalidField};
use crate::core::rights::{Action, Principal};
use crate::{Scheduler, SchedulerError};

/// Largest recipe, bytes of JSON.
const MAX_RECIPE: usize = 256 * 1024;
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

    /// The media catalogue.
    ///
    /// # Errors
    /// `NotAllowed`, `Invalid` for a wrong cursor.
    pub fn media(&self, caller: &Principal, page: &PageRequest) -> Result<Page<Media>, SchedulerError> {
        caller.must(Action::Watch)?;
        self.page::<Media, _>(page, None, false, |m| Some(m.value))
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

    /// Makes a configuration from `{name, recipe, channel?}`. Staff may leave the channel out: then it is
    /// everybody's.
    ///
    /// # Errors
    /// `NotAllowed`, `Invalid`.
    pub async fn create_configuration(
        &self,
        caller: &Principal,
        body: Value,
        once: Option<Once>,
    ) -> Result<Configuration, SchedulerError> {
        caller.must(Action::Order)?;
        if let Some(answer) = self.answered(once.as_ref()).await? {
            return Ok(answer);
        }
        let mut fields = Fields::new(body).ok_or_else(not_an_object)?;
        let name = fields.text("name", MAX_NAME)?.ok_or_else(|| InvalidField::new("name", "is missing"))?;
        let recipe: Value = fields.required("recipe")?;
        if !recipe.is_object() {
            return Err(InvalidField::new("recipe", "must be an object").into());
        }
        if recipe.to_string().len() > MAX_RECIPE {
            return Err(InvalidField::new("recipe", format!("has more than {MAX_RECIPE} bytes")).into());
        }
        let channel = match (fields.optional::<Channel>("channel")?, &caller.channels[..]) {
            (Some(channel), _) if !caller.sees(&channel) => {
                return Err(InvalidField::new("channel", "is not one of yours").into());
            }
            (Some(channel), _) => Some(channel),
            (None, [only]) => Some(only.clone()),
            (None, _) if caller.role == cardshop_protocol::token::Role::Staff => None,
            (None, _) => return Err(InvalidField::new("channel", "is missing: you have several").into()),
        };
        let configuration = Configuration {
            id: self.next_id(),
            name,
            channel,
            recipe,
            created_by: caller.sub.clone(),
            created: self.now(),
        };
        let mut batch = self.audited(caller, "configuration.create", &configuration.id.to_string());
        batch.create(&configuration);
        self.apply_once(batch, once, configuration, |_| None).await
    }

    /// Configurations of the caller's channels and of everybody, newest first.
    ///
    /// # Errors
    /// `NotAllowed`, `Invalid` for a wrong cursor.
    pub fn configurations(
        &self,
        caller: &Principal,
        page: &PageRequest,
    ) -> Result<Page<Configuration>, SchedulerError> {
        caller.must(Action::Look)?;
        self.page::<Configuration, _>(page, None, true, |c| {
            sees_configuration(caller, &c.value).then_some(c.value)
        })
    }

    /// One configuration.
    ///
    /// # Errors
    /// `NotAllowed`, `NotFound`.
    pub fn configuration(&self, caller: &Principal, id: ObjectId) -> Result<Configuration, SchedulerError> {
        caller.must(Action::Look)?;
        let found = self.inner.store.get::<Configuration>(&id.to_string())?.map(|c| c.value);
        found.filter(|c| sees_configuration(caller, c)).ok_or(SchedulerError::NotFound("configuration"))
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
    pub fn audit(&self, caller: &Principal, page: &PageRequest) -> Result<Page<Audit>, SchedulerError> {
        caller.must(Action::Administer)?;
        self.page::<Audit, _>(page, None, true, |a| Some(a.value))
    }
}

pub(crate) fn unique_slug(channel: &ChannelDocument) -> Unique {
    Unique { kind: "channel".into(), name: channel.slug.to_string(), owner: channel.id }
}

pub(crate) fn sees_configuration(caller: &Principal, configuration: &Configuration) -> bool {
    configuration.channel.as_ref().is_none_or(|c| caller.sees(c))
}

pub(crate) fn not_an_object() -> SchedulerError {
    InvalidField::new("body", "must be a JSON object").into()
}
