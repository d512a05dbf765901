//! Ed25519 keys: their ids, and the list of public keys that every service reads from `/api/v1/keys`.

use data_encoding::BASE64URL_NOPAD;
use ed25519_dalek::{SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};

use crate::ids::{ApplianceId, KeyId};
use crate::time::Timestamp;

/// The id of a public key: the first 8 bytes of its BLAKE3.
pub fn key_id(key: &VerifyingKey) -> KeyId {
    KeyId(first_eight(key))
}

/// The id of the appliance that holds this key.
pub fn appliance_id(key: &VerifyingKey) -> ApplianceId {
    ApplianceId(first_eight(key))
}

fn first_eight(key: &VerifyingKey) -> [u8; 8] {
    let digest = blake3::hash(key.as_bytes());
    digest.as_bytes()[..8].try_into().expect("a digest has 32 bytes")
}

/// A new key from the system's randomness.
///
/// # Errors
/// When the system has no randomness to give.
pub fn generate() -> Result<SigningKey, getrandom::Error> {
    let mut secret = [0; 32];
    getrandom::fill(&mut secret)?;
    Ok(SigningKey::from_bytes(&secret))
}

/// A public key as text: base64url without padding, 43 characters.
pub fn encode_public(key: &VerifyingKey) -> String {
    BASE64URL_NOPAD.encode(key.as_bytes())
}

/// Reads what [`encode_public`] wrote; `None` when it is not a valid Ed25519 public key.
pub fn decode_public(text: &str) -> Option<VerifyingKey> {
    let bytes = BASE64URL_NOPAD.decode(text.as_bytes()).ok()?;
    VerifyingKey::from_bytes(&bytes.try_into().ok()?).ok()
}

/// A signature as text: base64url without padding, 86 characters.
pub fn encode_signature(signature: &[u8; 64]) -> String {
    BASE64URL_NOPAD.encode(signature)
}

/// Reads what [`encode_signature`] wrote.
pub fn decode_signature(text: &str) -> Option<[u8; 64]> {
    BASE64URL_NOPAD.decode(text.as_bytes()).ok()?.try_into().ok()
}

/// What a public key is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum KeyUse {
    /// Signs access tokens.
    Jwt,
    /// Signs image indexes.
    Index,
    /// Signs passports of cards.
    Appliance,
    /// Signs updates of the appliance.
    Update,
}

/// One published key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct PublicKey {
    /// Its id.
    pub kid: KeyId,
    /// What it may sign.
    #[serde(rename = "use")]
    pub key_use: KeyUse,
    /// Always `EdDSA`.
    pub alg: String,
    /// The public key, base64url without padding.
    pub key: String,
    /// Not trusted after this moment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_after: Option<Timestamp>,
    /// Never to be trusted again.
    #[serde(default)]
    pub revoked: bool,
}

impl PublicKey {
    /// Lists a key without an end.
    pub fn new(key: &VerifyingKey, key_use: KeyUse) -> Self {
        Self {
            kid: key_id(key),
            key_use,
            alg: "EdDSA".into(),
            key: encode_public(key),
            not_after: None,
            revoked: false,
        }
    }

    /// The key, when it may be used for `key_use` at `now` and its id is its own.
    pub fn usable(&self, key_use: KeyUse, now: Timestamp) -> Option<VerifyingKey> {
        let in_time = self.not_after.is_none_or(|end| now <= end);
        let key = decode_public(&self.key)?;
        (self.key_use == key_use && in_time && !self.revoked && key_id(&key) == self.kid).then_some(key)
    }
}

/// A principal whose older tokens no longer count.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct RevokedSubject {
    /// Login name or appliance id.
    pub sub: String,
    /// Tokens with a lower epoch are refused.
    pub epoch: u64,
}

/// The answer of `GET /api/v1/keys`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct KeyList {
    /// All keys that are not forgotten yet.
    pub items: Vec<PublicKey>,
    /// Always null: the list is one page.
    pub next_cursor: Option<String>,
    /// Principals disabled or signed out everywhere.
    #[serde(default)]
    pub revoked: Vec<RevokedSubject>,
}

impl KeyList {
    /// The key with this id, when it may be used for `key_use` at `now`.
    pub fn find(&self, kid: KeyId, key_use: KeyUse, now: Timestamp) -> Option<VerifyingKey> {
        self.items.iter().filter(|k| k.kid == kid).find_map(|k| k.usable(key_use, now))
    }
}
