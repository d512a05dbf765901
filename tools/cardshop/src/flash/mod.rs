//! `cardshop flash`: an appliance image onto a stick, with the files that say which shop it belongs to. The files are
//! put into a copy of the image first; the copy then goes through the card engine like any other image, so the
//! interlock has asked, and every byte has been read back, those files included.

mod fat;
mod files;

use std::fs::File;
use std::io::{BufRead, IsTerminal};
use std::path::{Path, PathBuf};

use anyhow::Context;
use cardshop_card::{DeviceClass, DeviceFacts, FileSource, Job, Policy, gather, interlock};
use cardshop_protocol::message::{Verify, Wipe};
use serde_json::json;

use self::files::FileArgs;
use crate::exit::{Ending, refused_for_safety, stop_flag, wrong_usage};
use crate::report::{Output, size};

/// Largest appliance image, bytes: ours are below 512 MiB.
const MAX_IMAGE_SIZE: u64 = 4 << 30;

/// Puts the appliance onto a stick, with the files that let it join a shop.
///
/// Examples:
///   cardshop flash                                             (lists what could be flashed)
///   cardshop flash --image appliance.img --device /dev/sdb --join JOIN.TXT
///   CARDSHOP_JOIN=csj1.… cardshop flash --image appliance.img --device /dev/sdb --server https://shop.example
///   cardshop flash --image appliance.img --device stick.img --join JOIN.TXT     (a plain file, for other imagers)
///
/// The stick's size is asked back before it is erased. Exit code 3: refused for safety.
#[allow(rustdoc::bare_urls)] // the help prints the example as it is typed
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct Flash {
    /// The stick, or a plain file; without it, what could be flashed is listed.
    #[arg(long, value_name = "DEV", requires = "image")]
    device: Option<PathBuf>,
    /// The appliance image.
    #[arg(long, value_name = "FILE")]
    image: Option<PathBuf>,
    #[command(flatten)]
    files: FileArgs,
}

impl Flash {
    pub(crate) fn run(self, output: &Output) -> anyhow::Result<Ending> {
        let Some(device) = &self.device else { return list(output) };
        let image = self.image.as_deref().context("--image names the appliance image")?;
        let files = self.files.read()?;
        let copy = prepared(image, &files)?;
        let (path, length) = (copy.path(), copy.as_file().metadata()?.len());
        if !device.exists() && !device.starts_with("/dev") {
            File::create(device).and_then(|file| file.set_len(length)).with_context(|| shown(device))?;
        }
        let facts = gather(device)?;
        // Before anybody is asked: what is refused is refused whatever they answer.
        interlock::check(&facts, &Policy::named()).map_err(cardshop_card::CardError::from)?;
        if facts.class != DeviceClass::PlainFile {
            ask_size(output, &facts)?;
        }
        let bars = output.bars();
        let mut progress = output.progress(&bars, &shown(device));
        let index = cardshop_card::index_file(path, None, None, &mut |done, total| {
            progress.at("digesting", done, total);
        })?;
        let source = FileSource::open(path, &index)?;
        let policy = Policy { probed: Some(facts.identity), ..Policy::named() };
        let mut card = cardshop_card::claim(device, &policy)?;
        if card.size() < length {
            return Err(
                cardshop_card::CardError::CardTooSmall { card_size: card.size(), needed: length }.into()
            );
        }
        let job =
            Job { index: &index, source: &source, wipe: Wipe::None, verify: Verify::Full, passport: None };
        let outcome = cardshop_card::write_card(&mut card, &job, &stop_flag(), &mut |step| {
            progress.at("flashing", step.done, step.total);
        })
        .with_context(|| shown(device))?;
        progress.finish("done");
        let names: Vec<&str> = files.iter().map(|(name, _)| *name).collect();
        output.event(json!({"event": "flashed", "device": device, "verified": outcome.is_verified(),
            "written_bytes": outcome.written_bytes, "files": names}));
        output.line(format_args!(
            "{}: flashed and verified, with {}. Start a computer from it; its screen says what comes next.",
            device.display(),
            if names.is_empty() {
                "no files: put JOIN.TXT there by hand".to_owned()
            } else {
                names.join(" and ")
            }
        ));
        Ok(Ending::Done)
    }
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

/// A private copy of the image with the files in it; gone when it is dropped.
fn prepared(image: &Path, files: &[(&str, String)]) -> anyhow::Result<tempfile::NamedTempFile> {
    let mut from = File::open(image).with_context(|| shown(image))?;
    let length = from.metadata()?.len();
    if length > MAX_IMAGE_SIZE {
        return Err(wrong_usage(format!("{} is no appliance image: it has {}", shown(image), size(length))));
    }
    // The copy holds the token: readable by its owner only, as tempfile makes it.
    let mut copy = tempfile::Builder::new().prefix("cardshop-flash").tempfile()?;
    copy_with_holes(&mut from, copy.as_file_mut(), length)?;
    let files: Vec<(&str, &str)> = files.iter().map(|(name, text)| (*name, text.as_str())).collect();
    fat::put_files(copy.as_file(), &files).with_context(|| shown(image))?;
    Ok(copy)
}

/// Copies what is not zero: an image that came over a network has no holes, and needs none written.
fn copy_with_holes(from: &mut File, to: &mut File, length: u64) -> std::io::Result<()> {
    use std::os::unix::fs::FileExt;
    const PIECE: usize = 64 * 1024;
    to.set_len(length)?;
    let mut buffer = vec![0; PIECE];
    let mut at = 0;
    while at < length {
        let piece = &mut buffer[..(length - at).min(PIECE as u64) as usize];
        from.read_exact_at(piece, at)?;
        if piece.iter().any(|byte| *byte != 0) {
            to.write_all_at(piece, at)?;
        }
        at += piece.len() as u64;
    }
    Ok(())
}

/// Prints the devices that may be flashed, and nothing else.
fn list(output: &Output) -> anyhow::Result<Ending> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/sys/block").context("/sys/block")?.flatten() {
        let Ok(facts) = gather(&Path::new("/dev").join(entry.file_name())) else { continue };
        let is_stick = matches!(facts.class, DeviceClass::Removable | DeviceClass::Mmc);
        if is_stick && interlock::check(&facts, &Policy::named()).is_ok() {
            found.push(facts);
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    for facts in &found {
        output.event(
            json!({"event": "device", "device": facts.path, "size": facts.size(), "model": facts.model}),
        );
        output.line(format_args!("{}  {}", facts.describe(), size(facts.size())));
    }
    if found.is_empty() {
        output.line("nothing here may be flashed: plug in a stick that is not mounted");
    }
    Ok(Ending::Done)
}

/// A person who types the size has looked at the right stick. The answer may come through a pipe.
fn ask_size(output: &Output, facts: &DeviceFacts) -> anyhow::Result<()> {
    output.line(format_args!("{} will be erased.", facts.describe()));
    output.line("Type its size in GB, as printed on it or rounded, to go on:");
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    if !answer.ends_with('\n') && !std::io::stdin().is_terminal() && answer.is_empty() {
        return Err(refused_for_safety("nobody is there to say the stick's size, nothing was changed"));
    }
    if says_size(&answer, facts.size()) {
        return Ok(());
    }
    Err(refused_for_safety("that is not the stick's size, nothing was changed"))
}

/// True when the answer is the size in GB, within the tenth that sticks lack of what is printed on them.
fn says_size(answer: &str, bytes: u64) -> bool {
    let number = answer.trim().trim_end_matches(['G', 'g', 'B', 'b', ' ']).replace(',', ".");
    let Ok(said) = number.parse::<f64>() else { return false };
    let actual = bytes as f64 / 1e9;
    (said - actual).abs() <= 0.1 * actual
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_size_on_the_label_is_an_answer_and_another_sticks_is_not() {
        let stick = 15_931_539_456;
        for good in ["16", "15.9", "16 GB\n", "16GB", "15,9"] {
            assert!(says_size(good, stick), "{good}");
        }
        for bad in ["", "yes", "32", "8", "-16", "nan", "1e400"] {
            assert!(!says_size(bad, stick), "{bad}");
        }
    }
}
