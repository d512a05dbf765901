//! Holds appliances back while the scheduler is behind. The scheduler is one client that reads what all of them
//! write: when a site comes back after an outage and every outbox is told at once, it would lose its session over
//! messages that wait just as well on the appliances' disks. Nobody else is waited for, and it not for long.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

/// Messages the scheduler may be behind. The Router's log of all appliances keeps 14,000 slot states of 300 bytes
/// at least; what is under way already when appliances are told to wait comes on top.
const MAX_BEHIND: u64 = 4_000;
/// Longest wait of one publish: a scheduler that hangs slows appliances down and does not stop them.
const LONGEST_WAIT: Duration = Duration::from_secs(1);
/// Messages read before waiting appliances are woken: each wake-up is of all of them.
const TELL_EVERY: u64 = 1_000;

/// How far appliances have written and the scheduler has read, as numbers of the exchange.
#[derive(Default)]
pub(crate) struct Pressure {
    written: AtomicU64,
    /// `None` without a scheduler.
    read: watch::Sender<Option<u64>>,
}

impl Pressure {
    /// The newest message below an appliance.
    pub(crate) fn written(&self, seq: u64) {
        self.written.store(seq, Ordering::Relaxed);
    }

    /// Waits, for a while, until the scheduler has nearly caught up.
    pub(crate) async fn wait(&self) {
        let written = self.written.load(Ordering::Relaxed);
        let near = |read: &Option<u64>| read.is_none_or(|read| written.saturating_sub(read) <= MAX_BEHIND);
        if near(&self.read.borrow()) {
            return;
        }
        // Whether it was read or took too long, the message goes on.
        timeout(LONGEST_WAIT, self.read.subscribe().wait_for(near)).await.ok();
    }
}

/// How far the scheduler's session has read; dropped with it.
pub(crate) struct Reader {
    pressure: Arc<Pressure>,
    read: u64,
    all: bool,
    told: u64,
}

impl Reader {
    /// Has read all up to `seq`.
    pub(crate) fn new(pressure: Arc<Pressure>, seq: u64) -> Self {
        pressure.read.send_replace(Some(seq));
        Self { pressure, read: seq, all: true, told: seq }
    }

    /// Has read up to `seq`; `all` when nothing more is there for it.
    pub(crate) fn has_read(&mut self, seq: u64, all: bool) {
        (self.read, self.all) = (seq, all);
    }

    /// Tells those who wait.
    pub(crate) fn tell(&mut self) {
        if self.read >= self.told + TELL_EVERY || (self.all && self.read > self.told) {
            self.told = self.read;
            self.pressure.read.send_replace(Some(self.read));
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.pressure.read.send_replace(None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn waits(pressure: &Pressure) -> bool {
        let mut wait = std::pin::pin!(pressure.wait());
        tokio::select! {
            biased;
            () = &mut wait => false,
            () = std::future::ready(()) => true,
        }
    }

    #[tokio::test]
    async fn appliances_wait_for_a_scheduler_that_is_behind_and_for_nobody_else() {
        let pressure = Arc::new(Pressure::default());
        pressure.written(2 * MAX_BEHIND);
        assert!(!waits(&pressure).await, "there is no scheduler");
        let mut reader = Reader::new(pressure.clone(), 0);
        assert!(waits(&pressure).await);
        reader.has_read(MAX_BEHIND - 1, false);
        reader.tell();
        assert!(waits(&pressure).await);
        reader.has_read(MAX_BEHIND, true);
        reader.tell();
        assert!(!waits(&pressure).await);
        pressure.written(4 * MAX_BEHIND);
        pressure.wait().await; // ends by itself
        drop(reader);
        assert!(!waits(&pressure).await, "it has gone");
    }

    #[tokio::test]
    async fn a_waiting_appliance_goes_on_as_soon_as_the_scheduler_has_read() {
        let pressure = Arc::new(Pressure::default());
        let mut reader = Reader::new(pressure.clone(), 0);
        pressure.written(MAX_BEHIND + 1);
        let read = async {
            tokio::task::yield_now().await;
            reader.has_read(TELL_EVERY, false);
            reader.tell();
        };
        let ((), ()) = tokio::join!(pressure.wait(), read);
        assert_eq!(*pressure.read.borrow(), Some(TELL_EVERY));
    }
}
