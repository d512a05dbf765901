//! In which sequence creators take orders: the higher priority first; of one priority each organization in turn, so that one
//! that orders fifty does not make the others wait for all fifty; then the older.

use std::collections::BTreeMap;

use cardshop_protocol::time::Timestamp;

use super::order::{Order, TaskStatus};

/// Who an order counts for: its organization, or who placed it where nobody pays.
fn whose(order: &Order) -> String {
    order.organization.map_or_else(|| order.created_by.clone(), |id| id.to_string())
}

/// Orders that wait for a creator at `now`, the next one first. `build` = all whose image is not made.
pub(crate) fn queue(build: &[Order], now: Timestamp) -> Vec<&Order> {
    let mut turns: BTreeMap<String, usize> = BTreeMap::new();
    for order in build {
        if matches!(order.creation.status, TaskStatus::Leased | TaskStatus::Running) {
            *turns.entry(whose(order)).or_default() += 1;
        }
    }
    let mut waiting: Vec<&Order> = build.iter().filter(|o| o.is_claimable(now)).collect();
    waiting.sort_by_key(|o| (std::cmp::Reverse(o.priority), o.id));
    let mut ranked: Vec<(usize, &Order)> = waiting
        .into_iter()
        .map(|order| {
            let turn = turns.entry(whose(order)).or_default();
            *turn += 1;
            (*turn, order)
        })
        .collect();
    ranked.sort_by_key(|(turn, o)| (std::cmp::Reverse(o.priority), *turn, o.id));
    ranked.into_iter().map(|(_, order)| order).collect()
}

#[cfg(test)]
mod tests {
    use cardshop_protocol::ids::ObjectId;

    use super::super::order::tests::order;
    use super::super::order::{Input, OrderKind};
    use super::*;

    fn at(s: u64) -> Timestamp {
        Timestamp::from_ms(1_790_000_000_000 + s * 1000)
    }

    fn of(n: u128, organization: u128) -> Order {
        let mut order = order(OrderKind::Virtual, 1);
        order.id = ObjectId::from_parts(1, n);
        order.organization = Some(ObjectId::from_parts(2, organization));
        order
    }

    fn numbers(build: &[Order]) -> Vec<String> {
        queue(build, at(0))
            .iter()
            .map(|o| o.id.to_string()[24..].trim_start_matches('0').to_owned())
            .collect()
    }

    #[test]
    fn organizations_take_turns_whoever_ordered_more_and_a_higher_priority_goes_first() {
        let mut build = vec![of(1, 1), of(2, 1), of(3, 1), of(4, 2), of(5, 3), of(6, 2)];
        assert_eq!(numbers(&build), ["1", "4", "5", "2", "6", "3"]);
        build[2].priority = 5;
        assert_eq!(numbers(&build)[0], "3");
        build[0].step(at(0), Input::Claim { owner: "c".into() }, &mut Vec::new()).unwrap();
        build[2].priority = 0;
        assert_eq!(numbers(&build), ["4", "5", "2", "6", "3"], "one of the first one's is being made");
    }

    #[test]
    fn nobody_waits_for_ever_behind_others_of_the_same_priority() {
        // However many the others have: every organization is among the first as many as there are organizations.
        let mut build: Vec<Order> = (0..500).map(|n| of(n, n % 7)).collect();
        build.push(of(999, 99));
        let first: Vec<_> = queue(&build, at(0)).into_iter().take(8).map(|o| o.organization).collect();
        assert!(first.contains(&Some(ObjectId::from_parts(2, 99))));
    }
}
