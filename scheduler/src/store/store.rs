//! The store as `effects` sees it: typed documents over whichever engine keeps them. Cheap to clone; closed when the
//! last clone is dropped.

use std::path::Path;
use std::sync::Arc;

use tokio::sync::{broadcast, watch};

use super::embedded::{Embedded, World};
use super::engine::{Engine, News};
use super::memory::Memory;
use super::postgres::Postgres;
use super::{Batch, Document, PostgresAddress, Select, StoreError, Stored, dump};

/// Candidates a claim reads at once.
const CLAIM_CANDIDATES: usize = 256;

/// The open store.
#[derive(Clone)]
pub(crate) struct Store {
    pub(super) engine: Arc<dyn Engine>,
}

impl Store {
    /// Opens or makes the embedded store in `path`.
    ///
    /// # Errors
    /// `InUse`, `Damaged` or `Disk`.
    pub(crate) fn open(path: &Path) -> Result<Self, StoreError> {
        Ok(Self { engine: Arc::new(Embedded::open(path, World::default())?) })
    }

    /// Opens or makes the store in a database, where others may work at the same time.
    ///
    /// # Errors
    /// `Unreachable`.
    pub(crate) fn open_postgres(address: PostgresAddress) -> Result<Self, StoreError> {
        Ok(Self { engine: Arc::new(Postgres::open(address)?) })
    }

    /// A store that forgets everything when it is closed.
    pub(crate) fn memory() -> Self {
        Self { engine: Arc::new(Memory::default()) }
    }

    /// The store on the disk of a simulation.
    pub(crate) fn simulated(disk: super::Simulated) -> Self {
        Self { engine: Arc::new(disk) }
    }

    /// True while writes are possible.
    pub(crate) fn is_healthy(&self) -> bool {
        self.engine.is_healthy()
    }

    /// Whether this process is the one that looks after timers; it may change at any time.
    pub(crate) fn leads(&self) -> watch::Receiver<bool> {
        self.engine.leads()
    }

    /// Changes of other processes from now on; `None` when there can be no other.
    pub(crate) fn news(&self) -> Option<broadcast::Receiver<News>> {
        self.engine.news()
    }

    /// What was found damaged when the store was opened, and what became of it.
    pub(crate) fn repaired(&self) -> Option<&str> {
        self.engine.repaired()
    }

    /// A digest of everything: the same when nothing was changed.
    #[cfg(test)]
    pub(crate) fn fingerprint(&self) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new();
        let written = self.engine.dump(&mut |record| {
            hasher.update(&record.encode());
            Ok(())
        });
        written.expect("the store of a test can be read");
        hasher.finalize()
    }

    /// Writes everything as it is at one moment to a new file; the number of documents.
    ///
    /// # Errors
    /// `Disk`, also when the file is there already, and what reading gives.
    pub(crate) fn back_up(&self, path: &Path) -> Result<u64, StoreError> {
        dump::write_file(path, |to| self.engine.dump(&mut |record| to.record(&record)))
    }

    /// On return everything that was read before is on the disk: for who answers with what another has written.
    ///
    /// # Errors
    /// `Stopped`.
    pub(crate) async fn settle(&self) -> Result<(), StoreError> {
        self.engine.apply(Vec::new()).await
    }

    /// Carries out a batch; on return it is on the disk.
    ///
    /// # Errors
    /// `Conflict` when a version is not the expected one, `TooLarge`, `Stopped`, `Unreachable`, and `Disk` when that is
    /// full.
    pub(crate) async fn apply(&self, batch: Batch) -> Result<(), StoreError> {
        if batch.is_empty() {
            return Ok(());
        }
        self.engine.apply(batch.changes).await
    }

    /// The document with this id.
    ///
    /// # Errors
    /// `Disk`, `Unreadable`, `Unreachable`, or `Stopped` after a failed write.
    pub(crate) fn get<T: Document>(&self, id: &str) -> Result<Option<Stored<T>>, StoreError> {
        self.engine.get(T::KIND, id)?.map(super::Record::into_document).transpose()
    }

    /// A page of documents.
    ///
    /// # Errors
    /// `Disk`, `Unreadable`, `Unreachable`, or `Stopped` after a failed write.
    pub(crate) fn list<T: Document>(&self, select: Select<'_>) -> Result<Vec<Stored<T>>, StoreError> {
        self.engine.list(T::KIND, select)?.into_iter().map(super::Record::into_document).collect()
    }

    /// Gives one of the documents with this index value to exactly one caller: `take` says for a candidate what
    /// batch would take it, or `None` to pass it over.
    ///
    /// # Errors
    /// As [`Store::apply`], but `Conflict` means trying the next candidate.
    pub(crate) async fn claim<T: Document, R>(
        &self,
        index: (&str, &str),
        mut take: impl FnMut(&Stored<T>) -> Option<(Batch, R)>,
    ) -> Result<Option<R>, StoreError> {
        let mut after: Option<String> = None;
        loop {
            let after_id = after.as_deref();
            let select =
                Select { index: Some(index), after: after_id, limit: CLAIM_CANDIDATES, ..Select::default() };
            let candidates = self.list::<T>(select)?;
            let Some(last) = candidates.last() else { return Ok(None) };
            after = Some(last.value.id());
            for candidate in candidates {
                let Some((batch, result)) = take(&candidate) else { continue };
                let (id, version) = (candidate.value.id(), candidate.version);
                if self.engine.claim(T::KIND, &id, version, batch.changes).await? {
                    return Ok(Some(result));
                }
            }
        }
    }
}
