//! Which chunks were put since the bitmap was last saved, for a process that is killed: `{id}.fresh` holds the
//! id of this boot and one little-endian u32 for each chunk. Never synced. It is believed only within the boot
//! that wrote it, when the kernel still has what was put; a failure to write it costs a second fetch and no more.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Bytes of a boot's id as the kernel prints it. **Source:** `proc_sys_kernel(5)`, `random/boot_id`.
const BOOT_ID_SIZE: usize = 36;
/// Most bytes that are read: the chunks of 64 TiB would be more, but a save comes before.
const MAX_SIZE: u64 = 64 << 20;

/// The list and its file.
#[derive(Debug)]
pub(super) struct Fresh {
    path: PathBuf,
    file: Option<File>,
    chunks: Vec<u32>,
}

impl Fresh {
    /// What the file of an earlier process of this boot lists; nothing when it is of another boot, or torn.
    pub(super) fn read(path: &Path) -> Vec<usize> {
        use io::Read;
        let mut bytes = Vec::new();
        let read = File::open(path).and_then(|file| file.take(MAX_SIZE).read_to_end(&mut bytes));
        match (read, boot_id()) {
            (Ok(_), Some(boot)) => decode(&bytes, &boot),
            _ => Vec::new(),
        }
    }

    /// A list that begins with these chunks.
    pub(super) fn new(path: PathBuf, chunks: Vec<usize>) -> Self {
        let chunks = chunks.into_iter().filter_map(|c| u32::try_from(c).ok()).collect();
        let mut fresh = Self { path, file: None, chunks };
        fresh.rewrite();
        fresh
    }

    pub(super) fn len(&self) -> usize {
        self.chunks.len()
    }

    /// A chunk was put.
    pub(super) fn add(&mut self, chunk: usize) {
        let Ok(number) = u32::try_from(chunk) else { return };
        self.chunks.push(number);
        if let Some(file) = &mut self.file
            && let Err(error) = file.write_all(&number.to_le_bytes())
        {
            tracing::warn!(%error, "a kill would now cost chunks that are here");
            self.file = None;
        }
    }

    /// The first `count` are saved elsewhere.
    pub(super) fn forget(&mut self, count: usize) {
        self.chunks.drain(..count.min(self.chunks.len()));
        self.rewrite();
    }

    /// A chunk is no longer here.
    pub(super) fn remove(&mut self, chunk: usize) {
        let before = self.chunks.len();
        self.chunks.retain(|c| *c as usize != chunk);
        if self.chunks.len() < before {
            self.rewrite();
        }
    }

    /// Replaces the file as a whole, so that a kill finds the old or the new one.
    fn rewrite(&mut self) {
        let write = || -> io::Result<Option<File>> {
            let Some(boot) = boot_id() else { return Ok(None) };
            let new = self.path.with_extension("fresh-new");
            let mut file =
                OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
            file.write_all(&encode(&self.chunks, &boot))?;
            fs::rename(&new, &self.path)?;
            Ok(Some(file))
        };
        self.file = write().unwrap_or_else(|error| {
            tracing::warn!(%error, "a kill would now cost chunks that are here");
            None
        });
    }
}

fn boot_id() -> Option<String> {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let text = text.trim();
    (text.len() == BOOT_ID_SIZE).then(|| text.to_owned())
}

fn encode(chunks: &[u32], boot: &str) -> Vec<u8> {
    let numbers = chunks.iter().flat_map(|c| c.to_le_bytes());
    boot.bytes().chain(numbers).collect()
}

/// A number cut short at the end is of a chunk that was being put.
fn decode(bytes: &[u8], boot: &str) -> Vec<usize> {
    let Some(numbers) = bytes.strip_prefix(boot.as_bytes()) else { return Vec::new() };
    numbers.as_chunks::<4>().0.iter().map(|b| u32::from_le_bytes(*b) as usize).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_killed_process_is_believed_and_one_of_another_boot_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.fresh");
        let mut fresh = Fresh::new(path.clone(), vec![9]);
        [3, 1, 4].into_iter().for_each(|chunk| fresh.add(chunk));
        assert_eq!(Fresh::read(&path), [9, 3, 1, 4]);
        fresh.forget(2);
        fresh.add(5);
        fresh.remove(4);
        assert_eq!(Fresh::read(&path), [1, 5]);
        let bytes = fs::read(&path).unwrap();
        fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
        assert_eq!(Fresh::read(&path), [1], "a torn number is none");
        let mut other = bytes;
        other[0] ^= 1;
        fs::write(&path, other).unwrap();
        assert!(Fresh::read(&path).is_empty());
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_list_or_nothing(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let boot = "x".repeat(BOOT_ID_SIZE);
            decode(&bytes, &boot);
            let mut with_boot = boot.clone().into_bytes();
            with_boot.extend(&bytes);
            prop_assert_eq!(decode(&with_boot, &boot).len(), bytes.len() / 4);
        }
    }
}
