//! The uploads that are open or were done lately: creating, finding, taking turns, forgetting.
//!
//! One request at a time has an upload's turn. The newest wins: a client that lost its connection asks again
//! while the warehouse still waits on the dead one, so a request that wants the turn makes the one that has it
//! stop, keep what it got, and let go. Called by `http::tus`.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cardshop_protocol::ids::{Channel, TaskId};
use cardshop_protocol::time::Timestamp;
use tokio::sync::{OwnedMutexGuard, watch};

use super::error::StoreError;
use super::part::{Part, State};
use super::{Store, sweep};
use crate::core::metadata::{Kind, Metadata};

/// How long a request waits for the turn of an upload; the one before needs it to sync what it got.
const TURN_WAIT: Duration = Duration::from_secs(10);

/// Names an upload: 128 random bits, not to be guessed. Always parsed before it meets a path.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct UploadId([u8; 16]);

impl UploadId {
    fn random() -> Result<Self, StoreError> {
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).map_err(|_| StoreError::NoRandomness)?;
        Ok(Self(bytes))
    }
}
impl fmt::Display for UploadId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}
impl FromStr for UploadId {
    type Err = ();
    fn from_str(text: &str) -> Result<Self, ()> {
        if text.len() != 32 || !text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(());
        }
        u128::from_str_radix(text, 16).map(|n| Self(n.to_be_bytes())).map_err(|_| ())
    }
}

/// An upload that somebody may continue, or whose end somebody may ask about.
pub(crate) struct Upload {
    pub(crate) id: UploadId,
    pub(crate) task: TaskId,
    pub(crate) kind: Kind,
    turn: Arc<tokio::sync::Mutex<Part>>,
    wanted: watch::Sender<()>,
    /// All bytes are here and it is not done: whoever has its turn lets go soon.
    complete: AtomicBool,
    done: AtomicBool,
}

/// The turn: the open upload, and word of the next request that wants it.
pub(crate) struct Turn {
    pub(crate) part: OwnedMutexGuard<Part>,
    pub(crate) next: watch::Receiver<()>,
}

impl Upload {
    pub(super) fn new(id: UploadId, part: Part) -> Self {
        Self {
            id,
            task: part.state.metadata.task,
            kind: part.state.metadata.kind,
            complete: AtomicBool::new(false),
            done: AtomicBool::new(false),
            turn: Arc::new(tokio::sync::Mutex::new(part)),
            wanted: watch::Sender::new(()),
        }
    }

    /// Waits for the turn, making the request that has it stop. `None` when that takes too long.
    pub(crate) async fn take_turn(&self) -> Option<Turn> {
        self.wanted.send_replace(());
        let next = self.wanted.subscribe();
        let part = tokio::time::timeout(TURN_WAIT, self.turn.clone().lock_owned()).await.ok()?;
        Some(Turn { part, next })
    }

    /// The turn of a complete upload, for the store itself, on a blocking thread.
    pub(super) fn turn_now(&self) -> OwnedMutexGuard<Part> {
        self.turn.clone().blocking_lock_owned()
    }

    /// Tells everybody without the turn how far it is. Called before the turn is given back.
    pub(crate) fn note(&self, part: &Part) {
        self.complete.store(part.is_complete() && !part.state.done, Ordering::SeqCst);
        self.done.store(part.state.done, Ordering::SeqCst);
    }

    pub(super) fn is_complete(&self) -> bool {
        self.complete.load(Ordering::SeqCst)
    }

    pub(crate) fn is_done(&self) -> bool {
        self.done.load(Ordering::SeqCst)
    }
}

/// All uploads, by id.
#[derive(Default)]
pub(super) struct Uploads(Mutex<HashMap<UploadId, Arc<Upload>>>);

impl Uploads {
    fn all(&self) -> std::sync::MutexGuard<'_, HashMap<UploadId, Arc<Upload>>> {
        self.0.lock().expect("no holder panics")
    }
    pub(super) fn insert(&self, upload: Upload) -> Arc<Upload> {
        let upload = Arc::new(upload);
        self.all().insert(upload.id, upload.clone());
        upload
    }
    pub(super) fn list(&self) -> Vec<Arc<Upload>> {
        self.all().values().cloned().collect()
    }
    pub(super) fn forget(&self, id: UploadId) {
        self.all().remove(&id);
    }
}

impl Store {
    /// Begins an upload.
    ///
    /// # Errors
    /// `TooManyUploads`, `Full`, `Io`.
    pub(crate) fn create_upload(
        &self,
        metadata: Metadata,
        header: String,
        channels: Vec<Channel>,
        length: Option<u64>,
        now: Timestamp,
    ) -> Result<Arc<Upload>, StoreError> {
        let (open, limit) = (self.open_uploads(), self.limits.max_open_uploads);
        if open >= limit {
            return Err(StoreError::TooManyUploads { open, limit });
        }
        let (free, margin) = (self.free_bytes()?, self.limits.space_margin);
        if free < margin {
            return Err(StoreError::Full { free, margin });
        }
        let id = UploadId::random()?;
        let expires = now + self.limits.upload_life;
        let state =
            State { metadata, header, channels, length, offset: 0, checked: None, done: false, expires };
        let part = Part::create(state, self.part_path(id), self.state_path(id))?;
        Ok(self.uploads.insert(Upload::new(id, part)))
    }

    /// The upload with this id.
    pub(crate) fn upload(&self, id: UploadId) -> Option<Arc<Upload>> {
        self.uploads.all().get(&id).cloned()
    }

    /// How many uploads are not done.
    pub(crate) fn open_uploads(&self) -> usize {
        self.uploads.all().values().filter(|u| !u.is_done()).count()
    }

    /// Ends an upload whose turn the caller has.
    pub(crate) fn remove_upload(&self, upload: &Upload, part: &mut Part) -> Result<(), StoreError> {
        part.remove()?;
        upload.note(part);
        self.uploads.forget(upload.id);
        Ok(())
    }

    /// Forgets uploads that nobody continued in time, and indexes whose image never came.
    pub(crate) fn expire(&self, now: Timestamp) {
        for upload in self.uploads.list() {
            // Somebody works on it: it is not forgotten.
            let Ok(mut part) = upload.turn.clone().try_lock_owned() else { continue };
            if part.state.expires <= now {
                tracing::info!(upload = %upload.id, task = %upload.task, "an upload is forgotten");
                if let Err(error) = self.remove_upload(&upload, &mut part) {
                    tracing::warn!(upload = %upload.id, %error, "cannot remove an expired upload");
                }
            }
        }
        sweep::expire_pending(&self.pending_folder(), now, self.limits.upload_life);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upload_id_has_one_spelling_and_is_never_a_path() {
        let id = UploadId::random().unwrap();
        assert!(id.to_string().parse() == Ok(id));
        assert!(id != UploadId::random().unwrap());
        for text in
            ["", "../../../../../../../../etc/passwd", &"A".repeat(32), &"+".repeat(32), &"a".repeat(33)]
        {
            assert!(text.parse::<UploadId>().is_err(), "{text:?}");
        }
    }
}
