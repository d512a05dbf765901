//! Finds out whether a card is what it says before an hour is spent on it: marks all over the card, read back past
//! all caches. Takes a claimed card because it writes; what was there is put back when the card is good.
//!
//! ```text
//!   steps of one grain    strides of S grains                 the last whole grain, the last block
//!   |x|x|x|…|x|           x         x         x   …                            x    x
//!   0        S            S         2S        3S
//! ```
//!
//! Memory that drops writes, is stuck, or ends early loses a mark. Memory that wraps around shows the mark of one
//! place at another: any distance that is a multiple of the grain is one between a step and a stride, so that every
//! such real size is found with about 2 √n marks. The grain is a 16384th of the card, 4 MiB on 64 GB; the
//! read-back of a write finds the others where the image is, and so does a mark that lands on nothing else's.

use std::time::Instant;

use crate::claim::{ClaimedCard, ReadableCard};
use crate::device::{AlignedBuffer, CardDevice, read_full, sync, write_full};
use crate::error::CardError;
use crate::lanes::Lanes;
use crate::stop::StopFlag;
use crate::verify::drop_caches;

/// Bytes of one mark.
const MARK_SIZE: u64 = 4096;
/// Grains of a card at most. 2 × 128 marks: a card that takes 20 ms for each, as poor ones do, is done in 15 s.
const MAX_GRAINS: u64 = 16_384;
/// Bytes read, and written again, for the estimates of the rates.
const SPEED_SAMPLE: u64 = 8 << 20;
/// Bytes of one request of it.
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
    /// Write rate of the first 8 MiB, bytes a second; 0 when it was only read.
    pub write_bps: u64,
}

/// Looks at a card without writing: its size, its read rate, and that the last block can be read.
///
/// # Errors
/// `Io`, `Removed`, `Stuck`.
pub fn probe_reading(card: &mut ReadableCard) -> Result<ProbeReport, CardError> {
    let size = card.size();
    let mut lanes = Lanes::new(card.device.clone(), SPEED_REQUEST)?;
    let (read_bps, _) = rates(&mut lanes, size, false)?;
    if let Some(last) = offsets(size).pop() {
        lanes.run(move |device, buffer| read_full(device, last, &mut buffer[..MARK_SIZE as usize]))?;
    }
    Ok(ProbeReport { size, marks: 0, read_bps, write_bps: 0 })
}

/// Probes a card by writing marks: a few hundred small requests. Stops only before the first mark.
///
/// # Errors
/// `FakeCapacity` with the real size of memory that wraps around, or the lowest offset that does not keep what is
/// written; `WriteProtected`, `Io`, `Removed`, `Stuck`, `Stopped`; `Mismatch` when what was there could not be put
/// back. After an error some marks may still be on the card.
pub fn probe(card: &mut ClaimedCard, stop: &StopFlag) -> Result<ProbeReport, CardError> {
    let size = card.size();
    let mut lanes = Lanes::new(card.device(), SPEED_REQUEST)?;
    let offsets = offsets(size);
    let mut saved = Vec::new();
    for offset in offsets.clone() {
        if stop.is_stopped() {
            return Err(CardError::Stopped);
        }
        saved.push((offset, lanes.run(move |device, buffer| read_mark(device, offset, buffer))?));
    }
    let (read_bps, write_bps) = rates(&mut lanes, size, true)?;
    for offset in offsets.clone() {
        let mark = mark(offset, size);
        lanes.run(move |device, buffer| write_mark(device, offset, &mark, buffer))?;
    }
    lanes.run(|device, _| sync(device).and_then(|()| drop_caches(device)))?;
    let mut shown = Vec::new();
    for offset in offsets.clone() {
        shown.push((offset, lanes.run(move |device, buffer| read_mark(device, offset, buffer))?));
    }
    if let Some(first_bad) = first_bad(size, &shown) {
        return Err(CardError::FakeCapacity { claimed: size, first_bad });
    }
    for (offset, bytes) in saved.clone() {
        lanes.run(move |device, buffer| write_mark(device, offset, &bytes, buffer))?;
    }
    lanes.run(|device, _| sync(device).and_then(|()| drop_caches(device)))?;
    for (offset, bytes) in saved {
        if lanes.run(move |device, buffer| read_mark(device, offset, buffer))? != bytes {
            return Err(CardError::Mismatch { offset, length: MARK_SIZE, exact: false });
        }
    }
    Ok(ProbeReport { size, marks: offsets.len(), read_bps, write_bps })
}

fn read_mark(device: &dyn CardDevice, offset: u64, buffer: &mut AlignedBuffer) -> Result<Vec<u8>, CardError> {
    let bytes = &mut buffer[..MARK_SIZE as usize];
    read_full(device, offset, bytes)?;
    Ok(bytes.to_vec())
}

fn write_mark(
    device: &dyn CardDevice,
    offset: u64,
    bytes: &[u8],
    buffer: &mut AlignedBuffer,
) -> Result<(), CardError> {
    buffer[..bytes.len()].copy_from_slice(bytes);
    write_full(device, offset, &buffer[..bytes.len()])
}

/// Where the marks go, ascending: a step at each of the first S grains, a stride at each S grains from there, the
/// start of the last grain, and the last whole mark of the card.
fn offsets(size: u64) -> Vec<u64> {
    if size < MARK_SIZE {
        return Vec::new();
    }
    let last = (size - MARK_SIZE) / MARK_SIZE * MARK_SIZE;
    let grain = size.div_ceil(MAX_GRAINS).next_power_of_two().max(MARK_SIZE);
    let grains = last / grain;
    let stride = grains.isqrt().max(1);
    let steps = (0..stride).chain((stride..grains).step_by(stride as usize)).chain([grains]);
    let mut offsets: Vec<u64> = steps.map(|n| n * grain).chain([last]).collect();
    offsets.dedup();
    offsets
}

/// The lowest offset that does not keep its mark, or the real size where a mark shows what was written further on;
/// nothing when every mark held.
fn first_bad(size: u64, shown: &[(u64, Vec<u8>)]) -> Option<u64> {
    let wrong: Vec<_> = shown.iter().filter(|(offset, bytes)| *bytes != mark(*offset, size)).collect();
    let lowest = wrong.first()?.0;
    let wraps = wrong.iter().filter_map(|(offset, bytes)| {
        let written_at = u64::from_le_bytes(bytes[..8].try_into().expect("a mark is longer"));
        (written_at > *offset && written_at < size && *bytes == mark(written_at, size))
            .then(|| written_at - offset)
    });
    // Some marks may have gone round more than once.
    Some(wraps.min().unwrap_or(lowest))
}

/// A mark that no other offset and no earlier content has; it begins with its offset.
fn mark(offset: u64, size: u64) -> [u8; MARK_SIZE as usize] {
    let mut bytes = [0; MARK_SIZE as usize];
    let mut hasher = blake3::Hasher::new_derive_key("cardshop 2026 capacity mark");
    hasher.update(&offset.to_le_bytes()).update(&size.to_le_bytes());
    hasher.finalize_xof().fill(&mut bytes[8..]);
    bytes[..8].copy_from_slice(&offset.to_le_bytes());
    bytes
}

/// Bytes a second that the first 8 MiB are read at and, when asked for, written with what they hold already.
fn rates(lanes: &mut Lanes, size: u64, write: bool) -> Result<(u64, u64), CardError> {
    lanes.run(move |device, buffer| {
        let alignment = device.alignment() as u64;
        let end = SPEED_SAMPLE.min(size / alignment * alignment);
        let (mut reading, mut writing) = (0.0, 0.0);
        for at in (0..end).step_by(SPEED_REQUEST) {
            let bytes = &mut buffer[..(end - at).min(SPEED_REQUEST as u64) as usize];
            let began = Instant::now();
            read_full(device, at, bytes)?;
            reading += began.elapsed().as_secs_f64();
            if write {
                let began = Instant::now();
                write_full(device, at, bytes)?;
                sync(device)?;
                writing += began.elapsed().as_secs_f64();
            }
        }
        let rate = |seconds: f64| (end as f64 / seconds.max(1e-9)) as u64;
        Ok((rate(reading), if write { rate(writing) } else { 0 }))
    })
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
        assert_eq!(report.size, SIZE as u64);
        assert!((100..260).contains(&report.marks), "{}", report.marks);
        assert!(card.bytes() == before);
    }

    #[test]
    fn memory_that_wraps_around_is_found_with_its_real_size_whatever_that_is() {
        for real_size in [4096, 8 << 20, 5_001_216, (32 << 20) - 4096, 3 * 4096, 20_971_520] {
            let card = card(FaultPlan { real_size: Some(real_size), ..FaultPlan::default() });
            let error = quick(&card).unwrap_err();
            let CardError::FakeCapacity { claimed, first_bad } = error else {
                panic!("{real_size}: {error}")
            };
            assert_eq!((claimed, first_bad % real_size), (SIZE as u64, 0), "{real_size}");
        }
    }

    #[test]
    fn any_distance_of_whole_grains_is_one_between_two_marks() {
        let size = 64_000_000_000;
        let offsets = offsets(size);
        let grain = 4 << 20;
        let all: std::collections::HashSet<u64> = offsets.iter().copied().collect();
        for real_size in (grain..size - MARK_SIZE).step_by(grain as usize) {
            let shown = offsets.iter().any(|at| *at >= real_size && all.contains(&(at - real_size)));
            assert!(shown, "{real_size}");
        }
        assert!(offsets.len() < 256, "{}", offsets.len());
    }

    #[test]
    fn writes_that_are_dropped_behind_the_real_end_are_found_at_the_first_mark_behind_it() {
        let from = 9 << 20;
        let card = card(FaultPlan { drops_from: Some(from), ..FaultPlan::default() });
        let error = quick(&card).unwrap_err();
        let CardError::FakeCapacity { first_bad, .. } = error else { panic!("{error}") };
        assert!((from..from + (1 << 20)).contains(&first_bad), "{first_bad}");
        let tail = SIZE as u64 - 4096;
        let card = self::card(FaultPlan { drops_from: Some(tail), ..FaultPlan::default() });
        assert!(matches!(quick(&card), Err(CardError::FakeCapacity { first_bad, .. }) if first_bad == tail));
    }

    #[test]
    fn memory_that_reads_as_one_value_is_found() {
        for byte in [0, 0xff] {
            let card = card(FaultPlan { reads_as: Some(byte), ..FaultPlan::default() });
            assert!(matches!(quick(&card), Err(CardError::FakeCapacity { first_bad: 0, .. })));
        }
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
        assert!(offsets(2 << 40).len() <= 258);
    }
}
