//! What of an image lies here already, in older ones or in the same one on another disk: chunks of the same digest
//! need not travel.
//! Decides who to copy from; the bytes are checked against the new index when they are copied, as if they had
//! come over the wire.

use std::collections::HashMap;

use cardshop_protocol::ids::Digest;
use cardshop_protocol::index::Index;

use super::ranges::{has_bit, travels};

/// A chunk of another file that has the bytes of a chunk of the new one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Copy {
    /// Which older image, by its place in the list that [`plan`] was given.
    pub from: usize,
    /// Its chunk.
    pub from_chunk: usize,
    /// The new image's chunk.
    pub chunk: usize,
}

/// An image in another file, whole or in part.
pub struct Older {
    /// Its index.
    pub index: Index,
    /// One bit for each chunk that is here, lowest bit first.
    pub have: Vec<u8>,
}

/// Which chunks of `new` that are not in `have` can be copied, in the new image's order. `older` first named wins.
pub fn plan(new: &Index, have: &[u8], older: &[Older]) -> Vec<Copy> {
    let mut known: HashMap<Digest, (usize, usize)> = HashMap::new();
    for (from, image) in older.iter().enumerate() {
        for (chunk, record) in image.index.chunks().iter().enumerate() {
            if travels(&image.index, chunk) && has_bit(&image.have, chunk) {
                known.entry(record.digest).or_insert((from, chunk));
            }
        }
    }
    let missing = |chunk: &usize| travels(new, *chunk) && !has_bit(have, *chunk);
    let copy = |chunk: usize| {
        let (from, from_chunk) = *known.get(&new.chunks()[chunk].digest)?;
        let same_size = size(&older[from].index, from_chunk) == size(new, chunk);
        same_size.then_some(Copy { from, from_chunk, chunk })
    };
    (0..new.chunks().len()).filter(missing).filter_map(copy).collect()
}

fn size(index: &Index, chunk: usize) -> u64 {
    let range = index.chunk_range(chunk);
    range.end - range.start
}

#[cfg(test)]
mod tests {
    use super::*;
    use cardshop_protocol::index::{Extent, ExtentKind, ImageMap, IndexBuilder, MIN_CHUNK_SIZE};
    use proptest::prelude::*;

    /// An image of one chunk for each byte of `chunks`, filled with it; the last one is half a chunk long.
    fn image(chunks: &[u8]) -> Index {
        let size = u64::from(MIN_CHUNK_SIZE);
        let image_size = chunks.len() as u64 * size - size / 2;
        let extents = vec![Extent { offset: 0, length: image_size, kind: ExtentKind::Data }];
        let map = ImageMap { image_size, extents, passport: vec![] };
        let mut builder = IndexBuilder::new(map, MIN_CHUNK_SIZE).unwrap();
        let mut bytes: Vec<u8> = chunks.iter().flat_map(|b| vec![*b; size as usize]).collect();
        bytes.truncate(image_size as usize);
        builder.data(&bytes).unwrap();
        builder.finish().unwrap()
    }
    fn older(chunks: &[u8], have: u8) -> Older {
        Older { index: image(chunks), have: vec![have] }
    }

    #[test]
    fn moved_and_repeated_chunks_are_found_and_what_is_not_there_is_not() {
        let new = image(&[1, 2, 3, 2, 4, 5]);
        let old = [older(&[2, 1, 7, 9], 0b0001), older(&[2, 1, 4, 9], 0b0111)];
        let copies: Vec<_> =
            plan(&new, &[], &old).into_iter().map(|c| (c.chunk, c.from, c.from_chunk)).collect();
        assert_eq!(copies, [(0, 1, 1), (1, 0, 0), (3, 0, 0), (4, 1, 2)]);
        let rest: Vec<_> = plan(&new, &[0b1011], &old).into_iter().map(|c| c.chunk).collect();
        assert_eq!(rest, [4], "what is here already is not copied");
    }

    #[test]
    fn a_last_chunk_matches_only_one_of_its_own_length() {
        let new = image(&[1, 8]);
        assert_eq!(plan(&new, &[], &[older(&[8, 1, 1], 0xff)]).len(), 1, "only the whole one");
        let last = plan(&new, &[], &[older(&[3, 8], 0xff)]);
        assert_eq!((last.len(), last[0].chunk, last[0].from_chunk), (1, 1, 1));
    }

    proptest! {
        #[test]
        fn every_copy_has_the_digest_it_is_for_and_no_match_is_missed(
            new in prop::collection::vec(1u8..6, 1..7), first in prop::collection::vec(1u8..6, 1..7),
            second in prop::collection::vec(1u8..6, 1..7), have in any::<[u8; 3]>(),
        ) {
            let index = image(&new);
            let old = [older(&first, have[0]), older(&second, have[1])];
            let here = [have[2]];
            let copies = plan(&index, &here, &old);
            for chunk in 0..index.chunks().len() {
                let digest = index.chunks()[chunk].digest;
                let could = !has_bit(&here, chunk) && old.iter().any(|o| o.index.chunks().iter().enumerate()
                        .any(|(c, record)| record.digest == digest && has_bit(&o.have, c)));
                let found: Vec<_> = copies.iter().filter(|c| c.chunk == chunk).collect();
                prop_assert!(found.len() <= 1);
                prop_assert!(!could || found.len() == 1);
                for copy in found {
                    prop_assert!(!has_bit(&here, chunk) && has_bit(&old[copy.from].have, copy.from_chunk));
                    prop_assert_eq!(old[copy.from].index.chunks()[copy.from_chunk].digest, digest);
                }
            }
        }
    }
}
