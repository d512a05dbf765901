//! The store: JSON documents with versions, changed in batches by compare-and-set, found by id, by keyset and by
//! a few secondary indexes. It speaks in commands and queries, never in keys and values, and does not know what a
//! document means. `effects` calls it.
//!
//! ```text
//! effects ─► store (typed) ─► engine ─┬► memory     for tests and simulations
//!                                     │  simulated  the same, but it fails as it is told to
//!                                     ├► embedded   sled and a journal: one process, the default
//!                                     └► postgres   several schedulers at once
//! dump: everything as JSON lines, for backups and to move from one to another
//! ```
//!
//! What is answered `Ok` survives a kill and a power cut: the answer comes after the disk's.

mod admin;
mod batch;
#[cfg(test)]
mod conformance;
mod documents;
mod dump;
mod embedded;
mod engine;
mod entry;
mod furnish;
mod keys;
#[cfg(test)]
mod killed;
mod load;
mod memory;
mod postgres;
mod record;
mod simulated;
mod stage;
#[expect(clippy::module_inception, reason = "the store's own type")]
mod store;
#[cfg(test)]
pub(crate) mod test_postgres;
mod upgrade;

use std::path::PathBuf;

use serde::Serialize;
use serde::de::DeserializeOwned;

pub use admin::{StoreAddress, export_store, import_store};
pub(crate) use batch::{Batch, Stored};
pub(crate) use documents::KINDS;
pub use dump::read_any_dump;
pub(crate) use engine::News;
pub(crate) use furnish::furnish;
pub use load::{Loaded, TRANSITION_SIZE, load_store};
pub use postgres::PostgresAddress;
pub(crate) use record::Record;
pub(crate) use simulated::Simulated;
pub(crate) use store::Store;
pub(crate) use upgrade::upgrade;

/// Largest document, bytes of JSON. An order of 1000 copies, all written, has about 190,000; with everything in it
/// as long as it may be 1,160,000.
pub(crate) const MAX_DOCUMENT_SIZE: usize = 2 * 1024 * 1024;

/// A kind of document.
pub(crate) trait Document: Serialize + DeserializeOwned {
    /// Names the kind in the store.
    const KIND: &'static str;
    /// Grows when the shape changes so that older programs cannot read it.
    const SCHEMA: u32 = 1;
    /// Unique within the kind, without a zero byte.
    fn id(&self) -> String;
    /// Name and value of every secondary index this document is found by, without zero bytes.
    fn index(&self) -> Vec<(&'static str, String)> {
        Vec::new()
    }
    /// The body of schema `from` as schema `from + 1` has it.
    fn upgrade(_from: u32, body: serde_json::Value) -> serde_json::Value {
        body
    }
}

/// Which documents a list has, in the order of their ids.
#[derive(Clone, Copy, Default)]
pub(crate) struct Select<'a> {
    /// Only those with this value in this index.
    pub(crate) index: Option<(&'a str, &'a str)>,
    /// Only those behind this id.
    pub(crate) after: Option<&'a str>,
    /// Highest id first.
    pub(crate) newest_first: bool,
    /// At most this many.
    pub(crate) limit: usize,
}

/// What the store answers instead.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Somebody else changed, made or removed the document first: read it again.
    #[error("{kind} {id} was changed by somebody else")]
    Conflict {
        /// Kind of the document.
        kind: &'static str,
        /// Its id.
        id: String,
    },
    /// Another process holds the directory.
    #[error("{} is in use by another process: stop it, or choose another data directory", .path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// The files cannot be read.
    #[error(
        "the store in {} is damaged and cannot be put together ({reason}): move it aside and restore a backup",
        .path.display()
    )]
    Damaged {
        /// The directory.
        path: PathBuf,
        /// What is missing.
        reason: String,
    },
    /// The database cannot be used.
    #[error("the store in {store} cannot be reached: {reason}")]
    Unreachable {
        /// The database, for people.
        store: String,
        /// Why.
        reason: String,
    },
    /// What is read from a dump, or written to one, cannot be.
    #[error("documents cannot be read or written as lines")]
    Dump(#[source] std::io::Error),
    /// Something would be overwritten.
    #[error("there is a store in {0} already: nothing is overwritten")]
    NotEmpty(String),
    /// The disk refuses.
    #[error("the store cannot reach {}", .path.display())]
    Disk {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// An earlier write failed: nothing is promised any more until a restart.
    #[error("the store stopped after a failed write: free the disk and restart")]
    Stopped,
    /// A document is larger than `MAX_DOCUMENT_SIZE`.
    #[error("{kind} {id} has {size} bytes, {MAX_DOCUMENT_SIZE} are allowed")]
    TooLarge {
        /// Kind of the document.
        kind: &'static str,
        /// Its id.
        id: String,
        /// Bytes it has.
        size: usize,
    },
    /// A document that this program cannot read.
    #[error("{kind} {id} cannot be read: {reason}")]
    Unreadable {
        /// Kind of the document.
        kind: &'static str,
        /// Its id.
        id: String,
        /// Why.
        reason: String,
    },
}
