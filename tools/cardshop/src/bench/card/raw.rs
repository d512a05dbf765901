//! The limit: nothing but requests of O_DIRECT to each device for the mapped bytes, all cards at once, then the
//! same bytes read back. No image is read, nothing is compared.

use std::fs::OpenOptions;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use cardshop_protocol::index::Index;
use nix::libc::O_DIRECT;
use nix::sys::resource::{UsageWho, getrusage};

use super::case::Run;
use super::loops::{Cards, system};
use super::writers::cpu_of;

/// Bytes of one request: what a card's erase unit is at most, and what the engine writes.
const REQUEST: usize = 1 << 20;
/// What O_DIRECT asks of addresses.
const ALIGNMENT: usize = 4096;

/// Writes and reads the mapped bytes of all cards.
pub(super) fn run(index: &Index, cards: &Cards) -> anyhow::Result<Run> {
    let ranges: Vec<(u64, u64)> = index.extents().iter().map(|e| (e.offset, e.length)).collect();
    let cpu_before = cpu_of(&getrusage(UsageWho::RUSAGE_SELF)?);
    let began = Instant::now();
    let results: Vec<anyhow::Result<(Duration, Duration)>> = std::thread::scope(|scope| {
        let one = |device: &PathBuf| {
            let failed = format!("raw {}", device.display());
            let (device, ranges) = (device.clone(), &ranges);
            scope.spawn(move || one_card(&device, ranges).context(failed))
        };
        let threads: Vec<_> = cards.devices.iter().map(one).collect();
        threads.into_iter().map(|thread| thread.join().expect("a raw thread does not panic")).collect()
    });
    let seconds = began.elapsed().as_secs_f64();
    let times: Vec<(Duration, Duration)> = results.into_iter().collect::<anyhow::Result<_>>()?;
    let rate = |time: Duration| index.data_bytes() as f64 / time.as_secs_f64();
    let mean = |rates: Vec<f64>| Some(rates.iter().sum::<f64>() / rates.len() as f64);
    Ok(Run {
        seconds,
        write_bps: mean(times.iter().map(|(write, _)| rate(*write)).collect()),
        read_bps: mean(times.iter().map(|(_, read)| rate(*read)).collect()),
        cpu_seconds: cpu_of(&getrusage(UsageWho::RUSAGE_SELF)?) - cpu_before,
        peak_memory: None,
    })
}

/// How long writing takes, the final sync included, and how long reading.
fn one_card(device: &Path, ranges: &[(u64, u64)]) -> anyhow::Result<(Duration, Duration)> {
    let file = OpenOptions::new().read(true).write(true).custom_flags(O_DIRECT).open(device)?;
    let mut memory = vec![0x33; REQUEST + ALIGNMENT];
    let start = memory.as_ptr().align_offset(ALIGNMENT);
    let buffer = &mut memory[start..start + REQUEST];
    let began = Instant::now();
    for (at, length) in requests(ranges) {
        ensure!(file.write_at(&buffer[..length], at)? == length, "a short write at {at}");
    }
    file.sync_data()?;
    let write = began.elapsed();
    // What the kernel holds of the device goes away.
    ensure!(
        system("blockdev").arg("--flushbufs").arg(device).status()?.success(),
        "blockdev --flushbufs failed"
    );
    let began = Instant::now();
    for (at, length) in requests(ranges) {
        ensure!(file.read_at(&mut buffer[..length], at)? == length, "a short read at {at}");
    }
    Ok((write, began.elapsed()))
}

fn requests(ranges: &[(u64, u64)]) -> impl Iterator<Item = (u64, usize)> + '_ {
    ranges.iter().flat_map(|&(offset, length)| {
        (offset..offset + length)
            .step_by(REQUEST)
            .map(move |at| (at, (offset + length - at).min(REQUEST as u64) as usize))
    })
}
