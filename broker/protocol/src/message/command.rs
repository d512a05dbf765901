//! Reflexes: the only messages that command. Never retained, void after their deadline.

use serde::{Deserialize, Serialize};

use super::version;
use crate::ids::{ObjectId, SlotId};

/// `appliance/{id}/cmd`: a reflex, void after its deadline.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Command {
    /// Version.
    #[serde(default = "version")]
    pub v: u8,
    /// Comes back in the reply; a repeated id is done once.
    pub id: ObjectId,
    /// Seconds from receipt after which it is ignored.
    pub deadline_s: u32,
    /// What to do.
    #[serde(flatten)]
    pub action: Action,
}

/// What a command asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(tag = "cmd", rename_all = "snake_case")]
pub enum Action {
    /// Strobe the slot's LED for 10 s.
    Identify {
        /// Which slot.
        slot: SlotId,
    },
    /// Flush and let go of the card.
    Eject {
        /// Which slot.
        slot: SlotId,
    },
    /// Try the card again.
    Retry {
        /// Which slot.
        slot: SlotId,
    },
    /// Allow one write over a guarded or confirmed card.
    Release {
        /// Which slot.
        slot: SlotId,
    },
    /// Restart the appliance when no card is being written.
    Reboot,
    /// Send the log ring.
    Logs,
    /// Fetch and try an update: the one on a card, or the one that is desired, also when it failed before.
    Update,
    /// Send a file for whoever helps to `POST /api/v1/support`, naming this command.
    Support,
    /// Log this much until the next start.
    LogLevel {
        /// What `RUST_LOG` takes; empty for what it was at the start.
        level: String,
    },
}

/// `appliance/{id}/cmd/reply`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct CommandReply {
    /// Version.
    #[serde(default = "version")]
    pub v: u8,
    /// The command's id.
    pub id: ObjectId,
    /// Whether it was done.
    pub ok: bool,
    /// Result, or why not.
    #[serde(default)]
    pub text: String,
}
