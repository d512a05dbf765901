//! What a write has done so far: bytes, chunks touched, and the progress told of it. Pure but for the caller's
//! progress function; kept by `write`.

use std::ops::Range;

use cardshop_protocol::index::Index;
use cardshop_protocol::message::WritePhase;

use super::Progress;
use crate::lanes::Moved;

pub(super) struct Ledger<'a> {
    progress: &'a mut dyn FnMut(Progress),
    chunk_size: u64,
    done: u64,
    total: u64,
    /// Chunks this run wrote to.
    pub(super) touched: Vec<bool>,
    pub(super) written_bytes: u64,
    pub(super) zero_written_bytes: u64,
}

impl<'a> Ledger<'a> {
    pub(super) fn new(index: &Index, progress: &'a mut dyn FnMut(Progress)) -> Self {
        let (chunk_size, touched) = (u64::from(index.chunk_size()), vec![false; index.chunks().len()]);
        Self { progress, chunk_size, done: 0, total: 0, touched, written_bytes: 0, zero_written_bytes: 0 }
    }

    /// A step of `total` bytes begins.
    pub(super) fn begin(&mut self, total: u64) {
        (self.done, self.total) = (0, total);
    }

    pub(super) fn advance(&mut self, phase: WritePhase, by: u64) {
        self.done += by;
        (self.progress)(Progress { phase, done: self.done, total: self.total });
    }

    /// Notes what the device has acknowledged.
    pub(super) fn note(&mut self, moved: &Moved) {
        self.written_bytes += moved.copied;
        self.zero_written_bytes += moved.zeroed;
        for written in &moved.touched {
            self.touch(written);
        }
    }

    fn touch(&mut self, written: &Range<u64>) {
        let (first, last) = (written.start / self.chunk_size, (written.end - 1) / self.chunk_size);
        self.touched[first as usize..=last as usize].fill(true);
    }
}
