//! What a recipe says, checked: no part of it is looked at again later. It opens nothing and downloads
//! nothing; [`crate::check`] asks how large things are, [`crate::build()`] makes the image.
//!
//! ```yaml
//! base: none                      # or a file or URL: .img .img.xz .img.zst .img.gz, or {source, size, checksum,
//!                                 # rootfs_size}; size: when unpacked; rootfs_size: what its last partition grows to
//! output: {size: auto}            # or bytes of the whole image
//! oci_images:                     # pulled from a registry to /data/images/HOST_PATH_TAG.tar
//!   - {ident: ghcr.io/offspot/metrics:0.3.0, platform: linux/arm64}   # with `url`, downloaded from there
//! files:
//!   - to: /data/content/wiki.zim  # /data/x is /x on the data partition
//!     url: https://example.org/wiki.zim
//!     via: direct                 # direct base64 zip tar gztar bztar xztar zsttar; an archive is unpacked below `to`
//!     size: 123456                # of a compressed archive: what it unpacks to, at most
//!     checksum: {algo: sha256, value: …}   # of what is downloaded: md5 sha1 sha224 sha256 sha384 sha512 blake3;
//!                                          # with `kind: url`, `value` is the address of a checksum file
//!   - {to: /data/hello.txt, content: "hello"}
//! write_config: false             # copies this recipe to the boot partition as image.yaml, its addresses
//!                                 # without user, password and query: cards go to everybody
//! offspot: {…}                    # copied to the boot partition as offspot.yaml
//! ```
//!
//! **Source:** the sections are those of image-creator 1.1's `image.yaml`.

mod checks;
mod raw;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

use serde_json::Value;

use crate::digest::{Algo, Checksum};
use crate::oci::ImageName;

pub(crate) use checks::path_fault;
pub(crate) use raw::{at_line, plain_value};

/// Largest recipe text, bytes. Inline content is for small files; the largest recipes seen have 200 KiB.
pub const MAX_RECIPE_SIZE: usize = 8 * 1024 * 1024;
/// Most entries of `files`.
pub const MAX_FILES: usize = 10_000;
/// Longest path on the data partition, bytes: a line of debugfs (8192) holds two with all quotes doubled.
pub const MAX_PATH_SIZE: usize = 2000;

/// Why a recipe is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecipeError {
    /// Not YAML, an unknown key, or a value of the wrong kind.
    #[error("line {line}: {text}")]
    AtLine {
        /// Line of the recipe, from 1.
        line: u64,
        /// What is wrong there.
        text: String,
    },
    /// The same, of a recipe that has no lines.
    #[error("{0}")]
    Malformed(String),
    /// Above [`MAX_RECIPE_SIZE`].
    #[error("the recipe has {0} bytes, at most {MAX_RECIPE_SIZE} are read")]
    TooLarge(usize),
    /// A part of it cannot be.
    #[error("{what}: {fault}")]
    Refused {
        /// Which part, as a path into the recipe.
        what: String,
        /// What is wrong with it.
        fault: String,
    },
}

/// A checked recipe.
#[derive(Debug, Clone, PartialEq)]
pub struct Recipe {
    /// The image to start from; `None` makes an empty one.
    pub base: Option<Base>,
    /// Bytes of the whole image; `None` is what its content needs.
    pub output_size: Option<u64>,
    /// Container images, pulled to archives below `/data/images`.
    pub images: Vec<OciImage>,
    /// What goes to the data partition.
    pub files: Vec<FileEntry>,
    /// Copies the recipe to the boot partition.
    pub write_config: bool,
    /// Settings for the boot partition.
    pub offspot: Option<Value>,
    /// The recipe itself, keys sorted.
    value: Value,
}

/// The image to start from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Base {
    /// Where it is.
    pub source: Source,
    /// How it is packed, from its name.
    pub packing: Packing,
    /// Bytes when unpacked, when the recipe says.
    pub size: Option<u64>,
    /// Bytes its root partition grows to.
    pub rootfs_size: Option<u64>,
    /// Of the file as it is downloaded.
    pub checksum: Option<Expected>,
}

/// One entry of `oci_images` that is pulled from a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OciImage {
    /// What is pulled.
    pub name: ImageName,
    /// `linux/arm64`, for example.
    pub platform: String,
    /// Where its archive goes: a path on the data partition.
    pub to: String,
}

/// One entry of `files`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileEntry {
    /// Where it goes: a path on the data partition (`/x` for `/data/x`, empty for `/data`).
    pub to: String,
    /// Where it comes from.
    pub content: Content,
    /// How `content` becomes files.
    pub via: Via,
    /// Bytes on the card; for an archive the most it may unpack to.
    pub size: Option<u64>,
    /// Of `content` as it is downloaded or decoded.
    pub checksum: Option<Expected>,
}

/// What bytes must digest to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expected {
    /// The recipe says it.
    Is(Checksum),
    /// A checksum file says it.
    At {
        /// How it digests.
        algo: Algo,
        /// Where it is.
        source: Source,
    },
}

/// Where an entry's bytes come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// Downloaded or read.
    At(Source),
    /// Written in the recipe.
    Inline(Vec<u8>),
}

/// How bytes become files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Via {
    /// One file (base64 is decoded when the recipe is read).
    Direct,
    /// An archive that is unpacked.
    Archive(Form),
}

/// Kinds of archives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// tar, as a whole compressed or not.
    Tar(Packing),
    /// zip.
    Zip,
}

/// How bytes are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packing {
    /// Not at all.
    None,
    /// gzip.
    Gzip,
    /// bzip2.
    Bzip2,
    /// xz.
    Xz,
    /// Zstandard.
    Zstd,
}

/// A place to read from.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Source {
    /// `http://` or `https://`.
    Url(String),
    /// A file of this machine. Whether it may be read is the caller's decision.
    File(PathBuf),
}

impl Recipe {
    /// Reads a recipe's text: YAML, and therefore JSON.
    ///
    /// # Errors
    /// [`RecipeError`], with the line where the text has one.
    pub fn from_text(text: &str) -> Result<Self, RecipeError> {
        if text.len() > MAX_RECIPE_SIZE {
            return Err(RecipeError::TooLarge(text.len()));
        }
        let (raw, value) = raw::parse_text(text)?;
        checks::check(raw, value)
    }

    /// Reads a recipe that came as JSON over the wire.
    ///
    /// # Errors
    /// [`RecipeError`].
    pub fn from_value(value: &Value) -> Result<Self, RecipeError> {
        let raw = raw::parse_value(value)?;
        checks::check(raw, value.clone())
    }

    /// The recipe as it was given, keys sorted.
    pub fn value(&self) -> &Value {
        &self.value
    }

    /// The recipe as anybody may read it: its addresses without user, password and query.
    pub fn public_value(&self) -> Value {
        fn shown(address: &mut Value) {
            if let Value::String(text) = address
                && text.contains("://")
            {
                *text = Source::Url(std::mem::take(text)).shown();
            }
        }
        let mut value = self.value.clone();
        fn checksum(item: &mut Value) {
            item.get_mut("checksum").and_then(|c| c.get_mut("value")).into_iter().for_each(shown);
        }
        if let Some(base) = value.get_mut("base") {
            shown(base);
            base.get_mut("source").into_iter().for_each(shown);
            checksum(base);
        }
        for image in value.get_mut("oci_images").and_then(Value::as_array_mut).into_iter().flatten() {
            image.get_mut("url").into_iter().for_each(shown);
        }
        for file in value.get_mut("files").and_then(Value::as_array_mut).into_iter().flatten() {
            file.get_mut("url").into_iter().for_each(shown);
            checksum(file);
        }
        value
    }

    /// Names the whole recipe: the disk's signature and the boot partition's volume id come from it.
    pub fn digest(&self) -> blake3::Hash {
        blake3::hash(self.value.to_string().as_bytes())
    }

    /// Names what stays when content changes: base and settings. The data partition's UUID comes from it,
    /// because every ext4 checksum depends on the UUID: one from all content would move all its metadata
    /// with every changed file.
    pub fn stable_digest(&self) -> blake3::Hash {
        let stable =
            serde_json::json!({"base": self.value.get("base"), "offspot": self.value.get("offspot")});
        blake3::hash(checks::sorted(stable).to_string().as_bytes())
    }
}

impl Source {
    /// The last part of its path.
    pub(crate) fn name(&self) -> String {
        let shown = self.shown();
        shown.rsplit('/').next().unwrap_or_default().to_owned()
    }

    /// For people and logs: without user, password and query of a URL.
    pub fn shown(&self) -> String {
        match self {
            Self::File(path) => path.display().to_string(),
            Self::Url(url) => {
                let plain = url.split(['?', '#']).next().unwrap_or_default();
                let Some((scheme, rest)) = plain.split_once("://") else { return plain.to_owned() };
                let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
                let host = authority.rsplit('@').next().unwrap_or_default();
                format!("{scheme}://{host}{path}")
            }
        }
    }
}
