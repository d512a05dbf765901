//! One case: so many cards, so fast; every writer has its turn in each round.

use std::fmt;
use std::path::Path;

use super::loops::{Cards, Image};
use super::raw;
use super::writers::Writer;
use crate::exit::stop_flag;
use crate::report::Output;

/// How many cards there are, and how fast each is, bytes a second; nothing is as fast as memory.
pub(super) struct Case {
    pub(super) cards: usize,
    pub(super) caps: Vec<Option<u64>>,
}

impl Case {
    pub(super) fn is_capped(&self) -> bool {
        self.caps.iter().any(Option::is_some)
    }

    /// True when the cards are alike.
    pub(super) fn is_even(&self) -> bool {
        self.caps.windows(2).all(|pair| pair[0] == pair[1])
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let s = if self.cards == 1 { "" } else { "s" };
        write!(f, "{} card{s}, ", self.cards)?;
        let megabytes = |cap: &Option<u64>| cap.unwrap_or(0) / 1_000_000;
        match (self.is_capped(), self.is_even()) {
            (false, _) => write!(f, "not capped"),
            (true, true) => write!(f, "each capped at {} MB/s", megabytes(&self.caps[0])),
            (true, false) => {
                let rates: Vec<String> = self.caps.iter().map(|cap| megabytes(cap).to_string()).collect();
                write!(f, "capped at {} MB/s", rates.join(", "))
            }
        }
    }
}

/// What one turn took.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Run {
    /// From the start to the last card's end, everything read back.
    pub(super) seconds: f64,
    /// Mean over the cards, where the writer says.
    pub(super) write_bps: Option<f64>,
    /// The same for reading back.
    pub(super) read_bps: Option<f64>,
    /// User and system time of all its processes.
    pub(super) cpu_seconds: f64,
    /// Largest resident memory, bytes, where it is known.
    pub(super) peak_memory: Option<u64>,
}

/// The turns of one contender, as medians.
pub(super) struct Line {
    /// Nothing is the raw rate.
    pub(super) writer: Option<Writer>,
    pub(super) runs: Vec<Run>,
}

impl Line {
    /// The median of one figure over the rounds, of those that have it.
    pub(super) fn median(&self, figure: impl Fn(&Run) -> Option<f64>) -> Option<f64> {
        let mut values: Vec<f64> = self.runs.iter().filter_map(figure).collect();
        values.sort_by(f64::total_cmp);
        let (low, high) = (values.get(values.len().checked_sub(1)? / 2)?, values.get(values.len() / 2)?);
        Some((low + high) / 2.0)
    }

    pub(super) fn seconds(&self) -> f64 {
        self.median(|run| Some(run.seconds)).unwrap_or(f64::NAN)
    }
}

/// A case with all its turns.
pub(super) struct Result {
    pub(super) case: Case,
    /// Bytes of data each card gets.
    pub(super) mapped: u64,
    /// The raw rate first.
    pub(super) lines: Vec<Line>,
}

impl Result {
    pub(super) fn line(&self, writer: Option<Writer>) -> Option<&Line> {
        self.lines.iter().find(|line| line.writer == writer)
    }
}

impl Case {
    /// Gives every writer its turn in each round: what else the machine does meets all alike.
    pub(super) fn run(
        self,
        image: &Image,
        cards: &Cards,
        writers: &[Writer],
        rounds: usize,
        output: &Output,
    ) -> anyhow::Result<Result> {
        let folder = image.path.parent().unwrap_or(Path::new("/"));
        let bars = output.bars();
        let mut progress = output.progress(&bars, &self.to_string());
        let contenders = || std::iter::once(None).chain(writers.iter().copied().map(Some));
        let mut lines: Vec<Line> = contenders().map(|writer| Line { writer, runs: Vec::new() }).collect();
        for _ in 0..rounds {
            for line in &mut lines {
                anyhow::ensure!(!stop_flag().is_stopped(), "interrupted");
                cards.soil()?;
                line.runs.push(match line.writer {
                    None => raw::run(&image.index, cards)?,
                    Some(writer) => {
                        progress.rest(&writer.to_string());
                        writer.run(image, cards, folder)?
                    }
                });
            }
        }
        progress.finish("measured");
        Ok(Result { case: self, mapped: image.index.data_bytes(), lines })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_are_of_the_runs_that_have_the_figure() {
        let run = |seconds, write_bps| Run { seconds, write_bps, ..Run::default() };
        let line =
            Line { writer: None, runs: vec![run(3.0, None), run(1.0, Some(8.0)), run(2.0, Some(4.0))] };
        assert_eq!(line.seconds(), 2.0);
        assert_eq!(line.median(|run| run.write_bps), Some(6.0));
        assert_eq!(line.median(|run| run.read_bps), None);
    }

    #[test]
    fn a_case_says_how_fast_its_cards_are() {
        let name = |caps: &[Option<u64>]| Case { cards: caps.len(), caps: caps.to_vec() }.to_string();
        assert_eq!(name(&[None]), "1 card, not capped");
        assert_eq!(name(&[Some(90_000_000); 2]), "2 cards, each capped at 90 MB/s");
        assert_eq!(name(&[Some(20_000_000), Some(40_000_000)]), "2 cards, capped at 20, 40 MB/s");
    }
}
