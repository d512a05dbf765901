//! The boot partition: formatted and filled through `fatfs`, then read back by its own tables to know which
//! clusters are free and where the passport's files lie.
//!
//! A passport file is 4096 bytes that begin on a multiple of 4096 of the image, so that the agent may
//! overwrite it without touching anything else. Clusters are 512 bytes (the smallest FAT32 has 65,525 of them:
//! with 4096 it would need 256 MiB), so a pad holds the clusters before the first such multiple while the two
//! files are made, and goes. **Source:** Microsoft FAT specification 1.03.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::os::unix::fs::FileExt;

use cardshop_card::{CARD_FILE, README_FILE};
use cardshop_protocol::index::{GRANULE, PassportEntry};
use fatfs::{Date, DateTime, FatType, FileSystem, FormatVolumeOptions, FsOptions, Time, TimeProvider};

pub(crate) use cardshop_protocol::configuration::size::BOOT_SIZE;
/// The passport's files: the index lists where they lie, the agent fills them.
pub(crate) const PASSPORT_FILES: [&str; 2] = [CARD_FILE, README_FILE];
/// Bytes of each.
const PASSPORT_SIZE: usize = 4096;
const SECTOR: u64 = 512;
/// Largest table that is read, clusters: 64 MiB of memory; 8 GiB of the smallest clusters.
const MAX_CLUSTERS: u64 = 1 << 24;
/// Largest root folder that is read, bytes: 65,536 entries, as many as any FAT folder may have.
const MAX_ROOT_SIZE: u64 = 65_536 * 32;
const PAD: &str = "PAD.TMP";
const LABEL: [u8; 11] = *b"CARDBOOT   ";

/// 2025-01-01: see [`crate::tree::IMAGE_TIME`].
#[derive(Debug)]
struct FixedTime;
static FIXED_TIME: FixedTime = FixedTime;

impl TimeProvider for FixedTime {
    fn get_current_date(&self) -> Date {
        Date { year: 2025, month: 1, day: 1 }
    }
    fn get_current_date_time(&self) -> DateTime {
        let time = Time { hour: 0, min: 0, sec: 0, millis: 0 };
        DateTime { date: self.get_current_date(), time }
    }
}

/// A range of a file as a disk of its own.
pub(crate) struct Slice<'a> {
    file: &'a File,
    range: Range<u64>,
    at: u64,
}

impl<'a> Slice<'a> {
    pub(crate) fn new(file: &'a File, range: Range<u64>) -> Self {
        Self { file, range, at: 0 }
    }
    fn room(&self, wanted: usize) -> usize {
        let left = (self.range.end - self.range.start).saturating_sub(self.at);
        wanted.min(usize::try_from(left).unwrap_or(usize::MAX))
    }
}

impl Read for Slice<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let room = self.room(buffer.len());
        let count = self.file.read_at(&mut buffer[..room], self.range.start + self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}
impl Write for Slice<'_> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let room = self.room(buffer.len());
        let count = self.file.write_at(&buffer[..room], self.range.start + self.at)?;
        self.at += count as u64;
        Ok(count)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
impl Seek for Slice<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let size = self.range.end - self.range.start;
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(by) => size.checked_add_signed(by),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
        };
        self.at = at.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        Ok(self.at)
    }
}

/// Makes an empty FAT32 whose data area begins on a multiple of 4096.
pub(crate) fn format(file: &File, range: Range<u64>, volume_id: u32) -> io::Result<()> {
    // fatfs reserves 8 sectors and takes ceil((sectors - 6) / 130) sectors per FAT for clusters of 512 bytes;
    // two FATs of a multiple of 4 sectors keep the data area on 4096.
    let room = (range.end - range.start) / SECTOR;
    let per_fat = ((room - 6) / 130) & !3;
    let sectors = u32::try_from(per_fat * 130 + 6).map_err(io::Error::other)?;
    let options = FormatVolumeOptions::new()
        .fat_type(FatType::Fat32)
        .bytes_per_cluster(SECTOR as u32)
        .total_sectors(sectors)
        .volume_id(volume_id)
        .volume_label(LABEL);
    fatfs::format_volume(Slice::new(file, range), options)
}

/// Puts files into the root folder of a FAT, the passport's first. What is there by the same name is replaced.
pub(crate) fn fill(file: &File, range: Range<u64>, files: &[(&str, Vec<u8>)]) -> io::Result<()> {
    let fat = Fat::read(file, range.clone())?;
    if fat.as_ref().is_some_and(|fat| !fat.root_ends()) {
        // fatfs would walk it for ever.
        return Err(io::Error::other("its root folder has no end"));
    }
    let options = FsOptions::new().time_provider(&FIXED_TIME);
    let fs = FileSystem::new(Slice::new(file, range), options)?;
    let root = fs.root_dir();
    let cluster = u64::from(fs.cluster_size());
    // The next clusters fatfs will take are those after the last used one.
    if let Some(fat) = &fat {
        let next = fat.end_of_used();
        let misaligned = (GRANULE - fat.cluster_offset(next) % GRANULE) % GRANULE;
        if misaligned > 0 && misaligned.is_multiple_of(cluster) {
            root.create_file(PAD)?.write_all(&vec![0; misaligned as usize])?;
        }
    }
    let blank = passport_blank();
    let passport = PASSPORT_FILES.iter().map(|name| (*name, blank.as_slice()));
    for (name, content) in passport.chain(files.iter().map(|(name, content)| (*name, content.as_slice()))) {
        let mut entry = root.create_file(name)?;
        entry.truncate()?;
        entry.write_all(content)?;
        entry.flush()?;
    }
    if fat.is_some() && root.iter().any(|e| e.is_ok_and(|e| e.file_name() == PAD)) {
        root.remove(PAD)?;
    }
    drop(root);
    fs.unmount()
}

/// Spaces and a line end: an empty text to whoever opens it before the card is written.
fn passport_blank() -> Vec<u8> {
    let mut blank = vec![b' '; PASSPORT_SIZE];
    blank[PASSPORT_SIZE - 1] = b'\n';
    blank
}

/// A FAT32's tables. Offsets are bytes of the image.
pub(crate) struct Fat {
    start: u64,
    cluster_size: u64,
    data_start: u64,
    end: u64,
    root: u32,
    entries: Vec<u32>,
}

const END_OF_CHAIN: u32 = 0x0fff_fff8;
const BAD_CLUSTER: u32 = 0x0fff_fff7;

impl Fat {
    /// Reads the tables of the partition at `range`; `None` when it is not a FAT32 that makes sense.
    pub(crate) fn read(file: &File, range: Range<u64>) -> io::Result<Option<Self>> {
        let start = range.start;
        let mut boot = [0; SECTOR as usize];
        file.read_exact_at(&mut boot, start)?;
        let u16_at = |at: usize| u64::from(u16::from_le_bytes([boot[at], boot[at + 1]]));
        let u32_at = |at: usize| u32::from_le_bytes(boot[at..at + 4].try_into().expect("four bytes"));
        let (sector, reserved, per_fat) = (u16_at(11), u16_at(14), u64::from(u32_at(36)));
        let (per_cluster, fats, sectors) = (u64::from(boot[13]), u64::from(boot[16]), u64::from(u32_at(32)));
        let is_fat32 = boot[510..] == [0x55, 0xaa] && sector == SECTOR && u16_at(17) == 0 && u16_at(22) == 0;
        let before_data = reserved + fats * per_fat;
        if !is_fat32
            || per_cluster == 0
            || fats == 0
            || before_data >= sectors
            || sectors > (range.end - start) / SECTOR
        {
            return Ok(None);
        }
        let clusters = (sectors - before_data) / per_cluster;
        if clusters > MAX_CLUSTERS || (clusters + 2) * 4 > per_fat * SECTOR {
            return Ok(None);
        }
        let mut table = vec![0; usize::try_from((clusters + 2) * 4).map_err(io::Error::other)?];
        file.read_exact_at(&mut table, start + reserved * SECTOR)?;
        let entry = |b: &[u8]| u32::from_le_bytes(b.try_into().expect("four bytes")) & 0x0fff_ffff;
        Ok(Some(Self {
            start,
            cluster_size: per_cluster * SECTOR,
            data_start: start + before_data * SECTOR,
            end: start + sectors * SECTOR,
            root: u32_at(44),
            entries: table.chunks_exact(4).map(entry).collect(),
        }))
    }

    /// Where cluster `number` (from 2) begins.
    pub(crate) fn cluster_offset(&self, number: u64) -> u64 {
        self.data_start + (number - 2) * self.cluster_size
    }

    /// The cluster after the last used one.
    fn end_of_used(&self) -> u64 {
        self.entries.iter().rposition(|e| *e != 0).map_or(2, |last| last as u64 + 1).max(2)
    }

    /// Ranges no file and no table uses, ascending.
    pub(crate) fn free(&self) -> Vec<Range<u64>> {
        let mut ranges: Vec<Range<u64>> = Vec::new();
        for (number, entry) in self.entries.iter().enumerate().skip(2) {
            let offset = self.cluster_offset(number as u64);
            match ranges.last_mut() {
                _ if *entry != 0 => {}
                Some(last) if last.end == offset => last.end += self.cluster_size,
                _ => ranges.push(offset..offset + self.cluster_size),
            }
        }
        debug_assert!(ranges.last().is_none_or(|r| r.end <= self.end && r.start >= self.start));
        ranges
    }

    /// The clusters of a chain; a loop or a bad link ends it.
    fn chain(&self, first: u32) -> Vec<u32> {
        let mut chain = Vec::new();
        let mut number = first;
        while (2..BAD_CLUSTER).contains(&number) && chain.len() < self.entries.len() {
            let Some(next) = self.entries.get(number as usize) else { break };
            chain.push(number);
            if *next >= END_OF_CHAIN {
                break;
            }
            number = *next;
        }
        chain
    }

    /// True when the root folder's chain ends as it should, within the largest folder there may be.
    fn root_ends(&self) -> bool {
        let chain = self.chain(self.root);
        let last = chain.last().and_then(|last| self.entries.get(*last as usize));
        last.is_some_and(|entry| *entry >= END_OF_CHAIN)
            && chain.len() as u64 * self.cluster_size <= MAX_ROOT_SIZE.max(self.cluster_size)
    }

    /// The passport's files, if both are there, each in one piece of 4096 bytes on a multiple of 4096.
    pub(crate) fn passport(&self, file: &File) -> io::Result<Option<Vec<PassportEntry>>> {
        let mut folder = Vec::new();
        for number in self.chain(self.root) {
            let mut cluster = vec![0; self.cluster_size as usize];
            file.read_exact_at(&mut cluster, self.cluster_offset(number.into()))?;
            folder.extend(cluster);
        }
        let find = |name: &str| {
            let (stem, extension) = name.split_once('.')?;
            let short = format!("{stem:<8}{extension:<3}");
            let entry =
                folder.chunks_exact(32).find(|e| e[..11] == *short.as_bytes() && e[11] & 0x18 == 0)?;
            let half = |at: usize| u32::from(u16::from_le_bytes([entry[at], entry[at + 1]]));
            let size = half(28) | half(30) << 16;
            let chain = self.chain(half(20) << 16 | half(26));
            let in_one_piece = chain.windows(2).all(|pair| pair[1] == pair[0] + 1);
            let offset = self.cluster_offset(u64::from(*chain.first()?));
            let fits = size as usize == PASSPORT_SIZE && in_one_piece && offset.is_multiple_of(GRANULE);
            let length = PASSPORT_SIZE as u64;
            fits.then(|| PassportEntry { name: name.to_owned(), offset, length })
        };
        Ok(PASSPORT_FILES.iter().map(|name| find(name)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_root_folder_that_leads_back_to_itself_is_refused() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(BOOT_SIZE).unwrap();
        format(&file, 0..BOOT_SIZE, 1).unwrap();
        let fat = Fat::read(&file, 0..BOOT_SIZE).unwrap().unwrap();
        assert!(fat.root_ends());
        let mut boot = [0; SECTOR as usize];
        file.read_exact_at(&mut boot, 0).unwrap();
        let reserved = u64::from(u16::from_le_bytes([boot[14], boot[15]]));
        file.write_all_at(&fat.root.to_le_bytes(), reserved * SECTOR + u64::from(fat.root) * 4).unwrap();
        // No end of the folder in it either: every entry is some file's.
        let mut entry = [0; 32];
        entry[..12].copy_from_slice(b"SOME    TXT ");
        file.write_all_at(&entry.repeat(16), fat.cluster_offset(fat.root.into())).unwrap();
        assert_eq!(fill(&file, 0..BOOT_SIZE, &[]).unwrap_err().to_string(), "its root folder has no end");
    }
}
