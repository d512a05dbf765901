//! Decides what a batch does to an ordered map: compares versions, keeps the indexes, and gives the writes and the
//! line of the journal. Pure; reading is an argument. The memory and the sled engine carry it out.

use std::collections::BTreeMap;

use super::StoreError;
use super::batch::{Change, Expect};
use super::entry::Entry;
use super::keys::{document_key, index_keys};
use super::record::Record;

/// A document's version and index keys; `None` = it does not exist.
type State = Option<(u64, Vec<Vec<u8>>)>;

/// The documents that earlier batches of a group have changed.
#[derive(Default)]
pub(super) struct Overlay(BTreeMap<Vec<u8>, State>);

/// What one batch does, as a whole.
#[derive(Default)]
pub(super) struct Staged {
    /// Keys with what is put there; `None` removes.
    pub(super) writes: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    /// The batch as the journal keeps it, a JSON list of [`Entry`].
    pub(super) line: Vec<u8>,
}

/// Checks one batch against what is there and what the group did before it.
///
/// # Errors
/// `Conflict`, `TooLarge`, and what `read` gives; then the overlay is as before.
pub(super) fn stage(
    changes: &[Change],
    overlay: &mut Overlay,
    read: impl Fn(&[u8]) -> Result<Option<Record>, StoreError>,
) -> Result<Staged, StoreError> {
    let mut own = BTreeMap::new();
    let mut staged = Staged::default();
    for change in changes {
        let key = document_key(change.kind, &change.id);
        let current = match own.get(&key).or_else(|| overlay.0.get(&key)) {
            Some(current) => Clone::clone(current),
            None => read(&key)?.map(|record| (record.version, index_keys(&record))),
        };
        let version = current.as_ref().map(|(version, _)| *version);
        let expected = match change.expect {
            Expect::Absent => version.is_none(),
            Expect::Version(wanted) => version == Some(wanted),
            Expect::Any => true,
        };
        if !expected {
            return Err(change.conflict());
        }
        let next = version.unwrap_or(0) + 1;
        let bytes = change.encode(next)?;
        staged.line.push(if staged.line.is_empty() { b'[' } else { b',' });
        Entry::encode(change.kind, &change.id, bytes.as_deref(), &mut staged.line);
        let index = change.record(next).map(|record| index_keys(&record));
        staged.replace(key.clone(), current.map(|(_, index)| index), bytes, index.clone());
        own.insert(key, index.map(|index| (next, index)));
    }
    staged.line.push(b']');
    overlay.0.extend(own);
    Ok(staged)
}

/// What a change that was decided before does to what is there now: for bringing back a journal or a backup.
pub(super) fn replay(entry: Entry, old: Option<&Record>, staged: &mut Staged) {
    let key = document_key(entry.kind(), entry.id());
    match entry {
        Entry::Put(new) => {
            let index = index_keys(&new);
            staged.replace(key, old.map(index_keys), Some(new.encode()), Some(index));
        }
        Entry::Remove(..) => staged.replace(key, old.map(index_keys), None, None),
    }
}

impl Staged {
    fn replace(
        &mut self,
        key: Vec<u8>,
        old_index: Option<Vec<Vec<u8>>>,
        bytes: Option<Vec<u8>>,
        index: Option<Vec<Vec<u8>>>,
    ) {
        self.writes.extend(old_index.into_iter().flatten().map(|key| (key, None)));
        self.writes.push((key, bytes));
        self.writes.extend(index.into_iter().flatten().map(|key| (key, Some(Vec::new()))));
    }
}
