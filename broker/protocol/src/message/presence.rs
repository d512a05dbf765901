//! What an appliance and the server say of themselves: presence, hardware, health, alerts.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::version;
use crate::ids::SlotId;
use crate::time::Timestamp;
use crate::update::Version;

/// What an appliance, or the server, says of its presence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Presence {
    /// Connected and working.
    Online,
    /// Ended on purpose.
    Stopped,
    /// Restarting into another partition set.
    Updating,
    /// The will: the connection broke.
    Offline,
}

/// `server/status` and `appliance/{id}/status`. A message with a lower `session` than the last is ignored, so
/// that an old connection's will cannot overwrite a newer birth.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct StatusMessage {
    /// Version.
    #[serde(default = "version")]
    pub v: u8,
    /// Presence.
    pub status: Presence,
    /// Grows with every connection of the sender.
    pub session: u64,
}

/// `server/time`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct TimeMessage {
    /// Version.
    #[serde(default = "version")]
    pub v: u8,
    /// UTC.
    pub now: Timestamp,
}

/// `appliance/{id}/info`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Info {
    /// Version.
    #[serde(default = "version")]
    pub v: u8,
    /// Version of the agent.
    pub agent_version: String,
    /// Name from the join file.
    pub label: String,
    /// What the machine is, for people.
    pub hardware: Hardware,
    /// All slots it knows.
    pub slots: Vec<SlotInfo>,
    /// What people called slots at the appliance itself; a name in `desired` counts more.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub names: BTreeMap<SlotId, String>,
    /// The partition set that runs, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub system: Option<SystemInfo>,
    /// Optional abilities: `discard`, `led_panel` …
    #[serde(default)]
    pub capabilities: Vec<String>,
}

/// The partition set that runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct SystemInfo {
    /// `a` or `b`.
    pub set: String,
    /// Its version.
    pub version: Version,
}

/// What a machine is, for people.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Hardware {
    /// Make and model.
    pub model: String,
    /// Processor architecture.
    pub arch: String,
    /// Memory, bytes.
    pub memory_bytes: u64,
}

/// One slot in [`Info`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct SlotInfo {
    /// Slot id.
    pub slot: SlotId,
    /// USB port path plus LUN, or what stands for it: never `/dev/sdX`.
    pub port_path: String,
    /// What the reader calls itself.
    pub reader: String,
}

/// `appliance/{id}/health`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Health {
    /// Version.
    #[serde(default = "version")]
    pub v: u8,
    /// Hottest sensor, °C.
    pub temperature_c: Option<f32>,
    /// Cache in use, bytes.
    pub cache_used_bytes: u64,
    /// Cache free, bytes.
    pub cache_free_bytes: u64,
    /// Fetch rate of the last 30 s, bytes a second.
    pub link_bps: u64,
    /// Server time minus own time, if it was heard.
    pub clock_offset_ms: Option<i64>,
    /// Seconds since the agent started.
    pub uptime_s: u64,
}

/// `appliance/{id}/alert/{code}`; an empty payload clears it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Alert {
    /// Version.
    #[serde(default = "version")]
    pub v: u8,
    /// One line for people.
    pub text: String,
    /// Since when.
    pub since: Timestamp,
    /// Which slot, if one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slot: Option<SlotId>,
}
