//! The cache folder: for each image `{id}.cardindex`, `{id}.img` (sparse, as large as the image) and
//! `{id}.have` (one bit a chunk). All of it may be deleted at any time; what is damaged is fetched again.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use cardshop_protocol::ids::ImageId;

use super::machine::free_bytes;

/// Room left on the file system for everything else, bytes.
const KEEP_FREE: u64 = 64 * 1024 * 1024;
const EXTENSIONS: [&str; 3] = ["cardindex", "have", "img"];

/// The folder.
#[derive(Debug, Clone)]
pub(crate) struct Cache {
    folder: PathBuf,
}

impl Cache {
    /// Makes the folder if it is missing.
    ///
    /// # Errors
    /// What the file system says.
    pub(crate) fn open(folder: &Path) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        Ok(Self { folder: folder.into() })
    }

    /// An image's file.
    pub(crate) fn path(&self, image: ImageId, extension: &str) -> PathBuf {
        self.folder.join(format!("{image}.{extension}"))
    }

    /// Deletes all files of an image.
    pub(crate) fn remove(&self, image: ImageId) {
        for extension in EXTENSIONS {
            // What is not there needs no deleting; what cannot be deleted is overwritten by the next fetch.
            let _ = fs::remove_file(self.path(image, extension));
        }
    }

    /// Makes room for `needed` bytes by deleting images that are not in `keep`, least recently used first.
    /// False when there is not enough even so.
    pub(crate) fn make_room(&self, needed: u64, keep: &BTreeSet<ImageId>) -> bool {
        let enough = || free_bytes(&self.folder) >= needed.saturating_add(KEEP_FREE);
        let mut old: Vec<_> = self.images().into_iter().filter(|(_, image)| !keep.contains(image)).collect();
        old.sort_by_key(|(used, _)| *used);
        for (_, image) in old {
            if enough() {
                return true;
            }
            tracing::info!(%image, "removed from the cache to make room");
            self.remove(image);
        }
        enough()
    }

    fn images(&self) -> Vec<(std::time::SystemTime, ImageId)> {
        let files = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let image = |file: fs::DirEntry| {
            let id = file.file_name().to_str()?.strip_suffix(".img")?.parse().ok()?;
            Some((file.metadata().ok()?.modified().ok()?, id))
        };
        files.filter_map(image).collect()
    }

    /// Bytes an image takes on the disk already.
    pub(crate) fn size_of(&self, image: ImageId) -> u64 {
        fs::metadata(self.path(image, "img")).map_or(0, |m| m.blocks() * 512)
    }

    /// Free and used bytes.
    pub(crate) fn usage(&self) -> (u64, u64) {
        let files = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let used = files.filter_map(|f| Some(f.metadata().ok()?.blocks() * 512)).sum();
        (free_bytes(&self.folder), used)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_made_from_images_nobody_needs() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(&folder.path().join("cache")).unwrap();
        let (needed, idle) = (ImageId([1; 32]), ImageId([2; 32]));
        for image in [needed, idle] {
            for extension in EXTENSIONS {
                fs::write(cache.path(image, extension), b"x").unwrap();
            }
        }
        assert!(cache.make_room(1, &BTreeSet::from([needed])));
        assert!(cache.path(idle, "img").exists(), "nothing is deleted while there is room");
        assert!(!cache.make_room(u64::MAX, &BTreeSet::from([needed])));
        assert!(cache.path(needed, "img").exists() && !cache.path(idle, "img").exists());
        assert!(!cache.path(idle, "have").exists());
    }
}
