//! The operator beside an appliance: goes along its slots, sees their lights and does what they say, mostly.

use cardshop_agent::core::Event;
use cardshop_protocol::ids::SlotId;
use cardshop_protocol::message::SlotStatus;
use cardshop_protocol::token::Role;

use super::cards::{Card, Kind, Place};
use super::people::person;
use super::world::{Happening, World};

impl World {
    /// The operator beside an appliance goes along its slots.
    pub(super) fn operator_looks(&mut self, a: usize) {
        let pause = self.chance.from(10_000..60_000);
        self.after(pause, Happening::OperatorLooks(a));
        self.free_held_slots(a);
        let Some(agent) = &self.appliances[a].agent else { return };
        let shown: Vec<_> = agent.shop.shown().map(|(slot, state)| (slot.clone(), state.state)).collect();
        for (slot, status) in shown {
            if self.calm || self.chance.percent(80) {
                self.tend(a, &slot, status);
            }
        }
    }

    fn tend(&mut self, a: usize, slot: &SlotId, status: SlotStatus) {
        use SlotStatus::*;
        let card = self.appliances[a].slots[slot].card;
        match (status, card) {
            (Wanted, None) => self.put_in(a, slot),
            (Done | Guarded, Some(_)) => self.take_out(a, slot, Place::Box(a)),
            (Unsuitable | BadCard, Some(_)) => self.take_out(a, slot, Place::Bin),
            (Retry | OutOfService, Some(card)) => {
                // Into another slot, as the light says; somebody who does not look uses the same.
                self.cards[card].released = true;
                self.take_out(a, slot, Place::Hand(a));
            }
            (Confirm, Some(card)) => {
                if self.chance.percent(60) {
                    self.cards[card].released = true;
                    self.tell_agent(a, Event::Pressed(slot.clone()));
                } else {
                    self.take_out(a, slot, Place::Bin);
                }
            }
            (Idle | Held, Some(card)) => {
                let finished = self.cards[card].finished.is_some();
                self.take_out(a, slot, if finished { Place::Box(a) } else { Place::Hand(a) });
            }
            _ => {}
        }
    }

    fn put_in(&mut self, a: usize, slot: &SlotId) {
        let in_hand = self.cards.iter().position(|card| card.place == Place::Hand(a));
        let card = in_hand.unwrap_or_else(|| {
            let kind = match &mut self.supply[a] {
                Some((kind, left)) if *left > 0 && !self.calm => {
                    *left -= 1;
                    *kind
                }
                _ => Kind::Good,
            };
            self.cards.push(Card::new(kind, Place::Hand(a)));
            self.cards.len() - 1
        });
        self.insert(a, slot, card);
    }

    fn insert(&mut self, a: usize, slot: &SlotId, card: usize) {
        self.cards[card].place = Place::Slot(a, slot.clone());
        self.appliances[a].slots.get_mut(slot).expect("a slot it has").card = Some(card);
        let kind = self.cards[card].kind;
        self.say(&format!("a {kind:?} card goes into a{a}/{slot}"));
        self.look_at_slot(a, slot);
    }

    pub(super) fn take_out(&mut self, a: usize, slot: &SlotId, to: Place) {
        let Some(card) = self.appliances[a].slots.get_mut(slot).and_then(|slot| slot.card.take()) else {
            return;
        };
        // Whoever pulls out a finished card sees that it is one.
        let is_finished = self.cards[card].finished.is_some() && to == Place::Hand(a);
        let to = if is_finished { Place::Box(a) } else { to };
        self.say(&format!("the card of a{a}/{slot} goes to {to:?}"));
        self.cards[card].place = to;
        self.look_at_slot(a, slot);
    }

    /// Somebody puts a finished card where a new one is wanted.
    pub(super) fn put_back(&mut self, a: usize) {
        let boxed = self.cards.iter().position(|card| card.place == Place::Box(a));
        let free =
            self.appliances[a].slots.iter().find(|(_, slot)| slot.card.is_none() && slot.unplugged == 0);
        if let (Some(card), Some((slot, _))) = (boxed, free) {
            let slot = slot.clone();
            self.insert(a, &slot, card);
        }
    }

    pub(super) fn hold_slot(&mut self, a: usize, slot: SlotId, hold: bool) {
        let (who, id) = (person("olga", Role::Operator), self.appliances[a].id);
        let answer = self.ask_centre(|s| async move {
            if hold {
                s.hold_slot(&who, id, slot, None).await.map(|_| ())
            } else {
                s.resume_slot(&who, id, slot).await.map(|_| ())
            }
        });
        self.heard("hold", answer);
    }

    /// What the scheduler holds because cards failed there, or a person held, goes on.
    fn free_held_slots(&mut self, a: usize) {
        let id = self.appliances[a].id;
        let told = self.last_truth.as_ref().and_then(|t| t.told.iter().find(|(other, _)| *other == id));
        let held = told.map(|(_, desired)| desired.slots.clone()).unwrap_or_default();
        for slot in held.into_iter().filter(|slot| slot.hold.is_some()) {
            if self.calm || self.chance.percent(10) {
                self.hold_slot(a, slot.slot, false);
            }
        }
    }
}
