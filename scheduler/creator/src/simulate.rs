//! Stand-ins for images: a card with a boot partition, its passport and a note, no content. For tests and for showing a
//! shop: a recipe is checked as ever, all steps are gone through and told, nothing is downloaded and no tool is run.

use std::fs::{self, OpenOptions};

use cardshop_protocol::api::CreationPhase;

use crate::StopFlag;
use crate::build::{BuildError, Built, Options, Progress};
use crate::copy::Copied;
use crate::fat::{self, BOOT_SIZE, Fat};
use crate::map;
use crate::mbr::{ALIGNMENT, KIND_FAT32, Mbr, Partition};
use crate::recipe::Recipe;

const NOTE: &str = "This card has no content: it was made by a creator that only simulates.\r\n";

/// Makes the stand-in for the image a recipe describes: 48 MiB, of which a few hundred KiB are data.
///
/// # Errors
/// `TooLarge`, `Stopped`, and what the disk says.
pub(crate) fn build(
    recipe: &Recipe,
    options: &Options,
    stop: &StopFlag,
    progress: &mut dyn FnMut(Progress),
) -> Result<Built, BuildError> {
    let boot = Partition { kind: KIND_FAT32, start: ALIGNMENT, size: BOOT_SIZE };
    let size = boot.end();
    let most = options.max_image_bytes.unwrap_or(u64::MAX);
    if size > most {
        return Err(BuildError::TooLarge { image: size, most });
    }
    let mut step = |phase, done, total| match stop.is_stopped() {
        true => Err(BuildError::Stopped),
        false => {
            progress(Progress { phase, done, total });
            Ok(())
        }
    };
    step(CreationPhase::Downloading, 0, 0)?;
    step(CreationPhase::Building, 0, size)?;
    let image = OpenOptions::new().create(true).truncate(true).read(true).write(true).open(&options.image)?;
    image.set_len(size)?;
    let digest = recipe.digest();
    let [a, b, c, d, e, f, g, h, ..] = *digest.as_bytes();
    let mut mbr = Mbr::new([a, b, c, d]);
    mbr.add(boot)?;
    std::os::unix::fs::FileExt::write_all_at(&image, &mbr.0, 0)?;
    let range = boot.start..boot.end();
    fat::format(&image, range.clone(), u32::from_le_bytes([e, f, g, h]))?;
    let recipe = recipe.public_value().to_string().into_bytes();
    let files = [("SIMULATE.TXT", NOTE.as_bytes().to_vec()), ("image.yaml", recipe)];
    fat::fill(&image, range.clone(), &files).map_err(BuildError::Boot)?;
    let (mut free, mut passport) = (Vec::new(), Vec::new());
    if let Some(fat) = Fat::read(&image, range.clone())? {
        free.extend(fat.free());
        passport = fat.passport(&image)?.unwrap_or_default();
        free.extend(passport.iter().map(|p| p.offset..p.offset + p.length));
        free.sort_by_key(|r| r.start);
    }
    step(CreationPhase::Indexing, 0, size)?;
    let used = map::without(&[0..4096, range], &free);
    let none = Copied::default();
    let map = map::map(&image, &used, &none, passport, stop, &mut |_| ())?;
    let index = map::index(&image, map, &none, stop, &mut |_| ())?;
    step(CreationPhase::Indexing, size, size)?;
    Ok(Built { image: fs::canonicalize(&options.image)?, index, notes: vec![NOTE.trim().to_owned()] })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Backoff, LocalFiles, Policy, Watcher};

    #[test]
    fn a_stand_in_is_small_carries_a_passport_and_is_the_same_twice() {
        let folder = tempfile::tempdir().unwrap();
        let options = |name: &str| Options {
            image: folder.path().join(name),
            cache: folder.path().join("cache"),
            local_files: LocalFiles::Refused,
            max_image_bytes: None,
            backoff: Backoff::default(),
            offline: true,
            policy: Policy::default(),
            watcher: Watcher::default(),
        };
        let recipe = |name: &str| {
            let text = format!("files: [{{to: /data/{name}, url: 'https://nowhere.invalid/1'}}]");
            Recipe::from_text(&text).unwrap()
        };
        let make = |name: &str, recipe: &Recipe| {
            build(recipe, &options(name), &StopFlag::new(), &mut |_| ()).unwrap().index
        };
        let [one, again, other] = [make("1", &recipe("a")), make("2", &recipe("a")), make("3", &recipe("b"))];
        assert_eq!(one.id(), again.id());
        assert_ne!(one.id(), other.id());
        assert!(one.data_bytes() < 2_000_000 && one.passport().len() == 2, "{}", one.data_bytes());
        assert!(!folder.path().join("cache").exists());
    }
}
