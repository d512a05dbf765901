//! What need not travel, what must be kept and what may go: older images, disks brought by hand, a full cache.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use cardshop_protocol::index::Index;
use cardshop_protocol::message::Fault;

use super::fetch::SignatureRule;
use super::test_fetch::{Bench, CHUNK, DATA_BYTES, Setup, changed, image};
use super::test_warehouse::{Faults, Warehouse};
use crate::config::CacheConfig;
use crate::core::Trouble;

fn folder() -> Arc<tempfile::TempDir> {
    Arc::new(tempfile::tempdir().unwrap())
}

#[test]
fn of_the_next_build_of_an_image_only_changed_chunks_travel_also_when_the_lease_has_ended() {
    let (bytes, index) = image();
    let (next_bytes, next_index) = changed(&bytes, &[4, 5, 35]);
    let old = Warehouse::start(bytes.clone(), &index, Faults::default());
    let new = Warehouse::start(next_bytes.clone(), &next_index, Faults::default());
    let folder = folder();
    let mut bench = Bench::in_folder(Arc::clone(&folder), Setup::default());
    bench.fetch(&index, &[&old], SignatureRule::default());
    assert!(bench.read_all(&index).unwrap() == bytes);
    bench.fetcher.abandon(index.id());
    // And the agent was started again meanwhile.
    drop(bench);
    let mut bench = Bench::in_folder(folder, Setup::default());
    bench.fetch(&next_index, &[&new], SignatureRule::default());
    assert!(bench.read_all(&next_index).unwrap() == next_bytes);
    let mut given = new.log.lock().unwrap().given.clone();
    given.sort_by_key(|range| range.start);
    assert_eq!(given, [4 * CHUNK..6 * CHUNK, 35 * CHUNK..36 * CHUNK]);
}

#[test]
fn an_older_image_that_the_disk_has_damaged_is_not_believed() {
    let (bytes, index) = image();
    let (next_bytes, next_index) = changed(&bytes, &[4]);
    let old = Warehouse::start(bytes.clone(), &index, Faults::default());
    let new = Warehouse::start(next_bytes.clone(), &next_index, Faults::default());
    let mut bench = Bench::new();
    bench.fetch(&index, &[&old], SignatureRule::default());
    bench.read_all(&index).unwrap();
    let path = bench.folder.path().join(format!("{}.img", index.id()));
    let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"rot", 33 * CHUNK).unwrap();
    bench.fetch(&next_index, &[&new], SignatureRule::default());
    assert!(bench.read_all(&next_index).unwrap() == next_bytes);
    assert_eq!(new.given_bytes(), 2 * CHUNK, "the changed one and the rotten one");
}

/// Lays an image out as a warehouse's folder does.
fn lay_out(folder: &Path, bytes: &[u8], index: &Index) {
    std::fs::write(folder.join(format!("{}.cardindex", index.id())), index.encode()).unwrap();
    std::fs::write(folder.join(format!("{}.img", index.id())), bytes).unwrap();
}

/// Nothing listens on port 9 here.
const NOBODY: &str = "http://127.0.0.1:9";

fn fetch_from_nobody(bench: &mut Bench, index: &Index, rule: SignatureRule) -> Result<(), Fault> {
    bench.fetcher.fetch(index.id(), &[NOBODY.into()], rule)
}

#[test]
fn a_folder_of_images_is_a_source_that_needs_no_network_and_is_checked_like_one() {
    let (bytes, index) = image();
    let disk = folder();
    let config = CacheConfig { disk: Some(disk.path().join("images")), ..Setup::default().cache };
    let mut bench = Bench::with(Setup { cache: config.clone(), ..Setup::default() });
    fetch_from_nobody(&mut bench, &index, SignatureRule::default()).unwrap();
    // It comes while nobody else is reached.
    let half = disk.path().join("half");
    std::fs::create_dir(&half).unwrap();
    lay_out(&half, &bytes, &index);
    std::fs::rename(&half, disk.path().join("images")).unwrap();
    assert!(bench.read_all(&index).unwrap() == bytes);

    // One chunk of it is not what its index says, and nobody signed it.
    let mut damaged = bytes.clone();
    damaged[(7 * CHUNK) as usize] ^= 1;
    lay_out(&disk.path().join("images"), &damaged, &index);
    let warehouse = Warehouse::start(bytes.clone(), &index, Faults::default());
    let mut bench = Bench::with(Setup { cache: config.clone(), ..Setup::default() });
    bench.fetch(&index, &[&warehouse], SignatureRule::default());
    assert!(bench.read_all(&index).unwrap() == bytes);
    let mut bench = Bench::with(Setup { cache: config, ..Setup::default() });
    let rule = SignatureRule { keys: vec![], required: true };
    fetch_from_nobody(&mut bench, &index, rule).unwrap();
    assert_eq!(bench.refusal().code, "index_signature");
}

#[test]
fn a_disk_labelled_cardshop_cache_is_mounted_and_read_and_let_go() {
    let mounts = || std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    if !nix::unistd::geteuid().is_root() {
        return eprintln!("SKIPPED: mounting a disk needs root");
    }
    let (bytes, index) = image();
    let work = folder();
    let (content, file) = (work.path().join("content"), work.path().join("disk"));
    std::fs::create_dir(&content).unwrap();
    lay_out(&content, &bytes, &index);
    std::fs::File::create(&file).unwrap().set_len(16 << 20).unwrap();
    let run = |program: &str, words: &[&str]| {
        let output = Command::new(program).args(words).output();
        output
            .ok()
            .filter(|o| o.status.success())
            .map(|o| String::from_utf8_lossy(&o.stdout).trim().to_owned())
    };
    let (content, file) = (content.to_str().unwrap(), file.to_str().unwrap());
    if run("mke2fs", &["-q", "-t", "ext4", "-L", "CARDSHOP-CACHE", "-d", content, file]).is_none() {
        return eprintln!("SKIPPED: mke2fs is not installed");
    }
    let Some(device) = run("losetup", &["--find", "--show", file]) else {
        return eprintln!("SKIPPED: there are no loop devices here");
    };
    // An empty path is no folder: the label is looked for.
    let config = CacheConfig { disk: Some("".into()), ..Setup::default().cache };
    let bench_folder = folder();
    let mut bench = Bench::in_folder(Arc::clone(&bench_folder), Setup { cache: config, ..Setup::default() });
    fetch_from_nobody(&mut bench, &index, SignatureRule::default()).unwrap();
    let read = bench.read_all(&index);
    let place = bench_folder.path().join("mounted");
    let mounted = mounts().lines().any(|l| l.contains(place.to_str().unwrap()) && l.contains(" ro,"));
    // Detached while the agent still looks for it, as a pulled stick would be.
    run("losetup", &["--detach", &device]);
    drop(bench);
    while mounts().contains(place.to_str().unwrap()) {
        std::thread::yield_now();
    }
    assert!(read.unwrap() == bytes);
    assert!(mounted, "read-only");
}

#[test]
fn orders_that_do_not_fit_together_wait_for_room_and_none_loses_what_it_needs() {
    let (bytes, index) = image();
    let (next_bytes, next_index) = changed(&bytes, &(0..20).chain(30..40).collect::<Vec<_>>());
    let first = Warehouse::start(bytes.clone(), &index, Faults::default());
    let second = Warehouse::start(next_bytes.clone(), &next_index, Faults::default());
    let cache = CacheConfig { max_bytes: Some(DATA_BYTES * 3 / 2), ..Setup::default().cache };
    let mut bench = Bench::with(Setup { cache, ..Setup::default() });
    bench.fetch(&index, &[&first], SignatureRule::default());
    assert!(bench.read_all(&index).unwrap() == bytes);
    bench.fetch(&next_index, &[&second], SignatureRule::default());
    let text = bench.trouble(Trouble::CacheFull, true);
    assert!(text.contains("more are needed"), "{text}");
    assert!(bench.read_chunks(&index).unwrap() == bytes, "the first order goes on");
    assert_eq!(first.given_bytes(), DATA_BYTES);
    bench.fetcher.abandon(index.id());
    bench.trouble(Trouble::CacheFull, false);
    assert!(bench.read_all(&next_index).unwrap() == next_bytes);
    assert!(!bench.folder.path().join(format!("{}.img", index.id())).exists(), "it made room");
}

#[test]
fn a_disk_that_is_full_stops_the_fetch_with_its_name_and_it_goes_on_when_there_is_room() {
    if !nix::unistd::geteuid().is_root() {
        return eprintln!("SKIPPED: a small file system needs root");
    }
    let folder = folder();
    let options = Some("size=3m");
    let flags = nix::mount::MsFlags::empty();
    if nix::mount::mount(Some("tmpfs"), folder.path(), Some("tmpfs"), flags, options).is_err() {
        return eprintln!("SKIPPED: no file system may be mounted here");
    }
    let unmount = Unmount(folder.path().into());
    let (bytes, index) = image();
    let warehouse = Warehouse::start(bytes.clone(), &index, Faults::default());
    // It fits when the fetch begins, and then somebody else takes the room.
    let slowly = Setup { max_bps: Some(DATA_BYTES / 2), ..Setup::default() };
    let mut bench = Bench::in_folder(Arc::clone(&folder), slowly);
    bench.fetch(&index, &[&warehouse], SignatureRule::default());
    bench.outcome().unwrap();
    let stranger = folder.path().join("stranger");
    let _ = std::fs::write(&stranger, vec![1; 3 << 20]);
    bench.trouble(Trouble::CacheFull, true);
    std::fs::remove_file(&stranger).unwrap();
    bench.trouble(Trouble::CacheFull, false);
    assert!(bench.read_chunks(&index).unwrap() == bytes);
    drop(bench);
    drop(unmount);
}

struct Unmount(std::path::PathBuf);

impl Drop for Unmount {
    fn drop(&mut self) {
        let _ = nix::mount::umount2(&self.0, nix::mount::MntFlags::MNT_DETACH);
    }
}
