//! The log of one step of a task, as its worker sends it while it runs: pieces with their offset, so that a piece that is
//! sent again is not there twice. Bounded: the oldest lines go first.

use cardshop_protocol::ids::{OrderId, TaskId};
use cardshop_protocol::time::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Bytes of a log that are kept: a few thousand lines, well below what a document may have.
pub(crate) const MAX_KEPT: usize = 256 * 1024;
/// Largest piece, bytes.
pub(crate) const MAX_PIECE: usize = 64 * 1024;

/// What a log is of: four steps of a creation, and two of a card.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LogKind {
    /// Content comes in.
    Download,
    /// The image is made.
    Build,
    /// It is digested.
    Index,
    /// It goes to the warehouse.
    Upload,
    /// A card is written.
    Write,
    /// It is read back.
    Verify,
}

impl LogKind {
    /// Each of them.
    pub const ALL: [Self; 6] =
        [Self::Download, Self::Build, Self::Index, Self::Upload, Self::Write, Self::Verify];

    /// In a path, and in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Download => "download",
            Self::Build => "build",
            Self::Index => "index",
            Self::Upload => "upload",
            Self::Write => "write",
            Self::Verify => "verify",
        }
    }

    /// True when tasks of this sort have such a log.
    pub(crate) fn fits(self, task: TaskId) -> bool {
        matches!(self, Self::Write | Self::Verify) == task.copy.is_some()
    }
}

impl std::str::FromStr for LogKind {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        Self::ALL.into_iter().find(|kind| kind.name() == text).ok_or(())
    }
}

/// One log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TaskLog {
    pub(crate) order: OrderId,
    pub(crate) task: TaskId,
    pub(crate) kind: LogKind,
    /// Bytes at its beginning that are not kept any more.
    pub(crate) dropped: u64,
    pub(crate) text: String,
    pub(crate) changed: Timestamp,
}

impl TaskLog {
    pub(crate) fn new(task: TaskId, kind: LogKind, now: Timestamp) -> Self {
        Self { order: task.order, task, kind, dropped: 0, text: String::new(), changed: now }
    }

    /// Bytes it was given so far.
    pub(crate) fn size(&self) -> u64 {
        self.dropped + self.text.len() as u64
    }

    /// Adds what of a piece is new. `Err` gives where the next piece has to begin when some is missing before it.
    pub(crate) fn append(&mut self, offset: u64, piece: &str, now: Timestamp) -> Result<(), u64> {
        let size = self.size();
        if offset > size {
            return Err(size);
        }
        let known = usize::try_from(size - offset).unwrap_or(usize::MAX);
        let Some(new) = piece.get(known..).filter(|new| !new.is_empty()) else { return Ok(()) };
        self.text.push_str(new);
        self.changed = now;
        if self.text.len() > MAX_KEPT {
            // To the end of a line, so that the rest begins with a whole one; in a log without lines, to a character.
            let least = self.text.ceil_char_boundary(self.text.len() - MAX_KEPT);
            let line = self.text[least..].find('\n').map_or(least, |at| least + at + 1);
            self.text.drain(..line);
            self.dropped += line as u64;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use cardshop_protocol::ids::ObjectId;

    use super::*;

    fn log() -> TaskLog {
        TaskLog::new(TaskId::creation(ObjectId::from_parts(1, 1)), LogKind::Build, Timestamp::from_ms(0))
    }

    #[test]
    fn a_piece_that_comes_twice_or_overlaps_is_there_once_and_a_gap_is_told() {
        let (mut log, now) = (log(), Timestamp::from_ms(1));
        assert_eq!(log.append(0, "one\ntwo\n", now), Ok(()));
        assert_eq!(log.append(0, "one\ntwo\n", now), Ok(()));
        assert_eq!(log.append(4, "two\nthree\n", now), Ok(()));
        assert_eq!(log.text, "one\ntwo\nthree\n");
        assert_eq!(log.append(20, "five\n", now), Err(14));
        assert_eq!(log.append(13, "é", now), Ok(()), "in the middle of a character nothing is added");
        assert_eq!(log.size(), 14);
    }

    #[test]
    fn a_log_that_grows_keeps_its_newest_whole_lines_and_counts_what_it_dropped() {
        let (mut log, now) = (log(), Timestamp::from_ms(1));
        let mut sent = 0;
        for n in 0..40_000 {
            let line = format!("line {n} é\n");
            log.append(sent, &line, now).unwrap();
            sent += line.len() as u64;
        }
        assert!(log.text.len() <= MAX_KEPT && log.text.len() > MAX_KEPT - 100);
        assert!(log.text.starts_with("line ") && log.text.ends_with("line 39999 é\n"));
        assert_eq!(log.size(), sent);
        log.append(sent, &"é".repeat(MAX_KEPT), now).unwrap();
        assert!(log.text.len() <= MAX_KEPT);
    }

    #[test]
    fn each_kind_has_its_own_name_and_belongs_to_one_sort_of_task() {
        let order = ObjectId::from_parts(1, 1);
        for kind in LogKind::ALL {
            assert_eq!(kind.name().parse(), Ok(kind));
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.name());
            assert_ne!(kind.fits(TaskId::creation(order)), kind.fits(TaskId::write(order, 1)));
        }
    }
}
