//! What must hold for the files on the stick and the answers to a join, whatever they say. The fuzz targets call it
//! with random bytes, the test `tests/fuzz_seeds.rs` with the files in `seeds/`; a finding becomes a file there.

use cardshop_agent::core::panel::{FromPanel, Lines, MAX_LINE_SIZE, ToPanel};
use cardshop_agent::core::uevent::Uevent;
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

/// Whatever comes over a panel's wire, a line that is taken is one that can be said again.
pub fn panel(bytes: &[u8]) {
    let mut lines = Lines::default();
    // In two pieces: what is cut in the middle is the same.
    for piece in [&bytes[..bytes.len() / 2], &bytes[bytes.len() / 2..]] {
        lines.take(piece, |line| {
            assert!(line.len() < MAX_LINE_SIZE);
            if let Ok(said) = FromPanel::read(line) {
                assert!(said.line().len() <= MAX_LINE_SIZE);
                assert_eq!(FromPanel::read(said.line().as_bytes()), Ok(said));
            }
            if let Ok(said) = ToPanel::read(line) {
                assert_eq!(ToPanel::read(said.line().as_bytes()).map_err(|_| ()), Ok(said));
            }
        });
    }
}

/// A message of the kernel is read or is not; what it says comes from its own bytes.
pub fn uevent(bytes: &[u8]) {
    if let Ok(event) = Uevent::read(bytes) {
        assert!(event.path.starts_with('/'));
        assert!(event.path.len() + event.action.len() < bytes.len());
        let _ = event.concern();
    }
}
