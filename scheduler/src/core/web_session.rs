//! A login on the pages. It ends by itself when nobody uses it, and in the end in any case; until then its token is made
//! anew while it is used. Decides only: `effects::web_sessions` stores.
//!
//! ```text
//! log in ──► counts ──used──► counts, 60 minutes more, never past 12 hours
//!              └─ not used for 60 minutes, 12 hours old, logged out, or its user's tokens ended ──► over
//! ```

use std::time::Duration;

use cardshop_protocol::ids::ObjectId;
use cardshop_protocol::time::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A session that nobody uses for this long ends: the life of an access token.
pub(crate) const IDLE: Duration = Duration::from_secs(3600);
/// A session ends after this in any case: a shift and what comes after it.
pub(crate) const LONGEST: Duration = Duration::from_secs(12 * 3600);
/// A token younger than this is not made anew: a page that is loaded often does not write every time.
pub(crate) const RENEW_AFTER: Duration = Duration::from_secs(300);
/// Longest name of a browser that is kept, characters.
pub(crate) const MAX_AGENT: usize = 200;
/// What ids of tokens of sessions begin with.
const MARK: &str = "web-";

/// One login.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct WebSession {
    pub(crate) id: ObjectId,
    pub(crate) user: ObjectId,
    /// The user's at login: what ends its tokens ends this too.
    pub(crate) epoch: u64,
    pub(crate) created: Timestamp,
    /// To five minutes.
    pub(crate) seen: Timestamp,
    pub(crate) address: String,
    pub(crate) agent: String,
}

impl WebSession {
    /// When it ends if it is not used after `now`.
    pub(crate) fn until(&self, now: Timestamp) -> Timestamp {
        (now + IDLE).min(self.created + LONGEST)
    }

    /// True while it counts for a user whose tokens have `epoch`.
    pub(crate) fn counts(&self, epoch: u64, now: Timestamp) -> bool {
        self.epoch == epoch && now < self.until(self.seen)
    }

    /// The `jti` of its tokens.
    pub(crate) fn token_id(&self) -> String {
        format!("{MARK}{}", self.id)
    }

    /// The session that a token with this `jti` is of.
    pub(crate) fn of_token(jti: &str) -> Option<&str> {
        jti.strip_prefix(MARK)
    }
}

/// A session, as its user sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SessionView {
    /// Its id.
    pub id: ObjectId,
    /// When it began.
    pub created: Timestamp,
    /// When it was used last, to five minutes.
    pub seen: Timestamp,
    /// It ends then at the latest.
    pub ends: Timestamp,
    /// Where it was begun.
    pub address: String,
    /// The browser, as it calls itself.
    pub agent: String,
}

impl From<&WebSession> for SessionView {
    fn from(session: &WebSession) -> Self {
        Self {
            id: session.id,
            created: session.created,
            seen: session.seen,
            ends: session.created + LONGEST,
            address: session.address.clone(),
            agent: session.agent.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_ends_when_it_is_idle_and_after_twelve_hours_however_busy_it_was() {
        let at = |s: u64| Timestamp::from_ms(1_790_000_000_000 + s * 1000);
        let mut session = WebSession {
            id: ObjectId::from_parts(1, 1),
            user: ObjectId::from_parts(1, 2),
            epoch: 3,
            created: at(0),
            seen: at(0),
            address: String::new(),
            agent: String::new(),
        };
        assert!(session.counts(3, at(3599)) && !session.counts(3, at(3600)));
        assert!(!session.counts(4, at(1)), "its user's tokens ended");
        session.seen = at(43_000);
        assert!(session.counts(3, at(43_199)) && !session.counts(3, at(43_200)));
        assert_eq!(session.until(at(43_000)), at(43_200));
        assert_eq!(WebSession::of_token(&session.token_id()), Some(session.id.to_string().as_str()));
        assert_eq!(WebSession::of_token("01ja0000000000000000000000"), None);
    }
}
