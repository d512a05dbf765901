//! Webhooks: programs that are told, what of a message they may know, what is signed, and which addresses may be called.
//! **Source:** Standard Webhooks 1.0 for headers and signature; IANA's special-purpose address registries.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cardshop_protocol::ids::{Channel, ObjectId};
use cardshop_protocol::time::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::event::Notice;
use super::message::Message;

/// What is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum HookKind {
    /// Takes signed JSON.
    #[default]
    Webhook,
    /// A topic of an ntfy server, which shows text to people.
    Ntfy,
}

/// One webhook. Its secret follows from its id and the site's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Webhook {
    pub(crate) id: ObjectId,
    pub(crate) kind: HookKind,
    pub(crate) url: String,
    pub(crate) events: Vec<Notice>,
    /// Only of these; of all when it is empty.
    pub(crate) channels: Vec<Channel>,
    pub(crate) language: String,
    pub(crate) created_by: String,
    pub(crate) created: Timestamp,
    pub(crate) active: bool,
}

impl Webhook {
    /// True when it is told of `notice` in one of `channels`.
    pub(crate) fn hears(&self, notice: Notice, channels: &[Channel]) -> bool {
        let of = self.channels.is_empty() || channels.iter().any(|channel| self.channels.contains(channel));
        self.active && of && self.events.contains(&notice)
    }
}

/// A webhook, as people see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct WebhookView {
    /// Its id.
    pub id: ObjectId,
    /// What is called.
    pub kind: HookKind,
    /// Its address.
    pub url: String,
    /// What it is told of.
    pub events: Vec<Notice>,
    /// Only of these channels; of all when it is empty.
    pub channels: Vec<Channel>,
    /// Language of texts.
    pub language: String,
    /// Who made it.
    pub created_by: String,
    /// When.
    pub created: Timestamp,
    /// Is told.
    pub active: bool,
}

impl From<Webhook> for WebhookView {
    fn from(hook: Webhook) -> Self {
        let Webhook { id, kind, url, events, channels, language, created_by, created, active } = hook;
        Self { id, kind, url, events, channels, language, created_by, created, active }
    }
}

/// A new webhook, with its secret, which is not shown again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NewWebhook {
    /// The webhook.
    #[serde(flatten)]
    pub webhook: WebhookView,
    /// Signs what it is sent.
    pub secret: String,
}

/// What a receiver needs no person for: who gets a parcel, and links that open something.
const PRIVATE: [&str; 5] = ["recipient", "address", "links", "link", "username"];

/// The body that is sent for a message; `order` is how the order stands.
pub(crate) fn body(message: &Message, order: Option<Value>) -> String {
    let mut details = message.values.clone();
    if let Value::Object(map) = &mut details {
        map.retain(|key, _| !PRIVATE.contains(&key.as_str()));
    }
    json!({
        "type": message.notice,
        "timestamp": message.created,
        "data": {"order": order, "appliance": message.appliance, "channel": message.channel, "details": details},
    })
    .to_string()
}

/// The secret's text, from its bytes.
pub(crate) fn secret_text(secret: &[u8; 32]) -> String {
    format!("whsec_{}", STANDARD.encode(secret))
}

/// The value of `webhook-signature`.
pub(crate) fn signature(secret: &[u8; 32], id: &str, seconds: u64, body: &str) -> String {
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, secret);
    let tag = ring::hmac::sign(&key, format!("{id}.{seconds}.{body}").as_bytes());
    format!("v1,{}", STANDARD.encode(tag))
}

/// True for an address of the public internet: nothing that only this machine or its network has.
pub(crate) fn is_public(ip: IpAddr) -> bool {
    match ip.to_canonical() {
        IpAddr::V4(ip) => is_public_v4(ip),
        IpAddr::V6(ip) => is_public_v6(ip),
    }
}

fn is_public_v4(ip: Ipv4Addr) -> bool {
    let [a, b, c, _] = ip.octets();
    let special = matches!(
        (a, b, c),
        (0 | 10 | 127 | 224..=255, ..)
            | (100, 64..=127, _)
            | (169, 254, _)
            | (172, 16..=31, _)
            | (192, 168, _)
            | (192, 0, 0 | 2)
            | (192, 88, 99)
            | (198, 18 | 19, _)
            | (198, 51, 100)
            | (203, 0, 113)
    );
    !special
}

fn is_public_v6(ip: Ipv6Addr) -> bool {
    let s = ip.segments();
    let low = || Ipv4Addr::from((u32::from(s[6]) << 16) | u32::from(s[7]));
    match s {
        // Translated to IPv4 by the network: what counts is where it leads.
        [0x64, 0xff9b, 0, 0, 0, 0, _, _] => is_public_v4(low()),
        [0x2002, a, b, ..] => is_public_v4(Ipv4Addr::from((u32::from(a) << 16) | u32::from(b))),
        // Teredo and other protocols' own, documentation.
        [0x2001, 0..=0x1ff, ..] | [0x2001, 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] => false,
        // Global unicast is 2000::/3 and nothing else.
        [first, ..] => first & 0xe000 == 0x2000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_of_the_public_internet_are_public() {
        let public = |text: &str| is_public(text.parse().unwrap());
        for yes in [
            "1.1.1.1",
            "93.184.216.34",
            "172.32.0.1",
            "2606:4700::1111",
            "64:ff9b::101:101",
            "2002:101:101::1",
        ] {
            assert!(public(yes), "{yes}");
        }
        for no in [
            "127.0.0.1",
            "127.9.9.9",
            "0.0.0.0",
            "0.1.2.3",
            "10.1.2.3",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "198.18.0.1",
            "192.0.2.1",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "fe80::1",
            "fc00::1",
            "fd12::1",
            "ff02::1",
            "fec0::1",
            "64:ff9b::7f00:1",
            "2002:7f00:1::",
            "2002:a00:1::",
            "2001::1",
            "2001:db8::1",
            "64:ff9b:1::1",
            "100::1",
            "::127.0.0.1",
        ] {
            assert!(!public(no), "{no}");
        }
    }

    #[test]
    fn the_signature_is_that_of_the_standards_own_example() {
        // **Source:** the test vector of the Standard Webhooks libraries.
        let secret: [u8; 24] =
            STANDARD.decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap().try_into().unwrap();
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &secret);
        let body = "{\"test\": 2432232314}";
        let tag =
            ring::hmac::sign(&key, format!("msg_p5jXN8AQM9LWM0D4loKWxJek.1614265330.{body}").as_bytes());
        assert_eq!(STANDARD.encode(tag), "g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
        let ours = signature(&[7; 32], "m", 5, body);
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &[7; 32]);
        let wanted = ring::hmac::sign(&key, format!("m.5.{body}").as_bytes());
        assert_eq!(ours, format!("v1,{}", STANDARD.encode(wanted)));
    }
}
