//! Organizations, and the units that their orders hold: moved in the batch that changes the order.

use cardshop_protocol::api::Page;
use cardshop_protocol::ids::{Channel, ObjectId};
use cardshop_protocol::token::Role;
use serde_json::Value;

use super::MAX_TRIES;
use super::catalogue::{in_use, not_an_object};
use super::idempotency::Once;
use super::paging::PageRequest;
use crate::core::account_hook::AccountHook;
use crate::core::documents::{DEFAULT_CHANNEL, User};
use crate::core::fields::{Fields, InvalidField};
use crate::core::order::{Note, Order};
use crate::core::rights::{Action, Principal};
use crate::core::units::{MAX_UNITS, Moved, Organization, cost, may_order, settle};
use crate::store::{Batch, Select, StoreError, Stored};
use crate::{Scheduler, SchedulerError};

/// Longest name, characters.
const MAX_NAME: usize = 120;
/// Longest reason for a change of units, characters.
const MAX_REASON: usize = 200;

impl Scheduler {
    /// Makes an organization from `{name, channel?, warehouses?, language?, units?, several_orders?}`.
    ///
    /// # Errors
    /// `NotAllowed`, `Invalid`.
    pub async fn create_organization(
        &self,
        caller: &Principal,
        body: Value,
        once: Option<Once>,
    ) -> Result<Organization, SchedulerError> {
        caller.must(Action::Administer)?;
        if let Some(answer) = self.answered(once.as_ref()).await? {
            return Ok(answer);
        }
        let mut fields = Fields::new(body).ok_or_else(not_an_object)?;
        let mut organization = Organization {
            id: self.next_id(),
            name: String::new(),
            channel: DEFAULT_CHANNEL.parse().expect("a slug"),
            warehouses: Vec::new(),
            language: "en".into(),
            units: fields.optional("units")?.unwrap_or(0),
            several_orders: false,
            created: self.now(),
        };
        if organization.units > MAX_UNITS {
            return Err(InvalidField::new("units", format!("must be at most {MAX_UNITS}")).into());
        }
        self.read_organization(&mut organization, &mut fields)?;
        let mut batch = self.audited(caller, "organization.create", &organization.id.to_string());
        batch.create(&organization);
        self.apply_once(batch, once, organization, |_| None).await
    }

    /// What may be changed later too.
    fn read_organization(
        &self,
        organization: &mut Organization,
        fields: &mut Fields,
    ) -> Result<(), SchedulerError> {
        if let Some(name) = fields.text("name", MAX_NAME)? {
            organization.name = name;
        }
        if organization.name.is_empty() {
            return Err(InvalidField::new("name", "is missing").into());
        }
        if let Some(channel) = fields.optional::<Channel>("channel")? {
            organization.channel = channel;
        }
        let channel = &organization.channel;
        self.channel_by_slug(channel)?
            .ok_or_else(|| InvalidField::new("channel", format!("there is no channel {channel}")))?;
        if let Some(language) = fields.text("language", 2)? {
            organization.language = language;
        }
        if !["en", "fr"].contains(&organization.language.as_str()) {
            return Err(InvalidField::new("language", "must be en or fr").into());
        }
        if let Some(warehouses) = self.read_warehouses("warehouses", fields)? {
            organization.warehouses = warehouses.iter().map(|w| w.id).collect();
        }
        if let Some(several) = fields.optional("several_orders")? {
            organization.several_orders = several;
        }
        Ok(())
    }

    fn stored_organization(&self, id: ObjectId) -> Result<Stored<Organization>, SchedulerError> {
        let found = self.inner.store.get::<Organization>(&id.to_string())?;
        found.ok_or(SchedulerError::NotFound("organization"))
    }

    /// One organization.
    ///
    /// # Errors
    /// `NotAllowed`, `NotFound`.
    pub fn organization(&self, caller: &Principal, id: ObjectId) -> Result<Organization, SchedulerError> {
        caller.must(Action::Administer)?;
        Ok(self.stored_organization(id)?.value)
    }

    /// Changes `{name?, channel?, warehouses?, language?, several_orders?}`. Its people keep the channels they have.
    ///
    /// # Errors
    /// `NotAllowed`, `NotFound`, `Invalid`.
    pub async fn update_organization(
        &self,
        caller: &Principal,
        id: ObjectId,
        body: Value,
    ) -> Result<Organization, SchedulerError> {
        caller.must(Action::Administer)?;
        let decide = || {
            let stored = self.stored_organization(id)?;
            let mut organization = stored.value.clone();
            let mut fields = Fields::new(body.clone()).ok_or_else(not_an_object)?;
            self.read_organization(&mut organization, &mut fields)?;
            let mut batch = self.audited(caller, "organization.update", &id.to_string());
            batch.update(&stored, &organization);
            Ok((Some(batch), organization))
        };
        Ok(self.change(decide).await?.0)
    }

    /// Removes an organization that nobody belongs to any more. Its units go with it; orders of it that have ended stay.
    ///
    /// # Errors
    /// `NotAllowed`, `NotFound`, `Conflict` while something belongs to it.
    pub async fn delete_organization(
        &self,
        caller: &Principal,
        id: ObjectId,
    ) -> Result<Organization, SchedulerError> {
        caller.must(Action::Administer)?;
        let decide = || {
            let stored = self.stored_organization(id)?;
            let users = self.all::<User>(None)?;
            let users = users.iter().filter(|u| u.organization == Some(id) && !u.anonymised).count();
            let hooks = self.all::<AccountHook>(None)?;
            let hooks = hooks.iter().filter(|h| h.organization == Some(id) && h.revoked.is_none()).count();
            let orders = self.all::<Order>(Some(("open-of", &id.to_string())))?.len();
            if users + hooks + orders > 0 {
                let why =
                    format!("{users} users, {orders} open orders and {hooks} account hooks belong to it");
                return Err(in_use(&why));
            }
            let mut batch = self.audited(caller, "organization.delete", &id.to_string());
            // Held to the version whose units were looked at.
            batch.update(&stored, &stored.value).remove::<Organization>(&id.to_string());
            Ok((Some(batch), stored.value))
        };
        Ok(self.change(decide).await?.0)
    }

    /// All organizations for staff, the own one for others.
    ///
    /// # Errors
    /// `NotAllowed`, `Invalid` for a wrong cursor.
    pub fn organizations(
        &self,
        caller: &Principal,
        page: &PageRequest,
    ) -> Result<Page<Organization>, SchedulerError> {
        caller.must(Action::Watch)?;
        let own = self.organization_of(caller)?.map(|o| o.value.id);
        self.page::<Organization, _>(page, None, false, |o| {
            (caller.role == Role::Staff || own == Some(o.value.id)).then_some(o.value)
        })
    }

    /// Adds `add` units, or takes them away when it is negative, never below none.
    ///
    /// # Errors
    /// `NotAllowed`, `NotFound`, `Invalid`.
    pub async fn add_units(
        &self,
        caller: &Principal,
        id: ObjectId,
        body: Value,
        once: Option<Once>,
    ) -> Result<Organization, SchedulerError> {
        caller.must(Action::Administer)?;
        let mut fields = Fields::new(body).ok_or_else(not_an_object)?;
        let add: i64 = fields.required("add")?;
        let reason = fields.text("reason", MAX_REASON)?.map(|r| format!(": {r}")).unwrap_or_default();
        for _ in 0..MAX_TRIES {
            if let Some(answer) = self.answered(once.as_ref()).await? {
                return Ok(answer);
            }
            let stored = self.stored_organization(id)?;
            let units = stored.value.units.checked_add_signed(add).filter(|units| *units <= MAX_UNITS);
            let units = units.ok_or_else(|| {
                InvalidField::new("add", format!("would leave less than 0 or more than {MAX_UNITS}"))
            })?;
            let organization = Organization { units, ..stored.value.clone() };
            let mut batch =
                self.audited(caller, &format!("organization.units {add}{reason}"), &id.to_string());
            batch.update(&stored, &organization);
            match self.apply_once(batch, once.clone(), organization, |_| None).await {
                // An order took or gave back units meanwhile.
                Err(SchedulerError::Store(StoreError::Conflict { .. })) => {}
                other => return other,
            }
        }
        Err(SchedulerError::Busy)
    }

    /// The organization the caller orders for.
    pub(crate) fn organization_of(
        &self,
        caller: &Principal,
    ) -> Result<Option<Stored<Organization>>, SchedulerError> {
        let id = self.user_by_name(&caller.sub)?.and_then(|user| user.value.organization);
        Ok(match id {
            Some(id) => self.inner.store.get::<Organization>(&id.to_string())?,
            None => None,
        })
    }

    /// A new order is its organization's, and holds its units.
    pub(crate) fn charge_new_order(
        &self,
        caller: &Principal,
        order: &mut Order,
        notes: &mut Vec<Note>,
        batch: &mut Batch,
    ) -> Result<(), SchedulerError> {
        let Some(stored) = self.organization_of(caller)? else { return Ok(()) };
        let id = stored.value.id.to_string();
        let select = Select { index: Some(("open-of", &id)), limit: 1, ..Select::default() };
        let open = self.inner.store.list::<Order>(select)?.len();
        if caller.role != Role::Staff {
            may_order(&stored.value, open)?;
        }
        order.organization = Some(stored.value.id);
        order.units = cost(order.quantity);
        self.settle_units(order, Some(stored), notes, batch)
    }

    /// Moves units so that the order holds what it is to hold.
    pub(crate) fn settle_units(
        &self,
        order: &mut Order,
        read: Option<Stored<Organization>>,
        notes: &mut Vec<Note>,
        batch: &mut Batch,
    ) -> Result<(), SchedulerError> {
        let Some(id) = order.organization else { return Ok(()) };
        let stored = match read {
            Some(stored) => Some(stored),
            None => self.inner.store.get::<Organization>(&id.to_string())?,
        };
        let Some(stored) = stored else { return Ok(()) };
        let mut organization = stored.value.clone();
        let moved = settle(order, &mut organization, self.now())?;
        let (kind, text) = match moved {
            Some(Moved::Charged(units)) => {
                ("units_charged", format!("{units} units were charged to {}.", organization.name))
            }
            Some(Moved::GivenBack(units)) => {
                ("units_given_back", format!("{units} units were given back to {}.", organization.name))
            }
            None => return Ok(()),
        };
        notes.push(Note { kind, text, appliance: None });
        batch.update(&stored, &organization);
        Ok(())
    }
}
