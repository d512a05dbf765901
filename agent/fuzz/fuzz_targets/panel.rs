//! A panel's wire under random bytes.
#![no_main]

#[path = "../checks.rs"]
#[allow(dead_code)] // each target uses its own
mod checks;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| checks::panel(bytes));
