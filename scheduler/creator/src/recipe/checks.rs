//! From keys and values to a [`Recipe`]: what is meant, or which part cannot be and why. Pure.

use std::path::PathBuf;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::raw::{RawBase, RawChecksum, RawFile, RawImage, RawOci, RawRecipe, RawSize};

use super::{
    Base, Content, Expected, FileEntry, Form, ImageName, MAX_FILES, MAX_PATH_SIZE, OciImage, Packing, Recipe,
    RecipeError, Source, Via,
};
use crate::digest::{Algo, Checksum};
use crate::mbr::MAX_BYTES;
use crate::tree::BLOCK_SIZE;

/// What the hotspots run on that image-creator's recipes are for.
const DEFAULT_PLATFORM: &str = "linux/arm64";

fn refused<T>(what: impl Into<String>, fault: impl Into<String>) -> Result<T, RecipeError> {
    Err(RecipeError::Refused { what: what.into(), fault: fault.into() })
}

pub(super) fn check(raw: RawRecipe, value: Value) -> Result<Recipe, RecipeError> {
    if raw.offspot.as_ref().is_some_and(|o| !o.is_object() && !o.is_null()) {
        return refused("offspot", "must be a map of settings");
    }
    let raw_files = raw.files.unwrap_or_default();
    if raw_files.len() > MAX_FILES {
        return refused("files", format!("{} entries, at most {MAX_FILES} are taken", raw_files.len()));
    }
    let files = raw_files.into_iter().enumerate().map(|(i, f)| file(i, f)).collect::<Result<Vec<_>, _>>()?;
    let (mut images, mut files) = (Vec::new(), files);
    for (index, raw) in raw.oci_images.unwrap_or_default().into_iter().enumerate() {
        match oci(&format!("oci_images[{index}]"), raw)? {
            Pulled::Image(image) => images.push(image),
            Pulled::File(file) => files.push(file),
        }
    }
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
    Ok(Recipe {
        base,
        output_size,
        images,
        files,
        write_config: raw.write_config,
        offspot,
        value: sorted(value),
    })
}

/// A container image, from a registry or from an address of its archive.
enum Pulled {
    Image(OciImage),
    File(FileEntry),
}

fn oci(what: &str, raw: RawOci) -> Result<Pulled, RecipeError> {
    let name = ImageName::parse(&raw.ident).or_else(|fault| refused(format!("{what}.ident"), fault))?;
    let to = format!("/images/{}", name.file_name());
    if let Some(url) = raw.url {
        let content = Content::At(source(&format!("{what}.url"), &url)?);
        let size = size(&format!("{what}.filesize"), raw.filesize)?;
        return Ok(Pulled::File(FileEntry { to, content, via: Via::Direct, size, checksum: None }));
    }
    let platform = raw.platform.unwrap_or_else(|| DEFAULT_PLATFORM.into());
    let parts: Vec<&str> = platform.split('/').collect();
    let word = |part: &&str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric());
    if !matches!(parts.len(), 2 | 3) || !parts.iter().all(word) {
        let fault = format!("{platform:?} is not of the form linux/arm64 or linux/arm/v7");
        return refused(format!("{what}.platform"), fault);
    }
    Ok(Pulled::Image(OciImage { name, platform, to }))
}

fn base(raw: RawImage) -> Result<Base, RecipeError> {
    let rootfs_size = size("base.rootfs_size", raw.rootfs_size)?;
    if let Some(bytes) = rootfs_size.filter(|bytes| bytes % BLOCK_SIZE != 0) {
        return refused("base.rootfs_size", format!("{bytes} is not a multiple of {BLOCK_SIZE} bytes"));
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
    Ok(Base { source, packing, size: size("base.size", raw.size)?, rootfs_size, checksum })
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
        "zip" => Via::Archive(Form::Zip),
        "tar" => Via::Archive(Form::Tar(Packing::None)),
        "gztar" => Via::Archive(Form::Tar(Packing::Gzip)),
        "bztar" => Via::Archive(Form::Tar(Packing::Bzip2)),
        "xztar" => Via::Archive(Form::Tar(Packing::Xz)),
        "zsttar" => Via::Archive(Form::Tar(Packing::Zstd)),
        other => {
            let known = "direct base64 zip tar gztar bztar xztar zsttar";
            return refused(what, format!("via {other:?} is none of {known}"));
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

fn checksum(what: &str, raw: RawChecksum) -> Result<Expected, RecipeError> {
    match raw.kind.as_deref() {
        None | Some("digest") => {
            Checksum::parse(&raw.algo, &raw.value).map(Expected::Is).or_else(|fault| refused(what, fault))
        }
        Some("url") => {
            let algo = Algo::parse(&raw.algo).or_else(|fault| refused(what, fault))?;
            Ok(Expected::At { algo, source: source(&format!("{what}.value"), &raw.value)? })
        }
        Some(kind) => refused(what, format!("kind {kind:?} is none of digest url")),
    }
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
