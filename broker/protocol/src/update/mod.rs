//! An update of the appliance: one signed file, which is the partition set itself. It is a tar, so GRUB opens it where it lies.
//!
//! ```text
//!   manifest    JSON: version, the parts with their sizes and SHA-256, the keys that are trusted once it runs
//!   signature   key id and Ed25519 signature over the manifest; missing in the set of a disk that was just made
//!   vmlinuz     kernel
//!   initramfs   everything else
//!   zeros       the tar's end
//! ```
//!
//! It is no general tar: names, order and sizes follow from the manifest, and everything else is refused. [`Head`] is the
//! part in front, which says what the file is; [`Check`] takes the whole file as a stream. Who may sign, and whether a
//! version may follow another, the appliance decides.
//!
//! Keys are rotated by updates: the manifest, signed by a key that is trusted now, lists those that are trusted after it.
//! A server that was taken over can offer no other software that way, and a stick without a network knows the newest keys.

mod check;
mod tar;
#[cfg(test)]
mod tests;
mod version;

use data_encoding::HEXLOWER;
use ed25519_dalek::{Signer, SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};

pub use check::Check;
pub use version::{NoVersion, Version};

use crate::ids::KeyId;
use crate::keys::{decode_public, decode_signature, encode_public, encode_signature, key_id};

/// Largest manifest, bytes: ours have 600.
pub const MAX_MANIFEST_SIZE: u64 = 16 * 1024;
/// Largest update, bytes: two of them fit onto the boot partition. Debian's kernel and drivers take 25 MB.
pub const MAX_UPDATE_SIZE: u64 = 46 << 20;
/// Bytes at the front of a file that are enough for [`Head::decode`].
pub const MAX_HEAD_SIZE: usize = 512 + MAX_MANIFEST_SIZE as usize + 512 + 512;
/// The parts, in the order in which they lie there.
pub const PARTS: [&str; 2] = ["vmlinuz", "initramfs"];
/// Name of an update on a stick: what any computer can write, 8.3.
pub const STICK_FILE: &str = "CARDSHOP.UPD";
/// Keys in one manifest: the one that signs, its successor, and a spare of each.
pub const MAX_KEYS: usize = 4;
/// What is signed begins with this, so that a signature made for an update is good for nothing else.
const SIGNED_AS: &[u8] = b"cardshop-update-1\n";

/// What an update is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Format: 1.
    pub v: u8,
    /// Version of the appliance that runs it.
    pub version: Version,
    /// What it was made of, for people.
    #[serde(default)]
    pub origin: String,
    /// [`PARTS`], in this order.
    pub parts: Vec<Part>,
    /// Public keys, base64url, that sign what may follow this version. None = it takes no updates.
    #[serde(default)]
    pub keys: Vec<String>,
}

/// One file in it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Its name.
    pub name: String,
    /// Bytes.
    pub size: u64,
    /// SHA-256, lower-case hex.
    pub sha256: String,
}

/// Why a file is no update, or none that is trusted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UpdateError {
    /// It is something else.
    #[error("this is no update: {0}")]
    Format(&'static str),
    /// Its manifest cannot be read.
    #[error("the update's manifest is not readable: {0}")]
    Manifest(String),
    /// It is too large for the boot partition.
    #[error("the update has {size} bytes, at most {MAX_UPDATE_SIZE} have room")]
    TooLarge {
        /// Bytes.
        size: u64,
    },
    /// Nobody signed it.
    #[error("nobody has signed this update")]
    Unsigned,
    /// It was signed with a key that is not trusted.
    #[error("this update is signed by key {0}, which is not trusted here")]
    UnknownKey(KeyId),
    /// The signature is not of this manifest.
    #[error("the signature of key {0} does not belong to this update: it was changed")]
    BadSignature(KeyId),
    /// A part is not what the manifest says.
    #[error("{0} of this update is damaged")]
    Damaged(String),
    /// It ends too early.
    #[error("this update is not complete")]
    Short,
}

/// The front of an update: all that is decided from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// What it says.
    pub manifest: Manifest,
    /// Exactly what is signed.
    bytes: Vec<u8>,
    signature: Option<(KeyId, [u8; 64])>,
    /// Bytes before the first part.
    size: u64,
}

impl Head {
    /// Reads the front of a file: its first [`MAX_HEAD_SIZE`] bytes, or all that it has.
    ///
    /// # Errors
    /// `Format`, `Manifest`, `TooLarge` or `Short`.
    pub fn decode(front: &[u8]) -> Result<Self, UpdateError> {
        let (name, size) = tar::read(front)?;
        if name != "manifest" || size > MAX_MANIFEST_SIZE {
            return Err(UpdateError::Format("it does not begin with a manifest"));
        }
        let bytes = front.get(512..512 + size as usize).ok_or(UpdateError::Short)?;
        let manifest: Manifest =
            serde_json::from_slice(bytes).map_err(|error| UpdateError::Manifest(error.to_string()))?;
        manifest.check()?;
        let at = 512 + tar::padded(size) as usize;
        let rest = front.get(at..).ok_or(UpdateError::Short)?;
        let (name, size) = tar::read(rest)?;
        let (signature, head) = if name == "signature" && size <= 512 {
            let text = rest.get(512..512 + size as usize).ok_or(UpdateError::Short)?;
            (Some(read_signature(text)?), at as u64 + 512 + tar::padded(size))
        } else {
            (None, at as u64)
        };
        let head = Self { manifest, bytes: bytes.to_vec(), signature, size: head };
        match head.file_size() {
            size if size > MAX_UPDATE_SIZE => Err(UpdateError::TooLarge { size }),
            _ => Ok(head),
        }
    }

    /// The front of an update with this manifest, signed or not.
    ///
    /// # Errors
    /// As [`Head::decode`].
    pub fn encode(manifest: &Manifest, key: Option<&SigningKey>) -> Result<Vec<u8>, UpdateError> {
        manifest.check()?;
        let json = serde_json::to_vec_pretty(manifest).expect("a manifest is plain JSON");
        let mut out = Vec::new();
        tar::put(&mut out, "manifest", &json);
        if let Some(key) = key {
            let signature = key.sign(&[SIGNED_AS, &json].concat()).to_bytes();
            let text = format!("{} {}\n", key_id(&key.verifying_key()), encode_signature(&signature));
            tar::put(&mut out, "signature", text.as_bytes());
        }
        Ok(out)
    }

    /// The key that signed it, which is one of `trusted`.
    ///
    /// # Errors
    /// `Unsigned`, `UnknownKey` or `BadSignature`.
    pub fn signed_by(&self, trusted: &[VerifyingKey]) -> Result<KeyId, UpdateError> {
        let (kid, signature) = self.signature.ok_or(UpdateError::Unsigned)?;
        let key = trusted.iter().find(|key| key_id(key) == kid).ok_or(UpdateError::UnknownKey(kid))?;
        let signature = ed25519_dalek::Signature::from_bytes(&signature);
        key.verify_strict(&[SIGNED_AS, &self.bytes].concat(), &signature)
            .map_err(|_| UpdateError::BadSignature(kid))?;
        Ok(kid)
    }

    /// The id of the key that it says it was signed with.
    pub fn key(&self) -> Option<KeyId> {
        self.signature.map(|(kid, _)| kid)
    }

    /// Names exactly this manifest, and with it every byte of the parts.
    pub fn digest(&self) -> String {
        blake3::hash(&self.bytes).to_hex()[..32].to_owned()
    }

    /// Bytes before the first part.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Bytes of the whole file, up to the end of the two blocks of zeros that end it.
    pub fn file_size(&self) -> u64 {
        let parts = self.manifest.parts.iter().map(|part| 512 + tar::padded(part.size));
        self.size + parts.sum::<u64>() + tar::END_SIZE
    }
}

impl Manifest {
    /// The keys that are trusted once it runs.
    pub fn trusted(&self) -> Vec<VerifyingKey> {
        self.keys.iter().filter_map(|text| decode_public(text)).collect()
    }

    fn check(&self) -> Result<(), UpdateError> {
        if self.v != 1 {
            return Err(UpdateError::Format("its manifest is of another version of the format"));
        }
        let names = self.parts.iter().map(|part| part.name.as_str());
        if !names.eq(PARTS) {
            return Err(UpdateError::Format("it does not hold one kernel and one initramfs"));
        }
        let good = |part: &Part| {
            // A sum of two of these cannot overflow.
            part.size > 0
                && part.size <= MAX_UPDATE_SIZE
                && HEXLOWER.decode(part.sha256.as_bytes()).is_ok_and(|d| d.len() == 32)
        };
        if !self.parts.iter().all(good) {
            return Err(UpdateError::Format("a part has no size or digest that makes sense"));
        }
        if self.keys.len() > MAX_KEYS || self.trusted().len() != self.keys.len() {
            return Err(UpdateError::Format("its list of keys is not one"));
        }
        Ok(())
    }
}

/// Header and padding of a part whose bytes come in between: what a writer of updates puts around them.
pub fn around_part(part: &Part) -> (Vec<u8>, Vec<u8>) {
    (tar::header(&part.name, part.size).to_vec(), vec![0; (tar::padded(part.size) - part.size) as usize])
}

/// What ends the file.
pub fn ending() -> Vec<u8> {
    vec![0; tar::END_SIZE as usize]
}

/// A public key as a manifest lists it.
pub fn listed(key: &VerifyingKey) -> String {
    encode_public(key)
}

fn read_signature(text: &[u8]) -> Result<(KeyId, [u8; 64]), UpdateError> {
    let read = || {
        let (kid, signature) = std::str::from_utf8(text).ok()?.trim_end().split_once(' ')?;
        Some((kid.parse().ok()?, decode_signature(signature)?))
    };
    read().ok_or(UpdateError::Format("its signature is not one"))
}
