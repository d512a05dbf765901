//! The embedded engine: sled for readers, and one writer thread whose journal is what survives a power cut. One
//! process at a time; a second one is told so.
//!
//! ```text
//! apply(batch) ─► queue ─► writer: check versions ─► journal, one sync for all that wait ─► sled ─► answer
//! get, list ◄──────────────────────────────────────────────────────────────────────────── sled
//! ```

mod folder;
pub(super) mod journal;
mod open;
mod shadow;
#[cfg(test)]
mod tests;
mod writer;

use std::collections::BTreeMap;
use std::fs::{DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use tokio::sync::{mpsc, oneshot};

use super::batch::Change;
use super::engine::{Answer, Engine, Sink};
use super::entry::Entry;
use super::keys::{document_key, range};
use super::{Record, Select, StoreError, dump};
use journal::{Journal, MakeFile};
use shadow::Shadow;
use writer::{Request, Writer};

/// Batches that may wait for the writer; more callers wait to get in.
const QUEUE_LENGTH: usize = 1024;

/// The open store; closed when it is dropped.
pub(super) struct Embedded {
    /// `None` only while it is dropped.
    tree: Option<sled::Tree>,
    queue: Option<mpsc::Sender<Request>>,
    writer: Option<JoinHandle<()>>,
    stopped: Arc<AtomicBool>,
    repaired: Option<String>,
    path: PathBuf,
    _lock: std::fs::File,
}

impl Drop for Embedded {
    fn drop(&mut self) {
        self.queue = None;
        // The writer ends when its queue is closed; joining it frees sled's lock before a re-open.
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
        if !self.stopped.load(Ordering::Acquire) {
            let tree = self.tree.take().expect("open until dropped");
            open::close(&self.path, &self.path.join("journal"), tree);
        }
    }
}

/// What tests do to the disk and the machine.
pub(super) struct World {
    pub(super) make: MakeFile,
    pub(super) boot: String,
    pub(super) export_above: u64,
}

impl Default for World {
    fn default() -> Self {
        Self { make: journal::real_files(), boot: open::this_boot(), export_above: writer::EXPORT_ABOVE }
    }
}

impl Embedded {
    /// Opens or makes the store in `path`.
    ///
    /// # Errors
    /// `InUse`, `Damaged` or `Disk`.
    pub(super) fn open(path: &Path, world: World) -> Result<Self, StoreError> {
        let disk = |source| StoreError::Disk { path: path.to_owned(), source };
        make_private(path).map_err(disk)?;
        let folder = path.join("journal");
        let opened = open::open(path, &folder, &world.boot)?;
        if let Some(what) = &opened.repaired {
            tracing::error!(store = %path.display(), what, "the store was damaged and is repaired; nothing is lost");
        }
        let shadow = Shadow::default();
        let mut size = 0;
        if opened.needs_export {
            size = writer::export(&folder, opened.last, |sink| shadow.read(&opened.tree, sink))?;
        } else if let Some((_, newest)) = folder::exports(&folder).map_err(disk)?.last() {
            size = std::fs::metadata(newest).map_err(disk)?.len();
        }
        let journal = Journal::begin(&folder, world.make, opened.last + 1).map_err(disk)?;
        let (queue, requests) = mpsc::channel(QUEUE_LENGTH);
        let stopped = Arc::new(AtomicBool::new(false));
        let writer = Writer {
            path: path.to_owned(),
            folder,
            tree: opened.tree.clone(),
            journal,
            shadow,
            stopped: stopped.clone(),
            exported: Arc::new(AtomicU64::new(size)),
            exporting: None,
            export_above: world.export_above,
        };
        let writer = std::thread::Builder::new()
            .name("store-writer".into())
            .spawn(move || writer.run(requests))
            .map_err(disk)?;
        Ok(Self {
            tree: Some(opened.tree),
            queue: Some(queue),
            writer: Some(writer),
            stopped,
            repaired: opened.repaired,
            path: path.to_owned(),
            _lock: opened.lock,
        })
    }

    fn tree(&self) -> &sled::Tree {
        self.tree.as_ref().expect("open until dropped")
    }

    /// After a failed write nobody knows what the disk has.
    fn readable(&self) -> Result<(), StoreError> {
        if self.is_healthy() { Ok(()) } else { Err(StoreError::Stopped) }
    }

    fn read(&self, kind: &'static str, id: &str) -> Result<Option<Record>, StoreError> {
        let found = self.tree().get(document_key(kind, id)).map_err(|e| self.disk(e))?;
        found.map(|bytes| decode(kind, id, &bytes)).transpose()
    }

    fn disk(&self, error: sled::Error) -> StoreError {
        match error {
            sled::Error::Io(source) => StoreError::Disk { path: self.path.clone(), source },
            other => StoreError::Damaged { path: self.path.clone(), reason: other.to_string() },
        }
    }
}

/// Site secrets are inside: nobody else looks in, also where the directory was made before.
fn make_private(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    std::fs::set_permissions(path, Permissions::from_mode(0o700))
}

fn decode(kind: &'static str, id: &str, bytes: &[u8]) -> Result<Record, StoreError> {
    let unreadable =
        |e: serde_json::Error| StoreError::Unreadable { kind, id: id.to_owned(), reason: e.to_string() };
    Record::decode(bytes).map_err(unreadable)
}

impl Engine for Embedded {
    fn get(&self, kind: &'static str, id: &str) -> Result<Option<Record>, StoreError> {
        self.readable()?;
        self.read(kind, id)
    }

    fn list(&self, kind: &'static str, select: Select<'_>) -> Result<Vec<Record>, StoreError> {
        self.readable()?;
        let (range, prefix) = range(kind, select);
        let found = self.tree().range(range);
        let found: Box<dyn Iterator<Item = _>> =
            if select.newest_first { Box::new(found.rev()) } else { Box::new(found) };
        let mut items = Vec::new();
        for entry in found {
            if items.len() >= select.limit {
                break;
            }
            let (key, bytes) = entry.map_err(|e| self.disk(e))?;
            let id = String::from_utf8_lossy(&key[prefix..]).into_owned();
            if select.index.is_none() {
                items.push(decode(kind, &id, &bytes)?);
            } else {
                items.extend(self.read(kind, &id)?);
            }
        }
        Ok(items)
    }

    fn apply(&self, changes: Vec<Change>) -> Answer<'_, ()> {
        Box::pin(async move {
            let (answer, answered) = oneshot::channel();
            let queue = self.queue.as_ref().expect("open until dropped");
            queue.send(Request { changes, answer }).await.map_err(|_| StoreError::Stopped)?;
            answered.await.map_err(|_| StoreError::Stopped)?
        })
    }

    fn dump(&self, sink: Sink<'_>) -> Result<(), StoreError> {
        dump_files(&self.path, sink)
    }

    fn is_healthy(&self) -> bool {
        let writer_ended = self.queue.as_ref().is_none_or(mpsc::Sender::is_closed);
        !writer_ended && !self.stopped.load(Ordering::Acquire)
    }

    fn repaired(&self) -> Option<&str> {
        self.repaired.as_deref()
    }
}

/// How often files are looked for again: an export that is made meanwhile removes older ones.
const DUMP_TRIES: usize = 10;

/// All documents in the store at `path`, as they were after the last batch of its journal. Reads export and journal
/// only, so that it may run beside the process that has the store open, and after sled's files are lost.
pub(super) fn dump_files(path: &Path, sink: Sink<'_>) -> Result<(), StoreError> {
    let folder = path.join("journal");
    let mut tries = 0;
    // Both are open, or read, before the first document is given.
    let (export, mut changed) = loop {
        match files_of(&folder) {
            Err(StoreError::Disk { source, .. })
                if source.kind() == io::ErrorKind::NotFound && tries < DUMP_TRIES =>
            {
                tries += 1;
            }
            found => break found?,
        }
    };
    let mut give = |record: Option<Record>| record.map_or(Ok(()), &mut *sink).map_err(StoreError::Dump);
    if let Some(export) = export {
        dump::read(export, &mut |record| {
            let name = (record.kind.clone(), record.id.clone());
            while let Some(first) = changed.first_entry().filter(|first| *first.key() < name) {
                give(first.remove())?;
            }
            give(changed.remove(&name).unwrap_or(Some(record)))
        })?;
    }
    changed.into_values().try_for_each(give)
}

/// Documents that the journal changed; `None` removed.
type Changed = BTreeMap<(String, String), Option<Record>>;

fn files_of(folder: &Path) -> Result<(Option<std::fs::File>, Changed), StoreError> {
    let disk = |source| StoreError::Disk { path: folder.to_owned(), source };
    let newest = folder::exports(folder).map_err(disk)?.pop();
    if newest.is_none() && folder::journals(folder).map_err(disk)?.is_empty() {
        let source = io::Error::new(io::ErrorKind::InvalidInput, "there is no store");
        return Err(disk(source));
    }
    let from = newest.as_ref().map_or(0, |(number, _)| *number);
    let export = newest.map(|(_, path)| std::fs::File::open(path)).transpose().map_err(disk)?;
    let mut changed = Changed::new();
    let read = journal::read(folder, from, from, &mut |_, entries| {
        for entry in entries {
            let name = (entry.kind().to_owned(), entry.id().to_owned());
            changed.insert(name, if let Entry::Put(record) = entry { Some(record) } else { None });
        }
        Ok(())
    });
    match read {
        Ok(_) => Ok((export, changed)),
        Err(journal::ChainError::Io(error)) => Err(disk(error)),
        Err(journal::ChainError::Lost(number)) => {
            let reason = format!("change {number} was acknowledged and is in no journal");
            Err(StoreError::Damaged { path: folder.to_owned(), reason })
        }
    }
}

/// Makes the store in `path` from documents in order, given by `fill`.
///
/// # Errors
/// `NotEmpty` when there is a store already.
pub(super) fn restore(
    path: &Path,
    fill: impl FnOnce(Sink<'_>) -> Result<(), StoreError>,
) -> Result<u64, StoreError> {
    let disk = |source| StoreError::Disk { path: path.to_owned(), source };
    make_private(path).map_err(disk)?;
    let _lock = open::lock(path)?;
    let folder = path.join("journal");
    let is_empty = || -> io::Result<bool> {
        let is_without_files = !path.join("db").exists() && !path.join("sled").exists();
        Ok(is_without_files && folder::exports(&folder)?.is_empty() && folder::journals(&folder)?.is_empty())
    };
    if !is_empty().map_err(disk)? {
        return Err(StoreError::NotEmpty(path.display().to_string()));
    }
    std::fs::create_dir_all(&folder).map_err(disk)?;
    let written =
        dump::write_file(&folder.join(folder::export_name(0)), |to| fill(&mut |record| to.record(&record)))?;
    folder::sync_folder(path).map_err(disk)?;
    Ok(written)
}
