//! What decides: pure functions over documents and `now`. No clock, no randomness, no store, no socket; it never
//! names `effects`. Everything here can be tested with plain values.

pub mod account_hook;
pub mod address;
pub mod audit_filter;
pub mod auto_image;
pub(crate) mod blame;
pub(crate) mod branding;
pub mod configurations;
pub mod content;
pub mod country;
pub mod documents;
pub mod estimate;
pub mod explain;
pub(crate) mod facts;
pub(crate) mod fields;
pub mod health;
pub(crate) mod homeassistant;
pub(crate) mod lease;
pub mod media;
pub mod notify;
pub mod order;
pub(crate) mod outward;
pub(crate) mod phone;
pub(crate) mod picture;
pub mod purpose;
pub(crate) mod queue;
pub mod rights;
pub mod rollout;
pub mod task_log;
pub(crate) mod throttle;
pub(crate) mod token_keys;
pub mod units;
pub mod views;
pub mod web_session;
