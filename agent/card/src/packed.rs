//! Packed images: `.xz`, `.zst` and `.gz` as streams of the image's bytes. What is read is hostile: the memory of
//! each decoder is bounded here, the bytes that come out by whoever reads (`stream`). A fuzz target calls
//! [`unpack`] over any bytes. In the feature `packed`, because the appliance gets its images in chunks.

use std::io::{self, BufReader, Read};
use std::path::Path;

use liblzma::stream::{CONCATENATED, Stream};

use crate::stream::ImageStream;

/// Memory an xz decoder may take, bytes: `xz -9` needs 65 MiB; more is nothing an image was packed with.
const XZ_MEMORY: u64 = 100 << 20;
/// Largest window of a zstd decoder, as a power of two: 128 MiB, the most `zstd -d` takes unasked.
const ZSTD_WINDOW_LOG: u32 = 27;
/// Bytes read from the packed file at a time.
const READ_SIZE: usize = 256 * 1024;

/// How an image is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packing {
    /// `.xz`
    Xz,
    /// `.zst`
    Zstd,
    /// `.gz`
    Gzip,
}

impl Packing {
    /// By the end of a file's name.
    pub fn of_name(name: &Path) -> Option<Self> {
        match name.extension()?.to_str()?.to_ascii_lowercase().as_str() {
            "xz" => Some(Self::Xz),
            "zst" => Some(Self::Zstd),
            "gz" => Some(Self::Gzip),
            _ => None,
        }
    }

    /// By a file's first bytes: six are enough.
    ///
    /// **Source:** *The .xz File Format* §2.1.1.1, RFC 8878 §3.1.1, RFC 1952 §2.3.1.
    pub fn of_bytes(first: &[u8]) -> Option<Self> {
        match first {
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Some(Self::Xz),
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Some(Self::Zstd),
            [0x1f, 0x8b, 8, ..] => Some(Self::Gzip),
            _ => None,
        }
    }
}

/// The bytes that packed bytes stand for; several packed parts one after the other are one image.
///
/// # Errors
/// The decoder cannot be made; what is wrong with the bytes shows when they are read.
pub fn unpack(packing: Packing, packed: impl Read + Send + 'static) -> io::Result<Box<dyn ImageStream>> {
    let packed = BufReader::with_capacity(READ_SIZE, packed);
    Ok(match packing {
        Packing::Xz => {
            let stream = Stream::new_stream_decoder(XZ_MEMORY, CONCATENATED)?;
            Box::new(Unpacked(liblzma::read::XzDecoder::new_stream(packed, stream)))
        }
        Packing::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(packed)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG)?;
            Box::new(Unpacked(decoder))
        }
        Packing::Gzip => Box::new(Unpacked(flate2::bufread::MultiGzDecoder::new(packed))),
    })
}

struct Unpacked<R>(R);

impl<R: Read> Read for Unpacked<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl<R: Read + Send> ImageStream for Unpacked<R> {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::map::IndexFileError;
    use crate::stop::StopFlag;
    use crate::stream::index_stream;
    use std::io::{Cursor, Write};

    fn pack(packing: Packing, bytes: &[u8]) -> Vec<u8> {
        match packing {
            Packing::Xz => {
                let mut packer = liblzma::write::XzEncoder::new(Vec::new(), 1);
                packer.write_all(bytes).unwrap();
                packer.finish().unwrap()
            }
            Packing::Zstd => zstd::encode_all(bytes, 1).unwrap(),
            Packing::Gzip => {
                let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                packer.write_all(bytes).unwrap();
                packer.finish().unwrap()
            }
        }
    }

    const ALL: [Packing; 3] = [Packing::Xz, Packing::Zstd, Packing::Gzip];

    #[test]
    fn parts_one_after_the_other_are_one_image_and_the_kind_is_told_by_name_and_bytes() {
        for packing in ALL {
            let packed = [pack(packing, &[1; 100_000]), pack(packing, &[2; 50_000])].concat();
            assert_eq!(Packing::of_bytes(&packed), Some(packing));
            let mut bytes = Vec::new();
            unpack(packing, Cursor::new(packed)).unwrap().read_to_end(&mut bytes).unwrap();
            assert!(bytes == [vec![1; 100_000], vec![2; 50_000]].concat(), "{packing:?}");
        }
        let names = ["a.img.XZ", "a.zst", "a.img.gz", "a.img", "xz"].map(|n| Packing::of_name(Path::new(n)));
        assert_eq!(names, [Some(Packing::Xz), Some(Packing::Zstd), Some(Packing::Gzip), None, None]);
        assert_eq!(Packing::of_bytes(b"\x1f"), None);
    }

    #[test]
    fn a_small_file_that_unpacks_to_very_much_ends_at_the_limit() {
        for packing in ALL {
            let bomb = pack(packing, &vec![0; 64 << 20]);
            assert!(bomb.len() < 1 << 20);
            let mut stream = unpack(packing, Cursor::new(bomb)).unwrap();
            let limit = 10 << 20;
            let mut most = 0;
            let result =
                index_stream(&mut *stream, Path::new("bomb"), limit, &StopFlag::new(), &mut |at| most = at);
            assert!(matches!(result, Err(IndexFileError::TooLarge { .. })), "{packing:?}");
            assert!(most <= limit);
        }
    }

    #[test]
    fn cut_and_damaged_files_are_errors_and_not_short_images() {
        let mut noise = vec![0; 300_000];
        blake3::Hasher::new_derive_key("packed").finalize_xof().fill(&mut noise);
        for packing in ALL {
            let good = pack(packing, &noise);
            let read = |bytes: Vec<u8>| -> io::Result<u64> {
                io::copy(&mut unpack(packing, Cursor::new(bytes))?, &mut io::sink())
            };
            assert_eq!(read(good.clone()).unwrap(), 300_000);
            assert!(read(good[..good.len() / 2].to_vec()).is_err(), "{packing:?} cut");
            let mut damaged = good.clone();
            damaged[good.len() / 2] ^= 0x10;
            // gzip and xz carry a checksum; zstd may leave it to the index.
            let told = read(damaged).is_err();
            assert!(told || packing == Packing::Zstd, "{packing:?} damaged");
            assert!(read(noise.clone()).is_err(), "{packing:?} is something else");
        }
    }
}
