//! What must hold for packed images whatever they hold: a decoder's bytes end, at the limit at the latest. Called
//! like `checks.rs`; apart from it because the decoders are a feature of the crate.

use std::io::Cursor;
use std::path::Path;

use cardshop_card::{Packing, StopFlag, index_stream, unpack};

/// Bytes an image may have here: enough for a second chunk, and for a bomb to be found out.
const LIMIT: u64 = 4 << 20;

/// Makes the index of what `bytes` unpack to; the first of them says how they are packed.
pub fn packed(bytes: &[u8]) {
    let Some((kind, bytes)) = bytes.split_first() else { return };
    let packing = [Packing::Xz, Packing::Zstd, Packing::Gzip][usize::from(*kind) % 3];
    let Ok(mut stream) = unpack(packing, Cursor::new(bytes.to_vec())) else { return };
    let mut most = 0;
    let result = index_stream(&mut *stream, Path::new("fuzz"), LIMIT, &StopFlag::new(), &mut |at| most = at);
    assert!(most <= LIMIT, "{most} bytes went by");
    if let Ok(index) = result {
        assert_eq!(index.image_size(), most, "the index is of all the bytes there were");
    }
}
