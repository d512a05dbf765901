//! `cardshop build`: the creator's builder from the command line.

use std::path::{Path, PathBuf};

use anyhow::Context;
use cardshop_card::StopFlag;
use cardshop_creator::configuration;
use cardshop_creator::{BuildError, LocalFiles, Options, Policy, Recipe, Sizing};
use cardshop_protocol::api::CreationPhase;
use serde_json::json;

use crate::exit::{Ending, stop_flag};
use crate::image::index_path;
use crate::report::{Output, size};

/// Builds an image from a recipe, and its index beside it.
///
/// Example: cardshop build school.yaml -o school.img
///
/// Paths in the recipe begin at the recipe's folder.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct Build {
    /// The recipe, YAML or JSON; or a configuration, under the key `configuration`.
    recipe: PathBuf,
    /// Where to write the image.
    #[arg(short, long)]
    output: PathBuf,
    /// Size everything, show the table, and stop before any content is downloaded.
    #[arg(long)]
    check: bool,
    /// Largest image, bytes.
    #[arg(long, value_name = "BYTES")]
    max_size: Option<u64>,
    /// Where downloads are kept [default: OUTPUT.cache].
    #[arg(long, env = "CARDSHOP_CACHE", value_name = "DIR")]
    cache: Option<PathBuf>,
    /// Ask no server for anything: what the cache has must do.
    #[arg(long)]
    offline: bool,
    #[command(flatten)]
    policy: CachePolicy,
}

/// What the cache of downloads keeps.
#[derive(clap::Args)]
pub(crate) struct CachePolicy {
    /// What the cache keeps, YAML: limits {max_bytes, max_count, max_age_s}, and rules [{pattern, keep, limits}].
    #[arg(long, env = "CARDSHOP_CACHE_POLICY", value_name = "FILE")]
    cache_policy: Option<PathBuf>,
}

impl CachePolicy {
    pub(crate) fn read(&self) -> anyhow::Result<Policy> {
        let Some(path) = &self.cache_policy else { return Ok(Policy::default()) };
        let text =
            std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        Policy::from_text(&text).with_context(|| path.display().to_string())
    }
}

impl Build {
    pub(crate) fn run(self, output: &Output) -> anyhow::Result<Ending> {
        let shown = self.recipe.display();
        let text = std::fs::read_to_string(&self.recipe).with_context(|| format!("cannot read {shown}"))?;
        let options = Options {
            image: self.output.clone(),
            cache: self.cache.clone().unwrap_or_else(|| with_ending(&self.output, ".cache")),
            local_files: LocalFiles::Any {
                relative_to: std::path::absolute(&self.recipe)?.with_file_name(""),
            },
            max_image_bytes: self.max_size,
            backoff: cardshop_creator::Backoff::default(),
            offline: self.offline,
            policy: self.policy.read()?,
            watcher: cardshop_creator::Watcher::default(),
        };
        let stop = stop_flag();
        let recipe = read(&text, &options, &stop, output).with_context(|| shown.to_string())?;
        if self.check {
            let sizing =
                cardshop_creator::check(&recipe, &options, &stop).with_context(|| shown.to_string())?;
            tell_sizes(output, &sizing, self.max_size);
            sizing.check_room()?;
            return Ok(Ending::Done);
        }
        let bars = output.bars();
        let mut progress = output.progress(&bars, "image");
        let built = cardshop_creator::build(&recipe, &options, &stop, &mut |p| {
            progress.at(phase_name(p.phase), p.done, p.total);
        });
        let built = built.with_context(|| shown.to_string())?;
        progress.finish("done");
        let path = index_path(&built.image);
        std::fs::write(&path, built.index.encode())
            .with_context(|| format!("cannot write {}", path.display()))?;
        output.event(json!({"event": "built", "image": built.index.id(), "file": built.image, "index": path,
            "image_size": built.index.image_size(), "data_bytes": built.index.data_bytes(), "notes": built.notes}));
        for note in &built.notes {
            output.line(note);
        }
        let (file, all, data) = (built.image.display(), built.index.image_size(), built.index.data_bytes());
        output.line(format_args!(
            "{file}: image {}, {}, {} of it data",
            built.index.id(),
            size(all),
            size(data)
        ));
        Ok(Ending::Done)
    }
}

/// A recipe, or that of a configuration; what its catalogue does not have any more is told.
fn read(text: &str, options: &Options, stop: &StopFlag, output: &Output) -> Result<Recipe, BuildError> {
    let Some(configuration) = configuration::of_text(text)? else { return Ok(Recipe::from_text(text)?) };
    let converted = configuration::resolve(&configuration, options, stop)?;
    for gone in &converted.vanished {
        output.event(json!({"event": "vanished", "name": gone.wanted.name, "flavour": gone.wanted.flavour,
            "others": gone.others}));
        output.line(gone);
    }
    Ok(converted.recipe)
}

fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    PathBuf::from(name)
}

fn tell_sizes(output: &Output, sizing: &Sizing, media_bytes: Option<u64>) {
    for row in &sizing.rows {
        output.event(json!({"event": "size", "what": row.what, "bytes": row.bytes, "download_bytes": row.download_bytes}));
        output.line(format_args!(
            "{:>12}  {:>12} to download  {}",
            size(row.bytes),
            size(row.download_bytes),
            row.what
        ));
    }
    output.event(
        json!({"event": "sized", "image_size": sizing.image_bytes, "download_bytes": sizing.download_bytes}),
    );
    output.line(format_args!(
        "{:>12}  {:>12} to download  the whole image",
        size(sizing.image_bytes),
        size(sizing.download_bytes)
    ));
    if let Some(bytes) = media_bytes {
        output.line(format_args!("{:>12}  {:>12} {:<12} usable bytes of the media", size(bytes), "", ""));
    }
    for volume in &sizing.volumes {
        let (path, needed, free) = (&volume.path, volume.needed, volume.free);
        output.event(json!({"event": "volume", "path": path, "needed": needed, "free": free}));
        output.line(format_args!("{:>12}  {:>12} free         {}", size(needed), size(free), path.display()));
    }
}

fn phase_name(phase: CreationPhase) -> &'static str {
    match phase {
        CreationPhase::Downloading => "downloading",
        CreationPhase::Building => "building",
        CreationPhase::Indexing => "indexing",
        CreationPhase::Uploading => "uploading",
    }
}
