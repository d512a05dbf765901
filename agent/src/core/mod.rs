//! Decides what the appliance does. Pure: no clock, no file, no socket, no randomness; `now` is an argument and
//! what should be done comes out as [`Effect`]s, carried out in order by the owner (the agent's main thread).
//!
//! ```text
//!   desired, acks, commands ─┐                          ┌─► Append   (journal, durable before what follows)
//!   cards in and out ────────┤   Shop                   ├─► Show     (a slot's state: broker, screens, LEDs)
//!   findings, progress,      ├─► ├─ Slot × n   slot.rs  ├─► Probe, Write, Stop      (one thread per card)
//!   ends of writes ──────────┤   ├─ dispatch            ├─► Fetch, Abandon          (images)
//!   images arriving ─────────┘   ├─ Images, Sender      └─► Publish  (progress, facts, reported, replies)
//!                                └─ History (what is on disk)
//! ```
//!
//! Happy path: a lease arrives → its image is fetched, as many empty slots as there are open copies become
//! *wanted* → a card arrives, is probed, takes the next copy it is large enough for → the write is put on
//! record, then begun → the end of the write is put on record, then shown as *done*.
//!
//! [`book`] says which port each slot is and what people call it, [`naming`] how they get their names, `bench` what the
//! shop does about both. [`light`] says what a slot's light does at a moment, [`panel`] how a LED panel is told.
//! [`console`] is the screen on the machine itself, [`trial`] how it changes the network.
//!
//! Beside the shop stand smaller machines with owners of their own: [`enrol`] (join and login), [`ranges`]
//! (what of an image to fetch next), [`sources`] (whom to ask), [`reuse`] (what lies in older images), [`room`]
//! (what has to go from the cache), [`bucket`] (how fast), [`backoff`], [`rate`], [`update`] (which version of the
//! appliance runs).

pub mod backoff;
mod bench;
pub mod book;
pub mod bucket;
mod commands;
pub mod console;
mod console_draw;
pub mod dispatch;
pub mod enrol;
mod event;
pub mod guard;
pub mod history;
mod images;
pub mod light;
pub mod naming;
pub mod network_file;
pub mod notice;
pub mod panel;
pub mod panel_device;
pub mod panel_host;
pub mod ports;
pub mod ranges;
pub mod rate;
pub mod redact;
pub mod reuse;
pub mod room;
mod sender;
mod shop;
mod slot;
pub mod sources;
pub mod trial;
pub mod uevent;
pub mod update;
mod view;

pub use bench::{BenchView, SlotLine};
pub use console_draw::draw;
pub use event::{Effect, Event, Failure, Finding, Message, PassportFacts, SlotEvent, Trouble, Wish, Work};
pub use sender::{RESEND_AFTER, WINDOW};
pub use shop::Shop;

#[cfg(test)]
mod any_card_tests;
#[cfg(test)]
mod bench_tests;
#[cfg(test)]
mod model_tests;
#[cfg(test)]
mod outage_tests;
#[cfg(test)]
mod shop_outside_tests;
#[cfg(test)]
mod shop_tests;
