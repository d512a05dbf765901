//! The sled engine. One writer thread takes batches from a queue, checks versions, writes what arrived together
//! as one atomic sled batch, flushes, syncs sled's files (`durable`: sled's own flush does not) and only then
//! answers: many callers share one sync of the disk. Readers go to sled directly. Opening is done inside
//! `catch_unwind`, because sled panics on damaged files.

use std::collections::BTreeMap;
use std::fs::Permissions;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde::Deserialize;
use tokio::sync::{mpsc, oneshot};

use super::batch::{Batch, Expect};
use super::durable::Durable;
use super::{Document, Select, StoreError, Stored};

/// Batches that may wait for the writer; more callers wait to get in.
const QUEUE_LENGTH: usize = 1024;
/// Batches that share one sync of the disk: bounds how long the first of them waits.
const MAX_GROUP: usize = 256;
/// Candidates a claim reads at once.
const CLAIM_CANDIDATES: usize = 256;
/// How often the lock is tried, and the pause between: the one before may still be on its way out, in another
/// process or in sled's own threads (4 of 100 re-openings on a busy machine).
const LOCK_TRIES: u32 = 20;
const LOCK_PAUSE: Duration = Duration::from_millis(50);
/// sled's page cache, bytes.
const CACHE_SIZE: u64 = 64 * 1024 * 1024;

struct Request {
    batch: Batch,
    answer: oneshot::Sender<Result<(), StoreError>>,
}

/// The open store. Cheap to clone; closed when the last clone is dropped.
#[derive(Clone)]
pub(crate) struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    tree: sled::Tree,
    queue: Option<mpsc::Sender<Request>>,
    writer: Option<std::thread::JoinHandle<()>>,
    stopped: Arc<AtomicBool>,
    path: PathBuf,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.queue = None;
        // The writer ends when its queue is closed; joining it frees sled's lock before a re-open.
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
    }
}

#[derive(Deserialize)]
struct Envelope {
    version: u64,
    schema: u32,
    #[serde(default)]
    index: Vec<(String, String)>,
    body: serde_json::Value,
}

impl Store {
    /// Opens or makes the store in `path`.
    ///
    /// # Errors
    /// `InUse`, `Damaged` or `Disk`.
    pub(crate) fn open(path: &Path) -> Result<Self, StoreError> {
        let disk = |source| StoreError::Disk { path: path.to_owned(), source };
        // Site secrets are inside: nobody else looks in, also where the directory was made before.
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(disk)?;
        std::fs::set_permissions(path, Permissions::from_mode(0o700)).map_err(disk)?;
        let config = sled::Config::new()
            .path(path)
            .cache_capacity(CACHE_SIZE)
            .mode(sled::Mode::HighThroughput)
            .flush_every_ms(Some(200));
        let mut tries = 0;
        let (db, tree) = loop {
            let opened = catch_unwind(AssertUnwindSafe(|| {
                let db = config.open()?;
                let tree = db.open_tree("documents")?;
                Ok::<_, sled::Error>((db, tree))
            }));
            match opened {
                Ok(Ok(opened)) => break opened,
                Ok(Err(sled::Error::Io(e))) if e.to_string().contains("could not acquire lock") => {
                    tries += 1;
                    if tries == LOCK_TRIES {
                        return Err(StoreError::InUse { path: path.to_owned() });
                    }
                    std::thread::sleep(LOCK_PAUSE);
                }
                Ok(Err(sled::Error::Io(e))) => return Err(disk(e)),
                Ok(Err(_)) | Err(_) => return Err(StoreError::Damaged { path: path.to_owned() }),
            }
        };
        let durable = Durable::new(path).map_err(disk)?;
        let (queue, requests) = mpsc::channel(QUEUE_LENGTH);
        let stopped = Arc::new(AtomicBool::new(false));
        let writer = Writer { db, tree: tree.clone(), durable, stopped: stopped.clone() };
        let writer = std::thread::Builder::new()
            .name("store-writer".into())
            .spawn(move || writer.run(requests))
            .map_err(disk)?;
        let inner = Inner { tree, queue: Some(queue), writer: Some(writer), stopped, path: path.to_owned() };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// True while writes are possible.
    pub(crate) fn is_healthy(&self) -> bool {
        let writer_ended = self.inner.queue.as_ref().is_none_or(mpsc::Sender::is_closed);
        !writer_ended && !self.inner.stopped.load(Ordering::Acquire)
    }

    /// Readers see a write a moment before the disk has it, and one that failed until a restart: nobody may be
    /// told of it as done.
    fn readable(&self) -> Result<(), StoreError> {
        if self.is_healthy() { Ok(()) } else { Err(StoreError::Stopped) }
    }

    /// A digest of everything: the same when nothing was changed.
    #[cfg(test)]
    pub(crate) fn fingerprint(&self) -> blake3::Hash {
        let mut hasher = blake3::Hasher::new();
        for entry in self.inner.tree.iter() {
            let (key, value) = entry.expect("the store of a test can be read");
            hasher.update(&(key.len() as u64).to_le_bytes()).update(&key);
            hasher.update(&(value.len() as u64).to_le_bytes()).update(&value);
        }
        hasher.finalize()
    }

    /// On return everything that was read before is on the disk: for who answers with what another has written.
    ///
    /// # Errors
    /// `Stopped`.
    pub(crate) async fn settle(&self) -> Result<(), StoreError> {
        self.send(Batch::new()).await
    }

    /// Carries out a batch; on return it is on the disk.
    ///
    /// # Errors
    /// `Conflict` when a version is not the expected one, `TooLarge`, `Stopped`.
    pub(crate) async fn apply(&self, batch: Batch) -> Result<(), StoreError> {
        if batch.is_empty() {
            return Ok(());
        }
        self.send(batch).await
    }

    async fn send(&self, batch: Batch) -> Result<(), StoreError> {
        let (answer, answered) = oneshot::channel();
        let queue = self.inner.queue.as_ref().expect("open until dropped");
        queue.send(Request { batch, answer }).await.map_err(|_| StoreError::Stopped)?;
        answered.await.map_err(|_| StoreError::Stopped)?
    }

    /// The document with this id.
    ///
    /// # Errors
    /// `Disk`, `Unreadable`, or `Stopped` after a failed write.
    pub(crate) fn get<T: Document>(&self, id: &str) -> Result<Option<Stored<T>>, StoreError> {
        self.readable()?;
        let found = self.inner.tree.get(document_key(T::KIND, id)).map_err(|e| self.disk(e))?;
        found.map(|bytes| decode(id, &bytes)).transpose()
    }

    /// A page of documents.
    ///
    /// # Errors
    /// `Disk`, `Unreadable`, or `Stopped` after a failed write.
    pub(crate) fn list<T: Document>(&self, select: Select<'_>) -> Result<Vec<Stored<T>>, StoreError> {
        self.readable()?;
        let prefix = match select.index {
            Some((name, value)) => index_prefix(T::KIND, name, value),
            None => document_key(T::KIND, ""),
        };
        let mut bounds = (prefix.clone(), past(&prefix));
        if let Some(after) = select.after {
            let mut key = prefix.clone();
            key.extend_from_slice(after.as_bytes());
            if select.newest_first {
                bounds.1 = key;
            } else {
                key.push(0);
                bounds.0 = key;
            }
        }
        if bounds.0 >= bounds.1 {
            return Ok(Vec::new());
        }
        let range = self.inner.tree.range(bounds.0..bounds.1);
        let range: Box<dyn Iterator<Item = _>> =
            if select.newest_first { Box::new(range.rev()) } else { Box::new(range) };
        let mut items = Vec::new();
        for entry in range {
            if items.len() >= select.limit {
                break;
            }
            let (key, bytes) = entry.map_err(|e| self.disk(e))?;
            let id = String::from_utf8_lossy(&key[prefix.len()..]).into_owned();
            if select.index.is_none() {
                items.push(decode(&id, &bytes)?);
            } else if let Some(found) = self.get(&id)? {
                items.push(found);
            }
        }
        Ok(items)
    }

    /// Gives one of the documents with this index value to exactly one caller: `take` says for a candidate what
    /// batch would take it, or `None` to pass it over.
    ///
    /// # Errors
    /// As [`Store::apply`], but `Conflict` means trying the next candidate.
    pub(crate) async fn claim<T: Document, R>(
        &self,
        index: (&str, &str),
        mut take: impl FnMut(&Stored<T>) -> Option<(Batch, R)>,
    ) -> Result<Option<R>, StoreError> {
        let mut after: Option<String> = None;
        loop {
            let after_id = after.as_deref();
            let select =
                Select { index: Some(index), after: after_id, limit: CLAIM_CANDIDATES, ..Select::default() };
            let candidates = self.list::<T>(select)?;
            let Some(last) = candidates.last() else { return Ok(None) };
            after = Some(last.value.id());
            for candidate in candidates {
                let Some((batch, result)) = take(&candidate) else { continue };
                match self.apply(batch).await {
                    Ok(()) => return Ok(Some(result)),
                    Err(StoreError::Conflict { .. }) => continue,
                    Err(error) => return Err(error),
                }
            }
        }
    }

    fn disk(&self, error: sled::Error) -> StoreError {
        disk(&self.inner.path, error)
    }
}

fn disk(path: &Path, error: sled::Error) -> StoreError {
    match error {
        sled::Error::Io(source) => StoreError::Disk { path: path.to_owned(), source },
        _ => StoreError::Damaged { path: path.to_owned() },
    }
}

fn decode<T: Document>(id: &str, bytes: &[u8]) -> Result<Stored<T>, StoreError> {
    let unreadable = |reason: String| StoreError::Unreadable { kind: T::KIND, id: id.to_owned(), reason };
    let envelope: Envelope = serde_json::from_slice(bytes).map_err(|e| unreadable(e.to_string()))?;
    if envelope.schema > T::SCHEMA {
        return Err(unreadable(format!("it was written by a newer cardshop (schema {})", envelope.schema)));
    }
    let value = serde_json::from_value(envelope.body).map_err(|e| unreadable(e.to_string()))?;
    Ok(Stored { version: envelope.version, value })
}

fn document_key(kind: &str, id: &str) -> Vec<u8> {
    [&b"d"[..], kind.as_bytes(), id.as_bytes()].join(&0)
}

fn index_prefix(kind: &str, name: &str, value: &str) -> Vec<u8> {
    [&b"i"[..], kind.as_bytes(), name.as_bytes(), value.as_bytes(), &b""[..]].join(&0)
}

/// The first key behind all that begin with `prefix`, which ends in a zero byte.
fn past(prefix: &[u8]) -> Vec<u8> {
    let mut key = prefix.to_vec();
    *key.last_mut().expect("a prefix is never empty") = 1;
    key
}

struct Writer {
    db: sled::Db,
    tree: sled::Tree,
    durable: Durable,
    stopped: Arc<AtomicBool>,
}

/// A document's version and index keys; `None` = it does not exist.
type State = Option<(u64, Vec<Vec<u8>>)>;
/// The documents a group has changed so far.
type Overlay = BTreeMap<Vec<u8>, State>;

impl Writer {
    fn run(mut self, mut requests: mpsc::Receiver<Request>) {
        while let Some(first) = requests.blocking_recv() {
            let mut group = vec![first];
            while group.len() < MAX_GROUP {
                let Ok(next) = requests.try_recv() else { break };
                group.push(next);
            }
            self.commit(group);
        }
    }

    fn commit(&mut self, group: Vec<Request>) {
        let mut write = sled::Batch::default();
        let mut overlay = Overlay::new();
        let mut waiting = Vec::new();
        for request in group {
            if self.stopped.load(Ordering::Acquire) {
                let _ = request.answer.send(Err(StoreError::Stopped));
                continue;
            }
            match self.stage(&request.batch, &mut overlay, &mut write) {
                Ok(()) => waiting.push(request.answer),
                Err(error) => {
                    let _ = request.answer.send(Err(error));
                }
            }
        }
        if waiting.is_empty() {
            return;
        }
        let done = self.make_durable(write);
        if let Err(error) = &done {
            // sled may show what the disk never got: no promise can be kept any more.
            tracing::error!(%error, "the store stops: a write failed");
            self.stopped.store(true, Ordering::Release);
        }
        for answer in waiting {
            let _ = answer.send(done.as_ref().map_err(|_| StoreError::Stopped).copied());
        }
    }

    fn make_durable(&mut self, write: sled::Batch) -> Result<(), std::io::Error> {
        self.tree.apply_batch(write).map_err(std::io::Error::other)?;
        self.db.flush().map_err(std::io::Error::other)?;
        self.durable.sync()
    }

    /// Checks one batch against the store and what the group did before it, then adds its writes.
    fn stage(&self, batch: &Batch, overlay: &mut Overlay, write: &mut sled::Batch) -> Result<(), StoreError> {
        let mut staged = Overlay::new();
        let mut writes: Vec<(Vec<u8>, Option<Vec<u8>>)> = Vec::new();
        for change in &batch.changes {
            let key = document_key(change.kind, &change.id);
            let current = match staged.get(&key).or_else(|| overlay.get(&key)) {
                Some(current) => current.clone(),
                None => self.read(change.kind, &change.id, &key)?,
            };
            let version = current.as_ref().map(|(version, _)| *version);
            let expected = match change.expect {
                Expect::Absent => version.is_none(),
                Expect::Version(wanted) => version == Some(wanted),
                Expect::Any => true,
            };
            if !expected {
                return Err(StoreError::Conflict { kind: change.kind, id: change.id.clone() });
            }
            let old_index = current.map(|(_, index)| index).unwrap_or_default();
            writes.extend(old_index.into_iter().map(|key| (key, None)));
            let Some(put) = &change.put else {
                writes.push((key.clone(), None));
                staged.insert(key, None);
                continue;
            };
            let next = version.unwrap_or(0) + 1;
            writes.push((key.clone(), Some(change.encode(put, next)?)));
            let index: Vec<_> = put
                .index
                .iter()
                .map(|(name, value)| index_key(change.kind, name, value, &change.id))
                .collect();
            writes.extend(index.iter().map(|key| (key.clone(), Some(Vec::new()))));
            staged.insert(key, Some((next, index)));
        }
        overlay.extend(staged);
        for (key, value) in writes {
            match value {
                Some(value) => write.insert(key, value),
                None => write.remove(key),
            }
        }
        Ok(())
    }

    fn read(&self, kind: &'static str, id: &str, key: &[u8]) -> Result<State, StoreError> {
        let found = self.tree.get(key).map_err(|e| disk(Path::new("the data directory"), e))?;
        let Some(bytes) = found else { return Ok(None) };
        let envelope: Envelope = serde_json::from_slice(&bytes).map_err(|e| StoreError::Unreadable {
            kind,
            id: id.to_owned(),
            reason: e.to_string(),
        })?;
        let index = envelope.index.iter().map(|(name, value)| index_key(kind, name, value, id)).collect();
        Ok(Some((envelope.version, index)))
    }
}

fn index_key(kind: &str, name: &str, value: &str, id: &str) -> Vec<u8> {
    let mut key = index_prefix(kind, name, value);
    key.extend_from_slice(id.as_bytes());
    key
}
