//! The engine that keeps everything in memory and nothing on a disk: for tests and simulations.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};

use super::batch::Change;
use super::engine::{Answer, Engine, Sink};
use super::keys::{all_documents, document_key, range};
use super::stage::{Overlay, stage};
use super::{Record, Select, StoreError};

type Map = BTreeMap<Vec<u8>, Vec<u8>>;

/// The documents.
#[derive(Default)]
pub(super) struct Memory(Mutex<Map>);

impl Memory {
    fn map(&self) -> MutexGuard<'_, Map> {
        self.0.lock().expect("no holder panics")
    }

    /// Another memory with the same in it.
    pub(super) fn copy(&self) -> Self {
        Self(Mutex::new(self.map().clone()))
    }
}

fn record(bytes: &[u8]) -> Record {
    Record::decode(bytes).expect("memory holds what was encoded")
}

impl Engine for Memory {
    fn get(&self, kind: &'static str, id: &str) -> Result<Option<Record>, StoreError> {
        Ok(self.map().get(&document_key(kind, id)).map(|bytes| record(bytes)))
    }

    fn list(&self, kind: &'static str, select: Select<'_>) -> Result<Vec<Record>, StoreError> {
        let map = self.map();
        let (range, prefix) = range(kind, select);
        let id = |key: &[u8]| String::from_utf8_lossy(&key[prefix..]).into_owned();
        let found = map.range(range);
        let found: Box<dyn Iterator<Item = _>> =
            if select.newest_first { Box::new(found.rev()) } else { Box::new(found) };
        let found = found.take(select.limit);
        Ok(match select.index {
            None => found.map(|(_, bytes)| record(bytes)).collect(),
            Some(_) => found.map(|(key, _)| record(&map[&document_key(kind, &id(key))])).collect(),
        })
    }

    fn apply(&self, changes: Vec<Change>) -> Answer<'_, ()> {
        let mut map = self.map();
        let read = |key: &[u8]| Ok(map.get(key).map(|bytes| record(bytes)));
        let done = stage(&changes, &mut Overlay::default(), read).map(|staged| {
            for (key, value) in staged.writes {
                match value {
                    Some(value) => map.insert(key, value),
                    None => map.remove(&key),
                };
            }
        });
        Box::pin(std::future::ready(done))
    }

    fn dump(&self, sink: Sink<'_>) -> Result<(), StoreError> {
        let map = self.map();
        for (_, bytes) in map.range(all_documents()) {
            sink(record(bytes)).map_err(StoreError::Dump)?;
        }
        Ok(())
    }

    fn is_healthy(&self) -> bool {
        true
    }
}
