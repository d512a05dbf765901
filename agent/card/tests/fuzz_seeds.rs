//! The seeds of the fuzz targets, and what fuzzing found, through the same checks on every run of the tests.
#![allow(clippy::unwrap_used)] // a test helper that cannot unwrap reads worse and asserts less

#[path = "../fuzz/checks.rs"]
#[allow(unreachable_pub)] // another crate compiles it as its own module
mod checks;
#[cfg(feature = "packed")]
#[path = "../fuzz/packed.rs"]
#[allow(unreachable_pub)] // as above
mod packed;
#[path = "../../../tools/testing/seeds.rs"]
mod seeds;

use cardshop_card::memory::{FaultPlan, MemoryCard};
use cardshop_card::{PassportError, read_passport_of};

#[test]
fn no_bmap_the_fuzzer_kept_breaks_the_parser() {
    seeds::replay("bmap", checks::bmap);
}

#[test]
fn no_card_the_fuzzer_kept_breaks_the_passport_reader() {
    seeds::replay("passport", checks::passport);
}

#[cfg(feature = "packed")]
#[test]
fn no_packed_image_the_fuzzer_kept_breaks_the_decoders() {
    seeds::replay("packed", packed::packed);
}

#[test]
fn the_cards_the_fuzzer_changes_are_ones_whose_passport_file_is_found() {
    for kind in 0..4 {
        let card = MemoryCard::new(checks::card_of(kind), 512, FaultPlan::default());
        let found = read_passport_of(&mut card.open());
        assert!(matches!(found, Err(PassportError::Damaged(_))), "kind {kind}: {found:?}");
    }
}

#[test]
fn no_note_the_fuzzer_kept_breaks_its_reader() {
    seeds::replay("note", checks::note);
}
