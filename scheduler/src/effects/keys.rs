//! The site's keys and the published key list: token key, index keys pinned from the warehouses, keys of approved
//! appliances, and whose older tokens no longer count. Secrets are in the store, made at the first start.

use std::sync::{Arc, Mutex};

use cardshop_protocol::api::Membership;
use cardshop_protocol::keys::{KeyList, KeyUse, PublicKey, RevokedSubject, decode_public};
use cardshop_protocol::time::Timestamp;
use cardshop_protocol::token::{SharedKeys, TokenSigner};
use ed25519_dalek::SigningKey;

use super::clock::random_bytes;
use super::tokens::ACCESS_LIFE;
use crate::core::documents::{ApiKey, Appliance, Secret, User, WarehouseDocument};
use crate::store::{Batch, Store};
use crate::{Scheduler, SchedulerError};

/// The site's secrets and what is published of them.
pub(crate) struct Keys {
    pub(crate) signer: TokenSigner,
    jwt: SigningKey,
    /// Names the site towards appliances: half of the pairing code.
    pub(crate) site: SigningKey,
    /// Authenticates refresh tokens.
    pub(crate) refresh: [u8; 32],
    published: SharedKeys,
    etag: Mutex<String>,
}

impl Keys {
    /// Reads the secrets, or makes them.
    pub(crate) async fn open(store: &Store) -> Result<Self, SchedulerError> {
        let jwt = SigningKey::from_bytes(&secret(store, "jwt").await?);
        Ok(Self {
            signer: TokenSigner::new(&jwt),
            site: SigningKey::from_bytes(&secret(store, "site").await?),
            refresh: secret(store, "refresh").await?,
            published: SharedKeys::default(),
            etag: Mutex::new(String::new()),
            jwt,
        })
    }
}

async fn secret(store: &Store, name: &str) -> Result<[u8; 32], SchedulerError> {
    if let Some(found) = store.get::<Secret>(name)? {
        let hash = blake3::Hash::from_hex(&found.value.bytes);
        return hash.map(|h| *h.as_bytes()).map_err(|_| {
            SchedulerError::Config(format!("secret {name} in the store is damaged: restore a backup"))
        });
    }
    let bytes = random_bytes::<32>();
    let mut batch = Batch::new();
    batch.create(&Secret { name: name.into(), bytes: blake3::Hash::from_bytes(bytes).to_hex().to_string() });
    store.apply(batch).await?;
    Ok(bytes)
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
        let mut items = vec![PublicKey::new(&self.inner.keys.jwt.verifying_key(), KeyUse::Jwt)];
        for warehouse in self.all::<WarehouseDocument>(None)? {
            items.extend(warehouse.keys);
        }
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

    /// Keys that sign indexes, for appliances.
    pub(crate) fn index_keys(&self) -> Vec<PublicKey> {
        let keys = self.inner.keys.published.current();
        keys.items.iter().filter(|k| k.key_use == KeyUse::Index).cloned().collect()
    }
}

/// Twice the life of an access token after the epoch was raised, no older token is left.
fn still_matters(raised: Option<Timestamp>, now: Timestamp) -> bool {
    raised.is_some_and(|at| now.since(at) < ACCESS_LIFE * 2)
}
