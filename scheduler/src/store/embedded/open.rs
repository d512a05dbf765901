//! Opens the embedded store, and puts it together again where that is needed.
//!
//! sled's files are what readers read, not what is promised: nobody syncs them. They are believed when every byte is
//! what it was when the store was closed in good order; else only in the boot of the machine they were written in (after
//! a kill the kernel still has every byte), when sled opens them and everything in them can be read and fits together.
//! Else they are made anew from the newest export and the journals behind it; damaged ones are set aside first.
//!
//! ```text
//! lock ─► as they were closed? ─ yes ─────────────────┬─► batches they lack, from the journal ─┐
//!              └ no ─► same boot, all readable? ─ yes ─┘                                        ├─► new journal ─► open
//!                          └ no ─► set aside ─► export (or the one before) ─► journal ──────────┘
//!                                                  └ something acknowledged is missing: refused, by name
//! ```

use std::fs::{File, TryLockError};
use std::io::{self, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::super::entry::Entry;
use super::super::keys::{all_documents, document_key, index_keys};
use super::super::stage::{Staged, replay};
use super::super::{Record, StoreError, dump};
use super::folder::{exports, journals, sync_folder};
use super::journal::{self, Chain, ChainError};

/// How often a lock is tried, and the pause between: the one before may still be on its way out, in another
/// process or in sled's own threads (4 of 100 re-openings on a busy machine).
const LOCK_TRIES: u32 = 40;
const LOCK_PAUSE: Duration = Duration::from_millis(50);
/// How long closing waits for sled: nothing that was acknowledged depends on it.
const CLOSE_WITHIN: Duration = Duration::from_secs(10);
/// sled's page cache, bytes.
const CACHE_SIZE: u64 = 64 * 1024 * 1024;
/// Documents put into sled at once while it is made anew.
const LOAD_AT_ONCE: usize = 500;
/// Journals that may lie behind the newest export: every opening begins one.
const MAX_JOURNALS: usize = 64;
/// sled's files may be this many times as large as journals and exports, and this much more: sled gives nothing back
/// to the disk, so that past it they are made anew.
const GARBAGE_FACTOR: u64 = 4;
const GARBAGE_ALLOWED: u64 = 64 * 1024 * 1024;
/// Where the number of the last batch lies in sled.
const NUMBER_KEY: &[u8] = b"m\0number";
/// The file that says how the store was closed.
const CLOSED: &str = "closed";
/// Bytes of sled's files that are read at once.
const PIECE: usize = 1 << 20;

/// The store's files, open.
pub(super) struct Opened {
    pub(super) lock: File,
    pub(super) tree: sled::Tree,
    /// Number of the last batch.
    pub(super) last: u64,
    /// An export has to be written before anything else.
    pub(super) needs_export: bool,
    /// What was damaged, and what became of it.
    pub(super) repaired: Option<String>,
}

/// Adds the number of the last batch to what is written with it.
pub(super) fn set_number(write: &mut sled::Batch, number: u64) {
    write.insert(NUMBER_KEY, &number.to_be_bytes());
}

/// What names this boot of the machine. Where there is no such thing sled's files are made anew at every opening.
pub(super) fn this_boot() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default()
}

/// Waits for whoever had the store before; `InUse` when it stays.
pub(super) fn lock(path: &Path) -> Result<File, StoreError> {
    let disk = |source| StoreError::Disk { path: path.to_owned(), source };
    let file = File::options().create(true).append(true).open(path.join("lock")).map_err(disk)?;
    for _ in 0..LOCK_TRIES {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) => std::thread::sleep(LOCK_PAUSE),
            Err(TryLockError::Error(error)) => return Err(disk(error)),
        }
    }
    Err(StoreError::InUse { path: path.to_owned() })
}

/// Opens what is in `path`, which exists.
pub(super) fn open(path: &Path, folder: &Path, boot: &str) -> Result<Opened, StoreError> {
    let disk = |source| StoreError::Disk { path: path.to_owned(), source };
    let lock = lock(path)?;
    adopt(path).map_err(disk)?;
    std::fs::create_dir_all(folder).map_err(disk)?;
    let files = path.join("sled");
    let marker = folder.join("boot");
    let newest = exports(folder).map_err(disk)?.last().map(|(number, _)| *number);
    let is_without_journal = newest.is_none() && journals(folder).map_err(disk)?.is_empty();
    let is_this_boot = !boot.is_empty() && std::fs::read_to_string(&marker).is_ok_and(|was| was == boot);
    let (mut repaired, mut believed) = (None, None);
    let closed = Closed::read(folder);
    let is_as_closed = closed.digest.is_some() && closed.digest == digest(&files).ok();
    let is_believed = is_as_closed || is_this_boot || is_without_journal;
    if files.exists() && is_believed && !has_garbage(&files, folder).map_err(disk)? {
        match open_believing(&files, is_as_closed)? {
            Ok((tree, number)) if number >= newest.unwrap_or(0).max(closed.number) => {
                believed = Some((tree, number));
            }
            Ok(_) => repaired = Some("it had forgotten changes".to_owned()),
            Err(reason) => repaired = Some(reason),
        }
    }
    let is_made_anew = believed.is_none();
    let (tree, chain) = match believed {
        Some((tree, have)) => {
            let chain = catch_up(&tree, folder, newest.unwrap_or(0), have).map_err(|e| refused(path, e))?;
            if chain.damaged && !is_without_journal {
                repaired = Some("its journal had lost lines; the documents are complete".to_owned());
            }
            (tree, Chain { damaged: chain.damaged || is_without_journal, ..chain })
        }
        None => {
            let aside = set_aside(path, &files, repaired.is_some()).map_err(disk)?;
            let made = rebuild(path, &files, folder)?;
            match (&aside, &mut repaired) {
                (Some(aside), Some(reason)) => {
                    reason.push_str(&format!("; its files are in {} now", aside.display()));
                }
                (Some(aside), None) => std::fs::remove_dir_all(aside).map_err(disk)?,
                (None, _) => {}
            }
            made
        }
    };
    match std::fs::remove_file(folder.join(CLOSED)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(disk(error)),
        _ => {}
    }
    std::fs::write(&marker, boot).map_err(disk)?;
    sync_folder(path).map_err(disk)?;
    let many = journals(folder).map_err(disk)?.len() > MAX_JOURNALS;
    // Whoever has just read everything may as well write it, and let go of what is not needed any more.
    let newest = exports(folder).map_err(disk)?.last().map(|(number, _)| *number);
    let needs_export =
        (chain.damaged || many || is_made_anew && chain.last > 0) && newest != Some(chain.last);
    Ok(Opened { lock, tree, last: chain.last, needs_export, repaired })
}

/// Closes sled and notes at which batch that was, and the digest of its files. After a kill sled may lack the newest
/// batches, which the journal has; here it may not.
pub(super) fn close(path: &Path, folder: &Path, tree: sled::Tree) {
    let (told, flushed) = std::sync::mpsc::channel();
    // On a thread of its own, which keeps the tree: on a full disk sled's flush may never return.
    let flush = move || {
        let number = tree.flush().and_then(|_| number(&tree));
        drop(tree);
        // Nobody waits any more: sled was too slow.
        let _ = told.send(number);
    };
    let started = std::thread::Builder::new().name("store-close".into()).spawn(flush);
    let number = match started.map(|_| flushed.recv_timeout(CLOSE_WITHIN)) {
        Ok(Ok(Ok(Some(number)))) => number,
        _ => {
            tracing::error!("sled's files are not closed in good order; the next start reads the journal");
            return;
        }
    };
    let digest = digest_of_closed(&path.join("sled")).ok();
    if let Err(error) = (Closed { number, digest }).write(folder) {
        tracing::debug!(%error, "the store is closed, and does not say so");
    }
}

/// How the store was closed.
#[derive(Default)]
struct Closed {
    /// The last batch.
    number: u64,
    /// Of sled's files.
    digest: Option<blake3::Hash>,
}

impl Closed {
    /// What cannot be read says nothing.
    fn read(folder: &Path) -> Self {
        let text = std::fs::read_to_string(folder.join(CLOSED)).unwrap_or_default();
        let mut words = text.split_whitespace();
        let number = words.next().and_then(|word| word.parse().ok()).unwrap_or(0);
        Self { number, digest: words.next().and_then(|word| word.parse().ok()) }
    }

    fn write(&self, folder: &Path) -> io::Result<()> {
        let digest = self.digest.map(|digest| format!(" {digest}")).unwrap_or_default();
        std::fs::write(folder.join(CLOSED), format!("{}{digest}", self.number))
    }
}

/// The digest once sled's own threads have let go of the files.
fn digest_of_closed(files: &Path) -> io::Result<blake3::Hash> {
    let lock = File::open(files.join("db"))?;
    for _ in 0..LOCK_TRIES {
        match lock.try_lock() {
            Ok(()) => return digest(files),
            Err(TryLockError::WouldBlock) => std::thread::sleep(LOCK_PAUSE),
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
    Err(io::ErrorKind::WouldBlock.into())
}

/// Of the names and contents of all files below a folder.
fn digest(folder: &Path) -> io::Result<blake3::Hash> {
    let mut entries = std::fs::read_dir(folder)?.collect::<Result<Vec<_>, _>>()?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; PIECE];
    for entry in entries {
        let name = entry.file_name();
        hasher.update(name.as_encoded_bytes()).update(&[0]);
        if entry.file_type()?.is_dir() {
            hasher.update(digest(&entry.path())?.as_bytes());
            continue;
        }
        let mut file = File::open(entry.path())?;
        hasher.update(&file.metadata()?.len().to_le_bytes());
        loop {
            match file.read(&mut buffer)? {
                0 => break,
                count => hasher.update(&buffer[..count]),
            };
        }
    }
    Ok(hasher.finalize())
}

/// sled's files lay in the store's own folder before there was a journal.
fn adopt(path: &Path) -> io::Result<()> {
    if !path.join("db").exists() {
        return Ok(());
    }
    std::fs::create_dir_all(path.join("sled"))?;
    for entry in std::fs::read_dir(path)? {
        let name = entry?.file_name();
        let text = name.to_string_lossy();
        // The file that makes this a store of the old kind comes last.
        if text == "conf" || text == "blobs" || text.starts_with("snap.") {
            std::fs::rename(path.join(&name), path.join("sled").join(&name))?;
        }
    }
    std::fs::rename(path.join("db"), path.join("sled").join("db"))
}

fn has_garbage(files: &Path, folder: &Path) -> io::Result<bool> {
    Ok(size_of(files)? > GARBAGE_ALLOWED + GARBAGE_FACTOR * size_of(folder)?)
}

/// Bytes of all files in a folder.
pub(super) fn size_of(folder: &Path) -> io::Result<u64> {
    let mut size = 0;
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        size += if entry.file_type()?.is_dir() { size_of(&entry.path())? } else { entry.metadata()?.len() };
    }
    Ok(size)
}

/// Opens sled's files, and reads everything in them unless they are as they were closed; the inner error says what is
/// wrong with them. Inside `catch_unwind`, because sled panics on damaged files.
fn open_believing(files: &Path, is_as_closed: bool) -> Result<Result<(sled::Tree, u64), String>, StoreError> {
    let read = || -> sled::Result<Result<(sled::Tree, u64), String>> {
        let tree = open_sled(files)?;
        if is_as_closed && let Some(number) = number(&tree)? {
            return Ok(Ok((tree, number)));
        }
        Ok(check(&tree)?.map(|number| (tree, number)))
    };
    match catch_unwind(AssertUnwindSafe(read)) {
        Ok(Ok(found)) => Ok(found),
        Ok(Err(sled::Error::Io(e))) if is_locked(&e) => Err(StoreError::InUse { path: files.to_owned() }),
        Ok(Err(sled::Error::Io(source))) if source.kind() == io::ErrorKind::PermissionDenied => {
            Err(StoreError::Disk { path: files.to_owned(), source })
        }
        Ok(Err(error)) => Ok(Err(format!("sled says: {error}"))),
        Err(_) => Ok(Err("sled cannot read it".to_owned())),
    }
}

fn is_locked(error: &io::Error) -> bool {
    error.to_string().contains("could not acquire lock")
}

fn open_sled(files: &Path) -> sled::Result<sled::Tree> {
    let config = sled::Config::new()
        .path(files)
        .cache_capacity(CACHE_SIZE)
        .mode(sled::Mode::HighThroughput)
        .flush_every_ms(Some(200));
    let mut tries = 0;
    loop {
        match config.open() {
            Err(sled::Error::Io(e)) if is_locked(&e) && tries < LOCK_TRIES => {
                tries += 1;
                std::thread::sleep(LOCK_PAUSE);
            }
            opened => return opened?.open_tree("documents"),
        }
    }
}

/// The number of the last batch, when everything can be read and the indexes are those of the documents.
fn check(tree: &sled::Tree) -> sled::Result<Result<u64, String>> {
    let (mut wanted, mut found) = (KeySum::default(), KeySum::default());
    let documents = all_documents();
    for entry in tree.iter() {
        let (key, value) = entry?;
        if documents.contains(&key.to_vec()) {
            let Ok(record) = Record::decode_head(&value) else {
                return Ok(Err("a document is damaged".into()));
            };
            index_keys(&record).iter().for_each(|key| wanted.add(key));
        } else if key.starts_with(b"i\0") {
            found.add(&key);
        }
    }
    if found != wanted {
        return Ok(Err("an index is not that of its documents".into()));
    }
    Ok(match number(tree)? {
        Some(number) => Ok(number),
        // Of before there was a journal, or a rebuilding that was cut off before its last write.
        None if wanted == KeySum::default() && tree.is_empty() => Ok(0),
        None => Err("it was not finished".into()),
    })
}

/// A sum over keys in any order: the same keys give the same sum, and others do not but by an accident of one in 2^128.
/// Looking for each key instead would read a large store in the order of its documents, once for every key.
#[derive(Default, PartialEq, Eq)]
struct KeySum {
    count: u64,
    sum: u128,
}

impl KeySum {
    fn add(&mut self, key: &[u8]) {
        self.count += 1;
        let digest = blake3::hash(key);
        let half = digest.as_bytes()[..16].try_into().expect("a digest has 32 bytes");
        self.sum = self.sum.wrapping_add(u128::from_le_bytes(half));
    }
}

fn number(tree: &sled::Tree) -> sled::Result<Option<u64>> {
    Ok(tree.get(NUMBER_KEY)?.and_then(|n| Some(u64::from_be_bytes(n.as_ref().try_into().ok()?))))
}

/// Puts batches of the journal behind `have` into sled.
fn catch_up(tree: &sled::Tree, folder: &Path, from: u64, have: u64) -> Result<Chain, ChainError> {
    let chain = journal::read(folder, from, have, &mut |_, entries| {
        entries.into_iter().try_for_each(|entry| put(tree, entry)).map_err(io::Error::other)
    })?;
    let mut write = sled::Batch::default();
    set_number(&mut write, chain.last);
    tree.apply_batch(write).map_err(io::Error::other)?;
    Ok(chain)
}

fn put(tree: &sled::Tree, entry: Entry) -> sled::Result<()> {
    let old = tree.get(document_key(entry.kind(), entry.id()))?;
    let old = old.and_then(|bytes| Record::decode(&bytes).ok());
    let mut staged = Staged::default();
    replay(entry, old.as_ref(), &mut staged);
    load(tree, staged)
}

fn load(tree: &sled::Tree, staged: Staged) -> sled::Result<()> {
    let mut write = sled::Batch::default();
    for (key, value) in staged.writes {
        match value {
            Some(value) => write.insert(key, value),
            None => write.remove(key),
        }
    }
    tree.apply_batch(write)
}

/// Moves sled's files away; where to.
fn set_aside(path: &Path, files: &Path, damaged: bool) -> io::Result<Option<PathBuf>> {
    if !files.exists() {
        return Ok(None);
    }
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    let aside = path.join(if damaged { format!("damaged-{seconds}") } else { "old".to_owned() });
    if aside.exists() {
        std::fs::remove_dir_all(&aside)?;
    }
    std::fs::rename(files, &aside)?;
    Ok(Some(aside))
}

/// Makes sled's files from the newest export that is whole and the journals behind it.
fn rebuild(path: &Path, files: &Path, folder: &Path) -> Result<(sled::Tree, Chain), StoreError> {
    let disk = |source| StoreError::Disk { path: path.to_owned(), source };
    let tree = open_sled(files).map_err(|e| disk(io::Error::other(e)))?;
    let mut exports = exports(folder).map_err(disk)?;
    let mut older = false;
    let from = loop {
        tree.clear().map_err(|e| disk(io::Error::other(e)))?;
        let Some((number, export)) = exports.pop() else { break 0 };
        match load_export(&tree, &export) {
            Ok(()) => break number,
            Err(StoreError::Dump(error)) if number == 0 => {
                // Made by an import: no journal tells what was in it.
                let reason = format!("{} is damaged: {error}", export.display());
                return Err(StoreError::Damaged { path: path.to_owned(), reason });
            }
            Err(StoreError::Dump(error)) => {
                tracing::error!(export = %export.display(), %error, "an export is damaged; the one before is taken");
                std::fs::remove_file(&export).map_err(disk)?;
                older = true;
            }
            Err(error) => return Err(error),
        }
    };
    let chain = catch_up(&tree, folder, from, from).map_err(|e| refused(path, e))?;
    Ok((tree, Chain { damaged: chain.damaged || older, ..chain }))
}

fn load_export(tree: &sled::Tree, export: &Path) -> Result<(), StoreError> {
    let sled_error =
        |e: sled::Error| StoreError::Disk { path: export.to_owned(), source: io::Error::other(e) };
    let (mut staged, mut count) = (Staged::default(), 0);
    dump::read_file(export, &mut |record| {
        replay(Entry::Put(record), None, &mut staged);
        count += 1;
        if count % LOAD_AT_ONCE == 0 {
            load(tree, std::mem::take(&mut staged)).map_err(sled_error)?;
        }
        Ok(())
    })?;
    load(tree, staged).map_err(sled_error)
}

fn refused(path: &Path, error: ChainError) -> StoreError {
    match error {
        ChainError::Lost(number) => StoreError::Damaged {
            path: path.to_owned(),
            reason: format!("change {number} was acknowledged and is in no journal"),
        },
        ChainError::Io(source) => StoreError::Disk { path: path.to_owned(), source },
    }
}
