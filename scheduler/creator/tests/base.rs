//! Images that start from a base: its partitions stay, the data partition comes after them.

#![allow(clippy::unwrap_used)] // helpers of tests

mod common;

use std::fs::{self, File};
use std::io::{Cursor, Read, Write};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;

use cardshop_creator::Built;
use cardshop_protocol::index::ExtentKind;
use common::server::{Server, file};
use common::{Bench, e2, noise, read_data};

const MIB: u64 = 1 << 20;
/// The base: a boot loader at 512 KiB, FAT32 from 1 MiB, ext4 from 48 MiB to its end at 60 MiB.
const LOADER: u64 = 512 * 1024;
const FAT: Range<u64> = MIB..48 * MIB;
const ROOT: Range<u64> = 48 * MIB..60 * MIB;
/// The next multiple of 8 MiB.
const DATA: u64 = 64 * MIB;
/// FAT32s whose data area begins on a multiple of 4096 of the image, and between two.
const ALIGNED: u32 = 628 * 130 + 6;
const ODD: u32 = 630 * 130 + 6;

fn fat(sectors: u32) -> Vec<u8> {
    let mut bytes = Cursor::new(vec![0; (FAT.end - FAT.start) as usize]);
    let options = fatfs::FormatVolumeOptions::new().fat_type(fatfs::FatType::Fat32).bytes_per_cluster(512);
    fatfs::format_volume(&mut bytes, options.total_sectors(sectors)).unwrap();
    bytes.set_position(0);
    let fs = fatfs::FileSystem::new(&mut bytes, fatfs::FsOptions::new()).unwrap();
    fs.root_dir().create_file("kernel.img").unwrap().write_all(&noise(3, 100_001)).unwrap();
    fs.unmount().unwrap();
    bytes.into_inner()
}

fn partition(kind: u8, range: &Range<u64>) -> [u8; 16] {
    let mut entry = [0; 16];
    entry[4] = kind;
    entry[8..12].copy_from_slice(&((range.start / 512) as u32).to_le_bytes());
    entry[12..].copy_from_slice(&(((range.end - range.start) / 512) as u32).to_le_bytes());
    entry
}

/// The base's bytes.
fn base(bench: &Bench, fat_sectors: u32) -> Vec<u8> {
    bench.write("base.img", &[]);
    let path = bench.path("base.img");
    let image = fs::OpenOptions::new().write(true).open(&path).unwrap();
    image.set_len(ROOT.end).unwrap();
    let mut sector = noise(9, 512);
    sector[446..462].copy_from_slice(&partition(0x0c, &FAT));
    sector[462..478].copy_from_slice(&partition(0x83, &ROOT));
    sector[478..510].fill(0);
    sector[510..].copy_from_slice(&[0x55, 0xaa]);
    image.write_all_at(&sector, 0).unwrap();
    image.write_all_at(&noise(4, 8192), LOADER).unwrap();
    image.write_all_at(&fat(fat_sectors), FAT.start).unwrap();
    let root = bench.path("root.ext4");
    fs::write(&root, []).unwrap();
    File::options().write(true).open(&root).unwrap().set_len(ROOT.end - ROOT.start).unwrap();
    fs::create_dir_all(bench.path("rootfs")).unwrap();
    bench.write("rootfs/init", &noise(5, 50_000));
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
    let made = std::process::Command::new("env")
        .args([&format!("PATH={path}"), "mke2fs", "-q", "-t", "ext4", "-d"])
        .args([bench.path("rootfs"), root.clone()])
        .status();
    assert!(made.unwrap().success());
    // Old bytes in a free block: they need not travel.
    let mut root_bytes = fs::read(root).unwrap();
    let end = root_bytes.len();
    root_bytes[end - 65536..].fill(0xee);
    image.write_all_at(&root_bytes, ROOT.start).unwrap();
    fs::read(bench.path("base.img")).unwrap()
}

fn recipe(source: &str, more: &str) -> String {
    format!(
        "base: {{source: \"{source}\"{more}}}\nfiles: [{{to: /data/a, content: hello}}]\noffspot: {{ssid: x}}\n"
    )
}

fn boot_file(image: &Path, name: &str) -> Vec<u8> {
    let mut bytes = vec![0; (FAT.end - FAT.start) as usize];
    File::open(image).unwrap().read_exact_at(&mut bytes, FAT.start).unwrap();
    let fs = fatfs::FileSystem::new(Cursor::new(bytes), fatfs::FsOptions::new()).unwrap();
    let mut content = Vec::new();
    fs.root_dir().open_file(name).unwrap().read_to_end(&mut content).unwrap();
    content
}

fn assert_holds_base_and_data(built: &Built, base: &[u8]) {
    let image = &built.image;
    let mut start = vec![0; MIB as usize];
    File::open(image).unwrap().read_exact_at(&mut start, 0).unwrap();
    assert_eq!(start[..446], base[..446], "boot code and disk signature stay");
    assert_eq!(start[446..478], base[446..478], "the base's partitions stay");
    assert_eq!(start[478 + 4], 0x83);
    assert_eq!(start[512..], base[512..MIB as usize], "the boot loader stays");
    assert_eq!(read_data(image, ROOT.start, "/init"), noise(5, 50_000));
    assert_eq!(boot_file(image, "kernel.img"), noise(3, 100_001));
    assert_eq!(boot_file(image, "offspot.yaml"), b"ssid: x\n");
    assert_eq!(read_data(image, DATA, "/a"), b"hello");
    assert!(e2("e2fsck", &["-f", "-n"], image, DATA).0 && e2("e2fsck", &["-f", "-n"], image, ROOT.start).0);
}

#[test]
fn a_base_keeps_its_partitions_and_free_blocks_do_not_travel() {
    let bench = Bench::new();
    let base = base(&bench, ALIGNED);
    let built = bench.build("card.img", &recipe("base.img", ""));
    assert_holds_base_and_data(&built, &base);
    let names: Vec<_> = built.index.passport().iter().map(|p| p.name.as_str()).collect();
    assert_eq!((names, built.notes.len()), (vec!["CARD.JSN", "README.TXT"], 0), "{:?}", built.notes);
    let listed =
        |range: Range<u64>| built.index.extents_in(range).filter(|e| e.kind == ExtentKind::Data).count();
    assert_eq!(listed(ROOT.end - 65536..ROOT.end), 0, "free blocks of the base's root");
    assert_eq!(listed(LOADER..LOADER + 8192), 1, "the boot loader");
}

#[test]
fn free_blocks_beyond_a_partition_are_not_taken_for_free() {
    let bench = Bench::new();
    base(&bench, ALIGNED);
    // The root's file system reaches further than the table says.
    let image = fs::OpenOptions::new().write(true).open(bench.path("base.img")).unwrap();
    image.write_all_at(&partition(0x83, &(ROOT.start..ROOT.end - MIB)), 462).unwrap();
    let built = bench.build("card.img", &recipe("base.img", ""));
    let beyond = built.index.extents_in(ROOT.end - 65536..ROOT.end);
    assert_eq!(beyond.filter(|e| e.kind == ExtentKind::Data).count(), 1);
    let mut kept = vec![0; 65536];
    File::open(&built.image).unwrap().read_exact_at(&mut kept, ROOT.end - 65536).unwrap();
    assert!(kept.iter().all(|b| *b == 0xee), "its bytes stay");
}

#[test]
fn a_fat_that_begins_anywhere_carries_a_passport_too() {
    let bench = Bench::new();
    let base = base(&bench, ODD);
    let built = bench.build("card.img", &recipe("base.img", ""));
    assert_holds_base_and_data(&built, &base);
    assert!(built.index.passport().iter().all(|p| p.offset % 4096 == 0) && built.index.passport().len() == 2);
}

#[test]
fn a_base_without_fat32_gives_an_image_without_passport_and_says_so() {
    let bench = Bench::new();
    let mut base = base(&bench, ALIGNED);
    base[446 + 4] = 0x0e; // FAT16
    bench.write("base.img", &base);
    let error = bench.try_build("card.img", &recipe("base.img", "")).unwrap_err();
    assert_eq!(error.to_string(), "the base has no FAT32 boot partition, offspot.yaml has nowhere to go");
    let built = bench.build("card.img", "base: base.img");
    assert!(built.index.passport().is_empty());
    assert!(built.notes[0].contains("carries no passport"), "{:?}", built.notes);
}

#[test]
fn packed_bases_from_files_and_servers_give_the_same_image() {
    let bench = Bench::new();
    let base = base(&bench, ALIGNED);
    let id = bench.build("card.img", &recipe("base.img", "")).index.id();
    let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 0);
    xz.write_all(&base).unwrap();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&base).unwrap();
    let packed = [
        ("base.img.xz", xz.finish().unwrap()),
        ("base.img.gz", gzip.finish().unwrap()),
        ("base.img.zst", zstd::stream::encode_all(&base[..], 1).unwrap()),
    ];
    for (name, bytes) in packed {
        bench.write(name, &bytes);
        let built = bench.build("card.img", &recipe(name, ""));
        assert_holds_base_and_data(&built, &base);
        assert_eq!(built.index.image_size(), base.len().next_multiple_of(8 << 20) as u64 + (16 << 20));
        let digest = blake3::hash(&bytes).to_hex();
        let server = Server::start(move |request| file(request, &bytes, "v1"));
        let more = format!(", size: {}, checksum: {{algo: blake3, value: {digest}}}", base.len());
        let fetched = bench.build("card.img", &recipe(&server.url(&format!("/{name}")), &more));
        assert_holds_base_and_data(&fetched, &base);
        let again = bench.build("card.img", &recipe(&server.url(&format!("/{name}")), &more));
        assert_eq!(again.index.id(), fetched.index.id());
    }
    assert_eq!(bench.build("card.img", &recipe("base.img", "")).index.id(), id);
}

#[test]
fn bases_that_cannot_take_a_data_partition_are_refused() {
    let bench = Bench::new();
    let good = base(&bench, ALIGNED);
    let refusal = |bytes: &[u8], more: &str| {
        bench.write("bad.img", bytes);
        bench.try_build("card.img", &recipe("bad.img", more)).unwrap_err().to_string()
    };
    let mut none = good.clone();
    none[511] = 0;
    assert!(refusal(&none, "").contains("no partition table"));
    let mut gpt = good.clone();
    gpt[446 + 4] = 0xee;
    assert_eq!(refusal(&gpt, ""), "the base has a GPT, only an MBR is supported");
    let mut full = good.clone();
    full[478..494].copy_from_slice(&partition(0x83, &(0..512)));
    full[494..510].copy_from_slice(&partition(0x83, &(0..512)));
    assert!(refusal(&full, "").contains("all four partitions of the base are taken"));
    let cut = &good[..good.len() - 512];
    let end = ROOT.end;
    assert_eq!(
        refusal(cut, ""),
        format!("partition 2 of the base ends at byte {end}, the image has {}", end - 512)
    );
    assert!(refusal(&good, ", size: 512").ends_with(&format!("{end} bytes, expected 512")));
    assert!(refusal(b"", "").contains("cannot be read"));
    bench.write("bad.img.xz", b"this is no xz");
    let error = bench.try_build("card.img", &recipe("bad.img.xz", "")).unwrap_err();
    assert!(error.to_string().contains("bad.img.xz: cannot be read"), "{error}");
    bench.write("short.img.zst", &zstd::stream::encode_all(&good[..], 1).unwrap());
    let error = bench.try_build("card.img", &recipe("short.img.zst", ", size: 4096")).unwrap_err();
    assert!(error.to_string().starts_with("the base has"), "{error}");
    let error = bench.try_build("card.img", &recipe("http://127.0.0.1:1/b.img.xz", "")).unwrap_err();
    assert!(!error.is_permanent() && error.to_string().contains("given up"), "{error}");
}

/// What the root grows to, and where the data partition begins then.
const GROWN: u64 = 100 * MIB;
const GROWN_DATA: u64 = (ROOT.start + GROWN).next_multiple_of(8 * MIB);

fn assert_root_grew(built: &Built, base: &[u8]) {
    let image = &built.image;
    let mut sector = [0; 512];
    File::open(image).unwrap().read_exact_at(&mut sector, 0).unwrap();
    assert_eq!(sector[446..462], base[446..462], "the boot partition stays");
    assert_eq!(sector[462..478][8..], partition(0x83, &(ROOT.start..ROOT.start + GROWN))[8..]);
    assert_eq!(read_data(image, ROOT.start, "/init"), noise(5, 50_000));
    assert_eq!(read_data(image, GROWN_DATA, "/a"), b"hello");
    for offset in [ROOT.start, GROWN_DATA] {
        let (clean, said) = e2("e2fsck", &["-f", "-n"], image, offset);
        assert!(clean, "{said}");
    }
    let (_, told) = e2("dumpe2fs", &["-h"], image, ROOT.start);
    let field = |name: &str| -> u64 {
        told.lines().find_map(|l| l.strip_prefix(name)).unwrap().trim().parse().unwrap()
    };
    assert_eq!(field("Block count:") * field("Block size:"), GROWN, "the file system takes it all");
    let room: u64 = built.index.extents_in(ROOT.end..ROOT.start + GROWN).map(|e| e.length).sum();
    assert!(room < 8 * MIB, "free blocks of the grown root travel: {room} bytes");
}

#[test]
fn a_root_grows_before_the_data_and_its_file_system_is_clean() {
    let bench = Bench::new();
    let base = base(&bench, ALIGNED);
    let more = format!(", rootfs_size: {GROWN}");
    let built = bench.build("card.img", &recipe("base.img", &more));
    assert_root_grew(&built, &base);
    assert_eq!(built.index.image_size(), GROWN_DATA + (16 << 20));
    assert_eq!(bench.build("card.img", &recipe("base.img", &more)).index.id(), built.index.id());
    // Packed and far away nobody knows where its root begins before it is here.
    let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 0);
    xz.write_all(&base).unwrap();
    let packed = xz.finish().unwrap();
    let server = Server::start(move |request| file(request, &packed, "v1"));
    let more = format!("{more}, size: {}", base.len());
    let far = recipe(&server.url("/base.img.xz"), &more);
    let fetched = bench.build("card.img", &far);
    assert_root_grew(&fetched, &base);
    assert_eq!(bench.build("card.img", &far).index.id(), fetched.index.id());
    let same = format!(", rootfs_size: {}", ROOT.end - ROOT.start);
    assert_holds_base_and_data(&bench.build("card.img", &recipe("base.img", &same)), &base);
}

#[test]
fn a_root_that_cannot_grow_is_refused_and_says_why() {
    let bench = Bench::new();
    let good = base(&bench, ALIGNED);
    let refusal = |size: u64| {
        let more = format!(", rootfs_size: {size}");
        let error = bench.try_build("card.img", &recipe("base.img", &more)).unwrap_err();
        assert!(error.is_permanent(), "{error}");
        error.to_string()
    };
    assert_eq!(
        refusal(4 * MIB),
        "base.rootfs_size is 4194304 bytes, the base's root partition has 12582912 already: it can only grow"
    );
    let mut swapped = good.clone();
    swapped[462 + 4] = 0x0c;
    bench.write("base.img", &swapped);
    assert!(refusal(GROWN).contains("ends with partition 2, which is none of Linux's (kind 0x0c)"));
    // Blocks that two files claim: no file system to make larger.
    let mut broken = good.clone();
    let root = ROOT.start as usize;
    broken[root + 1024 + 12..root + 1024 + 16].fill(0x11);
    bench.write("base.img", &broken);
    assert_eq!(refusal(GROWN), "the base's root partition cannot grow to base.rootfs_size");
    assert!(!bench.path("card.img").exists());
}
