//! An image that goes to the warehouse while it is still being built: its tables are written first, its large files in the
//! order of the image, so that everything before the first file that is not whole is final.
//!
//! This is an attempt beside the build, never more: the image travels plain, before its index. When the build has ended
//! and less is left of it than a packed upload has, it is waited for, and the index alone is missing then. Otherwise, and
//! whatever goes wrong, the image goes the usual way ([`crate::Uploader`]).

use std::fs::File;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crate::StopFlag;

/// How much of an image is final. Shared by the build, which says it, and the upload, which waits for it.
#[derive(Debug, Default)]
pub struct Growing {
    state: Mutex<State>,
    changed: Condvar,
    /// Ends the upload.
    pub(crate) stop: StopFlag,
}

#[derive(Debug, Default)]
struct State {
    file: Option<Arc<File>>,
    size: u64,
    /// Bytes from the image's start that are final.
    upto: u64,
    /// Bytes that the warehouse has.
    sent: u64,
}

impl Growing {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The first `upto` bytes of the image will not change any more.
    ///
    /// # Errors
    /// When the file cannot be held open for the upload.
    pub fn written(&self, image: &File, upto: u64) -> io::Result<()> {
        let mut state = self.lock();
        if state.file.is_none() {
            (state.file, state.size) = (Some(Arc::new(image.try_clone()?)), image.metadata()?.len());
        }
        state.upto = state.upto.max(upto);
        self.changed.notify_all();
        Ok(())
    }

    /// Ends the upload wherever it is.
    pub fn abandon(&self) {
        self.stop.stop();
        // Who looks at the flag next holds the lock then.
        drop(self.lock());
        self.changed.notify_all();
    }

    /// Bytes that the warehouse has.
    pub fn sent(&self) -> u64 {
        self.lock().sent
    }

    pub(crate) fn note_sent(&self, bytes: u64) {
        self.lock().sent = bytes;
    }

    /// The image and its size, once its first `bytes` are final; `None` when the upload is to end.
    pub(crate) fn wait_for(&self, bytes: u64) -> Option<(Arc<File>, u64)> {
        let waits =
            |state: &mut State| !self.stop.is_stopped() && (state.file.is_none() || state.upto < bytes);
        let state = self.changed.wait_while(self.lock(), waits).unwrap_or_else(PoisonError::into_inner);
        let file = state.file.clone().filter(|_| !self.stop.is_stopped())?;
        Some((file, state.size))
    }
}

/// Ends the upload when the build does, also by a panic: else it would wait for ever.
pub(crate) struct AbandonOnDrop<'a>(pub(crate) &'a Growing);

impl Drop for AbandonOnDrop<'_> {
    fn drop(&mut self) {
        self.0.abandon();
    }
}
