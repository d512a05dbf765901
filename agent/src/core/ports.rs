//! Which place a card is in: the port a reader is plugged into, plus the LUN, as a key that stays the same across
//! reboots and re-plugging. Pure; `effects::readers` looks at the kernel, [`super::book`] says which slot a key is.
//!
//! A key leaves out everything that the kernel counts in the order of arrival: `hostN`, `targetN`, `sdX`, and the bus
//! number, because one socket of an xHCI controller is on two buses, one for each generation of USB.

use std::path::{Component, Path};

/// Where a disk is: its key, and the folder of the reader below `/sys` (without that prefix) as it is now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    /// Stable name, such as `0000:00:14.0/usb-3.2/0`.
    pub key: String,
    /// The reader's folder, for the interlock: what may be written lies below it.
    pub reader: String,
}

/// A socket of a computer as one of its root hubs counts it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootPort {
    /// The root hub's folder below `/sys`, such as `devices/pci0000:00/0000:00:14.0/usb2`.
    pub hub: String,
    /// Its port, from 1.
    pub number: u32,
}

/// The port of a disk, from its folder below `/sys` without that prefix (`devices/pci…/block/sdb`). `None` for
/// what is no card reader's: another bus, or a hardware boot area of an mmc chip. `usb2_number` is asked how the root hub
/// for USB 2 counts a socket, where it is another one that counts it otherwise.
pub fn port_of(folder: &Path, usb2_number: impl FnOnce(&RootPort) -> Option<u32>) -> Option<Port> {
    let parts: Vec<&str> = folder.components().filter_map(name).collect();
    let disk = parts.last()?;
    if disk.contains("boot") || disk.contains("rpmb") {
        return None;
    }
    let usb = parts.iter().rposition(|part| usb_ports(part).is_some());
    let mmc = parts.iter().position(|part| *part == "mmc_host");
    let place = match (usb, mmc) {
        // A reader behind USB that is an mmc host of its own has no LUN.
        (Some(usb), mmc) => {
            let lun = mmc.map_or_else(|| lun(&parts[usb..]), |_| Some("mmc"))?;
            format!("usb-{}/{lun}", ports_as_usb2(&parts, usb, usb2_number)?)
        }
        (None, Some(_)) => "mmc".to_owned(),
        (None, None) => return None,
    };
    let at = usb.or(mmc)?;
    Some(Port { key: format!("{}/{place}", controller(&parts[..at])), reader: parts[..=at].join("/") })
}

/// The way from the computer to a USB device; its first port as the root hub for USB 2 counts it.
fn ports_as_usb2(
    parts: &[&str],
    usb: usize,
    usb2_number: impl FnOnce(&RootPort) -> Option<u32>,
) -> Option<String> {
    let ports = usb_ports(parts[usb])?;
    let (first, behind) = ports.split_once('.').map_or((ports, None), |(first, rest)| (first, Some(rest)));
    let hub = parts.iter().position(|part| is_root_hub(part))?;
    let number = first.parse().ok()?;
    let number = usb2_number(&RootPort { hub: parts[..=hub].join("/"), number }).unwrap_or(number);
    Some(behind.map_or_else(|| number.to_string(), |behind| format!("{number}.{behind}")))
}

fn is_root_hub(part: &str) -> bool {
    part.strip_prefix("usb").is_some_and(|bus| !bus.is_empty() && bus.bytes().all(|b| b.is_ascii_digit()))
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

/// What the bus hangs on: the last PCI address in front of it; without PCI the last part that the kernel did not count.
fn controller<'a>(parts: &[&'a str]) -> &'a str {
    let counted = |part: &&str| is_root_hub(part) || usb_ports(part).is_some();
    let mut last = parts.iter().rev().copied();
    last.clone()
        .find(|part| is_pci_address(part))
        .or_else(|| last.find(|part| !counted(part)))
        .unwrap_or("none")
}

/// `0000:00:14.0`.
fn is_pci_address(part: &str) -> bool {
    let hex = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_hexdigit());
    let mut fields = part.split([':', '.']);
    fields.clone().count() == 4 && part.matches(':').count() == 2 && fields.all(hex)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(folder: &str) -> Option<String> {
        port_of(Path::new(folder), |_| None).map(|port| port.key)
    }

    /// Folders as kernels of real machines show them, and what each place is called.
    #[test]
    fn the_places_of_real_trees_have_names_that_do_not_depend_on_what_the_kernel_counted() {
        for (folder, wanted) in [
            // A PC, a reader in a hub in a hub.
            (
                "devices/pci0000:00/0000:00:14.0/usb1/1-2/1-2.4/1-2.4.1/1-2.4.1:1.0/host6/target6:0:0/6:0:0:0/block/sdb",
                Some("0000:00:14.0/usb-2.4.1/0"),
            ),
            // Its second LUN, and the same reader plugged in a moment later, in the other order.
            (
                "devices/pci0000:00/0000:00:14.0/usb1/1-2/1-2.4/1-2.4.1/1-2.4.1:1.0/host9/target9:0:0/9:0:0:1/block/sda",
                Some("0000:00:14.0/usb-2.4.1/1"),
            ),
            // A controller behind a bridge, a reader by UAS.
            (
                "devices/pci0000:00/0000:00:1c.0/0000:02:00.0/usb4/4-1/4-1:1.0/host3/target3:0:0/3:0:0:2/block/sdd",
                Some("0000:02:00.0/usb-1/2"),
            ),
            // A Raspberry Pi 4: USB by PCI below the platform; a 3: USB of the platform.
            (
                "devices/platform/scb/fd500000.pcie/pci0000:00/0000:00:00.0/0000:01:00.0/usb1/1-1/1-1.3/1-1.3:1.0/host0/target0:0:0/0:0:0:0/block/sda",
                Some("0000:01:00.0/usb-1.3/0"),
            ),
            (
                "devices/platform/soc/3f980000.usb/usb1/1-1/1-1.2/1-1.2:1.0/host0/target0:0:0/0:0:0:0/block/sda",
                Some("3f980000.usb/usb-1.2/0"),
            ),
            // SD slots: of a Pi, of a PC's SDHCI, of a PCI reader whose host is a child with a counted name.
            (
                "devices/platform/emmc2bus/fe340000.mmc/mmc_host/mmc0/mmc0:aaaa/block/mmcblk0",
                Some("fe340000.mmc/mmc"),
            ),
            (
                "devices/pci0000:00/0000:00:05.0/mmc_host/mmc0/mmc0:4567/block/mmcblk0",
                Some("0000:00:05.0/mmc"),
            ),
            (
                "devices/pci0000:00/0000:00:1c.4/0000:03:00.0/rtsx_pci_sdmmc.0/mmc_host/mmc1/mmc1:59b4/block/mmcblk1",
                Some("0000:03:00.0/mmc"),
            ),
            // A USB reader that is an mmc host.
            (
                "devices/pci0000:00/0000:00:14.0/usb1/1-4/1-4:1.0/rtsx_usb_sdmmc.1.auto/mmc_host/mmc0/mmc0:0001/block/mmcblk0",
                Some("0000:00:14.0/usb-4/mmc"),
            ),
            // What never is a slot: SATA, NVMe, also by Thunderbolt, virtio, SAS, what software made, boot areas.
            ("devices/pci0000:00/0000:00:1f.2/ata1/host0/target0:0:0/0:0:0:0/block/sda", None),
            ("devices/pci0000:00/0000:00:1d.0/0000:04:00.0/nvme/nvme0/nvme0n1", None),
            (
                "devices/pci0000:00/0000:00:1d.4/0000:05:00.0/0000:06:01.0/0000:07:00.0/nvme/nvme1/nvme1n1",
                None,
            ),
            ("devices/pci0000:00/0000:00:06.0/virtio1/block/vda", None),
            (
                "devices/pci0000:80/0000:80:02.0/0000:81:00.0/host1/port-1:0/end_device-1:0/target1:0:0/1:0:0:0/block/sdq",
                None,
            ),
            ("devices/virtual/block/loop0", None),
            ("devices/virtual/block/dm-0", None),
            ("devices/virtual/block/zram0", None),
            ("devices/pci0000:00/0000:00:1a.0/mmc_host/mmc0/mmc0:0001/block/mmcblk0/mmcblk0boot0", None),
            ("", None),
        ] {
            assert_eq!(key(folder).as_deref(), wanted, "{folder}");
        }
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
        let port = port_of(Path::new(usb2), |_| None).unwrap();
        assert!(usb2.starts_with(&port.reader) && port.reader.ends_with("/1-3.2"), "{port:?}");
    }

    #[test]
    fn a_socket_that_the_root_hub_for_usb_3_counts_otherwise_has_the_number_of_usb_2() {
        let folder =
            "devices/pci0000:00/0000:00:14.0/usb2/2-1/2-1.2/2-1.2:1.0/host2/target2:0:0/2:0:0:0/block/sdb";
        let mut asked = None;
        let port = port_of(Path::new(folder), |root| {
            asked = Some(root.clone());
            Some(5)
        });
        assert_eq!(port.unwrap().key, "0000:00:14.0/usb-5.2/0");
        assert_eq!(asked, Some(RootPort { hub: "devices/pci0000:00/0000:00:14.0/usb2".into(), number: 1 }));
    }
}
