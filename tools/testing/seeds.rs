//! The seeds of a fuzz target, and what fuzzing found, through the target's own check. Included by the tests of each crate
//! that has targets.

/// Gives each file of `fuzz/seeds/{target}` of the crate under test to `check`.
pub(crate) fn replay(target: &str, check: fn(&[u8])) {
    let folder = format!("{}/fuzz/seeds/{target}", env!("CARGO_MANIFEST_DIR"));
    let mut count = 0;
    for entry in std::fs::read_dir(&folder).unwrap() {
        check(&std::fs::read(entry.unwrap().path()).unwrap());
        count += 1;
    }
    assert!(count > 0, "no seed in {folder}");
}
