//! Everything that crosses a wire between the parts of Cardshop: ids, MQTT topics and messages, HTTP bodies,
//! tokens and the image index. It decides what is well-formed; it opens no file and no socket and reads no
//! clock. Every other crate uses it.

pub mod api;
#[cfg(feature = "configuration")]
pub mod configuration;
pub mod ids;
pub mod index;
pub mod join;
pub mod keys;
pub mod led;
pub mod message;
pub mod time;
#[cfg(feature = "jwt")]
pub mod token;
pub mod topic;
pub mod update;
