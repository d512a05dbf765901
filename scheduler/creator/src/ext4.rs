//! The data partition: made by mke2fs, filled by debugfs, checked by e2fsck, its free blocks told by dumpe2fs, all
//! at an offset of the image file, without root and without a loop device.
//!
//! `mke2fs -d folder` is not used: it copies owner, access and change times of the folder's files, and nobody
//! can set a change time, so no two builds would be equal. debugfs takes its times from
//! `E2FSPROGS_FAKE_TIME`, owners from the script, and small contents straight from the cache; large files it only gives
//! their blocks, because it writes them block by block. Its exit status says
//! nothing; what it prints on its error output does, and e2fsck has the last word.
//! **Source:** mke2fs(8), debugfs(8), e2fsck(8), dumpe2fs(8), resize2fs(8) of e2fsprogs 1.47.0.

use std::fs::{self, File};
use std::io::{self, Read};
use std::ops::Range;
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use cardshop_protocol::configuration::size::DataShape;

use crate::StopFlag;
use crate::copy::Placed;
use crate::extents;
use crate::http::wait;
use crate::script::{EMPTY, Script};
use crate::tree::{BLOCK_SIZE, IMAGE_TIME};
use crate::watch::Watcher;

/// Longest output of a tool that is kept as an error's text, bytes.
const MAX_ERROR_TEXT: u64 = 4000;
/// Most lines of a tool's error output that go into a log.
const MAX_LINES_LOGGED: usize = 20;
/// How often a running tool is asked whether it has ended, and the stop flag whether it should.
const TOOL_POLL: Duration = Duration::from_millis(50);
/// The partition may grow to this many blocks (2 TiB) on the card without moving its tables.
const GROW_TO_BLOCKS: u64 = 1 << 29;
const FEATURES: &str = "none,has_journal,ext_attr,resize_inode,dir_index,filetype,extent,64bit,flex_bg,\
    sparse_super,large_file,huge_file,dir_nlink,extra_isize,metadata_csum";
/// The machine's own mke2fs.conf must not decide what an image looks like.
const MKE2FS_CONF: &str = "[defaults]\n\tbase_features = none\n\tdefault_mntopts = acl,user_xattr\n\
    \tenable_periodic_fsck = 0\n[fs_types]\n\text4 = {\n\t\tfeatures = has_journal\n\t}\n";

/// Why the data partition could not be made.
#[derive(Debug, thiserror::Error)]
pub enum Ext4Error {
    /// A tool is not on this machine.
    #[error("{0} is not on this machine: install the package e2fsprogs")]
    ToolMissing(&'static str),
    /// A tool could not be run or its files not be handled.
    #[error("{tool} cannot be run")]
    Run {
        /// Which.
        tool: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A tool says no.
    #[error("{tool} failed: {text}")]
    Failed {
        /// Which.
        tool: &'static str,
        /// The first lines it said.
        text: String,
    },
    /// The stop flag was raised.
    #[error("stopped")]
    Stopped,
}

/// A partition inside an image file.
pub(crate) struct Partition<'a> {
    pub image: &'a Path,
    /// Bytes of the image.
    pub range: Range<u64>,
    /// A folder for scripts and output, ours alone.
    pub scratch: &'a Path,
    pub stop: &'a StopFlag,
    pub watcher: &'a Watcher,
}

/// What makes one file system different from the next.
pub(crate) struct Identity {
    pub label: &'static str,
    /// Text form.
    pub uuid: String,
    pub hash_seed: String,
}

/// Where a tool is: in PATH, or where Debian keeps it from people.
fn find(tool: &'static str) -> Result<PathBuf, Ext4Error> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let more = ["/usr/sbin", "/sbin", "/usr/local/sbin"].map(PathBuf::from);
    std::env::split_paths(&path)
        .chain(more)
        .map(|folder| folder.join(tool))
        .find(|p| p.is_file())
        .ok_or(Ext4Error::ToolMissing(tool))
}

/// Checks that all tools are there, before anything is downloaded.
pub fn check_tools() -> Result<(), Ext4Error> {
    ["mke2fs", "debugfs", "e2fsck", "dumpe2fs", "resize2fs"]
        .into_iter()
        .try_for_each(|tool| find(tool).map(|_| ()))
}

impl Partition<'_> {
    /// `IMAGE?offset=N`: how the tools name a file system inside a file.
    fn name(&self) -> String {
        format!("{}?offset={}", self.image.display(), self.range.start)
    }

    /// Makes an empty file system.
    pub(crate) fn make(&self, shape: &DataShape, identity: &Identity) -> Result<(), Ext4Error> {
        let conf = self.scratch.join("mke2fs.conf");
        fs::write(&conf, MKE2FS_CONF).map_err(|source| Ext4Error::Run { tool: "mke2fs", source })?;
        let extended = format!(
            "offset={},hash_seed={},resize={GROW_TO_BLOCKS},lazy_itable_init=0,lazy_journal_init=0,\
             root_owner=0:0,nodiscard,packed_meta_blocks=1",
            self.range.start, identity.hash_seed
        );
        let mut command = self.command("mke2fs")?;
        command.args(["-q", "-F", "-t", "ext4", "-b", "4096", "-I", "256", "-m", "0", "-O", FEATURES]);
        command.args(["-N", &shape.inodes.to_string(), "-J", &format!("size={}", shape.journal_mib)]);
        command.args(["-L", identity.label, "-U", &identity.uuid, "-E", &extended]);
        command.arg(self.image).arg((shape.bytes / BLOCK_SIZE).to_string()).env("MKE2FS_CONFIG", &conf);
        let output = self.run("mke2fs", command, &mut || ())?;
        output.success("mke2fs", |status| status.success())
    }

    /// Puts what a script says into the file system, and tells where the contents of its large files belong.
    pub(crate) fn fill(&self, script: &Script) -> Result<Vec<Placed>, Ext4Error> {
        let run_error = |source| Ext4Error::Run { tool: "debugfs", source };
        let contents = self.scratch.join("contents");
        fs::create_dir(&contents).map_err(run_error)?;
        for (name, source) in &script.contents {
            // Short names of ours: a line of the script has room for the card's path only.
            let linked = fs::canonicalize(source).and_then(|path| symlink(path, contents.join(name)));
            linked.map_err(run_error)?;
        }
        fs::write(contents.join(EMPTY), b"").map_err(run_error)?;
        for (name, value) in &script.values {
            fs::write(contents.join(name), value).map_err(run_error)?;
        }
        let output = self.debugfs(&script.text)?;
        let blocks: Vec<u64> = script.large.iter().map(|file| file.size.div_ceil(BLOCK_SIZE)).collect();
        let files = extents::parse(&output, &blocks).ok_or_else(|| Ext4Error::Failed {
            tool: "debugfs",
            text: "does not tell where it put a file".into(),
        })?;
        let (mut initialise, mut placed) = (String::new(), Vec::new());
        for (file, extents) in script.large.iter().zip(&files) {
            extents::initialise(&mut initialise, &file.name, extents);
            placed.extend(extents.iter().map(|e| Placed {
                source: file.source.clone(),
                from: e.logical,
                to: self.range.start + e.physical,
                length: e.length.min(file.size - e.logical),
            }));
        }
        if !placed.is_empty() {
            self.debugfs(&initialise)?;
        }
        fs::remove_dir_all(&contents).map_err(run_error)?;
        Ok(placed)
    }

    /// Runs commands, and gives what they printed.
    fn debugfs(&self, commands: &str) -> Result<String, Ext4Error> {
        let file = self.scratch.join("debugfs.script");
        fs::write(&file, commands).map_err(|source| Ext4Error::Run { tool: "debugfs", source })?;
        let mut command = self.command("debugfs")?;
        command.arg("-w").arg("-f").arg(&file).arg(self.name());
        let output = self.run("debugfs", command, &mut || ())?;
        if let Some(line) = output.errors.lines().find(|line| !line.starts_with("debugfs 1.")) {
            return Err(Ext4Error::Failed { tool: "debugfs", text: line.to_owned() });
        }
        output.success("debugfs", |status| status.success())?;
        Ok(output.text)
    }

    /// Checks the whole file system without changing it.
    pub(crate) fn check(&self) -> Result<(), Ext4Error> {
        let mut command = self.command("e2fsck")?;
        command.args(["-f", "-n"]).arg(self.name());
        let output = self.run("e2fsck", command, &mut || ())?;
        output.success("e2fsck", |status| status.code() == Some(0))?;
        // "data: 31/4096 files (0.0% non-contiguous), 2345/9999 blocks"
        output.text.lines().last().into_iter().for_each(|line| self.watcher.line(format_args!("{line}")));
        Ok(())
    }

    /// Lets the file system take its whole partition, which has become larger. It has to be clean.
    pub(crate) fn grow(&self) -> Result<(), Ext4Error> {
        self.check()?;
        let mut command = self.command("resize2fs")?;
        // Forced: it was checked just now, and that is not written down where nothing is changed.
        command.arg("-f").arg(self.name()).arg(format!("{}K", (self.range.end - self.range.start) / 1024));
        let output = self.run("resize2fs", command, &mut || ())?;
        output.success("resize2fs", |status| status.success())?;
        self.check()
    }

    /// Ranges of the partition that no file and no table uses, ascending; `None` when it is not an ext4 at rest.
    pub(crate) fn free(&self) -> Result<Option<Vec<Range<u64>>>, Ext4Error> {
        let mut command = self.command("dumpe2fs")?;
        command.arg(self.name());
        let output = self.run("dumpe2fs", command, &mut || ())?;
        if !output.status.success() {
            return Ok(None);
        }
        Ok(parse_free(&output.text).map(|ranges| {
            // A base's file system may say that it is larger than its partition.
            let Range { start, end } = self.range;
            let here = |r: Range<u64>| start.saturating_add(r.start)..start.saturating_add(r.end).min(end);
            ranges.into_iter().map(here).filter(|r| !r.is_empty()).collect()
        }))
    }

    fn command(&self, tool: &'static str) -> Result<Command, Ext4Error> {
        let mut command = Command::new(find(tool)?);
        let time = IMAGE_TIME.to_string();
        command.current_dir(self.scratch).env("LC_ALL", "C").env("E2FSPROGS_FAKE_TIME", &time);
        command.env("SOURCE_DATE_EPOCH", &time);
        Ok(command)
    }

    /// Runs a tool to its end or to a stop, its output in files: a pipe nobody reads would block it.
    fn run(
        &self,
        tool: &'static str,
        mut command: Command,
        poll: &mut dyn FnMut(),
    ) -> Result<Output, Ext4Error> {
        let run_error = |source| Ext4Error::Run { tool, source };
        let [out, err] = ["out", "err"].map(|kind| self.scratch.join(format!("{tool}.{kind}")));
        command.stdin(Stdio::null()).stdout(File::create(&out).map_err(run_error)?);
        // Ctrl-C reaches the whole group of a terminal: a tool that dies of it would look like one that failed.
        command.process_group(0);
        let begun = Instant::now();
        let mut child = command.stderr(File::create(&err).map_err(run_error)?).spawn().map_err(run_error)?;
        let status = self.await_child(&mut child, poll).map_err(run_error)?.ok_or(Ext4Error::Stopped)?;
        let mut errors = String::new();
        let read = File::open(&err).and_then(|f| f.take(MAX_ERROR_TEXT).read_to_string(&mut errors));
        if let Err(error) = read {
            errors = error.to_string();
        }
        self.watcher.line(format_args!("{tool} took {:.1} s, {status}", begun.elapsed().as_secs_f64()));
        for line in errors.lines().take(MAX_LINES_LOGGED) {
            self.watcher.line(format_args!("  {line}"));
        }
        let text = fs::read(&out).map(|t| String::from_utf8_lossy(&t).into_owned()).map_err(run_error)?;
        Ok(Output { status, text, errors })
    }

    /// `None` when stopped; the child is gone either way.
    fn await_child(&self, child: &mut Child, poll: &mut dyn FnMut()) -> io::Result<Option<ExitStatus>> {
        loop {
            if let Some(status) = child.try_wait()? {
                return Ok(Some(status));
            }
            poll();
            if !wait(TOOL_POLL, self.stop) {
                child.kill()?;
                child.wait()?;
                return Ok(None);
            }
        }
    }
}

struct Output {
    status: ExitStatus,
    text: String,
    errors: String,
}

impl Output {
    fn success(&self, tool: &'static str, good: impl Fn(ExitStatus) -> bool) -> Result<(), Ext4Error> {
        if good(self.status) {
            return Ok(());
        }
        let said = self.errors.lines().chain(self.text.lines());
        let text = said.filter(|l| !l.trim().is_empty()).take(4).collect::<Vec<_>>().join("; ");
        Err(Ext4Error::Failed { tool, text: format!("{text} ({})", self.status) })
    }
}

/// Free ranges in bytes of the file system, from dumpe2fs. `None` when blocks cannot be told or a journal waits.
fn parse_free(text: &str) -> Option<Vec<Range<u64>>> {
    let field = |name: &str| text.lines().find_map(|l| l.strip_prefix(name)).map(str::trim);
    let block: u64 = field("Block size:")?.parse().ok()?;
    if field("Filesystem features:")?.split_whitespace().any(|f| f == "needs_recovery" || f == "bigalloc") {
        return None;
    }
    let mut ranges: Vec<Range<u64>> = Vec::new();
    for list in text.lines().filter_map(|l| l.strip_prefix("  Free blocks: ")) {
        for item in list.split(',').map(str::trim).filter(|i| !i.is_empty()) {
            let (first, last) = item.split_once('-').unwrap_or((item, item));
            let (first, last): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
            let range = first.checked_mul(block)?..last.checked_add(1)?.checked_mul(block)?;
            match ranges.last_mut() {
                Some(before) if before.end == range.start => before.end = range.end,
                _ => ranges.push(range),
            }
        }
    }
    Some(ranges)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tool_is_in_a_process_group_of_its_own_and_ends_with_a_stop() {
        let (folder, stop) = (tempfile::tempdir().unwrap(), StopFlag::new());
        let watcher = Watcher::default();
        let partition = Partition {
            image: Path::new("x"),
            range: 0..0,
            scratch: folder.path(),
            stop: &stop,
            watcher: &watcher,
        };
        let mut command = Command::new("sh");
        command.args(["-c", "kill -TERM 0"]);
        // Else this test would end here.
        assert!(!partition.run("debugfs", command, &mut || ()).unwrap().status.success());
        // And one that hangs ends with a stop, long before it would by itself.
        let mut command = Command::new("sh");
        command.args(["-c", "exec sleep 600"]);
        let ended = partition.run("e2fsck", command, &mut || stop.stop());
        assert!(matches!(ended, Err(Ext4Error::Stopped)));
    }

    #[test]
    fn free_blocks_of_neighbouring_groups_join() {
        let text = "Filesystem features:      extent\nFree blocks:              9\nBlock size:               1024\n\
                    Group 0:\n  Free blocks: 5, 7-9\nGroup 1:\n  Free blocks: 10-11\nGroup 2:\n  Free blocks: \n";
        assert_eq!(parse_free(text), Some(vec![5120..6144, 7168..12288]));
        assert_eq!(parse_free(&text.replace("extent", "extent needs_recovery")), None);
        assert_eq!(parse_free(""), None);
    }
}
