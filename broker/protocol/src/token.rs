//! Access tokens: JWTs signed with Ed25519, checked offline against the published keys. No I/O: who holds a
//! [`SharedKeys`] fills it from `/api/v1/keys`. **Source:** RFC 7519 (JWT), RFC 8037 (EdDSA).

use std::sync::{Arc, RwLock};

use ed25519_dalek::SigningKey;
use ed25519_dalek::pkcs8::EncodePrivateKey;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};

use crate::ids::{Channel, KeyId, TaskId};
use crate::keys::{KeyList, KeyUse, encode_public, key_id};
use crate::time::Timestamp;

/// `iss` of every token.
pub const ISSUER: &str = "cardshop";
/// Longest token text that is looked at, bytes. Ours are below 700.
pub const MAX_TOKEN_SIZE: usize = 4096;

/// Who somebody is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Runs the site: may everything.
    Staff,
    /// Orders for its channels.
    Manager,
    /// Works the bench of its channels and ships.
    Operator,
    /// Turns configurations into images.
    Creator,
    /// A writer host.
    Appliance,
    /// Reads boards and order states of its channels.
    Integrator,
    /// The scheduler itself, towards broker and warehouse. Never given to a user.
    Scheduler,
}

/// What an API key may do in its channels, below its role.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum ApiRight {
    /// See orders, slots, cards and boards. Every key may.
    Watch,
    /// Place, cancel and retry orders; write configurations.
    Order,
    /// Say what was sent.
    Ship,
}

impl ApiRight {
    /// Each of them.
    const ALL: [Self; 3] = [Self::Watch, Self::Order, Self::Ship];

    /// In a token's scope, and in JSON.
    fn name(self) -> &'static str {
        match self {
            Self::Watch => "watch",
            Self::Order => "order",
            Self::Ship => "ship",
        }
    }
}

/// What a token says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// Always [`ISSUER`].
    pub iss: String,
    /// Login name or appliance id: also the MQTT user name and client id.
    pub sub: String,
    /// Role.
    pub role: Role,
    /// Channels the principal works for; empty for staff means all.
    #[serde(default)]
    pub channel: Vec<Channel>,
    /// Narrows the token, see [`Claims::upload_task`] and [`Claims::api_rights`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
    /// Raised when the principal is disabled.
    pub epoch: u64,
    /// Unique id of the token.
    pub jti: String,
    /// Issued at, seconds since 1970.
    pub iat: u64,
    /// Refused from this second on, seconds since 1970.
    pub exp: u64,
    /// Which key signed it, once that was verified; not a part of the token.
    #[serde(skip)]
    pub signed_by: Option<KeyId>,
}

impl Claims {
    /// The scope of a token that may put one task's image and nothing else.
    pub fn upload_scope(task: TaskId) -> String {
        format!("upload:{task}")
    }
    /// The task whose image this token may put, if it is an upload token.
    pub fn upload_task(&self) -> Option<TaskId> {
        self.scope.as_deref()?.strip_prefix("upload:")?.parse().ok()
    }
    /// The scope of an API key with these rights.
    pub fn api_scope(rights: &[ApiRight]) -> String {
        let names: Vec<_> = rights.iter().map(|right| right.name()).collect();
        format!("api:{}", names.join(","))
    }
    /// What the key may do, if this is the token of an API key; rights of later versions are left out.
    pub fn api_rights(&self) -> Option<Vec<ApiRight>> {
        let names = self.scope.as_deref()?.strip_prefix("api:")?.split(',');
        let right = |name| ApiRight::ALL.into_iter().find(|right| right.name() == name);
        (self.role == Role::Integrator).then(|| names.filter_map(right).collect())
    }
    /// True when the principal works for `channel`; staff and the scheduler work for all.
    pub fn works_for(&self, channel: &Channel) -> bool {
        matches!(self.role, Role::Staff | Role::Scheduler) || self.channel.contains(channel)
    }
}

/// Why a token is refused. People see one text for all; logs say which.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Not a JWT of ours.
    #[error("not a token")]
    Malformed,
    /// No published key has its key id, or that key is out of date.
    #[error("signed by an unknown key")]
    UnknownKey,
    /// The signature does not fit.
    #[error("the signature does not fit")]
    BadSignature,
    /// Past `exp`.
    #[error("expired")]
    Expired,
    /// The principal was disabled after it was issued.
    #[error("revoked")]
    Revoked,
}

/// Signs tokens with the scheduler's current key.
#[derive(Clone)]
pub struct TokenSigner {
    kid: KeyId,
    key: EncodingKey,
}

impl TokenSigner {
    /// From an Ed25519 key.
    pub fn new(key: &SigningKey) -> Self {
        let der = key.to_pkcs8_der().expect("an Ed25519 key always has a PKCS #8 form");
        Self { kid: key_id(&key.verifying_key()), key: EncodingKey::from_ed_der(der.as_bytes()) }
    }

    /// The token's text.
    pub fn sign(&self, claims: &Claims) -> String {
        let header = Header { kid: Some(self.kid.to_string()), ..Header::new(Algorithm::EdDSA) };
        jsonwebtoken::encode(&header, claims, &self.key)
            .expect("claims are plain JSON and the key is Ed25519")
    }
}

/// Checks a token's text at `now`.
///
/// # Errors
/// [`TokenError`], by the first check that fails.
pub fn verify(keys: &KeyList, token: &str, now: Timestamp) -> Result<Claims, TokenError> {
    if token.len() > MAX_TOKEN_SIZE {
        return Err(TokenError::Malformed);
    }
    let header = jsonwebtoken::decode_header(token).map_err(|_| TokenError::Malformed)?;
    let kid = header.kid.and_then(|k| k.parse().ok()).ok_or(TokenError::Malformed)?;
    let key = keys.find(kid, KeyUse::Jwt, now).ok_or(TokenError::UnknownKey)?;
    let key = DecodingKey::from_ed_components(&encode_public(&key)).map_err(|_| TokenError::UnknownKey)?;
    let mut validation = Validation::new(Algorithm::EdDSA);
    validation.validate_exp = false; // against `now` below, not against a clock of the library's own
    validation.validate_aud = false;
    validation.set_required_spec_claims(&["exp", "iss", "sub"]);
    validation.set_issuer(&[ISSUER]);
    let mut claims = jsonwebtoken::decode::<Claims>(token, &key, &validation)
        .map_err(|e| match e.kind() {
            jsonwebtoken::errors::ErrorKind::InvalidSignature => TokenError::BadSignature,
            _ => TokenError::Malformed,
        })?
        .claims;
    claims.signed_by = Some(kid);
    check_claims(keys, &claims, now)?;
    Ok(claims)
}

/// Checks again what may have changed since a token was verified: its end, its principal and the key that signed it.
///
/// # Errors
/// `Expired`, `Revoked` or `UnknownKey`.
pub fn check_claims(keys: &KeyList, claims: &Claims, now: Timestamp) -> Result<(), TokenError> {
    if now.as_secs() >= claims.exp {
        return Err(TokenError::Expired);
    }
    if is_revoked(keys, claims) {
        return Err(TokenError::Revoked);
    }
    match claims.signed_by {
        Some(kid) if keys.find(kid, KeyUse::Jwt, now).is_none() => Err(TokenError::UnknownKey),
        _ => Ok(()),
    }
}

/// True when the principal was disabled, or the key revoked, after these claims were issued; their end does not matter
/// here.
pub fn is_revoked(keys: &KeyList, claims: &Claims) -> bool {
    let principal = keys.revoked.iter().any(|r| r.sub == claims.sub && claims.epoch < r.epoch);
    principal || keys.items.iter().any(|key| key.revoked && claims.signed_by == Some(key.kid))
}

/// The newest key list, shared by a service's tasks and replaced by whoever polls the scheduler.
#[derive(Clone, Default)]
pub struct SharedKeys(Arc<RwLock<Arc<KeyList>>>);

impl SharedKeys {
    /// The list as it is now.
    pub fn current(&self) -> Arc<KeyList> {
        self.0.read().expect("no holder panics").clone()
    }
    /// Replaces the list.
    pub fn replace(&self, keys: KeyList) {
        *self.0.write().expect("no holder panics") = Arc::new(keys);
    }
    /// [`verify`] against the newest list.
    ///
    /// # Errors
    /// As [`verify`].
    pub fn verify(&self, token: &str, now: Timestamp) -> Result<Claims, TokenError> {
        verify(&self.current(), token, now)
    }
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::Signer;
    use serde_json::json;

    use super::*;
    use crate::keys::{PublicKey, RevokedSubject};

    fn claims() -> Claims {
        Claims {
            iss: ISSUER.into(),
            sub: "ada".into(),
            role: Role::Manager,
            channel: vec!["demo".parse().unwrap()],
            scope: None,
            epoch: 1,
            jti: "1".into(),
            iat: 1_000,
            exp: 2_000,
            signed_by: None,
        }
    }
    fn key_list(key: &SigningKey) -> KeyList {
        KeyList { items: vec![PublicKey::new(&key.verifying_key(), KeyUse::Jwt)], ..KeyList::default() }
    }
    const NOW: u64 = 1_500_000;

    #[test]
    fn a_signed_token_is_verified_until_its_end() {
        let key = SigningKey::from_bytes(&[7; 32]);
        let token = TokenSigner::new(&key).sign(&claims());
        let keys = key_list(&key);
        let verified = Claims { signed_by: Some(keys.items[0].kid), ..claims() };
        assert_eq!(verify(&keys, &token, Timestamp::from_ms(NOW)), Ok(verified));
        assert_eq!(verify(&keys, &token, Timestamp::from_ms(2_000_000)), Err(TokenError::Expired));
    }

    #[test]
    fn a_token_of_another_key_or_with_a_changed_claim_is_refused() {
        let key = SigningKey::from_bytes(&[7; 32]);
        let token = TokenSigner::new(&key).sign(&claims());
        let now = Timestamp::from_ms(NOW);
        let other = key_list(&SigningKey::from_bytes(&[8; 32]));
        assert_eq!(verify(&other, &token, now), Err(TokenError::UnknownKey));
        let parts: Vec<&str> = token.split('.').collect();
        let staff = Claims { role: Role::Staff, ..claims() };
        let body = data_encoding::BASE64URL_NOPAD.encode(&serde_json::to_vec(&staff).unwrap());
        let forged = format!("{}.{body}.{}", parts[0], parts[2]);
        assert_eq!(verify(&key_list(&key), &forged, now), Err(TokenError::BadSignature));
        assert_eq!(verify(&key_list(&key), "a.b.c", now), Err(TokenError::Malformed));
        assert_eq!(verify(&key_list(&key), &"x".repeat(5000), now), Err(TokenError::Malformed));
    }

    /// A token of any header and body, signed by `sign`.
    fn forge(
        header: serde_json::Value,
        body: &serde_json::Value,
        sign: impl FnOnce(&[u8]) -> Vec<u8>,
    ) -> String {
        let part = |bytes: &[u8]| data_encoding::BASE64URL_NOPAD.encode(bytes);
        let text = format!("{}.{}", part(header.to_string().as_bytes()), part(body.to_string().as_bytes()));
        let signature = sign(text.as_bytes());
        format!("{text}.{}", part(&signature))
    }

    #[test]
    fn only_ed25519_by_the_named_key_counts_whatever_the_header_says() {
        let key = SigningKey::from_bytes(&[7; 32]);
        let (keys, now) = (key_list(&key), Timestamp::from_ms(NOW));
        let (kid, body) = (keys.items[0].kid, serde_json::to_value(claims()).unwrap());
        let ours = |text: &[u8]| key.sign(text).to_vec();
        let refused = |header, sign: &dyn Fn(&[u8]) -> Vec<u8>| {
            verify(&keys, &forge(header, &body, sign), now).unwrap_err()
        };
        // The public key is no secret: it must not verify anything as one.
        let public = [key.verifying_key().to_bytes().to_vec(), keys.items[0].key.clone().into_bytes()];
        for secret in public {
            let hmac = |text: &[u8]| {
                let key = EncodingKey::from_secret(&secret);
                let signature = jsonwebtoken::crypto::sign(text, &key, Algorithm::HS256).unwrap();
                data_encoding::BASE64URL_NOPAD.decode(signature.as_bytes()).unwrap()
            };
            assert_eq!(refused(json!({"alg": "HS256", "kid": kid}), &hmac), TokenError::Malformed);
            assert_eq!(refused(json!({"alg": "EdDSA", "kid": kid}), &hmac), TokenError::BadSignature);
        }
        for alg in ["none", "HS256", "RS256", "ES256", ""] {
            assert_eq!(refused(json!({"alg": alg, "kid": kid}), &ours), TokenError::Malformed, "{alg}");
        }
        assert_eq!(refused(json!({"alg": "EdDSA", "kid": kid}), &|_| vec![]), TokenError::BadSignature);
        assert_eq!(refused(json!({"alg": "EdDSA"}), &ours), TokenError::Malformed, "no key id");
        assert_eq!(refused(json!({"alg": "EdDSA", "kid": "../../x"}), &ours), TokenError::Malformed);
        let good = forge(json!({"alg": "EdDSA", "kid": kid}), &body, ours);
        assert_eq!(
            verify(&keys, &good, now).map(|claims| claims.jti),
            Ok("1".into()),
            "the helper itself signs well"
        );
    }

    #[test]
    fn every_claim_must_be_there_and_the_issuer_ours() {
        let key = SigningKey::from_bytes(&[7; 32]);
        let (keys, now) = (key_list(&key), Timestamp::from_ms(NOW));
        let header = || json!({"alg": "EdDSA", "kid": keys.items[0].kid});
        let signed = |body: &serde_json::Value| {
            verify(&keys, &forge(header(), body, |text| key.sign(text).to_vec()), now)
        };
        let body = serde_json::to_value(claims()).unwrap();
        for claim in ["iss", "sub", "role", "epoch", "jti", "iat", "exp"] {
            let mut body = body.clone();
            body.as_object_mut().unwrap().remove(claim);
            assert_eq!(signed(&body), Err(TokenError::Malformed), "{claim}");
        }
        for (claim, value) in [("iss", json!("someone")), ("role", json!("root")), ("exp", json!(-1))] {
            let mut body = body.clone();
            body[claim] = value;
            assert_eq!(signed(&body), Err(TokenError::Malformed), "{claim}");
        }
    }

    #[test]
    fn a_key_for_another_use_or_past_its_end_or_revoked_signs_no_token() {
        let key = SigningKey::from_bytes(&[7; 32]);
        let (token, now) = (TokenSigner::new(&key).sign(&claims()), Timestamp::from_ms(NOW));
        let changes: [fn(&mut PublicKey); 4] = [
            |k| k.key_use = KeyUse::Index,
            |k| k.not_after = Some(Timestamp::from_ms(NOW - 1)),
            |k| k.revoked = true,
            |k| k.key = encode_public(&SigningKey::from_bytes(&[8; 32]).verifying_key()),
        ];
        for change in changes {
            let mut keys = key_list(&key);
            change(&mut keys.items[0]);
            assert_eq!(verify(&keys, &token, now), Err(TokenError::UnknownKey));
        }
    }

    #[test]
    fn what_was_verified_before_ends_when_its_key_is_revoked_or_gone() {
        let key = SigningKey::from_bytes(&[7; 32]);
        let (mut keys, now) = (key_list(&key), Timestamp::from_ms(NOW));
        let claims = verify(&keys, &TokenSigner::new(&key).sign(&claims()), now).unwrap();
        assert_eq!(check_claims(&keys, &claims, now), Ok(()));
        keys.items[0].revoked = true;
        assert_eq!(check_claims(&keys, &claims, now), Err(TokenError::Revoked));
        assert!(is_revoked(&keys, &claims));
        keys.items.clear();
        assert_eq!(check_claims(&keys, &claims, now), Err(TokenError::UnknownKey));
        assert!(!is_revoked(&keys, &claims), "a key that ended by itself ends no download");
    }

    #[test]
    fn raising_the_epoch_ends_older_tokens_only() {
        let key = SigningKey::from_bytes(&[7; 32]);
        let signer = TokenSigner::new(&key);
        let mut keys = key_list(&key);
        keys.revoked.push(RevokedSubject { sub: "ada".into(), epoch: 2 });
        let now = Timestamp::from_ms(NOW);
        assert_eq!(verify(&keys, &signer.sign(&claims()), now), Err(TokenError::Revoked));
        let newer = Claims { epoch: 2, signed_by: Some(keys.items[0].kid), ..claims() };
        assert_eq!(verify(&keys, &signer.sign(&newer), now), Ok(newer));
    }
}
