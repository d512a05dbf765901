//! Which bytes of a built image are data, must be zero, or do not matter, and the image's index.
//!
//! Free ranges of the file systems are don't care. Of the rest a run of zeros of [`MIN_ZERO_RUN`] or more must
//! be zero, everything else is data. That is told by the bytes alone, not by the image file's holes: where a
//! file system of this machine keeps holes differs between machines, and the image id must not.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use cardshop_protocol::index::{
    Extent, ExtentKind, GRANULE, ImageMap, Index, IndexBuilder, PassportEntry, default_chunk_size,
};
use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};
use nix::unistd::{Whence, lseek};

use crate::StopFlag;
use crate::build::BuildError;
use crate::copy::Copied;

/// Shorter runs of zeros between data are data: an extent costs 16 bytes of index and a write of its own.
const MIN_ZERO_RUN: u64 = 64 * 1024;
const BUFFER_SIZE: usize = 1024 * 1024;

/// True when every byte is zero. By comparison with zeros: as fast as memory also in a debug build.
pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    const ZEROS: [u8; GRANULE as usize] = [0; GRANULE as usize];
    bytes.chunks(ZEROS.len()).all(|piece| *piece == ZEROS[..piece.len()])
}

/// `regions` without `holes`, both ascending; holes shrink to whole granules.
pub(crate) fn without(regions: &[Range<u64>], holes: &[Range<u64>]) -> Vec<Range<u64>> {
    let shrink = |h: &Range<u64>| h.start.next_multiple_of(GRANULE)..h.end / GRANULE * GRANULE;
    let mut rest = Vec::new();
    for region in regions {
        let mut at = region.start;
        for hole in holes.iter().map(shrink).filter(|h| h.start < region.end && h.end > region.start) {
            if hole.start > at {
                rest.push(at..hole.start);
            }
            at = at.max(hole.end);
        }
        if at < region.end {
            rest.push(at..region.end);
        }
    }
    rest
}

/// Makes holes of free ranges: what was deleted there is of no use to anybody. Where the file system of this
/// machine knows no holes the bytes stay, which no digest sees.
pub(crate) fn punch(file: &File, free: &[Range<u64>]) -> io::Result<()> {
    for range in free.iter().filter(|r| !r.is_empty()) {
        let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        match fallocate(file, flags, range.start as i64, (range.end - range.start) as i64) {
            Ok(()) => {}
            Err(Errno::EOPNOTSUPP) => return Ok(()),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// A scan that gathers extents in order.
#[derive(Default)]
pub(crate) struct Runs {
    pub extents: Vec<Extent>,
}

impl Runs {
    pub(crate) fn push(&mut self, range: Range<u64>, kind: ExtentKind) {
        if range.is_empty() {
            return;
        }
        match self.extents.last_mut() {
            Some(last) if last.end() == range.start && last.kind == kind => {
                last.length += range.end - range.start
            }
            _ => self.extents.push(Extent { offset: range.start, length: range.end - range.start, kind }),
        }
    }

    /// Makes short runs of zeros that touch data part of it.
    fn joined(self) -> Vec<Extent> {
        let found = self.extents;
        let mut runs = Self { extents: Vec::with_capacity(found.len()) };
        for (i, extent) in found.iter().enumerate() {
            let touches = |other: Option<&Extent>| {
                other.is_some_and(|o| {
                    o.kind == ExtentKind::Data && (o.end() == extent.offset || extent.end() == o.offset)
                })
            };
            let short = extent.kind == ExtentKind::Zero && extent.length < MIN_ZERO_RUN;
            let data =
                short && (touches(found.get(i + 1)) || touches(i.checked_sub(1).and_then(|b| found.get(b))));
            let kind = if data { ExtentKind::Data } else { extent.kind };
            runs.push(extent.offset..extent.end(), kind);
        }
        runs.extents
    }
}

/// The next data of the file at or after `at`, by its holes; ranges of holes are zeros without being read.
fn next_data(file: &File, at: u64, end: u64) -> io::Result<Range<u64>> {
    let seek = |offset: u64, whence| match lseek(file, offset as i64, whence) {
        Ok(found) => Ok(found as u64),
        Err(Errno::ENXIO) => Ok(end),
        Err(error) => Err(io::Error::from(error)),
    };
    let start = seek(at, Whence::SeekData)?.min(end);
    let stop = if start < end { seek(start, Whence::SeekHole)?.min(end) } else { end };
    Ok(start / GRANULE * GRANULE..stop.next_multiple_of(GRANULE).min(end))
}

/// The map of an image of which only `used` matters. What was copied is known without being read.
pub(crate) fn map(
    file: &File,
    used: &[Range<u64>],
    copied: &Copied,
    passport: Vec<PassportEntry>,
    stop: &StopFlag,
    progress: &mut dyn FnMut(u64),
) -> Result<ImageMap, BuildError> {
    let image_size = file.metadata()?.len();
    let mut runs = Runs::default();
    let mut buffer = vec![0; BUFFER_SIZE];
    let mut read = 0;
    for region in used {
        let mut at = region.start;
        while at < region.end {
            if let Some(known) = copied.at_or_after(at).filter(|known| known.offset <= at) {
                let end = known.end().min(region.end);
                runs.push(at..end, known.kind);
                at = end;
                continue;
            }
            let end = copied.at_or_after(at).map_or(region.end, |next| next.offset.min(region.end));
            let data = next_data(file, at, end)?;
            runs.push(at..data.start.max(at), ExtentKind::Zero);
            at = data.start.max(at);
            while at < data.end {
                if stop.is_stopped() {
                    return Err(BuildError::Stopped);
                }
                let piece = &mut buffer[..(data.end - at).min(BUFFER_SIZE as u64) as usize];
                file.read_exact_at(piece, at)?;
                for granule in piece.chunks(GRANULE as usize) {
                    let kind = if is_zero(granule) { ExtentKind::Zero } else { ExtentKind::Data };
                    runs.push(at..at + granule.len() as u64, kind);
                    at += granule.len() as u64;
                }
                read += piece.len() as u64;
                progress(read);
            }
        }
    }
    Ok(ImageMap { image_size, extents: runs.joined(), passport })
}

/// Digests the image's data, but for the chunks whose digests are known.
pub(crate) fn index(
    file: &File,
    map: ImageMap,
    copied: &Copied,
    stop: &StopFlag,
    progress: &mut dyn FnMut(u64),
) -> Result<Index, BuildError> {
    let chunk_size = default_chunk_size(map.image_size);
    let data: Vec<Extent> = map.extents.iter().copied().filter(|e| e.kind == ExtentKind::Data).collect();
    let mut builder = IndexBuilder::new(map, chunk_size)?;
    let mut buffer = vec![0; BUFFER_SIZE];
    let mut done = 0;
    // Up to here everything is digested.
    let mut reached = 0;
    for extent in data {
        let mut at = extent.offset.max(reached);
        while at < extent.end() {
            if stop.is_stopped() {
                return Err(BuildError::Stopped);
            }
            let chunk = at / u64::from(chunk_size);
            let chunk_end = (chunk + 1) * u64::from(chunk_size);
            if let Some(known) = copied.chunks.get(&chunk) {
                builder.chunk(chunk, known.digest, known.all_zero)?;
                (at, reached) = (chunk_end, chunk_end);
                continue;
            }
            let piece = &mut buffer[..(extent.end().min(chunk_end) - at).min(BUFFER_SIZE as u64) as usize];
            file.read_exact_at(piece, at)?;
            builder.data(piece)?;
            at += piece.len() as u64;
            done += piece.len() as u64;
            progress(done);
        }
    }
    Ok(builder.finish()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holes_are_cut_out_in_whole_granules() {
        let used = without(&[0..4096, 8192..40960], &[0..4096, 9000..12288, 12288..20000, 36864..50000]);
        assert_eq!(used, [8192..12288, 16384..36864]);
    }

    #[test]
    fn zeros_are_told_by_bytes_and_not_by_holes() {
        let (data, zero) = (ExtentKind::Data, ExtentKind::Zero);
        // Data, a short run of zeros, data, a long run, data; then something free; then a lone run of zeros.
        let layout = [(4096, 1_u8), (8192, 0), (4096, 2), (MIN_ZERO_RUN, 0), (4096, 3), (4096, 9), (4096, 0)];
        let mut bytes = Vec::new();
        for (length, fill) in layout {
            bytes.extend(vec![fill; length as usize]);
        }
        let total = bytes.len() as u64;
        let used = [0..total - 8192, total - 4096..total];
        let map_of = |file: &File| {
            map(file, &used, &Copied::default(), Vec::new(), &StopFlag::new(), &mut |_| ()).unwrap().extents
        };

        let (full, sparse) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
        full.write_all_at(&bytes, 0).unwrap();
        sparse.set_len(total).unwrap();
        for (i, piece) in bytes.chunks(4096).enumerate().filter(|(_, p)| p[0] != 0) {
            sparse.write_all_at(piece, i as u64 * 4096).unwrap();
        }
        let extent = |offset, length, kind| Extent { offset, length, kind };
        let expected = [
            extent(0, 16384, data),
            extent(16384, MIN_ZERO_RUN, zero),
            extent(16384 + MIN_ZERO_RUN, 4096, data),
            extent(total - 4096, 4096, zero),
        ];
        assert_eq!(map_of(&full), expected);
        assert_eq!(map_of(&sparse), expected);
    }
}
