//! One upload on disk: its bytes so far and what is known of them.
//!
//! ```text
//! uploads/{id}.part   the bytes, where they belong on the image; zero chunks are holes
//! uploads/{id}.json   State: length, offset, …; replaced in full, after the bytes are synced
//! ```
//!
//! The offset in the state never names a byte that is not durable. Chunks are digested as they become whole
//! (`intake`); `checked` says against which index. What was taken before the index came is compared by the
//! digests kept in memory, and read again only when a restart lost them or the chunk sizes differ.
//! Called by `receive` in `http` (bytes come), `settle` (it is complete) and `sweep` (the warehouse starts).

use std::collections::HashMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cardshop_protocol::ids::{Channel, Digest, ImageId};
use cardshop_protocol::index::{ExtentKind, Index, default_chunk_size};
use cardshop_protocol::time::Timestamp;
use serde::{Deserialize, Serialize};

use super::disk;
use super::error::{MAX_NAMED_CHUNKS, StoreError};
use crate::core::metadata::{Kind, Metadata};
use crate::core::packed::Layout;

/// What survives a restart.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct State {
    /// What it says of itself.
    pub metadata: Metadata,
    /// `Upload-Metadata` as it came, for HEAD.
    pub header: String,
    /// The channels of the task, from the token that began it.
    pub channels: Vec<Channel>,
    /// Bytes in all; `None` until a deferred length is told.
    pub length: Option<u64>,
    /// Bytes that are here and durable.
    pub offset: u64,
    /// The index that every whole chunk below `offset` agrees with.
    pub checked: Option<ImageId>,
    /// True when it has become an image or an index; only this record is left of it.
    pub done: bool,
    /// Forgotten after this moment.
    pub expires: Timestamp,
}

/// An upload, open for change. Who holds it has the upload's turn.
pub(crate) struct Part {
    pub(crate) state: State,
    pub(super) path: PathBuf,
    state_path: PathBuf,
    file: Option<File>,
    pub(super) index: Option<Arc<Index>>,
    /// Where its bytes belong, when it is packed and its index is known.
    layout: Option<Layout>,
    /// Digests of whole chunks taken without an index, by chunk number.
    pub(super) digests: HashMap<u64, Digest>,
    chunk_size: u32,
    gone: bool,
}

impl Part {
    /// Puts a new, empty upload on disk.
    pub(super) fn create(state: State, path: PathBuf, state_path: PathBuf) -> Result<Self, StoreError> {
        let file = File::options().read(true).write(true).create_new(true).open(&path);
        let file = file.map_err(StoreError::io("create", &path))?;
        let part = Self::new(state, path, state_path, Some(file));
        part.save()?;
        Ok(part)
    }

    /// Opens what a former run left; bytes behind the offset were never promised and are dropped.
    pub(super) fn open(mut state: State, path: PathBuf, state_path: PathBuf) -> Result<Self, StoreError> {
        if state.done {
            return Ok(Self::new(state, path, state_path, None));
        }
        let file = File::options().read(true).write(true).open(&path);
        let file = file.map_err(StoreError::io("open", &path))?;
        let size = file.metadata().map_err(StoreError::io("read", &path))?.len();
        if state.metadata.kind == Kind::Packed {
            // How long the file should be follows from the index, see `bind`.
            return Ok(Self::new(state, path, state_path, Some(file)));
        }
        state.offset = state.offset.min(size);
        let offset = state.offset;
        let mut part = Self::new(state, path, state_path, Some(file));
        part.keep(offset)?;
        Ok(part)
    }

    fn new(state: State, path: PathBuf, state_path: PathBuf, file: Option<File>) -> Self {
        let chunk_size = default_chunk_size(state.length.unwrap_or(0));
        let (index, layout, digests) = (None, None, HashMap::new());
        Self { state, path, state_path, file, index, layout, digests, chunk_size, gone: false }
    }

    /// True when every byte is here.
    pub(crate) fn is_complete(&self) -> bool {
        self.state.length == Some(self.state.offset)
    }

    /// True when it was removed.
    pub(crate) fn is_gone(&self) -> bool {
        self.gone
    }

    /// True when it has an index to be compared with.
    pub(crate) fn is_bound(&self) -> bool {
        self.index.is_some()
    }

    /// Bytes of a chunk: the index's, or a guess until it is there.
    pub(super) fn chunk_size(&self) -> u64 {
        u64::from(self.index.as_ref().map_or(self.chunk_size, |i| i.chunk_size()))
    }

    /// The image's chunk that the byte at `offset` belongs to.
    pub(super) fn chunk_at(&self, offset: u64) -> usize {
        let own = || usize::try_from(offset / self.chunk_size()).unwrap_or(usize::MAX);
        self.layout.as_ref().map_or_else(own, |layout| layout.chunk_at(offset).unwrap_or(usize::MAX))
    }

    /// Bytes that an upload of this index has.
    pub(super) fn length_by_index(&self) -> Option<u64> {
        let layout = self.layout.as_ref().map(Layout::length);
        layout.or_else(|| self.index.as_ref().map(|index| index.image_size()))
    }

    /// Where the byte at `offset` lies in the file.
    fn place(&self, offset: u64) -> u64 {
        self.layout.as_ref().map_or(offset, |layout| layout.place(offset))
    }

    /// How long the file is with `offset` bytes in it.
    fn reach(&self, offset: u64) -> u64 {
        self.layout.as_ref().map_or(offset, |layout| layout.reach(offset))
    }

    #[cfg(test)]
    pub(super) fn swap_file(&mut self, file: File) -> File {
        self.file.replace(file).expect("it is open")
    }

    pub(super) fn file(&self) -> &File {
        self.file.as_ref().expect("only a done upload has no file, and it takes no bytes")
    }

    /// Reads bytes of one chunk.
    pub(super) fn read_at(&self, buffer: &mut [u8], offset: u64) -> Result<(), StoreError> {
        self.file().read_exact_at(buffer, self.place(offset)).map_err(StoreError::io("read", &self.path))
    }

    /// Writes bytes of one chunk.
    pub(super) fn write_at(&self, bytes: &[u8], offset: u64) -> Result<(), StoreError> {
        self.file().write_all_at(bytes, self.place(offset)).map_err(StoreError::io("write", &self.path))
    }

    /// Drops everything from `offset` on.
    pub(super) fn cut(&self, offset: u64) -> Result<(), StoreError> {
        self.file().set_len(self.reach(offset)).map_err(StoreError::io("cut", &self.path))
    }

    /// Drops everything from `offset` on, makes what is below durable, then the state that says so.
    pub(super) fn keep(&mut self, offset: u64) -> Result<(), StoreError> {
        self.cut(offset)?;
        self.file().sync_data().map_err(StoreError::io("sync", &self.path))?;
        self.state.offset = offset;
        self.save()
    }

    /// Takes a length that was deferred; telling the same one again is fine.
    ///
    /// # Errors
    /// `OtherLength` when it contradicts what was told or is here, `SizeMismatch` when it does the index.
    pub(crate) fn tell_length(&mut self, length: u64) -> Result<(), StoreError> {
        let known = self.state.length.unwrap_or(length);
        if known != length || length < self.state.offset {
            return Err(StoreError::OtherLength { told: length, known: known.max(self.state.offset) });
        }
        if let Some(expected) = self.length_by_index().filter(|expected| *expected != length) {
            return Err(StoreError::SizeMismatch { expected, actual: length });
        }
        self.state.length = Some(length);
        Ok(())
    }

    /// Writes the state.
    pub(crate) fn save(&self) -> Result<(), StoreError> {
        let json = serde_json::to_vec(&self.state).expect("the state is plain JSON");
        disk::replace(&self.state_path, &json).map_err(StoreError::io("write", &self.state_path))
    }

    /// Takes an index and compares every whole chunk that is already here.
    ///
    /// # Errors
    /// `SizeMismatch`; `ChunkMismatch`, after which the offset is back at the first bad chunk; `Io`.
    pub(crate) fn bind(&mut self, index: Arc<Index>) -> Result<(), StoreError> {
        if self.state.metadata.kind == Kind::Packed {
            return self.bind_packed(index);
        }
        let (expected, actual) = (index.image_size(), self.state.length.unwrap_or(self.state.offset));
        if actual > expected || self.state.length.is_some_and(|l| l != expected) {
            return Err(StoreError::SizeMismatch { expected, actual });
        }
        let known = std::mem::take(&mut self.digests);
        let same_chunks = self.chunk_size == index.chunk_size();
        let already = self.state.checked == Some(index.id());
        self.index = Some(index.clone());
        let mut bad = Vec::new();
        if !already {
            let mut buffer = Vec::new();
            for (chunk, facts) in index.chunks().iter().enumerate() {
                let range = index.chunk_range(chunk);
                if range.end > self.state.offset || bad.len() == MAX_NAMED_CHUNKS {
                    break;
                }
                if same_chunks && known.get(&(chunk as u64)) == Some(&facts.digest) {
                    continue;
                }
                buffer.resize((range.end - range.start) as usize, 0);
                self.read_at(&mut buffer, range.start)?;
                if !index.chunk_matches(chunk, &buffer) {
                    bad.push(range.start);
                }
            }
        }
        self.state.checked = Some(index.id());
        match bad.first() {
            Some(first) => {
                self.keep(*first)?;
                Err(StoreError::ChunkMismatch { offsets: bad })
            }
            None => self.save(),
        }
    }

    /// Every chunk of a packed upload was compared when it came. With another index than then its bytes lie in
    /// wrong places, and what a damaged disk lost nobody can tell: it begins anew.
    fn bind_packed(&mut self, index: Arc<Index>) -> Result<(), StoreError> {
        let layout = Layout::of(&index);
        let expected = layout.length();
        if let Some(actual) = self.state.length.filter(|length| *length != expected) {
            return Err(StoreError::SizeMismatch { expected, actual });
        }
        let here = self.file().metadata().map_err(StoreError::io("read", &self.path))?.len();
        let same = self.state.checked == Some(index.id()) && here >= layout.reach(self.state.offset);
        self.state.checked = Some(index.id());
        (self.index, self.layout) = (Some(index), Some(layout));
        if same || self.state.offset == 0 { self.save() } else { self.keep(0) }
    }

    /// Reads everything, for an upload that is small by its limit.
    pub(super) fn read_all(&self) -> Result<Vec<u8>, StoreError> {
        let mut bytes = vec![0; usize::try_from(self.state.offset).unwrap_or(usize::MAX)];
        self.read_at(&mut bytes, 0)?;
        Ok(bytes)
    }

    /// Brings a complete image to its one form: bytes of data extents as they came, all others zero and
    /// without blocks; durable on return. So the image id, as a strong entity tag, names every byte.
    pub(super) fn seal(&self, index: &Index) -> Result<(), StoreError> {
        let wrong = |doing| StoreError::io(doing, &self.path);
        let mut at = 0;
        for extent in index.extents().iter().filter(|e| e.kind == ExtentKind::Data) {
            if at < extent.offset {
                disk::clear(self.file(), at..extent.offset).map_err(wrong("clear"))?;
            }
            at = extent.end();
        }
        if at < index.image_size() {
            disk::clear(self.file(), at..index.image_size()).map_err(wrong("clear"))?;
        }
        let file = self.file();
        file.set_len(index.image_size()).and_then(|()| file.sync_all()).map_err(wrong("sync"))
    }

    /// Leaves only the record that it is done.
    pub(super) fn finish(&mut self) -> Result<(), StoreError> {
        self.state.done = true;
        self.file = None;
        self.index = None;
        self.digests = HashMap::new();
        self.save()?;
        disk::remove(&self.path).map_err(StoreError::io("remove", &self.path))
    }

    /// Removes it, state first: without it the bytes are an orphan that the next start sweeps.
    pub(super) fn remove(&mut self) -> Result<(), StoreError> {
        self.gone = true;
        self.state.done = true;
        self.file = None;
        self.index = None;
        for path in [&self.state_path, &self.path] {
            disk::remove(path).map_err(StoreError::io("remove", path))?;
        }
        Ok(())
    }
}

/// Reads a state file; `None` when it is not there or torn.
///
/// # Errors
/// `Io` when the disk does not give it: it may be fine.
pub(super) fn read_state(path: &Path) -> Result<Option<State>, StoreError> {
    match fs::read(path) {
        Ok(bytes) => Ok(serde_json::from_slice(&bytes).ok()),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(StoreError::io("read", path)(e)),
    }
}
