//! An image and a card in, a verified card out. The engine the agent and the command line share: it maps and
//! indexes images, refuses what is not a card, claims, probes, writes, reads back past every cache, and leaves
//! the passport. Blocking code, one thread per card; it decides nothing about orders, slots or people.
//!
//! ```text
//!  image file ── map_file, bmap ──► index_file ──► Index
//!                                                    │
//!  path ── gather ─► interlock ─► claim ─► ClaimedCard ─► probe ─► write_card ─► Outcome (verified)
//!                                                                  verify_card, read_passport
//! ```

pub mod bmap;
mod claim;
mod contents;
mod device;
mod error;
mod facts;
mod fat_guard;
pub mod interlock;
mod ioctl;
mod lanes;
mod map;
pub mod memory;
mod note;
#[cfg(feature = "packed")]
mod packed;
mod passport;
mod plan;
mod probe;
mod shared;
mod source;
mod stop;
mod stream;
mod verify;
mod write;

pub use claim::{ClaimedCard, ReadableCard, claim};
pub use contents::is_freshly_formatted;
pub use error::{CardError, Operation};
pub use facts::gather;
pub use interlock::{DeviceClass, DeviceFacts, DeviceIdentity, Policy, Refusal};
pub use map::{IndexFileError, index_file, map_file};
pub use note::FailureNote;
#[cfg(feature = "packed")]
pub use packed::{Packing, unpack};
pub use passport::{
    CARD_FILE, MAX_PASSPORT_SIZE, PassportError, PassportFiles, README_FILE, copy_root_file, read_passport,
    read_passport_of,
};
pub use probe::{ProbeReport, probe, probe_reading};
pub use shared::{CardSource, MakeSpill, SharedSource, WINDOW_BYTES};
pub use source::{ChunkSource, FileSource, SourceError};
pub use stop::StopFlag;
pub use stream::{ImageStream, index_stream};
pub use verify::{VerifyOutcome, verify_card};
pub use write::{Job, Outcome, Progress, refresh_card, write_card};
