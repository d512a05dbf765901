//! Slots whose device is named in the configuration: loop devices, or files that stand for cards. Looked at
//! once a second; a card is there while the device exists and is not empty, and another inode or size is
//! another card. Hot-plugged readers are found otherwise.

use std::io::{Seek, SeekFrom};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::sync::mpsc::SyncSender;
use std::thread::JoinHandle;
use std::time::Duration;

use cardshop_card::StopFlag;

use super::devices::Devices;
use crate::config::SlotConfig;
use crate::core::{Event, SlotEvent};

/// How often devices are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often the stop flag is asked in between.
const ASK_STOP_EVERY: Duration = Duration::from_millis(100);

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
    slot: SlotConfig,
    devices: Devices,
    events: SyncSender<Event>,
    stop: StopFlag,
) -> std::io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name(format!("slot-{}", slot.id)).spawn(move || {
        let mut seen = Seen::NoCard;
        while !stop.is_stopped() {
            let now = look(&slot.device);
            if now != seen {
                let event = match &now {
                    Seen::NoReader => SlotEvent::ReaderGone,
                    Seen::NoCard => SlotEvent::CardGone,
                    Seen::Card { size, .. } => {
                        devices.put(&slot.id, slot.device.clone());
                        SlotEvent::CardHere { size: *size }
                    }
                };
                if events.send(Event::Slot { slot: slot.id.clone(), event }).is_err() {
                    return;
                }
                seen = now;
            }
            for _ in 0..LOOK_EVERY.as_millis() / ASK_STOP_EVERY.as_millis() {
                if !stop.is_stopped() {
                    std::thread::sleep(ASK_STOP_EVERY);
                }
            }
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
