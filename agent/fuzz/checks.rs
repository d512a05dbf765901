//! What must hold for the files on the stick and the answers to a join, whatever they say. The fuzz targets call it
//! with random bytes, the test `tests/fuzz_seeds.rs` with the files in `seeds/`; a finding becomes a file there.

use cardshop_agent::{NetworkFile, check_join_file};
use cardshop_protocol::api::JoinAnswer;

/// A join file is taken or refused with a reason that holds nothing a screen could stumble over.
pub fn join_file(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Err(error) = check_join_file(text) {
        let why = error.to_string();
        assert!(why.len() < 2000 && !why.contains('\n'), "{why:?}");
    }
}

/// What is read can be written and read again, and every line is safe in a shell's hands.
pub fn network_file(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match NetworkFile::parse(text) {
        Ok(file) => {
            let harmless = |c: char| c.is_ascii_alphanumeric() || "_ .:/\n".contains(c);
            assert!(file.lines().chars().all(harmless), "{}", file.lines());
            assert_eq!(NetworkFile::parse(&file.to_toml()), Ok(file));
        }
        Err(error) => assert!(error.to_string().len() < 2000 && !error.to_string().contains('\n'), "{error}"),
    }
}

/// An answer is one or is not.
pub fn join_answer(bytes: &[u8]) {
    if let Ok(answer) = serde_json::from_slice::<JoinAnswer>(bytes) {
        let again = serde_json::to_vec(&answer).expect("what was read can be written");
        serde_json::from_slice::<JoinAnswer>(&again).expect("and read again");
    }
}
