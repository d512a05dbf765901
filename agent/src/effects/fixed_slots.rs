//! Sees cards come and go, one thread per slot: in devices the configuration names (loop devices, or files that stand
//! for cards), and in those that `readers` finds. Looked at when the bell rings and once a second; a card is there while the device exists and
//! is not empty, and another inode or size is another card.

use std::io::{Seek, SeekFrom};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::mpsc::SyncSender;
use std::thread::JoinHandle;
use std::time::Duration;

use cardshop_card::StopFlag;
use cardshop_protocol::ids::SlotId;

use super::bell::Bell;
use super::devices::Devices;
use super::readers::PortPlace;
use crate::core::{Event, SlotEvent};

/// How often devices are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Where a slot's device is.
#[derive(Debug)]
pub(crate) enum Place {
    /// Always here.
    Path(PathBuf),
    /// Wherever the kernel shows what is plugged into a port.
    Port(PortPlace),
}

impl Place {
    /// True when nobody needs to look any more.
    fn is_forgotten(&self) -> bool {
        matches!(self, Self::Port(port) if port.is_forgotten())
    }

    fn now(&self) -> Option<(PathBuf, Option<PathBuf>)> {
        match self {
            Self::Path(path) => Some((path.clone(), None)),
            Self::Port(port) => port.now().map(|(device, reader)| (device, Some(reader))),
        }
    }
}

/// What stands at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Seen {
    /// A device that should be there is not: its reader is gone.
    NoReader,
    NoCard,
    Card {
        size: u64,
        inode: u64,
        device_number: u64,
    },
}

/// Starts the thread that looks at one slot: opening a reader that hangs takes as long as it hangs, and the
/// other slots do not wait for it.
///
/// # Errors
/// What the system says when it has no thread to give.
pub(crate) fn start(
    slot: SlotId,
    place: Place,
    devices: Devices,
    events: SyncSender<Event>,
    bell: Bell,
    stop: StopFlag,
) -> std::io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name(format!("slot-{slot}")).spawn(move || {
        let (mut seen, mut heard) = (None, 0);
        while !stop.is_stopped() && !place.is_forgotten() {
            let there = place.now();
            let now = there.as_ref().map_or(Seen::NoReader, |(device, _)| look(device));
            if seen.as_ref() != Some(&now) {
                let event = match (&now, there) {
                    (Seen::Card { size, .. }, Some((device, reader))) => {
                        devices.put(&slot, device, reader);
                        SlotEvent::CardHere { size: *size }
                    }
                    (Seen::NoCard, _) => SlotEvent::CardGone,
                    (Seen::NoReader | Seen::Card { .. }, _) => SlotEvent::ReaderGone,
                };
                if events.send(Event::Slot { slot: slot.clone(), event }).is_err() {
                    return;
                }
                seen = Some(now);
            }
            bell.wait(&mut heard, LOOK_EVERY);
        }
    })
}

fn look(path: &Path) -> Seen {
    let Ok(metadata) = std::fs::metadata(path) else {
        return if path.starts_with("/dev") { Seen::NoReader } else { Seen::NoCard };
    };
    // The kernel refreshes a medium's size only when somebody opens the device; O_NONBLOCK opens without one.
    let nonblocking = nix::fcntl::OFlag::O_NONBLOCK.bits();
    let opened = std::fs::OpenOptions::new().read(true).custom_flags(nonblocking).open(path);
    let size = opened.and_then(|mut file| file.seek(SeekFrom::End(0))).unwrap_or(0);
    if size == 0 {
        return Seen::NoCard;
    }
    let block = metadata.file_type().is_block_device();
    let device_number = if block { metadata.rdev() } else { metadata.dev() };
    Seen::Card { size, inode: metadata.ino(), device_number }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_a_card_while_it_is_there_and_not_empty() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("card");
        assert_eq!(look(&path), Seen::NoCard);
        std::fs::write(&path, b"").unwrap();
        assert_eq!(look(&path), Seen::NoCard);
        std::fs::write(&path, b"abc").unwrap();
        let first = look(&path);
        assert!(matches!(first, Seen::Card { size: 3, .. }), "{first:?}");
        let other = folder.path().join("other");
        std::fs::write(&other, b"xyz").unwrap();
        std::fs::rename(&other, &path).unwrap();
        assert_ne!(look(&path), first, "another card of the same size is another card");
        assert_eq!(look(Path::new("/dev/no-such-device")), Seen::NoReader);
    }
}
