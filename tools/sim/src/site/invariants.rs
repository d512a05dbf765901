//! What must be true after every step, whatever happened. Some of it is asked where it happens (a record that is written
//! down, a state that is shown), the rest of the scheduler's disk whenever that has changed.

use std::collections::{BTreeMap, BTreeSet};

use cardshop_agent::core::history::Record;
use cardshop_protocol::api::CardRecord;
use cardshop_protocol::ids::{ObjectId, OrderId, SlotId};
use cardshop_protocol::led::{Overlay, led};
use cardshop_protocol::message::{Fact, SlotState, SlotStatus};
use cardshop_protocol::topic::{ApplianceTopic, Topic};
use cardshop_scheduler::Truth;
use cardshop_scheduler::core::order::{Order, OrderKind, OrderStatus, TaskStatus};

use super::broker::Party;
use super::cards::{Finished, Place, passport_on};
use super::world::World;

/// What was true of an order when it was looked at last: it only grows.
#[derive(Debug, Clone, Copy)]
pub(super) struct Before {
    verified: u32,
    shipped: u32,
    ended: Option<OrderStatus>,
}

/// An order as its manager remembers it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Placed {
    pub(super) quantity: u32,
    pub(super) before: Option<Before>,
}

/// True when nothing happens to it any more, whoever comes.
fn is_final(status: OrderStatus) -> bool {
    matches!(status, OrderStatus::Shipped | OrderStatus::Canceled | OrderStatus::Expired)
}

impl World {
    /// A record that an agent is about to write down.
    pub(super) fn check_record(&mut self, a: usize, record: &Record) {
        let Record::Fact { event } = record else { return };
        let expected = self.appliances[a].history().last() + 1;
        if event.n != expected {
            self.fail(&format!("a{a} numbers a fact {}, the next is {expected}", event.n));
        }
        if let Fact::CardVerified { record, .. } = &event.fact {
            self.check_verified(a, record);
        }
    }

    /// A verified card equals its image, says what it is, and is in the slot that it is said to be in.
    fn check_verified(&mut self, a: usize, record: &CardRecord) {
        let what = format!("copy {} of {} in a{a}/{}", record.copy, record.order, record.slot);
        let Some(card) = self.appliances[a].slots[&record.slot].card else {
            return self.fail(&format!("{what} is verified without a card"));
        };
        let bytes = self.cards[card].bytes();
        let holds: Vec<_> =
            self.images.values().filter(|image| image.is_on(&bytes)).map(|i| i.id()).collect();
        if holds != [record.image] {
            return self.fail(&format!("{what} is verified and the card holds {holds:?}"));
        }
        let passport = passport_on(&bytes);
        let fits = passport.as_ref().is_some_and(|p| {
            (p.uid, p.order, p.copy, p.image) == (record.uid, record.order, record.copy, record.image)
                && p.is_signed_by(&self.appliances[a].key.verifying_key())
        });
        if !fits || passport != record.passport {
            return self.fail(&format!("{what} is verified and its passport is {passport:?}"));
        }
        if self.verified.insert(record.uid, (record.order, record.copy, card)).is_some() {
            return self.fail(&format!("{what}: card {} is on record twice", record.uid));
        }
        self.cards[card].finished =
            Some(Finished { uid: record.uid, order: record.order, copy: record.copy });
        self.say(&format!("{what} is verified"));
    }

    /// A card that counts and is not sent is overwritten only when a person said so.
    pub(super) fn check_overwrite(&mut self, a: usize, slot: &SlotId, card: usize) {
        let Some(finished) = self.cards[card].finished.filter(|_| !self.cards[card].released) else { return };
        let Some(order) = self.last_truth.as_ref().and_then(|t| order_of(t, finished.order)) else { return };
        let counts = order.writes.values().any(|write| write.card == Some(finished.uid));
        if counts && order.canceled.is_none() {
            let Finished { order, copy, .. } = finished;
            self.fail(&format!("a{a}/{slot} overwrites the finished copy {copy} of {order}"));
        }
    }

    /// A slot shows something: its light is that of its state, and its state that of its card.
    pub(super) fn check_shown(&mut self, a: usize, slot: &SlotId, state: &SlotState) {
        let lights = [Overlay::None, Overlay::Identify, Overlay::Detached].map(|over| led(state.state, over));
        if !lights.contains(&state.led) {
            self.fail(&format!("a{a}/{slot} shows {:?} with the light {:?}", state.state, state.led));
        }
        if state.state == SlotStatus::Done {
            let finished = self.appliances[a].slots[slot].card.and_then(|card| self.cards[card].finished);
            let shown = state.task.map(|task| (task.order, task.copy));
            if finished.map(|f| (f.order, Some(f.copy))) != shown {
                self.fail(&format!("a{a}/{slot} says take {shown:?}, the card is {finished:?}"));
            }
        }
        self.say(&format!("a{a}/{slot} is {:?}", state.state));
    }

    /// What an agent hears to be stored is stored.
    pub(super) fn check_ack(&mut self, a: usize, upto: u64) {
        let id = self.appliances[a].id;
        let stored = self.last_truth.as_ref().and_then(|t| t.applied.get(&id).copied()).unwrap_or(0);
        // The newest truth may be younger than the message, never older.
        if upto > stored {
            self.fail(&format!("a{a} hears that {upto} facts are stored, {stored} are"));
        }
        self.appliances[a].acked = self.appliances[a].acked.max(upto);
    }

    /// Looks at the scheduler's disk, when it has changed.
    pub(super) fn check_truth(&mut self) {
        let commands = self.centre.world.commands();
        if commands == self.commands_checked {
            return;
        }
        self.commands_checked = commands;
        let Some(scheduler) = &self.centre.scheduler else { return };
        let truth = match scheduler.simulated_truth() {
            Ok(truth) => truth,
            Err(error) => return self.fail(&format!("the scheduler's disk cannot be read: {error}")),
        };
        self.check_orders(&truth);
        self.check_leases(&truth);
        self.check_units(&truth);
        self.last_truth = Some(truth);
    }

    fn check_orders(&mut self, truth: &Truth) {
        for id in self.placed.keys().copied().collect::<Vec<_>>() {
            if order_of(truth, id).is_none() {
                self.fail(&format!("order {id} is lost"));
            }
        }
        let mut counted = BTreeMap::new();
        for order in &truth.orders {
            self.check_order(order);
            for (copy, write) in order.writes.iter().filter(|(_, w)| w.status == TaskStatus::Succeeded) {
                self.check_counted(order.id, *copy, write.card, &mut counted);
            }
        }
        for (uid, place) in &truth.cards {
            let uid: ObjectId = uid.parse().expect("ids of records are ids");
            if self.verified.get(&uid).is_none_or(|(order, copy, _)| (order, copy) != (&place.0, &place.1)) {
                self.fail(&format!("the record of card {uid} says {place:?}, nobody verified that"));
            }
        }
    }

    fn check_counted(
        &mut self,
        order: OrderId,
        copy: u32,
        card: Option<ObjectId>,
        counted: &mut BTreeMap<ObjectId, (OrderId, u32)>,
    ) {
        let Some(uid) = card else {
            return self.fail(&format!("copy {copy} of {order} counts without a card"));
        };
        if self.verified.get(&uid).is_none_or(|(o, c, _)| (*o, *c) != (order, copy)) {
            self.fail(&format!("copy {copy} of {order} counts by card {uid}, nobody verified that"));
        }
        if let Some(other) = counted.insert(uid, (order, copy)) {
            self.fail(&format!("card {uid} counts as {other:?} and as copy {copy} of {order}"));
        }
    }

    fn check_order(&mut self, order: &Order) {
        let (id, status) = (order.id, order.status(self.centre_now()));
        let (verified, shipped) = (order.verified(), order.shipped());
        if shipped > verified {
            self.fail(&format!("{shipped} of {id} are shipped, {verified} verified"));
        }
        if order.kind == OrderKind::Physical && status == OrderStatus::Shipped && shipped != order.quantity {
            self.fail(&format!("{id} is shipped with {shipped} of {} cards", order.quantity));
        }
        let Some(placed) = self.placed.get(&id).copied() else {
            // Placed by somebody who never heard the answer.
            if self.unheard_orders == 0 {
                return self.fail(&format!("nobody placed {id}"));
            }
            self.unheard_orders -= 1;
            self.placed.insert(id, Placed { quantity: order.quantity, before: None });
            return;
        };
        if placed.quantity != order.quantity {
            self.fail(&format!("{id} has {} copies, {} were ordered", order.quantity, placed.quantity));
        }
        if let Some(before) = placed.before {
            if verified < before.verified || shipped < before.shipped {
                self.fail(&format!("{id} had {before:?}, and has {verified} verified and {shipped} shipped"));
            }
            if before.ended.is_some_and(|ended| ended != status) {
                self.fail(&format!("{id} was {:?} and is {status:?}", before.ended));
            }
        }
        let ended = Some(status).filter(|status| is_final(*status));
        self.placed.insert(id, Placed { before: Some(Before { verified, shipped, ended }), ..placed });
    }

    /// No two live leases share a copy.
    fn check_leases(&mut self, truth: &Truth) {
        let mut held: BTreeMap<(OrderId, u32), usize> = BTreeMap::new();
        for (at, (_, desired)) in truth.told.iter().enumerate() {
            for lease in &desired.leases {
                for copy in lease.copies.first..=lease.copies.last {
                    if held.insert((lease.order, copy), at).is_some() {
                        self.fail(&format!("copy {copy} of {} is leased twice", lease.order));
                    }
                }
            }
        }
    }

    /// What organizations have and what their orders hold stays the same together.
    fn check_units(&mut self, truth: &Truth) {
        let held: u64 = truth.orders.iter().map(|order| order.units_held).sum();
        let free: u64 = truth.organizations.iter().map(|organization| organization.units).sum();
        if held + free != self.units {
            self.fail(&format!("{free} units are free and {held} held, there were {}", self.units));
        }
    }

    /// True when everything has come to its end: what a life is over by.
    pub(super) fn is_over(&self) -> bool {
        let Some(truth) = self.last_truth.as_ref().filter(|_| self.centre.is_running()) else { return false };
        let now = self.centre_now();
        let ended = |order: &Order| match order.status(now) {
            // It waits for its date.
            OrderStatus::Available => true,
            status => is_final(status),
        };
        truth.orders.iter().all(ended) && (0..self.appliances.len()).all(|a| self.is_settled(a, truth))
    }

    fn is_settled(&self, a: usize, truth: &Truth) -> bool {
        let appliance = &self.appliances[a];
        if appliance.off > 0 {
            return true;
        }
        let Some(agent) = &appliance.agent else { return false };
        let stored = truth.applied.get(&appliance.id).copied().unwrap_or(0);
        agent.shop.history().last() == stored
            && agent.shop.is_quiet()
            && self.lines.get(&Party::Appliance(a)).is_some_and(|line| line.session.is_some())
    }

    /// At the end of a life: every order has reached its end, every fact is stored, and the broker keeps what every slot
    /// shows.
    pub(super) fn check_end(&mut self) {
        let Some(truth) = self.last_truth.take() else { return self.fail("the scheduler never ran") };
        let now = self.centre_now();
        let open = truth.orders.iter().filter(|o| !is_final(o.status(now)));
        for order in open.filter(|o| o.status(now) != OrderStatus::Available).collect::<Vec<_>>() {
            let (status, hold, creation) = (order.status(now), &order.hold, &order.creation.status);
            let text = format!(
                "{} waits for nobody: {status:?}, {} of {} verified, {} shipped, hold {hold:?}, creation {creation:?}",
                order.id,
                order.verified(),
                order.quantity,
                order.shipped()
            );
            self.fail(&text);
        }
        for a in 0..self.appliances.len() {
            if self.appliances[a].off == 0 && !self.is_settled(a, &truth) {
                self.fail(&format!("a{a} has facts or cards that nobody hears of"));
            }
            self.check_retained(a);
        }
        self.check_parcels(&truth);
    }

    fn check_retained(&mut self, a: usize) {
        let Some(agent) = &self.appliances[a].agent else { return };
        let id = self.appliances[a].id;
        let shown: Vec<_> = agent.shop.shown().map(|(slot, state)| (slot.clone(), state.clone())).collect();
        for (slot, state) in shown {
            let topic = Topic::Appliance(id, ApplianceTopic::SlotState(slot.clone())).to_string();
            let kept = self.broker.retained(&topic).and_then(|p| serde_json::from_slice::<SlotState>(p).ok());
            if kept.as_ref() != Some(&state) {
                let kept = kept.map(|kept| kept.state);
                self.fail(&format!("a{a}/{slot} shows {:?}, the broker keeps {kept:?}", state.state));
            }
        }
    }

    /// In the parcels of an order are as many cards as were ordered, each with its image, each another copy.
    fn check_parcels(&mut self, truth: &Truth) {
        for order in truth.orders.iter().filter(|o| o.kind == OrderKind::Physical) {
            let sent = self.cards.iter().filter(|card| card.place == Place::Sent);
            let sent: Vec<_> = sent.filter(|c| c.finished.is_some_and(|f| f.order == order.id)).collect();
            let copies: BTreeSet<u32> = sent.iter().filter_map(|c| c.finished).map(|f| f.copy).collect();
            let image = order.image.as_ref().and_then(|image| self.images.get(&image.id));
            let right = sent.iter().all(|card| image.is_some_and(|image| image.is_on(&card.bytes())));
            if sent.len() != order.shipped() as usize || copies.len() != sent.len() || !right {
                let text = format!(
                    "{} says {} shipped; in its parcels are copies {copies:?} on {} cards, right: {right}",
                    order.id,
                    order.shipped(),
                    sent.len()
                );
                return self.fail(&text);
            }
        }
    }
}

/// An order of the truth.
pub(super) fn order_of(truth: &Truth, id: OrderId) -> Option<&Order> {
    truth.orders.iter().find(|order| order.id == id)
}
