//! What an order would mean before it is placed: its cost, what stays of the organization's units, whether another one is
//! open, and when it might be done. Nothing is held for it: what is true when it is placed counts.

use std::time::Duration;

use cardshop_protocol::ids::OrderId;
use cardshop_protocol::time::Timestamp;
use cardshop_protocol::token::Role;

use crate::core::order::{Order, OrderKind};
use crate::core::rights::{Action, Principal};
use crate::core::units::cost;
use crate::core::views::LoadView;
use crate::store::Select;
use crate::{Scheduler, SchedulerError};

/// What an order would mean.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outlook {
    /// Units it costs; nothing without an organization.
    pub cost: Option<u64>,
    /// Units the organization has now.
    pub balance: Option<u64>,
    /// An open order that has to end before; its name and id.
    pub waits_for: Option<(String, OrderId)>,
    /// As likely before as after; none where nothing was measured or nobody is there.
    pub finish_p50: Option<Timestamp>,
    /// Nine of ten are done by then.
    pub finish_p90: Option<Timestamp>,
}

impl Scheduler {
    /// What an order of this kind and quantity by the caller would mean now.
    ///
    /// # Errors
    /// `NotAllowed`.
    pub fn outlook(
        &self,
        caller: &Principal,
        kind: OrderKind,
        quantity: u32,
    ) -> Result<Outlook, SchedulerError> {
        caller.must(Action::Order)?;
        let organization = self.organization_of(caller)?.map(|o| o.value);
        let mut waits_for = None;
        if let Some(own) =
            organization.as_ref().filter(|own| !own.several_orders && caller.role != Role::Staff)
        {
            let id = own.id.to_string();
            let select = Select { index: Some(("open-of", &id)), limit: 1, ..Select::default() };
            let open = self.inner.store.list::<Order>(select)?.into_iter().next();
            waits_for = open.map(|order| (order.value.name, order.value.id));
        }
        let (load, now) = (self.load(caller)?, self.now());
        Ok(Outlook {
            cost: organization.as_ref().map(|_| cost(quantity)),
            balance: organization.as_ref().map(|own| own.units),
            waits_for,
            finish_p50: finish(&load, kind, quantity, load.image_p50_s, load.card_p50_s).map(|s| now + s),
            finish_p90: finish(&load, kind, quantity, load.image_p90_s, load.card_p90_s).map(|s| now + s),
        })
    }
}

/// How long a new order takes behind all that waits: rounds of images among creators, then of cards among slots.
fn finish(
    load: &LoadView,
    kind: OrderKind,
    quantity: u32,
    image_s: Option<u64>,
    card_s: Option<u64>,
) -> Option<Duration> {
    let rounds =
        |count: u64, at_once: usize| Some(count.div_ceil(u64::try_from(at_once).ok().filter(|n| *n > 0)?));
    let images = rounds(load.waiting as u64 + 1, load.creators)?.saturating_mul(image_s?);
    let cards = match kind {
        OrderKind::Virtual => 0,
        OrderKind::Physical => {
            rounds(load.cards_wanted + u64::from(quantity), load.slots)?.saturating_mul(card_s?)
        }
    };
    Some(Duration::from_secs(images.saturating_add(cards)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_order_waits_for_creators_and_slots_behind_all_that_is_there() {
        let load = LoadView {
            waiting: 2,
            building: 1,
            creators: 2,
            cards_wanted: 4,
            appliances: 1,
            slots: 3,
            image_p50_s: Some(100),
            image_p90_s: Some(300),
            card_p50_s: Some(10),
            card_p90_s: None,
        };
        let of = |kind, image, card| finish(&load, kind, 5, image, card).map(|d| d.as_secs());
        assert_eq!(of(OrderKind::Physical, load.image_p50_s, load.card_p50_s), Some(230));
        assert_eq!(of(OrderKind::Virtual, load.image_p90_s, load.card_p90_s), Some(600));
        assert_eq!(of(OrderKind::Physical, load.image_p90_s, load.card_p90_s), None, "no card was measured");
        let empty = LoadView { slots: 0, ..load };
        assert_eq!(
            finish(&empty, OrderKind::Physical, 1, Some(1), Some(1)),
            None,
            "nothing is there to write it"
        );
    }
}
