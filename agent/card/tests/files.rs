//! Cards that are plain files: what the demo, the virtual slots and the command line do without root.
#![allow(clippy::unwrap_used)] // a test helper that cannot unwrap reads worse and asserts less

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use cardshop_card::{
    CardError, ClaimedCard, FileSource, Job, Outcome, Policy, ReadableCard, SourceError, StopFlag, claim,
    index_file, verify_card, write_card,
};
use cardshop_protocol::index::Index;
use cardshop_protocol::message::{Verify, Wipe};

const CHUNK: u32 = 64 * 1024;
const IMAGE_SIZE: u64 = 3_000_100;

/// Bytes that look random and are the same in every run.
fn noise(seed: &str, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new_derive_key(seed).finalize_xof().fill(&mut bytes);
    bytes
}

struct Bench {
    folder: tempfile::TempDir,
    image: PathBuf,
    index: Index,
}

impl Bench {
    /// An image with data at both ends and in the middle, and holes between.
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let image = folder.path().join("image.img");
        let file = File::create(&image).unwrap();
        file.set_len(IMAGE_SIZE).unwrap();
        for (offset, length) in [(0, 100_000), (1_000_000, 900_000), (IMAGE_SIZE - 100, 100)] {
            file.write_all_at(&noise("image", length as usize), offset).unwrap();
        }
        let index = index_file(&image, None, Some(CHUNK), &mut |_, _| ()).unwrap();
        Self { folder, image, index }
    }

    /// A card that was used before: full of garbage.
    fn card(&self, size: usize) -> PathBuf {
        let path = self.folder.path().join("card.img");
        fs::write(&path, noise("old card", size)).unwrap();
        path
    }

    fn write(&self, card: &mut ClaimedCard, wipe: Wipe, verify: Verify) -> Result<Outcome, CardError> {
        let source = FileSource::open(&self.image, &self.index).unwrap();
        let job = Job { index: &self.index, source: &source, wipe, verify, passport: None };
        write_card(card, &job, &StopFlag::new(), &mut |_| ())
    }

    fn assert_equal(&self, card: &Path) {
        let (image, card) = (fs::read(&self.image).unwrap(), fs::read(card).unwrap());
        for extent in self.index.extents() {
            let range = extent.offset as usize..extent.end() as usize;
            assert!(image[range.clone()] == card[range], "{extent:?} differs");
        }
    }
}

fn claimed(path: &Path) -> ClaimedCard {
    claim(path, &Policy::named()).unwrap()
}

fn verify(path: &Path, index: &Index) -> Result<u64, CardError> {
    let mut card = ReadableCard::open(path)?;
    verify_card(&mut card, index, &StopFlag::new(), &mut |_| ()).map(|outcome| outcome.verified_bytes)
}

#[test]
fn a_used_card_equals_the_image_after_every_kind_of_wipe() {
    let bench = Bench::new();
    for wipe in [Wipe::None, Wipe::Zero, Wipe::Discard] {
        let path = bench.card(4_000_000);
        let outcome = bench.write(&mut claimed(&path), wipe, Verify::Full).unwrap();
        bench.assert_equal(&path);
        assert_eq!(outcome.verified_bytes, IMAGE_SIZE, "{wipe:?}: all of a plain image is mapped");
        assert!(outcome.is_verified() && !outcome.passport_written);
        assert_eq!(outcome.zero_written_bytes > 0, wipe == Wipe::None, "{wipe:?}");
        assert_eq!(verify(&path, &bench.index).unwrap(), IMAGE_SIZE);
        let behind = &fs::read(&path).unwrap()[IMAGE_SIZE as usize..];
        assert!(wipe != Wipe::Zero || behind.iter().all(|b| *b == 0), "what is behind the image is wiped");
    }
}

#[test]
fn a_flipped_byte_is_named_by_the_chunk_it_is_in_or_to_the_byte_where_zero_was_asked() {
    let bench = Bench::new();
    let path = bench.card(4_000_000);
    bench.write(&mut claimed(&path), Wipe::None, Verify::Full).unwrap();
    let flip = |offset: u64| {
        let file = File::options().read(true).write(true).open(&path).unwrap();
        let mut byte = [0];
        file.read_exact_at(&mut byte, offset).unwrap();
        file.write_all_at(&[byte[0] ^ 1], offset).unwrap();
    };
    flip(1_200_000);
    let chunk = 1_200_000 / u64::from(CHUNK) * u64::from(CHUNK);
    let error = verify(&path, &bench.index).unwrap_err();
    assert!(
        matches!(error, CardError::Mismatch { offset, length: 65_536, exact: false } if offset == chunk),
        "{error}"
    );
    // Of several that differ the first that is read back is named, and requests overtake each other.
    flip(1_200_000);
    flip(500_001);
    let error = verify(&path, &bench.index).unwrap_err();
    assert!(matches!(error, CardError::Mismatch { offset: 500_001, length: 1, exact: true }), "{error}");
}

#[test]
fn a_card_too_small_is_refused_with_both_sizes_and_not_touched() {
    let bench = Bench::new();
    let path = bench.card(2_000_000);
    let before = fs::read(&path).unwrap();
    let error = bench.write(&mut claimed(&path), Wipe::Zero, Verify::Full).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("2000000") && text.contains("3000100"), "{text}");
    assert!(fs::read(&path).unwrap() == before);
    assert!(matches!(verify(&path, &bench.index), Err(CardError::CardTooSmall { .. })));
}

#[test]
fn a_file_somebody_else_has_claimed_is_refused_until_it_is_let_go() {
    let bench = Bench::new();
    let path = bench.card(4_000_000);
    let first = claimed(&path);
    let refused = claim(&path, &Policy::named()).unwrap_err();
    assert!(matches!(&refused, CardError::Refused(refusal) if refusal.number == 8), "{refused}");
    drop(first);
    claimed(&path);
}

#[test]
fn a_file_nobody_named_and_a_folder_are_refused() {
    let bench = Bench::new();
    let path = bench.card(4_000_000);
    let refused = claim(&path, &Policy::readers(vec!["devices".into()])).unwrap_err();
    assert!(matches!(&refused, CardError::Refused(refusal) if refusal.number == 4), "{refused}");
    let refused = claim(bench.folder.path(), &Policy::named()).unwrap_err();
    assert!(matches!(&refused, CardError::Refused(refusal) if refusal.number == 4), "{refused}");
    assert!(matches!(
        claim(&bench.folder.path().join("none"), &Policy::named()),
        Err(CardError::Open { .. })
    ));
}

#[test]
fn a_folder_and_a_pipe_cannot_be_read_as_a_card() {
    let bench = Bench::new();
    let pipe = bench.folder.path().join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    for path in [&pipe, bench.folder.path()] {
        assert!(matches!(ReadableCard::open(path).map(drop), Err(CardError::Open { .. })));
        let refused = claim(path, &Policy::named()).unwrap_err();
        assert!(matches!(&refused, CardError::Refused(refusal) if refusal.number == 4), "{refused}");
    }
}

#[test]
fn a_file_marked_read_only_is_refused() {
    let bench = Bench::new();
    let path = bench.card(4_000_000);
    let mut permissions = fs::metadata(&path).unwrap().permissions();
    permissions.set_readonly(true);
    fs::set_permissions(&path, permissions).unwrap();
    let refused = claim(&path, &Policy::named()).unwrap_err();
    assert!(matches!(&refused, CardError::Refused(refusal) if refusal.number == 7), "{refused}");
}

#[test]
fn without_a_read_back_nothing_is_called_verified() {
    let bench = Bench::new();
    let path = bench.card(4_000_000);
    let outcome = bench.write(&mut claimed(&path), Wipe::Discard, Verify::None).unwrap();
    assert!(!outcome.is_verified());
    assert_eq!(outcome.verified_bytes, 0);
    bench.assert_equal(&path);
}

#[test]
fn a_raised_flag_stops_the_write_and_leaves_the_card_without_its_first_chunk() {
    let bench = Bench::new();
    let path = bench.card(4_000_000);
    let source = FileSource::open(&bench.image, &bench.index).unwrap();
    let (wipe, verify) = (Wipe::None, Verify::Full);
    let job = Job { index: &bench.index, source: &source, wipe, verify, passport: None };
    let stop = StopFlag::new();
    let raise = stop.clone();
    let result = write_card(&mut claimed(&path), &job, &stop, &mut |progress| {
        if progress.done > 1_000_000 {
            raise.stop();
        }
    });
    assert!(matches!(result, Err(CardError::Stopped)));
    assert!(fs::read(&path).unwrap()[..CHUNK as usize].iter().all(|b| *b == 0));
}

#[test]
fn a_source_that_is_not_the_image_is_found_before_its_bytes_reach_the_card() {
    let bench = Bench::new();
    let path = bench.card(4_000_000);
    File::options().write(true).open(&bench.image).unwrap().write_all_at(b"changed", 1_500_000).unwrap();
    let error = bench.write(&mut claimed(&path), Wipe::None, Verify::Full).unwrap_err();
    let fault = error.fault();
    assert_eq!((fault.code.as_str(), fault.offset), ("source_corrupt", Some(1_500_000 / 65_536 * 65_536)));
    let card = fs::read(&path).unwrap();
    assert!(card[1_500_000..1_500_007] != *b"changed");
}

#[test]
fn an_image_cannot_be_claimed_while_it_is_read_nor_read_while_it_is_claimed() {
    let bench = Bench::new();
    let source = FileSource::open(&bench.image, &bench.index).unwrap();
    let refused = claim(&bench.image, &Policy::named()).unwrap_err();
    assert!(matches!(&refused, CardError::Refused(refusal) if refusal.number == 8), "{refused}");
    drop(source);
    let _card = claimed(&bench.image);
    assert!(matches!(FileSource::open(&bench.image, &bench.index), Err(SourceError::InUse)));
}
