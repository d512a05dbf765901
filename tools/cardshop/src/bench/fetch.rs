//! `cardshop bench fetch`: the appliance's fetcher on one image. What the next build of it costs, how it does on a
//! line with losses beside aria2c, and what twenty kills cost.

mod link;
mod server;

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use cardshop_agent::{FetchConfig, FetchJob, StopFlag, fetch_one};
use cardshop_protocol::index::{Extent, ExtentKind, ImageMap, Index, IndexBuilder};
use serde_json::json;

use crate::exit::Ending;
use crate::report::{Output, size};
use link::Link;
use server::{Pieces, Served, Server};

/// Connections of both on the line with losses.
const CONNECTIONS: u32 = 8;
/// Shares of the goals.
const MAX_CHANGED_SHARE: f64 = 0.06;
const MIN_OF_ARIA2: f64 = 0.9;
/// A line over an ocean: one way, and one packet in a hundred, in both directions.
const ONE_WAY: Duration = Duration::from_millis(40);
const LOSS: f64 = 0.01;
/// Kills of one image's fetch, and what the killed one uses: small chunks, so that what one costs shows.
const KILLS: u32 = 20;
const KILL_CONNECTIONS: u32 = 4;
const KILL_CHUNK: u32 = 64 * 1024;
const KILL_IMAGE_SIZE: u64 = 40 << 20;
/// Longest life before a kill: twenty of the longest at the server's pace are still less than the image.
const LIFE_MS: u64 = 300;
/// A child that does not end by then has hung.
const CHILD_LIMIT: Duration = Duration::from_secs(120);

/// Fetches one image: bytes of its next build, a line with losses beside aria2c, twenty kills.
///
/// Example: cardshop bench fetch --rounds 1
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct BenchFetch {
    /// Only this part.
    #[arg(long, value_enum)]
    only: Option<Part>,
    /// Rounds on the line with losses; the medians count.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Size of the image, MiB.
    #[arg(long, default_value_t = 24, value_parser = clap::value_parser!(u64).range(4..4096))]
    size: u64,
    /// Fetch this image from this warehouse into this folder and end: what the kills are for.
    #[arg(long, hide = true, num_args = 3, value_names = ["IMAGE", "URL", "FOLDER"])]
    child: Option<Vec<String>>,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Part {
    /// The next build of an image, a twentieth of its chunks changed.
    Changed,
    /// A line with 80 ms and 1 % loss, beside aria2c.
    Lossy,
    /// Twenty kills.
    Kills,
}

impl BenchFetch {
    pub(crate) fn run(self, output: &Output) -> anyhow::Result<Ending> {
        if let Some([image, url, folder]) = self.child.as_deref() {
            fetch(image.parse()?, url, Path::new(folder), KILL_CONNECTIONS)?;
            return Ok(Ending::Done);
        }
        let wanted = |part| self.only.is_none_or(|only| only == part);
        let mut good = true;
        if wanted(Part::Changed) {
            good &= self.changed(output)?;
        }
        if wanted(Part::Lossy) {
            good &= self.lossy(output)?;
        }
        if wanted(Part::Kills) {
            good &= kills(output)?;
        }
        Ok(if good { Ending::Done } else { Ending::Failed })
    }

    /// The next build of an image with every twentieth chunk changed.
    fn changed(&self, output: &Output) -> anyhow::Result<bool> {
        let folder = tempfile::tempdir()?;
        let old = image(self.size << 20, 256 * 1024, 1);
        let mut bytes = old.bytes.to_vec();
        for chunk in (0..old.index.chunks().len()).step_by(20) {
            bytes[chunk * 256 * 1024 + 1000] ^= 1;
        }
        let new = Image::of(bytes, 256 * 1024);
        let mut received = 0;
        for image in [old, new] {
            let server = Server::start("127.0.0.1".parse()?, image.clone(), Pieces::Whole)?;
            received = fetch(image.index.id(), &server.url, folder.path(), CONNECTIONS)?;
            let path = folder.path().join(format!("{}.img", image.index.id()));
            ensure!(std::fs::read(path)? == *image.bytes, "the image that was fetched is another one");
        }
        let share = received as f64 / (self.size << 20) as f64;
        let good = share <= MAX_CHANGED_SHARE;
        output.line(format_args!(
            "next build, 5 % of chunks changed: {} fetched, {:.2} % of {} (at most {:.0} %): {}",
            size(received),
            share * 100.0,
            size(self.size << 20),
            MAX_CHANGED_SHARE * 100.0,
            verdict(good)
        ));
        output.event(json!({"event": "changed", "fetched_bytes": received, "share": share, "good": good}));
        Ok(good)
    }

    /// The same image, by turns with aria2c, over a line with losses.
    fn lossy(&self, output: &Output) -> anyhow::Result<bool> {
        if Command::new("aria2c").arg("--version").stdout(Stdio::null()).status().is_err() {
            output.line("SKIPPED: aria2c is not installed");
            return Ok(true);
        }
        let link = match Link::open(ONE_WAY, LOSS) {
            Ok(link) => link,
            Err(error) => {
                output
                    .line(format_args!("SKIPPED: a line with losses needs root and /dev/net/tun: {error:#}"));
                return Ok(true);
            }
        };
        let image = image(self.size << 20, 256 * 1024, 2);
        let server = Server::start(link.near, image.clone(), Pieces::Whole)?;
        let url = server.url.replace(&link.near.to_string(), &link.far.to_string());
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for round in 0..self.rounds {
            let folder = tempfile::tempdir()?;
            let begun = Instant::now();
            fetch(image.index.id(), &url, folder.path(), CONNECTIONS)?;
            ours.push(begun.elapsed().as_secs_f64());
            let begun = Instant::now();
            aria2c(&format!("{url}/images/{}", image.index.id()), folder.path())?;
            theirs.push(begun.elapsed().as_secs_f64());
            output.line(format_args!(
                "round {round}: ours {:.1} s, aria2c {:.1} s",
                ours[round], theirs[round]
            ));
        }
        let (ours, theirs) = (median(&mut ours), median(&mut theirs));
        let ratio = theirs / ours;
        let good = ratio >= MIN_OF_ARIA2;
        let rate = |seconds: f64| (self.size << 20) as f64 / seconds;
        output.line(format_args!(
            "80 ms, 1 % loss each way: {}/s, aria2c -x8 {}/s, ratio {ratio:.2} (at least {MIN_OF_ARIA2}): {}",
            size(rate(ours) as u64),
            size(rate(theirs) as u64),
            verdict(good)
        ));
        let (passed, lost) = link.counts();
        output.event(
            json!({"event": "lossy", "ours_bps": rate(ours), "aria2c_bps": rate(theirs), "ratio": ratio,
            "packets": passed, "lost": lost, "good": good}),
        );
        Ok(good)
    }
}

fn verdict(good: bool) -> &'static str {
    if good { "good" } else { "NOT REACHED" }
}

pub(super) fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// An image of random bytes, all of them data.
#[derive(Clone)]
struct Image {
    bytes: Arc<Vec<u8>>,
    index: Arc<Index>,
}

impl Image {
    fn of(bytes: Vec<u8>, chunk_size: u32) -> Self {
        let image_size = bytes.len() as u64;
        let extents = vec![Extent { offset: 0, length: image_size, kind: ExtentKind::Data }];
        let map = ImageMap { image_size, extents, passport: Vec::new() };
        let mut builder = IndexBuilder::new(map, chunk_size).expect("one extent is a map");
        builder.data(&bytes).expect("the map is of these bytes");
        let index = builder.finish().expect("the map is of these bytes");
        Self { bytes: Arc::new(bytes), index: Arc::new(index) }
    }
}

fn image(size: u64, chunk_size: u32, seed: u64) -> Image {
    let mut random = Random(seed);
    let bytes: Vec<u8> = (0..size / 8).flat_map(|_| random.next().to_le_bytes()).collect();
    Image::of(bytes, chunk_size)
}

/// SplitMix64: the same bytes and losses in every run.
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// Fetches as an appliance does; gives the bytes that travelled.
fn fetch(
    image: cardshop_protocol::ids::ImageId,
    url: &str,
    folder: &Path,
    connections: u32,
) -> anyhow::Result<u64> {
    let job = FetchJob {
        image,
        warehouses: vec![url.to_owned()],
        token: "bench".into(),
        folder: folder.into(),
        fetch: FetchConfig { connections, ..FetchConfig::default() },
    };
    Ok(fetch_one(job, &StopFlag::new())?.received_bytes)
}

fn aria2c(url: &str, folder: &Path) -> anyhow::Result<()> {
    let status = Command::new("aria2c")
        .args([
            "-x8",
            "-s8",
            "-k1M",
            "-q",
            "--file-allocation=none",
            "--no-conf",
            "--all-proxy=",
            "-o",
            "aria2c.img",
        ])
        .arg("-d")
        .arg(folder)
        .arg(url)
        .status()
        .context("cannot start aria2c")?;
    ensure!(status.success(), "aria2c ended with {status}");
    Ok(())
}

/// A fetch killed at random moments, and what it read more than once.
fn kills(output: &Output) -> anyhow::Result<bool> {
    let folder = tempfile::tempdir()?;
    let image = image(KILL_IMAGE_SIZE, KILL_CHUNK, 3);
    // 1.6 MB/s a connection.
    let server =
        Server::start("127.0.0.1".parse()?, image.clone(), Pieces::Paced(Duration::from_millis(10)))?;
    let mut random = Random(4);
    let mut unread = 0;
    for _ in 0..KILLS {
        let mut child = start_child(&image, &server, folder.path())?;
        // From its first byte on: the start of a process is no part of its fetch.
        let before = server.served().sent_bytes;
        let begun = Instant::now();
        while server.served().sent_bytes == before && child.try_wait()?.is_none() {
            ensure!(begun.elapsed() < CHILD_LIMIT, "the fetch does not begin");
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(Duration::from_millis(random.next() % LIFE_MS));
        // What the kernel holds when it is killed was sent and not fetched.
        let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id())?);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGSTOP)?;
        unread += server.cut(|port| -> anyhow::Result<u64> {
            let unread = unread_bytes(port)?;
            child.kill()?;
            child.wait()?;
            Ok(unread)
        })?;
    }
    let status = start_child(&image, &server, folder.path())?.wait()?;
    ensure!(status.success(), "the last fetch ended with {status}");
    let path = folder.path().join(format!("{}.img", image.index.id()));
    ensure!(std::fs::read(path)? == *image.bytes, "the image that was fetched is another one");

    let Served { sent_bytes, requests } = server.served();
    let repeated = (sent_bytes - unread).saturating_sub(KILL_IMAGE_SIZE);
    let allowed = u64::from(KILLS) * u64::from(KILL_CONNECTIONS) * u64::from(KILL_CHUNK);
    let good = repeated <= allowed;
    output.line(format_args!(
        "{KILLS} kills: {} of {} fetched twice (at most {}: a chunk for each connection and kill): {}",
        size(repeated),
        size(KILL_IMAGE_SIZE),
        size(allowed),
        verdict(good)
    ));
    output.event(json!({"event": "kills", "kills": KILLS, "repeated_bytes": repeated, "allowed_bytes": allowed,
        "image_bytes": KILL_IMAGE_SIZE, "sent_bytes": sent_bytes, "unread_bytes": unread, "requests": requests,
        "good": good}));
    Ok(good)
}

fn start_child(image: &Image, server: &Server, folder: &Path) -> anyhow::Result<std::process::Child> {
    let child = Command::new(std::env::current_exe()?)
        .args(["bench", "fetch", "--child", &image.index.id().to_string(), &server.url])
        .arg(folder)
        .spawn();
    child.context("cannot start a fetch to kill")
}

/// Bytes in the receive queues of connections to `port`. **Source:** `proc_net_tcp`: local and remote address,
/// state, `tx_queue:rx_queue`, all hexadecimal.
fn unread_bytes(port: u16) -> anyhow::Result<u64> {
    let text = std::fs::read_to_string("/proc/net/tcp").context("no /proc/net/tcp")?;
    let to_port = format!(":{port:04X}");
    let mut unread = 0;
    for line in text.lines().skip(1) {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [_, _, remote, _, queues, ..] = words[..] else { bail!("/proc/net/tcp has another form") };
        if remote.ends_with(&to_port) {
            let (_, queue) = queues.split_once(':').context("/proc/net/tcp has another form")?;
            unread += u64::from_str_radix(queue, 16)?;
        }
    }
    Ok(unread)
}
