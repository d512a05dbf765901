//! What requests bring, through the readers that handlers use, with what must hold whatever it is. For the fuzzer and
//! for the test that replays what it kept; nothing else calls it.
//!
//! | reader | most bytes | where the limit is |
//! |---|---|---|
//! | heads of requests | 128 KiB in all | `server::BUFFER`, before any reader sees them |
//! | `Upload-Metadata` | 4 KiB | `core::metadata` |
//! | JSON of links and of what is said of images | 4 KiB | `http::manage::MAX_BODY` |

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::core::checksum::Checksum;
use crate::core::metadata::{self, Kind, MAX_NAME_LENGTH, Metadata};
use crate::core::precondition::{Conditions, Verdict, decide};
use crate::core::range::{MAX_RANGES, Selection, select};
use crate::http;

const ETAG: &str = "\"id\"";

/// Reads headers, one a line: `Range`, `If-Range`, `If-None-Match`, `If-Match`, `Upload-Metadata`, `Upload-Checksum`,
/// `Authorization`. A line that is empty is a header that is not there.
pub fn headers(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let mut lines = text.split('\n').map(|line| Some(line).filter(|line| !line.is_empty()));
    let mut next = || lines.next().flatten();
    let range = next();
    for size in [1, 10_000, u64::MAX] {
        if let Selection::Parts(parts) = select(range, size) {
            assert!((1..=MAX_RANGES).contains(&parts.len()));
            assert!(parts.iter().all(|part| part.start < part.end && part.end <= size));
            let mut sorted = parts;
            sorted.sort_by_key(|part| part.start);
            assert!(sorted.windows(2).all(|pair| pair[0].end <= pair[1].start), "no byte is sent twice");
        }
    }
    let (if_range, if_none_match, if_match) = (next(), next(), next());
    match decide(Conditions { if_match, if_none_match, if_range }, ETAG) {
        Verdict::Go { range } => assert!(!range || if_range.is_none_or(|tag| tag.trim() == ETAG)),
        Verdict::NotModified => assert!(if_none_match.is_some()),
        Verdict::Failed => assert!(if_match.is_some()),
    }
    if let Some(Ok(known)) = next().map(metadata::parse) {
        assert!(known.name.chars().count() <= MAX_NAME_LENGTH && !known.name.chars().any(char::is_control));
        assert_eq!(metadata::parse(&written(&known)), Ok(known));
    }
    let _ = next().map(Checksum::parse);
    let _ = next().map(http::token);
}

fn written(known: &Metadata) -> String {
    let kind = match known.kind {
        Kind::Image => "image",
        Kind::Index => "index",
        Kind::Packed => "packed",
    };
    let pair = |key: &str, value: &str| format!("{key} {}", STANDARD.encode(value));
    let mut pairs =
        vec![pair("kind", kind), pair("task", &known.task.to_string()), pair("name", &known.name)];
    pairs.extend(known.image.map(|image| pair("image", &image.to_string())));
    pairs.join(",")
}

/// Reads the bodies of `PUT /links/{id}` and `PATCH /images/{id}`.
pub fn bodies(bytes: &[u8]) {
    http::read_bodies(bytes);
}
