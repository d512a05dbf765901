//! Slots as places, told event by event: names, holds, readers that come, go and move, the machine switched off.

use std::time::Duration;

use cardshop_protocol::ids::ObjectId;
use cardshop_protocol::led::LedPattern;
use cardshop_protocol::message::{Action, Alert, Command, DesiredSlot, Remedy, Sentence, SlotStatus};

use super::book::{Book, Counts, Moved};
use super::naming::Question;
use super::shop_tests::{ONE, THREE, World, desired, lease, slot};
use super::*;

/// Two readers, one in each port.
fn bench() -> World {
    let mut world = World::new();
    let mut book = Book::default();
    book.bind("pci/usb-1/0", "Genesys");
    book.bind("pci/usb-2/0", "Genesys");
    world.shop.open_book(book, true);
    for n in [1, 2] {
        world.in_slot(n, SlotEvent::CardGone);
    }
    world
}

fn wish(world: &mut World, wish: Wish) -> String {
    world.step(Event::Wish(wish));
    let told = world.effects.iter().rev().find_map(|effect| match effect {
        Effect::Tell(text) => Some(text.clone()),
        _ => None,
    });
    told.expect("a wish is answered")
}

fn name(world: &mut World, n: u32, name: &str) -> String {
    wish(world, Wish::Name { slot: slot(n), name: Some(name.into()) })
}

fn act(world: &mut World, id: u128, action: Action) -> (bool, String) {
    let command = Command { v: 1, id: ObjectId::from_parts(9, id), deadline_s: 9, action };
    world.step(Event::Command { command, received: world.now });
    let reply = world.effects.iter().rev().find_map(|effect| match effect {
        Effect::Publish(Message::Reply(reply)) => Some((reply.ok, reply.text.clone())),
        _ => None,
    });
    reply.expect("a command is answered")
}

/// What was last said of an alert.
fn alert(world: &World, wanted: &str) -> Option<Alert> {
    let said = world.effects.iter().rev().find_map(|effect| match effect {
        Effect::Publish(Message::Alert { code, alert }) if code == wanted => Some(alert.clone()),
        _ => None,
    });
    said.flatten()
}

fn kept(world: &World) -> &Book {
    let book = world.effects.iter().rev().find_map(|effect| match effect {
        Effect::KeepBook(book) => Some(book),
        _ => None,
    });
    book.expect("the book is kept")
}

fn pattern(world: &World, n: u32) -> LedPattern {
    world.shop.shown().find(|(id, _)| **id == slot(n)).expect("it shows a state").1.led.pattern
}

fn after(world: &mut World, seconds: u64) {
    world.now = world.now + Duration::from_secs(seconds);
    world.step(Event::Tick);
}

#[test]
fn naming_asks_for_a_card_in_each_slot_and_writes_none_of_them() {
    let mut world = bench();
    world.lease(vec![lease(1, THREE, 50)]);
    world.image_ready(1);
    wish(&mut world, Wish::NameAll { on: true });
    assert_eq!(world.shop.bench().question, Some(Question::PutIn("A".into())));
    world.insert(2, 100);
    assert_eq!(world.state(2), SlotStatus::Held, "what shows a slot is not written");
    assert_eq!(pattern(&world, 2), LedPattern::Strobe, "this one");
    assert_eq!(world.shop.bench().question, Some(Question::PutIn("B".into())));
    world.in_slot(2, SlotEvent::CardGone);
    world.insert(2, 100);
    assert_eq!(kept(&world).names().len(), 1, "no slot has two names");
    assert!(!world.effects.iter().any(|e| matches!(e, Effect::Write { .. })));
    world.insert(1, 100);
    assert_eq!((kept(&world).name(&slot(2)), kept(&world).name(&slot(1))), (Some("A"), Some("B")));
    assert_eq!(world.shop.bench().question, None, "all have a name");
    assert_eq!(world.last_write(2).1.copy, 1, "and now the cards that lie here are written");
}

#[test]
fn a_slot_is_named_while_its_light_strobes_and_the_schedulers_name_counts_more() {
    let mut world = bench();
    world.step(Event::Connected);
    name(&mut world, 1, "Left");
    assert_eq!(pattern(&world, 1), LedPattern::Strobe);
    after(&mut world, 4);
    assert_eq!(pattern(&world, 1), LedPattern::Off);
    assert_eq!(name(&mut world, 2, "left"), "slot s01 is called that already");
    let shown = |world: &World| world.shop.bench().slots[0].name.clone();
    assert_eq!(shown(&world).as_deref(), Some("Left"));
    let mut told = desired(7, vec![]);
    told.slots = vec![DesiredSlot { slot: slot(1), name: Some("Window".into()), hold: None }];
    world.step(Event::Desired(Box::new(told)));
    assert_eq!(shown(&world).as_deref(), Some("Window"));
    assert_eq!(name(&mut world, 2, "window"), "slot s01 is called that already");
}

#[test]
fn a_slot_whose_reader_is_away_raises_an_alert_and_is_back_with_its_name() {
    let mut world = bench();
    name(&mut world, 1, "A");
    world.step(Event::Connected);
    world.in_slot(1, SlotEvent::ReaderGone);
    assert_eq!(world.state(1), SlotStatus::Absent);
    assert_eq!(alert(&world, "slot_missing_s01"), None, "a hub that is reset is no alarm");
    after(&mut world, 11);
    let raised = alert(&world, "slot_missing_s01").expect("it is missed");
    assert!(raised.text.contains("A (s01)") && raised.slot == Some(slot(1)), "{raised:?}");
    world.effects.clear();
    after(&mut world, 60);
    assert!(!world.effects.iter().any(|e| matches!(e, Effect::Publish(Message::Alert { .. }))), "once");
    world.step(Event::Connected);
    assert_eq!(alert(&world, "slot_missing_s01"), Some(raised), "said again to a broker that forgot");
    world.lease(vec![lease(1, ONE, 50)]);
    world.in_slot(1, SlotEvent::CardGone);
    assert_eq!(alert(&world, "slot_missing_s01"), None);
    assert_eq!(
        (world.state(1), world.shop.bench().slots[0].name.as_deref()),
        (SlotStatus::Wanted, Some("A"))
    );
}

#[test]
fn a_reader_plugged_in_elsewhere_asks_to_be_moved_and_takes_its_name_along() {
    let mut world = bench();
    name(&mut world, 1, "A");
    world.in_slot(1, SlotEvent::ReaderGone);
    world.step(Event::Reader { key: "pci/usb-7/0".into(), reader: "Genesys".into() });
    world.in_slot(3, SlotEvent::CardGone);
    let asked = alert(&world, "reader_moved_s02").or(alert(&world, "reader_moved_s03")).expect("it is asked");
    assert!(asked.text.contains("A (s01)"), "{asked:?}");
    wish(&mut world, Wish::Move(Moved { slot: slot(1), to: slot(3) }));
    assert!(world.effects.contains(&Effect::Forget(slot(3))));
    assert_eq!(kept(&world).slot("pci/usb-7/0"), Some(slot(1)));
    assert_eq!(world.shop.bench().slots.len(), 2);
    world.in_slot(1, SlotEvent::CardGone);
    assert_eq!(alert(&world, "reader_moved_s03"), None);
    assert_eq!(world.shop.bench().slots[0].name.as_deref(), Some("A"));
}

#[test]
fn slots_are_removed_held_and_reset_and_a_machine_that_is_off_begins_nothing() {
    let mut world = bench();
    world.lease(vec![lease(1, THREE, 50)]);
    world.image_ready(1);
    assert!(wish(&mut world, Wish::Remove { slot: slot(2) }).contains("pull it out first"));
    wish(&mut world, Wish::Hold { slot: slot(1), hold: true });
    assert_eq!((world.state(1), kept(&world).hold(&slot(1)).is_some()), (SlotStatus::Held, true));
    wish(&mut world, Wish::Hold { slot: slot(1), hold: false });
    assert_eq!(world.state(1), SlotStatus::Wanted);
    wish(&mut world, Wish::Switch { on: false });
    world.insert(1, 100);
    let state = world.shop.shown().next().unwrap().1;
    assert_eq!(
        state.sentence,
        Some(Sentence::OutOfService { reason: "the appliance is switched off".into() })
    );
    assert!(!kept(&world).is_on(), "it stays off over a restart");
    wish(&mut world, Wish::Switch { on: true });
    assert_eq!(world.last_write(1).1.copy, 1);
    world.in_slot(2, SlotEvent::ReaderGone);
    wish(&mut world, Wish::Remove { slot: slot(2) });
    assert!(world.effects.contains(&Effect::Forget(slot(2))));
    name(&mut world, 1, "A");
    wish(&mut world, Wish::ResetNames);
    assert!(kept(&world).names().is_empty() && kept(&world).all().count() == 1);
}

#[test]
fn a_restart_waits_for_the_cards_that_are_being_written_and_begins_no_other() {
    let mut world = bench();
    world.lease(vec![lease(1, THREE, 50)]);
    world.image_ready(1);
    world.insert(1, 100);
    assert!(act(&mut world, 1, Action::Reboot).0);
    world.insert(2, 100);
    assert!(!world.effects.contains(&Effect::Reboot));
    assert_eq!(world.state(2), SlotStatus::Held);
    world.verified(1);
    assert_eq!(world.effects.iter().filter(|e| **e == Effect::Reboot).count(), 1);
    let mut elsewhere = World::new();
    assert_eq!(act(&mut elsewhere, 1, Action::Reboot), (false, "not on this machine".into()));
}

#[test]
fn a_button_at_a_slot_allows_to_erase_the_card_that_asks_and_says_which_one_it_is_otherwise() {
    let mut world = bench();
    world.lease(vec![lease(1, ONE, 50)]);
    world.image_ready(1);
    world.step(Event::Pressed(slot(2)));
    assert_eq!(pattern(&world, 2), LedPattern::Strobe);
    world.insert_with(1, 100, None, true);
    assert_eq!(world.state(1), SlotStatus::Confirm);
    world.step(Event::Pressed(slot(1)));
    assert_eq!(world.last_write(1).1.copy, 1);
}

#[test]
fn each_slot_counts_what_became_of_its_cards() {
    let mut world = bench();
    world.lease(vec![lease(1, THREE, 50)]);
    world.image_ready(1);
    world.insert(1, 100);
    world.verified(1);
    world.in_slot(1, SlotEvent::CardGone);
    world.insert(1, 100);
    world.fails(1, Remedy::ReplaceCard);
    assert_eq!(kept(&world).counts(&slot(1)), Counts { verified: 1, failed: 1 });
    assert_eq!(world.shop.bench().slots[1].counts, Counts::default());
}
