//! One application message inside the broker: a single block of bytes, so that the Router's log, the retained
//! picture and every queue share one allocation, and the retained store writes it as it is. A [`Draft`] becomes
//! a [`Message`] when the exchange gives it its place in the order of all messages.
//!
//! ```text
//! version u8 │ flags u8 │ seq u64 │ sender u64 │ expires_ms u64 │ topic size u16 │ properties size u32 │
//! topic │ properties │ payload          (integers big-endian; flags: bits 0-1 QoS, bit 2 retain)
//! ```
//! `properties` are the MQTT 5 properties that travel unaltered, in their wire form.

use bytes::{BufMut, Bytes, BytesMut};

const VERSION: u8 = 1;
const HEADER_SIZE: usize = 1 + 1 + 8 + 8 + 8 + 2 + 4;
const SEQ_AT: usize = 2;
const SENDER_AT: usize = 10;
const EXPIRES_AT: usize = 18;
const TOPIC_SIZE_AT: usize = 26;
const PROPERTIES_SIZE_AT: usize = 28;
const QOS_BITS: u8 = 0b11;
const RETAIN_BIT: u8 = 0b100;

/// A publish as it came from the wire, checked: the topic is well-formed and shorter than 64 KiB.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Parts<'a> {
    /// Session it came from.
    pub(crate) sender: u64,
    pub(crate) qos: u8,
    pub(crate) retain: bool,
    pub(crate) topic: &'a str,
    pub(crate) properties: &'a [u8],
    pub(crate) payload: &'a [u8],
    /// Milliseconds since 1970 after which nobody gets it; 0 = never.
    pub(crate) expires_ms: u64,
}

/// A message without its place in the order.
#[derive(Debug)]
pub(crate) struct Draft(BytesMut);

impl Draft {
    /// Copies the parts out of the read buffer, which would otherwise be pinned for as long as the message lives.
    pub(crate) fn new(parts: &Parts<'_>) -> Self {
        let size = HEADER_SIZE + parts.topic.len() + parts.properties.len() + parts.payload.len();
        let mut bytes = BytesMut::with_capacity(size);
        bytes.put_u8(VERSION);
        bytes.put_u8(parts.qos & QOS_BITS | if parts.retain { RETAIN_BIT } else { 0 });
        bytes.put_u64(0);
        bytes.put_u64(parts.sender);
        bytes.put_u64(parts.expires_ms);
        bytes.put_u16(u16::try_from(parts.topic.len()).expect("topics are checked to be short"));
        bytes.put_u32(u32::try_from(parts.properties.len()).expect("packets are smaller than 4 GiB"));
        bytes.put_slice(parts.topic.as_bytes());
        bytes.put_slice(parts.properties);
        bytes.put_slice(parts.payload);
        Self(bytes)
    }

    /// Gives it its place.
    pub(crate) fn stamp(mut self, seq: u64) -> Message {
        self.0[SEQ_AT..SENDER_AT].copy_from_slice(&seq.to_be_bytes());
        Message(self.0.freeze())
    }
}

/// A message; cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Message(Bytes);

impl Message {
    /// Reads back what [`Message::bytes`] gave; `None` when it is not that.
    pub(crate) fn from_bytes(bytes: Bytes) -> Option<Self> {
        let whole = bytes.len() >= HEADER_SIZE && bytes[0] == VERSION;
        let message = Self(bytes);
        let fits = whole && message.payload_at() <= message.0.len();
        (fits && std::str::from_utf8(message.topic_bytes()).is_ok()).then_some(message)
    }

    /// All of it.
    pub(crate) fn bytes(&self) -> &Bytes {
        &self.0
    }
    /// Its place in the order of all messages since the broker started.
    pub(crate) fn seq(&self) -> u64 {
        self.number(SEQ_AT)
    }
    /// Session it came from.
    pub(crate) fn sender(&self) -> u64 {
        self.number(SENDER_AT)
    }
    /// QoS it was published with, 0 to 2.
    pub(crate) fn qos(&self) -> u8 {
        self.0[1] & QOS_BITS
    }
    /// Published with the retain flag.
    pub(crate) fn retain(&self) -> bool {
        self.0[1] & RETAIN_BIT != 0
    }
    /// Its topic.
    pub(crate) fn topic(&self) -> &str {
        std::str::from_utf8(self.topic_bytes()).expect("checked when it was made")
    }
    /// MQTT 5 properties, wire form.
    pub(crate) fn properties(&self) -> &[u8] {
        &self.0[HEADER_SIZE + self.topic_size()..self.payload_at()]
    }
    /// Its payload.
    pub(crate) fn payload(&self) -> &[u8] {
        &self.0[self.payload_at()..]
    }
    /// Seconds left at `now_ms`: `None` without an end, `Some(0)` when it is over.
    pub(crate) fn expires_in_s(&self, now_ms: u64) -> Option<u32> {
        let end = self.number(EXPIRES_AT);
        let left_s = end.saturating_sub(now_ms).div_ceil(1000);
        (end != 0).then(|| u32::try_from(left_s).unwrap_or(u32::MAX))
    }

    fn number(&self, at: usize) -> u64 {
        u64::from_be_bytes(self.0[at..at + 8].try_into().expect("eight bytes"))
    }
    fn topic_size(&self) -> usize {
        usize::from(u16::from_be_bytes([self.0[TOPIC_SIZE_AT], self.0[TOPIC_SIZE_AT + 1]]))
    }
    fn topic_bytes(&self) -> &[u8] {
        &self.0[HEADER_SIZE..HEADER_SIZE + self.topic_size()]
    }
    fn payload_at(&self) -> usize {
        let size = &self.0[PROPERTIES_SIZE_AT..HEADER_SIZE];
        let size = u32::from_be_bytes(size.try_into().expect("four bytes"));
        (HEADER_SIZE + self.topic_size()).saturating_add(size as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message() -> Message {
        let parts = Parts {
            sender: 9,
            qos: 1,
            retain: true,
            topic: "a/b",
            properties: b"props",
            payload: b"payload",
            expires_ms: 5_000,
        };
        Draft::new(&parts).stamp(77)
    }

    #[test]
    fn a_message_gives_back_what_was_put_in() {
        let message = message();
        assert_eq!((message.seq(), message.sender(), message.qos(), message.retain()), (77, 9, 1, true));
        assert_eq!(message.topic(), "a/b");
        assert_eq!((message.properties(), message.payload()), (&b"props"[..], &b"payload"[..]));
        assert_eq!(message.expires_in_s(3_500), Some(2));
        assert_eq!(message.expires_in_s(5_000), Some(0));
        assert_eq!(Message::from_bytes(message.bytes().clone()), Some(message));
    }

    #[test]
    fn damaged_bytes_are_no_message() {
        let whole = message().bytes().to_vec();
        for size in 0..HEADER_SIZE + 8 {
            assert_eq!(Message::from_bytes(whole[..size].to_vec().into()), None, "{size} bytes");
        }
        for (at, value) in [(0, 2), (TOPIC_SIZE_AT, 0xff), (PROPERTIES_SIZE_AT, 0xff), (HEADER_SIZE, 0xff)] {
            let mut bytes = whole.clone();
            bytes[at] = value;
            assert_eq!(Message::from_bytes(bytes.into()), None, "byte {at}");
        }
    }
}
