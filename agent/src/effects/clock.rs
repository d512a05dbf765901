//! The time of day: the system's clock, put right by what the server says over MQTT when they differ by more
//! than a person would notice. An appliance without a battery-backed clock starts in the past; its leases go
//! on all the same, because their ends are in the future then.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::SystemTime;

use cardshop_protocol::time::Timestamp;

/// Smaller differences are the network's, not the clock's.
const TOLERANCE_MS: i64 = 5_000;
/// Value of the offset before the server was heard.
const UNHEARD: i64 = i64::MIN;

/// Shared by all threads; clones are the same clock.
#[derive(Debug, Clone)]
pub(crate) struct Clock(Arc<AtomicI64>);

impl Default for Clock {
    fn default() -> Self {
        Self(Arc::new(AtomicI64::new(UNHEARD)))
    }
}

impl Clock {
    /// Now.
    pub(crate) fn now(&self) -> Timestamp {
        let system = Timestamp::from_system(SystemTime::now());
        match self.offset_ms() {
            Some(offset) if offset.abs() > TOLERANCE_MS => {
                Timestamp::from_ms(system.as_ms().saturating_add_signed(offset))
            }
            _ => system,
        }
    }

    /// The server has said what time it is.
    pub(crate) fn heard(&self, server: Timestamp) {
        let system = Timestamp::from_system(SystemTime::now());
        let offset = i128::from(server.as_ms()) - i128::from(system.as_ms());
        self.0.store(i64::try_from(offset).unwrap_or(UNHEARD), Ordering::Relaxed);
    }

    /// Server time minus system time, if the server was heard.
    pub(crate) fn offset_ms(&self) -> Option<i64> {
        Some(self.0.load(Ordering::Relaxed)).filter(|offset| *offset != UNHEARD)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_clock_far_off_follows_the_server_and_a_close_one_does_not() {
        let clock = Clock::default();
        let system = Timestamp::from_system(SystemTime::now());
        clock.heard(system + Duration::from_secs(2));
        assert!(clock.now().since(system) < Duration::from_secs(1));
        clock.heard(system + Duration::from_secs(3600));
        assert!(clock.now().since(system) >= Duration::from_secs(3599));
        assert!(clock.offset_ms().is_some_and(|o| o > 3_500_000));
    }
}
