//! How often somebody may fail: a token bucket per key, in a table of bounded size. Only failures cost, so that a
//! right password or a valid token is never blocked by its own use. Pure: `now` is an argument.

use std::collections::HashMap;
use std::time::Duration;

use cardshop_protocol::time::Timestamp;

/// Keys remembered; beyond it the ones that have recovered, then all, are forgotten.
const MAX_KEYS: usize = 10_000;

/// A bucket of failures that refills with time.
#[derive(Debug)]
pub(crate) struct Throttle {
    burst: u32,
    refill: Duration,
    /// Key → the moment at which all its failures will have been forgiven.
    forgiven_at: HashMap<String, Timestamp>,
}

impl Throttle {
    /// Allows `burst` failures at once and forgives one every `refill`.
    pub(crate) fn new(burst: u32, refill: Duration) -> Self {
        Self { burst, refill, forgiven_at: HashMap::new() }
    }

    /// True when `key` may try at `now`.
    pub(crate) fn allows(&self, key: &str, now: Timestamp) -> bool {
        let debt = self.forgiven_at.get(key).map_or(Duration::ZERO, |at| at.since(now));
        debt + self.refill <= self.refill * self.burst
    }

    /// Notes a failure of `key`.
    pub(crate) fn failed(&mut self, key: &str, now: Timestamp) {
        if self.forgiven_at.len() >= MAX_KEYS && !self.forgiven_at.contains_key(key) {
            self.forgiven_at.retain(|_, at| *at > now);
            if self.forgiven_at.len() >= MAX_KEYS {
                self.forgiven_at.clear();
            }
        }
        let at = self.forgiven_at.entry(key.to_owned()).or_insert(now);
        *at = (*at).max(now) + self.refill;
    }

    /// Forgets the failures of `key`.
    pub(crate) fn succeeded(&mut self, key: &str) {
        self.forgiven_at.remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_the_burst_one_try_is_allowed_per_refill_and_success_forgives() {
        let mut throttle = Throttle::new(3, Duration::from_secs(10));
        let at = |s: u64| Timestamp::from_ms(1_000_000 + s * 1000);
        for _ in 0..3 {
            assert!(throttle.allows("ada", at(0)));
            throttle.failed("ada", at(0));
        }
        assert!(!throttle.allows("ada", at(0)));
        assert!(throttle.allows("bob", at(0)), "others are not held up");
        assert!(!throttle.allows("ada", at(9)));
        assert!(throttle.allows("ada", at(10)));
        throttle.failed("ada", at(10));
        assert!(!throttle.allows("ada", at(10)));
        throttle.succeeded("ada");
        assert!(throttle.allows("ada", at(10)));
    }

    #[test]
    fn the_table_never_grows_past_its_limit() {
        let mut throttle = Throttle::new(3, Duration::from_secs(10));
        for n in 0..MAX_KEYS * 2 {
            throttle.failed(&n.to_string(), Timestamp::from_ms(1));
        }
        assert!(throttle.forgiven_at.len() <= MAX_KEYS);
    }
}
