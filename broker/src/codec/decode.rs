//! Bytes from a client to packets, after CONNECT. What borrows from the frame lives no longer than it.

use bytes::{Buf, Bytes, BytesMut};

use super::reader::{Once, Reader};
use super::{Version, WireError, kind, property, reason};

/// One packet without its fixed header.
#[derive(Debug)]
pub(crate) struct Frame {
    /// Kind and flags.
    pub(crate) head: u8,
    /// Variable header and payload.
    pub(crate) body: Bytes,
}

impl Frame {
    /// True for a client's goodbye.
    pub(crate) fn is_disconnect(&self) -> bool {
        self.head >> 4 == kind::DISCONNECT
    }
}

/// Takes the next whole packet off `buffer`; `None` while it has not arrived.
///
/// # Errors
/// `Malformed` for a length that is none, `TooLarge` above `max_size` bytes, before they have arrived.
pub(crate) fn frame(buffer: &mut BytesMut, max_size: usize) -> Result<Option<Frame>, WireError> {
    let Some(&head) = buffer.first() else { return Ok(None) };
    let mut length = Reader(&buffer[1..buffer.len().min(5)]);
    let size = match length.varint() {
        Ok(size) => size as usize,
        Err(_) if buffer.len() < 5 => return Ok(None),
        Err(error) => return Err(error),
    };
    let header_size = buffer.len().min(5) - length.0.len();
    if header_size + size > max_size {
        return Err(WireError::TooLarge(header_size + size));
    }
    if buffer.len() < header_size + size {
        return Ok(None);
    }
    buffer.advance(header_size);
    Ok(Some(Frame { head, body: buffer.split_to(size).freeze() }))
}

/// What a logged-in client may send.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Incoming<'a> {
    Publish(PublishIn<'a>),
    PubAck(u16),
    /// Second step of a QoS 2 publish.
    PubRel(u16),
    Subscribe(SubscribeIn<'a>),
    Unsubscribe {
        id: u16,
        filters: Vec<&'a str>,
    },
    PingReq,
    Disconnect {
        /// MQTT 5: the will is to be published all the same.
        with_will: bool,
    },
}

/// A publish.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct PublishIn<'a> {
    pub(crate) qos: u8,
    pub(crate) retain: bool,
    /// 0 at QoS 0.
    pub(crate) id: u16,
    pub(crate) topic: &'a str,
    /// What travels unaltered, wire form.
    pub(crate) properties: Vec<u8>,
    pub(crate) expiry_s: Option<u32>,
    pub(crate) payload: &'a [u8],
}

/// A subscription.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct SubscribeIn<'a> {
    pub(crate) id: u16,
    /// MQTT 5: comes back with what it matches.
    pub(crate) subscription_id: Option<u32>,
    pub(crate) filters: Vec<(&'a str, Wanted)>,
}

/// How a filter is to be served. **Source:** MQTT 5.0, §3.8.3.1; 3.1.1 has only `qos`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) qos: u8,
    pub(crate) no_local: bool,
    pub(crate) retain_as_published: bool,
    /// 0 send what is retained, 1 only for a new filter, 2 never.
    pub(crate) retain_handling: u8,
}

/// Reads one frame.
///
/// # Errors
/// [`WireError`]; the connection is to be closed.
pub(crate) fn decode(version: Version, frame: &Frame) -> Result<Incoming<'_>, WireError> {
    let flags = frame.head & 0x0f;
    let kind = frame.head >> 4;
    let mut body = Reader(&frame.body);
    let flags_wanted = match kind {
        kind::PUBLISH => flags,
        kind::PUBREL | kind::SUBSCRIBE | kind::UNSUBSCRIBE => 0b0010,
        _ => 0,
    };
    if flags != flags_wanted {
        return Err(WireError::Malformed("reserved flags of the fixed header"));
    }
    match kind {
        kind::PUBLISH => publish(version, flags, body).map(Incoming::Publish),
        // A reason code and properties may follow; an id is all we need.
        kind::PUBACK => body.id().map(Incoming::PubAck),
        kind::PUBREL => body.id().map(Incoming::PubRel),
        kind::SUBSCRIBE => subscribe(version, body).map(Incoming::Subscribe),
        kind::UNSUBSCRIBE => unsubscribe(version, body),
        kind::PINGREQ => Ok(Incoming::PingReq),
        kind::DISCONNECT => {
            let with_will = version == Version::V5 && !body.is_empty();
            Ok(Incoming::Disconnect { with_will: with_will && body.u8()? == reason::DISCONNECT_WITH_WILL })
        }
        kind::CONNECT => Err(WireError::Protocol("a second CONNECT")),
        kind::PUBREC | kind::PUBCOMP => Err(WireError::Protocol("nothing was sent with QoS 2")),
        _ => Err(WireError::Protocol("a packet that only servers send")),
    }
}

fn publish(version: Version, flags: u8, mut body: Reader<'_>) -> Result<PublishIn<'_>, WireError> {
    let qos = flags >> 1 & 0b11;
    if qos == 3 {
        return Err(WireError::Malformed("QoS 3"));
    }
    let topic = body.text()?;
    let id = if qos == 0 { 0 } else { body.id()? };
    let (properties, expiry_s) = match version {
        Version::V4 => (Vec::new(), None),
        Version::V5 => publish_properties(body.properties()?, false)?,
    };
    Ok(PublishIn { qos, retain: flags & 1 != 0, id, topic, properties, expiry_s, payload: body.0 })
}

/// Checks the properties of a publish, or of a will, and keeps those that travel unaltered.
pub(super) fn publish_properties(
    mut section: Reader<'_>,
    of_will: bool,
) -> Result<(Vec<u8>, Option<u32>), WireError> {
    let mut kept = Vec::new();
    let mut expiry_s = None;
    let mut once = Once::default();
    while !section.is_empty() {
        let before = section.0;
        let property = section.u8()?;
        once.first(property)?;
        match property {
            property::MESSAGE_EXPIRY => {
                expiry_s = Some(section.u32()?);
                continue;
            }
            property::WILL_DELAY if of_will => {
                // Sessions end with their connection, and a will is published when its session ends.
                section.u32()?;
                continue;
            }
            property::PAYLOAD_FORMAT => {
                if section.u8()? > 1 {
                    return Err(WireError::Protocol("a payload format other than 0 and 1"));
                }
            }
            property::CONTENT_TYPE => {
                section.text()?;
            }
            property::RESPONSE_TOPIC => {
                if section.text()?.contains(['+', '#']) {
                    return Err(WireError::Protocol("a response topic with a wildcard"));
                }
            }
            property::CORRELATION_DATA => {
                section.bytes()?;
            }
            property::USER_PROPERTY => {
                section.text()?;
                section.text()?;
            }
            property::TOPIC_ALIAS => return Err(WireError::TopicAlias),
            property::SUBSCRIPTION_ID => return Err(WireError::Protocol("a subscription id in a publish")),
            _ => return Err(WireError::Malformed("a property that a publish does not have")),
        }
        kept.extend_from_slice(&before[..before.len() - section.0.len()]);
    }
    Ok((kept, expiry_s))
}

fn subscribe(version: Version, mut body: Reader<'_>) -> Result<SubscribeIn<'_>, WireError> {
    let id = body.id()?;
    let mut subscription_id = None;
    if version == Version::V5 {
        let mut section = body.properties()?;
        let mut once = Once::default();
        while !section.is_empty() {
            let property = section.u8()?;
            once.first(property)?;
            match property {
                property::SUBSCRIPTION_ID => match section.varint()? {
                    0 => return Err(WireError::Protocol("subscription id 0")),
                    id => subscription_id = Some(id),
                },
                property::USER_PROPERTY => {
                    section.text()?;
                    section.text()?;
                }
                _ => return Err(WireError::Malformed("a property that SUBSCRIBE does not have")),
            }
        }
    }
    let mut filters = Vec::new();
    while !body.is_empty() {
        let filter = body.text()?;
        let options = body.u8()?;
        let reserved = if version == Version::V4 { 0b1111_1100 } else { 0b1100_0000 };
        let wanted = Wanted {
            qos: options & 0b11,
            no_local: options & 0b100 != 0,
            retain_as_published: options & 0b1000 != 0,
            retain_handling: options >> 4 & 0b11,
        };
        if options & reserved != 0 || wanted.qos == 3 || wanted.retain_handling == 3 {
            return Err(WireError::Malformed("options of a subscription"));
        }
        filters.push((filter, wanted));
    }
    if filters.is_empty() {
        return Err(WireError::Protocol("a subscription without a filter"));
    }
    Ok(SubscribeIn { id, subscription_id, filters })
}

fn unsubscribe(version: Version, mut body: Reader<'_>) -> Result<Incoming<'_>, WireError> {
    let id = body.id()?;
    if version == Version::V5 {
        let mut section = body.properties()?;
        while !section.is_empty() {
            match section.u8()? {
                property::USER_PROPERTY => {
                    section.text()?;
                    section.text()?;
                }
                _ => return Err(WireError::Malformed("a property that UNSUBSCRIBE does not have")),
            }
        }
    }
    let mut filters = Vec::new();
    while !body.is_empty() {
        filters.push(body.text()?);
    }
    if filters.is_empty() {
        return Err(WireError::Protocol("an UNSUBSCRIBE without a filter"));
    }
    Ok(Incoming::Unsubscribe { id, filters })
}
