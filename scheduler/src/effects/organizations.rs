//! Organizations, and the units that their orders hold: moved in the batch that changes the order.

use cardshop_protocol::api::Page;
use cardshop_protocol::ids::{Channel, ObjectId};
use cardshop_protocol::token::Role;
use serde_json::Value;

use super::catalogue::not_an_object;
use super::idempotency::Once;
use super::paging::PageRequest;
use crate::core::documents::DEFAULT_CHANNEL;
use crate::core::fields::{Fields, InvalidField};
use crate::core::order::{Note, Order};
use crate::core::rights::{Action, Principal};
use crate::core::units::{MAX_UNITS, Moved, Organization, cost, may_order, settle};
use crate::store::{Batch, Select, Stored};
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
        let name = fields.text("name", MAX_NAME)?.ok_or_else(|| InvalidField::new("name", "is missing"))?;
        let channel: Channel =
            fields.optional("channel")?.unwrap_or_else(|| DEFAULT_CHANNEL.parse().expect("a slug"));
        self.channel_by_slug(&channel)?
            .ok_or_else(|| InvalidField::new("channel", format!("there is no channel {channel}")))?;
        let language = fields.text("language", 2)?.unwrap_or_else(|| "en".into());
        if !["en", "fr"].contains(&language.as_str()) {
            return Err(InvalidField::new("language", "must be en or fr").into());
        }
        let units = fields.optional("units")?.unwrap_or(0);
        if units > MAX_UNITS {
            return Err(InvalidField::new("units", format!("must be at most {MAX_UNITS}")).into());
        }
        let warehouses = self.read_warehouses("warehouses", &mut fields)?.unwrap_or_default();
        let organization = Organization {
            id: self.next_id(),
            name,
            channel,
            warehouses: warehouses.iter().map(|w| w.id).collect(),
            language,
            units,
            several_orders: fields.optional("several_orders")?.unwrap_or(false),
            created: self.now(),
        };
        let mut batch = self.audited(caller, "organization.create", &organization.id.to_string());
        batch.create(&organization);
        self.apply_once(batch, once, organization, |_| None).await
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
    ) -> Result<Organization, SchedulerError> {
        caller.must(Action::Administer)?;
        let mut fields = Fields::new(body).ok_or_else(not_an_object)?;
        let add: i64 = fields.required("add")?;
        let reason = fields.text("reason", MAX_REASON)?.map(|r| format!(": {r}")).unwrap_or_default();
        let decide = || {
            let stored = self.inner.store.get::<Organization>(&id.to_string())?;
            let stored = stored.ok_or(SchedulerError::NotFound("organization"))?;
            let units = stored.value.units.checked_add_signed(add).filter(|units| *units <= MAX_UNITS);
            let units = units.ok_or_else(|| {
                InvalidField::new("add", format!("would leave less than 0 or more than {MAX_UNITS}"))
            })?;
            let organization = Organization { units, ..stored.value.clone() };
            let mut batch =
                self.audited(caller, &format!("organization.units {add}{reason}"), &id.to_string());
            batch.update(&stored, &organization);
            Ok((Some(batch), organization))
        };
        Ok(self.change(decide).await?.0)
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
