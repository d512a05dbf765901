//! A task's log until the scheduler has it: lines with the time since the task began, bounded, oldest first out. Pure.
//!
//! Colours (ANSI `ESC [ … m`) are kept, every other control sequence goes: what a registry or an archive says must not
//! move a cursor or set a title where people read it.

use std::collections::VecDeque;
use std::time::Duration;

use cardshop_protocol::api::CreationPhase;

/// Longest line, bytes.
const MAX_LINE: usize = 2000;
/// Most bytes that wait to be sent: a scheduler that is away for an hour costs no more memory.
const MAX_WAITING: usize = 256 * 1024;
/// Most bytes of one message.
const MAX_PIECE: usize = 32 * 1024;

/// Lines that wait to be sent.
#[derive(Debug, Default)]
pub(super) struct TaskLog {
    waiting: VecDeque<(CreationPhase, String)>,
    bytes: usize,
    /// Number of the first line that waits.
    first: u64,
    /// Lines before it that nobody heard of and nobody was told of either.
    left_out: u64,
}

/// What is sent at once.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Piece {
    /// Step that all its lines are of.
    pub(super) phase: CreationPhase,
    /// Whole lines.
    pub(super) text: String,
    /// Number of the line after its last.
    upto: u64,
    left_out: u64,
}

impl TaskLog {
    /// Adds what happened in a step, `since` the task began; of several lines each becomes one.
    pub(super) fn add(&mut self, since: Duration, phase: CreationPhase, text: &str) {
        for line in text.lines() {
            let line = format!("{:>8.1} s  {}\n", since.as_secs_f64(), readable(line));
            self.bytes += line.len();
            self.waiting.push_back((phase, line));
        }
        while self.bytes > MAX_WAITING && self.drop_first() {
            self.left_out += 1;
        }
    }

    fn drop_first(&mut self) -> bool {
        let Some((_, line)) = self.waiting.pop_front() else { return false };
        self.bytes -= line.len();
        self.first += 1;
        true
    }

    /// The next lines to send, if there are any. They wait until [`Self::sent`].
    pub(super) fn piece(&self) -> Option<Piece> {
        let (phase, _) = *self.waiting.front()?;
        let mut piece = Piece { phase, text: String::new(), upto: self.first, left_out: self.left_out };
        if self.left_out > 0 {
            piece.text = format!("… {} lines left out\n", self.left_out);
        }
        for (_, line) in self.waiting.iter().take_while(|(of, _)| *of == phase) {
            if piece.text.len() + line.len() > MAX_PIECE {
                break;
            }
            piece.text.push_str(line);
            piece.upto += 1;
        }
        Some(piece)
    }

    /// A piece has arrived.
    pub(super) fn sent(&mut self, piece: &Piece) {
        // Lines of it that were left out meanwhile count as left out all the same: too many are told, never too few.
        self.left_out -= piece.left_out;
        while self.first < piece.upto && self.drop_first() {}
    }
}

/// A line without control sequences other than colours, and not too long.
fn readable(line: &str) -> String {
    let mut text = String::new();
    let mut rest = line.chars();
    let mut coloured = false;
    while let Some(c) = rest.next() {
        if text.len() >= MAX_LINE {
            text.push('…');
            break;
        }
        match c {
            '\u{1b}' => {
                if let Some((sequence, after)) = colour(rest.as_str()) {
                    (coloured, rest) = (sequence != "[0m" && sequence != "[m", after.chars());
                    text.push('\u{1b}');
                    text.push_str(sequence);
                }
            }
            '\t' => text.push(' '),
            c if c.is_control() => {}
            c => text.push(c),
        }
    }
    if coloured {
        text.push_str("\u{1b}[0m");
    }
    text
}

/// A colour sequence at the start of `text`, after its ESC, and what follows it.
fn colour(text: &str) -> Option<(&str, &str)> {
    let parameters = text.strip_prefix('[')?;
    let length = parameters.bytes().take(16).take_while(|b| b.is_ascii_digit() || *b == b';').count();
    parameters[length..].starts_with('m').then(|| text.split_at(length + 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const BUILDING: CreationPhase = CreationPhase::Building;

    #[test]
    fn colours_are_kept_and_every_other_control_sequence_goes() {
        for (line, expected) in [
            ("\u{1b}[1;31mbad\u{1b}[0m end", "\u{1b}[1;31mbad\u{1b}[0m end"),
            ("\u{1b}[33mnever ended", "\u{1b}[33mnever ended\u{1b}[0m"),
            ("\u{1b}[2Ja\u{1b}]0;title\u{7}b\rc\td", "[2Ja]0;titlebc d"),
            ("\u{1b}[999999999999999999999m", "[999999999999999999999m"),
            ("\u{1b}", ""),
        ] {
            assert_eq!(readable(line), expected);
        }
        assert!(readable(&"é".repeat(MAX_LINE)).len() < MAX_LINE + 8);
    }

    #[test]
    fn lines_are_sent_in_order_once_and_wait_until_they_have_arrived() {
        let mut log = TaskLog::default();
        log.add(SECOND, BUILDING, "one\ntwo");
        let piece = log.piece().unwrap();
        assert_eq!(piece.text, "     1.0 s  one\n     1.0 s  two\n");
        log.add(SECOND * 2, BUILDING, "three");
        log.add(SECOND * 2, CreationPhase::Indexing, "four");
        assert!(log.piece().unwrap().text.starts_with(&piece.text), "an unheard piece is sent again");
        log.sent(&piece);
        let piece = log.piece().unwrap();
        assert_eq!(piece.text, "     2.0 s  three\n");
        log.sent(&piece);
        let piece = log.piece().unwrap();
        assert_eq!((piece.phase, piece.text.as_str()), (CreationPhase::Indexing, "     2.0 s  four\n"));
        log.sent(&piece);
        assert_eq!((log.piece(), log.bytes), (None, 0));
    }

    #[test]
    fn a_scheduler_that_is_away_costs_the_oldest_lines_and_they_are_counted() {
        let mut log = TaskLog::default();
        let line = "x".repeat(1000);
        for _ in 0..1000 {
            log.add(SECOND, BUILDING, &line);
            assert!(log.bytes <= MAX_WAITING);
        }
        log.add(SECOND, BUILDING, "the newest");
        let (mut all, mut pieces) = (String::new(), 0);
        while let Some(piece) = log.piece() {
            assert!(piece.text.len() <= MAX_PIECE);
            all += &piece.text;
            log.sent(&piece);
            pieces += 1;
        }
        assert!(all.ends_with("the newest\n") && pieces > 5 && log.bytes == 0);
        let left_out: usize = all.split(' ').nth(1).unwrap().parse().unwrap();
        assert!(left_out > 500);
        assert_eq!(left_out + all.lines().count() - 1, 1001, "each line is there or counted");
    }
}
