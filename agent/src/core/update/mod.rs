//! Updates of this appliance: which one is fetched, applied, kept, or given up. Pure; `run::updates` asks it often and does
//! what it says, `effects::update` writes the boot partition in the order of [`STEPS`].
//!
//! ```text
//!   desired ──► Fetching ──whole──► Applying ──► Restarting ──(boot loader: once)──► Trial ──► kept
//!   key u, stick or cmd ─────────────► │ refused               no card is written       │
//!                                      ▼                                                ├─ panic, watchdog, silence ─► the
//!                                   failed: not tried again by itself ◄─────────────────┘  set before boots, which says so
//! ```
//!
//! The boot loader's `set` is what runs without being asked; `try` names the other set once and is forgotten before that is
//! started. So whatever happens, the set that was good boots again, until [`Deed::Keep`] says otherwise.

pub mod grubenv;
pub mod judge;
#[cfg(test)]
mod model_tests;
pub mod probation;
#[cfg(test)]
mod tests;

use std::time::Duration;

use cardshop_protocol::ids::{ImageId, SlotId};
use cardshop_protocol::message::{DesiredUpdate, UpdatePhase, UpdateReport};
use cardshop_protocol::update::Version;
use ed25519_dalek::VerifyingKey;
use serde::{Deserialize, Serialize};

use probation::{Probation, Verdict};

/// Failed updates that are remembered: more than anybody offers before one is good.
const MAX_FAILED: usize = 8;
/// A server that was reached so long ago has to be reached by the new version, too. **Source:** the appliance's contract.
const REACHED_LATELY: Duration = Duration::from_secs(24 * 3600);

/// A partition set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Set {
    /// `set-a.img`.
    A,
    /// `set-b.img`.
    B,
}

impl Set {
    /// The one that does not run when this one does.
    pub fn other(self) -> Self {
        if self == Self::A { Self::B } else { Self::A }
    }

    /// As the boot loader writes it.
    pub fn name(self) -> &'static str {
        if self == Self::A { "a" } else { "b" }
    }

    /// Reads what the boot loader writes.
    pub fn named(name: &str) -> Option<Self> {
        [Self::A, Self::B].into_iter().find(|set| set.name() == name)
    }
}

/// The set that runs, from the kernel's command line and the set's own manifest.
#[derive(Debug, Clone)]
pub struct Running {
    /// Which.
    pub set: Set,
    /// Its version.
    pub version: Version,
    /// Names its manifest.
    pub digest: String,
    /// Whoever holds one of these signs what may follow.
    pub keys: Vec<VerifyingKey>,
    /// The boot loader has started it because it was to be tried.
    pub tried: bool,
    /// What the boot loader starts without being asked.
    pub stays: Set,
}

/// How the order of writing keeps a power cut from mattering: each step is on the disk before the next begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The first block of the other set is cleared: the boot loader cannot open it any more.
    Invalidate,
    /// Everything behind it is written.
    Fill,
    /// The first block is written.
    Seal,
    /// All of it is read again and compared.
    ReadBack,
    /// The boot loader is told to try it once.
    Arm,
}

/// All steps, in order.
pub const STEPS: [Step; 5] = [Step::Invalidate, Step::Fill, Step::Seal, Step::ReadBack, Step::Arm];

/// Where an update's bytes are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// In the cache, whole.
    Image(ImageId),
    /// On the card in a slot, as `CARDSHOP.UPD`.
    Stick(SlotId),
}

/// An update that was written and is tried with the next start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// Its version.
    pub version: Version,
    /// Names its manifest.
    pub digest: String,
    /// Where it was written.
    pub set: Set,
    /// The image it came from.
    #[serde(default)]
    pub image: Option<ImageId>,
    /// The server was reached in the day before.
    pub reached: bool,
}

/// An update that did not come to stay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failed {
    /// Its version.
    pub version: Version,
    /// The image it came from.
    #[serde(default)]
    pub image: Option<ImageId>,
    /// Why, for people.
    pub why: String,
}

/// What outlives a restart.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Memory {
    /// Written, and not known to be good.
    #[serde(default)]
    pub attempt: Option<Attempt>,
    /// The newest last.
    #[serde(default)]
    pub failed: Vec<Failed>,
}

/// What is to be done. In order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Deed {
    /// Check it and write it to the other set; [`Updater::applied`] follows.
    Apply {
        /// What.
        source: Source,
        /// It may be older than what runs.
        allow_older: bool,
    },
    /// Keep this on the disk; [`Updater::recorded`] follows.
    Record,
    /// From now on this set is started without being asked.
    Keep(Set),
    /// Restart the machine when no card is being written.
    Restart,
    /// The trial is over, one way or the other: whoever guards it from outside may stop.
    Decided,
}

/// What is known when it is asked.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// Time since this program started.
    pub uptime: Duration,
    /// What the scheduler wants.
    pub desired: Option<&'a DesiredUpdate>,
    /// Its image is here, whole.
    pub whole: bool,
    /// The broker is connected.
    pub connected: bool,
    /// The readers were looked at.
    pub readers_listed: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Stage {
    Idle,
    Fetching(DesiredUpdate),
    Applying {
        source: Source,
        version: Option<Version>,
        text: &'static str,
    },
    Restarting(Attempt),
    Trial(Probation),
    /// Given up; the machine restarts into the set before.
    GaveUp(Version),
}

/// The machine.
#[derive(Debug)]
pub struct Updater {
    running: Running,
    memory: Memory,
    stage: Stage,
    /// When the broker was last connected.
    reached: Option<Duration>,
    recorded: bool,
    due: Vec<Deed>,
}

impl Updater {
    /// Starts with what is known after a boot.
    pub fn start(running: Running, memory: Memory) -> Self {
        let mut updater =
            Self { running, memory, stage: Stage::Idle, reached: None, recorded: false, due: Vec::new() };
        let on_trial = updater.running.tried && updater.running.set != updater.running.stays;
        match updater.memory.attempt.clone() {
            Some(attempt) if attempt.set != updater.running.set => {
                updater.memory.attempt = None;
                let why = "it did not come up, or the power was cut while it was tried: the version before runs again";
                updater.fail(attempt.version, attempt.image, why.to_owned());
            }
            // The power went between keeping it and noting that.
            Some(_) if !on_trial => {
                updater.memory.attempt = None;
                updater.due.push(Deed::Record);
            }
            attempt if on_trial => {
                // Without a note the server must be reached: nobody knows that it could not be.
                let reached = attempt.is_none_or(|attempt| attempt.reached);
                updater.stage = Stage::Trial(Probation::begin(reached));
                updater.due.push(Deed::Record);
            }
            _ => {}
        }
        updater
    }

    /// What runs.
    pub fn running(&self) -> &Running {
        &self.running
    }

    /// What is to be kept by [`Deed::Record`].
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// The image that is needed here.
    pub fn wants(&self) -> Option<&DesiredUpdate> {
        match &self.stage {
            Stage::Fetching(update) => Some(update),
            _ => None,
        }
    }

    /// The image that has to stay in the cache.
    pub fn needs(&self) -> Option<ImageId> {
        match &self.stage {
            Stage::Fetching(update) => Some(update.image),
            Stage::Applying { source: Source::Image(image), .. } => Some(*image),
            _ => None,
        }
    }

    /// True from the moment it was written until the machine is down.
    pub fn is_restarting(&self) -> bool {
        matches!(self.stage, Stage::Restarting(_) | Stage::GaveUp(_))
    }

    /// Time has passed, or something else is known.
    pub fn look(&mut self, facts: Facts<'_>) -> Vec<Deed> {
        if facts.connected {
            self.reached = Some(facts.uptime);
        }
        match (self.stage.clone(), facts.desired) {
            (Stage::Trial(probation), _) => self.decide(probation, facts),
            (Stage::Idle, Some(update)) if self.is_news(update) => {
                self.stage = Stage::Fetching(update.clone());
            }
            (Stage::Fetching(under_way), wanted) if wanted != Some(&under_way) => self.stage = Stage::Idle,
            (Stage::Fetching(update), _) if facts.whole => {
                let source = Source::Image(update.image);
                self.apply(source, Some(update.version), update.allow_older);
            }
            _ => {}
        }
        std::mem::take(&mut self.due)
    }

    /// An update that is neither what runs nor what failed.
    fn is_news(&self, update: &DesiredUpdate) -> bool {
        let failed = self.memory.failed.iter().any(|failed| failed.image == Some(update.image));
        update.version != self.running.version && !failed
    }

    /// A person wants it now: the one on a card, or the one that the scheduler wants once more.
    ///
    /// # Errors
    /// Why there is nothing to be done.
    pub fn press(
        &mut self,
        stick: Option<SlotId>,
        desired: Option<&DesiredUpdate>,
    ) -> Result<(), &'static str> {
        match &self.stage {
            Stage::Applying { .. } | Stage::Fetching(_) => return Err("an update is under way"),
            Stage::Restarting(_) | Stage::GaveUp(_) => return Err("the appliance restarts"),
            Stage::Trial(_) => return Err("the version that runs is still being tried"),
            Stage::Idle => {}
        }
        match (stick, desired) {
            (Some(slot), _) => self.apply(Source::Stick(slot), None, false),
            (None, Some(update)) if update.version != self.running.version => {
                self.memory.failed.retain(|failed| failed.image != Some(update.image));
                self.due.push(Deed::Record);
            }
            _ => return Err("there is no update: none on a card, and none from the shop"),
        }
        Ok(())
    }

    fn apply(&mut self, source: Source, version: Option<Version>, allow_older: bool) {
        self.stage = Stage::Applying { source: source.clone(), version, text: "it is checked and written" };
        self.due.push(Deed::Apply { source, allow_older });
    }

    /// The image cannot be had.
    pub fn refused(&mut self, image: ImageId, why: &str) {
        if let Stage::Fetching(update) = self.stage.clone()
            && update.image == image
        {
            self.stage = Stage::Idle;
            self.fail(update.version, Some(image), why.to_owned());
        }
    }

    /// What became of [`Deed::Apply`]: the version and the digest of what lies in the other set and is tried next; or why
    /// nothing was changed.
    pub fn applied(&mut self, uptime: Duration, result: Result<(Version, String), String>) {
        let Stage::Applying { source, version, .. } = self.stage.clone() else { return };
        let image = match source {
            Source::Image(image) => Some(image),
            Source::Stick(_) => None,
        };
        match result {
            Ok((version, digest)) => {
                let reached = self.reached.is_some_and(|at| uptime.saturating_sub(at) <= REACHED_LATELY);
                let set = self.running.set.other();
                let attempt = Attempt { version, digest, set, image, reached };
                self.memory.attempt = Some(attempt.clone());
                self.stage = Stage::Restarting(attempt);
                self.due.extend([Deed::Record, Deed::Restart]);
            }
            Err(why) => {
                self.stage = Stage::Idle;
                let version = version.unwrap_or_else(|| self.running.version.clone());
                self.fail(version, image, why);
            }
        }
    }

    /// Whether [`Deed::Record`] was done.
    pub fn recorded(&mut self, done: bool) {
        self.recorded = done;
    }

    fn decide(&mut self, probation: Probation, facts: Facts<'_>) {
        match probation.verdict(facts, self.recorded, self.reached.is_some()) {
            Verdict::Wait => {}
            Verdict::Keep => {
                self.memory.attempt = None;
                self.running.stays = self.running.set;
                self.stage = Stage::Idle;
                // The boot loader first: a note without it would be of nothing.
                self.due.extend([Deed::Keep(self.running.set), Deed::Record, Deed::Decided]);
            }
            Verdict::GiveUp(why) => {
                let attempt = self.memory.attempt.take();
                let version = self.running.version.clone();
                self.stage = Stage::GaveUp(version.clone());
                self.fail(version, attempt.and_then(|attempt| attempt.image), why.to_owned());
                self.due.extend([Deed::Decided, Deed::Restart]);
            }
        }
    }

    fn fail(&mut self, version: Version, image: Option<ImageId>, why: String) {
        self.memory.failed.retain(|failed| failed.version != version || failed.image != image);
        self.memory.failed.push(Failed { version, image, why });
        if self.memory.failed.len() > MAX_FAILED {
            self.memory.failed.remove(0);
        }
        self.due.push(Deed::Record);
    }

    /// What the scheduler is told.
    pub fn report(&self, desired: Option<&DesiredUpdate>) -> Option<UpdateReport> {
        let report = |version: &Version, phase, text: &str| {
            Some(UpdateReport { version: version.clone(), phase, text: text.to_owned() })
        };
        match &self.stage {
            Stage::Fetching(update) => report(&update.version, UpdatePhase::Fetching, ""),
            Stage::Applying { version, text, .. } => {
                report(version.as_ref().unwrap_or(&self.running.version), UpdatePhase::Writing, text)
            }
            Stage::Restarting(attempt) => report(&attempt.version, UpdatePhase::Restarting, ""),
            Stage::Trial(_) => report(&self.running.version, UpdatePhase::Trying, ""),
            Stage::GaveUp(version) => report(version, UpdatePhase::Failed, "the set before starts again"),
            Stage::Idle => {
                let update = desired?;
                if update.version == self.running.version {
                    return report(&update.version, UpdatePhase::Kept, "");
                }
                let failed = self.memory.failed.iter().find(|failed| failed.image == Some(update.image))?;
                report(&update.version, UpdatePhase::Failed, &failed.why)
            }
        }
    }

    /// What is wrong, by its stable name.
    pub fn trouble(&self) -> Option<(&'static str, String)> {
        if self.running.set != self.running.stays && !self.running.tried {
            let text = "the partition set that should run cannot be started: the other one runs";
            return Some(("partition_set_damaged", text.to_owned()));
        }
        let failed = self.memory.failed.last().filter(|failed| failed.version != self.running.version)?;
        Some(("update_failed", format!("version {} is not used: {}", failed.version, failed.why)))
    }

    /// One line for the screen.
    pub fn line(&self) -> Option<String> {
        Some(match &self.stage {
            Stage::Idle => return None,
            Stage::Fetching(update) => format!("Update {} is arriving.", update.version),
            Stage::Applying { .. } => "The update is checked and written.".to_owned(),
            Stage::Restarting(attempt) => {
                format!("Update {} is here: restart when no card is being written.", attempt.version)
            }
            Stage::Trial(_) => format!("Version {} is being tried.", self.running.version),
            Stage::GaveUp(version) => format!("Version {version} is given up: the one before starts again."),
        })
    }
}
