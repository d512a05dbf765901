//! The work folder: `cache/`, and `tasks/{task}/` with `card.img`, `card.cardindex` and, when both are whole, `built`
//! holding the recipe's digest. What a killed worker left behind goes when the next one opens the folder.

use std::collections::HashSet;
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use cardshop_protocol::ids::TaskId;
use cardshop_protocol::index::Index;

use super::WorkerError;
use crate::recipe::Recipe;

/// A folder that is this worker's own.
pub(super) struct Folder {
    pub(super) root: PathBuf,
    /// Tasks under way.
    in_hand: Mutex<HashSet<TaskId>>,
    /// Locked as long as the worker lives.
    _lock: File,
}

/// A task is in hand as long as this lives.
pub(super) struct InHand<'a>(&'a Folder, TaskId);

impl Drop for InHand<'_> {
    fn drop(&mut self) {
        self.0.in_hand().remove(&self.1);
    }
}

impl Folder {
    pub(super) fn open(root: &Path) -> Result<Self, WorkerError> {
        let error = |source| WorkerError::Work { path: root.to_owned(), source };
        fs::create_dir_all(root.join("tasks")).map_err(error)?;
        let lock = File::create(root.join("lock")).map_err(error)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(WorkerError::WorkInUse(root.to_owned())),
            Err(TryLockError::Error(source)) => return Err(error(source)),
        }
        // Left by a worker that was killed: everything but whole images.
        for entry in fs::read_dir(root.join("tasks")).map_err(error)? {
            let path = entry.map_err(error)?.path();
            if !path.join("built").is_file() {
                fs::remove_dir_all(&path).map_err(error)?;
            }
        }
        Ok(Self { root: root.to_owned(), in_hand: Mutex::default(), _lock: lock })
    }

    fn in_hand(&self) -> MutexGuard<'_, HashSet<TaskId>> {
        self.in_hand.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a task in hand; `None` when it is already: a claim that was lost and came back to the same worker.
    pub(super) fn take(&self, task: TaskId) -> Option<InHand<'_>> {
        self.in_hand().insert(task).then(|| InHand(self, task))
    }

    pub(super) fn task(&self, task: TaskId) -> PathBuf {
        self.root.join("tasks").join(task.to_string())
    }

    /// Makes room for a task: images that nobody asked for again go.
    pub(super) fn prepare(&self, task: TaskId) -> io::Result<PathBuf> {
        let in_hand = self.in_hand();
        let kept: HashSet<PathBuf> = in_hand.iter().map(|task| self.task(*task)).collect();
        for entry in fs::read_dir(self.root.join("tasks"))? {
            let path = entry?.path();
            if !kept.contains(&path) {
                fs::remove_dir_all(path)?;
            }
        }
        let own = self.task(task);
        fs::create_dir_all(&own)?;
        Ok(own)
    }
}

/// The index of an image built from this recipe earlier, if both are here and whole.
pub(super) fn whole(folder: &Path, image: &Path, recipe: &Recipe) -> Option<Index> {
    let built = fs::read_to_string(folder.join("built")).ok()?;
    let index = Index::decode(&fs::read(folder.join("card.cardindex")).ok()?).ok()?;
    let fits = built == recipe.digest().to_hex().as_str();
    (fits && image.metadata().ok()?.len() == index.image_size()).then_some(index)
}

#[cfg(test)]
mod tests {
    use cardshop_protocol::ids::OrderId;

    use super::*;

    #[test]
    fn an_image_in_hand_stays_while_another_task_makes_room() {
        let place = tempfile::tempdir().unwrap();
        let folder = Folder::open(place.path()).unwrap();
        let [old, one, two] = [1, 2, 3].map(|n| TaskId::creation(OrderId::from_parts(n, 1)));
        for task in [old, one] {
            let _in_hand = folder.take(task).unwrap();
            folder.prepare(task).unwrap();
            fs::write(folder.task(task).join("built"), b"").unwrap();
        }
        let first = folder.take(one).unwrap();
        assert!(folder.take(one).is_none(), "a task is in hand once");
        let second = folder.take(two).unwrap();
        folder.prepare(two).unwrap();
        assert_eq!([old, one, two].map(|t| folder.task(t).exists()), [false, true, true]);
        drop((first, second));
        assert!(folder.take(one).is_some());
    }
}
