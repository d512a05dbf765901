//! The seeds of the fuzz target, and what fuzzing found, through the same checks on every run of the tests.
#![allow(clippy::unwrap_used)] // a test helper that cannot unwrap reads worse and asserts less

#[path = "../fuzz/checks.rs"]
#[allow(unreachable_pub)] // another crate compiles it as its own module
mod checks;

#[test]
fn no_packets_the_fuzzer_kept_break_the_reader() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/seeds/packets");
    let mut count = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        checks::packets(&std::fs::read(entry.unwrap().path()).unwrap());
        count += 1;
    }
    assert!(count > 0, "no seed in {folder}");
}
