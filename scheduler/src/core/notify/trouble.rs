//! When an appliance's troubles are told: each once it has lasted, together, with how often it came back; then nothing for
//! an hour, however often it comes and goes.
//!
//! ```text
//! raised ─ lasts (a minute; silence: five), or comes three times ─► told ─► an hour of quiet
//!    └ gone before that: nobody is told       gone for an hour: forgotten
//! ```

use std::collections::BTreeMap;
use std::time::Duration;

use cardshop_protocol::ids::ApplianceId;
use cardshop_protocol::time::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Code of an appliance that is not heard; all other codes are those of its alerts.
pub(crate) const SILENT: &str = "offline";
/// A trouble that is over sooner is none: a reader that was plugged in anew.
const SETTLE: Duration = Duration::from_secs(60);
/// An appliance that restarts is silent for two or three minutes.
const SETTLE_SILENT: Duration = Duration::from_secs(300);
/// What comes and goes this often is told although it never lasts.
const MANY_TIMES: u32 = 3;
/// From one message to the next.
const QUIET: Duration = Duration::from_secs(3600);
/// What is over for this long begins anew.
const FORGET: Duration = Duration::from_secs(3600);
/// Troubles of one appliance that are kept: more than it has alerts.
const MAX_TROUBLES: usize = 65;

/// What an appliance complains of now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Complaint {
    pub(crate) code: String,
    pub(crate) text: String,
    /// When it was raised, if that is known.
    pub(crate) since: Option<Timestamp>,
}

/// One trouble.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Trouble {
    text: String,
    first: Timestamp,
    /// `since` of the last time it was raised.
    raised: Option<Timestamp>,
    /// Since when it is there without a pause.
    from: Timestamp,
    count: u32,
    told: u32,
    cleared: Option<Timestamp>,
}

/// Those of one appliance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Troubles {
    pub(crate) appliance: ApplianceId,
    open: BTreeMap<String, Trouble>,
    quiet_until: Option<Timestamp>,
}

impl Troubles {
    pub(crate) fn new(appliance: ApplianceId) -> Self {
        Self { appliance, open: BTreeMap::new(), quiet_until: None }
    }

    /// True when there is nothing to remember.
    pub(crate) fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// Takes what it complains of at `now`. `heard`: it was heard since this scheduler started, so that what is not among
    /// its complaints is over.
    pub(crate) fn observe(&mut self, now: Timestamp, complaints: &[Complaint], heard: bool) {
        for complaint in complaints {
            if let Some(trouble) = self.open.get_mut(&complaint.code) {
                trouble.again(now, complaint);
            } else if self.open.len() < MAX_TROUBLES {
                let trouble = Trouble {
                    text: complaint.text.clone(),
                    first: now,
                    raised: complaint.since,
                    from: now,
                    count: 1,
                    told: 0,
                    cleared: None,
                };
                self.open.insert(complaint.code.clone(), trouble);
            }
        }
        if heard {
            for (code, trouble) in &mut self.open {
                if complaints.iter().all(|complaint| complaint.code != *code) {
                    trouble.cleared.get_or_insert(now);
                }
            }
        }
        self.open.retain(|_, trouble| trouble.cleared.is_none_or(|at| now.since(at) < FORGET));
    }

    /// What is told now, if anything is; then it counts as told.
    pub(crate) fn take_due(&mut self, now: Timestamp) -> Option<Value> {
        if self.quiet_until.is_some_and(|until| now < until) {
            return None;
        }
        let due = self.open.iter_mut().filter(|(code, trouble)| trouble.is_due(code, now));
        let lines: Vec<Value> = due.map(|(_, trouble)| trouble.tell()).collect();
        if lines.is_empty() {
            return None;
        }
        self.quiet_until = Some(now + QUIET);
        Some(json!({"lines": lines}))
    }
}

impl Trouble {
    fn again(&mut self, now: Timestamp, complaint: &Complaint) {
        let anew = match (self.cleared.take(), complaint.since) {
            (_, Some(since)) => self.raised.is_some_and(|raised| raised != since),
            (cleared, None) => cleared.is_some(),
        };
        if anew {
            self.count += 1;
            self.from = now;
        }
        self.raised = complaint.since.or(self.raised);
        self.text.clone_from(&complaint.text);
    }

    fn is_due(&self, code: &str, now: Timestamp) -> bool {
        let settle = if code == SILENT { SETTLE_SILENT } else { SETTLE };
        let lasts = self.cleared.is_none() && now.since(self.from) >= settle;
        self.count > self.told && (lasts || self.count - self.told >= MANY_TIMES)
    }

    fn tell(&mut self) -> Value {
        let count = self.count - std::mem::replace(&mut self.told, self.count);
        json!({"text": self.text, "count": count, "since": self.first})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_ms(1_790_000_000_000 + seconds * 1000)
    }

    fn reader(since: u64) -> Complaint {
        Complaint { code: "reader_missing".into(), text: "Reader 2 is gone".into(), since: Some(at(since)) }
    }

    fn troubles() -> Troubles {
        Troubles::new(ApplianceId([1; 8]))
    }

    #[test]
    fn a_trouble_that_lasts_is_told_once_and_one_that_passes_is_not() {
        let mut troubles = troubles();
        troubles.observe(at(0), &[reader(0)], true);
        assert_eq!(troubles.take_due(at(59)), None);
        let told = troubles.take_due(at(60)).unwrap();
        assert_eq!(told["lines"][0]["text"], "Reader 2 is gone");
        for s in (70..10_000).step_by(10) {
            troubles.observe(at(s), &[reader(0)], true);
            assert_eq!(troubles.take_due(at(s)), None);
        }
        let mut short = self::troubles();
        short.observe(at(0), &[reader(0)], true);
        short.observe(at(10), &[], true);
        assert_eq!(short.take_due(at(100)), None);
        short.observe(at(4000), &[], true);
        assert!(short.is_empty());
    }

    #[test]
    fn what_comes_again_and_again_is_one_message_with_a_count() {
        let (mut troubles, mut told) = (troubles(), Vec::new());
        for s in (0..7200).step_by(20) {
            let there = s % 40 == 0;
            let complaints = if there { vec![reader(s)] } else { vec![] };
            troubles.observe(at(s), &complaints, true);
            told.extend(troubles.take_due(at(s)));
        }
        let counts: Vec<u64> = told.iter().map(|t| t["lines"][0]["count"].as_u64().unwrap()).collect();
        assert_eq!(counts, [3, 90], "in two hours");
    }

    #[test]
    fn a_restart_of_the_scheduler_neither_ends_a_trouble_nor_tells_it_again() {
        let mut troubles = troubles();
        let silent = Complaint { code: SILENT.into(), text: "silent".into(), since: None };
        troubles.observe(at(0), &[reader(0), silent.clone()], true);
        assert_eq!(troubles.take_due(at(200)).unwrap()["lines"].as_array().unwrap().len(), 1);
        let kept = serde_json::to_string(&troubles).unwrap();
        let mut troubles: Troubles = serde_json::from_str(&kept).unwrap();
        troubles.observe(at(5000), &[], false);
        troubles.observe(at(5010), &[reader(0), silent], true);
        let told = troubles.take_due(at(5010)).unwrap();
        assert_eq!(
            (told["lines"].as_array().unwrap().len(), &told["lines"][0]["text"]),
            (1, &json!("silent"))
        );
    }
}
