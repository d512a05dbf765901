//! Roll-outs of updates: which appliance is to run which version now. Pure; the planner asks it once a minute, and what it
//! says goes to appliances as desired state.
//!
//! ```text
//! paused ─resume─► running: ring 0 is told ─► all of it done, and quiet for SOAK ─► ring 1 … ─► everybody
//!    ▲                │  └─ more than FAILURE_LIMIT of those told have failed ─► stopped
//!    └────pause───────┘                       a person ────────────────────────► stopped
//! ```
//!
//! Ring 0 are the appliances with one of the labels in `first`, if it names any; then come shares of all. An appliance's
//! place follows from its id and the roll-out's, so it is another one's turn to be first each time.

use std::collections::BTreeMap;
use std::time::Duration;

use cardshop_protocol::ids::{ApplianceId, ImageId, KeyId, ObjectId};
use cardshop_protocol::message::{DesiredUpdate, UpdatePhase, UpdateReport};
use cardshop_protocol::time::Timestamp;
use cardshop_protocol::update::Version;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A ring waits so long after it has nothing to do any more before the next begins: an appliance decides within ten
/// minutes whether it keeps a version, and what breaks after that is heard in the next.
pub(crate) const SOAK: Duration = Duration::from_secs(15 * 60);
/// An appliance that was told so long ago and is silent holds up nobody.
const LOST_AFTER: Duration = Duration::from_secs(24 * 3600);
/// More failures than this among those told stop a roll-out, percent. One of one is more.
pub(crate) const FAILURE_LIMIT: usize = 10;
/// Shares one roll-out may have.
pub(crate) const MAX_RINGS: usize = 8;
/// Labels one roll-out may name.
pub(crate) const MAX_LABELS: usize = 64;

/// What a roll-out does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RolloutState {
    /// Nobody is told.
    Paused,
    /// Appliances are told, ring by ring.
    Running,
    /// For good; those that run it keep it.
    Stopped,
}

/// One version on its way to the appliances.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Rollout {
    pub(crate) id: ObjectId,
    pub(crate) version: Version,
    pub(crate) image: ImageId,
    pub(crate) size: u64,
    /// Who signed it.
    pub(crate) kid: KeyId,
    /// Keys it brings along, base64url.
    pub(crate) keys: Vec<String>,
    pub(crate) warehouse: String,
    /// Percent of all, ring by ring; the rest comes last.
    pub(crate) rings: Vec<u8>,
    /// Labels of those that come first.
    pub(crate) first: Vec<String>,
    pub(crate) allow_older: bool,
    /// Its file is in the warehouse, for every appliance to read.
    pub(crate) shown: bool,
    pub(crate) state: RolloutState,
    /// Why it stopped.
    pub(crate) reason: Option<String>,
    /// The last ring that is told.
    pub(crate) open: usize,
    /// Since when nothing was under way in the rings that are told.
    pub(crate) quiet: Option<Timestamp>,
    /// Who was told, and when.
    pub(crate) told: BTreeMap<ApplianceId, Timestamp>,
    pub(crate) created_by: String,
    pub(crate) created: Timestamp,
}

/// What is known of an appliance.
#[derive(Debug, Clone)]
pub(crate) struct Member {
    pub(crate) id: ApplianceId,
    pub(crate) label: String,
    /// What it runs; `None` for one that takes no updates.
    pub(crate) runs: Option<Version>,
    pub(crate) report: Option<UpdateReport>,
    pub(crate) heard: Option<Timestamp>,
}

/// Where a roll-out is at one appliance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Its ring is not told yet.
    Waiting,
    /// It was told.
    UnderWay,
    /// It runs the version and keeps it.
    Done,
    /// It does not run it, or not any more.
    Failed,
    /// It was told and is silent.
    Lost,
}

impl Rollout {
    /// The ring of an appliance.
    pub(crate) fn ring(&self, member: &Member) -> usize {
        let labelled = usize::from(!self.first.is_empty());
        if self.first.contains(&member.label) {
            return 0;
        }
        let place = blake3::hash(format!("{} {}", self.id, member.id).as_bytes()).as_bytes()[0];
        let percent = usize::from(place) * 100 / 256;
        let mut share = 0;
        for (at, ring) in self.rings.iter().enumerate() {
            share += usize::from(*ring);
            if percent < share {
                return labelled + at;
            }
        }
        labelled + self.rings.len()
    }

    /// The ring that holds the rest.
    fn last(&self) -> usize {
        usize::from(!self.first.is_empty()) + self.rings.len()
    }

    pub(crate) fn outcome(&self, member: &Member, now: Timestamp) -> Outcome {
        let report = member.report.as_ref().filter(|report| report.version == self.version);
        let told = self.told.get(&member.id);
        match report.map(|report| report.phase) {
            Some(UpdatePhase::Failed) if told.is_some() => return Outcome::Failed,
            Some(UpdatePhase::Trying) => return Outcome::UnderWay,
            _ if member.runs.as_ref() == Some(&self.version) => return Outcome::Done,
            _ => {}
        }
        match told {
            None => Outcome::Waiting,
            Some(at) if now.since((*at).max(member.heard.unwrap_or(*at))) > LOST_AFTER => Outcome::Lost,
            Some(_) => Outcome::UnderWay,
        }
    }

    /// What an appliance is to run, if this roll-out has anything to say to it.
    pub(crate) fn wants(&self, member: &Member) -> Option<DesiredUpdate> {
        let runs = self.shown && self.state == RolloutState::Running;
        let told = runs && member.runs.is_some() && self.ring(member) <= self.open;
        told.then(|| DesiredUpdate {
            version: self.version.clone(),
            image: self.image,
            warehouses: vec![self.warehouse.clone()],
            allow_older: self.allow_older,
        })
    }

    /// Lets time pass: notes who is told, opens the next ring, or stops.
    pub(crate) fn step(&mut self, fleet: &[Member], now: Timestamp) {
        if self.state != RolloutState::Running || !self.shown {
            return;
        }
        let able: Vec<&Member> = fleet.iter().filter(|member| member.runs.is_some()).collect();
        let news =
            |member: &&&Member| self.wants(member).is_some() && self.outcome(member, now) == Outcome::Waiting;
        let news: Vec<ApplianceId> = able.iter().filter(news).map(|member| member.id).collect();
        self.told.extend(news.into_iter().map(|id| (id, now)));
        let told: Vec<&&Member> = able.iter().filter(|member| self.told.contains_key(&member.id)).collect();
        let count = |what| told.iter().filter(|member| self.outcome(member, now) == what).count();
        let (failed, under_way) = (count(Outcome::Failed), count(Outcome::UnderWay));
        if failed * 100 > told.len() * FAILURE_LIMIT {
            self.state = RolloutState::Stopped;
            self.reason = Some(format!("{failed} of {} appliances did not keep it", told.len()));
            return;
        }
        if under_way > 0 {
            self.quiet = None;
            return;
        }
        let quiet = *self.quiet.get_or_insert(now);
        let empty = !able.iter().any(|member| self.ring(member) == self.open);
        if self.open < self.last() && (empty || now.since(quiet) >= SOAK) {
            self.open += 1;
            self.quiet = None;
        }
    }
}

/// The roll-out that has the say: the newest that runs.
pub(crate) fn current(rollouts: &[Rollout]) -> Option<&Rollout> {
    rollouts.iter().filter(|rollout| rollout.state == RolloutState::Running).max_by_key(|rollout| rollout.id)
}

/// A roll-out as people see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RolloutView {
    /// Its id.
    pub id: ObjectId,
    /// Which version.
    pub version: Version,
    /// The file, as an image of the warehouse.
    pub image: ImageId,
    /// Its bytes.
    pub size: u64,
    /// The key that signed it.
    pub kid: KeyId,
    /// What it does.
    pub state: RolloutState,
    /// Why it stopped.
    pub reason: Option<String>,
    /// Percent of all appliances, ring by ring.
    pub rings: Vec<u8>,
    /// Labels of those that come first.
    pub first: Vec<String>,
    /// Taken though it is older than what runs.
    pub allow_older: bool,
    /// The last ring that is told, from 0.
    pub open: usize,
    /// Where it is, by appliance.
    pub appliances: Vec<RolloutMember>,
    /// Who made it.
    pub created_by: String,
    /// When.
    pub created: Timestamp,
}

/// One appliance of a roll-out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RolloutMember {
    /// Which.
    pub appliance: ApplianceId,
    /// What people call it.
    pub label: String,
    /// What it runs.
    pub runs: Option<Version>,
    /// Its ring, from 0.
    pub ring: usize,
    /// Where it is.
    pub outcome: Outcome,
    /// Why it failed.
    pub text: String,
}

/// A roll-out that was just made, and where its file is to be put.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NewRollout {
    /// The roll-out.
    #[serde(flatten)]
    pub view: RolloutView,
    /// The warehouse.
    pub warehouse: String,
    /// Names the upload.
    pub task: String,
    /// Puts the index and the file, and nothing else.
    pub upload_token: String,
}

impl Rollout {
    /// As people see it.
    pub(crate) fn view(&self, fleet: &[Member], now: Timestamp) -> RolloutView {
        let member = |member: &Member| RolloutMember {
            appliance: member.id,
            label: member.label.clone(),
            runs: member.runs.clone(),
            ring: self.ring(member),
            outcome: self.outcome(member, now),
            text: member
                .report
                .as_ref()
                .filter(|report| report.version == self.version)
                .map(|report| report.text.clone())
                .unwrap_or_default(),
        };
        RolloutView {
            id: self.id,
            version: self.version.clone(),
            image: self.image,
            size: self.size,
            kid: self.kid,
            state: self.state,
            reason: self.reason.clone(),
            rings: self.rings.clone(),
            first: self.first.clone(),
            allow_older: self.allow_older,
            open: self.open,
            appliances: fleet.iter().map(member).collect(),
            created_by: self.created_by.clone(),
            created: self.created,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(minutes: u64) -> Timestamp {
        Timestamp::from_ms(1_790_000_000_000 + minutes * 60_000)
    }

    fn version(text: &str) -> Version {
        text.parse().unwrap()
    }

    fn rollout(rings: &[u8], first: &[&str]) -> Rollout {
        Rollout {
            id: ObjectId::from_parts(1, 1),
            version: version("2"),
            image: ImageId([2; 32]),
            size: 1,
            kid: KeyId([1; 8]),
            keys: Vec::new(),
            warehouse: "http://w".into(),
            rings: rings.to_vec(),
            first: first.iter().map(|label| (*label).to_owned()).collect(),
            allow_older: false,
            shown: true,
            state: RolloutState::Running,
            reason: None,
            open: 0,
            quiet: None,
            told: BTreeMap::new(),
            created_by: "ada".into(),
            created: at(0),
        }
    }

    fn fleet(count: u8) -> Vec<Member> {
        let member = |n: u8| Member {
            id: ApplianceId([n; 8]),
            label: format!("bench {n}"),
            runs: Some(version("1")),
            report: None,
            heard: Some(at(0)),
        };
        (0..count).map(member).collect()
    }

    fn takes_it(member: &mut Member) {
        member.runs = Some(version("2"));
    }

    fn fails(member: &mut Member) {
        let (version, phase) = (version("2"), UpdatePhase::Failed);
        member.report = Some(UpdateReport { version, phase, text: "no".into() });
    }

    #[test]
    fn a_ring_is_told_when_the_one_before_has_it_and_a_quarter_of_an_hour_has_passed() {
        let (mut rollout, mut fleet) = (rollout(&[20, 30], &["bench 7"]), fleet(100));
        rollout.step(&fleet, at(0));
        assert_eq!(rollout.told.keys().collect::<Vec<_>>(), [&ApplianceId([7; 8])]);
        takes_it(&mut fleet[7]);
        rollout.step(&fleet, at(5));
        rollout.step(&fleet, at(19));
        assert_eq!(rollout.open, 0, "too early");
        rollout.step(&fleet, at(20));
        rollout.step(&fleet, at(21));
        let second = rollout.told.len() - 1;
        assert!((8..=34).contains(&second), "about a fifth: {second}");
        let mut minute = 22;
        while rollout.open < 3 {
            for member in fleet.iter_mut().filter(|member| rollout.told.contains_key(&member.id)) {
                takes_it(member);
            }
            rollout.step(&fleet, at(minute));
            minute += 1;
            assert!(minute < 100);
        }
        rollout.step(&fleet, at(minute));
        assert_eq!(rollout.told.len(), 100, "in the end everybody");
    }

    #[test]
    fn a_roll_out_stops_by_itself_when_more_than_a_tenth_fails() {
        let (mut one, mut alone) = (rollout(&[], &["bench 1"]), fleet(20));
        one.step(&alone, at(0));
        fails(&mut alone[1]);
        one.step(&alone, at(1));
        assert_eq!(one.state, RolloutState::Stopped);
        assert!(alone.iter().all(|member| one.wants(member).is_none()), "nobody is told any more");
        let (mut all, mut many) = (rollout(&[], &[]), fleet(40));
        all.step(&many, at(0));
        many[..4].iter_mut().for_each(fails);
        all.step(&many, at(1));
        assert_eq!(all.state, RolloutState::Running, "four of forty are a tenth");
        fails(&mut many[4]);
        all.step(&many, at(2));
        assert_eq!(all.state, RolloutState::Stopped);
        assert!(all.reason.unwrap().starts_with("5 of 40"));
    }

    #[test]
    fn a_paused_roll_out_tells_nobody_and_a_silent_appliance_holds_up_nobody() {
        let (mut rollout, mut fleet) = (rollout(&[], &["bench 0"]), fleet(3));
        rollout.step(&fleet, at(0));
        assert_eq!(rollout.wants(&fleet[0]).unwrap().version, version("2"));
        rollout.state = RolloutState::Paused;
        assert_eq!(rollout.wants(&fleet[0]), None);
        rollout.step(&fleet, at(10_000));
        assert_eq!(rollout.open, 0);
        rollout.state = RolloutState::Running;
        rollout.step(&fleet, at(24 * 60));
        assert_eq!(rollout.open, 0);
        rollout.step(&fleet, at(24 * 60 + 1));
        rollout.step(&fleet, at(24 * 60 + 16));
        assert_eq!((rollout.open, rollout.outcome(&fleet[0], at(24 * 60 + 16))), (1, Outcome::Lost));
        fleet[1].runs = None;
        assert_eq!(rollout.wants(&fleet[1]), None, "one that takes no updates");
    }
}
