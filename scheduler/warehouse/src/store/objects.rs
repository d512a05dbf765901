//! Images whose bytes lie in an S3-compatible store, and how they come there. An image appears here as ever and is
//! served from here until its object is whole; so a store that is away stops nobody, and costs only room.
//!
//! ```text
//! {id}.img appears ─► sending ─► stored: the object is whole ─► {id}.img removed; from here on 307
//!                       │   ▲ crash, store away: again, in the same multipart upload
//!                       └───┴─ removed ─► gone ─► object and parts removed ─► forgotten
//! DATA/objects/{image id}.json   {"state": "sending", "multipart": …}, "stored" or "gone"
//! ```
//!
//! The record says before an object is touched what may be there, so that no crash leaves bytes in the store that
//! nobody knows of, and nothing has to be listed there. Records change under `placing`; one pass at a time reads them
//! and speaks to the store, called by `server`.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::{Mutex, MutexGuard};

use axum::http::Method;
use cardshop_protocol::ids::ImageId;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::bucket::{Bucket, S3};
use super::error::StoreError;
use super::{Store, disk, sweep};

/// What is known of an image's object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub(super) enum Place {
    /// Parts of it may be in the store; its bytes are here.
    Sending { multipart: String },
    /// It is whole.
    Stored,
    /// Its image is gone and it is not: parts of it or all may be in the store.
    Gone { multipart: Option<String> },
}

/// All records, by image.
pub(super) type Places = BTreeMap<ImageId, Place>;

/// Reads the records of `folder`.
///
/// # Errors
/// `BadRecord`: what no crash leaves. Guessing would lose an image or leave its bytes in the store for good.
pub(super) fn read_places(folder: &Path) -> Result<Places, StoreError> {
    let mut places = Places::new();
    for path in sweep::files(folder)? {
        let Some(id) = sweep::stem::<ImageId>(&path) else { continue };
        let bytes = fs::read(&path).map_err(StoreError::io("read", &path))?;
        let place = serde_json::from_slice(&bytes).map_err(|_| StoreError::BadRecord(path))?;
        places.insert(id, place);
    }
    Ok(places)
}

/// The records and the store they speak of.
pub(super) struct Objects {
    bucket: Bucket,
    places: Mutex<Places>,
    /// Something is to be done.
    work: Notify,
}

impl Objects {
    pub(super) fn open(s3: &S3, owner: impl std::fmt::Display, places: Places) -> Result<Self, StoreError> {
        Ok(Self { bucket: Bucket::open(s3, owner)?, places: Mutex::new(places), work: Notify::new() })
    }

    fn places(&self) -> MutexGuard<'_, Places> {
        self.places.lock().expect("no holder panics")
    }

    fn place(&self, id: ImageId) -> Option<Place> {
        self.places().get(&id).cloned()
    }

    pub(super) fn wake(&self) {
        self.work.notify_one();
    }
}

impl Store {
    /// True when images' bytes go to an S3-compatible store.
    pub(crate) fn has_bucket(&self) -> bool {
        self.objects.is_some()
    }

    /// True when the image's bytes are in the store.
    pub(crate) fn is_stored_away(&self, id: ImageId) -> bool {
        self.objects.as_ref().is_some_and(|objects| objects.place(id) == Some(Place::Stored))
    }

    /// Waits until there may be something for [`Store::move_images`].
    pub(crate) async fn work_for_bucket(&self) {
        match &self.objects {
            Some(objects) => objects.work.notified().await,
            None => std::future::pending().await,
        }
    }

    /// Where a client finds the bytes of an image that is stored away; `None` when there is no store.
    pub(crate) async fn address_of(
        &self,
        id: ImageId,
        method: Method,
        name: Option<&str>,
    ) -> Result<Option<String>, StoreError> {
        match &self.objects {
            Some(objects) => objects.bucket.address(id, method, name).await.map(Some),
            None => Ok(None),
        }
    }

    /// Reads bytes of an image that is stored away.
    pub(super) fn read_object(&self, id: ImageId, bytes: &mut [u8], at: u64) -> Result<(), StoreError> {
        let objects = self.objects.as_ref().expect("what is stored away has a store");
        objects.bucket.read_exact_at(id, bytes, at)
    }

    /// How many images are not in the store yet.
    pub(crate) fn images_to_move(&self) -> usize {
        self.images(None).iter().filter(|image| !self.is_stored_away(image.id)).count()
    }

    /// One pass: objects of images that are gone are removed, images that are here are sent. Ends early when `stop`
    /// comes. What fails is left for the next pass, the rest goes on.
    ///
    /// # Errors
    /// The last that came.
    pub(crate) fn move_images(&self, stop: &CancellationToken) -> Result<(), StoreError> {
        let Some(objects) = &self.objects else { return Ok(()) };
        let mut worst = Ok(());
        let known: Vec<_> = objects.places().clone().into_iter().collect();
        for (id, place) in known {
            if let (Place::Gone { multipart }, false) = (place, stop.is_cancelled()) {
                worst = self.clear_object(objects, id, multipart.as_deref()).and(worst);
            }
        }
        for image in self.images(None) {
            if !stop.is_cancelled() {
                worst = self.send_image(objects, image.id, stop).and(worst);
            }
        }
        worst
    }

    /// Removes what the store has of an image that is gone, then the record that says so.
    fn clear_object(
        &self,
        objects: &Objects,
        id: ImageId,
        multipart: Option<&str>,
    ) -> Result<(), StoreError> {
        objects.bucket.remove(id)?;
        if let Some(multipart) = multipart {
            objects.bucket.abort(id, multipart)?;
        }
        let _alone = self.placing.lock().expect("no holder panics");
        self.forget_place(objects, id)
    }

    fn send_image(&self, objects: &Objects, id: ImageId, stop: &CancellationToken) -> Result<(), StoreError> {
        let path = self.image_path(id);
        let Some((file, size)) = self.open_file(&path)? else { return Ok(()) };
        let multipart = match objects.place(id) {
            None => self.begin_object(objects, id)?,
            Some(Place::Sending { multipart }) => multipart,
            // A gone one could not be cleared a moment ago and waits for the next pass.
            Some(Place::Stored | Place::Gone { .. }) => return Ok(()),
        };
        let sent = objects.bucket.send(id, &multipart, (file, size), &path, stop);
        match &sent {
            Ok(false) => return Ok(()),
            // The answer that the object is whole may have been lost; then the upload is not known any more.
            Ok(true) | Err(StoreError::Away(object_store::Error::NotFound { .. })) => (),
            Err(_) => return sent.map(drop),
        }
        let actual = objects.bucket.size(id)?;
        let _alone = self.placing.lock().expect("no holder panics");
        if objects.place(id) != Some(Place::Sending { multipart }) {
            return Ok(()); // removed meanwhile: the next pass, which was asked for, clears it
        }
        if actual != Some(size) {
            self.forget_place(objects, id)?; // begun anew in the next pass
            let actual = actual.unwrap_or(0);
            return sent.and(Err(StoreError::ObjectSize { expected: size, actual }));
        }
        self.note_place(objects, id, Place::Stored)?;
        tracing::info!(image = %id, "an image is in the store");
        // Who is in the middle of reading it here reads on.
        disk::remove(&path).map_err(StoreError::io("remove", &path))
    }

    /// Begins to send; the multipart upload's id.
    fn begin_object(&self, objects: &Objects, id: ImageId) -> Result<String, StoreError> {
        let multipart = objects.bucket.begin(id)?;
        let _alone = self.placing.lock().expect("no holder panics");
        self.note_place(objects, id, Place::Sending { multipart: multipart.clone() })?;
        if self.image(id).is_none() {
            self.let_object_go(id)?; // removed meanwhile
        }
        Ok(multipart)
    }

    /// Says that an image's object is to be removed: for one that is stored away the moment it is gone. The caller
    /// holds `placing`.
    pub(super) fn let_object_go(&self, id: ImageId) -> Result<(), StoreError> {
        let Some(objects) = &self.objects else { return Ok(()) };
        let multipart = match objects.place(id) {
            None => return Ok(()),
            Some(Place::Sending { multipart }) => Some(multipart),
            Some(Place::Gone { multipart }) => multipart,
            Some(Place::Stored) => None,
        };
        self.note_place(objects, id, Place::Gone { multipart })?;
        objects.wake();
        Ok(())
    }

    fn note_place(&self, objects: &Objects, id: ImageId, place: Place) -> Result<(), StoreError> {
        let path = self.place_path(id);
        let json = serde_json::to_vec(&place).expect("a record is plain JSON");
        disk::replace(&path, &json).map_err(StoreError::io("write", &path))?;
        objects.places().insert(id, place);
        Ok(())
    }

    fn forget_place(&self, objects: &Objects, id: ImageId) -> Result<(), StoreError> {
        let path = self.place_path(id);
        disk::remove(&path).map_err(StoreError::io("remove", &path))?;
        objects.places().remove(&id);
        Ok(())
    }

    fn place_path(&self, id: ImageId) -> std::path::PathBuf {
        self.data.join("objects").join(format!("{id}.json"))
    }
}
