//! `NETWORK.TXT`: the wired network where DHCP does not do. TOML with `address`, `gateway` (one, or a list with one of
//! each family) and `name_servers`; all of it optional. Pure: text in, settings or a reason out. The appliance's boot
//! scripts read the settings as lines, and `cardshop flash` writes the file.

use std::net::IpAddr;

use serde::Deserialize;

use crate::config::line_of;

/// Longest file, bytes. A full one of ours is below 400.
pub const MAX_NETWORK_FILE_SIZE: usize = 16 * 1024;
/// Most name servers. **Source:** resolv.conf(5), `MAXNS`.
const MAX_NAME_SERVERS: usize = 3;
/// Addresses and gateways: one of each family.
const MAX_ADDRESSES: usize = 2;

/// What the file says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NetworkFile {
    /// Addresses with the length of their network's prefix; DHCP when there is none.
    pub addresses: Vec<(IpAddr, u8)>,
    /// Ways out.
    pub gateways: Vec<IpAddr>,
    /// Asked for names; those that DHCP names when there is none.
    pub name_servers: Vec<IpAddr>,
}

/// Why a file is of no use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NetworkFileError {
    /// It is longer than [`MAX_NETWORK_FILE_SIZE`].
    #[error("NETWORK.TXT is longer than {MAX_NETWORK_FILE_SIZE} bytes")]
    TooLong,
    /// It is not TOML, or has a word that is not known.
    #[error("NETWORK.TXT, line {line}: {why}")]
    NotToml {
        /// From 1.
        line: usize,
        /// For people.
        why: String,
    },
    /// A value is no address.
    #[error("NETWORK.TXT: {key} has {value:?}, which is not {wanted}")]
    BadValue {
        /// Which.
        key: &'static str,
        /// What it has.
        value: String,
        /// What it should be.
        wanted: &'static str,
    },
    /// There are more than can be used.
    #[error("NETWORK.TXT: {key} has {count} values, at most {limit} are possible")]
    TooMany {
        /// Which.
        key: &'static str,
        /// How many.
        count: usize,
        /// How many can be.
        limit: usize,
    },
    /// A gateway that no address reaches.
    #[error("NETWORK.TXT: the gateway {0} is not in the network of an address")]
    Unreachable(IpAddr),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Contents {
    #[serde(default)]
    address: OneOrMore,
    #[serde(default)]
    gateway: OneOrMore,
    #[serde(default)]
    name_servers: Vec<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMore {
    One(String),
    More(Vec<String>),
}

impl Default for OneOrMore {
    fn default() -> Self {
        Self::More(Vec::new())
    }
}

impl OneOrMore {
    fn values(self) -> Vec<String> {
        match self {
            Self::One(value) => vec![value],
            Self::More(values) => values,
        }
    }
}

impl NetworkFile {
    /// Reads the file's text.
    ///
    /// # Errors
    /// Any [`NetworkFileError`].
    pub fn parse(text: &str) -> Result<Self, NetworkFileError> {
        if text.len() > MAX_NETWORK_FILE_SIZE {
            return Err(NetworkFileError::TooLong);
        }
        let contents: Contents = toml::from_str(text).map_err(|error| NetworkFileError::NotToml {
            line: line_of(text, &error),
            why: shown(error.message()),
        })?;
        let file = Self {
            addresses: parse_all(
                "address",
                contents.address.values(),
                MAX_ADDRESSES,
                "192.168.1.20/24",
                with_prefix,
            )?,
            gateways: parse_all("gateway", contents.gateway.values(), MAX_ADDRESSES, "192.168.1.1", plain)?,
            name_servers: parse_all(
                "name_servers",
                contents.name_servers,
                MAX_NAME_SERVERS,
                "192.168.1.1",
                plain,
            )?,
        };
        let reached =
            |gateway: &&IpAddr| file.addresses.iter().any(|(a, prefix)| same_network(*a, **gateway, *prefix));
        match file.gateways.iter().find(|gateway| !reached(gateway)) {
            Some(gateway) => Err(NetworkFileError::Unreachable(*gateway)),
            None => Ok(file),
        }
    }

    /// One setting a line, as the boot scripts read it: `address 192.168.1.20/24`.
    pub fn lines(&self) -> String {
        let addresses =
            self.addresses.iter().map(|(address, prefix)| format!("address {address}/{prefix}\n"));
        let gateways = self.gateways.iter().map(|gateway| format!("gateway {gateway}\n"));
        let servers = self.name_servers.iter().map(|server| format!("name_server {server}\n"));
        addresses.chain(gateways).chain(servers).collect()
    }

    /// The file's text, which [`NetworkFile::parse`] reads back.
    pub fn to_toml(&self) -> String {
        let list = |key: &str, values: Vec<String>| match values.len() {
            0 => String::new(),
            _ => format!("{key} = {values:?}\r\n"),
        };
        let addresses =
            self.addresses.iter().map(|(address, prefix)| format!("{address}/{prefix}")).collect();
        list("address", addresses)
            + &list("gateway", self.gateways.iter().map(ToString::to_string).collect())
            + &list("name_servers", self.name_servers.iter().map(ToString::to_string).collect())
    }
}

fn parse_all<T>(
    key: &'static str,
    values: Vec<String>,
    limit: usize,
    wanted: &'static str,
    parse: fn(&str) -> Option<T>,
) -> Result<Vec<T>, NetworkFileError> {
    if values.len() > limit {
        return Err(NetworkFileError::TooMany { key, count: values.len(), limit });
    }
    let one = |value: String| {
        parse(&value).ok_or_else(|| NetworkFileError::BadValue { key, value: shown(&value), wanted })
    };
    values.into_iter().map(one).collect()
}

fn plain(text: &str) -> Option<IpAddr> {
    text.parse().ok()
}

fn with_prefix(text: &str) -> Option<(IpAddr, u8)> {
    let (address, prefix) = text.split_once('/')?;
    let (address, prefix): (IpAddr, u8) = (address.parse().ok()?, prefix.parse().ok()?);
    let usable = !address.is_unspecified() && !address.is_multicast() && !address.is_loopback();
    (usable && (1..=bits(address).1).contains(&prefix)).then_some((address, prefix))
}

/// The address as a number, and how many bits it has.
fn bits(address: IpAddr) -> (u128, u8) {
    match address {
        IpAddr::V4(address) => (u128::from(address.to_bits()), 32),
        IpAddr::V6(address) => (address.to_bits(), 128),
    }
}

fn same_network(address: IpAddr, other: IpAddr, prefix: u8) -> bool {
    let ((a, width), (b, other_width)) = (bits(address), bits(other));
    // Routers of IPv6 are commonly at a link-local address.
    let link_local = matches!(other, IpAddr::V6(v6) if v6.is_unicast_link_local());
    width == other_width && (link_local || (a ^ b).checked_shr(u32::from(width - prefix)).unwrap_or(0) == 0)
}

/// What a file says, short enough for a screen.
fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(100).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_static_address_of_each_family_becomes_lines_for_the_boot_scripts() {
        let text = "address = [\"192.168.1.20/24\", \"2001:db8::20/64\"]\r\n\
                    gateway = [\"192.168.1.1\", \"fe80::1\"]\r\nname_servers = [\"192.168.1.1\"]\r\n";
        let file = NetworkFile::parse(text).unwrap();
        assert_eq!(
            file.lines(),
            "address 192.168.1.20/24\naddress 2001:db8::20/64\ngateway 192.168.1.1\ngateway fe80::1\n\
             name_server 192.168.1.1\n"
        );
        assert_eq!(NetworkFile::parse(&file.to_toml()), Ok(file));
        let one = NetworkFile::parse("address = \"10.0.0.2/8\"\ngateway = \"10.9.9.9\"").unwrap();
        assert_eq!(one.lines(), "address 10.0.0.2/8\ngateway 10.9.9.9\n");
        assert_eq!(NetworkFile::parse("# DHCP\n").unwrap(), NetworkFile::default());
    }

    #[test]
    fn what_cannot_be_meant_is_refused_with_its_reason() {
        let long = "#".repeat(MAX_NETWORK_FILE_SIZE + 1);
        for (text, reason) in [
            ("\naddress = ", "line 2"),
            ("adress = \"10.0.0.2/8\"", "unknown field"),
            ("address = \"10.0.0.2\"", "which is not 192.168.1.20/24"),
            ("address = \"10.0.0.2/33\"", "which is not"),
            ("address = \"10.0.0.2/0\"", "which is not"),
            ("address = \"127.0.0.1/8\"", "which is not"),
            ("address = \"$(reboot)/8\"", "which is not"),
            ("address = \"10.0.0.2/8\"\ngateway = \"192.168.1.1\"", "192.168.1.1 is not in the network"),
            ("gateway = \"192.168.1.1\"", "is not in the network"),
            ("name_servers = [\"1.1.1.1\", \"1.1.1.1\", \"1.1.1.1\", \"1.1.1.1\"]", "4 values"),
            (&long, "longer than"),
        ] {
            let error = NetworkFile::parse(text).unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
    }
}
