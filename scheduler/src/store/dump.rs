//! Everything in a store as JSON lines, for exports, backups and moving to another engine: a first line that says what
//! it is, one line for each document in the order of kind and id, and a last line with their number and the BLAKE3 of
//! all before it. Two stores with the same documents give the same bytes.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{MAX_DOCUMENT_SIZE, Record, StoreError};

/// The first line.
const FIRST: &str = "{\"cardshop\":\"store\",\"format\":1}\n";
/// Longest line: a document and its names.
const MAX_LINE: u64 = MAX_DOCUMENT_SIZE as u64 + 64 * 1024;

#[derive(Serialize, Deserialize)]
struct Last {
    documents: u64,
    blake3: String,
}

/// Writes a dump.
pub(super) struct DumpWriter<W> {
    to: W,
    hasher: blake3::Hasher,
    documents: u64,
}

impl<W: Write> DumpWriter<W> {
    pub(super) fn new(to: W) -> io::Result<Self> {
        let mut writer = Self { to, hasher: blake3::Hasher::new(), documents: 0 };
        writer.put(FIRST.as_bytes())?;
        Ok(writer)
    }

    pub(super) fn record(&mut self, record: &Record) -> io::Result<()> {
        let mut line = record.encode();
        line.push(b'\n');
        self.documents += 1;
        self.put(&line)
    }

    /// Writes the last line. The number of documents, and where they went.
    pub(super) fn finish(mut self) -> io::Result<(u64, W)> {
        let last = Last { documents: self.documents, blake3: self.hasher.finalize().to_hex().to_string() };
        serde_json::to_writer(&mut self.to, &last)?;
        self.to.write_all(b"\n")?;
        self.to.flush()?;
        Ok((self.documents, self.to))
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hasher.update(bytes);
        self.to.write_all(bytes)
    }
}

/// Writes a dump to a new file that nobody else can read, which is on the disk and whole when it shows.
pub(super) fn write_file(
    path: &Path,
    fill: impl FnOnce(&mut DumpWriter<BufWriter<File>>) -> Result<(), StoreError>,
) -> Result<u64, StoreError> {
    let part = path.with_extension("part");
    let disk = |source| StoreError::Disk { path: path.to_owned(), source };
    let mut options = OpenOptions::new();
    let file = options.write(true).create(true).truncate(true).mode(0o600).open(&part).map_err(disk)?;
    let written = (|| {
        let mut writer = DumpWriter::new(BufWriter::new(file)).map_err(disk)?;
        fill(&mut writer)?;
        let (documents, file) = writer.finish().map_err(disk)?;
        file.into_inner().map_err(|e| disk(e.into_error()))?.sync_all().map_err(disk)?;
        // A hard link, because it never takes the place of what is there.
        std::fs::hard_link(&part, path).map_err(disk)?;
        Ok(documents)
    })();
    let _ = std::fs::remove_file(&part);
    let documents = written?;
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(disk)?;
    Ok(documents)
}

/// Reads a dump from its beginning to its end. Only after `Ok` is it known to be whole.
///
/// # Errors
/// `Dump` for what is none, is cut off or damaged, and what `each` gives.
pub(super) fn read(
    from: impl Read,
    each: &mut dyn FnMut(Record) -> Result<(), StoreError>,
) -> Result<u64, StoreError> {
    let wrong = |text: &str| StoreError::Dump(io::Error::new(io::ErrorKind::InvalidData, text.to_owned()));
    let mut from = BufReader::new(from);
    let mut hasher = blake3::Hasher::new();
    let mut line = Vec::new();
    let mut documents = 0;
    let mut before: Option<(String, String)> = None;
    loop {
        line.clear();
        (&mut from).take(MAX_LINE).read_until(b'\n', &mut line).map_err(StoreError::Dump)?;
        if line.last() != Some(&b'\n') {
            return Err(wrong("it is cut off, or a line is too long"));
        }
        if documents == 0 && before.is_none() && hasher.count() == 0 {
            if line != FIRST.as_bytes() {
                return Err(wrong("its first line is not that of a store"));
            }
            hasher.update(&line);
            continue;
        }
        if let Ok(record) = Record::decode(&line) {
            hasher.update(&line);
            let name = (record.kind.clone(), record.id.clone());
            if before.as_ref().is_some_and(|before| *before >= name) {
                return Err(wrong("its documents are not in order"));
            }
            before = Some(name);
            documents += 1;
            each(record)?;
            continue;
        }
        let last: Last = serde_json::from_slice(&line).map_err(|_| wrong("a line is damaged"))?;
        if last.documents != documents || last.blake3 != hasher.finalize().to_hex().as_str() {
            return Err(wrong("it is damaged: its digest is another"));
        }
        return if from.fill_buf().map_err(StoreError::Dump)?.is_empty() {
            Ok(documents)
        } else {
            Err(wrong("something follows its last line"))
        };
    }
}

/// As [`read`], from a file.
pub(super) fn read_file(
    path: &Path,
    each: &mut dyn FnMut(Record) -> Result<(), StoreError>,
) -> Result<u64, StoreError> {
    let file = File::open(path).map_err(|source| StoreError::Disk { path: path.to_owned(), source })?;
    read(file, each)
}

/// For the fuzzer: a dump of any bytes, and a dump of those of their lines that are documents, which is read back as it
/// was written.
pub fn read_any_dump(bytes: &[u8]) {
    let read_again = |documents: Vec<Record>| {
        let mut writer = DumpWriter::new(Vec::new()).expect("memory takes everything");
        documents.iter().for_each(|one| writer.record(one).expect("memory takes everything"));
        let (count, dump) = writer.finish().expect("memory takes everything");
        let mut again = Vec::new();
        let read_count = read(&*dump, &mut |record| {
            again.push(record);
            Ok(())
        });
        assert_eq!(read_count.expect("it was written a moment ago"), count);
        assert_eq!(again, documents);
    };
    let mut whole = Vec::new();
    let keep = &mut |record| {
        whole.push(record);
        Ok(())
    };
    if read(bytes, keep).is_ok() {
        read_again(whole);
    }
    let mut lines: Vec<Record> =
        bytes.split(|b| *b == b'\n').filter_map(|line| Record::decode(line).ok()).collect();
    lines.sort_by(|a, b| (&a.kind, &a.id).cmp(&(&b.kind, &b.id)));
    lines.dedup_by(|a, b| (&a.kind, &a.id) == (&b.kind, &b.id));
    read_again(lines);
}
