//! Refuses to destroy what is not a card: numbered checks over plain facts, asked before a device is opened
//! for writing and again after. Pure; `facts` gathers, `claim` asks, and every refusal is a value.
//!
//! ```text
//! 1 not the root disk or its parent       4 removable, an mmc host, or a loop device   6 size plausible
//! 2 not mounted                             or plain file named by a person            7 not read-only
//! 3 not swap                              5 below a registered reader, or approved     8 opened exclusively
//!                                                                                      9 unchanged since probed
//! ```

use std::path::PathBuf;

use cardshop_protocol::message::Remedy;

/// Smallest plausible card, bytes. Nothing that boots fits below; a reader without a card says 0.
pub const MIN_CARD_SIZE: u64 = 1 << 20;
/// Largest plausible card, bytes: 2 TiB, the most SDXC can address (SD Physical Layer, *Capacity*).
pub const MAX_CARD_SIZE: u64 = 2 << 40;

/// What kind of thing a path names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceClass {
    /// A disk whose medium can be taken out: a USB reader's slot.
    Removable,
    /// A card on an mmc host.
    Mmc,
    /// A loop device over a plain file.
    Loop,
    /// A plain file.
    PlainFile,
    /// A disk that is not removable.
    FixedDisk,
    /// A part of a disk: a partition, or a hardware boot area of an mmc chip.
    Partition,
    /// Something else: a folder, a terminal, a mapped or network device, a loop device over a disk.
    Other,
}

impl DeviceClass {
    fn describe(self) -> &'static str {
        match self {
            Self::Removable => "removable disk",
            Self::Mmc => "card on an mmc host",
            Self::Loop => "loop device",
            Self::PlainFile => "plain file",
            Self::FixedDisk => "fixed disk",
            Self::Partition => "partition",
            Self::Other => "not a disk",
        }
    }
}

/// What makes a device the same one as before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceIdentity {
    /// Device number of the block device, or of the file system a plain file is on.
    pub device_number: u64,
    /// Inode of a plain file, 0 for a block device.
    pub inode: u64,
    /// The kernel's number of this disk and medium, never used twice; 0 where it does not say.
    pub disk_sequence: u64,
    /// Bytes.
    pub size: u64,
}

/// Who holds a device besides us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exclusive {
    /// Not tried yet.
    NotTried,
    /// We hold it alone.
    Held,
    /// Somebody else has it.
    Busy,
}

/// All that is known of a device before it may be destroyed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceFacts {
    /// The path it was named by.
    pub path: PathBuf,
    /// Kind.
    pub class: DeviceClass,
    /// Make and model, where it says.
    pub model: String,
    /// Card identification register, hex, where the reader shows it.
    pub cid: Option<String>,
    /// Where it hangs: its folder below `/sys` without that prefix (`devices/pci…/block/sdb`); empty for files.
    pub port_path: PathBuf,
    /// Bytes of its logical blocks; nothing for a plain file.
    pub block_size: Option<u32>,
    /// What makes it the same device later.
    pub identity: DeviceIdentity,
    /// True when the root file system is on it or on a part of it.
    pub holds_root: bool,
    /// Where it, a partition of it or something made of it is mounted.
    pub mounted_at: Vec<PathBuf>,
    /// Swap areas on it.
    pub swap: Vec<PathBuf>,
    /// True when it refuses writes.
    pub read_only: bool,
    /// Whether we have it alone.
    pub exclusive: Exclusive,
}

impl DeviceFacts {
    /// Bytes of the card.
    pub fn size(&self) -> u64 {
        self.identity.size
    }

    /// One line that lets a person recognise it.
    pub fn describe(&self) -> String {
        let model = if self.model.is_empty() { String::new() } else { format!(", {}", self.model) };
        format!("{} ({}{model}, {} bytes)", self.path.display(), self.class.describe(), self.size())
    }
}

/// What the caller vouches for.
#[derive(Debug, Clone)]
pub struct Policy {
    /// A person, or the settings, named this very path: loop devices and plain files are allowed, and its
    /// reader needs no registration. Fixed disks stay refused.
    pub named: bool,
    /// Folders below `/sys`, without that prefix, of readers whose slots may be written.
    pub readers: Vec<PathBuf>,
    /// Smallest plausible card, bytes.
    pub min_size: u64,
    /// Largest plausible card, bytes.
    pub max_size: u64,
    /// What the device was when it was probed; `claim` fills it from its own first look when it is empty.
    pub probed: Option<DeviceIdentity>,
}

impl Policy {
    /// For a path a person gave on the command line or in the settings.
    pub fn named() -> Self {
        Self { named: true, ..Self::readers(Vec::new()) }
    }

    /// For slots that came up by themselves below one of these readers.
    pub fn readers(readers: Vec<PathBuf>) -> Self {
        Self { named: false, readers, min_size: MIN_CARD_SIZE, max_size: MAX_CARD_SIZE, probed: None }
    }
}

/// Why a device is not written. The text says what the device is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("refused by check {number}: {device} {reason}")]
pub struct Refusal {
    /// Which check, 1 to 9.
    pub number: u8,
    /// The device, as a person recognises it.
    pub device: String,
    /// What is wrong, and the way out where there is one.
    pub reason: String,
}

impl Refusal {
    /// What follows: another card where the card is the reason, another look where it changed.
    pub fn remedy(&self) -> Remedy {
        match self.number {
            6 | 7 => Remedy::ReplaceCard,
            9 => Remedy::Retry,
            _ => Remedy::CallOperator,
        }
    }
}

/// Asks all checks in their order.
///
/// # Errors
/// The first check that refuses.
pub fn check(facts: &DeviceFacts, policy: &Policy) -> Result<(), Refusal> {
    let checks = [
        not_the_root_disk,
        not_mounted,
        not_swap,
        kind_of_card,
        known_reader,
        plausible_size,
        writable,
        exclusive,
        unchanged,
    ];
    for (number, check) in (1..).zip(checks) {
        if let Some(reason) = check(facts, policy) {
            return Err(Refusal { number, device: facts.describe(), reason });
        }
    }
    Ok(())
}

fn not_the_root_disk(facts: &DeviceFacts, _: &Policy) -> Option<String> {
    facts.holds_root.then(|| "holds this system's root".to_owned())
}

fn not_mounted(facts: &DeviceFacts, _: &Policy) -> Option<String> {
    let place = facts.mounted_at.first()?;
    Some(format!("is mounted at {}: unmount it first", place.display()))
}

fn not_swap(facts: &DeviceFacts, _: &Policy) -> Option<String> {
    let area = facts.swap.first()?;
    Some(format!("is used as swap ({}): swapoff first", area.display()))
}

fn kind_of_card(facts: &DeviceFacts, policy: &Policy) -> Option<String> {
    match facts.class {
        DeviceClass::Removable | DeviceClass::Mmc => None,
        DeviceClass::Loop | DeviceClass::PlainFile if policy.named => None,
        DeviceClass::Loop | DeviceClass::PlainFile => Some("was not named by a person".to_owned()),
        DeviceClass::Partition => Some("is a part of a disk: name the whole card".to_owned()),
        DeviceClass::FixedDisk | DeviceClass::Other => Some("is no removable card".to_owned()),
    }
}

fn known_reader(facts: &DeviceFacts, policy: &Policy) -> Option<String> {
    let known = policy.named || policy.readers.iter().any(|r| facts.port_path.starts_with(r));
    (!known).then(|| format!("is at {}, below no registered reader", facts.port_path.display()))
}

fn plausible_size(facts: &DeviceFacts, policy: &Policy) -> Option<String> {
    let (size, least, most) = (facts.size(), policy.min_size, policy.max_size);
    match size {
        0 => Some("has no card in it".to_owned()),
        _ if size < least || size > most => Some(format!("is no card of {least} to {most} bytes")),
        _ => None,
    }
}

fn writable(facts: &DeviceFacts, _: &Policy) -> Option<String> {
    facts.read_only.then(|| "is read-only: unlock the card".to_owned())
}

fn exclusive(facts: &DeviceFacts, _: &Policy) -> Option<String> {
    (facts.exclusive == Exclusive::Busy).then(|| "is in use by another program".to_owned())
}

fn unchanged(facts: &DeviceFacts, policy: &Policy) -> Option<String> {
    let changed = policy.probed.is_some_and(|probed| probed != facts.identity);
    changed.then(|| "is not the device that was there before: look again".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const READER: &str = "devices/pci0000:00/0000:00:14.0/usb1/1-2";

    /// A card every check lets pass under [`policy`].
    fn card() -> DeviceFacts {
        DeviceFacts {
            path: "/dev/sdb".into(),
            class: DeviceClass::Removable,
            model: "Generic SD Reader".into(),
            cid: None,
            port_path: format!("{READER}/host2/block/sdb").into(),
            block_size: Some(512),
            identity: DeviceIdentity { device_number: 0x810, inode: 0, disk_sequence: 9, size: 32 << 30 },
            holds_root: false,
            mounted_at: vec![],
            swap: vec![],
            read_only: false,
            exclusive: Exclusive::Held,
        }
    }

    fn policy() -> Policy {
        Policy { probed: Some(card().identity), ..Policy::readers(vec![READER.into()]) }
    }

    /// The number and text of the only check that refuses a good card with one fact changed.
    fn refusal(change: impl FnOnce(&mut DeviceFacts)) -> (u8, String) {
        assert_eq!(check(&card(), &policy()), Ok(()), "the card is good before the change");
        let mut facts = card();
        change(&mut facts);
        let refusal = check(&facts, &policy()).expect_err("one fact is bad");
        assert!(refusal.to_string().contains("/dev/sdb") || facts.path != card().path);
        (refusal.number, refusal.to_string())
    }

    #[test]
    fn check_1_refuses_the_root_disk() {
        assert_eq!(refusal(|f| f.holds_root = true).0, 1);
    }

    #[test]
    fn check_2_refuses_what_is_mounted_and_says_where() {
        let (number, text) = refusal(|f| f.mounted_at = vec!["/media/holiday".into()]);
        assert_eq!(number, 2);
        assert!(text.contains("/media/holiday") && text.contains("Generic SD Reader"), "{text}");
    }

    #[test]
    fn check_3_refuses_swap() {
        assert_eq!(refusal(|f| f.swap = vec!["/dev/sdb2".into()]).0, 3);
    }

    #[test]
    fn check_4_refuses_fixed_disks_partitions_and_what_nobody_named() {
        for class in [
            DeviceClass::FixedDisk,
            DeviceClass::Partition,
            DeviceClass::Other,
            DeviceClass::Loop,
            DeviceClass::PlainFile,
        ] {
            assert_eq!(refusal(|f| f.class = class).0, 4, "{class:?}");
        }
        assert_eq!(check(&DeviceFacts { class: DeviceClass::Mmc, ..card() }, &policy()), Ok(()));
    }

    #[test]
    fn check_4_lets_a_named_loop_device_pass_but_never_a_fixed_disk() {
        let named = Policy { probed: Some(card().identity), ..Policy::named() };
        for (class, allowed) in [
            (DeviceClass::Loop, true),
            (DeviceClass::PlainFile, true),
            (DeviceClass::FixedDisk, false),
            (DeviceClass::Partition, false),
            (DeviceClass::Other, false),
        ] {
            assert_eq!(check(&DeviceFacts { class, ..card() }, &named).is_ok(), allowed, "{class:?}");
        }
    }

    #[test]
    fn check_5_refuses_a_card_in_another_reader_until_a_person_names_it() {
        let elsewhere = |f: &mut DeviceFacts| f.port_path = format!("{READER}2/host3/block/sdb").into();
        let (number, text) = refusal(elsewhere);
        assert_eq!(number, 5, "a name that only begins alike is another reader");
        assert!(text.contains("1-22"), "{text}");
        let mut facts = card();
        elsewhere(&mut facts);
        assert_eq!(check(&facts, &Policy { probed: None, ..Policy::named() }), Ok(()));
    }

    #[test]
    fn check_6_refuses_sizes_no_card_has() {
        for size in [0, 512, MIN_CARD_SIZE - 1, MAX_CARD_SIZE + 1] {
            let policy = Policy { probed: None, ..policy() };
            let mut facts = card();
            facts.identity.size = size;
            assert_eq!(check(&facts, &policy).unwrap_err().number, 6, "{size}");
        }
    }

    #[test]
    fn check_7_refuses_a_locked_card() {
        assert_eq!(refusal(|f| f.read_only = true).0, 7);
    }

    #[test]
    fn check_8_refuses_what_somebody_else_has_open() {
        assert_eq!(refusal(|f| f.exclusive = Exclusive::Busy).0, 8);
        assert_eq!(check(&DeviceFacts { exclusive: Exclusive::NotTried, ..card() }, &policy()), Ok(()));
    }

    #[test]
    fn check_9_refuses_another_card_in_the_same_slot() {
        assert_eq!(refusal(|f| f.identity.disk_sequence += 1).0, 9);
        assert_eq!(refusal(|f| f.identity.size -= 512).0, 9);
        assert_eq!(refusal(|f| f.identity.device_number += 1).0, 9);
    }

    #[test]
    fn the_lowest_number_is_named_when_several_refuse() {
        let (number, _) = refusal(|f| {
            f.read_only = true;
            f.mounted_at = vec!["/".into()];
        });
        assert_eq!(number, 2);
    }
}
