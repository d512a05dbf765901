//! Account hooks: how a shop's own web site gives people an account for what they bought. Its server sends a signed request;
//! the account is made, or its end moves on. Decides only: `effects::account_hooks` stores.

use std::time::Duration;

use cardshop_protocol::ids::{Channel, ObjectId};
use cardshop_protocol::time::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How far the clock of the sender may be off, and how long a request may travel.
pub(crate) const MAX_AGE: Duration = Duration::from_secs(600);
/// Most days of one purchase.
pub(crate) const MAX_DAYS: u32 = 3660;
const DAY: Duration = Duration::from_secs(86_400);

/// One hook. Its secret follows from its id and the site's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AccountHook {
    /// Its id.
    pub id: ObjectId,
    /// What people call it.
    pub name: String,
    /// Channel of the accounts it makes.
    pub channel: Channel,
    /// Who pays for their orders.
    pub organization: Option<ObjectId>,
    /// Who made it.
    pub created_by: String,
    /// When.
    pub created: Timestamp,
    /// When it was ended.
    pub revoked: Option<Timestamp>,
}

/// What the sender signs: the body of `POST /account-hooks/{id}/purchase`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Purchase {
    /// The sender's own name of this purchase: the same one counts once.
    pub purchase: String,
    /// When it was sent.
    pub at: Timestamp,
    /// Login name of the account.
    pub username: String,
    /// Where letters to it go.
    #[serde(default)]
    pub email: Option<String>,
    /// Days that were bought.
    pub days: u32,
}

/// True when a request of `at` may be taken at `now`.
pub(crate) fn is_fresh(at: Timestamp, now: Timestamp) -> bool {
    now.since(at) <= MAX_AGE && at.since(now) <= MAX_AGE
}

/// The end of an account that ended at `before` when `days` more are bought at `now`.
pub(crate) fn extended(before: Option<Timestamp>, days: u32, now: Timestamp) -> Timestamp {
    before.map_or(now, |end| end.max(now)) + DAY * days
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_added_to_what_is_left_and_what_has_ended_begins_anew() {
        let at = |days: u32| Timestamp::from_ms(1_790_000_000_000) + DAY * days;
        assert_eq!(extended(None, 30, at(0)), at(30));
        assert_eq!(extended(Some(at(10)), 30, at(0)), at(40));
        assert_eq!(extended(Some(at(10)), 30, at(20)), at(50));
    }

    #[test]
    fn a_request_of_long_ago_or_of_the_future_is_not_taken() {
        let at = |s: u64| Timestamp::from_ms(1_790_000_000_000 + s * 1000);
        assert!(is_fresh(at(0), at(600)) && is_fresh(at(600), at(0)));
        assert!(!is_fresh(at(0), at(601)) && !is_fresh(at(601), at(0)));
    }
}
