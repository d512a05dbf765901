//! Files that follow from an image and cost a pass over it: its block map with SHA-256 checksums, and the SHA-1s of
//! its torrent's pieces. Made once, when somebody wants the first or the image becomes public.
//!
//! ```text
//! DATA/{image id}.bmap     bmap 2.0; data and must-be-zero are mapped alike: bmaptool knows no third state
//! DATA/{image id}.pieces   20 bytes for each piece
//! ```
//!
//! **Source:** bmap-tools, format 2.0; BEP 3.

use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::atomic::Ordering;

use cardshop_protocol::ids::ImageId;
use cardshop_protocol::index::Index;
use ring::digest::{self, Context, SHA1_FOR_LEGACY_USE_ONLY, SHA256};

use super::error::StoreError;
use super::{Store, disk};
use crate::core::torrent::piece_size;

/// Bytes read at once.
const READ_SIZE: u64 = 1024 * 1024;
/// The same of an image that is stored away: each is a request.
const FAR_READ_SIZE: u64 = 8 * 1024 * 1024;

impl Store {
    /// True when what follows from the image is here.
    pub(crate) fn is_derived(&self, id: ImageId) -> bool {
        self.bmap_path(id).exists() && self.pieces_path(id).exists()
    }

    /// Reads the image once and writes what follows from it; false when the warehouse ends meanwhile or the image
    /// is gone.
    pub(crate) fn derive(&self, id: ImageId) -> Result<bool, StoreError> {
        if self.is_derived(id) {
            return Ok(true);
        }
        let here = self.open_file(&self.image_path(id))?.map(|(file, _)| file);
        if here.is_none() && !self.is_stored_away(id) {
            return Ok(false);
        }
        let Some(index) = self.stored_index(id)? else { return Ok(false) };
        let (size, step) = (index.image_size(), if here.is_some() { READ_SIZE } else { FAR_READ_SIZE });
        let mut ranges = Ranges::of(&index);
        let mut pieces = Pieces::of(size);
        let mut buffer = vec![0; step as usize];
        let mut at = 0;
        while at < size {
            if self.ending.load(Ordering::Relaxed) {
                return Ok(false);
            }
            let bytes = &mut buffer[..(size - at).min(step) as usize];
            match &here {
                Some(image) => {
                    image.read_exact_at(bytes, at).map_err(StoreError::io("read", &self.image_path(id)))?;
                }
                None => self.read_object(id, bytes, at)?,
            }
            ranges.take(at, bytes);
            pieces.take(bytes);
            at += bytes.len() as u64;
        }
        let files = [
            (self.bmap_path(id), index.bmap(&ranges.digests, sha256).into_bytes()),
            (self.pieces_path(id), pieces.end()),
        ];
        let _alone = self.placing.lock().expect("no holder panics");
        // Removed meanwhile: nothing of it comes back.
        if self.image(id).is_none() {
            return Ok(false);
        }
        for (path, bytes) in files {
            disk::replace(&path, &bytes).map_err(StoreError::io("write", &path))?;
        }
        Ok(true)
    }

    /// The index of a stored image.
    pub(crate) fn stored_index(&self, id: ImageId) -> Result<Option<Index>, StoreError> {
        let path = self.index_path(id);
        match std::fs::read(&path) {
            Ok(bytes) => Index::decode(&bytes).map(Some).map_err(StoreError::BadIndex),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(StoreError::io("read", &path)(e)),
        }
    }
}

/// The mapped ranges, digested as the image passes by.
struct Ranges {
    all: Vec<Range<u64>>,
    digests: Vec<[u8; 32]>,
    context: Context,
}

impl Ranges {
    fn of(index: &Index) -> Self {
        let all = index.mapped_in(0..index.image_size());
        Self { all, digests: Vec::new(), context: Context::new(&SHA256) }
    }

    /// Takes the bytes at `at`, which come in order.
    fn take(&mut self, at: u64, bytes: &[u8]) {
        let end = at + bytes.len() as u64;
        while let Some(range) = self.all.get(self.digests.len()).filter(|range| range.start < end) {
            let (from, to) = (range.start.max(at), range.end.min(end));
            self.context.update(&bytes[(from - at) as usize..(to - at) as usize]);
            if to < range.end {
                return;
            }
            let done = std::mem::replace(&mut self.context, Context::new(&SHA256));
            self.digests.push(bytes_of(done.finish()));
        }
    }
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    bytes_of(digest::digest(&SHA256, bytes))
}

fn bytes_of(sha256: digest::Digest) -> [u8; 32] {
    sha256.as_ref().try_into().expect("a SHA-256 has 32 bytes")
}

/// The pieces of the torrent, digested as the image passes by.
struct Pieces {
    piece_size: u64,
    filled: u64,
    digests: Vec<u8>,
    context: Context,
}

impl Pieces {
    fn of(size: u64) -> Self {
        let context = Context::new(&SHA1_FOR_LEGACY_USE_ONLY);
        Self { piece_size: piece_size(size), filled: 0, digests: Vec::new(), context }
    }

    fn take(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let room = usize::try_from(self.piece_size - self.filled).unwrap_or(usize::MAX);
            let (now, later) = bytes.split_at(bytes.len().min(room));
            self.context.update(now);
            self.filled += now.len() as u64;
            if self.filled == self.piece_size {
                self.push();
            }
            bytes = later;
        }
    }

    fn push(&mut self) {
        let done = std::mem::replace(&mut self.context, Context::new(&SHA1_FOR_LEGACY_USE_ONLY));
        self.digests.extend(done.finish().as_ref());
        self.filled = 0;
    }

    fn end(mut self) -> Vec<u8> {
        if self.filled > 0 {
            self.push();
        }
        self.digests
    }
}
