//! The first packet of a connection. **Source:** MQTT 3.1.1 and 5.0, §3.1.

use super::decode::{Frame, publish_properties};
use super::reader::{Once, Reader};
use super::{Version, WireError, kind, property};

/// What a client says of itself.
#[derive(Debug)]
pub(crate) struct Connect {
    pub(crate) version: Version,
    pub(crate) client_id: String,
    pub(crate) user_name: Option<String>,
    /// A secret: never logged.
    pub(crate) password: Option<Secret>,
    /// Seconds; 0 = none.
    pub(crate) keep_alive_s: u16,
    pub(crate) will: Option<Will>,
    /// QoS 1 messages it takes unacknowledged (MQTT 5).
    pub(crate) receive_maximum: Option<u16>,
    /// Largest packet it takes, bytes (MQTT 5).
    pub(crate) packet_size: Option<u32>,
    /// It wants an authentication exchange (MQTT 5), which we do not have.
    pub(crate) wants_exchange: bool,
}

/// A text that does not show itself.
pub(crate) struct Secret(pub(crate) String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("(secret)")
    }
}

/// What is published for a client that vanishes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Will {
    pub(crate) topic: String,
    pub(crate) payload: Vec<u8>,
    pub(crate) qos: u8,
    pub(crate) retain: bool,
    pub(crate) properties: Vec<u8>,
    pub(crate) expiry_s: Option<u32>,
}

/// Why a first packet is no CONNECT we can answer with more than a refusal.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ConnectError {
    #[error("it is MQTT level {0}; this broker speaks 4 (3.1.1) and 5")]
    Level(u8),
    #[error(transparent)]
    Wire(#[from] WireError),
}

/// Reads the first frame.
///
/// # Errors
/// `Level` for another MQTT, which gets a refusal; `Wire` for what is no CONNECT, which gets none.
pub(crate) fn connect(frame: &Frame) -> Result<Connect, ConnectError> {
    if frame.head != kind::CONNECT << 4 {
        return Err(WireError::Protocol("the first packet is not CONNECT").into());
    }
    let mut body = Reader(&frame.body);
    let name = body.text()?;
    let level = body.u8()?;
    let version = match (name, level) {
        ("MQTT", 4) => Version::V4,
        ("MQTT", 5) => Version::V5,
        ("MQTT" | "MQIsdp", other) => return Err(ConnectError::Level(other)),
        _ => return Err(WireError::Protocol("not MQTT").into()),
    };
    Ok(rest(version, body)?)
}

fn rest(version: Version, mut body: Reader<'_>) -> Result<Connect, WireError> {
    let flags = body.u8()?;
    let has = |bit: u8| flags & (1 << bit) != 0;
    let will_qos = flags >> 3 & 0b11;
    if has(0) || will_qos == 3 || (!has(2) && flags & 0b0011_1000 != 0) {
        return Err(WireError::Malformed("flags of CONNECT"));
    }
    if version == Version::V4 && has(6) && !has(7) {
        return Err(WireError::Malformed("a password without a user name"));
    }
    let mut connect = Connect {
        version,
        keep_alive_s: body.u16()?,
        client_id: String::new(),
        user_name: None,
        password: None,
        will: None,
        receive_maximum: None,
        packet_size: None,
        wants_exchange: false,
    };
    if version == Version::V5 {
        properties(body.properties()?, &mut connect)?;
    }
    body.text()?.clone_into(&mut connect.client_id);
    if has(2) {
        connect.will = Some(will(version, &mut body, will_qos, has(5))?);
    }
    if has(7) {
        connect.user_name = Some(body.text()?.to_owned());
    }
    if has(6) {
        connect.password = Some(Secret(body.text()?.to_owned()));
    }
    if body.is_empty() { Ok(connect) } else { Err(WireError::Malformed("bytes after the end of CONNECT")) }
}

fn properties(mut section: Reader<'_>, connect: &mut Connect) -> Result<(), WireError> {
    let mut once = Once::default();
    while !section.is_empty() {
        let property = section.u8()?;
        once.first(property)?;
        match property {
            property::RECEIVE_MAXIMUM => match section.u16()? {
                0 => return Err(WireError::Protocol("receive maximum 0")),
                maximum => connect.receive_maximum = Some(maximum),
            },
            property::MAXIMUM_PACKET_SIZE => match section.u32()? {
                0 => return Err(WireError::Protocol("maximum packet size 0")),
                maximum => connect.packet_size = Some(maximum),
            },
            property::SESSION_EXPIRY => {
                section.u32()?;
            }
            property::TOPIC_ALIAS_MAXIMUM => {
                section.u16()?;
            }
            property::REQUEST_RESPONSE_INFORMATION | property::REQUEST_PROBLEM_INFORMATION => {
                section.u8()?;
            }
            property::USER_PROPERTY => {
                section.text()?;
                section.text()?;
            }
            property::AUTHENTICATION_METHOD => {
                section.text()?;
                connect.wants_exchange = true;
            }
            property::AUTHENTICATION_DATA => {
                section.bytes()?;
            }
            _ => return Err(WireError::Malformed("a property that CONNECT does not have")),
        }
    }
    Ok(())
}

fn will(version: Version, body: &mut Reader<'_>, qos: u8, retain: bool) -> Result<Will, WireError> {
    let (properties, expiry_s) = match version {
        Version::V4 => (Vec::new(), None),
        Version::V5 => publish_properties(body.properties()?, true)?,
    };
    let topic = body.text()?.to_owned();
    Ok(Will { topic, payload: body.bytes()?.to_vec(), qos, retain, properties, expiry_s })
}
