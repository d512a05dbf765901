//! Where the bytes of a `packed` upload belong on the image: it carries the chunks that are not all zero, whole, in
//! the order of the index. Pure; used by `store`.
//!
//! ```text
//! image    │ 0 data │ 1 zero │ 2 zero │ 3 data │ 4 data (shorter) │
//! upload   │ 0               │ 3      │ 4                         │   offsets count these bytes only
//! ```

use cardshop_protocol::index::Index;

/// The chunks that travel.
pub(crate) struct Layout {
    chunks: Vec<u32>,
    chunk_size: u64,
    image_size: u64,
}

impl Layout {
    /// Of the image that `index` describes.
    pub(crate) fn of(index: &Index) -> Self {
        // An index of 2^32 chunks would be 170 GB long; none above 128 MiB is read.
        let chunks = index.travelling().filter_map(|chunk| u32::try_from(chunk).ok()).collect();
        Self { chunks, chunk_size: index.chunk_size().into(), image_size: index.image_size() }
    }

    /// Bytes of the whole upload.
    pub(crate) fn length(&self) -> u64 {
        let Some(last) = self.chunks.len().checked_sub(1) else { return 0 };
        let start = last as u64 * self.chunk_size;
        start + self.chunk_end(last) - self.chunk_start(last)
    }

    /// The image's chunk that the byte at `offset` of the upload belongs to.
    pub(crate) fn chunk_at(&self, offset: u64) -> Option<usize> {
        let number = usize::try_from(offset / self.chunk_size).ok()?;
        self.chunks.get(number).map(|chunk| *chunk as usize)
    }

    /// Where the byte at `offset` of the upload belongs; behind the last one the end of the image.
    pub(crate) fn place(&self, offset: u64) -> u64 {
        let chunk = self.chunk_at(offset);
        chunk.map_or(self.image_size, |c| c as u64 * self.chunk_size + offset % self.chunk_size)
    }

    /// How long the image's file is when `offset` bytes of the upload are in it.
    pub(crate) fn reach(&self, offset: u64) -> u64 {
        if offset == 0 { 0 } else { self.place(offset - 1) + 1 }
    }

    fn chunk_start(&self, number: usize) -> u64 {
        u64::from(self.chunks[number]) * self.chunk_size
    }
    fn chunk_end(&self, number: usize) -> u64 {
        (self.chunk_start(number) + self.chunk_size).min(self.image_size)
    }
}

#[cfg(test)]
mod tests {
    use cardshop_protocol::index::{Extent, ExtentKind, ImageMap, IndexBuilder, MIN_CHUNK_SIZE};

    use super::*;

    #[test]
    fn every_byte_that_travels_has_one_place_and_zero_chunks_have_none() {
        let chunk = u64::from(MIN_CHUNK_SIZE);
        let size = 4 * chunk + 5000;
        let extent = |offset, length, kind| Extent { offset, length, kind };
        let extents = vec![
            extent(0, chunk, ExtentKind::Data),
            extent(chunk, chunk, ExtentKind::Zero),
            extent(3 * chunk, size - 3 * chunk, ExtentKind::Data),
        ];
        let map = ImageMap { image_size: size, extents, passport: vec![] };
        let mut builder = IndexBuilder::new(map, MIN_CHUNK_SIZE).unwrap();
        builder.data(&vec![7; (2 * chunk + 5000) as usize]).unwrap();
        let layout = Layout::of(&builder.finish().unwrap());
        assert_eq!(layout.length(), 2 * chunk + 5000);
        let places = [0, chunk - 1, chunk, 2 * chunk, 2 * chunk + 4999].map(|at| layout.place(at));
        assert_eq!(places, [0, chunk - 1, 3 * chunk, 4 * chunk, size - 1]);
        assert_eq!([0, chunk, 2 * chunk].map(|at| layout.chunk_at(at)), [Some(0), Some(3), Some(4)]);
        assert_eq!((layout.chunk_at(3 * chunk), layout.place(3 * chunk)), (None, size));
        let reach = [0, 1, chunk, chunk + 1, layout.length()].map(|at| layout.reach(at));
        assert_eq!(reach, [0, 1, chunk, 3 * chunk + 1, size]);
    }

    #[test]
    fn an_image_of_zeros_packs_to_nothing() {
        let map = ImageMap { image_size: 10 << 20, extents: vec![], passport: vec![] };
        let layout = Layout::of(&IndexBuilder::new(map, MIN_CHUNK_SIZE).unwrap().finish().unwrap());
        assert_eq!((layout.length(), layout.place(0), layout.reach(0)), (0, 10 << 20, 0));
    }
}
