//! What disks and machines do to the embedded store: power cuts that drop what was not synced, damaged, full and
//! read-only disks, second processes. Each ends in everything acknowledged being there, or in a clear refusal.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use super::super::conformance::{Thing, create, ids, thing};
use super::super::{Batch, Select, Store, StoreAddress, StoreError, export_store, import_store};
use super::journal::JournalFile;
use super::{Embedded, World, folder, journal};

/// Numbers that are the same in every run.
struct Random(blake3::OutputReader);

impl Random {
    fn new(seed: u64) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&seed.to_le_bytes());
        Self(hasher.finalize_xof())
    }

    fn below(&mut self, end: u64) -> u64 {
        let mut bytes = [0; 8];
        self.0.fill(&mut bytes);
        u64::from_le_bytes(bytes) % end
    }
}

/// Another boot comes after a power cut here: nothing says that the store was closed.
fn open(path: &Path, world: World) -> Result<Store, StoreError> {
    let journal = path.join("journal");
    if std::fs::read_to_string(journal.join("boot")).is_ok_and(|boot| boot != world.boot) {
        let _ = std::fs::remove_file(journal.join("closed"));
    }
    reopen(path, world)
}

fn reopen(path: &Path, world: World) -> Result<Store, StoreError> {
    Ok(Store { engine: Arc::new(Embedded::open(path, world)?) })
}

fn in_boot(boot: &str) -> World {
    World { boot: boot.into(), ..World::default() }
}

fn everything() -> Select<'static> {
    Select { limit: usize::MAX, ..Select::default() }
}

/// A store with some hundreds of things, changed and removed, closed; and what is in it.
async fn filled(path: &Path, world: World) -> Vec<Thing> {
    let store = open(path, world).unwrap();
    for n in 0..300 {
        create(&store, &thing(&n.to_string(), "x", n)).await.unwrap();
        let mut batch = Batch::new();
        batch.put(&thing(&(n / 2).to_string(), &"y".repeat(1 + n as usize % 900), n));
        batch.remove::<Thing>(&(n / 3).to_string());
        store.apply(batch).await.unwrap();
    }
    contents(&store)
}

fn contents(store: &Store) -> Vec<Thing> {
    store.list::<Thing>(everything()).unwrap().into_iter().map(|t| t.value).collect()
}

/// Changes the bytes of a file.
fn spoil(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = std::fs::read(path).unwrap();
    change(&mut bytes);
    std::fs::write(path, bytes).unwrap();
}

fn journal_files(path: &Path) -> Vec<PathBuf> {
    folder::journals(&path.join("journal")).unwrap().into_iter().map(|(_, path)| path).collect()
}

/// The disk of a machine whose power is cut: what was written and not synced may be there in part.
#[derive(Clone, Default)]
struct LossyDisk {
    files: Arc<Mutex<BTreeMap<PathBuf, LossyFile>>>,
    dead: Arc<AtomicBool>,
}

#[derive(Default)]
struct LossyFile {
    synced: Vec<u8>,
    written: Vec<u8>,
}

struct LossyHandle(LossyDisk, PathBuf);

impl LossyDisk {
    fn world(&self, boot: &str, export_above: u64) -> World {
        let disk = self.clone();
        let make = move |path: &Path| {
            disk.files.lock().unwrap().insert(path.to_owned(), LossyFile::default());
            // Its name is there, as after a sync of the folder.
            std::fs::write(path, b"")?;
            Ok(Box::new(LossyHandle(disk.clone(), path.to_owned())) as Box<dyn JournalFile>)
        };
        World { make: Box::new(make), boot: boot.into(), export_above }
    }

    /// What is on the disk when the power is back: of each sector that was not synced the new bytes, or zeros.
    fn come_back(&self, random: &mut Random) {
        const SECTOR: usize = 512;
        for (path, file) in self.files.lock().unwrap().iter() {
            if !path.exists() {
                continue;
            }
            let mut bytes = file.written.clone();
            let first = file.synced.len() / SECTOR * SECTOR;
            for start in (first..bytes.len()).step_by(SECTOR) {
                if random.below(2) == 0 {
                    let end = (start + SECTOR).min(bytes.len());
                    bytes[start..end].fill(0);
                }
            }
            // A sector half of which was synced holds that half in either case.
            let kept = file.synced.len().min(bytes.len());
            bytes[..kept].copy_from_slice(&file.synced[..kept]);
            bytes.truncate(kept + random.below((bytes.len() - kept) as u64 + 1) as usize);
            std::fs::write(path, bytes).unwrap();
        }
        self.files.lock().unwrap().clear();
        self.dead.store(false, Ordering::Release);
    }
}

impl LossyHandle {
    fn file<T>(&mut self, act: impl FnOnce(&mut LossyFile) -> T) -> io::Result<T> {
        if self.0.dead.load(Ordering::Acquire) {
            return Err(io::Error::other("the power is cut"));
        }
        // For the size of the folder, and for whoever reads beside.
        let mut files = self.0.files.lock().unwrap();
        Ok(act(files.get_mut(&self.1).unwrap()))
    }
}

impl JournalFile for LossyHandle {
    fn add(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file(|file| file.written.extend_from_slice(bytes))
    }
    fn sync(&mut self) -> io::Result<()> {
        let path = self.1.clone();
        let synced = self.file(|file| {
            file.synced.clone_from(&file.written);
            file.synced.clone()
        })?;
        std::fs::write(path, synced)
    }
    fn cut(&mut self, size: u64) -> io::Result<()> {
        self.file(|file| file.written.truncate(size as usize))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_power_cut_that_drops_what_was_not_synced_loses_nothing_acknowledged() {
    let directory = tempfile::tempdir().unwrap();
    let disk = LossyDisk::default();
    let mut random = Random::new(7);
    let acknowledged = Arc::new(Mutex::new(Vec::new()));
    let mut exports = 0;
    for boot in 0..20 {
        // Small, so that exports are cut off too.
        let store = open(directory.path(), disk.world(&format!("boot {boot}"), 20_000)).unwrap();
        let all = ids(&store, everything());
        for id in acknowledged.lock().unwrap().iter() {
            assert!(all.binary_search(id).is_ok(), "boot {boot}: {id} is lost");
        }
        assert!(all.len().is_multiple_of(2), "half a batch");
        let indexed = Select { index: Some(("shelf", "x")), ..everything() };
        assert_eq!(ids(&store, indexed), all);
        exports = exports.max(folder::exports(&directory.path().join("journal")).unwrap().len());

        let until = acknowledged.lock().unwrap().len() + 20 + random.below(200) as usize;
        let mut writers = tokio::task::JoinSet::new();
        for task in 0..8 {
            let (store, acknowledged, dead) = (store.clone(), acknowledged.clone(), disk.dead.clone());
            writers.spawn(async move {
                for n in 0.. {
                    let id = format!("{boot:02}-{task}-{n:04}");
                    let mut batch = Batch::new();
                    batch.create(&thing(&id, "x", n)).create(&thing(&format!("{id}-pair"), "x", n));
                    if store.apply(batch).await.is_err() {
                        return;
                    }
                    let mut acknowledged = acknowledged.lock().unwrap();
                    acknowledged.push(id);
                    if acknowledged.len() >= until {
                        dead.store(true, Ordering::Release);
                    }
                }
            });
        }
        writers.join_all().await;
        drop(store);
        disk.come_back(&mut random);
        // sled's files are not synced by anybody: whatever is left of them.
        let file = directory.path().join("sled/db");
        spoil(&file, |bytes| {
            for _ in 0..1 + bytes.len() / 65_536 {
                let start = random.below(bytes.len() as u64) as usize & !4095;
                let end = (start + 4096).min(bytes.len());
                bytes[start..end].fill(0);
            }
        });
    }
    assert_eq!(exports, folder::GENERATIONS, "journals were never rotated");
}

#[tokio::test]
async fn damaged_files_of_sled_are_noticed_set_aside_and_made_anew() {
    let mut set_aside = 0;
    for seed in 0..12 {
        let directory = tempfile::tempdir().unwrap();
        let before = filled(directory.path(), World::default()).await;
        let mut random = Random::new(seed);
        let file = directory.path().join("sled/db");
        spoil(&file, |bytes| {
            let used = bytes.iter().rposition(|b| *b != 0).unwrap() as u64 + 1;
            match seed % 3 {
                0 => (0..8).for_each(|_| bytes[random.below(used) as usize] ^= 1 << random.below(8)),
                1 => bytes.truncate((used - 1 - random.below(used / 2)) as usize),
                _ => {
                    let start = random.below(used - 8192) as usize;
                    bytes[start..start + 8192].fill(0);
                }
            }
        });
        let store = Store::open(directory.path()).unwrap();
        assert!(contents(&store) == before, "damage {seed}");
        let aside = std::fs::read_dir(directory.path()).unwrap().flatten();
        let aside = aside.filter(|e| e.file_name().to_string_lossy().starts_with("damaged-")).count();
        assert_eq!(aside == 1, store.repaired().is_some());
        set_aside += aside;
        create(&store, &thing("new", "x", 1)).await.unwrap();
        drop(store);
        let store = Store::open(directory.path()).unwrap();
        assert!(store.repaired().is_none());
        assert_eq!(contents(&store).len(), before.len() + 1);
    }
    assert!(set_aside >= 6, "{set_aside} of 12 damages were noticed: the others were where nothing is");
}

#[tokio::test]
async fn a_store_that_was_closed_in_good_order_is_believed_after_a_reboot_and_without_its_journal() {
    let directory = tempfile::tempdir().unwrap();
    let before = filled(directory.path(), in_boot("one")).await;
    let journals = journal_files(directory.path());
    spoil(&journals[0], |bytes| bytes.truncate(bytes.len() / 2));
    let store = reopen(directory.path(), in_boot("two")).unwrap();
    assert!(contents(&store) == before && store.repaired().is_none_or(|what| what.contains("complete")));
    create(&store, &thing("new", "x", 1)).await.unwrap();
    let before = contents(&store);
    drop(store);
    // A bit that changed meanwhile: the export that was written makes up for it.
    spoil(&directory.path().join("sled/conf"), |bytes| bytes[0] ^= 1);
    let store = reopen(directory.path(), in_boot("three")).unwrap();
    assert!(contents(&store) == before);
}

#[tokio::test]
async fn a_damaged_configuration_of_sled_is_no_loss_either() {
    let directory = tempfile::tempdir().unwrap();
    let before = filled(directory.path(), World::default()).await;
    std::fs::write(directory.path().join("sled/conf"), b"not a configuration of sled").unwrap();
    let store = Store::open(directory.path()).unwrap();
    assert!(contents(&store) == before);
    assert!(store.repaired().is_some_and(|what| what.contains("damaged-")));
}

#[tokio::test]
async fn a_damaged_journal_costs_nothing_while_sled_is_whole_and_is_refused_by_name_when_it_is_not() {
    let directory = tempfile::tempdir().unwrap();
    let before = filled(directory.path(), World::default()).await;
    let journals = journal_files(directory.path());
    let spoiled = std::fs::read(&journals[0]).unwrap();
    spoil(&journals[0], |bytes| {
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
    });
    // After a reboot sled's files are not believed, and the journal has a hole.
    let Err(error) = open(directory.path(), in_boot("another")) else {
        panic!("a store with a hole was opened")
    };
    assert!(
        matches!(&error, StoreError::Damaged { reason, .. } if reason.contains("in no journal")),
        "{error}"
    );
    assert!(!error.to_string().is_empty());
    std::fs::write(&journals[0], spoiled).unwrap();
    let store = open(directory.path(), in_boot("another")).unwrap();
    assert!(contents(&store) == before);
    drop(store);
    let store = open(directory.path(), in_boot("another")).unwrap();
    for n in 0..20 {
        create(&store, &thing(&format!("new{n}"), "x", n)).await.unwrap();
    }
    let before = contents(&store);
    drop(store);
    let newest = journal_files(directory.path()).pop().unwrap();
    spoil(&newest, |bytes| bytes.truncate(bytes.len() / 2));
    let store = open(directory.path(), in_boot("another")).unwrap();
    assert!(contents(&store) == before);
    assert!(store.repaired().is_some_and(|what| what.contains("complete")));
    drop(store);
    // The export that was written at once makes up for it.
    let store = open(directory.path(), in_boot("a third")).unwrap();
    assert!(contents(&store) == before && store.repaired().is_none());
}

#[tokio::test]
async fn a_damaged_import_is_refused_and_not_taken_for_an_empty_store() {
    let directory = tempfile::tempdir().unwrap();
    let (from, to) = (directory.path().join("from"), directory.path().join("to"));
    let wanted = filled(&from, World::default()).await;
    let mut bytes = Vec::new();
    export_store(StoreAddress::Directory(from), &mut bytes).unwrap();
    import_store(StoreAddress::Directory(to.clone()), &bytes[..]).unwrap();
    let (_, export) = folder::exports(&to.join("journal")).unwrap().pop().unwrap();
    let whole = std::fs::read(&export).unwrap();
    let mut damaged = whole.clone();
    damaged[whole.len() / 2] ^= 1;
    std::fs::write(&export, damaged).unwrap();
    for _ in 0..2 {
        let refused = open(&to, World::default()).err().expect("it is refused");
        assert!(matches!(&refused, StoreError::Damaged { .. }), "{refused}");
    }
    std::fs::write(&export, whole).unwrap();
    assert_eq!(contents(&open(&to, World::default()).unwrap()), wanted);
}

#[tokio::test]
async fn of_a_damaged_export_the_one_before_and_its_journals_are_taken() {
    let directory = tempfile::tempdir().unwrap();
    let world = || World { export_above: 30_000, ..in_boot("one") };
    let before = filled(directory.path(), world()).await;
    let exports = folder::exports(&directory.path().join("journal")).unwrap();
    assert_eq!(exports.len(), folder::GENERATIONS);
    spoil(&exports[1].1, |bytes| {
        let middle = bytes.len() / 2;
        bytes[middle] ^= 4;
    });
    let store = open(directory.path(), World { boot: "two".into(), ..world() }).unwrap();
    assert!(contents(&store) == before);
    drop(store);
    let store = open(directory.path(), in_boot("three")).unwrap();
    assert!(contents(&store) == before);
}

#[tokio::test]
async fn a_backup_of_a_store_that_is_open_is_one_moment_of_it() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path(), World { export_above: 10_000, ..World::default() }).unwrap();
    let writer = tokio::spawn({
        let store = store.clone();
        async move {
            for n in 0..1500 {
                let mut batch = Batch::new();
                batch.put(&thing("first", "x", n)).put(&thing("last", "x", n));
                batch.put(&thing(&format!("n{}", n % 40), &"z".repeat(200), n));
                store.apply(batch).await.unwrap();
            }
        }
    });
    let mut backups = 0;
    while !writer.is_finished() {
        let file = directory.path().join(format!("backup-{backups}"));
        let path = file.clone();
        let store = store.clone();
        let written = tokio::task::spawn_blocking(move || store.back_up(&path)).await.unwrap();
        written.unwrap();
        let mut counts = Vec::new();
        let lines = std::fs::read_to_string(&file).unwrap();
        for line in lines.lines().filter(|l| l.contains("\"id\":\"first\"") || l.contains("\"id\":\"last\""))
        {
            let record: serde_json::Value = serde_json::from_str(line).unwrap();
            counts.push(record["body"]["count"].as_u64().unwrap());
        }
        assert!(counts.windows(2).all(|pair| pair[0] == pair[1]), "half a batch in a backup: {counts:?}");
        std::fs::remove_file(file).unwrap();
        backups += 1;
    }
    writer.await.unwrap();
    assert!(backups > 1);
}

/// A file that takes so many bytes.
struct FullFile(std::fs::File, Arc<AtomicU64>);

impl JournalFile for FullFile {
    fn add(&mut self, bytes: &[u8]) -> io::Result<()> {
        let room = self.1.load(Ordering::Acquire) as usize;
        let taken = bytes.len().min(room);
        self.0.add(&bytes[..taken])?;
        self.1.fetch_sub(taken as u64, Ordering::AcqRel);
        if taken < bytes.len() { Err(io::Error::from_raw_os_error(28)) } else { Ok(()) }
    }
    fn sync(&mut self) -> io::Result<()> {
        self.0.sync()
    }
    fn cut(&mut self, size: u64) -> io::Result<()> {
        self.0.cut(size)
    }
}

#[tokio::test]
async fn a_full_disk_refuses_changes_and_takes_them_again_when_there_is_room() {
    let directory = tempfile::tempdir().unwrap();
    let room = Arc::new(AtomicU64::new(5_000));
    let make = {
        let room = room.clone();
        move |path: &Path| {
            let file = std::fs::OpenOptions::new().create(true).append(true).open(path)?;
            Ok(Box::new(FullFile(file, room.clone())) as Box<dyn JournalFile>)
        }
    };
    let store = open(directory.path(), World { make: Box::new(make), ..in_boot("one") }).unwrap();
    let mut kept = 0;
    let error = loop {
        match create(&store, &thing(&format!("{kept:04}"), "x", kept)).await {
            Ok(()) => kept += 1,
            Err(error) => break error,
        }
    };
    assert!(
        matches!(&error, StoreError::Disk { source, .. } if source.raw_os_error() == Some(28)),
        "{error:?}"
    );
    assert!(kept > 5 && store.is_healthy());
    assert_eq!(ids(&store, everything()).len() as u64, kept);
    room.store(1 << 20, Ordering::Release);
    create(&store, &thing("after", "x", 0)).await.unwrap();
    drop(store);
    let store = open(directory.path(), in_boot("two")).unwrap();
    assert_eq!(ids(&store, everything()).len() as u64, kept + 1);
}

/// A file whose disk fails to sync.
struct Unsyncable(std::fs::File, Arc<AtomicBool>);

impl JournalFile for Unsyncable {
    fn add(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.add(bytes)
    }
    fn sync(&mut self) -> io::Result<()> {
        if self.1.load(Ordering::Acquire) { Err(io::Error::from_raw_os_error(5)) } else { self.0.sync() }
    }
    fn cut(&mut self, size: u64) -> io::Result<()> {
        self.0.cut(size)
    }
}

#[tokio::test]
async fn after_a_failed_sync_nothing_is_read_that_the_disk_may_not_have() {
    let directory = tempfile::tempdir().unwrap();
    let broken = Arc::new(AtomicBool::new(false));
    let make = {
        let broken = broken.clone();
        move |path: &Path| {
            let file = std::fs::OpenOptions::new().create(true).append(true).open(path)?;
            Ok(Box::new(Unsyncable(file, broken.clone())) as Box<dyn JournalFile>)
        }
    };
    let store = open(directory.path(), World { make: Box::new(make), ..World::default() }).unwrap();
    create(&store, &thing("a", "x", 1)).await.unwrap();
    store.settle().await.unwrap();
    broken.store(true, Ordering::Release);
    assert!(matches!(create(&store, &thing("b", "x", 1)).await, Err(StoreError::Stopped)));
    assert!(!store.is_healthy());
    assert!(matches!(store.get::<Thing>("b"), Err(StoreError::Stopped)), "it may be gone after a restart");
    assert!(matches!(store.list::<Thing>(everything()), Err(StoreError::Stopped)));
    assert!(matches!(store.settle().await, Err(StoreError::Stopped)));
    drop(store);
    assert!(Store::open(directory.path()).unwrap().get::<Thing>("a").unwrap().is_some());
}

/// A small disk of its own, in memory.
struct Mounted(PathBuf);

impl Mounted {
    fn new(path: &Path, options: &str) -> Option<Self> {
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", options, "none"]).arg(path).output();
        if mounted.is_ok_and(|output| output.status.success()) {
            return Some(Self(path.to_owned()));
        }
        println!("SKIPPED: mounting a small disk needs root");
        None
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

#[tokio::test]
async fn a_really_full_disk_loses_nothing_and_a_read_only_one_is_refused_in_words() {
    let directory = tempfile::tempdir().unwrap();
    let Some(disk) = Mounted::new(directory.path(), "size=40m") else { return };
    let path = disk.0.join("store");
    let store = Store::open(&path).unwrap();
    let mut kept = 0_u64;
    for n in 0..4000 {
        match create(&store, &thing(&format!("{n:05}"), &"s".repeat(20_000), n)).await {
            Ok(()) => kept += 1,
            Err(StoreError::Disk { .. } | StoreError::Stopped) => break,
            Err(error) => panic!("{error}"),
        }
    }
    assert!((100..4000).contains(&kept), "{kept}");
    drop(store);
    let larger = Command::new("mount").args(["-o", "remount,size=200m"]).arg(&disk.0).status();
    assert!(larger.unwrap().success());
    for boot in ["this", "another"] {
        let world = if boot == "this" { World::default() } else { in_boot(boot) };
        let store = open(&path, world).unwrap();
        let found = ids(&store, everything()).len() as u64;
        // The one that was stopped on the way may be there: nobody was told.
        assert!(found == kept || found == kept + 1, "{found} of {kept}");
    }
    let read_only = Command::new("mount").args(["-o", "remount,ro"]).arg(&disk.0).status();
    assert!(read_only.unwrap().success());
    let Err(error) = Store::open(&path) else { panic!("a store was opened on a read-only disk") };
    assert!(
        matches!(&error, StoreError::Disk { source, .. } if source.kind() == io::ErrorKind::ReadOnlyFilesystem)
    );
    // It can still be read, by a backup.
    let mut lines = Vec::new();
    super::super::export_store(super::super::StoreAddress::Directory(path), &mut lines).unwrap();
    assert!(lines.len() > 20_000 * kept as usize);
}

#[tokio::test]
async fn only_the_owner_looks_into_the_directory() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    std::fs::create_dir(&path).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    drop(Store::open(&path).unwrap());
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
}

#[tokio::test]
async fn large_documents_are_kept_over_a_reopening() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    let large = |n: u64| thing(&format!("{n:02}"), &format!("{n}{}", "x".repeat(60_000)), n);
    for n in 0..40 {
        create(&store, &large(n)).await.unwrap();
    }
    drop(store);
    for world in [World::default(), in_boot("another")] {
        let store = open(directory.path(), world).unwrap();
        assert!(contents(&store).into_iter().eq((0..40).map(large)));
    }
}

#[tokio::test]
async fn a_second_opener_is_told_that_the_directory_is_in_use() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    assert!(matches!(Store::open(directory.path()), Err(StoreError::InUse { .. })));
    drop(store);
    Store::open(directory.path()).unwrap();
}

#[tokio::test]
async fn a_store_of_before_there_was_a_journal_is_taken_over() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let before = filled(&path, World::default()).await;
    for name in ["conf", "db", "blobs"] {
        std::fs::rename(path.join("sled").join(name), path.join(name)).unwrap();
    }
    std::fs::remove_dir_all(path.join("sled")).unwrap();
    std::fs::remove_dir_all(path.join("journal")).unwrap();
    for world in [World::default(), in_boot("another")] {
        assert!(contents(&open(&path, world).unwrap()) == before);
    }
}

#[tokio::test]
async fn what_is_removed_frees_the_disk() {
    let directory = tempfile::tempdir().unwrap();
    let world = in_boot;
    let store = open(directory.path(), world("one")).unwrap();
    let text = |n: u64| format!("{:016x}", Random::new(n).below(u64::MAX)).repeat(3000);
    for n in 0..100 {
        create(&store, &thing(&n.to_string(), &text(n), n)).await.unwrap();
    }
    let full = super::open::size_of(directory.path()).unwrap();
    let mut batch = Batch::new();
    for n in 0..100 {
        batch.remove::<Thing>(&n.to_string());
    }
    store.apply(batch).await.unwrap();
    drop(store);
    // Two exports are kept; each start after a reboot writes one.
    for boot in ["two", "three"] {
        let store = open(directory.path(), world(boot)).unwrap();
        store.settle().await.unwrap();
        let mut batch = Batch::new();
        batch.put(&thing("small", "x", 1));
        store.apply(batch).await.unwrap();
    }
    let store = open(directory.path(), world("four")).unwrap();
    assert_eq!(ids(&store, everything()), ["small"]);
    drop(store);
    let left = super::open::size_of(directory.path()).unwrap();
    assert!(full > 4_800_000 && left < 1_500_000, "{left} of {full}");
}

#[test]
fn what_is_no_journal_is_passed_over_whatever_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let mut random = Random::new(3);
    for round in 0..300 {
        let mut bytes = vec![0; random.below(400) as usize];
        random.0.fill(&mut bytes);
        if round % 3 == 0 {
            bytes = format!("{round} 0 {} [{{\"put\":{{}}}}]\n", "a".repeat(32)).into_bytes();
        }
        std::fs::write(directory.path().join(folder::journal_name(1)), &bytes).unwrap();
        let read = journal::read(directory.path(), 0, 0, &mut |_, _| panic!("nothing is in there"));
        assert_eq!(read.unwrap(), journal::Chain { last: 0, damaged: false });
    }
}
