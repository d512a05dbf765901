//! Everything that can go wrong between a request and the disk. `http` gives each a status and a code.

use std::io;
use std::path::{Path, PathBuf};

use cardshop_protocol::ids::ImageId;
use cardshop_protocol::index::IndexError;

/// Most offsets of bad chunks that one refusal names.
pub(crate) const MAX_NAMED_CHUNKS: usize = 16;

/// Why the store did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    #[error("cannot {doing} {path}")]
    Io {
        doing: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("another warehouse uses {0}; stop it or give this one its own folder")]
    InUse(PathBuf),
    #[error("{0} does not hold the 32 bytes of a key; restore it, or begin in an empty folder")]
    BadKey(PathBuf),
    #[error("{0} is gone, and the images here are signed with it; restore it, or move them away")]
    KeyGone(PathBuf),
    #[error("the system has no randomness to give")]
    NoRandomness,
    #[error("only {free} bytes are free and {margin} are kept; make room, then resume")]
    Full { free: u64, margin: u64 },
    #[error("the disk is full; make room, then resume")]
    DiskFull,
    #[error("{open} uploads are open, the limit is {limit}; finish or delete some")]
    TooManyUploads { open: usize, limit: usize },
    #[error("there are {limit} links, the limit; those that ended are forgotten after a month")]
    TooManyLinks { limit: usize },
    #[error("the request carries more bytes than the upload's length of {length} leaves room for")]
    TooLong { length: u64 },
    #[error("the upload has {known} bytes already told or here, its length cannot be {told}")]
    OtherLength { told: u64, known: u64 },
    #[error("the bytes do not have the checksum sent with them; they were dropped, send them again")]
    WrongChecksum,
    #[error("the request ended before all its bytes were there")]
    Cut,
    #[error(
        "{} of the image differ from its index; send again from offset {}",
        chunk_list(offsets),
        offsets.first().copied().unwrap_or_default()
    )]
    ChunkMismatch {
        /// Where bad chunks begin, at most [`MAX_NAMED_CHUNKS`], ascending, not empty.
        offsets: Vec<u64>,
    },
    #[error("the image has {actual} bytes, its index says {expected}; delete the upload and start again")]
    SizeMismatch { expected: u64, actual: u64 },
    #[error("the index describes image {actual}, the upload names {named}; delete it and start again")]
    OtherImage { named: ImageId, actual: ImageId },
    #[error("the index is refused")]
    BadIndex(#[source] IndexError),
    #[error("a packed upload goes by the index of its task, which is not here: put that first")]
    IndexFirst,
    #[error("the index describes an image of no bytes")]
    EmptyImage,
    #[error("the S3 store cannot be used")]
    BadStore(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("images of {0} lie in an S3 store; say which")]
    StoreNotNamed(PathBuf),
    #[error("{0} does not say where the bytes of an image are; restore it, or remove it with its image")]
    BadRecord(PathBuf),
    #[error("the S3 store of the images does not do what it is asked for; try again later")]
    Away(#[source] object_store::Error),
    #[error("the S3 store has {actual} bytes of an image where {expected} belong")]
    ObjectSize { expected: u64, actual: u64 },
}

impl StoreError {
    /// For `map_err`: names what was being done to which file; a full disk is a fact of its own.
    pub(super) fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::DiskFull,
            _ => Self::Io { doing, path: path.to_owned(), source },
        }
    }
}

fn chunk_list(offsets: &[u64]) -> String {
    let list: Vec<String> = offsets.iter().map(u64::to_string).collect();
    let more = if offsets.len() == MAX_NAMED_CHUNKS { " (and maybe more)" } else { "" };
    format!("the chunks at offset {}{more}", list.join(", "))
}
