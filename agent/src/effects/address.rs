//! Which addresses a secret may be sent to: anything under TLS, and plain text only within this machine. Asked
//! for the server, the broker and every warehouse before anything is sent there.

use std::net::IpAddr;

/// Why an address is not used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Not `scheme://host[:port][/path]`, or with a user name in it.
    #[error("{0:?} is not an address such as https://shop.example")]
    Malformed(String),
    /// The scheme is not one of the two for this purpose.
    #[error("{0:?} has a scheme other than {1}")]
    WrongScheme(String, &'static str),
    /// Plain text to another machine.
    #[error("{0:?} would send a secret unencrypted to another machine: use TLS")]
    Unencrypted(String),
}

/// A checked address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Address {
    /// Host name or literal, without brackets.
    pub(crate) host: String,
    /// Port, if it is given.
    pub(crate) port: Option<u16>,
    /// True when it is used under TLS.
    pub(crate) tls: bool,
}

/// Checks an `http` or `https` base address.
///
/// # Errors
/// Any [`AddressError`].
pub(crate) fn check_http(text: &str) -> Result<Address, AddressError> {
    check(text, "http", "https", "http and https")
}

/// Checks an `mqtt` or `mqtts` address.
///
/// # Errors
/// Any [`AddressError`].
pub(crate) fn check_mqtt(text: &str) -> Result<Address, AddressError> {
    check(text, "mqtt", "mqtts", "mqtt and mqtts")
}

fn check(text: &str, plain: &str, secure: &str, wanted: &'static str) -> Result<Address, AddressError> {
    let malformed = || AddressError::Malformed(text.chars().take(200).collect());
    let (scheme, rest) = text.split_once("://").ok_or_else(malformed)?;
    let tls = match scheme {
        s if s == secure => true,
        s if s == plain => false,
        _ => return Err(AddressError::WrongScheme(text.chars().take(200).collect(), wanted)),
    };
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if authority.contains('@') {
        return Err(malformed());
    }
    let (host, port) = match authority.strip_prefix('[') {
        Some(literal) => literal.split_once(']').ok_or_else(malformed)?,
        None => authority.split_at(authority.find(':').unwrap_or(authority.len())),
    };
    let port = match port.strip_prefix(':') {
        Some(digits) => Some(digits.parse().map_err(|_| malformed())?),
        None if port.is_empty() => None,
        None => return Err(malformed()),
    };
    if host.is_empty() {
        return Err(malformed());
    }
    let here = host == "localhost" || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    if !tls && !here {
        return Err(AddressError::Unencrypted(text.chars().take(200).collect()));
    }
    Ok(Address { host: host.to_owned(), port, tls })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_text_stays_on_this_machine() {
        for good in [
            "https://shop.example/x",
            "http://127.0.0.1:8080",
            "http://[::1]:80/a",
            "http://localhost",
            "http://127.9.9.9",
        ] {
            assert!(check_http(good).is_ok(), "{good}");
        }
        for bad in
            ["http://shop.example", "http://10.0.0.1:80", "http://127.0.0.1.evil.example", "http://[::2]"]
        {
            assert!(matches!(check_http(bad), Err(AddressError::Unencrypted(_))), "{bad}");
        }
        for bad in [
            "",
            "shop",
            "https://",
            "http://127.0.0.1:x",
            "http://u:p@127.0.0.1",
            "http://[::1",
            "http://[::1]8",
        ] {
            assert!(matches!(check_http(bad), Err(AddressError::Malformed(_))), "{bad}");
        }
        assert!(matches!(check_http("ftp://127.0.0.1"), Err(AddressError::WrongScheme(..))));
        let broker = Address { host: "::1".into(), port: Some(1883), tls: false };
        assert_eq!(check_mqtt("mqtt://[::1]:1883"), Ok(broker));
    }
}
