//! The writers that have their turn: how each is called so that every card is written and read back, and what
//! its processes took.

use std::fmt;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use nix::sys::resource::{Usage, UsageWho, getrusage};
use serde_json::Value;

use super::case::Run;
use super::loops::{Cards, Image, system};

/// How often a process is asked for its peak memory, which cannot be had once it has ended.
const MEMORY_POLL: Duration = Duration::from_millis(10);

/// A program that writes an image to cards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Writer {
    /// `cardshop write`.
    Cardshop,
    /// dd with O_DIRECT, then cmp with the image.
    Dd,
    /// bmaptool, then `cardshop verify`: it does not read back itself.
    Bmaptool,
    /// caligula, which reads back.
    Caligula,
}

impl fmt::Display for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cardshop => "cardshop",
            Self::Dd => "dd + cmp",
            Self::Bmaptool => "bmaptool + verify",
            Self::Caligula => "caligula",
        })
    }
}

/// `$1` image, `$2` device, `$3` bytes.
const DD: &str = "dd if=\"$1\" of=\"$2\" bs=4M oflag=direct conv=fsync status=none && \
    blockdev --flushbufs \"$2\" && \
    dd if=\"$2\" bs=4M iflag=direct status=none | cmp -n \"$3\" - \"$1\"";
/// `$1` image, `$2` device, `$3` bmap, `$4` index, `$5` this program.
const BMAPTOOL: &str = "bmaptool -q copy --bmap \"$3\" \"$1\" \"$2\" && \"$5\" verify \"$2\" --index \"$4\"";
const CALIGULA: &str = "caligula burn \"$1\" -o \"$2\" -f --interactive never --root never --hash skip";

impl Writer {
    pub(super) const ALL: [Self; 4] = [Self::Cardshop, Self::Dd, Self::Bmaptool, Self::Caligula];

    pub(super) fn is_here(self) -> bool {
        let tool = match self {
            Self::Cardshop => return true,
            Self::Dd => "dd",
            Self::Bmaptool => "bmaptool",
            Self::Caligula => "caligula",
        };
        let answer = system(tool).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
        answer.is_ok_and(|status| status.success())
    }

    /// Writes and reads back all cards at once. Its words go to files in `folder`.
    pub(super) fn run(self, image: &Image, cards: &Cards, folder: &Path) -> anyhow::Result<Run> {
        let commands = self.commands(image, cards)?;
        let cpu_before = cpu_of(&getrusage(UsageWho::RUSAGE_CHILDREN)?);
        let began = Instant::now();
        let mut children = Vec::new();
        for (number, mut command) in commands.into_iter().enumerate() {
            let said = folder.join(format!("said{number}"));
            let file = fs::File::create(&said)?;
            command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
            children.push((command.spawn().with_context(|| format!("cannot start {self}"))?, said));
        }
        let (peak_memory, failed) = watch(&mut children);
        let seconds = began.elapsed().as_secs_f64();
        let said: Vec<String> =
            children.iter().map(|(_, said)| fs::read_to_string(said).unwrap_or_default()).collect();
        ensure!(!failed, "{self} failed: {}", said.concat());
        let cpu_seconds = cpu_of(&getrusage(UsageWho::RUSAGE_CHILDREN)?) - cpu_before;
        let [write_bps, read_bps] = ["write_bps", "verify_bps"].map(|key| mean_told(&said, key));
        // The others run below a shell: only of ours is the process known.
        let peak_memory = (self == Self::Cardshop).then_some(peak_memory);
        Ok(Run { seconds, write_bps, read_bps, cpu_seconds, peak_memory })
    }

    fn commands(self, image: &Image, cards: &Cards) -> anyhow::Result<Vec<Command>> {
        let ours = std::env::current_exe()?;
        if self == Self::Cardshop {
            let mut command = Command::new(ours);
            // The others neither discard nor probe.
            command.arg("write").arg(&image.path).args(&cards.devices).arg("--index").arg(&image.index_path);
            command.args(["--wipe", "none", "--probe", "none", "--yes", "--json"]);
            return Ok(vec![command]);
        }
        let shell = |device: &Path| {
            let mut command = system("sh");
            command.arg("-c").arg(match self {
                Self::Dd => DD,
                Self::Bmaptool => BMAPTOOL,
                _ => CALIGULA,
            });
            command.arg("sh").arg(&image.path).arg(device);
            match self {
                Self::Dd => command.arg(image.index.image_size().to_string()),
                Self::Bmaptool => command.arg(&image.bmap_path).arg(&image.index_path).arg(&ours),
                _ => &mut command,
            };
            command
        };
        Ok(cards.devices.iter().map(|device| shell(device)).collect())
    }
}

/// Waits for all; gives the sum of their peak memories, and whether one failed.
fn watch(children: &mut [(Child, std::path::PathBuf)]) -> (u64, bool) {
    let pids: Vec<u32> = children.iter().map(|(child, _)| child.id()).collect();
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let memory = scope.spawn(|| {
            let mut peaks = vec![0; pids.len()];
            while !ended.load(Ordering::Relaxed) {
                for (peak, pid) in peaks.iter_mut().zip(&pids) {
                    *peak = peak_memory(*pid).unwrap_or(0).max(*peak);
                }
                std::thread::sleep(MEMORY_POLL);
            }
            peaks.iter().sum()
        });
        let failed = children.iter_mut().map(|(child, _)| !child.wait().is_ok_and(|status| status.success()));
        let failed = failed.fold(false, |any, failed| any | failed);
        ended.store(true, Ordering::Relaxed);
        (memory.join().expect("reading /proc does not panic"), failed)
    })
}

/// **Source:** proc(5), *status*: VmHWM.
fn peak_memory(pid: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().trim_end_matches(" kB").parse::<u64>().ok().map(|kib| kib * 1024)
}

pub(super) fn cpu_of(usage: &Usage) -> f64 {
    let seconds = |time: nix::sys::time::TimeVal| time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
    seconds(usage.user_time()) + seconds(usage.system_time())
}

/// The mean of a figure over the `written` events.
fn mean_told(said: &[String], key: &str) -> Option<f64> {
    let events =
        said.iter().flat_map(|text| text.lines()).filter_map(|l| serde_json::from_str::<Value>(l).ok());
    let written = events.filter(|event| event["event"] == "written" && event["verified"] == true);
    let rates: Vec<f64> = written.filter_map(|event| event[key].as_f64()).collect();
    (!rates.is_empty()).then(|| rates.iter().sum::<f64>() / rates.len() as f64)
}
