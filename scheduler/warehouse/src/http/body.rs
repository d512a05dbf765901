//! Streams pieces of a file, and text between them, with one piece in memory. Called by `images`.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, IoSliceMut};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use futures_util::stream;
use rustix::io::{ReadWriteFlags, preadv2};

/// Bytes read at once. Measured (unoptimised build, loopback, 1 GiB): one download 1.3–1.4 GB/s and 168 KiB of
/// memory for each of 500 stalled ones; twice the size is no faster and takes 350 KiB.
const PIECE: u64 = 64 * 1024;

/// A run of an answer's bytes.
pub(crate) enum Segment {
    /// These.
    Text(String),
    /// Those of the file.
    File(Range<u64>),
}

impl Segment {
    /// How many bytes it is.
    pub(crate) fn size(&self) -> u64 {
        match self {
            Self::Text(text) => text.len() as u64,
            Self::File(range) => range.end - range.start,
        }
    }
}

/// Asked before each piece: false breaks the answer off.
pub(crate) type Gate = Arc<dyn Fn() -> bool + Send + Sync>;

/// The body made of these segments. A read error breaks the connection off: the length was promised.
pub(crate) fn stream(file: File, segments: Vec<Segment>, gate: Option<Gate>) -> Body {
    let state = (Arc::new(file), VecDeque::from(segments), gate);
    Body::from_stream(stream::try_unfold(state, |(file, mut segments, gate)| async move {
        if gate.as_ref().is_some_and(|open| !open()) {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        let bytes = match segments.pop_front() {
            None => return Ok(None),
            Some(Segment::Text(text)) => Bytes::from(text),
            Some(Segment::File(range)) => {
                let end = range.end.min(range.start + PIECE);
                if end < range.end {
                    segments.push_front(Segment::File(end..range.end));
                }
                read(file.clone(), range.start..end).await?
            }
        };
        Ok::<_, io::Error>(Some((bytes, (file, segments, gate))))
    }))
}

/// What the kernel has in memory is copied here and now, which is cheaper than another thread; what it would have to
/// wait for is read on a thread that may block.
async fn read(file: Arc<File>, range: Range<u64>) -> io::Result<Bytes> {
    let mut bytes = vec![0; (range.end - range.start) as usize];
    let here = preadv2(&file, &mut [IoSliceMut::new(&mut bytes)], range.start, ReadWriteFlags::NOWAIT);
    // Any error, also of a file system without NOWAIT, is left to the second read to repeat or not.
    let here = here.unwrap_or(0);
    if here == bytes.len() {
        return Ok(bytes.into());
    }
    let read = tokio::task::spawn_blocking(move || {
        file.read_exact_at(&mut bytes[here..], range.start + here as u64)?;
        Ok(Bytes::from(bytes))
    });
    read.await.expect("reading does not panic")
}
