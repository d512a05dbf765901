//! The first half of a build: every item of the recipe becomes a file of this machine, and the files a tree.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use cardshop_protocol::api::CreationPhase;

use super::{BuildError, Builder, Progress};
use ureq::tls::RootCerts;

use crate::StopFlag;
use crate::cache::{Cache, Held};
use crate::fetch::{self, FetchError, Fetcher, Remote, Wanted};
use crate::http::Client;
use crate::oci::manifest::Blob;
use crate::oci::registry::Registry;
use crate::parallel;
use crate::recipe::{Content, FileEntry, Source, Via};
use crate::sizing::{Item, Place};
use crate::tree::{Meta, Node, Tree};
use crate::unpack::{Archive, Staging};

/// What a packed item may have beyond twice its contents, bytes: headers of half a million entries.
const PACKING_OVERHEAD: u64 = 1 << 30;

/// A file of this machine with the bytes of an item; of the cache, it stays as long as this does.
pub(super) struct Got {
    pub path: PathBuf,
    _held: Option<Held>,
}

impl Got {
    fn size(&self) -> u64 {
        self.path.metadata().map_or(0, |m| m.len())
    }
}

/// Every item's file; inline content has none.
pub(super) struct Downloads {
    pub base: Option<Got>,
    pub files: Vec<Option<Got>>,
    /// Of each container image its blobs.
    pub images: Vec<Vec<Got>>,
}

/// Something that has a file, and how far it is here.
struct Job<'a> {
    wanted: What<'a>,
    done: AtomicU64,
}

enum What<'a> {
    /// With its size, where that is more than a limit.
    Item(&'a Item, &'a Source, Option<u64>),
    Blob(&'a Blob, &'a Registry<'a>),
}

impl Builder<'_> {
    pub(super) fn download(&mut self) -> Result<Downloads, BuildError> {
        // The first that fails ends the others.
        let inner = StopFlag::new();
        let client = Client::new(&inner, RootCerts::WebPki);
        let (backoff, offline) = (self.options.backoff, self.options.offline);
        let cache = Cache { folder: &self.options.cache };
        let fetcher = Fetcher { client: &client, cache, backoff, stop: &inner, offline };
        let images = &self.sizing.images;
        let registries: Vec<_> = images.iter().map(|image| Registry::new(&fetcher, &image.name)).collect();
        let job = |wanted| Job { wanted, done: AtomicU64::new(0) };
        let base = self.recipe.base.as_ref().zip(self.sizing.base.as_ref());
        let mut jobs: Vec<_> =
            base.map(|(base, item)| job(What::Item(item, &base.source, None))).into_iter().collect();
        for (entry, item) in self.recipe.files.iter().zip(&self.sizing.items) {
            let said = (entry.via == Via::Direct).then_some(item.bytes);
            if let Content::At(source) = &entry.content {
                jobs.push(job(What::Item(item, source, said)));
            }
        }
        for (image, registry) in images.iter().zip(&registries) {
            jobs.extend(image.manifest.blobs().into_iter().map(|blob| job(What::Blob(blob, registry))));
        }
        let total = self.sizing.download_bytes;
        let progress = &mut *self.progress;
        let mut look = || {
            let done: u64 = jobs.iter().map(|j| j.done.load(Ordering::Relaxed)).sum();
            progress(Progress { phase: CreationPhase::Downloading, done: done.min(total), total });
        };
        look();
        let watcher = &self.options.watcher;
        let obtain = |n: usize| {
            let job: &Job<'_> = &jobs[n];
            let got = job.obtain(&fetcher);
            match &got {
                Ok(got) => watcher.line(format_args!("{}: here, {} bytes", job.name(), got.size())),
                Err(error) => watcher.line(format_args!("{}: {error}", job.name())),
            }
            got
        };
        let got = parallel::each(jobs.len(), self.stop, &inner, &mut look, &obtain)?;
        let mut got = got.into_iter();
        let base = base.and_then(|_| got.next());
        let has_file = |entry: &FileEntry| matches!(entry.content, Content::At(_));
        let files = self.recipe.files.iter();
        let files = files.map(|entry| if has_file(entry) { got.next() } else { None }).collect();
        let images = images.iter().map(|i| got.by_ref().take(i.manifest.blobs().len()).collect()).collect();
        Ok(Downloads { base, files, images })
    }

    /// Everything that goes to the data partition, archives unpacked into the scratch folder.
    pub(super) fn tree(&mut self, files: &[Option<Got>], images: &[Vec<Got>]) -> Result<Tree, BuildError> {
        let folder = self.scratch.join("unpacked");
        fs::create_dir(&folder)?;
        let (mut tree, mut staging) = (Tree::default(), Staging::new(folder));
        let entries = self.recipe.files.iter().zip(&self.sizing.items).zip(files);
        for ((entry, item), path) in entries {
            if self.stop.is_stopped() {
                return Err(BuildError::Stopped);
            }
            self.place(entry, item, path.as_ref().map(|got| got.path.as_path()), &mut tree, &mut staging)?;
        }
        for ((image, pulled), blobs) in self.recipe.images.iter().zip(&self.sizing.images).zip(images) {
            let paths: Vec<&Path> = blobs.iter().map(|blob| blob.path.as_path()).collect();
            let written = pulled.write(&paths, staging.next(), self.stop)?;
            let source = written.ok_or(BuildError::Stopped)?;
            let size = pulled.archive_bytes();
            tree.put(&image.to, Node::File { source, size }, Meta::FILE)?;
        }
        let (needed, entries, shape) = (tree.bytes(), tree.count(), self.sizing.data);
        if !shape.holds(needed, entries) {
            return Err(BuildError::ContentLarger { needed, entries, sized: shape.content_bytes });
        }
        Ok(tree)
    }

    fn place(
        &mut self,
        entry: &FileEntry,
        item: &Item,
        path: Option<&Path>,
        tree: &mut Tree,
        staging: &mut Staging,
    ) -> Result<(), BuildError> {
        let file = |source, size| Node::File { source, size };
        match (&entry.content, path, entry.via) {
            (Content::Inline(bytes), ..) => {
                if let Some(checksum) = &item.checksum {
                    let mut hasher = checksum.hasher();
                    hasher.update(bytes);
                    checksum.compare(hasher).map_err(|actual| FetchError::ChecksumDiffers {
                        what: format!("/data{}", entry.to),
                        expected: checksum.to_string(),
                        actual,
                    })?;
                }
                let source = staging.next();
                fs::write(&source, bytes)?;
                tree.put(&entry.to, file(source, item.bytes), Meta::FILE)?;
            }
            (Content::At(_), Some(path), Via::Direct) => {
                tree.put(&entry.to, file(path.to_owned(), item.bytes), Meta::FILE)?;
            }
            (Content::At(source), Some(path), Via::Archive(form)) => {
                let (name, limit, stop) = (source.shown(), item.bytes, self.stop);
                let archive = Archive { name: &name, path, form, limit };
                let progress = &mut *self.progress;
                archive.unpack(&entry.to, tree, staging, stop, &mut |done| {
                    progress(Progress { phase: CreationPhase::Building, done, total: limit });
                })?;
            }
            (Content::At(_), None, _) => return Err(io::Error::other("content was not obtained").into()),
        }
        Ok(())
    }
}

impl Job<'_> {
    fn obtain(&self, fetcher: &Fetcher<'_>) -> Result<Got, BuildError> {
        match &self.wanted {
            What::Item(item, source, said) => self.item(item, source, *said, fetcher),
            What::Blob(blob, registry) => self.blob(blob, registry, fetcher),
        }
    }

    /// For people.
    fn name(&self) -> String {
        match &self.wanted {
            What::Item(_, source, _) => source.shown(),
            What::Blob(blob, _) => blob.digest.to_string(),
        }
    }

    fn note(&self, done: u64) {
        self.done.store(done, Ordering::Relaxed);
    }

    fn blob(&self, blob: &Blob, registry: &Registry<'_>, fetcher: &Fetcher<'_>) -> Result<Got, BuildError> {
        let url = registry.blob_url(&blob.digest);
        // What is here already is not part of what was to be downloaded.
        let counts = fetcher.cached(&url, Some(&blob.digest)).is_none();
        let held = registry.with_token(|headers| {
            let remote = Remote { size: Some(blob.size), validator: None };
            let wanted = Wanted { url: &url, checksum: Some(&blob.digest), remote, most: blob.size, headers };
            fetcher.fetch(&wanted, &mut |done| self.note(if counts { done } else { 0 }))
        })?;
        Ok(Got { path: held.path.clone(), _held: Some(held) })
    }

    fn item(
        &self,
        item: &Item,
        source: &Source,
        said: Option<u64>,
        fetcher: &Fetcher<'_>,
    ) -> Result<Got, BuildError> {
        let checksum = item.checksum.as_ref();
        let got = match &item.place {
            Place::Inline => return Err(io::Error::other("inline content has no file").into()),
            Place::Remote { url, remote, cached } => {
                let remote = Remote { size: remote.size.or(said), validator: remote.validator.clone() };
                let most = item.bytes.saturating_mul(2).saturating_add(PACKING_OVERHEAD);
                let wanted = Wanted { url, checksum, remote, most, headers: &[] };
                let counts = cached.is_none();
                let held = fetcher.fetch(&wanted, &mut |done| self.note(if counts { done } else { 0 }))?;
                Got { path: held.path.clone(), _held: Some(held) }
            }
            Place::Local(path) => {
                if let Some(checksum) = checksum {
                    let mut file =
                        File::open(path).map_err(|e| BuildError::File { path: path.clone(), source: e })?;
                    fetch::verify(&mut file, path, &source.shown(), checksum, fetcher.stop)?;
                }
                Got { path: path.clone(), _held: None }
            }
        };
        if let Some(expected) = said {
            let file_error = |source| BuildError::File { path: got.path.clone(), source };
            let actual = got.path.metadata().map_err(file_error)?.len();
            if actual != expected {
                return Err(FetchError::SizeDiffers { url: source.shown(), expected, actual }.into());
            }
        }
        Ok(got)
    }
}
