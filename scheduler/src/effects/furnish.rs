//! A site that has worked for years, made in a minute, for `cardshop bench scheduler`: very many orders, nearly all of them
//! shipped long ago, and what happened to them.

use std::path::Path;
use std::time::Duration;

use cardshop_protocol::ids::{ImageId, ObjectId, SlotId};
use cardshop_protocol::time::Timestamp;
use cardshop_protocol::token::Role;
use serde_json::json;

use super::ask::Outside;
use super::clock::{Clock, Ids};
use crate::core::documents::Story;
use crate::core::order::{Input, Order, OrderImage};
use crate::store::{Select, Store, furnish};
use crate::{Config, Scheduler, SchedulerError};

/// From one order to the next.
const PAUSE: Duration = Duration::from_secs(900);
/// Of the newest orders so many are still open.
const OPEN_ORDERS: u64 = 500;
/// One of so many is canceled.
const CANCELED_ONE_IN: u64 = 25;
/// An image is ordered so many times.
const ORDERS_OF_AN_IMAGE: u64 = 10;
/// Copies of each.
const QUANTITY: u32 = 3;

/// Makes the store of `config.data`, which is empty, with `orders` orders and `events` lines of what happened. The login is
/// that of `config`.
///
/// # Errors
/// `Store` when there is a store already, or the disk refuses.
pub async fn furnish_store(config: Config, orders: u64, events: u64) -> Result<u64, SchedulerError> {
    let path = config.data.join("store");
    let memory = Store::memory();
    let (base, opened) = (memory.clone(), move || Ok(memory));
    let clocks = (Clock::default(), Ids::default());
    let (scheduler, _) = Scheduler::open_on(config, opened, clocks, Outside::Http).await?;
    let template = scheduler.template().await?;
    let story = base.list::<Story>(Select { limit: 1, ..Select::default() })?.pop();
    let story = story.ok_or(SchedulerError::NotFound("story"))?.value;
    let begin = scheduler.now();
    let made = move || write(&path, &base, (&template, &story), begin, (orders, events));
    tokio::task::spawn_blocking(made).await.map_err(|_| SchedulerError::Busy)?
}

fn write(
    path: &Path,
    base: &Store,
    (template, story): (&Stages, &Story),
    now: Timestamp,
    (orders, events): (u64, u64),
) -> Result<u64, SchedulerError> {
    let placed = |n: u64| Timestamp::from_ms(now.as_ms() - (orders - n) * PAUSE.as_millis() as u64);
    let order_id = |n: u64| ObjectId::from_parts(placed(n).as_ms(), u128::from(n));
    let all = (0..orders).map(|n| template.order(n, orders, order_id(n), placed(n)));
    let stories = (0..events).map(|n| {
        let of = n * orders / events.max(1);
        let at = placed(0) + PAUSE.mul_f64(n as f64 * orders as f64 / events as f64);
        Story {
            id: ObjectId::from_parts(at.as_ms(), u128::from(n)),
            at,
            kind: "card_verified".into(),
            text: format!("Copy {} is written and verified in slot s01.", n % 10),
            order: Some(order_id(of)),
            ..story.clone()
        }
    });
    Ok(furnish(path, base, all, stories)?)
}

/// An order at each stage that is kept.
struct Stages {
    ready: Order,
    written: Order,
    shipped: Order,
    canceled: Order,
}

impl Stages {
    fn order(&self, n: u64, of: u64, id: ObjectId, at: Timestamp) -> Order {
        let stage = match (of - n, n) {
            (left, n) if left <= OPEN_ORDERS && n.is_multiple_of(2) => &self.ready,
            (left, _) if left <= OPEN_ORDERS => &self.written,
            (_, n) if n.is_multiple_of(CANCELED_ONE_IN) => &self.canceled,
            _ => &self.shipped,
        };
        let mut order = stage.clone();
        (order.id, order.created) = (id, at);
        order.name = format!("Library {n}");
        if let Some(image) = &mut order.image {
            image.id = ImageId(*blake3::hash(&(n / ORDERS_OF_AN_IMAGE).to_le_bytes()).as_bytes());
        }
        order
    }
}

impl Scheduler {
    /// An order, taken through its life.
    async fn template(&self) -> Result<Stages, SchedulerError> {
        let root = Self::simulated_person("admin", Role::Staff, Vec::new());
        let configuration = json!({"name": "Library", "recipe": {"files": []}});
        let configuration = self.create_configuration(&root, configuration, None).await?;
        let body = json!({"configuration": configuration.configuration.id, "kind": "physical", "quantity": QUANTITY,
            "recipient": {"name": "Village school", "address": "2 Example Road"}});
        let view = self.create_order(&root, body, None).await?;
        let mut order = self.order_of(&root, view.id)?;
        let owner = "maker".to_owned();
        let image = OrderImage { id: ImageId([7; 32]), size: 1 << 30, data_bytes: 1 << 28 };
        let now = self.now();
        let step = |order: &mut Order, input| order.step(now, input, &mut Vec::new()).map(|_| ());
        step(&mut order, Input::Claim { owner: owner.clone() })?;
        step(&mut order, Input::ImageChecked { owner, image })?;
        let (ready, mut canceled) = (order.clone(), order.clone());
        step(&mut canceled, Input::Cancel { by: root.sub.clone() })?;
        for copy in 1..=QUANTITY {
            let card = self.next_id();
            let (lease, slot) = (self.next_id(), SlotId::numbered(copy));
            let appliance = cardshop_protocol::ids::ApplianceId([1; 8]);
            step(&mut order, Input::Verified { copy, card, lease, appliance, slot })?;
        }
        let written = order.clone();
        step(&mut order, Input::Ship { count: None, tracking: None, by: root.sub })?;
        Ok(Stages { ready, written, shipped: order, canceled })
    }
}
