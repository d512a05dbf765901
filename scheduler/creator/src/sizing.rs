//! How large everything is before any content is downloaded, and how large the image becomes. What `--check` shows;
//! `build` starts with the same call, so both say the same bytes.
//!
//! The rule of the size itself is `cardshop_protocol::configuration::size`, which the scheduler tells sizes by. An archive
//! counts with its `size` when it is not on this machine. A base whose root is to grow (`base.rootfs_size`) counts at
//! most until it is here: then its partitions are known and all is sized again.

use std::fs;
use std::path::{Path, PathBuf};

use cardshop_protocol::configuration::size::{DataShape, data_start};
use ureq::tls::RootCerts;

use crate::StopFlag;
use crate::build::{BuildError, LocalFiles, Options};
use crate::cache::Cache;
use crate::digest::Checksum;
use crate::fat::BOOT_SIZE;
use crate::fetch::{FetchError, Fetcher, Remote};
use crate::http::Client;
use crate::mbr::{MAX_BYTES, Mbr, Partition};
use crate::oci::Pulled;
use crate::oci::registry::Registry;
use crate::parallel;
use crate::recipe::{Base, Content, Expected, FileEntry, Form, OciImage, Packing, Recipe, Source, Via};
use crate::tree::{BLOCK_SIZE, file_bytes};
use crate::unpack::{self, Archive, Tally};

/// Of the room a file system grows by, tables take at most one part in this many. **Source:** mke2fs.conf(5): an inode
/// of 256 bytes for every 4 KiB of a small file system, for every 16 KiB of others.
const GROWTH_TABLES: u64 = 16;
const MIB: u64 = 1024 * 1024;
/// Most bytes of a checksum file that are read.
const MAX_CHECKSUM_FILE: u64 = 1024 * 1024;

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
    /// Disks of this machine that the build fills.
    pub volumes: Vec<Volume>,
    pub(crate) data: DataShape,
    /// Where the data partition begins.
    pub(crate) data_start: u64,
    pub(crate) items: Vec<Item>,
    /// Of the recipe's container images.
    pub(crate) images: Vec<Pulled>,
    pub(crate) base: Option<Item>,
    /// Where the base ends in the image, its root partition grown: at most, as long as `base_is_known` is not set.
    pub(crate) base_end: u64,
    /// The base's partitions were seen.
    pub(crate) base_is_known: bool,
}

/// A disk of this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Volume {
    /// A folder on it.
    pub path: PathBuf,
    /// Bytes that the build takes there, at most.
    pub needed: u64,
    /// Bytes that are free.
    pub free: u64,
}

/// Something of the recipe, found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Item {
    pub place: Place,
    /// Bytes of contents, for an archive the most they may be.
    pub bytes: u64,
    /// Of the content as it is downloaded.
    pub checksum: Option<Checksum>,
}

/// Where an item's bytes are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// On this machine.
    Local(PathBuf),
    /// Of a server; `cached` when it is here already.
    Remote { url: String, remote: Remote, cached: Option<PathBuf> },
    /// In the recipe.
    Inline,
}

/// Sizes everything a recipe names and checks that it fits; room on this machine's disks is told, not checked.
///
/// # Errors
/// What is not there, has no size, or does not fit; nothing is written but small texts in the cache folder.
pub fn check(recipe: &Recipe, options: &Options, stop: &StopFlag) -> Result<Sizing, BuildError> {
    // A failure ends the questions that are still open.
    let inner = StopFlag::new();
    let client = Client::new(&inner, RootCerts::WebPki);
    let cache = Cache { folder: &options.cache };
    let (backoff, offline) = (options.backoff, options.offline);
    let fetcher = Fetcher { client: &client, cache, backoff, stop: &inner, offline };
    Sizer { recipe, options, stop: &inner, fetcher: &fetcher }.run(stop)
}

impl Sizing {
    /// Checks that the disks have room.
    ///
    /// # Errors
    /// `NoSpace` for the first that has not.
    pub fn check_room(&self) -> Result<(), BuildError> {
        match self.volumes.iter().find(|v| v.needed > v.free) {
            Some(Volume { path, needed, free }) => {
                Err(BuildError::NoSpace { path: path.clone(), needed: *needed, free: *free })
            }
            None => Ok(()),
        }
    }
}

struct Sizer<'a> {
    recipe: &'a Recipe,
    options: &'a Options,
    stop: &'a StopFlag,
    fetcher: &'a Fetcher<'a>,
}

impl Sizer<'_> {
    fn run(&self, stop: &StopFlag) -> Result<Sizing, BuildError> {
        let mut rows = Vec::new();
        let (mut base_end, mut base_is_known) = (0, true);
        let (base, data_start) = match &self.recipe.base {
            None => {
                rows.push(Row { what: "boot partition".into(), bytes: BOOT_SIZE, download_bytes: 0 });
                (None, data_start(None))
            }
            Some(base) => {
                let found = parallel::each(1, stop, self.stop, &mut || (), &|_| self.base(base))?;
                let (item, row) = found.into_iter().next().expect("one was asked for");
                (base_end, base_is_known) = self.base_end(base, &item)?;
                rows.push(row);
                if base_end > item.bytes {
                    let bytes = base_end - item.bytes;
                    rows.push(Row { what: "base: room its root grows by".into(), bytes, download_bytes: 0 });
                }
                (Some(item), data_start(Some(base_end)))
            }
        };
        let files = &self.recipe.files;
        let found = parallel::each(files.len(), stop, self.stop, &mut || (), &|n| self.file(&files[n]))?;
        let (mut items, mut content_bytes, mut entries) = (Vec::new(), 0, 0);
        for (entry, (item, tally)) in files.iter().zip(found) {
            let download_bytes = download_bytes(&item.place);
            rows.push(Row { what: format!("/data{}", entry.to), bytes: item.bytes, download_bytes });
            content_bytes += tally.block_bytes;
            // Folders above it may be new ones.
            let folders = entry.to.matches('/').count() as u64;
            content_bytes += folders * BLOCK_SIZE;
            entries += tally.entries + folders;
            items.push(item);
        }
        let images = &self.recipe.images;
        let images = parallel::each(images.len(), stop, self.stop, &mut || (), &|n| self.image(&images[n]))?;
        let mut archives = 0;
        for (image, (pulled, download_bytes)) in self.recipe.images.iter().zip(&images) {
            let bytes = pulled.archive_bytes();
            rows.push(Row { what: format!("/data{}", image.to), bytes, download_bytes: *download_bytes });
            content_bytes += file_bytes(bytes) + BLOCK_SIZE;
            entries += 2;
            archives += bytes;
        }
        let images = images.into_iter().map(|(pulled, _)| pulled).collect();
        let data = self.data_shape(data_start, content_bytes, entries)?;
        let contents: u64 = items.iter().map(|i| i.bytes).sum::<u64>() + archives;
        rows.push(Row {
            what: "data partition: tables and free space".into(),
            bytes: data.bytes.saturating_sub(contents),
            download_bytes: 0,
        });
        let image_bytes = self.recipe.output_size.unwrap_or(data_start + data.bytes);
        fits(image_bytes, self.options.max_image_bytes.unwrap_or(MAX_BYTES).min(MAX_BYTES))?;
        let download_bytes = rows.iter().map(|r| r.download_bytes).sum();
        // Archives are unpacked beside the image before they are copied into it.
        let unpacked = files
            .iter()
            .zip(&items)
            .filter(|(f, _)| f.via != Via::Direct || matches!(f.content, Content::Inline(_)));
        let unpacked: u64 = unpacked.map(|(_, i)| i.bytes).sum();
        let base_bytes = base.as_ref().map_or(2 * MIB, |b| b.bytes + (base_end - b.bytes) / GROWTH_TABLES);
        let disk_bytes = base_bytes + content_bytes + data.tables() + unpacked + archives;
        let volumes = volumes(self.options, disk_bytes, download_bytes)?;
        Ok(Sizing {
            rows,
            image_bytes,
            download_bytes,
            disk_bytes,
            volumes,
            data,
            data_start,
            items,
            images,
            base,
            base_end,
            base_is_known,
        })
    }

    /// An image's blobs, and how many bytes of them are not here.
    fn image(&self, image: &OciImage) -> Result<(Pulled, u64), BuildError> {
        let registry = Registry::new(self.fetcher, &image.name);
        let manifest = registry.manifest(&image.name, &image.platform)?;
        let mut missing = 0;
        for blob in manifest.blobs() {
            fits(blob.size, MAX_BYTES)?;
            if self.fetcher.cached(&registry.blob_url(&blob.digest), Some(&blob.digest)).is_none() {
                missing += blob.size;
            }
        }
        Ok((Pulled { name: image.name.clone(), manifest }, missing))
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
        let checksum = self.expected(base.checksum.as_ref(), &base.source.name())?;
        let place = self.place(&base.source, checksum.as_ref())?;
        let stored = stored_bytes(&place);
        let bytes = match (base.packing, base.size, place.path()) {
            (Packing::None, said, _) => agree(&base.source, said, stored)?,
            (_, Some(size), _) => size,
            (packing, None, Some(path)) => unpacked_size(path, packing, self.stop)?,
            _ => return Err(BuildError::SizeUnknown { what: base.source.shown(), key: "base.size" }),
        };
        if let (Packing::None, Some(path)) = (base.packing, place.path()) {
            self.check_base_table(path, bytes)?;
        }
        let download_bytes = download_bytes(&place);
        let row = Row { what: format!("base {}", base.source.shown()), bytes, download_bytes };
        Ok((Item { place, bytes, checksum }, row))
    }

    /// Where the base ends when its root has grown, and whether that is certain: of a base that is not here yet nobody
    /// knows where its root begins.
    fn base_end(&self, base: &Base, item: &Item) -> Result<(u64, bool), BuildError> {
        let Some(wanted) = base.rootfs_size else { return Ok((item.bytes, true)) };
        let Some(path) = item.place.path() else { return Ok((item.bytes + wanted, false)) };
        let file_error = |source| BuildError::File { path: path.to_owned(), source };
        let mut sector = [0; 512];
        let file = fs::File::open(path).map_err(file_error)?;
        let mut reader = unpack::decoder(file, base.packing).map_err(file_error)?;
        std::io::Read::read_exact(&mut reader, &mut sector).map_err(file_error)?;
        let (_, root) = Mbr(sector).grown_root(item.bytes, wanted)?;
        Ok((root.end().max(item.bytes), true))
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
                let name = entry.to.rsplit('/').next().unwrap_or_default();
                let checksum = self.expected(entry.checksum.as_ref(), name)?;
                return Ok((Item { place: Place::Inline, bytes: size, checksum }, one_file(size)));
            }
            Content::At(source) => source,
        };
        let checksum = self.expected(entry.checksum.as_ref(), &source.name())?;
        let place = self.place(source, checksum.as_ref())?;
        let stored = stored_bytes(&place);
        let Via::Archive(form) = entry.via else {
            let size = agree(source, entry.size, stored)?;
            return Ok((Item { place, bytes: size, checksum }, one_file(size)));
        };
        let tally = match (entry.size, place.path()) {
            (None, Some(path)) => {
                let name = source.shown();
                Archive { name: &name, path, form, limit: MAX_BYTES }.tally(self.stop)?
            }
            (Some(size), _) => of_size(size),
            // Contents of a plain tar are never more than the archive.
            (None, _) if form == Form::Tar(Packing::None) && stored.is_some() => of_size(stored.unwrap_or(0)),
            _ => return Err(BuildError::SizeUnknown { what: source.shown(), key: "size" }),
        };
        Ok((Item { place, bytes: tally.bytes, checksum }, tally))
    }

    /// What content must digest to; a checksum file is read for it.
    fn expected(&self, expected: Option<&Expected>, name: &str) -> Result<Option<Checksum>, BuildError> {
        let (algo, source) = match expected {
            None => return Ok(None),
            Some(Expected::Is(checksum)) => return Ok(Some(checksum.clone())),
            Some(Expected::At { algo, source }) => (algo, source),
        };
        let text = match source {
            Source::Url(url) => self.fetcher.text(url, MAX_CHECKSUM_FILE, &[])?,
            Source::File(path) => {
                let path = self.options.local_files.resolve(path)?;
                let mut text = Vec::new();
                let read = fs::File::open(&path).and_then(|f| {
                    std::io::Read::read_to_end(&mut std::io::Read::take(f, MAX_CHECKSUM_FILE), &mut text)
                });
                read.map_err(|source| BuildError::File { path, source })?;
                text
            }
        };
        let found = algo.find(&String::from_utf8_lossy(&text), name);
        let fault = |fault| BuildError::ChecksumFile { what: source.shown(), fault };
        found.map(Some).map_err(fault)
    }

    fn place(&self, source: &Source, checksum: Option<&Checksum>) -> Result<Place, BuildError> {
        let url = match source {
            Source::File(path) => return self.options.local_files.resolve(path).map(Place::Local),
            Source::Url(url) => url,
        };
        if let Some(path) = self.fetcher.cached(url, checksum) {
            return Ok(Place::Remote { url: url.clone(), remote: Remote::default(), cached: Some(path) });
        }
        let remote = self.fetcher.ask(url)?;
        fits(remote.size.unwrap_or(0), MAX_BYTES)?;
        let cached = self.fetcher.whole(url, checksum, &remote);
        Ok(Place::Remote { url: url.clone(), remote, cached })
    }
}

impl Place {
    /// Its file on this machine, when it has one.
    fn path(&self) -> Option<&Path> {
        match self {
            Self::Local(path) => Some(path),
            Self::Remote { cached, .. } => cached.as_deref(),
            Self::Inline => None,
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
        Place::Remote { remote, cached: None, .. } => remote.size,
        _ => place.path()?.metadata().ok().map(|m| m.len()),
    }
}

fn download_bytes(place: &Place) -> u64 {
    match place {
        Place::Remote { remote, cached: None, .. } => remote.size.unwrap_or(0),
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

/// What the build takes on the disks of its folder and its cache; a disk that holds both counts once.
fn volumes(options: &Options, disk_bytes: u64, download_bytes: u64) -> Result<Vec<Volume>, BuildError> {
    use std::os::unix::fs::MetadataExt;
    let folder = options.image.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let ask = |path: &Path| {
        // The cache may have to be made yet.
        let path = path.ancestors().find(|p| p.is_dir()).unwrap_or(Path::new(".")).to_owned();
        let stat = nix::sys::statvfs::statvfs(&path).map_err(std::io::Error::from);
        let found = stat.and_then(|stat| Ok((fs::metadata(&path)?.dev(), stat)));
        let (disk, stat) = found.map_err(|source| BuildError::File { path: path.clone(), source })?;
        #[allow(clippy::unnecessary_cast)] // the fields' widths differ between platforms
        let free = stat.blocks_available() as u64 * stat.fragment_size() as u64;
        Ok::<_, BuildError>((disk, path, free))
    };
    let ((work_disk, work, work_free), (cache_disk, cache, cache_free)) =
        (ask(folder)?, ask(&options.cache)?);
    let volume = |path, needed, free| Volume { path, needed, free };
    Ok(match work_disk == cache_disk {
        true => vec![volume(work, disk_bytes + download_bytes, work_free)],
        false => vec![volume(work, disk_bytes, work_free), volume(cache, download_bytes, cache_free)],
    })
}
