//! Orders against a model: anything may happen, in any order, late and twice.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use cardshop_protocol::api::{CreationPhase, CreationReport};
use cardshop_protocol::ids::{ApplianceId, ImageId, ObjectId, SlotId};
use cardshop_protocol::time::Timestamp;
use proptest::prelude::*;

use super::creation::CREATION_LEASE;
use super::*;

fn at(s: u64) -> Timestamp {
    Timestamp::from_ms(1_790_000_000_000 + s * 1000)
}

pub(crate) fn order(kind: OrderKind, quantity: u32) -> Order {
    Order {
        id: ObjectId::from_parts(1, 1),
        name: "School".into(),
        named: false,
        kind,
        channel: "default".parse().unwrap(),
        configuration: ObjectId::from_parts(1, 2),
        media: None,
        quantity,
        organization: None,
        units: 0,
        units_held: 0,
        recipient: Value::Null,
        warehouse: "http://warehouse".into(),
        mirrors: Vec::new(),
        priority: 0,
        created: at(0),
        created_by: "ada".into(),
        creation: Creation::default(),
        image: None,
        hold: None,
        writes: BTreeMap::new(),
        spare: 0,
        shipments: Vec::new(),
        canceled: None,
        available_until: None,
        link: Link::default(),
        history: Vec::new(),
        told: Some(BTreeMap::new()),
    }
}

fn step(order: &mut Order, s: u64, input: Input) -> Result<Answer, Refusal> {
    order.step(at(s), input, &mut Vec::new())
}

fn image(n: u8) -> OrderImage {
    OrderImage { id: ImageId([n; 32]), size: 1 << 20, data_bytes: 4096 }
}

fn claim(owner: &str) -> Input {
    Input::Claim { owner: owner.into() }
}

fn report(owner: &str, report: CreationReport) -> Input {
    Input::Report { owner: owner.into(), report }
}

fn running() -> CreationReport {
    CreationReport::Running { phase: CreationPhase::Building, done: 1, total: 2, eta_s: None }
}

fn failed(permanent: bool) -> CreationReport {
    CreationReport::Failed { reason: "no space".into(), permanent }
}

fn verified(copy: u32, card: u128) -> Input {
    Input::Verified {
        copy,
        card: ObjectId::from_parts(2, card),
        lease: ObjectId::from_parts(3, 1),
        appliance: ApplianceId([1; 8]),
        slot: SlotId::numbered(1),
    }
}

fn ready(kind: OrderKind, quantity: u32) -> Order {
    let mut order = order(kind, quantity);
    step(&mut order, 0, claim("c")).unwrap();
    step(&mut order, 1, Input::ImageChecked { owner: "c".into(), image: image(1) }).unwrap();
    order
}

#[test]
fn a_creation_is_retried_three_times_with_growing_pauses_and_then_fails_until_a_person_retries() {
    let mut order = order(OrderKind::Physical, 1);
    for (now, pause) in [(0, 10), (10, 40)] {
        step(&mut order, now, claim("c")).unwrap();
        step(&mut order, now, report("c", failed(false))).unwrap();
        assert_eq!(order.creation.retry_at, Some(at(now + pause)));
        assert!(step(&mut order, now + pause - 1, claim("c")).is_err());
    }
    step(&mut order, 50, claim("c")).unwrap();
    step(&mut order, 50, report("c", failed(false))).unwrap();
    assert_eq!(order.status(at(50)), OrderStatus::Failed);
    assert_eq!(step(&mut order, 51, Input::Cancel { by: "ada".into() }).unwrap_err().code, "order_ended");
    step(&mut order, 52, Input::Retry { by: "ada".into() }).unwrap();
    assert_eq!(order.status(at(52)), OrderStatus::Created);
    step(&mut order, 53, claim("c")).unwrap();
    step(&mut order, 53, report("c", failed(true))).unwrap();
    assert_eq!(order.status(at(53)), OrderStatus::Failed, "a permanent failure is not tried again");
}

#[test]
fn a_silent_creator_loses_its_task_and_may_go_on_until_another_claims_it() {
    let mut order = order(OrderKind::Physical, 1);
    let lease = CREATION_LEASE.as_secs();
    step(&mut order, 0, claim("a")).unwrap();
    assert!(step(&mut order, lease, claim("b")).is_err(), "a still holds it");
    assert_eq!(step(&mut order, lease + 1, report("a", running())), Ok(Answer::Renewed));
    step(&mut order, 2 * lease + 2, claim("b")).unwrap();
    assert_eq!(step(&mut order, 2 * lease + 3, report("a", running())), Ok(Answer::Stop));
    assert_eq!(step(&mut order, 2 * lease + 3, report("b", running())), Ok(Answer::Renewed));
}

#[test]
fn a_task_given_back_goes_to_the_next_at_once_and_the_order_loses_no_try() {
    let mut order = order(OrderKind::Physical, 1);
    for n in 0..20 {
        step(&mut order, n, claim("a")).unwrap();
        step(&mut order, n, report("a", running())).unwrap();
        assert_eq!(step(&mut order, n, report("a", CreationReport::Returned)), Ok(Answer::Done));
        assert_eq!(order.status(at(n)), OrderStatus::Created);
    }
    assert_eq!((order.creation.claims, order.creation.failures), (0, 0));
    assert_eq!(step(&mut order, 20, report("a", running())), Ok(Answer::Stop), "it is not a's any more");
    step(&mut order, 20, claim("b")).unwrap();
    assert_eq!(step(&mut order, 20, report("a", CreationReport::Returned)), Ok(Answer::Stop));
    assert_eq!(step(&mut order, 21, report("b", running())), Ok(Answer::Renewed));
}

#[test]
fn a_recipe_that_silences_ten_creators_fails_the_order() {
    let mut order = order(OrderKind::Physical, 1);
    for n in 0..10 {
        step(&mut order, n * 100, claim("c")).unwrap();
    }
    step(&mut order, 1000, Input::Tick).unwrap();
    assert_eq!(order.status(at(1000)), OrderStatus::Failed);
}

#[test]
fn a_cancel_stops_the_creator_and_no_late_report_revives_the_order() {
    let mut order = order(OrderKind::Physical, 1);
    step(&mut order, 0, claim("c")).unwrap();
    assert_eq!(
        step(&mut order, 1, report("c", CreationReport::Succeeded { image: image(1).id })),
        Ok(Answer::Check(image(1).id))
    );
    step(&mut order, 2, Input::Cancel { by: "ada".into() }).unwrap();
    let late = Input::ImageChecked { owner: "c".into(), image: image(1) };
    assert_eq!(step(&mut order, 3, late), Ok(Answer::Stop));
    assert_eq!(step(&mut order, 3, report("c", running())), Ok(Answer::Stop));
    assert_eq!(order.status(at(3)), OrderStatus::Canceled);
    assert_eq!(step(&mut order, 4, Input::Cancel { by: "ada".into() }), Ok(Answer::Unchanged));
    assert_eq!(step(&mut order, 5, Input::Retry { by: "ada".into() }).unwrap_err().code, "nothing_to_retry");
}

#[test]
fn a_virtual_order_is_available_for_two_weeks_per_unit_and_then_expires() {
    let mut order = ready(OrderKind::Virtual, 2);
    let day = Duration::from_secs(86_400);
    assert_eq!(order.status(at(0) + day * 28), OrderStatus::Available);
    assert_eq!(order.status(at(1) + day * 28), OrderStatus::Expired);
    assert!(order.shelves().contains(&"expiring"));
    order.step(at(1) + day * 28, Input::Tick, &mut Vec::new()).unwrap();
    assert_eq!(order.shelves(), ["link"], "its warehouse never heard of the link");
}

#[test]
fn the_same_card_told_twice_counts_once_and_another_card_for_the_same_copy_is_spare() {
    let mut order = ready(OrderKind::Physical, 2);
    assert_eq!(step(&mut order, 2, verified(1, 7)), Ok(Answer::Counted));
    assert_eq!(step(&mut order, 2, verified(1, 7)), Ok(Answer::Unchanged));
    assert_eq!(step(&mut order, 2, verified(1, 8)), Ok(Answer::Spare));
    assert_eq!(step(&mut order, 2, verified(3, 9)), Ok(Answer::Spare), "beyond the quantity");
    assert_eq!((order.verified(), order.spare), (1, 2));
}

#[derive(Debug, Clone)]
enum Action {
    Claim(u8),
    Running(u8),
    Succeeded(u8),
    Checked(u8),
    Refused(u8),
    Failed(u8, bool),
    Started(u32),
    Verified(u32, u8),
    WriteFailed(u32),
    LeaseEnded(u8),
    Cancel,
    Retry,
    Ship(Option<u32>),
    Wait(u64),
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        3 => (0..3u8).prop_map(Action::Claim),
        2 => (0..3u8).prop_map(Action::Running),
        2 => (0..3u8).prop_map(Action::Succeeded),
        4 => (0..3u8).prop_map(Action::Checked),
        1 => (0..3u8).prop_map(Action::Refused),
        1 => (0..3u8, any::<bool>()).prop_map(|(c, p)| Action::Failed(c, p)),
        3 => (0..6u32).prop_map(Action::Started),
        6 => (0..6u32, any::<u8>()).prop_map(|(c, u)| Action::Verified(c, u)),
        2 => (0..6u32).prop_map(Action::WriteFailed),
        1 => (0..2u8).prop_map(Action::LeaseEnded),
        1 => Just(Action::Cancel),
        1 => Just(Action::Retry),
        2 => proptest::option::of(0..4u32).prop_map(Action::Ship),
        3 => (0..200u64).prop_map(Action::Wait),
    ]
}

fn input(action: &Action) -> Input {
    let owner = |c: &u8| format!("creator-{c}");
    let (appliance, slot, lease) = (ApplianceId([1; 8]), SlotId::numbered(1), ObjectId::from_parts(3, 1));
    match action {
        Action::Claim(c) => claim(&owner(c)),
        Action::Running(c) => report(&owner(c), running()),
        Action::Succeeded(c) => report(&owner(c), CreationReport::Succeeded { image: image(1).id }),
        Action::Checked(c) => Input::ImageChecked { owner: owner(c), image: image(1) },
        Action::Refused(c) => {
            Input::ImageRefused { owner: owner(c), reason: "too large".into(), permanent: false }
        }
        Action::Failed(c, permanent) => report(&owner(c), failed(*permanent)),
        Action::Started(copy) => Input::WriteStarted { copy: *copy, lease, appliance, slot },
        Action::Verified(copy, card) => verified(*copy, u128::from(*card)),
        Action::WriteFailed(copy) => {
            Input::WriteFailed { copy: *copy, appliance, slot, reason: "bad".into() }
        }
        Action::LeaseEnded(n) => Input::LeaseEnded { lease: ObjectId::from_parts(3, u128::from(*n)) },
        Action::Cancel => Input::Cancel { by: "ada".into() },
        Action::Retry => Input::Retry { by: "ada".into() },
        Action::Ship(count) => Input::Ship { count: *count, tracking: None, by: "bob".into() },
        Action::Wait(_) => Input::Tick,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(600) })]

    /// The model: which cards were counted for which copy, and who holds the creation task until when.
    #[test]
    fn whatever_happens_the_counts_are_right_and_what_ended_stays_ended(
        quantity in 1..5u32,
        kind in prop_oneof![4 => Just(OrderKind::Physical), 1 => Just(OrderKind::Virtual)],
        actions in proptest::collection::vec(action(), 0..80),
    ) {
        let mut order = order(kind, quantity);
        let mut now = at(0);
        let mut counted: BTreeMap<u32, ObjectId> = BTreeMap::new();
        let mut spare = 0;
        let mut seen: BTreeSet<ObjectId> = BTreeSet::new();
        let mut holder: Option<(String, Timestamp)> = None;
        for action in &actions {
            if let Action::Wait(s) = action {
                now = now + Duration::from_secs(*s);
            }
            let before = order.clone();
            let was = before.status(now);
            let answer = order.step(now, input(action), &mut Vec::new());
            let is = order.status(now);

            // Ended things are not revived, but a failed order by a person.
            if was.is_ended() && was != is {
                prop_assert!(was == OrderStatus::Failed && matches!(action, Action::Retry), "{was:?} → {is:?}");
            }
            // The image never changes and never goes.
            if before.image.is_some() {
                prop_assert_eq!(&before.image, &order.image);
            }
            // No two creators hold the task: a claim succeeds only when nobody's lease is alive.
            if let (Action::Claim(_), Ok(Answer::Done)) = (action, &answer)
                && let Some((who, until)) = &holder
            {
                prop_assert!(now > *until, "{who} holds it until {until}, claimed at {now}");
            }
            let alive = matches!(order.creation.status, TaskStatus::Leased | TaskStatus::Running);
            holder = order.creation.owner.clone().zip(order.creation.lease_until).filter(|_| alive);

            // Cards: each counted copy has one card, and no card is counted twice.
            if let Action::Verified(copy, card) = action {
                let card = ObjectId::from_parts(2, u128::from(*card));
                match answer {
                    Ok(Answer::Counted) => {
                        prop_assert!(counted.insert(*copy, card).is_none(), "copy {copy} counted twice");
                        prop_assert!(seen.insert(card), "card counted twice");
                        prop_assert!(!was.is_ended());
                    }
                    Ok(Answer::Spare) => spare += 1,
                    ref other => prop_assert!(seen.contains(&card), "{other:?}"),
                }
            }
            prop_assert_eq!(order.verified() as usize, counted.len());
            prop_assert_eq!(order.spare, spare);
            prop_assert!(order.verified() <= order.quantity);
            prop_assert!(order.shipped() <= order.verified());
            for (copy, card) in &counted {
                prop_assert_eq!(order.writes[copy].card, Some(*card));
            }
            // Nothing is stuck: an open order waits for a creator, a lease, a pause, a card or a person.
            if matches!(is, OrderStatus::Created | OrderStatus::Creating) {
                prop_assert!(
                    order.is_claimable(now) || order.creation.retry_at.is_some_and(|t| t > now) || holder.is_some()
                );
            }
            // The history ends with the status as it was at the step.
            prop_assert_eq!(order.history.last().map(|h| h.status), Some(is));
            // A document read back is the same document.
            let text = serde_json::to_string(&order).unwrap();
            prop_assert_eq!(&serde_json::from_str::<Order>(&text).unwrap(), &order);
        }
    }
}

#[test]
fn the_last_shipment_an_order_may_have_takes_the_rest() {
    let mut order = ready(OrderKind::Physical, MAX_QUANTITY);
    for copy in 1..=MAX_QUANTITY {
        step(&mut order, 2, verified(copy, u128::from(copy))).unwrap();
    }
    let ship = |count| Input::Ship { count, tracking: None, by: "ada".into() };
    for _ in 1..MAX_SHIPMENTS {
        step(&mut order, 3, ship(Some(1))).unwrap();
    }
    let refusal = step(&mut order, 4, ship(Some(1))).unwrap_err();
    assert_eq!(refusal.code, "too_many_shipments");
    assert!(refusal.text.contains("801"), "{}", refusal.text);
    step(&mut order, 5, ship(None)).unwrap();
    assert_eq!(order.status(at(5)), OrderStatus::Shipped);
}

#[test]
fn the_largest_order_there_can_be_fits_into_the_store() {
    let mut order = ready(OrderKind::Physical, MAX_QUANTITY);
    let long = "\u{10348}".repeat(1000);
    let slot: SlotId = "abcdefghijklmnop".parse().unwrap();
    for copy in 1..=MAX_QUANTITY {
        let (lease, appliance) = (ObjectId::from_parts(3, 1), ApplianceId([1; 8]));
        let started = Input::WriteStarted { copy, lease, appliance, slot: slot.clone() };
        step(&mut order, 2, started).unwrap();
        if copy > MAX_SHIPMENTS as u32 {
            let failed = Input::WriteFailed { copy, appliance, slot: slot.clone(), reason: long.clone() };
            step(&mut order, 2, failed).unwrap();
            continue;
        }
        step(&mut order, 2, verified(copy, u128::from(copy))).unwrap();
        let tracking = Some(long.chars().take(200).collect());
        let shipped = step(&mut order, 2, Input::Ship { count: None, tracking, by: "b".repeat(64) });
        assert_eq!(shipped.is_ok(), copy < MAX_SHIPMENTS as u32);
    }
    let size = serde_json::to_vec(&order).unwrap().len();
    // Twice four kilobytes and a bit: recipient, names, history.
    assert!(size + 16 * 1024 < crate::store::MAX_DOCUMENT_SIZE, "{size}");
}

#[test]
fn a_link_is_ended_and_extended_only_where_that_means_something_and_told_until_it_is_heard() {
    let (by, day) = (|| "ada".to_owned(), std::time::Duration::from_secs(86_400));
    let expire = || Input::Expire { by: by() };
    let extend = || Input::Extend { by: by() };
    let mut physical = ready(OrderKind::Physical, 1);
    assert_eq!(step(&mut physical, 2, expire()).unwrap_err().code, "no_link");
    assert_eq!(step(&mut physical, 2, extend()).unwrap_err().code, "no_link");
    assert!(!physical.shelves().contains(&"link"));

    let mut order = ready(OrderKind::Virtual, 1);
    assert!(order.shelves().contains(&"link"));
    let until = order.link_until().unwrap();
    assert_eq!(until, at(1) + 14 * day);
    let told = |until, path: &str| Input::LinkTold { until, path: Some(path.into()) };
    assert_eq!(step(&mut order, 3, told(until, "/p/x/a.img")), Ok(Answer::Done));
    assert!(!order.shelves().contains(&"link"));
    assert_eq!(step(&mut order, 4, extend()), Ok(Answer::Done));
    assert_eq!(order.link_until(), Some(until + 14 * day));
    assert!(order.shelves().contains(&"link"), "the warehouse has to hear of it");
    let refused = (0..30).find_map(|_| step(&mut order, 4, extend()).err());
    assert_eq!(refused.unwrap().code, "long_enough");

    let mut canceled = order.clone();
    step(&mut canceled, 9, Input::Cancel { by: by() }).unwrap();
    assert_eq!(canceled.link_until(), Some(at(9)));
    assert!(canceled.shelves().contains(&"link"));

    assert_eq!(step(&mut order, 10, expire()), Ok(Answer::Done));
    assert_eq!((order.status(at(10)), order.link_until()), (OrderStatus::Expired, Some(at(10))));
    assert!(order.shelves().contains(&"link"));
    assert_eq!(step(&mut order, 11, expire()), Ok(Answer::Unchanged));
    assert_eq!(step(&mut order, 11, extend()).unwrap_err().code, "link_ended");
}

#[test]
fn a_step_that_takes_too_long_for_its_size_ends_and_a_card_that_does_waits_again_and_may_still_count() {
    let mut order = order(OrderKind::Physical, 1);
    let building = |total| {
        report("c", CreationReport::Running { phase: CreationPhase::Building, done: 1, total, eta_s: None })
    };
    step(&mut order, 0, claim("c")).unwrap();
    // A gigabyte: a quarter of an hour and 1000 seconds. The creator reports all the time.
    let mut now = 0;
    while now <= 1900 {
        assert_eq!(step(&mut order, now, building(1_000_000_000)), Ok(Answer::Renewed), "{now}");
        now += 50;
    }
    assert_eq!(step(&mut order, now, building(1_000_000_000)), Ok(Answer::Stop));
    assert!(order.creation.failure.as_ref().unwrap().contains("took more than 31 minutes"), "{order:?}");
    assert_eq!(order.status(at(now)), OrderStatus::Creating, "it is tried again");
    let (uploading, total) = (CreationPhase::Uploading, 1 << 50);
    step(&mut order, now + 10, claim("c")).unwrap();
    for hour in 0..=48 {
        for minute in 0..60 {
            let now = now + 10 + hour * 3600 + minute * 60;
            let report =
                report("c", CreationReport::Running { phase: uploading, done: 1, total, eta_s: None });
            let answer = step(&mut order, now, report).unwrap();
            let is_over = hour == 48 && minute > 0;
            if is_over {
                assert_eq!(answer, Answer::Stop, "whatever size it claims");
                break;
            }
            assert_eq!(answer, Answer::Renewed, "{hour}:{minute}");
        }
    }

    let mut order = ready(OrderKind::Physical, 1);
    let (lease, appliance, slot) = (ObjectId::from_parts(3, 1), ApplianceId([1; 8]), SlotId::numbered(1));
    step(&mut order, 10, Input::WriteStarted { copy: 1, lease, appliance, slot }).unwrap();
    assert!(!order.has_overdue_cards(at(10 + 7200)));
    assert!(order.has_overdue_cards(at(10 + 7201 + 2)));
    assert_eq!(step(&mut order, 10 + 7300, Input::Tick), Ok(Answer::Done));
    assert_eq!(order.write_status(1), TaskStatus::Pending);
    assert!(!order.has_overdue_cards(at(10 + 7400)));
    assert_eq!(step(&mut order, 10 + 7500, verified(1, 7)), Ok(Answer::Counted));
}
