//! Gathers the facts the interlock decides over: from the open file, from `/sys` (what kind of disk, where it
//! hangs, what is made of it), and from `/proc` (what is mounted, what is swap). Decides nothing.
//!
//! **Source:** Linux `Documentation/ABI/stable/sysfs-block`, proc(5) *mountinfo*.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::libc;
use nix::sys::stat::{major, makedev, minor};
use nix::unistd::{AccessFlags, access};

use crate::error::CardError;
use crate::interlock::{DeviceClass, DeviceFacts, DeviceIdentity, Exclusive};
use crate::ioctl;

/// Devices looked at when following what a disk is made of: partitions, mapped devices, loops. A real tree
/// has fewer than 100; the limit ends a loop.
const MAX_FAMILY: usize = 1024;

/// Where the kernel's views are; tests give folders of their own.
#[derive(Debug, Clone)]
pub(crate) struct KernelView {
    pub(crate) sys: PathBuf,
    pub(crate) proc: PathBuf,
}

impl Default for KernelView {
    fn default() -> Self {
        Self { sys: "/sys".into(), proc: "/proc".into() }
    }
}

/// Looks at what `path` names, without opening it for writing. A reader's slot without a card has size 0.
/// What may not be opened at all is still described, from `/sys`: the root disk is refused as such, not for
/// a missing permission.
///
/// # Errors
/// `Open` when it cannot be looked at.
pub fn gather(path: &Path) -> Result<DeviceFacts, CardError> {
    let failed = |source| CardError::Open { path: path.to_owned(), source };
    let metadata = fs::metadata(path).map_err(failed)?;
    let view = KernelView::default();
    // Folders, terminals and pipes are not opened: that alone may have effects.
    if !metadata.file_type().is_block_device() && !metadata.is_file() {
        return gather_open(&view, path, None).map_err(failed);
    }
    // Without the open the kernel goes on showing the size of the card before; O_NONBLOCK opens a slot
    // without a card too.
    let flags = libc::O_NONBLOCK | libc::O_CLOEXEC;
    match File::options().read(true).custom_flags(flags).open(path) {
        Ok(file) => gather_open(&view, path, Some(&file)).map_err(failed),
        Err(error) if error.raw_os_error() == Some(Errno::ENOMEDIUM as i32) => {
            let mut facts = gather_open(&view, path, None).map_err(failed)?;
            facts.identity.size = 0;
            Ok(facts)
        }
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            gather_open(&view, path, None).map_err(failed)
        }
        Err(error) => Err(failed(error)),
    }
}

/// The facts of `path`, asked of `file` where it is open.
pub(crate) fn gather_open(view: &KernelView, path: &Path, file: Option<&File>) -> io::Result<DeviceFacts> {
    let metadata = match file {
        Some(file) => file.metadata()?,
        None => fs::metadata(path)?,
    };
    if metadata.file_type().is_block_device() {
        return block_facts(view, path, metadata.rdev(), file);
    }
    let mut facts = nothing_known(path);
    facts.identity.device_number = metadata.dev();
    facts.identity.inode = metadata.ino();
    if metadata.is_file() {
        facts.class = DeviceClass::PlainFile;
        facts.identity.size = metadata.len();
        facts.read_only = metadata.permissions().readonly() || access(path, AccessFlags::W_OK).is_err();
        let same = |other: &Path| is_file(other, metadata.dev(), metadata.ino());
        facts.swap = swap_areas(view)?.into_iter().filter(|area| same(area)).collect();
        if let Some(looped) = loops_over(view, &same) {
            facts.exclusive = Exclusive::Busy;
            facts.mounted_at = mounts_of(view, &family(view, looped))?;
        }
    }
    Ok(facts)
}

fn nothing_known(path: &Path) -> DeviceFacts {
    DeviceFacts {
        path: path.to_owned(),
        class: DeviceClass::Other,
        model: String::new(),
        cid: None,
        port_path: PathBuf::new(),
        block_size: None,
        identity: DeviceIdentity { device_number: 0, inode: 0, disk_sequence: 0, size: 0 },
        holds_root: false,
        mounted_at: Vec::new(),
        swap: Vec::new(),
        read_only: false,
        exclusive: Exclusive::NotTried,
    }
}

fn block_facts(view: &KernelView, path: &Path, device: u64, file: Option<&File>) -> io::Result<DeviceFacts> {
    let folder = sys_folder(view, device)?;
    let family = family(view, device);
    let disk_sequence = match file.map(ioctl::disk_sequence) {
        Some(Ok(sequence)) => sequence,
        _ => attribute(&folder, "diskseq").and_then(|s| s.parse().ok()).unwrap_or(0),
    };
    let size = match file.map(ioctl::size) {
        Some(Ok(size)) => size,
        // **Source:** sysfs counts in units of 512 whatever the logical block size.
        _ => attribute(&folder, "size").and_then(|s| s.parse().ok()).unwrap_or(0_u64).saturating_mul(512),
    };
    let block_size = file.and_then(|f| ioctl::logical_block_size(f).ok()).unwrap_or(512);
    // A device may end within a block of its own; nothing can be read or written there.
    let size = size - size % u64::from(block_size.max(1));
    let read_only = match file.map(ioctl::is_read_only) {
        Some(Ok(read_only)) => read_only,
        _ => attribute(&folder, "ro").is_some_and(|ro| ro != "0"),
    };
    Ok(DeviceFacts {
        class: class_of(&folder, device),
        model: model_of(&folder),
        cid: attribute(&folder, "device/cid").filter(|cid| cid.len() == 32),
        port_path: folder.strip_prefix(fs::canonicalize(&view.sys)?).unwrap_or(&folder).to_owned(),
        block_size: Some(block_size),
        identity: DeviceIdentity { device_number: device, inode: 0, disk_sequence, size },
        holds_root: root_disks(view)?.intersection(&family).next().is_some(),
        mounted_at: mounts_of(view, &family)?,
        swap: swap_areas(view)?
            .into_iter()
            .filter(|area| block_number(area).is_some_and(|n| family.contains(&n)))
            .collect(),
        read_only,
        ..nothing_known(path)
    })
}

/// The folder of a block device below `/sys/devices`.
fn sys_folder(view: &KernelView, device: u64) -> io::Result<PathBuf> {
    fs::canonicalize(view.sys.join(format!("dev/block/{}:{}", major(device), minor(device))))
}

/// A one-line file of a device's folder, trimmed.
fn attribute(folder: &Path, name: &str) -> Option<String> {
    fs::read_to_string(folder.join(name)).ok().map(|text| text.trim().to_owned())
}

fn class_of(folder: &Path, device: u64) -> DeviceClass {
    /// **Source:** Linux `Documentation/admin-guide/devices.txt`.
    const LOOP_MAJOR: u64 = 7;
    let name = folder.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let bus = fs::canonicalize(folder.join("device/subsystem")).ok();
    let is_mmc = bus.as_deref().and_then(Path::file_name).is_some_and(|n| n == "mmc");
    if folder.join("partition").exists() || name.contains("boot") || name.contains("rpmb") {
        DeviceClass::Partition
    } else if major(device) == LOOP_MAJOR {
        // One over a disk would hide that disk, with its root and its mounts, from every check.
        let below = attribute(folder, "loop/backing_file").and_then(|file| block_number(Path::new(&file)));
        if below.is_some() { DeviceClass::Other } else { DeviceClass::Loop }
    } else if is_mmc {
        DeviceClass::Mmc
    } else if !folder.join("device").exists() {
        DeviceClass::Other
    } else if attribute(folder, "removable").as_deref() == Some("1") {
        DeviceClass::Removable
    } else {
        DeviceClass::FixedDisk
    }
}

fn model_of(folder: &Path) -> String {
    let parts = ["device/vendor", "device/model", "device/name"];
    let parts: Vec<String> = parts.iter().filter_map(|p| attribute(folder, p)).collect();
    // What a device says of itself may be anything; it goes to terminals and logs.
    parts.join(" ").chars().filter(|c| !c.is_control()).take(80).collect()
}

/// A device with everything made of it: its partitions, and what holds it or them, and so on.
fn family(view: &KernelView, device: u64) -> BTreeSet<u64> {
    let mut members = BTreeSet::new();
    let mut open = vec![device];
    while let Some(next) = open.pop() {
        if members.len() >= MAX_FAMILY || !members.insert(next) {
            continue;
        }
        let Ok(folder) = sys_folder(view, next) else { continue };
        let children = entries(&folder).into_iter().filter(|child| child.join("partition").exists());
        let holders = entries(&folder.join("holders"));
        open.extend(children.chain(holders).filter_map(|child| number_of(&child)));
    }
    members
}

/// What is below a device: the disk of a partition, what a mapped device is made of, the device that holds a
/// loop's file, and so on.
fn ancestors(view: &KernelView, device: u64) -> BTreeSet<u64> {
    let mut found = BTreeSet::new();
    let mut open = vec![device];
    while let Some(next) = open.pop() {
        if found.len() >= MAX_FAMILY || !found.insert(next) {
            continue;
        }
        let Ok(folder) = sys_folder(view, next) else { continue };
        if folder.join("partition").exists() {
            open.extend(folder.parent().and_then(number_of));
        }
        open.extend(entries(&folder.join("slaves")).iter().filter_map(|s| number_of(s)));
        open.extend(
            attribute(&folder, "loop/backing_file").and_then(|f| fs::metadata(f).ok()).map(|m| m.dev()),
        );
    }
    found
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

/// The number in a device folder's `dev` file.
fn number_of(folder: &Path) -> Option<u64> {
    parse_number(&attribute(folder, "dev")?)
}

fn parse_number(text: &str) -> Option<u64> {
    let (major, minor) = text.split_once(':')?;
    Some(makedev(major.parse().ok()?, minor.parse().ok()?))
}

/// One line of mountinfo: the device, and where it is mounted.
struct Mount {
    device: u64,
    place: PathBuf,
}

fn mounts(view: &KernelView) -> io::Result<Vec<Mount>> {
    let text = fs::read_to_string(view.proc.join("self/mountinfo"))?;
    Ok(text.lines().filter_map(parse_mount).collect())
}

fn parse_mount(line: &str) -> Option<Mount> {
    let mut fields = line.split(' ');
    let device = parse_number(fields.nth(2)?)?;
    let place = PathBuf::from(unescape(fields.nth(1)?));
    // A file system with several devices (btrfs) has a number of its own; its source is a path.
    let source = line.split_once(" - ").and_then(|(_, rest)| rest.split(' ').nth(1)).unwrap_or_default();
    let device = match major(device) {
        0 => block_number(Path::new(&unescape(source))).unwrap_or(device),
        _ => device,
    };
    Some(Mount { device, place })
}

/// Undoes the octal escapes of space, tab, newline and backslash.
fn unescape(text: &str) -> String {
    text.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
}

fn mounts_of(view: &KernelView, family: &BTreeSet<u64>) -> io::Result<Vec<PathBuf>> {
    Ok(mounts(view)?.into_iter().filter(|m| family.contains(&m.device)).map(|m| m.place).collect())
}

/// The devices the root file system is on, down to the disks.
fn root_disks(view: &KernelView) -> io::Result<BTreeSet<u64>> {
    let roots = mounts(view)?.into_iter().filter(|m| m.place == Path::new("/"));
    Ok(roots.flat_map(|m| ancestors(view, m.device)).collect())
}

/// Swap files and devices in use. No `/proc/swaps`: a kernel without swap.
fn swap_areas(view: &KernelView) -> io::Result<Vec<PathBuf>> {
    let text = match fs::read_to_string(view.proc.join("swaps")) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    Ok(text.lines().skip(1).filter_map(|l| l.split_whitespace().next()).map(|f| unescape(f).into()).collect())
}

fn block_number(path: &Path) -> Option<u64> {
    let metadata = fs::metadata(path).ok()?;
    metadata.file_type().is_block_device().then(|| metadata.rdev())
}

fn is_file(path: &Path, device: u64, inode: u64) -> bool {
    fs::metadata(path).is_ok_and(|m| (m.dev(), m.ino()) == (device, inode))
}

/// A loop device made over a file.
fn loops_over(view: &KernelView, same: &dyn Fn(&Path) -> bool) -> Option<u64> {
    let loops = entries(&view.sys.join("block")).into_iter();
    let over = |folder: &PathBuf| attribute(folder, "loop/backing_file").is_some_and(|f| same(Path::new(&f)));
    loops.into_iter().find(over).and_then(|folder| number_of(&folder))
}

#[cfg(test)]
mod tests;
