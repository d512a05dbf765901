//! What the kernel says when a device comes, goes or changes: `add@/devices/…`, then `KEY=VALUE`, each ended by a zero
//! byte. Pure: bytes in, the few facts out that decide whether somebody should look. `effects::uevents` has the socket.
//!
//! **Source:** Linux `lib/kobject_uevent.c`.

/// Longest message: the kernel's own limit is 2048 bytes behind a header that has a path.
pub const MAX_UEVENT_SIZE: usize = 8 * 1024;
/// Most `KEY=VALUE` of one message. **Source:** `UEVENT_NUM_ENVP` is 64.
const MAX_KEYS: usize = 64;

/// What is to be looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Concern {
    /// Disks, or a card in a reader.
    Disks,
    /// Nothing here.
    Nothing,
}

/// One message, as far as it matters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uevent<'a> {
    /// `add`, `remove`, `change` …
    pub action: &'a str,
    /// Below `/sys`.
    pub path: &'a str,
    /// `block`, `usb` …; empty where it is not said.
    pub subsystem: &'a str,
    /// `disk` or `partition` of blocks.
    pub kind: &'a str,
}

/// Why bytes are no message of the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum UeventError {
    /// It is longer than any.
    #[error("the message is longer than {MAX_UEVENT_SIZE} bytes")]
    TooLong,
    /// It does not begin with `action@/path`.
    #[error("the message has no header")]
    NoHeader,
    /// It is no text.
    #[error("the message is no text")]
    NoText,
}

impl<'a> Uevent<'a> {
    /// Reads a message.
    ///
    /// # Errors
    /// Any [`UeventError`].
    pub fn read(message: &'a [u8]) -> Result<Self, UeventError> {
        if message.len() > MAX_UEVENT_SIZE {
            return Err(UeventError::TooLong);
        }
        let mut parts = std::str::from_utf8(message).map_err(|_| UeventError::NoText)?.split('\0');
        let header = parts.next().and_then(|header| header.split_once('@'));
        let (action, path) = header.filter(|(_, path)| path.starts_with('/')).ok_or(UeventError::NoHeader)?;
        let mut event = Self { action, path, subsystem: "", kind: "" };
        for (key, value) in parts.take(MAX_KEYS).filter_map(|part| part.split_once('=')) {
            match key {
                "SUBSYSTEM" => event.subsystem = value,
                "DEVTYPE" => event.kind = value,
                _ => {}
            }
        }
        Ok(event)
    }

    /// What is to be looked at. A reader that is pulled out tells of its disk, too.
    pub fn concern(&self) -> Concern {
        match (self.subsystem, self.kind) {
            ("block", "partition") => Concern::Nothing,
            ("block", _) => Concern::Disks,
            _ => Concern::Nothing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CARD: &[u8] =
        b"change@/devices/pci0000:00/0000:00:04.0/usb1/1-3/1-3:1.0/host2/target2:0:0/2:0:0:0/\
        block/sdb\0ACTION=change\0DEVPATH=/devices/x\0SUBSYSTEM=block\0DISK_MEDIA_CHANGE=1\0MAJOR=8\0\
        DEVNAME=sdb\0DEVTYPE=disk\0DISKSEQ=12\0SEQNUM=1700\0";

    #[test]
    fn a_card_that_comes_concerns_the_disks_and_its_partitions_and_a_keyboard_do_not() {
        let event = Uevent::read(CARD).unwrap();
        assert_eq!((event.action, event.subsystem, event.kind), ("change", "block", "disk"));
        assert!(event.path.ends_with("/block/sdb"));
        assert_eq!(event.concern(), Concern::Disks);
        let of = |text: &str| Uevent::read(text.replace(';', "\0").as_bytes()).unwrap().concern();
        assert_eq!(of("remove@/devices/x;SUBSYSTEM=block;DEVTYPE=disk;"), Concern::Disks);
        assert_eq!(of("add@/devices/x;SUBSYSTEM=block;DEVTYPE=partition;"), Concern::Nothing);
        assert_eq!(of("add@/devices/x;SUBSYSTEM=input;"), Concern::Nothing);
        assert_eq!(of("add@/devices/x"), Concern::Nothing);
    }

    #[test]
    fn what_another_program_says_and_what_is_cut_off_is_refused() {
        for (bytes, reason) in [
            (&b"libudev\0\xfe\xed\xca\xfe"[..], UeventError::NoText),
            (b"libudev\0abc", UeventError::NoHeader),
            (b"", UeventError::NoHeader),
            (b"add@", UeventError::NoHeader),
            (&[b'a'; MAX_UEVENT_SIZE + 1], UeventError::TooLong),
        ] {
            assert_eq!(Uevent::read(bytes), Err(reason));
        }
        // A header alone, or half a key, is what a full buffer leaves: still worth a look.
        assert!(Uevent::read(&CARD[..100]).is_ok());
    }
}
