//! The writer: one thread that takes batches from a queue, checks versions, puts what arrived together into the
//! journal with one sync of the disk, then shows it to readers, and only then answers: many callers share one sync.
//! When the journal has grown past what it saves, a thread beside writes an export, and older files go.
//!
//! A disk that is full refuses the group and changes nothing. A sync that fails ends all writing and reading: the
//! disk may have less than it said, and only opening the store again tells.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::mpsc::error::TryRecvError;
use tokio::sync::{mpsc, oneshot};

use super::super::batch::Change;
use super::super::dump;
use super::super::stage::{Overlay, Staged, stage};
use super::super::{Record, StoreError};
use super::folder::{clear, export_name};
use super::journal::{AppendError, Journal};
use super::open::set_number;
use super::shadow::Shadow;

/// Batches that share one sync of the disk: bounds how long the first of them waits.
const MAX_GROUP: usize = 256;
/// Who was answered comes again soon: as many as in the last group are waited for, at most this share of a sync. Eight
/// clients otherwise share out over groups of a few each, and each group costs a sync.
const GATHER_SHARE: u32 = 2;
/// An export is made when the journal is larger than this and than the last export: everything is then written at
/// most twice more, and a rebuilding reads at most twice what there is.
pub(super) const EXPORT_ABOVE: u64 = 16 * 1024 * 1024;

/// Bytes of the disk that a change leaves free: sled, which writes beside the journal, must not meet a full disk. Its flush
/// then waits for ever for a write that failed (seen in `make_stable` of 0.34.7, in two of two runs).
const KEEP_FREE: u64 = 8 * 1024 * 1024;

pub(super) struct Request {
    pub(super) changes: Vec<Change>,
    pub(super) answer: oneshot::Sender<Result<(), StoreError>>,
}

pub(super) struct Writer {
    pub(super) path: PathBuf,
    pub(super) folder: PathBuf,
    pub(super) tree: sled::Tree,
    pub(super) journal: Journal,
    pub(super) shadow: Shadow,
    pub(super) stopped: Arc<AtomicBool>,
    /// Bytes of the last export.
    pub(super) exported: Arc<AtomicU64>,
    pub(super) exporting: Option<JoinHandle<()>>,
    pub(super) export_above: u64,
}

impl Writer {
    pub(super) fn run(mut self, mut requests: mpsc::Receiver<Request>) {
        let (mut last, mut took) = (1, Duration::ZERO);
        while let Some(first) = requests.blocking_recv() {
            let group = gather(first, &mut requests, last, took / GATHER_SHARE);
            last = group.len();
            let begun = Instant::now();
            self.commit(group);
            took = begun.elapsed();
            self.export_when_due();
        }
        if let Some(exporting) = self.exporting.take() {
            let _ = exporting.join();
        }
    }

    fn commit(&mut self, group: Vec<Request>) {
        let mut overlay = Overlay::default();
        let (mut staged, mut waiting) = (Vec::new(), Vec::new());
        for Request { changes, answer } in group {
            if self.stopped.load(Ordering::Acquire) {
                let _ = answer.send(Err(StoreError::Stopped));
            } else if changes.is_empty() {
                // What can be read is on the disk.
                let _ = answer.send(Ok(()));
            } else {
                match stage(&changes, &mut overlay, |key| self.read(key)) {
                    Ok(batch) => {
                        staged.push(batch);
                        waiting.push(answer);
                    }
                    Err(error) => {
                        let _ = answer.send(Err(error));
                    }
                }
            }
        }
        if waiting.is_empty() {
            return;
        }
        let mut done = self.write(staged);
        for answer in waiting {
            let told = match &mut done {
                Ok(()) => Ok(()),
                Err(StoreError::Disk { source, .. }) => Err(self.disk(again(source))),
                Err(_) => Err(StoreError::Stopped),
            };
            let _ = answer.send(told);
        }
    }

    fn write(&mut self, staged: Vec<Staged>) -> Result<(), StoreError> {
        if let Err(error) = self.has_room() {
            tracing::error!(%error, "the disk is full: a change is refused");
            return Err(self.disk(error));
        }
        let number = match self.journal.append(staged.iter().map(|batch| batch.line.as_slice())) {
            Ok(number) => number,
            Err(AppendError::Refused(error)) => {
                tracing::error!(%error, "the disk takes nothing: a change is refused");
                return Err(self.disk(error));
            }
            Err(AppendError::Broken(error)) => return Err(self.stop(&error)),
        };
        self.show(staged, number).map_err(|error| self.stop(&error))
    }

    fn has_room(&self) -> std::io::Result<()> {
        let facts = nix::sys::statvfs::statvfs(&self.folder)?;
        let free = facts.blocks_available().saturating_mul(facts.fragment_size());
        if free < KEEP_FREE { Err(std::io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    /// Readers see the group from here on.
    fn show(&self, staged: Vec<Staged>, number: u64) -> sled::Result<()> {
        let mut write = sled::Batch::default();
        self.shadow
            .keep(&self.tree, staged.iter().flat_map(|batch| batch.writes.iter().map(|(key, _)| key)))?;
        for (key, value) in staged.into_iter().flat_map(|batch| batch.writes) {
            match value {
                Some(value) => write.insert(key, value),
                None => write.remove(key),
            }
        }
        set_number(&mut write, number);
        self.tree.apply_batch(write)
    }

    fn stop(&self, error: &dyn std::fmt::Display) -> StoreError {
        tracing::error!(%error, "the store stops: a write failed");
        self.stopped.store(true, Ordering::Release);
        StoreError::Stopped
    }

    fn disk(&self, source: std::io::Error) -> StoreError {
        StoreError::Disk { path: self.path.clone(), source }
    }

    fn read(&self, key: &[u8]) -> Result<Option<Record>, StoreError> {
        let found = self.tree.get(key).map_err(|e| self.disk(std::io::Error::other(e)))?;
        found.map(|bytes| Record::decode(&bytes).map_err(|e| self.disk(e.into()))).transpose()
    }

    fn export_when_due(&mut self) {
        let above = self.export_above.max(self.exported.load(Ordering::Acquire));
        let running = self.exporting.as_ref().is_some_and(|thread| !thread.is_finished());
        if self.journal.size() <= above || running || self.stopped.load(Ordering::Acquire) {
            return;
        }
        let last = match self.journal.rotate() {
            Ok(last) => last,
            Err(error) => {
                tracing::error!(%error, "no new journal can be begun; the old one goes on");
                return;
            }
        };
        self.shadow.begin();
        let (tree, shadow, folder) = (self.tree.clone(), self.shadow.clone(), self.folder.clone());
        let exported = self.exported.clone();
        let export = move || {
            let written = export(&folder, last, |sink| shadow.read(&tree, sink));
            shadow.end();
            match written {
                Ok(size) => exported.store(size, Ordering::Release),
                Err(error) => tracing::error!(%error, "no export was written; the journals stay"),
            }
        };
        match std::thread::Builder::new().name("store-export".into()).spawn(export) {
            Ok(thread) => self.exporting = Some(thread),
            Err(error) => {
                self.shadow.end();
                tracing::error!(%error, "no export can be written now");
            }
        }
    }
}

/// What waits, and what comes within `patience` until there are `expected`.
fn gather(
    first: Request,
    requests: &mut mpsc::Receiver<Request>,
    expected: usize,
    patience: Duration,
) -> Vec<Request> {
    let (mut group, begun) = (vec![first], Instant::now());
    while group.len() < MAX_GROUP {
        match requests.try_recv() {
            Ok(next) => group.push(next),
            Err(TryRecvError::Empty) if group.len() < expected && begun.elapsed() < patience => {
                std::thread::yield_now();
            }
            Err(_) => break,
        }
    }
    group
}

/// Writes the export of everything up to batch `last`, and removes what is not needed after it. Its size.
pub(super) fn export(
    folder: &std::path::Path,
    last: u64,
    documents: impl FnOnce(&mut dyn FnMut(Record) -> std::io::Result<()>) -> Result<(), StoreError>,
) -> Result<u64, StoreError> {
    let path = folder.join(export_name(last));
    let disk = |source| StoreError::Disk { path: path.clone(), source };
    dump::write_file(&path, |to| documents(&mut |record| to.record(&record)))?;
    clear(folder).map_err(disk)?;
    Ok(std::fs::metadata(&path).map_err(disk)?.len())
}

/// An error that can be told to several.
fn again(error: &std::io::Error) -> std::io::Error {
    match error.raw_os_error() {
        Some(code) => std::io::Error::from_raw_os_error(code),
        None => std::io::Error::new(error.kind(), error.to_string()),
    }
}
