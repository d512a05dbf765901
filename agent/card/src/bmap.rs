//! Block maps of bmaptool, version 2.0, read and written. What a bmap does not map is don't care.
//!
//! **Source:** bmap-tools, *docs/README.md* and `bmaptools/BmapCreate.py`, format 2.0.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use cardshop_protocol::index::{Extent, ExtentKind, GRANULE, ImageMap, Index, MAX_IMAGE_SIZE};
use quick_xml::Reader;
use quick_xml::events::{BytesStart, Event};
use sha2::{Digest, Sha256};

/// Largest bmap read, bytes: 512,000 ranges of 128 bytes. Those of real images are below 1 MiB.
pub const MAX_BMAP_SIZE: usize = 64 << 20;
/// Bytes read from the image at a time.
const READ_SIZE: usize = 1 << 20;
/// The file's own checksum is digested as this many `0`.
const CHECKSUM_DIGITS: usize = 64;

/// Why a bmap is refused.
#[derive(Debug, thiserror::Error)]
pub enum BmapError {
    /// Larger than any real one.
    #[error("the bmap has {0} bytes, the limit is {MAX_BMAP_SIZE}")]
    TooLarge(usize),
    /// Not XML.
    #[error("the bmap is not XML: {0}")]
    NotXml(String),
    /// Another format or version.
    #[error("the bmap has version {0:?}, 2.0 is understood")]
    Version(String),
    /// An element is missing, doubled or not what it must be.
    #[error("the bmap's {element} is not valid: {reason}")]
    Element {
        /// Which.
        element: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// Its own checksum does not fit: it was cut or changed.
    #[error("the bmap's own checksum does not match its contents")]
    Damaged,
    /// A range of the image does not have the checksum the bmap says.
    #[error("the image differs from the bmap at offset {offset}, length {length}")]
    ImageDiffers {
        /// First byte of the range.
        offset: u64,
        /// Bytes of it.
        length: u64,
    },
    /// The image cannot be read.
    #[error("cannot read the image")]
    Io(#[from] io::Error),
}

/// A bmap that holds together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bmap {
    image_size: u64,
    ranges: Vec<(Range<u64>, [u8; 32])>,
}

/// Reads a bmap as a map: mapped bytes are data, the others don't care.
///
/// # Errors
/// As [`Bmap::parse`].
pub fn read(text: &str) -> Result<ImageMap, BmapError> {
    Bmap::parse(text).map(|bmap| bmap.map())
}

impl Bmap {
    /// Reads a bmap of version 2.0 with SHA-256 checksums, which every range must have.
    ///
    /// # Errors
    /// Any [`BmapError`] but those of an image.
    pub fn parse(text: &str) -> Result<Self, BmapError> {
        if text.len() > MAX_BMAP_SIZE {
            return Err(BmapError::TooLarge(text.len()));
        }
        let fields = Fields::read(text)?;
        if fields.version != "2.0" {
            return Err(BmapError::Version(fields.version));
        }
        if fields.checksum_type != "sha256" {
            return Err(bad(
                "ChecksumType",
                format!("{:?}, only sha256 is understood", fields.checksum_type),
            ));
        }
        let own = parse_checksum("BmapFileChecksum", &fields.own_checksum)?;
        let zeroed = text.replacen(&fields.own_checksum, &"0".repeat(CHECKSUM_DIGITS), 1);
        if Sha256::digest(zeroed.as_bytes())[..] != own {
            return Err(BmapError::Damaged);
        }
        fields.check()
    }

    /// Mapped bytes are data, the others don't care.
    pub fn map(&self) -> ImageMap {
        let mut extents: Vec<Extent> = Vec::new();
        for (range, _) in &self.ranges {
            match extents.last_mut() {
                Some(last) if last.end() == range.start => last.length = range.end - last.offset,
                _ => extents.push(Extent {
                    offset: range.start,
                    length: range.end - range.start,
                    kind: ExtentKind::Data,
                }),
            }
        }
        ImageMap { image_size: self.image_size, extents, passport: Vec::new() }
    }

    /// Compares an image with the checksums of all ranges: a bmap of another build would call its data
    /// don't care.
    ///
    /// # Errors
    /// `ImageDiffers` with the first range that does, `Io`.
    pub fn check_image(&self, image: &File) -> Result<(), BmapError> {
        for (range, expected) in &self.ranges {
            if digest_range(image, range.clone())? != *expected {
                let (offset, length) = (range.start, range.end - range.start);
                return Err(BmapError::ImageDiffers { offset, length });
            }
        }
        Ok(())
    }
}

/// Writes the bmap of an image, with a checksum of each mapped range and of itself.
///
/// # Errors
/// `Io` when the image cannot be read.
pub fn write(index: &Index, image: &File) -> Result<String, BmapError> {
    let ranges = index.mapped_in(0..index.image_size());
    let checksums: Vec<_> =
        ranges.into_iter().map(|range| digest_range(image, range)).collect::<Result<_, _>>()?;
    Ok(index.bmap(&checksums, |text| Sha256::digest(text).into()))
}

fn digest_range(image: &File, range: Range<u64>) -> io::Result<[u8; 32]> {
    let mut buffer = vec![0; READ_SIZE.min((range.end - range.start) as usize)];
    let mut hasher = Sha256::new();
    let mut at = range.start;
    while at < range.end {
        let piece = (range.end - at).min(buffer.len() as u64) as usize;
        image.read_exact_at(&mut buffer[..piece], at)?;
        hasher.update(&buffer[..piece]);
        at += piece as u64;
    }
    Ok(hasher.finalize().into())
}

fn bad(element: &'static str, reason: impl Into<String>) -> BmapError {
    BmapError::Element { element, reason: reason.into() }
}

fn parse_checksum(element: &'static str, text: &str) -> Result<[u8; 32], BmapError> {
    let digits = text.as_bytes();
    let is_hex = digits.len() == CHECKSUM_DIGITS && digits.iter().all(u8::is_ascii_hexdigit);
    if !is_hex {
        return Err(bad(element, format!("{} characters, a SHA-256 has 64 hex digits", digits.len())));
    }
    let digit = |at: usize| (digits[at] as char).to_digit(16).unwrap_or(0) as u8;
    Ok(std::array::from_fn(|byte| digit(2 * byte) << 4 | digit(2 * byte + 1)))
}

/// The elements of a bmap as text.
#[derive(Default)]
struct Fields {
    version: String,
    image_size: String,
    block_size: String,
    blocks_count: String,
    mapped_blocks_count: String,
    checksum_type: String,
    own_checksum: String,
    /// Checksum and block numbers of each range.
    ranges: Vec<(String, String)>,
}

impl Fields {
    fn read(text: &str) -> Result<Self, BmapError> {
        let mut reader = Reader::from_str(text);
        let mut fields = Self::default();
        let mut within = String::new();
        loop {
            match reader.read_event().map_err(|e| BmapError::NotXml(e.to_string()))? {
                Event::Start(start) => within = fields.start(&start)?,
                Event::End(_) => within.clear(),
                Event::Text(content) => {
                    // No element of a bmap holds an entity: what is escaped is not a number.
                    fields.text(&within, content.trim())?;
                }
                Event::Eof => return Ok(fields),
                _ => {}
            }
        }
    }

    fn start(&mut self, start: &BytesStart<'_>) -> Result<String, BmapError> {
        let name = start.name().as_ref().to_owned();
        match name.as_str() {
            "bmap" => self.version = attribute(start, "version")?,
            "Range" => self.ranges.push((attribute(start, "chksum")?, String::new())),
            _ => {}
        }
        Ok(name)
    }

    fn text(&mut self, element: &str, text: &str) -> Result<(), BmapError> {
        let (name, field) = match element {
            "ImageSize" => ("ImageSize", &mut self.image_size),
            "BlockSize" => ("BlockSize", &mut self.block_size),
            "BlocksCount" => ("BlocksCount", &mut self.blocks_count),
            "MappedBlocksCount" => ("MappedBlocksCount", &mut self.mapped_blocks_count),
            "ChecksumType" => ("ChecksumType", &mut self.checksum_type),
            "BmapFileChecksum" => ("BmapFileChecksum", &mut self.own_checksum),
            "Range" => match self.ranges.last_mut() {
                Some((_, blocks)) => ("Range", blocks),
                None => return Ok(()),
            },
            _ => return Ok(()),
        };
        if text.is_empty() {
            return Ok(());
        }
        if !field.is_empty() {
            return Err(bad(name, "it is there twice"));
        }
        text.clone_into(field);
        Ok(())
    }

    /// Turns text into numbers and checks that they agree.
    fn check(&self) -> Result<Bmap, BmapError> {
        let image_size = number("ImageSize", &self.image_size)?;
        let block_size = number("BlockSize", &self.block_size)?;
        let blocks_count = number("BlocksCount", &self.blocks_count)?;
        let mapped_blocks = number("MappedBlocksCount", &self.mapped_blocks_count)?;
        if image_size > MAX_IMAGE_SIZE {
            return Err(bad("ImageSize", format!("{image_size} is above the limit of {MAX_IMAGE_SIZE}")));
        }
        if block_size == 0 || block_size % GRANULE != 0 || block_size > MAX_IMAGE_SIZE {
            return Err(bad("BlockSize", format!("{block_size} is not a multiple of {GRANULE}")));
        }
        if blocks_count != image_size.div_ceil(block_size) {
            return Err(bad("BlocksCount", format!("{blocks_count} does not fit the image's size")));
        }
        let mut ranges = Vec::new();
        let (mut free_from, mut counted) = (0, 0);
        for (checksum, blocks) in &self.ranges {
            let (first, last) = block_range(blocks)?;
            if first < free_from || last < first || last >= blocks_count {
                return Err(bad("Range", format!("{blocks:?} overlaps, is out of order or out of range")));
            }
            free_from = last + 1;
            counted += last + 1 - first;
            let bytes = first * block_size..((last + 1) * block_size).min(image_size);
            ranges.push((bytes, parse_checksum("Range", checksum)?));
        }
        if counted != mapped_blocks {
            return Err(bad("MappedBlocksCount", format!("{mapped_blocks}, the ranges hold {counted}")));
        }
        Ok(Bmap { image_size, ranges })
    }
}

fn attribute(start: &BytesStart<'_>, name: &'static str) -> Result<String, BmapError> {
    let found = start.try_get_attribute(name).map_err(|e| BmapError::NotXml(e.to_string()))?;
    let value = found.map(|a| a.value.trim().to_owned()).unwrap_or_default();
    if value.is_empty() && name == "chksum" {
        return Err(bad("Range", "it has no checksum"));
    }
    Ok(value)
}

fn number(element: &'static str, text: &str) -> Result<u64, BmapError> {
    text.parse()
        .map_err(|_| bad(element, format!("{:?} is no number", text.chars().take(40).collect::<String>())))
}

/// `5` or `5-9`.
fn block_range(text: &str) -> Result<(u64, u64), BmapError> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    Ok((number("Range", first.trim())?, number("Range", last.trim())?))
}
