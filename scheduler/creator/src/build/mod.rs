//! From a recipe to an image and its index.
//!
//! ```text
//! check (sizing) → free space → download → unpack into a tree → image file:
//!   base or [MBR · FAT32 boot] · ext4 data, each at 8 MiB multiples: tables and small files → which bytes matter
//!   → large files, digested on their way → e2fsck → map → index of the rest
//! ```
//!
//! The image is made as `IMAGE.part` and renamed when its index exists. Scratch files lie in a folder of their
//! own beside it and go in every case; those of a killed process with the next build in the same folder. Nothing here needs root. Called by the command
//! line and by [`crate::worker`].

mod content;
mod error;
mod image;
mod scratch;

use std::fs::{self, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use cardshop_protocol::api::CreationPhase;
use cardshop_protocol::index::Index;

pub use error::BuildError;

use crate::StopFlag;
use crate::cache::Cache;
use crate::ext4;
use crate::fat::{self, Fat};
use crate::http::Backoff;
use crate::policy::Policy;
use crate::recipe::Recipe;
use crate::sizing::{self, Sizing};
use crate::watch::Watcher;
use content::Downloads;
use image::Layout;
use scratch::Scratch;

/// Which files of this machine a recipe may read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LocalFiles {
    /// None: the recipe came over the wire.
    Refused,
    /// Those below a folder; relative names begin there.
    Below(PathBuf),
    /// All that the user may: the recipe is the user's own.
    Any {
        /// Where relative names begin.
        relative_to: PathBuf,
    },
}

/// How and where to build.
#[derive(Debug, Clone)]
pub struct Options {
    /// The image to make; scratch files lie beside it.
    pub image: PathBuf,
    /// Downloads are kept here.
    pub cache: PathBuf,
    /// Which files of this machine the recipe may read.
    pub local_files: LocalFiles,
    /// Largest image allowed, bytes.
    pub max_image_bytes: Option<u64>,
    /// Between tries of a download.
    pub backoff: Backoff,
    /// True: no server is asked anything, the cache has to do.
    pub offline: bool,
    /// What the cache keeps. What this build needs stays in any case.
    pub policy: Policy,
    /// Who hears more of the build than its progress.
    pub watcher: Watcher,
}

/// Where a build stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Step.
    pub phase: CreationPhase,
    /// Bytes done in this step.
    pub done: u64,
    /// Bytes of this step; an estimate while building.
    pub total: u64,
}

/// A finished image.
#[derive(Debug)]
pub struct Built {
    /// Where it is.
    pub image: PathBuf,
    /// Its index, unsigned. The caller writes it where it wants it.
    pub index: Index,
    /// What people should know: an image that carries no passport, for example.
    pub notes: Vec<String>,
}

/// Builds the image a recipe describes.
///
/// # Errors
/// [`BuildError`]; no image is left at [`Options::image`] that was not there before.
pub fn build(
    recipe: &Recipe,
    options: &Options,
    stop: &StopFlag,
    progress: &mut dyn FnMut(Progress),
) -> Result<Built, BuildError> {
    ext4::check_tools()?;
    let folder = match options.image.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let folder = fs::canonicalize(folder)?;
    fs::create_dir_all(&options.cache)?;
    let sizing = sizing::check(recipe, options, stop)?;
    options.watcher.sizes(&sizing);
    Cache { folder: &options.cache }.sweep(&options.policy, sizing.download_bytes);
    sizing.check_room()?;
    let part = match options.image.file_name() {
        Some(name) => format!("{}.part", name.to_string_lossy()),
        None => return Err(io::Error::other("the image needs a file name").into()),
    };
    let scratch = Scratch::make(&folder, &part)?;
    let part = folder.join(part);
    let known;
    let mut builder =
        Builder { recipe, options, sizing: &sizing, scratch: scratch.path(), part: &part, stop, progress };
    let downloads = builder.download()?;
    if !sizing.base_is_known {
        // Its partitions are, now that it is here.
        known = sizing::check(recipe, options, stop)?;
        options.watcher.sizes(&known);
        builder.sizing = &known;
    }
    let made = builder.run(downloads);
    let (index, notes) = match made {
        Ok(made) => made,
        Err(error) => {
            // Half an image helps nobody; that it may already be gone is no news.
            let _ = fs::remove_file(&part);
            return Err(error);
        }
    };
    fs::rename(&part, &options.image)?;
    Ok(Built { image: options.image.clone(), index, notes })
}

struct Builder<'a> {
    recipe: &'a Recipe,
    options: &'a Options,
    sizing: &'a Sizing,
    scratch: &'a Path,
    part: &'a Path,
    stop: &'a StopFlag,
    progress: &'a mut dyn FnMut(Progress),
}

impl Builder<'_> {
    fn run(mut self, downloads: Downloads) -> Result<(Index, Vec<String>), BuildError> {
        let Downloads { base, files, images } = downloads;
        let tree = self.tree(&files, &images)?;
        let image = OpenOptions::new().create(true).truncate(true).read(true).write(true).open(self.part)?;
        image.set_len(self.sizing.image_bytes)?;
        let mut layout = Layout::default();
        let boot = match (&self.recipe.base, base) {
            (Some(base), Some(got)) => self.copy_base(base, &got.path, &image)?,
            _ => self.make_boot(&image)?,
        };
        let mut notes = Vec::new();
        let files = self.boot_files();
        match boot {
            Some(boot) => {
                let range = boot.start..boot.end();
                fat::fill(&image, range.clone(), &files).map_err(BuildError::Boot)?;
                if let Some(fat) = Fat::read(&image, range)? {
                    layout.free.extend(fat.free());
                    layout.passport = fat.passport(&image)?.unwrap_or_default();
                }
            }
            None if !files.is_empty() => return Err(BuildError::NoBoot(files[0].0)),
            None => {}
        }
        if layout.passport.is_empty() {
            notes.push("this image carries no passport: the base has no FAT32 with room for it".into());
        }
        let data = self.data_partition();
        let placed = self.fill_data(&data, &tree)?;
        self.lay_out(&image, boot, &data, &mut layout)?;
        let copied = self.copy_contents(&image, &data, &placed)?;
        let index = self.index(&image, layout, &copied)?;
        image.sync_all()?;
        Ok((index, notes))
    }

    fn report(&mut self, phase: CreationPhase, done: u64, total: u64) {
        (self.progress)(Progress { phase, done: done.min(total), total });
    }
}
