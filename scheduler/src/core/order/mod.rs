//! An order, and its status as a pure function of its tasks, its shipments, a cancel and the time. `Order::step`
//! (in `step`) is the only way to change one; `effects` calls it and stores the result.
//!
//! ```text
//! physical   created ─► creating ─► ready ─► writing ─► written ─► shipped
//! virtual    created ─► creating ─► available ─► expired
//!            any open state ─► canceled          creating ─► failed ─(retry)─► created
//!
//! created    its creation task was never claimed         creating   it was
//! ready      the image is in the warehouse, checked      writing    a copy was begun or verified
//! written    every copy is verified                      shipped    every copy is sent
//! failed     creation failed 3 times, or for good        expired    available_until has passed
//!
//! creation task   pending ─claim─► leased ─report─► running{phase} ─image checked─► succeeded
//!                    ▲  ▲             │ lease over     │ lease over, or failed: back-off, at most 3 times
//!                    │  └─────────────┴────────────────┘                        └─► failed
//!                    └ the worker that lost its lease may go on, until another claims
//! write task      pending ─► leased ─► running{phase} ─► succeeded     failed or lease over: pending again
//! ```
//!
//! An appliance that finds the image's bytes other than its index says, from every warehouse, holds the image: no
//! copy is leased until a person retries the order. No card and no slot is blamed for that. Whose fault a failed card
//! is, is decided in `blame`.
//!
//! Ended things are not revived: a late report changes nothing and says so. A verified card that is not needed
//! is counted as spare. `shipped ≤ verified` always.

mod creation;
mod limits;
mod links;
mod name;
mod persons;
mod step;
#[cfg(test)]
pub(crate) mod tests;
mod writes;

use std::collections::BTreeMap;

use cardshop_protocol::api::CreationPhase;
use cardshop_protocol::ids::{ApplianceId, Channel, ImageId, LeaseId, ObjectId, OrderId, SlotId};
use cardshop_protocol::time::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::notify::Notice;

pub use links::Link;
pub use step::Refusal;
pub(crate) use step::{Answer, Input, Note, describe};

/// Most copies of one order: keeps its document and its leases small enough.
pub const MAX_QUANTITY: u32 = 1000;
/// Changes of status an order remembers.
const MAX_HISTORY: usize = 64;
/// Shipments an order may have.
const MAX_SHIPMENTS: usize = 200;

/// What a client gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OrderKind {
    /// Cards in a parcel.
    Physical,
    /// A link that expires.
    Virtual,
}

/// Where an order stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OrderStatus {
    /// Waits for a creator.
    Created,
    /// The image is being made.
    Creating,
    /// The image is in the warehouse.
    Ready,
    /// Copies are being written.
    Writing,
    /// Every copy is verified.
    Written,
    /// Every copy is sent.
    Shipped,
    /// The link works.
    Available,
    /// The link has ended.
    Expired,
    /// A person ended it.
    Canceled,
    /// The image could not be made.
    Failed,
}

impl OrderStatus {
    /// True when nothing happens any more by itself.
    pub fn is_ended(self) -> bool {
        matches!(self, Self::Shipped | Self::Expired | Self::Canceled | Self::Failed)
    }

    /// The name on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Creating => "creating",
            Self::Ready => "ready",
            Self::Writing => "writing",
            Self::Written => "written",
            Self::Shipped => "shipped",
            Self::Available => "available",
            Self::Expired => "expired",
            Self::Canceled => "canceled",
            Self::Failed => "failed",
        }
    }
}

/// Where a task stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TaskStatus {
    /// Waits for a worker.
    #[default]
    Pending,
    /// A worker has it.
    Leased,
    /// The worker has begun.
    Running,
    /// Done.
    Succeeded,
    /// Not done, and not tried again.
    Failed,
    /// The order was canceled.
    Canceled,
    /// The order's time is over.
    Expired,
}

/// The creation task.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Creation {
    /// Where it stands; a cancel of the order is not repeated here.
    pub status: TaskStatus,
    /// Claims since the last retry by a person.
    pub claims: u32,
    /// Failures since the last retry by a person.
    pub failures: u32,
    /// Login name of the creator that has it.
    pub owner: Option<String>,
    /// Who had it when its lease ended, and may go on until another claims.
    pub lost_by: Option<String>,
    /// The claim ends here.
    pub lease_until: Option<Timestamp>,
    /// Not claimed before this.
    pub retry_at: Option<Timestamp>,
    /// When it was claimed.
    #[serde(default)]
    pub claimed_at: Option<Timestamp>,
    /// When this step began.
    #[serde(default)]
    pub phase_since: Option<Timestamp>,
    /// Step it is in.
    pub phase: Option<CreationPhase>,
    /// Bytes done in this step.
    pub done: u64,
    /// Bytes of this step.
    pub total: u64,
    /// Why it failed last.
    pub failure: Option<String>,
}

/// The task that writes one copy. Copies nobody began are pending and not listed.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Write {
    /// Pending, running or succeeded.
    pub status: TaskStatus,
    /// Cards it was begun on.
    pub attempts: u32,
    /// Who is or was at it.
    pub appliance: Option<ApplianceId>,
    /// Where.
    pub slot: Option<SlotId>,
    /// Under which lease.
    pub lease: Option<LeaseId>,
    /// The verified card.
    pub card: Option<ObjectId>,
    /// When the card that is being written was begun.
    #[serde(default)]
    pub started: Option<Timestamp>,
    /// Why it failed last.
    pub failure: Option<String>,
}

/// The image of an order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OrderImage {
    /// Its id.
    pub id: ImageId,
    /// Bytes: the smallest card that takes it.
    pub size: u64,
    /// Bytes that travel.
    pub data_bytes: u64,
}

/// The size of card that was ordered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OrderedMedia {
    /// Catalogue entry.
    pub id: ObjectId,
    /// What people call it.
    pub name: String,
    /// Largest image it takes, bytes.
    pub usable_bytes: u64,
}

/// Cards that left together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Shipment {
    /// How many.
    pub count: u32,
    /// Tracking code.
    pub tracking: Option<String>,
    /// When.
    pub at: Timestamp,
    /// Login name.
    pub by: String,
}

/// Who ended it, when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cancel {
    /// When.
    pub at: Timestamp,
    /// Login name.
    pub by: String,
}

/// Its image is not what its index says: nobody fetches or writes it until a person lets it go on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ImageHold {
    /// What was found.
    pub reason: String,
    /// Who found it.
    pub appliance: ApplianceId,
    /// When.
    pub at: Timestamp,
}

/// A status and since when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StatusChange {
    /// The status.
    pub status: OrderStatus,
    /// Since when.
    pub at: Timestamp,
}

/// An order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Order {
    /// Its id.
    pub id: OrderId,
    /// What people call it.
    pub name: String,
    /// The name was asked for: it is also in the file's name.
    #[serde(default)]
    pub named: bool,
    /// Cards or a link.
    pub kind: OrderKind,
    /// Routes it.
    pub channel: Channel,
    /// What it is made from.
    pub configuration: ObjectId,
    /// Size of card, if one was asked for.
    pub media: Option<OrderedMedia>,
    /// Cards asked for; periods of validity of a virtual order.
    pub quantity: u32,
    /// Who pays for it.
    #[serde(default)]
    pub organization: Option<ObjectId>,
    /// What it costs.
    #[serde(default)]
    pub units: u64,
    /// What of that it holds now: a failed or canceled order gives back.
    #[serde(default)]
    pub units_held: u64,
    /// Who gets the parcel or the link: an object or a text. Of an object `name`, `address`, `country` are on the parcel, and
    /// letters go to `email`, in its `language` and `time_zone`.
    pub recipient: Value,
    /// Base address of the warehouse that keeps the image.
    pub warehouse: String,
    /// Base addresses of warehouses that get the image too; appliances fall over to them.
    #[serde(default)]
    pub mirrors: Vec<String>,
    /// Higher goes first.
    pub priority: i32,
    /// When it was placed.
    pub created: Timestamp,
    /// Login name of who placed it.
    pub created_by: String,
    /// The creation task.
    pub creation: Creation,
    /// The image, once it is in the warehouse and checked.
    pub image: Option<OrderImage>,
    /// Why its image is held.
    #[serde(default)]
    pub hold: Option<ImageHold>,
    /// Write tasks that were begun, by copy.
    pub writes: BTreeMap<u32, Write>,
    /// Verified cards beyond the quantity.
    pub spare: u32,
    /// What was sent.
    pub shipments: Vec<Shipment>,
    /// The cancel.
    pub canceled: Option<Cancel>,
    /// End of a virtual order.
    pub available_until: Option<Timestamp>,
    /// What its warehouse was told of its link.
    #[serde(default)]
    pub link: Link,
    /// Its statuses so far.
    pub history: Vec<StatusChange>,
    /// What people were told of it; `None` before anybody counted.
    #[serde(default)]
    pub told: Option<BTreeMap<Notice, u32>>,
}

impl Order {
    /// Where it stands at `now`.
    pub fn status(&self, now: Timestamp) -> OrderStatus {
        if self.canceled.is_some() {
            return OrderStatus::Canceled;
        }
        if self.image.is_none() {
            return match (self.creation.status, self.creation.claims) {
                (TaskStatus::Failed, _) => OrderStatus::Failed,
                (_, 0) => OrderStatus::Created,
                _ => OrderStatus::Creating,
            };
        }
        match self.kind {
            OrderKind::Virtual if self.available_until.is_some_and(|end| now >= end) => OrderStatus::Expired,
            OrderKind::Virtual => OrderStatus::Available,
            OrderKind::Physical if self.shipped() >= self.quantity => OrderStatus::Shipped,
            OrderKind::Physical if self.verified() >= self.quantity => OrderStatus::Written,
            OrderKind::Physical if self.writes.is_empty() => OrderStatus::Ready,
            OrderKind::Physical => OrderStatus::Writing,
        }
    }

    /// Where its image may be fetched: its warehouse first.
    pub fn warehouses(&self) -> Vec<String> {
        std::iter::once(&self.warehouse).chain(&self.mirrors).cloned().collect()
    }

    /// Copies whose card is verified.
    pub fn verified(&self) -> u32 {
        let count = self.writes.values().filter(|w| w.status == TaskStatus::Succeeded).count();
        u32::try_from(count).unwrap_or(u32::MAX)
    }

    /// Cards sent.
    pub fn shipped(&self) -> u32 {
        self.shipments.iter().map(|s| s.count).sum()
    }

    /// True when copy `copy` exists and is verified.
    pub fn is_verified(&self, copy: u32) -> bool {
        self.writes.get(&copy).is_some_and(|w| w.status == TaskStatus::Succeeded)
    }

    /// True when copies of it may be written now.
    pub fn takes_writes(&self) -> bool {
        self.wants_cards() && self.hold.is_none()
    }

    /// True when a verified card would count.
    pub(crate) fn wants_cards(&self) -> bool {
        self.kind == OrderKind::Physical
            && self.canceled.is_none()
            && self.image.is_some()
            && self.verified() < self.quantity
    }

    /// True when some of its cards are verified and still here: they are guarded against being overwritten.
    pub fn has_unshipped_cards(&self) -> bool {
        self.canceled.is_none() && self.verified() > self.shipped()
    }

    /// As it is at `now`: a lease that is over has ended.
    pub(crate) fn at(&self, now: Timestamp) -> Self {
        let mut order = self.clone();
        order.end_lost_lease_quietly(now);
        order
    }

    /// True when a creator may claim its creation task at `now`.
    pub fn is_claimable(&self, now: Timestamp) -> bool {
        self.canceled.is_none()
            && self.image.is_none()
            && self.creation.status == TaskStatus::Pending
            && self.creation.retry_at.is_none_or(|at| at <= now)
    }

    /// The creation task's status as people see it.
    pub fn creation_status(&self) -> TaskStatus {
        match self.creation.status {
            TaskStatus::Succeeded | TaskStatus::Failed => self.creation.status,
            _ if self.canceled.is_some() => TaskStatus::Canceled,
            status => status,
        }
    }

    /// A write task's status as people see it, without leases.
    pub fn write_status(&self, copy: u32) -> TaskStatus {
        match self.writes.get(&copy).map_or(TaskStatus::Pending, |w| w.status) {
            TaskStatus::Succeeded => TaskStatus::Succeeded,
            _ if self.canceled.is_some() => TaskStatus::Canceled,
            status => status,
        }
    }

    /// What has to be done with it, or how it ended, as the store's index knows it: `open`, `build`, `write`, `unshipped`,
    /// `expiring`, `link`, `canceled`, `failed`.
    pub fn shelves(&self) -> Vec<&'static str> {
        let canceled = self.canceled.is_some();
        let failed = self.creation.status == TaskStatus::Failed;
        let virtual_ready = self.kind == OrderKind::Virtual && self.image.is_some();
        let shipped = self.kind == OrderKind::Physical && self.shipped() >= self.quantity;
        let mut shelves = Vec::new();
        let mut put = |name, on: bool| {
            if on {
                shelves.push(name);
            }
        };
        put("open", !canceled && !failed && !shipped && !self.has_expired());
        put("build", !canceled && !failed && self.image.is_none());
        put("write", self.takes_writes());
        put("unshipped", self.has_unshipped_cards());
        put("link", self.link_until() != self.link.told_until);
        put("expiring", virtual_ready && !canceled && !self.has_expired());
        put("canceled", canceled);
        put("failed", failed && !canceled && self.image.is_none());
        shelves
    }

    /// True once its end was noted.
    fn has_expired(&self) -> bool {
        self.history.last().is_some_and(|h| h.status == OrderStatus::Expired)
    }
}
