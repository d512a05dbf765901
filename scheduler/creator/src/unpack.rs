//! Compressed streams and tar archives. Archives are hostile: names only ever become paths of the data
//! partition in a [`Tree`], contents go to numbered files in a folder of ours, and sizes are held to what the
//! recipe allows. What is refused, is refused with the entry's name.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use liblzma::stream::{CONCATENATED, Stream};

use crate::StopFlag;
use crate::recipe::Packing;
use crate::tree::{BLOCK_SIZE, IMAGE_TIME, Meta, Node, Tree, TreeError, file_bytes};

/// Most entries of one archive; each takes about 300 bytes of memory.
pub(crate) const MAX_ENTRIES: u64 = 500_000;
/// Headers, long names and padding between two contents, bytes: more is a bomb made of headers.
const MAX_HEADER_BYTES: u64 = 1024 * 1024;
/// Memory an xz stream may ask for, bytes: `xz -9` needs 65 MiB.
const XZ_MEMORY: u64 = 512 * 1024 * 1024;
const BUFFER_SIZE: usize = 256 * 1024;

/// Why an archive is refused.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// Not what it should be, or cut short.
    #[error("{archive}: cannot be unpacked")]
    Damaged {
        /// Which.
        archive: String,
        /// Where the reader stumbled.
        #[source]
        source: io::Error,
    },
    /// An entry that a content archive has no business with.
    #[error("{archive}: entry {entry:?} {fault}")]
    Entry {
        /// Which archive.
        archive: String,
        /// Its name.
        entry: String,
        /// What is wrong with it.
        fault: String,
    },
    /// More than the recipe allows.
    #[error("{archive}: unpacks to more than the {limit} bytes its `size` allows, at entry {entry:?}")]
    TooLarge {
        /// Which.
        archive: String,
        /// The recipe's `size`.
        limit: u64,
        /// Where the limit was passed.
        entry: String,
    },
    /// Above the limit its text names.
    #[error("{archive}: more than {MAX_ENTRIES} entries")]
    TooManyEntries {
        /// Which.
        archive: String,
    },
    /// A file of ours.
    #[error("{}: cannot be written", path.display())]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The stop flag was raised.
    #[error("stopped")]
    Stopped,
}

/// A reader of what `file` holds unpacked.
pub(crate) fn decoder(file: File, packing: Packing) -> io::Result<Box<dyn Read>> {
    Ok(match packing {
        Packing::None => Box::new(file),
        Packing::Gzip => Box::new(flate2::read::MultiGzDecoder::new(file)),
        Packing::Xz => {
            let stream = Stream::new_stream_decoder(XZ_MEMORY, CONCATENATED)?;
            Box::new(liblzma::read::XzDecoder::new_stream(file, stream))
        }
        Packing::Zstd => Box::new(zstd::stream::read::Decoder::new(file)?),
    })
}

/// What an archive takes, counted without writing anything.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    /// Bytes of contents.
    pub bytes: u64,
    /// Bytes of the blocks they and the folders take.
    pub block_bytes: u64,
    pub entries: u64,
}

/// A tar archive to unpack.
pub(crate) struct Archive<'a> {
    /// For people.
    pub name: &'a str,
    pub path: &'a Path,
    pub packing: Packing,
    /// Most bytes its contents may have.
    pub limit: u64,
}

/// A folder of numbered files that hold contents until they are copied into the image.
pub(crate) struct Staging {
    folder: PathBuf,
    count: u64,
}

impl Staging {
    pub(crate) fn new(folder: PathBuf) -> Self {
        Self { folder, count: 0 }
    }
    pub(crate) fn next(&mut self) -> PathBuf {
        self.count += 1;
        self.folder.join(format!("{:06}", self.count))
    }
}

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

impl Archive<'_> {
    /// Counts what the archive takes.
    pub(crate) fn tally(&self, stop: &StopFlag) -> Result<Tally, UnpackError> {
        let mut tally = Tally::default();
        self.walk(stop, &mut |_, size, content| {
            tally.entries += 1;
            tally.bytes += size;
            tally.block_bytes += if content.is_some() { file_bytes(size) } else { BLOCK_SIZE };
            match content {
                Some(reader) => self.read(reader, stop, &mut |_| Ok(())),
                None => Ok(()),
            }
        })?;
        Ok(tally)
    }

    /// Puts everything below `to` into `tree`, contents into `staging`; `progress` hears content bytes.
    pub(crate) fn unpack(
        &self,
        to: &str,
        tree: &mut Tree,
        staging: &mut Staging,
        stop: &StopFlag,
        progress: &mut dyn FnMut(u64),
    ) -> Result<(), UnpackError> {
        let mut done = 0;
        self.walk(stop, &mut |entry, size, content| {
            let path = format!("{to}{}", entry.path);
            let node = match (&entry.kind, content) {
                (Kind::Folder, _) if path.is_empty() => return Ok(()),
                (Kind::Folder, _) => Node::Folder,
                (Kind::Link(target), _) => Node::Link { target: target.clone() },
                (Kind::Same(other), _) => match tree.file(&format!("{to}{other}")) {
                    Some(of) => Node::Same { of: of.to_owned() },
                    None => {
                        return Err(self.entry(&entry.name, "is a hard link to a file that is not before it"));
                    }
                },
                (Kind::File, None) => return Err(self.entry(&entry.name, "has no content")),
                (Kind::File, Some(reader)) => {
                    let source = staging.next();
                    self.store(reader, &source, stop)?;
                    Node::File { source, size }
                }
            };
            done += size;
            progress(done);
            tree.put(&path, node, entry.meta).map_err(|e: TreeError| self.entry(&entry.name, e.fault))
        })
    }

    fn store(&self, reader: &mut dyn Read, path: &Path, stop: &StopFlag) -> Result<(), UnpackError> {
        let write_error = |source| UnpackError::Write { path: path.to_owned(), source };
        let mut file = File::create_new(path).map_err(write_error)?;
        self.read(reader, stop, &mut |bytes| file.write_all(bytes).map_err(write_error))
    }

    fn read(
        &self,
        reader: &mut dyn Read,
        stop: &StopFlag,
        take: &mut dyn FnMut(&[u8]) -> Result<(), UnpackError>,
    ) -> Result<(), UnpackError> {
        let mut buffer = vec![0; BUFFER_SIZE];
        loop {
            if stop.is_stopped() {
                return Err(UnpackError::Stopped);
            }
            match reader.read(&mut buffer).map_err(|e| self.damaged(e))? {
                0 => return Ok(()),
                count => take(&buffer[..count])?,
            }
        }
    }

    fn damaged(&self, source: io::Error) -> UnpackError {
        UnpackError::Damaged { archive: self.name.to_owned(), source }
    }

    fn entry(&self, entry: &str, fault: impl Into<String>) -> UnpackError {
        UnpackError::Entry { archive: self.name.to_owned(), entry: entry.to_owned(), fault: fault.into() }
    }

    /// Calls `visit` with every entry that passes, its size, and its content if it is a file.
    fn walk(&self, stop: &StopFlag, visit: &mut Visit<'_>) -> Result<(), UnpackError> {
        let file = File::open(self.path).map_err(|e| self.damaged(e))?;
        let inner = decoder(file, self.packing).map_err(|e| self.damaged(e))?;
        let left = Rc::new(Cell::new(MAX_HEADER_BYTES));
        let mut archive = tar::Archive::new(Allowance { inner, left: left.clone() });
        let mut entries = archive.entries().map_err(|e| self.damaged(e))?;
        let (mut total, mut count) = (0_u64, 0_u64);
        loop {
            if stop.is_stopped() {
                return Err(UnpackError::Stopped);
            }
            left.set(MAX_HEADER_BYTES);
            let Some(found) = entries.next() else { return Ok(()) };
            let mut found = found.map_err(|e| self.damaged(e))?;
            count += 1;
            if count > MAX_ENTRIES {
                return Err(UnpackError::TooManyEntries { archive: self.name.to_owned() });
            }
            let entry = self.check(&mut found)?;
            let size = if entry.kind == Kind::File { found.size() } else { 0 };
            total = total.saturating_add(size);
            if total > self.limit {
                let (archive, limit) = (self.name.to_owned(), self.limit);
                return Err(UnpackError::TooLarge { archive, limit, entry: entry.name });
            }
            left.set(size.saturating_add(MAX_HEADER_BYTES));
            let is_file = entry.kind == Kind::File;
            visit(&entry, size, is_file.then_some(&mut found as &mut dyn Read))?;
        }
    }

    /// What the entry is, or why it is refused.
    fn check<R: Read>(&self, found: &mut tar::Entry<'_, R>) -> Result<Entry, UnpackError> {
        let bytes = found.path_bytes().into_owned();
        let shown = String::from_utf8_lossy(&bytes).chars().take(200).collect::<String>();
        let name = String::from_utf8(bytes).map_err(|_| self.entry(&shown, "is not named in UTF-8"))?;
        let path = inner_path(&name).map_err(|fault| self.entry(&name, fault))?;
        let target = found.link_name_bytes().map(|t| String::from_utf8_lossy(&t).into_owned());
        let kind = match found.header().entry_type() {
            t if t.is_file() || t.is_contiguous() || t.is_gnu_sparse() => Kind::File,
            t if t.is_dir() => Kind::Folder,
            t if t.is_symlink() => {
                let target = target.unwrap_or_default();
                link_fault(&path, &target).map_or(Ok(()), |f| Err(self.entry(&name, f)))?;
                Kind::Link(target)
            }
            t if t.is_hard_link() => {
                Kind::Same(inner_path(&target.unwrap_or_default()).map_err(|f| self.entry(&name, f))?)
            }
            t if t.is_block_special() || t.is_character_special() => {
                return Err(self.entry(&name, "is a device"));
            }
            t if t.is_fifo() => return Err(self.entry(&name, "is a pipe")),
            t => return Err(self.entry(&name, format!("is of unknown kind {:?}", char::from(t.as_byte())))),
        };
        let header = found.header();
        let meta = Meta {
            mode: header.mode().unwrap_or(0o644) & 0o7777,
            // Ids that the field cannot hold come from damaged headers: they become root's.
            uid: header.uid().ok().and_then(|id| u32::try_from(id).ok()).unwrap_or(0),
            gid: header.gid().ok().and_then(|id| u32::try_from(id).ok()).unwrap_or(0),
            mtime: header.mtime().ok().filter(|t| *t < 1 << 32).unwrap_or(IMAGE_TIME),
        };
        Ok(Entry { name, path, kind, meta })
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Kind {
    File,
    Folder,
    Link(String),
    /// A hard link to this path.
    Same(String),
}

/// Hears an entry, its size, and its content if it is a file.
type Visit<'a> = dyn FnMut(&Entry, u64, Option<&mut dyn Read>) -> Result<(), UnpackError> + 'a;

struct Entry {
    /// As the archive has it.
    name: String,
    /// `/a/b`, below the archive's place; empty for that place itself.
    path: String,
    kind: Kind,
    meta: Meta,
}

/// `./a//b/` → `/a/b`; absolute names and `..` are refused.
fn inner_path(name: &str) -> Result<String, &'static str> {
    if name.starts_with('/') {
        return Err("has an absolute path");
    }
    let mut path = String::new();
    for part in name.split('/').filter(|p| !p.is_empty() && *p != ".") {
        if part == ".." {
            return Err("leaves the archive with `..`");
        }
        path.push('/');
        path.push_str(part);
    }
    Ok(path)
}

/// Why a symbolic link at `path` (`/a/b`) to `target` is refused, if it is.
fn link_fault(path: &str, target: &str) -> Option<String> {
    if target.is_empty() || target.len() > 1024 || target.chars().any(char::is_control) {
        return Some("is a link to a name that cannot be".into());
    }
    if target.starts_with('/') {
        return Some(format!("is a link out of the archive, to {target:?}"));
    }
    let mut depth = path.matches('/').count() as i64 - 1;
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => depth -= 1,
            _ => depth += 1,
        }
        if depth < 0 {
            return Some(format!("is a link out of the archive, to {target:?}"));
        }
    }
    None
}

#[cfg(test)]
mod tests;
