//! Finds readers that are plugged in and says where each slot's device is now. Looks when the kernel says that
//! something came or went, and once a second. A port that was never seen is told to the shop, which makes it a slot; one
//! that was keeps its slot. Disks that are in use when they are first seen, the appliance's own above all, never become
//! one. Whether a card is in a slot is `fixed_slots`' to see, whether it may be written the interlock's.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use cardshop_card::{DeviceClass, DeviceFacts, StopFlag};
use cardshop_protocol::ids::SlotId;

use super::bell::Bell;
use super::devices::Devices;
use super::fixed_slots::{self, Place};
use super::slot_book::SlotBook;
use crate::config::read_bounded;
use crate::core::Event;
use crate::core::book::Book;
use crate::core::ports::{Port, RootPort, port_of};

/// How often the kernel's list of disks is looked at when it says nothing; a card itself is looked for as often.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Disks looked at: a machine with 64 slots and as many other disks has fewer.
const MAX_DISKS: usize = 512;

/// Where a slot's device is now; clones are the same place.
#[derive(Debug, Clone, Default)]
pub(crate) struct PortPlace(Arc<Mutex<Where>>);

#[derive(Debug, Clone, Default, PartialEq, Eq)]
enum Where {
    #[default]
    Away,
    /// The device, and its reader's folder below `/sys`.
    Here(PathBuf, PathBuf),
    /// There is no such slot any more.
    Forgotten,
}

impl PortPlace {
    /// The device, and its reader's folder below `/sys`.
    pub(crate) fn now(&self) -> Option<(PathBuf, PathBuf)> {
        match &*self.0.lock().expect("no holder panics") {
            Where::Here(device, reader) => Some((device.clone(), reader.clone())),
            Where::Away | Where::Forgotten => None,
        }
    }

    /// True when nobody needs to look any more.
    pub(crate) fn is_forgotten(&self) -> bool {
        *self.0.lock().expect("no holder panics") == Where::Forgotten
    }

    fn set(&self, place: Where) {
        *self.0.lock().expect("no holder panics") = place;
    }
}

/// Where everything comes from and goes to.
pub(crate) struct Finder {
    pub(crate) book: SlotBook,
    pub(crate) devices: Devices,
    pub(crate) events: SyncSender<Event>,
    /// Rings when there is something to look at.
    pub(crate) bell: Bell,
    /// Set after the first look.
    pub(crate) listed: Arc<AtomicBool>,
    pub(crate) stop: StopFlag,
}

/// Starts the thread, and one for each slot it knows or finds.
///
/// # Errors
/// What the system says when it has no thread to give.
pub(crate) fn start(finder: Finder) -> io::Result<JoinHandle<()>> {
    let mut looking =
        Looking { finder, places: BTreeMap::new(), met: BTreeSet::new(), cards: Bell::default() };
    looking.follow(&looking.finder.book.get())?;
    std::thread::Builder::new().name("readers".into()).spawn(move || looking.run())
}

/// A disk as it is plugged in now: its folder has the number of its connection.
type Disk = PathBuf;

struct Looking {
    finder: Finder,
    places: BTreeMap<SlotId, PortPlace>,
    /// Disks that were looked at, until they are gone.
    met: BTreeSet<Disk>,
    /// Rings when devices have moved.
    cards: Bell,
}

impl Looking {
    fn run(mut self) {
        let mut heard = 0;
        while !self.finder.stop.is_stopped() {
            if let Err(error) = self.look(Path::new("/sys")) {
                tracing::error!(%error, "the readers cannot be looked at");
            } else {
                self.finder.listed.store(true, Ordering::Release);
            }
            self.finder.bell.wait(&mut heard, LOOK_EVERY);
        }
        self.cards.ring();
    }

    fn look(&mut self, sys: &Path) -> io::Result<()> {
        let book = self.finder.book.get();
        self.follow(&book)?;
        let mut found = BTreeMap::new();
        let mut disks = Vec::new();
        for entry in fs::read_dir(sys.join("block"))?.flatten().take(MAX_DISKS) {
            let Ok(folder) = fs::canonicalize(entry.path()) else { continue };
            let Some(below) = folder.strip_prefix(sys).ok() else { continue };
            let Some(port) = port_of(below, |root| usb2_number(sys, root)) else { continue };
            let device = Path::new("/dev").join(entry.file_name());
            if let Some(slot) = book.slot(&port.key) {
                found.insert(slot, Where::Here(device.clone(), PathBuf::from(&port.reader)));
            }
            disks.push((folder, port, device));
        }
        for (slot, place) in &self.places {
            place.set(found.remove(slot).unwrap_or_default());
        }
        self.cards.ring();
        self.met.retain(|met| disks.iter().any(|(folder, ..)| folder == met));
        // Last: opening a reader that hangs takes as long as it hangs.
        for (folder, port, device) in disks {
            if self.met.insert(folder.clone()) {
                self.meet(&folder, port, &device, &book);
            }
        }
        Ok(())
    }

    /// Tells the shop of a reader that was plugged in, if a card can be in it.
    fn meet(&self, folder: &Path, port: Port, device: &Path, book: &Book) {
        let facts = match cardshop_card::gather(device) {
            Ok(facts) => facts,
            Err(error) => {
                return tracing::warn!(%error, "a disk that cannot be looked at is not a slot");
            }
        };
        let chip = read_bounded(&folder.join("device/type")).unwrap_or_default();
        if book.slot(&port.key).is_none() && !may_be_a_slot(&facts, chip.trim()) {
            return tracing::info!(disk = facts.describe(), "not a slot");
        }
        tracing::info!(port = port.key, reader = facts.model, "a reader");
        // Fails only when the agent has ended.
        let _ = self.finder.events.send(Event::Reader { key: port.key, reader: facts.model });
    }

    /// Looks for cards in the slots of the book, and in no others.
    fn follow(&mut self, book: &Book) -> io::Result<()> {
        for (slot, ..) in book.all() {
            if self.places.contains_key(&slot) {
                continue;
            }
            let place = PortPlace::default();
            self.places.insert(slot.clone(), place.clone());
            let Finder { devices, events, stop, .. } = &self.finder;
            let (devices, events, stop) = (devices.clone(), events.clone(), stop.clone());
            fixed_slots::start(slot, Place::Port(place), devices, events, self.cards.clone(), stop)?;
        }
        self.places.retain(|slot, place| {
            let known = book.all().any(|(id, ..)| id == *slot);
            if !known {
                place.set(Where::Forgotten);
            }
            known
        });
        Ok(())
    }
}

/// How the root hub for USB 2 counts a socket that the one for USB 3 counts otherwise. **Source:** Linux
/// `Documentation/ABI/testing/sysfs-bus-usb`, *peer*.
fn usb2_number(sys: &Path, root: &RootPort) -> Option<u32> {
    let hub = sys.join(&root.hub);
    let bus = hub.file_name()?.to_str()?.to_owned();
    if !read_bounded(&hub.join("version")).ok()?.trim().starts_with('3') {
        return None;
    }
    let interface = format!("{}-0:1.0", bus.strip_prefix("usb")?);
    let peer =
        fs::read_link(hub.join(interface).join(format!("{bus}-port{}", root.number)).join("peer")).ok()?;
    peer.file_name()?.to_str()?.rsplit_once("-port")?.1.parse().ok()
}

/// A disk becomes a slot when a card can be taken out of it and nothing on it is in use. `chip` is what an mmc host calls
/// what is in it: `MMC` is soldered to the board.
fn may_be_a_slot(facts: &DeviceFacts, chip: &str) -> bool {
    let takes_cards = match facts.class {
        DeviceClass::Removable => true,
        DeviceClass::Mmc => chip != "MMC",
        _ => false,
    };
    takes_cards && !facts.holds_root && facts.mounted_at.is_empty() && facts.swap.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn only_what_a_card_can_be_taken_out_of_and_is_not_in_use_becomes_a_slot() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("card");
        fs::write(&path, b"x").unwrap();
        let facts = |class| DeviceFacts { class, ..cardshop_card::gather(&path).unwrap() };
        assert!(may_be_a_slot(&facts(DeviceClass::Removable), ""));
        assert!(may_be_a_slot(&facts(DeviceClass::Mmc), "SD"));
        assert!(!may_be_a_slot(&facts(DeviceClass::Mmc), "MMC"), "a chip on the board");
        assert!(!may_be_a_slot(&facts(DeviceClass::Other), ""), "an inner disk");
        let mounted = DeviceFacts { mounted_at: vec!["/".into()], ..facts(DeviceClass::Removable) };
        assert!(!may_be_a_slot(&mounted, ""));
        assert!(!may_be_a_slot(&DeviceFacts { holds_root: true, ..facts(DeviceClass::Removable) }, ""));
    }

    #[test]
    fn the_peer_of_a_socket_is_read_where_the_kernel_says_it() {
        let sys = tempfile::tempdir().unwrap();
        let hub = |bus: &str| sys.path().join("devices/pci0000:00/0000:00:14.0").join(bus);
        for (bus, version, port) in
            [("usb1", " 2.00\n", "1-0:1.0/usb1-port5"), ("usb2", " 3.10\n", "2-0:1.0/usb2-port1")]
        {
            fs::create_dir_all(hub(bus).join(port)).unwrap();
            fs::write(hub(bus).join("version"), version).unwrap();
        }
        symlink("../../../usb1/1-0:1.0/usb1-port5", hub("usb2").join("2-0:1.0/usb2-port1/peer")).unwrap();
        symlink("../../../usb2/2-0:1.0/usb2-port1", hub("usb1").join("1-0:1.0/usb1-port5/peer")).unwrap();
        let root =
            |bus: &str, number| RootPort { hub: format!("devices/pci0000:00/0000:00:14.0/{bus}"), number };
        let number = |bus, number| usb2_number(sys.path(), &root(bus, number));
        assert_eq!(number("usb2", 1), Some(5));
        assert_eq!(number("usb1", 5), None, "it is counted by USB 2 already");
        assert_eq!(number("usb2", 7), None);
    }
}
