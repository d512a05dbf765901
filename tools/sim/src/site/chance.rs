//! Chance by a seed. Everybody has a source of their own, so that taking one fault out of a life changes as little as
//! possible of what the others do.

use std::ops::Range;

use cardshop_protocol::ids::ObjectId;

/// One source of chance.
pub(super) struct Chance(fastrand::Rng);

impl Chance {
    /// The source that `whose` has under `seed`.
    pub(super) fn of(seed: u64, whose: &str) -> Self {
        let digest = blake3::hash(format!("cardshop sim {seed} {whose}").as_bytes());
        let start = digest.as_bytes()[..8].try_into().expect("a digest has 32 bytes");
        Self(fastrand::Rng::with_seed(u64::from_le_bytes(start)))
    }

    /// A number of a range.
    pub(super) fn from(&mut self, range: Range<u64>) -> u64 {
        self.0.u64(range)
    }

    /// True so many times in a hundred.
    pub(super) fn percent(&mut self, percent: u64) -> bool {
        self.0.u64(0..100) < percent
    }

    /// One of these.
    pub(super) fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.0.usize(0..of.len())]
    }

    /// An id that begins with the time, as all have.
    pub(super) fn id(&mut self, now_ms: u64) -> ObjectId {
        ObjectId::from_parts(now_ms, self.0.u128(..))
    }
}
