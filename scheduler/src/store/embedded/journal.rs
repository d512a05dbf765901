//! The journal: every batch as one line, on the disk before anybody is told. One `fdatasync` makes a whole group of
//! batches durable; it is the only one that the embedded engine waits for. It is also a log of all that was changed,
//! for people to read.
//!
//! ```text
//! {number} {safe} {digest} [{"put":{…}},{"remove":["kind","id"]}]\n
//! ```
//!
//! Numbers count up by one. `safe` is the highest number that was on the disk when the line was written: a line that
//! is missing although a later one says that it was safe was lost by the disk; one that nobody calls safe was cut
//! off by a crash and never acknowledged. The digest is the first half of the BLAKE3 of the rest, in hex.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

use super::super::entry::Entry;
use super::folder::{journal_name, journals, sync_folder};

/// Hex digits of a line's digest.
const DIGEST_LENGTH: usize = 32;

/// A file that is only ever added to.
pub(in crate::store) trait JournalFile: Send {
    /// Adds bytes at the end; the disk may not have them yet.
    fn add(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// On return the disk has everything.
    fn sync(&mut self) -> io::Result<()>;
    /// Takes back what lies behind `size`.
    fn cut(&mut self, size: u64) -> io::Result<()>;
}

impl JournalFile for File {
    fn add(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write_all(bytes)
    }
    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()
    }
    fn cut(&mut self, size: u64) -> io::Result<()> {
        self.set_len(size)
    }
}

/// Makes the files of a journal: the disk's, or in tests one that loses what was not synced.
pub(in crate::store) type MakeFile = Box<dyn Fn(&Path) -> io::Result<Box<dyn JournalFile>> + Send>;

/// Files on the disk.
pub(super) fn real_files() -> MakeFile {
    use std::os::unix::fs::OpenOptionsExt;
    Box::new(|path| {
        let mut options = OpenOptions::new();
        // To append: after a cut the next line begins where the file ends.
        let file = options.create(true).append(true).mode(0o600).open(path)?;
        file.set_len(0)?;
        Ok(Box::new(file))
    })
}

/// Why a group is not in the journal.
#[derive(Debug)]
pub(super) enum AppendError {
    /// Nothing of it is: the disk is full, or refuses for now.
    Refused(io::Error),
    /// Nobody knows what the disk has.
    Broken(io::Error),
}

/// The journal that is written now.
pub(super) struct Journal {
    folder: PathBuf,
    make: MakeFile,
    file: Box<dyn JournalFile>,
    size: u64,
    next: u64,
}

impl Journal {
    /// Begins a file whose first line will be number `next`.
    pub(super) fn begin(folder: &Path, make: MakeFile, next: u64) -> io::Result<Self> {
        let file = begin_file(folder, &make, next)?;
        Ok(Self { folder: folder.to_owned(), make, file, size: 0, next })
    }

    /// Goes on in a new file. The number of the last line before it.
    pub(super) fn rotate(&mut self) -> io::Result<u64> {
        self.file = begin_file(&self.folder, &self.make, self.next)?;
        self.size = 0;
        Ok(self.next - 1)
    }

    /// Bytes of the file that is written.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// Adds a group, one line for each batch; on return the disk has them. The number of the last one.
    pub(super) fn append<'a>(&mut self, batches: impl Iterator<Item = &'a [u8]>) -> Result<u64, AppendError> {
        let safe = self.next - 1;
        let mut number = safe;
        let mut bytes = Vec::new();
        for batch in batches {
            number += 1;
            write_line(number, safe, batch, &mut bytes);
        }
        if let Err(error) = self.file.add(&bytes) {
            // What was written of it must not be taken for acknowledged later.
            return Err(match self.file.cut(self.size) {
                Ok(()) => AppendError::Refused(error),
                Err(_) => AppendError::Broken(error),
            });
        }
        // After a failed sync the kernel may have dropped the pages and say nothing the next time.
        self.file.sync().map_err(AppendError::Broken)?;
        self.size += bytes.len() as u64;
        self.next = number + 1;
        Ok(number)
    }
}

fn begin_file(folder: &Path, make: &MakeFile, next: u64) -> io::Result<Box<dyn JournalFile>> {
    let file = make(&folder.join(journal_name(next)))?;
    sync_folder(folder)?;
    Ok(file)
}

fn write_line(number: u64, safe: u64, batch: &[u8], to: &mut Vec<u8>) {
    let head = format!("{number} {safe} ");
    to.extend_from_slice(head.as_bytes());
    to.extend_from_slice(&digest(&head, batch));
    to.push(b' ');
    to.extend_from_slice(batch);
    to.push(b'\n');
}

fn digest(head: &str, batch: &[u8]) -> [u8; DIGEST_LENGTH] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(head.as_bytes()).update(batch);
    let hex = hasher.finalize().to_hex();
    hex.as_bytes()[..DIGEST_LENGTH].try_into().expect("a digest is longer")
}

/// One line that is what was written.
struct Line<'a> {
    number: u64,
    safe: u64,
    batch: &'a [u8],
}

fn read_line(line: &[u8]) -> Option<Line<'_>> {
    let line = line.strip_suffix(b"\n")?;
    let mut parts = line.splitn(4, |b| *b == b' ');
    let mut number = || std::str::from_utf8(parts.next()?).ok()?.parse::<u64>().ok();
    let (number, safe) = (number()?, number()?);
    let (told, batch) = (parts.next()?, parts.next()?);
    (told == digest(&format!("{number} {safe} "), batch)).then_some(Line { number, safe, batch })
}

/// What became of reading a journal.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Chain {
    /// The highest number that is known.
    pub(super) last: u64,
    /// Lines are missing that whoever reads has from elsewhere.
    pub(super) damaged: bool,
}

/// Why a journal cannot be used.
#[derive(Debug)]
pub(super) enum ChainError {
    /// What was acknowledged as this number is missing.
    Lost(u64),
    /// The disk refuses.
    Io(io::Error),
}

impl From<io::Error> for ChainError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Reads the lines behind number `from`, and gives those behind `have`, in order. Up to `have` the reader knows all.
pub(super) fn read(
    folder: &Path,
    from: u64,
    have: u64,
    each: &mut dyn FnMut(u64, Vec<Entry>) -> io::Result<()>,
) -> Result<Chain, ChainError> {
    let mut chain = Chain { last: from, damaged: false };
    let files = journals(folder)?;
    // The last file that begins at or before what is wanted, and all behind it.
    let first = files.iter().rposition(|(first, _)| *first <= from + 1).unwrap_or(0);
    let mut bytes = Vec::new();
    for (_, path) in &files[first..] {
        let mut reader = BufReader::new(File::open(path)?);
        loop {
            bytes.clear();
            if reader.read_until(b'\n', &mut bytes)? == 0 {
                break;
            }
            let Some(line) = read_line(&bytes) else { continue };
            if line.number <= chain.last {
                continue;
            }
            if line.number > chain.last + 1 {
                if line.safe <= chain.last {
                    // Of a group that was cut off: nobody was told.
                    continue;
                }
                if have < line.number - 1 {
                    return Err(ChainError::Lost(chain.last + 1));
                }
                chain.damaged = true;
            }
            chain.last = line.number;
            if line.number > have {
                let entries = serde_json::from_slice(line.batch).map_err(io::Error::other)?;
                each(line.number, entries)?;
            }
        }
    }
    if chain.last < have {
        chain = Chain { last: have, damaged: true };
    }
    Ok(chain)
}
