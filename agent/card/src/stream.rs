//! An image that can only be read from front to back: a packed file, or a body that comes over a wire. Gives its
//! chunks in ascending order, each compared with the index; makes the index of one that has none. Called by
//! `shared` and the command line; `packed` and the command line's client make streams.

use std::io::{self, Read};

use cardshop_protocol::index::{Index, IndexBuilder};

use crate::map::IndexFileError;
use crate::source::SourceError;
use crate::stop::StopFlag;

/// Bytes read at a time where nobody keeps them.
const PIECE: usize = 256 * 1024;
/// Chunk size of an index made from a stream, whose size is not known before its end.
const STREAM_CHUNK_SIZE: u32 = 256 * 1024;

/// Bytes of an image, front to back.
pub trait ImageStream: Read + Send {
    /// Leaves out the next bytes; gives how many there were, fewer only at the end. The default reads them.
    ///
    /// # Errors
    /// As reading.
    fn skip(&mut self, bytes: u64) -> io::Result<u64> {
        io::copy(&mut Read::take(self, bytes), &mut io::sink())
    }
}

/// The chunks of a stream, in ascending order.
pub(crate) struct ChunkStream {
    stream: Box<dyn ImageStream>,
    at: u64,
}

impl ChunkStream {
    pub(crate) fn new(stream: Box<dyn ImageStream>) -> Self {
        Self { stream, at: 0 }
    }

    /// Reads a chunk behind those read before; what no extent lists is left out and zero in `buffer`.
    ///
    /// # Errors
    /// `EndedEarly`, `Corrupt`, `Io`. The stream is of no use after that.
    pub(crate) fn read_chunk(
        &mut self,
        index: &Index,
        chunk: usize,
        buffer: &mut [u8],
    ) -> Result<(), SourceError> {
        let range = index.chunk_range(chunk);
        buffer.fill(0);
        for extent in index.extents_in(range.clone()) {
            let gap = extent.offset.saturating_sub(self.at);
            let skipped = self.stream.skip(gap)?;
            self.at += skipped;
            if skipped < gap {
                return Err(self.ended(index));
            }
            let mut bytes = &mut buffer[(extent.offset - range.start) as usize..][..extent.length as usize];
            while !bytes.is_empty() {
                match self.stream.read(bytes) {
                    Ok(0) => return Err(self.ended(index)),
                    Ok(count) => {
                        self.at += count as u64;
                        bytes = &mut bytes[count..];
                    }
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                        return Err(self.ended(index));
                    }
                    Err(error) => return Err(error.into()),
                }
            }
        }
        if index.chunk_matches(chunk, buffer) {
            Ok(())
        } else {
            Err(SourceError::Corrupt { chunk, offset: range.start })
        }
    }

    fn ended(&self, index: &Index) -> SourceError {
        SourceError::EndedEarly { actual: self.at, expected: index.image_size() }
    }
}

/// Makes the index of a stream in one pass with one buffer. All of it is data; chunks of zeros do not travel
/// nonetheless. Refused when the stream has more than `limit` bytes: what a small file unpacks to may be endless.
/// `progress` gets the bytes so far.
///
/// # Errors
/// `Empty`, `TooLarge`, `Read`; `Stopped` when `stop` was raised.
pub fn index_stream(
    stream: &mut dyn ImageStream,
    name: &std::path::Path,
    limit: u64,
    stop: &StopFlag,
    progress: &mut dyn FnMut(u64),
) -> Result<Index, IndexFileError> {
    let mut builder = IndexBuilder::of_stream(STREAM_CHUNK_SIZE)?;
    let mut buffer = vec![0; PIECE];
    let mut at = 0;
    loop {
        if stop.is_stopped() {
            return Err(IndexFileError::Stopped);
        }
        let count = match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) if stop.is_stopped() => return Err(IndexFileError::Stopped),
            Err(source) => {
                return Err(IndexFileError::Read { path: name.to_owned(), offset: at, source });
            }
        };
        at += count as u64;
        if at > limit {
            return Err(IndexFileError::TooLarge { path: name.to_owned(), limit });
        }
        builder.data(&buffer[..count])?;
        progress(at);
    }
    if at == 0 {
        return Err(IndexFileError::Empty(name.to_owned()));
    }
    Ok(builder.finish_here()?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    struct Bytes(io::Cursor<Vec<u8>>);

    impl Read for Bytes {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let most = buffer.len().min(10_007);
            self.0.read(&mut buffer[..most])
        }
    }

    impl ImageStream for Bytes {}

    fn noise(length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        blake3::Hasher::new_derive_key("cardshop-card stream tests").finalize_xof().fill(&mut bytes);
        bytes
    }

    fn index(bytes: &[u8], limit: u64) -> Result<Index, IndexFileError> {
        let mut stream = Bytes(io::Cursor::new(bytes.to_vec()));
        index_stream(&mut stream, Path::new("stream"), limit, &StopFlag::new(), &mut |_| ())
    }

    #[test]
    fn the_index_of_a_stream_matches_its_bytes_and_zeros_do_not_travel() {
        let mut bytes = noise(1_000_003);
        bytes[262_144..524_288].fill(0);
        let index = index(&bytes, 1_000_003).unwrap();
        assert_eq!((index.image_size(), index.chunks().len()), (1_000_003, 4));
        assert!(index.chunks()[1].all_zero);
        let mut stream = ChunkStream::new(Box::new(Bytes(io::Cursor::new(bytes.clone()))));
        for chunk in [0, 2, 3] {
            let range = index.chunk_range(chunk);
            let mut buffer = vec![9; (range.end - range.start) as usize];
            stream.read_chunk(&index, chunk, &mut buffer).unwrap();
            assert!(buffer == bytes[range.start as usize..range.end as usize], "{chunk}");
        }
    }

    #[test]
    fn a_stream_that_is_cut_changed_or_too_long_is_named() {
        let bytes = noise(600_000);
        let index = index(&bytes, 600_000).unwrap();
        let read = |bytes: &[u8], chunk: usize| {
            let mut stream = ChunkStream::new(Box::new(Bytes(io::Cursor::new(bytes.to_vec()))));
            let range = index.chunk_range(chunk);
            stream.read_chunk(&index, chunk, &mut vec![0; (range.end - range.start) as usize]).unwrap_err()
        };
        let error = read(&bytes[..300_000], 1);
        assert!(matches!(error, SourceError::EndedEarly { actual: 300_000, expected: 600_000 }), "{error}");
        let error = read(&bytes[..200_000], 2);
        assert!(matches!(error, SourceError::EndedEarly { actual: 200_000, .. }), "{error}");
        let mut changed = bytes.clone();
        changed[300_000] ^= 1;
        assert!(matches!(read(&changed, 1), SourceError::Corrupt { chunk: 1, offset: 262_144 }));
        let error = self::index(&bytes, 599_999).unwrap_err();
        assert!(matches!(error, IndexFileError::TooLarge { limit: 599_999, .. }), "{error}");
        assert!(matches!(self::index(&[], 1), Err(IndexFileError::Empty(_))));
    }
}
