//! What the tests of the broker share: a broker on a free port with a key of its own, tokens for anybody, and
//! a client that speaks raw MQTT so that a test sees each packet.

// Each test file is a crate of its own and uses its part of this.
#![allow(dead_code, unreachable_pub)]
// clippy.toml allows it in tests, and does not see that this is part of one.
#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cardshop_broker::{Config, Limits, Running, start};
use cardshop_protocol::keys::{KeyList, KeyUse, PublicKey, RevokedSubject};
use cardshop_protocol::token::{Claims, ISSUER, Role, SharedKeys, TokenSigner};
use ed25519_dalek::SigningKey;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

pub const A: &str = "aaaaaaaaaaaaaaaa";
pub const B: &str = "bbbbbbbbbbbbbbbb";

/// Longest anything may take; only a failing test waits for it.
pub const PATIENCE: Duration = Duration::from_secs(20);

pub async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("{what} did not happen"))
}

/// A broker and who signs its tokens.
pub struct Shop {
    pub broker: Running,
    pub keys: SharedKeys,
    pub signer: TokenSigner,
    key: SigningKey,
}

/// Limits for tests: many connections a second from one address are what a test is.
pub fn limits() -> Limits {
    Limits { connects_per_second: 1_000_000, ..Limits::default() }
}

/// A broker on a free port, without TLS.
pub fn config(data: &Path, limits: Limits) -> Config {
    let listen = "127.0.0.1:0".parse().unwrap();
    Config { listen, plain_anywhere: false, tls: None, data: data.to_owned(), limits }
}

impl Shop {
    pub async fn open(data: &Path) -> Self {
        Self::with_limits(data, limits()).await
    }

    pub async fn with_limits(data: &Path, limits: Limits) -> Self {
        Self::start(config(data, limits)).await
    }

    pub async fn start(config: Config) -> Self {
        let key = SigningKey::from_bytes(&[7; 32]);
        let keys = SharedKeys::default();
        let broker = start(config, keys.clone()).await.unwrap();
        let shop = Self { broker, keys, signer: TokenSigner::new(&key), key };
        shop.revoke(Vec::new());
        shop
    }

    pub fn address(&self) -> SocketAddr {
        self.broker.address()
    }

    /// Publishes the key, and who is revoked.
    pub fn revoke(&self, revoked: Vec<RevokedSubject>) {
        let items = vec![PublicKey::new(&self.key.verifying_key(), KeyUse::Jwt)];
        self.keys.replace(KeyList { items, next_cursor: None, revoked });
    }

    /// What the shop's tokens are signed by counts no more.
    pub fn revoke_the_key(&self) {
        let mut keys = (*self.keys.current()).clone();
        keys.items.iter_mut().for_each(|key| key.revoked = true);
        self.keys.replace(keys);
    }

    pub fn token(&self, name: &str, role: Role) -> String {
        self.signer.sign(&claims(name, role, 3600))
    }

    pub async fn raw(&self) -> Raw {
        Raw::new(TcpStream::connect(self.address()).await.unwrap())
    }

    /// Logged in with 3.1.1.
    pub async fn client(&self, name: &str, role: Role) -> Raw {
        self.login(&Hello::new(name, &self.token(name, role))).await
    }

    /// Logged in with MQTT 5.
    pub async fn client5(&self, name: &str, role: Role) -> Raw {
        let token = self.token(name, role);
        self.login(&Hello { version: 5, ..Hello::new(name, &token) }).await
    }

    pub async fn login(&self, hello: &Hello<'_>) -> Raw {
        let mut raw = self.raw().await;
        raw.hello(hello).await;
        raw
    }

    /// Waits until `holds` of the counters.
    pub async fn until(&self, what: &str, holds: impl Fn(&cardshop_broker::Stats) -> bool) {
        soon(what, async {
            while !holds(&self.broker.stats()) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
    }
}

/// Whether a program is on the path.
pub fn is_installed(program: &str) -> bool {
    std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())
        .any(|directory| directory.join(program).is_file())
}

pub fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// Claims good for `seconds` from now, for channel `demo`.
pub fn claims(name: &str, role: Role, seconds: u64) -> Claims {
    Claims {
        iss: ISSUER.into(),
        sub: name.into(),
        role,
        channel: vec!["demo".parse().unwrap()],
        scope: None,
        epoch: 1,
        jti: "1".into(),
        iat: now_s(),
        exp: now_s() + seconds,
        signed_by: None,
    }
}

/// What a CONNECT says.
#[derive(Clone)]
pub struct Hello<'a> {
    pub version: u8,
    pub client_id: &'a str,
    pub user: &'a str,
    pub password: &'a str,
    pub keep_alive_s: u16,
    /// Topic, payload, retained; QoS 1.
    pub will: Option<(&'a str, &'a str, bool)>,
    /// MQTT 5 properties.
    pub properties: &'a [u8],
}

impl<'a> Hello<'a> {
    pub fn new(name: &'a str, password: &'a str) -> Self {
        Self {
            version: 4,
            client_id: name,
            user: name,
            password,
            keep_alive_s: 60,
            will: None,
            properties: &[],
        }
    }

    pub fn packet(&self) -> Vec<u8> {
        let mut flags = 0b1100_0010;
        if let Some((_, _, retain)) = self.will {
            flags |= 0b0000_1100 | u8::from(retain) << 5;
        }
        let mut body = [&text("MQTT")[..], &[self.version, flags], &self.keep_alive_s.to_be_bytes()].concat();
        if self.version == 5 {
            body.push(u8::try_from(self.properties.len()).unwrap());
            body.extend_from_slice(self.properties);
        }
        body.extend(text(self.client_id));
        if let Some((topic, payload, _)) = self.will {
            if self.version == 5 {
                body.push(0);
            }
            body.extend(text(topic));
            body.extend(text(payload));
        }
        body.extend(text(self.user));
        body.extend(text(self.password));
        packet(0x10, &body)
    }
}

pub fn text(text: &str) -> Vec<u8> {
    [&u16::try_from(text.len()).unwrap().to_be_bytes()[..], text.as_bytes()].concat()
}

pub fn packet(head: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![head];
    let mut size = body.len();
    while size >= 0x80 {
        bytes.push((size & 0x7f) as u8 | 0x80);
        size >>= 7;
    }
    bytes.push(size as u8);
    bytes.extend_from_slice(body);
    bytes
}

/// A received publish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Got {
    pub topic: String,
    pub payload: String,
    pub qos: u8,
    pub retain: bool,
}

pub fn got(topic: &str, payload: &str, qos: u8, retain: bool) -> Got {
    Got { topic: topic.into(), payload: payload.into(), qos, retain }
}

/// A connection that sends and receives packets as they are.
pub struct Raw<S = TcpStream> {
    pub stream: S,
    pub version: u8,
    last_id: u16,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Raw<S> {
    pub fn new(stream: S) -> Self {
        Self { stream, version: 4, last_id: 0 }
    }

    pub async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    /// The next packet, or nothing when the broker closed.
    pub async fn maybe_packet(&mut self) -> Option<Vec<u8>> {
        soon("a packet", async {
            let mut head = vec![self.stream.read_u8().await.ok()?];
            let mut size = 0;
            for shift in [0, 7, 14, 21] {
                let byte = self.stream.read_u8().await.ok()?;
                head.push(byte);
                size |= usize::from(byte & 0x7f) << shift;
                if byte & 0x80 == 0 {
                    break;
                }
            }
            let start = head.len();
            head.resize(start + size, 0);
            self.stream.read_exact(&mut head[start..]).await.ok()?;
            Some(head)
        })
        .await
    }

    pub async fn packet(&mut self) -> Vec<u8> {
        self.maybe_packet().await.expect("the broker closed the connection")
    }

    pub async fn is_closed(&mut self) {
        let packet = self.maybe_packet().await;
        assert_eq!(packet, None, "closed without a word");
    }

    pub fn next_id(&mut self) -> u16 {
        self.last_id += 1;
        self.last_id
    }

    /// Publishes without waiting.
    pub async fn publish(&mut self, topic: &str, payload: &str, qos: u8, retain: bool) -> u16 {
        let mut body = text(topic);
        let id = self.next_id();
        if qos > 0 {
            body.extend(id.to_be_bytes());
        }
        if self.version == 5 {
            body.push(0);
        }
        body.extend(payload.as_bytes());
        self.send(&packet(0x30 | qos << 1 | u8::from(retain), &body)).await;
        id
    }

    /// Publishes at QoS 1 and waits for its acknowledgement.
    pub async fn put(&mut self, topic: &str, payload: &str, retain: bool) {
        let id = self.publish(topic, payload, 1, retain).await;
        let ack = self.packet().await;
        assert_eq!(ack, [&[0x40, 2][..], &id.to_be_bytes()].concat(), "{topic} is acknowledged");
    }

    /// Subscribes and gives the codes back.
    pub async fn subscribe(&mut self, filters: &[(&str, u8)]) -> Vec<u8> {
        let id = self.next_id();
        let mut body = id.to_be_bytes().to_vec();
        if self.version == 5 {
            body.push(0);
        }
        for (filter, options) in filters {
            body.extend(text(filter));
            body.push(*options);
        }
        self.send(&packet(0x82, &body)).await;
        let ack = self.packet().await;
        assert_eq!(ack[0], 0x90);
        let start = if self.version == 5 { 5 } else { 4 };
        ack[start..].to_vec()
    }

    /// The next publish, acknowledged.
    pub async fn got(&mut self) -> Got {
        let bytes = self.packet().await;
        assert_eq!(bytes[0] >> 4, 3, "a publish: {bytes:02x?}");
        let qos = bytes[0] >> 1 & 3;
        let mut at = 1 + bytes[1..].iter().position(|b| b & 0x80 == 0).unwrap() + 1;
        let size = usize::from(u16::from_be_bytes([bytes[at], bytes[at + 1]]));
        let topic = String::from_utf8(bytes[at + 2..at + 2 + size].to_vec()).unwrap();
        at += 2 + size;
        if qos > 0 {
            let ack = [0x40, 2, bytes[at], bytes[at + 1]];
            self.send(&ack).await;
            at += 2;
        }
        if self.version == 5 {
            at += 1 + usize::from(bytes[at]);
        }
        let payload = String::from_utf8(bytes[at..].to_vec()).unwrap();
        Got { topic, payload, qos, retain: bytes[0] & 1 != 0 }
    }

    pub async fn ping(&mut self) {
        self.send(&[0xc0, 0]).await;
        assert_eq!(self.packet().await, [0xd0, 0]);
    }

    pub async fn goodbye(mut self) {
        self.send(&[0xe0, 0]).await;
        self.is_closed().await;
    }

    /// Logs in and is welcome.
    pub async fn hello(&mut self, hello: &Hello<'_>) {
        self.version = hello.version;
        self.send(&hello.packet()).await;
        let welcome = self.packet().await;
        assert_eq!((welcome[0], welcome[3]), (0x20, 0), "{} is let in", hello.client_id);
    }
}

impl Raw {
    /// Breaks the connection by a reset, as a machine does that lost its power and came back.
    pub fn reset(self) {
        let socket = self.stream.into_std().unwrap();
        // Closing a socket with unread or unsent data and no linger sends RST.
        let socket = tokio::net::TcpStream::from_std(socket).unwrap();
        socket.set_zero_linger().unwrap();
        drop(socket);
    }
}

/// Numbers from a fixed seed (xorshift64*).
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self, below: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % below
    }

    pub fn one_of<'a, T: ?Sized>(&mut self, all: &[&'a T]) -> &'a T {
        all[self.next(all.len())]
    }
}

pub fn own(id: &str, topic: &str) -> String {
    format!("cardshop/1/appliance/{id}/{topic}")
}
