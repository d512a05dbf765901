//! The decoders of packed images under random bytes.
#![no_main]

#[path = "../packed.rs"]
mod checks;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| checks::packed(bytes));
