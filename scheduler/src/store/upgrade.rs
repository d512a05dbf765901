//! Brings documents to the schema of this program, at its start. Forward only, and only after a backup. Which schema
//! each kind has is kept in the store, so that nothing is read when nothing has changed.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::engine::Answer;
use super::{Batch, Document, Record, Select, Store, StoreError};

/// Documents read at once.
const CHUNK: usize = 200;

/// The schema that all documents of a kind have at least.
#[derive(Clone, Default, Serialize, Deserialize)]
struct Schemas {
    kinds: BTreeMap<String, u32>,
}

impl Document for Schemas {
    const KIND: &'static str = "schemas";
    fn id(&self) -> String {
        "all".to_owned()
    }
}

/// A kind of documents that this program knows.
pub(crate) struct Kind {
    pub(super) name: &'static str,
    schema: u32,
    upgrade: for<'a> fn(&'a Store) -> Answer<'a, ()>,
}

impl Kind {
    pub(super) const fn of<T: Document + Send + Sync + 'static>() -> Self {
        Self { name: T::KIND, schema: T::SCHEMA, upgrade: |store| Box::pin(upgrade_all::<T>(store)) }
    }
}

/// Upgrades what is older than this program; `back_up` is called before the first change. Others may do the same.
///
/// # Errors
/// `Unreadable` for what a newer program wrote, and what `back_up` and the store give.
pub(crate) async fn upgrade(
    store: &Store,
    kinds: &[Kind],
    back_up: impl FnOnce() -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let read = store.get::<Schemas>("all")?;
    let mut schemas = read.as_ref().map(|read| read.value.clone()).unwrap_or_default();
    let has = |kind: &Kind| schemas.kinds.get(kind.name).copied().unwrap_or(1);
    if let Some(newer) = kinds.iter().find(|kind| has(kind) > kind.schema) {
        let reason = format!("a newer cardshop was here (schema {} of {})", has(newer), newer.name);
        return Err(StoreError::Unreadable { kind: "schemas", id: newer.name.to_owned(), reason });
    }
    let older: Vec<_> = kinds.iter().filter(|kind| has(kind) < kind.schema).collect();
    if older.is_empty() {
        return Ok(());
    }
    let one = Select { limit: 1, ..Select::default() };
    let mut changes = false;
    for kind in &older {
        changes |= !store.engine.list(kind.name, one)?.is_empty();
    }
    // A new store has nothing that could be lost.
    if changes {
        back_up()?;
    }
    for kind in older {
        tracing::info!(
            kind = kind.name,
            schema = kind.schema,
            "documents are brought to this program's schema"
        );
        (kind.upgrade)(store).await?;
        schemas.kinds.insert(kind.name.to_owned(), kind.schema);
    }
    let mut batch = Batch::new();
    batch.put(&schemas);
    store.apply(batch).await
}

async fn upgrade_all<T: Document + Send + Sync>(store: &Store) -> Result<(), StoreError> {
    let mut after: Option<String> = None;
    loop {
        let select = Select { after: after.as_deref(), limit: CHUNK, ..Select::default() };
        let records = store.engine.list(T::KIND, select)?;
        let Some(last) = records.last() else { return Ok(()) };
        after = Some(last.id.clone());
        for record in records.into_iter().filter(|record| record.schema < T::SCHEMA) {
            let stored = Record::into_document::<T>(record)?;
            let mut batch = Batch::new();
            batch.update(&stored, &stored.value);
            match store.apply(batch).await {
                // Whoever changed it wrote it as this program does.
                Ok(()) | Err(StoreError::Conflict { .. }) => {}
                Err(error) => return Err(error),
            }
        }
    }
}
