//! The seeds of the fuzz targets, and what fuzzing found, through the same checks on every run of the tests.
#![allow(clippy::unwrap_used)] // a test helper that cannot unwrap reads worse and asserts less

#[path = "../fuzz/checks.rs"]
#[allow(unreachable_pub)] // another crate compiles it as its own module
mod checks;
#[path = "../../tools/testing/seeds.rs"]
mod seeds;

#[test]
fn no_join_file_the_fuzzer_kept_breaks_the_reader() {
    seeds::replay("join_file", checks::join_file);
}

#[test]
fn no_network_file_the_fuzzer_kept_breaks_the_reader() {
    seeds::replay("network_file", checks::network_file);
}

#[test]
fn no_join_answer_the_fuzzer_kept_breaks_the_reader() {
    seeds::replay("join_answer", checks::join_answer);
}

#[test]
fn no_panels_word_the_fuzzer_kept_breaks_the_reader() {
    seeds::replay("panel", checks::panel);
}

#[test]
fn no_word_of_the_kernel_the_fuzzer_kept_breaks_the_reader() {
    seeds::replay("uevent", checks::uevent);
}
