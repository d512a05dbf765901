//! An index as a block map of bmaptool, version 2.0: data and must-be-zero are mapped alike, because bmaptool knows
//! two states only and leaves unmapped bytes alone. Who has the image brings the checksums and SHA-256.
//!
//! **Source:** bmap-tools, *docs/README.md* and `bmaptools/BmapCreate.py`, format 2.0.

use data_encoding::HEXLOWER;

use super::{GRANULE, Index};

impl Index {
    /// The map; `checksums` are the SHA-256 of each range of [`Index::mapped_in`] over the whole image.
    pub fn bmap(&self, checksums: &[[u8; 32]], sha256: impl Fn(&[u8]) -> [u8; 32]) -> String {
        let ranges = self.mapped_in(0..self.image_size());
        let mapped: u64 = ranges.iter().map(|range| (range.end - range.start).div_ceil(GRANULE)).sum();
        let mut lines = String::new();
        for (range, checksum) in ranges.iter().zip(checksums) {
            let (first, last) = (range.start / GRANULE, (range.end - 1) / GRANULE);
            let blocks = if first == last { first.to_string() } else { format!("{first}-{last}") };
            let checksum = HEXLOWER.encode(checksum);
            lines += &format!("        <Range chksum=\"{checksum}\"> {blocks} </Range>\n");
        }
        // The map's own checksum is digested as zeros.
        let unset = HEXLOWER.encode(&[0; 32]);
        let text = format!(
            "<?xml version=\"1.0\" ?>\n<bmap version=\"2.0\">\n    <ImageSize> {} </ImageSize>\n    \
             <BlockSize> {GRANULE} </BlockSize>\n    <BlocksCount> {} </BlocksCount>\n    \
             <MappedBlocksCount> {mapped} </MappedBlocksCount>\n    <ChecksumType> sha256 </ChecksumType>\n    \
             <BmapFileChecksum> {unset} </BmapFileChecksum>\n    <BlockMap>\n{lines}    </BlockMap>\n</bmap>\n",
            self.image_size(),
            self.image_size().div_ceil(GRANULE),
        );
        let own = HEXLOWER.encode(&sha256(text.as_bytes()));
        text.replacen(&unset, &own, 1)
    }
}
