//! The block-device ioctls the kernel has no safe call for. The only file of this crate with `unsafe`; it
//! decides nothing. Used by `device` and `facts`.
//!
//! **Source:** Linux `include/uapi/linux/fs.h`.
#![allow(unsafe_code)] // ioctl(2) takes raw pointers; each wrapper passes one to a live local of the right type

use std::fs::File;
use std::os::fd::AsRawFd;

use nix::libc::c_int;

nix::ioctl_none!(blkflsbuf, 0x12, 97);
nix::ioctl_read_bad!(blkroget, nix::request_code_none!(0x12, 94), c_int);
nix::ioctl_read_bad!(blksszget, nix::request_code_none!(0x12, 104), c_int);
// The number is made with `size_t`, the result is always 64 bits.
nix::ioctl_read_bad!(blkgetsize64, nix::request_code_read!(0x12, 114, size_of::<usize>()), u64);
nix::ioctl_read!(blkgetdiskseq, 0x12, 128, u64);
nix::ioctl_write_ptr_bad!(blkdiscard, nix::request_code_none!(0x12, 119), [u64; 2]);

/// Drops the kernel's buffers of the device, so that the next read comes from the medium.
pub(crate) fn flush_buffers(file: &File) -> nix::Result<()> {
    // SAFETY: takes no pointer.
    unsafe { blkflsbuf(file.as_raw_fd()) }.map(drop)
}

/// True when the device refuses writes.
pub(crate) fn is_read_only(file: &File) -> nix::Result<bool> {
    let mut value = 0;
    // SAFETY: the kernel writes one int to a live int.
    unsafe { blkroget(file.as_raw_fd(), &mut value) }?;
    Ok(value != 0)
}

/// Bytes of a logical block: the alignment O_DIRECT asks for.
pub(crate) fn logical_block_size(file: &File) -> nix::Result<u32> {
    let mut value = 0;
    // SAFETY: the kernel writes one int to a live int.
    unsafe { blksszget(file.as_raw_fd(), &mut value) }?;
    Ok(value.unsigned_abs())
}

/// Bytes of the device.
pub(crate) fn size(file: &File) -> nix::Result<u64> {
    let mut value = 0;
    // SAFETY: the kernel writes 64 bits to a live u64.
    unsafe { blkgetsize64(file.as_raw_fd(), &mut value) }?;
    Ok(value)
}

/// Number the kernel gives to each disk and medium it ever saw, never twice.
pub(crate) fn disk_sequence(file: &File) -> nix::Result<u64> {
    let mut value = 0;
    // SAFETY: the kernel writes 64 bits to a live u64.
    unsafe { blkgetdiskseq(file.as_raw_fd(), &mut value) }?;
    Ok(value)
}

/// Tells the device that these bytes are of no use to anybody.
pub(crate) fn discard(file: &File, offset: u64, length: u64) -> nix::Result<()> {
    // SAFETY: the kernel reads two u64 from a live array.
    unsafe { blkdiscard(file.as_raw_fd(), &[offset, length]) }.map(drop)
}
