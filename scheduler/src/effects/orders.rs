//! Orders: placing, listing, cancel, retry, ship, explain. What an order becomes is decided in `core::order`.

use std::collections::BTreeMap;

use cardshop_protocol::api::Page;
use cardshop_protocol::ids::{ApplianceId, Channel, ObjectId, OrderId};
use cardshop_protocol::message::Presence;
use serde_json::Value;

use super::MAX_TRIES;
use super::catalogue::{MAX_NAME, not_an_object};
use super::idempotency::Once;
use super::paging::PageRequest;
use crate::core::documents::{
    Appliance, Configuration, DEFAULT_CHANNEL, Media, OrderRecipe, Story, WarehouseDocument,
};
use crate::core::explain::{Explanation, Holder, explain};
use crate::core::fields::{Fields, InvalidField};
use crate::core::order::{
    Answer, Creation, Input, MAX_QUANTITY, Note, Order, OrderKind, OrderStatus, OrderedMedia,
};
use crate::core::rights::{Action, Principal};
use crate::core::views::OrderView;
use crate::store::{Batch, Select, StoreError};
use crate::{Scheduler, SchedulerError};

/// Largest recipient, bytes of JSON.
const MAX_RECIPIENT: usize = 4096;
/// Most warehouses an image goes to beside its first.
const MAX_MIRRORS: usize = 4;
/// Lines of an order's story that are told, the newest.
const MAX_STORY: usize = 500;

impl Scheduler {
    /// The order, when it is the caller's to see.
    pub(crate) fn order_of(&self, caller: &Principal, id: OrderId) -> Result<Order, SchedulerError> {
        let found = self.inner.store.get::<Order>(&id.to_string())?.map(|o| o.value);
        found.filter(|o| caller.sees(&o.channel)).ok_or(SchedulerError::NotFound("order"))
    }

    /// Lets something happen to an order: reads, decides, stores with its story, tells everybody. `extend` adds
    /// to the batch what belongs to the same change.
    pub(crate) async fn step_order(
        &self,
        id: OrderId,
        input: Input,
        mut extend: impl FnMut(&Order, Answer, &mut Batch),
    ) -> Result<(Order, Answer), SchedulerError> {
        let decide = || {
            let now = self.now();
            let stored = self.inner.store.get::<Order>(&id.to_string())?;
            let stored = stored.ok_or(SchedulerError::NotFound("order"))?;
            let mut order = stored.value.clone();
            let mut notes = Vec::new();
            order.begin_telling(now);
            let answer = order.step(now, input.clone(), &mut notes)?;
            let mut batch = Batch::new();
            self.settle_units(&mut order, None, &mut notes, &mut batch)?;
            let due = order.take_due(now);
            self.add_messages(&order, due, &mut batch)?;
            let changed = order != stored.value;
            if changed {
                batch.update(&stored, &order);
            }
            self.add_story(&order, notes, &mut batch);
            extend(&order, answer, &mut batch);
            Ok((Some(batch), (order, answer, changed)))
        };
        let ((order, answer, changed), _) = self.change(decide).await?;
        if changed {
            self.announce_order(&order);
        }
        Ok((order, answer))
    }

    pub(crate) fn add_story(&self, order: &Order, notes: Vec<Note>, batch: &mut Batch) {
        for note in notes {
            batch.create(&Story {
                id: self.next_id(),
                at: self.now(),
                kind: note.kind.to_owned(),
                text: note.text,
                order: Some(order.id),
                appliance: note.appliance,
                channel: Some(order.channel.clone()),
            });
        }
    }

    /// Places an order from `{kind, configuration, media, quantity, recipient or address, channel, warehouse, mirrors,
    /// name}`; only the configuration must be there.
    ///
    /// # Errors
    /// `NotAllowed`, `Invalid` naming the field.
    pub async fn create_order(
        &self,
        caller: &Principal,
        body: Value,
        once: Option<Once>,
    ) -> Result<OrderView, SchedulerError> {
        caller.must(Action::Order)?;
        if let Some(answer) = self.answered(once.as_ref()).await? {
            return Ok(answer);
        }
        self.must_not_rest(caller)?;
        for _ in 0..MAX_TRIES {
            match self.place_order(caller, body.clone(), once.clone(), |_, _| {}).await {
                // Another order of the organization was placed meanwhile.
                Err(SchedulerError::Store(StoreError::Conflict { .. })) => continue,
                other => return other,
            }
        }
        Err(SchedulerError::Busy)
    }

    /// `extend` adds to the batch what belongs to the same change.
    pub(crate) async fn place_order(
        &self,
        caller: &Principal,
        body: Value,
        once: Option<Once>,
        extend: impl FnOnce(&Order, &mut Batch),
    ) -> Result<OrderView, SchedulerError> {
        let (mut order, recipe) = self.read_order(caller, body)?;
        self.must_take_cards(caller, order.kind)?;
        let mut notes = vec![Note {
            kind: "created",
            text: format!("{} ordered {} × {}.", caller.sub, order.quantity, order.name),
            appliance: None,
        }];
        let now = self.now();
        order.step(now, Input::Tick, &mut notes)?;
        let mut batch = self.audited(caller, "order.create", &order.id.to_string());
        self.charge_new_order(caller, &mut order, &mut notes, &mut batch)?;
        let due = order.take_due(now);
        self.add_messages(&order, due, &mut batch)?;
        batch.create(&order).create(&OrderRecipe { order: order.id, recipe });
        extend(&order, &mut batch);
        self.add_story(&order, notes, &mut batch);
        let view = OrderView::new(&order, now);
        let view = self.apply_once(batch, once, view, |_| None).await?;
        if view.id == order.id {
            self.inner.metrics.orders_created.add();
            self.announce_order(&order);
        }
        Ok(view)
    }

    /// # Errors
    /// `NotAllowed` for cards of an account that orders downloads only.
    fn must_take_cards(&self, caller: &Principal, kind: OrderKind) -> Result<(), SchedulerError> {
        let links_only = self.user_by_name(&caller.sub)?.is_some_and(|user| user.value.links_only);
        if kind == OrderKind::Physical && links_only {
            let text = "this account orders downloads and no cards: ask staff for the right";
            return Err(SchedulerError::NotAllowed(text.into()));
        }
        Ok(())
    }

    fn read_order(&self, caller: &Principal, body: Value) -> Result<(Order, Value), SchedulerError> {
        let mut fields = Fields::new(body).ok_or_else(not_an_object)?;
        let configuration = self.read_configuration(caller, &mut fields)?;
        let id = self.next_id();
        let quantity = fields.optional("quantity")?.unwrap_or(1);
        if !(1..=MAX_QUANTITY).contains(&quantity) {
            return Err(InvalidField::new("quantity", format!("must be from 1 to {MAX_QUANTITY}")).into());
        }
        let kind = fields.optional("kind")?.unwrap_or(OrderKind::Physical);
        let recipient = self.read_recipient(caller, kind, &mut fields)?;
        let own = self.organization_of(caller)?.map(|o| o.value.warehouses).unwrap_or_default();
        let warehouse = self.read_warehouse(&mut fields, &own)?;
        let name = fields.text("name", MAX_NAME)?;
        let order = Order {
            id,
            named: name.is_some(),
            name: name.unwrap_or_else(|| configuration.name.clone()),
            kind,
            channel: self.read_channel(caller, &mut fields)?,
            configuration: configuration.id,
            media: self.read_media(&mut fields)?,
            quantity,
            organization: None,
            units: 0,
            units_held: 0,
            recipient,
            mirrors: self.read_mirrors(&mut fields, &warehouse, &own)?,
            warehouse,
            priority: fields.optional("priority")?.unwrap_or(0),
            created: self.now(),
            created_by: caller.sub.clone(),
            creation: Creation::default(),
            image: None,
            hold: None,
            writes: Default::default(),
            spare: 0,
            shipments: Vec::new(),
            canceled: None,
            available_until: None,
            link: Default::default(),
            history: Vec::new(),
            told: Some(BTreeMap::new()),
        };
        Ok((order, configuration.recipe))
    }

    /// Who gets it: as it is said, or a copy of an address of the book.
    fn read_recipient(
        &self,
        caller: &Principal,
        kind: OrderKind,
        fields: &mut Fields,
    ) -> Result<Value, SchedulerError> {
        let recipient = fields.optional::<Value>("recipient")?.unwrap_or(Value::Null);
        if let Some(id) = fields.optional::<ObjectId>("address")? {
            if !recipient.is_null() {
                let reason = "is given beside a recipient: one of the two says who gets it";
                return Err(InvalidField::new("address", reason).into());
            }
            let address = self.address_of(caller, id);
            let address =
                address.map_err(|_| InvalidField::new("address", "there is no such address"))?.value;
            let missing = address.missing();
            if kind == OrderKind::Physical && !missing.is_empty() {
                let reason = format!("no parcel reaches it: it has no {}", missing.join(", "));
                return Err(InvalidField::new("address", reason).into());
            }
            return Ok(address.recipient());
        }
        if !matches!(recipient, Value::Null | Value::String(_) | Value::Object(_)) {
            return Err(InvalidField::new("recipient", "must be an object or a text").into());
        }
        if recipient.to_string().len() > MAX_RECIPIENT {
            return Err(InvalidField::new("recipient", format!("has more than {MAX_RECIPIENT} bytes")).into());
        }
        Ok(recipient)
    }

    fn read_configuration(
        &self,
        caller: &Principal,
        fields: &mut Fields,
    ) -> Result<Configuration, SchedulerError> {
        let id: ObjectId = fields.required("configuration")?;
        match self.configuration_of(caller, id) {
            Ok(found) => Ok(found.value),
            Err(SchedulerError::NotFound(_)) => {
                Err(InvalidField::new("configuration", "there is no such configuration").into())
            }
            Err(error) => Err(error),
        }
    }

    fn read_channel(&self, caller: &Principal, fields: &mut Fields) -> Result<Channel, SchedulerError> {
        let slug = match (fields.optional::<Channel>("channel")?, &caller.channels[..]) {
            (Some(slug), _) => slug,
            (None, [only]) => only.clone(),
            (None, _) => DEFAULT_CHANNEL.parse().expect("a slug"),
        };
        let channel = self.channel_by_slug(&slug)?.filter(|_| caller.sees(&slug));
        let channel =
            channel.ok_or_else(|| InvalidField::new("channel", format!("{slug} is not one of yours")))?;
        if !channel.active {
            return Err(InvalidField::new("channel", format!("{slug} takes no orders now")).into());
        }
        Ok(slug)
    }

    /// A medium by id, by name (`32 GB`) or by advertised bytes.
    fn read_media(&self, fields: &mut Fields) -> Result<Option<OrderedMedia>, SchedulerError> {
        let Some(wanted) = fields.optional::<Value>("media")? else { return Ok(None) };
        let fits = |m: &Media| match &wanted {
            Value::String(text) => {
                m.id.to_string() == *text
                    || m.name.replace(' ', "").eq_ignore_ascii_case(&text.replace(' ', ""))
            }
            Value::Number(bytes) => bytes.as_u64() == Some(m.advertised_bytes),
            _ => false,
        };
        let media = self.all::<Media>(None)?;
        let Some(found) = media.iter().find(|m| fits(m)) else {
            let names: Vec<_> = media.iter().map(|m| m.name.as_str()).collect();
            let reason = format!("is not in the catalogue: choose one of {}", names.join(", "));
            return Err(InvalidField::new("media", reason).into());
        };
        Ok(Some(OrderedMedia { id: found.id, name: found.name.clone(), usable_bytes: found.usable_bytes }))
    }

    /// A warehouse by id or address; when nobody says the first of the organization, or of the site.
    fn read_warehouse(&self, fields: &mut Fields, own: &[ObjectId]) -> Result<String, SchedulerError> {
        let wanted = fields.text("warehouse", 500)?;
        let all = self.all::<WarehouseDocument>(None)?;
        let found = match wanted {
            Some(text) => named(&all, &text),
            None => {
                let first = self.inner.config.warehouses.first();
                let own = own.first().and_then(|id| all.iter().find(|w| w.id == *id));
                own.or(all.iter().find(|w| Some(&w.url) == first)).or(all.first())
            }
        };
        let found = found.ok_or_else(|| InvalidField::new("warehouse", "there is no such warehouse"))?;
        Ok(found.url.clone())
    }

    /// Further warehouses, without the first and each once; those of the organization when nobody says.
    fn read_mirrors(
        &self,
        fields: &mut Fields,
        first: &str,
        own: &[ObjectId],
    ) -> Result<Vec<String>, SchedulerError> {
        let mut mirrors = match self.read_warehouses("mirrors", fields)? {
            Some(mirrors) => mirrors,
            None => {
                let mut all = self.all::<WarehouseDocument>(None)?;
                all.retain(|w| own.contains(&w.id));
                all
            }
        };
        mirrors.retain(|w| w.url != first);
        Ok(mirrors.into_iter().map(|w| w.url).collect())
    }

    /// Warehouses by id or address, each once.
    pub(crate) fn read_warehouses(
        &self,
        field: &'static str,
        fields: &mut Fields,
    ) -> Result<Option<Vec<WarehouseDocument>>, SchedulerError> {
        let Some(wanted) = fields.optional::<Vec<String>>(field)? else { return Ok(None) };
        if wanted.len() > MAX_MIRRORS {
            return Err(InvalidField::new(field, format!("are more than {MAX_MIRRORS}")).into());
        }
        let all = self.all::<WarehouseDocument>(None)?;
        let mut found: Vec<WarehouseDocument> = Vec::new();
        for text in &wanted {
            let reason = || format!("{text:?} is no warehouse");
            let warehouse = named(&all, text).ok_or_else(|| InvalidField::new(field, reason()))?;
            if found.iter().all(|w| w.id != warehouse.id) {
                found.push(warehouse.clone());
            }
        }
        Ok(Some(found))
    }

    /// Orders of the caller's channels, newest first; `status` narrows them.
    ///
    /// # Errors
    /// `NotAllowed`, `Invalid` for a wrong cursor.
    pub fn orders(
        &self,
        caller: &Principal,
        status: Option<OrderStatus>,
        page: &PageRequest,
    ) -> Result<Page<OrderView>, SchedulerError> {
        caller.must(Action::Watch)?;
        let now = self.now();
        let only = (caller.role != cardshop_protocol::token::Role::Staff && caller.channels.len() == 1)
            .then(|| caller.channels[0].to_string());
        // These are few, whatever the channel; of the others a channel's own are read.
        let shelf = match status {
            Some(OrderStatus::Canceled) => Some("canceled"),
            Some(OrderStatus::Failed) => Some("failed"),
            Some(status) if !status.is_ended() => Some("open"),
            _ => None,
        };
        let index = shelf.map(|shelf| ("shelf", shelf)).or_else(|| only.as_deref().map(|c| ("channel", c)));
        self.page::<Order, _>(page, index, true, |o| {
            let fits = caller.sees(&o.value.channel) && status.is_none_or(|s| s == o.value.status(now));
            fits.then(|| OrderView::new(&o.value, now).for_eyes_of(caller))
        })
    }

    /// One order.
    ///
    /// # Errors
    /// `NotAllowed`, `NotFound`.
    pub fn order(&self, caller: &Principal, id: OrderId) -> Result<OrderView, SchedulerError> {
        caller.must(Action::Watch)?;
        Ok(OrderView::new(&self.order_of(caller, id)?, self.now()).for_eyes_of(caller))
    }

    async fn change_order(
        &self,
        caller: &Principal,
        id: OrderId,
        action: &'static str,
        input: Input,
    ) -> Result<OrderView, SchedulerError> {
        self.order_of(caller, id)?;
        let (order, _) = self
            .step_order(id, input, |order, _, batch| {
                batch.join(self.audited(caller, action, &order.id.to_string()));
            })
            .await?;
        Ok(OrderView::new(&order, self.now()))
    }

    /// Ends an order in any open state; workers stop.
    ///
    /// # Errors
    /// `NotAllowed`, `NotFound`, `Refused` when it has ended already.
    pub async fn cancel_order(&self, caller: &Principal, id: OrderId) -> Result<OrderView, SchedulerError> {
        caller.must(Action::Order)?;
        self.change_order(caller, id, "order.cancel", Input::Cancel { by: caller.sub.clone() }).await
    }

    /// Another try for an image that could not be made.
    ///
    /// # Errors
    /// `NotAllowed`, `NotFound`, `Refused` when there is nothing to retry.
    pub async fn retry_order(&self, caller: &Principal, id: OrderId) -> Result<OrderView, SchedulerError> {
        caller.must(Action::Order)?;
        self.change_order(caller, id, "order.retry", Input::Retry { by: caller.sub.clone() }).await
    }

    /// Ends the link of a virtual order now.
    ///
    /// # Errors
    /// `NotAllowed`, `NotFound`, `Refused` when it has none.
    pub async fn expire_order(&self, caller: &Principal, id: OrderId) -> Result<OrderView, SchedulerError> {
        caller.must(Action::Order)?;
        self.change_order(caller, id, "order.expire", Input::Expire { by: caller.sub.clone() }).await
    }

    /// Keeps the link of a virtual order for a period longer.
    ///
    /// # Errors
    /// `NotAllowed`, `NotFound`, `Refused` when it has none, it has ended, or it is good for a year already.
    pub async fn extend_order(&self, caller: &Principal, id: OrderId) -> Result<OrderView, SchedulerError> {
        caller.must(Action::Order)?;
        self.change_order(caller, id, "order.extend", Input::Extend { by: caller.sub.clone() }).await
    }

    /// Notes that `count` cards left (all that are here when `None`).
    ///
    /// # Errors
    /// `NotAllowed`, `NotFound`, `Refused` when there are not so many verified cards.
    pub async fn ship_order(
        &self,
        caller: &Principal,
        id: OrderId,
        count: Option<u32>,
        tracking: Option<String>,
    ) -> Result<OrderView, SchedulerError> {
        caller.must(Action::Ship)?;
        let input = Input::Ship { count, tracking, by: caller.sub.clone() };
        self.change_order(caller, id, "order.ship", input).await
    }

    /// The order's story in plain sentences.
    ///
    /// # Errors
    /// `NotAllowed`, `NotFound`.
    pub fn explain_order(&self, caller: &Principal, id: OrderId) -> Result<Explanation, SchedulerError> {
        caller.must(Action::Watch)?;
        let order = self.order_of(caller, id)?;
        let text = id.to_string();
        let select =
            Select { index: Some(("order", &text)), newest_first: true, limit: MAX_STORY, after: None };
        let mut story: Vec<Story> =
            self.inner.store.list::<Story>(select)?.into_iter().map(|s| s.value).collect();
        story.reverse();
        Ok(explain(&order, &story, &self.holders(id)?, self.now()))
    }

    /// Who holds copies of an order.
    fn holders(&self, order: OrderId) -> Result<Vec<Holder>, SchedulerError> {
        let mut holders: BTreeMap<ApplianceId, Holder> = BTreeMap::new();
        for (id, lease) in self.live_leases(order)? {
            let copies = lease.copies.count().saturating_sub(lease.done.len() as u32);
            if let Some(holder) = holders.get_mut(&id) {
                holder.copies += copies;
                holder.not_after = holder.not_after.max(lease.not_after);
                continue;
            }
            let appliance = self.inner.store.get::<Appliance>(&id.to_string())?;
            let label = appliance.map_or_else(|| id.to_string(), |a| a.value.label);
            let picture = self.inner.picture.lock().expect("no holder panics");
            let online = picture.get(id).is_some_and(|p| p.presence(self.now()) == Presence::Online);
            holders.insert(id, Holder { id, label, copies, online, not_after: lease.not_after });
        }
        Ok(holders.into_values().collect())
    }
}

/// The warehouse with this id or address.
fn named<'a>(all: &'a [WarehouseDocument], text: &str) -> Option<&'a WarehouseDocument> {
    let text = text.trim_end_matches('/');
    all.iter().find(|w| w.id.to_string() == text || w.url == text)
}
