//! The documents as they were at one moment, while the writer goes on: before it changes a document it puts the old
//! one aside, once, and whoever reads them all prefers what was put aside.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use super::super::engine::Sink;
use super::super::keys::all_documents;
use super::super::{Record, StoreError};

/// Documents read between two looks at what was put aside.
const CHUNK: usize = 500;

/// Old documents by key; `None` for one that did not exist.
type Aside = BTreeMap<Vec<u8>, Option<sled::IVec>>;

/// What is put aside; nothing while nobody wants to read.
#[derive(Default, Clone)]
pub(super) struct Shadow(Arc<Mutex<Option<Aside>>>);

impl Shadow {
    fn aside(&self) -> MutexGuard<'_, Option<Aside>> {
        self.0.lock().expect("no holder panics")
    }

    /// This is the moment. Called by the writer, between two groups.
    pub(super) fn begin(&self) {
        *self.aside() = Some(Aside::new());
    }

    pub(super) fn end(&self) {
        *self.aside() = None;
    }

    /// Puts aside what lies at `keys`, which are about to be written.
    pub(super) fn keep<'a>(
        &self,
        tree: &sled::Tree,
        keys: impl Iterator<Item = &'a Vec<u8>>,
    ) -> sled::Result<()> {
        let mut aside = self.aside();
        let Some(aside) = aside.as_mut() else { return Ok(()) };
        let documents = all_documents();
        for key in keys.filter(|key| documents.contains(*key)) {
            if !aside.contains_key(key) {
                aside.insert(key.clone(), tree.get(key)?);
            }
        }
        Ok(())
    }

    /// All documents as they were at the moment, in order.
    pub(super) fn read(&self, tree: &sled::Tree, sink: Sink<'_>) -> Result<(), StoreError> {
        let unreadable = |e: sled::Error| StoreError::Dump(std::io::Error::other(e));
        let mut range = all_documents();
        loop {
            let found = tree.range(range.clone()).take(CHUNK);
            let mut chunk = found.collect::<sled::Result<BTreeMap<_, _>>>().map_err(unreadable)?;
            let is_full = chunk.len() == CHUNK;
            let mut end = range.end.clone();
            if let Some((last, _)) = chunk.last_key_value().filter(|_| is_full) {
                end = [last, &[0][..]].concat();
            }
            if let Some(aside) = self.aside().as_ref() {
                for (key, old) in aside.range(range.start.clone()..end.clone()) {
                    match old {
                        Some(old) => chunk.insert(key.as_slice().into(), old.clone()),
                        None => chunk.remove(key.as_slice()),
                    };
                }
            }
            for bytes in chunk.values() {
                let record = Record::decode(bytes).map_err(|e| StoreError::Dump(e.into()))?;
                sink(record).map_err(StoreError::Dump)?;
            }
            if !is_full {
                return Ok(());
            }
            range.start = end;
        }
    }
}
