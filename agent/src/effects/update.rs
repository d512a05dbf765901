//! Checks an update and writes it to the partition set that does not run, in the order of [`STEPS`]; reads and changes the
//! boot loader's environment. The boot partition is mounted read-only and writable only meanwhile.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use cardshop_card::{ReadableCard, copy_root_file};
use cardshop_protocol::update::{
    Check, Head, MAX_HEAD_SIZE, MAX_UPDATE_SIZE, STICK_FILE, UpdateError, Version,
};
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use nix::mount::{MsFlags, mount};

use super::machine::free_bytes;
use crate::config::read_bounded;
use crate::core::update::grubenv::{self, GrubEnv};
use crate::core::update::judge::{Refusal, judge};
use crate::core::update::{Running, STEPS, Set, Step};

/// Bytes moved at once.
const PIECE: usize = 1 << 20;
/// The tar's first block, without which the boot loader cannot open a set.
const FIRST_BLOCK: usize = 512;

/// Why an update was not written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApplyError {
    /// It may not be applied.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// There is no such file.
    #[error("the card has no {STICK_FILE}, or one that is larger than an update can be")]
    NoFile,
    /// The boot partition has no room.
    #[error("the boot partition has no room for the update: {missing} bytes are missing")]
    NoRoom {
        /// Bytes.
        missing: u64,
    },
    /// The boot partition does not keep what is written.
    #[error("the boot partition does not hold what was written to it: replace this stick")]
    NotHeld,
    /// The boot loader's environment is not one.
    #[error("the boot loader's environment is damaged: flash this stick again")]
    Environment,
    /// Reading or writing failed.
    #[error("{what}: {source}")]
    Io {
        /// What.
        what: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl From<UpdateError> for ApplyError {
    fn from(error: UpdateError) -> Self {
        Self::Refused(error.into())
    }
}

fn failed(what: &'static str) -> impl FnOnce(io::Error) -> ApplyError {
    move |source| ApplyError::Io { what, source }
}

/// The boot partition, below a folder.
#[derive(Debug, Clone)]
pub(crate) struct BootPartition {
    folder: PathBuf,
}

/// The partition while it is writable.
struct Writable<'a>(&'a BootPartition);

impl BootPartition {
    pub(crate) fn new(folder: &Path) -> Self {
        Self { folder: folder.into() }
    }

    fn set_path(&self, set: Set) -> PathBuf {
        self.folder.join(format!("set-{}.img", set.name()))
    }

    /// What runs, from the kernel's command line and what lies here. `None` when this machine was not started from a
    /// partition set.
    pub(crate) fn running(&self, command_line: &str) -> Option<Running> {
        let word = |name: &str| command_line.split_whitespace().find_map(|word| word.strip_prefix(name));
        let set = Set::named(word("cardshop.set=")?)?;
        let head = read_head(&mut File::open(self.set_path(set)).ok()?).ok()?;
        let stays = self.environment().and_then(|env| env.get("set").and_then(Set::named));
        Some(Running {
            set,
            version: head.manifest.version.clone(),
            digest: head.digest(),
            keys: head.manifest.trusted(),
            tried: word("cardshop.trial=") == Some("1"),
            stays: stays.unwrap_or(Set::A),
        })
    }

    fn environment_path(&self) -> PathBuf {
        self.folder.join("cardshop/grubenv")
    }

    fn environment(&self) -> Option<GrubEnv> {
        GrubEnv::read(&fs::read(self.environment_path()).ok()?)
    }

    /// From now on the boot loader starts this set without being asked.
    ///
    /// # Errors
    /// `Environment` or `Io`.
    pub(crate) fn keep(&self, set: Set) -> Result<(), ApplyError> {
        let writable = self.writable()?;
        writable.change("set", set)
    }

    fn writable(&self) -> Result<Writable<'_>, ApplyError> {
        remount(&self.folder, MsFlags::empty())
            .map_err(failed("the boot partition does not become writable"))?;
        Ok(Writable(self))
    }

    /// Checks the file at `from`, and writes it to the set that does not run. Gives its version and the digest of its
    /// manifest; after an error the set that runs, and what starts next, are as they were.
    ///
    /// # Errors
    /// Any [`ApplyError`].
    pub(crate) fn apply(
        &self,
        from: &Path,
        running: &Running,
        allow_older: bool,
    ) -> Result<(Version, String), ApplyError> {
        let mut source = File::open(from).map_err(failed("the update cannot be read"))?;
        let head = read_head(&mut source)?;
        judge(&head, running, allow_older)?;
        // All of it is checked before a byte of the boot partition changes.
        let digest = check(&source, &head)?;
        let writable = self.writable()?;
        let target = running.set.other();
        let path = self.set_path(target);
        let here = fs::metadata(&path).map_or(0, |metadata| metadata.len());
        let missing = head.file_size().saturating_sub(here + free_bytes(&self.folder));
        if missing > 0 {
            return Err(ApplyError::NoRoom { missing });
        }
        for step in STEPS {
            writable.step(step, target, &path, &source, &head, &digest)?;
        }
        Ok((head.manifest.version.clone(), head.digest()))
    }
}

impl Writable<'_> {
    fn step(
        &self,
        step: Step,
        target: Set,
        path: &Path,
        source: &File,
        head: &Head,
        digest: &blake3::Hash,
    ) -> Result<(), ApplyError> {
        let write = failed("the boot partition cannot be written");
        match step {
            Step::Invalidate => clear_first_block(path).map_err(write),
            Step::Fill => fill(path, source, head.file_size()).map_err(write),
            Step::Seal => seal(path, source).map_err(write),
            Step::ReadBack => {
                let file = open_past_the_cache(path).map_err(failed("the boot partition cannot be read"))?;
                if check(&file, head).is_ok_and(|found| found == *digest) {
                    return Ok(());
                }
                // Nobody is to start what is not what it should be.
                clear_first_block(path).map_err(write)?;
                Err(ApplyError::NotHeld)
            }
            Step::Arm => self.change("try", target),
        }
    }

    /// In place: no directory entry and no table of the FAT changes, and what is said lies in one sector.
    fn change(&self, name: &str, set: Set) -> Result<(), ApplyError> {
        // An environment that is none is made anew: the loader has taken it for an empty one.
        let env = self.0.environment().unwrap_or_default();
        let changed = env.with(name, set.name()).ok_or(ApplyError::Environment)?;
        let write = || -> io::Result<()> {
            let file = OpenOptions::new().write(true).open(self.0.environment_path())?;
            if file.metadata()?.len() != grubenv::SIZE as u64 {
                return Err(io::Error::other("grubenv does not have 1024 bytes"));
            }
            file.write_all_at(&changed.block(), 0)?;
            file.sync_all()
        };
        write().map_err(failed("the boot loader's environment cannot be written"))
    }
}

impl Drop for Writable<'_> {
    fn drop(&mut self) {
        if let Err(error) = remount(&self.0.folder, MsFlags::MS_RDONLY) {
            tracing::warn!(%error, "the boot partition stays writable until the next start");
        }
    }
}

/// Where something is mounted; a plain folder, as in tests, stays as it is.
fn remount(folder: &Path, flags: MsFlags) -> io::Result<()> {
    let outside = folder.parent().and_then(|parent| fs::metadata(parent).ok());
    if outside.is_none_or(|outside| fs::metadata(folder).is_ok_and(|inside| inside.dev() == outside.dev())) {
        return Ok(());
    }
    let kept = MsFlags::MS_NOATIME | MsFlags::MS_NODEV | MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    let none: Option<&str> = None;
    mount(none, folder, none, MsFlags::MS_REMOUNT | kept | flags, none).map_err(io::Error::from)
}

fn read_head(file: &mut impl Read) -> Result<Head, ApplyError> {
    let mut front = Vec::new();
    let read = file.by_ref().take(MAX_HEAD_SIZE as u64).read_to_end(&mut front);
    read.map_err(failed("the update cannot be read"))?;
    Ok(Head::decode(&front)?)
}

/// The digest of the whole file, which is what its head says. What lies behind its end is not looked at: a set may lie in a
/// file that once held a larger one.
fn check(file: &File, head: &Head) -> Result<blake3::Hash, ApplyError> {
    let (mut check, mut hasher) = (Check::new(head), blake3::Hasher::new());
    let mut buffer = vec![0; PIECE];
    let mut at = 0;
    while at < head.file_size() {
        let most = (head.file_size() - at).min(PIECE as u64) as usize;
        match file.read_at(&mut buffer[..most], at) {
            Ok(0) => break,
            Ok(count) => {
                check.push(&buffer[..count])?;
                hasher.update(&buffer[..count]);
                at += count as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(failed("the update cannot be read")(error)),
        }
    }
    check.finish()?;
    Ok(hasher.finalize())
}

fn clear_first_block(path: &Path) -> io::Result<()> {
    let file = OpenOptions::new().write(true).create(true).truncate(false).open(path)?;
    file.write_all_at(&[0; FIRST_BLOCK], 0)?;
    file.sync_all()?;
    super::state::sync_folder_of(path)
}

fn fill(path: &Path, source: &File, size: u64) -> io::Result<()> {
    let target = OpenOptions::new().write(true).open(path)?;
    let mut buffer = vec![0; PIECE];
    let mut at = FIRST_BLOCK as u64;
    while at < size {
        let count = (size - at).min(PIECE as u64) as usize;
        source.read_exact_at(&mut buffer[..count], at)?;
        target.write_all_at(&buffer[..count], at)?;
        at += count as u64;
    }
    target.sync_all()
}

fn seal(path: &Path, source: &File) -> io::Result<()> {
    let mut first = [0; FIRST_BLOCK];
    source.read_exact_at(&mut first, 0)?;
    let target = OpenOptions::new().write(true).open(path)?;
    target.write_all_at(&first, 0)?;
    target.sync_all()?;
    super::state::sync_folder_of(path)
}

/// What is read from here comes from the disk: all of it is synced, so the kernel can let its copy go.
fn open_past_the_cache(path: &Path) -> io::Result<File> {
    let file = File::open(path)?;
    posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)?;
    Ok(file)
}

/// The version of the update on a card, if there is one that can be read; whether it is trusted is asked when it is applied.
pub(crate) fn offered(device: &Path) -> Option<Version> {
    let mut front = Vec::new();
    let mut card = ReadableCard::open(device).ok()?;
    copy_root_file(&mut card, STICK_FILE, MAX_UPDATE_SIZE as u32, MAX_HEAD_SIZE, &mut front).ok()??;
    Some(Head::decode(&front).ok()?.manifest.version)
}

/// Copies the update on a card to `to`.
///
/// # Errors
/// `NoFile` or `Io`.
pub(crate) fn copy_from_stick(device: &Path, to: &Path) -> Result<(), ApplyError> {
    let read = || failed("the update on the card cannot be read");
    let mut card = ReadableCard::open(device).map_err(|error| read()(io::Error::other(error)))?;
    let mut file = File::create(to).map_err(failed("the cache has no room for the update"))?;
    let most = MAX_UPDATE_SIZE as u32;
    let found = copy_root_file(&mut card, STICK_FILE, most, most as usize, &mut file).map_err(read())?;
    file.flush().map_err(failed("the cache has no room for the update"))?;
    found.map(|_| ()).ok_or(ApplyError::NoFile)
}

/// Tells whoever guards a trial from outside that it is over.
pub(crate) fn tell_decided(path: &Path) {
    if let Err(error) = fs::write(path, b"") {
        tracing::warn!(%error, path = %path.display(), "whoever guards the trial is not told that it is over");
    }
}

/// The kernel's command line.
pub(crate) fn command_line(path: &Path) -> String {
    read_bounded(path).unwrap_or_default()
}

/// False where nobody could ever restart the machine.
pub(crate) fn is_program(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|metadata| metadata.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use cardshop_protocol::update::{Manifest, PARTS, Part, around_part, ending, listed};
    use data_encoding::HEXLOWER;
    use ed25519_dalek::SigningKey;

    pub(crate) fn key(seed: u8) -> SigningKey {
        SigningKey::from_bytes(&[seed; 32])
    }

    /// An update of some hundred random kilobytes.
    pub(crate) fn made(version: &str, by: Option<&SigningKey>) -> Vec<u8> {
        let bodies = PARTS.map(|name| {
            let mut body = vec![0; 200_001];
            blake3::Hasher::new()
                .update(name.as_bytes())
                .update(version.as_bytes())
                .finalize_xof()
                .fill(&mut body);
            body
        });
        let sha256 =
            |body: &[u8]| HEXLOWER.encode(ring::digest::digest(&ring::digest::SHA256, body).as_ref());
        let part = |(name, body): (&str, &Vec<u8>)| Part {
            name: name.to_owned(),
            size: body.len() as u64,
            sha256: sha256(body),
        };
        let manifest = Manifest {
            v: 1,
            version: version.parse().unwrap(),
            origin: String::new(),
            parts: PARTS.into_iter().zip(&bodies).map(part).collect(),
            keys: vec![listed(&key(1).verifying_key())],
        };
        let mut file = Head::encode(&manifest, by).unwrap();
        for (part, body) in manifest.parts.iter().zip(bodies) {
            let (before, behind) = around_part(part);
            file.extend([before, body, behind].concat());
        }
        file.extend(ending());
        file
    }

    pub(crate) const COMMAND_LINE: &str = "cardshop.boot=1234-ABCD cardshop.set=a loglevel=4";

    /// A boot partition in a folder on which set a runs version 1.
    pub(crate) fn boot_partition(folder: &Path) -> BootPartition {
        fs::create_dir_all(folder.join("cardshop")).unwrap();
        fs::write(folder.join("set-a.img"), made("1", None)).unwrap();
        let env = GrubEnv::default().with("set", "a").unwrap();
        fs::write(folder.join("cardshop/grubenv"), env.block()).unwrap();
        BootPartition::new(folder)
    }

    fn all_files(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
        let mut files: Vec<_> = ["set-a.img", "set-b.img", "cardshop/grubenv"]
            .iter()
            .filter_map(|name| Some((folder.join(name), fs::read(folder.join(name)).ok()?)))
            .collect();
        files.sort();
        files
    }

    #[test]
    fn an_update_is_written_beside_what_runs_and_tried_once() {
        let folder = tempfile::tempdir().unwrap();
        let boot = boot_partition(folder.path());
        let running = boot.running(COMMAND_LINE).unwrap();
        assert_eq!((running.set, running.version.to_string(), running.tried), (Set::A, "1".into(), false));
        let (from, update) = (folder.path().join("update"), made("2", Some(&key(1))));
        fs::write(&from, &update).unwrap();
        // What lay there before was longer.
        fs::write(folder.path().join("set-b.img"), vec![0xaa; update.len() + 5000]).unwrap();
        let before = fs::read(folder.path().join("set-a.img")).unwrap();
        let (version, digest) = boot.apply(&from, &running, false).unwrap();
        assert_eq!(version.to_string(), "2");
        assert_eq!(fs::read(folder.path().join("set-a.img")).unwrap(), before);
        assert!(fs::read(folder.path().join("set-b.img")).unwrap().starts_with(&update));
        let env = boot.environment().unwrap();
        assert_eq!((env.get("set"), env.get("try")), (Some("a"), Some("b")));
        let next = boot.running("cardshop.set=b cardshop.trial=1").unwrap();
        assert_eq!((next.version, next.digest, next.tried, next.stays), (version, digest, true, Set::A));
        boot.keep(Set::B).unwrap();
        assert_eq!(boot.running("cardshop.set=b").unwrap().stays, Set::B);
    }

    #[test]
    fn not_a_byte_of_the_boot_partition_changes_for_an_update_that_may_not_be_applied() {
        let folder = tempfile::tempdir().unwrap();
        let boot = boot_partition(folder.path());
        fs::write(folder.path().join("set-b.img"), b"what was there").unwrap();
        let running = boot.running(COMMAND_LINE).unwrap();
        let before = all_files(folder.path());
        let good = made("2", Some(&key(1)));
        let mut flipped = good.clone();
        let middle = flipped.len() / 2;
        flipped[middle] ^= 1;
        let cut = good[..good.len() - 2000].to_vec();
        for (update, why) in [
            (flipped, "damaged"),
            (cut, "not complete"),
            (made("2", Some(&key(2))), "not trusted"),
            (made("2", None), "nobody has signed"),
            (made("1", Some(&key(1))), "runs already"),
            (made("0.9", Some(&key(1))), "not newer"),
            (b"something else".repeat(1000), "no update"),
        ] {
            let from = folder.path().join("update");
            fs::write(&from, update).unwrap();
            let error = boot.apply(&from, &running, false).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
            assert_eq!(all_files(folder.path()), before, "{why}");
        }
    }

    #[test]
    fn an_update_on_a_card_is_found_by_its_name_and_copied_whole() {
        let folder = tempfile::tempdir().unwrap();
        let card = folder.path().join("card");
        let update = made("3.1", Some(&key(1)));
        fs::write(folder.path().join("u"), &update).unwrap();
        File::create(&card).unwrap().set_len(16 << 20).unwrap();
        let run = |program: &str, arguments: &[&str]| {
            let mut command = std::process::Command::new(program);
            command.args(arguments).stdout(std::process::Stdio::null());
            command.status().is_ok_and(|status| status.success())
        };
        let (card_name, from) = (card.to_str().unwrap(), folder.path().join("u"));
        if !run("/usr/sbin/mkfs.vfat", &[card_name]) {
            return println!("SKIPPED: mkfs.vfat is not installed (package dosfstools)");
        }
        assert_eq!(offered(&card), None);
        if !run("mcopy", &["-i", card_name, from.to_str().unwrap(), "::CARDSHOP.UPD"]) {
            return println!("SKIPPED: mcopy is not installed (package mtools)");
        }
        assert_eq!(offered(&card).unwrap().to_string(), "3.1");
        let to = folder.path().join("copy");
        copy_from_stick(&card, &to).unwrap();
        assert_eq!(fs::read(to).unwrap(), update);
    }
}
