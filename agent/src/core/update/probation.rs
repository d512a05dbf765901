//! Whether a version that is being tried is kept. Pure.

use std::time::Duration;

use super::Facts;

/// How long it has to run. **Source:** the appliance's contract.
pub const GOOD_AFTER: Duration = Duration::from_secs(60);
/// How long it has for everything, the server included. **Source:** the same.
pub const PATIENCE: Duration = Duration::from_secs(600);

/// A version that runs and is not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Probation {
    /// The version before had reached the server: this one has to, too.
    must_reach: bool,
}

/// What follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is too early.
    Wait,
    /// It stays.
    Keep,
    /// The set before is to run again.
    GiveUp(&'static str),
}

impl Probation {
    /// A trial begins with the start of this program.
    pub fn begin(must_reach: bool) -> Self {
        Self { must_reach }
    }

    /// What follows from what is known. `reached`: since the start, be it only once.
    pub fn verdict(self, facts: Facts<'_>, state_works: bool, reached: bool) -> Verdict {
        let missing = if !state_works {
            Some("with it the state partition cannot be written")
        } else if !facts.readers_listed {
            Some("with it the readers are not found")
        } else if self.must_reach && !reached {
            Some("with it the server is not reached")
        } else {
            None
        };
        match missing {
            None if facts.uptime >= GOOD_AFTER => Verdict::Keep,
            Some(why) if facts.uptime >= PATIENCE => Verdict::GiveUp(why),
            _ => Verdict::Wait,
        }
    }
}
