//! The people in the office: managers who order, retry and cancel, and whoever ships. They see what a person sees (lights, lists, boxes of cards) and act in their own
//! time; once the bad times are over they do what they should.

use cardshop_protocol::ids::OrderId;
use cardshop_protocol::token::Role;
use cardshop_scheduler::core::order::{Order, OrderStatus};
use cardshop_scheduler::core::rights::Principal;
use cardshop_scheduler::core::views::OrderView;
use cardshop_scheduler::{Scheduler, SchedulerError, StoreError};
use serde_json::json;

use super::broker::Party;
use super::cards::{Card, Place};
use super::faults::Clash;
use super::invariants::{Placed, order_of};
use super::world::{Happening, World};

/// The channel everybody works for.
pub(super) const CHANNEL: &str = "default";
/// Who orders for an organization with units, and who for nobody.
pub(super) const MANAGERS: [&str; 2] = ["ada", "bob"];

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

    /// The appliance is thrown out: its token ends, and its line with it. Let in again by a new join token.
    pub(super) fn throw_out(&mut self, a: usize) {
        let (who, id) = (person("root", Role::Staff), self.appliances[a].id);
        let answer = self.ask_centre(|s| async move { s.reject_appliance(&who, id).await.map(|_| ()) });
        if self.heard("reject", answer).is_some() {
            self.appliances[a].thrown_out += 1;
            self.break_line(Party::Appliance(a));
        }
    }

    pub(super) fn let_in(&mut self, a: usize) {
        if self.appliances[a].thrown_out == 0 {
            return;
        }
        let key = self.appliances[a].key.clone();
        let joined = self.ask_centre(|s| async move { super::template::join(&s, &key, a).await });
        match self.heard("join", joined) {
            Some(()) => self.appliances[a].thrown_out = 0,
            None => self.after(30_000, Happening::LetIn(a)),
        }
    }
}
