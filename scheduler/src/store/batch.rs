//! A batch: documents to make, change or remove together or not at all, each with the version it was read at.
//! Pure data; an engine carries it out.

use super::{Document, MAX_DOCUMENT_SIZE, Record, StoreError};

/// A document with the version it was read at.
#[derive(Debug, Clone)]
pub(crate) struct Stored<T> {
    /// Counts the document's changes from 1.
    pub(crate) version: u64,
    /// The document.
    pub(crate) value: T,
}

/// What must be true of a document before it is changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Expect {
    /// It does not exist.
    Absent,
    /// It exists at this version.
    Version(u64),
    /// Nothing.
    Any,
}

/// One document's change.
pub(super) struct Change {
    pub(super) kind: &'static str,
    pub(super) id: String,
    pub(super) expect: Expect,
    /// `None` removes it.
    pub(super) put: Option<Put>,
}

/// The new content of a document.
pub(super) struct Put {
    pub(super) schema: u32,
    pub(super) body: serde_json::Value,
    pub(super) index: Vec<(&'static str, String)>,
}

/// Changes that happen together or not at all.
#[derive(Default)]
pub(crate) struct Batch {
    pub(super) changes: Vec<Change>,
}

impl Batch {
    /// Nothing yet.
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Makes a document; a conflict when it exists.
    pub(crate) fn create<T: Document>(&mut self, value: &T) -> &mut Self {
        self.push(value, Expect::Absent)
    }

    /// Replaces a document read as `read`; a conflict when it was changed since.
    pub(crate) fn update<T: Document>(&mut self, read: &Stored<T>, value: &T) -> &mut Self {
        self.push(value, Expect::Version(read.version))
    }

    /// Makes or replaces a document, whatever was there.
    pub(crate) fn put<T: Document>(&mut self, value: &T) -> &mut Self {
        self.push(value, Expect::Any)
    }

    /// Makes a document when `read` is `None`, else replaces what was read.
    pub(crate) fn upsert<T: Document>(&mut self, read: Option<&Stored<T>>, value: &T) -> &mut Self {
        self.push(value, read.map_or(Expect::Absent, |r| Expect::Version(r.version)))
    }

    /// Removes a document if it is there.
    pub(crate) fn remove<T: Document>(&mut self, id: &str) -> &mut Self {
        self.changes.push(Change { kind: T::KIND, id: id.to_owned(), expect: Expect::Any, put: None });
        self
    }

    /// Adds the changes of another batch.
    pub(crate) fn join(&mut self, other: Self) -> &mut Self {
        self.changes.extend(other.changes);
        self
    }

    /// True when there is nothing to do.
    pub(crate) fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }

    fn push<T: Document>(&mut self, value: &T, expect: Expect) -> &mut Self {
        let body = serde_json::to_value(value).expect("documents are plain JSON");
        let put = Put { schema: T::SCHEMA, body, index: value.index() };
        self.changes.push(Change { kind: T::KIND, id: value.id(), expect, put: Some(put) });
        self
    }
}

impl Change {
    /// The document as it is kept, at its next version; `None` when it is removed.
    pub(super) fn record(&self, version: u64) -> Option<Record> {
        let put = self.put.as_ref()?;
        let index = put.index.iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect();
        let (kind, id) = (self.kind.to_owned(), self.id.clone());
        Some(Record { kind, id, version, schema: put.schema, index, body: put.body.clone() })
    }

    /// The same as bytes.
    ///
    /// # Errors
    /// `TooLarge`.
    pub(super) fn encode(&self, version: u64) -> Result<Option<Vec<u8>>, StoreError> {
        let Some(record) = self.record(version) else { return Ok(None) };
        let bytes = record.encode();
        if bytes.len() > MAX_DOCUMENT_SIZE {
            return Err(StoreError::TooLarge { kind: self.kind, id: self.id.clone(), size: bytes.len() });
        }
        Ok(Some(bytes))
    }

    /// What to say when the document is not as expected.
    pub(super) fn conflict(&self) -> StoreError {
        StoreError::Conflict { kind: self.kind, id: self.id.clone() }
    }
}
