//! One image in the cache, filling: fetch threads put chunks, writers wait for them and read. Every chunk is
//! checked when it arrives and again when it is read, so what lies on the disk need not be trusted.
//!
//! What is here is on record twice, for two ways to end:
//!
//! ```text
//!   {id}.have    one bit a chunk, replaced whole every few seconds, after the chunks it lists were synced:
//!                true after a power cut
//!   {id}.fresh   this boot's id and the chunks put since, appended as they are put and not synced: true after
//!                the process was killed, because the kernel still has their bytes; ignored after a reboot
//! ```

use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::sync::{Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use cardshop_card::{ChunkSource, SourceError, StopFlag};
use cardshop_protocol::index::Index;

use super::cache::Cache;
use super::fresh::Fresh;
use super::state::replace_file;
use crate::core::ranges::{Ranges, Verdict, run_size, travels};
use crate::core::sources::SourceId;

/// How often a waiting writer asks its stop flag. **Source:** the contract of [`ChunkSource`].
pub(crate) const ASK_STOP_EVERY: Duration = Duration::from_millis(200);

/// A chunk that the cache does not give back as it was put is fetched again this often while a writer waits.
const MAX_LOSSES: u32 = 3;

/// How a store stands towards its users.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Standing {
    Open,
    /// Nobody needs it any more.
    Closed,
    /// The image cannot be had.
    Refused(String),
}

#[derive(Debug)]
struct State {
    ranges: Ranges,
    standing: Standing,
    /// The bitmap on the disk is older than the chunks.
    unsaved: bool,
    fresh: Fresh,
}

/// Chunks to fetch in one request.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) chunks: Range<usize>,
    /// Who gave the first of them wrong, once for each time.
    pub(crate) wrong: Vec<SourceId>,
}

/// One image.
#[derive(Debug)]
pub(crate) struct ImageStore {
    index: Index,
    file: File,
    cache: Cache,
    state: Mutex<State>,
    changed: Condvar,
}

impl ImageStore {
    /// Opens an image's files, making them when they are missing; goes on where an earlier fetch stopped.
    ///
    /// # Errors
    /// What the file system says.
    pub(crate) fn open(cache: &Cache, index: Index) -> io::Result<Self> {
        let image = index.id();
        let path = cache.path(image, "img");
        // What a shop puts on cards is not for every user of the machine.
        let file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
        // A file of another length was not made by a fetch of this image.
        let known = file.metadata()?.len() == index.image_size();
        let have =
            if known { std::fs::read(cache.path(image, "have")).unwrap_or_default() } else { Vec::new() };
        file.set_len(index.image_size())?;
        let mut ranges = Ranges::new(&index, &have);
        let fresh_path = cache.path(image, "fresh");
        let put_since = if known { Fresh::read(&fresh_path) } else { Vec::new() };
        put_since.iter().filter(|c| travels(&index, **c)).for_each(|chunk| ranges.arrived(*chunk));
        let unsaved = !put_since.is_empty();
        let fresh = Fresh::new(fresh_path, put_since);
        let state = State { ranges, standing: Standing::Open, unsaved, fresh };
        Ok(Self { index, file, cache: cache.clone(), state: Mutex::new(state), changed: Condvar::new() })
    }

    /// The image's index.
    pub(crate) fn index(&self) -> &Index {
        &self.index
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no holder panics")
    }

    /// The next run of chunks for one of `connections` that had `rate_bps`; waits while there is none. `None`
    /// when the store is closed or refused.
    pub(crate) fn take(&self, rate_bps: Option<u64>, connections: u64) -> Option<Run> {
        let mut state = self.lock();
        loop {
            if state.standing != Standing::Open {
                return None;
            }
            let most_bytes = run_size(rate_bps, state.ranges.missing_bytes(), connections);
            if let Some(chunks) = state.ranges.take(most_bytes) {
                let wrong = state.ranges.wrong_from(chunks.start).to_vec();
                return Some(Run { chunks, wrong });
            }
            state = self.changed.wait(state).expect("no holder panics");
        }
    }

    /// Takes this chunk if nobody has it or is fetching it.
    pub(crate) fn claim(&self, chunk: usize) -> bool {
        self.lock().ranges.claim(chunk)
    }

    /// Puts a chunk that has just arrived; false when it does not match.
    ///
    /// # Errors
    /// What the file system says.
    pub(crate) fn put(&self, chunk: usize, bytes: &[u8]) -> io::Result<bool> {
        if !self.index.chunk_matches(chunk, bytes) {
            return Ok(false);
        }
        self.file.write_all_at(bytes, self.index.chunk_range(chunk).start)?;
        let mut state = self.lock();
        state.ranges.arrived(chunk);
        state.fresh.add(chunk);
        state.unsaved = true;
        self.changed.notify_all();
        Ok(true)
    }

    /// A warehouse gave a chunk that does not match.
    pub(crate) fn was_wrong(&self, chunk: usize, from: SourceId) -> Verdict {
        let verdict = self.lock().ranges.was_wrong(chunk, from);
        self.changed.notify_all();
        verdict
    }

    /// A request has ended; what did not arrive is to be fetched again.
    pub(crate) fn give_back(&self, run: Range<usize>) {
        self.lock().ranges.give_back(run);
        self.changed.notify_all();
    }

    /// Bytes here, and bytes that travel.
    pub(crate) fn bytes(&self) -> (u64, u64) {
        self.lock().ranges.bytes()
    }

    /// True while it is neither closed nor refused.
    pub(crate) fn is_open(&self) -> bool {
        self.lock().standing == Standing::Open
    }

    /// Nobody needs it any more: everyone who waits is let go.
    pub(crate) fn close(&self) {
        let mut state = self.lock();
        if state.standing == Standing::Open {
            state.standing = Standing::Closed;
        }
        self.changed.notify_all();
    }

    /// The image cannot be had. True for the first to say so.
    pub(crate) fn refuse(&self, reason: &str) -> bool {
        let mut state = self.lock();
        let first = state.standing == Standing::Open;
        if first {
            state.standing = Standing::Refused(reason.to_owned());
        }
        self.changed.notify_all();
        first
    }

    /// Waits until it is closed or refused, at most for `timeout`.
    pub(crate) fn wait_for_end(&self, timeout: Duration) {
        let until = Instant::now() + timeout;
        let mut state = self.lock();
        while state.standing == Standing::Open {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            state = self.changed.wait_timeout(state, left).expect("no holder panics").0;
        }
    }

    /// Waits at most `timeout` until a chunk is here; true when it is.
    pub(crate) fn wait_for(&self, chunk: usize, timeout: Duration) -> bool {
        let until = Instant::now() + timeout;
        let mut state = self.lock();
        while state.standing == Standing::Open && !state.ranges.is_here(chunk) {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            state = self.changed.wait_timeout(state, left).expect("no holder panics").0;
        }
        state.ranges.is_here(chunk)
    }

    /// Writes down which chunks are here, after making sure that they are.
    ///
    /// # Errors
    /// What the file system says; what is on record stays true.
    pub(crate) fn save(&self) -> io::Result<()> {
        let mut state = self.lock();
        if !state.unsaved {
            return Ok(());
        }
        state.unsaved = false;
        let (bitmap, listed) = (state.ranges.bitmap(), state.fresh.len());
        drop(state);
        let saved = self.file.sync_data();
        let saved = saved.and_then(|()| replace_file(&self.cache.path(self.index.id(), "have"), &bitmap));
        let mut state = self.lock();
        match saved {
            Ok(()) => state.fresh.forget(listed),
            Err(_) => state.unsaved = true,
        }
        saved
    }

    /// One bit for each chunk that is here.
    pub(crate) fn bitmap(&self) -> Vec<u8> {
        self.lock().ranges.bitmap()
    }

    /// True when every chunk is here.
    pub(crate) fn is_complete(&self) -> bool {
        self.lock().ranges.is_complete()
    }

    /// Waits until a chunk is here; an error when it will never be.
    fn wait_here(&self, chunk: usize, stop: &StopFlag) -> Result<(), SourceError> {
        loop {
            if stop.is_stopped() {
                return Err(SourceError::Stopped { chunk });
            }
            if self.wait_for(chunk, ASK_STOP_EVERY) {
                return Ok(());
            }
            match &self.lock().standing {
                Standing::Open => {}
                Standing::Closed => return Err(SourceError::Stopped { chunk }),
                Standing::Refused(reason) => {
                    return Err(SourceError::Unavailable { chunk, reason: reason.clone() });
                }
            }
        }
    }
}

impl ChunkSource for ImageStore {
    fn read_chunk(&self, chunk: usize, buffer: &mut [u8], stop: &StopFlag) -> Result<(), SourceError> {
        if !travels(&self.index, chunk) {
            buffer.fill(0);
            return Ok(());
        }
        for _ in 0..=MAX_LOSSES {
            self.wait_here(chunk, stop)?;
            let read = self.file.read_exact_at(buffer, self.index.chunk_range(chunk).start);
            if read.is_ok() && self.index.chunk_matches(chunk, buffer) {
                return Ok(());
            }
            tracing::warn!(chunk, error = ?read.err(), "the cache lost a chunk: it is fetched again");
            let mut state = self.lock();
            state.ranges.lost(chunk);
            state.fresh.remove(chunk);
            state.unsaved = true;
            drop(state);
            self.changed.notify_all();
        }
        Err(SourceError::Unavailable {
            chunk,
            reason: "the cache's disk does not keep what is put there".into(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::CacheConfig;
    use cardshop_protocol::index::{Extent, ExtentKind, ImageMap, IndexBuilder, MIN_CHUNK_SIZE};

    #[test]
    fn a_disk_that_keeps_nothing_ends_the_read_and_not_never() {
        let size = u64::from(MIN_CHUNK_SIZE);
        let extents = vec![Extent { offset: 0, length: size, kind: ExtentKind::Data }];
        let map = ImageMap { image_size: size, extents, passport: vec![] };
        let mut builder = IndexBuilder::new(map, MIN_CHUNK_SIZE).unwrap();
        let bytes = vec![7; size as usize];
        builder.data(&bytes).unwrap();
        let index = builder.finish().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let mut store =
            ImageStore::open(&Cache::open(folder.path(), CacheConfig::default()).unwrap(), index).unwrap();
        store.file = OpenOptions::new().read(true).write(true).open("/dev/null").unwrap();
        std::thread::scope(|scope| {
            let fetcher = scope.spawn(|| {
                let mut puts = 0;
                while store.take(None, 1).is_some() {
                    assert!(store.put(0, &bytes).unwrap());
                    puts += 1;
                }
                puts
            });
            let result = store.read_chunk(0, &mut vec![0; size as usize], &StopFlag::new());
            assert!(matches!(result, Err(SourceError::Unavailable { chunk: 0, .. })), "{result:?}");
            store.close();
            assert!(fetcher.join().unwrap() >= MAX_LOSSES);
        });
    }
}
