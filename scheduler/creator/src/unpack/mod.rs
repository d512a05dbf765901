//! Compressed streams, and tar and zip archives. Archives are hostile: names only ever become paths of the data
//! partition in a [`Tree`], contents go to numbered files in a folder of ours, and sizes are held to what the
//! recipe allows. What is refused, is refused with the entry's name.

mod names;
mod tarball;
mod zipped;

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use liblzma::stream::{CONCATENATED, Stream};

use crate::StopFlag;
use crate::recipe::{Form, Packing};
use crate::tree::{BLOCK_SIZE, Meta, Node, Tree, TreeError, Xattr, file_bytes};

/// Most entries of one archive; each takes about 300 bytes of memory.
pub(crate) const MAX_ENTRIES: u64 = 500_000;
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
        Packing::Bzip2 => Box::new(bzip2::read::MultiBzDecoder::new(file)),
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

/// An archive to unpack.
pub(crate) struct Archive<'a> {
    /// For people.
    pub name: &'a str,
    pub path: &'a Path,
    pub form: Form,
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

impl Archive<'_> {
    /// Counts what the archive takes.
    pub(crate) fn tally(&self, stop: &StopFlag) -> Result<Tally, UnpackError> {
        let mut tally = Tally::default();
        self.walk(stop, &mut |entry, size, content| {
            tally.entries += 1;
            tally.bytes += size;
            tally.block_bytes += if content.is_some() { file_bytes(size) } else { BLOCK_SIZE };
            tally.block_bytes += if entry.xattrs.is_empty() { 0 } else { BLOCK_SIZE };
            match content {
                Some(reader) => self.read(reader, size, stop, &mut |_| Ok(())),
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
                    self.store(reader, size, &source, stop)?;
                    Node::File { source, size }
                }
            };
            done += size;
            progress(done);
            let put = tree.put(&path, node, entry.meta).and_then(|()| tree.set_xattrs(&path, &entry.xattrs));
            put.map_err(|e: TreeError| self.entry(&entry.name, e.fault))
        })
    }

    fn store(
        &self,
        reader: &mut dyn Read,
        size: u64,
        path: &Path,
        stop: &StopFlag,
    ) -> Result<(), UnpackError> {
        let write_error = |source| UnpackError::Write { path: path.to_owned(), source };
        let mut file = File::create_new(path).map_err(write_error)?;
        self.read(reader, size, stop, &mut |bytes| file.write_all(bytes).map_err(write_error))
    }

    /// Reads a content that says it has `size` bytes: neither more nor less may come.
    fn read(
        &self,
        reader: &mut dyn Read,
        size: u64,
        stop: &StopFlag,
        take: &mut dyn FnMut(&[u8]) -> Result<(), UnpackError>,
    ) -> Result<(), UnpackError> {
        let mut buffer = vec![0; BUFFER_SIZE];
        let mut left = size;
        loop {
            if stop.is_stopped() {
                return Err(UnpackError::Stopped);
            }
            let count = reader.read(&mut buffer).map_err(|e| self.damaged(e))? as u64;
            left = match left.checked_sub(count) {
                Some(0) if count == 0 => return Ok(()),
                Some(left) if count > 0 => left,
                _ => return Err(self.damaged(io::Error::other("a content is not as long as it says"))),
            };
            take(&buffer[..count as usize])?;
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
        match self.form {
            Form::Tar(packing) => tarball::walk(self, packing, stop, visit),
            Form::Zip => zipped::walk(self, stop, visit),
        }
    }
}

/// What an archive's entries may have together; both kinds of archive count so.
struct Budget<'a> {
    archive: &'a Archive<'a>,
    bytes: u64,
    entries: u64,
}

impl<'a> Budget<'a> {
    fn new(archive: &'a Archive<'a>) -> Self {
        Self { archive, bytes: 0, entries: 0 }
    }

    /// One more entry, before anything of it is looked at.
    fn entry(&mut self) -> Result<(), UnpackError> {
        self.entries += 1;
        if self.entries > MAX_ENTRIES {
            return Err(UnpackError::TooManyEntries { archive: self.archive.name.to_owned() });
        }
        Ok(())
    }

    /// Its content, before any of it is read.
    fn content(&mut self, entry: &str, size: u64) -> Result<(), UnpackError> {
        self.bytes = self.bytes.saturating_add(size);
        if self.bytes > self.archive.limit {
            let (archive, limit) = (self.archive.name.to_owned(), self.archive.limit);
            return Err(UnpackError::TooLarge { archive, limit, entry: entry.to_owned() });
        }
        Ok(())
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
    xattrs: Vec<Xattr>,
}

#[cfg(test)]
mod tests;
