//! What an engine does: commands and queries over records. One suite of tests (`conformance`) says how each of them
//! behaves. Reads block the caller; commands are futures that end when what was asked is on the disk.

use std::io;
use std::pin::Pin;

use tokio::sync::{broadcast, watch};

use super::batch::Change;
use super::{Record, Select, StoreError};

/// What a command gives, some day.
pub(super) type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;
/// Takes records one after the other.
pub(super) type Sink<'a> = &'a mut dyn FnMut(Record) -> io::Result<()>;

/// What another scheduler on the same store has changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum News {
    /// These documents: kind and id.
    Documents(Vec<(String, String)>),
    /// Nobody knows what: look at everything.
    Everything,
}

/// A way to keep documents.
pub(super) trait Engine: Send + Sync {
    /// The document with this id.
    fn get(&self, kind: &'static str, id: &str) -> Result<Option<Record>, StoreError>;

    /// A page of documents.
    fn list(&self, kind: &'static str, select: Select<'_>) -> Result<Vec<Record>, StoreError>;

    /// Carries out changes together or not at all; on return they are on the disk. No changes: on return everything
    /// that was read before is.
    fn apply(&self, changes: Vec<Change>) -> Answer<'_, ()>;

    /// Carries out the changes that take a document read at `version`; false when somebody else has taken it, or is
    /// about to.
    fn claim(&self, _kind: &'static str, _id: &str, _version: u64, changes: Vec<Change>) -> Answer<'_, bool> {
        let applied = self.apply(changes);
        Box::pin(async move {
            match applied.await {
                Ok(()) => Ok(true),
                Err(StoreError::Conflict { .. }) => Ok(false),
                Err(error) => Err(error),
            }
        })
    }

    /// All documents as they were at one moment, in the order of kind and id, while others go on.
    fn dump(&self, sink: Sink<'_>) -> Result<(), StoreError>;

    /// True while writes are possible.
    fn is_healthy(&self) -> bool;

    /// Whether this process is the one of several that looks after timers; always, when there can be no other.
    fn leads(&self) -> watch::Receiver<bool> {
        watch::channel(true).1
    }

    /// Changes of others from now on.
    fn news(&self) -> Option<broadcast::Receiver<News>> {
        None
    }

    /// What was found damaged when it was opened, and what became of it.
    fn repaired(&self) -> Option<&str> {
        None
    }
}
