//! Takes a card for ourselves: interlock, exclusive open, and the interlock again over what was opened. A
//! [`ClaimedCard`] comes from nowhere else (but the memory card of tests and simulations), and writing takes
//! one, so that no code path writes to a device that nobody checked.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::libc;

use crate::device::{CardDevice, KernelDevice};
use crate::error::CardError;
use crate::facts::{KernelView, gather, gather_open};
use crate::interlock::{DeviceClass, DeviceFacts, Exclusive, Policy, check};

/// How often a card that is in use is tried again: udev locks a new card for moments while it looks at
/// it, and a program that was just forked holds what its parent had open until it is executed.
const BUSY_TRIES: u32 = 40;
/// Between two tries; together 2 s.
const BUSY_PAUSE: Duration = Duration::from_millis(50);

/// A card that can be read and compared: a claimed one, or one opened only for that.
pub struct ReadableCard {
    pub(crate) device: Arc<dyn CardDevice>,
    facts: DeviceFacts,
}

impl ReadableCard {
    /// Opens a device or file for reading; nothing is claimed, nothing can be written.
    ///
    /// # Errors
    /// `Open`, also when it is neither a block device nor a plain file; `Removed` when the slot is empty.
    pub fn open(path: &Path) -> Result<Self, CardError> {
        let facts = gather(path)?;
        if facts.block_size.is_none() && facts.class != DeviceClass::PlainFile {
            // Opening a pipe would wait for its other end.
            let source =
                io::Error::new(io::ErrorKind::InvalidInput, "neither a block device nor a plain file");
            return Err(CardError::Open { path: path.to_owned(), source });
        }
        let file = open_options(&facts).open(path).map_err(|e| open_error(path, e))?;
        let facts =
            gather_open(&KernelView::default(), path, Some(&file)).map_err(|e| open_error(path, e))?;
        let device = KernelDevice::reading(file, &facts);
        Ok(Self { device: Arc::new(device), facts })
    }

    pub(crate) fn new(device: Arc<dyn CardDevice>, facts: DeviceFacts) -> Self {
        Self { device, facts }
    }

    /// Bytes of the card.
    pub fn size(&self) -> u64 {
        self.device.size()
    }
    /// What was found out about it when it was opened.
    pub fn facts(&self) -> &DeviceFacts {
        &self.facts
    }
}

/// A card that passed every check of the interlock and is held by nobody else; let go when dropped.
pub struct ClaimedCard(ReadableCard);

impl std::fmt::Debug for ClaimedCard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ClaimedCard({})", self.0.facts.describe())
    }
}

impl ClaimedCard {
    pub(crate) fn new(device: Arc<dyn CardDevice>, facts: DeviceFacts) -> Self {
        Self(ReadableCard::new(device, facts))
    }

    /// Bytes of the card.
    pub fn size(&self) -> u64 {
        self.0.size()
    }
    /// What was found out about it when it was claimed.
    pub fn facts(&self) -> &DeviceFacts {
        self.0.facts()
    }
    /// The same card, for reading and comparing.
    pub fn readable(&mut self) -> &mut ReadableCard {
        &mut self.0
    }
    pub(crate) fn device(&self) -> Arc<dyn CardDevice> {
        self.0.device.clone()
    }
}

/// Claims the card at `path`: a block device with `O_EXCL` (no mount and no other claim can be made while
/// it is held) and its lock, a plain file with its lock.
///
/// # Errors
/// `Refused` with the number of the check, `WriteProtected`, `Removed`, or `Open`.
pub fn claim(path: &Path, policy: &Policy) -> Result<ClaimedCard, CardError> {
    let claimed = gather(path).and_then(|before| take(before, policy));
    if let Err(CardError::Refused(refusal)) = &claimed {
        tracing::warn!(check = refusal.number, path = %path.display(), "{refusal}");
    }
    claimed
}

/// Opens what was looked at, if every check allows it before and after.
fn take(before: DeviceFacts, policy: &Policy) -> Result<ClaimedCard, CardError> {
    let path = &*before.path;
    check(&before, policy)?;
    let mut options = open_options(&before);
    if before.block_size.is_some() {
        options.custom_flags(libc::O_DIRECT | libc::O_EXCL | libc::O_CLOEXEC);
    }
    options.write(true);
    let Some(file) = open_alone(path, &options)? else {
        return Err(refuse(&DeviceFacts { exclusive: Exclusive::Busy, ..before }, policy));
    };

    let mut after =
        gather_open(&KernelView::default(), path, Some(&file)).map_err(|e| open_error(path, e))?;
    if after.exclusive == Exclusive::NotTried {
        after.exclusive = Exclusive::Held;
    }
    let policy = Policy { probed: policy.probed.or(Some(before.identity)), ..policy.clone() };
    check(&after, &policy)?;
    let device = KernelDevice::claimed(file, &after);
    Ok(ClaimedCard::new(Arc::new(device), after))
}

fn open_options(facts: &DeviceFacts) -> OpenOptions {
    let mut options = File::options();
    options.read(true);
    if facts.block_size.is_some() {
        options.custom_flags(libc::O_DIRECT | libc::O_CLOEXEC);
    }
    options
}

/// The refusal that follows from facts that are known to be bad.
fn refuse(facts: &DeviceFacts, policy: &Policy) -> CardError {
    match check(facts, policy) {
        Err(refusal) => refusal.into(),
        Ok(()) => CardError::Open { path: facts.path.clone(), source: Errno::EBUSY.into() },
    }
}

/// Opens and locks what nobody else has; nothing when somebody had it at every try.
fn open_alone(path: &Path, options: &OpenOptions) -> Result<Option<Flock<File>>, CardError> {
    for attempt in 1..=BUSY_TRIES {
        match options.open(path) {
            Ok(file) => match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(locked) => return Ok(Some(locked)),
                Err((_, Errno::EWOULDBLOCK)) => (),
                Err((_, errno)) => return Err(open_error(path, errno.into())),
            },
            Err(error) if error.raw_os_error() == Some(Errno::EBUSY as i32) => (),
            Err(error) => return Err(open_error(path, error)),
        }
        if attempt < BUSY_TRIES {
            thread::sleep(BUSY_PAUSE);
        }
    }
    Ok(None)
}

fn open_error(path: &Path, source: io::Error) -> CardError {
    match source.raw_os_error().map(Errno::from_raw) {
        Some(Errno::ENOMEDIUM | Errno::ENODEV | Errno::ENXIO) => CardError::Removed,
        Some(Errno::EROFS) => CardError::WriteProtected,
        _ => CardError::Open { path: path.to_owned(), source },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_that_changed_between_the_look_and_the_open_is_refused_by_check_9() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("card");
        std::fs::write(&path, vec![0; 1 << 20]).unwrap();
        let before = gather(&path).unwrap();
        take(before.clone(), &Policy::named()).unwrap();
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, vec![1; 2 << 20]).unwrap();
        let refused = take(before, &Policy::named()).unwrap_err();
        assert!(matches!(&refused, CardError::Refused(refusal) if refusal.number == 9), "{refused}");
    }
}
