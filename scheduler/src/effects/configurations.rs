//! Configurations: made, changed, copied, removed, taken along as files, and told the size of. What may be in one and
//! what of it is secret is decided in `core::configurations`.

use cardshop_protocol::api::Page;
use cardshop_protocol::ids::{Channel, ObjectId};
use cardshop_protocol::token::Role;
use serde_json::Value;

use super::catalogue::{MAX_NAME, not_an_object};
use super::idempotency::Once;
use super::paging::PageRequest;
use crate::core::auto_image::AutoImage;
use crate::core::configurations::{
    ConfigurationView, EXPORT_SCHEMA, ExportedConfiguration, SizeView, checked, in_a_list, size, without,
    without_secrets,
};
use crate::core::documents::{Configuration, Media};
use crate::core::fields::{Fields, InvalidField};
use crate::core::order::Order;
use crate::core::rights::{Action, Principal};
use crate::store::Stored;
use crate::{Scheduler, SchedulerError};

/// Names of what needs something that are told when that is to be removed.
pub(crate) const MAX_NAMED: usize = 5;

/// What a new one is made of, by a form or a file.
struct NewConfiguration {
    name: String,
    recipe: Value,
    channel: Option<Channel>,
}

impl Scheduler {
    /// The configuration with this id, when it is the caller's to see.
    pub(crate) fn configuration_of(
        &self,
        caller: &Principal,
        id: ObjectId,
    ) -> Result<Stored<Configuration>, SchedulerError> {
        let own = self.organization_of(caller)?.map(|o| o.value.id);
        let found = self.inner.store.get::<Configuration>(&id.to_string())?;
        let sees = |c: &Configuration| caller.sees_of(own, c.channel.as_ref(), c.organization);
        found.filter(|c| sees(&c.value)).ok_or(SchedulerError::NotFound("configuration"))
    }

    /// As [`Scheduler::configuration_of`], and the caller's to change: what is everybody's is staff's.
    fn own_configuration(
        &self,
        caller: &Principal,
        id: ObjectId,
    ) -> Result<Stored<Configuration>, SchedulerError> {
        caller.must(Action::Order)?;
        let found = self.configuration_of(caller, id)?;
        if found.value.channel.is_none() && caller.role != Role::Staff {
            let text = "this configuration is everybody's: duplicate it, and change your own";
            return Err(SchedulerError::NotAllowed(text.into()));
        }
        Ok(found)
    }

    /// Makes a configuration from `{name, recipe, channel?}`. Staff may leave the channel out: then it is everybody's.
    ///
    /// # Errors
    /// `NotAllowed`, `Invalid`.
    pub async fn create_configuration(
        &self,
        caller: &Principal,
        body: Value,
        once: Option<Once>,
    ) -> Result<ConfigurationView, SchedulerError> {
        caller.must(Action::Order)?;
        if let Some(answer) = self.answered(once.as_ref()).await? {
            return Ok(answer);
        }
        let mut fields = Fields::new(body).ok_or_else(not_an_object)?;
        let new = self.read_new(caller, &mut fields).await?;
        self.keep_new(caller, "configuration.create", new, once).await
    }

    /// The channel of something new: the one that is named, or the caller's only one; everybody's for staff.
    fn channel_of_new(
        &self,
        caller: &Principal,
        fields: &mut Fields,
    ) -> Result<Option<Channel>, SchedulerError> {
        match (fields.optional::<Channel>("channel")?, &caller.channels[..]) {
            (Some(channel), _) if !caller.sees(&channel) => {
                Err(InvalidField::new("channel", "is not one of yours").into())
            }
            (Some(channel), _) => Ok(Some(channel)),
            (None, [only]) => Ok(Some(only.clone())),
            (None, _) if caller.role == Role::Staff => Ok(None),
            (None, _) => Err(InvalidField::new("channel", "is missing: you have several").into()),
        }
    }

    async fn read_new(
        &self,
        caller: &Principal,
        fields: &mut Fields,
    ) -> Result<NewConfiguration, SchedulerError> {
        let missing = |field| move || InvalidField::new(field, "is missing");
        Ok(NewConfiguration {
            name: read_name(fields)?.ok_or_else(missing("name"))?,
            recipe: read_recipe(fields).await?.ok_or_else(missing("recipe"))?,
            channel: self.channel_of_new(caller, fields)?,
        })
    }

    async fn keep_new(
        &self,
        caller: &Principal,
        action: &str,
        new: NewConfiguration,
        once: Option<Once>,
    ) -> Result<ConfigurationView, SchedulerError> {
        let configuration = Configuration {
            id: self.next_id(),
            name: new.name,
            channel: new.channel,
            organization: self.organization_of(caller)?.map(|o| o.value.id),
            recipe: new.recipe,
            created_by: caller.sub.clone(),
            created: self.now(),
            changed: None,
        };
        let mut batch = self.audited(caller, action, &configuration.id.to_string());
        batch.create(&configuration);
        self.apply_once(batch, once, shown(caller, configuration, 1), |_| None).await
    }

    /// Configurations of the caller's channels and of everybody, newest first, without secrets and pictures.
    ///
    /// # Errors
    /// `NotAllowed`, `Invalid` for a wrong cursor.
    pub fn configurations(
        &self,
        caller: &Principal,
        page: &PageRequest,
    ) -> Result<Page<ConfigurationView>, SchedulerError> {
        caller.must(Action::Look)?;
        let own = self.organization_of(caller)?.map(|o| o.value.id);
        self.page::<Configuration, _>(page, None, true, |c| {
            let sees = caller.sees_of(own, c.value.channel.as_ref(), c.value.organization);
            sees.then(|| in_a_list(c.value, c.version))
        })
    }

    /// One configuration; its secrets only for staff and for managers whose it is.
    ///
    /// # Errors
    /// `NotAllowed`, `NotFound`.
    pub fn configuration(
        &self,
        caller: &Principal,
        id: ObjectId,
    ) -> Result<ConfigurationView, SchedulerError> {
        caller.must(Action::Look)?;
        let found = self.configuration_of(caller, id)?;
        Ok(shown(caller, found.value, found.version))
    }

    /// Changes `{version, name?, recipe?}`.
    ///
    /// # Errors
    /// `NotAllowed`, `NotFound`, `Invalid`, `Conflict` when another version is there.
    pub async fn update_configuration(
        &self,
        caller: &Principal,
        id: ObjectId,
        body: Value,
    ) -> Result<ConfigurationView, SchedulerError> {
        self.own_configuration(caller, id)?;
        let mut fields = Fields::new(body).ok_or_else(not_an_object)?;
        let version: u64 = fields.required("version")?;
        let name = read_name(&mut fields)?;
        let recipe = read_recipe(&mut fields).await?;
        let decide = || {
            let stored = self.own_configuration(caller, id)?;
            must_be_version("configuration", version, stored.version)?;
            let mut configuration = stored.value.clone();
            configuration.name = name.clone().unwrap_or(configuration.name);
            configuration.recipe = recipe.clone().unwrap_or(configuration.recipe);
            configuration.changed = Some(self.now());
            let mut batch = self.audited(caller, "configuration.update", &id.to_string());
            batch.update(&stored, &configuration);
            Ok((Some(batch), configuration))
        };
        let (configuration, _) = self.change(decide).await?;
        Ok(shown(caller, configuration, version + 1))
    }

    /// Another one with the same content, by `{name?}`; it is the caller's own.
    ///
    /// # Errors
    /// `NotAllowed`, `NotFound`, `Invalid`.
    pub async fn duplicate_configuration(
        &self,
        caller: &Principal,
        id: ObjectId,
        body: Value,
        once: Option<Once>,
    ) -> Result<ConfigurationView, SchedulerError> {
        caller.must(Action::Order)?;
        if let Some(answer) = self.answered(once.as_ref()).await? {
            return Ok(answer);
        }
        let found = self.configuration_of(caller, id)?.value;
        let mut fields = Fields::new(body).ok_or_else(not_an_object)?;
        let copy = || format!("{} (2)", found.name.chars().take(MAX_NAME - 4).collect::<String>());
        let name = read_name(&mut fields)?.unwrap_or_else(copy);
        // A copy shows its secrets to whoever made it.
        let recipe = match sees_secrets(caller, &found) {
            true => found.recipe,
            false => without_secrets(&found.recipe).0,
        };
        let channel = match found.channel {
            Some(channel) => Some(channel),
            None => self.channel_of_new(caller, &mut fields)?,
        };
        self.keep_new(caller, "configuration.duplicate", NewConfiguration { name, recipe, channel }, once)
            .await
    }

    /// Removes a configuration that nothing needs; answers with what it was.
    ///
    /// # Errors
    /// `NotAllowed`, `NotFound`, `Conflict` that names what needs it.
    pub async fn delete_configuration(
        &self,
        caller: &Principal,
        id: ObjectId,
    ) -> Result<ConfigurationView, SchedulerError> {
        let decide = || {
            let stored = self.own_configuration(caller, id)?;
            self.configuration_must_be_free(id)?;
            let mut batch = self.audited(caller, "configuration.delete", &id.to_string());
            batch.remove::<Configuration>(&id.to_string());
            Ok((Some(batch), stored))
        };
        let (stored, _) = self.change(decide).await?;
        Ok(without(stored.value, stored.version))
    }

    fn configuration_must_be_free(&self, id: ObjectId) -> Result<(), SchedulerError> {
        let autos = self.all::<AutoImage>(None)?;
        let autos =
            autos.into_iter().filter(|a| a.configuration == id).map(|a| format!("auto-image {}", a.name));
        let orders = self.all::<Order>(Some(("shelf", "open")))?;
        let orders = orders
            .into_iter()
            .filter(|o| o.configuration == id)
            .map(|o| format!("order {} ({})", o.name, o.id));
        must_be_free("configuration", autos.chain(orders).collect())
    }

    /// A configuration as a file; with its secrets only when they are asked for by somebody who may see them.
    ///
    /// # Errors
    /// `NotAllowed`, `NotFound`.
    pub fn export_configuration(
        &self,
        caller: &Principal,
        id: ObjectId,
        secrets: bool,
    ) -> Result<ExportedConfiguration, SchedulerError> {
        caller.must(Action::Order)?;
        let found = self.configuration_of(caller, id)?.value;
        if secrets && !sees_secrets(caller, &found) {
            let text = "its passwords are for staff and for managers whose configuration it is";
            return Err(SchedulerError::NotAllowed(text.into()));
        }
        let (recipe, secrets_left_out) = match secrets {
            true => (found.recipe, Vec::new()),
            false => without_secrets(&found.recipe),
        };
        let exported = Some(self.now());
        Ok(ExportedConfiguration {
            schema: EXPORT_SCHEMA,
            name: found.name,
            recipe,
            secrets_left_out,
            exported,
        })
    }

    /// Makes a configuration from such a file, in `{…, channel?}`.
    ///
    /// # Errors
    /// `NotAllowed`, `Invalid` that names the key.
    pub async fn import_configuration(
        &self,
        caller: &Principal,
        body: Value,
        once: Option<Once>,
    ) -> Result<ConfigurationView, SchedulerError> {
        caller.must(Action::Order)?;
        if let Some(answer) = self.answered(once.as_ref()).await? {
            return Ok(answer);
        }
        let mut fields = Fields::new(body).ok_or_else(not_an_object)?;
        let schema: u32 = fields.required("schema")?;
        if schema != EXPORT_SCHEMA {
            let reason = format!("is {schema}, and this server reads {EXPORT_SCHEMA}: export it again there");
            return Err(InvalidField::new("schema", reason).into());
        }
        let new = self.read_new(caller, &mut fields).await?;
        let _: Option<Vec<String>> = fields.optional("secrets_left_out")?;
        let _: Option<String> = fields.optional("exported")?;
        if let Some(key) = fields.unread() {
            let reason = format!("has a key {key:?} that this server does not know");
            return Err(InvalidField::new("body", reason).into());
        }
        self.keep_new(caller, "configuration.import", new, once).await
    }

    /// How large its image becomes, the smallest card that takes it, and what of its content is gone.
    ///
    /// # Errors
    /// `NotAllowed`, `NotFound`.
    pub fn configuration_size(&self, caller: &Principal, id: ObjectId) -> Result<SizeView, SchedulerError> {
        caller.must(Action::Look)?;
        let found = self.configuration_of(caller, id)?.value;
        self.recipe_size(caller, &found.recipe)
    }

    /// The same of a recipe that is not kept yet.
    ///
    /// # Errors
    /// `NotAllowed`.
    pub fn recipe_size(&self, caller: &Principal, recipe: &Value) -> Result<SizeView, SchedulerError> {
        caller.must(Action::Look)?;
        // What is in another catalogue than ours is not known here.
        let named = recipe["configuration"]["catalogue"].as_str();
        let kept = self.inner.content.kept().filter(|kept| named.is_none_or(|url| url == kept.url));
        let read = kept.as_ref().map(|kept| (&kept.catalogue, kept.read));
        Ok(size(recipe, read, &self.all::<Media>(None)?))
    }
}

fn read_name(fields: &mut Fields) -> Result<Option<String>, SchedulerError> {
    match fields.text("name", MAX_NAME)? {
        Some(name) if name.contains('\n') => Err(InvalidField::new("name", "must be one line").into()),
        name => Ok(name),
    }
}

/// The recipe, checked; pictures take a moment, so that it is done beside the requests.
async fn read_recipe(fields: &mut Fields) -> Result<Option<Value>, SchedulerError> {
    let Some(recipe) = fields.optional::<Value>("recipe")? else { return Ok(None) };
    let checked = tokio::task::spawn_blocking(move || checked(recipe)).await;
    Ok(Some(checked.map_err(|_| SchedulerError::Busy)??))
}

/// Whether the caller may know the passwords of a configuration that it may see.
fn sees_secrets(caller: &Principal, configuration: &Configuration) -> bool {
    let whole = caller.rights.is_none();
    whole && (caller.role == Role::Staff || (caller.role == Role::Manager && configuration.channel.is_some()))
}

fn shown(caller: &Principal, configuration: Configuration, version: u64) -> ConfigurationView {
    if !sees_secrets(caller, &configuration) {
        return without(configuration, version);
    }
    ConfigurationView { configuration, version, secrets_left_out: Vec::new() }
}

/// Refuses a change that was made from another version than the one that is there.
pub(crate) fn must_be_version(what: &str, expected: u64, there: u64) -> Result<(), SchedulerError> {
    if expected == there {
        return Ok(());
    }
    let text = format!(
        "this {what} was changed by somebody else: version {there} is there, yours is {expected}. Read it again"
    );
    Err(SchedulerError::Conflict { code: "changed", text })
}

/// Refuses to remove what is needed, and says by what.
pub(crate) fn must_be_free(what: &str, mut needed_by: Vec<String>) -> Result<(), SchedulerError> {
    if needed_by.is_empty() {
        return Ok(());
    }
    let more = needed_by.len().saturating_sub(MAX_NAMED);
    needed_by.truncate(MAX_NAMED);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    let text = format!("this {what} is needed by {}{more}", needed_by.join(", "));
    Err(SchedulerError::Conflict { code: "in_use", text })
}
