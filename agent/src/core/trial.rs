//! Network settings on trial: they are kept only when the shop is reached with them, and taken back otherwise, so that a
//! wrong address never needs a second visit. Pure; `effects::errands` applies them and asks the shop.

use std::time::{Duration, Instant};

/// How long the shop may take to be reached: a switch that learns of a new address takes 30 s.
pub const TRIAL: Duration = Duration::from_secs(60);

/// Settings that were applied a moment ago.
#[derive(Debug, Clone, Copy)]
pub struct Trial {
    begun: Instant,
    limit: Duration,
}

/// What follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Ask again, for so long at most.
    Wait(Duration),
    /// They are good.
    Keep,
    /// Back to what was before.
    RollBack,
}

impl Trial {
    /// Settings were applied; the shop has so long to be reached.
    pub fn begin(now: Instant, limit: Duration) -> Self {
        Self { begun: now, limit }
    }

    /// The shop was asked, and answered or not.
    pub fn verdict(self, now: Instant, reached: bool) -> Verdict {
        let left = self.limit.saturating_sub(now.duration_since(self.begun));
        match (reached, left.is_zero()) {
            (true, _) => Verdict::Keep,
            (false, true) => Verdict::RollBack,
            (false, false) => Verdict::Wait(left),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_kept_when_the_shop_is_reached_and_taken_back_after_a_minute() {
        let began = Instant::now();
        let trial = Trial::begin(began, TRIAL);
        let at = |s| began + Duration::from_secs(s);
        assert_eq!(trial.verdict(at(0), false), Verdict::Wait(TRIAL));
        assert_eq!(trial.verdict(at(59), false), Verdict::Wait(Duration::from_secs(1)));
        assert_eq!(trial.verdict(at(59), true), Verdict::Keep);
        assert_eq!(trial.verdict(at(60), false), Verdict::RollBack);
        assert_eq!(trial.verdict(at(61), true), Verdict::Keep, "late is better than back");
    }
}
