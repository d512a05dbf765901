//! Bytes in, index out: digests an image as its data passes by, in one pass and with one chunk's state.

use super::{
    Chunk, Extent, ExtentKind, ImageMap, Index, IndexError, MAX_CHUNK_SIZE, MAX_IMAGE_SIZE, MIN_CHUNK_SIZE,
    chunk_count, extents_in,
};
use crate::ids::{Digest, ImageId};

/// Zero bytes are fed to the hasher in pieces of this size.
static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];

/// Feeds `length` zero bytes.
pub(super) fn hash_zeros(hasher: &mut blake3::Hasher, mut length: u64) {
    while length > 0 {
        let step = length.min(ZEROS.len() as u64);
        hasher.update(&ZEROS[..step as usize]);
        length -= step;
    }
}

/// Checks that a chunk size is one the format allows.
pub(super) fn check_chunk_size(chunk_size: u64) -> Result<u32, IndexError> {
    u32::try_from(chunk_size)
        .ok()
        .filter(|s| s.is_power_of_two() && (MIN_CHUNK_SIZE..=MAX_CHUNK_SIZE).contains(s))
        .ok_or(IndexError::BadChunkSize(chunk_size))
}

/// Builds an [`Index`] from a map and the bytes of its data extents, given in order in pieces of any size.
pub struct IndexBuilder {
    map: ImageMap,
    chunk_size: u32,
    chunks: Vec<Chunk>,
    hasher: blake3::Hasher,
    /// True while every data byte of the current chunk was zero.
    all_zero: bool,
    /// Image offset up to which everything is digested.
    at: u64,
    /// The data extent that takes the next byte.
    extent: usize,
    given: u64,
    zero_chunk: Digest,
}

impl IndexBuilder {
    /// Starts an index of this map.
    ///
    /// # Errors
    /// What [`ImageMap::check`] finds, or `BadChunkSize`.
    pub fn new(map: ImageMap, chunk_size: u32) -> Result<Self, IndexError> {
        map.check()?;
        check_chunk_size(u64::from(chunk_size))?;
        let mut zeros = blake3::Hasher::new();
        hash_zeros(&mut zeros, u64::from(chunk_size));
        Ok(Self {
            chunk_size,
            chunks: Vec::new(),
            hasher: blake3::Hasher::new(),
            all_zero: true,
            at: 0,
            extent: next_data(&map, 0),
            given: 0,
            zero_chunk: Digest(*zeros.finalize().as_bytes()),
            map,
        })
    }

    /// Starts an index of an image whose size shows only at its end: all of it is data. [`Self::finish_here`]
    /// ends it.
    ///
    /// # Errors
    /// `BadChunkSize`.
    pub fn of_stream(chunk_size: u32) -> Result<Self, IndexError> {
        let extents = vec![Extent { offset: 0, length: MAX_IMAGE_SIZE, kind: ExtentKind::Data }];
        Self::new(ImageMap { image_size: MAX_IMAGE_SIZE, extents, passport: Vec::new() }, chunk_size)
    }

    /// Ends an image of [`Self::of_stream`] with what was given.
    ///
    /// # Errors
    /// None for an image of which anything was given.
    pub fn finish_here(mut self) -> Result<Index, IndexError> {
        self.map.image_size = self.at;
        self.map.extents[0].length = self.at;
        self.map.check()?;
        if !self.at.is_multiple_of(u64::from(self.chunk_size)) {
            let digest = Digest(*self.hasher.finalize().as_bytes());
            self.push_chunk(digest);
        }
        self.extent = self.map.extents.len();
        self.finish()
    }

    /// Takes the next bytes of the data extents.
    ///
    /// # Errors
    /// `WrongDataLength` when more is given than the data extents hold.
    pub fn data(&mut self, mut bytes: &[u8]) -> Result<(), IndexError> {
        self.given += bytes.len() as u64;
        while !bytes.is_empty() {
            let Some(extent) = self.map.extents.get(self.extent).copied() else {
                return Err(self.wrong_length());
            };
            self.skip_to(extent.offset.max(self.at));
            let room = (extent.end() - self.at).min(self.chunk_end() - self.at);
            let (now, later) = bytes.split_at(bytes.len().min(room as usize));
            self.hasher.update(now);
            self.all_zero = self.all_zero && now.iter().all(|b| *b == 0);
            self.advance(now.len() as u64);
            if self.at == extent.end() {
                self.extent = next_data(&self.map, self.extent + 1);
            }
            bytes = later;
        }
        Ok(())
    }

    /// Takes the digest of a whole chunk instead of its data bytes, which somebody else has digested and found to be all
    /// zero or not. The next data is that behind the chunk.
    ///
    /// # Errors
    /// `WrongDataLength` when data before the chunk was not given, or some of its own was.
    pub fn chunk(&mut self, number: u64, digest: Digest, all_zero: bool) -> Result<(), IndexError> {
        let start = number * u64::from(self.chunk_size);
        let owed = self.map.extents.get(self.extent).is_some_and(|e| e.offset.max(self.at) < start);
        if self.at > start || owed {
            return Err(self.wrong_length());
        }
        self.skip_to(start);
        self.at = self.chunk_end();
        self.given += u64::from(listed(&self.map, start..self.at).0);
        self.all_zero = all_zero;
        self.push_chunk(digest);
        let behind = |e: &Extent| e.kind == ExtentKind::Data && e.end() > self.at;
        let left = self.map.extents[self.extent..].iter().position(behind);
        self.extent = left.map_or(self.map.extents.len(), |more| self.extent + more);
        Ok(())
    }

    /// Ends the image and gives its unsigned index.
    ///
    /// # Errors
    /// `WrongDataLength` when fewer bytes were given than the data extents hold.
    pub fn finish(mut self) -> Result<Index, IndexError> {
        if self.extent < self.map.extents.len() {
            return Err(self.wrong_length());
        }
        self.skip_to(self.map.image_size);
        let mut index = Index {
            id: ImageId([0; 32]),
            data_bytes: self.map.bytes_of(ExtentKind::Data),
            zero_bytes: self.map.bytes_of(ExtentKind::Zero),
            map: self.map,
            chunk_size: self.chunk_size,
            chunks: self.chunks,
            signature: None,
        };
        index.id = ImageId(*blake3::hash(&index.encode_body()).as_bytes());
        Ok(index)
    }

    fn wrong_length(&self) -> IndexError {
        IndexError::WrongDataLength { expected: self.map.bytes_of(ExtentKind::Data), actual: self.given }
    }

    fn chunk_end(&self) -> u64 {
        let size = u64::from(self.chunk_size);
        ((self.at / size + 1) * size).min(self.map.image_size)
    }

    /// Digests zeros up to `offset`.
    fn skip_to(&mut self, offset: u64) {
        while self.at < offset {
            let end = self.chunk_end();
            let whole = end - self.at == u64::from(self.chunk_size) && end <= offset;
            if whole {
                // A whole chunk without data: its digest is known.
                self.at = end;
                self.push_chunk(self.zero_chunk);
            } else {
                let step = end.min(offset) - self.at;
                hash_zeros(&mut self.hasher, step);
                self.advance(step);
            }
        }
    }

    fn advance(&mut self, by: u64) {
        let end = self.chunk_end();
        self.at += by;
        if self.at == end {
            let digest = Digest(*self.hasher.finalize().as_bytes());
            self.push_chunk(digest);
        }
    }

    /// Ends the chunk that ends at `self.at`.
    fn push_chunk(&mut self, digest: Digest) {
        let start = self.chunks.len() as u64 * u64::from(self.chunk_size);
        let (data_bytes, nothing_listed) = listed(&self.map, start..self.at);
        self.chunks.push(Chunk { digest, all_zero: self.all_zero, nothing_listed, data_bytes });
        self.hasher.reset();
        self.all_zero = true;
        debug_assert!(self.chunks.len() as u64 <= chunk_count(self.map.image_size, self.chunk_size));
    }
}

/// Data bytes of a chunk, and whether no extent touches it.
pub(super) fn listed(map: &ImageMap, range: std::ops::Range<u64>) -> (u32, bool) {
    let mut data_bytes = 0;
    let mut nothing_listed = true;
    for extent in extents_in(&map.extents, range) {
        nothing_listed = false;
        if extent.kind == ExtentKind::Data {
            data_bytes += extent.length as u32;
        }
    }
    (data_bytes, nothing_listed)
}

/// The first data extent at or after position `from`.
fn next_data(map: &ImageMap, from: usize) -> usize {
    (from..map.extents.len()).find(|i| map.extents[*i].kind == ExtentKind::Data).unwrap_or(map.extents.len())
}
