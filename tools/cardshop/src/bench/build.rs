//! `cardshop bench build`: an image of much content, beside the time in which `cp` and `sync` move the same bytes, by
//! turns on one disk; the disk and memory the build takes; and one build with its upload: the index, and how much was
//! uploaded when the build had ended.

mod upload;

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use nix::sys::resource::{UsageWho, getrusage};
use serde_json::json;

use crate::exit::{Ending, stop_flag};
use crate::report::{Output, size};

/// Bytes of one content file, the last one has the rest.
const FILE_SIZE: u64 = 64 << 20;
/// Bytes of room beside three times the content: tables, free space of the file system, the warehouse's margin.
const ROOM_BESIDE: u64 = 2 << 30;
/// How often the disk is asked how full it is.
const DISK_POLL: Duration = Duration::from_millis(100);

/// Builds an image of random content, by turns with `cp` and `sync` of the same files, and once with its upload.
///
/// Example: cardshop bench build --size 268435456 --rounds 1
///
/// Figures count when the program is built with --release and nothing else runs beside it.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct BenchBuild {
    /// Bytes of content.
    #[arg(long, default_value_t = 4 << 30)]
    size: u64,
    /// How often each has its turn.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Where content, copy and image are made, in a folder of their own: three times the content's size, which is
    /// asked for before anything is written.
    #[arg(long, default_value = ".")]
    dir: PathBuf,
}

/// What one build took.
struct Build {
    seconds: f64,
    /// Bytes of disk at the fullest moment, beyond those of the image.
    extra_bytes: u64,
    image_bytes: u64,
}

impl BenchBuild {
    pub(crate) fn run(self, output: &Output) -> anyhow::Result<Ending> {
        ensure!(self.rounds > 0 && self.size > 0, "--rounds and --size must be at least 1");
        self.check_room()?;
        if cfg!(debug_assertions) {
            output.line("this program is a debug build: its figures say little, build it with --release");
        }
        let stop = stop_flag();
        let folder = tempfile::Builder::new().prefix("cardshop-bench.").tempdir_in(&self.dir)?;
        let content = folder.path().join("content");
        output.line(format_args!(
            "{} of content, {} rounds, in {}",
            size(self.size),
            self.rounds,
            self.dir.display()
        ));
        let recipe = make_content(&content, self.size)?;
        let (mut copies, mut builds) = (Vec::new(), Vec::new());
        for round in 1..=self.rounds {
            if stop.is_stopped() {
                return Ok(Ending::Interrupted);
            }
            let copied = copy(&content, &folder.path().join("copy"))?;
            let build = build(&recipe, &folder.path().join("out"))?;
            output
                .line(format_args!("round {round}: cp and sync {copied:.1} s, build {:.1} s", build.seconds));
            output.event(json!({"event": "bench", "what": "build", "round": round, "bytes": self.size,
                "cp_seconds": copied, "seconds": build.seconds, "extra_bytes": build.extra_bytes}));
            copies.push(copied);
            builds.push(build);
        }
        if stop.is_stopped() {
            return Ok(Ending::Interrupted);
        }
        let uploaded = match upload::run(&recipe, &folder.path().join("uploaded"), &stop) {
            Err(_) if stop.is_stopped() => return Ok(Ending::Interrupted),
            uploaded => uploaded?,
        };
        self.tell_upload(output, &uploaded);
        self.goals(output, copies, &builds)?;
        Ok(Ending::Done)
    }

    /// Content, and beside it a copy, or an image and what a warehouse has of it.
    fn check_room(&self) -> anyhow::Result<()> {
        let disk = nix::sys::statvfs::statvfs(&self.dir).with_context(|| self.dir.display().to_string())?;
        let free = disk.blocks_available() as u64 * disk.fragment_size() as u64;
        let needed = self.size.saturating_mul(3).saturating_add(ROOM_BESIDE);
        let dir = self.dir.display();
        ensure!(
            free >= needed,
            "{dir}: {needed} bytes are needed, {free} are free: take less --size or another --dir"
        );
        Ok(())
    }

    fn tell_upload(&self, output: &Output, done: &upload::Uploaded) {
        output.line(format_args!(
            "index: {} chunks, {} extents, {} bytes; {:.2} s of the build's {:.1} s",
            done.chunks, done.extents, done.index_bytes, done.index_s, done.build_s
        ));
        output.line(format_args!(
            "upload: {:.0} % of the image was at the warehouse when the build ended, all of it {:.1} s later",
            done.share * 100.0,
            done.shown_s - done.build_s
        ));
        output.event(json!({"event": "bench", "what": "upload", "bytes": self.size, "seconds": done.build_s,
            "index_seconds": done.index_s, "index_bytes": done.index_bytes, "chunks": done.chunks,
            "extents": done.extents, "uploaded_share": done.share, "shown_seconds": done.shown_s}));
    }

    fn goals(&self, output: &Output, mut copies: Vec<f64>, builds: &[Build]) -> anyhow::Result<()> {
        let mut seconds: Vec<f64> = builds.iter().map(|b| b.seconds).collect();
        let ratio = super::fetch::median(&mut seconds) / super::fetch::median(&mut copies);
        let share = |b: &Build| b.extra_bytes as f64 / b.image_bytes as f64;
        let extra = builds.iter().map(share).fold(0.0, f64::max);
        // The largest process of all that were waited for, those of the build among them.
        let memory = getrusage(UsageWho::RUSAGE_CHILDREN)?.max_rss() as f64 / 1024.0;
        output.line(format_args!("\ngoals for {} of content", size(self.size)));
        for (measured, limit, text) in [
            (ratio, 1.3, "time of a build ÷ time of cp and sync of the same bytes, medians"),
            (extra, 0.02, "most disk beyond the image ÷ the image"),
            (memory, 128.0, "MiB of memory of the largest process"),
        ] {
            let met = measured <= limit;
            let word = if met { "met" } else { "MISSED" };
            output.line(format_args!("  {word:<7}{measured:>8.3} ≤ {limit:<6} {text}"));
            output.event(json!({"event": "goal", "text": text, "limit": limit, "at_least": false,
                "measured": measured, "met": met}));
        }
        Ok(())
    }
}

/// Writes random files and a recipe of them beside the folder; gives the recipe.
fn make_content(folder: &Path, bytes: u64) -> anyhow::Result<PathBuf> {
    fs::create_dir(folder)?;
    let mut recipe = String::from("files:\n");
    for number in 0..bytes.div_ceil(FILE_SIZE) {
        let name = format!("{number:04}.bin");
        let mut noise = blake3::Hasher::new().update(&number.to_le_bytes()).finalize_xof();
        let mut file = File::create(folder.join(&name))?;
        let mut left = FILE_SIZE.min(bytes - number * FILE_SIZE);
        let mut buffer = vec![0; 1 << 20];
        while left > 0 {
            let piece = &mut buffer[..left.min(1 << 20) as usize];
            noise.fill(piece);
            file.write_all(piece)?;
            left -= piece.len() as u64;
        }
        file.sync_all()?;
        recipe += &format!("- {{to: /data/content/{name}, url: content/{name}}}\n");
    }
    let path = folder.with_file_name("recipe.yaml");
    fs::write(&path, recipe)?;
    Ok(path)
}

fn run(command: &mut Command) -> anyhow::Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).status();
    ensure!(status.with_context(|| format!("cannot run {name}"))?.success(), "{name} failed");
    Ok(())
}

/// Seconds of `cp` and `sync`.
fn copy(content: &Path, to: &Path) -> anyhow::Result<f64> {
    let begun = Instant::now();
    run(Command::new("cp").arg("-r").arg(content).arg(to))?;
    run(Command::new("sync").arg("-f").arg(to))?;
    let seconds = begun.elapsed().as_secs_f64();
    fs::remove_dir_all(to)?;
    Ok(seconds)
}

fn build(recipe: &Path, folder: &Path) -> anyhow::Result<Build> {
    fs::create_dir(folder)?;
    let image = folder.join("card.img");
    let begun = Instant::now();
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("build").arg(recipe).arg("-o").arg(&image).stdin(Stdio::null()).stdout(Stdio::null());
    let mut child = command.stderr(Stdio::inherit()).spawn().context("cannot run the build")?;
    let mut most = 0;
    let status = loop {
        most = most.max(disk_bytes(folder));
        match child.try_wait()? {
            Some(status) => break status,
            None => std::thread::sleep(DISK_POLL),
        }
    };
    let seconds = begun.elapsed().as_secs_f64();
    ensure!(status.success(), "the build failed: {status}");
    let image_bytes = image.metadata()?.blocks() * 512;
    fs::remove_dir_all(folder)?;
    Ok(Build { seconds, extra_bytes: most.saturating_sub(image_bytes), image_bytes })
}

/// Bytes that a folder's files take; what goes meanwhile counts as nothing.
fn disk_bytes(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(meta) if meta.is_dir() => disk_bytes(&entry.path()),
            Ok(meta) => meta.blocks() * 512,
            Err(_) => 0,
        })
        .sum()
}
