//! Tar archives, entry by entry, from a stream that may be compressed.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, Read};
use std::rc::Rc;

use super::names::{inner_path, link_fault, xattr_fault};
use super::{Archive, Budget, Entry, Kind, UnpackError, Visit, decoder};
use crate::StopFlag;
use crate::recipe::Packing;
use crate::tree::{IMAGE_TIME, Meta, Xattr};

/// Headers, long names and padding between two contents, bytes: more is a bomb made of headers.
const MAX_HEADER_BYTES: u64 = 1024 * 1024;
/// Where tar keeps extended attributes. **Source:** the pax keywords of star, which GNU tar and bsdtar write too.
const XATTR_KEY: &str = "SCHILY.xattr.";

/// Lets a bounded number of bytes through, topped up by whoever walks the archive.
struct Allowance<R> {
    inner: R,
    left: Rc<Cell<u64>>,
}

impl<R: Read> Read for Allowance<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.left.get();
        if left == 0 {
            return Err(io::Error::other("more header bytes than any honest archive has"));
        }
        let most = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let count = self.inner.read(&mut buffer[..most])?;
        self.left.set(left - count as u64);
        Ok(count)
    }
}

pub(super) fn walk(
    archive: &Archive<'_>,
    packing: Packing,
    stop: &StopFlag,
    visit: &mut Visit<'_>,
) -> Result<(), UnpackError> {
    let file = File::open(archive.path).map_err(|e| archive.damaged(e))?;
    let inner = decoder(file, packing).map_err(|e| archive.damaged(e))?;
    let left = Rc::new(Cell::new(MAX_HEADER_BYTES));
    let mut tar = tar::Archive::new(Allowance { inner, left: left.clone() });
    let mut entries = tar.entries().map_err(|e| archive.damaged(e))?;
    let mut budget = Budget::new(archive);
    loop {
        if stop.is_stopped() {
            return Err(UnpackError::Stopped);
        }
        left.set(MAX_HEADER_BYTES);
        let Some(found) = entries.next() else { return Ok(()) };
        let mut found = found.map_err(|e| archive.damaged(e))?;
        budget.entry()?;
        let entry = check(archive, &mut found)?;
        let is_file = entry.kind == Kind::File;
        let size = if is_file { found.size() } else { 0 };
        budget.content(&entry.name, size)?;
        left.set(size.saturating_add(MAX_HEADER_BYTES));
        visit(&entry, size, is_file.then_some(&mut found as &mut dyn Read))?;
    }
}

/// What the entry is, or why it is refused.
fn check<R: Read>(archive: &Archive<'_>, found: &mut tar::Entry<'_, R>) -> Result<Entry, UnpackError> {
    let bytes = found.path_bytes().into_owned();
    let shown = String::from_utf8_lossy(&bytes).chars().take(200).collect::<String>();
    let name = String::from_utf8(bytes).map_err(|_| archive.entry(&shown, "is not named in UTF-8"))?;
    let path = inner_path(&name).map_err(|fault| archive.entry(&name, fault))?;
    let target = found.link_name_bytes().map(|t| String::from_utf8_lossy(&t).into_owned());
    let kind = match found.header().entry_type() {
        t if t.is_file() || t.is_contiguous() || t.is_gnu_sparse() => Kind::File,
        t if t.is_dir() => Kind::Folder,
        t if t.is_symlink() => {
            let target = target.unwrap_or_default();
            link_fault(&path, &target).map_or(Ok(()), |f| Err(archive.entry(&name, f)))?;
            Kind::Link(target)
        }
        t if t.is_hard_link() => {
            Kind::Same(inner_path(&target.unwrap_or_default()).map_err(|f| archive.entry(&name, f))?)
        }
        t if t.is_block_special() || t.is_character_special() => {
            return Err(archive.entry(&name, "is a device"));
        }
        t if t.is_fifo() => return Err(archive.entry(&name, "is a pipe")),
        t => return Err(archive.entry(&name, format!("is of unknown kind {:?}", char::from(t.as_byte())))),
    };
    let header = found.header();
    let meta = Meta {
        mode: header.mode().unwrap_or(0o644) & 0o7777,
        // Ids that the field cannot hold come from damaged headers: they become root's.
        uid: header.uid().ok().and_then(|id| u32::try_from(id).ok()).unwrap_or(0),
        gid: header.gid().ok().and_then(|id| u32::try_from(id).ok()).unwrap_or(0),
        mtime: header.mtime().ok().filter(|t| *t < 1 << 32).unwrap_or(IMAGE_TIME),
    };
    // The reader ends a record at the first line break, whatever length the record says.
    let unreadable =
        |_| archive.entry(&name, "has pax records with a line break in a value, or damaged ones");
    let xattrs = xattrs(found).map_err(unreadable)?;
    xattr_fault(&xattrs).map_or(Ok(()), |fault| Err(archive.entry(&name, fault)))?;
    Ok(Entry { name, path, kind, meta, xattrs })
}

fn xattrs<R: Read>(found: &mut tar::Entry<'_, R>) -> io::Result<Vec<Xattr>> {
    let mut xattrs = Vec::new();
    for extension in found.pax_extensions()?.into_iter().flatten() {
        let extension = extension?;
        if let Some(name) = extension.key().ok().and_then(|key| key.strip_prefix(XATTR_KEY)) {
            xattrs.push((name.to_owned(), extension.value_bytes().to_vec()));
        }
    }
    // One name, one value: the last counts, as tar has it. In order, whatever the archive's order.
    xattrs.reverse();
    xattrs.sort_by(|a, b| a.0.cmp(&b.0));
    xattrs.dedup_by(|a, b| a.0 == b.0);
    Ok(xattrs)
}
