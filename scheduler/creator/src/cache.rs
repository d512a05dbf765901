//! The folder of downloads, shared by several creators of one machine.
//!
//! `KEY` is a whole download, `KEY.part` one under way, `KEY.json` says where it is from; the time that was last
//! changed is the time of last use. Who downloads holds `KEY.lock`; who reads `KEY` holds a shared lock on it. Only what
//! nobody holds is removed, so a creator never loses what another one is building from. Locks end with their process.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde::{Deserialize, Serialize};

use crate::StopFlag;
use crate::fetch::{FetchError, file_error};
use crate::http;
use crate::policy::{Entry, Policy};

/// Between two looks whether somebody else's download has ended.
const LOCK_POLL: Duration = Duration::from_millis(200);
/// Largest note that is read, bytes.
const MAX_NOTE_SIZE: u64 = 16 * 1024;

/// Where a download is from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Note {
    /// BLAKE3 of the whole address, hex: it may hold secrets.
    pub address: String,
    /// For people and patterns: without secrets.
    pub url: String,
    pub size: Option<u64>,
    pub validator: Option<String>,
}

/// A file of the cache that stays as long as this does.
#[derive(Debug)]
pub(crate) struct Held {
    pub path: PathBuf,
    _lock: File,
}

/// The folder.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cache<'a> {
    pub folder: &'a Path,
}

pub(crate) fn address_digest(url: &str) -> String {
    blake3::hash(url.as_bytes()).to_hex().to_string()
}

impl Cache<'_> {
    pub(crate) fn path(&self, key: &str) -> PathBuf {
        self.folder.join(key)
    }

    /// A whole download, kept from now on; `None` when it is not there.
    pub(crate) fn hold(&self, key: &str) -> Result<Option<Held>, FetchError> {
        let path = self.path(key);
        let lock = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(file_error(&path, "cannot be opened")(error)),
        };
        // Whoever removes it holds it for a moment only.
        lock.lock_shared().map_err(file_error(&path, "cannot be locked"))?;
        if lock.metadata().map_err(file_error(&path, "cannot be asked"))?.nlink() == 0 {
            return Ok(None);
        }
        // A note that cannot be touched makes it go earlier, no more.
        if let Ok(note) = File::options().write(true).open(path.with_extension("json")) {
            let _ = note.set_modified(SystemTime::now());
        }
        Ok(Some(Held { path, _lock: lock }))
    }

    /// Makes the part a whole download. The part's file keeps what it holds.
    pub(crate) fn keep(&self, key: &str, part: File, note: &Note) -> Result<Held, FetchError> {
        let (path, from) = (self.path(key), self.path(key).with_extension("part"));
        part.sync_all().map_err(file_error(&from, "cannot be synced"))?;
        // Before it has its name: nobody removes it in between.
        part.lock_shared().map_err(file_error(&from, "cannot be locked"))?;
        let text = serde_json::to_vec(note).expect("a note is plain data");
        let noted = path.with_extension("json");
        fs::write(&noted, text).map_err(file_error(&noted, "cannot be written"))?;
        fs::rename(&from, &path).map_err(file_error(&path, "cannot be renamed into"))?;
        Ok(Held { path, _lock: part })
    }

    /// The right to download `key`, waited for.
    pub(crate) fn lock(&self, key: &str, stop: &StopFlag) -> Result<File, FetchError> {
        let path = self.path(key).with_extension("lock");
        loop {
            let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
            let file = file.map_err(file_error(&path, "cannot be opened"))?;
            loop {
                match file.try_lock() {
                    Ok(()) => break,
                    Err(TryLockError::WouldBlock) if http::wait(LOCK_POLL, stop) => {}
                    Err(TryLockError::WouldBlock) => return Err(FetchError::Stopped),
                    Err(TryLockError::Error(e)) => return Err(file_error(&path, "cannot be locked")(e)),
                }
            }
            // It may have been cleared away meanwhile: a lock that nobody else sees is none.
            if file.metadata().map_err(file_error(&path, "cannot be asked"))?.nlink() > 0 {
                return Ok(file);
            }
        }
    }

    /// What is known of an address: the version used last.
    pub(crate) fn newest(&self, url: &str) -> Option<(String, Note)> {
        let address = address_digest(url);
        let notes = self.names("json").into_iter().filter_map(|key| {
            let path = self.path(&key).with_extension("json");
            let used = path.metadata().ok()?.modified().ok()?;
            let note = self.note(&key).filter(|n| n.address == address && self.path(&key).is_file())?;
            Some((used, key, note))
        });
        notes.max_by_key(|(used, ..)| *used).map(|(_, key, note)| (key, note))
    }

    fn note(&self, key: &str) -> Option<Note> {
        let path = self.path(key).with_extension("json");
        if path.metadata().ok()?.len() > MAX_NOTE_SIZE {
            return None;
        }
        serde_json::from_slice(&fs::read(path).ok()?).ok()
    }

    /// Names of the folder's files with this extension, without it.
    fn names(&self, extension: &str) -> Vec<String> {
        let files = fs::read_dir(self.folder).into_iter().flatten().flatten().map(|e| e.path());
        let named = files.filter(|p| p.extension().is_some_and(|e| e == extension));
        named.filter_map(|p| Some(p.file_stem()?.to_str()?.to_owned())).collect()
    }

    /// Removes what the policy does not keep and nobody holds, so that `coming` bytes more are within it. Says how many
    /// bytes went. What cannot be removed stays: a cache that is too large still serves.
    pub(crate) fn sweep(&self, policy: &Policy, coming: u64) -> u64 {
        let mut entries = Vec::new();
        for key in self.names("lock") {
            let [whole, part, note] = [None, Some("part"), Some("json")].map(|extension| {
                let path = self.path(&key);
                extension.map_or(path.clone(), |e| path.with_extension(e)).metadata().ok()
            });
            let size = [&whole, &part].into_iter().flatten().map(|m| m.len()).sum();
            let used = note.or(part).or(whole).and_then(|m| m.modified().ok());
            let unused = used.and_then(|t| t.elapsed().ok()).unwrap_or_default();
            let url = self.note(&key).map_or(String::new(), |n| n.url);
            entries.push(Entry { key, url, size, unused });
        }
        let went = policy.evicted(&entries, coming).into_iter().filter(|key| self.remove(key));
        let went: Vec<String> = went.collect();
        entries.iter().filter(|e| went.contains(&e.key)).map(|e| e.size).sum()
    }

    /// True when it went.
    fn remove(&self, key: &str) -> bool {
        let (path, lock) = (self.path(key), self.path(key).with_extension("lock"));
        let free = |path: &Path| match File::options().write(true).open(path) {
            Ok(file) => file.try_lock().is_ok().then_some(Some(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Some(None),
            Err(_) => None,
        };
        let (Some(_lock), Some(_whole)) = (free(&lock), free(&path)) else { return false };
        let gone = |path: &Path| match fs::remove_file(path) {
            Ok(()) => true,
            Err(error) => error.kind() == io::ErrorKind::NotFound,
        };
        // The lock last: without it nobody would look for the rest again.
        let rest = [path.clone(), path.with_extension("part"), path.with_extension("json")];
        rest.iter().all(|p| gone(p)) && gone(&lock)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(url: &str) -> Note {
        Note { address: address_digest(url), url: url.into(), size: Some(3), validator: None }
    }

    fn put(cache: Cache<'_>, key: &str, url: &str) -> Held {
        let _lock = cache.lock(key, &StopFlag::new()).unwrap();
        let part = cache.path(key).with_extension("part");
        fs::write(&part, b"abc").unwrap();
        cache.keep(key, File::options().read(true).write(true).open(part).unwrap(), &note(url)).unwrap()
    }

    fn nothing() -> Policy {
        Policy { limits: crate::policy::Limits { max_count: Some(0), ..Default::default() }, rules: vec![] }
    }

    /// Sweeps until so many bytes went. A program that another test starts holds our locks, too, until it is running.
    fn sweeps(cache: Cache<'_>, bytes: u64) {
        let begun = std::time::Instant::now();
        let mut went = 0;
        while went < bytes {
            assert!(begun.elapsed() < Duration::from_secs(30), "{went} of {bytes} bytes went");
            std::thread::park_timeout(Duration::from_millis(5));
            went += cache.sweep(&nothing(), 0);
        }
        assert_eq!(went, bytes);
    }

    #[test]
    fn what_another_creator_reads_stays_and_goes_when_it_is_done() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache { folder: folder.path() };
        let held = put(cache, "a", "http://x/a");
        drop(put(cache, "b", "http://x/b"));
        sweeps(cache, 3);
        assert_eq!(fs::read(&held.path).unwrap(), b"abc");
        assert!(cache.hold("b").unwrap().is_none());
        // A second reader, and the first one goes.
        let again = cache.hold("a").unwrap().unwrap();
        drop(held);
        assert_eq!(cache.sweep(&nothing(), 0), 0);
        drop(again);
        sweeps(cache, 3);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "no lock and no note stays");
    }

    #[test]
    fn a_download_under_way_is_not_removed_and_its_leftover_is() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache { folder: folder.path() };
        let lock = cache.lock("a", &StopFlag::new()).unwrap();
        fs::write(folder.path().join("a.part"), b"half").unwrap();
        assert_eq!(cache.sweep(&nothing(), 0), 0);
        drop(lock);
        sweeps(cache, 4);
    }

    #[test]
    fn the_version_used_last_is_the_newest() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache { folder: folder.path() };
        let url = "http://user:secret@x/a?key=1";
        for (key, age) in [("first", 1), ("second", 3), ("third", 2)] {
            drop(put(cache, key, url));
            let file = File::options().write(true).open(cache.path(key).with_extension("json")).unwrap();
            file.set_modified(SystemTime::now() - Duration::from_secs(age * 100)).unwrap();
        }
        assert_eq!(cache.newest(url).unwrap().0, "first");
        assert!(cache.newest("http://x/a").is_none());
        drop(cache.hold("second").unwrap());
        assert_eq!(cache.newest(url).unwrap().0, "second");
    }
}
