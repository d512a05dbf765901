//! Units: what an organization's orders cost it. What an order holds of them follows from the order alone, so that
//! charging and giving back are one rule, applied in the batch that changes the order.
//!
//! ```text
//! placed ──► holds its cost            failed ──► holds nothing      retried ──► holds its cost again
//!                                      canceled ─► holds the cost of the cards that were shipped
//! ```
//!
//! An organization's units and what its orders hold together change only by what staff adds.

use cardshop_protocol::ids::{Channel, ObjectId};
use cardshop_protocol::time::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::order::{Order, OrderKind, OrderStatus, Refusal};

/// Most units an organization has: adding up never overflows.
pub(crate) const MAX_UNITS: u64 = 1_000_000_000_000;

/// Who pays for orders.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Organization {
    /// Its id.
    pub id: ObjectId,
    /// What people call it.
    pub name: String,
    /// Channel of its people, unless they are given others.
    pub channel: Channel,
    /// Where images of its orders are kept when an order does not say: a warehouse, and its mirrors.
    pub warehouses: Vec<ObjectId>,
    /// Language of what is sent to it: `en` or `fr`.
    pub language: String,
    /// What it may still spend.
    pub units: u64,
    /// May have more than one open order at a time.
    pub several_orders: bool,
    /// When it was made.
    pub created: Timestamp,
}

/// What an order costs: a unit for each card or for each period of a link.
pub(crate) fn cost(quantity: u32) -> u64 {
    u64::from(quantity)
}

/// What an order is to hold at `now`.
fn due(order: &Order, now: Timestamp) -> u64 {
    match order.status(now) {
        OrderStatus::Failed => 0,
        OrderStatus::Canceled if order.kind == OrderKind::Physical => {
            order.units * u64::from(order.shipped()) / u64::from(order.quantity.max(1))
        }
        OrderStatus::Canceled => 0,
        _ => order.units,
    }
}

/// What moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Moved {
    /// From the organization to the order.
    Charged(u64),
    /// Back.
    GivenBack(u64),
}

/// Moves units so that `order` holds what it is to hold.
///
/// # Errors
/// `not_enough_units`.
pub(crate) fn settle(
    order: &mut Order,
    organization: &mut Organization,
    now: Timestamp,
) -> Result<Option<Moved>, Refusal> {
    let (due, held) = (due(order, now), order.units_held);
    let moved = if due > held {
        let Some(rest) = organization.units.checked_sub(due - held) else {
            let text = format!(
                "{} has {} units, and this order needs {}: ask staff for more",
                organization.name,
                organization.units,
                due - held
            );
            return Err(Refusal { code: "not_enough_units", text });
        };
        organization.units = rest;
        Moved::Charged(due - held)
    } else if due < held {
        organization.units += held - due;
        Moved::GivenBack(held - due)
    } else {
        return Ok(None);
    };
    order.units_held = due;
    Ok(Some(moved))
}

/// Whether an organization that has `open` open orders may place another.
///
/// # Errors
/// `one_open_order`.
pub(crate) fn may_order(organization: &Organization, open: usize) -> Result<(), Refusal> {
    if open == 0 || organization.several_orders {
        return Ok(());
    }
    let text = format!("{} has an open order: wait for its end, or cancel it", organization.name);
    Err(Refusal { code: "one_open_order", text })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::core::order::Input;
    use crate::core::order::tests::order;

    fn organization(units: u64) -> Organization {
        Organization {
            id: ObjectId::from_parts(1, 9),
            name: "School".into(),
            channel: "default".parse().unwrap(),
            warehouses: Vec::new(),
            language: "en".into(),
            units,
            several_orders: false,
            created: Timestamp::from_ms(0),
        }
    }

    #[test]
    fn an_order_that_costs_more_than_there_is_is_refused_and_takes_nothing() {
        let mut order = order(OrderKind::Physical, 5);
        order.units = cost(5);
        let mut poor = organization(4);
        let refused = settle(&mut order, &mut poor, Timestamp::from_ms(0)).unwrap_err();
        assert_eq!((refused.code, poor.units, order.units_held), ("not_enough_units", 4, 0));
        assert!(refused.text.contains("has 4 units") && refused.text.contains("needs 5"));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(300) })]

        #[test]
        fn units_are_conserved_whatever_happens_to_an_order(
            quantity in 1u32..6,
            physical in any::<bool>(),
            steps in proptest::collection::vec((0u8..8, 1u32..6), 0..30),
        ) {
            let kind = if physical { OrderKind::Physical } else { OrderKind::Virtual };
            let mut order = order(kind, quantity);
            order.units = cost(quantity);
            let mut organization = organization(7);
            let mut now = Timestamp::from_ms(1_790_000_000_000);
            let by = || "ada".to_owned();
            settle(&mut order, &mut organization, now).unwrap();
            for (what, n) in steps {
                now = now + std::time::Duration::from_secs(3600);
                let image = crate::core::order::OrderImage {
                    id: cardshop_protocol::ids::ImageId([7; 32]), size: 9, data_bytes: 9,
                };
                let input = match what {
                    0 => Input::Claim { owner: by() },
                    1 => Input::ImageChecked { owner: by(), image },
                    2 => Input::ImageRefused { owner: by(), reason: "x".into(), permanent: n > 2 },
                    3 | 4 => Input::Verified {
                        copy: n,
                        card: ObjectId::from_parts(2, u128::from(n)),
                        lease: ObjectId::from_parts(3, 1),
                        appliance: cardshop_protocol::ids::ApplianceId([1; 8]),
                        slot: cardshop_protocol::ids::SlotId::numbered(1),
                    },
                    5 => Input::Ship { count: Some(1), tracking: None, by: by() },
                    6 => Input::Cancel { by: by() },
                    _ => Input::Retry { by: by() },
                };
                let _ = order.step(now, input, &mut Vec::new());
                let _ = settle(&mut order, &mut organization, now);
                prop_assert_eq!(organization.units + order.units_held, 7);
                if order.status(now) == OrderStatus::Canceled {
                    prop_assert_eq!(order.units_held, u64::from(order.shipped()));
                }
            }
        }
    }
}
