//! The folder beside sled's files: journals and exports, each named by its number, and which of them are needed.
//!
//! ```text
//! store/lock                      held while a process has the store open
//! store/sled/                     what readers read; anything here can be made anew from the next two
//! store/journal/export-{n}.jsonl  everything up to batch n
//! store/journal/journal-{n}       batches from n on
//! store/journal/boot              which boot of the machine sled's files were last written in
//! store/journal/closed            at which batch the store was closed in good order, and the digest of sled's files
//! store/damaged-{seconds}/        sled's files that were set aside
//! ```

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

/// Exports that are kept: the newest, and the one before in case the disk damages it.
pub(super) const GENERATIONS: usize = 2;

/// Digits of a number in a file's name, so that names sort as numbers do.
const WIDTH: usize = 20;

pub(super) fn journal_name(first: u64) -> String {
    format!("journal-{first:0WIDTH$}")
}

pub(super) fn export_name(last: u64) -> String {
    format!("export-{last:0WIDTH$}.jsonl")
}

/// Journals with the number of their first line, oldest first.
pub(super) fn journals(folder: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    numbered(folder, "journal-", "")
}

/// Exports with the number of the last batch in them, oldest first.
pub(super) fn exports(folder: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    numbered(folder, "export-", ".jsonl")
}

fn numbered(folder: &Path, before: &str, behind: &str) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut found = Vec::new();
    let entries = match std::fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(found),
        entries => entries?,
    };
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let number = name.to_str().and_then(|n| n.strip_prefix(before)?.strip_suffix(behind)?.parse().ok());
        found.extend(number.map(|number| (number, entry.path())));
    }
    found.sort();
    Ok(found)
}

/// Removes what no rebuilding needs any more. What cannot be removed is tried again after the next export.
pub(super) fn clear(folder: &Path) -> io::Result<()> {
    let exports = exports(folder)?;
    let Some(keep) = exports.len().checked_sub(GENERATIONS) else { return Ok(()) };
    let oldest = exports[keep].0;
    let journals = journals(folder)?;
    // A journal is needed when it has a line behind the oldest export: when the next begins behind that one.
    let unneeded = journals.windows(2).filter(|pair| pair[1].0 <= oldest + 1).map(|pair| &pair[0].1);
    for path in exports[..keep].iter().map(|(_, path)| path).chain(unneeded) {
        std::fs::remove_file(path)?;
    }
    sync_folder(folder)
}

/// On return the names in `folder` are on the disk.
pub(super) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}
