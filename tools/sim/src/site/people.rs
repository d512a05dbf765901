//! The people and the creators of a site. They see what a person sees (lights, lists, boxes of cards) and act in their own
//! time; once the bad times are over they do what they should.

use cardshop_agent::core::{Event, Failure, Work};
use cardshop_card::FailureNote;
use cardshop_protocol::api::{CardRecord, CreationPhase, CreationReport, CreationTask};
use cardshop_protocol::ids::{ImageId, OrderId, SlotId, TaskId};
use cardshop_protocol::message::SlotStatus;
use cardshop_protocol::token::Role;
use cardshop_scheduler::core::order::{Order, OrderStatus};
use cardshop_scheduler::core::rights::Principal;
use cardshop_scheduler::core::views::OrderView;
use cardshop_scheduler::{Scheduler, SchedulerError, StoreError};
use serde_json::json;

use super::cards::{Card, Kind, Place, Written};
use super::faults::Clash;
use super::images::Image;
use super::invariants::{Placed, order_of};
use super::world::{Happening, Plant, World};

/// The channel everybody works for.
pub(super) const CHANNEL: &str = "default";
/// Who orders for an organization with units, and who for nobody.
pub(super) const MANAGERS: [&str; 2] = ["ada", "bob"];
/// How many creators there are.
pub(super) const CREATORS: usize = 2;
/// What a creator needs in all, of which it reports a part at a time, milliseconds.
const BUILD_STEP_MS: u64 = 20_000;

/// One creator.
#[derive(Default)]
pub(super) struct Creator {
    task: Option<CreationTask>,
    steps_left: u64,
    pub(super) silent: u32,
    pub(super) fails: Option<bool>,
    pub(super) lies: bool,
}

pub(super) fn person(name: &str, role: Role) -> Principal {
    let channel = CHANNEL.parse().expect("a slug");
    let channels = if role == Role::Creator { Vec::new() } else { vec![channel] };
    Scheduler::simulated_person(name, role, channels)
}

impl World {
    /// An order is placed by one of the managers.
    pub(super) fn place_order(&mut self) {
        let who = person(self.chance.one(&MANAGERS), Role::Manager);
        let quantity = self.chance.from(1..6) as u32;
        let kind = if self.chance.percent(15) { "virtual" } else { "physical" };
        let configuration = self.chance.one(&self.configurations.clone());
        let body = json!({"configuration": configuration, "kind": kind, "quantity": quantity,
            "priority": self.chance.from(0..3)});
        self.unheard_orders += 1;
        let name = who.sub.clone();
        match self.ask_centre(|s| async move { s.create_order(&who, body, None).await }) {
            Some(placed) => self.order_placed(&name, quantity, placed),
            None => {
                self.unheard_orders -= 1;
                self.after(30_000, Happening::PlaceOrder);
            }
        }
    }

    /// What a manager hears who ordered. One who hears nothing may have an order.
    fn order_placed(&mut self, name: &str, quantity: u32, placed: Result<OrderView, SchedulerError>) {
        let is_unheard = matches!(placed, Err(SchedulerError::Store(StoreError::Stopped)));
        match self.heard(&format!("{name} orders"), Some(placed)) {
            Some(view) => {
                self.say(&format!("{name} ordered {quantity} as {}", view.id));
                if self.placed.insert(view.id, Placed { quantity, before: None }).is_none() {
                    self.unheard_orders -= 1;
                }
            }
            None if is_unheard => {}
            None => self.unheard_orders -= 1,
        }
    }

    fn orders(&self) -> Vec<Order> {
        self.last_truth.as_ref().map(|truth| truth.orders.clone()).unwrap_or_default()
    }

    /// A manager looks at the orders that failed or whose image is held.
    pub(super) fn manager_looks(&mut self) {
        let pause = self.chance.from(60_000..600_000);
        self.after(pause, Happening::ManagerLooks);
        for order in self.orders() {
            let waits = order.status(self.centre_now()) == OrderStatus::Failed || order.hold.is_some();
            if waits && (self.calm || self.chance.percent(50)) {
                self.retry(order.id);
            }
        }
    }

    fn retry(&mut self, id: OrderId) {
        let who = person("bob", Role::Manager);
        let answer = self.ask_centre(|s| async move { s.retry_order(&who, id).await });
        if self.heard("retry", answer).is_some() {
            self.say(&format!("bob retries {id}"));
        }
    }

    fn an_order(&mut self) -> Option<OrderId> {
        let orders = self.orders();
        if orders.is_empty() {
            return None;
        }
        let which = self.chance.from(0..orders.len() as u64) as usize;
        Some(orders[which].id)
    }

    pub(super) fn cancel_one(&mut self) {
        let Some(id) = self.an_order() else { return };
        let who = person("bob", Role::Manager);
        let answer = self.ask_centre(|s| async move { s.cancel_order(&who, id).await });
        if self.heard("cancel", answer).is_some() {
            self.say(&format!("bob cancels {id}"));
        }
    }

    pub(super) fn retry_one(&mut self) {
        if let Some(id) = self.an_order() {
            self.retry(id);
        }
    }

    /// Whoever ships looks into the boxes.
    pub(super) fn clerk_looks(&mut self) {
        let pause = if self.calm { 120_000 } else { self.chance.from(60_000..900_000) };
        self.after(pause, Happening::ClerkLooks);
        for order in self.orders() {
            let here = self.finished_cards(&order).len() as u32;
            if here == 0
                || !matches!(order.status(self.centre_now()), OrderStatus::Writing | OrderStatus::Written)
            {
                continue;
            }
            // A part of an order goes only when somebody waits for it.
            if here < order.quantity - order.shipped() && self.chance.percent(70) {
                continue;
            }
            let (who, id) = (person("olga", Role::Operator), order.id);
            let answer = self.ask_centre(|s| async move { s.ship_order(&who, id, Some(here), None).await });
            if self.heard("ship", answer).is_some() {
                self.say(&format!("olga ships {here} of {id}"));
            }
            self.fill_parcels();
        }
        self.fill_parcels();
    }

    /// Cards in boxes that count for an order and are not sent.
    fn finished_cards(&self, order: &Order) -> Vec<usize> {
        let counts = |card: &Card| {
            let finished = card.finished.filter(|f| f.order == order.id);
            finished.is_some_and(|f| order.writes.get(&f.copy).is_some_and(|w| w.card == Some(f.uid)))
        };
        let boxed = self.cards.iter().enumerate().filter(|(_, card)| matches!(card.place, Place::Box(_)));
        boxed.filter(|(_, card)| counts(card)).map(|(at, _)| at).collect()
    }

    /// What the scheduler says is shipped is put into parcels.
    pub(super) fn fill_parcels(&mut self) {
        for order in self.orders() {
            let sent = |card: &&Card| {
                card.place == Place::Sent && card.finished.is_some_and(|f| f.order == order.id)
            };
            let sent = self.cards.iter().filter(sent).count();
            let missing = (order.shipped() as usize).saturating_sub(sent);
            for card in self.finished_cards(&order).into_iter().take(missing) {
                self.cards[card].place = Place::Sent;
            }
        }
    }

    /// Two people at once.
    pub(super) fn clash(&mut self, clash: Clash) {
        let Some(id) = self.an_order() else { return };
        let (one, two) = (person("olga", Role::Operator), person("bob", Role::Manager));
        self.centre.world.interleave(self.seed | 1);
        match clash {
            Clash::OrderAndOrder => self.order_twice(),
            Clash::CancelAndCancel => {
                self.ask_centre(|s| async move {
                    let _ = tokio::join!(s.cancel_order(&two, id), s.cancel_order(&two, id));
                });
            }
            // Only what is in the boxes may go: both would count the same cards.
            Clash::ShipAndShip | Clash::ShipAndCancel => {
                let order = self.last_truth.as_ref().and_then(|truth| order_of(truth, id)).cloned();
                let here = order.map_or(0, |order| self.finished_cards(&order).len() as u32);
                if here > 0 {
                    let cancels = clash == Clash::ShipAndCancel;
                    self.ask_centre(|s| async move {
                        let other = async {
                            if cancels {
                                s.cancel_order(&two, id).await
                            } else {
                                s.ship_order(&two, id, Some(here), None).await
                            }
                        };
                        let _ = tokio::join!(s.ship_order(&one, id, Some(here), None), other);
                    });
                }
            }
        }
        self.centre.world.interleave(0);
        self.fill_parcels();
    }

    fn order_twice(&mut self) {
        let who = person(MANAGERS[0], Role::Manager);
        let body = json!({"configuration": self.configurations[0], "kind": "physical", "quantity": 2});
        self.unheard_orders += 2;
        let both = self.ask_centre(|s| async move {
            tokio::join!(s.create_order(&who, body.clone(), None), s.create_order(&who, body, None))
        });
        match both {
            Some((one, two)) => {
                self.order_placed("ada", 2, one);
                self.order_placed("ada", 2, two);
            }
            None => self.unheard_orders -= 2,
        }
    }

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

    /// Writes a card with the real engine, and makes its record.
    pub(super) fn write_card(
        &mut self,
        a: usize,
        slot: &SlotId,
        card: usize,
        work: &Work,
        again: Option<&Option<FailureNote>>,
    ) -> Result<Box<CardRecord>, Failure> {
        let uid = self.wire.id(self.now_ms);
        let image = self.images[&work.image].clone();
        let appliance = &self.appliances[a];
        let now = appliance.now(self.now_ms);
        let writer = super::cards::Writer {
            key: &appliance.key,
            appliance: appliance.id,
            slot,
            bad_reader: appliance.slots[slot].bad > 0,
            now,
        };
        let written = self.cards[card].write(&image, work, again, uid, &writer);
        let written = match written {
            Err(_) if self.plant == Plant::BelievesWrites => {
                Ok(Written { uid, passport: None, bytes: (1, 1) })
            }
            other => other,
        };
        let Written { uid, passport, bytes: (written_bytes, verified_bytes) } = written?;
        Ok(Box::new(CardRecord {
            uid,
            order: work.order,
            copy: work.copy,
            total: work.total,
            lease: work.lease,
            image: work.image,
            card_size: self.cards[card].size,
            cid: None,
            appliance: self.appliances[a].id,
            slot: slot.clone(),
            reader: "simulated reader".into(),
            written_bytes,
            verified_bytes,
            write_bps: 1,
            verify_bps: 1,
            started: now,
            finished: now,
            passport,
        }))
    }

    /// The creators ask for work at the same moment, so that they meet.
    pub(super) fn creators_look(&mut self) {
        self.after(BUILD_STEP_MS, Happening::CreatorsLook);
        let idle: Vec<usize> = (0..CREATORS)
            .filter(|c| self.creators[*c].task.is_none() && self.creators[*c].silent == 0)
            .collect();
        let named = |c: usize| person(&format!("maker{c}"), Role::Creator);
        self.centre.world.interleave(self.seed | 1);
        let claimed = match idle[..] {
            [one, two] => {
                let (first, second) = (named(one), named(two));
                let both = self.ask_centre(|s| async move {
                    tokio::join!(s.claim_task(&first, 0), s.claim_task(&second, 0))
                });
                both.map_or(Vec::new(), |(a, b)| vec![(one, a), (two, b)])
            }
            [one] => {
                let who = named(one);
                let claimed = self.ask_centre(|s| async move { s.claim_task(&who, 0).await });
                claimed.map_or(Vec::new(), |a| vec![(one, a)])
            }
            _ => Vec::new(),
        };
        self.centre.world.interleave(0);
        for (c, task) in claimed {
            if let Some(Some(task)) = self.heard("claim", Some(task)) {
                self.say(&format!("maker{c} has {}", task.task));
                self.creators[c].steps_left = self.chance.from(1..8);
                self.creators[c].task = Some(task);
            }
        }
        let both: Vec<_> = self.creators.iter().filter_map(|c| c.task.as_ref()).map(|t| t.task).collect();
        if let [one, two] = both[..]
            && one == two
            && self.creators.iter().all(|c| c.silent == 0)
        {
            // The one that lost it learns so by its next report.
            self.say(&format!("both creators are at {one}"));
        }
        (0..CREATORS).for_each(|c| self.creator_works(c));
    }

    fn creator_works(&mut self, c: usize) {
        let creator = &mut self.creators[c];
        let (Some(task), 0) = (&creator.task, creator.silent) else { return };
        let order = task.task.order;
        if let Some(permanent) = creator.fails.take() {
            let reason = "as simulated".to_owned();
            return self.report(c, order, CreationReport::Failed { reason, permanent });
        }
        if creator.steps_left > 0 {
            creator.steps_left -= 1;
            let phase = CreationPhase::Building;
            return self.report(c, order, CreationReport::Running { phase, done: 1, total: 2, eta_s: None });
        }
        if std::mem::take(&mut creator.lies) {
            return self.report(c, order, CreationReport::Succeeded { image: ImageId([9; 32]) });
        }
        let recipe = task.recipe["simulated"].as_u64().unwrap_or(0);
        let image = Image::of(recipe);
        if self.warehouse.put(&image) {
            self.images.insert(image.id(), image.clone());
            self.report(c, order, CreationReport::Succeeded { image: image.id() });
        }
    }

    fn report(&mut self, c: usize, order: OrderId, report: CreationReport) {
        let who = person(&format!("maker{c}"), Role::Creator);
        let ends = !matches!(report, CreationReport::Running { .. });
        let task = TaskId::creation(order);
        let told = self.ask_centre(|s| async move { s.report_task(&who, task, report).await });
        // Not heard: it is told again with the next look.
        if let Some(answer) = self.heard("report", told)
            && (ends || answer.stop)
        {
            self.creators[c].task = None;
        }
    }

    pub(super) fn kill_creator(&mut self, c: usize) {
        self.creators[c] = Creator { silent: self.creators[c].silent, ..Creator::default() };
    }

    /// The appliance is thrown out: its token ends, and its line with it. Let in again by a new join token.
    pub(super) fn throw_out(&mut self, a: usize) {
        let (who, id) = (person("root", Role::Staff), self.appliances[a].id);
        let answer = self.ask_centre(|s| async move { s.reject_appliance(&who, id).await.map(|_| ()) });
        if self.heard("reject", answer).is_some() {
            self.appliances[a].thrown_out += 1;
            self.break_line(super::broker::Party::Appliance(a));
        }
    }

    pub(super) fn let_in(&mut self, a: usize) {
        if self.appliances[a].thrown_out == 0 {
            return;
        }
        let key = self.appliances[a].key.clone();
        let joined = self.ask_centre(|s| async move { super::world::join(&s, &key, a).await });
        match self.heard("join", joined) {
            Some(()) => self.appliances[a].thrown_out = 0,
            None => self.after(30_000, Happening::LetIn(a)),
        }
    }
}
