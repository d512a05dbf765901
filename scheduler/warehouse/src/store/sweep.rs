//! The start: what a crash left is removed, what is whole is taken in.
//!
//! | found | done |
//! |---|---|
//! | `*.tmp` | removed: it was not in place yet |
//! | `.cardindex`, `.json`, `.bmap`, `.pieces` without `.img` or *stored* object | removed: the image did not appear, or was removed |
//! | `.img` whose object is *stored* | removed: it was sent |
//! | `.img` whose index or record is missing, torn or of another image | moved to `damaged/`: no crash does this |
//! | upload without state, state without bytes | removed; a state whose image appeared becomes *done* |
//! | pending index that is torn, or whose image is here | removed |
//! | anything else | left alone, not served |

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cardshop_protocol::api::StoredImage;
use cardshop_protocol::ids::{ImageId, TaskId};
use cardshop_protocol::index::Index;
use cardshop_protocol::time::Timestamp;
use ed25519_dalek::VerifyingKey;

use super::COMPANIONS;
use super::disk::{self, UNFINISHED};
use super::error::StoreError;
use super::objects::{Place, Places};
use super::part::{self, Part};
use super::uploads::{Upload, UploadId};

/// The images of `data`, after the folder was put in order.
pub(super) fn images(
    data: &Path,
    places: &Places,
    key: &VerifyingKey,
) -> Result<BTreeMap<ImageId, StoredImage>, StoreError> {
    let mut ids = BTreeSet::new();
    for path in files(data)? {
        if let Some(id) = stem::<ImageId>(&path) {
            ids.insert(id);
        }
    }
    let mut images = BTreeMap::new();
    for id in ids {
        let file = |kind| data.join(format!("{id}.{kind}"));
        let stored = places.get(&id) == Some(&Place::Stored);
        if stored {
            orphan(&file("img"))?;
        } else if !is_there(&file("img"))? {
            COMPANIONS.iter().try_for_each(|kind| orphan(&file(kind)))?;
            continue;
        }
        match whole_image(id, data, stored, key)? {
            Ok(image) => {
                images.insert(id, image);
            }
            Err(fault) => {
                tracing::error!(image = %id, fault, "a damaged image is set aside");
                set_aside(data, id)?;
            }
        }
    }
    Ok(images)
}

/// True when an image lies in `data`, whole or not.
pub(super) fn has_images(data: &Path) -> Result<bool, StoreError> {
    let is_image = |path: &PathBuf| path.extension().is_some_and(|e| e == "img");
    Ok(files(data)?.iter().filter(|path| is_image(path)).any(|path| stem::<ImageId>(path).is_some()))
}

/// Reads and checks what lies beside an image. The outer error is a disk that cannot be read: nothing is
/// moved because of that.
fn whole_image(
    id: ImageId,
    data: &Path,
    stored: bool,
    key: &VerifyingKey,
) -> Result<Result<StoredImage, &'static str>, StoreError> {
    let read = |kind| {
        let path = data.join(format!("{id}.{kind}"));
        match fs::read(&path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
            other => other.map(Some).map_err(StoreError::io("read", &path)),
        }
    };
    let path = data.join(format!("{id}.img"));
    let size = match stored {
        true => None,
        false => Some(fs::metadata(&path).map_err(StoreError::io("read", &path))?.len()),
    };
    let (Some(index), Some(record)) = (read("cardindex")?, read("json")?) else {
        return Ok(Err("its index or its record is missing"));
    };
    let (Ok(index), Ok(image)) = (Index::decode(&index), serde_json::from_slice::<StoredImage>(&record))
    else {
        return Ok(Err("its index or its record is torn"));
    };
    let expected = index.image_size();
    if index.id() != id || image.id != id || image.size != expected || size.is_some_and(|s| s != expected) {
        return Ok(Err("its files belong to different images"));
    }
    if index.verify_signature(key).is_err() {
        return Ok(Err("its index is not signed by this warehouse's key"));
    }
    Ok(Ok(image))
}

fn set_aside(data: &Path, id: ImageId) -> Result<(), StoreError> {
    let damaged = data.join("damaged");
    fs::create_dir_all(&damaged).map_err(StoreError::io("create", &damaged))?;
    for kind in COMPANIONS.into_iter().chain(["img"]) {
        let name = format!("{id}.{kind}");
        match fs::rename(data.join(&name), damaged.join(&name)) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                return Err(StoreError::io("set aside", &data.join(&name))(e));
            }
            _ => (),
        }
    }
    Ok(())
}

/// The uploads of `folder`, after it was put in order.
pub(super) fn uploads(
    folder: &Path,
    images: &BTreeMap<ImageId, StoredImage>,
) -> Result<Vec<Upload>, StoreError> {
    let mut ids = BTreeMap::new();
    for path in files(folder)? {
        if let Some(id) = stem::<UploadId>(&path) {
            ids.insert(id.to_string(), id);
        }
    }
    let mut uploads = Vec::new();
    for (name, id) in ids {
        let (state_path, path) = (folder.join(format!("{name}.json")), folder.join(format!("{name}.part")));
        let Some(mut state) = part::read_state(&state_path)? else {
            orphan(&state_path)?;
            orphan(&path)?;
            continue;
        };
        // The crash came between the image's appearance and this record.
        let has_bytes = is_there(&path)?;
        state.done |= !has_bytes && state.checked.is_some_and(|image| images.contains_key(&image));
        if !state.done && !has_bytes {
            orphan(&state_path)?;
            continue;
        }
        let part = Part::open(state, path, state_path)?;
        let upload = Upload::new(id, part);
        upload.note(&upload.turn_now());
        uploads.push(upload);
    }
    Ok(uploads)
}

/// Puts the folder of pending indexes in order.
pub(super) fn pending(folder: &Path, images: &BTreeMap<ImageId, StoredImage>) -> Result<(), StoreError> {
    for path in files(folder)? {
        if stem::<TaskId>(&path).is_none() {
            continue;
        }
        let bytes = fs::read(&path).map_err(StoreError::io("read", &path))?;
        let needed = Index::decode(&bytes).is_ok_and(|index| !images.contains_key(&index.id()));
        if !needed {
            orphan(&path)?;
        }
    }
    Ok(())
}

/// Removes pending indexes older than `life`.
pub(super) fn expire_pending(folder: &Path, now: Timestamp, life: Duration) {
    for path in files(folder).unwrap_or_default() {
        let modified = fs::metadata(&path).and_then(|m| m.modified());
        let old = modified.is_ok_and(|m| Timestamp::from_system(m) + life <= now);
        if old && stem::<TaskId>(&path).is_some() && disk::remove(&path).is_ok() {
            tracing::info!(path = %path.display(), "an index whose image never came is forgotten");
        }
    }
}

/// The files of a folder that are in place; unfinished ones are removed.
pub(super) fn files(folder: &Path) -> Result<Vec<PathBuf>, StoreError> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder).map_err(StoreError::io("list", folder))? {
        let path = entry.map_err(StoreError::io("list", folder))?.path();
        if path.extension().is_some_and(|e| e == UNFINISHED) {
            orphan(&path)?;
        } else if path.is_file() {
            paths.push(path);
        }
    }
    Ok(paths)
}

/// The id a file is named for.
pub(super) fn stem<T: std::str::FromStr>(path: &Path) -> Option<T> {
    path.file_stem()?.to_str()?.parse().ok()
}

/// A disk that cannot say is an error: what it hides may be fine, and nothing is removed because of it.
pub(super) fn is_there(path: &Path) -> Result<bool, StoreError> {
    path.try_exists().map_err(StoreError::io("look for", path))
}

pub(super) fn orphan(path: &Path) -> Result<(), StoreError> {
    if path.exists() {
        tracing::warn!(path = %path.display(), "what a crash left is removed");
    }
    disk::remove(path).map_err(StoreError::io("remove", path))
}
