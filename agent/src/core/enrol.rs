//! From a key to a valid access token: which step comes next and when. The steps themselves (files, HTTP)
//! are `effects::session`'s, which answers each with what came out of it.
//!
//! ```text
//!   ReadJoinFile ─unused token─► Join ─► AskState ⟲ pending 1 s … 10 s ─► LogIn ─► Refresh ⟲ 5 minutes before
//!     ▲  └──joined before───────────────►  ▲ │                             ▲ │         │     the token's end
//!     │                                    │ │                             │ │         │ refused, or
//!     └── refused, rejected, retired,      └─┼──────── refused ────────────┼─┘         │ server away
//!         wrong server: after 60 s ──────────┘                             └───────────┘
//! ```
//!
//! After a restart no token is needed again: the site is asked where the appliance stands, and where the broker
//! is now.

use std::time::Duration;

use super::backoff::Backoff;
use cardshop_protocol::api::Membership;

/// A person must do something first: look again this often.
const SLOWLY: Duration = Duration::from_secs(60);
/// A join file is looked for this often.
const LOOK_FOR_FILE: Duration = Duration::from_secs(5);
/// Renewal starts this long before an access token ends. **Source:** `broker/protocol/README.md`.
const RENEW_BEFORE: Duration = Duration::from_secs(5 * 60);
/// A token just given and refused all the same is not asked for again sooner than this.
const LOGIN_PAUSE: Duration = Duration::from_secs(10);

/// The next thing to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// Look for `JOIN.TXT`.
    ReadJoinFile,
    /// `POST /api/v1/join`.
    Join,
    /// `GET /api/v1/join/{appliance}`.
    AskState,
    /// Nonce and signature.
    LogIn,
    /// The refresh token.
    Refresh,
}

/// What came out of an [`Act`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// What there is to join with.
    JoinFile {
        /// True when the join file holds a token that was not used yet; false when there is only the
        /// membership of before.
        has_token: bool,
    },
    /// Nothing to join with and never joined: why, for people.
    NoJoinFile(String),
    /// The site says where we stand, and its pairing code is the one derived here.
    State {
        /// Where.
        membership: Membership,
        /// Six characters to compare with the dashboard's.
        code: String,
    },
    /// The pairing code or the site's key is not what it must be: why, for people.
    WrongServer(String),
    /// An access token.
    Tokens {
        /// Its life.
        expires_in: Duration,
    },
    /// The server answered no: why, for people.
    Refused(String),
    /// The server was not reached.
    Away(String),
}

/// Where the appliance stands, for screens and logs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// Nothing is known yet.
    Starting,
    /// There is no usable join file.
    NoJoinFile(String),
    /// The server does not take this join: expired, used or unknown token.
    JoinRefused(String),
    /// The answer is not from the server that the appliance knows.
    WrongServer(String),
    /// A person is to compare this code and approve.
    WaitingForApproval(String),
    /// A person has refused this appliance.
    Rejected,
    /// It was taken out of use.
    Retired,
    /// It has an access token.
    Member,
    /// The server is not reached.
    ServerAway(String),
}

impl Default for Enrolment {
    fn default() -> Self {
        Self::new()
    }
}

/// The machine. `now` counts from any fixed moment and never runs backwards.
#[derive(Debug)]
pub struct Enrolment {
    act: Act,
    due: Duration,
    standing: Standing,
    backoff: Backoff,
    asking: Backoff,
    last_login: Option<Duration>,
}

impl Enrolment {
    /// Begins with a look at the join file.
    pub fn new() -> Self {
        Self {
            act: Act::ReadJoinFile,
            due: Duration::ZERO,
            standing: Standing::Starting,
            backoff: Backoff::new(Duration::from_secs(1), Duration::from_secs(30)),
            asking: Backoff::new(Duration::from_secs(1), Duration::from_secs(10)),
            last_login: None,
        }
    }

    /// What to do next, and when.
    pub fn next(&self) -> (Act, Duration) {
        (self.act, self.due)
    }

    /// Where the appliance stands.
    pub fn standing(&self) -> &Standing {
        &self.standing
    }

    /// Somebody refused the access token: log in again by key, not more often than every ten seconds.
    pub fn token_refused(&mut self, now: Duration) {
        if self.act == Act::Refresh {
            let earliest = self.last_login.map_or(now, |at| at + LOGIN_PAUSE);
            self.then(Act::LogIn, earliest.max(now));
        }
    }

    /// Takes in what came out of the act that was due.
    pub fn answered(&mut self, now: Duration, answer: Answer, random: u32) {
        if !matches!(answer, Answer::Away(_)) {
            self.backoff.reset();
        }
        match (self.act, answer) {
            (_, Answer::JoinFile { has_token: true }) => self.then(Act::Join, now),
            (_, Answer::JoinFile { has_token: false }) => self.then(Act::AskState, now),
            (_, Answer::NoJoinFile(why)) => {
                self.standing = Standing::NoJoinFile(why);
                self.then(Act::ReadJoinFile, now + LOOK_FOR_FILE);
            }
            (_, Answer::WrongServer(why)) => {
                self.standing = Standing::WrongServer(why);
                self.then(Act::ReadJoinFile, now + SLOWLY);
            }
            (_, Answer::State { membership, code }) => self.stands(now, membership, code, random),
            (_, Answer::Tokens { expires_in }) => {
                self.standing = Standing::Member;
                self.last_login = Some(now);
                let renew_after = expires_in - RENEW_BEFORE.min(expires_in / 2);
                self.then(Act::Refresh, now + renew_after);
            }
            (Act::Refresh, Answer::Refused(_) | Answer::Away(_)) => self.then(Act::LogIn, now),
            (Act::LogIn, Answer::Refused(_)) => self.then(Act::AskState, now + LOGIN_PAUSE),
            (Act::AskState, Answer::Refused(why)) => {
                // Not known there (any more): a token in the join file may change that.
                let again = !matches!(self.standing, Standing::JoinRefused(_));
                self.standing = Standing::JoinRefused(why);
                self.then(Act::ReadJoinFile, if again { now } else { now + SLOWLY });
            }
            (Act::Join | Act::ReadJoinFile, Answer::Refused(why)) => {
                self.standing = Standing::JoinRefused(why);
                self.then(Act::ReadJoinFile, now + SLOWLY);
            }
            (act, Answer::Away(why)) => {
                self.standing = Standing::ServerAway(why);
                let pause = self.backoff.failed(random);
                self.then(act, now + pause);
            }
        }
    }

    fn stands(&mut self, now: Duration, membership: Membership, code: String, random: u32) {
        match membership {
            Membership::Pending => {
                if !matches!(self.standing, Standing::WaitingForApproval(_)) {
                    self.asking.reset();
                }
                self.standing = Standing::WaitingForApproval(code);
                let pause = self.asking.failed(random);
                self.then(Act::AskState, now + pause);
            }
            Membership::Approved => self.then(Act::LogIn, now),
            // A person may change their mind at the server, or put a new token into the join file.
            Membership::Rejected => {
                self.standing = Standing::Rejected;
                self.then(Act::ReadJoinFile, now + SLOWLY);
            }
            Membership::Retired => {
                self.standing = Standing::Retired;
                self.then(Act::ReadJoinFile, now + SLOWLY);
            }
        }
    }

    fn then(&mut self, act: Act, due: Duration) {
        self.act = act;
        self.due = due;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn secs(s: u64) -> Duration {
        Duration::from_secs(s)
    }
    fn state(membership: Membership) -> Answer {
        Answer::State { membership, code: "ABC123".into() }
    }
    /// Answers at the moment each act is due; gives the acts and when they were due.
    fn run(machine: &mut Enrolment, answers: Vec<Answer>) -> Vec<(Act, u64)> {
        let mut acts = Vec::new();
        for answer in answers {
            let (act, due) = machine.next();
            acts.push((act, due.as_secs()));
            machine.answered(due, answer, u32::MAX);
        }
        acts
    }

    /// Has found that it joined before.
    fn joined_before() -> Enrolment {
        let mut machine = Enrolment::new();
        run(&mut machine, vec![Answer::JoinFile { has_token: false }]);
        machine
    }

    #[test]
    fn a_new_appliance_joins_waits_for_approval_logs_in_and_renews_before_the_end() {
        let mut machine = Enrolment::new();
        let acts = run(
            &mut machine,
            vec![
                Answer::NoJoinFile("none".into()),
                Answer::JoinFile { has_token: true },
                state(Membership::Pending),
                state(Membership::Pending),
                state(Membership::Pending),
                state(Membership::Approved),
                Answer::Tokens { expires_in: HOUR },
                Answer::Tokens { expires_in: secs(60) },
            ],
        );
        use Act::*;
        let wanted = [
            (ReadJoinFile, 0),
            (ReadJoinFile, 5),
            (Join, 5),
            (AskState, 6),
            (AskState, 8),
            (AskState, 12),
            (LogIn, 12),
            (Refresh, 12 + 3300),
        ];
        assert_eq!(acts, wanted);
        assert_eq!(
            machine.next(),
            (Refresh, secs(12 + 3300 + 30)),
            "a short token is renewed at half its life"
        );
        assert_eq!(machine.standing(), &Standing::Member);
    }

    #[test]
    fn a_rejected_appliance_asks_once_a_minute_and_never_in_a_tight_loop() {
        let mut machine = joined_before();
        let known = || Answer::JoinFile { has_token: false };
        let acts = run(
            &mut machine,
            vec![state(Membership::Rejected), known(), state(Membership::Retired), known()],
        );
        use Act::*;
        assert_eq!(acts, [(AskState, 0), (ReadJoinFile, 60), (AskState, 60), (ReadJoinFile, 120)]);
        assert_eq!(machine.standing(), &Standing::Retired);
        let refused = Answer::Refused("unknown".into());
        let answers = vec![refused.clone(), Answer::JoinFile { has_token: false }, refused.clone(), refused];
        let acts = run(&mut machine, answers);
        assert_eq!(acts.iter().map(|a| a.1).collect::<Vec<_>>(), [120, 120, 120, 180]);
    }

    #[test]
    fn a_failed_refresh_logs_in_by_key_and_a_server_away_is_asked_ever_less_often() {
        let mut machine = joined_before();
        let away = || Answer::Away("no route".into());
        let answers = vec![
            state(Membership::Approved),
            Answer::Tokens { expires_in: HOUR },
            away(),
            away(),
            away(),
            away(),
        ];
        let acts = run(&mut machine, answers);
        use Act::*;
        assert_eq!(acts[2..], [(Refresh, 3300), (LogIn, 3300), (LogIn, 3301), (LogIn, 3303)]);
        assert!(matches!(machine.standing(), Standing::ServerAway(_)));
    }

    #[test]
    fn a_fresh_token_that_is_refused_is_not_asked_for_at_once() {
        let mut machine = joined_before();
        run(&mut machine, vec![state(Membership::Approved), Answer::Tokens { expires_in: HOUR }]);
        machine.token_refused(secs(2));
        assert_eq!(machine.next(), (Act::LogIn, secs(10)));
        machine.answered(secs(10), Answer::Tokens { expires_in: HOUR }, 0);
        machine.token_refused(secs(500));
        assert_eq!(machine.next(), (Act::LogIn, secs(500)));
    }

    #[test]
    fn a_stranger_with_the_servers_address_gets_no_login() {
        let mut machine = joined_before();
        run(&mut machine, vec![Answer::WrongServer("another key".into())]);
        assert_eq!(machine.next(), (Act::ReadJoinFile, secs(60)));
        assert!(matches!(machine.standing(), Standing::WrongServer(_)));
    }
}
