//! The folder of scratch files of one build, beside the image. A process that was killed cannot take its own away: the
//! next build in the same folder does, with the half image, and knows by a lock which ones nobody works in any more.

use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::path::Path;

use tempfile::TempDir;

const PREFIX: &str = ".cardshop-build-";
/// Locked while its build runs; holds the half image's name.
const LOCK: &str = "lock";

/// Goes with everything in it.
pub(super) struct Scratch {
    folder: TempDir,
    _lock: File,
}

impl Scratch {
    /// A folder in `beside`, for a build of the half image of this name there.
    pub(super) fn make(beside: &Path, part: &str) -> io::Result<Self> {
        sweep(beside)?;
        let folder = tempfile::Builder::new().prefix(PREFIX).tempdir_in(beside)?;
        let new = folder.path().join("lock.new");
        let mut lock = File::create_new(&new)?;
        lock.lock()?;
        lock.write_all(part.as_bytes())?;
        // Under its name it is locked from the first moment.
        fs::rename(new, folder.path().join(LOCK))?;
        Ok(Self { folder, _lock: lock })
    }

    pub(super) fn path(&self) -> &Path {
        self.folder.path()
    }
}

/// Takes away what killed builds left in `beside`. What cannot be taken away is somebody else's.
fn sweep(beside: &Path) -> io::Result<()> {
    for entry in fs::read_dir(beside)? {
        let entry = entry?;
        if !entry.file_name().to_string_lossy().starts_with(PREFIX) {
            continue;
        }
        let Ok(lock) = File::open(entry.path().join(LOCK)) else { continue };
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock | TryLockError::Error(_)) => continue,
        }
        let part = fs::read_to_string(entry.path().join(LOCK))?;
        tracing::info!(part, "a build that was killed left this behind");
        // A name, never a path: what lies in the folder might be anybody's.
        if part.ends_with(".part") && !part.contains('/') {
            let _ = fs::remove_file(beside.join(&part));
        }
        let _ = fs::remove_dir_all(entry.path());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_killed_builds_leftovers_go_with_the_next_and_a_running_ones_stay() {
        let place = tempfile::tempdir().unwrap();
        let file = |name: &str| place.path().join(name);
        for name in ["killed.img.part", "running.img.part", "other.part"] {
            fs::write(file(name), b"half").unwrap();
        }
        let running = Scratch::make(place.path(), "running.img.part").unwrap();
        let killed = Scratch::make(place.path(), "killed.img.part").unwrap();
        let left = killed.path().to_owned();
        // The end of a process lets locks go and removes nothing.
        let Scratch { folder, _lock } = killed;
        let _ = folder.keep();
        drop(_lock);
        fs::create_dir(file(".cardshop-build-evil")).unwrap();
        fs::write(file(".cardshop-build-evil/lock"), "../../x.part").unwrap();

        let next = Scratch::make(place.path(), "next.img.part").unwrap();
        assert!(!left.exists() && !file("killed.img.part").exists());
        assert!(running.path().exists() && file("running.img.part").exists() && file("other.part").exists());
        assert!(next.path().join(LOCK).exists() && !file(".cardshop-build-evil").exists());
    }
}
