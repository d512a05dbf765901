//! What is written: an image file, a packed one, or an address of either; where its index is, and one source of
//! it for all cards of a run. Called by `cards` and `image`.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use cardshop_card::{FileSource, ImageStream, Packing, SharedSource, StopFlag, index_stream, unpack};
use cardshop_protocol::index::Index;
use nix::fcntl::{Flock, FlockArg};

use crate::image::{index_path, read_index};
use crate::remote::Remote;
use crate::report::Output;
use crate::trust::TrustArgs;

/// An image somebody named.
pub(crate) struct Input {
    place: Place,
    packing: Option<Packing>,
    stop: StopFlag,
}

enum Place {
    File(PathBuf),
    Url(Remote),
}

impl Input {
    /// Looks at the name, and at a file's first bytes.
    pub(crate) fn new(name: &Path, trust: &TrustArgs, stop: StopFlag) -> anyhow::Result<Self> {
        let text = name.to_string_lossy();
        if let Some((scheme, _)) = text.split_once("://") {
            anyhow::ensure!(
                matches!(scheme, "http" | "https"),
                "{scheme} is no way to an image: http and https are"
            );
            let remote = Remote::new(&text, trust.roots(None)?, stop.clone())?;
            let packing = Packing::of_name(Path::new(remote.name()));
            return Ok(Self { place: Place::Url(remote), packing, stop });
        }
        let ending = name.extension().unwrap_or_default().to_string_lossy().to_lowercase();
        anyhow::ensure!(
            !["bz2", "zip", "7z", "rar", "lz4"].contains(&&*ending),
            "{} is packed in a way that is not read here: unpack it first, or pack it as .xz, .zst or .gz",
            name.display()
        );
        let packing = Packing::of_name(name).or_else(|| {
            let mut first = [0; 6];
            let read = File::open(name).and_then(|mut file| file.read_exact(&mut first));
            read.ok().and_then(|()| Packing::of_bytes(&first))
        });
        Ok(Self { place: Place::File(name.to_owned()), packing, stop })
    }

    /// For people.
    pub(crate) fn name(&self) -> String {
        match &self.place {
            Place::File(path) => path.display().to_string(),
            Place::Url(remote) => remote.name().to_owned(),
        }
    }

    /// True when it is a plain file, which can be mapped.
    pub(crate) fn is_plain_file(&self) -> bool {
        matches!(self.place, Place::File(_)) && self.packing.is_none()
    }

    /// The index: the one given, else the one beside the image, else one made now. What is unpacked for that has
    /// at most `limit` bytes.
    pub(crate) fn index(&self, given: Option<&Path>, limit: u64, output: &Output) -> anyhow::Result<Index> {
        if let Some(path) = given {
            return read_index(path);
        }
        match &self.place {
            Place::File(path) => {
                // An index of the image is one of its packed form.
                let unpacked = self.packing.and(path.file_stem()).map(|stem| path.with_file_name(stem));
                let beside =
                    [Some(path.clone()), unpacked].into_iter().flatten().map(|path| index_path(&path));
                if let Some(path) = beside.into_iter().find(|path| path.exists()) {
                    return read_index(&path);
                }
            }
            Place::Url(remote) => {
                if let Some(index) = remote.index()? {
                    return Ok(index);
                }
            }
        }
        self.make_index(limit, output)
    }

    /// Makes the index in one pass over the image.
    pub(crate) fn make_index(&self, limit: u64, output: &Output) -> anyhow::Result<Index> {
        let bars = output.bars();
        let mut progress = output.progress(&bars, "index");
        let name = self.name();
        match &self.place {
            Place::File(path) if self.packing.is_none() => {
                cardshop_card::index_file(path, None, None, &mut |done, total| {
                    progress.at("digesting", done, total);
                })
            }
            _ => {
                let mut stream = self.stream(None)?;
                progress.rest("digesting");
                index_stream(&mut *stream, Path::new(&name), limit, &self.stop, &mut |_| ())
            }
        }
        .with_context(|| format!("cannot index {name}"))
    }

    /// One source for all cards.
    pub(crate) fn source(&self, index: &Arc<Index>) -> anyhow::Result<Arc<SharedSource>> {
        if let (Place::File(path), None) = (&self.place, self.packing) {
            let source =
                FileSource::open(path, index).with_context(|| format!("cannot read {}", path.display()))?;
            return Ok(SharedSource::of_chunks(index.clone(), Arc::new(source)));
        }
        let stream = self.stream(Some(index))?;
        Ok(SharedSource::of_stream(index.clone(), stream, Box::new(spill)))
    }

    fn stream(&self, index: Option<&Index>) -> anyhow::Result<Box<dyn ImageStream>> {
        let opened = match (&self.place, self.packing) {
            (Place::File(path), Some(packing)) => Locked::open(path).and_then(|file| unpack(packing, file)),
            (Place::File(path), None) => Locked::open(path).map(|file| Box::new(file) as _),
            (Place::Url(remote), Some(packing)) => unpack(packing, remote.stream(None)),
            (Place::Url(remote), None) => Ok(Box::new(remote.stream(index)) as _),
        };
        opened.with_context(|| format!("cannot read {}", self.name()))
    }
}

/// A file for what slow cards still need, that nobody else sees: in `TMPDIR`, else where large files may lie.
fn spill() -> io::Result<File> {
    let folder = std::env::var_os("TMPDIR").map_or_else(|| PathBuf::from("/var/tmp"), PathBuf::from);
    tempfile::tempfile_in(folder)
}

/// A file that cannot be claimed as a card while it is read.
struct Locked(Flock<File>);

impl Locked {
    fn open(path: &Path) -> io::Result<Self> {
        match Flock::lock(File::open(path)?, FlockArg::LockSharedNonblock) {
            Ok(file) => Ok(Self(file)),
            Err((_, nix::errno::Errno::EWOULDBLOCK)) => {
                Err(io::Error::other("the image is being written as a card"))
            }
            Err((_, errno)) => Err(errno.into()),
        }
    }
}

impl Read for Locked {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        (&*self.0).read(buffer)
    }
}

impl ImageStream for Locked {}
