//! A document as engines keep it: its name, its version, how it is found, and its content, which they do not read.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Document, StoreError, Stored};

/// One document.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) kind: String,
    pub(crate) id: String,
    /// Counts the document's changes from 1.
    pub(crate) version: u64,
    /// Schema of the body.
    pub(crate) schema: u32,
    /// Name and value of every secondary index.
    #[serde(default)]
    pub(crate) index: Vec<(String, String)>,
    pub(crate) body: Value,
}

impl Record {
    pub(super) fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a record is plain JSON")
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(bytes)
    }

    /// All but the body, which is read and let go of.
    pub(super) fn decode_head(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        #[derive(Deserialize)]
        struct Head {
            kind: String,
            id: String,
            version: u64,
            schema: u32,
            #[serde(default)]
            index: Vec<(String, String)>,
            #[serde(rename = "body")]
            _body: serde::de::IgnoredAny,
        }
        let Head { kind, id, version, schema, index, .. } = serde_json::from_slice(bytes)?;
        Ok(Self { kind, id, version, schema, index, body: Value::Null })
    }

    /// The document, brought to the schema of this program.
    ///
    /// # Errors
    /// `Unreadable` when it is of a newer program or not what its kind says.
    pub(super) fn into_document<T: Document>(self) -> Result<Stored<T>, StoreError> {
        let Self { id, version, schema, mut body, .. } = self;
        let unreadable = |reason: String| StoreError::Unreadable { kind: T::KIND, id: id.clone(), reason };
        if schema > T::SCHEMA {
            return Err(unreadable(format!("it was written by a newer cardshop (schema {schema})")));
        }
        for from in schema..T::SCHEMA {
            body = T::upgrade(from, body);
        }
        let value = serde_json::from_value(body).map_err(|e| unreadable(e.to_string()))?;
        Ok(Stored { version, value })
    }
}
