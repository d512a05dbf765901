//! How large a card becomes of what is on it. One rule for the creator, which builds it, and the scheduler, which tells it
//! before: the data partition takes the blocks of its content, a tenth on top (`MARGIN_DIVISOR`), its own tables and
//! journal, and is rounded up to 8 MiB: it is never full.

/// A block of the data partition, bytes.
pub const BLOCK_SIZE: u64 = 4096;
/// Partitions begin on multiples of this, so that no write to one touches another's erase blocks.
pub const ALIGNMENT: u64 = 8 * 1024 * 1024;
/// The boot partition of a card without a base, bytes.
pub const BOOT_SIZE: u64 = 40 * 1024 * 1024;
/// Content ÷ this stays free.
const MARGIN_DIVISOR: u64 = 10;
/// Blocks of one group. **Source:** ext4 with blocks of 4 KiB.
const GROUP_BYTES: u64 = 32768 * BLOCK_SIZE;
/// Inodes in 256 KiB of a table, the smallest usual chunk.
const INODE_STEP: u64 = 1024;
const MIB: u64 = 1024 * 1024;
/// Largest content that is computed with, bytes: nothing overflows. An index describes no larger image.
const MAX_CONTENT: u64 = 1 << 46;

/// Bytes of the blocks a file of `size` takes, with those of its extent tree.
pub fn file_bytes(size: u64) -> u64 {
    let blocks = size.div_ceil(BLOCK_SIZE);
    // An extent ends after 128 MiB, and where a group's tables lie between; four lie in the inode, a block holds 340.
    let tree = if blocks > 32768 { 1 + blocks / (16384 * 340) } else { 0 };
    (blocks + tree) * BLOCK_SIZE
}

/// Where the data partition begins behind a base of this many bytes, or without one.
pub fn data_start(base_bytes: Option<u64>) -> u64 {
    match base_bytes {
        Some(bytes) => bytes.next_multiple_of(ALIGNMENT),
        None => ALIGNMENT + BOOT_SIZE.next_multiple_of(ALIGNMENT),
    }
}

/// Bytes of the image with files of these paths below `/data` and sizes, behind a base of this many bytes.
pub fn image_bytes<'a>(base_bytes: Option<u64>, files: impl IntoIterator<Item = (&'a str, u64)>) -> u64 {
    let (mut content, mut entries) = (0u64, 0);
    for (to, size) in files {
        // Folders above it may be new ones.
        let folders = to.matches('/').count() as u64;
        let size = size.min(MAX_CONTENT);
        content = content.saturating_add(file_bytes(size) + folders * BLOCK_SIZE).min(MAX_CONTENT);
        entries += 1 + folders;
    }
    data_start(base_bytes.map(|bytes| bytes.min(MAX_CONTENT)))
        + DataShape::for_content(content, entries).bytes
}

/// The data partition's parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DataShape {
    /// Bytes of the partition.
    pub bytes: u64,
    /// Inodes it is made with.
    pub inodes: u64,
    /// Its journal, MiB.
    pub journal_mib: u64,
    /// Blocks of contents that were counted on, bytes.
    pub content_bytes: u64,
}

impl DataShape {
    /// The partition for `content_bytes` in blocks and about `entries` files and folders.
    pub fn for_content(content_bytes: u64, entries: u64) -> Self {
        let mut bytes = 0;
        loop {
            let shape = Self::of(bytes, content_bytes, entries);
            let need = shape.need();
            if need <= bytes {
                return shape;
            }
            bytes = need.next_multiple_of(ALIGNMENT);
        }
    }

    /// A partition of `bytes`, whether that is enough or not.
    pub fn of(bytes: u64, content_bytes: u64, entries: u64) -> Self {
        // Whole chunks of inodes for each group: their number, and so where the first file begins, changes in steps.
        let groups = bytes.div_ceil(GROUP_BYTES).max(1);
        let wanted = (entries + entries / 4 + 1024).div_ceil(groups);
        let inodes = groups * wanted.next_multiple_of(INODE_STEP).max(2 * INODE_STEP);
        // A kernel that grows the file system writes all reserved descriptors, 256 blocks, in one transaction, and that
        // is at most a quarter of the journal: with 4 MiB no card would grow.
        let journal_mib = match bytes / MIB {
            0..256 => 6,
            256..2048 => 16,
            _ => 64,
        };
        Self { bytes, inodes, journal_mib, content_bytes }
    }

    /// True when the partition holds this much, its margin used up at worst.
    pub fn holds(&self, block_bytes: u64, entries: u64) -> bool {
        // Inodes below 11 are the file system's own, 11 is lost+found.
        block_bytes + self.tables() <= self.bytes && entries + 11 <= self.inodes
    }

    /// Bytes of blocks that are free beside contents of `block_bytes`.
    pub fn room_after(&self, block_bytes: u64) -> u64 {
        self.bytes.saturating_sub(block_bytes + self.tables())
    }

    /// Bytes it must have: content, margin, tables.
    pub fn need(&self) -> u64 {
        self.content_bytes + self.content_bytes / MARGIN_DIVISOR + self.tables()
    }

    /// Bytes of the file system's own.
    pub fn tables(&self) -> u64 {
        let groups = self.bytes.div_ceil(GROUP_BYTES).max(1);
        // Groups 0 and 1 and the powers of 3, 5 and 7 hold a copy of the descriptors, with room to grow to 2 TiB.
        let powers = |base: u64| std::iter::successors(Some(base), move |p| p.checked_mul(base));
        let copies =
            2 + [3, 5, 7].iter().map(|b| powers(*b).take_while(|p| *p < groups).count() as u64).sum::<u64>();
        let descriptors = copies * (2 * MIB + BLOCK_SIZE);
        // Inode tables round up to a block per group; two bitmaps per group; root and lost+found.
        let per_group = groups * 3 * BLOCK_SIZE;
        self.inodes * 256 + self.journal_mib * MIB + descriptors + per_group + 64 * 1024
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_holds_its_content_a_margin_and_the_file_systems_own() {
        const GB: u64 = 1_000_000_000;
        let empty = image_bytes(None, []);
        assert!(empty.is_multiple_of(ALIGNMENT) && (60 * MIB..90 * MIB).contains(&empty), "{empty}");
        let ten = image_bytes(Some(2 * GB), [("/content/a.zim", 10 * GB)]);
        assert!((13 * GB..14 * GB).contains(&ten), "{ten}");
        assert!(image_bytes(Some(u64::MAX), [("/a", u64::MAX), ("/b", u64::MAX)]) > MAX_CONTENT);
    }
}
