//! Index to bytes. The header is deterministic CBOR: definite lengths, shortest integers, keys in the
//! byte order of their encoding. **Source:** RFC 8949 §4.2.1.

use minicbor::Encoder;
use minicbor::encode::write::Write;

use super::{
    ExtentKind, FLAG_ALL_ZERO, FLAG_NOTHING_LISTED, ImageMap, Index, MAGIC, MUST_BE_ZERO_BIT, SIGNATURE_SIZE,
};

impl Index {
    /// The whole file, with its signature part (zeros when unsigned).
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = self.encode_body();
        match &self.signature {
            Some(signature) => {
                bytes.extend_from_slice(&signature.key.0);
                bytes.extend_from_slice(&signature.signature);
            }
            None => bytes.extend_from_slice(&[0; SIGNATURE_SIZE]),
        }
        bytes
    }

    /// Everything before the signature part: what is signed and what the image id digests.
    pub(super) fn encode_body(&self) -> Vec<u8> {
        let header = encode_header(self);
        let mut bytes = Vec::with_capacity(
            12 + header.len() + self.chunks.len() * 40 + self.map.extents.len() * 16 + SIGNATURE_SIZE,
        );
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&(header.len() as u32).to_le_bytes());
        bytes.extend_from_slice(&header);
        for chunk in &self.chunks {
            let flags = flags_of(chunk.all_zero, chunk.nothing_listed);
            bytes.extend_from_slice(&chunk.digest.0);
            bytes.extend_from_slice(&flags.to_le_bytes());
            bytes.extend_from_slice(&chunk.data_bytes.to_le_bytes());
        }
        for extent in &self.map.extents {
            let zero = if extent.kind == ExtentKind::Zero { MUST_BE_ZERO_BIT } else { 0 };
            bytes.extend_from_slice(&extent.offset.to_le_bytes());
            bytes.extend_from_slice(&(extent.length | zero).to_le_bytes());
        }
        bytes
    }
}

/// A chunk's flags as the format has them.
pub(super) fn flags_of(all_zero: bool, nothing_listed: bool) -> u32 {
    let zero = if all_zero { FLAG_ALL_ZERO } else { 0 };
    if nothing_listed { zero | FLAG_NOTHING_LISTED } else { zero }
}

fn encode_header(index: &Index) -> Vec<u8> {
    let mut encoder = Encoder::new(Vec::new());
    write_header(&mut encoder, index).expect("writing to memory cannot fail");
    encoder.into_writer()
}

/// Keys sorted as RFC 8949 §4.2.1 wants: the shorter text first, then byte by byte.
fn write_header<W: Write>(
    e: &mut Encoder<W>,
    index: &Index,
) -> Result<(), minicbor::encode::Error<W::Error>> {
    let passport = !index.map.passport.is_empty();
    e.map(6 + u64::from(passport))?;
    if passport {
        write_passport(e, &index.map)?;
    }
    e.str("chunk_size")?.u32(index.chunk_size)?;
    e.str("data_bytes")?.u64(index.data_bytes)?;
    e.str("image_size")?.u64(index.map.image_size)?;
    e.str("zero_bytes")?.u64(index.zero_bytes)?;
    e.str("chunk_count")?.u64(index.chunks.len() as u64)?;
    e.str("extent_count")?.u64(index.map.extents.len() as u64)?;
    Ok(())
}

fn write_passport<W: Write>(
    e: &mut Encoder<W>,
    map: &ImageMap,
) -> Result<(), minicbor::encode::Error<W::Error>> {
    e.str("passport")?.array(map.passport.len() as u64)?;
    for entry in &map.passport {
        e.map(3)?;
        e.str("name")?.str(&entry.name)?;
        e.str("length")?.u64(entry.length)?;
        e.str("offset")?.u64(entry.offset)?;
    }
    Ok(())
}
