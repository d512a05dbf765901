//! The shop's behaviour, told event by event.

use std::time::Duration;

use cardshop_card::FailureNote;
use cardshop_protocol::api::CardRecord;
use cardshop_protocol::ids::{ApplianceId, ImageId, LeaseId, ObjectId, OrderId, SlotId};
use cardshop_protocol::message::{
    Action, Command, Copies, Desired, DesiredSlot, Fact, Lease, Remedy, Sentence, Settings, SlotStatus,
};
use cardshop_protocol::time::Timestamp;

use super::history::{History, Record};
use super::*;

pub(super) fn order(n: u128) -> OrderId {
    OrderId::from_parts(1, n)
}
pub(super) fn image(n: u8) -> ImageId {
    ImageId([n; 32])
}
pub(super) fn lease(n: u128, copies: Copies, min_card_bytes: u64) -> Lease {
    Lease {
        lease: LeaseId::from_parts(2, n),
        order: order(n),
        order_name: format!("order {n}"),
        image: image(n as u8),
        warehouses: vec!["http://127.0.0.1:1".into()],
        min_card_bytes,
        copies,
        done: vec![],
        total: 10,
        not_after: Timestamp::from_ms(1_000_000),
        wipe: Default::default(),
        verify: Default::default(),
        priority: 0,
    }
}
pub(super) fn desired(rev: u64, leases: Vec<Lease>) -> Desired {
    Desired { v: 1, rev, settings: Settings::default(), slots: vec![], leases }
}
pub(super) fn record(work: &Work, slot: &SlotId, card_size: u64) -> Box<CardRecord> {
    Box::new(CardRecord {
        uid: ObjectId::from_parts(3, u128::from(work.copy)),
        order: work.order,
        copy: work.copy,
        total: work.total,
        lease: work.lease,
        image: work.image,
        card_size,
        cid: None,
        appliance: ApplianceId([7; 8]),
        slot: slot.clone(),
        reader: String::new(),
        written_bytes: 1,
        verified_bytes: 1,
        write_bps: 1,
        verify_bps: 1,
        started: Timestamp::default(),
        finished: Timestamp::default(),
        passport: None,
    })
}

/// A shop of two slots, with everything it ever wanted done.
pub(super) struct World {
    pub(super) shop: Shop,
    pub(super) now: Timestamp,
    pub(super) effects: Vec<Effect>,
}

pub(super) fn slot(n: u32) -> SlotId {
    SlotId::numbered(n)
}

impl World {
    pub(super) fn new() -> Self {
        Self::with_history(History::default())
    }
    pub(super) fn with_history(history: History) -> Self {
        let now = Timestamp::from_ms(1000);
        let mut effects = Vec::new();
        let shop = Shop::start(now, history, &[slot(1), slot(2)], &mut effects);
        Self { shop, now, effects }
    }
    pub(super) fn step(&mut self, event: Event) {
        self.now = self.now + Duration::from_millis(10);
        self.shop.step(self.now, event, &mut self.effects);
    }
    pub(super) fn in_slot(&mut self, n: u32, event: SlotEvent) {
        self.step(Event::Slot { slot: slot(n), event });
    }
    /// A card goes in and is found good.
    pub(super) fn insert(&mut self, n: u32, size: u64) {
        self.insert_with(n, size, None, false);
    }
    pub(super) fn insert_with(&mut self, n: u32, size: u64, passport: Option<PassportFacts>, in_use: bool) {
        self.in_slot(n, SlotEvent::CardHere { size });
        let visit = self.last_visit(n);
        self.in_slot(
            n,
            SlotEvent::Probed { visit, finding: Finding::Card { passport, in_use, note: None, cid: None } },
        );
    }
    pub(super) fn last_visit(&self, n: u32) -> u64 {
        let visit = |effect: &Effect| match effect {
            Effect::Probe { slot: probed, visit } if *probed == slot(n) => Some(*visit),
            _ => None,
        };
        self.effects.iter().rev().find_map(visit).expect("the card is probed")
    }
    pub(super) fn last_write(&self, n: u32) -> (u64, Work) {
        let write = |effect: &Effect| match effect {
            Effect::Write { slot: written, job, work, .. } if *written == slot(n) => {
                Some((*job, (**work).clone()))
            }
            _ => None,
        };
        self.effects.iter().rev().find_map(write).expect("a card is being written")
    }
    pub(super) fn verified(&mut self, n: u32) {
        let (job, work) = self.last_write(n);
        let result = Ok(record(&work, &slot(n), 100));
        self.in_slot(n, SlotEvent::Ended { job, result });
    }
    pub(super) fn fails(&mut self, n: u32, remedy: Remedy) {
        let (job, _) = self.last_write(n);
        let result = Err(Failure::new("io_error", "it broke", remedy));
        self.in_slot(n, SlotEvent::Ended { job, result });
    }
    pub(super) fn lease(&mut self, leases: Vec<Lease>) {
        let rev = self.shop.desired().map_or(1, |d| d.rev + 1);
        self.step(Event::Desired(Box::new(desired(rev, leases))));
    }
    pub(super) fn image_ready(&mut self, n: u8) {
        self.step(Event::ImageReady { image: image(n), total: 100 });
    }
    pub(super) fn state(&self, n: u32) -> SlotStatus {
        self.shop.shown().find(|(id, _)| **id == slot(n)).expect("every slot shows a state").1.state
    }
    pub(super) fn facts(&self) -> Vec<Fact> {
        let fact = |effect: &Effect| match effect {
            Effect::Append(Record::Fact { event }) => Some(event.fact.clone()),
            _ => None,
        };
        self.effects.iter().filter_map(fact).collect()
    }
    pub(super) fn last_failure(&self) -> String {
        let code = |fact: &Fact| match fact {
            Fact::WriteFailed { fault, .. } => Some(fault.code.clone()),
            _ => None,
        };
        self.facts().iter().rev().find_map(code).expect("a write failed")
    }
    fn last_fault(&self) -> String {
        let text = |fact: &Fact| match fact {
            Fact::WriteFailed { fault, .. } => Some(fault.text.clone()),
            _ => None,
        };
        self.facts().iter().rev().find_map(text).expect("a write failed")
    }
}

pub(super) const THREE: Copies = Copies { first: 1, last: 3 };
pub(super) const ONE: Copies = Copies { first: 1, last: 1 };

#[test]
fn a_lease_becomes_verified_cards_in_any_slot() {
    use SlotStatus::*;
    let mut world = World::new();
    assert_eq!((world.state(1), world.state(2)), (Empty, Empty));
    world.lease(vec![lease(1, THREE, 50)]);
    assert_eq!((world.state(1), world.state(2)), (Wanted, Wanted));
    assert!(world.effects.iter().rev().find(|e| matches!(e, Effect::Fetch { .. })).is_some());
    world.in_slot(2, SlotEvent::CardHere { size: 100 });
    assert_eq!((world.state(1), world.state(2)), (Wanted, Checking));
    world.insert(2, 100);
    assert_eq!(world.state(2), Waiting);
    world.image_ready(1);
    assert_eq!(world.state(2), Checking);
    assert_eq!(world.last_write(2).1.copy, 1);
    world.verified(2);
    assert_eq!(world.state(2), Done);
    world.in_slot(2, SlotEvent::CardGone);
    for copy in [2, 3] {
        world.insert(1, 100);
        assert_eq!(world.last_write(1).1.copy, copy);
        world.verified(1);
        world.in_slot(1, SlotEvent::CardGone);
    }
    assert_eq!((world.state(1), world.state(2)), (Empty, Empty), "nothing is left to do");
    let verified = world.facts().iter().filter(|f| matches!(f, Fact::CardVerified { .. })).count();
    assert_eq!(verified, 3);
}

#[test]
fn only_as_many_slots_ask_for_a_card_as_there_are_copies() {
    let mut world = World::new();
    world.lease(vec![lease(1, ONE, 50)]);
    assert_eq!((world.state(1), world.state(2)), (SlotStatus::Wanted, SlotStatus::Empty));
    world.insert(2, 100);
    assert_eq!((world.state(1), world.state(2)), (SlotStatus::Empty, SlotStatus::Waiting));
}

#[test]
fn a_card_too_small_says_both_sizes_and_takes_a_smaller_image_that_comes_later() {
    let mut world = World::new();
    world.lease(vec![lease(1, THREE, 500)]);
    world.insert(1, 100);
    assert_eq!(world.state(1), SlotStatus::Unsuitable);
    let (_, shown) = world.shop.shown().next().unwrap();
    assert_eq!(shown.sentence, Some(Sentence::TooSmall { actual_bytes: 100, min_bytes: 500 }));
    assert!(shown.fault.as_ref().unwrap().text.contains("100 bytes, 500 are"));
    world.lease(vec![lease(1, THREE, 500), lease(2, ONE, 80)]);
    assert_eq!(world.state(1), SlotStatus::Waiting);
}

#[test]
fn a_write_is_on_record_before_it_begins_and_a_good_card_before_it_is_shown() {
    let mut world = World::new();
    world.lease(vec![lease(1, ONE, 50)]);
    world.image_ready(1);
    world.insert(1, 100);
    world.verified(1);
    let at = |wanted: &dyn Fn(&Effect) -> bool| world.effects.iter().position(wanted).unwrap();
    let is_fact = |e: &Effect, name: &str| matches!(e, Effect::Append(r) if format!("{r:?}").contains(name));
    let write = at(&|e| matches!(e, Effect::Write { .. }));
    let done = at(&|e| matches!(e, Effect::Show(_, s) if s.state == SlotStatus::Done));
    assert!(at(&|e| is_fact(e, "WriteStarted")) < write);
    assert!(at(&|e| is_fact(e, "CardVerified")) < done);
}

#[test]
fn removing_the_card_fails_only_that_slot_and_its_copy_is_free_when_the_thread_has_ended() {
    let mut world = World::new();
    world.lease(vec![lease(1, ONE, 50)]);
    world.image_ready(1);
    world.insert(1, 100);
    world.in_slot(1, SlotEvent::CardGone);
    assert!(world.effects.iter().any(|e| matches!(e, Effect::Stop { .. })));
    world.insert_elsewhere_waits();
    world.fails(1, Remedy::Retry);
    assert_eq!(world.last_failure(), "card_removed");
    assert_eq!(world.last_write(2).1.copy, 1, "the copy goes to the other card");
}

impl World {
    fn insert_elsewhere_waits(&mut self) {
        self.insert(2, 100);
        assert_eq!(self.state(2), SlotStatus::Idle, "the copy is still taken");
    }
}

#[test]
fn a_card_pulled_after_its_last_byte_was_verified_counts() {
    let mut world = World::new();
    world.lease(vec![lease(1, ONE, 50)]);
    world.image_ready(1);
    world.insert(1, 100);
    world.in_slot(1, SlotEvent::CardGone);
    world.verified(1);
    assert_eq!(world.state(1), SlotStatus::Empty);
    assert!(world.facts().iter().any(|f| matches!(f, Fact::CardVerified { .. })));
}

#[test]
fn a_card_put_in_before_the_old_thread_ended_is_checked_afterwards() {
    let mut world = World::new();
    world.lease(vec![lease(1, ONE, 50)]);
    world.image_ready(1);
    world.insert(1, 100);
    world.in_slot(1, SlotEvent::CardGone);
    let probes = |world: &World| world.effects.iter().filter(|e| matches!(e, Effect::Probe { .. })).count();
    world.in_slot(1, SlotEvent::CardHere { size: 90 });
    assert_eq!((probes(&world), world.state(1)), (1, SlotStatus::Checking));
    world.fails(1, Remedy::Retry);
    assert_eq!(probes(&world), 2);
}

#[test]
fn what_was_seen_of_a_card_that_is_gone_says_nothing_of_the_next() {
    let mut world = World::new();
    world.lease(vec![lease(1, ONE, 50)]);
    world.in_slot(1, SlotEvent::CardHere { size: 100 });
    let old = world.last_visit(1);
    world.in_slot(1, SlotEvent::CardHere { size: 90 });
    world.in_slot(1, SlotEvent::Probed { visit: old, finding: Finding::Locked });
    assert_eq!(world.state(1), SlotStatus::Checking);
}

#[test]
fn a_withdrawn_lease_stops_its_cards_and_starts_no_other() {
    let mut world = World::new();
    world.lease(vec![lease(1, THREE, 50)]);
    world.image_ready(1);
    world.insert(1, 100);
    world.lease(vec![]);
    assert!(world.effects.iter().any(|e| matches!(e, Effect::Stop { .. })));
    assert!(world.effects.iter().any(|e| matches!(e, Effect::Abandon(_))));
    world.fails(1, Remedy::Retry);
    assert_eq!((world.state(1), world.last_failure().as_str()), (SlotStatus::Idle, "withdrawn"));
    world.insert(2, 100);
    assert_eq!(world.state(2), SlotStatus::Idle);
}

#[test]
fn a_reserved_copy_is_not_begun_after_its_leases_end() {
    let mut world = World::new();
    let short = Lease { not_after: Timestamp::from_ms(2000), ..lease(1, ONE, 50) };
    world.lease(vec![short]);
    world.insert(1, 100);
    assert_eq!(world.state(1), SlotStatus::Waiting);
    world.now = Timestamp::from_ms(2001);
    world.image_ready(1);
    assert_eq!(world.state(1), SlotStatus::Idle);
    assert!(!world.effects.iter().any(|e| matches!(e, Effect::Write { .. })));
}

#[test]
fn a_lease_that_replaces_another_for_the_same_copy_does_not_stop_the_card() {
    let mut world = World::new();
    world.lease(vec![lease(1, ONE, 50)]);
    world.image_ready(1);
    world.insert(1, 100);
    let newer = Lease { lease: LeaseId::from_parts(9, 9), ..lease(1, ONE, 50) };
    world.lease(vec![newer.clone()]);
    assert!(!world.effects.iter().any(|e| matches!(e, Effect::Stop { .. })));
    world.verified(1);
    let Some(Fact::CardVerified { lease, record }) = world.facts().pop() else {
        panic!("{:?}", world.facts())
    };
    assert_eq!((lease, record.lease), (newer.lease, newer.lease));
}

#[test]
fn a_refused_image_calls_no_card_bad_and_is_not_asked_for_again() {
    let mut world = World::new();
    world.lease(vec![lease(1, THREE, 50)]);
    world.image_ready(1);
    world.insert(1, 100);
    let fault = Failure::new("chunk_mismatch", "chunk 7 is wrong", Remedy::CallOperator).fault;
    world.step(Event::ImageRefused { image: image(1), fault: fault.clone() });
    world.fails(1, Remedy::ReplaceCard);
    let (_, shown) = world.shop.shown().next().unwrap();
    assert_eq!((shown.state, shown.fault.as_ref()), (SlotStatus::Idle, Some(&fault)));
    assert_eq!(world.last_failure(), "chunk_mismatch");
    let (_, empty) = world.shop.shown().last().unwrap();
    assert_eq!(
        (empty.state, empty.fault.as_ref()),
        (SlotStatus::Empty, Some(&fault)),
        "no card is wanted for it"
    );
    let fetches = world.effects.iter().filter(|e| matches!(e, Effect::Fetch { .. })).count();
    let refusals = world.facts().iter().filter(|f| matches!(f, Fact::ImageRefused { .. })).count();
    assert_eq!((fetches, refusals), (1, 1));
    world.lease(vec![]);
    assert_eq!(world.shop.shown().last().unwrap().1.fault, None, "until the lease is withdrawn");
}

#[test]
fn after_a_kill_the_open_write_has_failed_and_the_copy_is_written_again() {
    let mut world = World::new();
    world.lease(vec![lease(1, THREE, 50)]);
    world.image_ready(1);
    world.insert(1, 100);
    world.verified(1);
    world.insert(2, 100);
    let history = world.shop.history().clone();
    let mut world = World::with_history(history);
    assert_eq!(world.last_failure(), "interrupted");
    assert_eq!(world.shop.history().boot(), 2);
    world.insert(2, 100);
    assert_eq!(world.state(2), SlotStatus::Idle, "nothing is written before the leases are known");
    world.lease(vec![lease(1, THREE, 50)]);
    world.image_ready(1);
    assert_eq!(world.last_write(2).1.copy, 2, "copy 1 is verified and not written again");
}

#[test]
fn a_finished_card_is_guarded_until_it_is_released_for_one_write() {
    let mut world = World::new();
    world.lease(vec![lease(1, THREE, 50)]);
    world.image_ready(1);
    world.insert(1, 100);
    let (_, work) = world.last_write(1);
    world.verified(1);
    world.in_slot(1, SlotEvent::CardGone);
    let passport = PassportFacts { uid: order(5), order: work.order, copy: work.copy };
    world.insert_with(1, 100, Some(passport), true);
    assert_eq!(world.state(1), SlotStatus::Guarded);
    let release = |n: u128| Command {
        v: 1,
        id: ObjectId::from_parts(4, n),
        deadline_s: 5,
        action: Action::Release { slot: slot(1) },
    };
    let now = world.now;
    world.step(Event::Command { command: release(1), received: now });
    assert_eq!(world.last_write(1).1.copy, 2);
}

#[test]
fn somebodys_data_asks_before_it_is_erased() {
    let mut world = World::new();
    world.lease(vec![lease(1, ONE, 50)]);
    world.insert_with(1, 100, None, true);
    assert_eq!(world.state(1), SlotStatus::Confirm);
    world.lease(vec![]);
    assert_eq!(world.state(1), SlotStatus::Idle, "nothing wants to erase it");
}

#[test]
fn a_held_slot_takes_no_work_and_says_why() {
    let mut world = World::new();
    let mut held = desired(1, vec![lease(1, THREE, 50)]);
    held.slots = vec![DesiredSlot { slot: slot(1), name: None, hold: Some("loose contact".into()) }];
    world.step(Event::Desired(Box::new(held)));
    assert_eq!((world.state(1), world.state(2)), (SlotStatus::Held, SlotStatus::Wanted));
    world.insert(1, 100);
    assert_eq!(world.state(1), SlotStatus::Held);
}

#[test]
fn each_remedy_has_its_own_face_and_a_retry_looks_at_the_card_again() {
    for (remedy, face) in [
        (Remedy::Retry, SlotStatus::Retry),
        (Remedy::ReplaceCard, SlotStatus::BadCard),
        (Remedy::ReplaceReader, SlotStatus::OutOfService),
        (Remedy::CallOperator, SlotStatus::OutOfService),
        (Remedy::Bug, SlotStatus::OutOfService),
    ] {
        let mut world = World::new();
        world.lease(vec![lease(1, ONE, 50)]);
        world.image_ready(1);
        world.insert(1, 100);
        world.fails(1, remedy);
        assert_eq!(world.state(1), face);
        assert_eq!(world.state(2), SlotStatus::Wanted, "the copy is free again");
        let action = Action::Retry { slot: slot(1) };
        let command = Command { v: 1, id: ObjectId::from_parts(4, 1), deadline_s: 5, action };
        let now = world.now;
        world.step(Event::Command { command, received: now });
        assert_eq!(world.state(1), SlotStatus::Checking);
    }
}

#[test]
fn the_operator_is_told_which_slot_to_empty_and_an_eject_lets_go_of_a_card_at_any_step() {
    let mut world = World::new();
    world.lease(vec![lease(1, THREE, 50)]);
    world.image_ready(1);
    world.insert(1, 100);
    world.insert(2, 100);
    let mut commands = 0;
    let mut eject = |world: &mut World, n: u32| {
        commands += 1;
        let id = ObjectId::from_parts(4, commands);
        let command = Command { v: 1, id, deadline_s: 5, action: Action::Eject { slot: slot(n) } };
        let received = world.now;
        world.step(Event::Command { command, received });
        let reply = world.effects.iter().rev().find_map(|e| match e {
            Effect::Publish(Message::Reply(reply)) => Some(reply.text.clone()),
            _ => None,
        });
        reply.expect("every command is answered")
    };
    let shown = |world: &World, n: u32| {
        let (_, state) = world.shop.shown().find(|(id, _)| **id == slot(n)).unwrap();
        (state.state, state.sentence.clone())
    };

    // What ends well was synced by the engine: the card can be taken at once.
    world.verified(2);
    let take = Some(Sentence::TakeCard { copy: 2, total: 10 });
    assert_eq!(shown(&world, 2), (SlotStatus::Done, take.clone()));
    assert_eq!(eject(&mut world, 2), "the card can be taken");
    assert_eq!(shown(&world, 2), (SlotStatus::Done, take), "it still says which card it is");

    // What is being written is stopped first, and is nobody's card then.
    assert_eq!(eject(&mut world, 1), "the write is stopped; take the card when the light is off");
    assert!(world.effects.iter().any(|e| matches!(e, Effect::Stop { slot: s, .. } if *s == slot(1))));
    world.fails(1, Remedy::Retry);
    assert_eq!(world.last_failure(), "ejected");
    assert_eq!(shown(&world, 1), (SlotStatus::Idle, None));
    assert_eq!(eject(&mut world, 1), "the card can be taken");
    world.in_slot(1, SlotEvent::CardGone);
    assert_eq!(eject(&mut world, 1), "there is no card");
}

#[test]
fn a_command_is_done_once_and_answered_every_time() {
    let mut world = World::new();
    let command = |n: u128, deadline_s: u32, action: Action| Command {
        v: 1,
        id: ObjectId::from_parts(4, n),
        deadline_s,
        action,
    };
    let mut answer = |command: Command, received_ms: u64| {
        world.step(Event::Command { command, received: Timestamp::from_ms(received_ms) });
        let reply = world.effects.iter().rev().find_map(|e| match e {
            Effect::Publish(Message::Reply(reply)) => Some(reply.clone()),
            _ => None,
        });
        reply.map(|r| (r.ok, r.text)).unwrap()
    };
    assert!(answer(command(1, 5, Action::Identify { slot: slot(1) }), 1000).0);
    assert!(!answer(command(2, 5, Action::Identify { slot: slot(9) }), 1000).0);
    assert_eq!(answer(command(3, 5, Action::Reboot), 1000), (false, "not on this machine".into()));
    assert_eq!(
        answer(command(4, 0, Action::Eject { slot: slot(1) }), 1000).1,
        "too late: the deadline has passed"
    );
    assert!(answer(command(1, 5, Action::Reboot), 1000).0, "a repeated id is not done again");
}

fn mismatch(note: Option<FailureNote>) -> Failure {
    let text = "the card differs from the image at offset 4096";
    Failure { note: note.map(Box::new), ..Failure::new("verify_mismatch", text, Remedy::ReplaceCard) }
}

fn noted(slots: &[u32]) -> FailureNote {
    let mut note = FailureNote::new(ObjectId::from_parts(8, 8));
    slots.iter().for_each(|n| note.add(ApplianceId([1; 8]), &slot(*n)));
    note
}

#[test]
fn a_mismatch_is_written_again_in_place_once_then_in_another_slot_and_then_the_card_is_bad() {
    let mut world = World::new();
    world.lease(vec![lease(1, ONE, 50)]);
    world.image_ready(1);
    let ends = |world: &mut World, n: u32, failure: Failure| {
        let (job, _) = world.last_write(n);
        world.in_slot(n, SlotEvent::Ended { job, result: Err(failure) });
    };
    let tells = |world: &World, what: fn(&Fact) -> bool| world.facts().iter().filter(|f| what(f)).count();
    let repeated: fn(&Fact) -> bool = |f| matches!(f, Fact::WriteRepeated { .. });
    let failed: fn(&Fact) -> bool = |f| matches!(f, Fact::WriteFailed { .. });

    world.insert(1, 100);
    ends(&mut world, 1, mismatch(None));
    assert_eq!(world.state(1), SlotStatus::Checking, "the same card is written again");
    assert_eq!((tells(&world, repeated), tells(&world, failed)), (1, 0));
    assert_eq!(world.shop.history().open_writes().count(), 1, "it is one write");
    ends(&mut world, 1, mismatch(Some(noted(&[1]))));
    assert_eq!(world.state(1), SlotStatus::Retry);
    assert!(world.last_fault().contains("put it into another slot"), "{}", world.last_fault());

    world.in_slot(1, SlotEvent::CardGone);
    world.in_slot(2, SlotEvent::CardHere { size: 100 });
    let (visit, note) = (world.last_visit(2), Some(noted(&[1])));
    let finding = Finding::Card { passport: None, in_use: false, note: note.clone(), cid: None };
    world.in_slot(2, SlotEvent::Probed { visit, finding });
    ends(&mut world, 2, mismatch(None));
    let again = world.effects.iter().rev().find_map(|effect| match effect {
        Effect::Write { again, .. } => Some(again.clone()),
        _ => None,
    });
    assert_eq!(again, Some(Some(note)), "the writer knows what the card said");
    ends(&mut world, 2, mismatch(Some(noted(&[1, 2]))));
    assert_eq!(world.state(2), SlotStatus::BadCard);
    assert!(world.last_fault().contains("the card is bad"));
    assert_eq!((tells(&world, repeated), tells(&world, failed)), (2, 2));
}

#[test]
fn a_card_that_keeps_no_note_is_bad_at_once_and_other_failures_are_not_repeated() {
    let mut world = World::new();
    world.lease(vec![lease(1, ONE, 50)]);
    world.image_ready(1);
    world.insert(1, 100);
    for expected in [SlotStatus::Checking, SlotStatus::BadCard] {
        let (job, _) = world.last_write(1);
        world.in_slot(1, SlotEvent::Ended { job, result: Err(mismatch(None)) });
        assert_eq!(world.state(1), expected);
    }
    world.in_slot(1, SlotEvent::CardGone);
    world.insert(1, 100);
    world.fails(1, Remedy::ReplaceCard);
    assert_eq!(world.state(1), SlotStatus::BadCard);
    world.in_slot(1, SlotEvent::CardGone);
    world.insert(1, 100);
    let (job, _) = world.last_write(1);
    world.in_slot(1, SlotEvent::CardGone);
    world.in_slot(1, SlotEvent::Ended { job, result: Err(mismatch(None)) });
    assert!(!world.facts().iter().skip(4).any(|f| matches!(f, Fact::WriteRepeated { .. })));
    assert_eq!(world.last_failure(), "card_removed");
}
