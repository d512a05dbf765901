//! What decides: pure functions over documents and `now`. No clock, no randomness, no store, no socket; it never
//! names `effects`. Everything here can be tested with plain values.

pub mod account_hook;
pub mod auto_image;
pub(crate) mod blame;
pub mod documents;
pub mod estimate;
pub mod explain;
pub(crate) mod facts;
pub(crate) mod fields;
pub(crate) mod homeassistant;
pub(crate) mod lease;
pub mod order;
pub(crate) mod picture;
pub mod purpose;
pub(crate) mod queue;
pub mod rights;
pub mod task_log;
pub(crate) mod throttle;
pub(crate) mod token_keys;
pub mod units;
pub mod views;
