//! The cache folder: for each image `{id}.cardindex`, `{id}.img` (sparse, as large as the image), `{id}.have` and
//! `{id}.fresh` (which chunks are here; see [`super::store`]). All of it may be deleted at any time; what is
//! damaged is fetched again. What has to go when there is no room, [`crate::core::room`] says.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::SystemTime;

use cardshop_protocol::ids::ImageId;
use cardshop_protocol::time::Timestamp;

use super::machine::free_bytes;
use crate::config::CacheConfig;
use crate::core::room::{Held, Space, Verdict, make_room};

const EXTENSIONS: [&str; 4] = ["cardindex", "have", "fresh", "img"];

/// The folder; clones are the same one.
#[derive(Debug, Clone)]
pub(crate) struct Cache(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    folder: PathBuf,
    config: CacheConfig,
    /// Images a lease needs, with the bytes each takes when it is whole. Held while room is made, so that two
    /// fetches do not count on the same.
    needed: Mutex<BTreeMap<ImageId, u64>>,
}

impl Cache {
    /// Makes the folder if it is missing, and sweeps what a crash has left.
    ///
    /// # Errors
    /// What the file system says.
    pub(crate) fn open(folder: &Path, config: CacheConfig) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        let cache = Self(Arc::new(Inner { folder: folder.into(), config, needed: Mutex::default() }));
        cache.sweep();
        Ok(cache)
    }

    /// The folder.
    pub(crate) fn folder(&self) -> &Path {
        &self.0.folder
    }

    /// An image's file.
    pub(crate) fn path(&self, image: ImageId, extension: &str) -> PathBuf {
        self.0.folder.join(format!("{image}.{extension}"))
    }

    /// Deletes all files of an image.
    pub(crate) fn remove(&self, image: ImageId) {
        for extension in EXTENSIONS {
            // What is not there needs no deleting; what cannot be deleted is overwritten by the next fetch.
            let _ = fs::remove_file(self.path(image, extension));
        }
    }

    /// A lease needs an image: it is not deleted until [`Cache::release`].
    pub(crate) fn need(&self, image: ImageId) {
        self.0.needed.lock().expect("no holder panics").entry(image).or_default();
    }

    /// No lease needs it any more. It stays, as used now, until its room is needed: the next build of it may
    /// save most of a fetch.
    pub(crate) fn release(&self, image: ImageId) {
        if self.0.needed.lock().expect("no holder panics").remove(&image).is_some()
            && let Ok(file) = OpenOptions::new().write(true).open(self.path(image, "img"))
        {
            // Without the new time it may only go earlier.
            let _ = file.set_modified(SystemTime::now());
        }
    }

    /// Makes sure that a needed image can grow to `whole_bytes`, deleting images nobody needs.
    ///
    /// # Errors
    /// Bytes that are missing even so.
    pub(crate) fn make_room(&self, image: ImageId, whole_bytes: u64) -> Result<(), u64> {
        let mut needed = self.0.needed.lock().expect("no holder panics");
        let held: Vec<Held> = self
            .images()
            .into_iter()
            .map(|(image, used_bytes, used)| {
                let whole_bytes = needed.get(&image).copied();
                Held {
                    image,
                    used_bytes,
                    whole_bytes: whole_bytes.unwrap_or(0),
                    needed: whole_bytes.is_some(),
                    used,
                }
            })
            .collect();
        match make_room(image, whole_bytes, &held, &self.space()) {
            Verdict::Short { missing_bytes } => Err(missing_bytes),
            Verdict::Fits(delete) => {
                for old in delete {
                    tracing::info!(image = %old, "removed from the cache to make room");
                    self.remove(old);
                }
                needed.insert(image, whole_bytes);
                Ok(())
            }
        }
    }

    /// True when the disk has less left than it should keep: somebody else fills it.
    pub(crate) fn is_tight(&self) -> bool {
        free_bytes(&self.0.folder) < self.0.config.keep_free_bytes
    }

    fn space(&self) -> Space {
        Space {
            free_bytes: free_bytes(&self.0.folder),
            margin_bytes: self.0.config.keep_free_bytes,
            budget_bytes: self.0.config.max_bytes,
        }
    }

    /// Images here with the bytes they take and when they were used last.
    fn images(&self) -> Vec<(ImageId, u64, Timestamp)> {
        let image = |file: fs::DirEntry| {
            let id: ImageId = file.file_name().to_str()?.strip_suffix(".img")?.parse().ok()?;
            let metadata = file.metadata().ok()?;
            Some((id, metadata.blocks() * 512, Timestamp::from_system(metadata.modified().ok()?)))
        };
        self.files().filter_map(image).collect()
    }

    /// Images here other than `but`, the newest first.
    pub(crate) fn others(&self, but: ImageId) -> Vec<ImageId> {
        let mut images = self.images();
        images.sort_by_key(|(image, _, used)| (std::cmp::Reverse(*used), *image));
        images.into_iter().map(|(image, ..)| image).filter(|image| *image != but).collect()
    }

    fn files(&self) -> impl Iterator<Item = fs::DirEntry> {
        fs::read_dir(&self.0.folder).into_iter().flatten().flatten()
    }

    /// Deletes files of ours whose image is not here, and files half made.
    fn sweep(&self) {
        for file in self.files() {
            let path = file.path();
            let stem = path.file_stem().and_then(|s| s.to_str()).and_then(|s| s.parse::<ImageId>().ok());
            let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default();
            let Some(image) = stem else { continue };
            let orphan = EXTENSIONS.contains(&extension) && !self.path(image, "img").exists();
            if orphan || extension.ends_with("new") {
                // What cannot be deleted does no harm.
                let _ = fs::remove_file(path);
            }
        }
    }

    /// Free and used bytes.
    pub(crate) fn usage(&self) -> (u64, u64) {
        let used = self.files().filter_map(|f| Some(f.metadata().ok()?.blocks() * 512)).sum();
        (free_bytes(&self.0.folder), used)
    }

    /// Opens an image's file for reading.
    ///
    /// # Errors
    /// What the file system says.
    pub(crate) fn read_image(&self, image: ImageId) -> io::Result<File> {
        File::open(self.path(image, "img"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(cache: &Cache, image: ImageId, size: usize) {
        for extension in EXTENSIONS {
            fs::write(cache.path(image, extension), vec![1; if extension == "img" { size } else { 1 }])
                .unwrap();
        }
    }

    #[test]
    fn an_image_with_an_open_lease_is_never_deleted_and_the_longest_unused_goes_first() {
        let folder = tempfile::tempdir().unwrap();
        let config =
            CacheConfig { max_bytes: Some(100 * 4096), keep_free_bytes: 0, ..CacheConfig::default() };
        let cache = Cache::open(&folder.path().join("cache"), config).unwrap();
        let [leased, older, newer, next] = [1, 2, 3, 4].map(|n| ImageId([n; 32]));
        for (image, age_s) in [(older, 100), (leased, 1000), (newer, 10)] {
            put(&cache, image, 30 * 4096);
            let file = OpenOptions::new().write(true).open(cache.path(image, "img")).unwrap();
            file.set_modified(SystemTime::now() - std::time::Duration::from_secs(age_s)).unwrap();
        }
        cache.need(leased);
        assert_eq!(cache.make_room(next, 10 * 4096), Ok(()));
        assert!(cache.path(older, "img").exists(), "nothing is deleted while there is room");
        assert_eq!(cache.make_room(next, 40 * 4096), Ok(()));
        assert!(!cache.path(older, "img").exists() && cache.path(newer, "img").exists());
        assert!(EXTENSIONS.iter().all(|e| !cache.path(older, e).exists()));
        assert!(cache.make_room(next, 90 * 4096).is_err());
        assert!(cache.path(newer, "img").exists(), "nothing is deleted in vain");
        cache.release(leased);
        assert_eq!(cache.make_room(next, 90 * 4096), Ok(()));
        assert!(!cache.path(leased, "img").exists() && !cache.path(newer, "img").exists());
    }

    #[test]
    fn what_a_crash_left_is_swept_at_the_next_start_and_strangers_files_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let image = ImageId([7; 32]);
        let cache = Cache::open(folder.path(), CacheConfig::default()).unwrap();
        put(&cache, image, 1);
        fs::remove_file(cache.path(image, "img")).unwrap();
        put(&cache, ImageId([8; 32]), 1);
        fs::write(cache.path(ImageId([8; 32]), "new"), b"half").unwrap();
        fs::write(folder.path().join("notes.new"), b"somebody's").unwrap();
        Cache::open(folder.path(), CacheConfig::default()).unwrap();
        let mut left: Vec<_> = cache.files().map(|f| f.path()).collect();
        left.sort();
        let mut expected: Vec<_> = EXTENSIONS.iter().map(|e| cache.path(ImageId([8; 32]), e)).collect();
        expected.push(folder.path().join("notes.new"));
        expected.sort();
        assert_eq!(left, expected);
    }
}
