//! A card in memory, stricter than the kernel: it panics on a request that a block device would refuse for its
//! alignment or its place, and fails as told. Used by tests and by simulations in place of a reader.

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::errno::Errno;

use crate::claim::{ClaimedCard, ReadableCard};
use crate::device::{CardDevice, MEMORY_ALIGNMENT};
use crate::interlock::{DeviceClass, DeviceFacts, DeviceIdentity, Exclusive};

/// How a memory card misbehaves; nothing by default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FaultPlan {
    /// Requests that touch this byte fail with EIO.
    pub io_error_at: Option<u64>,
    /// Writes store this byte with its lowest bit flipped.
    pub flip_at: Option<u64>,
    /// One transfer moves at most this many bytes, rounded up to the alignment.
    pub longest_transfer: Option<usize>,
    /// Writes at or behind this offset are acknowledged and dropped.
    pub drops_from: Option<u64>,
    /// Only this many bytes exist: offsets wrap around, as on a fake card.
    pub real_size: Option<u64>,
    /// The card is pulled out at this request, counted from 0.
    pub removed_at_request: Option<u64>,
    /// When it is pulled out, blocks written since the last sync keep what they held before, one in two by this
    /// seed.
    pub loses_unsynced: Option<u64>,
    /// This request, counted from 0, and those after it do not return until the plan changes; the card is given
    /// up after 1 s.
    pub stuck_at_request: Option<u64>,
    /// Writes that reach this byte fail with ENOSPC, as on a thin device whose store is full.
    pub full_at: Option<u64>,
    /// Reads give nothing but this byte.
    pub reads_as: Option<u8>,
    /// Writes fail with EROFS.
    pub write_protected: bool,
    /// Discarding works; discarded bytes read as garbage, as nothing promises zeros.
    pub discards: bool,
}

struct State {
    bytes: Vec<u8>,
    alignment: usize,
    plan: FaultPlan,
    requests: u64,
    /// What was on the medium at the last sync, while the plan wants to know.
    synced: Vec<u8>,
}

/// A card in memory. Clones are the same card, so that a test can look at it while it is written.
#[derive(Clone)]
pub struct MemoryCard(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    plan_changed: Condvar,
}

impl MemoryCard {
    /// A card that holds `bytes`; requests must be multiples of `alignment` (512 or 4096, and so must its size).
    pub fn new(bytes: Vec<u8>, alignment: usize, plan: FaultPlan) -> Self {
        assert!(
            alignment.is_power_of_two() && alignment <= MEMORY_ALIGNMENT,
            "no device has alignment {alignment}"
        );
        assert_eq!(bytes.len() % alignment, 0, "a card has whole blocks");
        let (none, synced) = (FaultPlan::default(), Vec::new());
        let state = Mutex::new(State { bytes, alignment, plan: none, requests: 0, synced });
        let card = Self(Arc::new(Shared { state, plan_changed: Condvar::new() }));
        card.set_plan(plan);
        card
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The card for one request; waits while it is stuck.
    fn answer(&self) -> MutexGuard<'_, State> {
        let is_stuck = |s: &mut State| s.plan.stuck_at_request.is_some_and(|at| s.requests >= at);
        self.0.plan_changed.wait_while(self.state(), is_stuck).unwrap_or_else(PoisonError::into_inner)
    }

    /// What a reader of the whole card would get.
    pub fn bytes(&self) -> Vec<u8> {
        let state = self.state();
        match state.plan.real_size {
            None => state.bytes.clone(),
            Some(_) => (0..state.bytes.len() as u64).map(|at| state.bytes[state.place(at)]).collect(),
        }
    }

    /// Requests made so far.
    pub fn requests(&self) -> u64 {
        self.state().requests
    }

    /// Changes how it misbehaves from now on.
    pub fn set_plan(&self, plan: FaultPlan) {
        let mut state = self.state();
        state.synced = if plan.loses_unsynced.is_some() { state.bytes.clone() } else { Vec::new() };
        state.plan = plan;
        drop(state);
        self.0.plan_changed.notify_all();
    }

    /// The card as the interlock would give it: nothing else can hold memory.
    pub fn claim(&self) -> ClaimedCard {
        ClaimedCard::new(Arc::new(self.clone()), self.facts())
    }

    /// The card for reading.
    pub fn open(&self) -> ReadableCard {
        ReadableCard::new(Arc::new(self.clone()), self.facts())
    }

    fn facts(&self) -> DeviceFacts {
        let state = self.state();
        DeviceFacts {
            path: "memory".into(),
            class: DeviceClass::PlainFile,
            model: "memory card".to_owned(),
            cid: None,
            port_path: Default::default(),
            block_size: Some(state.alignment as u32),
            identity: DeviceIdentity {
                device_number: 0,
                inode: 0,
                disk_sequence: 0,
                size: state.bytes.len() as u64,
            },
            holds_root: false,
            mounted_at: Vec::new(),
            swap: Vec::new(),
            read_only: state.plan.write_protected,
            exclusive: Exclusive::Held,
        }
    }
}

impl State {
    /// Counts a request, fails it as planned, and gives how many bytes it moves.
    fn admit(&mut self, offset: u64, length: usize, address: usize) -> io::Result<usize> {
        let align = self.alignment as u64;
        let aligned = offset.is_multiple_of(align) && (length as u64).is_multiple_of(align);
        assert!(aligned, "misaligned: {length} bytes at {offset}");
        assert_eq!(address % MEMORY_ALIGNMENT % self.alignment, 0, "misaligned buffer");
        assert!(offset + length as u64 <= self.bytes.len() as u64, "outside: {length} bytes at {offset}");
        self.count()?;
        let most = self.plan.longest_transfer.map_or(length, |most| most.next_multiple_of(self.alignment));
        let mut moved = length.min(most);
        if let Some(bad) = self.plan.io_error_at {
            let bad = bad / align * align;
            if (offset..offset + moved as u64).contains(&bad) {
                // A real device moves what lies before the bad block.
                moved = (bad - offset) as usize;
                if moved == 0 {
                    return Err(Errno::EIO.into());
                }
            }
        }
        Ok(moved)
    }

    fn count(&mut self) -> io::Result<()> {
        let number = self.requests;
        self.requests += 1;
        match self.plan.removed_at_request {
            Some(at) if number >= at => {
                self.lose_unsynced();
                Err(Errno::ENODEV.into())
            }
            _ => Ok(()),
        }
    }

    fn lose_unsynced(&mut self) {
        let Some(seed) = self.plan.loses_unsynced.take() else { return };
        let mut choices = vec![0; self.bytes.len() / self.alignment];
        blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut choices);
        let before = self.synced.chunks(self.alignment);
        for ((now, before), choice) in self.bytes.chunks_mut(self.alignment).zip(before).zip(choices) {
            if choice % 2 == 1 {
                now.copy_from_slice(before);
            }
        }
    }

    /// Where a byte really lies.
    fn place(&self, offset: u64) -> usize {
        self.plan.real_size.map_or(offset, |size| offset % size) as usize
    }
}

impl CardDevice for MemoryCard {
    fn size(&self) -> u64 {
        self.state().bytes.len() as u64
    }
    fn alignment(&self) -> usize {
        self.state().alignment
    }
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let mut state = self.answer();
        let moved = state.admit(offset, buffer.len(), buffer.as_ptr() as usize)?;
        match state.plan.real_size {
            None => buffer[..moved].copy_from_slice(&state.bytes[offset as usize..][..moved]),
            Some(_) => {
                for (at, byte) in (offset..).zip(&mut buffer[..moved]) {
                    *byte = state.bytes[state.place(at)];
                }
            }
        }
        if let Some(byte) = state.plan.reads_as {
            buffer[..moved].fill(byte);
        }
        Ok(moved)
    }
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<usize> {
        let mut state = self.answer();
        let moved = state.admit(offset, bytes.len(), bytes.as_ptr() as usize)?;
        if state.plan.write_protected {
            return Err(Errno::EROFS.into());
        }
        if state.plan.full_at.is_some_and(|full| offset + moved as u64 > full) {
            return Err(Errno::ENOSPC.into());
        }
        let kept = state
            .plan
            .drops_from
            .map_or(moved, |from| from.saturating_sub(offset).min(moved as u64) as usize);
        match state.plan.real_size {
            None => state.bytes[offset as usize..][..kept].copy_from_slice(&bytes[..kept]),
            Some(_) => {
                for (at, byte) in (offset..).zip(&bytes[..kept]) {
                    let place = state.place(at);
                    state.bytes[place] = *byte;
                }
            }
        }
        if let Some(bad) = state.plan.flip_at.filter(|bad| (offset..offset + kept as u64).contains(bad)) {
            let place = state.place(bad);
            state.bytes[place] ^= 1;
        }
        Ok(moved)
    }
    fn sync(&self) -> io::Result<()> {
        let mut state = self.answer();
        state.count()?;
        if state.plan.loses_unsynced.is_some() {
            state.synced = state.bytes.clone();
        }
        Ok(())
    }
    fn drop_caches(&self) -> io::Result<()> {
        self.answer().count()
    }
    fn discard(&self, offset: u64, length: u64) -> io::Result<bool> {
        let mut state = self.answer();
        state.count()?;
        if state.plan.discards {
            for at in offset..offset + length {
                let place = state.place(at);
                state.bytes[place] = 0xa5;
            }
        }
        Ok(state.plan.discards)
    }
    fn patience(&self) -> Option<Duration> {
        // Whoever plans for a stuck card does not want to wait for it; others may be slow machines.
        let planned = self.state().plan.stuck_at_request.is_some();
        Some(Duration::from_secs(if planned { 1 } else { 600 }))
    }
}
