//! Decides which connections are taken: so many new ones a second and so many open ones of one address, and so many
//! of all. Pure; listeners tell it of every connection that comes and goes.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

use crate::limits::Limits;
use crate::stats::Refusal;

/// The connect rate is counted over this.
const WINDOW: Duration = Duration::from_secs(1);

/// Who is counted together: an IPv4 address, or the /64 that one IPv6 subscriber has at least.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Source(IpAddr);

impl Source {
    pub(crate) fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V6(v6) if !v6.is_loopback() => {
                Self(Ipv6Addr::from_bits(v6.to_bits() & (u128::MAX << 64)).into())
            }
            other => Self(other),
        }
    }
}

/// The connections there are.
pub(crate) struct Admission {
    new_per_second: u32,
    open_per_source: usize,
    open_of_all: usize,
    since: Instant,
    /// New ones of each source in the current second. Forgets all of them every second, so it never holds more
    /// sources than connections came in one.
    new: HashMap<Source, u32>,
    open: HashMap<Source, usize>,
    all: usize,
}

impl Admission {
    pub(crate) fn new(limits: &Limits, now: Instant) -> Self {
        Self {
            new_per_second: limits.connects_per_second,
            open_per_source: limits.connections_per_address,
            open_of_all: limits.connections,
            since: now,
            new: HashMap::new(),
            open: HashMap::new(),
            all: 0,
        }
    }

    /// Takes a connection in, or says why not. One that was taken is given back by [`Self::left`].
    pub(crate) fn admit(&mut self, source: Source, now: Instant) -> Result<(), Refusal> {
        if now.duration_since(self.since) >= WINDOW {
            self.since = now;
            self.new.clear();
        }
        let new = self.new.entry(source).or_default();
        *new += 1;
        if *new > self.new_per_second {
            return Err(Refusal::ConnectRate);
        }
        if self.all >= self.open_of_all {
            return Err(Refusal::Connections);
        }
        let open = self.open.entry(source).or_default();
        if *open >= self.open_per_source {
            return Err(Refusal::ConnectionsOfAddress);
        }
        *open += 1;
        self.all += 1;
        Ok(())
    }

    /// A connection of `source` has ended.
    pub(crate) fn left(&mut self, source: Source) {
        self.all -= 1;
        if let Some(open) = self.open.get_mut(&source) {
            *open -= 1;
            if *open == 0 {
                self.open.remove(&source);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(text: &str) -> Source {
        Source::of(text.parse().unwrap())
    }

    fn admission(new: u32, of_one: usize, of_all: usize, now: Instant) -> Admission {
        let limits = Limits {
            connects_per_second: new,
            connections_per_address: of_one,
            connections: of_all,
            ..Limits::default()
        };
        Admission::new(&limits, now)
    }

    #[test]
    fn each_address_has_its_own_rate_and_a_new_second_starts_anew() {
        let start = Instant::now();
        let mut admission = admission(2, 100, 100, start);
        let (one, other) = (source("10.0.0.1"), source("10.0.0.2"));
        assert_eq!(admission.admit(one, start), Ok(()));
        assert_eq!(admission.admit(one, start), Ok(()));
        assert_eq!(admission.admit(one, start), Err(Refusal::ConnectRate));
        assert_eq!(admission.admit(other, start), Ok(()));
        assert_eq!(admission.admit(one, start + Duration::from_millis(999)), Err(Refusal::ConnectRate));
        assert_eq!(admission.admit(one, start + Duration::from_millis(1000)), Ok(()));
    }

    #[test]
    fn one_address_cannot_take_all_places_and_places_become_free_again() {
        let now = Instant::now();
        let mut admission = admission(100, 2, 3, now);
        let (one, other) = (source("10.0.0.1"), source("10.0.0.2"));
        assert_eq!(admission.admit(one, now), Ok(()));
        assert_eq!(admission.admit(one, now), Ok(()));
        assert_eq!(admission.admit(one, now), Err(Refusal::ConnectionsOfAddress));
        assert_eq!(admission.admit(other, now), Ok(()));
        assert_eq!(admission.admit(other, now), Err(Refusal::Connections));
        admission.left(one);
        assert_eq!(admission.admit(one, now), Ok(()));
        for gone in [one, one, other] {
            admission.left(gone);
        }
        assert!(admission.open.is_empty(), "who has left is forgotten");
    }

    #[test]
    fn ipv6_neighbours_are_one_and_mapped_ipv4_is_ipv4() {
        assert_eq!(source("2001:db8:1:2::1"), source("2001:db8:1:2:ffff::9"));
        assert_ne!(source("2001:db8:1:2::1"), source("2001:db8:1:3::1"));
        assert_eq!(source("::ffff:10.0.0.1"), source("10.0.0.1"));
        assert_ne!(source("::1"), source("::2"));
    }
}
