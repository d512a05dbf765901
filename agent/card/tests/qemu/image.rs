//! The image that the guest writes and the host knows: the same bytes on both sides.

use cardshop_card::{ChunkSource, SourceError, StopFlag};
use cardshop_protocol::index::{Extent, ExtentKind, ImageMap, Index, IndexBuilder};

pub(crate) const MIB: u64 = 1 << 20;
const CHUNK: u32 = 256 * 1024;
/// Ends within a block.
const SIZE: u64 = 8 * MIB - 1000;

pub(crate) struct Image {
    pub(crate) bytes: Vec<u8>,
    pub(crate) index: Index,
}

impl Image {
    /// Data, half a MiB that must be zero, a MiB nobody cares about, data to the end.
    pub(crate) fn new() -> Self {
        let extent = |offset, length, kind| Extent { offset, length, kind };
        let extents = vec![
            extent(0, 3 * MIB, ExtentKind::Data),
            extent(3 * MIB, MIB / 2, ExtentKind::Zero),
            extent(5 * MIB, SIZE - 5 * MIB, ExtentKind::Data),
        ];
        let mut bytes = vec![0; SIZE as usize];
        let map = ImageMap { image_size: SIZE, extents: extents.clone(), passport: Vec::new() };
        let mut builder = IndexBuilder::new(map, CHUNK).unwrap();
        for data in extents.iter().filter(|e| e.kind == ExtentKind::Data) {
            let place = &mut bytes[data.offset as usize..data.end() as usize];
            let mut noise = blake3::Hasher::new_derive_key("cardshop-card guest image");
            noise.update(&data.offset.to_le_bytes()).finalize_xof().fill(place);
            builder.data(place).unwrap();
        }
        Self { bytes, index: builder.finish().unwrap() }
    }

    /// The first mapped byte in which a card differs.
    pub(crate) fn difference(&self, card: &[u8]) -> Option<u64> {
        let mapped = self.index.extents().iter().flat_map(|e| e.offset..e.end());
        mapped.into_iter().find(|at| card[*at as usize] != self.bytes[*at as usize])
    }
}

impl ChunkSource for Image {
    fn read_chunk(&self, chunk: usize, buffer: &mut [u8], _: &StopFlag) -> Result<(), SourceError> {
        let range = self.index.chunk_range(chunk);
        buffer.copy_from_slice(&self.bytes[range.start as usize..range.end as usize]);
        Ok(())
    }
}
