//! How fast bytes may be fetched: a token bucket that all fetches share. Bytes that have arrived are paid for
//! afterwards, so the answer is how long to wait before reading on; whoever asks waits, nothing here does.
//!
//! **Source:** the shape is that of a packet pacer: `now` is an argument, so the arithmetic can be tested.

use std::time::Duration;

/// What may arrive at once after a pause, as time at the full rate: longer than a scheduler's tick, short enough
/// that nobody on the same line notices.
const BURST: Duration = Duration::from_millis(100);

/// A shared limit.
#[derive(Debug)]
pub struct Bucket {
    /// Bytes a second; `None` = no limit.
    limit_bps: Option<u64>,
    /// When all that was taken so far will have been paid for.
    paid_at: Duration,
}

impl Bucket {
    /// A limit in bytes a second, or none. A limit of 0 is taken as 1: nothing would ever end.
    pub fn new(limit_bps: Option<u64>) -> Self {
        Self { limit_bps: limit_bps.map(|bps| bps.max(1)), paid_at: Duration::ZERO }
    }

    /// Takes `bytes` at `now` (any clock that does not go back) and says how long to wait before the next are
    /// taken.
    pub fn take(&mut self, now: Duration, bytes: u64) -> Duration {
        let Some(bps) = self.limit_bps else { return Duration::ZERO };
        // What was not used is kept for one burst and no longer.
        let from = self.paid_at.max(now.saturating_sub(BURST));
        let nanoseconds = u128::from(bytes) * 1_000_000_000 / u128::from(bps);
        let cost = Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX));
        self.paid_at = from.saturating_add(cost);
        self.paid_at.saturating_sub(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn without_a_limit_nobody_waits_and_a_limit_of_nothing_still_ends() {
        assert_eq!(Bucket::new(None).take(Duration::ZERO, u64::MAX), Duration::ZERO);
        assert!(Bucket::new(Some(0)).take(Duration::ZERO, 10) <= Duration::from_secs(10));
        let _ = Bucket::new(Some(1)).take(Duration::MAX, u64::MAX);
    }

    #[test]
    fn after_a_pause_one_burst_is_free_and_not_more() {
        let mut bucket = Bucket::new(Some(1000));
        let hour = Duration::from_secs(3600);
        assert_eq!(bucket.take(hour, 100), Duration::ZERO, "100 ms at 1000 bytes a second");
        assert_eq!(bucket.take(hour, 1000), Duration::from_secs(1));
    }

    proptest! {
        /// Whoever waits as told never exceeds the rate over any stretch, but for one burst and one piece, and
        /// is not kept below it either.
        #[test]
        fn the_rate_is_kept_and_reached(
            bps in 1000u64..100_000_000, pieces in prop::collection::vec((1u64..300_000, 0u64..50), 1..200),
        ) {
            let mut bucket = Bucket::new(Some(bps));
            let start = Duration::from_secs(5);
            let (mut now, mut taken, mut idle) = (start, 0u64, Duration::ZERO);
            for (bytes, pause_ms) in pieces {
                let wait = bucket.take(now, bytes);
                taken += bytes;
                let pause = Duration::from_millis(pause_ms);
                idle += pause;
                now += wait + pause;
            }
            let span = (now - start).as_secs_f64();
            let allowed = bps as f64 * (span + BURST.as_secs_f64());
            prop_assert!(taken as f64 <= allowed + 1000.0, "{taken} bytes in {span} s");
            let busy = (now - start).saturating_sub(idle).as_secs_f64();
            prop_assert!(taken as f64 + 1000.0 >= bps as f64 * busy, "{taken} bytes in {busy} s of waiting");
        }
    }
}
