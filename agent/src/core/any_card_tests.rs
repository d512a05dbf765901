//! Any slot, any card: swapped, pulled and of different sizes, in every phase; a card never touches its neighbour.

use cardshop_protocol::message::{Fact, Progress, Remedy, SlotStatus, WritePhase};

use super::shop_tests::{ONE, THREE, World, lease, slot};
use super::*;

/// What a slot with a card can be at.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Phase {
    Checking,
    Waiting,
    Writing(WritePhase),
    Done,
    Failed,
}

const PHASES: [Phase; 7] = [
    Phase::Checking,
    Phase::Waiting,
    Phase::Writing(WritePhase::Wiping),
    Phase::Writing(WritePhase::Writing),
    Phase::Writing(WritePhase::Verifying),
    Phase::Done,
    Phase::Failed,
];

/// Slot 1 at a phase, slot 2 writing.
fn at(phase: Phase) -> World {
    let mut world = World::new();
    world.lease(vec![lease(1, THREE, 50)]);
    if phase == Phase::Checking {
        world.in_slot(1, SlotEvent::CardHere { size: 100 });
    } else {
        world.insert(1, 100);
    }
    if phase == Phase::Waiting {
        return world;
    }
    world.image_ready(1);
    world.insert(2, 100);
    match phase {
        Phase::Checking | Phase::Waiting => {}
        Phase::Writing(phase) => {
            let job = world.last_write(1).0;
            let progress = Progress { v: 1, phase, done: 1, total: 2, rate_bps: 1, eta_s: None };
            world.in_slot(1, SlotEvent::Progress { job, progress });
        }
        Phase::Done => world.verified(1),
        Phase::Failed => world.fails(1, Remedy::ReplaceCard),
    }
    world
}

/// The thread of slot 1, if it has one, hears that it is to stop.
fn thread_ends(world: &mut World, phase: Phase) {
    if matches!(phase, Phase::Writing(_)) {
        let job = world.last_write(1).0;
        assert!(world.effects.contains(&Effect::Stop { slot: slot(1), job }), "{phase:?}");
        world.in_slot(
            1,
            SlotEvent::Ended { job, result: Err(Failure::new("card_removed", "gone", Remedy::Retry)) },
        );
    }
}

#[test]
fn a_card_pulled_in_any_phase_frees_its_copy_and_touches_no_other_slot() {
    for phase in PHASES {
        let mut world = at(phase);
        let neighbour = (phase != Phase::Waiting).then(|| world.last_write(2));
        world.in_slot(1, SlotEvent::CardGone);
        thread_ends(&mut world, phase);
        assert!(matches!(world.state(1), SlotStatus::Wanted | SlotStatus::Empty), "{phase:?}");
        world.image_ready(1);
        world.insert(1, 100);
        let copy = world.last_write(1).1.copy;
        let verified = world.facts().iter().filter(|f| matches!(f, Fact::CardVerified { .. })).count();
        assert_eq!(verified, usize::from(phase == Phase::Done), "{phase:?}");
        if let Some((job, work)) = neighbour {
            assert_eq!(world.last_write(2).0, job, "{phase:?}: the neighbour goes on");
            assert_ne!(work.copy, copy, "{phase:?}");
            assert!(!world.effects.contains(&Effect::Stop { slot: slot(2), job }), "{phase:?}");
        }
    }
}

#[test]
fn a_card_swapped_while_nobody_looked_is_another_card_in_any_phase() {
    for phase in PHASES {
        let mut world = at(phase);
        let before = world.last_visit(1);
        // Between two looks: the next thing seen is a card of another size.
        world.in_slot(1, SlotEvent::CardHere { size: 40 });
        thread_ends(&mut world, phase);
        assert!(world.last_visit(1) > before, "{phase:?}: it is looked at");
        let (visit, finding) =
            (world.last_visit(1), Finding::Card { passport: None, in_use: false, note: None, cid: None });
        world.in_slot(1, SlotEvent::Probed { visit, finding });
        assert_eq!(world.state(1), SlotStatus::Unsuitable, "{phase:?}: too small, whatever was here before");
    }
}

#[test]
fn of_two_orders_each_card_takes_the_one_it_is_large_enough_for() {
    let mut world = World::new();
    world.lease(vec![lease(1, ONE, 50), lease(2, ONE, 500)]);
    world.image_ready(1);
    world.image_ready(2);
    world.insert(2, 100);
    world.insert(1, 1000);
    assert_eq!((world.last_write(2).1.image, world.last_write(1).1.image), {
        let image = super::shop_tests::image;
        (image(1), image(2))
    });
    world.verified(1);
    world.verified(2);
    assert_eq!((world.state(1), world.state(2)), (SlotStatus::Done, SlotStatus::Done));
}

#[test]
fn a_card_more_than_was_asked_for_is_not_written_and_a_copy_given_up_goes_to_it() {
    let mut world = World::new();
    world.lease(vec![lease(1, ONE, 50)]);
    world.image_ready(1);
    world.insert(1, 100);
    world.insert(2, 100);
    assert_eq!(world.state(2), SlotStatus::Idle, "one copy, one card");
    world.fails(1, Remedy::ReplaceCard);
    assert_eq!(world.last_write(2).1.copy, 1, "the spare card takes the copy");
    world.verified(2);
    assert_eq!((world.state(1), world.state(2)), (SlotStatus::BadCard, SlotStatus::Done));
}
