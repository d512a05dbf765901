//! The journal on the disk: records appended one after the other, each with its length and digest; a fact is
//! on the disk (`fdatasync`) before [`Outbox::append`] returns. What the records mean is
//! [`crate::core::history`]'s. A torn end, left by a power cut, is cut off at the next start.
//!
//! ```text
//! record: length u32 · first 8 bytes of BLAKE3(payload) · payload (JSON)        little-endian
//! ```

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::core::history::{History, Record};

use super::state::sync_folder_of;

/// Longest payload, bytes: a snapshot of 20,000 verified copies has 1 MB. Longer lengths are damage.
const MAX_RECORD_SIZE: u32 = 16 * 1024 * 1024;
/// A journal longer than this is compacted when an acknowledgement comes, bytes.
const COMPACT_ABOVE: u64 = 1024 * 1024;
const PREFIX_SIZE: usize = 12;

/// Why the journal cannot be trusted with another fact. The agent ends: nothing may be called done any more.
#[derive(Debug, thiserror::Error)]
pub enum OutboxError {
    /// The file cannot be read or written.
    #[error("the journal {} cannot be used", path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// The open journal.
#[derive(Debug)]
pub(crate) struct Outbox {
    path: PathBuf,
    file: File,
    size: u64,
    /// Bytes right after the last compaction; compacting again before it has doubled gains little.
    compacted_size: u64,
}

impl Outbox {
    /// Opens the journal, making it when it is missing, and replays it.
    ///
    /// # Errors
    /// `Io`.
    pub(crate) fn open(path: &Path) -> Result<(Self, History), OutboxError> {
        let failed = |source| OutboxError::Io { path: path.into(), source };
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)
            .map_err(failed)?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(failed)?;
        let mut history = History::default();
        let mut good = 0;
        while let Some((payload, size)) = decode(&bytes[good..]) {
            match serde_json::from_slice(payload) {
                Ok(record) => history.apply(&record),
                // Whole, but of a newer version that this one was put back from: kept, not understood.
                Err(error) => {
                    tracing::error!(%error, offset = good, "a record of the journal is not understood")
                }
            }
            good += size;
        }
        if good < bytes.len() {
            tracing::warn!(lost_bytes = bytes.len() - good, "the journal's end is torn and was cut off");
            file.set_len(good as u64).map_err(failed)?;
        }
        file.sync_all().map_err(failed)?;
        sync_folder_of(path).map_err(failed)?;
        Ok((Self { path: path.into(), file, size: good as u64, compacted_size: 0 }, history))
    }

    /// Appends a record; a fact is on the disk when this returns.
    ///
    /// # Errors
    /// `Io`: how much of the record is on the disk is not known, so the agent ends.
    pub(crate) fn append(&mut self, record: &Record) -> Result<(), OutboxError> {
        let bytes = encode(record);
        let written = self.file.write_all_at(&bytes, self.size).and_then(|()| match record {
            Record::Fact { .. } | Record::Renumbered { .. } => self.file.sync_data(),
            // Losing these costs a repetition, nothing else.
            Record::Acked { .. } | Record::Forgotten { .. } | Record::Snapshot(_) => Ok(()),
        });
        written.map_err(|source| OutboxError::Io { path: self.path.clone(), source })?;
        self.size += bytes.len() as u64;
        Ok(())
    }

    /// Replaces a long journal by a short one that says the same.
    ///
    /// # Errors
    /// `Io`; the old journal is still there.
    pub(crate) fn compact_if_long(&mut self, history: &History) -> Result<(), OutboxError> {
        if self.size <= COMPACT_ABOVE.max(2 * self.compacted_size) {
            return Ok(());
        }
        self.compact(history).map_err(|source| OutboxError::Io { path: self.path.clone(), source })
    }

    fn compact(&mut self, history: &History) -> io::Result<()> {
        let bytes: Vec<u8> = history.compacted().iter().flat_map(encode).collect();
        let new = self.path.with_extension("new");
        let mut file =
            OpenOptions::new().read(true).write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        std::fs::rename(&new, &self.path)?;
        sync_folder_of(&self.path)?;
        self.file = file;
        self.size = bytes.len() as u64;
        self.compacted_size = self.size;
        Ok(())
    }
}

fn digest(payload: &[u8]) -> [u8; 8] {
    blake3::hash(payload).as_bytes()[..8].try_into().expect("a digest has 32 bytes")
}

fn encode(record: &Record) -> Vec<u8> {
    let payload = serde_json::to_vec(record).expect("plain data has a JSON form");
    let mut bytes = Vec::with_capacity(PREFIX_SIZE + payload.len());
    bytes.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&digest(&payload));
    bytes.extend_from_slice(&payload);
    bytes
}

/// The first record's payload and its whole size; `None` at the end or at damage.
fn decode(bytes: &[u8]) -> Option<(&[u8], usize)> {
    let length = u32::from_le_bytes(bytes.get(..4)?.try_into().ok()?);
    if length > MAX_RECORD_SIZE {
        return None;
    }
    let end = PREFIX_SIZE + length as usize;
    let payload = bytes.get(PREFIX_SIZE..end)?;
    if bytes[4..PREFIX_SIZE] != digest(payload) {
        return None;
    }
    Some((payload, end))
}

#[cfg(test)]
mod tests {
    use super::*;
    use cardshop_protocol::ids::{OrderId, SlotId, TaskId};
    use cardshop_protocol::message::Fact;
    use cardshop_protocol::time::Timestamp;

    fn fact(n: u32) -> Fact {
        let order = OrderId::from_parts(1, 1);
        let slot = SlotId::numbered(n);
        Fact::WriteStarted { task: TaskId::write(order, n), lease: order, slot, card_size: u64::from(n) }
    }

    /// A journal of five records; gives the history after each and where each ends.
    fn journal(path: &Path) -> (Vec<History>, Vec<u64>) {
        let (mut outbox, mut history) = Outbox::open(path).unwrap();
        let (mut histories, mut ends) = (vec![history.clone()], vec![0]);
        for n in 1..=5 {
            let record = if n == 3 {
                history.apply(&Record::Acked { upto: 1 });
                Record::Acked { upto: 1 }
            } else {
                history.record(Timestamp::from_ms(7), fact(n))
            };
            outbox.append(&record).unwrap();
            histories.push(history.clone());
            ends.push(outbox.size);
        }
        (histories, ends)
    }

    #[test]
    fn a_journal_torn_at_any_byte_says_what_its_whole_records_say_and_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let whole = folder.path().join("outbox");
        let (histories, ends) = journal(&whole);
        let bytes = std::fs::read(&whole).unwrap();
        assert_eq!(bytes.len() as u64, ends[5]);
        for cut in 0..=bytes.len() {
            let path = folder.path().join("torn");
            std::fs::write(&path, &bytes[..cut]).unwrap();
            let (mut outbox, mut history) = Outbox::open(&path).unwrap();
            let complete = ends.iter().rposition(|end| *end <= cut as u64).unwrap();
            assert_eq!(history, histories[complete], "cut at {cut}");
            let record = history.record(Timestamp::from_ms(8), fact(9));
            outbox.append(&record).unwrap();
            drop(outbox);
            assert_eq!(Outbox::open(&path).unwrap().1, history, "cut at {cut}, then appended");
        }
    }

    #[test]
    fn a_flipped_bit_ends_the_journal_there_and_nothing_panics() {
        let folder = tempfile::tempdir().unwrap();
        let whole = folder.path().join("outbox");
        let (histories, ends) = journal(&whole);
        let bytes = std::fs::read(&whole).unwrap();
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x10;
            let path = folder.path().join("damaged");
            std::fs::write(&path, &damaged).unwrap();
            let before = ends.iter().rposition(|end| *end <= at as u64).unwrap();
            assert_eq!(Outbox::open(&path).unwrap().1, histories[before], "damaged at {at}");
        }
    }

    #[test]
    fn a_record_of_a_newer_version_hides_nothing_that_follows() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("outbox");
        let (histories, ends) = journal(&path);
        let mut bytes = std::fs::read(&path).unwrap();
        let payload = br#"{"record":"of_the_future"}"#;
        let unknown = [&(payload.len() as u32).to_le_bytes()[..], &digest(payload), payload].concat();
        bytes.splice(ends[2] as usize..ends[2] as usize, unknown);
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(Outbox::open(&path).unwrap().1, histories[5]);
    }

    #[test]
    fn a_compacted_journal_is_short_and_says_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("outbox");
        let (mut outbox, mut history) = Outbox::open(&path).unwrap();
        for n in 1..=200 {
            let record = history.record(Timestamp::from_ms(7), fact(n % 9 + 1));
            outbox.append(&record).unwrap();
        }
        history.apply(&Record::Acked { upto: 190 });
        let long = outbox.size;
        outbox.compact_if_long(&history).unwrap();
        assert_eq!(outbox.size, long, "a short journal is left alone");
        outbox.compact(&history).unwrap();
        assert!(outbox.size < long / 3, "{} of {long}", outbox.size);
        let record = history.record(Timestamp::from_ms(9), fact(1));
        outbox.append(&record).unwrap();
        drop(outbox);
        assert_eq!(Outbox::open(&path).unwrap().1, history);
    }
}
