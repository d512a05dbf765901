//! The warehouse's folder: images, the uploads they come from, and the key that signs them.
//!
//! ```text
//! DATA/index.key                       signs indexes; 0600
//! DATA/{image id}.img .cardindex .json an image, its signed index, its record (name, channels, …)
//! DATA/{image id}.bmap .pieces         what follows from it, made when it is wanted
//! DATA/objects/{image id}.json         where its bytes are, when they go to an S3-compatible store
//! DATA/links/{link}.json               public links
//! DATA/uploads/{upload}.part .json     an upload's bytes and state
//! DATA/pending/{task}.cardindex        an index whose image is not here yet
//! DATA/damaged/                        what was set aside at a start
//! DATA/lock                            held while a warehouse runs
//! ```
//!
//! Everything here blocks; `http` calls it on blocking threads. Ids become file names only as parsed types.

mod bucket;
mod derive;
mod disk;
mod error;
mod intake;
mod key;
mod links;
mod objects;
mod part;
mod settle;
mod share;
mod shelf;
mod sweep;
#[cfg(test)]
mod tests;
mod uploads;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard};

use cardshop_protocol::api::StoredImage;
use cardshop_protocol::ids::{ImageId, TaskId};
use cardshop_protocol::keys::{KeyUse, PublicKey};
use cardshop_protocol::time::Timestamp;
use ed25519_dalek::SigningKey;

pub use bucket::{S3, S3Keys};
pub(crate) use error::StoreError;
pub(crate) use intake::Piece;
pub(crate) use links::Link;
pub(crate) use uploads::{Turn, Upload, UploadId};

use crate::Limits;
use links::Links;
use objects::Objects;
use uploads::Uploads;

/// What lies beside an image and goes with it.
const COMPANIONS: [&str; 4] = ["cardindex", "json", "bmap", "pieces"];

/// The open folder.
pub(crate) struct Store {
    data: PathBuf,
    pub(crate) limits: Limits,
    key: SigningKey,
    catalog: Mutex<BTreeMap<ImageId, StoredImage>>,
    /// Held while an image appears, its record changes or an index becomes pending: two writers of one file
    /// would tear it. The catalog's lock is never held over I/O.
    placing: Mutex<()>,
    uploads: Uploads,
    links: Links,
    /// Where images' bytes go, if they do not stay here.
    objects: Option<Objects>,
    /// The warehouse ends: long work stops.
    ending: AtomicBool,
    lock: File,
}

impl Store {
    /// Takes the folder, makes what is missing in it, and puts in order what a crash left.
    ///
    /// # Errors
    /// `InUse`, `BadKey`, `KeyGone`, `BadStore`, `StoreNotNamed`, `BadRecord`, `NoRandomness`, `Io`.
    pub(crate) fn open(
        data: &Path,
        limits: Limits,
        s3: Option<&S3>,
        now: Timestamp,
    ) -> Result<Self, StoreError> {
        let [uploads, pending, links, objects] =
            ["uploads", "pending", "links", "objects"].map(|name| data.join(name));
        for folder in [data, &uploads, &pending, &links, &objects] {
            fs::create_dir_all(folder).map_err(StoreError::io("create", folder))?;
        }
        let lock = lock(data)?;
        let places = objects::read_places(&objects)?;
        if s3.is_none() && !places.is_empty() {
            return Err(StoreError::StoreNotNamed(data.to_owned()));
        }
        let key_path = data.join("index.key");
        // A new key would have every image set aside as not signed by this warehouse.
        if !sweep::is_there(&key_path)? && (sweep::has_images(data)? || !places.is_empty()) {
            return Err(StoreError::KeyGone(key_path));
        }
        let key = key::open(&key_path)?;
        let images = sweep::images(data, &places, &key.verifying_key())?;
        sweep::pending(&pending, &images)?;
        let open = Uploads::default();
        for upload in sweep::uploads(&uploads, &images)? {
            open.insert(upload);
        }
        let links = Links::open(&links, &key)?;
        let owner = PublicKey::new(&key.verifying_key(), KeyUse::Index).kid;
        let objects = s3.map(|s3| Objects::open(s3, owner, places)).transpose()?;
        let store = Self {
            data: data.to_owned(),
            limits,
            key,
            catalog: Mutex::new(images),
            placing: Mutex::new(()),
            uploads: open,
            links,
            objects,
            ending: AtomicBool::new(false),
            lock,
        };
        store.settle_all(now);
        Ok(store)
    }

    /// Long work stops where it is.
    pub(crate) fn end(&self) {
        self.ending.store(true, Ordering::Relaxed);
    }

    /// Lets another warehouse have the folder.
    pub(crate) fn release(&self) {
        // The kernel does it at the latest when the process ends.
        let _ = self.lock.unlock();
    }

    /// The public half of the key that signs indexes.
    pub(crate) fn public_key(&self) -> PublicKey {
        PublicKey::new(&self.key.verifying_key(), KeyUse::Index)
    }

    /// The record of a complete image.
    pub(crate) fn image(&self, id: ImageId) -> Option<StoredImage> {
        self.catalog().get(&id).cloned()
    }

    /// All complete images with an id above `after`, by id.
    pub(crate) fn images(&self, after: Option<ImageId>) -> Vec<StoredImage> {
        self.catalog().values().filter(|i| after.is_none_or(|a| i.id > a)).cloned().collect()
    }

    /// Bytes that may still be written, margin included.
    pub(crate) fn free_bytes(&self) -> Result<u64, StoreError> {
        disk::free_bytes(&self.data).map_err(StoreError::io("ask for the free space of", &self.data))
    }

    /// Opens a file to be read, with its size; `None` when it is gone.
    pub(crate) fn open_file(&self, path: &Path) -> Result<Option<(File, u64)>, StoreError> {
        match File::open(path).and_then(|file| Ok((file.metadata()?.len(), file))) {
            Ok((size, file)) => Ok(Some((file, size))),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(StoreError::io("open", path)(e)),
        }
    }

    /// A small file's bytes; `None` when it is gone.
    pub(crate) fn read_file(&self, path: &Path) -> Result<Option<Vec<u8>>, StoreError> {
        match fs::read(path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(StoreError::io("read", path)(e)),
        }
    }

    fn catalog(&self) -> MutexGuard<'_, BTreeMap<ImageId, StoredImage>> {
        self.catalog.lock().expect("no holder panics")
    }
    /// Where an image's bytes lie.
    pub(crate) fn image_path(&self, id: ImageId) -> PathBuf {
        self.data.join(format!("{id}.img"))
    }
    /// Where an image's signed index lies.
    pub(crate) fn index_path(&self, id: ImageId) -> PathBuf {
        self.data.join(format!("{id}.cardindex"))
    }
    /// Where its block map lies, if that was made.
    pub(crate) fn bmap_path(&self, id: ImageId) -> PathBuf {
        self.data.join(format!("{id}.bmap"))
    }
    /// Where the digests of its torrent's pieces lie, if they were made.
    pub(crate) fn pieces_path(&self, id: ImageId) -> PathBuf {
        self.data.join(format!("{id}.pieces"))
    }
    fn record_path(&self, id: ImageId) -> PathBuf {
        self.data.join(format!("{id}.json"))
    }
    fn pending_folder(&self) -> PathBuf {
        self.data.join("pending")
    }
    fn pending_path(&self, task: TaskId) -> PathBuf {
        self.pending_folder().join(format!("{task}.cardindex"))
    }
    fn part_path(&self, id: UploadId) -> PathBuf {
        self.data.join("uploads").join(format!("{id}.part"))
    }
    fn state_path(&self, id: UploadId) -> PathBuf {
        self.data.join("uploads").join(format!("{id}.json"))
    }
}

fn lock(data: &Path) -> Result<File, StoreError> {
    let path = data.join("lock");
    let file =
        File::options().create(true).append(true).open(&path).map_err(StoreError::io("open", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(StoreError::InUse(data.to_owned())),
        Err(fs::TryLockError::Error(e)) => Err(StoreError::io("lock", &path)(e)),
    }
}
