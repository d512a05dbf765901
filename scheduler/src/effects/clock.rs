//! The clock and the maker of ids: the only places where time and randomness come in. Tests move the clock, simulations
//! have one of their own, and ids by a seed.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use cardshop_protocol::ids::ObjectId;
use cardshop_protocol::time::Timestamp;

use crate::{Scheduler, SchedulerError};

/// The system's clock, with an offset for tests.
#[derive(Default)]
pub(crate) struct Clock {
    offset_ms: AtomicU64,
    /// Milliseconds since 1970 instead of the system's.
    simulated: Option<Arc<AtomicU64>>,
}

impl Clock {
    /// One that shows what a simulation says.
    pub(crate) fn simulated(ms: Arc<AtomicU64>) -> Self {
        Self { offset_ms: AtomicU64::default(), simulated: Some(ms) }
    }

    pub(crate) fn now(&self) -> Timestamp {
        let offset = Duration::from_millis(self.offset_ms.load(Ordering::Relaxed));
        let now = match &self.simulated {
            Some(ms) => Timestamp::from_ms(ms.load(Ordering::Relaxed)),
            None => Timestamp::from_system(SystemTime::now()),
        };
        now + offset
    }
}

/// Makes ULIDs that grow, also within a millisecond, so that stories keep their order.
#[derive(Default)]
pub(crate) struct Ids {
    last: Mutex<(u64, u128)>,
    /// Where a simulation's ids come from: a seed, and how many were made of it.
    seeded: Option<(u64, Arc<AtomicU64>)>,
}

impl Ids {
    /// Ids of a simulation: `made` goes on counting when the scheduler starts anew.
    pub(crate) fn seeded(seed: u64, made: Arc<AtomicU64>) -> Self {
        Self { last: Mutex::default(), seeded: Some((seed, made)) }
    }

    fn random(&self) -> [u8; 10] {
        let Some((seed, made)) = &self.seeded else { return random_bytes() };
        let made = made.fetch_add(1, Ordering::Relaxed);
        let digest = blake3::hash(format!("cardshop simulated id {seed} {made}").as_bytes());
        digest.as_bytes()[..10].try_into().expect("a digest has 32 bytes")
    }

    pub(crate) fn next(&self, now: Timestamp) -> ObjectId {
        let mut last = self.last.lock().expect("no holder panics");
        if now.as_ms() > last.0 {
            // The top bit stays clear, so that counting up within a millisecond never overflows 80 bits.
            let mut random = [0; 16];
            random[6..].copy_from_slice(&self.random());
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

    /// Moves the clock forward: for tests that cannot wait a day.
    pub fn advance_clock(&self, by: Duration) {
        let by = u64::try_from(by.as_millis()).unwrap_or(u64::MAX);
        self.inner.clock.offset_ms.fetch_add(by, Ordering::Relaxed);
    }

    /// A new id.
    pub(crate) fn next_id(&self) -> ObjectId {
        self.inner.ids.next(self.now())
    }
}
