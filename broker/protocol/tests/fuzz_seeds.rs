//! The seeds of the fuzz targets, and what fuzzing found, through the same checks on every run of the tests.
#![allow(clippy::unwrap_used)] // a test helper that cannot unwrap reads worse and asserts less

#[path = "../fuzz/checks.rs"]
#[allow(unreachable_pub)] // another crate compiles it as its own module
mod checks;

#[test]
fn no_index_the_fuzzer_kept_breaks_the_decoder() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/seeds/index");
    let mut count = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        checks::index(&std::fs::read(entry.unwrap().path()).unwrap());
        count += 1;
    }
    assert!(count > 0, "no seed in {folder}");
}
