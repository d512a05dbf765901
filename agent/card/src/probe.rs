//! Finds out whether a card is what it says before an hour is spent on it: marks at growing offsets up to the
//! last block, read back past all caches. Finds memory that drops writes, is stuck, or wraps around at a power of
//! two, as addresses with missing bits do; the read-back of a write finds the others. Takes a claimed card
//! because it writes; what was there is put back when the card is good.

use std::time::Instant;

use crate::claim::{ClaimedCard, ReadableCard};
use crate::device::{AlignedBuffer, CardDevice, read_full, sync, write_full};
use crate::error::CardError;
use crate::stop::StopFlag;
use crate::verify::drop_caches;

/// Bytes of one mark.
const MARK_SIZE: u64 = 4096;
/// The second mark; each following one is at twice the offset. A 2 TiB card gets 23 marks.
const FIRST_OFFSET: u64 = 1 << 20;
/// Bytes read for the estimate of the read rate.
const SPEED_SAMPLE: u64 = 8 << 20;
/// Bytes of one read of it.
const SPEED_REQUEST: usize = 1 << 20;

/// What a card proved to be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ProbeReport {
    /// Bytes of the card.
    pub size: u64,
    /// Marks that held; 0 when it was only read.
    pub marks: usize,
    /// Read rate of the first 8 MiB, bytes a second.
    pub read_bps: u64,
}

/// Looks at a card without writing: its size, its read rate, and that the last block can be read.
///
/// # Errors
/// `Io`, `Removed`.
pub fn probe_reading(card: &mut ReadableCard) -> Result<ProbeReport, CardError> {
    let device = &mut *card.device;
    let size = device.size();
    let read_bps = read_rate(device)?;
    if let Some(last) = offsets(size).last() {
        read_full(device, *last, &mut AlignedBuffer::new(MARK_SIZE as usize))?;
    }
    Ok(ProbeReport { size, marks: 0, read_bps })
}

/// Probes a card by writing marks: a few dozen requests. Stops only before the first mark.
///
/// # Errors
/// `FakeCapacity` with the lowest offset that does not keep what is written; `WriteProtected`, `Io`,
/// `Removed`, `Stopped`. After an error some marks may still be on the card.
pub fn probe(card: &mut ClaimedCard, stop: &StopFlag) -> Result<ProbeReport, CardError> {
    let device = card.device();
    let size = device.size();
    let read_bps = read_rate(device)?;
    let offsets = offsets(size);
    let mut buffer = AlignedBuffer::new(MARK_SIZE as usize);
    let mut saved = Vec::new();
    for offset in &offsets {
        if stop.is_stopped() {
            return Err(CardError::Stopped);
        }
        read_full(device, *offset, &mut buffer)?;
        saved.push(buffer.to_vec());
    }
    for offset in &offsets {
        buffer.copy_from_slice(&mark(*offset, size));
        write_full(device, *offset, &buffer)?;
    }
    sync(device)?;
    drop_caches(device)?;
    for offset in &offsets {
        read_full(device, *offset, &mut buffer)?;
        if buffer[..] != mark(*offset, size) {
            return Err(CardError::FakeCapacity { claimed: size, first_bad: *offset });
        }
    }
    for (offset, bytes) in offsets.iter().zip(saved) {
        buffer.copy_from_slice(&bytes);
        write_full(device, *offset, &buffer)?;
    }
    sync(device)?;
    Ok(ProbeReport { size, marks: offsets.len(), read_bps })
}

/// Where the marks go: the start, 1 MiB, twice that and so on, and the last whole mark of the card.
fn offsets(size: u64) -> Vec<u64> {
    if size < MARK_SIZE {
        return Vec::new();
    }
    let last = (size - MARK_SIZE) / MARK_SIZE * MARK_SIZE;
    let doubling = std::iter::successors(Some(FIRST_OFFSET), |offset| offset.checked_mul(2));
    let mut offsets = vec![0];
    offsets.extend(doubling.take_while(|offset| *offset < last));
    if last > 0 {
        offsets.push(last);
    }
    offsets
}

/// A mark that no other offset and no earlier content has.
fn mark(offset: u64, size: u64) -> [u8; MARK_SIZE as usize] {
    let mut bytes = [0; MARK_SIZE as usize];
    let mut hasher = blake3::Hasher::new_derive_key("cardshop 2026 capacity mark");
    hasher.update(&offset.to_le_bytes()).update(&size.to_le_bytes());
    hasher.finalize_xof().fill(&mut bytes);
    bytes
}

fn read_rate(device: &mut dyn CardDevice) -> Result<u64, CardError> {
    let began = Instant::now();
    let mut buffer = AlignedBuffer::new(SPEED_REQUEST);
    let alignment = device.alignment() as u64;
    let end = SPEED_SAMPLE.min(device.size() / alignment * alignment);
    let mut at = 0;
    while at < end {
        let length = (end - at).min(SPEED_REQUEST as u64);
        read_full(device, at, &mut buffer[..length as usize])?;
        at += length;
    }
    Ok((end as f64 / began.elapsed().as_secs_f64().max(1e-9)) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::{FaultPlan, MemoryCard};

    const SIZE: usize = 32 << 20;

    fn card(plan: FaultPlan) -> MemoryCard {
        let bytes = mark(1, 2).repeat(SIZE / MARK_SIZE as usize);
        MemoryCard::new(bytes, 512, plan)
    }

    fn quick(card: &MemoryCard) -> Result<ProbeReport, CardError> {
        probe(&mut card.claim(), &StopFlag::new())
    }

    #[test]
    fn a_good_card_passes_and_keeps_its_contents() {
        let card = card(FaultPlan::default());
        let before = card.bytes();
        let report = quick(&card).unwrap();
        assert_eq!((report.size, report.marks), (SIZE as u64, 7));
        assert!(card.bytes() == before);
    }

    #[test]
    fn memory_that_wraps_around_is_found() {
        let card = card(FaultPlan { real_size: Some(8 << 20), ..FaultPlan::default() });
        let error = quick(&card).unwrap_err();
        assert!(
            matches!(error, CardError::FakeCapacity { claimed, .. } if claimed == SIZE as u64),
            "{error}"
        );
    }

    #[test]
    fn writes_that_are_dropped_behind_the_real_end_are_found_at_the_first_mark_behind_it() {
        let card = card(FaultPlan { drops_from: Some(9 << 20), ..FaultPlan::default() });
        let error = quick(&card).unwrap_err();
        assert!(matches!(error, CardError::FakeCapacity { first_bad: 16_777_216, .. }), "{error}");
        let tail = SIZE as u64 - 4096;
        let card = self::card(FaultPlan { drops_from: Some(tail), ..FaultPlan::default() });
        assert!(matches!(quick(&card), Err(CardError::FakeCapacity { first_bad, .. }) if first_bad == tail));
    }

    #[test]
    fn a_locked_card_is_named_and_a_read_only_probe_does_not_care() {
        let card = card(FaultPlan { write_protected: true, ..FaultPlan::default() });
        assert!(matches!(quick(&card), Err(CardError::WriteProtected)));
        let report = probe_reading(&mut card.open()).unwrap();
        assert_eq!((report.size, report.marks), (SIZE as u64, 0));
    }

    #[test]
    fn marks_never_lie_outside_the_card() {
        for size in [0, 512, 4096, 5000, 1 << 20, (1 << 20) + 4096, (1 << 40) + 512] {
            for offset in offsets(size) {
                assert!(offset + MARK_SIZE <= size && offset % MARK_SIZE == 0, "{offset} of {size}");
            }
        }
        assert_eq!(offsets(2 << 40).len(), 23);
    }
}
