//! What may stay in the cache: images somebody needs are never deleted, of the others the one that was used
//! longest ago goes first. An image is let in only when it fits beside what the others still have to fetch, so
//! that two fetches never fill the disk together.

use cardshop_protocol::ids::ImageId;
use cardshop_protocol::time::Timestamp;

/// One image in the cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// Which.
    pub image: ImageId,
    /// Bytes it takes on the disk now.
    pub used_bytes: u64,
    /// Bytes it will take when it is whole; 0 when nobody fetches it.
    pub whole_bytes: u64,
    /// A lease needs it.
    pub needed: bool,
    /// When it was used last.
    pub used: Timestamp,
}

/// The disk and what may be taken of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// Bytes that are free.
    pub free_bytes: u64,
    /// Bytes that are to stay free.
    pub margin_bytes: u64,
    /// Most bytes the cache may take; `None` = the disk decides.
    pub budget_bytes: Option<u64>,
}

/// What follows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It fits once these are deleted.
    Fits(Vec<ImageId>),
    /// It would not fit if everything were deleted that nobody needs.
    Short {
        /// Bytes that are missing.
        missing_bytes: u64,
    },
}

/// Says whether `image` may grow to `whole_bytes`, and what has to go for it.
pub fn make_room(image: ImageId, whole_bytes: u64, held: &[Held], space: &Space) -> Verdict {
    let used = |h: &Held| h.used_bytes;
    let own = held.iter().filter(|h| h.image == image).map(used).sum::<u64>();
    let others = || held.iter().filter(|h| h.image != image);
    let to_come = |h: &Held| if h.needed { h.whole_bytes.saturating_sub(h.used_bytes) } else { 0 };
    let to_come = others().map(to_come).fold(whole_bytes.saturating_sub(own), u64::saturating_add);
    let on_disk = others().map(used).fold(own, u64::saturating_add);

    let over_disk = to_come.saturating_add(space.margin_bytes).saturating_sub(space.free_bytes);
    let over_budget =
        space.budget_bytes.map_or(0, |most| on_disk.saturating_add(to_come).saturating_sub(most));
    let mut missing_bytes = over_disk.max(over_budget);

    let mut idle: Vec<&Held> = others().filter(|h| !h.needed).collect();
    idle.sort_by_key(|h| (h.used, h.image));
    let mut delete = Vec::new();
    for image in idle {
        if missing_bytes == 0 {
            break;
        }
        missing_bytes = missing_bytes.saturating_sub(image.used_bytes);
        delete.push(image.image);
    }
    // Nothing is thrown away for what does not fit even so: it may still save a fetch.
    if missing_bytes > 0 { Verdict::Short { missing_bytes } } else { Verdict::Fits(delete) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn held(n: u8, used_bytes: u64, whole_bytes: u64, needed: bool, used: u64) -> Held {
        Held { image: ImageId([n; 32]), used_bytes, whole_bytes, needed, used: Timestamp::from_ms(used) }
    }
    fn space(free_bytes: u64, budget_bytes: Option<u64>) -> Space {
        Space { free_bytes, margin_bytes: 10, budget_bytes }
    }
    const NEW: ImageId = ImageId([9; 32]);

    #[test]
    fn the_longest_unused_goes_first_and_only_as_many_as_must() {
        let cache = [held(1, 50, 0, false, 30), held(2, 50, 0, false, 10), held(3, 50, 50, true, 1)];
        assert_eq!(make_room(NEW, 90, &cache, &space(100, None)), Verdict::Fits(vec![]));
        let oldest = vec![ImageId([2; 32])];
        assert_eq!(make_room(NEW, 91, &cache, &space(100, None)), Verdict::Fits(oldest));
        assert_eq!(
            make_room(NEW, 200, &cache, &space(100, None)),
            Verdict::Short { missing_bytes: 10 },
            "the needed one stays, and nothing is deleted in vain"
        );
    }

    #[test]
    fn two_fetches_do_not_count_on_the_same_room() {
        let cache = [held(1, 20, 100, true, 1)];
        assert_eq!(make_room(NEW, 100, &cache, &space(150, None)), Verdict::Short { missing_bytes: 40 });
        let cache = [held(1, 20, 100, true, 1), held(9, 100, 0, false, 1)];
        assert_eq!(
            make_room(NEW, 100, &cache, &space(90, None)),
            Verdict::Fits(vec![]),
            "what is here counts"
        );
    }

    #[test]
    fn a_budget_below_the_disk_is_kept() {
        let cache = [held(1, 60, 0, false, 1)];
        assert_eq!(make_room(NEW, 40, &cache, &space(1000, Some(100))), Verdict::Fits(vec![]));
        assert_eq!(make_room(NEW, 41, &cache, &space(1000, Some(100))), Verdict::Fits(vec![cache[0].image]));
        assert_eq!(
            make_room(NEW, 141, &cache, &space(1000, Some(100))),
            Verdict::Short { missing_bytes: 41 }
        );
    }

    proptest! {
        #[test]
        fn nothing_needed_is_deleted_and_what_fits_fits(
            images in prop::collection::vec((0u64..1000, 0u64..1000, any::<bool>(), 0u64..50), 0..12),
            whole in 0u64..3000, free in 0u64..3000, budget in prop::option::of(0u64..6000),
        ) {
            let cache: Vec<Held> = images.iter().enumerate()
                .map(|(n, (used, whole, needed, when))| held(n as u8 + 10, *used, *whole, *needed, *when)).collect();
            let space = space(free, budget);
            let verdict = make_room(NEW, whole, &cache, &space);
            let delete = match &verdict { Verdict::Fits(delete) => delete.clone(), Verdict::Short { .. } => vec![] };
            let gone = |h: &&Held| delete.contains(&h.image);
            prop_assert!(!cache.iter().filter(gone).any(|h| h.needed));
            let freed: u64 = cache.iter().filter(gone).map(|h| h.used_bytes).sum();
            let to_come: u64 = whole
                + cache.iter().filter(|h| h.needed).map(|h| h.whole_bytes.saturating_sub(h.used_bytes)).sum::<u64>();
            let on_disk: u64 = cache.iter().map(|h| h.used_bytes).sum();
            let fits = |freed: u64| to_come + 10 <= free + freed
                && budget.is_none_or(|most| on_disk - freed + to_come <= most);
            let idle: u64 = cache.iter().filter(|h| !h.needed).map(|h| h.used_bytes).sum();
            match verdict {
                Verdict::Fits(_) => prop_assert!(fits(freed)),
                Verdict::Short { .. } => prop_assert!(!fits(idle)),
            }
            // The last deletion was one too few without it.
            if let Some(last) = delete.last() {
                let bytes = cache.iter().find(|h| h.image == *last).map_or(0, |h| h.used_bytes);
                prop_assert!(bytes == 0 || !fits(freed - bytes));
            }
        }
    }
}
