//! Packets to bytes, appended to a connection's write buffer.

use bytes::{BufMut, BytesMut};

use super::{Version, kind, property};
use crate::message::Message;

/// The answer to CONNECT.
#[derive(Debug, Default)]
pub(crate) struct ConnAck<'a> {
    /// Return code of 3.1.1 or reason code of 5; 0 = welcome.
    pub(crate) code: u8,
    /// MQTT 5: why not, for people.
    pub(crate) reason: Option<&'a str>,
    /// MQTT 5, with a welcome: what the broker takes.
    pub(crate) limits: Option<(u16, u32)>,
    /// MQTT 5: the id of a client that gave none.
    pub(crate) assigned_id: Option<&'a str>,
}

pub(crate) fn connack(version: Version, ack: &ConnAck<'_>, out: &mut BytesMut) {
    let mut properties = BytesMut::new();
    if let Some((receive_maximum, packet_size)) = ack.limits {
        properties.put_u8(property::SESSION_EXPIRY);
        properties.put_u32(0); // sessions end with their connection
        properties.put_u8(property::RECEIVE_MAXIMUM);
        properties.put_u16(receive_maximum);
        properties.put_u8(property::MAXIMUM_PACKET_SIZE);
        properties.put_u32(packet_size);
        properties.put_slice(&[property::SHARED_AVAILABLE, 0]);
    }
    for (name, text) in
        [(property::ASSIGNED_CLIENT_ID, ack.assigned_id), (property::REASON_STRING, ack.reason)]
    {
        if let Some(text) = text {
            properties.put_u8(name);
            put_text(&mut properties, text);
        }
    }
    let mut body = BytesMut::new();
    body.put_slice(&[0, ack.code]);
    if version == Version::V5 {
        put_varint(&mut body, properties.len());
        body.put_slice(&properties);
    }
    put_packet(out, kind::CONNACK << 4, &body);
}

/// How one client gets a message.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Delivery<'a> {
    pub(crate) qos: u8,
    /// 0 at QoS 0.
    pub(crate) id: u16,
    pub(crate) retain: bool,
    pub(crate) subscription_ids: &'a [u32],
    /// Seconds it is still good for.
    pub(crate) expiry_s: Option<u32>,
}

/// Returns the bytes appended; nothing is appended when they would be more than `max_size`, which the client set
/// (MQTT 5.0 §3.1.2.11.4).
pub(crate) fn publish(
    version: Version,
    message: &Message,
    how: &Delivery<'_>,
    max_size: usize,
    out: &mut BytesMut,
) -> usize {
    let mut properties = BytesMut::new();
    if version == Version::V5 {
        if let Some(expiry_s) = how.expiry_s {
            properties.put_u8(property::MESSAGE_EXPIRY);
            properties.put_u32(expiry_s);
        }
        for id in how.subscription_ids {
            properties.put_u8(property::SUBSCRIPTION_ID);
            put_varint(&mut properties, *id as usize);
        }
        properties.put_slice(message.properties());
    }
    let mut size = 2 + message.topic().len() + message.payload().len();
    size += if how.qos > 0 { 2 } else { 0 };
    if version == Version::V5 {
        size += varint_size(properties.len()) + properties.len();
    }
    let whole = 1 + varint_size(size) + size;
    if whole > max_size {
        return 0;
    }
    out.reserve(whole);
    out.put_u8(kind::PUBLISH << 4 | how.qos << 1 | u8::from(how.retain));
    put_varint(out, size);
    put_text(out, message.topic());
    if how.qos > 0 {
        out.put_u16(how.id);
    }
    if version == Version::V5 {
        put_varint(out, properties.len());
        out.put_slice(&properties);
    }
    out.put_slice(message.payload());
    whole
}

fn acknowledge(version: Version, head: u8, id: u16, reason: u8, out: &mut BytesMut) {
    // Without a reason code it was a success, in both versions (5.0 §3.4.2.1).
    if version == Version::V5 && reason != super::reason::SUCCESS {
        out.put_slice(&[head, 3]);
        out.put_u16(id);
        out.put_u8(reason);
    } else {
        out.put_slice(&[head, 2]);
        out.put_u16(id);
    }
}

pub(crate) fn puback(version: Version, id: u16, reason: u8, out: &mut BytesMut) {
    acknowledge(version, kind::PUBACK << 4, id, reason, out);
}

pub(crate) fn pubrec(version: Version, id: u16, reason: u8, out: &mut BytesMut) {
    acknowledge(version, kind::PUBREC << 4, id, reason, out);
}

pub(crate) fn pubcomp(version: Version, id: u16, out: &mut BytesMut) {
    acknowledge(version, kind::PUBCOMP << 4, id, super::reason::SUCCESS, out);
}

pub(crate) fn suback(version: Version, id: u16, reasons: &[u8], out: &mut BytesMut) {
    let mut body = BytesMut::new();
    body.put_u16(id);
    if version == Version::V5 {
        body.put_u8(0);
    }
    body.put_slice(reasons);
    put_packet(out, kind::SUBACK << 4, &body);
}

pub(crate) fn unsuback(version: Version, id: u16, reasons: &[u8], out: &mut BytesMut) {
    let mut body = BytesMut::new();
    body.put_u16(id);
    if version == Version::V5 {
        body.put_u8(0);
        body.put_slice(reasons);
    }
    put_packet(out, kind::UNSUBACK << 4, &body);
}

pub(crate) fn pingresp(out: &mut BytesMut) {
    out.put_slice(&[kind::PINGRESP << 4, 0]);
}

/// Servers of 3.1.1 say nothing before they close.
pub(crate) fn disconnect(version: Version, reason: u8, out: &mut BytesMut) {
    if version == Version::V5 {
        out.put_slice(&[kind::DISCONNECT << 4, 1, reason]);
    }
}

fn put_packet(out: &mut BytesMut, head: u8, body: &[u8]) {
    out.put_u8(head);
    put_varint(out, body.len());
    out.put_slice(body);
}

fn put_text(out: &mut BytesMut, text: &str) {
    out.put_u16(u16::try_from(text.len()).expect("texts we send are short"));
    out.put_slice(text.as_bytes());
}

fn put_varint(out: &mut BytesMut, mut value: usize) {
    while value >= 0x80 {
        out.put_u8((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

fn varint_size(value: usize) -> usize {
    match value {
        0..0x80 => 1,
        0x80..0x4000 => 2,
        0x4000..0x20_0000 => 3,
        _ => 4,
    }
}
