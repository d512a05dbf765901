//! The facts over a kernel view in a folder: disks, partitions, mapped devices and mounts no test machine has.

use std::os::unix::fs::symlink;

use super::*;

/// A `/sys` and a `/proc` to write into.
struct FakeKernel {
    folder: tempfile::TempDir,
    view: KernelView,
}

impl FakeKernel {
    /// `sdb` in a USB reader with partition `sdb1`; `sda` with `sda1`, and `dm-0` made of `sda1`; an mmc card.
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let view = KernelView { sys: folder.path().join("sys"), proc: folder.path().join("proc") };
        let kernel = Self { folder, view };
        kernel.write("sys/dev/block/.keep", "");
        kernel.write("proc/self/mountinfo", "");
        kernel.disk("devices/usb1/1-2/block/sdb", "8:16", "1");
        kernel.write("sys/devices/usb1/1-2/block/sdb/device/vendor", "Generic \n");
        kernel.write("sys/devices/usb1/1-2/block/sdb/device/model", "SD\u{1b}[31m Reader\n");
        kernel.partition("devices/usb1/1-2/block/sdb", "sdb1", "8:17");
        kernel.disk("devices/ata1/block/sda", "8:0", "0");
        kernel.partition("devices/ata1/block/sda", "sda1", "8:1");
        kernel.disk("devices/virtual/block/dm-0", "253:0", "0");
        fs::remove_dir_all(kernel.view.sys.join("devices/virtual/block/dm-0/device")).unwrap();
        kernel.link("devices/virtual/block/dm-0/slaves/sda1", "devices/ata1/block/sda/sda1");
        kernel.link("devices/ata1/block/sda/sda1/holders/dm-0", "devices/virtual/block/dm-0");
        kernel.disk("devices/mmc0/block/mmcblk0", "179:0", "0");
        kernel.write("sys/bus/mmc/.keep", "");
        kernel.link("devices/mmc0/block/mmcblk0/device/subsystem", "bus/mmc");
        kernel.write("sys/devices/mmc0/block/mmcblk0/device/cid", &format!("{}\n", "0a".repeat(16)));
        kernel.disk("devices/mmc0/block/mmcblk0boot0", "179:8", "0");
        kernel
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn link(&self, from: &str, to: &str) {
        let from = self.view.sys.join(from);
        fs::create_dir_all(from.parent().unwrap()).unwrap();
        symlink(self.view.sys.join(to), from).unwrap();
    }

    fn disk(&self, folder: &str, number: &str, removable: &str) {
        self.write(&format!("sys/{folder}/dev"), number);
        self.write(&format!("sys/{folder}/removable"), removable);
        self.write(&format!("sys/{folder}/size"), "2048\n");
        self.write(&format!("sys/{folder}/ro"), "0\n");
        self.write(&format!("sys/{folder}/diskseq"), "7\n");
        self.write(&format!("sys/{folder}/device/.keep"), "");
        self.link(&format!("dev/block/{number}"), folder);
    }

    fn partition(&self, disk: &str, name: &str, number: &str) {
        self.write(&format!("sys/{disk}/{name}/dev"), number);
        self.write(&format!("sys/{disk}/{name}/partition"), "1");
        self.link(&format!("dev/block/{number}"), &format!("{disk}/{name}"));
    }

    fn mounted(&self, lines: &[&str]) {
        self.write("proc/self/mountinfo", &lines.join("\n"));
    }

    fn facts(&self, number: &str) -> DeviceFacts {
        block_facts(&self.view, Path::new("/dev/x"), parse_number(number).unwrap(), None).unwrap()
    }
}

#[test]
fn a_card_in_a_reader_is_described_by_what_the_kernel_says() {
    let facts = FakeKernel::new().facts("8:16");
    assert_eq!(facts.class, DeviceClass::Removable);
    assert_eq!(facts.port_path, Path::new("devices/usb1/1-2/block/sdb"));
    assert_eq!(facts.model, "Generic SD[31m Reader", "no control characters reach a terminal");
    assert_eq!((facts.size(), facts.identity.disk_sequence), (1 << 20, 7));
    assert!(!facts.holds_root && facts.mounted_at.is_empty() && !facts.read_only);
}

#[test]
fn kinds_of_disks_are_told_apart() {
    let kernel = FakeKernel::new();
    let class = |number| kernel.facts(number).class;
    assert_eq!(class("8:0"), DeviceClass::FixedDisk);
    assert_eq!(class("8:17"), DeviceClass::Partition);
    assert_eq!(class("253:0"), DeviceClass::Other);
    assert_eq!(class("179:0"), DeviceClass::Mmc);
    assert_eq!(class("179:8"), DeviceClass::Partition, "a hardware boot area");
    assert_eq!(kernel.facts("179:0").cid, Some("0a".repeat(16)));
}

#[test]
fn a_mount_of_a_partition_or_of_what_is_made_of_one_counts_for_the_disk() {
    let kernel = FakeKernel::new();
    kernel.mounted(&[
        "22 1 8:17 / /media/a\\040card rw,relatime shared:1 - vfat /dev/sdb1 rw",
        "23 1 253:0 / /srv rw - ext4 /dev/mapper/srv rw",
        "24 1 0:5 / /proc rw - proc proc rw",
    ]);
    assert_eq!(kernel.facts("8:16").mounted_at, [Path::new("/media/a card")]);
    assert_eq!(kernel.facts("8:0").mounted_at, [Path::new("/srv")]);
    assert!(kernel.facts("179:0").mounted_at.is_empty());
}

#[test]
fn the_root_disk_is_found_below_partitions_and_mapped_devices() {
    let kernel = FakeKernel::new();
    kernel.mounted(&["21 1 253:0 / / rw - ext4 /dev/mapper/root rw"]);
    assert!(kernel.facts("8:0").holds_root, "the disk of the partition of the mapped device");
    assert!(kernel.facts("8:1").holds_root && kernel.facts("253:0").holds_root);
    assert!(!kernel.facts("8:16").holds_root);
    kernel.mounted(&["21 1 8:17 / / rw - ext4 /dev/sdb1 rw"]);
    assert!(kernel.facts("8:16").holds_root && !kernel.facts("8:0").holds_root);
}

#[test]
fn devices_that_hold_each_other_end_the_search() {
    let kernel = FakeKernel::new();
    kernel.link("devices/virtual/block/dm-0/holders/sda1", "devices/ata1/block/sda/sda1");
    kernel.link("devices/ata1/block/sda/sda1/slaves/dm-0", "devices/virtual/block/dm-0");
    assert_eq!(family(&kernel.view, parse_number("8:0").unwrap()).len(), 3);
    assert_eq!(ancestors(&kernel.view, parse_number("253:0").unwrap()).len(), 3);
}

#[test]
fn a_file_that_is_swap_or_under_a_mounted_loop_device_is_known() {
    let kernel = FakeKernel::new();
    let file = kernel.folder.path().join("a file");
    fs::write(&file, [0; 4096]).unwrap();
    let facts = || gather_open(&kernel.view, &file, None).unwrap();
    assert_eq!(
        (facts().class, facts().size(), facts().exclusive),
        (DeviceClass::PlainFile, 4096, Exclusive::NotTried)
    );
    let escaped = file.to_str().unwrap().replace(' ', "\\040");
    kernel.write("proc/swaps", &format!("Filename Type Size Used Priority\n{escaped} file 4 0 -2\n"));
    assert_eq!(facts().swap, [file.as_path()]);
    kernel.disk("devices/virtual/block/loop3", "7:3", "0");
    kernel.write("sys/devices/virtual/block/loop3/loop/backing_file", file.to_str().unwrap());
    kernel.link("block/loop3", "devices/virtual/block/loop3");
    kernel.mounted(&["30 1 7:3 / /mnt ro - ext4 /dev/loop3 ro"]);
    assert_eq!(facts().exclusive, Exclusive::Busy);
    assert_eq!(facts().mounted_at, [Path::new("/mnt")]);
}

#[test]
fn lines_of_mountinfo_that_make_no_sense_are_skipped() {
    for line in ["", "1", "1 2 3", "1 2 x:y / /a", "1 2 8:1 /", " - ", "1 2 8: / / - - -"] {
        assert!(parse_mount(line).is_none_or(|m| m.device != 0), "{line:?}");
    }
    let mount = parse_mount("36 35 98:0 /mnt1 /mnt\\0112 rw,noatime master:1 - ext3 /dev/root rw").unwrap();
    assert_eq!(mount.place, Path::new("/mnt\t2"));
}
