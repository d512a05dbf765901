//! Large files into the image, each byte read once: what is written is digested on the way, so that the index need not
//! read it again. Several pieces at once, in the order of the image.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use cardshop_protocol::ids::Digest;
use cardshop_protocol::index::{Extent, ExtentKind, GRANULE};
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};

use crate::StopFlag;
use crate::build::BuildError;
use crate::map::{Runs, is_zero};
use crate::parallel;

/// Bytes of one piece of work: some chunks of any size there is.
const PIECE_SIZE: u64 = 16 * 1024 * 1024;
/// Pieces at once: one is digested while another is written. More gain nothing where one disk has all of them.
const AT_ONCE: usize = 2;
/// Bytes read, digested and written at once; of memory for each worker.
const BUFFER_SIZE: usize = 1024 * 1024;

/// Bytes of a file of this machine that belong at an offset of the image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Placed {
    pub source: PathBuf,
    /// In the source.
    pub from: u64,
    /// In the image, a multiple of 4096.
    pub to: u64,
    /// Bytes; the last block of a file may not be full, the rest of it is zero.
    pub length: u64,
}

/// A whole chunk that was digested.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Known {
    pub digest: Digest,
    pub all_zero: bool,
}

/// What is known of the image without reading it again.
#[derive(Debug, Default)]
pub(crate) struct Copied {
    /// Data and zeros of all that was copied, ascending, whole granules.
    pub extents: Vec<Extent>,
    /// Chunks of which every byte was copied, by number.
    pub chunks: BTreeMap<u64, Known>,
}

impl Copied {
    /// The first extent that ends behind `at`.
    pub(crate) fn at_or_after(&self, at: u64) -> Option<&Extent> {
        self.extents.get(self.extents.partition_point(|e| e.end() <= at))
    }

    pub(crate) fn bytes(&self) -> u64 {
        self.extents.iter().map(|e| e.length).sum()
    }
}

/// Copies all of `placed`. `progress` hears how many bytes are there, and up to which offset of the image everything is.
pub(crate) fn copy(
    image: &File,
    placed: &[Placed],
    chunk_size: u64,
    stop: &StopFlag,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Copied, BuildError> {
    let mut pieces: Vec<Placed> = placed.iter().flat_map(cut).collect();
    pieces.sort_by_key(|piece| piece.to);
    let (inner, done) = (StopFlag::new(), AtomicU64::new(0));
    // Pieces are begun in order: this is the first that has not ended, and which behind it have.
    let ended = Mutex::new((0, BTreeSet::new()));
    let reached = || {
        let (first, _) = *lock(&ended);
        pieces.get(first).map_or(u64::MAX, |piece| piece.to)
    };
    let mut look = || progress(done.load(Ordering::Relaxed), reached());
    let work = |n: usize| {
        let copied = copy_piece(image, &pieces[n], chunk_size, &inner, &done)?;
        let mut ended = lock(&ended);
        let (first, behind) = &mut *ended;
        behind.insert(n);
        while behind.remove(first) {
            *first += 1;
        }
        Ok::<_, BuildError>(copied)
    };
    let results = parallel::several(AT_ONCE, pieces.len(), stop, &inner, &mut look, &work)?;
    if stop.is_stopped() {
        return Err(BuildError::Stopped);
    }
    let mut runs = Runs::default();
    let mut chunks = BTreeMap::new();
    for (piece, (found, digests)) in pieces.iter().zip(results) {
        for extent in found.extents {
            runs.push(extent.offset..extent.end(), extent.kind);
        }
        debug_assert!(runs.extents.last().is_some_and(|e| e.end() >= piece.to + piece.length));
        chunks.extend(digests);
    }
    Ok(Copied { extents: runs.extents, chunks })
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A placed range in pieces that begin and end on multiples of [`PIECE_SIZE`] of the image, and so on chunks.
fn cut(placed: &Placed) -> Vec<Placed> {
    let (mut pieces, mut at) = (Vec::new(), placed.to);
    let end = placed.to + placed.length;
    while at < end {
        let stop = end.min((at / PIECE_SIZE + 1) * PIECE_SIZE);
        pieces.push(Placed {
            source: placed.source.clone(),
            from: placed.from + (at - placed.to),
            to: at,
            length: stop - at,
        });
        at = stop;
    }
    pieces
}

type Piece = (Runs, Vec<(u64, Known)>);

fn copy_piece(
    image: &File,
    piece: &Placed,
    chunk_size: u64,
    stop: &StopFlag,
    done: &AtomicU64,
) -> Result<Piece, BuildError> {
    let file_error = |source| BuildError::File { path: piece.source.clone(), source };
    let source = File::open(&piece.source).map_err(file_error)?;
    let (mut runs, mut chunks) = (Runs::default(), Vec::new());
    // What is read at once never crosses the end of a chunk.
    let mut buffer = vec![0; BUFFER_SIZE];
    let (mut hasher, mut all_zero, mut begun) = (blake3::Hasher::new(), true, piece.to);
    let (mut at, end) = (piece.to, piece.to + piece.length);
    while at < end {
        if stop.is_stopped() {
            return Err(BuildError::Stopped);
        }
        let chunk_end = (at / chunk_size + 1) * chunk_size;
        let count = (end.min(chunk_end) - at).min(BUFFER_SIZE as u64) as usize;
        let bytes = &mut buffer[..count];
        source.read_exact_at(bytes, piece.from + (at - piece.to)).map_err(file_error)?;
        let zero = is_zero(bytes);
        // Zeros stay holes.
        if !zero {
            image.write_all_at(bytes, at)?;
        }
        hasher.update(bytes);
        all_zero &= zero;
        find_runs(bytes, at, zero, &mut runs);
        at += count as u64;
        done.fetch_add(count as u64, Ordering::Relaxed);
        if at == chunk_end {
            if begun == chunk_end - chunk_size {
                let digest = Digest(*hasher.finalize().as_bytes());
                chunks.push((begun / chunk_size, Known { digest, all_zero }));
            }
            hasher.reset();
            (all_zero, begun) = (true, at);
        }
    }
    start_writing(image, piece);
    Ok((runs, chunks))
}

/// Has the disk begin with a piece while the next one is copied: by itself the kernel waits for seconds, or until a
/// tenth of the memory is dirty (measured: up to 15 % less time for copy and sync together). A hint is enough: the build's
/// last sync has the final word.
fn start_writing(image: &File, piece: &Placed) {
    let (offset, length) = (piece.to as i64, piece.length as i64);
    if let Err(error) = posix_fadvise(image, offset, length, PosixFadviseAdvice::POSIX_FADV_DONTNEED) {
        tracing::debug!(%error, "the disk is not told to begin");
    }
}

fn find_runs(bytes: &[u8], at: u64, zero: bool, runs: &mut Runs) {
    let whole = |length: usize| (length as u64).next_multiple_of(GRANULE);
    if zero {
        return runs.push(at..at + whole(bytes.len()), ExtentKind::Zero);
    }
    for (number, granule) in bytes.chunks(GRANULE as usize).enumerate() {
        let start = at + number as u64 * GRANULE;
        let kind = if is_zero(granule) { ExtentKind::Zero } else { ExtentKind::Data };
        runs.push(start..start + GRANULE, kind);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHUNK: u64 = 64 * 1024;

    #[test]
    fn what_is_copied_is_known_by_digest_and_by_its_zeros_without_being_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("content");
        // Two chunks of noise, one and a half of zeros, some noise, an end in the middle of a block.
        let mut content = vec![7; 2 * CHUNK as usize];
        content.extend(vec![0; 98304]);
        content.extend(vec![9; 10_000]);
        std::fs::write(&path, &content).unwrap();
        let image = tempfile::tempfile().unwrap();
        image.set_len(40 << 20).unwrap();
        // In two parts, the second across the end of a piece of work and not on a chunk.
        let (first, second) = (CHUNK, PIECE_SIZE - 5 * 4096);
        let place = |from: u64, to, length: u64| Placed { source: path.clone(), from, to, length };
        let rest = content.len() as u64 - CHUNK;
        let placed = [place(CHUNK, second, rest), place(0, first, CHUNK)];
        let mut heard = (0, 0);
        let copied =
            copy(&image, &placed, CHUNK, &StopFlag::new(), &mut |done, upto| heard = (done, upto)).unwrap();
        let (heard, upto) = heard;
        assert_eq!(upto, u64::MAX, "nothing is left");

        assert_eq!(heard, content.len() as u64);
        assert_eq!(copied.bytes(), heard.next_multiple_of(4096));
        let mut there = vec![0; rest as usize];
        image.read_exact_at(&mut there, second).unwrap();
        assert!(there == content[CHUNK as usize..]);
        let extent = |offset, length, kind| Extent { offset, length, kind };
        let (data, zero) = (ExtentKind::Data, ExtentKind::Zero);
        assert_eq!(
            copied.extents,
            [
                extent(first, CHUNK, data),
                extent(second, CHUNK, data),
                extent(second + CHUNK, 98304, zero),
                extent(second + CHUNK + 98304, 12288, data),
            ]
        );
        let whole = copied.chunks.keys().copied().collect::<Vec<_>>();
        let in_second = PIECE_SIZE / CHUNK;
        assert_eq!(whole, [1, in_second, in_second + 1]);
        for (number, known) in &copied.chunks {
            let mut bytes = vec![0; CHUNK as usize];
            image.read_exact_at(&mut bytes, number * CHUNK).unwrap();
            assert_eq!(known.digest.0, *blake3::hash(&bytes).as_bytes());
            assert_eq!(known.all_zero, bytes.iter().all(|b| *b == 0));
        }
    }

    #[test]
    fn a_source_that_became_shorter_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("content");
        std::fs::write(&path, b"short").unwrap();
        let image = tempfile::tempfile().unwrap();
        let placed = [Placed { source: path, from: 0, to: 0, length: 6 }];
        let error = copy(&image, &placed, CHUNK, &StopFlag::new(), &mut |_, _| ()).unwrap_err();
        assert!(matches!(error, BuildError::File { path, .. } if path.ends_with("content")));
    }
}
