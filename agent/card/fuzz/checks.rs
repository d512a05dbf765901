//! What must hold for the readers of outside bytes whatever they are given. The fuzz targets call it with random
//! bytes, the test `tests/fuzz_seeds.rs` with the files in `seeds/`; a finding becomes a file there.

use std::io::{Cursor, Write};
use std::ops::Range;
use std::sync::OnceLock;

use cardshop_card::memory::{FaultPlan, MemoryCard};
use cardshop_card::{CARD_FILE, FailureNote, bmap, is_freshly_formatted, read_passport_of};
use sha2::{Digest, Sha256};

/// Parses a bmap. Its own checksum would stop every changed one at once: where there are 64 zeros in its place,
/// the right one is put in.
pub fn bmap(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let _ = bmap::read(text);
    let own: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    if let Ok(map) = bmap::read(&text.replacen(&"0".repeat(64), &own, 1)) {
        map.check().expect("a bmap that is accepted is a map an index can be made of");
    }
}

/// Reads a failure note.
pub fn note(bytes: &[u8]) {
    let mut first = vec![0; 8192];
    first.extend(bytes);
    first.resize(8192 + 4096, 0);
    if let Some(note) = FailureNote::find(&first) {
        let card = MemoryCard::new(first, 512, FaultPlan::default());
        note.leave_on(&mut card.claim()).expect("a good card keeps it");
        assert_eq!(FailureNote::find(&card.bytes()), Some(note));
    }
}

/// Requests one look at a card may take: pieces of each of the four partitions, twice.
const MOST_REQUESTS: u64 = 2 * 4 * 600;

/// Reads a card on which every number a FAT reader trusts comes from `bytes`: they replace the good ones from
/// the start of `parts()`, as far as they reach.
pub fn passport(bytes: &[u8]) {
    let (kind, bytes) = bytes.split_first().unwrap_or((&0, &[]));
    let mut contents = card_of(*kind);
    let mut bytes = bytes.iter();
    for part in parts() {
        for (place, byte) in contents[part].iter_mut().zip(&mut bytes) {
            *place = *byte;
        }
    }
    let alignment = if kind & 2 == 0 { 512 } else { 4096 };
    let card = MemoryCard::new(contents, alignment, FaultPlan::default());
    let _ = read_passport_of(&mut card.open());
    let _ = is_freshly_formatted(&mut card.open());
    assert!(card.requests() < MOST_REQUESTS, "{} requests for one look", card.requests());
}

/// The card before it is changed: FAT16, or FAT32 when `kind` is odd.
pub fn card_of(kind: u8) -> Vec<u8> {
    let mut card = good_card().clone();
    if kind % 2 == 1 {
        make_fat32(&mut card);
    }
    card
}

const BLOCK: usize = 512;
/// First block of the partition, which is the second in the table.
const START: usize = 16;
const CARD_SIZE: usize = 9 << 18;

/// Where hostile bytes matter: partition table, boot sector and what follows it, start of the FAT, root folder
/// (of FAT16, and of FAT32), first clusters.
pub fn parts() -> [Range<usize>; 6] {
    let of = |first: usize, blocks: usize| (START + first) * BLOCK..(START + first + blocks) * BLOCK;
    [446..512, of(0, 1), of(1, 2), of(root_block(), 1), of(32 + 2 * 600, 2), of(root_block() + 32, 2)]
}

/// The first block of the root folder in the FAT16 volume, from its boot sector.
fn root_block() -> usize {
    let boot = &good_card()[START * BLOCK..][..BLOCK];
    let number = |at: usize| usize::from(u16::from_le_bytes([boot[at], boot[at + 1]]));
    number(14) + usize::from(boot[16]) * number(22)
}

/// A card with a FAT16 partition on which lies something like a passport.
fn good_card() -> &'static Vec<u8> {
    static CARD: OnceLock<Vec<u8>> = OnceLock::new();
    CARD.get_or_init(|| {
        let size = CARD_SIZE - START * BLOCK;
        let mut volume = Cursor::new(vec![0; size]);
        let options =
            fatfs::FormatVolumeOptions::new().fat_type(fatfs::FatType::Fat16).bytes_per_cluster(512);
        fatfs::format_volume(&mut volume, options).expect("the size is fit for FAT16");
        {
            let files = fatfs::FileSystem::new(&mut volume, fatfs::FsOptions::new()).expect("just made");
            let root = files.root_dir();
            for name in ["a file with a long name.txt", CARD_FILE] {
                let mut file = root.create_file(name).expect("there is room");
                file.write_all(&[b'{'; 4096]).expect("there is room");
            }
        }
        let mut card = vec![0; START * BLOCK];
        let entry = &mut card[446 + 16..446 + 32];
        entry[4] = 0x0c;
        entry[8..12].copy_from_slice(&(START as u32).to_le_bytes());
        entry[12..].copy_from_slice(&((size / BLOCK) as u32).to_le_bytes());
        card[510..512].copy_from_slice(&[0x55, 0xaa]);
        card.extend(volume.into_inner());
        card
    })
}

/// Turns the boot sector into that of a FAT32 volume, whose root folder is the first cluster.
fn make_fat32(card: &mut [u8]) {
    const BLOCKS: u32 = 70_000;
    card[446 + 16 + 12..446 + 32].copy_from_slice(&BLOCKS.to_le_bytes());
    let boot = &mut card[START * BLOCK..][..2 * BLOCK];
    boot[14..16].copy_from_slice(&32_u16.to_le_bytes());
    boot[17..24].fill(0);
    boot[32..36].copy_from_slice(&BLOCKS.to_le_bytes());
    boot[36..40].copy_from_slice(&600_u32.to_le_bytes());
    boot[40..52].copy_from_slice(&[0, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0]);
    boot[512..516].copy_from_slice(b"RRaA");
    boot[996..1000].copy_from_slice(b"rrAa");
    boot[1020..1024].copy_from_slice(&[0, 0, 0x55, 0xaa]);
    let root = &mut card[(START + 32 + 2 * 600) * BLOCK..][..2 * BLOCK];
    root[..11].copy_from_slice(b"CARD    JSN");
    root[26] = 3;
    root[29] = 2;
    root[512..514].copy_from_slice(b"{}");
}
