//! Container images: pulled from a registry, and put into one archive file as `docker load`, `podman load` and `skopeo`
//! read it. [`crate::sizing`] finds an image's blobs and their sizes, [`crate::build()`] downloads them and writes the archive.
//!
//! ```text
//! name ─▶ registry ─▶ index? ─▶ manifest ─▶ blobs (cache) ─▶ archive: OCI layout + manifest.json
//! ```

pub(crate) mod manifest;
mod name;
pub(crate) mod registry;

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

pub use name::ImageName;

use crate::StopFlag;
use crate::fetch::FetchError;
use crate::tree::IMAGE_TIME;
use manifest::{Blob, Manifest, blob_path};

const BUFFER_SIZE: usize = 256 * 1024;

/// Why a container image cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum OciError {
    /// A manifest or a blob.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// Not an image, or not one for the platform.
    #[error("image {name}: {fault}")]
    Manifest {
        /// Which.
        name: String,
        /// What is wrong.
        fault: String,
    },
    /// The registry lets nobody in.
    #[error("registry {registry}: {fault}")]
    Login {
        /// Which.
        registry: String,
        /// Why.
        fault: String,
    },
}

impl OciError {
    /// True when the same recipe will fail the same way.
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::Fetch(error) => error.is_permanent(),
            Self::Manifest { .. } | Self::Login { .. } => true,
        }
    }
}

/// An image of the recipe, found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pulled {
    pub name: ImageName,
    pub manifest: Manifest,
}

/// A file of the archive: its name, and its bytes or where they are.
enum Part<'a> {
    Bytes(String, Vec<u8>),
    Blob(String, &'a Blob, usize),
}

impl Pulled {
    /// The archive's files. In this order: a reader that streams finds first what names the rest.
    fn parts(&self) -> Vec<Part<'_>> {
        let name = self.name.to_string();
        let mut parts = vec![
            Part::Bytes("oci-layout".into(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec()),
            Part::Bytes("index.json".into(), self.manifest.layout_index(&name, &self.name.reference)),
            Part::Bytes("manifest.json".into(), self.manifest.docker_manifest(&name)),
            Part::Bytes(blob_path(&self.manifest.digest()), self.manifest.bytes.clone()),
        ];
        let blobs = self.manifest.blobs().into_iter().enumerate();
        parts.extend(blobs.map(|(number, blob)| Part::Blob(blob_path(&blob.digest), blob, number)));
        parts
    }

    /// Bytes of the archive, before anything of it is here.
    pub(crate) fn archive_bytes(&self) -> u64 {
        let files = self.parts().into_iter().map(|part| match part {
            Part::Bytes(_, bytes) => bytes.len() as u64,
            Part::Blob(_, blob, _) => blob.size,
        });
        files.map(|size| 512 + size.next_multiple_of(512)).sum::<u64>() + 1024
    }

    /// Writes the archive from the blobs' files, in the order of [`Manifest::blobs`].
    pub(crate) fn write(&self, blobs: &[&Path], to: PathBuf, stop: &StopFlag) -> io::Result<Option<PathBuf>> {
        let mut archive = tar::Builder::new(File::create_new(&to)?);
        for part in self.parts() {
            let header = |size: u64| {
                let mut header = tar::Header::new_ustar();
                header.set_size(size);
                header.set_mode(0o644);
                header.set_mtime(IMAGE_TIME);
                header
            };
            match part {
                Part::Bytes(name, bytes) => {
                    archive.append_data(&mut header(bytes.len() as u64), name, bytes.as_slice())?;
                }
                Part::Blob(name, blob, number) => {
                    let mut header = header(blob.size);
                    header.set_path(name)?;
                    header.set_cksum();
                    let out = archive.get_mut();
                    out.write_all(header.as_bytes())?;
                    if !copy(&mut File::open(blobs[number])?, out, stop)? {
                        return Ok(None);
                    }
                    let pad = blob.size.next_multiple_of(512) - blob.size;
                    out.write_all(&[0; 512][..pad as usize])?;
                }
            }
        }
        archive.into_inner()?;
        Ok(Some(to))
    }
}

/// False when stopped.
fn copy(from: &mut File, to: &mut File, stop: &StopFlag) -> io::Result<bool> {
    let mut buffer = vec![0; BUFFER_SIZE];
    loop {
        if stop.is_stopped() {
            return Ok(false);
        }
        match from.read(&mut buffer)? {
            0 => return Ok(true),
            count => to.write_all(&buffer[..count])?,
        }
    }
}
