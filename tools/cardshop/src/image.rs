//! `cardshop index`, and the index files of the other commands.

use std::fs::File;
use std::path::{Path, PathBuf};

use anyhow::Context;
use cardshop_card::bmap::Bmap;
use cardshop_card::interlock::MAX_CARD_SIZE;
use cardshop_protocol::index::{ImageMap, Index};
use serde_json::json;

use crate::exit::{Ending, stop_flag};
use crate::input::Input;
use crate::report::{Output, size};
use crate::trust::TrustArgs;

/// Writes IMAGE.cardindex: what of the image is data, what must be zero, and the digest of each chunk.
///
/// Example: cardshop index school.img
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct IndexCommand {
    /// The image: a file, also .xz, .zst or .gz.
    image: PathBuf,
    /// Where to write the index [default: IMAGE.cardindex].
    #[arg(short, long)]
    output: Option<PathBuf>,
    /// Take the map of data from a bmap file; what it does not list is don't care.
    #[arg(long, value_name = "FILE")]
    from_bmap: Option<PathBuf>,
    /// Also write a bmap 2.0 file.
    #[arg(long, value_name = "FILE")]
    to_bmap: Option<PathBuf>,
    /// Bytes of a chunk, a power of two from 65536 to 4194304 [default: by the image's size].
    #[arg(long, value_name = "BYTES")]
    chunk_size: Option<u32>,
}

impl IndexCommand {
    pub(crate) fn run(self, output: &Output) -> anyhow::Result<Ending> {
        let input = Input::new(&self.image, &TrustArgs::default(), stop_flag())?;
        if !input.is_plain_file() {
            return self.run_packed(&input, output);
        }
        let map = self.from_bmap.as_deref().map(|path| map_of_bmap(path, &self.image)).transpose()?;
        let bars = output.bars();
        let mut progress = output.progress(&bars, "index");
        let index = cardshop_card::index_file(&self.image, map, self.chunk_size, &mut |done, total| {
            progress.at("digesting", done, total);
        })
        .with_context(|| format!("cannot index {}", self.image.display()))?;
        progress.finish("done");
        let path = self.output.unwrap_or_else(|| index_path(&self.image));
        std::fs::write(&path, index.encode()).with_context(|| format!("cannot write {}", path.display()))?;
        if let Some(path) = &self.to_bmap {
            let text = cardshop_card::bmap::write(&index, &File::open(&self.image)?)?;
            std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))?;
        }
        tell(output, &index, &path);
        Ok(Ending::Done)
    }
}

impl IndexCommand {
    /// What is unpacked on the way has no holes to map and cannot be read twice for a bmap.
    fn run_packed(self, input: &Input, output: &Output) -> anyhow::Result<Ending> {
        let needs_file = self.from_bmap.is_some() || self.to_bmap.is_some() || self.chunk_size.is_some();
        anyhow::ensure!(!needs_file, "bmaps and chunk sizes need the image unpacked: {}", input.name());
        let index = input.make_index(MAX_CARD_SIZE, output)?;
        let path = self.output.unwrap_or_else(|| index_path(&self.image));
        std::fs::write(&path, index.encode()).with_context(|| format!("cannot write {}", path.display()))?;
        tell(output, &index, &path);
        Ok(Ending::Done)
    }
}

/// The map a bmap gives, once the image proves to be the one it was made of.
fn map_of_bmap(path: &Path, image: &Path) -> anyhow::Result<ImageMap> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let bmap = Bmap::parse(&text).with_context(|| path.display().to_string())?;
    let file = File::open(image).with_context(|| format!("cannot read {}", image.display()))?;
    bmap.check_image(&file).with_context(|| format!("{} is not of {}", path.display(), image.display()))?;
    Ok(bmap.map())
}

/// `IMAGE.cardindex`.
pub(crate) fn index_path(image: &Path) -> PathBuf {
    let mut name = image.as_os_str().to_owned();
    name.push(".cardindex");
    PathBuf::from(name)
}

fn tell(output: &Output, index: &Index, path: &Path) {
    output.event(
        json!({"event": "indexed", "image": index.id(), "index": path, "image_size": index.image_size(),
        "data_bytes": index.data_bytes(), "zero_bytes": index.zero_bytes(), "chunks": index.chunks().len()}),
    );
    output.line(format_args!(
        "{}: image {}, {} of which {} are data and {} must be zero",
        path.display(),
        index.id(),
        size(index.image_size()),
        size(index.data_bytes()),
        size(index.zero_bytes())
    ));
}

/// Reads an index file; `path` is named in errors.
pub(crate) fn read_index(path: &Path) -> anyhow::Result<Index> {
    let bytes = std::fs::read(path)
        .with_context(|| format!("cannot read {}; `cardshop index IMAGE` makes an index", path.display()))?;
    Index::decode(&bytes).with_context(|| path.display().to_string())
}
