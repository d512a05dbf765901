//! A card's requests in flight: [`DEPTH`] threads that each do one thing to the device at a time, buffers that go
//! round, and the clock that names a card stuck. Whoever works on a card prepares the next buffer, or digests the
//! last one, while the device is busy with others.
//!
//! ```text
//!   prepare ──► submit ──► queue ──► lane 1 ─┐
//!      ▲                        └──► lane 2 ─┴─► ended ──► the buffer is free again
//!      └──────────────────────────────────────────┘         nothing ended for the device's patience: Stuck
//! ```
//!
//! Threads and blocking requests, not io_uring: at the rates of SD cards both keep the device equally busy, and
//! this one works on every kernel and with every implementation of [`CardDevice`]. A request that never returns
//! cannot be taken back; its thread and buffer are left behind, with the device, until the kernel gives it up.

use std::collections::BTreeMap;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use crate::device::{AlignedBuffer, CardDevice};
use crate::error::CardError;

/// Requests in flight: a device that ends one has the next already. Measured with 1, 2 and 4 on a loop device
/// (2026-11-25, busy 2-core VM): capped at 90 MiB/s all three reach the cap, and two read back 1.5 % faster than
/// one; uncapped two take half the time of one (medians 1.2 and 2.6 s for 410 MiB), and four no less than two.
const DEPTH: usize = 2;
/// Buffers of one card: those in flight, and the one being prepared or looked at.
const BUFFERS: usize = DEPTH + 1;
/// Most memory of one card's buffers, bytes; only chunks of 4 MiB, which nobody makes by default, need fewer
/// buffers. Eight cards stay below 24 MiB with the default chunk sizes.
const MAX_BUFFER_BYTES: usize = 8 << 20;

/// What one piece of work does to the device with the buffer it came with.
pub(crate) type Work =
    Box<dyn FnOnce(&dyn CardDevice, &mut AlignedBuffer) -> Result<Moved, CardError> + Send>;

/// A piece of work with the buffer it came with, and its number in the order of submission.
type Order = (u64, AlignedBuffer, Work);
type Ended = (AlignedBuffer, std::thread::Result<Result<Moved, CardError>>);

/// What one piece of work did.
#[derive(Debug, Default)]
pub(crate) struct Moved {
    /// Chunks of the image in the buffer.
    pub(crate) chunks: Range<usize>,
    /// Bytes of the image copied to the card.
    pub(crate) copied: u64,
    /// Bytes made zero because the card held something else.
    pub(crate) zeroed: u64,
    /// Bytes of the card that were written.
    pub(crate) touched: Vec<Range<u64>>,
    /// Bytes of the image that are done, whatever they needed.
    pub(crate) done: u64,
}

/// The lanes of one card.
pub(crate) struct Lanes {
    /// Nothing once the lanes are to end.
    orders: Option<Sender<Order>>,
    ended: Receiver<(u64, Ended)>,
    /// What ended before something that was submitted earlier.
    early: BTreeMap<u64, Ended>,
    threads: Vec<JoinHandle<()>>,
    device: Arc<dyn CardDevice>,
    buffer_size: usize,
    free: Vec<AlignedBuffer>,
    /// Buffers that may still be made.
    unmade: usize,
    /// Pieces of work submitted so far.
    submitted: u64,
    /// Pieces of work whose end was looked at.
    looked_at: u64,
    /// When something last ended, or was submitted with nothing else in flight.
    moved: Instant,
    stuck: bool,
}

impl Lanes {
    /// Starts the threads; buffers are made as they are needed, each of `buffer_size` bytes.
    ///
    /// # Errors
    /// `NoThread`.
    pub(crate) fn new(device: Arc<dyn CardDevice>, buffer_size: usize) -> Result<Self, CardError> {
        let (orders, queue) = channel::<Order>();
        let (finished, ended) = channel();
        let queue = Arc::new(Mutex::new(queue));
        let mut threads = Vec::new();
        for _ in 0..DEPTH {
            let (queue, finished, device) = (queue.clone(), finished.clone(), device.clone());
            let lane = move || {
                loop {
                    let order = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
                    let Ok((number, mut buffer, work)) = order else { return };
                    let result = catch_unwind(AssertUnwindSafe(|| work(&*device, &mut buffer)));
                    if finished.send((number, (buffer, result))).is_err() {
                        return;
                    }
                }
            };
            let thread = std::thread::Builder::new().name("card".into()).spawn(lane);
            threads.push(thread.map_err(CardError::NoThread)?);
        }
        Ok(Self {
            orders: Some(orders),
            ended,
            early: BTreeMap::new(),
            threads,
            device,
            buffer_size,
            free: Vec::new(),
            unmade: (MAX_BUFFER_BYTES / buffer_size).clamp(1, BUFFERS),
            submitted: 0,
            looked_at: 0,
            moved: Instant::now(),
            stuck: false,
        })
    }

    /// Bytes of each buffer.
    pub(crate) fn buffer_size(&self) -> usize {
        self.buffer_size
    }

    /// A buffer nobody uses; none when all are in flight.
    fn take_buffer(&mut self) -> Option<AlignedBuffer> {
        if let Some(buffer) = self.free.pop() {
            return Some(buffer);
        }
        self.unmade = self.unmade.checked_sub(1)?;
        Some(AlignedBuffer::new(self.buffer_size))
    }

    fn in_flight(&self) -> bool {
        self.looked_at < self.submitted
    }

    fn submit(&mut self, buffer: AlignedBuffer, work: Work) {
        if !self.in_flight() {
            self.moved = Instant::now();
        }
        let orders = self.orders.as_ref().expect("the lanes end only when they are dropped");
        let order = (self.submitted, buffer, work);
        orders.send(order).expect("a lane ends only when nothing can be submitted any more");
        self.submitted += 1;
    }

    /// The end of the piece of work that was submitted first of those in flight, so that what is said of a card is
    /// said of its first bad place, whichever request was faster.
    fn wait(&mut self) -> Result<(AlignedBuffer, Result<Moved, CardError>), CardError> {
        loop {
            if let Some((buffer, result)) = self.early.remove(&self.looked_at) {
                self.looked_at += 1;
                return Ok((buffer, result.unwrap_or_else(|panic| resume_unwind(panic))));
            }
            let ended = match self.device.patience() {
                _ if self.stuck => return Err(self.stuck()),
                None => self.ended.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(patience) => {
                    let left = (self.moved + patience).saturating_duration_since(Instant::now());
                    self.ended.recv_timeout(left)
                }
            };
            match ended {
                Ok((number, ended)) => {
                    self.early.insert(number, ended);
                    self.moved = Instant::now();
                }
                Err(RecvTimeoutError::Timeout) => {
                    self.stuck = true;
                    return Err(self.stuck());
                }
                Err(RecvTimeoutError::Disconnected) => {
                    unreachable!("lanes live as long as they can be waited for")
                }
            }
        }
    }

    fn stuck(&self) -> CardError {
        CardError::Stuck { seconds: self.device.patience().unwrap_or_default().as_secs() }
    }

    /// Keeps the device busy: `prepare` fills a buffer and says what is to be done with it, until it says that
    /// there is nothing more; `ended` looks at each result, in the order of submission. Waits for all that is in
    /// flight, also after an error.
    ///
    /// # Errors
    /// The first of `prepare`, of the device or of `ended`; `Stuck`.
    pub(crate) fn pump(
        &mut self,
        prepare: &mut dyn FnMut(&mut AlignedBuffer) -> Result<Option<Work>, CardError>,
        ended: &mut dyn FnMut(&mut AlignedBuffer, Moved) -> Result<(), CardError>,
    ) -> Result<(), CardError> {
        let result = self.pump_all(prepare, ended);
        if result.is_err() {
            self.settle();
        }
        result
    }

    fn pump_all(
        &mut self,
        prepare: &mut dyn FnMut(&mut AlignedBuffer) -> Result<Option<Work>, CardError>,
        ended: &mut dyn FnMut(&mut AlignedBuffer, Moved) -> Result<(), CardError>,
    ) -> Result<(), CardError> {
        let mut more = true;
        loop {
            while more && let Some(mut buffer) = self.take_buffer() {
                match prepare(&mut buffer) {
                    Ok(Some(work)) => self.submit(buffer, work),
                    other => {
                        self.free.push(buffer);
                        more = other?.is_some();
                    }
                }
            }
            if !self.in_flight() {
                return Ok(());
            }
            let (mut buffer, result) = self.wait()?;
            let looked = result.and_then(|value| ended(&mut buffer, value));
            self.free.push(buffer);
            looked?;
        }
    }

    /// Waits for all that is in flight, whatever comes of it.
    fn settle(&mut self) {
        while self.in_flight() && !self.stuck {
            if let Ok((buffer, _)) = self.wait() {
                self.free.push(buffer);
            }
        }
    }

    /// Does one thing and waits for it; nothing may be in flight.
    ///
    /// # Errors
    /// What `work` gives; `Stuck`.
    pub(crate) fn run<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&dyn CardDevice, &mut AlignedBuffer) -> Result<T, CardError> + Send + 'static,
    ) -> Result<T, CardError> {
        if self.stuck {
            return Err(self.stuck());
        }
        let buffer = self.take_buffer().expect("nothing is in flight");
        let (give, given) = channel();
        let work = move |device: &dyn CardDevice, buffer: &mut AlignedBuffer| {
            // Fails only when nobody waits any more.
            let _ = give.send(work(device, buffer)?);
            Ok(Moved::default())
        };
        self.submit(buffer, Box::new(work));
        let (buffer, result) = self.wait()?;
        self.free.push(buffer);
        result.map(|_| given.recv().expect("work that ended well has given its result"))
    }
}

impl Drop for Lanes {
    /// Waits until the lanes have let go of the device, but for one that is stuck.
    fn drop(&mut self) {
        self.orders = None;
        if self.stuck || self.in_flight() {
            return;
        }
        for thread in self.threads.drain(..) {
            // Its panic was passed on when its work ended.
            let _ = thread.join();
        }
    }
}
