//! `cardshop write`, `verify`, `probe` and `card`: the card engine from the command line.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use cardshop_card::{CardError, DeviceClass, Job, Policy, ReadableCard, StopFlag};
use cardshop_protocol::ids::KeyId;
use cardshop_protocol::index::Index;
use cardshop_protocol::keys::{KeyList, KeyUse};
use cardshop_protocol::message::{Passport, Verify, WritePhase};
use cardshop_protocol::time::Timestamp;
use serde_json::json;

use crate::exit::{Ending, of_error, refused_for_safety, stop_flag};
use crate::image::read_index;
use crate::input::Input;
use crate::report::{Output, Progress, print_status_on_signal, size};
use crate::trust::TrustArgs;

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

/// Whether a card is tried out before it is written.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum ProbeWord {
    /// Marks all over the card find one that is smaller than it says; seconds. Not for plain files.
    Quick,
    /// Not at all.
    None,
}

/// Writes an image to one or many devices at once and reads it back.
///
/// Examples:
///   cardshop write school.img.xz /dev/sdb /dev/sdc
///   CARDSHOP_TOKEN=… cardshop write https://shop.example/images/4f3a… /dev/sdb
///
/// The image is read, unpacked and digested once for all cards; a slow or bad card holds up no other. What a slow
/// card still needs of a packed or remote image is kept in an unlinked file in TMPDIR (/var/tmp). An image without
/// an index is read once more before, to make it. SIGUSR1 prints how far each card is.
///
/// Exit codes: 0 all done, 1 a card failed, 3 refused for safety, 4 a card reads back wrong, 130 interrupted: the
/// card is blank to a computer then.
#[allow(rustdoc::bare_urls)] // the help prints the example as it is typed
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct Write {
    /// The image: .img, .img.xz, .img.zst, .img.gz, a file or an http(s) address; CARDSHOP_TOKEN holds the token.
    image: PathBuf,
    /// The devices; plain files are written in place.
    #[arg(required = true)]
    devices: Vec<PathBuf>,
    /// The image's index [default: the one beside the image, else made first].
    #[arg(long)]
    index: Option<PathBuf>,
    /// How much to read back.
    #[arg(long, value_enum, default_value = "full")]
    verify: VerifyWord,
    /// How to clear the card.
    #[arg(long, value_enum, default_value = "discard")]
    wipe: Wipe,
    /// Try the card out first.
    #[arg(long, value_enum, default_value = "quick")]
    probe: ProbeWord,
    /// The card holds an earlier build of the image: read it first, write only what differs, wipe nothing.
    #[arg(long)]
    refresh: bool,
    /// Do not ask.
    #[arg(long)]
    yes: bool,
    #[command(flatten)]
    trust: TrustArgs,
}

impl Write {
    pub(crate) fn run(self, output: &Output) -> anyhow::Result<Ending> {
        print_status_on_signal();
        let stop = stop_flag();
        let input = Input::new(&self.image, &self.trust, stop.clone())?;
        if !self.yes {
            confirm(output, &self.devices)?;
        }
        let index = Arc::new(input.index(self.index.as_deref(), self.largest_card(), output)?);
        let source = input.source(&index)?;
        let bars = output.bars();
        // Each card has its place at the source before the first begins.
        let cards: Vec<_> = self.devices.iter().map(|device| (device, source.card())).collect();
        let threads: Vec<_> = cards
            .into_iter()
            .map(|(device, source)| {
                let mut progress = output.progress(&bars, &name_of(device));
                let (index, stop, device) = (index.clone(), stop.clone(), device.clone());
                let (wipe, verify) = (self.wipe.into(), self.verify.into());
                let how = How { probe: self.probe, refresh: self.refresh };
                let thread = std::thread::Builder::new().name(name_of(&device));
                thread.spawn(move || {
                    let job = Job { index: &index, source: &source, wipe, verify, passport: None };
                    write_one(&device, &job, how, &stop, &mut progress)
                })
            })
            .collect();
        let mut ending = Ending::Done;
        for (device, thread) in self.devices.iter().zip(threads) {
            let result = match thread {
                Ok(thread) => thread.join().expect("a writing thread does not panic"),
                Err(error) => Err(CardError::NoThread(error)),
            };
            match result {
                Ok(outcome) => tell(output, device, &index, &outcome),
                Err(error) => {
                    let fault = error.fault();
                    output.event(json!({"event": "failed", "device": device, "code": fault.code,
                        "text": fault.text, "offset": fault.offset, "remedy": error.remedy()}));
                    let error = anyhow::Error::new(error).context(device.display().to_string());
                    output.failure(&error);
                    ending = worse(ending, of_error(&error));
                }
            }
        }
        if source.spill_peak_bytes() > 0 {
            tracing::info!(bytes = source.spill_peak_bytes(), "most that was kept for slow cards");
        }
        Ok(ending)
    }

    /// Bytes of the largest card that was named: nothing larger needs to be unpacked.
    fn largest_card(&self) -> u64 {
        let sizes = self.devices.iter().filter_map(|device| cardshop_card::gather(device).ok());
        sizes.map(|facts| facts.size()).max().unwrap_or(0)
    }
}

#[derive(Clone, Copy)]
struct How {
    probe: ProbeWord,
    refresh: bool,
}

fn write_one(
    device: &Path,
    job: &Job<'_>,
    how: How,
    stop: &StopFlag,
    progress: &mut Progress,
) -> Result<cardshop_card::Outcome, CardError> {
    let mut card = cardshop_card::claim(device, &Policy::named())?;
    let needed = job.index.image_size();
    if card.size() < needed {
        return Err(CardError::CardTooSmall { card_size: card.size(), needed });
    }
    if how.probe == ProbeWord::Quick && card.facts().class != DeviceClass::PlainFile {
        progress.rest("probing");
        cardshop_card::probe(&mut card, stop)?;
    }
    let write = if how.refresh { cardshop_card::refresh_card } else { cardshop_card::write_card };
    let outcome = write(&mut card, job, stop, &mut |p| {
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
        "written_bytes": outcome.written_bytes, "kept_bytes": outcome.kept_bytes,
        "verified_bytes": outcome.verified_bytes,
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
        print_status_on_signal();
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
/// Examples:
///   cardshop card /dev/sdb
///   cardshop card /dev/sdb --keys keys.json     (what GET /api/v1/keys answers)
///
/// With --keys the passport's certificate is checked: over the card, its image and the result, by the appliance
/// that wrote it. Exit code 4 when it is not genuine.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct Card {
    /// The device or file.
    device: PathBuf,
    /// The shop's public keys.
    #[arg(long, value_name = "FILE")]
    keys: Option<PathBuf>,
}

/// What the passport's signature is worth.
#[derive(Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
enum Certificate {
    Genuine,
    NotGenuine,
    NotChecked,
}

impl Card {
    pub(crate) fn run(self, output: &Output) -> anyhow::Result<Ending> {
        let failed = || format!("cannot read {}", self.device.display());
        let mut card = ReadableCard::open(&self.device).with_context(failed)?;
        let passport = cardshop_card::read_passport_of(&mut card).with_context(failed)?;
        let certificate = match (&passport, &self.keys) {
            (Some(passport), Some(keys)) => check_certificate(passport, keys)?,
            _ => Certificate::NotChecked,
        };
        let facts = card.facts();
        output.event(json!({"event": "card", "device": self.device, "size": facts.size(), "model": facts.model,
            "cid": facts.cid, "read_only": facts.read_only, "passport": passport, "certificate": certificate}));
        output.line(facts.describe());
        match passport {
            None => output.line("  no passport of ours"),
            Some(p) => output.line(format_args!(
                "  card {}, copy {} of {} of order {}\n  image {}\n  {} by {} (appliance {}), {}\n  certificate: {}",
                p.uid,
                p.copy,
                p.total,
                p.order,
                p.image,
                p.written_at,
                p.shop,
                p.appliance,
                p.result,
                match certificate {
                    Certificate::Genuine => "genuine",
                    Certificate::NotGenuine => "NOT GENUINE",
                    Certificate::NotChecked => "not checked, --keys does",
                }
            )),
        }
        Ok(if certificate == Certificate::NotGenuine { Ending::VerifyMismatch } else { Ending::Done })
    }
}

fn check_certificate(passport: &Passport, keys: &Path) -> anyhow::Result<Certificate> {
    let shown = || keys.display().to_string();
    let list: KeyList =
        serde_json::from_slice(&std::fs::read(keys).with_context(shown)?).with_context(shown)?;
    let now = Timestamp::from_system(std::time::SystemTime::now());
    let key = list.find(KeyId(passport.appliance.0), KeyUse::Appliance, now);
    let genuine = key.is_some_and(|key| passport.is_signed_by(&key));
    Ok(if genuine { Certificate::Genuine } else { Certificate::NotGenuine })
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
        let facts = cardshop_card::gather(&self.device).with_context(|| self.device.display().to_string())?;
        let report = if self.yes {
            cardshop_card::claim(&self.device, &Policy::named())
                .and_then(|mut card| cardshop_card::probe(&mut card, &stop_flag()))
        } else {
            ReadableCard::open(&self.device).and_then(|mut card| cardshop_card::probe_reading(&mut card))
        };
        let report = report.with_context(|| self.device.display().to_string())?;
        output.event(
            json!({"event": "probed", "device": self.device, "size": report.size, "marks": report.marks,
            "read_bps": report.read_bps, "write_bps": report.write_bps, "read_only": facts.read_only}),
        );
        let proof = match report.marks {
            0 => "its size is what it says (--yes proves it)".to_owned(),
            marks => format!("{marks} marks up to its end held"),
        };
        let locked = if facts.read_only { ", write-protected" } else { "" };
        let writes = match report.write_bps {
            0 => String::new(),
            rate => format!(", writes {}/s", size(rate)),
        };
        output.line(format_args!(
            "{}: {} ({} bytes){locked}, {proof}, reads {}/s{writes}",
            self.device.display(),
            size(report.size),
            report.size,
            size(report.read_bps)
        ));
        Ok(Ending::Done)
    }
}
