//! Checksums a recipe may name, a digest found in the text of a checksum file, and a reader's bytes held to it. Pure.
//! Used by downloads and inline content.

use sha2::digest::DynDigest;

/// What content must digest to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Checksum {
    algo: Algo,
    value: String,
}

/// How content is digested.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Algo(usize);

/// Names, and hex digits of a digest. MD5 and SHA-1 are for servers that publish nothing better: they find damage, not
/// deceit.
const ALGOS: [(&str, usize); 7] = [
    ("md5", 32),
    ("sha1", 40),
    ("sha224", 56),
    ("sha256", 64),
    ("sha384", 96),
    ("sha512", 128),
    ("blake3", 64),
];

impl Algo {
    /// From a recipe's `algo`.
    ///
    /// # Errors
    /// One line for people: an algorithm that is not known.
    pub fn parse(name: &str) -> Result<Self, String> {
        let plain = name.to_ascii_lowercase().replace('-', "");
        let found = ALGOS.iter().position(|(known, _)| *known == plain);
        let known = || ALGOS.map(|(known, _)| known).join(" ");
        found.map(Self).ok_or_else(|| format!("algo {name:?} is none of {}", known()))
    }

    fn name(self) -> &'static str {
        ALGOS[self.0].0
    }

    /// A digest of this algorithm in lower case, if `text` is one.
    fn value(self, text: &str) -> Option<String> {
        let is_digest = text.len() == ALGOS[self.0].1 && text.bytes().all(|b| b.is_ascii_hexdigit());
        is_digest.then(|| text.to_ascii_lowercase())
    }

    /// The digest of the file `name` in the text of a checksum file: `DIGEST`, `DIGEST  NAME`, `DIGEST *./NAME` or
    /// `ALGO (NAME) = DIGEST`. A text with one digest and no name means that file, whatever it is called.
    ///
    /// # Errors
    /// One line for people.
    pub fn find(self, text: &str, name: &str) -> Result<Checksum, String> {
        let mut nameless = Vec::new();
        for line in text.lines().map(str::trim) {
            let (digest, named) = match line.rsplit_once(") = ") {
                Some((head, digest)) => (digest, head.split_once(" (").map_or("", |h| h.1)),
                None => line.split_once(char::is_whitespace).unwrap_or((line, "")),
            };
            let Some(value) = self.value(digest.trim()) else { continue };
            let named = named.trim().trim_start_matches('*');
            if named.is_empty() {
                nameless.push(value);
            } else if named.rsplit('/').next() == Some(name) {
                return Ok(Checksum { algo: self, value });
            }
        }
        match <[String; 1]>::try_from(nameless) {
            Ok([value]) => Ok(Checksum { algo: self, value }),
            Err(_) => Err(format!("has no {} of {name:?}", self.name())),
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
        let algo = Algo::parse(algo)?;
        match algo.value(value.trim()) {
            Some(value) => Ok(Self { algo, value }),
            None => Err(format!("value is not {} hex digits of {}", ALGOS[algo.0].1, algo.name())),
        }
    }

    pub(crate) fn algo_name(&self) -> &'static str {
        self.algo.name()
    }

    /// A hasher of this algorithm.
    pub fn hasher(&self) -> Hasher {
        Hasher(match self.algo.name() {
            "md5" => Kind::Digest(Box::<md5::Md5>::default()),
            "sha1" => {
                Kind::Ring(Box::new(ring::digest::Context::new(&ring::digest::SHA1_FOR_LEGACY_USE_ONLY)))
            }
            "sha224" => Kind::Digest(Box::<sha2::Sha224>::default()),
            "sha256" => Kind::Digest(Box::<sha2::Sha256>::default()),
            "sha384" => Kind::Digest(Box::<sha2::Sha384>::default()),
            "sha512" => Kind::Digest(Box::<sha2::Sha512>::default()),
            _ => Kind::Blake3(Box::default()),
        })
    }

    /// Holds `hasher`'s bytes to this checksum; the error is what they digest to instead.
    pub fn compare(&self, hasher: Hasher) -> Result<(), String> {
        let actual = hasher.finish();
        if actual == self.value { Ok(()) } else { Err(format!("{}:{actual}", self.algo.name())) }
    }
}

/// A running digest.
pub struct Hasher(Kind);

enum Kind {
    Digest(Box<dyn DynDigest + Send>),
    Ring(Box<ring::digest::Context>),
    Blake3(Box<blake3::Hasher>),
}

impl Hasher {
    /// Takes the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match &mut self.0 {
            Kind::Digest(h) => h.update(bytes),
            Kind::Ring(h) => h.update(bytes),
            Kind::Blake3(h) => {
                h.update(bytes);
            }
        }
    }

    fn finish(self) -> String {
        let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
        match self.0 {
            Kind::Digest(h) => hex(&h.finalize()),
            Kind::Ring(h) => hex(h.finish().as_ref()),
            Kind::Blake3(h) => h.finalize().to_hex().to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Digests of "abc": RFC 1321 A.5, FIPS 180-4 examples, and BLAKE3 by its own library.
    fn of_abc() -> [(&'static str, String); 7] {
        [
            ("MD5", "900150983cd24fb0d6963f7d28e17f72".to_owned()),
            ("sha-1", "a9993e364706816aba3e25717850c26c9cd0d89d".to_owned()),
            ("sha224", "23097d223405d8228642a477bda255b32aadbce4bda0b3f7e36c9da7".to_owned()),
            ("sha256", "BA7816BF8F01CFEA414140DE5DAE2223B00361A396177A9CB410FF61F20015AD".to_owned()),
            (
                "SHA384",
                "cb00753f45a35e8bb5a03d699ac65007272c32ab0eded1631a8b605a43ff5bed\
                 8086072ba1e7cc2358baeca134c825a7"
                    .to_owned(),
            ),
            (
                "sha-512",
                "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a\
                 2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f"
                    .to_owned(),
            ),
            ("blake3", blake3::hash(b"abc").to_hex().to_string()),
        ]
    }

    #[test]
    fn each_algorithm_takes_its_own_digest_and_no_other() {
        for (algo, value) in of_abc() {
            let checksum = Checksum::parse(algo, &value).unwrap();
            let digest = |bytes: &[u8]| {
                let mut hasher = checksum.hasher();
                hasher.update(bytes);
                checksum.compare(hasher)
            };
            assert_eq!(digest(b"abc"), Ok(()), "{algo}");
            let plain = algo.replace('-', "").to_lowercase();
            assert!(digest(b"abd").unwrap_err().starts_with(&plain), "{algo}");
        }
        assert_eq!(
            Checksum::parse("crc32", "12").unwrap_err(),
            "algo \"crc32\" is none of md5 sha1 sha224 sha256 sha384 sha512 blake3"
        );
        assert_eq!(Checksum::parse("sha256", "12").unwrap_err(), "value is not 64 hex digits of sha256");
    }

    #[test]
    fn a_digest_is_found_in_every_usual_checksum_file() {
        let algo = Algo::parse("md5").unwrap();
        let (good, other) = ("900150983cd24fb0d6963f7d28e17f72", "00000000000000000000000000000000");
        for text in [
            good.to_owned(),
            format!("{}\n", good.to_uppercase()),
            format!("{other}  b.zim\n{good}  a.zim\n"),
            format!("{other} *sub/b.zim\r\n{good} *./sub/a.zim\r\n"),
            format!("# comment\nMD5 (b.zim) = {other}\nMD5 (a.zim) = {good}\n"),
        ] {
            assert_eq!(algo.find(&text, "a.zim"), Checksum::parse("md5", good), "{text:?}");
        }
        for text in [String::new(), format!("{good} b.zim"), format!("{good}\n{other}"), "<html>".into()] {
            assert_eq!(algo.find(&text, "a.zim").unwrap_err(), "has no md5 of \"a.zim\"", "{text:?}");
        }
    }
}
