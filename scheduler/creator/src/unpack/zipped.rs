//! Zip archives, entry by entry of their directory. What an entry says of its size is held to what comes.
//! **Source:** APPNOTE.TXT 6.3.10; the upper half of the external attributes is a Unix mode where one is said.

use std::cell::Cell;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::rc::Rc;

use zip::ZipArchive;
use zip::read::ZipFile;

use super::names::{inner_path, link_fault};
use super::{Archive, Budget, Entry, Kind, UnpackError, Visit};
use crate::StopFlag;
use crate::tree::{IMAGE_TIME, Meta};

/// Most bytes that are read to know what is in the archive: half a million entries with names of usual length.
/// The directory is held in memory at about ten times its size.
const MAX_DIRECTORY_BYTES: u64 = 48 * 1024 * 1024;
/// Longest target of a symbolic link, bytes.
const MAX_TARGET_SIZE: u64 = 1024;

/// A file of which a bounded number of bytes is read.
struct Bounded {
    file: File,
    left: Rc<Cell<u64>>,
}

impl Read for Bounded {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read(buffer)?;
        match self.left.get().checked_sub(count as u64) {
            Some(left) => self.left.set(left),
            None => return Err(io::Error::other("its directory is larger than any honest archive's")),
        }
        Ok(count)
    }
}

impl Seek for Bounded {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.file.seek(to)
    }
}

pub(super) fn walk(archive: &Archive<'_>, stop: &StopFlag, visit: &mut Visit<'_>) -> Result<(), UnpackError> {
    let damaged = |error: zip::result::ZipError| archive.damaged(error.into());
    let file = File::open(archive.path).map_err(|e| archive.damaged(e))?;
    let left = Rc::new(Cell::new(MAX_DIRECTORY_BYTES));
    let mut zip = ZipArchive::new(BufReader::new(Bounded { file, left: left.clone() })).map_err(damaged)?;
    left.set(u64::MAX);
    let mut budget = Budget::new(archive);
    for index in 0..zip.len() {
        if stop.is_stopped() {
            return Err(UnpackError::Stopped);
        }
        budget.entry()?;
        // First without its content: what is refused is refused by name, also where it cannot be unpacked.
        let (mut entry, size) = {
            let name = zip.name_for_index(index).and_then(Result::ok).map(std::borrow::Cow::into_owned);
            let name = name.unwrap_or_default();
            let unknown = |e: zip::result::ZipError| archive.entry(&name, format!("cannot be unpacked: {e}"));
            let found = zip.by_index_raw(index).map_err(unknown)?;
            (check(archive, &found)?, found.size())
        };
        if entry.kind == Kind::File {
            budget.content(&entry.name, size)?;
        }
        let mut content = match entry.kind {
            Kind::File | Kind::Link(_) => zip
                .by_index(index)
                .map(Some)
                .map_err(|e| archive.entry(&entry.name, format!("cannot be unpacked: {e}")))?,
            _ => None,
        };
        if let (Kind::Link(_), Some(content)) = (&entry.kind, content.take_if(|_| entry.kind != Kind::File)) {
            let mut target = Vec::new();
            content.take(MAX_TARGET_SIZE + 1).read_to_end(&mut target).map_err(|e| archive.damaged(e))?;
            let target = String::from_utf8_lossy(&target).into_owned();
            link_fault(&entry.path, &target).map_or(Ok(()), |f| Err(archive.entry(&entry.name, f)))?;
            entry.kind = Kind::Link(target);
        }
        let size = if content.is_some() { size } else { 0 };
        visit(&entry, size, content.as_mut().map(|c| c as &mut dyn Read))?;
    }
    Ok(())
}

/// What the entry is, or why it is refused. A link's target is its content: not here yet.
fn check<R: Read>(archive: &Archive<'_>, found: &ZipFile<'_, R>) -> Result<Entry, UnpackError> {
    // Old archives name in code page 437, which has a letter for every byte.
    let name = match std::str::from_utf8(found.name_raw()) {
        Ok(name) => name.to_owned(),
        Err(_) => found.name().map_err(|e| archive.damaged(e.into()))?.into_owned(),
    };
    if name.contains('\\') {
        return Err(archive.entry(&name, "has a backslash in its name"));
    }
    let path = inner_path(&name).map_err(|fault| archive.entry(&name, fault))?;
    if found.encrypted() {
        return Err(archive.entry(&name, "is encrypted"));
    }
    let mode = found.unix_mode();
    let kind = match mode.unwrap_or(0) & 0o170_000 {
        _ if name.ends_with('/') => Kind::Folder,
        0o040_000 => Kind::Folder,
        0 | 0o100_000 => Kind::File,
        0o120_000 => Kind::Link(String::new()),
        0o010_000 => return Err(archive.entry(&name, "is a pipe")),
        0o020_000 | 0o060_000 => return Err(archive.entry(&name, "is a device")),
        other => return Err(archive.entry(&name, format!("is of unknown kind {other:o}"))),
    };
    let usual = if kind == Kind::Folder { Meta::FOLDER } else { Meta::FILE };
    let mode = mode.map_or(usual.mode, |mode| mode & 0o7777);
    let meta = Meta { mode, mtime: mtime(found).unwrap_or(IMAGE_TIME), ..usual };
    Ok(Entry { name, path, kind, meta, xattrs: Vec::new() })
}

/// Seconds since 1970. The format has local times without a zone: taken as UTC, so that every machine says the same.
fn mtime<R: Read>(found: &ZipFile<'_, R>) -> Option<u64> {
    let time = found.last_modified()?;
    let [month, day, hour, minute, second] =
        [time.month(), time.day(), time.hour(), time.minute(), time.second()].map(|part| part as i8);
    let time = jiff::civil::DateTime::new(time.year() as i16, month, day, hour, minute, second, 0).ok()?;
    time.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp().as_second().try_into().ok()
}
