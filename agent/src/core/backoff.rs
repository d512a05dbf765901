//! How long to wait before the next try: doubled after every failure up to a limit, with jitter so that a
//! thousand appliances do not come back in the same second. The caller brings the randomness.

use std::time::Duration;

/// Waiting times of one kind of retry.
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    failures: u32,
}

impl Backoff {
    /// From `first` after one failure to at most `longest`.
    pub fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, failures: 0 }
    }

    /// It worked: the next failure waits `first` again.
    pub fn reset(&mut self) {
        self.failures = 0;
    }

    /// It failed: how long to wait now. `random` moves the answer inside its upper half.
    pub fn failed(&mut self, random: u32) -> Duration {
        // 2^16 times any useful `first` is beyond any useful `longest`.
        let doubled = self.first.saturating_mul(1 << self.failures.min(16)).min(self.longest);
        self.failures = self.failures.saturating_add(1);
        doubled / 2 + doubled.mul_f64(f64::from(random) / f64::from(u32::MAX) / 2.0)
    }

    /// Failures since the last success.
    pub fn failures(&self) -> u32 {
        self.failures
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_limit_and_start_again_after_a_success() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(10));
        let waits: Vec<u64> = (0..6).map(|_| backoff.failed(u32::MAX).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 10, 10]);
        assert_eq!(backoff.failed(0), Duration::from_secs(5));
        backoff.reset();
        assert_eq!(backoff.failed(u32::MAX), Duration::from_secs(1));
    }

    #[test]
    fn no_number_of_failures_overflows() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
        backoff.failures = u32::MAX;
        assert_eq!(backoff.failed(u32::MAX), Duration::from_secs(60));
    }
}
