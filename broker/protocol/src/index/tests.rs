//! Properties of the index, and hostile input.

use proptest::prelude::*;

use super::*;

const CHUNK: u32 = MIN_CHUNK_SIZE;

/// Random bytes from a fixed seed.
fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// A map made of runs of granules: 0 don't care, 1 data, 2 must be zero.
fn map_of(runs: &[(u8, u8)], tail: u16) -> ImageMap {
    let mut map = ImageMap::default();
    for (kind, granules) in runs {
        let length = u64::from(*granules) * GRANULE;
        push(&mut map, *kind, length);
    }
    push(&mut map, 1, u64::from(tail));
    map
}

fn push(map: &mut ImageMap, kind: u8, length: u64) {
    let offset = map.image_size;
    map.image_size += length;
    let kind = match kind {
        0 => return,
        1 => ExtentKind::Data,
        _ => ExtentKind::Zero,
    };
    if length > 0 {
        map.extents.push(Extent { offset, length, kind });
    }
}

fn build(map: &ImageMap, data: &[u8], piece: usize) -> Index {
    let mut builder = IndexBuilder::new(map.clone(), CHUNK).unwrap();
    for bytes in data.chunks(piece.max(1)) {
        builder.data(bytes).unwrap();
    }
    builder.finish().unwrap()
}

/// The image itself, don't-care bytes filled with `filler`.
fn lay_out(map: &ImageMap, data: &[u8], filler: u8) -> Vec<u8> {
    let mut image = vec![filler; map.image_size as usize];
    let mut at = 0;
    for extent in &map.extents {
        let range = extent.offset as usize..extent.end() as usize;
        match extent.kind {
            ExtentKind::Data => {
                let length = extent.length as usize;
                image[range].copy_from_slice(&data[at..at + length]);
                at += length;
            }
            ExtentKind::Zero => image[range].fill(0),
        }
    }
    image
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn chunks_that_others_digested_give_the_same_index_as_their_bytes(
        runs in proptest::collection::vec((0..3u8, 1..40u8), 1..20),
        known in proptest::collection::vec(any::<bool>(), 64),
        seed in any::<u64>(),
    ) {
        let map = map_of(&runs, 100);
        let mut data = noise(map.bytes_of(ExtentKind::Data) as usize, seed);
        // Some data is all zero.
        let half = data.len() / 2;
        data[..half].fill(0);
        let expected = build(&map, &data, 1000);
        let image = lay_out(&map, &data, 0);
        let mut builder = IndexBuilder::new(map, CHUNK).unwrap();
        for (number, chunk) in expected.chunks().iter().enumerate() {
            let range = expected.chunk_range(number);
            if known[number % known.len()] {
                builder.chunk(number as u64, chunk.digest, chunk.all_zero).unwrap();
                continue;
            }
            for extent in expected.extents_in(range).filter(|e| e.kind == ExtentKind::Data) {
                builder.data(&image[extent.offset as usize..extent.end() as usize]).unwrap();
            }
        }
        prop_assert_eq!(builder.finish().unwrap(), expected);
    }

    #[test]
    fn an_index_survives_its_own_encoding_and_fits_its_image(
        runs in prop::collection::vec((0u8..3, 0u8..40), 0..12),
        tail in 0u16..4096, piece in 1usize..100_000, seed: u64,
    ) {
        let map = map_of(&runs, tail);
        let data = noise(map.bytes_of(ExtentKind::Data) as usize, seed);
        let index = build(&map, &data, piece);
        prop_assert_eq!(&index, &build(&map, &data, 4096), "the size of the pieces changes nothing");
        prop_assert_eq!(Index::decode(&index.encode()).unwrap(), index.clone());

        for filler in [0, 0xee] {
            let image = lay_out(&map, &data, filler);
            for i in 0..index.chunks().len() {
                let range = index.chunk_range(i);
                let bytes = &image[range.start as usize..range.end as usize];
                prop_assert!(index.chunk_matches(i, bytes), "don't-care bytes count as zero");
            }
        }
    }

    #[test]
    fn a_changed_mapped_byte_is_noticed_in_its_chunk_and_only_there(
        runs in prop::collection::vec((0u8..3, 1u8..40), 1..12), at: prop::sample::Index, seed: u64,
    ) {
        let map = map_of(&runs, 0);
        prop_assume!(!map.extents.is_empty());
        let data = noise(map.bytes_of(ExtentKind::Data) as usize, seed);
        let index = build(&map, &data, 5000);
        let mut image = lay_out(&map, &data, 0);
        let extent = at.get(&map.extents);
        let offset = extent.offset + at.index(extent.length as usize) as u64;
        image[offset as usize] ^= 0x40;
        for i in 0..index.chunks().len() {
            let range = index.chunk_range(i);
            let bytes = &image[range.start as usize..range.end as usize];
            prop_assert_eq!(index.chunk_matches(i, bytes), !range.contains(&offset));
        }
    }

    #[test]
    fn hostile_bytes_are_refused_without_a_panic(mut cuts in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6), end: prop::sample::Index) {
        let map = map_of(&[(1, 20), (0, 9), (2, 30), (1, 3)], 77);
        let index = build(&map, &noise(map.bytes_of(ExtentKind::Data) as usize, 1), 4096);
        let good = index.encode();
        prop_assert!(Index::decode(&good[..end.index(good.len())]).is_err(), "a shorter file");
        let mut bytes = good.clone();
        for (at, value) in cuts.drain(..) {
            let at = at.index(bytes.len());
            bytes[at] ^= value;
        }
        if let Ok(decoded) = Index::decode(&bytes) {
            prop_assert!(bytes == good || decoded != index);
        }
    }

    #[test]
    fn any_bytes_at_all_are_refused_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(Index::decode(&bytes).is_err());
        let with_magic = [b"CARDIDX1", &bytes[..]].concat();
        let _ = Index::decode(&with_magic);
    }
}

#[test]
fn counts_that_the_file_does_not_pay_for_are_refused_before_memory_is_taken() {
    let map = map_of(&[(1, 1)], 0);
    let good = build(&map, &noise(4096, 3), 4096).encode();
    let size = good.windows(12).position(|w| w == b"extent_count").unwrap() + 12;
    let mut bytes = good;
    // extent_count becomes 2^40 in nine bytes, and the header grows by eight.
    bytes.splice(size..=size, [0x1b, 0, 0, 1, 0, 0, 0, 0, 0]);
    let header = u32::from_le_bytes(bytes[8..12].try_into().unwrap()) + 8;
    bytes[8..12].copy_from_slice(&header.to_le_bytes());
    let refusal = Index::decode(&bytes).unwrap_err();
    assert!(matches!(refusal, IndexError::BadHeader(_) | IndexError::WrongLength { .. }), "{refusal}");
}

/// The encoded index with the digest of its first chunk replaced.
fn with_first_digest(index: &Index, digest: blake3::Hash) -> Vec<u8> {
    let mut bytes = index.encode();
    let first = 12 + u32::from_le_bytes(bytes[8..12].try_into().unwrap()) as usize;
    bytes[first..first + 32].copy_from_slice(digest.as_bytes());
    bytes
}

#[test]
fn zeros_with_a_digest_that_zeros_do_not_have_are_refused() {
    let map = map_of(&[(2, 20), (1, 1)], 5);
    let index = build(&map, &noise(4096 + 5, 4), 4096);
    let refusal = Index::decode(&with_first_digest(&index, blake3::hash(b"other"))).unwrap_err();
    assert_eq!(refusal, IndexError::NotZeroDigest(0), "no card in the world would verify");
}

#[test]
fn bytes_of_another_length_never_match_a_chunk() {
    let map = map_of(&[(1, 20)], 0);
    let index = build(&map, &noise(20 * 4096, 4), 4096);
    let hostile = Index::decode(&with_first_digest(&index, blake3::hash(&[]))).unwrap();
    assert!(!hostile.chunk_matches(0, &[]) && !hostile.chunk_matches(0, &[7; 100]));
}

#[test]
fn maps_that_contradict_themselves_are_refused_by_name() {
    let extent = |offset, length| Extent { offset, length, kind: ExtentKind::Data };
    let map = |extents| ImageMap { image_size: 1 << 20, extents, passport: vec![] };
    let fault = |map: ImageMap| map.check().unwrap_err().to_string();
    assert!(fault(map(vec![extent(0, 0)])).contains("empty"));
    assert!(fault(map(vec![extent(512, 4096)])).contains("4 KiB"));
    assert!(fault(map(vec![extent(0, 8192), extent(4096, 4096)])).contains("overlaps"));
    assert!(fault(map(vec![extent(1 << 20, 4096)])).contains("beyond"));
    assert!(fault(map(vec![extent(u64::MAX - 4095, 8192)])).contains("out of range"));
    let mut passport = map(vec![extent(0, 8192)]);
    passport.passport.push(PassportEntry { name: "CARD.JSN".into(), offset: 4096, length: 4096 });
    assert!(fault(passport).contains("lies in an extent"));
    let entry = |name: &str, offset, length| PassportEntry { name: name.into(), offset, length };
    let passports = |passport| ImageMap { passport, ..map(vec![]) };
    let overlapping = vec![entry("CARD.JSN", 8192, 8192), entry("README.TXT", 12_288, 4096)];
    assert!(fault(passports(overlapping)).contains("overlaps another"));
    let doubled = vec![entry("CARD.JSN", 0, 4096), entry("CARD.JSN", 4096, 4096)];
    assert!(fault(passports(doubled)).contains("twice"));
    assert_eq!(IndexBuilder::new(map(vec![]), 100_000).err(), Some(IndexError::BadChunkSize(100_000)));
}

#[test]
fn the_builder_wants_exactly_the_bytes_of_the_data_extents() {
    let map = map_of(&[(1, 2)], 0);
    let mut builder = IndexBuilder::new(map.clone(), CHUNK).unwrap();
    builder.data(&[1; 8000]).unwrap();
    assert!(matches!(builder.finish(), Err(IndexError::WrongDataLength { expected: 8192, actual: 8000 })));
    let mut builder = IndexBuilder::new(map, CHUNK).unwrap();
    assert!(builder.data(&[1; 8193]).is_err());
}

#[test]
fn a_chunk_is_given_whole_and_only_after_the_data_before_it() {
    let map = map_of(&[(1, 33)], 0);
    let data = noise(33 * GRANULE as usize, 3);
    let digest = build(&map, &data, 4096).chunks()[1].digest;
    let begin = || IndexBuilder::new(map.clone(), CHUNK).unwrap();
    let mut early = begin();
    assert!(matches!(early.chunk(1, digest, false), Err(IndexError::WrongDataLength { .. })));
    let mut begun = begin();
    begun.data(&data[..CHUNK as usize + 1]).unwrap();
    assert!(matches!(begun.chunk(1, digest, false), Err(IndexError::WrongDataLength { .. })));
}

#[test]
fn only_the_key_that_signed_verifies_and_the_id_stays() {
    let key = SigningKey::from_bytes(&[1; 32]);
    let other = SigningKey::from_bytes(&[2; 32]);
    let map = map_of(&[(1, 3)], 5);
    let mut index = build(&map, &noise(3 * 4096 + 5, 9), 4096);
    let id = index.id();
    assert!(index.verify_signature(&key.verifying_key()).is_err());
    index.sign(&key);
    let mut read = Index::decode(&index.encode()).unwrap();
    assert_eq!(read.id(), id);
    assert_eq!(read.verify_signature(&key.verifying_key()), Ok(()));
    assert!(read.verify_signature(&other.verifying_key()).is_err());
    read.signature.as_mut().unwrap().signature[3] ^= 1;
    assert!(read.verify_signature(&key.verifying_key()).is_err());
}

#[test]
fn golden_files_stay_as_they_are() {
    let mut map = map_of(&[(1, 20), (0, 1), (2, 40), (1, 1)], 100);
    map.passport.push(PassportEntry { name: "CARD.JSN".into(), offset: 20 * GRANULE, length: GRANULE });
    let mut index = build(&map, &noise(map.bytes_of(ExtentKind::Data) as usize, 42), 4096);
    let unsigned = index.encode();
    index.sign(&SigningKey::from_bytes(&[3; 32]));
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    for (name, bytes) in [("unsigned.cardindex", unsigned), ("signed.cardindex", index.encode())] {
        let path = folder.join(name);
        if std::env::var_os("CARDSHOP_WRITE_GOLDEN").is_some() {
            std::fs::create_dir_all(&folder).unwrap();
            std::fs::write(&path, &bytes).unwrap();
        }
        assert!(std::fs::read(&path).unwrap() == bytes, "{} changed", path.display());
        assert!(Index::decode(&bytes).is_ok());
    }
    assert_eq!(index.id().to_string(), include_str!("../../tests/golden/image-id.txt").trim());
}
