//! Public links: who has the address downloads an image until the link ends. The scheduler makes one for a virtual
//! order, under the order's id, and changes when it ends; making it again gives the same address.
//!
//! ```text
//! DATA/links/{link id}.json   which image, its file name, when it ends
//! token = 128 bits of BLAKE3(key derived from index.key, link id): never written down
//! ```

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use cardshop_protocol::ids::{ImageId, ObjectId};
use cardshop_protocol::join::crockford;
use cardshop_protocol::time::Timestamp;
use ed25519_dalek::SigningKey;
use serde::{Deserialize, Serialize};

use super::error::StoreError;
use super::{Store, disk, sweep};

/// Most links; each is a small file and some hundred bytes of memory.
const MAX_LINKS: usize = 100_000;
/// How long an ended link still says so; afterwards its address is as if it never was.
const REMEMBER: Duration = Duration::from_secs(30 * 24 * 3600);

/// A public link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Link {
    /// The order's id, or another that its maker chose.
    pub id: ObjectId,
    /// What it leads to.
    pub image: ImageId,
    /// What the file is called, without `.img`.
    pub name: String,
    /// It is good before this moment.
    pub expires: Timestamp,
}

/// All links, and the key of their tokens.
pub(super) struct Links {
    key: [u8; 32],
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    by_id: BTreeMap<ObjectId, Link>,
    by_token: HashMap<String, ObjectId>,
}

impl Links {
    /// Reads `folder`; torn records are removed, which no crash leaves.
    pub(super) fn open(folder: &Path, key: &SigningKey) -> Result<Self, StoreError> {
        let links = Self {
            key: blake3::derive_key("cardshop 2026 warehouse public links", &key.to_bytes()),
            known: Mutex::default(),
        };
        for path in sweep::files(folder)? {
            let Some(id) = sweep::stem::<ObjectId>(&path) else { continue };
            let bytes = fs::read(&path).map_err(StoreError::io("read", &path))?;
            match serde_json::from_slice::<Link>(&bytes) {
                Ok(link) if link.id == id => links.insert(link),
                _ => sweep::orphan(&path)?,
            }
        }
        Ok(links)
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().expect("no holder panics")
    }

    fn insert(&self, link: Link) {
        let mut known = self.known();
        known.by_token.insert(self.token(link.id), link.id);
        known.by_id.insert(link.id, link);
    }

    fn token(&self, id: ObjectId) -> String {
        let digest = blake3::keyed_hash(&self.key, id.to_string().as_bytes());
        crockford(&digest.as_bytes()[..16])
    }

    /// Images with a link that is good at `now`.
    pub(super) fn images(&self, now: Timestamp) -> BTreeSet<ImageId> {
        self.known().by_id.values().filter(|link| now < link.expires).map(|link| link.image).collect()
    }
}

impl Store {
    /// Makes a link or changes it; its token. `None` when its image is not here.
    ///
    /// # Errors
    /// `TooManyLinks`, `Io`.
    pub(crate) fn put_link(&self, link: Link) -> Result<Option<String>, StoreError> {
        let _alone = self.placing.lock().expect("no holder panics");
        if self.image(link.image).is_none() {
            return Ok(None);
        }
        let is_new = !self.links.known().by_id.contains_key(&link.id);
        if is_new && self.links.known().by_id.len() >= MAX_LINKS {
            return Err(StoreError::TooManyLinks { limit: MAX_LINKS });
        }
        let path = self.link_path(link.id);
        let json = serde_json::to_vec(&link).expect("a link is plain JSON");
        disk::replace(&path, &json).map_err(StoreError::io("write", &path))?;
        let token = self.links.token(link.id);
        self.links.insert(link);
        Ok(Some(token))
    }

    /// The link with this id.
    pub(crate) fn link(&self, id: ObjectId) -> Option<Link> {
        self.links.known().by_id.get(&id).cloned()
    }

    /// The link a token opens, ended or not.
    pub(crate) fn link_by_token(&self, token: &str) -> Option<Link> {
        let known = self.links.known();
        known.by_token.get(token).and_then(|id| known.by_id.get(id)).cloned()
    }

    /// Removes links that ended long ago or whose image is gone.
    pub(super) fn forget_links(&self, now: Timestamp) {
        let _alone = self.placing.lock().expect("no holder panics");
        let old: Vec<ObjectId> = {
            let known = self.links.known();
            let is_old = |link: &&Link| link.expires + REMEMBER <= now;
            known.by_id.values().filter(is_old).map(|link| link.id).collect()
        };
        for id in old {
            if let Err(error) = disk::remove(&self.link_path(id)) {
                tracing::warn!(link = %id, %error, "an ended link cannot be removed");
                continue;
            }
            let token = self.links.token(id);
            let mut known = self.links.known();
            known.by_token.remove(&token);
            known.by_id.remove(&id);
        }
    }

    fn link_path(&self, id: ObjectId) -> PathBuf {
        self.data.join("links").join(format!("{id}.json"))
    }
}
