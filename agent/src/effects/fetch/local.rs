//! Chunks that need not travel: those of older images in the cache, and those on a disk brought by hand. They are
//! claimed before a connection can ask for them, copied by a thread of their own, and checked like all others;
//! what does not match is given back and fetched.

use std::fs::File;
use std::os::unix::fs::FileExt;

use cardshop_protocol::ids::ImageId;
use cardshop_protocol::index::Index;

use super::image::{Fetch, LOOK_AGAIN};
use crate::core::reuse::{Copy, Older, plan};
use crate::effects::store::ImageStore;

/// Older images that are looked at: each costs reading its index, and the newest few have most of what stayed.
const MAX_OLDER: usize = 8;

/// What is to be copied, and from where.
pub(super) struct Copies {
    /// Of the disk, when it was looked at.
    generation: u64,
    list: Vec<Copy>,
    files: Vec<(Index, File)>,
}

impl Fetch {
    /// Finds what is here in other files and takes it for [`Fetch::copy_local`].
    pub(super) fn claim_local(&self, store: &ImageStore) -> Copies {
        let generation = self.shared.disk.generation();
        let (mut older, mut files) = (Vec::new(), Vec::new());
        for (image, file) in self.cached().into_iter().chain(self.on_disk()) {
            files.push((image.index.clone(), file));
            older.push(image);
        }
        let mut list = plan(store.index(), &store.bitmap(), &older);
        list.retain(|copy| store.claim(copy.chunk));
        if !list.is_empty() {
            tracing::info!(image = %self.image, chunks = list.len(), "chunks are here already and need not travel");
        }
        Copies { generation, list, files }
    }

    /// Older images in the cache, with what is on record of each.
    fn cached(&self) -> Vec<(Older, File)> {
        let cache = &self.shared.cache;
        let open = |image: ImageId| {
            let index = Index::decode(&std::fs::read(cache.path(image, "cardindex")).ok()?).ok()?;
            let have = std::fs::read(cache.path(image, "have")).ok()?;
            Some((Older { index, have }, cache.read_image(image).ok()?))
        };
        cache.others(self.image).into_iter().take(MAX_OLDER).filter_map(open).collect()
    }

    /// This image on the disk, and older ones there.
    fn on_disk(&self) -> Vec<(Older, File)> {
        let disk = &self.shared.disk;
        let mut images = disk.images();
        images.sort_by_key(|image| *image != self.image);
        let open = |image: ImageId| {
            let index = disk.index(image)?;
            let have = vec![0xff; index.chunks().len().div_ceil(8)];
            Some((Older { index, have }, disk.image(image).ok()?))
        };
        images.into_iter().take(MAX_OLDER).filter_map(open).collect()
    }

    /// Copies what was claimed, and again whenever a disk comes, until the store ends.
    pub(super) fn copy_local(&self, store: &ImageStore, mut copies: Copies) {
        while store.is_open() {
            self.copy(store, &copies);
            // Files are closed before the wait: a disk may be on its way out.
            copies = Copies { list: Vec::new(), files: Vec::new(), ..copies };
            while store.is_open() && self.shared.disk.generation() == copies.generation {
                store.wait_for_end(LOOK_AGAIN);
            }
            if store.is_open() {
                copies = self.claim_local(store);
            }
        }
    }

    fn copy(&self, store: &ImageStore, copies: &Copies) {
        let mut buffer = vec![0; store.index().chunk_size() as usize];
        for copy in &copies.list {
            let (index, file) = &copies.files[copy.from];
            let good = store.is_open() && !self.shared.cache.is_tight() && {
                let range = index.chunk_range(copy.from_chunk);
                let bytes = &mut buffer[..(range.end - range.start) as usize];
                read_listed(index, file, copy.from_chunk, bytes)
                    .and_then(|()| store.put(copy.chunk, bytes))
                    .unwrap_or_else(|error| {
                        tracing::debug!(%error, chunk = copy.chunk, "a chunk cannot be copied");
                        false
                    })
            };
            if !good {
                store.give_back(copy.chunk..copy.chunk + 1);
            }
        }
    }
}

/// Reads a chunk with what its index does not list as zeros: the digest says nothing else of those bytes.
fn read_listed(index: &Index, file: &File, chunk: usize, bytes: &mut [u8]) -> std::io::Result<()> {
    let range = index.chunk_range(chunk);
    bytes.fill(0);
    for extent in index.extents_in(range.clone()) {
        let from = (extent.offset - range.start) as usize;
        file.read_exact_at(&mut bytes[from..from + extent.length as usize], extent.offset)?;
    }
    Ok(())
}
