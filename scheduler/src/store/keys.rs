//! How documents lie in an ordered map of bytes, for the engines that are one: `d kind id` holds the document,
//! `i kind name value id` holds nothing and is its entry in an index, with zero bytes between. Pure.

use std::ops::Range;

use super::{Record, Select};

/// Where a document lies.
pub(super) fn document_key(kind: &str, id: &str) -> Vec<u8> {
    [&b"d"[..], kind.as_bytes(), id.as_bytes()].join(&0)
}

/// Everything that is a document.
pub(super) fn all_documents() -> Range<Vec<u8>> {
    b"d\0".to_vec()..b"d\x01".to_vec()
}

fn index_prefix(kind: &str, name: &str, value: &str) -> Vec<u8> {
    [&b"i"[..], kind.as_bytes(), name.as_bytes(), value.as_bytes(), &b""[..]].join(&0)
}

/// A document's entries in its indexes.
pub(super) fn index_keys(record: &Record) -> Vec<Vec<u8>> {
    let key = |(name, value): &(String, String)| {
        let mut key = index_prefix(&record.kind, name, value);
        key.extend_from_slice(record.id.as_bytes());
        key
    };
    record.index.iter().map(key).collect()
}

/// The keys a list has to read, and the length of what comes before an id in each.
pub(super) fn range(kind: &str, select: Select<'_>) -> (Range<Vec<u8>>, usize) {
    let prefix = match select.index {
        Some((name, value)) => index_prefix(kind, name, value),
        None => document_key(kind, ""),
    };
    let mut range = prefix.clone()..past(&prefix);
    if let Some(after) = select.after {
        let mut key = prefix.clone();
        key.extend_from_slice(after.as_bytes());
        if select.newest_first {
            range.end = key;
        } else {
            key.push(0);
            range.start = key;
        }
    }
    if range.start >= range.end {
        range.end = range.start.clone();
    }
    (range, prefix.len())
}

/// The first key behind all that begin with `prefix`, which ends in a zero byte.
fn past(prefix: &[u8]) -> Vec<u8> {
    let mut key = prefix.to_vec();
    *key.last_mut().expect("a prefix is never empty") = 1;
    key
}
