//! Why there is no image, and whether another try can help.

use std::io;
use std::path::PathBuf;

use cardshop_protocol::index::IndexError;

use crate::configuration::{CatalogueError, InvalidConfiguration};
use crate::ext4::Ext4Error;
use crate::fetch::FetchError;
use crate::mbr::MbrError;
use crate::oci::OciError;
use crate::recipe::RecipeError;
use crate::tree::TreeError;
use crate::unpack::UnpackError;

/// Why there is no image.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The recipe itself.
    #[error(transparent)]
    Recipe(#[from] RecipeError),
    /// A download.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// A container image.
    #[error(transparent)]
    Oci(#[from] OciError),
    /// An archive.
    #[error(transparent)]
    Unpack(#[from] UnpackError),
    /// Two things in one place.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// The base's partition table.
    #[error(transparent)]
    Mbr(#[from] MbrError),
    /// The data partition.
    #[error(transparent)]
    Ext4(#[from] Ext4Error),
    /// A map that contradicts itself: a bug.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// Larger than the media.
    #[error("the image has {image} bytes, the media holds {most}: take larger media or less content")]
    TooLarge {
        /// Bytes of the image.
        image: u64,
        /// Bytes allowed.
        most: u64,
    },
    /// `output.size` is less than the content needs.
    #[error("output.size is {size} bytes, the content needs {needed}")]
    OutputTooSmall {
        /// By the recipe.
        size: u64,
        /// What would do.
        needed: u64,
    },
    /// Nobody says how large something is.
    #[error("{what}: its size cannot be known before it is downloaded: say `{key}` in bytes")]
    SizeUnknown {
        /// What.
        what: String,
        /// The recipe's key that would help.
        key: &'static str,
    },
    /// A checksum file does not say what it should.
    #[error("{what}: {fault}")]
    ChecksumFile {
        /// Which.
        what: String,
        /// What is missing.
        fault: String,
    },
    /// Archives hold more than their `size` said.
    #[error(
        "the content takes {needed} bytes of blocks in {entries} files, it was sized for {sized}: raise `size` of its archives"
    )]
    ContentLarger {
        /// Bytes of all blocks.
        needed: u64,
        /// Files and folders.
        entries: u64,
        /// What was counted on.
        sized: u64,
    },
    /// A configuration cannot be.
    #[error(transparent)]
    Configuration(#[from] InvalidConfiguration),
    /// A catalogue cannot be read.
    #[error("{what}")]
    Catalogue {
        /// Its address or file.
        what: String,
        /// Why.
        #[source]
        source: CatalogueError,
    },
    /// The base unpacks to another size.
    #[error("the base has {actual} bytes when unpacked, expected {expected}")]
    BaseSizeDiffers {
        /// By the recipe or by an earlier look.
        expected: u64,
        /// What came, or more.
        actual: u64,
    },
    /// The base's root file system does not take the size it is to have.
    #[error("the base's root partition cannot grow to base.rootfs_size")]
    Root(#[source] Ext4Error),
    /// Settings have nowhere to go.
    #[error("the base has no FAT32 boot partition, {0} has nowhere to go")]
    NoBoot(&'static str),
    /// The boot partition does not take its files.
    #[error("the boot partition cannot be filled")]
    Boot(#[source] io::Error),
    /// A file system is too full.
    #[error("{}: {needed} bytes are needed, {free} are free", path.display())]
    NoSpace {
        /// A folder on it.
        path: PathBuf,
        /// Bytes.
        needed: u64,
        /// Bytes.
        free: u64,
    },
    /// The recipe names a file of this machine that it may not read.
    #[error("{}: this recipe may not read files of this machine there", .0.display())]
    LocalFile(PathBuf),
    /// A file of this machine.
    #[error("{}: cannot be read", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The image or its folder.
    #[error("the image cannot be written")]
    Image(#[from] io::Error),
    /// The stop flag was raised.
    #[error("stopped")]
    Stopped,
}

impl BuildError {
    /// True when the same recipe will fail the same way anywhere.
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::Fetch(error) => error.is_permanent(),
            Self::Oci(error) => error.is_permanent(),
            Self::Unpack(error) => !matches!(error, UnpackError::Write { .. } | UnpackError::Stopped),
            Self::Ext4(_)
            | Self::Root(Ext4Error::Run { .. } | Ext4Error::Stopped)
            | Self::NoSpace { .. }
            | Self::Image(_)
            | Self::Stopped => false,
            Self::File { source, .. } => source.kind() == io::ErrorKind::NotFound,
            _ => true,
        }
    }

    /// True when it ended because the stop flag was raised.
    pub fn is_stopped(&self) -> bool {
        matches!(
            self,
            Self::Stopped
                | Self::Fetch(FetchError::Stopped)
                | Self::Oci(OciError::Fetch(FetchError::Stopped))
                | Self::Unpack(UnpackError::Stopped)
                | Self::Ext4(Ext4Error::Stopped)
                | Self::Root(Ext4Error::Stopped)
        )
    }
}
