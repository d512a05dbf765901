//! What the tests of updates are made of: a disk with version 1.0 and a key, updates of it with something changed, and cards
//! with an update on them.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::common::{agent_binary, cardshop, have, text_of};

/// The agent to boot; the one of this build when it is not set.
const AGENT: &str = "CARDSHOP_TEST_AGENT";
/// Where the boot partition lies, and its size (`make-disk` has the layout).
const BOOT_AT: u64 = 2 << 20;
const BOOT_SIZE: usize = 96 << 20;
/// Bytes of the disk: the cache grows.
const DISK_SIZE: u64 = 1 << 30;
/// Bytes of a card with an update.
const CARD_SIZE: u64 = 64 << 20;
/// Power cuts are spread over so long after the key, which is about what an update and a restart take here.
pub(crate) const SPREAD_MS: u64 = 60_000;

/// What an update does differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    None,
    /// The first program ends at once.
    Panics,
    /// The agent does nothing, and the guard of trials waits a minute only.
    AgentSilent,
}

pub(crate) struct Parts {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) disk: PathBuf,
    pub(crate) key: PathBuf,
    set: PathBuf,
}

fn script(name: &str) -> Command {
    Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../appliance-image").join(name))
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", text_of(&output));
}

fn keygen(folder: &Path, name: &str) -> PathBuf {
    let path = folder.join(name);
    run(cardshop().args(["admin", "update", "keygen", "-o"]).arg(&path));
    path
}

impl Parts {
    /// Nothing, with the reason said, where something is missing.
    pub(crate) fn make() -> Option<Self> {
        for (program, package) in [
            ("qemu-system-x86_64", "qemu-system-x86"),
            ("mcopy", "mtools"),
            ("cpio", "cpio"),
            ("fsck.vfat", "dosfstools"),
        ] {
            if !have(program, package) {
                return None;
            }
        }
        let folder = tempfile::tempdir().unwrap();
        let key = keygen(folder.path(), "update.key");
        let (disk, set) = (folder.path().join("disk"), folder.path().join("set"));
        let agent = std::env::var_os(AGENT).map_or_else(agent_binary, PathBuf::from);
        let mut assemble = script("assemble");
        assemble.arg("--agent").arg(agent).args(["--version", "1.0", "--update-key"]);
        assemble.arg(key.with_added_extension("pub")).arg("--set").arg(&set).arg("-o").arg(&disk);
        let output = assemble.output().unwrap();
        if output.status.code() == Some(4) {
            println!("SKIPPED: {}", text_of(&output).lines().last().unwrap_or_default());
            return None;
        }
        assert!(output.status.success(), "{}", text_of(&output));
        File::options().write(true).open(&disk).unwrap().set_len(DISK_SIZE).unwrap();
        Some(Self { folder, disk, key, set })
    }

    pub(crate) fn other_key(&self) -> PathBuf {
        keygen(self.folder.path(), "other.key")
    }

    /// A signed update.
    pub(crate) fn update(&self, version: &str, key: &Path, change: Change) -> PathBuf {
        let out = self.folder.path().join(format!("{version}.upd"));
        let set = if change == Change::None { self.set.clone() } else { self.changed_set(change) };
        run(cardshop()
            .args(["admin", "update", "sign"])
            .arg(set)
            .arg("--key")
            .arg(key)
            .args(["--version", version])
            .arg("-o")
            .arg(&out));
        out
    }

    /// A set whose initramfs has some files replaced: the kernel unpacks one archive behind the other.
    fn changed_set(&self, change: Change) -> PathBuf {
        let work = self.folder.path().join("changed");
        let _ = fs::remove_dir_all(&work);
        let root = work.join("root");
        let put = |path: &str, text: &str| {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, text).unwrap();
            run(Command::new("chmod").arg("755").arg(path));
        };
        match change {
            Change::Panics => put("init", "#!/bin/sh\nexit 3\n"),
            Change::AgentSilent => {
                put("usr/bin/cardshop-agent", "#!/bin/sh\nexec sleep 100000\n");
                put("etc/cardshop/trial-limit", "60\n");
            }
            Change::None => {}
        }
        run(Command::new("tar").arg("-xf").arg(&self.set).arg("-C").arg(&work));
        let script = "cd root && find . | cpio --quiet -o -H newc -R 0:0 >../more && cd .. && \
                      truncate -s %4 initramfs && cat more >>initramfs";
        run(Command::new("sh").current_dir(&work).args(["-c", script]));
        let set = work.join("set");
        let mut make = crate::parts::script("make-set");
        make.arg("--kernel").arg(work.join("vmlinuz")).arg("--initramfs").arg(work.join("initramfs"));
        run(make.arg("-o").arg(&set));
        set
    }

    /// The same with one byte changed in the middle.
    pub(crate) fn flipped(&self, update: &Path) -> PathBuf {
        let mut bytes = fs::read(update).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        let path = update.with_added_extension("flipped");
        fs::write(&path, bytes).unwrap();
        path
    }

    /// A card with this update as its only file.
    pub(crate) fn card(&self, name: &str, update: &Path) -> PathBuf {
        let card = self.folder.path().join(format!("card-{name}"));
        File::create(&card).unwrap().set_len(CARD_SIZE).unwrap();
        run(Command::new("/usr/sbin/mkfs.vfat").arg(&card));
        run(Command::new("mcopy").arg("-i").arg(&card).arg(update).arg("::CARDSHOP.UPD"));
        card
    }

    /// All bytes of the boot partition.
    pub(crate) fn boot_partition(&self) -> Vec<u8> {
        let mut bytes = vec![0; BOOT_SIZE];
        File::open(&self.disk).unwrap().read_exact_at(&mut bytes, BOOT_AT).unwrap();
        bytes
    }

    /// Its file system holds together, but for the mark that it was in use.
    pub(crate) fn check_boot_partition(&self) {
        let copy = self.folder.path().join("boot");
        fs::write(&copy, self.boot_partition()).unwrap();
        let output = Command::new("fsck.vfat").arg("-n").arg(&copy).output().unwrap();
        let text = text_of(&output);
        let wrong = ["bad", "Bad", "shared", "Shared", "Reclaim", "Truncat", "differ"];
        assert!(!wrong.iter().any(|word| text.contains(word)), "{text}");
    }
}
