//! One document's change, decided: what a journal keeps and a backup is brought up to date with.

use serde::{Deserialize, Serialize};

use super::Record;

/// A change.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Entry {
    /// The document is this now.
    Put(Record),
    /// It is gone: kind and id.
    Remove(String, String),
}

impl Entry {
    pub(super) fn kind(&self) -> &str {
        match self {
            Self::Put(record) => &record.kind,
            Self::Remove(kind, _) => kind,
        }
    }

    pub(super) fn id(&self) -> &str {
        match self {
            Self::Put(record) => &record.id,
            Self::Remove(_, id) => id,
        }
    }

    /// Adds the JSON of a change whose record is encoded already.
    pub(super) fn encode(kind: &str, id: &str, record: Option<&[u8]>, to: &mut Vec<u8>) {
        match record {
            Some(record) => {
                to.extend_from_slice(b"{\"put\":");
                to.extend_from_slice(record);
                to.push(b'}');
            }
            None => {
                let remove = Self::Remove(kind.to_owned(), id.to_owned());
                to.extend(serde_json::to_vec(&remove).expect("a change is plain JSON"));
            }
        }
    }
}
