//! The first half of a build: every item of the recipe becomes a file of this machine, and the files a tree.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use cardshop_protocol::api::CreationPhase;

use super::{BuildError, Builder, Progress};
use ureq::tls::RootCerts;

use crate::digest::Checksum;
use crate::fetch::{self, FetchError, Fetcher, Remote, Wanted};
use crate::http::Client;
use crate::recipe::{Content, FileEntry, Source, Via};
use crate::sizing::{Item, Place};
use crate::tree::{Meta, Node, Tree};
use crate::unpack::{Archive, Staging};

/// What a packed item may have beyond twice its contents, bytes: headers of half a million entries.
const PACKING_OVERHEAD: u64 = 1 << 30;

impl Builder<'_> {
    /// Every item's file; inline content has none.
    pub(super) fn download(&mut self) -> Result<(Option<PathBuf>, Vec<Option<PathBuf>>), BuildError> {
        let client = Client::new(self.stop, RootCerts::WebPki);
        let (cache, backoff, stop) = (&self.options.cache, self.options.backoff, self.stop);
        let fetcher = Fetcher { client: &client, folder: cache, backoff, stop };
        let total = self.sizing.download_bytes;
        self.report(CreationPhase::Downloading, 0, total);
        let mut before = 0;
        let base = match (&self.recipe.base, &self.sizing.base) {
            (Some(base), Some(item)) => {
                let wanted = Some((&base.source, base.checksum.as_ref(), None));
                self.obtain(&fetcher, item, wanted, &mut before)?
            }
            _ => None,
        };
        let mut files = Vec::new();
        for (entry, item) in self.recipe.files.iter().zip(&self.sizing.items) {
            let said = (entry.via == Via::Direct).then_some(item.bytes);
            let wanted = match &entry.content {
                Content::At(source) => Some((source, entry.checksum.as_ref(), said)),
                Content::Inline(_) => None,
            };
            files.push(self.obtain(&fetcher, item, wanted, &mut before)?);
        }
        Ok((base, files))
    }

    fn obtain(
        &mut self,
        fetcher: &Fetcher<'_>,
        item: &Item,
        wanted: Option<(&Source, Option<&Checksum>, Option<u64>)>,
        before: &mut u64,
    ) -> Result<Option<PathBuf>, BuildError> {
        let Some((source, checksum, said)) = wanted else { return Ok(None) };
        let path = match &item.place {
            Place::Inline => return Ok(None),
            Place::Remote { url, remote } => {
                let total = self.sizing.download_bytes;
                let remote = Remote { size: remote.size.or(said), validator: remote.validator.clone() };
                let add = remote.size.unwrap_or(0);
                let start = *before;
                let most = item.bytes.saturating_mul(2).saturating_add(PACKING_OVERHEAD);
                let wanted = Wanted { url, checksum, remote, most };
                let progress = &mut *self.progress;
                let path = fetcher.fetch(&wanted, &mut |done| {
                    let done = (start + done).min(total);
                    progress(Progress { phase: CreationPhase::Downloading, done, total });
                })?;
                *before += add;
                path
            }
            Place::Local(path) => {
                // What the cache holds was verified when it came.
                if let (Source::File(_), Some(checksum)) = (source, checksum) {
                    let mut file =
                        File::open(path).map_err(|e| BuildError::File { path: path.clone(), source: e })?;
                    fetch::verify(&mut file, path, &source.shown(), checksum, self.stop)?;
                }
                path.clone()
            }
        };
        if let Some(expected) = said {
            let actual =
                path.metadata().map_err(|e| BuildError::File { path: path.clone(), source: e })?.len();
            if actual != expected {
                return Err(FetchError::SizeDiffers { url: source.shown(), expected, actual }.into());
            }
        }
        Ok(Some(path))
    }

    /// Everything that goes to the data partition, archives unpacked into the scratch folder.
    pub(super) fn tree(&mut self, files: &[Option<PathBuf>]) -> Result<Tree, BuildError> {
        let folder = self.scratch.join("unpacked");
        fs::create_dir(&folder)?;
        let (mut tree, mut staging) = (Tree::default(), Staging::new(folder));
        let entries = self.recipe.files.iter().zip(&self.sizing.items).zip(files);
        for ((entry, item), path) in entries {
            if self.stop.is_stopped() {
                return Err(BuildError::Stopped);
            }
            self.place(entry, item, path.as_deref(), &mut tree, &mut staging)?;
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
                if let Some(checksum) = &entry.checksum {
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
            (Content::At(source), Some(path), Via::Tar(packing)) => {
                let (name, limit, stop) = (source.shown(), item.bytes, self.stop);
                let archive = Archive { name: &name, path, packing, limit };
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
