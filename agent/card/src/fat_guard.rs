//! Stands between a card somebody put in and the FAT library, which trusts what it reads: a cluster size of
//! zero, a chain that leaves the volume or bites its tail would end it or keep it busy for ever. The guard
//! opens only volumes whose numbers hold together, shows table entries that point outside as ends of chain,
//! answers the same block alike each time, and ends after [`MAX_READS`].
//!
//! **Source:** Microsoft *FAT: General Overview of On-Disk Format* 1.03, boot sector and FAT entries.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ops::Range;

use embedded_sdmmc::{Block, BlockCount, BlockDevice, BlockIdx, ClusterId};

use crate::device::{AlignedBuffer, CardDevice, read_full};
use crate::error::CardError;

/// Partitions an MBR lists.
pub(crate) const MBR_ENTRIES: usize = 4;
/// Pieces of 4 KiB read from one volume at most: 2 MiB, a root folder of more than 60,000 files.
const MAX_READS: usize = 512;
/// Blocks the library may ask for, counting repeats: ends a chain that runs in a circle.
const MAX_REQUESTS: u32 = 16 * 1024;
const PIECE: u64 = 4096;
const BLOCK: u64 = Block::LEN as u64;

/// Why the guard answers no more.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GuardError {
    #[error(transparent)]
    Card(CardError),
    #[error("block {0} is outside the volume")]
    Outside(u32),
    #[error("the volume asks for too many reads")]
    TooManyReads,
    #[error("the volume is read-only here")]
    ReadOnly,
}

/// One FAT16 or FAT32 partition of a card, shown as the first partition of a card that has no other.
pub(crate) struct GuardedVolume<'a> {
    reader: RefCell<PieceReader<'a>>,
    layout: Layout,
}

/// Where the parts of a volume lie. In blocks of 512 bytes from the card's start, but for the clusters.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Layout {
    start: u32,
    blocks: u32,
    tables: Range<u32>,
    table_blocks: u32,
    is_fat32: bool,
    /// Clusters the volume has, numbered from 2.
    clusters: Range<u32>,
}

impl<'a> GuardedVolume<'a> {
    /// Opens partition `entry` (from 0) of the card's MBR; `None` when it is no FAT volume that holds together.
    pub(crate) fn open(device: &'a dyn CardDevice, entry: usize) -> Result<Option<Self>, CardError> {
        let mut reader = PieceReader { device, pieces: HashMap::new(), requests: 0 };
        let mut block = |at: u32| match reader.block(at) {
            Ok(block) => Ok(Some(block)),
            Err(GuardError::Card(error)) => Err(error),
            Err(_) => Ok(None),
        };
        let Some((start, blocks)) = block(0)?.and_then(|mbr| fat_partition(&mbr, entry)) else {
            return Ok(None);
        };
        let Some(layout) = block(start)?.and_then(|boot| Layout::of(&boot, start, blocks)) else {
            return Ok(None);
        };
        Ok(Some(Self { reader: RefCell::new(reader), layout }))
    }

    /// Numbers of the clusters there are.
    pub(crate) fn clusters(&self) -> Range<ClusterId> {
        let Range { start, end } = self.layout.clusters;
        ClusterId::EMPTY + start..ClusterId::EMPTY + end
    }
}

fn le16(bytes: &[u8], at: usize) -> u32 {
    u32::from(u16::from_le_bytes([bytes[at], bytes[at + 1]]))
}

fn le32(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// First block and length of an MBR entry, if it is a FAT partition.
fn fat_partition(mbr: &[u8; 512], entry: usize) -> Option<(u32, u32)> {
    let record = &mbr[446 + entry * 16..][..16];
    let is_fat = matches!(record[4], 0x04 | 0x06 | 0x0b | 0x0c | 0x0e);
    let (start, blocks) = (le32(record, 8), le32(record, 12));
    (mbr[510..] == [0x55, 0xaa] && is_fat && start > 0 && blocks > 0).then_some((start, blocks))
}

impl Layout {
    /// Reads a boot sector; `None` unless every part lies inside the volume and the tables hold all clusters.
    fn of(boot: &[u8; 512], start: u32, blocks: u32) -> Option<Self> {
        let per_cluster = u64::from(boot[13]);
        let (reserved, copies, root_entries) = (le16(boot, 14), u32::from(boot[16]), le16(boot, 17));
        let either = |short: u32, long: u32| if short != 0 { short } else { long };
        let total = either(le16(boot, 19), le32(boot, 32));
        let table_blocks = either(le16(boot, 22), le32(boot, 36));
        let root_blocks = u64::from(root_entries) * 32 / BLOCK;
        let data = u64::from(reserved) + u64::from(copies) * u64::from(table_blocks) + root_blocks;
        let sane = boot[510..] == [0x55, 0xaa]
            && le16(boot, 11) == Block::LEN_U32
            && per_cluster.is_power_of_two()
            && reserved > 0
            && (1..=2).contains(&copies)
            && total <= blocks
            && start.checked_add(total).is_some()
            && data < u64::from(total);
        if !sane {
            return None;
        }
        let count = ((u64::from(total) - data) / per_cluster) as u32;
        // The count alone tells the kinds apart; below 4085 it is FAT12, which no card of ours has.
        let is_fat32 = match count {
            0..4085 => return None,
            4085..65525 => false,
            65525..0x0fff_fff0 => true,
            _ => return None,
        };
        let clusters = 2..count + 2;
        let entry_size = if is_fat32 { 4 } else { 2 };
        let holds_all = u64::from(table_blocks) * BLOCK >= u64::from(clusters.end) * entry_size;
        let root_is_inside = !is_fat32 || clusters.contains(&le32(boot, 44)) && root_entries == 0;
        let info_is_inside = !is_fat32 || le16(boot, 48) < reserved;
        let tables_start = start + reserved;
        let tables = tables_start..tables_start + copies * table_blocks;
        (holds_all && root_is_inside && info_is_inside).then_some(Self {
            start,
            blocks: total,
            tables,
            table_blocks,
            is_fat32,
            clusters,
        })
    }

    /// Turns entries that point outside the volume into ends of chain.
    fn mend_table(&self, block: u32, bytes: &mut [u8; 512]) {
        let width = if self.is_fat32 { 4 } else { 2 };
        let first = u64::from((block - self.tables.start) % self.table_blocks) * BLOCK / width as u64;
        for (entry, bytes) in (first..).zip(bytes.chunks_exact_mut(width)) {
            let next = if self.is_fat32 { le32(bytes, 0) & 0x0fff_ffff } else { le16(bytes, 0) };
            // A cluster that follows itself is the shortest circle.
            let is_next = self.clusters.contains(&next) && u64::from(next) != entry;
            if !is_next {
                bytes.fill(0xff);
            }
        }
    }

    /// An MBR with this volume as its only partition.
    fn mbr(&self) -> [u8; 512] {
        let mut mbr = [0; 512];
        mbr[446 + 4] = if self.is_fat32 { 0x0c } else { 0x0e };
        mbr[446 + 8..446 + 12].copy_from_slice(&self.start.to_le_bytes());
        mbr[446 + 12..446 + 16].copy_from_slice(&self.blocks.to_le_bytes());
        mbr[510..].copy_from_slice(&[0x55, 0xaa]);
        mbr
    }
}

/// Reads a card in pieces of 4 KiB and keeps them: at most 2 MiB.
struct PieceReader<'a> {
    device: &'a dyn CardDevice,
    pieces: HashMap<u64, AlignedBuffer>,
    requests: u32,
}

impl PieceReader<'_> {
    fn block(&mut self, block: u32) -> Result<[u8; 512], GuardError> {
        let offset = u64::from(block) * BLOCK;
        if offset + BLOCK > self.device.size() {
            return Err(GuardError::Outside(block));
        }
        self.requests += 1;
        if self.requests > MAX_REQUESTS {
            return Err(GuardError::TooManyReads);
        }
        let piece = offset / PIECE * PIECE;
        if !self.pieces.contains_key(&piece) {
            if self.pieces.len() >= MAX_READS {
                return Err(GuardError::TooManyReads);
            }
            let alignment = self.device.alignment() as u64;
            let length = PIECE.min((self.device.size() - piece) / alignment * alignment);
            let mut buffer = AlignedBuffer::new(PIECE as usize);
            read_full(self.device, piece, &mut buffer[..length as usize]).map_err(GuardError::Card)?;
            self.pieces.insert(piece, buffer);
        }
        let at = (offset - piece) as usize;
        Ok(self.pieces[&piece][at..at + 512].try_into().expect("512 of 4096 bytes"))
    }
}

impl BlockDevice for GuardedVolume<'_> {
    type Error = GuardError;

    fn read(&self, blocks: &mut [Block], start: BlockIdx) -> Result<(), GuardError> {
        for (block, at) in blocks.iter_mut().zip(start.0..) {
            let layout = &self.layout;
            if at == 0 {
                block.contents = layout.mbr();
                continue;
            }
            if !(layout.start..layout.start + layout.blocks).contains(&at) {
                return Err(GuardError::Outside(at));
            }
            block.contents = self.reader.borrow_mut().block(at)?;
            if layout.tables.contains(&at) {
                layout.mend_table(at, &mut block.contents);
            }
        }
        Ok(())
    }

    fn write(&self, _: &[Block], _: BlockIdx) -> Result<(), GuardError> {
        Err(GuardError::ReadOnly)
    }

    fn num_blocks(&self) -> Result<BlockCount, GuardError> {
        Ok(BlockCount(self.layout.start + self.layout.blocks))
    }
}
