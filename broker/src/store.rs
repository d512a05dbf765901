//! Retained messages on disk: a sled directory, written behind by one thread. A message is on disk within
//! [`WRITE_EVERY`] and a sync of being accepted, and is acknowledged before that: a power cut or `kill -9` loses what
//! is newer (a removed message is back), an orderly end loses nothing. That is no promise broken: scheduler and
//! agents send all of theirs again when they come back. The picture itself, and what may be kept, is
//! [`crate::retained`]'s.
//!
//! sled's `flush` does not sync the file (0.34.7 issues `sync_file_range`), so `db` is synced after it; a damaged
//! directory makes sled panic, so it is set aside and the picture starts empty: its senders publish it again.

use std::collections::HashMap;
use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use tracing::{error, warn};

use crate::message::Message;

/// Changes are gathered this long before they are written: one sync for many. A disk syncs in 1–20 ms.
pub(crate) const WRITE_EVERY: Duration = Duration::from_millis(250);

/// How long sled may take to let go of a closed directory; it takes milliseconds.
const FREE_WITHIN: Duration = Duration::from_secs(5);

/// sled's page cache, bytes.
const CACHE_SIZE: u64 = 8 * 1024 * 1024;

/// Why the store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// sled refused, for example because another process holds the directory.
    #[error("the retained messages in {} cannot be opened; another broker may be running there", path.display())]
    Open {
        /// The directory.
        path: PathBuf,
        /// What sled said.
        #[source]
        source: sled::Error,
    },
    /// A damaged directory could not be moved out of the way.
    #[error("the damaged directory {} cannot be set aside; move it away", path.display())]
    SetAside {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file or thread of the store cannot be made.
    #[error("the store in {} cannot be started", path.display())]
    Start {
        /// The directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// Topic → what is to be written: a message, or its removal. The newest change of a topic replaces older ones,
/// so this never holds more than one entry per topic.
#[derive(Default)]
struct Pending {
    changes: HashMap<String, Option<Bytes>>,
    stop: bool,
}

#[derive(Default)]
struct Shared {
    pending: Mutex<Pending>,
    wake: Condvar,
}

/// The store; dropping it writes what is pending and waits for that.
pub(crate) struct Store {
    shared: Arc<Shared>,
    writer: Option<JoinHandle<()>>,
}

impl Store {
    /// Opens `directory` and gives back all it holds.
    pub(crate) fn open(directory: &Path) -> Result<(Self, Vec<Message>), StoreError> {
        let start = |source| StoreError::Start { path: directory.to_owned(), source };
        std::fs::create_dir_all(directory).map_err(start)?;
        let (db, messages) = match load(directory) {
            Ok(loaded) => loaded,
            Err(Damage::Refused(source)) => {
                return Err(StoreError::Open { path: directory.to_owned(), source });
            }
            Err(Damage::Panicked) => {
                set_aside(directory)?;
                std::fs::create_dir_all(directory).map_err(start)?;
                let broken = |damage| match damage {
                    Damage::Refused(source) => source,
                    Damage::Panicked => sled::Error::ReportableBug("an empty directory is damaged".into()),
                };
                load(directory).map_err(|damage| StoreError::Open {
                    path: directory.to_owned(),
                    source: broken(damage),
                })?
            }
        };
        let file = File::open(directory.join("db")).map_err(start)?;
        let shared = Arc::new(Shared::default());
        let theirs = shared.clone();
        let writer = std::thread::Builder::new()
            .name("retained-store".into())
            .spawn(move || {
                write_behind(&db, &file, &theirs);
                drop(db);
                wait_until_free(&file);
            })
            .map_err(start)?;
        Ok((Self { shared, writer: Some(writer) }, messages))
    }

    /// Has a topic's message replaced, or removed.
    pub(crate) fn set(&self, topic: &str, message: Option<&Message>) {
        let change = message.map(|message| message.bytes().clone());
        let mut pending = self.shared.pending.lock().expect("no holder panics");
        pending.changes.insert(topic.to_owned(), change);
        drop(pending);
        self.shared.wake.notify_one();
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.shared.pending.lock().expect("no holder panics").stop = true;
        self.shared.wake.notify_one();
        if let Some(writer) = self.writer.take()
            && writer.join().is_err()
        {
            error!("the writer of retained messages panicked; the newest may be missing after the restart");
        }
    }
}

enum Damage {
    Refused(sled::Error),
    Panicked,
}

fn load(directory: &Path) -> Result<(sled::Db, Vec<Message>), Damage> {
    catch_unwind(AssertUnwindSafe(|| {
        let config = sled::Config::new().path(directory).mode(sled::Mode::HighThroughput);
        // Only our own flushes, which sync. Nothing is read again after this, so 1 GiB of cache would be wasted.
        let db = config.flush_every_ms(None).cache_capacity(CACHE_SIZE).open()?;
        let mut messages = Vec::new();
        for entry in db.iter() {
            let (key, value) = entry?;
            match Message::from_bytes(Bytes::copy_from_slice(&value)) {
                Some(message) => messages.push(message),
                None => warn!(topic = %String::from_utf8_lossy(&key), "an unreadable retained message is left out"),
            }
        }
        Ok((db, messages))
    }))
    .map_err(|_| Damage::Panicked)?
    .map_err(|source| match source {
        sled::Error::Corruption { .. } => Damage::Panicked,
        other => Damage::Refused(other),
    })
}

fn set_aside(directory: &Path) -> Result<(), StoreError> {
    let now_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    let aside = directory.with_extension(format!("damaged-{now_ms}"));
    error!(path = %directory.display(), aside = %aside.display(), "the retained messages are damaged; starting without");
    std::fs::rename(directory, &aside)
        .map_err(|source| StoreError::SetAside { path: directory.to_owned(), source })
}

fn write_behind(db: &sled::Db, file: &File, shared: &Shared) {
    loop {
        let guard = shared.pending.lock().expect("no holder panics");
        let mut guard = shared
            .wake
            .wait_while(guard, |pending| pending.changes.is_empty() && !pending.stop)
            .expect("no holder panics");
        if !guard.stop {
            let gathered = shared.wake.wait_timeout_while(guard, WRITE_EVERY, |pending| !pending.stop);
            guard = gathered.expect("no holder panics").0;
        }
        let changes = std::mem::take(&mut guard.changes);
        let stop = guard.stop;
        drop(guard);
        if let Err(error) = write(db, file, &changes) {
            error!(%error, count = changes.len(), "retained messages cannot be written and are in memory only; make room and start the broker again");
        }
        if stop {
            return;
        }
    }
}

/// sled's own threads hold the directory's lock a moment longer than its handle: whoever opens it after us would be
/// refused (one in a hundred reopenings on a busy machine).
fn wait_until_free(file: &File) {
    let since = Instant::now();
    while matches!(file.try_lock(), Err(std::fs::TryLockError::WouldBlock)) {
        if since.elapsed() > FREE_WITHIN {
            return warn!("the retained messages are not given free; another broker cannot start there yet");
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn write(db: &sled::Db, file: &File, changes: &HashMap<String, Option<Bytes>>) -> Result<(), sled::Error> {
    let mut batch = sled::Batch::default();
    for (topic, change) in changes {
        match change {
            Some(bytes) => batch.insert(topic.as_bytes(), &bytes[..]),
            None => batch.remove(topic.as_bytes()),
        }
    }
    db.apply_batch(batch)?;
    db.flush()?;
    Ok(file.sync_data()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{Draft, Parts};

    #[test]
    fn a_closed_store_can_be_opened_again_at_once() {
        let directory = tempfile::tempdir().unwrap();
        for round in 0..60 {
            let (store, messages) = Store::open(directory.path()).unwrap();
            assert_eq!(messages.len(), round * 20);
            for n in 0..20 {
                let topic = format!("a/{round}/{n}");
                let parts = Parts {
                    sender: 0,
                    qos: 1,
                    retain: true,
                    topic: &topic,
                    properties: &[],
                    payload: &[7; 5_000],
                    expires_ms: 0,
                };
                store.set(&topic, Some(&Draft::new(&parts).stamp(1)));
            }
        }
    }
}
