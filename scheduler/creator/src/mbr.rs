//! The partition table in an image's first sector. Pure. **Source:** the classic MBR layout: disk signature at 440,
//! four entries of 16 bytes from 446, 0x55 0xAA at 510.

/// Bytes of the sector.
pub(crate) const SECTOR: u64 = 512;
pub(crate) use cardshop_protocol::configuration::size::ALIGNMENT;
/// FAT32 with LBA addressing.
pub(crate) const KIND_FAT32: u8 = 0x0c;
/// Linux.
pub(crate) const KIND_LINUX: u8 = 0x83;
const KIND_GPT: u8 = 0xee;
/// Largest image: the four fields count sectors in 32 bits.
pub(crate) const MAX_BYTES: u64 = (1 << 32) * SECTOR;

/// Why a partition table is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MbrError {
    /// No 0x55 0xAA at its end.
    #[error("the base has no partition table (its first sector does not end in 55 AA)")]
    None,
    /// A protective entry.
    #[error("the base has a GPT, only an MBR is supported")]
    Gpt,
    /// The data partition needs an entry.
    #[error("all four partitions of the base are taken, none is left for the data partition")]
    Full,
    /// An entry beyond the image.
    #[error("partition {number} of the base ends at byte {end}, the image has {size}")]
    BeyondEnd {
        /// From 1.
        number: usize,
        /// Its end.
        end: u64,
        /// The image's size.
        size: u64,
    },
    /// Only the last partition has room behind it.
    #[error(
        "base.rootfs_size: the base ends with partition {number}, which is none of Linux's (kind {kind:#04x}): only a root partition at the end can grow"
    )]
    RootNotLast {
        /// From 1.
        number: usize,
        /// Its kind.
        kind: u8,
    },
    /// A partition is never made smaller.
    #[error(
        "base.rootfs_size is {wanted} bytes, the base's root partition has {size} already: it can only grow"
    )]
    RootLarger {
        /// Bytes it has.
        size: u64,
        /// Bytes it should have.
        wanted: u64,
    },
    /// A 32-bit sector number cannot say it.
    #[error("a partition that ends at byte {0} is beyond what an MBR can hold (2 TiB)")]
    TooLarge(u64),
}

/// One entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Partition {
    pub kind: u8,
    /// Bytes.
    pub start: u64,
    /// Bytes.
    pub size: u64,
}

impl Partition {
    pub(crate) fn end(&self) -> u64 {
        self.start + self.size
    }
    pub(crate) fn is_fat(&self) -> bool {
        matches!(self.kind, 0x0b | 0x0c | 0x1b | 0x1c)
    }
}

/// A first sector.
#[derive(Clone)]
pub(crate) struct Mbr(pub [u8; SECTOR as usize]);

impl Mbr {
    /// An empty table with a disk signature.
    pub(crate) fn new(signature: [u8; 4]) -> Self {
        let mut sector = [0; SECTOR as usize];
        sector[440..444].copy_from_slice(&signature);
        sector[510..].copy_from_slice(&[0x55, 0xaa]);
        Self(sector)
    }

    /// The partitions of a base image of `size` bytes, by entry.
    pub(crate) fn partitions(&self, size: u64) -> Result<[Option<Partition>; 4], MbrError> {
        if self.0[510..] != [0x55, 0xaa] {
            return Err(MbrError::None);
        }
        let mut partitions = [None; 4];
        for (index, slot) in partitions.iter_mut().enumerate() {
            let entry = &self.0[446 + 16 * index..][..16];
            let field = |at: usize| u32::from_le_bytes(entry[at..at + 4].try_into().expect("four bytes"));
            let (kind, start, length) =
                (entry[4], u64::from(field(8)) * SECTOR, u64::from(field(12)) * SECTOR);
            if kind == 0 || length == 0 {
                continue;
            }
            if kind == KIND_GPT {
                return Err(MbrError::Gpt);
            }
            let partition = Partition { kind, start, size: length };
            if partition.end() > size {
                return Err(MbrError::BeyondEnd { number: index + 1, end: partition.end(), size });
            }
            *slot = Some(partition);
        }
        Ok(partitions)
    }

    /// The root partition of a base of `size` bytes, its last, as it is when it has `wanted` bytes: its entry, from 0,
    /// and where it lies.
    pub(crate) fn grown_root(&self, size: u64, wanted: u64) -> Result<(usize, Partition), MbrError> {
        let partitions = self.partitions(size)?;
        let all = partitions.iter().enumerate().filter_map(|(index, p)| Some((index, (*p)?)));
        let (index, last) = all.max_by_key(|(_, p)| p.end()).ok_or(MbrError::None)?;
        if last.kind != KIND_LINUX {
            return Err(MbrError::RootNotLast { number: index + 1, kind: last.kind });
        }
        if wanted < last.size {
            return Err(MbrError::RootLarger { size: last.size, wanted });
        }
        let grown = Partition { size: wanted, ..last };
        if grown.end() > MAX_BYTES { Err(MbrError::TooLarge(grown.end())) } else { Ok((index, grown)) }
    }

    /// Says another size of a partition.
    pub(crate) fn resize(&mut self, index: usize, size: u64) {
        let sectors = u32::try_from(size / SECTOR).expect("within what an MBR holds");
        self.0[446 + 16 * index + 12..][..4].copy_from_slice(&sectors.to_le_bytes());
    }

    /// Enters a partition in the first free entry and says which.
    pub(crate) fn add(&mut self, partition: Partition) -> Result<usize, MbrError> {
        if partition.end() > MAX_BYTES {
            return Err(MbrError::TooLarge(partition.end()));
        }
        let free = (0..4).find(|i| self.0[446 + 16 * i + 4] == 0).ok_or(MbrError::Full)?;
        let entry = &mut self.0[446 + 16 * free..][..16];
        entry.fill(0);
        // No cylinders: the values that mean "see the sector numbers".
        entry[1..4].copy_from_slice(&[0xfe, 0xff, 0xff]);
        entry[4] = partition.kind;
        entry[5..8].copy_from_slice(&[0xfe, 0xff, 0xff]);
        entry[8..12].copy_from_slice(&((partition.start / SECTOR) as u32).to_le_bytes());
        entry[12..].copy_from_slice(&((partition.size / SECTOR) as u32).to_le_bytes());
        Ok(free)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    #[test]
    fn a_partition_added_is_read_back_and_a_fifth_is_refused() {
        let mut mbr = Mbr::new([1, 2, 3, 4]);
        let mut expected = [None; 4];
        for (i, slot) in expected.iter_mut().enumerate() {
            let partition =
                Partition { kind: KIND_LINUX, start: ALIGNMENT * (1 + i as u64), size: ALIGNMENT };
            assert_eq!(mbr.add(partition), Ok(i));
            *slot = Some(partition);
        }
        assert_eq!(mbr.partitions(GIB), Ok(expected));
        let fifth = Partition { kind: KIND_LINUX, start: 0, size: 512 };
        assert_eq!(mbr.add(fifth), Err(MbrError::Full));
        assert_eq!(mbr.0[440..444], [1, 2, 3, 4]);
    }

    #[test]
    fn the_last_partition_grows_when_it_is_linux_and_never_shrinks() {
        let (boot, root) = (ALIGNMENT, 4 * ALIGNMENT);
        let mut mbr = Mbr::new([0; 4]);
        // The root stands first in the table and last on the disk.
        mbr.add(Partition { kind: KIND_LINUX, start: root, size: ALIGNMENT }).unwrap();
        mbr.add(Partition { kind: KIND_FAT32, start: boot, size: ALIGNMENT }).unwrap();
        let grown = Partition { kind: KIND_LINUX, start: root, size: GIB };
        assert_eq!(mbr.grown_root(GIB, GIB), Ok((0, grown)));
        mbr.resize(0, GIB);
        assert_eq!(mbr.partitions(2 * GIB).unwrap()[0], Some(grown));
        assert_eq!(mbr.grown_root(2 * GIB, 512), Err(MbrError::RootLarger { size: GIB, wanted: 512 }));
        assert_eq!(mbr.grown_root(2 * GIB, MAX_BYTES), Err(MbrError::TooLarge(root + MAX_BYTES)));
        mbr.add(Partition { kind: KIND_FAT32, start: root + GIB, size: 512 }).unwrap();
        let last = MbrError::RootNotLast { number: 3, kind: KIND_FAT32 };
        assert_eq!(mbr.grown_root(2 * GIB, GIB), Err(last));
    }

    #[test]
    fn what_is_no_table_or_a_gpt_or_reaches_too_far_is_refused() {
        assert_eq!(Mbr([0; 512]).partitions(GIB), Err(MbrError::None));
        let mut mbr = Mbr::new([0; 4]);
        mbr.add(Partition { kind: KIND_GPT, start: 512, size: 512 }).unwrap();
        assert_eq!(mbr.partitions(GIB), Err(MbrError::Gpt));
        let mut mbr = Mbr::new([0; 4]);
        mbr.add(Partition { kind: KIND_LINUX, start: ALIGNMENT, size: GIB }).unwrap();
        let beyond = MbrError::BeyondEnd { number: 1, end: ALIGNMENT + GIB, size: GIB };
        assert_eq!(mbr.partitions(GIB), Err(beyond));
        let huge = Partition { kind: KIND_LINUX, start: MAX_BYTES, size: 512 };
        assert_eq!(mbr.add(huge), Err(MbrError::TooLarge(MAX_BYTES + 512)));
    }
}
