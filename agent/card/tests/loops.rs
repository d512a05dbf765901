//! Cards that are loop devices: real block devices, O_DIRECT, real mounts. Needs root.
#![allow(clippy::unwrap_used)] // a test helper that cannot unwrap reads worse and asserts less
#![allow(clippy::print_stdout)] // a test that is skipped says so

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use cardshop_card::{
    CardError, DeviceClass, FileSource, Job, Outcome, Policy, ReadableCard, StopFlag, claim, gather,
    index_file, probe, verify_card, write_card,
};
use cardshop_protocol::index::Index;
use cardshop_protocol::message::{Verify, Wipe};
use nix::mount::{MsFlags, mount, umount};

const CHUNK: u32 = 256 * 1024;
const MIB: usize = 1 << 20;
/// Ends within a block.
const IMAGE_SIZE: usize = 12 * MIB - 1000;

/// Bytes that look random and are the same in every run.
fn noise(seed: &str, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new_derive_key(seed).finalize_xof().fill(&mut bytes);
    bytes
}

/// Runs a system tool; its name is looked for in `/usr/sbin` too.
fn run(tool: &str, arguments: &[&str]) -> Result<String, String> {
    let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
    let output = Command::new(tool).args(arguments).env("PATH", path).output().map_err(|e| e.to_string())?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// A loop device over a file in a folder of its own; let go when dropped.
struct Loop {
    device: PathBuf,
    file: PathBuf,
    folder: tempfile::TempDir,
}

impl Loop {
    /// Full of garbage, as a used card. `None`, with the reason printed, where loop devices cannot be had.
    fn new(size: usize, options: &[&str]) -> Option<Self> {
        if !nix::unistd::geteuid().is_root() {
            println!("SKIPPED: needs root");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("card");
        fs::write(&file, noise("old card", size)).unwrap();
        let arguments = [options, &["--find", "--show", file.to_str().unwrap()]].concat();
        // Another program may take the free device between finding and taking it.
        let result = (0..10).map(|_| run("losetup", &arguments)).find_or_last();
        match result {
            Ok(device) => Some(Self { device: device.into(), file, folder }),
            Err(reason) => {
                println!("SKIPPED: no loop device: {reason}");
                None
            }
        }
    }

    fn image(&self) -> (PathBuf, Index) {
        let path = self.folder.path().join("image");
        let file = File::create(&path).unwrap();
        file.set_len(IMAGE_SIZE as u64).unwrap();
        file.write_all_at(&noise("a", 3 * MIB), 0).unwrap();
        file.write_all_at(&noise("b", MIB), (IMAGE_SIZE - 2 * MIB) as u64).unwrap();
        let index = index_file(&path, None, Some(CHUNK), &mut |_, _| ()).unwrap();
        (path, index)
    }

    fn write(&self, image: &Path, index: &Index, wipe: Wipe) -> Result<Outcome, CardError> {
        let source = FileSource::open(image, index).unwrap();
        let mut card = claim(&self.device, &Policy::named())?;
        let job = Job { index, source: &source, wipe, verify: Verify::Full, passport: None };
        write_card(&mut card, &job, &StopFlag::new(), &mut |_| ())
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = run("losetup", &["--detach", self.device.to_str().unwrap_or_default()]);
    }
}

/// The first success, or the last failure.
trait FindOrLast<T, E> {
    fn find_or_last(self) -> Result<T, E>;
}

impl<T, E, I: Iterator<Item = Result<T, E>>> FindOrLast<T, E> for I {
    fn find_or_last(self) -> Result<T, E> {
        let mut last = None;
        for result in self {
            match result {
                Ok(value) => return Ok(value),
                Err(error) => last = Some(error),
            }
        }
        Err(last.expect("at least one try"))
    }
}

fn refused_by(result: Result<impl std::fmt::Debug, CardError>) -> u8 {
    match result {
        Err(CardError::Refused(refusal)) => refusal.number,
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn a_used_block_device_equals_the_image_after_every_kind_of_wipe() {
    for (wipe, size, options) in [
        (Wipe::None, 16 * MIB, &[][..]),
        (Wipe::Zero, 16 * MIB, &[]),
        (Wipe::Discard, 16 * MIB, &[]),
        // A device may end within a block of its own.
        (Wipe::None, 16 * MIB + 512, &["--sector-size", "4096"]),
        (Wipe::Zero, 12 * MIB, &["--sector-size", "4096"]),
        (Wipe::Discard, 16 * MIB, &["--direct-io=on"]),
    ] {
        let Some(card) = Loop::new(size, options) else { return };
        let (image, index) = card.image();
        let outcome = card.write(&image, &index, wipe).unwrap();
        assert_eq!(outcome.verified_bytes, IMAGE_SIZE as u64);
        assert!(wipe == Wipe::Discard || !outcome.discarded);
        assert!(wipe != Wipe::None || outcome.zero_written_bytes > 0, "garbage had to be zeroed");
        let written = fs::read(&card.file).unwrap();
        assert!(written[..IMAGE_SIZE] == fs::read(&image).unwrap(), "{wipe:?} {options:?}");
        assert!(wipe != Wipe::Zero || written[IMAGE_SIZE..].iter().all(|b| *b == 0));
    }
}

#[test]
fn a_device_that_ends_within_a_block_is_as_large_as_its_whole_blocks_before_and_after_it_is_claimed() {
    let Some(card) = Loop::new(16 * MIB + 512, &["--sector-size", "4096"]) else { return };
    let size = 16 * MIB as u64;
    let seen = gather(&card.device).unwrap().size();
    assert_eq!((seen, claim(&card.device, &Policy::named()).unwrap().size()), (size, size));
}

#[test]
fn a_byte_changed_below_the_kernels_caches_is_found() {
    let Some(card) = Loop::new(16 * MIB, &[]) else { return };
    let (image, index) = card.image();
    card.write(&image, &index, Wipe::None).unwrap();
    let verify = || {
        let mut card = ReadableCard::open(&card.device).unwrap();
        verify_card(&mut card, &index, &StopFlag::new(), &mut |_| ())
    };
    verify().unwrap();
    // The device's pages are in memory now; what is below them changes.
    fs::read(&card.device).unwrap();
    let file = File::options().write(true).open(&card.file).unwrap();
    file.write_all_at(&[noise("a", MIB + 1)[MIB] ^ 0x80], MIB as u64).unwrap();
    let error = verify().unwrap_err();
    assert!(
        matches!(error, CardError::Mismatch { offset: 0x10_0000, length: 0x4_0000, exact: false }),
        "{error}"
    );
    file.write_all_at(&[1], 5 * MIB as u64 + 1).unwrap();
    file.write_all_at(&noise("a", MIB + 1)[MIB..], MIB as u64).unwrap();
    let error = verify().unwrap_err();
    assert!(matches!(error, CardError::Mismatch { offset: 0x50_0001, length: 1, exact: true }), "{error}");
}

#[test]
fn a_device_too_small_is_refused_with_both_sizes() {
    let Some(card) = Loop::new(8 * MIB, &[]) else { return };
    let (image, index) = card.image();
    let error = card.write(&image, &index, Wipe::Zero).unwrap_err();
    let text = error.to_string();
    assert!(text.contains(&(8 * MIB).to_string()) && text.contains(&IMAGE_SIZE.to_string()), "{text}");
    assert!(fs::read(&card.file).unwrap() == noise("old card", 8 * MIB), "it was not touched");
}

#[test]
fn a_read_only_device_is_refused_by_check_7() {
    let Some(card) = Loop::new(16 * MIB, &["--read-only"]) else { return };
    assert_eq!(refused_by(claim(&card.device, &Policy::named())), 7);
}

#[test]
fn a_mounted_device_is_refused_by_check_2_and_so_is_the_file_behind_it() {
    let Some(card) = Loop::new(16 * MIB, &[]) else { return };
    run("mkfs.ext4", &["-q", "-F", card.device.to_str().unwrap()]).unwrap();
    let place = card.folder.path().join("mounted here");
    fs::create_dir(&place).unwrap();
    let none: Option<&str> = None;
    if let Err(errno) = mount(Some(&card.device), &place, Some("ext4"), MsFlags::MS_RDONLY, none) {
        println!("SKIPPED: cannot mount: {errno}");
        return;
    }
    let device = claim(&card.device, &Policy::named());
    let file = claim(&card.file, &Policy::named());
    umount(&place).unwrap();
    assert!(device.as_ref().unwrap_err().to_string().contains("mounted here"), "{device:?}");
    assert_eq!((refused_by(device), refused_by(file)), (2, 2));
    claim(&card.device, &Policy::named()).unwrap();
}

#[test]
fn swap_is_refused_by_check_3() {
    let Some(card) = Loop::new(16 * MIB, &[]) else { return };
    let device = card.device.to_str().unwrap();
    run("mkswap", &[device]).unwrap();
    if let Err(reason) = run("swapon", &[device]) {
        println!("SKIPPED: cannot swapon: {reason}");
        return;
    }
    let refused = claim(&card.device, &Policy::named());
    run("swapoff", &[device]).unwrap();
    assert_eq!(refused_by(refused), 3);
}

#[test]
fn a_loop_device_nobody_named_is_refused_by_check_4() {
    let Some(card) = Loop::new(16 * MIB, &[]) else { return };
    assert_eq!(gather(&card.device).unwrap().class, DeviceClass::Loop);
    assert_eq!(refused_by(claim(&card.device, &Policy::readers(vec!["devices".into()]))), 4);
}

#[test]
fn a_loop_device_made_of_a_disk_is_refused_by_check_4() {
    let Some(disk) = Loop::new(16 * MIB, &[]) else { return };
    let over = run("losetup", &["--find", "--show", disk.device.to_str().unwrap()]).unwrap();
    let refused = claim(Path::new(&over), &Policy::named());
    run("losetup", &["--detach", &over]).unwrap();
    assert_eq!(refused_by(refused), 4, "what is written to it lands on a disk that was not looked at");
}

#[test]
fn a_device_somebody_holds_is_refused_by_check_8_and_so_is_the_file_behind_it() {
    let Some(card) = Loop::new(16 * MIB, &[]) else { return };
    let held = claim(&card.device, &Policy::named()).unwrap();
    assert_eq!(refused_by(claim(&card.device, &Policy::named())), 8);
    assert_eq!(refused_by(claim(&card.file, &Policy::named())), 8);
    drop(held);
    claim(&card.device, &Policy::named()).unwrap();
}

#[test]
fn a_device_that_changed_since_it_was_probed_is_refused_by_check_9() {
    let Some(card) = Loop::new(16 * MIB, &[]) else { return };
    let probed = gather(&card.device).unwrap().identity;
    let policy = Policy { probed: Some(probed), ..Policy::named() };
    claim(&card.device, &policy).unwrap();
    File::options().write(true).open(&card.file).unwrap().set_len(20 * MIB as u64).unwrap();
    run("losetup", &["--set-capacity", card.device.to_str().unwrap()]).unwrap();
    assert_eq!(refused_by(claim(&card.device, &policy)), 9);
}

#[test]
fn the_disk_of_the_root_file_system_is_refused_by_check_1() {
    if !nix::unistd::geteuid().is_root() {
        println!("SKIPPED: needs root");
        return;
    }
    let source = run("findmnt", &["-n", "-o", "SOURCE", "/"]).unwrap_or_default();
    if !Path::new(&source).exists() {
        println!("SKIPPED: root is on no block device: {source:?}");
        return;
    }
    assert_eq!(refused_by(claim(Path::new(&source), &Policy::named())), 1);
}

#[test]
fn a_good_device_passes_the_probe_and_keeps_its_contents() {
    let Some(card) = Loop::new(16 * MIB, &[]) else { return };
    let mut claimed = claim(&card.device, &Policy::named()).unwrap();
    let report = probe(&mut claimed, &StopFlag::new()).unwrap();
    assert!(report.size == 16 * MIB as u64 && report.marks > 100, "{report:?}");
    drop(claimed);
    assert!(fs::read(&card.file).unwrap() == noise("old card", 16 * MIB));
}
