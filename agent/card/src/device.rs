//! A card as the engine sees it: aligned requests at offsets, a sync, and reads that come from the medium.
//! [`CardDevice`] has two implementations: [`KernelDevice`] here (a block device with O_DIRECT, or a plain
//! file) and the strict memory card. [`read_full`] and [`write_full`] finish short transfers.

use std::fs::File;
use std::io;
use std::ops::{Deref, DerefMut};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, Flock, PosixFadviseAdvice, fallocate, posix_fadvise};
use nix::libc;

use crate::error::{CardError, Operation};
use crate::interlock::DeviceFacts;
use crate::ioctl;

/// A card that answers nothing for this long is given up: readers reset a card after 5 to 30 s and go on, and
/// what takes longer has never come back in time to save the card.
const PATIENCE: Duration = Duration::from_secs(60);

/// Alignment in memory of every buffer given to a device: the largest logical block size in use.
pub(crate) const MEMORY_ALIGNMENT: usize = 4096;

/// What the engine does to a card.
///
/// Offset and length of every request are multiples of [`CardDevice::alignment`], and buffers lie on multiples
/// of 4096 in memory. A transfer may be short, by whole multiples of the alignment. Several threads may ask at once.
pub(crate) trait CardDevice: Send + Sync {
    /// Bytes of the card.
    fn size(&self) -> u64;
    /// Bytes that offsets and lengths are multiples of: a power of two up to 4096.
    fn alignment(&self) -> usize;
    /// Reads at `offset`; gives the bytes read.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;
    /// Writes at `offset`; gives the bytes the device acknowledged.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<usize>;
    /// Returns when everything acknowledged is on the medium.
    fn sync(&self) -> io::Result<()>;
    /// After it, reads come from the medium and not from memory of this machine.
    fn drop_caches(&self) -> io::Result<()>;
    /// Tells the device that these bytes are of no use; false when it does not know how.
    fn discard(&self, offset: u64, length: u64) -> io::Result<bool>;
    /// How long it may take over one request before it counts as stuck; nothing for ever.
    fn patience(&self) -> Option<Duration> {
        Some(PATIENCE)
    }
}

/// Reads all of `buffer`, however short the single reads are.
///
/// # Errors
/// `Io` (an end of the card before its size included), `Removed`.
pub(crate) fn read_full(device: &dyn CardDevice, offset: u64, buffer: &mut [u8]) -> Result<(), CardError> {
    let mut done = 0;
    while done < buffer.len() {
        let at = offset + done as u64;
        let result = device.read_at(at, &mut buffer[done..]);
        done += progress_of(result, Operation::Read, at, device.alignment())?;
    }
    Ok(())
}

/// Writes all of `bytes`, however short the single writes are.
///
/// # Errors
/// `Io`, `Removed`, `WriteProtected`.
pub(crate) fn write_full(device: &dyn CardDevice, offset: u64, bytes: &[u8]) -> Result<(), CardError> {
    let mut done = 0;
    while done < bytes.len() {
        let at = offset + done as u64;
        let result = device.write_at(at, &bytes[done..]);
        done += progress_of(result, Operation::Write, at, device.alignment())?;
    }
    Ok(())
}

/// Bytes that count of one transfer: whole alignment units, so that the next request is aligned too. A
/// transfer that moved less than one unit would be repeated for ever and is an error.
fn progress_of(
    result: io::Result<usize>,
    operation: Operation,
    offset: u64,
    alignment: usize,
) -> Result<usize, CardError> {
    let moved = match result {
        Ok(moved) => moved / alignment * alignment,
        Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(0),
        Err(error) => return Err(CardError::from_io(operation, offset, error)),
    };
    if moved == 0 {
        let kind = io::ErrorKind::UnexpectedEof;
        let source = io::Error::new(kind, "the device moved no whole block and named no error");
        return Err(CardError::Io { operation, offset, source });
    }
    Ok(moved)
}

/// Waits until all is on the medium.
pub(crate) fn sync(device: &dyn CardDevice) -> Result<(), CardError> {
    device.sync().map_err(|error| CardError::from_io(Operation::Sync, 0, error))
}

/// A buffer that begins on a multiple of 4096 in memory, as O_DIRECT asks. Zero at first.
pub(crate) struct AlignedBuffer {
    bytes: Vec<u8>,
    start: usize,
    length: usize,
}

impl AlignedBuffer {
    /// A buffer of `length` bytes.
    pub(crate) fn new(length: usize) -> Self {
        let bytes = vec![0; length + MEMORY_ALIGNMENT];
        let start = bytes.as_ptr().align_offset(MEMORY_ALIGNMENT);
        assert!(start <= MEMORY_ALIGNMENT, "a byte pointer can always be aligned");
        Self { bytes, start, length }
    }
}

impl Deref for AlignedBuffer {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.bytes[self.start..self.start + self.length]
    }
}

impl DerefMut for AlignedBuffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.start + self.length]
    }
}

/// An open file, with its lock while it is claimed.
enum Held {
    Claimed(Flock<File>),
    Reading(File),
}

/// A block device (O_DIRECT where the kernel allows it) or a plain file (through the page cache).
pub(crate) struct KernelDevice {
    file: Held,
    size: u64,
    alignment: usize,
    is_block: bool,
    /// The kernel's number of the disk and medium that was opened; nothing where it does not say.
    disk_sequence: Option<u64>,
}

impl KernelDevice {
    /// A device that was opened exclusively; `facts` are of the open file.
    pub(crate) fn claimed(file: Flock<File>, facts: &DeviceFacts) -> Self {
        Self::with(Held::Claimed(file), facts)
    }

    /// A device opened for reading only.
    pub(crate) fn reading(file: File, facts: &DeviceFacts) -> Self {
        Self::with(Held::Reading(file), facts)
    }

    fn with(file: Held, facts: &DeviceFacts) -> Self {
        let alignment =
            facts.block_size.map_or(1, |s| (s as usize).next_power_of_two().clamp(512, MEMORY_ALIGNMENT));
        Self {
            file,
            size: facts.size(),
            alignment,
            is_block: facts.block_size.is_some(),
            disk_sequence: Some(facts.identity.disk_sequence).filter(|sequence| *sequence != 0),
        }
    }

    fn file(&self) -> &File {
        match &self.file {
            Held::Claimed(file) => file,
            Held::Reading(file) => file,
        }
    }

    /// Fails when another card is in the reader than the one that was opened: once somebody has opened the
    /// reader anew, the kernel lets requests of the old open file through to the new card.
    fn same_medium(&self) -> io::Result<()> {
        match self.disk_sequence.map(|expected| (expected, ioctl::disk_sequence(self.file()))) {
            Some((expected, Ok(now))) if now != expected => Err(Errno::ENOMEDIUM.into()),
            _ => Ok(()),
        }
    }

    /// A card pulled out of a reader that stays gives EIO; a reader that was pulled out gives ENOSPC to a write,
    /// since its size is then 0. Both are named for what happened.
    fn name_removal(&self, error: io::Error) -> io::Error {
        let errno = error.raw_os_error().map(Errno::from_raw);
        let doubtful = matches!(errno, Some(Errno::EIO | Errno::ENOSPC));
        if self.is_block && doubtful && self.is_gone() { Errno::ENOMEDIUM.into() } else { error }
    }

    /// The end of a transfer; one that moved nothing is the end of a device that is gone, or of a damaged one.
    fn moved(&self, result: io::Result<usize>) -> io::Result<usize> {
        match result {
            Ok(0) if self.is_block && self.is_gone() => Err(Errno::ENOMEDIUM.into()),
            Ok(count) => Ok(count),
            Err(error) => Err(self.name_removal(error)),
        }
    }

    /// True when the medium is no longer there. The kernel looks for that only when somebody opens the device.
    fn is_gone(&self) -> bool {
        let has_no_size = |file: &File| ioctl::size(file).is_ok_and(|size| size == 0);
        if has_no_size(self.file()) {
            return true;
        }
        let flags = libc::O_NONBLOCK | libc::O_CLOEXEC;
        let path = format!("/proc/self/fd/{}", self.file().as_raw_fd());
        match File::options().read(true).custom_flags(flags).open(path) {
            Ok(file) => has_no_size(&file) || self.same_medium().is_err(),
            Err(error) => {
                let errno = error.raw_os_error().map(Errno::from_raw);
                matches!(errno, Some(Errno::ENOMEDIUM | Errno::ENXIO | Errno::ENODEV))
            }
        }
    }
}

impl CardDevice for KernelDevice {
    fn size(&self) -> u64 {
        self.size
    }
    fn alignment(&self) -> usize {
        self.alignment
    }
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.same_medium()?;
        self.moved(self.file().read_at(buffer, offset))
    }
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<usize> {
        self.same_medium()?;
        self.moved(self.file().write_at(bytes, offset))
    }
    fn sync(&self) -> io::Result<()> {
        self.file().sync_data().map_err(|e| self.name_removal(e))
    }
    fn drop_caches(&self) -> io::Result<()> {
        self.sync()?;
        if self.is_block {
            // Needs CAP_SYS_ADMIN; a plain user's O_DIRECT reads pass the page cache without it.
            match ioctl::flush_buffers(self.file()) {
                Ok(()) | Err(Errno::EACCES | Errno::EPERM) => {}
                Err(errno) => return Err(self.name_removal(errno.into())),
            }
        }
        posix_fadvise(self.file(), 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED).map_err(io::Error::from)
    }
    fn discard(&self, offset: u64, length: u64) -> io::Result<bool> {
        self.same_medium()?;
        let result = if self.is_block {
            ioctl::discard(self.file(), offset, length)
        } else {
            let signed = |value| i64::try_from(value).map_err(io::Error::other);
            let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
            fallocate(self.file(), flags, signed(offset)?, signed(length)?)
        };
        match result {
            Ok(()) => Ok(true),
            Err(Errno::EOPNOTSUPP | Errno::ENOTTY | Errno::EINVAL | Errno::ENOSYS | Errno::EREMOTEIO) => {
                Ok(false)
            }
            Err(errno) => Err(self.name_removal(errno.into())),
        }
    }
    fn patience(&self) -> Option<Duration> {
        // A sync of a plain file waits for all of it to reach a disk that others use too.
        self.is_block.then_some(PATIENCE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_lie_on_4096() {
        for length in [1, 4096, 1 << 20] {
            let buffer = AlignedBuffer::new(length);
            assert_eq!((buffer.as_ptr() as usize % MEMORY_ALIGNMENT, buffer.len()), (0, length));
        }
    }

    #[test]
    #[allow(clippy::print_stdout)] // a test that is skipped says so
    fn a_card_that_took_the_place_of_the_one_claimed_is_neither_written_nor_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("card");
        std::fs::write(&path, vec![7; 1 << 20]).unwrap();
        let losetup = |arguments: &[&str]| {
            let path = format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap_or_default());
            let output = std::process::Command::new("losetup").args(arguments).env("PATH", path).output();
            output.ok().filter(|o| o.status.success()).and_then(|o| String::from_utf8(o.stdout).ok())
        };
        let Some(device) = losetup(&["--find", "--show", path.to_str().unwrap()]) else {
            println!("SKIPPED: no loop device (needs root)");
            return;
        };
        let device = std::path::PathBuf::from(device.trim());
        let mut facts = crate::facts::gather(&device).unwrap();
        let open = |facts: &DeviceFacts| {
            let file = File::options().read(true).write(true).open(&device).unwrap();
            KernelDevice::reading(file, facts)
        };
        let mut buffer = AlignedBuffer::new(4096);
        let same = open(&facts);
        same.write_at(0, &buffer).unwrap();
        same.sync().unwrap();
        // As the kernel counts when another card is put in.
        facts.identity.disk_sequence += 1;
        let other = open(&facts);
        let errors = [
            other.write_at(4096, &buffer).unwrap_err(),
            other.read_at(4096, &mut buffer).unwrap_err(),
            other.discard(4096, 4096).unwrap_err(),
        ];
        drop((same, other));
        losetup(&["--detach", device.to_str().unwrap()]);
        for error in errors {
            assert!(matches!(CardError::from_io(Operation::Write, 0, error), CardError::Removed));
        }
        let bytes = std::fs::read(&path).unwrap();
        assert!(bytes[..4096] == [0; 4096] && bytes[4096..8192] == [7; 4096]);
    }

    #[test]
    fn a_transfer_that_moves_nothing_is_an_error_and_not_a_loop() {
        let moved = |count| progress_of(Ok(count), Operation::Write, 0, 512);
        assert_eq!(moved(1536).unwrap(), 1536);
        assert_eq!(moved(700).unwrap(), 512);
        assert!(moved(511).is_err() && moved(0).is_err());
    }
}
