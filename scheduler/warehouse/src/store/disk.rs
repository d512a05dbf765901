//! Files that survive a power cut: written, synced, put in place by rename, folder synced. Also holes and
//! free space. No policy; called by the rest of `store`.

use std::fs::{self, File};
use std::io::{self, Write};
use std::ops::Range;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};

/// What a file is called until it is whole. Names with it are swept at start.
pub(super) const UNFINISHED: &str = "tmp";

/// Puts `bytes` at `path`, in full or not at all, durable on return.
pub(super) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    replace_with_mode(path, bytes, 0o644)
}

/// As [`replace`], with the permissions of a new file.
pub(super) fn replace_with_mode(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let unfinished = unfinished(path);
    let mut file = File::options().write(true).create(true).truncate(true).mode(mode).open(&unfinished)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&unfinished, path)?;
    sync_folder_of(path)
}

fn unfinished(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(UNFINISHED);
    name.into()
}

/// Makes the names in the folder of `path` durable.
pub(super) fn sync_folder_of(path: &Path) -> io::Result<()> {
    File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
}

/// Removes a file; that it is gone already is fine.
pub(super) fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Makes `range` read as zero and gives its blocks back where the file system can.
pub(super) fn clear(file: &File, range: Range<u64>) -> io::Result<()> {
    let wide = |n: u64| i64::try_from(n).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput));
    let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    match fallocate(file, flags, wide(range.start)?, wide(range.end - range.start)?) {
        Err(Errno::EOPNOTSUPP) => write_zeros(file, range),
        other => Ok(other?),
    }
}

fn write_zeros(file: &File, range: Range<u64>) -> io::Result<()> {
    static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];
    let mut at = range.start;
    while at < range.end {
        let step = (range.end - at).min(ZEROS.len() as u64);
        file.write_all_at(&ZEROS[..step as usize], at)?;
        at += step;
    }
    Ok(())
}

/// Bytes that an ordinary user may still write to the file system of `folder`.
pub(super) fn free_bytes(folder: &Path) -> io::Result<u64> {
    let facts = nix::sys::statvfs::statvfs(folder)?;
    Ok(facts.blocks_available().saturating_mul(facts.fragment_size()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    #[test]
    fn a_replaced_file_has_the_new_bytes_and_its_mode_and_leaves_nothing_unfinished() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        replace_with_mode(&path, b"one", 0o600).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        replace(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        remove(&path).unwrap();
        remove(&path).unwrap();
    }

    #[test]
    fn a_cleared_range_reads_as_zero_and_its_neighbours_stay() {
        for clear in [clear, write_zeros] {
            let file = tempfile::tempfile().unwrap();
            file.write_all_at(&[7; 300_000], 0).unwrap();
            let before = file.metadata().unwrap().blocks();
            clear(&file, 4096..266_240).unwrap();
            let mut bytes = vec![1; 300_000];
            file.read_exact_at(&mut bytes, 0).unwrap();
            assert!(bytes[..4096].iter().chain(&bytes[266_240..]).all(|b| *b == 7));
            assert!(bytes[4096..266_240].iter().all(|b| *b == 0));
            assert!(file.metadata().unwrap().blocks() <= before);
        }
    }
}
