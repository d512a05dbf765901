//! Which device stands for the card in each slot now: told by whoever watches slots, noted by the probe, asked
//! by the writer, which claims only what was probed.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use cardshop_card::DeviceIdentity;
use cardshop_protocol::ids::SlotId;

/// One slot's device.
#[derive(Debug, Clone)]
pub(crate) struct Device {
    /// Where it is; never stored or sent.
    pub(crate) path: PathBuf,
    /// Folder of the reader it is in, below `/sys` without that prefix; `None` for a path the settings name.
    pub(crate) reader: Option<PathBuf>,
    /// What it was when it was probed.
    pub(crate) probed: Option<DeviceIdentity>,
}

/// The devices of all slots; clones are the same list.
#[derive(Debug, Clone, Default)]
pub(crate) struct Devices(Arc<Mutex<BTreeMap<SlotId, Device>>>);

impl Devices {
    /// A card is in a slot.
    pub(crate) fn put(&self, slot: &SlotId, path: PathBuf, reader: Option<PathBuf>) {
        let device = Device { path, reader, probed: None };
        self.0.lock().expect("no holder panics").insert(slot.clone(), device);
    }

    /// It was probed.
    pub(crate) fn probed(&self, slot: &SlotId, identity: DeviceIdentity) {
        if let Some(device) = self.0.lock().expect("no holder panics").get_mut(slot) {
            device.probed = Some(identity);
        }
    }

    /// The slot's device.
    pub(crate) fn get(&self, slot: &SlotId) -> Option<Device> {
        self.0.lock().expect("no holder panics").get(slot).cloned()
    }
}
