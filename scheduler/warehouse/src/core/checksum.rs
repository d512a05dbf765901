//! Reads and computes the `Upload-Checksum` of one request's bytes. Pure; called by the upload handlers.
//! **Source:** tus 1.0, checksum extension.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::digest::{Algorithm, Context, SHA1_FOR_LEGACY_USE_ONLY, SHA256};

/// `Tus-Checksum-Algorithm`.
pub(crate) const ALGORITHMS: &str = "sha1,sha256";

/// A header that names no algorithm of ours, or no digest of its length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("upload-checksum is not 'sha1' or 'sha256', a space and the digest in base64")]
pub(crate) struct BadChecksum;

/// What the bytes of one request must digest to.
pub(crate) struct Checksum {
    expected: Vec<u8>,
    context: Context,
}

impl Checksum {
    /// Reads a header's text.
    pub(crate) fn parse(header: &str) -> Result<Self, BadChecksum> {
        let (name, digest) = header.split_once(' ').ok_or(BadChecksum)?;
        let algorithm: &'static Algorithm = match name {
            "sha1" => &SHA1_FOR_LEGACY_USE_ONLY,
            "sha256" => &SHA256,
            _ => return Err(BadChecksum),
        };
        let expected = STANDARD.decode(digest.trim()).map_err(|_| BadChecksum)?;
        if expected.len() != algorithm.output_len() {
            return Err(BadChecksum);
        }
        Ok(Self { expected, context: Context::new(algorithm) })
    }

    /// Takes the next bytes.
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.context.update(bytes);
    }

    /// True when all bytes taken are the ones expected.
    pub(crate) fn matches(self) -> bool {
        self.context.finish().as_ref() == self.expected
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_algorithms_accept_their_bytes_and_no_others() {
        // RFC 3174 and FIPS 180-2: the digests of "abc".
        for header in
            ["sha1 qZk+NkcGgWq6PiVxeFDCbJzQ2J0=", "sha256 ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0="]
        {
            let digest = |parts: &[&[u8]]| {
                let mut checksum = Checksum::parse(header).unwrap();
                parts.iter().for_each(|p| checksum.update(p));
                checksum.matches()
            };
            assert!(digest(&[b"a", b"bc"]), "{header}");
            assert!(!digest(&[b"abd"]) && !digest(&[]), "{header}");
        }
    }

    #[test]
    fn other_algorithms_and_lengths_are_refused() {
        for header in [
            "",
            "sha1",
            "md5 kAFQmDzST7DWlj99KOF/cg==",
            "sha1 AAAA",
            "sha256 qZk+NkcGgWq6PiVxeFDCbJzQ2J0=",
            "sha1 !",
        ] {
            assert!(Checksum::parse(header).is_err(), "{header:?}");
        }
    }
}
