//! Where the bytes of an image come from, chunk by chunk. The engine asks for each chunk that travels once,
//! in ascending order but for chunk 0, which it asks for last, and checks each against the index: a source
//! need not. Here is the source that is an image file; the agent's filling chunk store is another.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use cardshop_protocol::index::Index;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use crate::stop::StopFlag;

/// Why a source has no bytes.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The stop flag was raised while waiting.
    #[error("stopped while waiting for chunk {chunk}")]
    Stopped {
        /// Which chunk.
        chunk: usize,
    },
    /// The source is shorter than the index says.
    #[error("the source ends at byte {actual}, the index says {expected}")]
    EndedEarly {
        /// Bytes there are.
        actual: u64,
        /// Bytes the index says.
        expected: u64,
    },
    /// The source is longer than the index says: the index is of another image, or of an earlier build.
    #[error("the source has {actual} bytes, the index says {expected}: make its index again")]
    TooLong {
        /// Bytes there are.
        actual: u64,
        /// Bytes the index says.
        expected: u64,
    },
    /// The bytes of a chunk do not have the digest the index says.
    #[error("chunk {chunk} of the source (offset {offset}) does not match the index")]
    Corrupt {
        /// Which chunk.
        chunk: usize,
        /// Where it starts on the image, bytes.
        offset: u64,
    },
    /// The bytes cannot be had: the warehouse refused them, the cache is gone.
    #[error("chunk {chunk} cannot be had: {reason}")]
    Unavailable {
        /// Which chunk.
        chunk: usize,
        /// One line for people.
        reason: String,
    },
    /// The image is itself claimed as a card, by this program or another.
    #[error("the image is being written as a card")]
    InUse,
    /// The operating system refused to read.
    #[error("cannot read the source")]
    Io(#[from] io::Error),
}

/// Gives the chunks of one image. The engine may ask from several threads at once.
pub trait ChunkSource: Send + Sync {
    /// Fills `buffer`, which has exactly the chunk's length, with chunk `chunk`; don't-care bytes may be
    /// anything. Blocks until the chunk is there and asks `stop` at least every 200 ms.
    ///
    /// # Errors
    /// Any [`SourceError`]; `Stopped` when `stop` was raised.
    fn read_chunk(&self, chunk: usize, buffer: &mut [u8], stop: &StopFlag) -> Result<(), SourceError>;

    /// True when every chunk it gives was compared with the index: the engine then does not do it again.
    fn gives_checked_chunks(&self) -> bool {
        false
    }
}

/// An image file, not compressed. It is locked for reading, so that nobody claims it as a card meanwhile.
#[derive(Debug)]
pub struct FileSource {
    file: Flock<File>,
    chunk_size: u64,
}

impl FileSource {
    /// Opens the image that `index` describes.
    ///
    /// # Errors
    /// `Io` when it cannot be opened, `EndedEarly` or `TooLong` when it has not the size the index says,
    /// `InUse` when it is claimed as a card.
    pub fn open(path: &Path, index: &Index) -> Result<Self, SourceError> {
        let file = File::open(path)?;
        let (actual, expected) = (file.metadata()?.len(), index.image_size());
        if actual < expected {
            return Err(SourceError::EndedEarly { actual, expected });
        }
        if actual > expected {
            return Err(SourceError::TooLong { actual, expected });
        }
        let file = match Flock::lock(file, FlockArg::LockSharedNonblock) {
            Ok(file) => file,
            Err((_, Errno::EWOULDBLOCK)) => return Err(SourceError::InUse),
            Err((_, errno)) => return Err(SourceError::Io(errno.into())),
        };
        Ok(Self { file, chunk_size: u64::from(index.chunk_size()) })
    }
}

impl ChunkSource for FileSource {
    fn read_chunk(&self, chunk: usize, buffer: &mut [u8], stop: &StopFlag) -> Result<(), SourceError> {
        if stop.is_stopped() {
            return Err(SourceError::Stopped { chunk });
        }
        let offset = chunk as u64 * self.chunk_size;
        self.file.read_exact_at(buffer, offset).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => SourceError::EndedEarly {
                actual: self.file.metadata().map_or(offset, |m| m.len()),
                expected: offset + buffer.len() as u64,
            },
            _ => SourceError::Io(error),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::map::index_file;

    #[test]
    fn an_image_of_another_size_than_its_index_is_named_with_both_sizes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("image");
        std::fs::write(&path, vec![7; 200_000]).unwrap();
        let index = index_file(&path, None, Some(64 * 1024), &mut |_, _| ()).unwrap();
        let source = FileSource::open(&path, &index).unwrap();
        File::options().write(true).open(&path).unwrap().set_len(70_000).unwrap();
        let mut buffer = vec![0; 64 * 1024];
        let stop = StopFlag::new();
        source.read_chunk(0, &mut buffer, &stop).unwrap();
        let error = source.read_chunk(1, &mut buffer, &stop).unwrap_err();
        assert!(matches!(error, SourceError::EndedEarly { actual: 70_000, expected: 131_072 }), "{error}");
        let error = FileSource::open(&path, &index).unwrap_err();
        assert!(matches!(error, SourceError::EndedEarly { actual: 70_000, expected: 200_000 }), "{error}");
        File::options().write(true).open(&path).unwrap().set_len(200_001).unwrap();
        let error = FileSource::open(&path, &index).unwrap_err();
        assert!(matches!(error, SourceError::TooLong { actual: 200_001, expected: 200_000 }), "{error}");
        stop.stop();
        assert!(matches!(source.read_chunk(0, &mut buffer, &stop), Err(SourceError::Stopped { chunk: 0 })));
    }
}
