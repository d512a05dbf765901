//! Counts failed logins by account and address, so that the log tells of an attack without becoming one. Pure. It
//! blocks nobody: a valid token is cheap to check and always good.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::admission::Source;

/// Failures are counted over this.
const WINDOW: Duration = Duration::from_secs(60);
/// Pairs that are counted one by one; what comes beyond shares one count.
const MAX_PAIRS: usize = 10_000;

/// Failed logins in the current minute.
pub(crate) struct Failures {
    since: Instant,
    counts: HashMap<(String, Source), u64>,
    others: u64,
}

impl Failures {
    pub(crate) fn new(now: Instant) -> Self {
        Self { since: now, counts: HashMap::new(), others: 0 }
    }

    /// Counts one. Gives its number in this minute when it is worth a line in the log: the 1st, 2nd, 4th, 8th …
    pub(crate) fn failed(&mut self, account: &str, source: Source, now: Instant) -> Option<u64> {
        if now.duration_since(self.since) >= WINDOW {
            *self = Self::new(now);
        }
        let key = (account.to_owned(), source);
        let count = if self.counts.len() < MAX_PAIRS || self.counts.contains_key(&key) {
            self.counts.entry(key).or_default()
        } else {
            &mut self.others
        };
        *count += 1;
        count.is_power_of_two().then_some(*count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(n: u32) -> Source {
        Source::of(std::net::Ipv4Addr::from(n).into())
    }

    #[test]
    fn failures_of_one_account_and_address_are_told_ever_more_rarely() {
        let now = Instant::now();
        let mut failures = Failures::new(now);
        let told: Vec<u64> = (0..20).filter_map(|_| failures.failed("ada", source(1), now)).collect();
        assert_eq!(told, [1, 2, 4, 8, 16]);
        assert_eq!(failures.failed("ada", source(2), now), Some(1), "another address");
        assert_eq!(failures.failed("max", source(1), now), Some(1), "another account");
        assert_eq!(failures.failed("ada", source(1), now + WINDOW), Some(1), "another minute");
    }

    #[test]
    fn many_addresses_take_no_more_memory_than_the_limit() {
        let now = Instant::now();
        let mut failures = Failures::new(now);
        for n in 0..20_000 {
            failures.failed("ada", source(n), now);
        }
        assert_eq!((failures.counts.len(), failures.others), (MAX_PAIRS, 10_000));
    }
}
