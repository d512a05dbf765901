//! The clock and the maker of ids: the only places where time and randomness come in. Tests move the clock.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use cardshop_protocol::ids::ObjectId;
use cardshop_protocol::time::Timestamp;

use crate::{Scheduler, SchedulerError};

/// The system's clock, with an offset for tests and simulations.
#[derive(Default)]
pub(crate) struct Clock {
    offset_ms: AtomicU64,
}

impl Clock {
    pub(crate) fn now(&self) -> Timestamp {
        let offset = Duration::from_millis(self.offset_ms.load(Ordering::Relaxed));
        Timestamp::from_system(SystemTime::now()) + offset
    }
}

/// Makes ULIDs that grow, also within a millisecond, so that stories keep their order.
#[derive(Default)]
pub(crate) struct Ids {
    last: Mutex<(u64, u128)>,
}

impl Ids {
    pub(crate) fn next(&self, now: Timestamp) -> ObjectId {
        let mut last = self.last.lock().expect("no holder panics");
        if now.as_ms() > last.0 {
            // The top bit stays clear, so that counting up within a millisecond never overflows 80 bits.
            let mut random = [0; 16];
            random[6..].copy_from_slice(&random_bytes::<10>());
            random[6] &= 0x7f;
            *last = (now.as_ms(), u128::from_be_bytes(random));
        } else {
            last.1 += 1;
        }
        ObjectId::from_parts(last.0, last.1)
    }
}

/// Randomness from the system.
///
/// # Panics
/// When the system has none: `start` has asked once and refused to go on without.
pub(crate) fn random_bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the system gave randomness at start");
    bytes
}

/// Asks once, so that later calls may rely on it.
pub(crate) fn check_randomness() -> Result<(), SchedulerError> {
    let mut probe = [0; 32];
    getrandom::fill(&mut probe)?;
    Ok(())
}

impl Scheduler {
    /// The time, as everything here sees it.
    pub fn now(&self) -> Timestamp {
        self.inner.clock.now()
    }

    /// Moves the clock forward: for tests and simulations that cannot wait a day.
    pub fn advance_clock(&self, by: Duration) {
        let by = u64::try_from(by.as_millis()).unwrap_or(u64::MAX);
        self.inner.clock.offset_ms.fetch_add(by, Ordering::Relaxed);
    }

    /// A new id.
    pub(crate) fn next_id(&self) -> ObjectId {
        self.inner.ids.next(self.now())
    }
}
