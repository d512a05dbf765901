//! Reads `Upload-Metadata`: what an upload says of itself. Nothing in it is ever used as a path. Pure; called
//! when an upload is created. **Source:** tus 1.0, creation extension; the keys are our own.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cardshop_protocol::ids::{ImageId, TaskId};
use serde::{Deserialize, Serialize};

/// Longest header that is read, bytes. Ours have below 400.
pub(crate) const MAX_METADATA_SIZE: usize = 4096;
/// Longest name of an image, characters.
pub(crate) const MAX_NAME_LENGTH: usize = 200;

/// What is uploaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    /// The bytes of an image.
    Image,
    /// The index of an image.
    Index,
    /// The chunks of an image that are not all zero, in the order of its index, which is here before.
    Packed,
}

impl Kind {
    /// True when an image comes of it.
    pub(crate) fn is_image(self) -> bool {
        matches!(self, Self::Image | Self::Packed)
    }
}

/// What an upload says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Metadata {
    /// What is uploaded.
    pub kind: Kind,
    /// For which task.
    pub task: TaskId,
    /// For people: printable, at most [`MAX_NAME_LENGTH`] characters; empty when not given.
    pub name: String,
    /// Which image it is meant to be; checked, never believed.
    pub image: Option<ImageId>,
}

/// Why a header is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum MetadataError {
    #[error("upload-metadata has {0} bytes, the limit is {MAX_METADATA_SIZE}")]
    TooLong(usize),
    #[error("upload-metadata is not a list of 'key base64' pairs with one space each and no key twice")]
    Malformed,
    #[error("upload-metadata lacks {0}")]
    Missing(&'static str),
    #[error("{key} in upload-metadata is not {wanted}")]
    Bad { key: &'static str, wanted: &'static str },
}

/// Reads a header's text. Keys that are not ours are ignored: stock clients send `filename` and such.
pub(crate) fn parse(header: &str) -> Result<Metadata, MetadataError> {
    if header.len() > MAX_METADATA_SIZE {
        return Err(MetadataError::TooLong(header.len()));
    }
    let pairs = pairs(header)?;
    let text = |key: &'static str| -> Result<Option<String>, MetadataError> {
        let Some((_, value)) = pairs.iter().find(|(k, _)| *k == key) else { return Ok(None) };
        let text = String::from_utf8(value.clone());
        text.map(Some).map_err(|_| MetadataError::Bad { key, wanted: "UTF-8 text" })
    };
    let kind = match text("kind")?.ok_or(MetadataError::Missing("kind"))?.as_str() {
        "image" => Kind::Image,
        "index" => Kind::Index,
        "packed" => Kind::Packed,
        _ => return Err(MetadataError::Bad { key: "kind", wanted: "image, index or packed" }),
    };
    let task = text("task")?.ok_or(MetadataError::Missing("task"))?;
    let task = task.parse().map_err(|_| MetadataError::Bad { key: "task", wanted: "a task id" })?;
    let name = text("name")?.unwrap_or_default();
    if name.chars().count() > MAX_NAME_LENGTH || name.chars().any(char::is_control) {
        return Err(MetadataError::Bad { key: "name", wanted: "at most 200 printable characters" });
    }
    let image = text("image")?.map(|t| t.parse()).transpose();
    let image = image.map_err(|_| MetadataError::Bad { key: "image", wanted: "an image id" })?;
    Ok(Metadata { kind, task, name, image })
}

fn pairs(header: &str) -> Result<Vec<(&str, Vec<u8>)>, MetadataError> {
    let mut pairs: Vec<(&str, Vec<u8>)> = Vec::new();
    for pair in header.split(',').map(str::trim).filter(|p| !p.is_empty()) {
        let (key, value) = pair.split_once(' ').unwrap_or((pair, ""));
        let value = STANDARD.decode(value).map_err(|_| MetadataError::Malformed)?;
        if pairs.iter().any(|(k, _)| *k == key) {
            return Err(MetadataError::Malformed);
        }
        pairs.push((key, value));
    }
    Ok(pairs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TASK: &str = "01ja0000000000000000000000-image";

    fn header(pairs: &[(&str, &str)]) -> String {
        let pairs: Vec<_> = pairs.iter().map(|(k, v)| format!("{k} {}", STANDARD.encode(v))).collect();
        pairs.join(",")
    }

    #[test]
    fn kind_task_name_and_image_are_read_and_other_keys_ignored() {
        let image = "ab".repeat(32);
        let text = header(&[("kind", "image"), ("task", TASK), ("name", "Bücher"), ("image", &image)]);
        let metadata = parse(&format!("{text},filename d29ybGQ=,is_confidential")).unwrap();
        assert_eq!(metadata.kind, Kind::Image);
        assert_eq!(metadata.task.to_string(), TASK);
        assert_eq!(metadata.name, "Bücher");
        assert_eq!(metadata.image.unwrap().to_string(), image);
        let least = parse(&header(&[("task", TASK), ("kind", "index")])).unwrap();
        assert_eq!((least.kind, least.name.as_str(), least.image), (Kind::Index, "", None));
    }

    #[test]
    fn ids_that_are_paths_and_names_that_are_not_text_are_refused_by_key() {
        let refusal = |pairs: &[(&str, &str)]| parse(&header(pairs)).unwrap_err().to_string();
        assert!(refusal(&[("task", TASK)]).contains("lacks kind"));
        assert!(refusal(&[("kind", "image")]).contains("lacks task"));
        assert!(refusal(&[("kind", "../image"), ("task", TASK)]).contains("kind"));
        for task in ["../../etc/passwd", "/etc/passwd", "", "01ja0000000000000000000000-image/.."] {
            assert!(refusal(&[("kind", "image"), ("task", task)]).contains("task"), "{task:?}");
        }
        for name in ["a\nb", "a\0b", &"n".repeat(201)] {
            assert!(refusal(&[("kind", "image"), ("task", TASK), ("name", name)]).contains("name"));
        }
        assert!(refusal(&[("kind", "image"), ("task", TASK), ("image", "../x")]).contains("image"));
        for text in ["kind !!!", "kind aW1hZ2U= aW1hZ2U=", "kind aW1hZ2U=,kind aW5kZXg="] {
            assert_eq!(parse(text), Err(MetadataError::Malformed), "{text:?}");
        }
        assert!(matches!(parse("kind /w=="), Err(MetadataError::Bad { key: "kind", .. })));
        assert_eq!(parse(&"x".repeat(5000)), Err(MetadataError::TooLong(5000)));
    }

    proptest! {
        #[test]
        fn no_header_at_all_breaks_it(text in "\\PC{0,200}") {
            let _ = parse(&text);
        }
    }
}
