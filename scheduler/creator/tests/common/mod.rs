//! Shared by the tests of this crate: a folder with a recipe's surroundings, and the tools that look into an
//! image from outside.

#![allow(dead_code, clippy::unwrap_used)] // each test program uses some of it; a helper may unwrap as a test may

pub(crate) mod server;
pub(crate) mod warehouse;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use cardshop_creator::{
    Backoff, BuildError, Built, LocalFiles, Options, Policy, Recipe, StopFlag, Watcher, build,
};
use cardshop_protocol::index::Index;
use tempfile::TempDir;

/// Where the data partition of an image without base begins.
pub(crate) const DATA_START: u64 = 48 * 1024 * 1024;
/// Where its boot partition begins.
pub(crate) const BOOT_START: u64 = 8 * 1024 * 1024;

pub(crate) struct Bench {
    pub(crate) folder: TempDir,
}

impl Bench {
    pub(crate) fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, bytes: &[u8]) {
        std::fs::write(self.path(name), bytes).unwrap();
    }

    pub(crate) fn options(&self, image: &str) -> Options {
        Options {
            image: self.path(image),
            cache: self.path("cache"),
            local_files: LocalFiles::Any { relative_to: self.folder.path().to_owned() },
            max_image_bytes: None,
            backoff: Backoff { first: Duration::from_millis(1), most: Duration::from_millis(5) },
            offline: false,
            policy: Policy::default(),
            watcher: Watcher::default(),
        }
    }

    pub(crate) fn try_build(&self, image: &str, recipe: &str) -> Result<Built, BuildError> {
        let recipe = Recipe::from_text(recipe)?;
        build(&recipe, &self.options(image), &StopFlag::new(), &mut |_| ())
    }

    pub(crate) fn build(&self, image: &str, recipe: &str) -> Built {
        self.try_build(image, recipe).unwrap()
    }
}

/// Bytes that look random, the same for the same seed.
pub(crate) fn noise(seed: u64, size: usize) -> Vec<u8> {
    let mut bytes = vec![0; size];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// Runs an e2fsprogs tool on the file system at `offset` of `image`.
pub(crate) fn e2(tool: &str, args: &[&str], image: &Path, offset: u64) -> (bool, String) {
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
    let name = format!("{}?offset={offset}", image.display());
    let output =
        Command::new("env").arg(format!("PATH={path}")).arg(tool).args(args).arg(name).output().unwrap();
    (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A file's bytes out of the data partition, by debugfs.
pub(crate) fn read_data(image: &Path, offset: u64, path: &str) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("out");
    e2("debugfs", &["-R", &format!("dump \"{path}\" {}", target.display())], image, offset);
    std::fs::read(target).unwrap_or_else(|_| panic!("{path} is not in the image"))
}

/// Chunks that differ between two indices.
pub(crate) fn chunks_that_differ(one: &Index, other: &Index) -> usize {
    assert_eq!(one.chunks().len(), other.chunks().len());
    one.chunks().iter().zip(other.chunks()).filter(|(a, b)| a.digest != b.digest).count()
}

/// Chunks of `new` whose bytes are nowhere in `old`: what must be fetched again.
pub(crate) fn chunks_not_held(old: &Index, new: &Index) -> usize {
    let held: std::collections::HashSet<_> = old.chunks().iter().map(|c| c.digest).collect();
    new.chunks().iter().filter(|c| !held.contains(&c.digest)).count()
}
