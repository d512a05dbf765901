//! What this machine is and how it feels: make, memory, temperature, disk. Read from the kernel's files; what
//! is not there is left out.

use std::fs;
use std::net::IpAddr;
use std::path::Path;

use cardshop_protocol::message::Hardware;

/// Make, architecture and memory.
pub(crate) fn hardware() -> Hardware {
    let model = read("/sys/class/dmi/id/product_name").or_else(|| read("/proc/device-tree/model"));
    let memory_kib = read("/proc/meminfo").and_then(|text| memory_kib(&text)).unwrap_or(0);
    Hardware {
        model: model.map_or_else(|| "unknown".into(), |m| m.chars().take(80).collect()),
        arch: std::env::consts::ARCH.into(),
        memory_bytes: memory_kib * 1024,
    }
}

fn read(path: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let text = text.trim_matches(['\0', ' ', '\n']);
    (!text.is_empty()).then(|| text.to_owned())
}

fn memory_kib(meminfo: &str) -> Option<u64> {
    meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?.split_whitespace().next()?.parse().ok()
}

/// The hottest sensor, °C.
pub(crate) fn temperature_c() -> Option<f32> {
    let zones = fs::read_dir("/sys/class/thermal").ok()?.flatten();
    let millidegrees =
        zones.filter_map(|zone| fs::read_to_string(zone.path().join("temp")).ok()?.trim().parse().ok());
    millidegrees.max().map(|hottest: i32| hottest as f32 / 1000.0)
}

/// Bytes free for us on the file system of a folder; 0 when it cannot be asked.
pub(crate) fn free_bytes(folder: &Path) -> u64 {
    nix::sys::statvfs::statvfs(folder).map_or(0, |s| s.blocks_available() * s.fragment_size())
}

/// The addresses by which this machine may be reached, but for those of itself and of a wire.
pub(crate) fn addresses() -> Vec<String> {
    let Ok(interfaces) = nix::ifaddrs::getifaddrs() else { return Vec::new() };
    let address = |interface: nix::ifaddrs::InterfaceAddress| {
        let storage = interface.address?;
        let v4 = storage.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
        v4.or_else(|| storage.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
    };
    let shown = |address: &IpAddr| match address {
        IpAddr::V4(v4) => !v4.is_loopback(),
        IpAddr::V6(v6) => !v6.is_loopback() && !v6.is_unicast_link_local(),
    };
    interfaces.filter_map(address).filter(shown).map(|address| address.to_string()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_in_bytes() {
        assert_eq!(memory_kib("MemTotal:       16393232 kB\nMemFree: 1 kB\n"), Some(16_393_232));
        assert_eq!(memory_kib("MemFree: 1 kB\n"), None);
        assert!(hardware().memory_bytes > 0);
        assert!(free_bytes(&std::env::temp_dir()) > 0);
    }
}
