//! Everything that touches the world: files, sockets, devices, threads, the clock. Nothing here decides what a
//! slot does; what happens is told to [`crate::core`], what it wants is done.
//!
//! ```text
//!                    ┌── session (join, login, renewal) ──► access token ──┐
//!  server ◄─ http ───┤                                                     ├─► mqtt ◄──► broker
//!   cache_disk ────► └── fetch ──► store (cache) ──► writer, one a card ───┘
//!  uevents ──► readers, fixed_slots, virtual_bench, probe  outbox (journal), state (key, identity), slot_book
//!  lights ──► kernel_leds, panel                          console ──► errands
//! ```

pub(crate) mod address;
mod ansi;
pub(crate) mod bell;
pub(crate) mod cache;
pub(crate) mod cache_disk;
pub(crate) mod clock;
pub(crate) mod console;
pub(crate) mod devices;
pub(crate) mod errands;
pub(crate) mod fetch;
pub(crate) mod fixed_slots;
mod fresh;
pub(crate) mod http;
pub(crate) mod join_file;
pub(crate) mod kernel_leds;
pub(crate) mod lights;
pub mod logs;
pub(crate) mod machine;
pub(crate) mod mqtt;
pub(crate) mod outbox;
pub(crate) mod panel;
pub(crate) mod passport;
mod pin;
pub(crate) mod probe;
pub(crate) mod readers;
pub(crate) mod screen;
pub(crate) mod server;
pub(crate) mod session;
pub(crate) mod single;
pub(crate) mod slot_book;
pub(crate) mod state;
pub(crate) mod store;
pub(crate) mod support;
pub(crate) mod uevents;
pub(crate) mod update;
pub(crate) mod virtual_bench;
pub(crate) mod writer;

#[cfg(test)]
mod fetch_local_tests;
#[cfg(test)]
mod fetch_tests;
#[cfg(test)]
mod mqtt_tests;
#[cfg(test)]
mod session_tests;
#[cfg(test)]
mod test_fetch;
#[cfg(test)]
mod test_http;
#[cfg(test)]
mod test_tls;
#[cfg(test)]
mod test_warehouse;
