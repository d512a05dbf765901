//! One read of an image for any number of cards: each chunk is read, unpacked and digested once, and kept in a
//! window of [`WINDOW_BYTES`] while other cards come for it. Cards take chunks at their own pace; nobody waits for
//! a slow one. The command line makes one for all cards of a run.
//!
//! ```text
//!   file ────────────┐  asked by any card, compared with the index        card 1 ◄─┐
//!                    ├──────────────► window ───────────────────────────► card 2 ◄─┤ copies
//!   stream, forward ─┘                   │ leaves it                      card 3 ◄─┘
//!                                        ▼
//!      file: forgotten, a straggler reads again itself
//!      stream: spilled to an unlinked file while some card has not come for it yet
//! ```
//!
//! The fastest card drives a stream; nothing is read that nobody asked for. A straggler of a stream gets a spill
//! and not a decoder of its own: an xz decoder takes a whole core for 43 MB/s, so a second one halves the others'
//! pace, while the spill costs a page-cache write and read. Measured with a gzip of 410 MiB (2026-11-25, busy 2-core
//! VM): three cards of 90 MiB/s were verified after 10 s, one of 20 MiB/s beside them after 25 s, its own pace;
//! 307 MB were spilled. A single card spills nothing. A spill's disk that is slower than the fastest card slows
//! that one: then `TMPDIR` should name another. Chunk 0, which every card takes last, is kept. The last or only card of
//! a file reads it into its own buffer, and nothing is kept.

use std::collections::{BTreeSet, VecDeque};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cardshop_protocol::index::Index;
use nix::fcntl::{FallocateFlags, fallocate};

use crate::source::{ChunkSource, SourceError};
use crate::stop::StopFlag;
use crate::stream::{ChunkStream, ImageStream};

/// Bytes of chunks kept for the other cards: cards of one kind are less than this apart, their buffers being 1.5 MiB.
pub const WINDOW_BYTES: usize = 4 << 20;
/// How often a card that waits for a chunk asks its stop flag. **Source:** the contract of [`ChunkSource`].
const ASK_STOP_EVERY: Duration = Duration::from_millis(200);

/// Makes a file that nobody else can see, for chunks that stragglers still need.
pub type MakeSpill = Box<dyn Fn() -> io::Result<File> + Send + Sync>;

/// An image that several cards are written from.
pub struct SharedSource {
    index: Arc<Index>,
    origin: Origin,
    /// Most bytes of the window.
    window_size: usize,
    state: Mutex<State>,
    changed: Condvar,
}

enum Origin {
    /// Any chunk at any time.
    Random(Arc<dyn ChunkSource>),
    /// Chunks in ascending order, each once.
    Forward(Mutex<ChunkStream>, MakeSpill),
}

type Bytes = Arc<Vec<u8>>;

#[derive(Default)]
struct State {
    window: VecDeque<(usize, Bytes)>,
    window_bytes: usize,
    /// A chunk that left the window, to be filled again: fresh memory costs more than the copy into it.
    spare: Option<Vec<u8>>,
    first: Option<Bytes>,
    /// Chunks being read now.
    reading: BTreeSet<usize>,
    /// A stream's first chunk that was not read yet.
    next: usize,
    /// For each card the chunk it asked for last, and may be waiting for; below all it will ask for, but chunk 0.
    /// Nothing once it has left.
    cards: Vec<Option<usize>>,
    spill: Option<Arc<File>>,
    spilled: BTreeSet<usize>,
    /// Most bytes the spill has held.
    spill_peak_bytes: u64,
    /// Why a stream gives nothing more, or why chunks could not be spilled.
    broken: Option<String>,
    unspilled: Option<String>,
}

impl SharedSource {
    /// Shares a source that gives any chunk at any time.
    pub fn of_chunks(index: Arc<Index>, source: Arc<dyn ChunkSource>) -> Arc<Self> {
        Self::new(index, Origin::Random(source), WINDOW_BYTES)
    }

    /// Shares a stream of the image; `spill` is asked when a card first falls behind.
    pub fn of_stream(index: Arc<Index>, stream: Box<dyn ImageStream>, spill: MakeSpill) -> Arc<Self> {
        Self::new(index, Origin::Forward(Mutex::new(ChunkStream::new(stream)), spill), WINDOW_BYTES)
    }

    fn new(index: Arc<Index>, origin: Origin, window_size: usize) -> Arc<Self> {
        let next = next_travelling(&index, 0);
        let state = Mutex::new(State { next, ..State::default() });
        Arc::new(Self { index, origin, window_size, state, changed: Condvar::new() })
    }

    /// The source of one card. All cards are to have theirs before the first is written: what a stream has left
    /// behind is gone.
    pub fn card(self: &Arc<Self>) -> CardSource {
        let mut state = self.state();
        state.cards.push(Some(0));
        CardSource { shared: self.clone(), card: state.cards.len() - 1 }
    }

    /// Most bytes that were spilled for stragglers at one time.
    pub fn spill_peak_bytes(&self) -> u64 {
        self.state().spill_peak_bytes
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn length(&self, chunk: usize) -> usize {
        let range = self.index.chunk_range(chunk);
        (range.end - range.start) as usize
    }

    fn read_chunk(
        &self,
        card: usize,
        chunk: usize,
        buffer: &mut [u8],
        stop: &StopFlag,
    ) -> Result<(), SourceError> {
        let mut state = self.state();
        if let Origin::Random(source) = &self.origin
            && state.cards.iter().flatten().count() == 1
        {
            // Nobody else comes for it.
            drop(state);
            return self.read_random(&**source, chunk, buffer, stop);
        }
        if chunk > 0 {
            state.cards[card] = state.cards[card].max(Some(chunk));
            self.trim_spill(&mut state);
        }
        loop {
            if stop.is_stopped() {
                return Err(SourceError::Stopped { chunk });
            }
            if let Some(bytes) = state.find(chunk) {
                drop(state);
                buffer.copy_from_slice(&bytes);
                return Ok(());
            }
            if state.spilled.contains(&chunk) {
                let file = state.spill.clone();
                drop(state);
                return self.read_spilled(file, chunk, buffer);
            }
            let wanted = self.wanted(&state, chunk)?;
            // A stream's next chunk is the only one anybody reads of it.
            if state.reading.insert(wanted) {
                let bytes = state.spare.take().unwrap_or_default();
                drop(state);
                let result = self.read_original(wanted, bytes, stop);
                state = self.state();
                state.reading.remove(&wanted);
                self.changed.notify_all();
                let bytes = result.inspect_err(|error| self.note_failure(&mut state, error))?;
                self.keep(&mut state, wanted, bytes.clone());
                if wanted == chunk {
                    drop(state);
                    buffer.copy_from_slice(&bytes);
                    return Ok(());
                }
                continue;
            }
            state =
                self.changed.wait_timeout(state, ASK_STOP_EVERY).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// What is to be read next for a card that asks for `chunk`.
    fn wanted(&self, state: &State, chunk: usize) -> Result<usize, SourceError> {
        if matches!(self.origin, Origin::Random(_)) {
            return Ok(chunk);
        }
        let unavailable = |reason: &str| SourceError::Unavailable { chunk, reason: reason.to_owned() };
        match (&state.broken, &state.unspilled) {
            (Some(reason), _) if chunk >= state.next => Err(unavailable(reason)),
            (_, Some(reason)) if chunk < state.next => Err(unavailable(reason)),
            _ if chunk < state.next => Err(unavailable("the stream has gone past it")),
            _ => Ok(state.next),
        }
    }

    /// Reads a chunk from where it comes from into `bytes`, and compares it with the index.
    fn read_original(&self, chunk: usize, mut bytes: Vec<u8>, stop: &StopFlag) -> Result<Bytes, SourceError> {
        bytes.resize(self.length(chunk), 0);
        match &self.origin {
            Origin::Random(source) => self.read_random(&**source, chunk, &mut bytes, stop)?,
            // Not to be stopped within a chunk: the next card goes on behind it.
            Origin::Forward(stream, _) => stream.lock().unwrap_or_else(PoisonError::into_inner).read_chunk(
                &self.index,
                chunk,
                &mut bytes,
            )?,
        }
        Ok(Arc::new(bytes))
    }

    fn read_random(
        &self,
        source: &dyn ChunkSource,
        chunk: usize,
        bytes: &mut [u8],
        stop: &StopFlag,
    ) -> Result<(), SourceError> {
        source.read_chunk(chunk, bytes, stop)?;
        if !source.gives_checked_chunks() && !self.index.chunk_matches(chunk, bytes) {
            let offset = self.index.chunk_range(chunk).start;
            return Err(SourceError::Corrupt { chunk, offset });
        }
        Ok(())
    }

    /// A stream that failed once gives nothing more to anybody.
    fn note_failure(&self, state: &mut State, error: &SourceError) {
        if matches!(self.origin, Origin::Forward(..)) {
            state.broken.get_or_insert_with(|| error.to_string());
        }
    }

    /// Puts a chunk into the window; what has to leave is spilled where somebody still needs it.
    fn keep(&self, state: &mut State, chunk: usize, bytes: Bytes) {
        if chunk == 0 {
            state.first = Some(bytes);
        } else {
            state.window_bytes += bytes.len();
            state.window.push_back((chunk, bytes));
        }
        if let Origin::Forward(_, make_spill) = &self.origin {
            state.next = next_travelling(&self.index, chunk + 1);
            while state.window_bytes > self.window_size
                && let Some((oldest, bytes)) = state.leave()
            {
                if state.cards.iter().flatten().any(|asked| *asked <= oldest)
                    && let Err(error) = self.spill(state, oldest, &bytes, make_spill)
                {
                    tracing::warn!(%error, chunk = oldest, "a chunk cannot be spilled: slow cards will fail");
                    state.unspilled = Some(format!("there was no room to keep it for a slow card: {error}"));
                }
                state.spare = Arc::into_inner(bytes);
            }
        } else {
            while state.window_bytes > self.window_size
                && let Some((_, bytes)) = state.leave()
            {
                state.spare = Arc::into_inner(bytes);
            }
        }
    }

    fn spill(&self, state: &mut State, chunk: usize, bytes: &[u8], make: &MakeSpill) -> io::Result<()> {
        let file = match &state.spill {
            Some(file) => file.clone(),
            None => state.spill.insert(Arc::new(make()?)).clone(),
        };
        file.write_all_at(bytes, self.index.chunk_range(chunk).start)?;
        state.spilled.insert(chunk);
        let held = state.spilled.len() as u64 * u64::from(self.index.chunk_size());
        state.spill_peak_bytes = state.spill_peak_bytes.max(held);
        Ok(())
    }

    fn read_spilled(
        &self,
        file: Option<Arc<File>>,
        chunk: usize,
        buffer: &mut [u8],
    ) -> Result<(), SourceError> {
        let offset = self.index.chunk_range(chunk).start;
        file.expect("what is spilled is in the file").read_exact_at(buffer, offset)?;
        if self.index.chunk_matches(chunk, buffer) {
            Ok(())
        } else {
            Err(SourceError::Corrupt { chunk, offset })
        }
    }

    /// Gives back what no card needs any more.
    fn trim_spill(&self, state: &mut State) {
        let needed_from = state.cards.iter().flatten().min().copied().unwrap_or(usize::MAX);
        while let Some(chunk) = state.spilled.first().copied().filter(|chunk| *chunk < needed_from) {
            state.spilled.pop_first();
            let Some(file) = &state.spill else { return };
            let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
            let (offset, length) = (self.index.chunk_range(chunk).start, self.length(chunk));
            // A file system without holes keeps the room until the end.
            let _ = fallocate(&**file, flags, offset as i64, length as i64);
        }
    }
}

impl State {
    fn find(&self, chunk: usize) -> Option<Bytes> {
        if chunk == 0 {
            return self.first.clone();
        }
        self.window.iter().rev().find(|(number, _)| *number == chunk).map(|(_, bytes)| bytes.clone())
    }

    fn leave(&mut self) -> Option<(usize, Bytes)> {
        let (chunk, bytes) = self.window.pop_front()?;
        self.window_bytes -= bytes.len();
        Some((chunk, bytes))
    }
}

/// The first chunk from `from` on that has bytes to be had.
fn next_travelling(index: &Index, from: usize) -> usize {
    (from..index.chunks().len())
        .find(|chunk| index.chunks()[*chunk].travels())
        .unwrap_or(index.chunks().len())
}

/// A shared source as one card sees it; when it is dropped nothing is kept for that card any more.
pub struct CardSource {
    shared: Arc<SharedSource>,
    card: usize,
}

impl ChunkSource for CardSource {
    fn read_chunk(&self, chunk: usize, buffer: &mut [u8], stop: &StopFlag) -> Result<(), SourceError> {
        self.shared.read_chunk(self.card, chunk, buffer, stop)
    }
    fn gives_checked_chunks(&self) -> bool {
        true
    }
}

impl Drop for CardSource {
    fn drop(&mut self) {
        let mut state = self.shared.state();
        state.cards[self.card] = None;
        self.shared.trim_spill(&mut state);
    }
}

#[cfg(test)]
mod tests;
