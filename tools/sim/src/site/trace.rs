//! What happened, line by line: the newest lines for people, and a digest of all of them, by which two lives are the same.

use std::collections::VecDeque;

/// Lines that are kept.
const KEPT: usize = 400;

/// The story of a life.
pub(super) struct Trace {
    beginning_ms: u64,
    hasher: blake3::Hasher,
    lines: VecDeque<String>,
}

impl Trace {
    pub(super) fn new(beginning_ms: u64) -> Self {
        Self { beginning_ms, hasher: blake3::Hasher::new(), lines: VecDeque::new() }
    }

    pub(super) fn say(&mut self, now_ms: u64, text: &str) {
        let ms = now_ms - self.beginning_ms;
        let (hours, minutes, seconds) = (ms / 3_600_000, ms / 60_000 % 60, ms as f64 / 1000.0 % 60.0);
        let line = format!("{hours:02}:{minutes:02}:{seconds:06.3} {text}");
        self.hasher.update(line.as_bytes()).update(b"\n");
        if self.lines.len() == KEPT {
            self.lines.pop_front();
        }
        self.lines.push_back(line);
    }

    pub(super) fn digest(&self) -> String {
        self.hasher.finalize().to_hex().to_string()
    }

    pub(super) fn lines(self) -> Vec<String> {
        self.lines.into()
    }
}
