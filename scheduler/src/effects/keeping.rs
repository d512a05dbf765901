//! What the store's keeper would else have to think of: a backup every day, and history that is old enough to go.

use std::path::{Path, PathBuf};

use cardshop_protocol::time::Timestamp;

use crate::core::documents::{Audit, Story};
use crate::core::order::Order;
use crate::store::{Batch, Document, Select, Store, StoreAddress, StoreError};
use crate::{Scheduler, SchedulerError};

/// Documents removed in one batch.
const CLEAR_AT_ONCE: usize = 200;
/// How backups are named, with the day between.
const BACKUP: (&str, &str) = ("backup-", ".jsonl");

/// Where the state is kept, and for how long.
#[derive(Debug, Clone)]
pub struct Keeping {
    /// A database or a directory; the directory `store` of the scheduler's data when it is `None`.
    pub store: Option<StoreAddress>,
    /// Daily backups that are kept, the newest; 0 makes none.
    pub backups: usize,
    /// Days after which stories and the audit log may go; those of open orders stay.
    pub history_days: u64,
}

impl Default for Keeping {
    /// A week of backups, and history for as long as most accounts have to be kept: ten years.
    fn default() -> Self {
        Self { store: None, backups: 7, history_days: 3653 }
    }
}

/// A document that tells what happened; its id begins with when.
trait History: Document {
    fn at(&self) -> Timestamp;
    /// The order that it belongs to.
    fn order(&self) -> Option<String>;
}

impl History for Story {
    fn at(&self) -> Timestamp {
        self.at
    }
    fn order(&self) -> Option<String> {
        self.order.map(|id| id.to_string())
    }
}

impl History for Audit {
    fn at(&self) -> Timestamp {
        self.at
    }
    fn order(&self) -> Option<String> {
        None
    }
}

impl Scheduler {
    /// Removes history that is older than the policy says.
    pub(crate) async fn clear_history(&self) -> Result<(), SchedulerError> {
        self.clear_told::<Story>().await?;
        self.clear_told::<Audit>().await
    }

    async fn clear_told<T: History>(&self) -> Result<(), SchedulerError> {
        let age = std::time::Duration::from_secs(self.inner.config.keeping.history_days * 86_400);
        let (now, store) = (self.now(), &self.inner.store);
        let is_old = |told: &T| now.since(told.at()) > age;
        let mut after: Option<String> = None;
        loop {
            let select = Select { after: after.as_deref(), limit: CLEAR_AT_ONCE, ..Select::default() };
            let found = store.list::<T>(select)?;
            let Some(last) = found.last() else { return Ok(()) };
            after = Some(last.value.id());
            // Ids begin with the time: behind the first that is young all are.
            let is_end = found.iter().any(|told| !is_old(&told.value));
            let mut batch = Batch::new();
            for told in found.iter().map(|told| &told.value).filter(|told| is_old(told)) {
                let order = told.order().map(|id| store.get::<Order>(&id)).transpose()?.flatten();
                if order.is_none_or(|order| !order.value.shelves().contains(&"open")) {
                    batch.remove::<T>(&told.id());
                }
            }
            store.apply(batch).await?;
            if is_end {
                return Ok(());
            }
        }
    }

    /// Makes today's backup when it is not there, and removes the oldest.
    pub(crate) async fn back_up_daily(&self) -> Result<(), SchedulerError> {
        let keep = self.inner.config.keeping.backups;
        if keep == 0 {
            return Ok(());
        }
        let folder = backups(&self.inner.config.data);
        let day = self.now().to_string();
        let (store, day) = (self.inner.store.clone(), day[..10].to_owned());
        let made = tokio::task::spawn_blocking(move || back_up(&store, &folder, &day, keep)).await;
        Ok(made.map_err(|_| SchedulerError::Busy)??)
    }
}

/// Where backups lie.
pub(crate) fn backups(data: &Path) -> PathBuf {
    data.join("backups")
}

/// Makes the folder of backups, which nobody else looks into.
pub(crate) fn make_folder(folder: &Path) -> Result<(), StoreError> {
    use std::os::unix::fs::DirBuilderExt;
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.map_err(|source| StoreError::Disk { path: folder.to_owned(), source })
}

fn back_up(store: &Store, folder: &Path, day: &str, keep: usize) -> Result<(), StoreError> {
    let disk = |source| StoreError::Disk { path: folder.to_owned(), source };
    let path = folder.join(format!("{}{day}{}", BACKUP.0, BACKUP.1));
    if path.exists() {
        return Ok(());
    }
    make_folder(folder)?;
    let documents = store.back_up(&path)?;
    tracing::info!(documents, path = %path.display(), "backed up");
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(disk)? {
        let name = entry.map_err(disk)?.file_name();
        let is_backup = name.to_str().is_some_and(|n| n.starts_with(BACKUP.0) && n.ends_with(BACKUP.1));
        files.extend(is_backup.then_some(name));
    }
    // Days sort as their names do.
    files.sort();
    for old in files.iter().take(files.len().saturating_sub(keep)) {
        std::fs::remove_file(folder.join(old)).map_err(disk)?;
    }
    Ok(())
}
