//! Finds readers that are plugged in and says where each slot's device is now. A port that was never seen becomes
//! a slot; one that was keeps its slot, also across reboots (`slots.json` in the state folder). Disks that are in use
//! when they are first seen, the appliance's own above all, never become one. Whether a card is in a slot is
//! `fixed_slots`' to see, whether it may be written the interlock's.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use cardshop_card::{DeviceClass, DeviceFacts, StopFlag};
use cardshop_protocol::ids::SlotId;
use cardshop_protocol::message::SlotInfo;

use super::devices::Devices;
use super::fixed_slots::{self, Place};
use super::state::{StateFolder, replace_file};
use crate::config::read_bounded;
use crate::core::Event;
use crate::core::ports::{Bindings, Port, port_of};

/// How often the kernel's list of disks is looked at; a card itself is looked for as often.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The stop flag is asked this often in between.
const ASK_STOP_EVERY: Duration = Duration::from_millis(100);
/// Disks looked at: a machine with 64 slots and as many other disks has fewer.
const MAX_DISKS: usize = 512;

/// Where a slot's device is now; clones are the same place.
#[derive(Debug, Clone, Default)]
pub(crate) struct PortPlace(Arc<Mutex<Option<(PathBuf, PathBuf)>>>);

impl PortPlace {
    /// The device, and its reader's folder below `/sys`.
    pub(crate) fn now(&self) -> Option<(PathBuf, PathBuf)> {
        self.0.lock().expect("no holder panics").clone()
    }

    fn set(&self, place: Option<(PathBuf, PathBuf)>) {
        *self.0.lock().expect("no holder panics") = place;
    }
}

/// What was bound before this start.
pub(crate) fn known(state: &StateFolder) -> Bindings {
    let Ok(text) = read_bounded(&state.path("slots.json")) else { return Bindings::default() };
    let read = serde_json::from_str(&text);
    read.inspect_err(|error| tracing::error!(%error, "slots.json is damaged: slots are numbered anew"))
        .unwrap_or_default()
}

/// What the broker is told of a bound slot.
pub(crate) fn info(slot: SlotId, key: &str, reader: &str) -> SlotInfo {
    SlotInfo { slot, port_path: key.into(), reader: reader.into() }
}

/// Where everything comes from and goes to.
pub(crate) struct Finder {
    pub(crate) bindings: Bindings,
    pub(crate) state: Arc<StateFolder>,
    pub(crate) devices: Devices,
    pub(crate) events: SyncSender<Event>,
    pub(crate) stop: StopFlag,
}

/// Starts the thread, and one for each slot it knows or finds.
///
/// # Errors
/// What the system says when it has no thread to give.
pub(crate) fn start(finder: Finder) -> io::Result<JoinHandle<()>> {
    let mut looking = Looking { finder, places: BTreeMap::new(), passed_over: BTreeSet::new() };
    let known: Vec<SlotId> = looking.finder.bindings.all().map(|(slot, _)| slot).collect();
    for slot in known {
        looking.watch(slot)?;
    }
    std::thread::Builder::new().name("readers".into()).spawn(move || looking.run())
}

struct Looking {
    finder: Finder,
    places: BTreeMap<SlotId, PortPlace>,
    /// Disks that are no slots, by name and kernel's number, until they are gone.
    passed_over: BTreeSet<(String, String)>,
}

impl Looking {
    fn run(mut self) {
        while !self.finder.stop.is_stopped() {
            if let Err(error) = self.look(Path::new("/sys")) {
                tracing::error!(%error, "the readers cannot be looked at");
            }
            for _ in 0..LOOK_EVERY.as_millis() / ASK_STOP_EVERY.as_millis() {
                if !self.finder.stop.is_stopped() {
                    std::thread::sleep(ASK_STOP_EVERY);
                }
            }
        }
    }

    fn look(&mut self, sys: &Path) -> io::Result<()> {
        let mut found = BTreeMap::new();
        let mut passed_over = BTreeSet::new();
        for entry in fs::read_dir(sys.join("block"))?.flatten().take(MAX_DISKS) {
            let Ok(folder) = fs::canonicalize(entry.path()) else { continue };
            let Some(port) = folder.strip_prefix(sys).ok().and_then(port_of) else { continue };
            let name = entry.file_name().to_string_lossy().into_owned();
            let sequence = fs::read_to_string(folder.join("diskseq")).unwrap_or_default();
            let (disk, device) = ((name.clone(), sequence), Path::new("/dev").join(name));
            let slot = match self.finder.bindings.slot(&port.key) {
                Some(slot) => Some(slot),
                None if self.passed_over.contains(&disk) => None,
                None => self.bind(&port, &device)?,
            };
            match slot {
                Some(slot) => drop(found.insert(slot, (device, PathBuf::from(port.reader)))),
                None => drop(passed_over.insert(disk)),
            }
        }
        self.passed_over = passed_over;
        for (slot, place) in &self.places {
            place.set(found.remove(slot));
        }
        Ok(())
    }

    /// Makes a port that was never seen a slot, if a card can be in it.
    fn bind(&mut self, port: &Port, device: &Path) -> io::Result<Option<SlotId>> {
        let facts = match cardshop_card::gather(device) {
            Ok(facts) if may_be_a_slot(&facts) => facts,
            Ok(facts) => {
                tracing::info!(disk = facts.describe(), "not a slot");
                return Ok(None);
            }
            Err(error) => {
                tracing::warn!(%error, "a disk that cannot be looked at is not a slot");
                return Ok(None);
            }
        };
        let Some(slot) = self.finder.bindings.bind(&port.key) else {
            tracing::error!(port = port.key, "there are as many slots as there can be");
            return Ok(None);
        };
        let text = serde_json::to_vec(&self.finder.bindings).expect("plain data has a JSON form");
        replace_file(&self.finder.state.path("slots.json"), &text)?;
        tracing::info!(%slot, port = port.key, reader = facts.model, "a new slot");
        let event = Event::NewSlot(info(slot.clone(), &port.key, &facts.model));
        if self.finder.events.send(event).is_ok() {
            self.watch(slot.clone())?;
        }
        Ok(Some(slot))
    }

    fn watch(&mut self, slot: SlotId) -> io::Result<()> {
        let place = PortPlace::default();
        self.places.insert(slot.clone(), place.clone());
        let Finder { devices, events, stop, .. } = &self.finder;
        fixed_slots::start(slot, Place::Port(place), devices.clone(), events.clone(), stop.clone()).map(drop)
    }
}

/// A disk becomes a slot when a card can be taken out of it and nothing on it is in use.
fn may_be_a_slot(facts: &DeviceFacts) -> bool {
    let takes_cards = matches!(facts.class, DeviceClass::Removable | DeviceClass::Mmc);
    takes_cards && !facts.holds_root && facts.mounted_at.is_empty() && facts.swap.is_empty()
}
