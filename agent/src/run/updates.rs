//! The main thread's part of updates: tells [`Updater`] what is known, does what it says, and shows what it is at. Checking
//! and writing are a thread's: they take a minute on a slow stick.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use cardshop_protocol::ids::SlotId;
use cardshop_protocol::message::{Action, Alert, SystemInfo, UpdateReport, VERSION};
use cardshop_protocol::topic::ApplianceTopic;
use cardshop_protocol::update::Version;

use super::Agent;
use crate::config::{Config, read_bounded};
use crate::core::update::{Deed, Facts, Memory, Source, Updater};
use crate::core::{Event, Shop, Wish};
use crate::effects::cache::Cache;
use crate::effects::devices::Devices;
use crate::effects::state::{StateFolder, replace_file};
use crate::effects::update::{self, BootPartition};

/// Name of what is remembered, in the state folder.
const MEMORY: &str = "update.json";
/// Name of an update that was copied from a card, in the cache folder.
const FROM_CARD: &str = "from-card.upd";

type Applied = Result<(Version, String), String>;

/// Updates found on cards; clones are the same list.
#[derive(Debug, Clone, Default)]
pub(super) struct Offers(Arc<Mutex<BTreeMap<SlotId, Version>>>);

impl Offers {
    /// What the card in a slot offers; nothing when it is gone.
    pub(super) fn set(&self, slot: &SlotId, version: Option<Version>) {
        let mut offers = self.0.lock().expect("no holder panics");
        match version {
            Some(version) => offers.insert(slot.clone(), version),
            None => offers.remove(slot),
        };
    }

    fn newest(&self) -> Option<(SlotId, Version)> {
        let offers = self.0.lock().expect("no holder panics");
        offers
            .iter()
            .max_by_key(|(_, version)| *version)
            .map(|(slot, version)| (slot.clone(), version.clone()))
    }
}

/// Everything about updates that the main thread holds.
pub(super) struct Updates {
    /// `None` on a machine that was not started from a partition set.
    updater: Option<Updater>,
    boot: BootPartition,
    pub(super) offers: Offers,
    /// The readers were looked at once.
    pub(super) readers_listed: Arc<AtomicBool>,
    applying: Option<Receiver<Applied>>,
    /// What the broker was told of troubles; told again after a new connection.
    raised: BTreeMap<&'static str, Alert>,
    connected: bool,
    /// What the screens were told last.
    said: Option<String>,
    started: Instant,
}

impl Updates {
    /// Finds out what runs, and what became of an update.
    pub(super) fn start(config: &Config, state: &StateFolder) -> Self {
        let boot = BootPartition::new(&config.update.boot);
        let can_restart = config.bench.reboot.as_deref().is_some_and(update::is_program);
        let running =
            boot.running(&update::command_line(&config.update.command_line)).filter(|_| can_restart);
        if let Some(running) = &running {
            tracing::info!(set = running.set.name(), version = %running.version, tried = running.tried, "partition set");
        }
        let memory = read_bounded(&state.path(MEMORY)).ok();
        // A damaged memory is none: what failed may then be tried once more.
        let memory: Memory = memory.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
        Self {
            updater: running.map(|running| Updater::start(running, memory)),
            boot,
            offers: Offers::default(),
            // Without readers of its own there is nothing to find.
            readers_listed: Arc::new(AtomicBool::new(!config.readers)),
            applying: None,
            raised: BTreeMap::new(),
            connected: false,
            said: None,
            started: Instant::now(),
        }
    }

    /// What runs, for the broker.
    pub(super) fn system(&self) -> Option<SystemInfo> {
        let running = self.updater.as_ref()?.running();
        Some(SystemInfo { set: running.set.name().to_owned(), version: running.version.clone() })
    }

    /// True when the machine goes down for another set.
    pub(super) fn is_restarting(&self) -> bool {
        self.updater.as_ref().is_some_and(Updater::is_restarting)
    }

    /// One line for the screen.
    pub(super) fn line(&self) -> Option<String> {
        let updater = self.updater.as_ref()?;
        let offer = || {
            let (slot, version) = self.offers.newest()?;
            Some(format!("The card in {slot} has an update, version {version}: u installs it."))
        };
        updater.line().or_else(offer).or_else(|| Some(updater.trouble()?.1))
    }

    fn report(&self, shop: &Shop) -> Option<UpdateReport> {
        self.updater.as_ref()?.report(shop.desired().and_then(|desired| desired.settings.update.as_ref()))
    }
}

impl Agent {
    /// Lets updates go on. Called with every event and at least four times a second.
    pub(super) fn look_after_updates(&mut self) -> Result<(), super::AgentError> {
        let Some(updater) = &mut self.updates.updater else { return Ok(()) };
        let uptime = self.updates.started.elapsed();
        if let Some(applying) = &self.updates.applying {
            match applying.try_recv() {
                Ok(result) => {
                    match &result {
                        Ok((version, _)) => tracing::info!(%version, "an update is in place"),
                        Err(why) => tracing::error!(%why, "an update is not applied"),
                    }
                    let said = match &result {
                        Ok((version, _)) => format!("Version {version} is in place."),
                        Err(why) => format!("The update is not installed: {why}."),
                    };
                    self.screen.iter().for_each(|screen| screen.say("update", &said));
                    self.told.say(said);
                    updater.applied(uptime, result);
                    self.updates.applying = None;
                }
                Err(TryRecvError::Empty) => {}
                Err(TryRecvError::Disconnected) => {
                    updater.applied(uptime, Err("its thread broke off".into()));
                    self.updates.applying = None;
                }
            }
        }
        let desired = self.shop.desired().and_then(|desired| desired.settings.update.as_ref());
        let facts = Facts {
            uptime,
            desired,
            whole: desired.is_some_and(|update| self.shop.has_whole(update.image)),
            connected: self.connected,
            readers_listed: self.updates.readers_listed.load(Ordering::Acquire),
        };
        for deed in updater.look(facts) {
            self.carry_out_deed(deed)?;
        }
        let updater = self.updates.updater.as_ref().expect("it was there a moment ago");
        let wanted = updater.wants().cloned();
        let needed = updater.needs();
        let report = self.updates.report(&self.shop);
        self.shop.follow_update(wanted, needed, report);
        self.say_troubles();
        let line = self.updates.line();
        if line != self.updates.said {
            self.screen.iter().zip(&line).for_each(|(screen, line)| screen.say("update", line));
            self.updates.said = line;
        }
        Ok(())
    }

    fn carry_out_deed(&mut self, deed: Deed) -> Result<(), super::AgentError> {
        let Some(updater) = &mut self.updates.updater else { return Ok(()) };
        match deed {
            Deed::Apply { source, allow_older } => self.apply(source, allow_older),
            Deed::Record => {
                let memory = serde_json::to_vec(updater.memory()).expect("plain data has a JSON form");
                let kept = replace_file(&self.state.path(MEMORY), &memory);
                if let Err(error) = &kept {
                    tracing::error!(%error, "what is known of updates is not kept");
                }
                updater.recorded(kept.is_ok());
            }
            Deed::Keep(set) => match self.updates.boot.keep(set) {
                Ok(()) => {
                    tracing::info!(set = set.name(), "this partition set is kept");
                    let said = format!("Version {} is kept.", updater.running().version);
                    self.screen.iter().for_each(|screen| screen.say("update", &said));
                }
                // The set before starts again with the next boot.
                Err(error) => tracing::error!(%error, "this partition set is not kept"),
            },
            Deed::Restart => self.step(Event::Wish(Wish::Act(Action::Reboot)))?,
            Deed::Decided => update::tell_decided(&self.config.update.decided),
        }
        Ok(())
    }

    fn apply(&mut self, source: Source, allow_older: bool) {
        let Some(updater) = &self.updates.updater else { return };
        let (running, boot) = (updater.running().clone(), self.updates.boot.clone());
        let (cache, devices) = (self.cache.clone(), self.devices.clone());
        let (sender, receiver) = channel();
        let work = move || {
            let path = find(&source, &cache, &devices);
            let applied = path.and_then(|path| {
                let applied = boot.apply(&path, &running, allow_older).map_err(|error| chain(&error));
                if matches!(source, Source::Stick(_)) {
                    // It is of no more use; the next one would replace it.
                    let _ = std::fs::remove_file(&path);
                }
                applied
            });
            // Fails only when the agent has ended.
            let _ = sender.send(applied);
        };
        self.updates.applying = Some(receiver);
        if let Err(error) = std::thread::Builder::new().name("update".into()).spawn(work) {
            tracing::error!(%error, "no thread to write an update with");
        }
    }

    /// A person, here or at a page, wants an update now.
    pub(super) fn press_update(&mut self) -> Result<(), &'static str> {
        let desired = self.shop.desired().and_then(|desired| desired.settings.update.clone());
        let stick = self.updates.offers.newest().map(|(slot, _)| slot);
        let Some(updater) = &mut self.updates.updater else {
            return Err("this machine was not started from an appliance's disk");
        };
        updater.press(stick, desired.as_ref())
    }

    /// An image cannot be had: is it the update's?
    pub(super) fn update_refused(&mut self, image: cardshop_protocol::ids::ImageId, why: &str) {
        if let Some(updater) = &mut self.updates.updater {
            updater.refused(image, why);
        }
    }

    /// Raises what is wrong as alerts, and clears what is not any more.
    fn say_troubles(&mut self) {
        if self.connected != self.updates.connected {
            self.updates.connected = self.connected;
            self.updates.raised.clear();
            if self.connected {
                for code in ["update_failed", "partition_set_damaged"] {
                    self.link.clear(ApplianceTopic::Alert(code.into()));
                }
            }
        }
        let trouble = self.updates.updater.as_ref().and_then(Updater::trouble);
        let wanted: BTreeMap<_, _> = trouble.into_iter().collect();
        let over: Vec<_> =
            self.updates.raised.keys().filter(|code| !wanted.contains_key(*code)).copied().collect();
        for code in over {
            self.updates.raised.remove(code);
            self.link.clear(ApplianceTopic::Alert(code.into()));
        }
        for (code, text) in wanted {
            if self.updates.raised.get(code).is_none_or(|alert| alert.text != text) {
                let alert = Alert { v: VERSION, text, since: self.clock.now(), slot: None };
                self.link.publish(ApplianceTopic::Alert(code.into()), &alert);
                self.updates.raised.insert(code, alert);
            }
        }
    }
}

/// The file that holds an update's bytes.
fn find(source: &Source, cache: &Cache, devices: &Devices) -> Result<PathBuf, String> {
    match source {
        Source::Image(image) => Ok(cache.path(*image, "img")),
        Source::Stick(slot) => {
            let device = devices.get(slot).ok_or("the card is gone")?;
            let to = cache.folder().join(FROM_CARD);
            update::copy_from_stick(&device.path, &to).map_err(|error| chain(&error))?;
            Ok(to)
        }
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
