//! The card's passport: two small files on its FAT partition. Written in place by `write` (only their contents
//! change), read here from any card or file through embedded-sdmmc. What is read is hostile: `fat_guard` lets
//! the library see only volumes that hold together, and bounds how much is read.

use std::path::Path;

use cardshop_protocol::index::PassportEntry;
use cardshop_protocol::message::Passport;
use embedded_sdmmc::{Mode, TimeSource, Timestamp, VolumeIdx, VolumeManager};

use crate::claim::ReadableCard;
use crate::error::CardError;
use crate::fat_guard::{GuardError, GuardedVolume};

/// 8.3 name of the passport.
pub const CARD_FILE: &str = "CARD.JSN";
/// 8.3 name of the text for people.
pub const README_FILE: &str = "README.TXT";
/// Longest passport file, bytes; the creator preallocates 4096.
pub const MAX_PASSPORT_SIZE: usize = 64 * 1024;

/// Contents of the passport's files, each at most as long as the image left room for (4096 bytes).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PassportFiles {
    /// `CARD.JSN`: a [`Passport`] as JSON.
    pub card_jsn: Vec<u8>,
    /// `README.TXT`: what the card is, for people.
    pub readme: Vec<u8>,
}

/// Why no passport was read from a card.
#[derive(Debug, thiserror::Error)]
pub enum PassportError {
    /// The card cannot be read.
    #[error(transparent)]
    Card(#[from] CardError),
    /// There is a `CARD.JSN`, and it is not a passport.
    #[error("the passport on the card is damaged: {0}")]
    Damaged(String),
}

/// Offset and bytes of each passport file, padded with spaces to the file's length.
///
/// # Errors
/// `PassportTooLarge`.
pub(crate) fn passport_blocks(
    entries: &[PassportEntry],
    files: &PassportFiles,
) -> Result<Vec<(u64, Vec<u8>)>, CardError> {
    let mut blocks = Vec::new();
    for entry in entries {
        let contents = match entry.name.as_str() {
            CARD_FILE => &files.card_jsn,
            README_FILE => &files.readme,
            _ => continue,
        };
        let room = entry.length.min(MAX_PASSPORT_SIZE as u64);
        if contents.len() as u64 > room {
            let (name, size) = (entry.name.clone(), contents.len());
            return Err(CardError::PassportTooLarge { name, size, room });
        }
        let mut bytes = contents.clone();
        bytes.resize(room as usize, b' ');
        blocks.push((entry.offset, bytes));
    }
    Ok(blocks)
}

/// Reads the passport of a card or an image file; nothing is claimed or written. `None` when the card has no
/// FAT file system (in an MBR, in a GPT, or on the whole card), no `CARD.JSN`, or a blank one. Reads at most 2 MiB
/// of each of four file systems.
///
/// # Errors
/// `Damaged`, or what the card failed with.
pub fn read_passport(device: &Path) -> Result<Option<Passport>, PassportError> {
    read_passport_of(&mut ReadableCard::open(device)?)
}

/// Reads the passport of a card that is open already.
///
/// # Errors
/// As [`read_passport`].
pub fn read_passport_of(card: &mut ReadableCard) -> Result<Option<Passport>, PassportError> {
    for volume in GuardedVolume::open_all(&*card.device)? {
        if let Some(bytes) = read_file(volume, CARD_FILE)? {
            return parse(&bytes);
        }
    }
    Ok(None)
}

fn parse(bytes: &[u8]) -> Result<Option<Passport>, PassportError> {
    let end = bytes.iter().rposition(|b| !b.is_ascii_whitespace() && *b != 0).map_or(0, |at| at + 1);
    match &bytes[..end] {
        [] => Ok(None),
        text => serde_json::from_slice(text).map(Some).map_err(|e| PassportError::Damaged(e.to_string())),
    }
}

/// Bytes of a file that are copied at once.
const COPY_SIZE: usize = 64 * 1024;

/// The library asks for the time only to write.
pub(crate) struct NoClock;

impl TimeSource for NoClock {
    fn get_timestamp(&self) -> Timestamp {
        Timestamp {
            year_since_1970: 10,
            zero_indexed_month: 0,
            zero_indexed_day: 0,
            hours: 0,
            minutes: 0,
            seconds: 0,
        }
    }
}

/// Copies a file of the root folder of the card's first FAT volume that has it, at most `most` bytes of it; gives its size.
/// `None` when there is none, or it is larger than `max_size`.
///
/// # Errors
/// What the card or `out` failed with.
pub fn copy_root_file(
    card: &mut ReadableCard,
    name: &str,
    max_size: u32,
    most: usize,
    out: &mut dyn std::io::Write,
) -> std::io::Result<Option<u32>> {
    for volume in GuardedVolume::open_all(&*card.device).map_err(std::io::Error::other)? {
        if let Some(size) = copy_file(volume, name, max_size, most, out)? {
            return Ok(Some(size));
        }
    }
    Ok(None)
}

/// A file of the root folder; `None` when there is none or the volume makes no sense.
fn read_file(volume: GuardedVolume<'_>, name: &str) -> Result<Option<Vec<u8>>, PassportError> {
    let mut bytes = Vec::new();
    match copy_file(volume, name, MAX_PASSPORT_SIZE as u32, MAX_PASSPORT_SIZE, &mut bytes) {
        Ok(found) => Ok(found.map(|_| bytes)),
        Err(error) => match error.downcast::<CardError>() {
            Ok(error) => Err(error.into()),
            Err(error) => Err(PassportError::Damaged(error.to_string())),
        },
    }
}

fn copy_file(
    volume: GuardedVolume<'_>,
    name: &str,
    max_size: u32,
    most: usize,
    out: &mut dyn std::io::Write,
) -> std::io::Result<Option<u32>> {
    enum Failure {
        Fat(embedded_sdmmc::Error<GuardError>),
        Out(std::io::Error),
    }
    impl From<embedded_sdmmc::Error<GuardError>> for Failure {
        fn from(error: embedded_sdmmc::Error<GuardError>) -> Self {
            Self::Fat(error)
        }
    }
    let clusters = volume.clusters();
    if most > MAX_PASSPORT_SIZE {
        volume.allow_large(max_size);
    }
    let manager: VolumeManager<_, _> = VolumeManager::new(volume, NoClock);
    let mut copy = || -> Result<Option<u32>, Failure> {
        let volume = manager.open_volume(VolumeIdx(0))?;
        let root = volume.open_root_dir()?;
        let entry = root.find_directory_entry(name)?;
        // The library trusts a directory entry's first cluster; the guard cannot see which blocks are folders.
        if !clusters.contains(&entry.cluster) || entry.size > max_size {
            return Ok(None);
        }
        let file = root.open_file_in_dir(name, Mode::ReadOnly)?;
        let mut left = most.min(entry.size as usize);
        let mut buffer = vec![0; left.min(COPY_SIZE)];
        while left > 0 {
            let size = buffer.len().min(left);
            match file.read(&mut buffer[..size])? {
                0 => break,
                count => {
                    out.write_all(&buffer[..count]).map_err(Failure::Out)?;
                    left -= count;
                }
            }
        }
        Ok(Some(entry.size))
    };
    match copy() {
        Ok(size) => Ok(size),
        Err(Failure::Out(error)) => Err(error),
        Err(Failure::Fat(embedded_sdmmc::Error::DeviceError(GuardError::Card(error)))) => {
            Err(std::io::Error::other(error))
        }
        Err(Failure::Fat(embedded_sdmmc::Error::NotFound)) => Ok(None),
        Err(Failure::Fat(error)) => {
            tracing::debug!("no {name} on this volume: {error:?}");
            Ok(None)
        }
    }
}
