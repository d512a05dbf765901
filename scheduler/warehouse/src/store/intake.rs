//! Takes the bytes of one request into an upload: chunk by chunk, each digested once, when it is whole, and
//! compared at once when the index is there. One pass, one chunk in memory. Runs on a blocking thread, fed by
//! `http::receive`.
//!
//! ```text
//! bytes ─► chunk whole? ─► digest ─┬─ agrees, or no index yet ─► written (zeros stay a hole) ─► synced every 32 MiB
//!                                  └─ differs ─► nothing is written any more, more bad chunks are looked for,
//!                                                then: offset back to the first bad chunk, its offset is named
//! end    ─► the begun chunk is written too, everything synced, the offset saved
//! cut    ─► the same without a checksum; with one all bytes of the request are dropped
//! ```

use cardshop_protocol::ids::Digest;

use super::disk;
use super::error::{MAX_NAMED_CHUNKS, StoreError};
use super::part::Part;
use crate::Limits;
use crate::core::checksum::Checksum;

/// Bytes written between two syncs: what a power cut may cost, against the price of a sync (some ms).
const SYNC_EVERY: u64 = 32 * 1024 * 1024;
/// Bytes looked at after the first bad chunk to name more of them.
const LOOK_ON: u64 = 16 * 1024 * 1024;

/// What comes from the wire.
pub(crate) enum Piece {
    /// The next bytes.
    Bytes(bytes::Bytes),
    /// All bytes of the request were there. Without it the connection was cut.
    End,
}

struct Intake<'a> {
    part: &'a mut Part,
    /// Bytes of the chunk that begins at `start`, as far as they are here.
    buffer: Vec<u8>,
    start: u64,
    /// Up to where the file holds what it should.
    written: u64,
    synced: u64,
    bad: Vec<u64>,
    /// Bytes the upload may have.
    most: u64,
    margin: u64,
}

impl Part {
    /// Takes the bytes of a request from the upload's offset on.
    ///
    /// # Errors
    /// `WrongChecksum` and, with a checksum, `Cut`: the offset is as before. `ChunkMismatch`: it is at the
    /// first bad chunk. `TooLong`, `Full`, `Io`: it is behind the last whole chunk that was written.
    pub(crate) fn take(
        &mut self,
        pieces: impl Iterator<Item = Piece>,
        checksum: Option<Checksum>,
        limits: &Limits,
    ) -> Result<(), StoreError> {
        let began_at = self.state.offset;
        let checked = checksum.is_some();
        if self.index.is_none() {
            self.state.checked = None; // from here on nobody compares, so all of it must be compared later
        }
        let mut intake = Intake::new(self, limits)?;
        let fed = intake.feed(pieces, checksum);
        let (start, bad) = (intake.start, std::mem::take(&mut intake.bad));
        let fed = match fed {
            Ok(()) if bad.is_empty() => intake.end(),
            other => other,
        };
        match fed {
            Err(e @ (StoreError::WrongChecksum | StoreError::Cut)) => self.undo(began_at, e),
            Err(e) if bad.is_empty() => self.undo(if checked { began_at } else { start.max(began_at) }, e),
            _ if !bad.is_empty() => self.undo(bad[0], StoreError::ChunkMismatch { offsets: bad }),
            fine => fine,
        }
    }

    fn undo(&mut self, offset: u64, because: StoreError) -> Result<(), StoreError> {
        self.keep(offset)?;
        Err(because)
    }
}

impl<'a> Intake<'a> {
    /// Reads the begun chunk back, if the last request ended inside one, and drops what a request left behind the
    /// offset when the disk failed under it: a zero chunk is not written there but stays a hole.
    fn new(part: &'a mut Part, limits: &Limits) -> Result<Self, StoreError> {
        let offset = part.state.offset;
        part.cut(offset)?;
        let start = offset - offset % part.chunk_size();
        let mut buffer = vec![0; (offset - start) as usize];
        part.read_at(&mut buffer, start)?;
        let most =
            part.state.length.or(part.length_by_index()).unwrap_or(limits.max_size(part.state.metadata.kind));
        let margin = limits.space_margin;
        let intake =
            Self { part, buffer, start, written: offset, synced: offset, bad: Vec::new(), most, margin };
        intake.check_space()?;
        Ok(intake)
    }

    fn feed(
        &mut self,
        pieces: impl Iterator<Item = Piece>,
        mut checksum: Option<Checksum>,
    ) -> Result<(), StoreError> {
        let mut whole = false;
        for piece in pieces {
            match piece {
                Piece::End => whole = true,
                Piece::Bytes(bytes) => {
                    checksum.iter_mut().for_each(|c| c.update(&bytes));
                    self.bytes(&bytes)?;
                    self.look_after_the_disk(checksum.is_none())?;
                    if self.has_seen_enough() {
                        return Ok(());
                    }
                }
            }
        }
        match checksum.map(|c| whole.then(|| c.matches())) {
            Some(None) => Err(StoreError::Cut),
            Some(Some(false)) => Err(StoreError::WrongChecksum),
            _ => Ok(()),
        }
    }

    fn bytes(&mut self, mut bytes: &[u8]) -> Result<(), StoreError> {
        while !bytes.is_empty() {
            let end = self.chunk_end();
            let room = end - self.start - self.buffer.len() as u64;
            if room == 0 {
                return Err(StoreError::TooLong { length: self.most });
            }
            let (now, later) = bytes.split_at(bytes.len().min(usize::try_from(room).unwrap_or(usize::MAX)));
            self.buffer.extend_from_slice(now);
            if now.len() as u64 == room {
                self.end_chunk()?;
            }
            bytes = later;
        }
        Ok(())
    }

    fn chunk_end(&self) -> u64 {
        (self.start + self.part.chunk_size()).min(self.most)
    }

    /// The chunk is whole: digest it, compare it, write it.
    fn end_chunk(&mut self) -> Result<(), StoreError> {
        let chunk = self.part.chunk_at(self.start);
        let mut zero = self.buffer.iter().all(|b| *b == 0);
        match &self.part.index {
            Some(index) if !index.chunk_matches(chunk, &self.buffer) => self.bad.push(self.start),
            // What it holds beside zeros is don't care, and sealing would clear it anyway.
            Some(index) => zero = index.chunks()[chunk].all_zero,
            None => {
                self.part.digests.insert(chunk as u64, Digest(*blake3::hash(&self.buffer).as_bytes()));
            }
        }
        if self.bad.is_empty() {
            self.write(zero)?;
        }
        self.start += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    /// Writes what of the buffer is not in the file yet; behind the offset the file is one hole.
    fn write(&mut self, zero: bool) -> Result<(), StoreError> {
        let from = (self.written - self.start) as usize;
        if !zero {
            self.part.write_at(&self.buffer[from..], self.written)?;
        }
        self.written = self.start + self.buffer.len() as u64;
        Ok(())
    }

    /// At times: is there room, and, when the bytes need not wait for a checksum, sync and say so.
    fn look_after_the_disk(&mut self, may_keep: bool) -> Result<(), StoreError> {
        if self.written - self.synced < SYNC_EVERY || !self.bad.is_empty() {
            return Ok(());
        }
        self.synced = self.written;
        self.check_space()?;
        if may_keep { self.part.keep(self.written) } else { Ok(()) }
    }

    fn check_space(&self) -> Result<(), StoreError> {
        let path = &self.part.path;
        let folder = path.parent().expect("an upload lies in a folder");
        let free = disk::free_bytes(folder).map_err(StoreError::io("ask for the free space of", folder))?;
        if free < self.margin { Err(StoreError::Full { free, margin: self.margin }) } else { Ok(()) }
    }

    fn has_seen_enough(&self) -> bool {
        let first = self.bad.first().copied().unwrap_or(u64::MAX);
        self.bad.len() == MAX_NAMED_CHUNKS || self.start.saturating_sub(first) > LOOK_ON
    }

    /// Keeps the begun chunk too.
    fn end(mut self) -> Result<(), StoreError> {
        self.write(false)?;
        self.part.keep(self.written)
    }
}
