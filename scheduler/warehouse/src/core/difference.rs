//! Which chunks of an image somebody lacks who has another one. Pure; called by the download handler.

use std::collections::HashSet;

use cardshop_protocol::index::Index;
use serde::Serialize;

/// The answer to `GET /images/{id}/chunks?have={older}`.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Difference {
    /// Bytes of a chunk.
    pub chunk_size: u32,
    /// Runs of chunks that are lacking: first chunk, count.
    pub missing: Vec<(usize, usize)>,
    /// Bytes of them.
    pub bytes: u64,
}

/// What of `image` is not in `older`, zeros left out. Chunks of another size are other chunks.
pub(crate) fn difference(image: &Index, older: &Index) -> Difference {
    let had: HashSet<_> = match older.chunk_size() == image.chunk_size() {
        true => older.chunks().iter().map(|chunk| chunk.digest).collect(),
        false => HashSet::new(),
    };
    let mut answer = Difference { chunk_size: image.chunk_size(), missing: Vec::new(), bytes: 0 };
    for number in image.travelling() {
        if had.contains(&image.chunks()[number].digest) {
            continue;
        }
        let range = image.chunk_range(number);
        answer.bytes += range.end - range.start;
        match answer.missing.last_mut() {
            Some((first, count)) if *first + *count == number => *count += 1,
            _ => answer.missing.push((number, 1)),
        }
    }
    answer
}

#[cfg(test)]
mod tests {
    use cardshop_protocol::index::{Extent, ExtentKind, ImageMap, IndexBuilder, MIN_CHUNK_SIZE};

    use super::*;

    fn index(chunk_size: u32, fill: &[u8]) -> Index {
        let bytes: Vec<u8> = fill.iter().flat_map(|b| vec![*b; MIN_CHUNK_SIZE as usize]).collect();
        let size = bytes.len() as u64;
        let extents = vec![Extent { offset: 0, length: size, kind: ExtentKind::Data }];
        let map = ImageMap { image_size: size, extents, passport: vec![] };
        let mut builder = IndexBuilder::new(map, chunk_size).unwrap();
        builder.data(&bytes).unwrap();
        builder.finish().unwrap()
    }

    #[test]
    fn only_chunks_that_are_nowhere_in_the_older_image_are_named_in_runs() {
        let older = index(MIN_CHUNK_SIZE, &[1, 2, 3, 4]);
        let newer = index(MIN_CHUNK_SIZE, &[4, 9, 8, 0, 1, 7]);
        let answer = difference(&newer, &older);
        assert_eq!(answer.missing, [(1, 2), (5, 1)]);
        assert_eq!(answer.bytes, 3 * u64::from(MIN_CHUNK_SIZE));
        assert_eq!(difference(&newer, &newer).bytes, 0);
        let other = difference(&newer, &index(2 * MIN_CHUNK_SIZE, &[4, 9, 8, 0, 1, 7]));
        assert_eq!(other.missing, [(0, 3), (4, 2)]);
    }
}
