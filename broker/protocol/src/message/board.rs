//! What screens and integrators see of a channel and of an order.

use serde::{Deserialize, Serialize};

use super::version;
use crate::ids::{Channel, OrderId};

/// `board/{channel}`: totals for screens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Board {
    /// Version.
    #[serde(default = "version")]
    pub v: u8,
    /// Which channel.
    pub channel: Channel,
    /// Orders not yet ended.
    pub open_orders: u32,
    /// Cards verified in open orders.
    pub verified: u32,
    /// Cards asked for in open orders.
    pub wanted: u32,
    /// Appliances online.
    pub appliances_online: u32,
}

/// `order/{channel}/{id}`: an order as integrators see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct OrderMessage {
    /// Version.
    #[serde(default = "version")]
    pub v: u8,
    /// Which order.
    pub order: OrderId,
    /// What people call it.
    pub name: String,
    /// Where it stands: `created`, `writing` …
    pub status: String,
    /// Cards asked for.
    pub quantity: u32,
    /// Cards verified.
    pub verified: u32,
    /// Cards shipped.
    pub shipped: u32,
}
