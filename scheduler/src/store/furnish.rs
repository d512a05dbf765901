//! Makes the store of a site that has worked for years, all at once: for benchmarks.

use std::path::Path;

use super::batch::Batch;
use super::{Document, Record, Store, StoreError, embedded};

/// Makes the embedded store in `path` from what `base` has and very many documents of two kinds, each older than those of
/// `base` and in the order of their ids; the number of documents.
///
/// # Errors
/// `NotEmpty`, and what the disk says.
pub(crate) fn furnish<A: Document, B: Document>(
    path: &Path,
    base: &Store,
    first: impl Iterator<Item = A>,
    second: impl Iterator<Item = B>,
) -> Result<u64, StoreError> {
    assert!(A::KIND < B::KIND, "documents lie in the order of their kinds");
    let mut kept = Vec::new();
    base.engine.dump(&mut |record| {
        kept.push(record);
        Ok(())
    })?;
    embedded::restore(path, |sink| {
        let mut kept = kept.into_iter().peekable();
        let mut put = |record: Record| sink(record).map_err(StoreError::Dump);
        while let Some(record) = kept.next_if(|record| record.kind.as_str() < A::KIND) {
            put(record)?;
        }
        first.map(|document| record_of(&document)).try_for_each(&mut put)?;
        while let Some(record) = kept.next_if(|record| record.kind.as_str() < B::KIND) {
            put(record)?;
        }
        second.map(|document| record_of(&document)).try_for_each(&mut put)?;
        kept.try_for_each(put)
    })
}

/// A document as it is kept when it is new.
fn record_of<T: Document>(document: &T) -> Record {
    let mut batch = Batch::new();
    batch.create(document);
    batch.changes[0].record(1).expect("it was put, not removed")
}
