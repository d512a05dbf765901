//! The shop against the world outside: connections, acknowledgements, leases that change, absurd messages.

use cardshop_protocol::ids::{LeaseId, ObjectId};
use cardshop_protocol::message::{Action, Command, Copies, DesiredSlot, Lease, Remedy};

use super::shop_tests::{ONE, THREE, World, desired, image, lease, order, slot};
use super::*;

#[test]
fn on_connect_everything_retained_is_published_again_and_facts_go_on_from_the_acknowledgement() {
    let mut world = World::new();
    world.lease(vec![lease(1, ONE, 50)]);
    world.effects.clear();
    world.step(Event::Connected);
    let shown = world.effects.iter().filter(|e| matches!(e, Effect::Show(..))).count();
    assert!(shown >= 2, "{:?}", world.effects);
    assert!(world.effects.iter().any(|e| matches!(e, Effect::Publish(Message::Reported(_)))));
    assert!(world.effects.iter().any(|e| matches!(e, Effect::Publish(Message::Fact(f)) if f.n == 1)));
    world.step(Event::Acked(1));
    world.effects.clear();
    world.step(Event::Disconnected);
    world.step(Event::Connected);
    assert!(!world.effects.iter().any(|e| matches!(e, Effect::Publish(Message::Fact(_)))));
}

#[test]
fn a_card_that_waits_for_an_old_thread_is_not_looked_at_because_a_person_asks() {
    let mut world = World::new();
    world.lease(vec![lease(1, THREE, 50)]);
    world.image_ready(1);
    world.insert(1, 100);
    world.in_slot(1, SlotEvent::CardGone);
    world.in_slot(1, SlotEvent::CardHere { size: 100 });
    world.effects.clear();
    for (id, action) in [(1, Action::Eject { slot: slot(1) }), (2, Action::Retry { slot: slot(1) })] {
        let command = Command { v: 1, id: ObjectId::from_parts(4, id), deadline_s: 9, action };
        world.step(Event::Command { command, received: world.now });
    }
    assert!(!world.effects.iter().any(|e| matches!(e, Effect::Probe { .. })), "{:?}", world.effects);
    world.step(Event::Slot {
        slot: slot(1),
        event: SlotEvent::Ended { job: 1, result: Err(Failure::new("io_error", "gone", Remedy::Retry)) },
    });
    assert!(world.effects.iter().any(|e| matches!(e, Effect::Probe { .. })));
}

#[test]
fn a_lost_journal_costs_no_card_that_was_verified_since() {
    let mut world = World::new();
    world.lease(vec![lease(1, ONE, 50)]);
    world.image_ready(1);
    world.insert(1, 100);
    world.verified(1);
    world.step(Event::Connected);
    world.effects.clear();
    // The scheduler has 500 facts of this appliance's earlier life.
    world.step(Event::Acked(500));
    let sent: Vec<u64> = world
        .effects
        .iter()
        .filter_map(|e| match e {
            Effect::Publish(Message::Fact(fact)) => Some(fact.n),
            _ => None,
        })
        .collect();
    assert_eq!(sent, [501, 502, 503], "started, write started, card verified");
}

#[test]
fn numbers_and_texts_of_any_size_are_harmless() {
    let mut world = World::new();
    world.step(Event::Connected);
    world.step(Event::Acked(u64::MAX));
    let mut wanted = desired(1, vec![lease(1, Copies { first: 0, last: u32::MAX }, 50)]);
    wanted.leases[0].done = (0..10_000).rev().collect();
    wanted.slots = vec![DesiredSlot { slot: slot(2), name: None, hold: Some("x".repeat(60_000)) }];
    world.step(Event::Desired(Box::new(wanted)));
    world.step(Event::UnreadableDesired("y".repeat(60_000)));
    world.image_ready(1);
    world.insert(1, 100);
    assert_eq!(world.last_write(1).1.copy, 10_000);
    for effect in &world.effects {
        let size = match effect {
            Effect::Show(_, state) => serde_json::to_vec(state).unwrap().len(),
            Effect::Publish(Message::Reported(reported)) => serde_json::to_vec(reported).unwrap().len(),
            _ => 0,
        };
        assert!(size < 4096, "{size} bytes");
    }
}

#[test]
fn a_lease_that_names_another_warehouse_moves_the_fetch_there_once() {
    let mut world = World::new();
    world.lease(vec![lease(1, ONE, 50)]);
    world.effects.clear();
    let moved = Lease { warehouses: vec!["http://127.0.0.1:2".into()], ..lease(1, ONE, 50) };
    let other = Lease { lease: LeaseId::from_parts(2, 7), order: order(7), ..lease(1, ONE, 50) };
    world.lease(vec![moved.clone(), other.clone()]);
    world.lease(vec![moved.clone(), other]);
    let fetches: Vec<_> = world.effects.iter().filter(|e| matches!(e, Effect::Fetch { .. })).collect();
    assert_eq!(fetches, [&Effect::Fetch { image: image(1), warehouses: moved.warehouses }]);
}

#[test]
fn what_keeps_an_image_from_arriving_is_reported_by_its_name_until_it_is_over() {
    let mut world = World::new();
    world.lease(vec![lease(1, ONE, 50)]);
    world.step(Event::Connected);
    let errors = |world: &World| {
        let reported = world.effects.iter().rev().find_map(|effect| match effect {
            Effect::Publish(Message::Reported(reported)) => Some(reported.errors.clone()),
            _ => None,
        });
        reported.expect("it was reported")
    };
    let trouble = |n, text: Option<&str>| Event::ImageTrouble {
        image: image(n),
        trouble: Trouble::CacheFull,
        text: text.map(str::to_owned),
    };
    world.step(trouble(1, Some("9 MB more are needed")));
    let told = errors(&world);
    assert!(told.len() == 1 && told[0].starts_with("cache_full: image "), "{told:?}");
    world.step(trouble(1, None));
    assert!(errors(&world).is_empty());
    // Of an image that nobody needs any more nothing is told, and what was told goes with it.
    world.step(trouble(7, Some("late news")));
    world.step(trouble(1, Some("again")));
    assert_eq!(errors(&world).len(), 1);
    world.lease(vec![]);
    assert!(errors(&world).is_empty());
}
