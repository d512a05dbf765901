//! Hears the kernel when devices come, go or change, by netlink, and rings the bell that makes `readers` look. When more
//! was said than the socket holds, somebody looks too: what there is counts, not what was said. Without a socket (no
//! right to it) looking once a second is all there is.
//!
//! **Source:** netlink(7), `NETLINK_KOBJECT_UEVENT`; group 1 is the kernel's, group 2 udev's.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::thread::JoinHandle;

use cardshop_card::StopFlag;
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recvfrom, setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};

use super::bell::Bell;
use crate::core::uevent::{Concern, MAX_UEVENT_SIZE, Uevent};

/// The kernel's own messages.
const KERNEL_GROUP: u32 = 1;
/// Room for what a hub with 64 readers says at once: some 20 messages of 300 bytes each, which count several times.
const BUFFER_SIZE: usize = 1 << 20;
/// The stop flag is asked this often.
const ASK_STOP_EVERY_MS: i64 = 200;

/// Starts the thread.
///
/// # Errors
/// What the system says when it has no socket or no thread to give.
pub(crate) fn start(bell: Bell, stop: StopFlag) -> io::Result<JoinHandle<()>> {
    let socket = open()?;
    std::thread::Builder::new().name("uevents".into()).spawn(move || {
        let mut buffer = [0; MAX_UEVENT_SIZE + 1];
        while !stop.is_stopped() {
            if hear(&socket, &mut buffer) == Concern::Disks {
                bell.ring();
            }
        }
    })
}

fn open() -> io::Result<OwnedFd> {
    let protocol = SockProtocol::NetlinkKObjectUEvent;
    let socket = socket(AddressFamily::Netlink, SockType::Datagram, SockFlag::SOCK_CLOEXEC, protocol)?;
    // The second is what is left without the right to the first.
    if setsockopt(&socket, sockopt::RcvBufForce, &BUFFER_SIZE).is_err() {
        setsockopt(&socket, sockopt::RcvBuf, &BUFFER_SIZE)?;
    }
    setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::milliseconds(ASK_STOP_EVERY_MS))?;
    bind(socket.as_raw_fd(), &NetlinkAddr::new(0, KERNEL_GROUP))?;
    Ok(socket)
}

/// Waits for one message.
fn hear(socket: &OwnedFd, buffer: &mut [u8]) -> Concern {
    match recvfrom::<NetlinkAddr>(socket.as_raw_fd(), buffer) {
        // Other programs can send here too; only the kernel has the number 0.
        Ok((length, Some(sender))) if sender.pid() == 0 => {
            let read = Uevent::read(buffer.get(..length).unwrap_or_default());
            read.map_or(Concern::Nothing, |event| event.concern())
        }
        Ok(_) | Err(Errno::EAGAIN | Errno::EINTR) => Concern::Nothing,
        Err(Errno::ENOBUFS) => {
            tracing::warn!("more was plugged in at once than could be told: looking at everything");
            Concern::Disks
        }
        Err(error) => {
            tracing::error!(%error, "the kernel is not heard");
            std::thread::sleep(std::time::Duration::from_millis(ASK_STOP_EVERY_MS as u64));
            Concern::Nothing
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    /// The kernel repeats a device's message when its `uevent` file is written: nothing need be plugged in.
    #[test]
    fn the_kernels_word_about_a_disk_rings_the_bell() {
        let disk = std::fs::read_dir("/sys/block").ok().and_then(|mut disks| disks.next()?.ok());
        let asks = disk
            .and_then(|disk| std::fs::OpenOptions::new().write(true).open(disk.path().join("uevent")).ok());
        let (bell, stop, mut heard) = (Bell::default(), StopFlag::new(), 0);
        let (Some(mut asks), Ok(thread)) = (asks, start(bell.clone(), stop.clone())) else {
            #[allow(clippy::print_stdout)] // a test that is skipped says so
            return println!("SKIPPED: no right to ask the kernel for its word about a disk (root)");
        };
        if io::Write::write_all(&mut asks, b"change").is_err() {
            #[allow(clippy::print_stdout)]
            return println!("SKIPPED: the kernel's files are not ours to write here");
        }
        let asked = Instant::now();
        bell.wait(&mut heard, Duration::from_secs(30));
        stop.stop();
        thread.join().unwrap();
        assert_eq!(heard, 1, "nothing was heard in {:?}", asked.elapsed());
        #[allow(clippy::print_stdout)] // a figure, not a promise
        {
            println!("from the kernel's word to the bell: {:?}", asked.elapsed());
        }
    }
}
