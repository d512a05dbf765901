//! The store: JSON documents with versions, changed in batches by compare-and-set, found by id, by keyset and by
//! a few secondary indexes. It speaks in commands and queries, never in keys and values, so that another engine
//! can take its place. It does not know what a document means. `effects` calls it.
//!
//! ```text
//! caller ── apply(Batch) ──► queue ──► writer thread: check versions, one atomic write, flush, sync ──► answer
//!        ◄─ done | Conflict ───────────────────────────────────────────────────────────┘
//! ```
//!
//! What is answered `Ok` survives a kill and a power cut: the answer comes after the disk's.

mod batch;
mod documents;
mod durable;
mod engine;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

use serde::Serialize;
use serde::de::DeserializeOwned;

pub(crate) use batch::{Batch, Stored};
pub(crate) use engine::Store;

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
        "the store in {} is damaged and cannot be opened: move it aside and restore a backup", .path.display()
    )]
    Damaged {
        /// The directory.
        path: PathBuf,
    },
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
