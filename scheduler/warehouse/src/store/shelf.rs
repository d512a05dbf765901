//! What happens to complete images afterwards: who may read them changes, and they go when their time is up.
//!
//! ```text
//! keep_until passed and no link still good ─► due ─► .img removed: the one moment it is gone ─► the rest removed
//! ```
//!
//! Whoever is in the middle of reading one reads on to its end; its room is free after that. For an image that is
//! stored away the one moment is the record that lets its object go.

use cardshop_protocol::api::StoredImage;
use cardshop_protocol::ids::ImageId;
use cardshop_protocol::time::Timestamp;

use super::disk;
use super::error::StoreError;
use super::{COMPANIONS, Store};

impl Store {
    /// Changes an image's record; `None` when there is no such image.
    pub(crate) fn change_image(
        &self,
        id: ImageId,
        change: impl FnOnce(&mut StoredImage),
    ) -> Result<Option<StoredImage>, StoreError> {
        let _alone = self.placing.lock().expect("no holder panics");
        let Some(known) = self.image(id) else { return Ok(None) };
        let mut image = known.clone();
        change(&mut image);
        if image != known {
            self.write_record(&image)?;
            self.catalog().insert(id, image.clone());
        }
        Ok(Some(image))
    }

    /// Removes an image; false when there is none. Durable on return.
    pub(crate) fn remove_image(&self, id: ImageId) -> Result<bool, StoreError> {
        let _alone = self.placing.lock().expect("no holder panics");
        if self.catalog().remove(&id).is_none() {
            return Ok(false);
        }
        self.let_object_go(id)?;
        // The image first: companions without one are what the next start sweeps.
        let image = self.image_path(id);
        disk::remove(&image)
            .and_then(|()| disk::sync_folder_of(&image))
            .map_err(StoreError::io("remove", &image))?;
        for kind in COMPANIONS {
            let path = self.data.join(format!("{id}.{kind}"));
            disk::remove(&path).map_err(StoreError::io("remove", &path))?;
        }
        tracing::info!(image = %id, "an image is removed");
        Ok(true)
    }

    /// Images whose time is up at `now`: what [`Store::clear_due`] would remove then.
    pub(crate) fn due(&self, now: Timestamp) -> Vec<StoredImage> {
        let linked = self.links.images(now);
        let mut due = self.images(None);
        due.retain(|image| image.keep_until.is_some_and(|end| end <= now) && !linked.contains(&image.id));
        due
    }

    /// Removes the images whose time is up, and forgets links that ended long ago.
    pub(crate) fn clear_due(&self, now: Timestamp) {
        for image in self.due(now) {
            tracing::info!(image = %image.id, name = image.name, size = image.size, "an image's time is up");
            if let Err(error) = self.remove_image(image.id) {
                tracing::error!(image = %image.id, %error, "an image whose time is up cannot be removed");
            }
        }
        self.forget_links(now);
    }

    /// Bytes that an image takes: blocks here, or in the S3 store all of them.
    pub(crate) fn stored_bytes(&self, id: ImageId) -> u64 {
        use std::os::unix::fs::MetadataExt;
        if self.is_stored_away(id) {
            return self.image(id).map_or(0, |image| image.size);
        }
        std::fs::metadata(self.image_path(id)).map_or(0, |facts| facts.blocks() * 512)
    }
}
