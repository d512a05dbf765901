//! The seeds of the fuzz targets, and what fuzzing found, through the same checks on every run of the tests.
#![allow(clippy::unwrap_used)] // a test helper that cannot unwrap reads worse and asserts less

#[path = "../fuzz/checks.rs"]
#[allow(unreachable_pub)] // another crate compiles it as its own module
mod checks;
#[path = "../../../tools/testing/seeds.rs"]
mod seeds;

#[test]
fn no_index_the_fuzzer_kept_breaks_the_decoder() {
    seeds::replay("index", checks::index);
}

#[test]
fn no_update_the_fuzzer_kept_breaks_the_reader() {
    seeds::replay("update", checks::update);
}
