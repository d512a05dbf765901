//! Leases: who gets which copies, and that planning again changes nothing.

use proptest::prelude::*;

use super::*;
use crate::core::order::{Input, OrderImage, OrderKind};
use cardshop_protocol::ids::{ImageId, ObjectId, OrderId, SlotId};

fn at(s: u64) -> Timestamp {
    Timestamp::from_ms(1_790_000_000_000 + s * 1000)
}

fn order(n: u128, quantity: u32) -> Order {
    let mut order = crate::core::order::tests::order(OrderKind::Physical, quantity);
    order.id = OrderId::from_parts(1, n);
    let mut notes = Vec::new();
    order.step(at(0), Input::Claim { owner: "c".into() }, &mut notes).unwrap();
    let image = OrderImage { id: ImageId([7; 32]), size: 1000, data_bytes: 10 };
    order.step(at(0), Input::ImageChecked { owner: "c".into(), image }, &mut notes).unwrap();
    order
}

fn verify(order: &mut Order, copy: u32) {
    let input = Input::Verified {
        copy,
        card: ObjectId::from_parts(9, u128::from(copy)),
        lease: ObjectId::from_parts(3, 1),
        appliance: ApplianceId([1; 8]),
        slot: SlotId::numbered(1),
    };
    order.step(at(0), input, &mut Vec::new()).unwrap();
}

fn worker(n: u8, slots: u32, heard: Timestamp) -> Worker {
    Worker { id: ApplianceId([n; 8]), channels: vec!["default".parse().unwrap()], slots, heard }
}

/// What was told so far, and a counter for lease ids.
#[derive(Default)]
struct Bench {
    told: BTreeMap<ApplianceId, Desired>,
    slots: BTreeMap<ApplianceId, Vec<DesiredSlot>>,
    ids: u128,
}

impl Bench {
    fn plan(&mut self, orders: &[Order], workers: &[Worker], now: Timestamp) -> Plan {
        let shops = BTreeMap::from([("default".parse().unwrap(), "The Shop".to_owned())]);
        let site = Site {
            orders,
            unshipped: &[],
            workers,
            told: &self.told,
            paused: false,
            index_keys: &[],
            shops: &shops,
            slots: &self.slots,
            updates: &BTreeMap::new(),
        };
        let ids = &mut self.ids;
        let plan = plan(&site, now, &mut || {
            *ids += 1;
            ObjectId::from_parts(5, *ids)
        });
        self.told.extend(plan.desired.clone());
        plan
    }

    fn ranges(&self, worker: u8) -> Vec<(u32, u32)> {
        let leases = &self.told[&ApplianceId([worker; 8])].leases;
        leases.iter().map(|l| (l.copies.first, l.copies.last)).collect()
    }
}

#[test]
fn one_appliance_gets_all_and_several_share_by_their_slots() {
    let mut bench = Bench::default();
    let plan = bench.plan(&[order(1, 12)], &[worker(1, 4, at(0))], at(0));
    assert_eq!(bench.ranges(1), [(1, 12)]);
    let desired = &plan.desired[&ApplianceId([1; 8])];
    assert_eq!((desired.rev, desired.settings.shop.as_str()), (1, "The Shop"));
    assert_eq!(plan.granted.len(), 1);

    let mut bench = Bench::default();
    bench.plan(&[order(1, 12)], &[worker(1, 4, at(0)), worker(2, 8, at(0))], at(0));
    assert_eq!((bench.ranges(1), bench.ranges(2)), (vec![(1, 4)], vec![(5, 12)]));
}

#[test]
fn planning_again_changes_nothing_and_a_verified_copy_raises_the_revision() {
    let mut bench = Bench::default();
    let mut orders = [order(1, 4)];
    let workers = [worker(1, 4, at(0))];
    bench.plan(&orders, &workers, at(0));
    assert_eq!(bench.plan(&orders, &workers, at(5)), Plan::default());
    verify(&mut orders[0], 2);
    let plan = bench.plan(&orders, &workers, at(6));
    let desired = &plan.desired[&ApplianceId([1; 8])];
    assert_eq!((desired.rev, &desired.leases[0].done), (2, &vec![2]));
    verify(&mut orders[0], 1);
    bench.plan(&orders, &workers, at(7));
    assert_eq!(bench.ranges(1), [(3, 4)], "the range begins with the first copy to be written");
}

#[test]
fn a_silent_appliance_keeps_its_copies_until_the_lease_is_over_and_then_another_gets_them() {
    let mut bench = Bench::default();
    let orders = [order(1, 4)];
    let day = LEASE_TIME.as_secs();
    bench.plan(&orders, &[worker(1, 1, at(0))], at(0));
    let workers = |now: u64| [worker(1, 1, at(0)), worker(2, 1, at(now))];
    let plan = bench.plan(&orders, &workers(day), at(day));
    assert_eq!((plan.granted.len(), plan.ended.len()), (0, 0));
    let plan = bench.plan(&orders, &workers(day + 1), at(day + 1));
    assert_eq!((plan.granted.len(), plan.ended.len()), (1, 1));
    assert_eq!((bench.ranges(1), bench.ranges(2)), (vec![], vec![(1, 4)]));
}

#[test]
fn a_lease_is_renewed_in_the_second_half_of_its_day_while_its_holder_is_heard() {
    let mut bench = Bench::default();
    let orders = [order(1, 4)];
    bench.plan(&orders, &[worker(1, 1, at(0))], at(0));
    let half = LEASE_TIME.as_secs() / 2;
    assert_eq!(bench.plan(&orders, &[worker(1, 1, at(half))], at(half)), Plan::default());
    let later = at(half + 1);
    let plan = bench.plan(&orders, &[worker(1, 1, later)], later);
    let lease = &plan.desired[&ApplianceId([1; 8])].leases[0];
    assert_eq!(lease.not_after, later + LEASE_TIME);
    assert!(plan.granted.is_empty(), "it is the same lease");
}

#[test]
fn a_canceled_order_and_a_rejected_appliance_lose_their_leases_at_once() {
    let mut bench = Bench::default();
    let mut orders = [order(1, 4), order(2, 4)];
    bench.plan(&orders, &[worker(1, 1, at(0)), worker(2, 1, at(0))], at(0));
    orders[0].step(at(1), Input::Cancel { by: "ada".into() }, &mut Vec::new()).unwrap();
    bench.plan(&orders, &[worker(1, 1, at(0)), worker(2, 1, at(0))], at(1));
    assert_eq!((bench.ranges(1), bench.ranges(2)), (vec![(1, 2)], vec![(3, 4)]));
    bench.plan(&orders, &[worker(2, 1, at(0))], at(2));
    assert!(bench.ranges(1).is_empty());
    assert_eq!(bench.ranges(2), [(3, 4), (1, 2)], "nobody else may write its copies now");
}

#[test]
fn a_desired_state_always_fits_its_message() {
    let mut bench = Bench::default();
    let mut orders: Vec<Order> = (0..100).map(|n| order(n, 1000)).collect();
    for order in &mut orders {
        order.name = "ü".repeat(120);
        (1..=1000).filter(|c| c % 2 == 0 && *c > 2 && *c < 900).for_each(|c| verify(order, c));
    }
    bench.plan(&orders[..], &[worker(1, 8, at(0))], at(0));
    let size = serde_json::to_vec(&bench.told[&ApplianceId([1; 8])]).unwrap().len();
    assert!(!bench.ranges(1).is_empty());
    assert!(size < cardshop_protocol::topic::MAX_LARGE_PAYLOAD_SIZE, "{size} bytes");
}

#[derive(Debug, Clone)]
enum Change {
    Verify(usize, u32),
    Cancel(usize),
    Hear(usize),
    Wait(u64),
    Leave(usize),
    Return(usize),
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        6 => (0..3usize, 1..10u32).prop_map(|(o, c)| Change::Verify(o, c)),
        1 => (0..3usize).prop_map(Change::Cancel),
        4 => (0..3usize).prop_map(Change::Hear),
        3 => (0..50_000u64).prop_map(Change::Wait),
        1 => (0..3usize).prop_map(Change::Leave),
        1 => (0..3usize).prop_map(Change::Return),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(300) })]

    #[test]
    fn no_copy_is_in_two_live_leases_and_a_plan_is_stable(changes in proptest::collection::vec(change(), 0..40)) {
        let mut bench = Bench::default();
        let mut orders = [order(1, 9), order(2, 4), order(3, 1)];
        let mut workers = [worker(1, 1, at(0)), worker(2, 3, at(0)), worker(3, 4, at(0))];
        let mut present = [true; 3];
        let mut now = at(0);
        for change in changes {
            match change {
                Change::Verify(o, copy) => verify(&mut orders[o], copy),
                Change::Cancel(o) => {
                    let _ = orders[o].step(now, Input::Cancel { by: "a".into() }, &mut Vec::new());
                }
                Change::Hear(w) => workers[w].heard = now,
                Change::Wait(s) => now = now + Duration::from_secs(s),
                Change::Leave(w) => present[w] = false,
                Change::Return(w) => present[w] = true,
            }
            let approved: Vec<_> =
                workers.iter().zip(present).filter(|(_, p)| *p).map(|(w, _)| w.clone()).collect();
            bench.plan(&orders, &approved, now);
            let leases: Vec<&Lease> = bench.told.values().flat_map(|d| &d.leases).collect();
            for order in &orders {
                let mine: Vec<_> = leases.iter().filter(|l| l.order == order.id).collect();
                prop_assert!(mine.is_empty() || order.takes_writes());
                for copy in 1..=order.quantity {
                    let holders = mine.iter().filter(|l| l.copies.contains(copy)).count();
                    prop_assert!(holders <= 1, "copy {copy} is leased {holders} times");
                    let offered = mine.iter().any(|l| l.copies.contains(copy) && !l.done.contains(&copy));
                    if order.is_verified(copy) {
                        prop_assert!(!offered, "copy {copy} is verified and offered");
                    } else if order.takes_writes() && approved.iter().any(|w| is_here(w, now)) {
                        prop_assert!(offered, "copy {copy} waits although somebody is here");
                    }
                }
            }
            prop_assert_eq!(bench.plan(&orders, &approved, now), Plan::default());
        }
    }
}

#[test]
fn leases_stay_below_the_limit_of_a_message_also_when_nearly_all_of_their_copies_are_done() {
    let mut bench = Bench::default();
    let mut orders: Vec<Order> = (1..=30).map(|n| order(n, 1000)).collect();
    let workers = [worker(1, 4, at(0))];
    bench.plan(&orders, &workers, at(0));
    for order in &mut orders {
        // The first and the last copy wait for ever: nothing is trimmed.
        for write in 2..1000 {
            order.writes.insert(
                write,
                crate::core::order::Write {
                    status: crate::core::order::TaskStatus::Succeeded,
                    ..Default::default()
                },
            );
        }
    }
    bench.plan(&orders, &workers, at(1));
    let desired = &bench.told[&ApplianceId([1; 8])];
    let size = serde_json::to_vec(&desired.leases).unwrap().len();
    assert!(size <= MAX_LEASES_SIZE, "{} leases have {size} bytes", desired.leases.len());
    assert!(desired.leases.len() >= 4);
}
