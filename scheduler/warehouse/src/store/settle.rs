//! What follows when the last byte of an upload is here: an index is kept for its task; an image appears once
//! both it and its index are here and agree, whichever came last.
//!
//! ```text
//! index complete ─► decoded ─┬─ image stored already ─► the channel is added; done
//!                            └─ kept as pending/{task}.cardindex; done ─► a complete image of the task? ─┐
//! image complete ─► index pending for its task? ─ no ─► waits, complete                                  │
//!                                               └ yes ─► compared ◄──────────────────────────────────────┘
//!                   differs ─► offset back to the first bad chunk    agrees ─► sealed ─► shared ─► appears:
//!     {id}.cardindex (signed) and {id}.json in place, then {id}.img renamed into place: the one moment it exists
//! ```
//!
//! Of two requests that end together neither can miss the other: an image is noted as complete before its index
//! is looked for, an index is in place before complete images are looked for. Runs on a blocking thread,
//! called by `http::receive` after it gave the upload's turn back, and once for each complete upload at start.

use std::fs;
use std::sync::Arc;

use cardshop_protocol::api::StoredImage;
use cardshop_protocol::ids::{Channel, ImageId, TaskId};
use cardshop_protocol::index::Index;
use cardshop_protocol::time::Timestamp;

use super::Store;
use super::disk;
use super::error::StoreError;
use super::part::{Part, State};
use super::uploads::Upload;
use crate::core::metadata::Kind;

impl Store {
    /// Settles a complete upload. Doing it again changes nothing.
    ///
    /// # Errors
    /// `ChunkMismatch`, `SizeMismatch`, `OtherImage`: image and index do not agree, whichever was sent last.
    /// `BadIndex`, `EmptyImage`: the index upload is removed. `Io`.
    pub(crate) fn settle(&self, upload: &Upload, now: Timestamp) -> Result<(), StoreError> {
        match upload.kind {
            Kind::Image | Kind::Packed => self.settle_image(upload, now),
            Kind::Index => {
                self.settle_index(upload)?;
                let same_task = |u: &Arc<Upload>| u.task == upload.task && u.kind.is_image();
                let mut images = self.uploads.list().into_iter().filter(|u| same_task(u) && u.is_complete());
                images.try_for_each(|image| self.settle_image(&image, now))
            }
        }
    }

    /// Settles what was complete when a crash came: its client was told so and will not ask again.
    pub(super) fn settle_all(&self, now: Timestamp) {
        for upload in self.uploads.list().into_iter().filter(|u| u.is_complete()) {
            if let Err(error) = self.settle(&upload, now) {
                tracing::warn!(upload = %upload.id, task = %upload.task, %error, "a complete upload is refused");
            }
        }
    }

    fn settle_index(&self, upload: &Upload) -> Result<(), StoreError> {
        let mut part = upload.turn_now();
        if part.state.done || !part.is_complete() {
            return Ok(());
        }
        let index = match self.read_index(&part) {
            Ok(index) => index,
            // Bytes that could not be read may be fine.
            Err(e @ StoreError::Io { .. }) => return Err(e),
            Err(e) => {
                self.remove_upload(upload, &mut part)?;
                return Err(e);
            }
        };
        self.keep_pending(&part, &index)?;
        part.finish()?;
        upload.note(&part);
        Ok(())
    }

    fn keep_pending(&self, part: &Part, index: &Index) -> Result<(), StoreError> {
        let _alone = self.placing.lock().expect("no holder panics");
        if self.add_channels(index.id(), &part.state.channels)? {
            return Ok(());
        }
        let path = self.pending_path(part.state.metadata.task);
        disk::replace(&path, &index.encode()).map_err(StoreError::io("write", &path))
    }

    fn read_index(&self, part: &Part) -> Result<Index, StoreError> {
        let index = Index::decode(&part.read_all()?).map_err(StoreError::BadIndex)?;
        if index.image_size() == 0 {
            return Err(StoreError::EmptyImage);
        }
        same_image(part.state.metadata.image, &index)?;
        Ok(index)
    }

    fn settle_image(&self, upload: &Upload, now: Timestamp) -> Result<(), StoreError> {
        let mut part = upload.turn_now();
        if part.state.done || !part.is_complete() {
            return Ok(());
        }
        let settled = self.compare_and_publish(&mut part, now);
        upload.note(&part);
        settled
    }

    fn compare_and_publish(&self, part: &mut Part, now: Timestamp) -> Result<(), StoreError> {
        self.bind_index(part)?;
        let Some(index) = part.index.clone() else {
            return Ok(()); // it waits for its index
        };
        if self.image(index.id()).is_none() {
            part.seal(&index)?;
            self.share(part.file(), &index)?;
        }
        self.publish(part, &index, now)?;
        part.finish()?;
        self.drop_pending(part.state.metadata.task, index.id())
    }

    /// Removes the pending index of an image that has appeared; not that of another, which the task has begun since.
    fn drop_pending(&self, task: TaskId, id: ImageId) -> Result<(), StoreError> {
        let _alone = self.placing.lock().expect("no holder panics");
        match self.index_for(task, None)? {
            Some(pending) if pending.id() == id => {
                let path = self.pending_path(task);
                disk::remove(&path).map_err(StoreError::io("remove", &path))
            }
            _ => Ok(()),
        }
    }

    /// Gives an image upload its index, if that is here, and compares what is there already.
    ///
    /// # Errors
    /// As [`Part::bind`]; `IndexFirst` for a packed upload without one; `OtherImage` when the task's index describes another image than the upload names.
    pub(crate) fn bind_index(&self, part: &mut Part) -> Result<(), StoreError> {
        let kind = part.state.metadata.kind;
        if part.is_bound() || part.state.done || !kind.is_image() {
            return Ok(());
        }
        let Some(index) = self.index_for(part.state.metadata.task, part.state.metadata.image)? else {
            return if kind == Kind::Packed { Err(StoreError::IndexFirst) } else { Ok(()) };
        };
        same_image(part.state.metadata.image, &index)?;
        part.bind(Arc::new(index))
    }

    /// The index pending for a task, or that of the stored image the upload names.
    fn index_for(&self, task: TaskId, image: Option<ImageId>) -> Result<Option<Index>, StoreError> {
        let stored = image.filter(|id| self.image(*id).is_some()).map(|id| self.index_path(id));
        for path in [Some(self.pending_path(task)), stored].into_iter().flatten() {
            match fs::read(&path) {
                Ok(bytes) => return Index::decode(&bytes).map(Some).map_err(StoreError::BadIndex),
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => (),
                Err(e) => return Err(StoreError::io("read", &path)(e)),
            }
        }
        Ok(None)
    }

    /// Lets these channels have a stored image too; false when there is no such image. The caller holds
    /// `placing`.
    fn add_channels(&self, id: ImageId, channels: &[Channel]) -> Result<bool, StoreError> {
        let Some(known) = self.image(id) else { return Ok(false) };
        let mut image = known.clone();
        image.channels.extend(channels.iter().filter(|c| !known.channels.contains(c)).cloned());
        if image != known {
            self.write_record(&image)?;
            self.catalog().insert(id, image);
        }
        Ok(true)
    }

    /// Makes a sealed upload an image, unless another upload of the same image was first.
    fn publish(&self, part: &Part, index: &Index, now: Timestamp) -> Result<(), StoreError> {
        let _alone = self.placing.lock().expect("no holder panics");
        if self.add_channels(index.id(), &part.state.channels)? {
            return Ok(());
        }
        let mut signed = index.clone();
        signed.sign(&self.key);
        let State { metadata, channels, .. } = &part.state;
        let name = if metadata.name.is_empty() { metadata.task.to_string() } else { metadata.name.clone() };
        let (id, size, channels) = (index.id(), index.image_size(), channels.clone());
        let image = StoredImage { id, name, size, channels, created: now, public: false, keep_until: None };

        let index_path = self.index_path(id);
        disk::replace(&index_path, &signed.encode()).map_err(StoreError::io("write", &index_path))?;
        self.write_record(&image)?;
        let path = self.image_path(id);
        let moved = fs::rename(&part.path, &path).and_then(|()| disk::sync_folder_of(&path));
        moved.map_err(StoreError::io("put in place", &path))?;
        tracing::info!(image = %id, size, task = %metadata.task, "an image is complete");
        self.catalog().insert(id, image);
        if let Some(objects) = &self.objects {
            objects.wake();
        }
        Ok(())
    }

    pub(super) fn write_record(&self, image: &StoredImage) -> Result<(), StoreError> {
        let path = self.record_path(image.id);
        let json = serde_json::to_vec(image).expect("a record is plain JSON");
        disk::replace(&path, &json).map_err(StoreError::io("write", &path))
    }
}

fn same_image(named: Option<ImageId>, index: &Index) -> Result<(), StoreError> {
    match named.filter(|id| *id != index.id()) {
        Some(named) => Err(StoreError::OtherImage { named, actual: index.id() }),
        None => Ok(()),
    }
}
