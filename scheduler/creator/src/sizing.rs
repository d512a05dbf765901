//! How large everything is before any content is downloaded, and how large the image becomes. What `--check` shows;
//! `build` starts with the same call, so both say the same bytes.
//!
//! Size rule: the data partition takes the blocks of its content, a tenth on top (`MARGIN_DIVISOR`), its own
//! tables and journal, and is rounded up to 8 MiB: it is never full. An archive counts with its `size` when
//! it is not on this machine.

use std::fs;
use std::path::{Path, PathBuf};

use ureq::tls::RootCerts;

use crate::StopFlag;
use crate::build::{BuildError, LocalFiles, Options};
use crate::fat::BOOT_SIZE;
use crate::fetch::{FetchError, Fetcher, Remote};
use crate::http::Client;
use crate::mbr::{ALIGNMENT, MAX_BYTES, Mbr, Partition};
use crate::recipe::{Base, Content, FileEntry, Packing, Recipe, Source, Via};
use crate::tree::{BLOCK_SIZE, file_bytes};
use crate::unpack::{self, Archive, Tally};

/// Content ÷ this stays free.
const MARGIN_DIVISOR: u64 = 10;
/// Blocks of one group. **Source:** ext4 with blocks of 4 KiB.
const GROUP_BYTES: u64 = 32768 * BLOCK_SIZE;
const MIB: u64 = 1024 * 1024;

/// One row of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// A file of the recipe, or a part of the image.
    pub what: String,
    /// Bytes on the card.
    pub bytes: u64,
    /// Bytes that must still be downloaded for it.
    pub download_bytes: u64,
}

/// How large everything is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sizing {
    /// What is on the card: base or boot partition, each file, the data partition's own.
    pub rows: Vec<Row>,
    /// Bytes of the whole image.
    pub image_bytes: u64,
    /// Bytes to download.
    pub download_bytes: u64,
    /// Bytes the build takes on the disk of its folder, at most, beyond what it takes in the cache.
    pub disk_bytes: u64,
    pub(crate) data: DataShape,
    /// Where the data partition begins.
    pub(crate) data_start: u64,
    pub(crate) items: Vec<Item>,
    pub(crate) base: Option<Item>,
}

/// The data partition's parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DataShape {
    pub bytes: u64,
    pub inodes: u64,
    pub journal_mib: u64,
    /// Blocks of contents that were counted on, bytes.
    pub content_bytes: u64,
}

/// Something of the recipe, found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Item {
    pub place: Place,
    /// Bytes of contents, for an archive the most they may be.
    pub bytes: u64,
}

/// Where an item's bytes are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// On this machine.
    Local(PathBuf),
    /// To be downloaded.
    Remote { url: String, remote: Remote },
    /// In the recipe.
    Inline,
}

impl DataShape {
    /// The partition for `content_bytes` in blocks and about `entries` files and folders.
    fn for_content(content_bytes: u64, entries: u64) -> Self {
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

    fn of(bytes: u64, content_bytes: u64, entries: u64) -> Self {
        let inodes = (entries + entries / 4 + 1024).max(bytes / 65536);
        let journal_mib = match bytes / MIB {
            0..256 => 4,
            256..2048 => 16,
            _ => 64,
        };
        Self { bytes, inodes, journal_mib, content_bytes }
    }

    /// True when the partition holds this much, its margin used up at worst.
    pub(crate) fn holds(&self, block_bytes: u64, entries: u64) -> bool {
        // Inodes below 11 are the file system's own, 11 is lost+found.
        block_bytes + self.tables() <= self.bytes && entries + 11 <= self.inodes
    }

    /// Bytes of blocks that are free beside contents of `block_bytes`.
    pub(crate) fn room_after(&self, block_bytes: u64) -> u64 {
        self.bytes.saturating_sub(block_bytes + self.tables())
    }

    /// Bytes it must have: content, margin, tables.
    fn need(&self) -> u64 {
        self.content_bytes + self.content_bytes / MARGIN_DIVISOR + self.tables()
    }

    /// Bytes of the file system's own.
    fn tables(&self) -> u64 {
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

/// Sizes everything a recipe names and checks that it fits.
///
/// # Errors
/// What is not there, has no size, or does not fit; nothing is written but the cache folder itself.
pub fn check(recipe: &Recipe, options: &Options, stop: &StopFlag) -> Result<Sizing, BuildError> {
    let client = Client::new(stop, RootCerts::WebPki);
    let fetcher = Fetcher { client: &client, folder: &options.cache, backoff: options.backoff, stop };
    Sizer { recipe, options, stop, fetcher: &fetcher }.run()
}

struct Sizer<'a> {
    recipe: &'a Recipe,
    options: &'a Options,
    stop: &'a StopFlag,
    fetcher: &'a Fetcher<'a>,
}

impl Sizer<'_> {
    fn run(&self) -> Result<Sizing, BuildError> {
        let mut rows = Vec::new();
        let (base, data_start) = match &self.recipe.base {
            None => {
                rows.push(Row { what: "boot partition".into(), bytes: BOOT_SIZE, download_bytes: 0 });
                (None, ALIGNMENT + BOOT_SIZE.next_multiple_of(ALIGNMENT))
            }
            Some(base) => {
                let (item, row) = self.base(base)?;
                let start = item.bytes.next_multiple_of(ALIGNMENT);
                rows.push(row);
                (Some(item), start)
            }
        };
        let (mut items, mut content_bytes, mut entries) = (Vec::new(), 0, 0);
        for entry in &self.recipe.files {
            if self.stop.is_stopped() {
                return Err(BuildError::Stopped);
            }
            let (item, tally) = self.file(entry)?;
            let download_bytes = download_bytes(&item.place);
            rows.push(Row { what: format!("/data{}", entry.to), bytes: item.bytes, download_bytes });
            content_bytes += tally.block_bytes;
            // Folders above it may be new ones.
            let folders = entry.to.matches('/').count() as u64;
            content_bytes += folders * BLOCK_SIZE;
            entries += tally.entries + folders;
            items.push(item);
        }
        let data = self.data_shape(data_start, content_bytes, entries)?;
        let contents: u64 = items.iter().map(|i| i.bytes).sum();
        rows.push(Row {
            what: "data partition: tables and free space".into(),
            bytes: data.bytes.saturating_sub(contents),
            download_bytes: 0,
        });
        let image_bytes = self.recipe.output_size.unwrap_or(data_start + data.bytes);
        fits(image_bytes, self.options.max_image_bytes.unwrap_or(MAX_BYTES).min(MAX_BYTES))?;
        let download_bytes = rows.iter().map(|r| r.download_bytes).sum();
        // Archives are unpacked beside the image before they are copied into it.
        let unpacked = self
            .recipe
            .files
            .iter()
            .zip(&items)
            .filter(|(f, _)| f.via != Via::Direct || matches!(f.content, Content::Inline(_)));
        let unpacked: u64 = unpacked.map(|(_, i)| i.bytes).sum();
        let base_bytes = base.as_ref().map_or(2 * MIB, |b| b.bytes);
        let disk_bytes = base_bytes + content_bytes + data.tables() + unpacked;
        Ok(Sizing { rows, image_bytes, download_bytes, disk_bytes, data, data_start, items, base })
    }

    fn data_shape(&self, data_start: u64, content_bytes: u64, entries: u64) -> Result<DataShape, BuildError> {
        let needed = DataShape::for_content(content_bytes, entries);
        let Some(size) = self.recipe.output_size else { return Ok(needed) };
        let bytes = size.saturating_sub(data_start) / BLOCK_SIZE * BLOCK_SIZE;
        let given = DataShape::of(bytes, content_bytes, entries);
        if bytes < given.need() {
            return Err(BuildError::OutputTooSmall { size, needed: data_start + needed.bytes });
        }
        Ok(given)
    }

    fn base(&self, base: &Base) -> Result<(Item, Row), BuildError> {
        let place = self.place(&base.source, base.checksum.as_ref())?;
        let stored = stored_bytes(&place);
        let bytes = match (base.packing, base.size, &place) {
            (Packing::None, said, _) => agree(&base.source, said, stored)?,
            (_, Some(size), _) => size,
            (packing, None, Place::Local(path)) => unpacked_size(path, packing, self.stop)?,
            _ => return Err(BuildError::SizeUnknown { what: base.source.shown(), key: "base.size" }),
        };
        if let (Packing::None, Place::Local(path)) = (base.packing, &place) {
            self.check_base_table(path, bytes)?;
        }
        let download_bytes = download_bytes(&place);
        let row = Row { what: format!("base {}", base.source.shown()), bytes, download_bytes };
        Ok((Item { place, bytes }, row))
    }

    /// A base that cannot take a data partition is refused before anything is downloaded, where it can be read.
    fn check_base_table(&self, path: &Path, bytes: u64) -> Result<(), BuildError> {
        let mut sector = [0; 512];
        let read = fs::File::open(path).and_then(|mut f| std::io::Read::read_exact(&mut f, &mut sector));
        read.map_err(|source| BuildError::File { path: path.to_owned(), source })?;
        let partitions: [Option<Partition>; 4] = Mbr(sector).partitions(bytes)?;
        partitions.contains(&None).then_some(()).ok_or(crate::mbr::MbrError::Full.into())
    }

    fn file(&self, entry: &FileEntry) -> Result<(Item, Tally), BuildError> {
        let source = match &entry.content {
            Content::Inline(bytes) => {
                let size = bytes.len() as u64;
                return Ok((Item { place: Place::Inline, bytes: size }, one_file(size)));
            }
            Content::At(source) => source,
        };
        let place = self.place(source, entry.checksum.as_ref())?;
        let stored = stored_bytes(&place);
        let Via::Tar(packing) = entry.via else {
            let size = agree(source, entry.size, stored)?;
            return Ok((Item { place, bytes: size }, one_file(size)));
        };
        let tally = match (entry.size, &place) {
            (None, Place::Local(path)) => {
                let name = source.shown();
                Archive { name: &name, path, packing, limit: MAX_BYTES }.tally(self.stop)?
            }
            (Some(size), _) => of_size(size),
            // Contents of a plain tar are never more than the archive.
            (None, _) if packing == Packing::None && stored.is_some() => of_size(stored.unwrap_or(0)),
            _ => return Err(BuildError::SizeUnknown { what: source.shown(), key: "size" }),
        };
        Ok((Item { place, bytes: tally.bytes }, tally))
    }

    fn place(
        &self,
        source: &Source,
        checksum: Option<&crate::digest::Checksum>,
    ) -> Result<Place, BuildError> {
        match source {
            Source::File(path) => self.options.local_files.resolve(path).map(Place::Local),
            Source::Url(url) => match self.fetcher.cached(url, checksum) {
                Some(path) => Ok(Place::Local(path)),
                None => {
                    let remote = self.fetcher.ask(url)?;
                    fits(remote.size.unwrap_or(0), MAX_BYTES)?;
                    Ok(Place::Remote { url: url.clone(), remote })
                }
            },
        }
    }
}

/// Sums of what fits do not overflow.
fn fits(image: u64, most: u64) -> Result<(), BuildError> {
    if image > most { Err(BuildError::TooLarge { image, most }) } else { Ok(()) }
}

fn one_file(size: u64) -> Tally {
    Tally { bytes: size, block_bytes: file_bytes(size), entries: 1 }
}

/// An archive of which only its size is known: the margin carries the ends of blocks of its files.
fn of_size(size: u64) -> Tally {
    Tally { bytes: size, block_bytes: file_bytes(size), entries: size / 65536 + 1 }
}

fn stored_bytes(place: &Place) -> Option<u64> {
    match place {
        Place::Local(path) => path.metadata().ok().map(|m| m.len()),
        Place::Remote { remote, .. } => remote.size,
        Place::Inline => None,
    }
}

fn download_bytes(place: &Place) -> u64 {
    match place {
        Place::Remote { remote, .. } => remote.size.unwrap_or(0),
        _ => 0,
    }
}

/// What the recipe says and what the server says must be the same; one of them is enough.
fn agree(source: &Source, said: Option<u64>, found: Option<u64>) -> Result<u64, BuildError> {
    match (said, found) {
        (Some(expected), Some(actual)) if expected != actual => {
            Err(FetchError::SizeDiffers { url: source.shown(), expected, actual }.into())
        }
        (_, Some(size)) | (Some(size), None) => Ok(size),
        (None, None) => Err(BuildError::SizeUnknown { what: source.shown(), key: "size" }),
    }
}

/// Bytes of a compressed file when unpacked, by unpacking it.
fn unpacked_size(path: &Path, packing: Packing, stop: &StopFlag) -> Result<u64, BuildError> {
    let file_error = |source| BuildError::File { path: path.to_owned(), source };
    let file = fs::File::open(path).map_err(file_error)?;
    let mut reader = unpack::decoder(file, packing).map_err(file_error)?;
    let mut buffer = vec![0; MIB as usize];
    let mut size = 0;
    loop {
        if stop.is_stopped() {
            return Err(BuildError::Stopped);
        }
        match std::io::Read::read(&mut reader, &mut buffer).map_err(file_error)? {
            0 => return Ok(size),
            count => size += count as u64,
        }
        fits(size, MAX_BYTES)?;
    }
}

impl LocalFiles {
    /// The file a recipe means, if it may be read.
    pub(crate) fn resolve(&self, path: &Path) -> Result<PathBuf, BuildError> {
        let file_error = |source| BuildError::File { path: path.to_owned(), source };
        let found = match self {
            Self::Refused => return Err(BuildError::LocalFile(path.to_owned())),
            Self::Any { relative_to } => fs::canonicalize(relative_to.join(path)).map_err(file_error)?,
            Self::Below(root) => {
                let root = fs::canonicalize(root).map_err(file_error)?;
                let found = fs::canonicalize(root.join(path)).map_err(file_error)?;
                if !found.starts_with(&root) {
                    return Err(BuildError::LocalFile(path.to_owned()));
                }
                found
            }
        };
        if !found.is_file() {
            return Err(file_error(std::io::Error::other("it is not a file")));
        }
        Ok(found)
    }
}

/// Checks that the disks have room, counting a disk that holds both folders once.
pub(crate) fn check_space(sizing: &Sizing, work: &Path, cache: &Path) -> Result<(), BuildError> {
    use std::os::unix::fs::MetadataExt;
    let free = |path: &Path| {
        let stat = nix::sys::statvfs::statvfs(path).map_err(std::io::Error::from)?;
        #[allow(clippy::unnecessary_cast)] // the fields' widths differ between platforms
        Ok((fs::metadata(path)?.dev(), stat.blocks_available() as u64 * stat.fragment_size() as u64))
    };
    let ask = |path: &Path| free(path).map_err(|source| BuildError::File { path: path.to_owned(), source });
    let ((work_disk, work_free), (cache_disk, cache_free)) = (ask(work)?, ask(cache)?);
    let (needed_work, needed_cache) = match work_disk == cache_disk {
        true => (sizing.disk_bytes + sizing.download_bytes, 0),
        false => (sizing.disk_bytes, sizing.download_bytes),
    };
    for (path, needed, free) in [(work, needed_work, work_free), (cache, needed_cache, cache_free)] {
        if needed > free {
            return Err(BuildError::NoSpace { path: path.to_owned(), needed, free });
        }
    }
    Ok(())
}
