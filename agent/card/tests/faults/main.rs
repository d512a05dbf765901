//! The engine against the strict memory card and its faults. The promise: whatever the card does, a verified
//! outcome means that it equals the image in every mapped byte, and a failed write leaves no first block.
#![allow(clippy::unwrap_used)] // a test helper that cannot unwrap reads worse and asserts less

mod random;

use std::sync::Mutex;

use cardshop_card::memory::{FaultPlan, MemoryCard};
use cardshop_card::{
    CardError, ChunkSource, Job, Outcome, PassportFiles, SourceError, StopFlag, probe, refresh_card,
    verify_card, write_card,
};
use cardshop_protocol::index::{Extent, ExtentKind, ImageMap, Index, IndexBuilder, PassportEntry};
use cardshop_protocol::message::{Remedy, Verify, Wipe, WritePhase};

const CHUNK: u32 = 64 * 1024;
const MIB: u64 = 1 << 20;

/// Bytes that look random and are the same in every run.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    let mut hasher = blake3::Hasher::new_derive_key("cardshop-card fault tests");
    hasher.update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// An image in memory, and a record of which chunks were asked for.
struct Image {
    bytes: Vec<u8>,
    index: Index,
    asked: Mutex<Vec<usize>>,
}

impl Image {
    /// `extents` as (offset, length, kind); data is noise but where `zero_data` says otherwise.
    fn new(size: u64, extents: Vec<Extent>, passport: Vec<PassportEntry>, zero_data: &[u64]) -> Self {
        let mut bytes = vec![0; size as usize];
        let map = ImageMap { image_size: size, extents, passport };
        let mut builder = IndexBuilder::new(map.clone(), CHUNK).unwrap();
        for extent in map.extents.iter().filter(|e| e.kind == ExtentKind::Data) {
            let place = extent.offset as usize..extent.end() as usize;
            if !zero_data.contains(&extent.offset) {
                bytes[place.clone()].copy_from_slice(&noise(extent.offset, extent.length as usize));
            }
            builder.data(&bytes[place]).unwrap();
        }
        Self { bytes, index: builder.finish().unwrap(), asked: Mutex::default() }
    }

    /// 3 MiB: data, a gap nobody cares about, zeros, data again, and room for a passport.
    fn ordinary() -> Self {
        let extent = |offset, length, kind| Extent { offset, length, kind };
        let entry = |name: &str, offset| PassportEntry { name: name.to_owned(), offset, length: 4096 };
        let extents = vec![
            extent(0, 200 * 1024, ExtentKind::Data),
            extent(MIB, MIB, ExtentKind::Zero),
            extent(2 * MIB, MIB - 4096, ExtentKind::Data),
            extent(3 * MIB - 4096, 96, ExtentKind::Zero),
        ];
        let passport = vec![entry("CARD.JSN", 512 * 1024), entry("README.TXT", 520 * 1024)];
        Self::new(3 * MIB - 4000, extents, passport, &[])
    }

    fn job(&self) -> Job<'_> {
        Job { index: &self.index, source: self, wipe: Wipe::None, verify: Verify::Full, passport: None }
    }

    fn write(&self, card: &MemoryCard) -> Result<Outcome, CardError> {
        write(card, &self.job())
    }

    /// The first mapped byte in which a card differs from the image.
    fn difference(&self, card: &[u8]) -> Option<u64> {
        let mapped = self.index.extents().iter().flat_map(|e| e.offset..e.end());
        mapped.into_iter().find(|at| card[*at as usize] != self.bytes[*at as usize])
    }
}

impl ChunkSource for Image {
    fn read_chunk(&self, chunk: usize, buffer: &mut [u8], _: &StopFlag) -> Result<(), SourceError> {
        self.asked.lock().unwrap().push(chunk);
        let range = self.index.chunk_range(chunk);
        buffer.copy_from_slice(&self.bytes[range.start as usize..range.end as usize]);
        // What nobody listed is nobody's business: a source may give anything there.
        let listed: Vec<Extent> = self.index.extents_in(range.clone()).collect();
        let mut at = range.start;
        for extent in listed.iter().map(|e| e.offset..e.end()).chain(std::iter::once(range.end..range.end)) {
            buffer[(at - range.start) as usize..(extent.start - range.start) as usize].fill(0xee);
            at = extent.end;
        }
        Ok(())
    }
}

fn write(card: &MemoryCard, job: &Job<'_>) -> Result<Outcome, CardError> {
    write_card(&mut card.claim(), job, &StopFlag::new(), &mut |_| ())
}

fn used_card(size: u64, alignment: usize, plan: FaultPlan) -> MemoryCard {
    MemoryCard::new(noise(u64::MAX, size as usize), alignment, plan)
}

fn fault(plan: FaultPlan) -> (CardError, MemoryCard) {
    let card = used_card(4 * MIB, 512, plan);
    let error = Image::ordinary().write(&card).unwrap_err();
    (error, card)
}

#[test]
fn a_used_card_with_blocks_of_4096_holds_the_image_and_nothing_was_fetched_twice() {
    let image = Image::ordinary();
    for alignment in [512, 4096] {
        let card = used_card(4 * MIB, alignment, FaultPlan::default());
        let outcome = image.write(&card).unwrap();
        assert_eq!(image.difference(&card.bytes()), None);
        assert!(outcome.is_verified());
        assert_eq!(outcome.verified_bytes, image.index.data_bytes() + image.index.zero_bytes());
        assert_eq!(outcome.written_bytes, image.index.data_bytes());
        let mut asked = std::mem::take(&mut *image.asked.lock().unwrap());
        assert_eq!(asked.last(), Some(&0), "the first chunk is written last");
        let count = asked.len();
        asked.sort_unstable();
        asked.dedup();
        assert_eq!(asked.len(), count, "each chunk is asked for once");
        assert!(asked.iter().all(|c| image.index.chunks()[*c].data_bytes > 0), "zeros do not travel");
    }
}

#[test]
fn a_card_as_large_as_its_image_holds_it_after_every_kind_of_wipe() {
    let image = Image::ordinary();
    for alignment in [512, 4096] {
        for wipe in [Wipe::None, Wipe::Zero, Wipe::Discard] {
            let size = image.index.image_size().next_multiple_of(alignment as u64);
            let card = used_card(size, alignment, FaultPlan { discards: true, ..FaultPlan::default() });
            let outcome = write(&card, &Job { wipe, ..image.job() }).unwrap();
            assert!(outcome.is_verified());
            assert_eq!(image.difference(&card.bytes()), None, "{wipe:?}, blocks of {alignment}");
        }
    }
}

#[test]
fn an_image_that_lists_nothing_is_never_called_verified() {
    let image = Image::new(2 * MIB, Vec::new(), Vec::new(), &[]);
    let card = used_card(4 * MIB, 512, FaultPlan::default());
    assert!(!image.write(&card).unwrap().is_verified());
}

#[test]
fn what_nobody_cares_about_is_left_alone_without_a_wipe() {
    let image = Image::ordinary();
    let card = used_card(5 * MIB, 512, FaultPlan::default());
    let before = card.bytes();
    image.write(&card).unwrap();
    let gap = 3 * MIB as usize..4 * MIB as usize;
    assert!(card.bytes()[gap.clone()] == before[gap]);
}

#[test]
fn both_ends_of_the_card_are_cleared_of_old_partition_tables() {
    let image = Image::ordinary();
    let card = used_card(5 * MIB, 512, FaultPlan::default());
    image.write(&card).unwrap();
    let bytes = card.bytes();
    assert!(bytes[4 * MIB as usize..].iter().all(|b| *b == 0), "the last MiB");
    assert!(bytes[600 * 1024..MIB as usize].iter().all(|b| *b == 0), "a gap in the first MiB");
}

#[test]
fn discarded_bytes_that_read_as_garbage_are_made_zero_where_they_must_be() {
    let image = Image::ordinary();
    let card = used_card(5 * MIB, 512, FaultPlan { discards: true, ..FaultPlan::default() });
    let outcome = write(&card, &Job { wipe: Wipe::Discard, ..image.job() }).unwrap();
    assert!(outcome.discarded);
    assert_eq!(image.difference(&card.bytes()), None);
    let without = used_card(5 * MIB, 512, FaultPlan::default());
    assert!(!write(&without, &Job { wipe: Wipe::Discard, ..image.job() }).unwrap().discarded);
}

#[test]
fn the_passport_is_written_in_place_read_back_and_padded() {
    let image = Image::ordinary();
    let make = || PassportFiles { card_jsn: b"{\"v\":1}".to_vec(), readme: b"a card".to_vec() };
    let card = used_card(4 * MIB, 4096, FaultPlan::default());
    let outcome = write(&card, &Job { passport: Some(&make), ..image.job() }).unwrap();
    assert!(outcome.passport_written);
    let bytes = card.bytes();
    assert!(bytes[512 * 1024..].starts_with(b"{\"v\":1}  "));
    assert!(bytes[520 * 1024..].starts_with(b"a card  "));
    assert_eq!(bytes[524 * 1024 - 1], b' ');
    assert_eq!(image.difference(&bytes), None);
    verify_card(&mut card.open(), &image.index, &StopFlag::new(), &mut |_| ()).unwrap();
}

#[test]
fn a_passport_in_the_first_chunk_is_written_or_blank_and_what_lies_around_it_is_the_images() {
    let extent = |offset, length, kind| Extent { offset, length, kind };
    let entry = |name: &str, offset| PassportEntry { name: name.to_owned(), offset, length: 4096 };
    let extents = vec![extent(0, 8192, ExtentKind::Data), extent(16_384, 20_480, ExtentKind::Zero)];
    let passport = vec![entry("README.TXT", 40_960), entry("CARD.JSN", 8192)];
    let image = Image::new(2 * MIB, extents, passport, &[]);
    let make = || PassportFiles { card_jsn: b"{}".to_vec(), readme: b"a card".to_vec() };
    let card = used_card(4 * MIB, 4096, FaultPlan::default());
    for (passport, wanted) in
        [(Some(&make as &dyn Fn() -> _), [b"a card", b"{}    "]), (None, [b"      "; 2])]
    {
        for wipe in [Wipe::None, Wipe::Zero] {
            let outcome = write(&card, &Job { passport, wipe, ..image.job() }).unwrap();
            assert_eq!(outcome.passport_written, passport.is_some());
            let bytes = card.bytes();
            assert_eq!(image.difference(&bytes), None);
            assert_eq!([&bytes[40_960..40_966], &bytes[8192..8198]], wanted.map(|w| &w[..]));
            let around = bytes[12_288..40_960].iter().chain(&bytes[45_056..CHUNK as usize]);
            assert!(around.copied().all(|b| b == 0), "no mark is left");
        }
    }
}

#[test]
fn an_old_passport_does_not_survive_a_write_without_one() {
    let image = Image::ordinary();
    let card = used_card(4 * MIB, 512, FaultPlan::default());
    let make = || PassportFiles { card_jsn: b"{\"order\":1}".to_vec(), readme: b"old".to_vec() };
    write(&card, &Job { passport: Some(&make), ..image.job() }).unwrap();
    assert!(!image.write(&card).unwrap().passport_written);
    assert!(card.bytes()[512 * 1024..516 * 1024].iter().all(|b| *b == b' '));
}

#[test]
fn a_card_that_is_not_read_back_gets_no_passport() {
    let image = Image::ordinary();
    let make = || panic!("nobody may say that this card is verified");
    let card = used_card(4 * MIB, 512, FaultPlan::default());
    let job = Job { passport: Some(&make), verify: Verify::None, ..image.job() };
    assert!(!write(&card, &job).unwrap().passport_written);
    assert_eq!(image.difference(&card.bytes()), None);
}

#[test]
fn a_passport_that_does_not_fit_or_does_not_stay_fails_the_card() {
    let image = Image::ordinary();
    let long = || PassportFiles { card_jsn: vec![b'x'; 4097], readme: Vec::new() };
    let card = used_card(4 * MIB, 512, FaultPlan::default());
    let error = write(&card, &Job { passport: Some(&long), ..image.job() }).unwrap_err();
    assert!(matches!(error, CardError::PassportTooLarge { size: 4097, room: 4096, .. }), "{error}");
    assert!(card.bytes()[..CHUNK as usize].iter().all(|b| *b == 0));

    let make = || PassportFiles { card_jsn: b"{}".to_vec(), readme: Vec::new() };
    let bad = 512 * 1024 + 1;
    card.set_plan(FaultPlan { flip_at: Some(bad), ..FaultPlan::default() });
    let error = write(&card, &Job { passport: Some(&make), ..image.job() }).unwrap_err();
    assert!(
        matches!(error, CardError::Mismatch { offset, length: 1, exact: true } if offset == bad),
        "{error}"
    );
}

#[test]
fn an_io_error_is_named_with_the_offset_of_the_block() {
    let (error, card) = fault(FaultPlan { io_error_at: Some(2 * MIB + 70_000), ..FaultPlan::default() });
    assert!(
        matches!(error, CardError::Io { offset, .. } if offset == (2 * MIB + 70_000) / 512 * 512),
        "{error}"
    );
    assert_eq!(error.remedy(), Remedy::ReplaceCard);
    assert!(card.bytes()[..CHUNK as usize].iter().all(|b| *b == 0));
}

#[test]
fn a_flipped_bit_is_named_to_the_byte_in_data_zeros_and_the_first_chunk() {
    for bad in [2 * MIB + 123_456, MIB + 7, 3 * MIB - 4001, 5000, 3] {
        let (error, card) = fault(FaultPlan { flip_at: Some(bad), ..FaultPlan::default() });
        // Zeros over what the card holds flip too; where the card is not written it cannot flip.
        assert!(
            matches!(error, CardError::Mismatch { offset, length: 1, exact: true } if offset == bad),
            "{error}"
        );
        let first = &card.bytes()[..CHUNK as usize];
        assert!(first.iter().enumerate().all(|(at, b)| *b == u8::from(at as u64 == bad)), "{bad}");
    }
}

#[test]
fn short_writes_and_reads_are_finished() {
    let image = Image::ordinary();
    let card = used_card(4 * MIB, 512, FaultPlan { longest_transfer: Some(5000), ..FaultPlan::default() });
    image.write(&card).unwrap();
    assert_eq!(image.difference(&card.bytes()), None);
}

#[test]
fn dropped_writes_and_memory_that_wraps_around_are_never_called_verified() {
    let (error, _) = fault(FaultPlan { drops_from: Some(2 * MIB + 500_000), ..FaultPlan::default() });
    assert!(
        matches!(error, CardError::Mismatch { offset, exact: true, .. } if offset == 2 * MIB + 500_000),
        "{error}"
    );
    let (error, _) = fault(FaultPlan { real_size: Some(2 * MIB), ..FaultPlan::default() });
    assert!(matches!(error, CardError::Mismatch { .. }), "{error}");
}

#[test]
fn the_end_of_the_image_wrapped_onto_the_first_chunk_is_found() {
    // Only the very end of this image lands on the first chunk, where nothing else would notice.
    let extent = |offset, length| Extent { offset, length, kind: ExtentKind::Data };
    let image = Image::new(2 * MIB + 4096, vec![extent(0, 65_536), extent(2 * MIB, 4096)], Vec::new(), &[]);
    let card = used_card(4 * MIB, 512, FaultPlan { real_size: Some(2 * MIB), ..FaultPlan::default() });
    let error = image.write(&card).unwrap_err();
    let end = 2 * MIB;
    assert!(matches!(error, CardError::Mismatch { offset, exact: true, .. } if offset == end), "{error}");
}

#[test]
fn zeros_behind_the_real_end_are_not_taken_for_the_zeros_of_a_cleared_first_chunk() {
    // What must be zero lands on the first chunk, which is zero until it is written last.
    let data = Extent { offset: 0, length: 65_536, kind: ExtentKind::Data };
    for length in [4096, 65_536] {
        let zeros = Extent { offset: 2 * MIB, length, kind: ExtentKind::Zero };
        let image = Image::new(2 * MIB + length, vec![data, zeros], Vec::new(), &[]);
        let card = used_card(4 * MIB, 512, FaultPlan { real_size: Some(2 * MIB), ..FaultPlan::default() });
        let error = image.write(&card).unwrap_err();
        assert!(matches!(error, CardError::Mismatch { .. }), "{error}");
        assert!(card.bytes()[..CHUNK as usize].iter().all(|b| *b == 0), "and the first chunk is cleared");
    }
}

#[test]
fn a_raised_flag_is_heard_in_every_step_even_when_the_source_does_not_ask() {
    let image = Image::ordinary();
    for (phase, wipe) in [
        (WritePhase::Wiping, Wipe::Zero),
        (WritePhase::Writing, Wipe::None),
        (WritePhase::Verifying, Wipe::None),
    ] {
        let card = used_card(8 * MIB, 512, FaultPlan::default());
        let stop = StopFlag::new();
        let job = Job { wipe, ..image.job() };
        let mut steps = 0;
        let result = write_card(&mut card.claim(), &job, &stop, &mut |progress| {
            if progress.phase == phase {
                steps += 1;
                stop.stop();
            }
        });
        assert!(matches!(result, Err(CardError::Stopped)), "{phase:?}");
        assert!(steps <= 3, "only what was in flight or prepared of {phase:?} followed: {steps}");
        assert!(card.bytes()[..CHUNK as usize].iter().all(|b| *b == 0));
    }
}

#[test]
fn cards_are_written_at_once_from_one_source_and_a_bad_one_fails_alone() {
    let image = Image::ordinary();
    let plans = [None, Some(2 * MIB), None, None];
    let cards =
        plans.map(|io_error_at| used_card(4 * MIB, 512, FaultPlan { io_error_at, ..FaultPlan::default() }));
    let results: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = cards.iter().map(|card| scope.spawn(|| image.write(card))).collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    for ((result, card), plan) in results.into_iter().zip(&cards).zip(plans) {
        match plan {
            None => {
                assert!(result.unwrap().is_verified());
                assert_eq!(image.difference(&card.bytes()), None);
            }
            Some(bad) => assert!(matches!(result, Err(CardError::Io { offset, .. }) if offset == bad)),
        }
    }
}

#[test]
fn a_locked_card_is_named() {
    let (error, card) = fault(FaultPlan { write_protected: true, ..FaultPlan::default() });
    assert!(matches!(error, CardError::WriteProtected), "{error}");
    assert!(card.bytes() == noise(u64::MAX, 4 * MIB as usize), "nothing was written");
}

#[test]
fn a_card_pulled_out_at_any_request_fails_as_removed_and_has_no_first_block() {
    let image = Image::ordinary();
    let make = || PassportFiles { card_jsn: b"{}".to_vec(), readme: Vec::new() };
    let job = Job { passport: Some(&make), ..image.job() };
    let card = used_card(4 * MIB, 512, FaultPlan::default());
    write(&card, &job).unwrap();
    let requests = card.requests();
    assert!(requests > 20, "{requests}");
    for at in 0..requests {
        let card =
            used_card(4 * MIB, 512, FaultPlan { removed_at_request: Some(at), ..FaultPlan::default() });
        let before = card.bytes();
        let error = write(&card, &job).unwrap_err();
        match &error {
            CardError::Removed => {}
            CardError::NotInvalidated { cause, .. } => {
                assert!(matches!(**cause, CardError::Removed), "{error}")
            }
            _ => panic!("request {at}: {error}"),
        }
        assert_eq!(error.remedy(), Remedy::Retry);
        let bytes = card.bytes();
        let has_first = bytes[..512] == image.bytes[..512];
        let has_rest = bytes[4096..CHUNK as usize] == image.bytes[4096..CHUNK as usize];
        assert!(!has_first || has_rest, "request {at}: the first block came before the rest of its chunk");
        let is_invalid = bytes[..512].iter().all(|b| *b == 0) || bytes == before;
        assert!(is_invalid || matches!(error, CardError::NotInvalidated { .. }), "request {at}: {error}");
    }
}

#[test]
fn the_first_block_is_on_the_card_only_with_all_the_rest_whatever_was_not_synced_is_lost() {
    let image = Image::ordinary();
    let card = used_card(4 * MIB, 512, FaultPlan::default());
    image.write(&card).unwrap();
    for (at, seed) in (0..card.requests()).flat_map(|at| (0..4).map(move |seed| (at, seed))) {
        let (removed_at_request, loses_unsynced) = (Some(at), Some(seed));
        let plan = FaultPlan { removed_at_request, loses_unsynced, ..FaultPlan::default() };
        let card = used_card(4 * MIB, 512, plan);
        image.write(&card).unwrap_err();
        let mut bytes = card.bytes();
        if bytes[..512] == image.bytes[..512] {
            // The first granule is one write: its blocks may come in any order.
            bytes[..4096].copy_from_slice(&image.bytes[..4096]);
            assert_eq!(image.difference(&bytes), None, "request {at}");
        }
    }
}

#[test]
fn a_card_that_no_longer_answers_is_named_stuck_at_every_request_and_given_up() {
    let image = Image::ordinary();
    let probe_card = used_card(4 * MIB, 512, FaultPlan::default());
    image.write(&probe_card).unwrap();
    let requests = probe_card.requests();
    for at in [0, 1, requests / 4, requests / 2, requests * 3 / 4, requests - 1] {
        let card = used_card(4 * MIB, 512, FaultPlan { stuck_at_request: Some(at), ..FaultPlan::default() });
        let error = image.write(&card).unwrap_err();
        let (cause, sealing) = match &error {
            CardError::NotInvalidated { cause, .. } => (&**cause, true),
            other => (other, false),
        };
        assert!(matches!(cause, CardError::Stuck { .. }), "request {at} of {requests}: {error}");
        assert!(sealing || error.remedy() == Remedy::ReplaceCard);
        // The threads that were left behind end with the request.
        card.set_plan(FaultPlan::default());
    }
    let card = used_card(4 * MIB, 512, FaultPlan { stuck_at_request: Some(0), ..FaultPlan::default() });
    let verified = verify_card(&mut card.open(), &image.index, &StopFlag::new(), &mut |_| ());
    assert!(matches!(verified, Err(CardError::Stuck { .. })), "{verified:?}");
    let probed = probe(&mut card.claim(), &StopFlag::new());
    assert!(matches!(probed, Err(CardError::Stuck { .. })), "{probed:?}");
    card.set_plan(FaultPlan::default());
}

#[test]
fn a_full_store_behind_the_card_is_named_and_the_card_left_invalid() {
    let (error, card) = fault(FaultPlan { full_at: Some(2 * MIB + 4096), ..FaultPlan::default() });
    assert!(matches!(error, CardError::NoSpace { .. }), "{error}");
    assert_eq!((error.fault().code.as_str(), error.remedy()), ("no_space", Remedy::CallOperator));
    // The last MiB cannot be cleared either, so nothing else was touched.
    assert!(card.bytes()[..CHUNK as usize].iter().all(|b| *b == 0));
}

#[test]
fn a_refresh_writes_only_the_chunks_that_differ_and_verifies_all() {
    let image = Image::ordinary();
    let card = used_card(4 * MIB, 512, FaultPlan::default());
    image.write(&card).unwrap();
    // An earlier build: other bytes in two chunks of data and one of zeros, and an old passport.
    let mut bytes = card.bytes();
    for at in [2 * MIB + 5, 2 * MIB + 3 * 65_536 + 100, MIB + 4096 * 20] {
        bytes[at as usize] ^= 0x40;
    }
    bytes[512 * 1024] = b'{';
    let card = MemoryCard::new(bytes, 512, FaultPlan::default());
    let mut phases = Vec::new();
    image.asked.lock().unwrap().clear();
    let outcome = refresh_card(&mut card.claim(), &image.job(), &StopFlag::new(), &mut |p| {
        if phases.last() != Some(&p.phase) {
            phases.push(p.phase);
        }
    })
    .unwrap();
    assert_eq!(phases, [WritePhase::Probing, WritePhase::Writing, WritePhase::Verifying]);
    assert_eq!(image.difference(&card.bytes()), None);
    assert_eq!(
        outcome.verified_bytes,
        image.index.data_bytes() + image.index.zero_bytes(),
        "all is verified"
    );
    // Chunk 0 and two others of data; 4 KiB of zeros.
    assert_eq!((outcome.written_bytes, outcome.zero_written_bytes), (3 * u64::from(CHUNK), 4096));
    let mapped = image.index.data_bytes() + image.index.zero_bytes();
    assert_eq!(outcome.kept_bytes, mapped - 4 * u64::from(CHUNK));
    let mut asked = image.asked.lock().unwrap().clone();
    asked.sort_unstable();
    assert_eq!(asked, [0, 32, 35], "only what differs is fetched");
    assert_eq!(card.bytes()[512 * 1024], b' ', "the passport of the earlier build is gone");
}

#[test]
fn a_refresh_with_verify_written_reads_back_what_it_wrote() {
    let image = Image::ordinary();
    let card = used_card(4 * MIB, 4096, FaultPlan::default());
    image.write(&card).unwrap();
    let mut bytes = card.bytes();
    bytes[2 * MIB as usize] ^= 1;
    let card = MemoryCard::new(bytes, 4096, FaultPlan::default());
    let job = Job { verify: Verify::Written, ..image.job() };
    let refresh = |card: &MemoryCard| refresh_card(&mut card.claim(), &job, &StopFlag::new(), &mut |_| ());
    let outcome = refresh(&card).unwrap();
    assert_eq!(image.difference(&card.bytes()), None);
    assert_eq!((outcome.written_bytes, outcome.verified_bytes), (2 * u64::from(CHUNK), 2 * u64::from(CHUNK)));
    let bad = 2 * MIB + 9;
    let mut bytes = card.bytes();
    bytes[bad as usize] ^= 4;
    let card = MemoryCard::new(bytes, 4096, FaultPlan { flip_at: Some(bad), ..FaultPlan::default() });
    let error = refresh(&card).unwrap_err();
    assert!(matches!(error, CardError::Mismatch { offset, .. } if offset == bad), "{error}");
}

#[test]
fn a_refresh_that_fails_leaves_no_first_chunk() {
    let image = Image::ordinary();
    let written = used_card(4 * MIB, 512, FaultPlan::default());
    image.write(&written).unwrap();
    let plan = FaultPlan { io_error_at: Some(2 * MIB + 70_000), ..FaultPlan::default() };
    let card = MemoryCard::new(written.bytes(), 512, plan);
    let error = refresh_card(&mut card.claim(), &image.job(), &StopFlag::new(), &mut |_| ()).unwrap_err();
    assert!(matches!(error, CardError::Io { .. }), "{error}");
    assert!(card.bytes()[..CHUNK as usize].iter().all(|b| *b == 0));
}
