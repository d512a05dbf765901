//! What a slot is doing, for screens, lights and the dashboard.

use serde::{Deserialize, Serialize};

use super::version;
use crate::ids::{ImageId, ObjectId, OrderId, TaskId};
use crate::led::Led;
use crate::time::Timestamp;

/// What a slot is doing. Overlays (identify, not enrolled, offline) are the LED's, not states.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum SlotStatus {
    /// The reader is not plugged in.
    Absent,
    /// No card and no work.
    Empty,
    /// No card, and work for one.
    Wanted,
    /// A card, and no work.
    Idle,
    /// Looking at the card.
    Checking,
    /// A good card, and not enough of the image yet.
    Waiting,
    /// Clearing and writing.
    Writing,
    /// Reading back.
    Verifying,
    /// Verified: take it.
    Done,
    /// Too small or locked.
    Unsuitable,
    /// A finished card that is not shipped.
    Guarded,
    /// Somebody's data: asks before erasing.
    Confirm,
    /// Put it aside.
    BadCard,
    /// Take it out and put it in again.
    Retry,
    /// A person holds it.
    Held,
    /// The reader failed.
    OutOfService,
}

impl SlotStatus {
    /// Each of them.
    pub const ALL: [Self; 16] = [
        Self::Absent,
        Self::Empty,
        Self::Wanted,
        Self::Idle,
        Self::Checking,
        Self::Waiting,
        Self::Writing,
        Self::Verifying,
        Self::Done,
        Self::Unsuitable,
        Self::Guarded,
        Self::Confirm,
        Self::BadCard,
        Self::Retry,
        Self::Held,
        Self::OutOfService,
    ];
}

/// `appliance/{id}/slot/{slot}/state`. A message with an older generation `(boot, n)` is ignored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct SlotState {
    /// Version.
    #[serde(default = "version")]
    pub v: u8,
    /// Counts the agent's starts.
    pub boot: u64,
    /// Counts the states of this start.
    pub n: u64,
    /// State.
    pub state: SlotStatus,
    /// What its LED shows.
    pub led: Led,
    /// What is in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub card: Option<CardFacts>,
    /// What is being written, or was last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<TaskId>,
    /// The image of that task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<ImageId>,
    /// Copy n …
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub copy: Option<u32>,
    /// … of m.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total: Option<u32>,
    /// What a person should do now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sentence: Option<Sentence>,
    /// Why the card or slot failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<Fault>,
    /// Since when.
    pub since: Timestamp,
}

impl SlotState {
    /// Orders the states of one slot: a later one replaces an earlier one.
    pub fn generation(&self) -> (u64, u64) {
        (self.boot, self.n)
    }
}

/// What is known of a card in a slot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct CardFacts {
    /// Size, bytes.
    pub size: u64,
    /// Our own identity, if the card has a passport.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<ObjectId>,
    /// Card identification register, hex, where the reader shows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cid: Option<String>,
}

/// A translation key with its values.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(tag = "code", rename_all = "snake_case")]
pub enum Sentence {
    /// Insert a card of at least this size.
    InsertCard {
        /// Bytes.
        min_bytes: u64,
    },
    /// Checking the card.
    Checking,
    /// Waiting for the image.
    WaitingForImage {
        /// How much is here.
        percent: u8,
    },
    /// Writing.
    Writing,
    /// Checking what was written.
    Verifying,
    /// Take the card.
    TakeCard {
        /// Copy n …
        copy: u32,
        /// … of m.
        total: u32,
    },
    /// The card is too small.
    TooSmall {
        /// Bytes it has.
        actual_bytes: u64,
        /// Bytes it needs.
        min_bytes: u64,
    },
    /// Unlock the card.
    Locked,
    /// A finished card, not shipped.
    Guarded {
        /// Its order.
        order: OrderId,
    },
    /// This card has data: press to erase.
    ConfirmErase,
    /// Bad card: put it aside.
    BadCard,
    /// Take it out and put it in again.
    Reinsert,
    /// Out of service.
    OutOfService {
        /// Why.
        reason: String,
    },
}

/// A named failure of a card, slot or image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Fault {
    /// Its name: `verify_mismatch`, `card_removed`, `io_error` …
    pub code: String,
    /// One line for people.
    pub text: String,
    /// Where on the card, bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offset: Option<u64>,
}

/// A write task's step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum WritePhase {
    /// Looking at the card.
    Probing,
    /// Clearing it.
    Wiping,
    /// Writing.
    Writing,
    /// Reading back.
    Verifying,
}

/// `appliance/{id}/slot/{slot}/progress`, at most 1 Hz.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Progress {
    /// Version.
    #[serde(default = "version")]
    pub v: u8,
    /// Step.
    pub phase: WritePhase,
    /// Bytes the device has acknowledged in this step.
    pub done: u64,
    /// Bytes of this step.
    pub total: u64,
    /// Rate, bytes a second.
    pub rate_bps: u64,
    /// Seconds to the end of the task, if it can be told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eta_s: Option<u64>,
}
