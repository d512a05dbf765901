//! From keys and values to a [`Recipe`]: what is meant, or which part cannot be and why. Pure.

use std::path::PathBuf;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::raw::{RawBase, RawChecksum, RawFile, RawImage, RawRecipe, RawSize};
use super::{Base, Content, FileEntry, MAX_FILES, MAX_PATH_SIZE, Packing, Recipe, RecipeError, Source, Via};
use crate::digest::Checksum;
use crate::mbr::MAX_BYTES;

fn refused<T>(what: impl Into<String>, fault: impl Into<String>) -> Result<T, RecipeError> {
    Err(RecipeError::Refused { what: what.into(), fault: fault.into() })
}

pub(super) fn check(raw: RawRecipe, value: Value) -> Result<Recipe, RecipeError> {
    if raw.oci_images.is_some_and(|images| !images.is_empty()) {
        return refused("oci_images", "container images are not supported yet");
    }
    if raw.offspot.as_ref().is_some_and(|o| !o.is_object() && !o.is_null()) {
        return refused("offspot", "must be a map of settings");
    }
    let raw_files = raw.files.unwrap_or_default();
    if raw_files.len() > MAX_FILES {
        return refused("files", format!("{} entries, at most {MAX_FILES} are taken", raw_files.len()));
    }
    let files = raw_files.into_iter().enumerate().map(|(i, f)| file(i, f)).collect::<Result<Vec<_>, _>>()?;
    let base = match raw.base {
        RawBase::None => None,
        RawBase::Image(image) => Some(self::base(image)?),
    };
    let output_size = match raw.output.size {
        RawSize::Auto => None,
        RawSize::Bytes(bytes) if bytes % 512 == 0 => size("output.size", Some(bytes))?,
        RawSize::Bytes(bytes) => {
            return refused("output.size", format!("{bytes} is not a multiple of 512 bytes"));
        }
    };
    let offspot = raw.offspot.filter(|o| !o.is_null());
    Ok(Recipe { base, output_size, files, write_config: raw.write_config, offspot, value: sorted(value) })
}

fn base(raw: RawImage) -> Result<Base, RecipeError> {
    if raw.rootfs_size.is_some_and(|size| !size.is_null()) {
        return refused("base.rootfs_size", "resizing the base's root partition is not supported yet");
    }
    let source = source("base.source", &raw.source)?;
    let name = raw.source.split(['?', '#']).next().unwrap_or_default();
    let packing = match name.rsplit('.').next().unwrap_or_default() {
        "img" => Packing::None,
        "xz" => Packing::Xz,
        "zst" => Packing::Zstd,
        "gz" => Packing::Gzip,
        _ => return refused("base.source", format!("{name:?} is none of .img .img.xz .img.zst .img.gz")),
    };
    let checksum = raw.checksum.map(|c| checksum("base.checksum", c)).transpose()?;
    Ok(Base { source, packing, size: size("base.size", raw.size)?, checksum })
}

/// A size that an image may have.
fn size(what: &str, bytes: Option<u64>) -> Result<Option<u64>, RecipeError> {
    match bytes {
        Some(bytes) if bytes > MAX_BYTES => {
            refused(what, format!("{bytes} bytes are more than an image can have ({MAX_BYTES})"))
        }
        bytes => Ok(bytes),
    }
}

fn file(index: usize, raw: RawFile) -> Result<FileEntry, RecipeError> {
    let what = format!("files[{index}]");
    let via = raw.via.as_deref().unwrap_or("direct");
    let to = target(&format!("{what}.to"), &raw.to, via)?;
    let checksum = raw.checksum.map(|c| checksum(&format!("{what}.checksum"), c)).transpose()?;
    let content = match (raw.url, raw.content) {
        (Some(url), None) if via == "base64" => {
            return refused(what, format!("via base64 wants `content`, not a url ({})", shown(&url)));
        }
        (Some(url), None) => Content::At(source(&format!("{what}.url"), &url)?),
        (None, Some(text)) => inline(&what, via, text)?,
        (Some(_), Some(_)) => return refused(what, "has both `url` and `content`, one is wanted"),
        (None, None) => return refused(what, "has neither `url` nor `content`, one is wanted"),
    };
    let via = match via {
        "direct" | "base64" => Via::Direct,
        "tar" => Via::Tar(Packing::None),
        "gztar" => Via::Tar(Packing::Gzip),
        "xztar" => Via::Tar(Packing::Xz),
        "zsttar" => Via::Tar(Packing::Zstd),
        known @ ("zip" | "bztar") => {
            return refused(what, format!("via {known} is not supported yet: pack it as xztar"));
        }
        other => {
            return refused(what, format!("via {other:?} is none of direct base64 tar gztar xztar zsttar"));
        }
    };
    if let (Content::Inline(bytes), Some(size)) = (&content, raw.size)
        && bytes.len() as u64 != size
    {
        return refused(what, format!("size is {size}, its content has {} bytes", bytes.len()));
    }
    Ok(FileEntry { to, content, via, size: size(&format!("{what}.size"), raw.size)?, checksum })
}

fn inline(what: &str, via: &str, text: String) -> Result<Content, RecipeError> {
    match via {
        "direct" => Ok(Content::Inline(text.into_bytes())),
        "base64" => {
            let packed: String = text.chars().filter(|c| !c.is_ascii_whitespace()).collect();
            match STANDARD.decode(packed) {
                Ok(bytes) => Ok(Content::Inline(bytes)),
                Err(error) => refused(format!("{what}.content"), format!("not base64: {error}")),
            }
        }
        other => refused(what, format!("via {other} wants a `url`, not content")),
    }
}

/// `/data/x/y` → `/x/y`; `/data`, for archives only → empty.
fn target(what: &str, to: &str, via: &str) -> Result<String, RecipeError> {
    let Some(path) = to.strip_prefix("/data").filter(|p| p.is_empty() || p.starts_with('/')) else {
        return refused(what, format!("{to:?} is not below /data"));
    };
    let archive = !matches!(via, "direct" | "base64");
    let path = if archive { path.trim_end_matches('/') } else { path };
    if path.is_empty() && archive {
        return Ok(String::new());
    }
    match path_fault(path) {
        Some(fault) => refused(what, format!("{to:?} {fault}")),
        None => Ok(path.to_owned()),
    }
}

/// Why `path` (`/a/b`) cannot be a path on the data partition, if so. Archives' names are held to it too.
pub(crate) fn path_fault(path: &str) -> Option<&'static str> {
    if path.len() > MAX_PATH_SIZE {
        return Some("is too long (at most 2000 bytes)");
    }
    if path.chars().any(char::is_control) {
        return Some("has a control character");
    }
    let Some(rest) = path.strip_prefix('/') else { return Some("is not absolute") };
    rest.split('/').find_map(|name| match name {
        "" => Some("has an empty name"),
        "." | ".." => Some("has `.` or `..` in it"),
        _ if name.len() > 255 => Some("has a name of more than 255 bytes"),
        _ => None,
    })
}

fn shown(text: &str) -> String {
    Source::Url(text.to_owned()).shown()
}

fn source(what: &str, text: &str) -> Result<Source, RecipeError> {
    if text.chars().any(|c| c.is_control() || c == ' ') && text.contains("://") {
        return refused(what, format!("{:?} has a space or control character", shown(text)));
    }
    match text.split_once("://") {
        Some(("http" | "https", rest)) if !rest.is_empty() && !rest.starts_with('/') => {
            // What the HTTP client cannot read it would quote in full, with the secrets in it.
            match text.parse::<ureq::http::Uri>() {
                Ok(_) => Ok(Source::Url(text.to_owned())),
                Err(_) => refused(what, format!("{:?} is not an address", shown(text))),
            }
        }
        Some(("file", path)) if path.starts_with('/') => Ok(Source::File(PathBuf::from(path))),
        Some(_) => refused(what, format!("{:?} is neither http(s):// nor file:///", shown(text))),
        None if text.is_empty() => refused(what, "is empty"),
        None => Ok(Source::File(PathBuf::from(text))),
    }
}

fn checksum(what: &str, raw: RawChecksum) -> Result<Checksum, RecipeError> {
    match raw.kind.as_deref() {
        None | Some("digest") => {}
        Some(kind) => {
            return refused(what, format!("kind {kind:?} is not supported: give the digest itself"));
        }
    }
    Checksum::parse(&raw.algo, &raw.value).or_else(|fault| refused(what, fault))
}

/// The same value with every map's keys in order, whatever map type serde_json was compiled with.
pub(super) fn sorted(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let mut entries: Vec<_> = map.into_iter().collect();
            entries.sort_by(|a, b| a.0.cmp(&b.0));
            Value::Object(entries.into_iter().map(|(k, v)| (k, sorted(v))).collect())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(sorted).collect()),
        other => other,
    }
}
