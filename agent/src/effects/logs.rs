//! The newest log lines in memory, so that `logs` can answer with them. The binary sends its log both to
//! standard error and here; a program that links the agent may do the same with [`ring()`].

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::{Mutex, MutexGuard, OnceLock};

/// Bytes kept: about the last 300 lines.
const RING_SIZE: usize = 64 * 1024;

/// The last `RING_SIZE` bytes of the log.
#[derive(Debug, Default)]
pub struct LogRing(Mutex<VecDeque<u8>>);

/// The process's ring.
pub fn ring() -> &'static LogRing {
    static RING: OnceLock<LogRing> = OnceLock::new();
    RING.get_or_init(LogRing::default)
}

impl LogRing {
    fn lock(&self) -> MutexGuard<'_, VecDeque<u8>> {
        self.0.lock().expect("no holder panics")
    }

    /// The newest whole lines that fit into `size` bytes.
    pub fn newest(&self, size: usize) -> String {
        let ring = self.lock();
        let skipped = ring.len().saturating_sub(size);
        let bytes: Vec<u8> = ring.iter().skip(skipped).copied().collect();
        let text = String::from_utf8_lossy(&bytes);
        match text.split_once('\n') {
            Some((_, whole)) if skipped > 0 => whole.to_owned(),
            _ => text.into_owned(),
        }
    }
}

/// Changes how much is logged; says what is wrong with a level.
type SetLevel = Box<dyn Fn(&str) -> Result<(), String> + Send + Sync>;

static SET_LEVEL: OnceLock<SetLevel> = OnceLock::new();

/// Says how the level of this process's log is changed; the first who says it counts.
pub fn on_level(set: impl Fn(&str) -> Result<(), String> + Send + Sync + 'static) {
    let _ = SET_LEVEL.set(Box::new(set));
}

/// Logs this much from now on; what it was at the start when `level` is empty.
///
/// # Errors
/// Why the level is none, for people.
pub(crate) fn set_level(level: &str) -> Result<(), String> {
    SET_LEVEL.get().ok_or("this process keeps its level")?(level)
}

/// Writes to standard error and to a ring.
#[derive(Debug, Clone, Copy)]
pub struct Tee(pub &'static LogRing);

impl Write for Tee {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut ring = self.0.lock();
        ring.extend(bytes);
        let excess = ring.len().saturating_sub(RING_SIZE);
        ring.drain(..excess);
        drop(ring);
        io::stderr().write_all(bytes)?;
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ring_is_bounded_and_gives_whole_lines() {
        let ring = LogRing::default();
        let lines: String = (0..20_000).map(|n| format!("line {n}\n")).collect();
        ring.lock().extend(lines.bytes());
        let text = ring.newest(40);
        assert!(text.starts_with("line ") && text.ends_with("line 19999\n") && text.len() <= 40, "{text}");
        assert_eq!(ring.newest(1 << 30).len(), lines.len());
    }
}
