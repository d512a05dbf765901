//! Checksums a recipe may name, and a reader's bytes held to one. Used by downloads and inline content.

use sha2::{Digest, Sha256, Sha512};

/// What content must digest to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Checksum {
    algo: Algo,
    value: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Algo {
    Sha256,
    Sha512,
    Blake3,
}

impl Algo {
    fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
            Self::Blake3 => "blake3",
        }
    }
    fn hex_len(self) -> usize {
        match self {
            Self::Sha256 | Self::Blake3 => 64,
            Self::Sha512 => 128,
        }
    }
}

impl std::fmt::Display for Checksum {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.algo.name(), self.value)
    }
}

impl Checksum {
    /// From a recipe's `algo` and `value` (hex of either case).
    ///
    /// # Errors
    /// One line for people: an unknown algorithm, or a value that cannot be its digest.
    pub fn parse(algo: &str, value: &str) -> Result<Self, String> {
        let algo = match algo.to_ascii_lowercase().as_str() {
            "sha256" | "sha-256" => Algo::Sha256,
            "sha512" | "sha-512" => Algo::Sha512,
            "blake3" => Algo::Blake3,
            _ => return Err(format!("algo {algo:?} is none of sha256 sha512 blake3")),
        };
        let value = value.trim().to_ascii_lowercase();
        if value.len() != algo.hex_len() || !value.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(format!("value is not {} hex digits of {}", algo.hex_len(), algo.name()));
        }
        Ok(Self { algo, value })
    }

    /// A hasher of this algorithm.
    pub fn hasher(&self) -> Hasher {
        match self.algo {
            Algo::Sha256 => Hasher::Sha256(Sha256::new()),
            Algo::Sha512 => Hasher::Sha512(Sha512::new()),
            Algo::Blake3 => Hasher::Blake3(Box::default()),
        }
    }

    /// Holds `hasher`'s bytes to this checksum; the error is what they digest to instead.
    pub fn compare(&self, hasher: Hasher) -> Result<(), String> {
        let actual = hasher.finish();
        if actual == self.value { Ok(()) } else { Err(format!("{}:{actual}", self.algo.name())) }
    }
}

/// A running digest.
pub enum Hasher {
    /// SHA-256.
    Sha256(Sha256),
    /// SHA-512.
    Sha512(Sha512),
    /// BLAKE3.
    Blake3(Box<blake3::Hasher>),
}

impl Hasher {
    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(h) => h.update(bytes),
            Self::Sha512(h) => h.update(bytes),
            Self::Blake3(h) => {
                h.update(bytes);
            }
        }
    }

    fn finish(self) -> String {
        let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
        match self {
            Self::Sha256(h) => hex(&h.finalize()),
            Self::Sha512(h) => hex(&h.finalize()),
            Self::Blake3(h) => h.finalize().to_hex().to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_algorithm_takes_its_own_digest_and_no_other() {
        // Digests of "abc": FIPS 180-4 examples, and BLAKE3 by its own library.
        let sha256 = "BA7816BF8F01CFEA414140DE5DAE2223B00361A396177A9CB410FF61F20015AD";
        let sha512 = "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a\
                      2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f";
        let blake3 = blake3::hash(b"abc").to_hex().to_string();
        for (algo, value) in [("sha256", sha256), ("sha-512", sha512), ("blake3", &blake3)] {
            let checksum = Checksum::parse(algo, value).unwrap();
            let digest = |bytes: &[u8]| {
                let mut hasher = checksum.hasher();
                hasher.update(bytes);
                checksum.compare(hasher)
            };
            assert_eq!(digest(b"abc"), Ok(()));
            assert!(digest(b"abd").unwrap_err().starts_with(algo.replace('-', "").as_str()));
        }
        assert_eq!(
            Checksum::parse("md5", sha256).unwrap_err(),
            "algo \"md5\" is none of sha256 sha512 blake3"
        );
        assert_eq!(Checksum::parse("sha256", "12").unwrap_err(), "value is not 64 hex digits of sha256");
    }
}
