//! The image, and the cards: loop devices over files that hold old bytes, as used cards do.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};
use cardshop_protocol::index::{Extent, ExtentKind, ImageMap, Index};
use nix::sys::stat::{major, minor};

use super::cap::Caps;
use super::case::Case;

/// Longest run of data in the image; runs and gaps have random lengths, as in a file system that is in use.
const LONGEST_RUN: u64 = 8 << 20;
/// Bytes written at a time.
const PIECE: usize = 1 << 20;
/// Memory that must stay free, bytes.
const SPARE_MEMORY: u64 = 1 << 30;

/// An image with its index and its bmap beside it.
pub(super) struct Image {
    pub(super) path: PathBuf,
    pub(super) index_path: PathBuf,
    pub(super) bmap_path: PathBuf,
    pub(super) index: Index,
}

impl Image {
    /// Two fifths of it are data, the same in every run.
    pub(super) fn make(folder: &Path, size: u64) -> anyhow::Result<Self> {
        let [path, index_path, bmap_path] =
            ["image", "image.cardindex", "image.bmap"].map(|name| folder.join(name));
        let file = File::create_new(&path)?;
        file.set_len(size)?;
        let mut random = blake3::Hasher::new_derive_key("cardshop bench image").finalize_xof();
        let mut extents = Vec::new();
        let (mut at, mut bytes) = (0, vec![0; PIECE]);
        while at < size {
            let mut number = [0; 8];
            random.fill(&mut number);
            let cycle = (u64::from_le_bytes(number) % (LONGEST_RUN / 4096) + 5) * 4096;
            let length = (cycle * 2 / 5 / 4096 * 4096).min(size - at);
            for piece in (at..at + length).step_by(PIECE) {
                let bytes = &mut bytes[..(at + length - piece).min(PIECE as u64) as usize];
                random.fill(bytes);
                file.write_all_at(bytes, piece)?;
            }
            extents.push(Extent { offset: at, length, kind: ExtentKind::Data });
            at += cycle;
        }
        let map = ImageMap { image_size: size, extents, passport: Vec::new() };
        let index = cardshop_card::index_file(&path, Some(map), None, &mut |_, _| ())?;
        fs::write(&index_path, index.encode())?;
        fs::write(&bmap_path, cardshop_card::bmap::write(&index, &file)?)?;
        Ok(Self { path, index_path, bmap_path, index })
    }
}

/// Some loop devices; let go when dropped.
pub(super) struct Cards {
    pub(super) devices: Vec<PathBuf>,
    files: Vec<PathBuf>,
}

impl Cards {
    pub(super) fn make(folder: &Path, count: usize, size: u64) -> anyhow::Result<Self> {
        let (needed, free) = (count as u64 * size + SPARE_MEMORY, available_memory()?);
        ensure!(free >= needed, "{count} cards need {needed} bytes of memory, {free} are free");
        let mut cards = Self { devices: Vec::new(), files: Vec::new() };
        for number in 0..count {
            let path = folder.join(format!("card{number}"));
            cards.files.push(path.clone());
            let file = File::create(&path)?;
            let piece = vec![0x5a; PIECE];
            for at in (0..size).step_by(PIECE) {
                file.write_all_at(&piece[..(size - at).min(PIECE as u64) as usize], at)?;
            }
            cards.devices.push(attach(&path)?);
        }
        Ok(cards)
    }

    /// Makes each card as slow as the case says.
    pub(super) fn cap(&self, caps: Option<&Caps>, case: &Case) -> anyhow::Result<()> {
        let Some(caps) = caps else { return Ok(()) };
        for (device, rate) in self.devices.iter().zip(&case.caps) {
            let number = fs::metadata(device)?.rdev();
            caps.set(&format!("{}:{}", major(number), minor(number)), *rate)?;
        }
        Ok(())
    }

    /// Puts other bytes where the image begins, so that a writer that does nothing is found out.
    pub(super) fn soil(&self) -> anyhow::Result<()> {
        for file in &self.files {
            File::options().write(true).open(file)?.write_all_at(&vec![0x5a; PIECE], 0)?;
        }
        Ok(())
    }
}

impl Drop for Cards {
    fn drop(&mut self) {
        for device in &self.devices {
            let _ = system("losetup").arg("--detach").arg(device).status();
        }
        for file in &self.files {
            let _ = fs::remove_file(file);
        }
    }
}

fn attach(file: &Path) -> anyhow::Result<PathBuf> {
    let output = system("losetup").args(["--find", "--show"]).arg(file).output().context("no losetup")?;
    let reason = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "no loop device: {}", reason.trim());
    Ok(PathBuf::from(String::from_utf8(output.stdout)?.trim()))
}

/// A tool, also looked for where only root's tools are.
pub(super) fn system(tool: &str) -> Command {
    let mut command = Command::new(tool);
    command.env("PATH", format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default()));
    command
}

fn available_memory() -> anyhow::Result<u64> {
    let text = fs::read_to_string("/proc/meminfo")?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:")).context("no MemAvailable")?;
    let kib: u64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kib * 1024)
}
