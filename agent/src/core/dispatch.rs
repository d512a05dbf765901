//! Which copy a card takes next. The card's size decides among the leases it is large enough for; of those
//! the highest priority goes first, then the oldest lease, then the lowest copy. A copy that is verified,
//! withdrawn or in another slot is never chosen.

use std::collections::{BTreeMap, BTreeSet};

use cardshop_protocol::ids::{LeaseId, OrderId};
use cardshop_protocol::message::{Desired, Fault, Lease, Verify};
use cardshop_protocol::time::Timestamp;

use super::event::Work;
use super::history::History;

/// What a card of some size is to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Choice {
    /// This copy.
    Take(Box<Work>),
    /// There is work, and the card is too small for all of it.
    TooSmall {
        /// Bytes of the smallest card that would do.
        min_bytes: u64,
    },
    /// There is no work.
    Nothing,
}

/// Everything a choice depends on, at one moment.
pub struct Dispatch<'a> {
    leases: Vec<&'a Lease>,
    history: &'a History,
    /// Copies in slots.
    taken: &'a BTreeSet<(OrderId, u32)>,
}

impl<'a> Dispatch<'a> {
    /// Looks at the leases, with `done` in rising order, under which a new card may be begun at `now`.
    pub fn new(
        now: Timestamp,
        desired: Option<&'a Desired>,
        refused: &BTreeMap<LeaseId, Fault>,
        history: &'a History,
        taken: &'a BTreeSet<(OrderId, u32)>,
    ) -> Self {
        let leases = desired.map_or(&[][..], |d| &d.leases);
        let mut leases: Vec<&Lease> = leases
            .iter()
            .filter(|l| now <= l.not_after && is_doable(l) && !refused.contains_key(&l.lease))
            .collect();
        leases.sort_by_key(|l| (std::cmp::Reverse(l.priority), l.lease));
        Self { leases, history, taken }
    }

    /// What a card of `size` bytes takes.
    pub fn choose(&self, size: u64) -> Choice {
        let mut smallest: Option<u64> = None;
        for lease in &self.leases {
            let Some(copy) = self.open_copies(lease).next() else { continue };
            if size >= lease.min_card_bytes {
                return Choice::Take(Box::new(Work::of(lease, copy)));
            }
            smallest = Some(smallest.map_or(lease.min_card_bytes, |s| s.min(lease.min_card_bytes)));
        }
        smallest.map_or(Choice::Nothing, |min_bytes| Choice::TooSmall { min_bytes })
    }

    /// The smallest cards that the next `count` open copies need, in the order they are chosen.
    pub fn wanted_sizes(&self, count: usize) -> Vec<u64> {
        let sizes = |lease: &'a Lease| self.open_copies(lease).map(move |_| lease.min_card_bytes);
        self.leases.iter().flat_map(|lease| sizes(lease)).take(count).collect()
    }

    fn open_copies(&self, lease: &'a Lease) -> impl Iterator<Item = u32> + '_ {
        (lease.copies.first..=lease.copies.last)
            .filter(move |copy| is_open(lease, *copy, self.history, self.taken))
    }
}

/// True when a lease can be worked under: without a read-back no card would ever count as verified.
pub fn is_doable(lease: &Lease) -> bool {
    lease.verify != Verify::None
}

fn is_open(lease: &Lease, copy: u32, history: &History, taken: &BTreeSet<(OrderId, u32)>) -> bool {
    copy > 0
        && lease.done.binary_search(&copy).is_err()
        && !history.is_verified(lease.order, copy)
        && !taken.contains(&(lease.order, copy))
}

/// True when a copy of this lease is still to be verified, in a slot or not.
pub fn has_work_left(lease: &Lease, history: &History) -> bool {
    let nobody = BTreeSet::new();
    is_doable(lease) && (lease.copies.first..=lease.copies.last).any(|c| is_open(lease, c, history, &nobody))
}

/// The lease that still asks for this copy, if any.
pub fn lease_for<'a>(desired: Option<&'a Desired>, work: &Work) -> Option<&'a Lease> {
    let asks = |l: &&Lease| {
        l.order == work.order
            && l.image == work.image
            && l.copies.contains(work.copy)
            && !l.done.contains(&work.copy)
    };
    desired?.leases.iter().find(asks)
}

#[cfg(test)]
mod tests {
    use super::*;
    use cardshop_protocol::ids::{ImageId, ObjectId};
    use cardshop_protocol::message::{Copies, Settings};

    fn lease(n: u128, min_card_bytes: u64, priority: i32, done: Vec<u32>) -> Lease {
        Lease {
            lease: ObjectId::from_parts(1, n),
            order: OrderId::from_parts(2, n),
            order_name: String::new(),
            image: ImageId([n as u8; 32]),
            warehouses: vec![],
            min_card_bytes,
            copies: Copies { first: 1, last: 2 },
            done,
            total: 2,
            not_after: Timestamp::from_ms(100),
            wipe: Default::default(),
            verify: Default::default(),
            priority,
        }
    }
    fn choose(leases: Vec<Lease>, taken: &[(u128, u32)], now: u64, size: u64) -> String {
        let desired = Desired { v: 1, rev: 1, settings: Settings::default(), slots: vec![], leases };
        let taken = taken.iter().map(|(n, c)| (OrderId::from_parts(2, *n), *c)).collect();
        let history = History::default();
        let refused = BTreeMap::new();
        let now = Timestamp::from_ms(now);
        match Dispatch::new(now, Some(&desired), &refused, &history, &taken).choose(size) {
            Choice::Take(work) => format!("{} of {}", work.copy, work.image.0[0]),
            Choice::TooSmall { min_bytes } => format!("needs {min_bytes}"),
            Choice::Nothing => "nothing".into(),
        }
    }

    #[test]
    fn the_cards_size_then_priority_then_age_decide() {
        let leases = vec![lease(1, 10, 0, vec![]), lease(2, 100, 0, vec![]), lease(3, 50, 5, vec![])];
        assert_eq!(choose(leases.clone(), &[], 1, 200), "1 of 3", "priority first");
        assert_eq!(choose(leases.clone(), &[(3, 1)], 1, 200), "2 of 3", "a copy is taken once");
        assert_eq!(choose(leases.clone(), &[(3, 1), (3, 2)], 1, 200), "1 of 1", "then the oldest");
        assert_eq!(choose(leases.clone(), &[], 1, 20), "1 of 1", "the card's size decides");
        assert_eq!(choose(leases.clone(), &[], 1, 5), "needs 10");
        assert_eq!(choose(leases.clone(), &[], 101, 200), "nothing", "no card is begun after the end");
        let mut unverified = leases;
        unverified.iter_mut().for_each(|l| l.verify = Verify::None);
        assert_eq!(choose(unverified, &[], 1, 200), "nothing");
    }

    #[test]
    fn copies_that_are_done_are_not_written_again() {
        assert_eq!(choose(vec![lease(1, 10, 0, vec![1])], &[], 1, 20), "2 of 1");
        assert_eq!(choose(vec![lease(1, 10, 0, vec![1, 2])], &[], 1, 20), "nothing");
        assert_eq!(choose(vec![lease(1, 10, 0, vec![1])], &[(1, 2)], 1, 5), "nothing");
    }

    #[test]
    fn a_hostile_copy_range_is_harmless() {
        let mut odd = lease(1, 10, 0, vec![]);
        odd.copies = Copies { first: 0, last: u32::MAX };
        assert_eq!(choose(vec![odd.clone()], &[], 1, 20), "1 of 1");
        odd.copies = Copies { first: 5, last: 2 };
        assert_eq!(choose(vec![odd], &[], 1, 20), "nothing");
    }
}
