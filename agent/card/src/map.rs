//! Which bytes of an image file are data and which must be zero, and the index made of that. Holes of a
//! file are listed as must-be-zero: a file system inside may rely on them, and only who knows better (the
//! creator, a bmap) may call a byte don't care. Used by the command line and the creator.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use cardshop_protocol::index::{
    Extent, ExtentKind, GRANULE, ImageMap, Index, IndexBuilder, IndexError, default_chunk_size,
};
use nix::errno::Errno;
use nix::unistd::{Whence, lseek};

/// Bytes read from the image at a time: large enough to stream, small beside the chunk store.
const READ_SIZE: u64 = 1 << 20;

/// Why an image file got no index.
#[derive(Debug, thiserror::Error)]
pub enum IndexFileError {
    /// The file cannot be read.
    #[error("cannot read {} at offset {offset}", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Where, bytes.
        offset: u64,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A device, a folder or a pipe: its size is not what an image's is.
    #[error("{} is no plain file: copy it to one first", .0.display())]
    NotAFile(PathBuf),
    /// Nothing to write: a card of it would be called verified with no byte read.
    #[error("{} is empty", .0.display())]
    Empty(PathBuf),
    /// What a stream unpacks to has no end in sight, or fits on no card that was named.
    #[error("{} unpacks to more than {limit} bytes", path.display())]
    TooLarge {
        /// Which.
        path: PathBuf,
        /// Bytes that were allowed.
        limit: u64,
    },
    /// The stop flag was raised.
    #[error("stopped")]
    Stopped,
    /// The map given is for an image of another size.
    #[error("the map is for an image of {mapped} bytes, the file has {actual}")]
    WrongSize {
        /// Bytes the map says.
        mapped: u64,
        /// Bytes the file has.
        actual: u64,
    },
    /// The map or the chunk size is not one an index may have.
    #[error(transparent)]
    Index(#[from] IndexError),
}

/// Maps a file by SEEK_DATA and SEEK_HOLE: 4 KiB granules with any data are data, the others must be zero.
/// On a file system without holes all of it is data.
///
/// # Errors
/// What the operating system says.
///
/// **Source:** lseek(2), *Seeking file data and holes*.
pub fn map_file(file: &File) -> io::Result<ImageMap> {
    let image_size = file.metadata()?.len();
    let mut extents = Vec::new();
    let mut mapped = 0;
    while mapped < image_size {
        let Some(data) = seek(file, mapped, Whence::SeekData)? else { break };
        // A file that grows while it is mapped still gives a map of the size it had.
        let data = data.min(image_size) / GRANULE * GRANULE;
        let hole = seek(file, data.max(mapped), Whence::SeekHole)?.unwrap_or(image_size);
        let end = hole.next_multiple_of(GRANULE).min(image_size);
        if end <= data {
            break;
        }
        push(&mut extents, mapped, data.max(mapped), ExtentKind::Zero);
        push(&mut extents, data.max(mapped), end, ExtentKind::Data);
        mapped = end;
    }
    push(&mut extents, mapped, image_size, ExtentKind::Zero);
    Ok(ImageMap { image_size, extents, passport: Vec::new() })
}

/// Where the next data or hole begins; `None` when there is none up to the end.
fn seek(file: &File, from: u64, whence: Whence) -> io::Result<Option<u64>> {
    let from = i64::try_from(from).map_err(io::Error::other)?;
    match lseek(file, from, whence) {
        Ok(at) => Ok(Some(at.unsigned_abs())),
        Err(Errno::ENXIO) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

/// Appends `start..end`, joined to the extent before it when both are of one kind.
fn push(extents: &mut Vec<Extent>, start: u64, end: u64, kind: ExtentKind) {
    if start >= end {
        return;
    }
    match extents.last_mut() {
        Some(last) if last.kind == kind && last.end() == start => last.length = end - last.offset,
        _ => extents.push(Extent { offset: start, length: end - start, kind }),
    }
}

/// Makes the index of an image file in one pass with one read buffer of 1 MiB. Without a map the file's
/// holes decide; without a chunk size the default for its size. `progress` gets data bytes done and total.
///
/// # Errors
/// Every variant of [`IndexFileError`].
pub fn index_file(
    path: &Path,
    map: Option<ImageMap>,
    chunk_size: Option<u32>,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Index, IndexFileError> {
    let failed = |offset| move |source| IndexFileError::Read { path: path.to_owned(), offset, source };
    if !path.metadata().map_err(failed(0))?.is_file() {
        // Asked before the open: a pipe's waits for its other end.
        return Err(IndexFileError::NotAFile(path.to_owned()));
    }
    let file = File::open(path).map_err(failed(0))?;
    let actual = file.metadata().map_err(failed(0))?.len();
    if actual == 0 {
        return Err(IndexFileError::Empty(path.to_owned()));
    }
    let map = match map {
        Some(map) => map,
        None => map_file(&file).map_err(failed(0))?,
    };
    if map.image_size != actual {
        return Err(IndexFileError::WrongSize { mapped: map.image_size, actual });
    }
    let total = map.bytes_of(ExtentKind::Data);
    let data: Vec<Extent> = map.extents.iter().copied().filter(|e| e.kind == ExtentKind::Data).collect();
    let mut builder = IndexBuilder::new(map, chunk_size.unwrap_or_else(|| default_chunk_size(actual)))?;
    let mut buffer = vec![0; READ_SIZE as usize];
    let mut done = 0;
    for extent in data {
        let mut at = extent.offset;
        while at < extent.end() {
            let piece = &mut buffer[..READ_SIZE.min(extent.end() - at) as usize];
            file.read_exact_at(piece, at).map_err(failed(at))?;
            builder.data(piece)?;
            at += piece.len() as u64;
            done += piece.len() as u64;
            progress(done, total);
        }
    }
    Ok(builder.finish()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sparse(size: u64, pieces: &[(u64, &[u8])]) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("image");
        let file = File::create(&path).unwrap();
        file.set_len(size).unwrap();
        for (offset, bytes) in pieces {
            file.write_all_at(bytes, *offset).unwrap();
        }
        file.sync_all().unwrap();
        (folder, path)
    }

    #[test]
    fn holes_of_a_file_must_be_zero_and_data_is_widened_to_granules() {
        let (_folder, path) = sparse(1_000_100, &[(5, b"x"), (300_000, &[1; 10_000]), (1_000_099, b"z")]);
        let map = map_file(&File::open(path).unwrap()).unwrap();
        map.check().unwrap();
        assert_eq!(map.image_size, 1_000_100);
        let listed: u64 = map.extents.iter().map(|e| e.length).sum();
        assert_eq!(listed, 1_000_100, "every byte of a plain image is listed");
        let data = |offset| {
            map.extents.iter().any(|e| e.kind == ExtentKind::Data && (e.offset..e.end()).contains(&offset))
        };
        assert!(data(5) && data(300_000) && data(309_999) && data(1_000_099));
        assert!(!data(100_000) && !data(800_000), "a hole is not data: {:?}", map.extents);
    }

    #[test]
    fn a_file_that_is_one_hole_is_all_zero_and_an_empty_one_lists_nothing() {
        let (_folder, path) = sparse(1 << 20, &[]);
        let map = map_file(&File::open(path).unwrap()).unwrap();
        assert_eq!(map.extents, [Extent { offset: 0, length: 1 << 20, kind: ExtentKind::Zero }]);
        let (_folder, path) = sparse(0, &[]);
        assert!(map_file(&File::open(path).unwrap()).unwrap().extents.is_empty());
    }

    #[test]
    fn the_index_of_a_file_matches_its_bytes_and_progress_reaches_the_total() {
        let (_folder, path) = sparse(3 << 20, &[(70_000, &[9; 2_000_000])]);
        let mut last = (0, 0);
        let index =
            index_file(&path, None, Some(64 * 1024), &mut |done, total| last = (done, total)).unwrap();
        let bytes = std::fs::read(&path).unwrap();
        for chunk in 0..index.chunks().len() {
            let range = index.chunk_range(chunk);
            assert!(index.chunk_matches(chunk, &bytes[range.start as usize..range.end as usize]));
        }
        assert_eq!(last, (index.data_bytes(), index.data_bytes()));
        assert!(index.data_bytes() < 3 << 20);
    }

    #[test]
    fn what_is_no_plain_file_or_has_no_bytes_gets_no_index() {
        let (folder, path) = sparse(0, &[]);
        let index = |path: &Path| index_file(path, None, None, &mut |_, _| ()).unwrap_err();
        assert!(matches!(index(&path), IndexFileError::Empty(_)));
        assert!(matches!(index(folder.path()), IndexFileError::NotAFile(_)));
        assert!(matches!(index(Path::new("/dev/null")), IndexFileError::NotAFile(_)));
    }

    #[test]
    fn a_map_of_another_size_is_refused() {
        let (_folder, path) = sparse(8192, &[]);
        let map = ImageMap { image_size: 4096, ..ImageMap::default() };
        let error = index_file(&path, Some(map), None, &mut |_, _| ()).unwrap_err();
        assert!(matches!(error, IndexFileError::WrongSize { mapped: 4096, actual: 8192 }));
    }
}
