//! Whether a card holds nothing but empty FAT file systems, as it comes from the factory: nobody needs to be
//! asked before it is erased. Reads only, and no more than `fat_guard` allows. What it does not know (exFAT, a
//! file system without a partition table, GPT) it takes for somebody's data.

use std::ops::ControlFlow;

use embedded_sdmmc::{VolumeIdx, VolumeManager};

use crate::claim::ReadableCard;
use crate::device::{AlignedBuffer, read_full};
use crate::error::CardError;
use crate::fat_guard::{GuardError, GuardedVolume, MBR_ENTRIES};
use crate::passport::NoClock;

/// Bytes read for the partition table: a whole request on any card.
const FIRST_REQUEST: usize = 4096;

/// True when the card has a partition table, and every partition in it is a FAT16 or FAT32 volume whose root
/// folder holds at most the volume's name.
///
/// # Errors
/// What the card failed with.
pub fn is_freshly_formatted(card: &mut ReadableCard) -> Result<bool, CardError> {
    if card.device.size() < FIRST_REQUEST as u64 {
        return Ok(false);
    }
    let mut first = AlignedBuffer::new(FIRST_REQUEST);
    read_full(&*card.device, 0, &mut first)?;
    let mut volumes = 0;
    for entry in (0..MBR_ENTRIES).filter(|entry| first[446 + entry * 16..][..16] != [0; 16]) {
        let volume = GuardedVolume::open(&*card.device, entry)?;
        if !volume.map_or(Ok(false), has_empty_root)? {
            return Ok(false);
        }
        volumes += 1;
    }
    Ok(volumes > 0)
}

/// False also for a volume whose folder cannot be followed.
fn has_empty_root(volume: GuardedVolume<'_>) -> Result<bool, CardError> {
    type Failure = embedded_sdmmc::Error<GuardError>;
    let manager: VolumeManager<_, _> = VolumeManager::new(volume, NoClock);
    let look = || -> Result<bool, Failure> {
        let volume = manager.open_volume(VolumeIdx(0))?;
        let root = volume.open_root_dir()?;
        let mut empty = true;
        root.iterate_dir(|entry| {
            empty &= entry.attributes.is_volume();
            if empty { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })?;
        Ok(empty)
    };
    match look() {
        Ok(empty) => Ok(empty),
        Err(Failure::DeviceError(GuardError::Card(error))) => Err(error),
        Err(error) => {
            tracing::debug!("a folder that cannot be followed counts as data: {error:?}");
            Ok(false)
        }
    }
}
