//! The image index (`.cardindex`): what the warehouse, the agent, the tools and a verifier agree on.
//!
//! ```text
//! "CARDIDX1"  u32 header length  header (deterministic CBOR)     little-endian throughout
//! chunks      chunk_count  × { BLAKE3 32 bytes, flags u32, data bytes u32 }
//! extents     extent_count × { offset u64, length u64; bit 63 of length = must be zero }
//! signature   key id 8 bytes, Ed25519 64 bytes over everything before; key id zero = unsigned
//! ```
//!
//! A byte of the image is in one of three states: **data** (travels, is written and verified), **must be
//! zero** (never travels, is written only where the card differs, is verified) or, listed by no extent,
//! **don't care**. A chunk's digest covers its full length with don't-care bytes read as zero. The image id
//! is BLAKE3 of everything before the signature, so it names content, map and chunk size.
//!
//! [`Index`] is always consistent: it comes only from [`IndexBuilder::finish`] or from [`Index::decode`],
//! which refuses what contradicts itself and allocates only what the file pays for in bytes.

mod bmap;
mod build;
mod decode;
mod encode;

pub use build::IndexBuilder;

use std::ops::Range;

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};

use crate::ids::{Digest, ImageId, KeyId};
use crate::keys::key_id;

/// Extents start and end on multiples of this many bytes (the last may end at the image's size).
pub const GRANULE: u64 = 4096;
/// Smallest chunk: below it the index outgrows what it saves.
pub const MIN_CHUNK_SIZE: u32 = 64 * 1024;
/// Largest chunk: above it a small change re-fetches half an image.
pub const MAX_CHUNK_SIZE: u32 = 4 * 1024 * 1024;
/// Largest image, bytes (64 TiB): larger sizes come only from damaged or hostile files.
pub const MAX_IMAGE_SIZE: u64 = 1 << 46;
/// Largest index anybody takes over a wire, bytes: a 1 TB image has 40 MB of chunks, which leaves room for five
/// million extents. One number for all, or one would store what another never reads.
pub const MAX_INDEX_SIZE: u64 = 128 << 20;
/// Largest encoded header, bytes. Ours is below 300.
pub const MAX_HEADER_SIZE: u32 = 64 * 1024;
/// Most passport entries a header may list.
pub const MAX_PASSPORT_ENTRIES: usize = 16;
/// Bytes of the signature part: key id and Ed25519 signature.
pub const SIGNATURE_SIZE: usize = 72;

const MAGIC: &[u8; 8] = b"CARDIDX1";
const CHUNK_RECORD_SIZE: usize = 40;
const EXTENT_RECORD_SIZE: usize = 16;
const FLAG_ALL_ZERO: u32 = 1;
const FLAG_NOTHING_LISTED: u32 = 2;
const MUST_BE_ZERO_BIT: u64 = 1 << 63;

/// Why an index is refused. The text names the fact; offsets are bytes of the image unless said.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IndexError {
    /// The first eight bytes are not `CARDIDX1`.
    #[error("not an image index: it does not begin with CARDIDX1")]
    NotAnIndex,
    /// The file is shorter or longer than its header says.
    #[error("the index has {actual} bytes, its header asks for {expected}")]
    WrongLength {
        /// Bytes that the counts in the header ask for.
        expected: u64,
        /// Bytes there are.
        actual: u64,
    },
    /// The header is not the deterministic CBOR map it must be.
    #[error("the header is not valid: {0}")]
    BadHeader(String),
    /// The image is larger than any card.
    #[error("image size {0} is above the limit of {MAX_IMAGE_SIZE} bytes")]
    ImageTooLarge(u64),
    /// Not a power of two from 64 KiB to 4 MiB.
    #[error("chunk size {0} is not a power of two from 64 KiB to 4 MiB")]
    BadChunkSize(u64),
    /// An extent is empty, misaligned, out of range or overlaps the one before.
    #[error("extent at offset {offset}, length {length}: {fault}")]
    BadExtent {
        /// Where it starts.
        offset: u64,
        /// How long it says it is.
        length: u64,
        /// What is wrong with it.
        fault: &'static str,
    },
    /// A passport entry is misaligned, out of range, or lies in an extent.
    #[error("passport entry {name:?} at offset {offset}: {fault}")]
    BadPassport {
        /// Its file name.
        name: String,
        /// Where it starts.
        offset: u64,
        /// What is wrong with it.
        fault: &'static str,
    },
    /// A chunk that is said to be all zero has another digest than zeros have: no card could match it.
    #[error("chunk {0} is said to be all zero, its digest is not that of zeros")]
    NotZeroDigest(usize),
    /// A sum or flag in the index contradicts its extents.
    #[error("{what} is {stated}, the extents make it {actual}")]
    Contradiction {
        /// Which number.
        what: String,
        /// What the file says.
        stated: u64,
        /// What follows from its extents.
        actual: u64,
    },
    /// The builder was given more or fewer bytes than the data extents hold.
    #[error("the data extents hold {expected} bytes, {actual} were given")]
    WrongDataLength {
        /// Sum of the data extents.
        expected: u64,
        /// Bytes given.
        actual: u64,
    },
    /// Unsigned, signed by another key, or changed after signing.
    #[error("the index is not signed by key {0}")]
    NotSignedBy(KeyId),
}

/// What a listed range of the image holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ExtentKind {
    /// Bytes that travel, are written and are verified.
    Data,
    /// Must read as zero; never travels.
    Zero,
}

/// A listed range of the image, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Extent {
    /// First byte.
    pub offset: u64,
    /// Bytes.
    pub length: u64,
    /// What it holds.
    pub kind: ExtentKind,
}

impl Extent {
    /// First byte after it.
    pub fn end(&self) -> u64 {
        self.offset + self.length
    }
}

/// A preallocated file for the card's passport: its contents are don't care to the index and are
/// overwritten in place by the agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PassportEntry {
    /// 8.3 file name: `CARD.JSN` or `README.TXT`.
    pub name: String,
    /// Where its contents start on the image, bytes, a multiple of 4096.
    pub offset: u64,
    /// Bytes, a multiple of 4096.
    pub length: u64,
}

/// One chunk of the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chunk {
    /// BLAKE3 over its full length, don't-care bytes read as zero.
    pub digest: Digest,
    /// True when every byte so read is zero.
    pub all_zero: bool,
    /// True when no extent touches it.
    pub nothing_listed: bool,
    /// Bytes of data extents in it.
    pub data_bytes: u32,
}

impl Chunk {
    /// True when it has data that is not all zero. A chunk without data is all zero in every index.
    pub fn travels(&self) -> bool {
        !self.all_zero
    }
}

/// Key and signature at the end of an index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IndexSignature {
    /// Which key signed.
    pub key: KeyId,
    /// Ed25519 over everything before the signature part.
    pub signature: [u8; 64],
}

/// What of an image is listed, before any byte of it is digested.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ImageMap {
    /// Bytes of the whole image.
    pub image_size: u64,
    /// Listed ranges, ascending, not overlapping.
    pub extents: Vec<Extent>,
    /// Files for the card's passport, if the image can carry one.
    pub passport: Vec<PassportEntry>,
}

/// A consistent image index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Index {
    id: ImageId,
    map: ImageMap,
    chunk_size: u32,
    chunks: Vec<Chunk>,
    data_bytes: u64,
    zero_bytes: u64,
    signature: Option<IndexSignature>,
}

/// The chunk size for an image of this size: small enough that a small change moves few bytes, large
/// enough that the index stays below a thousandth of the image.
pub fn default_chunk_size(image_size: u64) -> u32 {
    const GB: u64 = 1_000_000_000;
    match image_size {
        s if s <= 64 * GB => 256 * 1024,
        s if s <= 256 * GB => 512 * 1024,
        _ => 1024 * 1024,
    }
}

/// How many chunks an image has.
fn chunk_count(image_size: u64, chunk_size: u32) -> u64 {
    image_size.div_ceil(u64::from(chunk_size))
}

impl Index {
    /// The image this index describes.
    pub fn id(&self) -> ImageId {
        self.id
    }
    /// Bytes of the whole image.
    pub fn image_size(&self) -> u64 {
        self.map.image_size
    }
    /// Bytes of a chunk; the last may be shorter.
    pub fn chunk_size(&self) -> u32 {
        self.chunk_size
    }
    /// All chunks, in order.
    pub fn chunks(&self) -> &[Chunk] {
        &self.chunks
    }
    /// All listed ranges, ascending.
    pub fn extents(&self) -> &[Extent] {
        &self.map.extents
    }
    /// Files for the card's passport; empty when the image carries none.
    pub fn passport(&self) -> &[PassportEntry] {
        &self.map.passport
    }
    /// Bytes of all data extents.
    pub fn data_bytes(&self) -> u64 {
        self.data_bytes
    }
    /// Bytes of all must-be-zero extents.
    pub fn zero_bytes(&self) -> u64 {
        self.zero_bytes
    }
    /// Who signed, if anybody. Not checked here: see [`Index::verify_signature`].
    pub fn signature(&self) -> Option<&IndexSignature> {
        self.signature.as_ref()
    }

    /// Where chunk `index` lies on the image.
    pub fn chunk_range(&self, index: usize) -> Range<u64> {
        let start = index as u64 * u64::from(self.chunk_size);
        start..(start + u64::from(self.chunk_size)).min(self.image_size())
    }

    /// Numbers of the chunks that travel, ascending: a `packed` upload is these, whole, in this order.
    pub fn travelling(&self) -> impl Iterator<Item = usize> + '_ {
        self.chunks.iter().enumerate().filter(|(_, chunk)| chunk.travels()).map(|(number, _)| number)
    }

    /// What of `range` is data or must be zero, ascending, neighbours joined.
    pub fn mapped_in(&self, range: Range<u64>) -> Vec<Range<u64>> {
        let mut ranges: Vec<Range<u64>> = Vec::new();
        for extent in self.extents_in(range) {
            match ranges.last_mut() {
                Some(last) if last.end == extent.offset => last.end = extent.end(),
                _ => ranges.push(extent.offset..extent.end()),
            }
        }
        ranges
    }

    /// The listed ranges inside `range`, clipped to it.
    pub fn extents_in(&self, range: Range<u64>) -> impl Iterator<Item = Extent> + '_ {
        extents_in(&self.map.extents, range)
    }

    /// The digest of the chunk at `range`, which `bytes` fill.
    fn digest_chunk(&self, range: Range<u64>, bytes: &[u8]) -> Digest {
        let mut hasher = blake3::Hasher::new();
        let mut at = range.start;
        for extent in self.extents_in(range.clone()) {
            build::hash_zeros(&mut hasher, extent.offset - at);
            let from = (extent.offset - range.start) as usize;
            hasher.update(&bytes[from..from + extent.length as usize]);
            at = extent.end();
        }
        build::hash_zeros(&mut hasher, range.end - at);
        Digest(*hasher.finalize().as_bytes())
    }

    /// True when `bytes`, of the chunk's full length, are what the index says of chunk `index`: don't-care bytes
    /// count as zero.
    pub fn chunk_matches(&self, index: usize, bytes: &[u8]) -> bool {
        let range = self.chunk_range(index);
        bytes.len() as u64 == range.end - range.start
            && self.digest_chunk(range, bytes) == self.chunks[index].digest
    }

    /// Signs with the warehouse's key; the image id does not change.
    pub fn sign(&mut self, key: &SigningKey) {
        let signature = key.sign(&self.encode_body()).to_bytes();
        self.signature = Some(IndexSignature { key: key_id(&key.verifying_key()), signature });
    }

    /// Checks the signature against one key.
    ///
    /// # Errors
    /// [`IndexError::NotSignedBy`] when it is unsigned, signed by another key or does not fit.
    pub fn verify_signature(&self, key: &VerifyingKey) -> Result<(), IndexError> {
        let wanted = key_id(key);
        let refused = IndexError::NotSignedBy(wanted);
        let Some(signature) = self.signature.filter(|s| s.key == wanted) else {
            return Err(refused);
        };
        key.verify_strict(&self.encode_body(), &Signature::from_bytes(&signature.signature))
            .map_err(|_| refused)
    }
}

/// The ranges of `extents` inside `range`, clipped to it.
fn extents_in(extents: &[Extent], range: Range<u64>) -> impl Iterator<Item = Extent> + '_ {
    let first = extents.partition_point(|e| e.end() <= range.start);
    extents[first..].iter().take_while(move |e| e.offset < range.end).map(move |e| {
        let offset = e.offset.max(range.start);
        Extent { offset, length: e.end().min(range.end) - offset, kind: e.kind }
    })
}

impl ImageMap {
    /// Checks sizes, extents and passport entries.
    ///
    /// # Errors
    /// The first thing that is wrong: `ImageTooLarge`, `BadExtent` or `BadPassport`.
    pub fn check(&self) -> Result<(), IndexError> {
        if self.image_size > MAX_IMAGE_SIZE {
            return Err(IndexError::ImageTooLarge(self.image_size));
        }
        let mut free_from = 0;
        for extent in &self.extents {
            let bad = |fault| IndexError::BadExtent { offset: extent.offset, length: extent.length, fault };
            let end = extent.offset.checked_add(extent.length).ok_or_else(|| bad("out of range"))?;
            if extent.length == 0 {
                return Err(bad("empty"));
            }
            if end > self.image_size {
                return Err(bad("beyond the end of the image"));
            }
            if extent.offset % GRANULE != 0 || (end % GRANULE != 0 && end != self.image_size) {
                return Err(bad("not on 4 KiB boundaries"));
            }
            if extent.offset < free_from {
                return Err(bad("overlaps the one before or is out of order"));
            }
            free_from = end;
        }
        self.check_passport()
    }

    fn check_passport(&self) -> Result<(), IndexError> {
        if self.passport.len() > MAX_PASSPORT_ENTRIES {
            return Err(IndexError::BadHeader(format!("{} passport entries", self.passport.len())));
        }
        for entry in &self.passport {
            let bad =
                |fault| IndexError::BadPassport { name: entry.name.clone(), offset: entry.offset, fault };
            let end = entry.offset.checked_add(entry.length).ok_or_else(|| bad("out of range"))?;
            if entry.name.is_empty() || entry.name.len() > 12 {
                return Err(bad("its name is not an 8.3 name"));
            }
            if entry.length == 0 || end > self.image_size {
                return Err(bad("empty or beyond the end of the image"));
            }
            if entry.offset % GRANULE != 0 || entry.length % GRANULE != 0 {
                return Err(bad("not on 4 KiB boundaries"));
            }
            if extents_in(&self.extents, entry.offset..end).next().is_some() {
                return Err(bad("lies in an extent"));
            }
            let others = self.passport.iter().filter(|other| !std::ptr::eq(*other, entry));
            for other in others {
                if other.name == entry.name {
                    return Err(bad("its name is listed twice"));
                }
                if other.offset < end && entry.offset < other.offset.saturating_add(other.length) {
                    return Err(bad("overlaps another entry"));
                }
            }
        }
        Ok(())
    }

    /// Bytes listed as `kind`.
    pub fn bytes_of(&self, kind: ExtentKind) -> u64 {
        self.extents.iter().filter(|e| e.kind == kind).map(|e| e.length).sum()
    }
}

#[cfg(test)]
mod tests;
