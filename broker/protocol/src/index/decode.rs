//! Bytes to index. Input is hostile: every count is checked against the file's length before anything is
//! allocated, every number against the extents, and the header against its one deterministic spelling.

use minicbor::Decoder;

use super::build::{check_chunk_size, hash_zeros, listed};
use super::encode::flags_of;
use super::{
    CHUNK_RECORD_SIZE, Chunk, EXTENT_RECORD_SIZE, Extent, ExtentKind, FLAG_ALL_ZERO, ImageMap, Index,
    IndexError, IndexSignature, MAGIC, MAX_HEADER_SIZE, MAX_IMAGE_SIZE, MAX_PASSPORT_ENTRIES,
    MUST_BE_ZERO_BIT, PassportEntry, SIGNATURE_SIZE, chunk_count,
};
use crate::ids::{Digest, ImageId, KeyId};

#[derive(Default)]
struct Header {
    chunk_size: u64,
    data_bytes: u64,
    image_size: u64,
    zero_bytes: u64,
    chunk_count: u64,
    extent_count: u64,
    passport: Vec<PassportEntry>,
}

impl Index {
    /// Reads a whole index file.
    ///
    /// # Errors
    /// Every variant of [`IndexError`] but those of the builder and of signatures; nothing panics and no
    /// more memory is taken than a small multiple of `bytes`.
    pub fn decode(bytes: &[u8]) -> Result<Self, IndexError> {
        let header_size = header_size(bytes)?;
        let body_start = 12 + header_size;
        let header_bytes = bytes.get(12..body_start).ok_or(too_short(body_start as u64, bytes))?;
        let header = decode_header(header_bytes)?;
        let chunk_size = check_chunk_size(header.chunk_size)?;
        if header.image_size > MAX_IMAGE_SIZE {
            return Err(IndexError::ImageTooLarge(header.image_size));
        }
        agree("chunk_count", header.chunk_count, chunk_count(header.image_size, chunk_size))?;

        let chunks_size = usize_of(header.chunk_count, CHUNK_RECORD_SIZE)?;
        let extents_size = usize_of(header.extent_count, EXTENT_RECORD_SIZE)?;
        let expected = (body_start + SIGNATURE_SIZE) as u64 + chunks_size as u64 + extents_size as u64;
        if expected != bytes.len() as u64 {
            return Err(too_short(expected, bytes));
        }
        let (chunk_bytes, rest) = bytes[body_start..].split_at(chunks_size);
        let (extent_bytes, signature) = rest.split_at(extents_size);

        let map = ImageMap {
            image_size: header.image_size,
            extents: extent_bytes.chunks_exact(EXTENT_RECORD_SIZE).map(decode_extent).collect(),
            passport: header.passport,
        };
        map.check()?;
        agree("data_bytes", header.data_bytes, map.bytes_of(ExtentKind::Data))?;
        agree("zero_bytes", header.zero_bytes, map.bytes_of(ExtentKind::Zero))?;
        let index = Self {
            id: ImageId(*blake3::hash(&bytes[..bytes.len() - SIGNATURE_SIZE]).as_bytes()),
            chunk_size,
            chunks: decode_chunks(chunk_bytes, &map, chunk_size)?,
            data_bytes: header.data_bytes,
            zero_bytes: header.zero_bytes,
            map,
            signature: decode_signature(signature),
        };
        // One spelling only: the id digests these bytes, and two spellings would be two ids of one image.
        if index.encode() != bytes {
            return Err(IndexError::BadHeader("it is not in deterministic form (RFC 8949 §4.2.1)".into()));
        }
        Ok(index)
    }
}

fn header_size(bytes: &[u8]) -> Result<usize, IndexError> {
    let start = bytes.get(..12).ok_or(IndexError::NotAnIndex)?;
    if &start[..8] != MAGIC {
        return Err(IndexError::NotAnIndex);
    }
    let size = u32::from_le_bytes(start[8..].try_into().expect("four bytes"));
    if size > MAX_HEADER_SIZE {
        return Err(IndexError::BadHeader(format!("{size} bytes is above the limit of {MAX_HEADER_SIZE}")));
    }
    Ok(size as usize)
}

fn too_short(expected: u64, bytes: &[u8]) -> IndexError {
    IndexError::WrongLength { expected, actual: bytes.len() as u64 }
}

/// Bytes of `count` records. An image has at most 2^46 bytes and records count 64 KiB or 4 KiB of it.
fn usize_of(count: u64, record_size: usize) -> Result<usize, IndexError> {
    const MOST: u64 = MAX_IMAGE_SIZE / super::GRANULE;
    if count > MOST {
        return Err(IndexError::BadHeader(format!("{count} records is above the limit of {MOST}")));
    }
    Ok(count as usize * record_size)
}

fn agree(what: &str, stated: u64, actual: u64) -> Result<(), IndexError> {
    if stated == actual {
        return Ok(());
    }
    Err(IndexError::Contradiction { what: what.to_owned(), stated, actual })
}

fn decode_header(bytes: &[u8]) -> Result<Header, IndexError> {
    let mut decoder = Decoder::new(bytes);
    let header = read_header(&mut decoder).map_err(|e| IndexError::BadHeader(e.to_string()))?;
    if decoder.position() != bytes.len() {
        return Err(IndexError::BadHeader("bytes follow the map".into()));
    }
    Ok(header)
}

fn read_header(d: &mut Decoder<'_>) -> Result<Header, minicbor::decode::Error> {
    use minicbor::decode::Error;
    let mut header = Header::default();
    let count = d.map()?.ok_or_else(|| Error::message("a map of unknown length"))?;
    for _ in 0..count {
        match d.str()? {
            "chunk_size" => header.chunk_size = d.u64()?,
            "data_bytes" => header.data_bytes = d.u64()?,
            "image_size" => header.image_size = d.u64()?,
            "zero_bytes" => header.zero_bytes = d.u64()?,
            "chunk_count" => header.chunk_count = d.u64()?,
            "extent_count" => header.extent_count = d.u64()?,
            "passport" => header.passport = read_passport(d)?,
            other => return Err(Error::message(format!("unknown key {other:?}"))),
        }
    }
    Ok(header)
}

fn read_passport(d: &mut Decoder<'_>) -> Result<Vec<PassportEntry>, minicbor::decode::Error> {
    use minicbor::decode::Error;
    let count = d.array()?.ok_or_else(|| Error::message("a list of unknown length"))?;
    if count > MAX_PASSPORT_ENTRIES as u64 {
        return Err(Error::message("too many passport entries"));
    }
    let mut entries = Vec::new();
    for _ in 0..count {
        let mut entry = PassportEntry { name: String::new(), offset: 0, length: 0 };
        let keys = d.map()?.ok_or_else(|| Error::message("a map of unknown length"))?;
        for _ in 0..keys {
            match d.str()? {
                "name" => entry.name = d.str()?.to_owned(),
                "length" => entry.length = d.u64()?,
                "offset" => entry.offset = d.u64()?,
                other => return Err(Error::message(format!("unknown passport key {other:?}"))),
            }
        }
        entries.push(entry);
    }
    Ok(entries)
}

fn decode_extent(record: &[u8]) -> Extent {
    let offset = u64::from_le_bytes(record[..8].try_into().expect("eight bytes"));
    let length = u64::from_le_bytes(record[8..].try_into().expect("eight bytes"));
    let kind = if length & MUST_BE_ZERO_BIT == 0 { ExtentKind::Data } else { ExtentKind::Zero };
    Extent { offset, length: length & !MUST_BE_ZERO_BIT, kind }
}

fn decode_chunks(bytes: &[u8], map: &ImageMap, chunk_size: u32) -> Result<Vec<Chunk>, IndexError> {
    let mut chunks = Vec::with_capacity(bytes.len() / CHUNK_RECORD_SIZE);
    let mut zeros = ZeroDigests::default();
    for (index, record) in bytes.chunks_exact(CHUNK_RECORD_SIZE).enumerate() {
        let digest = Digest(record[..32].try_into().expect("32 bytes"));
        let flags = u32::from_le_bytes(record[32..36].try_into().expect("four bytes"));
        let stated = u32::from_le_bytes(record[36..].try_into().expect("four bytes"));
        let start = index as u64 * u64::from(chunk_size);
        let end = (start + u64::from(chunk_size)).min(map.image_size);
        let (data_bytes, nothing_listed) = listed(map, start..end);
        agree(&format!("data bytes of chunk {index}"), stated.into(), data_bytes.into())?;
        let all_zero = flags & FLAG_ALL_ZERO != 0;
        let expected = flags_of(all_zero || data_bytes == 0, nothing_listed);
        agree(&format!("flags of chunk {index}"), flags.into(), expected.into())?;
        if all_zero && digest != zeros.digest(end - start) {
            return Err(IndexError::NotZeroDigest(index));
        }
        chunks.push(Chunk { digest, all_zero, nothing_listed, data_bytes });
    }
    Ok(chunks)
}

/// The digests of zeros asked for last: an index has chunks of two lengths.
#[derive(Default)]
struct ZeroDigests(Option<(u64, Digest)>);

impl ZeroDigests {
    fn digest(&mut self, length: u64) -> Digest {
        match self.0 {
            Some((known, digest)) if known == length => digest,
            _ => {
                let mut hasher = blake3::Hasher::new();
                hash_zeros(&mut hasher, length);
                let digest = Digest(*hasher.finalize().as_bytes());
                self.0 = Some((length, digest));
                digest
            }
        }
    }
}

fn decode_signature(bytes: &[u8]) -> Option<IndexSignature> {
    let key = KeyId(bytes[..8].try_into().expect("eight bytes"));
    let signature = bytes[8..].try_into().expect("64 bytes");
    (key.0 != [0; 8]).then_some(IndexSignature { key, signature })
}
