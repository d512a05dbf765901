//! Which place a card is in: the port a reader is plugged into, plus the LUN, as a key that stays the same across
//! reboots and re-plugging, and the slot each key is bound to. Pure; `effects::readers` looks at the kernel and keeps
//! the bindings.
//!
//! A key leaves out everything that the kernel counts in the order of arrival: `hostN`, `targetN`, `sdX`, and the bus
//! number, because one socket of an xHCI controller is on two buses, one for each generation of USB.

use std::path::{Component, Path};

use cardshop_protocol::ids::SlotId;
use serde::{Deserialize, Serialize};

use crate::config::MAX_SLOTS;

/// Where a disk is: its key, and the folder of the reader below `/sys` (without that prefix) as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    /// Stable name, such as `0000:00:14.0/usb-3.2/0`.
    pub key: String,
    /// The reader's folder, for the interlock: what may be written lies below it.
    pub reader: String,
}

/// The port of a disk, from its folder below `/sys` without that prefix (`devices/pci…/block/sdb`). `None` for
/// what is no card reader's: another bus, or a hardware boot area of an mmc chip.
pub fn port_of(folder: &Path) -> Option<Port> {
    let parts: Vec<&str> = folder.components().filter_map(name).collect();
    let disk = parts.last()?;
    if disk.contains("boot") || disk.contains("rpmb") {
        return None;
    }
    let usb = parts.iter().rposition(|part| usb_ports(part).is_some());
    let mmc = parts.iter().position(|part| *part == "mmc_host");
    let (at, place) = match (usb, mmc) {
        // A reader behind USB that is an mmc host of its own has no LUN either.
        (_, Some(host)) => (host, "mmc".to_owned()),
        (Some(usb), None) => (usb, format!("usb-{}/{}", usb_ports(parts[usb])?, lun(&parts[usb..])?)),
        (None, None) => return None,
    };
    let controller = controller(&parts[..at]);
    Some(Port { key: format!("{controller}/{place}"), reader: parts[..=at].join("/") })
}

fn name(part: Component<'_>) -> Option<&str> {
    match part {
        Component::Normal(name) => name.to_str(),
        _ => None,
    }
}

/// `3.2` of the USB device `1-3.2`; nothing of `usb1`, `1-3.2:1.0` and what is no USB device.
fn usb_ports(part: &str) -> Option<&str> {
    let (bus, ports) = part.split_once('-')?;
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    (digits(bus) && ports.split('.').all(digits)).then_some(ports)
}

/// The last number of the SCSI address `2:0:0:1`.
fn lun<'a>(parts: &[&'a str]) -> Option<&'a str> {
    let address = parts.iter().find(|part| part.split(':').count() == 4)?;
    address.rsplit(':').next()
}

/// What the bus hangs on: the last part in front of it that the kernel did not count.
fn controller<'a>(parts: &[&'a str]) -> &'a str {
    let counted = |part: &str| part.starts_with("usb") || usb_ports(part).is_some();
    parts.iter().rev().find(|part| !counted(part)).copied().unwrap_or("none")
}

/// Which slot each port is: the first one seen is `s01`. Nothing is ever forgotten by itself, so that a name a
/// person has put on a slot stays with it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bindings {
    ports: Vec<String>,
}

impl Bindings {
    /// The slot of a port, if it has one.
    pub fn slot(&self, key: &str) -> Option<SlotId> {
        let at = self.ports.iter().position(|port| port == key)?;
        Some(SlotId::numbered(at as u32 + 1))
    }

    /// Gives a port the next free slot; `None` when there are as many as there can be.
    pub fn bind(&mut self, key: &str) -> Option<SlotId> {
        if self.slot(key).is_none() && self.ports.len() < MAX_SLOTS {
            self.ports.push(key.to_owned());
        }
        self.slot(key)
    }

    /// All slots with their ports, [`MAX_SLOTS`] at most whatever a file says.
    pub fn all(&self) -> impl Iterator<Item = (SlotId, &str)> {
        (1..).zip(&self.ports).take(MAX_SLOTS).map(|(number, port)| (SlotId::numbered(number), port.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(folder: &str) -> Option<String> {
        port_of(Path::new(folder)).map(|port| port.key)
    }

    #[test]
    fn a_socket_has_one_key_whatever_the_kernel_counted_and_on_either_bus() {
        let usb2 =
            "devices/pci0000:00/0000:00:04.0/usb1/1-3/1-3.2/1-3.2:1.0/host7/target7:0:0/7:0:0:1/block/sdc";
        let usb3 =
            "devices/pci0000:00/0000:00:04.0/usb2/2-3/2-3.2/2-3.2:1.0/host2/target2:0:0/2:0:0:1/block/sdb";
        assert_eq!(key(usb2).unwrap(), "0000:00:04.0/usb-3.2/1");
        assert_eq!(key(usb2), key(usb3));
        assert_ne!(key(usb2), key(&usb2.replace("7:0:0:1", "7:0:0:0")), "each LUN is a slot");
        assert_ne!(key(usb2), key(&usb2.replace("1-3.2", "1-3.1")), "each port is another");
        assert_ne!(key(usb2), key(&usb2.replace("04.0", "05.0")), "each controller is another");
        let port = port_of(Path::new(usb2)).unwrap();
        assert!(usb2.starts_with(&port.reader) && port.reader.ends_with("/1-3.2"), "{port:?}");
    }

    #[test]
    fn a_card_on_an_mmc_host_is_in_a_slot_and_an_inner_disk_is_not() {
        let mmc = "devices/pci0000:00/0000:00:05.0/mmc_host/mmc0/mmc0:4567/block/mmcblk0";
        assert_eq!(key(mmc).unwrap(), "0000:00:05.0/mmc");
        assert_eq!(key(&format!("{mmc}boot0")), None);
        let inner = "devices/pci0000:00/0000:00:1f.2/ata1/host0/target0:0:0/0:0:0:0/block/sda";
        for other in
            [inner, "devices/virtual/block/loop0", "devices/pci0000:00/0000:00:06.0/virtio1/block/vda", ""]
        {
            assert_eq!(key(other), None, "{other}");
        }
    }

    #[test]
    fn a_port_keeps_its_slot_and_there_are_no_more_than_can_be() {
        let mut bindings = Bindings::default();
        let first = bindings.bind("a").unwrap();
        assert_eq!(
            (first.to_string(), bindings.bind("b").unwrap().to_string()),
            ("s01".into(), "s02".into())
        );
        assert_eq!(bindings.bind("a"), Some(first));
        (2..MAX_SLOTS).for_each(|n| assert!(bindings.bind(&n.to_string()).is_some()));
        assert_eq!(bindings.bind("one too many"), None);
        assert_eq!(bindings.all().count(), MAX_SLOTS);
    }
}
