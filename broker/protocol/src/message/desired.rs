//! What the scheduler wants of an appliance, and what of it is applied: settings, holds, leases.

use serde::{Deserialize, Serialize};

use super::version;
use crate::ids::{ImageId, LeaseId, OrderId, SlotId};
use crate::keys::PublicKey;
use crate::time::Timestamp;
use crate::update::Version;

/// How a card is cleared before it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Wipe {
    /// Discard what is not mapped, where the device can.
    #[default]
    Discard,
    /// Write zeros over all that is not data.
    Zero,
    /// Partition tables only.
    None,
}

/// How much is read back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Verify {
    /// Every mapped byte.
    #[default]
    Full,
    /// What this run wrote.
    Written,
    /// Nothing: the card is never called verified.
    None,
}

/// When a card with somebody's data asks before it is erased.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Confirm {
    /// Never.
    Never,
    /// When it has a file system with files that are not ours.
    #[default]
    Foreign,
    /// Always.
    Always,
}

/// `appliance/{id}/desired`: all an appliance should do; complete, so a repeated message changes nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Desired {
    /// Version.
    #[serde(default = "version")]
    pub v: u8,
    /// Grows with every change.
    pub rev: u64,
    /// Settings.
    #[serde(default)]
    pub settings: Settings,
    /// Names and holds of slots; a slot not listed has neither.
    #[serde(default)]
    pub slots: Vec<DesiredSlot>,
    /// What to write.
    #[serde(default)]
    pub leases: Vec<Lease>,
}

/// Settings of an appliance.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Settings {
    /// When to ask before erasing.
    #[serde(default)]
    pub confirm: Confirm,
    /// Keys that may sign indexes.
    #[serde(default)]
    pub index_keys: Vec<PublicKey>,
    /// Refuse images whose index nobody signed.
    #[serde(default)]
    pub require_signature: bool,
    /// The shop's name on cards and screens.
    #[serde(default)]
    pub shop: String,
    /// Orders that are written but not shipped: their cards are guarded.
    #[serde(default)]
    pub guarded_orders: Vec<OrderId>,
    /// The update that is to run; without one everything stays as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub update: Option<DesiredUpdate>,
}

/// An update that an appliance is to fetch, try and keep. The appliance itself decides whether it is trusted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct DesiredUpdate {
    /// Its version.
    pub version: Version,
    /// The file, as an image.
    pub image: ImageId,
    /// Where to fetch it: base addresses, tried in order.
    pub warehouses: Vec<String>,
    /// It may be older than what runs.
    #[serde(default)]
    pub allow_older: bool,
}

/// A slot as the scheduler wants it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct DesiredSlot {
    /// Slot id.
    pub slot: SlotId,
    /// What people call it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Takes no work, and why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold: Option<String>,
}

/// Copy numbers, both included, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Copies {
    /// First copy.
    pub first: u32,
    /// Last copy.
    pub last: u32,
}

impl Copies {
    /// True when `copy` is one of them.
    pub fn contains(self, copy: u32) -> bool {
        (self.first..=self.last).contains(&copy)
    }
    /// How many; none when `last` comes before `first`.
    pub fn count(self) -> u32 {
        if self.last < self.first { 0 } else { (self.last - self.first).saturating_add(1) }
    }
}

/// "Up to N copies of this image until T." Copies of live leases of one order never overlap.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Lease {
    /// Its id.
    pub lease: LeaseId,
    /// Which order.
    pub order: OrderId,
    /// What people call the order.
    #[serde(default)]
    pub order_name: String,
    /// Which image.
    pub image: ImageId,
    /// Where to fetch it: base addresses, tried in order.
    pub warehouses: Vec<String>,
    /// Smallest card that takes it, bytes.
    pub min_card_bytes: u64,
    /// Which copies are this appliance's.
    pub copies: Copies,
    /// Copies inside `copies` that are verified or canceled already: not to be written.
    #[serde(default)]
    pub done: Vec<u32>,
    /// Copies of the whole order.
    pub total: u32,
    /// No new card is begun after this.
    pub not_after: Timestamp,
    /// How to clear a card.
    #[serde(default)]
    pub wipe: Wipe,
    /// How much to read back.
    #[serde(default)]
    pub verify: Verify,
    /// Higher goes first.
    #[serde(default)]
    pub priority: i32,
}

/// `appliance/{id}/reported`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Reported {
    /// Version.
    #[serde(default = "version")]
    pub v: u8,
    /// The last `rev` applied.
    pub rev: u64,
    /// What could not be applied, for people.
    #[serde(default)]
    pub errors: Vec<String>,
    /// What each lease has used.
    #[serde(default)]
    pub leases: Vec<LeaseUse>,
    /// How far the update is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub update: Option<UpdateReport>,
}

/// How far an update is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct UpdateReport {
    /// Which version.
    pub version: Version,
    /// Where it is.
    pub phase: UpdatePhase,
    /// One line for people; why, where it failed.
    #[serde(default)]
    pub text: String,
}

/// Where an update is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum UpdatePhase {
    /// Its bytes are arriving.
    Fetching,
    /// It is checked, and written beside what runs.
    Writing,
    /// It is there; the appliance restarts when no card is being written.
    Restarting,
    /// It runs and is not kept yet.
    Trying,
    /// It runs for good.
    Kept,
    /// It was not applied, or was not kept: the version before runs. Not tried again.
    Failed,
}

/// What a lease has used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct LeaseUse {
    /// Which lease.
    pub lease: LeaseId,
    /// Copies verified here.
    pub verified: Vec<u32>,
    /// Copies being written here.
    pub writing: Vec<u32>,
    /// Bytes of the image that are here.
    pub fetched_bytes: u64,
    /// Bytes of the image that travel.
    pub total_bytes: u64,
}
