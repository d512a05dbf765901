//! Which warehouse to ask next: in the lease's order, but for those that rest after a failure, and for a chunk
//! that came wrong rather from one that has not given it wrong. Says when an image cannot be had at all.
//!
//! ```text
//!   asked ──► it worked: rests no longer, all earlier failures forgotten
//!        ├──► cut, slow, 5xx, no route: rests 0.5 s, 1 s … 30 s (or as long as it says), then is asked again
//!        └──► a definite no (403, 404, 410, other bytes): rests like that; after 5 in a row it counts as
//!             refusing, and when all refuse, so does the image
//! ```
//!
//! Eight connections notice one outage together: what was asked before the newest failure was known adds
//! nothing to it.

use std::time::Duration;

use super::backoff::Backoff;

/// First and longest rest after a failure.
const FIRST_REST: Duration = Duration::from_millis(500);
const LONGEST_REST: Duration = Duration::from_secs(30);
/// Longest rest a warehouse may ask for itself (`Retry-After`): beyond it a person would rather know.
pub const LONGEST_ASKED_REST: Duration = Duration::from_secs(600);
/// Definite refusals in a row after which a warehouse is said to refuse: with the rests between them about eight
/// seconds, more than an image takes to appear after its index.
pub const MAX_DENIALS: u32 = 5;

/// One warehouse of one image; stays the same when the list changes around it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SourceId(u32);

/// Whom to ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choice {
    /// This one.
    Ask(SourceId, String),
    /// Nobody before then (on the clock of `now`).
    Wait(Duration),
    /// All refuse, one for this reason.
    Refused(String),
    /// The list is empty.
    Nobody,
}

#[derive(Debug)]
struct Source {
    id: SourceId,
    address: String,
    backoff: Backoff,
    /// Until when it rests, and when that was decided.
    rests_until: Duration,
    failed_at: Option<Duration>,
    denials: u32,
    why: String,
}

/// The warehouses of one image, with their health.
#[derive(Debug, Default)]
pub struct Sources {
    list: Vec<Source>,
    last_id: u32,
}

impl Sources {
    /// Takes the addresses of a lease, in order; what is known of one that was listed before stays known.
    pub fn set(&mut self, addresses: &[String]) {
        let mut old = std::mem::take(&mut self.list);
        for address in addresses {
            if self.list.iter().any(|s| s.address == *address) {
                continue;
            }
            match old.iter().position(|s| s.address == *address) {
                Some(at) => self.list.push(old.swap_remove(at)),
                None => {
                    self.last_id += 1;
                    self.list.push(Source {
                        id: SourceId(self.last_id),
                        address: address.clone(),
                        backoff: Backoff::new(FIRST_REST, LONGEST_REST),
                        rests_until: Duration::ZERO,
                        failed_at: None,
                        denials: 0,
                        why: String::new(),
                    });
                }
            }
        }
    }

    /// Whom to ask at `now` for something that came wrong from `wrong` (as often as each is named).
    pub fn choose(&self, now: Duration, wrong: &[SourceId]) -> Choice {
        let refuses = |s: &&Source| s.denials >= MAX_DENIALS;
        if let Some(last) = self.list.last()
            && self.list.iter().all(|s| refuses(&s))
        {
            return Choice::Refused(last.why.clone());
        }
        let awake = self.list.iter().filter(|s| !refuses(s) && s.rests_until <= now);
        let times = |s: &&Source| wrong.iter().filter(|id| **id == s.id).count();
        if let Some(source) = awake.min_by_key(times) {
            return Choice::Ask(source.id, source.address.clone());
        }
        let resting = self.list.iter().filter(|s| !refuses(s)).map(|s| s.rests_until).min();
        resting.map_or(Choice::Nobody, Choice::Wait)
    }

    /// True when every warehouse has failed and none has worked since.
    pub fn all_away(&self) -> bool {
        !self.list.is_empty() && self.list.iter().all(|s| s.failed_at.is_some())
    }

    /// It gave what it should.
    pub fn worked(&mut self, id: SourceId) {
        if let Some(source) = self.list.iter_mut().find(|s| s.id == id) {
            source.backoff.reset();
            (source.failed_at, source.denials, source.rests_until) = (None, 0, Duration::ZERO);
        }
    }

    /// It failed, in a request begun at `asked`; it may have said how long to leave it alone.
    pub fn failed(
        &mut self,
        id: SourceId,
        asked: Duration,
        now: Duration,
        rest: Option<Duration>,
        random: u32,
    ) {
        let Some(source) = self.list.iter_mut().find(|s| s.id == id) else { return };
        if source.failed_at.is_some_and(|at| asked < at) {
            return;
        }
        let ours = source.backoff.failed(random);
        let rest = rest.map_or(ours, |theirs| theirs.min(LONGEST_ASKED_REST).max(ours));
        source.failed_at = Some(now);
        source.rests_until = now.saturating_add(rest);
    }

    /// It said no, in a request begun at `asked`.
    pub fn denied(&mut self, id: SourceId, asked: Duration, now: Duration, why: &str, random: u32) {
        let Some(source) = self.list.iter_mut().find(|s| s.id == id) else { return };
        if source.failed_at.is_some_and(|at| asked < at) {
            return;
        }
        source.denials += 1;
        why.clone_into(&mut source.why);
        self.failed(id, asked, now, None, random);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(s: u64) -> Duration {
        Duration::from_secs(s)
    }
    fn sources(names: &[&str]) -> Sources {
        let mut sources = Sources::default();
        sources.set(&names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>());
        sources
    }
    fn asked(sources: &Sources, now: Duration, wrong: &[SourceId]) -> (SourceId, String) {
        match sources.choose(now, wrong) {
            Choice::Ask(id, address) => (id, address),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_first_is_asked_until_it_fails_and_again_when_it_has_rested() {
        let mut sources = sources(&["a", "b"]);
        let (a, name) = asked(&sources, at(1), &[]);
        assert_eq!(name, "a");
        sources.failed(a, at(1), at(2), None, u32::MAX);
        assert_eq!(asked(&sources, at(2), &[]).1, "b");
        assert_eq!(asked(&sources, at(3), &[]).1, "a");
        assert!(!sources.all_away(), "nobody knows of b yet");
    }

    #[test]
    fn one_outage_seen_by_eight_connections_is_one_failure() {
        let mut sources = sources(&["a"]);
        let (a, _) = asked(&sources, at(1), &[]);
        (0..8).for_each(|_| sources.failed(a, at(1), at(2), None, u32::MAX));
        assert_eq!(sources.choose(at(2), &[]), Choice::Wait(at(2) + FIRST_REST));
        for _ in 0..8 {
            sources.denied(a, at(1), at(3), "no", 0);
        }
        assert!(matches!(sources.choose(at(60), &[]), Choice::Ask(..)), "nor eight refusals");
        sources.worked(a);
        assert!(matches!(sources.choose(at(2), &[]), Choice::Ask(..)), "what worked rests no longer");
    }

    #[test]
    fn an_image_is_refused_when_all_say_no_and_not_while_one_is_only_away() {
        let mut sources = sources(&["a", "b"]);
        let mut now = at(1);
        let (a, _) = asked(&sources, now, &[]);
        sources.failed(a, now, now, Some(at(500)), 0);
        for _ in 0..MAX_DENIALS {
            let (b, _) = asked(&sources, now, &[]);
            sources.denied(b, now, now, "gone", 0);
            now += at(31);
        }
        assert_eq!(sources.choose(now, &[]), Choice::Wait(at(501)), "as long as it asked for");
        now = at(600);
        for _ in 0..MAX_DENIALS {
            let (a, name) = asked(&sources, now, &[]);
            assert_eq!(name, "a");
            sources.denied(a, now, now, "gone too", 0);
            now += at(31);
        }
        assert_eq!(sources.choose(now, &[]), Choice::Refused("gone".into()));
        assert_eq!(Sources::default().choose(now, &[]), Choice::Nobody);
    }

    #[test]
    fn what_came_wrong_is_asked_of_another_and_health_outlives_a_new_list() {
        let mut sources = sources(&["a", "b"]);
        let (a, _) = asked(&sources, at(1), &[]);
        let (b, name) = asked(&sources, at(1), &[a]);
        assert_eq!(name, "b");
        assert_eq!(asked(&sources, at(1), &[a, b, b]).1, "a");
        sources.failed(a, at(1), at(1), Some(at(100)), 0);
        sources.set(&["c".into(), "a".into(), "a".into()]);
        assert_eq!(asked(&sources, at(2), &[]).1, "c");
        let (c, _) = asked(&sources, at(2), &[]);
        sources.failed(c, at(2), at(2), Some(at(1000)), 0);
        assert_eq!(sources.choose(at(2), &[]), Choice::Wait(at(101)), "b is no longer listed");
    }

    proptest! {
        /// Whatever happens, somebody is asked again in bounded time until all have refused, and nobody who
        /// rests is asked.
        #[test]
        fn nobody_is_forgotten_and_nobody_resting_is_asked(
            steps in prop::collection::vec((0u8..4, 0u64..700, any::<u32>()), 1..200),
        ) {
            let mut sources = sources(&["a", "b", "c"]);
            let mut now = at(1);
            for (what, pass, random) in steps {
                match sources.choose(now, &[]) {
                    Choice::Ask(id, _) => {
                        let source = sources.list.iter().find(|s| s.id == id).expect("it was chosen");
                        prop_assert!(source.rests_until <= now && source.denials < MAX_DENIALS);
                        match what {
                            0 => sources.worked(id),
                            1 => sources.failed(id, now, now, None, random),
                            2 => sources.failed(id, now, now, Some(Duration::from_secs(u64::from(random))), random),
                            _ => sources.denied(id, now, now, "no", random),
                        }
                    }
                    Choice::Wait(until) => {
                        prop_assert!(until > now && until <= now + LONGEST_ASKED_REST);
                    }
                    Choice::Refused(_) => {
                        prop_assert!(sources.list.iter().all(|s| s.denials >= MAX_DENIALS));
                        return Ok(());
                    }
                    Choice::Nobody => prop_assert!(false, "there are three"),
                }
                now += Duration::from_secs(pass);
            }
        }
    }
}
