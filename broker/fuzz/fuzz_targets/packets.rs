//! The reader of MQTT packets under random bytes, in both versions.
#![no_main]

#[path = "../checks.rs"]
mod checks;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| checks::packets(bytes));
