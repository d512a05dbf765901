//! What must hold for the decoder whatever it is given. The fuzz target calls it with random bytes, the test
//! `tests/fuzz_seeds.rs` with the files in `seeds/`; a finding becomes a file there.

use cardshop_protocol::index::Index;
use cardshop_protocol::update::{Check, Head, MAX_HEAD_SIZE};

/// Decodes, and asks a decoded index everything that others compute with.
pub fn index(bytes: &[u8]) {
    let Ok(index) = Index::decode(bytes) else { return };
    assert_eq!(index.encode(), bytes, "one index has one spelling");
    let mut end = 0;
    for extent in index.extents() {
        assert!(extent.length > 0 && extent.offset >= end, "extents ascend");
        end = extent.end();
    }
    assert!(end <= index.image_size(), "extents lie inside the image");
    let mut mapped = 0;
    for chunk in 0..index.chunks().len() {
        let range = index.chunk_range(chunk);
        assert!(range.start < range.end && range.end <= index.image_size());
        mapped += index.extents_in(range).map(|extent| extent.length).sum::<u64>();
    }
    assert_eq!(mapped, index.data_bytes() + index.zero_bytes(), "chunks hold all that is mapped");
}

/// A file is an update or is not; one that is says how long it is, and is the same in any pieces.
pub fn update(bytes: &[u8]) {
    let Ok(head) = Head::decode(&bytes[..bytes.len().min(MAX_HEAD_SIZE)]) else { return };
    assert!(head.size() <= head.file_size());
    let whole = |piece: usize| {
        let mut check = Check::new(&head);
        bytes.chunks(piece).try_for_each(|piece| check.push(piece))?;
        check.finish()
    };
    let (small, large) = (whole(7), whole(4096));
    assert_eq!(small, large, "what is in one piece or in many");
    assert!(small.is_err() || bytes.len() as u64 >= head.file_size());
}
