//! How the parts of a site are, for everybody: `/status` shows it. Decides from what was last seen; `effects::reach` looks.

use cardshop_protocol::time::Timestamp;

/// Orders that may wait for a creator: at twenty minutes for an image one creator is two days behind then.
pub const QUEUE_LIMIT: usize = 150;

/// How a part is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// It works.
    Good,
    /// It is away, and nothing needs it now.
    Resting,
    /// It is away, and something needs it.
    Failed,
}

/// One part. Names nothing that is not public.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// `store`, `broker`, `background`, `warehouses`, `creators`, `queue`, `appliances`, `auto-images`.
    pub key: &'static str,
    /// How it is.
    pub health: Health,
    /// Of these that are there.
    pub count: usize,
    /// How many there are, or may be.
    pub of: usize,
}

/// What was seen of what lies outside of the scheduler.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    /// When somebody looked last.
    pub(crate) at: Option<Timestamp>,
    pub(crate) warehouses: (usize, usize),
    /// Public auto-images whose download answers, of those that are built.
    pub(crate) auto_images: (usize, usize),
    pub(crate) waiting: usize,
    pub(crate) creators: usize,
    pub(crate) cards_wanted: u64,
    /// Online, of those that are approved.
    pub(crate) appliances: (usize, usize),
}

/// The parts outside of the scheduler.
pub(crate) fn parts(seen: &Seen) -> Vec<Part> {
    let all = |(count, of): (usize, usize)| if count == of { Health::Good } else { Health::Failed };
    let there = |count: usize, needed: bool| match (count, needed) {
        (0, true) => Health::Failed,
        (0, false) => Health::Resting,
        _ => Health::Good,
    };
    let part = |key, health, (count, of)| Part { key, health, count, of };
    let queue = if seen.waiting <= QUEUE_LIMIT { Health::Good } else { Health::Failed };
    let wanted = seen.cards_wanted > 0;
    vec![
        part("warehouses", all(seen.warehouses), seen.warehouses),
        part("creators", there(seen.creators, seen.waiting > 0), (seen.creators, seen.creators)),
        part("queue", queue, (seen.waiting, QUEUE_LIMIT)),
        part("appliances", there(seen.appliances.0, wanted && seen.appliances.1 > 0), seen.appliances),
        part("auto-images", all(seen.auto_images), seen.auto_images),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(seen: &Seen) -> Vec<&'static str> {
        parts(seen).into_iter().filter(|p| p.health == Health::Failed).map(|p| p.key).collect()
    }

    #[test]
    fn who_is_away_matters_only_while_there_is_work_for_them() {
        let mut seen = Seen { warehouses: (1, 1), appliances: (0, 2), ..Seen::default() };
        assert_eq!(failed(&seen), [""; 0]);
        (seen.waiting, seen.cards_wanted) = (1, 3);
        assert_eq!(failed(&seen), ["creators", "appliances"]);
        (seen.creators, seen.appliances) = (1, (1, 2));
        assert_eq!(failed(&seen), [""; 0]);
        seen.waiting = QUEUE_LIMIT + 1;
        (seen.warehouses, seen.auto_images) = ((1, 2), (0, 1));
        assert_eq!(failed(&seen), ["warehouses", "queue", "auto-images"]);
        assert_eq!(
            failed(&Seen { cards_wanted: 9, ..Seen::default() }),
            [""; 0],
            "a site without appliances"
        );
    }
}
