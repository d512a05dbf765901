//! `cardshop write`, `verify`, `probe` and `card`: the card engine from the command line.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use cardshop_card::{CardError, FileSource, Job, Policy, ReadableCard, StopFlag};
use cardshop_protocol::index::Index;
use cardshop_protocol::message::{Verify, WritePhase};
use serde_json::json;

use crate::exit::{Ending, of_error, refused_for_safety, stop_flag};
use crate::image::{index_path, read_index};
use crate::report::{Output, Progress, size};

/// How to clear a card before it is written.
#[derive(Clone, Copy, clap::ValueEnum)]
enum Wipe {
    /// Discard what is not mapped, where the device can.
    Discard,
    /// Write zeros over all that is not data.
    Zero,
    /// Partition tables only.
    None,
}

impl From<Wipe> for cardshop_protocol::message::Wipe {
    fn from(wipe: Wipe) -> Self {
        match wipe {
            Wipe::Discard => Self::Discard,
            Wipe::Zero => Self::Zero,
            Wipe::None => Self::None,
        }
    }
}

/// How much to read back.
#[derive(Clone, Copy, clap::ValueEnum)]
enum VerifyWord {
    /// Every mapped byte.
    Full,
    /// What this run wrote.
    Written,
    /// Nothing: the card is not called verified.
    None,
}

impl From<VerifyWord> for Verify {
    fn from(verify: VerifyWord) -> Self {
        match verify {
            VerifyWord::Full => Self::Full,
            VerifyWord::Written => Self::Written,
            VerifyWord::None => Self::None,
        }
    }
}

/// Writes an image to one or many devices at once and reads it back.
///
/// Example: cardshop write school.img /dev/sdb /dev/sdc
///
/// Exit codes: 0 all done, 1 a card failed, 3 refused for safety, 4 a card reads back wrong, 130 interrupted: the
/// card is blank to a computer then.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct Write {
    /// The image, a plain file.
    image: PathBuf,
    /// The devices; plain files are written in place.
    #[arg(required = true)]
    devices: Vec<PathBuf>,
    /// The image's index [default: IMAGE.cardindex if it is there, else made first].
    #[arg(long)]
    index: Option<PathBuf>,
    /// How much to read back.
    #[arg(long, value_enum, default_value = "full")]
    verify: VerifyWord,
    /// How to clear the card.
    #[arg(long, value_enum, default_value = "discard")]
    wipe: Wipe,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
}

impl Write {
    pub(crate) fn run(self, output: &Output) -> anyhow::Result<Ending> {
        refuse_packed(&self.image)?;
        if !self.yes {
            confirm(output, &self.devices)?;
        }
        let index = self.index(output)?;
        let source = FileSource::open(&self.image, &index)
            .with_context(|| format!("cannot read {}", self.image.display()))?;
        // Only now: before it there is nothing that Ctrl-C must leave in order.
        let stop = stop_flag();
        let (index, source) = (Arc::new(index), Arc::new(source));
        let bars = output.bars();
        let mut ending = Ending::Done;
        let threads: Vec<_> = self
            .devices
            .iter()
            .map(|device| {
                let mut progress = output.progress(&bars, &name_of(device));
                let (index, source, stop, device) =
                    (index.clone(), source.clone(), stop.clone(), device.clone());
                let (wipe, verify) = (self.wipe.into(), self.verify.into());
                std::thread::spawn(move || {
                    let job = Job { index: &index, source: &*source, wipe, verify, passport: None };
                    write_one(&device, &job, &stop, &mut progress)
                })
            })
            .collect();
        for (device, thread) in self.devices.iter().zip(threads) {
            let result = thread.join().expect("a writing thread does not panic");
            if let Err(error) = result {
                let error = anyhow::Error::new(error).context(device.display().to_string());
                output.failure(&error);
                ending = worse(ending, of_error(&error));
            } else if let Ok(outcome) = result {
                tell(output, device, &index, &outcome);
            }
        }
        Ok(ending)
    }

    fn index(&self, output: &Output) -> anyhow::Result<Index> {
        let beside = index_path(&self.image);
        match &self.index {
            Some(path) => read_index(path),
            None if beside.exists() => read_index(&beside),
            None => {
                let bars = output.bars();
                let mut progress = output.progress(&bars, "index");
                cardshop_card::index_file(&self.image, None, None, &mut |done, total| {
                    progress.at("digesting", done, total);
                })
                .with_context(|| format!("cannot index {}", self.image.display()))
            }
        }
    }
}

fn write_one(
    device: &Path,
    job: &Job<'_>,
    stop: &StopFlag,
    progress: &mut Progress,
) -> Result<cardshop_card::Outcome, CardError> {
    let mut card = cardshop_card::claim(device, &Policy::named())?;
    let outcome = cardshop_card::write_card(&mut card, job, stop, &mut |p| {
        progress.at(phase_name(p.phase), p.done, p.total);
    })?;
    progress.finish("done");
    Ok(outcome)
}

fn tell(output: &Output, device: &Path, index: &Index, outcome: &cardshop_card::Outcome) {
    let rate = |bytes: u64, time: std::time::Duration| (bytes as f64 / time.as_secs_f64().max(0.001)) as u64;
    let write_bps = rate(outcome.written_bytes, outcome.write_duration);
    let verify_bps = rate(outcome.verified_bytes, outcome.verify_duration);
    let verified = outcome.is_verified();
    output.event(json!({"event": "written", "device": device, "image": index.id(), "verified": verified,
        "written_bytes": outcome.written_bytes, "verified_bytes": outcome.verified_bytes,
        "write_bps": write_bps, "verify_bps": verify_bps}));
    let word = if verified { "written and verified" } else { "written, NOT verified" };
    output.line(format_args!(
        "{}: {word}, image {}, {} at {}/s, read back at {}/s",
        device.display(),
        index.id(),
        size(outcome.written_bytes),
        size(write_bps),
        size(verify_bps)
    ));
}

/// The ending a person must act on first.
fn worse(a: Ending, b: Ending) -> Ending {
    let rank = |e| match e {
        Ending::Done => 0,
        Ending::Failed | Ending::WrongUsage => 1,
        Ending::VerifyMismatch => 2,
        Ending::RefusedForSafety => 3,
        Ending::Interrupted => 4,
    };
    if rank(b) > rank(a) { b } else { a }
}

fn phase_name(phase: WritePhase) -> &'static str {
    match phase {
        WritePhase::Probing => "probing",
        WritePhase::Wiping => "wiping",
        WritePhase::Writing => "writing",
        WritePhase::Verifying => "verifying",
    }
}

fn name_of(device: &Path) -> String {
    device.file_name().map_or_else(|| device.display().to_string(), |n| n.to_string_lossy().into_owned())
}

/// A packed image written as it is would read back well and be no card.
fn refuse_packed(image: &Path) -> anyhow::Result<()> {
    let ending = image.extension().unwrap_or_default().to_string_lossy().to_lowercase();
    let shown = image.display();
    anyhow::ensure!(
        !["xz", "zst", "gz", "bz2", "zip"].contains(&&*ending),
        "{shown} is packed: unpack it first, packed images cannot be written yet"
    );
    anyhow::ensure!(
        !image.to_string_lossy().contains("://"),
        "{shown} is an address: download it first, only files can be written yet"
    );
    Ok(())
}

/// Asks once for all devices. Where nobody can be asked and no `--yes` was said: refuses, and says how to go on.
fn confirm(output: &Output, devices: &[PathBuf]) -> anyhow::Result<()> {
    use std::io::{BufRead, IsTerminal};
    if output.json || !std::io::stdin().is_terminal() {
        return Err(refused_for_safety("nobody is there to confirm; say --yes to erase without asking"));
    }
    for device in devices {
        output.line(format_args!("{} will be erased", device.display()));
    }
    output.line("Type yes to go on:");
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    if answer.trim() == "yes" {
        return Ok(());
    }
    Err(refused_for_safety("not confirmed, nothing was changed"))
}

/// Reads a card back and compares it with an index; names the first bad offset.
///
/// Example: cardshop verify /dev/sdb --index school.img.cardindex
///
/// Exit codes: 0 equal, 1 failed, 4 different.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct VerifyCommand {
    /// The device or file.
    device: PathBuf,
    /// The image's index.
    #[arg(long)]
    index: PathBuf,
}

impl VerifyCommand {
    pub(crate) fn run(self, output: &Output) -> anyhow::Result<Ending> {
        let index = read_index(&self.index)?;
        let bars = output.bars();
        let mut progress = output.progress(&bars, &name_of(&self.device));
        let outcome = ReadableCard::open(&self.device)
            .and_then(|mut card| {
                cardshop_card::verify_card(&mut card, &index, &stop_flag(), &mut |p| {
                    progress.at(phase_name(p.phase), p.done, p.total);
                })
            })
            .with_context(|| self.device.display().to_string())?;
        progress.finish("done");
        output.event(json!({"event": "verified", "device": self.device, "image": index.id(),
            "verified_bytes": outcome.verified_bytes}));
        output.line(format_args!(
            "{}: equals image {} in all {} mapped bytes",
            self.device.display(),
            index.id(),
            outcome.verified_bytes
        ));
        Ok(Ending::Done)
    }
}

/// Reads a card's passport and says what the card is.
///
/// Example: cardshop card /dev/sdb
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct Card {
    /// The device or file.
    device: PathBuf,
}

impl Card {
    pub(crate) fn run(self, output: &Output) -> anyhow::Result<Ending> {
        let passport = cardshop_card::read_passport(&self.device)
            .with_context(|| format!("cannot read {}", self.device.display()))?;
        output.event(json!({"event": "card", "device": self.device, "passport": passport}));
        match passport {
            None => output.line(format_args!("{}: no passport of ours", self.device.display())),
            Some(p) => output.line(format_args!(
                "{}: card {}, copy {} of {} of order {}\n  image {}\n  {} by {} (appliance {}), {}",
                self.device.display(),
                p.uid,
                p.copy,
                p.total,
                p.order,
                p.image,
                p.written_at,
                p.shop,
                p.appliance,
                p.result
            )),
        }
        Ok(Ending::Done)
    }
}

/// Says what a card really is: size, write protection, speed.
///
/// Example: cardshop probe /dev/sdb --yes
///
/// Without --yes nothing is written; with it, marks at growing offsets find a card that is smaller than it says.
/// What was there is put back, but a fake card may lose it: use it on cards without data.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct Probe {
    /// The device or file.
    device: PathBuf,
    /// Write marks.
    #[arg(long)]
    yes: bool,
}

impl Probe {
    pub(crate) fn run(self, output: &Output) -> anyhow::Result<Ending> {
        let report = if self.yes {
            cardshop_card::claim(&self.device, &Policy::named())
                .and_then(|mut card| cardshop_card::probe(&mut card, &stop_flag()))
        } else {
            ReadableCard::open(&self.device).and_then(|mut card| cardshop_card::probe_reading(&mut card))
        };
        let report = report.with_context(|| self.device.display().to_string())?;
        output.event(
            json!({"event": "probed", "device": self.device, "size": report.size, "marks": report.marks,
            "read_bps": report.read_bps}),
        );
        let proof = match report.marks {
            0 => "its size is what it says (--yes proves it)".to_owned(),
            marks => format!("{marks} marks up to its end held"),
        };
        let (device, rate) = (self.device.display(), size(report.read_bps));
        output.line(format_args!(
            "{device}: {} ({} bytes), {proof}, reads {rate}/s",
            size(report.size),
            report.size
        ));
        Ok(Ending::Done)
    }
}
