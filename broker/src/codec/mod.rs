//! MQTT on the wire, 3.1.1 and 5: bytes to packets and back. Pure. Sessions and the handshake call it.
//!
//! Not rumqttd's own reader: that one panics on a CONNACK from a client, waits for more bytes after a legal
//! DISCONNECT of three bytes, and miscounts a subscription identifier.
//! **Source:** MQTT 3.1.1 and MQTT 5.0 (OASIS), §2 and §3.

mod connect;
mod decode;
mod encode;
mod reader;

pub(crate) use connect::{Connect, ConnectError, Will, connect};
pub(crate) use decode::{Incoming, PublishIn, SubscribeIn, decode, frame};
pub(crate) use encode::{
    ConnAck, Delivery, connack, disconnect, pingresp, puback, pubcomp, publish, pubrec, suback, unsuback,
};

#[cfg(test)]
mod tests;

/// Which MQTT a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    /// 3.1.1.
    V4,
    /// 5.0.
    V5,
}

/// Bytes that are not a packet we take. Ends the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum WireError {
    #[error("malformed packet: {0}")]
    Malformed(&'static str),
    #[error("protocol error: {0}")]
    Protocol(&'static str),
    #[error("packet of {0} bytes is larger than the limit")]
    TooLarge(usize),
    #[error("topic aliases were not offered")]
    TopicAlias,
    #[error("a publish to what is no topic")]
    NotATopic,
}

impl WireError {
    /// The reason code of MQTT 5 that says it.
    pub(crate) fn reason(self) -> u8 {
        match self {
            Self::Malformed(_) => reason::MALFORMED,
            Self::Protocol(_) => reason::PROTOCOL_ERROR,
            Self::TooLarge(_) => reason::PACKET_TOO_LARGE,
            Self::TopicAlias => reason::TOPIC_ALIAS_INVALID,
            Self::NotATopic => reason::TOPIC_NAME_INVALID,
        }
    }
}

/// Reason codes. **Source:** MQTT 5.0, §2.4.
pub(crate) mod reason {
    pub(crate) const SUCCESS: u8 = 0x00;
    pub(crate) const DISCONNECT_WITH_WILL: u8 = 0x04;
    pub(crate) const NO_SUBSCRIPTION_EXISTED: u8 = 0x11;
    /// The only refusal SUBACK has in 3.1.1.
    pub(crate) const FAILURE: u8 = 0x80;
    pub(crate) const MALFORMED: u8 = 0x81;
    pub(crate) const PROTOCOL_ERROR: u8 = 0x82;
    pub(crate) const NOT_AUTHORIZED: u8 = 0x87;
    pub(crate) const SERVER_SHUTTING_DOWN: u8 = 0x8b;
    pub(crate) const KEEP_ALIVE_TIMEOUT: u8 = 0x8d;
    pub(crate) const SESSION_TAKEN_OVER: u8 = 0x8e;
    pub(crate) const TOPIC_FILTER_INVALID: u8 = 0x8f;
    pub(crate) const TOPIC_NAME_INVALID: u8 = 0x90;
    pub(crate) const TOPIC_ALIAS_INVALID: u8 = 0x94;
    pub(crate) const PACKET_TOO_LARGE: u8 = 0x95;
    pub(crate) const QUOTA_EXCEEDED: u8 = 0x97;
    pub(crate) const PAYLOAD_FORMAT_INVALID: u8 = 0x99;
    pub(crate) const SHARED_NOT_SUPPORTED: u8 = 0x9e;
    pub(crate) const MAXIMUM_CONNECT_TIME: u8 = 0xa0;
}

/// Kinds of packet, the upper half of the first byte.
mod kind {
    pub(super) const CONNECT: u8 = 1;
    pub(super) const CONNACK: u8 = 2;
    pub(super) const PUBLISH: u8 = 3;
    pub(super) const PUBACK: u8 = 4;
    pub(super) const PUBREC: u8 = 5;
    pub(super) const PUBREL: u8 = 6;
    pub(super) const PUBCOMP: u8 = 7;
    pub(super) const SUBSCRIBE: u8 = 8;
    pub(super) const SUBACK: u8 = 9;
    pub(super) const UNSUBSCRIBE: u8 = 10;
    pub(super) const UNSUBACK: u8 = 11;
    pub(super) const PINGREQ: u8 = 12;
    pub(super) const PINGRESP: u8 = 13;
    pub(super) const DISCONNECT: u8 = 14;
}

/// MQTT 5 properties. **Source:** MQTT 5.0, §2.2.2.2.
pub(crate) mod property {
    pub(crate) const PAYLOAD_FORMAT: u8 = 0x01;
    pub(crate) const MESSAGE_EXPIRY: u8 = 0x02;
    pub(crate) const CONTENT_TYPE: u8 = 0x03;
    pub(crate) const RESPONSE_TOPIC: u8 = 0x08;
    pub(crate) const CORRELATION_DATA: u8 = 0x09;
    pub(crate) const SUBSCRIPTION_ID: u8 = 0x0b;
    pub(crate) const SESSION_EXPIRY: u8 = 0x11;
    pub(crate) const ASSIGNED_CLIENT_ID: u8 = 0x12;
    pub(crate) const AUTHENTICATION_METHOD: u8 = 0x15;
    pub(crate) const AUTHENTICATION_DATA: u8 = 0x16;
    pub(crate) const REQUEST_PROBLEM_INFORMATION: u8 = 0x17;
    pub(crate) const WILL_DELAY: u8 = 0x18;
    pub(crate) const REQUEST_RESPONSE_INFORMATION: u8 = 0x19;
    pub(crate) const REASON_STRING: u8 = 0x1f;
    pub(crate) const RECEIVE_MAXIMUM: u8 = 0x21;
    pub(crate) const TOPIC_ALIAS_MAXIMUM: u8 = 0x22;
    pub(crate) const TOPIC_ALIAS: u8 = 0x23;
    pub(crate) const USER_PROPERTY: u8 = 0x26;
    pub(crate) const MAXIMUM_PACKET_SIZE: u8 = 0x27;
    pub(crate) const SHARED_AVAILABLE: u8 = 0x2a;
}
