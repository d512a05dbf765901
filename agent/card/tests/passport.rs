//! Passports on FAT partitions that another implementation (fatfs) made, and on partitions that lie.
#![allow(clippy::unwrap_used)] // a test helper that cannot unwrap reads worse and asserts less

use std::io::{Cursor, Write};
use std::sync::OnceLock;

use cardshop_card::memory::{FaultPlan, MemoryCard};
use cardshop_card::{
    CARD_FILE, CardError, FileSource, Job, PassportError, PassportFiles, README_FILE, StopFlag, index_file,
    is_freshly_formatted, map_file, read_passport, read_passport_of, write_card,
};
use cardshop_protocol::ids::{ApplianceId, ImageId, ObjectId};
use cardshop_protocol::index::PassportEntry;
use cardshop_protocol::message::{Passport, Verify, Wipe};
use cardshop_protocol::time::Timestamp;
use fatfs::{FatType, FileSystem, FormatVolumeOptions, FsOptions};
use proptest::prelude::*;

const MIB: usize = 1 << 20;

fn passport(copy: u32) -> Passport {
    Passport {
        v: 1,
        uid: ObjectId::from_parts(1, 2),
        order: ObjectId::from_parts(3, 4),
        copy,
        total: 12,
        image: ImageId([7; 32]),
        written_at: Timestamp::from_ms(1_800_000_000_000),
        shop: "Card Shop".to_owned(),
        appliance: ApplianceId([9; 8]),
        result: "verified".to_owned(),
        signature: "s".repeat(86),
    }
}

/// A partition with some files in its root folder and `CARD.JSN` among them.
fn volume(kind: FatType, size: usize, card: &[u8]) -> Vec<u8> {
    let mut bytes = Cursor::new(vec![0; size]);
    let options = FormatVolumeOptions::new().fat_type(kind).bytes_per_cluster(512);
    fatfs::format_volume(&mut bytes, options).unwrap();
    {
        let volume = FileSystem::new(&mut bytes, FsOptions::new()).unwrap();
        let root = volume.root_dir();
        for name in ["a file with a long name.txt", "config.txt", CARD_FILE, README_FILE] {
            let contents = if name == CARD_FILE { card } else { name.as_bytes() };
            root.create_file(name).unwrap().write_all(contents).unwrap();
        }
        root.create_dir("overlays").unwrap();
    }
    bytes.into_inner()
}

/// A card with an MBR and one FAT partition as its second entry.
fn card(kind: FatType, size: usize, contents: &[u8]) -> Vec<u8> {
    let volume = volume(kind, size, contents);
    let mut bytes = vec![0; 16 * 512];
    let entry = &mut bytes[446 + 16..446 + 32];
    entry[4] = 0x0c;
    entry[8..12].copy_from_slice(&16_u32.to_le_bytes());
    entry[12..].copy_from_slice(&((size / 512) as u32).to_le_bytes());
    bytes[510..512].copy_from_slice(&[0x55, 0xaa]);
    bytes.extend(volume);
    bytes
}

fn read(bytes: Vec<u8>) -> Result<Option<Passport>, PassportError> {
    read_passport_of(&mut MemoryCard::new(bytes, 512, FaultPlan::default()).open())
}

/// The passport as JSON, padded to 4096 with spaces.
fn padded(copy: u32) -> Vec<u8> {
    let mut json = serde_json::to_vec(&passport(copy)).unwrap();
    json.resize(4096, b' ');
    json
}

#[test]
fn a_passport_is_read_from_fat16_and_fat32() {
    for (kind, size) in [(FatType::Fat16, 4 * MIB), (FatType::Fat32, 40 * MIB)] {
        assert_eq!(read(card(kind, size, &padded(3))).unwrap(), Some(passport(3)), "{kind:?}");
    }
}

/// A card with a GPT, whose second entry is the volume.
fn gpt_card(volume: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 64 * 512];
    bytes[446 + 4] = 0xee;
    bytes[510..512].copy_from_slice(&[0x55, 0xaa]);
    let header = &mut bytes[512..1024];
    header[..8].copy_from_slice(b"EFI PART");
    header[72..80].copy_from_slice(&2_u64.to_le_bytes());
    header[80..84].copy_from_slice(&128_u32.to_le_bytes());
    header[84..88].copy_from_slice(&128_u32.to_le_bytes());
    let entry = &mut bytes[1024 + 128..1024 + 256];
    entry[..4].copy_from_slice(&[0xa2, 0xa0, 0xd0, 0xeb]);
    entry[4..16].copy_from_slice(&[0xe5, 0xb9, 0x33, 0x44, 0x87, 0xc0, 0x68, 0xb6, 0xb7, 0x26, 0x99, 0xc7]);
    entry[32..40].copy_from_slice(&64_u64.to_le_bytes());
    entry[40..48].copy_from_slice(&(64 + volume.len() as u64 / 512 - 1).to_le_bytes());
    bytes.extend(volume);
    bytes
}

#[test]
fn a_passport_is_read_from_a_gpt_and_from_a_card_without_partitions() {
    for (kind, size) in [(FatType::Fat16, 4 * MIB), (FatType::Fat32, 40 * MIB)] {
        let volume = volume(kind, size, &padded(4));
        assert_eq!(read(volume.clone()).unwrap(), Some(passport(4)), "{kind:?} on the whole card");
        assert_eq!(read(gpt_card(&volume)).unwrap(), Some(passport(4)), "{kind:?} in a GPT");
    }
}

#[test]
fn a_gpt_that_lies_is_no_reason_to_read_much_or_to_panic() {
    let good = gpt_card(&volume(FatType::Fat16, 4 * MIB, &padded(4)));
    for place in (512 + 72..512 + 88).chain(1024 + 128..1024 + 176) {
        for wrong in [0, 1, 0x7f, 0xff] {
            let mut bytes = good.clone();
            bytes[place] = wrong;
            let card = MemoryCard::new(bytes, 512, FaultPlan::default());
            let _ = read_passport_of(&mut card.open());
            assert!(card.requests() < 4 * 520, "byte {place} = {wrong}: {} requests", card.requests());
        }
    }
}

#[test]
fn a_card_without_a_passport_has_none() {
    assert_eq!(read(vec![0; 4 * MIB]).unwrap(), None, "an empty card");
    assert_eq!(read(vec![0xff; 512]).unwrap(), None, "a tiny one");
    assert_eq!(read(card(FatType::Fat16, 4 * MIB, &[b' '; 4096])).unwrap(), None, "a blank passport");
    assert_eq!(read(card(FatType::Fat16, 4 * MIB, &[])).unwrap(), None, "an empty one");
}

#[test]
fn a_damaged_passport_is_said_to_be_damaged() {
    let error = read(card(FatType::Fat16, 4 * MIB, b"{\"v\":1,")).unwrap_err();
    assert!(matches!(error, PassportError::Damaged(_)), "{error}");
    let error = read(card(FatType::Fat16, 4 * MIB, &[0xc3; 100])).unwrap_err();
    assert!(matches!(error, PassportError::Damaged(_)), "{error}");
}

#[test]
fn a_card_that_fails_is_not_a_card_without_a_passport() {
    let plan = FaultPlan { io_error_at: Some(16 * 512), ..FaultPlan::default() };
    let card = MemoryCard::new(card(FatType::Fat16, 4 * MIB, &padded(1)), 512, plan);
    let error = read_passport_of(&mut card.open()).unwrap_err();
    assert!(matches!(error, PassportError::Card(CardError::Io { .. })), "{error}");
}

#[test]
fn a_passport_is_found_with_few_requests() {
    let card = MemoryCard::new(card(FatType::Fat32, 40 * MIB, &padded(1)), 512, FaultPlan::default());
    read_passport_of(&mut card.open()).unwrap();
    assert!(card.requests() < 20, "{} requests", card.requests());
}

#[test]
fn a_passport_written_in_place_is_read_by_both_implementations() {
    // Preallocated on the image with a mark, which tells where its contents lie.
    let marked = |name: &str| name.bytes().cycle().take(4096).collect::<Vec<u8>>();
    let mut image = card(FatType::Fat16, 4 * MIB, &marked("mark"));
    let place = image.windows(4096).position(|w| *w == marked("mark")).unwrap();
    // The contents must lie on a multiple of 4096: move the partition.
    let shift = (4096 - place % 4096) % 4096;
    assert_eq!(shift % 512, 0);
    image.splice(512..512, vec![0; shift]);
    let start = (16 + shift / 512) as u32;
    image[446 + 16 + 8..][..4].copy_from_slice(&start.to_le_bytes());

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("image");
    std::fs::write(&path, &image).unwrap();
    let mut map = map_file(&std::fs::File::open(&path).unwrap()).unwrap();
    let entry = PassportEntry { name: CARD_FILE.to_owned(), offset: (place + shift) as u64, length: 4096 };
    let split = entry.offset..entry.offset + entry.length;
    let pieces = map.extents.iter().flat_map(|e| {
        let (mut before, mut after) = (*e, *e);
        before.length = e.end().min(split.start).saturating_sub(e.offset);
        after.offset = e.offset.max(split.end);
        after.length = e.end().saturating_sub(after.offset);
        [before, after]
    });
    map.extents = pieces.filter(|e| e.length > 0).collect();
    map.passport = vec![entry];
    let index = index_file(&path, Some(map), None, &mut |_, _| ()).unwrap();

    let source = FileSource::open(&path, &index).unwrap();
    let make = || PassportFiles { card_jsn: serde_json::to_vec(&passport(5)).unwrap(), readme: Vec::new() };
    let (wipe, verify) = (Wipe::None, Verify::Full);
    let job = Job { index: &index, source: &source, wipe, verify, passport: Some(&make) };
    let card = MemoryCard::new(vec![0xdd; 8 * MIB], 512, FaultPlan::default());
    let outcome = write_card(&mut card.claim(), &job, &StopFlag::new(), &mut |_| ()).unwrap();
    assert!(outcome.passport_written);
    assert_eq!(read_passport_of(&mut card.open()).unwrap(), Some(passport(5)));

    let bytes = card.bytes();
    std::fs::write(&path, &bytes).unwrap();
    assert_eq!(read_passport(&path).unwrap(), Some(passport(5)), "from a file");
    let partition = Cursor::new(bytes[start as usize * 512..][..4 * MIB].to_vec());
    let volume = FileSystem::new(partition, FsOptions::new()).unwrap();
    let mut text = String::new();
    std::io::Read::read_to_string(&mut volume.root_dir().open_file("card.jsn").unwrap(), &mut text).unwrap();
    assert_eq!(text.len(), 4096);
    assert_eq!(serde_json::from_str::<Passport>(&text).unwrap(), passport(5));
}

/// A good card, made once: the random ones are changed copies.
fn good() -> &'static Vec<u8> {
    static CARD: OnceLock<Vec<u8>> = OnceLock::new();
    CARD.get_or_init(|| card(FatType::Fat16, 3 * MIB, &padded(1)))
}

/// Where hostile bytes matter: MBR, boot sector, tables, root folder.
fn places() -> impl Strategy<Value = usize> {
    let boot = 16 * 512_usize;
    prop_oneof![
        446_usize..512,
        boot..boot + 64,
        boot + 510..boot + 512,
        boot + 512..boot + 60 * 512,
        boot + 1232 * 512..boot + 1234 * 512
    ]
}

/// Turns the boot sector into that of a FAT32 volume, whose root folder is what lies there.
fn make_fat32(bytes: &mut [u8]) {
    const BLOCKS: u32 = 70_000;
    let boot = 16 * 512;
    bytes[446 + 16 + 12..446 + 32].copy_from_slice(&BLOCKS.to_le_bytes());
    bytes[boot + 14..boot + 16].copy_from_slice(&32_u16.to_le_bytes());
    bytes[boot + 17..boot + 24].fill(0);
    bytes[boot + 32..boot + 36].copy_from_slice(&BLOCKS.to_le_bytes());
    bytes[boot + 36..boot + 40].copy_from_slice(&600_u32.to_le_bytes());
    bytes[boot + 40..boot + 52].copy_from_slice(&[0, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0]);
    let info = boot + 512;
    bytes[info..info + 4].copy_from_slice(b"RRaA");
    bytes[info + 484..info + 488].copy_from_slice(b"rrAa");
    bytes[info + 508..info + 512].copy_from_slice(&[0, 0, 0x55, 0xaa]);
    let root = boot + (32 + 2 * 600) * 512;
    bytes[root..root + 11].copy_from_slice(b"CARD    JSN");
    bytes[root + 26] = 3;
    bytes[root + 29] = 2;
    bytes[root + 512..root + 514].copy_from_slice(b"{}");
}

#[test]
fn the_fat32_volume_of_the_random_test_is_one() {
    let mut bytes = good().clone();
    make_fat32(&mut bytes);
    assert!(matches!(read(bytes), Err(PassportError::Damaged(_))), "its passport is found, and is none");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn hostile_volumes_never_panic_and_end_after_bounded_reads(
        changes in proptest::collection::vec((places(), any::<u8>()), 1..24),
        fat32 in any::<bool>(),
    ) {
        let mut bytes = good().clone();
        if fat32 {
            make_fat32(&mut bytes);
        }
        for (place, byte) in changes {
            bytes[place] = byte;
        }
        let card = MemoryCard::new(bytes, 512, FaultPlan::default());
        let _ = read_passport_of(&mut card.open());
        prop_assert!(card.requests() < 4 * 520, "{} requests", card.requests());
    }
}

#[test]
fn no_single_wrong_byte_of_mbr_or_boot_sector_panics() {
    let boot = 16 * 512;
    for fat32 in [false, true] {
        let mut bytes = good().clone();
        if fat32 {
            make_fat32(&mut bytes);
        }
        for place in (446..512).chain(boot + 11..boot + 64) {
            let right = bytes[place];
            for wrong in [0, 1, 3, 0x7f, 0x80, 0xff] {
                bytes[place] = wrong;
                let card = MemoryCard::new(bytes.clone(), 512, FaultPlan::default());
                let _ = read_passport_of(&mut card.open());
                assert!(card.requests() < 4 * 520, "byte {place} = {wrong}: {} requests", card.requests());
            }
            bytes[place] = right;
        }
    }
}

#[test]
fn a_chain_that_leaves_the_volume_ends_the_file_and_not_the_program() {
    let mut bytes = card(FatType::Fat16, 4 * MIB, &padded(1));
    let boot = 16 * 512;
    let table = boot + 512 * usize::from(u16::from_le_bytes([bytes[boot + 14], bytes[boot + 15]]));
    let entry = bytes.windows(11).position(|w| w == b"CARD    JSN").unwrap();
    let first = usize::from(u16::from_le_bytes([bytes[entry + 26], bytes[entry + 27]]));
    for next in [0_u16, 1, first as u16, 0xfff0, 0xfff7, 0xffff] {
        bytes[table + first * 2..table + first * 2 + 2].copy_from_slice(&next.to_le_bytes());
        assert_eq!(read(bytes.clone()).unwrap(), None, "{next:#x}");
    }
    for cluster in [0_u16, 1, 0xfff0] {
        bytes[entry + 26..entry + 28].copy_from_slice(&cluster.to_le_bytes());
        assert_eq!(read(bytes.clone()).unwrap(), None, "{cluster:#x}");
    }
}

#[test]
fn a_chain_that_runs_in_a_circle_ends() {
    // The root folder of a FAT32 volume: its first cluster is followed by the second, that by the first.
    let mut bytes = card(FatType::Fat32, 40 * MIB, &padded(1));
    let boot = 16 * 512;
    let reserved = usize::from(u16::from_le_bytes([bytes[boot + 14], bytes[boot + 15]]));
    let root = bytes[boot + 44];
    let table = boot + reserved * 512;
    let next = root + 1;
    bytes[table + usize::from(root) * 4..][..4].copy_from_slice(&[next, 0, 0, 0]);
    bytes[table + usize::from(next) * 4..][..4].copy_from_slice(&[root, 0, 0, 0]);
    // No entry of the two clusters ends the folder or is the passport.
    let copies = usize::from(bytes[boot + 16]);
    let table_size = u32::from_le_bytes(bytes[boot + 36..boot + 40].try_into().unwrap()) as usize;
    let data = table + copies * table_size * 512;
    for cluster in [root, next] {
        bytes[data + (usize::from(cluster) - 2) * 512..][..512].fill(b'A');
    }
    assert_eq!(read(bytes).unwrap(), None);
}

/// A card whose MBR lists `volumes`, each with its type, one after the other.
fn card_of(volumes: &[(u8, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = vec![0; 16 * 512];
    bytes[510..512].copy_from_slice(&[0x55, 0xaa]);
    for (n, (kind, volume)) in volumes.iter().enumerate() {
        let start = (bytes.len() / 512) as u32;
        let entry = &mut bytes[446 + 16 * n..][..16];
        entry[4] = *kind;
        entry[8..12].copy_from_slice(&start.to_le_bytes());
        entry[12..].copy_from_slice(&((volume.len() / 512) as u32).to_le_bytes());
        bytes.extend(volume);
    }
    bytes
}

#[test]
fn a_card_fresh_from_the_factory_is_told_from_one_with_files() {
    let fresh = |bytes: Vec<u8>| {
        is_freshly_formatted(&mut MemoryCard::new(bytes, 512, FaultPlan::default()).open()).unwrap()
    };
    let empty = |kind, size, label: Option<[u8; 11]>| {
        let mut bytes = Cursor::new(vec![0; size]);
        let options = FormatVolumeOptions::new().fat_type(kind).bytes_per_cluster(512);
        let options = match label {
            Some(label) => options.volume_label(label),
            None => options,
        };
        fatfs::format_volume(&mut bytes, options).unwrap();
        bytes.into_inner()
    };
    let small = empty(FatType::Fat16, 4 * MIB, None);
    assert!(fresh(card_of(&[(0x0e, small.clone())])));
    assert!(fresh(card_of(&[(0x0c, empty(FatType::Fat32, 40 * MIB, Some(*b"NEW VOLUME ")))])));
    assert!(!fresh(card(FatType::Fat16, 4 * MIB, b"x")), "files");
    assert!(!fresh(card(FatType::Fat32, 40 * MIB, b"x")), "files");
    let mut few_clusters = card(FatType::Fat32, 40 * MIB, b"x");
    few_clusters[16 * 512 + 32..][..4].copy_from_slice(&(30 * MIB as u32 / 512).to_le_bytes());
    assert!(!fresh(few_clusters), "FAT32 with so few clusters that other readers take it for FAT16");
    assert!(!fresh(card_of(&[(0x0e, small.clone()), (0x83, vec![0; MIB])])), "another kind beside it");
    assert!(!fresh(card_of(&[(0x07, small.clone())])), "exFAT or NTFS is not known");
    assert!(!fresh(card_of(&[])), "a table without partitions");
    assert!(!fresh(small), "a file system without a table");
    assert!(!fresh(vec![0; 512]), "a tiny one");
}
