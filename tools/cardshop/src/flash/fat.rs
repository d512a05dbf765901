//! Puts small files onto the `CARDSHOP` partition of an appliance image, in user space: finds the partition in the GPT
//! and lets embedded-sdmmc write the FAT. Only files are touched here, never a device: what goes onto a stick goes
//! through the card engine.
//!
//! **Source:** UEFI Specification 2.10 §5.3, *GPT Disk Layout*; sectors of 512 bytes.

use std::cell::RefCell;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use embedded_sdmmc::{
    Block, BlockCount, BlockDevice, BlockIdx, Mode, TimeSource, Timestamp, VolumeIdx, VolumeManager,
};

/// Name of the partition in the GPT.
const PARTITION: &str = "CARDSHOP";
/// GPT entries looked at; ours is the third.
const MAX_ENTRIES: u32 = 128;
/// Bytes of a GPT entry in every table there is.
const ENTRY_SIZE: u32 = 128;
const BLOCK: u64 = 512;
/// The first block of the volume in what the FAT driver sees: behind a partition table of our making.
const SHIFT: u32 = 1;

/// Why a file is not put there.
#[derive(Debug, thiserror::Error)]
pub(super) enum FatError {
    /// The image cannot be read or written.
    #[error("the image cannot be read or written")]
    Io(#[from] io::Error),
    /// It is no appliance image.
    #[error("this is no appliance image: it has no partition named {PARTITION}")]
    NotAnAppliance,
    /// The file system there is damaged or full.
    #[error("the partition {PARTITION} takes no file: {0}")]
    Fat(String),
}

fn fat_error<E: std::fmt::Debug>(error: E) -> FatError {
    FatError::Fat(format!("{error:?}"))
}

/// Writes files of these 8.3 names and contents, replacing older ones, and reads them back.
///
/// # Errors
/// Any [`FatError`].
pub(super) fn put_files(image: &File, files: &[(&str, &str)]) -> Result<(), FatError> {
    let volume = find_partition(image)?;
    let manager: VolumeManager<_, _> = VolumeManager::new(volume, NoTime);
    let opened = manager.open_volume(VolumeIdx(0)).map_err(fat_error)?;
    let root = opened.open_root_dir().map_err(fat_error)?;
    for (name, contents) in files {
        let file = root.open_file_in_dir(*name, Mode::ReadWriteCreateOrTruncate).map_err(fat_error)?;
        file.write(contents.as_bytes()).map_err(fat_error)?;
        file.close().map_err(fat_error)?;
        let file = root.open_file_in_dir(*name, Mode::ReadOnly).map_err(fat_error)?;
        let mut back = vec![0; contents.len() + 1];
        let mut filled = 0;
        while filled < back.len() && !file.is_eof() {
            filled += file.read(&mut back[filled..]).map_err(fat_error)?;
        }
        if back[..filled] != *contents.as_bytes() {
            return Err(FatError::Fat(format!("{name} reads back differently")));
        }
    }
    root.close().map_err(fat_error)?;
    opened.close().map_err(fat_error)?;
    image.sync_all()?;
    Ok(())
}

/// The part of the image that holds the volume.
#[derive(Debug)]
struct Partition<'a> {
    image: &'a File,
    start: u64,
    blocks: u32,
    /// What the driver reads as block 0.
    table: RefCell<Block>,
}

fn find_partition(image: &File) -> Result<Partition<'_>, FatError> {
    let mut header = [0; BLOCK as usize];
    image.read_exact_at(&mut header, BLOCK).map_err(|_| FatError::NotAnAppliance)?;
    let le32 = |bytes: &[u8], at: usize| {
        u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
    };
    let le64 = |bytes: &[u8], at: usize| u64::from(le32(bytes, at)) | u64::from(le32(bytes, at + 4)) << 32;
    if !header.starts_with(b"EFI PART") || le32(&header, 84) != ENTRY_SIZE {
        return Err(FatError::NotAnAppliance);
    }
    let (first, count) = (le64(&header, 72), le32(&header, 80).min(MAX_ENTRIES));
    let wanted: Vec<u8> = PARTITION.encode_utf16().chain([0]).flat_map(u16::to_le_bytes).collect();
    for number in 0..count {
        let mut entry = [0; ENTRY_SIZE as usize];
        let at = first.checked_mul(BLOCK).and_then(|at| at.checked_add(u64::from(number * ENTRY_SIZE)));
        image.read_exact_at(&mut entry, at.ok_or(FatError::NotAnAppliance)?)?;
        let (start, last) = (le64(&entry, 32), le64(&entry, 40));
        if entry[56..].starts_with(&wanted) && start > 1 && last > start {
            let blocks = u32::try_from(last - start + 1).map_err(|_| FatError::NotAnAppliance)?;
            let table = RefCell::new(partition_table(blocks));
            return Ok(Partition { image, start, blocks, table });
        }
    }
    Err(FatError::NotAnAppliance)
}

/// A partition table with one FAT partition, as the driver wants to see one.
fn partition_table(blocks: u32) -> Block {
    let mut block = Block::new();
    let entry = &mut block.contents[446..462];
    entry[4] = 0x0e; // FAT16, LBA
    entry[8..12].copy_from_slice(&SHIFT.to_le_bytes());
    entry[12..16].copy_from_slice(&blocks.to_le_bytes());
    block.contents[510..].copy_from_slice(&[0x55, 0xaa]);
    block
}

impl Partition<'_> {
    /// Where a block of the driver's lies; refuses what is outside.
    fn offset(&self, block: u32) -> io::Result<u64> {
        match block.checked_sub(SHIFT) {
            Some(block) if block < self.blocks => Ok((self.start + u64::from(block)) * BLOCK),
            _ => Err(io::Error::other("a block outside the partition")),
        }
    }
}

impl BlockDevice for Partition<'_> {
    type Error = io::Error;

    fn read(&self, blocks: &mut [Block], start: BlockIdx) -> io::Result<()> {
        for (number, block) in (start.0..).zip(blocks) {
            match number {
                0 => *block = self.table.borrow().clone(),
                _ => self.image.read_exact_at(&mut block.contents, self.offset(number)?)?,
            }
        }
        Ok(())
    }

    fn write(&self, blocks: &[Block], start: BlockIdx) -> io::Result<()> {
        for (number, block) in (start.0..).zip(blocks) {
            self.image.write_all_at(&block.contents, self.offset(number)?)?;
        }
        Ok(())
    }

    fn num_blocks(&self) -> io::Result<BlockCount> {
        Ok(BlockCount(self.blocks + SHIFT))
    }
}

/// The same image and files give the same bytes: nothing depends on when.
struct NoTime;

impl TimeSource for NoTime {
    fn get_timestamp(&self) -> Timestamp {
        Timestamp {
            year_since_1970: 54,
            zero_indexed_month: 0,
            zero_indexed_day: 0,
            hours: 0,
            minutes: 0,
            seconds: 0,
        }
    }
}
