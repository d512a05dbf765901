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
/// Volumes of a card that are looked at: with the pieces of each this bounds what a card can make us read.
const MAX_VOLUMES: usize = 4;
/// Type of the MBR partition that stands for a GPT.
const PROTECTIVE: u8 = 0xee;
/// GPT entries looked at; those of an image are among the first.
const MAX_GPT_ENTRIES: u32 = 32;
/// Bytes of a GPT entry on every disk there is.
const GPT_ENTRY_SIZE: u32 = 128;
/// Pieces of 4 KiB read from one volume at most: 2 MiB, a root folder of more than 60,000 files.
const MAX_READS: usize = 512;
/// Blocks the library may ask for, counting repeats: ends a chain that runs in a circle.
const MAX_REQUESTS: u32 = 16 * 1024;
/// Blocks are shown this much later than they are: a volume may begin at the card's first block, where the
/// library looks for an MBR.
const SHIFT: u32 = 1;
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
        let mut reader = PieceReader::new(device);
        let Some(place) = reader.look(0)?.and_then(|mbr| fat_partition(&mbr, entry)) else {
            return Ok(None);
        };
        Self::open_at(reader, place)
    }

    /// Opens every place where a FAT volume may be, [`MAX_VOLUMES`] at most: MBR partitions, those of a GPT, or the
    /// whole card where it has no table.
    pub(crate) fn open_all(device: &'a dyn CardDevice) -> Result<Vec<Self>, CardError> {
        let mut reader = PieceReader::new(device);
        let Some(first) = reader.look(0)? else { return Ok(Vec::new()) };
        let mut places: Vec<_> = (0..MBR_ENTRIES).filter_map(|entry| fat_partition(&first, entry)).collect();
        if places.is_empty() && (0..MBR_ENTRIES).any(|entry| first[446 + entry * 16 + 4] == PROTECTIVE) {
            places = gpt_partitions(&mut reader)?;
        }
        if places.is_empty() {
            let blocks = device.size() / BLOCK;
            places.push((0, blocks.min(u64::from(u32::MAX)) as u32));
        }
        let mut volumes = Vec::new();
        for place in places.into_iter().take(MAX_VOLUMES) {
            let reader = PieceReader::new(device);
            volumes.extend(Self::open_at(reader, place)?);
        }
        Ok(volumes)
    }

    fn open_at(mut reader: PieceReader<'a>, (start, blocks): (u32, u32)) -> Result<Option<Self>, CardError> {
        let layout = reader.look(start)?.and_then(|boot| Layout::of(&boot, start, blocks));
        Ok(layout.map(|layout| Self { reader: RefCell::new(reader), layout }))
    }

    /// Lets a large file be read: so many bytes, each block and its place in the table once or twice. What is read is not
    /// kept, so a card that lies may answer differently the second time: for files that are checked as a whole.
    pub(crate) fn allow_large(&self, bytes: u32) {
        let mut reader = self.reader.borrow_mut();
        reader.max_requests = MAX_REQUESTS + bytes / BLOCK as u32 * 4;
        reader.renews = true;
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

/// First block and length of the data and EFI partitions in a GPT's first entries.
///
/// **Source:** UEFI Specification 2.10 §5.3, *GPT Disk Layout*; sectors of 512 bytes.
fn gpt_partitions(reader: &mut PieceReader<'_>) -> Result<Vec<(u32, u32)>, CardError> {
    const BASIC_DATA: [u8; 16] =
        [0xa2, 0xa0, 0xd0, 0xeb, 0xe5, 0xb9, 0x33, 0x44, 0x87, 0xc0, 0x68, 0xb6, 0xb7, 0x26, 0x99, 0xc7];
    const EFI_SYSTEM: [u8; 16] =
        [0x28, 0x73, 0x2a, 0xc1, 0x1f, 0xf8, 0xd2, 0x11, 0xba, 0x4b, 0x00, 0xa0, 0xc9, 0x3e, 0xc9, 0x3b];
    let le64 = |bytes: &[u8], at: usize| u64::from(le32(bytes, at)) | u64::from(le32(bytes, at + 4)) << 32;
    let Some(header) = reader.look(1)?.filter(|header| header.starts_with(b"EFI PART")) else {
        return Ok(Vec::new());
    };
    let (first, count, size) = (le64(&header, 72), le32(&header, 80), le32(&header, 84));
    let Some(first) = u32::try_from(first).ok().filter(|_| size == GPT_ENTRY_SIZE) else {
        return Ok(Vec::new());
    };
    let mut partitions = Vec::new();
    let per_block = Block::LEN_U32 / GPT_ENTRY_SIZE;
    for block in 0..count.min(MAX_GPT_ENTRIES).div_ceil(per_block) {
        let Some(bytes) = first.checked_add(block).map_or(Ok(None), |at| reader.look(at))? else { break };
        for entry in bytes.chunks(GPT_ENTRY_SIZE as usize) {
            let (start, last) = (u32::try_from(le64(entry, 32)), u32::try_from(le64(entry, 40)));
            if let (Ok(start), Ok(last)) = (start, last)
                && (entry[..16] == BASIC_DATA || entry[..16] == EFI_SYSTEM)
                && start > 1
                && last > start
            {
                partitions.push((start, last - start + 1));
            }
        }
    }
    Ok(partitions)
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
            && start.checked_add(total).and_then(|end| end.checked_add(SHIFT)).is_some()
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
        // Some programs make FAT32 with too few clusters for it: read as FAT16, its root would have no room for files.
        let root_is_inside = match is_fat32 {
            true => clusters.contains(&le32(boot, 44)) && root_entries == 0,
            false => root_entries > 0,
        };
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

    /// An MBR with this volume as its only partition, where it is shown.
    fn mbr(&self) -> [u8; 512] {
        let mut mbr = [0; 512];
        mbr[446 + 4] = if self.is_fat32 { 0x0c } else { 0x0e };
        mbr[446 + 8..446 + 12].copy_from_slice(&(self.start + SHIFT).to_le_bytes());
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
    max_requests: u32,
    /// Pieces are let go when there are too many, instead of refusing more.
    renews: bool,
}

impl<'a> PieceReader<'a> {
    fn new(device: &'a dyn CardDevice) -> Self {
        Self { device, pieces: HashMap::new(), requests: 0, max_requests: MAX_REQUESTS, renews: false }
    }
}

impl PieceReader<'_> {
    /// A block; nothing where there is none.
    fn look(&mut self, block: u32) -> Result<Option<[u8; 512]>, CardError> {
        match self.block(block) {
            Ok(block) => Ok(Some(block)),
            Err(GuardError::Card(error)) => Err(error),
            Err(_) => Ok(None),
        }
    }

    fn block(&mut self, block: u32) -> Result<[u8; 512], GuardError> {
        let offset = u64::from(block) * BLOCK;
        if offset + BLOCK > self.device.size() {
            return Err(GuardError::Outside(block));
        }
        self.requests += 1;
        if self.requests > self.max_requests {
            return Err(GuardError::TooManyReads);
        }
        let piece = offset / PIECE * PIECE;
        if !self.pieces.contains_key(&piece) {
            if self.pieces.len() >= MAX_READS {
                if !self.renews {
                    return Err(GuardError::TooManyReads);
                }
                self.pieces.clear();
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
            let Some(at) = at.checked_sub(SHIFT) else {
                block.contents = layout.mbr();
                continue;
            };
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
        Ok(BlockCount(self.layout.start + self.layout.blocks + SHIFT))
    }
}
