//! Writes the torrent of an image: one file, no tracker, and our own range URL as web seed. Pure.
//! **Source:** BEP 3 (bencoding, info dictionary), BEP 19 (`url-list`).

/// Smallest piece: below it the torrent outgrows what a small repair saves.
const MIN_PIECE_SIZE: u64 = 256 * 1024;
/// Largest piece: clients keep whole ones in memory.
const MAX_PIECE_SIZE: u64 = 16 * 1024 * 1024;
/// Pieces aimed at: 40 KiB of digests.
const PIECES: u64 = 2048;

/// Bytes of a piece for an image of this size; a power of two.
pub(crate) fn piece_size(image_size: u64) -> u64 {
    (image_size / PIECES).next_power_of_two().clamp(MIN_PIECE_SIZE, MAX_PIECE_SIZE)
}

/// The torrent of a file of `size` bytes called `name`, whose pieces have these SHA-1s one after the other, to be had
/// at `url`.
pub(crate) fn torrent(name: &str, size: u64, pieces: &[u8], url: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(pieces.len() + 512);
    // Keys in the order of their bytes, as BEP 3 wants.
    out.extend(b"d");
    text(&mut out, b"created by");
    text(&mut out, concat!("cardshop ", env!("CARGO_PKG_VERSION")).as_bytes());
    text(&mut out, b"info");
    out.extend(b"d");
    text(&mut out, b"length");
    number(&mut out, size);
    text(&mut out, b"name");
    text(&mut out, name.as_bytes());
    text(&mut out, b"piece length");
    number(&mut out, piece_size(size));
    text(&mut out, b"pieces");
    text(&mut out, pieces);
    out.extend(b"e");
    text(&mut out, b"url-list");
    text(&mut out, url.as_bytes());
    out.extend(b"e");
    out
}

fn text(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend(format!("{}:", bytes.len()).bytes());
    out.extend(bytes);
}

fn number(out: &mut Vec<u8>, number: u64) {
    out.extend(format!("i{number}e").bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_torrent_is_bencoded_with_its_keys_in_order() {
        let bytes = torrent("a.img", 5, &[b'x'; 20], "http://h/images/1");
        let version = concat!("cardshop ", env!("CARGO_PKG_VERSION"));
        let expected = format!(
            "d10:created by{}:{version}4:infod6:lengthi5e4:name5:a.img12:piece lengthi262144e6:pieces20:{}e\
             8:url-list17:http://h/images/1e",
            version.len(),
            "x".repeat(20)
        );
        assert_eq!(String::from_utf8(bytes).unwrap(), expected);
    }

    #[test]
    fn pieces_are_powers_of_two_between_their_limits() {
        for (size, piece) in [(1, 256 << 10), (4 << 30, 2 << 20), (8 << 40, 16 << 20)] {
            assert_eq!(piece_size(size), piece, "{size}");
        }
    }
}
