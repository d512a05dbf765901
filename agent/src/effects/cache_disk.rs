//! A disk that brings images by hand: one labelled `CARDSHOP-CACHE` (ext2, 3 or 4: a FAT label has room for 11
//! characters), with the files of a warehouse's folder, `{image id}.cardindex` and `{image id}.img`. It is only
//! read, and nothing on it is believed: images are those that leases name, chunks are checked like any others.
//!
//! Found by `/dev/disk/by-label`, or by reading the label where nobody keeps that folder. A disk that is mounted
//! is used where it is; otherwise, as root, it is mounted read-only at a place of our own.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use cardshop_card::StopFlag;
use cardshop_protocol::ids::ImageId;
use cardshop_protocol::index::{Index, MAX_INDEX_SIZE};
use nix::fcntl::OFlag;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

/// The label.
pub(crate) const LABEL: &str = "CARDSHOP-CACHE";
/// A disk is noticed within this time.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// How often the wait for the next look asks whether to end.
const ASK_STOP_EVERY: Duration = Duration::from_millis(100);
/// The part of an ext superblock that is read. **Source:** `fs/ext4/ext4.h`, `struct ext4_super_block`: at byte
/// 1024, magic at 0x38, volume name at 0x78, 16 bytes.
const SUPERBLOCK: (u64, usize) = (1024, 0x88);
/// Most images that are looked at on one disk.
const MAX_IMAGES: usize = 256;

/// Where the disk is now, for everyone who fetches; clones are the same.
#[derive(Debug, Clone, Default)]
pub(crate) struct CacheDisk(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    folder: Mutex<Option<PathBuf>>,
    generation: AtomicU64,
}

impl CacheDisk {
    /// Grows whenever a disk comes or goes.
    pub(crate) fn generation(&self) -> u64 {
        self.0.generation.load(Ordering::Acquire)
    }

    fn set(&self, folder: Option<PathBuf>) {
        let mut known = self.0.folder.lock().expect("no holder panics");
        if *known != folder {
            tracing::info!(from = ?*known, to = ?folder, "the disk with images");
            *known = folder;
            self.0.generation.fetch_add(1, Ordering::AcqRel);
        }
    }

    fn path(&self, image: ImageId, extension: &str) -> Option<PathBuf> {
        let folder = self.0.folder.lock().expect("no holder panics").clone()?;
        Some(folder.join(format!("{image}.{extension}")))
    }

    /// An image's index, if the disk has one that is whole and this image's. Who signed it is the caller's to ask.
    pub(crate) fn index(&self, image: ImageId) -> Option<Index> {
        let mut bytes = Vec::new();
        open(&self.path(image, "cardindex")?).ok()?.take(MAX_INDEX_SIZE).read_to_end(&mut bytes).ok()?;
        Index::decode(&bytes).ok().filter(|index| index.id() == image)
    }

    /// An image's file.
    ///
    /// # Errors
    /// The disk is gone, or has no such file.
    pub(crate) fn image(&self, image: ImageId) -> io::Result<File> {
        open(&self.path(image, "img").ok_or(io::ErrorKind::NotFound)?)
    }

    /// Images the disk has an index of.
    pub(crate) fn images(&self) -> Vec<ImageId> {
        let folder = self.0.folder.lock().expect("no holder panics").clone();
        let files = folder.and_then(|f| fs::read_dir(f).ok()).into_iter().flatten().flatten();
        let id = |f: fs::DirEntry| f.file_name().to_str()?.strip_suffix(".cardindex")?.parse().ok();
        files.filter_map(id).take(MAX_IMAGES).collect()
    }
}

/// A regular file and nothing else: the disk is anybody's.
fn open(path: &Path) -> io::Result<File> {
    let flags = (OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits();
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::ErrorKind::InvalidInput.into()) }
}

/// Starts the thread that looks for the disk: in `folder` only, when one is given.
///
/// # Errors
/// What the system says when it has no thread to give.
pub(crate) fn start(
    disk: CacheDisk,
    folder: Option<PathBuf>,
    mount_point: PathBuf,
    stop: StopFlag,
) -> io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name("cache-disk".into()).spawn(move || {
        let mut finder = Finder { disk, folder, mount_point, mounted: None, labels: BTreeMap::new() };
        while !stop.is_stopped() {
            finder.look();
            for _ in 0..LOOK_EVERY.as_millis() / ASK_STOP_EVERY.as_millis() {
                if !stop.is_stopped() {
                    std::thread::sleep(ASK_STOP_EVERY);
                }
            }
        }
        finder.unmount();
    })
}

struct Finder {
    disk: CacheDisk,
    folder: Option<PathBuf>,
    mount_point: PathBuf,
    /// The device that is mounted at our place.
    mounted: Option<PathBuf>,
    /// What was read of each device, by its name and the kernel's number for this disk in it.
    labels: BTreeMap<(String, String), bool>,
}

impl Finder {
    fn look(&mut self) {
        if let Some(folder) = &self.folder {
            return self.disk.set(folder.is_dir().then(|| folder.clone()));
        }
        let device = self.device();
        if self.mounted.is_some() && self.mounted != device {
            self.unmount();
        }
        let Some(device) = device else { return self.disk.set(None) };
        if self.mounted.is_none() {
            match mount_point_of(&device) {
                Some(folder) => return self.disk.set(Some(folder)),
                None => self.mount(&device),
            }
        }
        self.disk.set(self.mounted.as_ref().map(|_| self.mount_point.clone()));
    }

    /// The device with the label.
    fn device(&mut self) -> Option<PathBuf> {
        let named = fs::canonicalize(Path::new("/dev/disk/by-label").join(LABEL)).ok();
        let named = named.filter(|d| fs::metadata(d).is_ok_and(|m| m.file_type().is_block_device()));
        named.or_else(|| self.labelled_device())
    }

    fn labelled_device(&mut self) -> Option<PathBuf> {
        let mut seen = BTreeMap::new();
        let mut found = None;
        for entry in fs::read_dir("/sys/class/block").ok()?.flatten() {
            let (Ok(name), folder) = (entry.file_name().into_string(), entry.path()) else { continue };
            let read = |file: &str| fs::read_to_string(folder.join(file)).unwrap_or_default();
            // A partition's disk has the number; and a device without a medium has no size.
            let number = [read("diskseq"), read("../diskseq"), read("size")].concat();
            if read("size").trim() == "0" {
                continue;
            }
            let key = (name, number);
            let device = Path::new("/dev").join(&key.0);
            // Each disk is read once: a reader's card has better things to do.
            let ours = self.labels.get(&key).copied().unwrap_or_else(|| has_label(&device));
            if ours && found.is_none() {
                found = Some(device);
            }
            seen.insert(key, ours);
        }
        self.labels = seen;
        found
    }

    fn mount(&mut self, device: &Path) {
        let flags = MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        let result = fs::create_dir_all(&self.mount_point).and_then(|()| {
            // Without `noload` the kernel would write the journal of a disk that was pulled.
            mount(Some(device), &self.mount_point, Some("ext4"), flags, Some("noload"))
                .map_err(io::Error::from)
        });
        match result {
            Ok(()) => self.mounted = Some(device.into()),
            Err(error) => {
                tracing::warn!(device = %device.display(), %error, "the disk with images cannot be mounted")
            }
        }
    }

    /// Open files keep their disk until they are closed.
    fn unmount(&mut self) {
        if self.mounted.take().is_some() {
            self.disk.set(None);
            if let Err(error) = umount2(&self.mount_point, MntFlags::MNT_DETACH) {
                tracing::warn!(%error, "the disk with images stays mounted");
            }
        }
    }
}

fn has_label(device: &Path) -> bool {
    let mut block = [0; SUPERBLOCK.1];
    let read = open_device(device).and_then(|file| file.read_exact_at(&mut block, SUPERBLOCK.0));
    read.is_ok() && ext_label(&block) == Some(LABEL.as_bytes())
}

fn open_device(device: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(device)
}

/// The volume name in an ext superblock.
fn ext_label(block: &[u8]) -> Option<&[u8]> {
    (block.get(0x38..0x3a)? == [0x53, 0xef]).then_some(())?;
    let name = block.get(0x78..0x88)?;
    Some(&name[..name.iter().position(|b| *b == 0).unwrap_or(name.len())])
}

/// Where a device is mounted, if it is.
fn mount_point_of(device: &Path) -> Option<PathBuf> {
    use std::os::unix::fs::MetadataExt;
    let number = fs::metadata(device).ok()?.rdev();
    let (major, minor) = (nix::sys::stat::major(number), nix::sys::stat::minor(number));
    mount_point(&fs::read_to_string("/proc/self/mountinfo").ok()?, &format!("{major}:{minor}"))
}

/// **Source:** `proc_pid_mountinfo(5)`: id, parent, major:minor, root, mount point, …; only mounts of the whole
/// file system count; octal escapes for space, tab, newline and backslash.
fn mount_point(mountinfo: &str, number: &str) -> Option<PathBuf> {
    mountinfo.lines().find_map(|line| {
        let mut words = line.split(' ').skip(2);
        (words.next()? == number && words.next()? == "/").then_some(())?;
        let point = words.next()?;
        Some(PathBuf::from(
            point.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\"),
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_label_is_read_from_the_superblock_and_nowhere_else() {
        let mut block = [0; SUPERBLOCK.1];
        block[0x78..0x78 + LABEL.len()].copy_from_slice(LABEL.as_bytes());
        assert_eq!(ext_label(&block), None, "without the magic it is not an ext file system");
        block[0x38..0x3a].copy_from_slice(&[0x53, 0xef]);
        assert_eq!(ext_label(&block), Some(LABEL.as_bytes()));
        block[0x78..].fill(b'X');
        assert_eq!(ext_label(&block), Some(&[b'X'; 16][..]));
        assert_eq!(ext_label(&block[..0x80]), None);
    }

    #[test]
    fn a_mount_point_is_found_by_its_devices_number() {
        let text = "36 35 98:0 /mnt1 /mnt/bound rw - ext3 /dev/root rw\n\
                    37 35 98:0 / /media/my\\040disk rw,noatime master:1 - ext4 /dev/x rw\n";
        assert_eq!(mount_point(text, "98:0"), Some("/media/my disk".into()));
        assert_eq!(mount_point(text, "98:1"), None);
    }

    proptest! {
        #[test]
        fn whatever_a_disk_says_of_itself_is_read_without_a_panic(
            block in prop::collection::vec(any::<u8>(), 0..200), text in "\\PC{0,200}",
        ) {
            let _ = ext_label(&block);
            let _ = mount_point(&text, "1:1");
        }
    }
}
