//! A base image that boots: GRUB, Debian's kernel, a root of busybox. Its first start grows the last partition to the
//! end of the card, as the bases of real cards do, and its init tells over the serial line what it finds there.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{Cursor, Write};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

pub(crate) const MIB: u64 = 1 << 20;
const BOOT: u64 = MIB;
const ROOT: u64 = 49 * MIB;
const ROOT_SIZE: u64 = 16 * MIB;
/// A FAT32 of 40 MiB with clusters of 512 bytes.
const BOOT_SECTORS: u32 = 628 * 130 + 6;
/// What the kernel has not built in.
const MODULES: [&str; 4] = ["virtio_pci", "virtio_blk", "crc32c_generic", "ext4"];

/// The first program: loads modules, grows partition 3, and hands over to the root on partition 2.
const START: &str = r"#!/bin/busybox sh
b=/bin/busybox
$b mount -t proc proc /proc; $b mount -t sysfs sysfs /sys; $b mount -t devtmpfs devtmpfs /dev
for module in $($b cat /modules); do $b insmod /$module || echo MODULE $module; done
until [ -b /dev/vda3 ]; do $b sleep 0.1; done
size=$(($($b cat /sys/block/vda/size) - $($b cat /sys/block/vda/vda3/start)))
bytes=$($b printf '\\x%02x\\x%02x\\x%02x\\x%02x' $((size & 255)) $((size >> 8 & 255)) $((size >> 16 & 255)) $((size >> 24)))
$b printf $bytes | $b dd of=/dev/vda bs=1 seek=490 conv=notrunc 2>/dev/null
$b blockdev --rereadpt /dev/vda
until [ -b /dev/vda2 ]; do $b sleep 0.1; done
$b mount -t ext4 -o ro /dev/vda2 /root || echo NO ROOT
exec $b switch_root /root /sbin/init
";

/// The root's init.
const INIT: &str = r"#!/bin/busybox sh
b=/bin/busybox
$b mount -t proc proc /proc; $b mount -t devtmpfs devtmpfs /dev
$b mount -t ext4 /dev/vda3 /data || echo NO DATA
kib() { $b df -k /data | $b tail -n 1 | $b awk '{ print $2 }'; }
echo BEFORE $(kib)
/sbin/resize2fs /dev/vda3 || echo NOT GROWN
echo AFTER $(kib)
for file in /data/content/*; do echo FILE $($b sha256sum $file); done
$b umount /data
echo END
$b poweroff -f
";

fn tool(command: &mut Command) -> Result<Vec<u8>, String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
    let output = command.env("PATH", path).output().map_err(|e| format!("no {name}: {e}"))?;
    if !output.status.success() {
        return Err(format!("{name}: {}", String::from_utf8_lossy(&output.stderr)));
    }
    Ok(output.stdout)
}

fn put(root: &Path, name: &str, bytes: &[u8], mode: u32) {
    let path = root.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, bytes).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
}

fn copy(root: &Path, from: &Path) -> Result<(), String> {
    let bytes = fs::read(from).map_err(|e| format!("{}: {e}", from.display()))?;
    put(root, from.strip_prefix("/").unwrap_or(from).to_str().unwrap(), &bytes, 0o755);
    Ok(())
}

/// Where tools/guest-kernel has put a kernel and its modules.
fn kernel() -> Result<PathBuf, String> {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let home = || std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache"));
    let folder = cache.or_else(home).ok_or("no HOME")?.join("cardshop/guest-kernel");
    if !folder.join("config").exists() {
        return Err("no kernel with its file systems for a guest (tools/guest-kernel fetches it)".to_owned());
    }
    Ok(folder)
}

/// Copies modules behind those they depend on; gives their names in that order.
fn modules(kernel: &Path, root: &Path) -> String {
    let mut known = BTreeMap::new();
    let mut open = vec![kernel.join("modules")];
    while let Some(folder) = open.pop() {
        for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            match path.file_name().and_then(|name| name.to_str()?.strip_suffix(".ko")) {
                // File names have `-` where names have `_`.
                Some(name) => drop(known.insert(name.replace('-', "_"), path.clone())),
                None if path.is_dir() => open.push(path),
                None => {}
            }
        }
    }
    let mut order = Vec::new();
    MODULES.iter().for_each(|name| add_module(name, &known, root, &mut order));
    order.join("\n")
}

/// What is in no file is built into the kernel.
fn add_module(name: &str, known: &BTreeMap<String, PathBuf>, root: &Path, order: &mut Vec<String>) {
    let file = format!("lib/{name}.ko");
    let Some(path) = known.get(name).filter(|_| !order.contains(&file)) else { return };
    let bytes = fs::read(path).unwrap();
    // The `depends=` line of `.modinfo`.
    let at = bytes.windows(9).position(|window| window == b"\0depends=").map_or(bytes.len(), |at| at + 9);
    let needed = bytes[at..].split(|byte| *byte == 0).next().unwrap_or_default();
    for name in String::from_utf8_lossy(needed).split(',').filter(|name| !name.is_empty()) {
        add_module(&name.replace('-', "_"), known, root, order);
    }
    put(root, &file, &bytes, 0o644);
    order.push(file);
}

fn initramfs(kernel: &Path, busybox: &Path, work: &Path) -> Result<Vec<u8>, String> {
    let root = work.join("initramfs");
    for folder in ["proc", "sys", "dev", "root"] {
        fs::create_dir_all(root.join(folder)).unwrap();
    }
    put(&root, "bin/busybox", &fs::read(busybox).map_err(|e| e.to_string())?, 0o755);
    let order = modules(kernel, &root);
    put(&root, "modules", order.as_bytes(), 0o644);
    put(&root, "init", START.as_bytes(), 0o755);
    let script = "busybox find . | busybox cpio -o -H newc 2>/dev/null | busybox gzip -1";
    tool(Command::new("busybox").args(["sh", "-c", script]).current_dir(&root))
}

fn rootfs(busybox: &Path, work: &Path) -> Result<Vec<u8>, String> {
    let root = work.join("rootfs");
    for folder in ["proc", "sys", "dev", "data"] {
        fs::create_dir_all(root.join(folder)).unwrap();
    }
    put(&root, "bin/busybox", &fs::read(busybox).map_err(|e| e.to_string())?, 0o755);
    put(&root, "sbin/init", INIT.as_bytes(), 0o755);
    let resize = String::from_utf8(tool(Command::new("which").arg("resize2fs"))?).unwrap();
    let bytes = fs::read(resize.trim()).map_err(|e| e.to_string())?;
    put(&root, "sbin/resize2fs", &bytes, 0o755);
    let libraries = String::from_utf8(tool(Command::new("ldd").arg(resize.trim()))?).unwrap();
    for library in libraries.split_whitespace().filter(|word| word.starts_with('/')) {
        copy(&root, Path::new(library))?;
    }
    let image = work.join("root.ext4");
    File::create(&image).unwrap().set_len(ROOT_SIZE).unwrap();
    tool(Command::new("mke2fs").args(["-q", "-t", "ext4", "-d"]).arg(&root).arg(&image))?;
    Ok(fs::read(image).unwrap())
}

fn grub(work: &Path) -> Result<Vec<u8>, String> {
    let (config, core) = (work.join("grub.cfg"), work.join("core.img"));
    let text =
        "set root=(hd0,msdos1)\nlinux /vmlinuz console=ttyS0 loglevel=1 panic=-1\ninitrd /initrd\nboot\n";
    fs::write(&config, text).unwrap();
    let mut command = Command::new("grub-mkimage");
    command.args(["-O", "i386-pc", "-p", "/", "-c"]).arg(&config).arg("-o").arg(&core);
    tool(command.args(["biosdisk", "part_msdos", "fat", "linux"]))?;
    Ok(fs::read(core).unwrap())
}

/// Makes the base and gives its path.
///
/// # Errors
/// What is missing here.
pub(crate) fn make(work: &Path) -> Result<PathBuf, String> {
    let kernel = kernel()?;
    let boot_code = fs::read("/usr/lib/grub/i386-pc/boot.img").map_err(|e| format!("no grub-pc-bin: {e}"))?;
    let busybox = String::from_utf8(tool(Command::new("which").arg("busybox"))?).unwrap();
    let busybox = Path::new(busybox.trim());
    let initramfs = initramfs(&kernel, busybox, work)?;
    let vmlinuz = fs::read(kernel.join("vmlinuz")).map_err(|e| e.to_string())?;

    let mut fat = Cursor::new(vec![0; BOOT_SECTORS as usize * 512]);
    let options = fatfs::FormatVolumeOptions::new().fat_type(fatfs::FatType::Fat32).bytes_per_cluster(512);
    fatfs::format_volume(&mut fat, options.total_sectors(BOOT_SECTORS)).unwrap();
    fat.set_position(0);
    let volume = fatfs::FileSystem::new(&mut fat, fatfs::FsOptions::new()).unwrap();
    for (name, bytes) in [("vmlinuz", &vmlinuz), ("initrd", &initramfs)] {
        volume.root_dir().create_file(name).unwrap().write_all(bytes).unwrap();
    }
    volume.unmount().unwrap();

    let path = work.join("base.img");
    let image = File::create(&path).unwrap();
    image.set_len(ROOT + ROOT_SIZE).unwrap();
    let mut sector = [0; 512];
    sector[..440].copy_from_slice(&boot_code[..440]);
    let boot_size = u64::from(BOOT_SECTORS) * 512;
    for (number, (kind, start, size)) in
        [(0x0c, BOOT, boot_size), (0x83, ROOT, ROOT_SIZE)].into_iter().enumerate()
    {
        let entry = &mut sector[446 + 16 * number..][..16];
        entry[4] = kind;
        entry[8..12].copy_from_slice(&((start / 512) as u32).to_le_bytes());
        entry[12..].copy_from_slice(&((size / 512) as u32).to_le_bytes());
    }
    sector[510..].copy_from_slice(&[0x55, 0xaa]);
    let core = grub(work)?;
    assert!(core.len() as u64 <= BOOT - 512, "GRUB fits before the first partition");
    for (offset, bytes) in
        [(0, &sector[..]), (512, &core), (BOOT, fat.get_ref()), (ROOT, &rootfs(busybox, work)?)]
    {
        image.write_all_at(bytes, offset).unwrap();
    }
    Ok(path)
}
