//! The join token that a new appliance is given: `csj1.<id 6>.<secret 26>.<ca 16>`, lower-case Crockford
//! base32. Its last part pins the server's CA, so that the secret is never sent to a stranger.

use std::fmt;
use std::str::FromStr;

use crate::ids::{BadId, serde_as_text};

const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
const ID_SIZE: usize = 6;
const SECRET_SIZE: usize = 26;
const CA_SIZE: usize = 16;

/// A join token. `Debug` shows the id only.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    /// Public: names the token in lists and logs.
    pub id: String,
    /// What the server compares, in constant time, by its digest.
    pub secret: String,
    /// First 80 bits of the SHA-256 of the server CA's SubjectPublicKeyInfo; all `0` = public CAs.
    pub ca: String,
}

impl JoinToken {
    /// Makes a token from 32 random bytes.
    pub fn from_random(random: &[u8; 32], ca: Option<[u8; 10]>) -> Self {
        let text = crockford(random);
        Self {
            id: text[..ID_SIZE].to_owned(),
            secret: text[ID_SIZE..ID_SIZE + SECRET_SIZE].to_owned(),
            ca: ca.map_or_else(|| "0".repeat(CA_SIZE), |ca| crockford(&ca)),
        }
    }

    /// True when the server is to be checked against the public CAs.
    pub fn uses_public_ca(&self) -> bool {
        self.ca.bytes().all(|b| b == b'0')
    }

    /// What the appliance signs to prove that it holds the key it joins with.
    pub fn proof_message(&self, public_key: &[u8; 32]) -> Vec<u8> {
        [b"cardshop join 1\n", self.id.as_bytes(), b"\n", public_key].concat()
    }
}

/// Lower-case Crockford base32 without padding; the last character holds the remaining bits, left-aligned.
pub fn crockford(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(5) * 8);
    let (mut bits, mut held) = (0u32, 0u32);
    for byte in bytes {
        bits = (bits << 8) | u32::from(*byte);
        held += 8;
        while held >= 5 {
            held -= 5;
            text.push(char::from(ALPHABET[(bits >> held) as usize & 31]));
        }
    }
    if held > 0 {
        text.push(char::from(ALPHABET[(bits << (5 - held)) as usize & 31]));
    }
    text
}

/// The six characters that console and dashboard show: both sides derive them from both keys.
pub fn pairing_code(appliance_key: &[u8; 32], server_key: &[u8; 32]) -> String {
    let mut hasher = blake3::Hasher::new_derive_key("cardshop 2026 pairing code");
    hasher.update(appliance_key).update(server_key);
    crockford(hasher.finalize().as_bytes())[..6].to_uppercase()
}

impl fmt::Display for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "csj1.{}.{}.{}", self.id, self.secret, self.ca)
    }
}
impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JoinToken({}, secret hidden)", self.id)
    }
}
impl FromStr for JoinToken {
    type Err = BadId;
    fn from_str(text: &str) -> Result<Self, BadId> {
        // The text may be a secret: an error never repeats it.
        let wrong = || BadId { text: "the join token".into(), wanted: "csj1.<id 6>.<secret 26>.<ca 16>" };
        let text = text.trim();
        let parts: Vec<&str> = text.split('.').collect();
        let [prefix, id, secret, ca] = parts[..] else { return Err(wrong()) };
        let good = |part: &str, size| part.len() == size && part.bytes().all(|b| ALPHABET.contains(&b));
        if prefix == "csj1" && good(id, ID_SIZE) && good(secret, SECRET_SIZE) && good(ca, CA_SIZE) {
            Ok(Self { id: id.into(), secret: secret.into(), ca: ca.into() })
        } else {
            Err(wrong())
        }
    }
}
serde_as_text!(JoinToken, "^csj1[.]");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_join_token_is_read_back_and_never_shown_whole_by_debug() {
        let token = JoinToken::from_random(&[0x5a; 32], None);
        let text = token.to_string();
        assert_eq!(text.len(), 5 + 6 + 1 + 26 + 1 + 16);
        assert_eq!(text.parse::<JoinToken>(), Ok(token.clone()));
        assert!(token.uses_public_ca());
        assert!(!format!("{token:?}").contains(&token.secret));
        let pinned = JoinToken::from_random(&[1; 32], Some([0xff; 10]));
        assert_eq!(pinned.ca, "z".repeat(16));
        for bad in ["", "csj1", "csj2.a.b.c", &text.to_uppercase(), &text[..text.len() - 1]] {
            assert!(bad.parse::<JoinToken>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn crockford_matches_known_values() {
        assert_eq!(crockford(&[0xff]), "zw");
        assert_eq!(crockford(b"hello"), "d1jprv3f");
    }
}
