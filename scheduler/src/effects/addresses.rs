//! The address book: made, changed and removed. What an address may hold is decided in `core::address`.

use cardshop_protocol::api::Page;
use cardshop_protocol::ids::{Channel, ObjectId};
use serde_json::Value;

use super::catalogue::not_an_object;
use super::configurations::must_be_version;
use super::idempotency::Once;
use super::paging::PageRequest;
use crate::core::address::{Address, AddressView};
use crate::core::documents::DEFAULT_CHANNEL;
use crate::core::fields::{Fields, InvalidField};
use crate::core::rights::{Action, Principal};
use crate::store::Stored;
use crate::{Scheduler, SchedulerError};

impl Scheduler {
    /// The address with this id, when it is the caller's to see.
    pub(crate) fn address_of(
        &self,
        caller: &Principal,
        id: ObjectId,
    ) -> Result<Stored<Address>, SchedulerError> {
        let own = self.organization_of(caller)?.map(|o| o.value.id);
        let found = self.inner.store.get::<Address>(&id.to_string())?;
        let sees = |a: &Address| caller.sees_of(own, Some(&a.channel), a.organization);
        found.filter(|a| sees(&a.value)).ok_or(SchedulerError::NotFound("address"))
    }

    /// Makes an address of the caller's organization from its fields and `{channel?}`.
    ///
    /// # Errors
    /// `NotAllowed`, `Invalid`.
    pub async fn create_address(
        &self,
        caller: &Principal,
        body: Value,
        once: Option<Once>,
    ) -> Result<AddressView, SchedulerError> {
        caller.must(Action::Order)?;
        if let Some(answer) = self.answered(once.as_ref()).await? {
            return Ok(answer);
        }
        let mut fields = Fields::new(body).ok_or_else(not_an_object)?;
        let own = self.organization_of(caller)?.map(|o| o.value);
        let channel = match (fields.optional::<Channel>("channel")?, &own, &caller.channels[..]) {
            (Some(channel), _, _) => channel,
            (None, Some(own), _) => own.channel.clone(),
            (None, None, [first, ..]) => first.clone(),
            (None, None, []) => DEFAULT_CHANNEL.parse().expect("a slug"),
        };
        if !caller.sees(&channel) || self.channel_by_slug(&channel)?.is_none() {
            return Err(InvalidField::new("channel", format!("{channel} is not one of yours")).into());
        }
        let own = own.map(|own| own.id);
        let mut address = Address::empty(self.next_id(), own, channel, &caller.sub, self.now());
        address.read(&mut fields)?;
        let mut batch = self.audited(caller, "address.create", &address.id.to_string());
        batch.create(&address);
        self.apply_once(batch, once, AddressView::new(address, 1), |_| None).await
    }

    /// Addresses of the caller's organization, newest first; of all for staff.
    ///
    /// # Errors
    /// `NotAllowed`, `Invalid` for a wrong cursor.
    pub fn addresses(
        &self,
        caller: &Principal,
        page: &PageRequest,
    ) -> Result<Page<AddressView>, SchedulerError> {
        caller.must(Action::Order)?;
        let own = self.organization_of(caller)?.map(|o| o.value.id);
        self.page::<Address, _>(page, None, true, |a| {
            let sees = caller.sees_of(own, Some(&a.value.channel), a.value.organization);
            sees.then(|| AddressView::new(a.value, a.version))
        })
    }

    /// One address.
    ///
    /// # Errors
    /// `NotAllowed`, `NotFound`.
    pub fn address(&self, caller: &Principal, id: ObjectId) -> Result<AddressView, SchedulerError> {
        caller.must(Action::Order)?;
        let found = self.address_of(caller, id)?;
        Ok(AddressView::new(found.value, found.version))
    }

    /// Changes the fields that are named, by `{version, …}`; one that is null or empty is emptied.
    ///
    /// # Errors
    /// `NotAllowed`, `NotFound`, `Invalid`, `Conflict` when another version is there.
    pub async fn update_address(
        &self,
        caller: &Principal,
        id: ObjectId,
        body: Value,
    ) -> Result<AddressView, SchedulerError> {
        caller.must(Action::Order)?;
        let decide = || {
            let stored = self.address_of(caller, id)?;
            let mut fields = Fields::new(stored.value.with(body.clone())).ok_or_else(not_an_object)?;
            let version: u64 = fields.required("version")?;
            must_be_version("address", version, stored.version)?;
            let mut address = stored.value.clone();
            address.read(&mut fields)?;
            let mut batch = self.audited(caller, "address.update", &id.to_string());
            batch.update(&stored, &address);
            Ok((Some(batch), AddressView::new(address, version + 1)))
        };
        Ok(self.change(decide).await?.0)
    }

    /// Removes an address; orders keep their own copy of it.
    ///
    /// # Errors
    /// `NotAllowed`, `NotFound`.
    pub async fn delete_address(
        &self,
        caller: &Principal,
        id: ObjectId,
    ) -> Result<AddressView, SchedulerError> {
        caller.must(Action::Order)?;
        let decide = || {
            let stored = self.address_of(caller, id)?;
            let mut batch = self.audited(caller, "address.delete", &id.to_string());
            batch.remove::<Address>(&id.to_string());
            Ok((Some(batch), AddressView::new(stored.value, stored.version)))
        };
        Ok(self.change(decide).await?.0)
    }
}
