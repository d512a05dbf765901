//! Makes what sled has written survive a power cut. sled 0.34's flush ends in `sync_file_range`, which promises
//! nothing, and it never syncs the blob files it writes for large pages: both are done here, after every flush.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

/// The files of one sled directory.
pub(super) struct Durable {
    log: File,
    blobs: PathBuf,
    /// Blobs are written once: these are on the disk.
    synced: BTreeSet<OsString>,
}

impl Durable {
    /// Of the sled directory `path`, which is open already. The names of its files are on the disk from here on.
    pub(super) fn new(path: &Path) -> io::Result<Self> {
        let log = File::open(path.join("db"))?;
        log.sync_all()?;
        for directory in [Some(path), path.parent()].into_iter().flatten() {
            File::open(directory)?.sync_all()?;
        }
        let mut durable = Self { log, blobs: path.join("blobs"), synced: BTreeSet::new() };
        durable.sync_blobs()?;
        Ok(durable)
    }

    /// On return everything sled has written is on the disk.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        self.sync_blobs()?;
        self.log.sync_data()
    }

    fn sync_blobs(&mut self) -> io::Result<()> {
        let entries = match std::fs::read_dir(&self.blobs) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        let mut present = BTreeSet::new();
        let mut new = false;
        for entry in entries {
            let name = entry?.file_name();
            if !self.synced.contains(&name) {
                match File::open(self.blobs.join(&name)) {
                    Ok(blob) => blob.sync_all()?,
                    // sled has removed it meanwhile: nothing needs it.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                    Err(error) => return Err(error),
                }
                new = true;
            }
            present.insert(name);
        }
        self.synced = present;
        if new { File::open(&self.blobs)?.sync_all() } else { Ok(()) }
    }
}
