//! A line with delay and losses, in user space: a TUN device whose packets come back, later or never, with source
//! and destination exchanged. A server on the near address is reached through the far one, and each packet of both
//! directions passes the line once. The exchange leaves all checksums as they are: they are sums.
#![allow(unsafe_code)] // TUNSETIFF takes a pointer; it is to a live local of the right type

use std::fs::File;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsRawFd;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{TrySendError, sync_channel};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use nix::libc;

use super::Random;

/// Packets on the line at once: 40 ms of a gigabit, then the tail is dropped as routers do.
const MAX_PACKETS: usize = 4096;
/// Largest packet.
const MTU: usize = 1500;

nix::ioctl_write_ptr_bad!(
    /// **Source:** `linux/if_tun.h`, `TUNSETIFF`.
    tun_set_iff,
    nix::request_code_write!(b'T', 202, size_of::<libc::c_int>()),
    libc::ifreq
);

/// The line; it is gone with the process.
pub(super) struct Link {
    pub(super) near: IpAddr,
    pub(super) far: IpAddr,
    passed: Arc<AtomicU64>,
    lost: Arc<AtomicU64>,
}

impl Link {
    /// Opens a line with this delay and loss each way.
    pub(super) fn open(one_way: Duration, loss: f64) -> anyhow::Result<Self> {
        let device = File::options().read(true).write(true).open("/dev/net/tun").context("/dev/net/tun")?;
        // A network of four addresses of its own for each process.
        let [high, low] = (std::process::id() as u16).to_be_bytes();
        let near = Ipv4Addr::new(10, high, low, 1);
        let far = Ipv4Addr::new(10, high, low, 2);
        let name = format!("cs{}", std::process::id() as u16);
        attach(&device, &name)?;
        ip(&["addr", "add", &format!("{near}/30"), "dev", &name])?;
        ip(&["link", "set", "dev", &name, "mtu", &MTU.to_string(), "up"])?;

        let (passed, lost) = (Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
        let (send, arrive) = sync_channel::<(Instant, Vec<u8>)>(MAX_PACKETS);
        let (mut out, mut back) = (device.try_clone()?, device);
        let counts = (Arc::clone(&passed), Arc::clone(&lost));
        std::thread::spawn(move || {
            let mut random = Random(5);
            let mut packet = [0; MTU];
            while let Ok(size) = out.read(&mut packet) {
                counts.0.fetch_add(1, Ordering::Relaxed);
                let unlucky = (random.next() as f64 / u64::MAX as f64) < loss;
                let packet = packet[..size].to_vec();
                if unlucky
                    || matches!(send.try_send((Instant::now() + one_way, packet)), Err(TrySendError::Full(_)))
                {
                    counts.1.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        std::thread::spawn(move || {
            while let Ok((due, mut packet)) = arrive.recv() {
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
                if exchange(&mut packet) {
                    // What the kernel does not take is lost on the line.
                    let _ = back.write(&packet);
                }
            }
        });
        Ok(Self { near: near.into(), far: far.into(), passed, lost })
    }

    /// Packets that came to the line, and those of them that were lost.
    pub(super) fn counts(&self) -> (u64, u64) {
        (self.passed.load(Ordering::Relaxed), self.lost.load(Ordering::Relaxed))
    }
}

fn attach(device: &File, name: &str) -> anyhow::Result<()> {
    // SAFETY: all zeros is a valid `ifreq`, a plain C structure.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    ensure!(name.len() < request.ifr_name.len(), "{name} is too long for a device");
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_TUN | libc::IFF_NO_PI) as libc::c_short;
    // SAFETY: the pointer is to a live `ifreq`, which is what the request reads.
    unsafe { tun_set_iff(device.as_raw_fd(), &request) }.context("no TUN device")?;
    Ok(())
}

fn ip(words: &[&str]) -> anyhow::Result<()> {
    let output = Command::new("ip").args(words).output().context("cannot start ip")?;
    ensure!(
        output.status.success(),
        "ip {}: {}",
        words.join(" "),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}

/// Exchanges source and destination of an IPv4 packet; false for anything else. **Source:** RFC 791 §3.1.
fn exchange(packet: &mut [u8]) -> bool {
    if packet.len() < 20 || packet[0] >> 4 != 4 {
        return false;
    }
    let (source, destination) = packet[12..20].split_at_mut(4);
    source.swap_with_slice(destination);
    true
}
