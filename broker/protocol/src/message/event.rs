//! The numbered facts of an agent's outbox, and how far they are stored.

use serde::{Deserialize, Serialize};

use super::{Fault, version};
use crate::api::CardRecord;
use crate::ids::{ImageId, LeaseId, ObjectId, SlotId, TaskId};
use crate::time::Timestamp;

/// `appliance/{id}/event`: one fact of the outbox.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Event {
    /// Version.
    #[serde(default = "version")]
    pub v: u8,
    /// Counts the appliance's facts from 1, without gaps, over restarts.
    pub n: u64,
    /// When it happened, by the appliance's clock.
    pub at: Timestamp,
    /// What happened.
    #[serde(flatten)]
    pub fact: Fact,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Fact {
    /// The agent started.
    Started {
        /// Counts its starts.
        boot: u64,
    },
    /// A card was taken for a task.
    WriteStarted {
        /// Task.
        task: TaskId,
        /// Its lease.
        lease: LeaseId,
        /// Where.
        slot: SlotId,
        /// Bytes of the card.
        card_size: u64,
    },
    /// A card is verified: the record is complete.
    CardVerified {
        /// Its lease.
        lease: LeaseId,
        /// All that is kept of it.
        record: Box<CardRecord>,
    },
    /// A card did not hold what was written: it is written again in place, once.
    WriteRepeated {
        /// Task.
        task: TaskId,
        /// Its lease.
        lease: LeaseId,
        /// Where.
        slot: SlotId,
        /// Why.
        fault: Fault,
    },
    /// A task failed on this card and is to be done with another.
    WriteFailed {
        /// Task.
        task: TaskId,
        /// Its lease.
        lease: LeaseId,
        /// Where.
        slot: SlotId,
        /// Why.
        fault: Fault,
        /// What follows.
        remedy: Remedy,
        /// The card, where it can be known again: by the note it keeps of its failures.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        card: Option<ObjectId>,
    },
    /// The image does not match its index, or cannot be had.
    ImageRefused {
        /// Which image.
        image: ImageId,
        /// Its lease.
        lease: LeaseId,
        /// Why.
        fault: Fault,
    },
}

/// What follows a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Remedy {
    /// Do it again on the same card.
    Retry,
    /// Put another card in.
    ReplaceCard,
    /// The slot's reader fails.
    ReplaceReader,
    /// A person must look.
    CallOperator,
    /// The program is wrong.
    Bug,
}

/// `appliance/{id}/event/ack`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Ack {
    /// Version.
    #[serde(default = "version")]
    pub v: u8,
    /// All facts up to this number are stored.
    pub upto: u64,
}
