//! `cardshop bench card`: writes one image to loop devices by turns with every writer there is, and says how
//! long each took, beside the raw rate of the same devices. The cards are files in memory, so that no disk is
//! measured; with a cap each is as slow as a real card.

mod cap;
mod case;
mod loops;
mod raw;
mod table;
mod writers;

use std::path::PathBuf;

use anyhow::{Context, ensure};
use serde_json::json;

use self::cap::Caps;
use self::case::Case;
use self::loops::{Cards, Image};
use self::writers::Writer;
use crate::exit::{Ending, stop_flag};
use crate::report::{Output, size};

/// Bytes a card has beyond the image.
const CARD_HEADROOM: u64 = 4 << 20;
/// Rates of the four unequal cards, bytes a second.
const UNEQUAL: [u64; 4] = [20_000_000, 40_000_000, 60_000_000, 90_000_000];

/// Writes an image to loop devices: dd, bmaptool and caligula (where installed), the devices' raw rate, and ours.
///
/// Example: cardshop bench card --rounds 1 --cards 1,8
///
/// Needs root, and memory for the image and all cards. Every writer reads back what it wrote; bmaptool, which
/// does not, is followed by `cardshop verify`.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct BenchCard {
    /// Bytes of the image, a multiple of 4 MiB; two fifths of it are data, the rest is don't care.
    #[arg(long, default_value_t = 1 << 30)]
    size: u64,
    /// How often each writer has its turn.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Numbers of cards written at once.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 4, 8])]
    cards: Vec<usize>,
    /// What a capped card reads and writes, bytes a second.
    #[arg(long, default_value_t = 90_000_000)]
    cap: u64,
    /// Only cards without a cap.
    #[arg(long)]
    uncapped: bool,
    /// Only these writers, beside the raw rate [default: all there are].
    #[arg(long, value_enum, value_delimiter = ',')]
    writers: Vec<Writer>,
    /// Where image and cards are made, in a folder of their own.
    #[arg(long, default_value = "/dev/shm")]
    dir: PathBuf,
}

impl BenchCard {
    pub(crate) fn run(self, output: &Output) -> anyhow::Result<Ending> {
        ensure!(nix::unistd::geteuid().is_root(), "needs root: it makes loop devices");
        ensure!(self.size > 0 && self.size.is_multiple_of(4 << 20), "--size must be a multiple of 4 MiB");
        ensure!(self.rounds > 0, "--rounds must be at least 1");
        // Ctrl-C ends the writer at work, and with it the bench, which then lets go of the devices.
        stop_flag();
        let folder = tempfile::Builder::new().prefix("cardshop-bench.").tempdir_in(&self.dir)?;
        let image = Image::make(folder.path(), self.size)?;
        let writers = self.present(output);
        let caps = Caps::new();
        if let Err(reason) = &caps {
            skipped(output, format_args!("capped cards: {reason:#}"));
        }
        let mut results = Vec::new();
        for case in self.cases(caps.is_ok()) {
            let cards = match Cards::make(folder.path(), case.cards, self.size + CARD_HEADROOM) {
                Ok(cards) => cards,
                Err(reason) => {
                    skipped(output, format_args!("{case}: {reason:#}"));
                    continue;
                }
            };
            cards.cap(caps.as_ref().ok(), &case).context("cannot cap the cards")?;
            let result = case.run(&image, &cards, &writers, self.rounds, output)?;
            table::print(output, &result);
            results.push(result);
        }
        table::goals(output, &results);
        Ok(Ending::Done)
    }

    /// The writers that are here.
    fn present(&self, output: &Output) -> Vec<Writer> {
        let wanted = |writer: &Writer| self.writers.is_empty() || self.writers.contains(writer);
        let (here, missing): (Vec<_>, Vec<_>) =
            Writer::ALL.into_iter().filter(wanted).partition(|writer| writer.is_here());
        for writer in missing {
            skipped(output, format_args!("{writer} is not installed"));
        }
        let mapped = size(self.size / 5 * 2);
        output.line(format_args!(
            "image of {}, {mapped} of it data; by turns, {} rounds",
            size(self.size),
            self.rounds
        ));
        here
    }

    fn cases(&self, capped: bool) -> Vec<Case> {
        let even =
            |cap: Option<u64>| self.cards.iter().map(move |&cards| Case { cards, caps: vec![cap; cards] });
        let mut cases: Vec<Case> = even(None).collect();
        if capped && !self.uncapped {
            cases.extend(even(Some(self.cap)));
            cases.push(Case { cards: UNEQUAL.len(), caps: UNEQUAL.map(Some).to_vec() });
        }
        cases
    }
}

fn skipped(output: &Output, reason: impl std::fmt::Display) {
    output.line(format_args!("SKIPPED: {reason}"));
    output.event(json!({"event": "skipped", "text": reason.to_string()}));
}
