//! Chunks that an image has in common with others are stored once: before it appears, its file is told to share the
//! blocks of equal chunks with images that are here, where the file system can (XFS, btrfs). An image stays one file,
//! so ranges are served as fast as ever, a removed image frees exactly what nobody shares, and there is no third
//! thing that a crash could leave.
//!
//! The kernel compares the bytes before it shares them (FIDEDUPERANGE), so that a disk that rots under one image does
//! not spoil another.

// One ioctl that no crate wraps.
#![allow(unsafe_code)]

use std::collections::HashMap;
use std::fs::File;
use std::os::fd::AsRawFd;

use cardshop_protocol::ids::Digest;
use cardshop_protocol::index::Index;
use nix::errno::Errno;

use super::Store;
use super::error::StoreError;

/// Images that are looked at, the newest: a rebuild has most in common with the last builds. Each costs reading its
/// index, 40 bytes a chunk.
const MAX_DONORS: usize = 8;
/// Bytes compared by one call. **Source:** ioctl_fideduperange(2): 16 MiB on most file systems.
const MAX_CALL: u64 = 16 * 1024 * 1024;

/// **Source:** linux/fs.h `struct file_dedupe_range` with one `file_dedupe_range_info`.
#[repr(C)]
pub(super) struct DedupeRange {
    src_offset: u64,
    src_length: u64,
    dest_count: u16,
    reserved1: u16,
    reserved2: u32,
    dest_fd: i64,
    dest_offset: u64,
    bytes_deduped: u64,
    status: i32,
    reserved3: u32,
}

nix::ioctl_readwrite_bad!(fideduperange, nix::request_code_readwrite!(0x94, 54, 24), DedupeRange);

/// A run of chunks that lies in another image too.
#[derive(Clone, Copy)]
struct Run {
    donor: usize,
    from: u64,
    to: u64,
    length: u64,
}

impl Store {
    /// Shares what `image`, sealed and described by `index`, has in common with images that are here; bytes shared.
    /// A file system that cannot is no error.
    pub(super) fn share(&self, image: &File, index: &Index) -> Result<u64, StoreError> {
        let mut others = self.images(None);
        others.retain(|other| other.id != index.id());
        others.sort_by_key(|other| std::cmp::Reverse(other.created));
        let (mut files, mut places) = (Vec::new(), HashMap::<Digest, (usize, u64)>::new());
        for other in others.iter().take(MAX_DONORS) {
            let (file, known) = (self.open_file(&self.image_path(other.id))?, self.stored_index(other.id)?);
            let (Some((file, _)), Some(known)) = (file, known) else { continue };
            if known.chunk_size() != index.chunk_size() {
                continue;
            }
            for number in known.travelling() {
                let start = known.chunk_range(number).start;
                places.entry(known.chunks()[number].digest).or_insert((files.len(), start));
            }
            files.push(file);
        }
        let mut shared = 0;
        for run in runs(index, &places) {
            match dedupe(&files[run.donor], image, run) {
                Ok(bytes) => shared += bytes,
                // The first says what holds for all; the image is whole without it.
                Err(errno) => {
                    tracing::debug!(%errno, "this file system does not share chunks");
                    break;
                }
            }
        }
        if shared > 0 {
            tracing::info!(image = %index.id(), shared, "chunks are shared with images that are here");
        }
        Ok(shared)
    }
}

/// Neighbouring chunks that are neighbours in the donor too, up to what one call takes. A shorter last chunk is left
/// out: blocks are shared whole.
fn runs(index: &Index, places: &HashMap<Digest, (usize, u64)>) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for (number, chunk) in index.chunks().iter().enumerate() {
        let range = index.chunk_range(number);
        let length = range.end - range.start;
        let Some((donor, from)) = places.get(&chunk.digest).copied() else { continue };
        if length != u64::from(index.chunk_size()) {
            continue;
        }
        match runs.last_mut() {
            Some(run)
                if run.donor == donor
                    && run.to + run.length == range.start
                    && run.from + run.length == from
                    && run.length + length <= MAX_CALL =>
            {
                run.length += length;
            }
            _ => runs.push(Run { donor, from, to: range.start, length }),
        }
    }
    runs
}

/// Bytes shared; fewer than asked for when the kernel found a difference.
fn dedupe(donor: &File, image: &File, run: Run) -> Result<u64, Errno> {
    let mut done = 0;
    while done < run.length {
        let mut range = DedupeRange {
            src_offset: run.from + done,
            src_length: run.length - done,
            dest_count: 1,
            reserved1: 0,
            reserved2: 0,
            dest_fd: image.as_raw_fd().into(),
            dest_offset: run.to + done,
            bytes_deduped: 0,
            status: 0,
            reserved3: 0,
        };
        // SAFETY: the structure is the kernel's, with the one destination it announces; both files outlive the call,
        // and the kernel changes no byte of either, only where equal ones are kept.
        unsafe { fideduperange(donor.as_raw_fd(), &mut range) }?;
        match range.status {
            0 if range.bytes_deduped > 0 => done += range.bytes_deduped,
            status if status < 0 => return Err(Errno::from_raw(-status)),
            _ => return Ok(done),
        }
    }
    Ok(done)
}
