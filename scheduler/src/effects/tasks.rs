//! Tasks and images as lists: both are read off the orders.

use std::collections::BTreeMap;

use cardshop_protocol::api::Page;
use cardshop_protocol::ids::{ApplianceId, ImageId, OrderId, TaskId};
use cardshop_protocol::message::Lease;

use super::paging::PageRequest;
use crate::core::documents::DesiredDocument;
use crate::core::fields::InvalidField;
use crate::core::order::Order;
use crate::core::rights::{Action, Principal};
use crate::core::views::{ImageView, TaskView};
use crate::store::Select;
use crate::{Scheduler, SchedulerError};

/// Orders whose tasks are read at once.
const ORDERS_AT_ONCE: usize = 50;

impl Scheduler {
    /// Live leases of an order and who holds them.
    pub(crate) fn live_leases(&self, order: OrderId) -> Result<Vec<(ApplianceId, Lease)>, SchedulerError> {
        let all = self.all::<DesiredDocument>(None)?;
        Ok(leases_of(&all, order))
    }

    /// Tasks of the caller's channels by order, oldest first: the creation task, then the copies. `order` narrows
    /// them.
    ///
    /// # Errors
    /// `NotAllowed`, `NotFound`, `Invalid` for a wrong cursor.
    pub fn tasks(
        &self,
        caller: &Principal,
        order: Option<OrderId>,
        page: &PageRequest,
    ) -> Result<Page<TaskView>, SchedulerError> {
        caller.must(Action::Look)?;
        let cursor = match &page.cursor {
            None => None,
            Some(text) => Some(text.parse::<TaskId>().map_err(|_| {
                SchedulerError::from(InvalidField::new("cursor", "is not one that a list gave"))
            })?),
        };
        let desired = self.all::<DesiredDocument>(None)?;
        let limit = page.limit();
        let mut items: Vec<TaskView> = Vec::new();
        if let Some(order) = order {
            self.add_tasks(&self.order_of(caller, order)?, &desired, cursor, limit + 1, &mut items);
            return Ok(cut(items, limit));
        }
        // The order of the cursor is read again: it may have copies left.
        let mut after = None;
        if let Some(cursor) = cursor
            && let Some(first) = self.inner.store.get::<Order>(&cursor.order.to_string())?
        {
            if caller.sees(&first.value.channel) {
                self.add_tasks(&first.value, &desired, Some(cursor), limit + 1, &mut items);
            }
            after = Some(cursor.order.to_string());
        }
        while items.len() <= limit {
            let select = Select { after: after.as_deref(), limit: ORDERS_AT_ONCE, ..Select::default() };
            let orders = self.inner.store.list::<Order>(select)?;
            let Some(last) = orders.last() else { break };
            after = Some(last.value.id.to_string());
            for order in orders.iter().filter(|o| caller.sees(&o.value.channel)) {
                self.add_tasks(&order.value, &desired, None, limit + 1, &mut items);
            }
        }
        Ok(cut(items, limit))
    }

    fn add_tasks(
        &self,
        order: &Order,
        desired: &[DesiredDocument],
        after: Option<TaskId>,
        upto: usize,
        items: &mut Vec<TaskView>,
    ) {
        let leases = leases_of(desired, order.id);
        let picture = self.inner.picture.lock().expect("no holder panics");
        if after.is_none() && items.len() < upto {
            items.push(TaskView::creation(order));
        }
        let first = after.and_then(|t| t.copy).unwrap_or(0) + 1;
        if order.kind != crate::core::order::OrderKind::Physical {
            return;
        }
        for copy in first..=order.quantity {
            if items.len() >= upto {
                return;
            }
            let holder = leases.iter().find(|(_, l)| l.copies.contains(copy)).map(|(a, _)| *a);
            let worker = order.writes.get(&copy).and_then(|w| w.appliance);
            let phase = worker.and_then(|a| picture.phase(a, TaskId::write(order.id, copy)));
            items.push(TaskView::write(order, copy, holder, phase));
        }
    }

    /// Images of the caller's channels, newest first, each once.
    ///
    /// # Errors
    /// `NotAllowed`, `Invalid` for a wrong cursor.
    pub fn images(&self, caller: &Principal, page: &PageRequest) -> Result<Page<ImageView>, SchedulerError> {
        caller.must(Action::Watch)?;
        let mut first: BTreeMap<ImageId, Option<OrderId>> = BTreeMap::new();
        let mut failed = None;
        let images = self.page::<Order, _>(page, None, true, |o| {
            let order = o.value;
            let image = order.image.filter(|_| caller.sees(&order.channel))?;
            let first = first.entry(image.id).or_insert_with(|| {
                self.first_order_of(caller, image.id).unwrap_or_else(|error| {
                    failed = Some(error);
                    None
                })
            });
            (*first == Some(order.id)).then_some(ImageView {
                id: image.id,
                name: order.name,
                size: image.size,
                data_bytes: image.data_bytes,
                warehouse: order.warehouse,
                channel: order.channel,
                order: order.id,
            })
        })?;
        failed.map_or(Ok(images), Err)
    }

    /// The oldest order with this image that the caller sees: the same image is often ordered again.
    fn first_order_of(&self, caller: &Principal, image: ImageId) -> Result<Option<OrderId>, SchedulerError> {
        let image = image.to_string();
        let mut after: Option<String> = None;
        // Nearly always it is the first.
        for limit in std::iter::once(1).chain(std::iter::repeat(ORDERS_AT_ONCE)) {
            let select = Select {
                index: Some(("image", &image)),
                after: after.as_deref(),
                limit,
                ..Select::default()
            };
            let orders = self.inner.store.list::<Order>(select)?;
            let Some(last) = orders.last() else { break };
            after = Some(last.value.id.to_string());
            if let Some(first) = orders.iter().find(|o| caller.sees(&o.value.channel)) {
                return Ok(Some(first.value.id));
            }
        }
        Ok(None)
    }
}

fn leases_of(desired: &[DesiredDocument], order: OrderId) -> Vec<(ApplianceId, Lease)> {
    let all = desired.iter().flat_map(|d| d.desired.leases.iter().map(|l| (d.appliance, l)));
    all.filter(|(_, l)| l.order == order).map(|(a, l)| (a, l.clone())).collect()
}

fn cut(mut items: Vec<TaskView>, limit: usize) -> Page<TaskView> {
    let more = items.len() > limit;
    items.truncate(limit);
    let next_cursor = items.last().filter(|_| more).map(|t| t.id.to_string());
    Page { items, next_cursor }
}
