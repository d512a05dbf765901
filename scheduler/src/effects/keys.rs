//! The site's keys and the published key list: token key, index keys pinned from the warehouses, keys of approved
//! appliances, and whose older tokens no longer count. Secrets are in the store, made at the first start.

use std::sync::{Arc, Mutex, RwLock};

use cardshop_protocol::api::Membership;
use cardshop_protocol::keys::{KeyList, KeyUse, PublicKey, RevokedSubject, decode_public};
use cardshop_protocol::time::Timestamp;
use cardshop_protocol::token::{Claims, SharedKeys, TokenSigner};
use ed25519_dalek::SigningKey;

use super::clock::random_bytes;
use super::tokens::{ACCESS_LIFE, LONGEST_PURPOSE};
use crate::core::documents::{ApiKey, Appliance, FormerName, Secret, User, WarehouseDocument};
use crate::core::rights::{Action, Principal};
use crate::core::token_keys::{TokenKey, rotate, signing};
use crate::store::{Batch, Select, Store, StoreError};
use crate::{Scheduler, SchedulerError};

/// The site's secrets and what is published of them.
pub(crate) struct Keys {
    tokens: RwLock<TokenKeys>,
    /// What secrets of account hooks follow from.
    pub(crate) hooks: [u8; 32],
    /// Names the site towards appliances: half of the pairing code.
    pub(crate) site: SigningKey,
    published: SharedKeys,
    etag: Mutex<String>,
}

impl Keys {
    /// Reads the secrets, or makes them.
    pub(crate) async fn open(store: &Store) -> Result<Self, SchedulerError> {
        first_token_key(store).await?;
        secret(store, "refresh").await?;
        Ok(Self {
            tokens: RwLock::new(TokenKeys::read(store)?),
            hooks: secret(store, "hooks").await?,
            site: SigningKey::from_bytes(&secret(store, "site").await?),
            published: SharedKeys::default(),
            etag: Mutex::new(String::new()),
        })
    }

    /// A token's text, by the key that signs at `now`.
    pub(crate) fn sign(&self, claims: &Claims, now: Timestamp) -> String {
        let tokens = self.tokens.read().expect("no holder panics");
        let kid = signing(&tokens.keys, now).map(|key| key.kid.clone());
        let signer = tokens.signers.iter().find(|(of, _)| Some(of) == kid.as_ref());
        signer.expect("there is always a key that signs").1.sign(claims)
    }

    /// Authenticates refresh tokens.
    pub(crate) fn refresh(&self) -> [u8; 32] {
        self.tokens.read().expect("no holder panics").refresh
    }

    /// Reads again what signs and authenticates tokens: another scheduler on the same store may have changed it.
    fn reload(&self, store: &Store) -> Result<(), SchedulerError> {
        let tokens = TokenKeys::read(store)?;
        *self.tokens.write().expect("no holder panics") = tokens;
        Ok(())
    }

    fn published_token_keys(&self) -> Vec<PublicKey> {
        let tokens = self.tokens.read().expect("no holder panics");
        let listed = tokens.keys.iter().filter_map(|key| {
            let public = decode_public(&key.public)?;
            Some(PublicKey {
                not_after: key.not_after,
                revoked: key.revoked,
                ..PublicKey::new(&public, KeyUse::Jwt)
            })
        });
        listed.collect()
    }
}

/// What tokens are made with.
struct TokenKeys {
    keys: Vec<TokenKey>,
    /// Of those that still have their secret, by key id.
    signers: Vec<(String, TokenSigner)>,
    refresh: [u8; 32],
}

impl TokenKeys {
    fn read(store: &Store) -> Result<Self, SchedulerError> {
        let select = Select { limit: MAX_LISTED, ..Select::default() };
        let keys: Vec<TokenKey> = store.list::<TokenKey>(select)?.into_iter().map(|k| k.value).collect();
        let mut signers = Vec::new();
        for key in &keys {
            let Some(text) = &key.secret else { continue };
            let bytes = read_secret("of tokens", text)?;
            signers.push((key.kid.clone(), TokenSigner::new(&SigningKey::from_bytes(&bytes))));
        }
        if signers.is_empty() {
            let text = "no key that signs tokens is in the store: restore a backup";
            return Err(SchedulerError::Config(text.into()));
        }
        let refresh = store.get::<Secret>("refresh")?;
        let refresh = refresh.map_or(Ok([0; 32]), |secret| read_secret("refresh", &secret.value.bytes))?;
        Ok(Self { keys, signers, refresh })
    }
}

/// Token keys that are read: those that are over are cleared every hour.
const MAX_LISTED: usize = 100;

fn new_token_key(bytes: [u8; 32], from: Timestamp) -> TokenKey {
    let public = PublicKey::new(&SigningKey::from_bytes(&bytes).verifying_key(), KeyUse::Jwt);
    TokenKey {
        kid: public.kid.to_string(),
        public: public.key,
        secret: Some(blake3::Hash::from_bytes(bytes).to_hex().to_string()),
        from,
        not_after: None,
        revoked: false,
    }
}

/// The first key of a site: what earlier versions kept as a secret, or a new one.
async fn first_token_key(store: &Store) -> Result<(), SchedulerError> {
    let select = Select { limit: 1, ..Select::default() };
    if !store.list::<TokenKey>(select)?.is_empty() {
        return Ok(());
    }
    let bytes = match store.get::<Secret>("jwt")? {
        Some(old) => read_secret("jwt", &old.value.bytes)?,
        None => random_bytes::<32>(),
    };
    let mut batch = Batch::new();
    batch.create(&new_token_key(bytes, Timestamp::from_ms(0))).remove::<Secret>("jwt");
    Ok(store.apply(batch).await?)
}

fn read_secret(name: &str, text: &str) -> Result<[u8; 32], SchedulerError> {
    let hash = blake3::Hash::from_hex(text);
    hash.map(|h| *h.as_bytes()).map_err(|_| {
        SchedulerError::Config(format!("secret {name} in the store is damaged: restore a backup"))
    })
}

async fn secret(store: &Store, name: &str) -> Result<[u8; 32], SchedulerError> {
    if let Some(found) = store.get::<Secret>(name)? {
        return read_secret(name, &found.value.bytes);
    }
    let bytes = random_bytes::<32>();
    let mut batch = Batch::new();
    batch.create(&Secret { name: name.into(), bytes: blake3::Hash::from_bytes(bytes).to_hex().to_string() });
    match store.apply(batch).await {
        Ok(()) => Ok(bytes),
        // Another scheduler that started at the same time has made it.
        Err(StoreError::Conflict { .. }) => Box::pin(secret(store, name)).await,
        Err(error) => Err(error.into()),
    }
}

impl Scheduler {
    /// The published key list, always the newest: a service in the same program may read it directly.
    pub fn keys(&self) -> SharedKeys {
        self.inner.keys.published.clone()
    }

    /// The key list and its strong entity tag, in quotes.
    pub(crate) fn tagged_keys(&self) -> (String, Arc<KeyList>) {
        let etag = self.inner.keys.etag.lock().expect("no holder panics");
        (etag.clone(), self.inner.keys.published.current())
    }

    /// Builds the published list anew. Called after every change of what it lists, and once a minute.
    pub(crate) fn publish_keys(&self) -> Result<(), SchedulerError> {
        // Held from the first read: of two at once the one that read less would else have the last word, and a
        // revocation would be gone again. A list and a tag that do not belong together would be kept by clients.
        let mut etag = self.inner.keys.etag.lock().expect("no holder panics");
        let now = self.now();
        self.inner.keys.reload(&self.inner.store)?;
        let mut items = self.inner.keys.published_token_keys();
        for warehouse in self.all::<WarehouseDocument>(None)? {
            items.extend(warehouse.keys);
        }
        items.extend(self.update_keys()?);
        let mut revoked = Vec::new();
        for appliance in self.all::<Appliance>(None)? {
            let key = decode_public(&appliance.public_key);
            if let Some(key) = key.filter(|_| appliance.state == Membership::Approved) {
                items.push(PublicKey::new(&key, KeyUse::Appliance));
            }
            if still_matters(appliance.epoch_raised, now) {
                revoked.push(RevokedSubject { sub: appliance.id.to_string(), epoch: appliance.epoch });
            }
        }
        for user in self.all::<User>(Some(("raised", "yes")))? {
            if still_matters(user.epoch_raised, now) {
                revoked.push(RevokedSubject { sub: user.username, epoch: user.epoch });
            }
        }
        for former in self.all::<FormerName>(None)? {
            revoked.push(RevokedSubject { sub: former.name, epoch: former.epoch });
        }
        // A key has no other end than its own: until then everybody has to know that it was revoked.
        for key in self.all::<ApiKey>(Some(("revoked", "yes")))? {
            if now < key.expires {
                revoked.push(RevokedSubject { sub: key.name, epoch: 1 });
            }
        }
        let list = KeyList { items, next_cursor: None, revoked };
        let bytes = serde_json::to_vec(&list).expect("a key list is plain JSON");
        let tag = format!("\"{}\"", &blake3::hash(&bytes).to_hex()[..32]);
        *etag = tag;
        self.inner.keys.published.replace(list);
        Ok(())
    }

    /// Makes a new key for tokens. What the older ones signed goes on to count until its own end; with `revoke` nothing of
    /// that counts any more, and everybody logs in again.
    ///
    /// # Errors
    /// `NotAllowed`, `Conflict` when there are too many keys that still have to be known.
    pub async fn rotate_keys(&self, caller: &Principal, revoke: bool) -> Result<KeyList, SchedulerError> {
        caller.must(Action::Administer)?;
        let bytes = random_bytes::<32>();
        let decide = || {
            let now = self.now();
            let select = Select { limit: MAX_LISTED, ..Select::default() };
            let stored = self.inner.store.list::<TokenKey>(select)?;
            let keys: Vec<TokenKey> = stored.iter().map(|k| k.value.clone()).collect();
            let api_keys = self.all::<ApiKey>(None)?.into_iter().filter(|k| k.revoked.is_none());
            let longest = api_keys.map(|k| k.expires).max().unwrap_or(now).max(now + LONGEST_PURPOSE);
            let changed = rotate(&keys, new_token_key(bytes, now), now, longest, revoke);
            let changed = changed.ok_or_else(|| SchedulerError::Conflict {
                code: "too_many_keys",
                text: "there are many keys that API keys still need: revoke them, or wait".into(),
            })?;
            let action = if revoke { "keys.revoke" } else { "keys.rotate" };
            let mut batch = self.audited(caller, action, "keys");
            for key in &changed {
                batch.upsert(stored.iter().find(|k| k.value.kid == key.kid), key);
            }
            if revoke {
                let bytes = blake3::Hash::from_bytes(random_bytes::<32>()).to_hex().to_string();
                batch.put(&Secret { name: "refresh".into(), bytes });
            }
            Ok((Some(batch), ()))
        };
        self.change(decide).await?;
        self.publish_keys()?;
        Ok((*self.inner.keys.published.current()).clone())
    }

    /// Keys that sign indexes, for appliances.
    pub(crate) fn index_keys(&self) -> Vec<PublicKey> {
        let keys = self.inner.keys.published.current();
        keys.items.iter().filter(|k| k.key_use == KeyUse::Index).cloned().collect()
    }
}

/// Twice the life of an access token after the epoch was raised, no older token is left.
pub(crate) fn still_matters(raised: Option<Timestamp>, now: Timestamp) -> bool {
    raised.is_some_and(|at| now.since(at) < ACCESS_LIFE * 2)
}
