//! Everything that can go wrong with a card, named for the fact, and what follows from it: [`CardError::remedy`]
//! is what the agent acts on, [`CardError::fault`] what it reports. Both are total.

use std::io;
use std::path::PathBuf;

use cardshop_protocol::message::{Fault, Remedy};
use nix::errno::Errno;

use crate::interlock::Refusal;
use crate::source::SourceError;

/// What was being done to the card.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// Reading it.
    Read,
    /// Writing it.
    Write,
    /// Waiting until it has acknowledged everything.
    Sync,
}

impl std::fmt::Display for Operation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Sync => "sync",
        })
    }
}

/// Why a card is not a verified card. Offsets and sizes are bytes of the card.
#[derive(Debug, thiserror::Error)]
pub enum CardError {
    /// The interlock refused: nothing was written.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The device cannot be opened or asked.
    #[error("cannot open {}", path.display())]
    Open {
        /// Which device.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The image does not fit.
    #[error("the card has {card_size} bytes, the image needs {needed}: use a larger card")]
    CardTooSmall {
        /// Bytes the card has.
        card_size: u64,
        /// Bytes the image has.
        needed: u64,
    },
    /// The lock switch is on, or the card has locked itself.
    #[error("the card is write-protected: unlock it or use another")]
    WriteProtected,
    /// The card was taken out, or its reader is gone.
    #[error("the card was removed")]
    Removed,
    /// Nothing came back from the device; one request may still be under way.
    #[error("the card has not answered for {seconds} s")]
    Stuck {
        /// How long was waited.
        seconds: u64,
    },
    /// What stands behind the card is full: the disk under a loop device or a plain file.
    #[error("no space is left to write at offset {offset}: make room where the card's file is")]
    NoSpace {
        /// First byte of the request.
        offset: u64,
    },
    /// There is no thread to be had.
    #[error("cannot start a thread")]
    NoThread(#[source] io::Error),
    /// The device reported an error.
    #[error("the card failed to {operation} at offset {offset}")]
    Io {
        /// What was being done.
        operation: Operation,
        /// First byte of the request; for a sync, 0.
        offset: u64,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The card does not hold what was written.
    #[error("the card differs from the image at offset {offset}{}", within(*length, *exact))]
    Mismatch {
        /// First bad byte, or the first byte of the range it lies in.
        offset: u64,
        /// Bytes from the first bad one to the last, or of that range.
        length: u64,
        /// True when `offset` is the very byte; false when only the chunk's digest could be compared.
        exact: bool,
    },
    /// The card has less memory than it says.
    #[error(
        "the card says it has {claimed} bytes, what is written at offset {first_bad} does not stay: it is a fake or worn out"
    )]
    FakeCapacity {
        /// Bytes it says it has.
        claimed: u64,
        /// Lowest offset probed that does not keep what is written.
        first_bad: u64,
    },
    /// The image's bytes could not be had, or are not those of the index.
    #[error("the image cannot be read")]
    SourceFailed(#[source] SourceError),
    /// The stop flag was raised; the card is left without its first chunk.
    #[error("stopped")]
    Stopped,
    /// The passport does not fit in the room the image left for it.
    #[error("passport file {name} has {size} bytes, there is room for {room}")]
    PassportTooLarge {
        /// Which file.
        name: String,
        /// Bytes it has.
        size: usize,
        /// Bytes there are.
        room: u64,
    },
    /// The last step failed, and clearing the first chunk again failed too: the card may look complete.
    #[error("{cause}; clearing the card's first chunk again failed too: destroy its contents by hand")]
    NotInvalidated {
        /// What failed first.
        cause: Box<CardError>,
        /// Why the clearing failed.
        #[source]
        source: Box<CardError>,
    },
}

fn within(length: u64, exact: bool) -> String {
    if exact { String::new() } else { format!(" or within the {length} bytes from there") }
}

impl CardError {
    /// Names an error of the operating system: gone, locked, or an error at an offset.
    pub(crate) fn from_io(operation: Operation, offset: u64, source: io::Error) -> Self {
        match source.raw_os_error().map(Errno::from_raw) {
            Some(Errno::ENODEV | Errno::ENXIO | Errno::ENOMEDIUM) => Self::Removed,
            Some(Errno::ENOSPC | Errno::EDQUOT) if operation != Operation::Read => Self::NoSpace { offset },
            Some(Errno::EROFS | Errno::EPERM) if operation == Operation::Write => Self::WriteProtected,
            _ => Self::Io { operation, offset, source },
        }
    }

    /// What follows: the only thing a deciding module needs of an error.
    pub fn remedy(&self) -> Remedy {
        match self {
            Self::Refused(refusal) => refusal.remedy(),
            Self::CardTooSmall { .. }
            | Self::WriteProtected
            | Self::Io { .. }
            | Self::Stuck { .. }
            | Self::Mismatch { .. }
            | Self::FakeCapacity { .. } => Remedy::ReplaceCard,
            Self::Removed | Self::SourceFailed(_) | Self::Stopped | Self::NoThread(_) => Remedy::Retry,
            // A card that was pulled out is written again from the start when it comes back.
            Self::NotInvalidated { cause, .. } if matches!(**cause, Self::Removed) => Remedy::Retry,
            Self::Open { .. } | Self::NoSpace { .. } | Self::NotInvalidated { .. } => Remedy::CallOperator,
            Self::PassportTooLarge { .. } => Remedy::Bug,
        }
    }

    /// What is reported: a stable code, one line with all causes, and where.
    pub fn fault(&self) -> Fault {
        Fault { code: self.code().to_owned(), text: self.chain(), offset: self.offset() }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Refused(_) => "refused",
            Self::Open { .. } => "cannot_open",
            Self::CardTooSmall { .. } => "card_too_small",
            Self::WriteProtected => "write_protected",
            Self::Removed => "card_removed",
            Self::Io { .. } => "io_error",
            Self::Stuck { .. } => "stuck",
            Self::NoSpace { .. } => "no_space",
            Self::NoThread(_) => "no_thread",
            Self::Mismatch { .. } => "verify_mismatch",
            Self::FakeCapacity { .. } => "fake_capacity",
            Self::SourceFailed(SourceError::Corrupt { .. }) => "source_corrupt",
            Self::SourceFailed(SourceError::EndedEarly { .. }) => "source_ended_early",
            Self::SourceFailed(_) => "source_failed",
            Self::Stopped => "stopped",
            Self::PassportTooLarge { .. } => "passport_too_large",
            Self::NotInvalidated { .. } => "not_invalidated",
        }
    }

    fn offset(&self) -> Option<u64> {
        match self {
            Self::Io { offset, .. } | Self::Mismatch { offset, .. } | Self::NoSpace { offset } => {
                Some(*offset)
            }
            Self::FakeCapacity { first_bad, .. } => Some(*first_bad),
            Self::SourceFailed(SourceError::Corrupt { offset, .. }) => Some(*offset),
            Self::NotInvalidated { cause, .. } => cause.offset(),
            _ => None,
        }
    }

    /// The error and its causes on one line.
    fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            text.push_str(&format!(": {error}"));
            cause = error.source();
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_small_names_both_sizes() {
        let fault = CardError::CardTooSmall { card_size: 4_000_000, needed: 8_000_001 }.fault();
        assert_eq!(fault.code, "card_too_small");
        assert!(fault.text.contains("4000000") && fault.text.contains("8000001"), "{}", fault.text);
    }

    #[test]
    fn an_error_of_the_device_is_named_by_what_it_means() {
        let name = |errno: Errno, operation| CardError::from_io(operation, 512, errno.into()).fault().code;
        assert_eq!(name(Errno::ENODEV, Operation::Write), "card_removed");
        assert_eq!(name(Errno::ENOMEDIUM, Operation::Read), "card_removed");
        assert_eq!(name(Errno::EROFS, Operation::Write), "write_protected");
        assert_eq!(name(Errno::EIO, Operation::Write), "io_error");
        let fault = CardError::from_io(Operation::Read, 512, Errno::EIO.into()).fault();
        assert_eq!(fault.offset, Some(512));
        assert!(fault.text.starts_with("the card failed to read at offset 512: "), "{}", fault.text);
    }

    #[test]
    fn a_failed_cleanup_is_reported_with_its_cause() {
        let cause = Box::new(CardError::Mismatch { offset: 4096, length: 1, exact: true });
        let fault = CardError::NotInvalidated { cause, source: Box::new(CardError::Removed) }.fault();
        assert_eq!(fault.offset, Some(4096));
        assert!(
            fault.text.contains("offset 4096") && fault.text.ends_with("the card was removed"),
            "{}",
            fault.text
        );
    }
}
