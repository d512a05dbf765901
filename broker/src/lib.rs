//! The MQTT broker: our own front over rumqttd's Router. The front accepts connections, checks tokens and rights,
//! and does QoS, retained messages, wills and keep-alive; the Router does the fan-out and nothing else, because
//! its listeners and much of its protocol side can be brought down from outside. `cardshop up`, `demo` and
//! `broker` start it; whoever links it keeps [`SharedKeys`] up to date.
//!
//! ```text
//! listen ─▶ serve (CONNECT, login, seat) ─▶ session ⇄ exchange ─▶ router
//!                                                         └─▶ retained ─▶ store
//! ```

pub mod acl;
mod admission;
mod alarms;
mod clients;
mod codec;
mod directory;
mod end;
mod exchange;
mod failures;
mod filter;
pub mod limits;
mod listen;
mod login;
mod message;
mod outbound;
mod pressure;
pub mod questions;
mod retained;
mod rights;
mod route;
mod router;
mod serve;
mod session;
mod stats;
mod store;
mod subscriptions;
mod tls;
mod websocket;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Instant, SystemTime};

use cardshop_protocol::time::Timestamp;
use cardshop_protocol::token::SharedKeys;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tracing::info;

pub use limits::Limits;
pub use stats::{Dropped, Refusal, Stats};
pub use store::StoreError;
pub use tls::{TlsConfig, TlsError};

use admission::Admission;
use alarms::{Alarm, Alarms};
use clients::Clients;
use directory::Directory;
use exchange::Exchange;
use failures::Failures;
use pressure::Pressure;
use retained::Retained;
use router::{Router, RouterDead, Rumqttd};
use serve::Hub;
use stats::Counters;
use store::Store;
use tls::Tls;

/// How a broker is set up.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where it listens without TLS, for MQTT and WebSocket: a loopback address, port 0 for any.
    pub listen: SocketAddr,
    /// Lets `listen` be another address than loopback: tokens go in the clear there.
    pub plain_anywhere: bool,
    /// A second port, under TLS, for MQTT and WebSocket.
    pub tls: Option<TlsConfig>,
    /// Its own directory; retained messages are in `retained/` below it.
    pub data: PathBuf,
    /// What clients may ask of it.
    pub limits: Limits,
}

/// Why a broker cannot start, or go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Plain MQTT carries tokens in the clear.
    #[error(
        "plain MQTT on {address} would send tokens in the clear; listen on 127.0.0.1 and give others a TLS port \
         (--mqtt-tls-listen)"
    )]
    PlainBeyondLoopback {
        /// What was asked for.
        address: SocketAddr,
    },
    /// The port is taken, or not ours.
    #[error("cannot listen on {address}; choose another with port 0")]
    Listen {
        /// What was asked for.
        address: SocketAddr,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// Certificate or key cannot be used.
    #[error("there is no TLS port")]
    Tls(#[from] TlsError),
    /// The retained messages cannot be used.
    #[error("the broker's data cannot be used")]
    Store(#[from] StoreError),
    /// A thread cannot be started.
    #[error("the broker's thread cannot be started; too many processes may be running")]
    Thread(#[source] std::io::Error),
    /// The Router died; nothing is delivered any more.
    #[error("{0}")]
    RouterDead(String),
}

impl From<RouterDead> for Error {
    fn from(dead: RouterDead) -> Self {
        Self::RouterDead(dead.to_string())
    }
}

/// A broker that runs. Dropping it stops it without waiting; [`Running::shutdown`] waits.
pub struct Running {
    address: SocketAddr,
    tls_address: Option<SocketAddr>,
    counters: Arc<Counters>,
    stop: watch::Sender<bool>,
    dead: watch::Receiver<Option<RouterDead>>,
    listeners: Vec<tokio::task::JoinHandle<()>>,
    exchange: Exchange,
    exchange_thread: JoinHandle<()>,
}

/// Starts a broker. The retained picture is loaded before the port opens.
///
/// # Errors
/// `PlainBeyondLoopback`, `Listen`, `Store`, `Thread`, and `RouterDead` when the Router does not start.
pub async fn start(config: Config, keys: SharedKeys) -> Result<Running, Error> {
    let router = Rumqttd::start(config.limits.connections)?;
    start_over(Box::new(router), config, keys).await
}

async fn start_over(router: Box<dyn Router>, config: Config, keys: SharedKeys) -> Result<Running, Error> {
    if !config.listen.ip().is_loopback() && !config.plain_anywhere {
        return Err(Error::PlainBeyondLoopback { address: config.listen });
    }
    let tls = match config.tls {
        None => None,
        Some(config) => {
            let listen = config.listen;
            let (tls, watched) = Tls::open(config)?;
            let (listener, address) = bind(listen).await?;
            Some((tls, watched, listener, address))
        }
    };
    let directory = config.data.join("retained");
    let opened = tokio::task::spawn_blocking(move || Store::open(&directory)).await;
    let (store, messages) = opened.expect("opening catches what panics in it")?;
    // Alerts of our own outlive us and are cleared in their time.
    let mut alarms = Alarms::default();
    for (alarm, appliance) in messages.iter().filter_map(|message| Alarm::of_topic(message.topic())) {
        alarms.happened(alarm, appliance, Instant::now());
    }
    let retained = Retained::new(messages, store, &config.limits);
    let counters = Arc::new(Counters::default());
    let pressure = Arc::new(Pressure::default());
    let (dead_tx, dead) = watch::channel(None);
    let (exchange, exchange_thread) =
        Exchange::start(router, retained, counters.clone(), pressure.clone(), dead_tx)
            .map_err(Error::Thread)?;
    let (listener, address) = bind(config.listen).await?;
    let (stop, stopping) = watch::channel(false);
    let admission = Admission::new(&config.limits, Instant::now());
    let hub = Arc::new(Hub {
        limits: config.limits,
        admission: Mutex::new(admission),
        sessions: AtomicU64::default(),
        keys,
        counters: counters.clone(),
        clients: Arc::new(Clients::default()),
        directory: Directory::default(),
        exchange: exchange.clone(),
        pressure,
        alarms: Mutex::new(alarms),
        failures: Mutex::new(Failures::new(Instant::now())),
        stopping: stopping.clone(),
    });
    let mut listeners = vec![
        tokio::spawn(hub.clone().clear_alarms()),
        tokio::spawn(listen::listen(listener, None, hub.clone())),
    ];
    let mut tls_address = None;
    if let Some((tls, watched, listener, address)) = tls {
        listeners.push(tokio::spawn(tls.clone().watch(watched, stopping)));
        listeners.push(tokio::spawn(listen::listen(listener, Some(tls), hub)));
        tls_address = Some(address);
    }
    info!(%address, ?tls_address, "the broker listens");
    Ok(Running { address, tls_address, counters, stop, dead, listeners, exchange, exchange_thread })
}

async fn bind(address: SocketAddr) -> Result<(TcpListener, SocketAddr), Error> {
    let failed = |source| Error::Listen { address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    Ok((listener, bound))
}

impl Running {
    /// Where it listens without TLS.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where it listens under TLS, if it does.
    pub fn tls_address(&self) -> Option<SocketAddr> {
        self.tls_address
    }

    /// The counters now.
    pub fn stats(&self) -> Stats {
        self.counters.snapshot()
    }

    /// Gives the counters as text for `/metrics`, for as long as anybody asks.
    pub fn metrics(&self) -> impl Fn() -> String + Clone + Send + Sync + use<> {
        let counters = self.counters.clone();
        move || counters.snapshot().render()
    }

    /// Waits until the Router dies, which it should never do. Whoever supervises the broker shuts this one down
    /// and starts another: sessions are gone anyway, the retained picture is in the store.
    pub async fn died(&self) -> Error {
        let mut dead = self.dead.clone();
        let reason = match dead.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone(),
            Err(_) => None,
        };
        reason.unwrap_or_else(|| RouterDead("it ended".into())).into()
    }

    /// Says goodbye to all clients, publishes their wills, writes the retained picture and ends.
    pub async fn shutdown(self) {
        self.stop.send_replace(true);
        // All ends are only waited for; a panic in one was logged by its thread.
        for listener in self.listeners {
            listener.await.ok();
        }
        self.exchange.stop().await;
        tokio::task::spawn_blocking(move || self.exchange_thread.join().ok()).await.ok();
    }
}

/// Reads what a client sends as sessions do, in both versions, and forgets it: for the fuzzer.
#[doc(hidden)]
pub fn read_packets(bytes: &[u8]) {
    let mut input = bytes::BytesMut::from(bytes);
    if let Ok(Some(first)) = codec::frame(&mut input, limits::DEFAULT_PACKET_SIZE) {
        drop(codec::connect(&first));
    }
    while let Ok(Some(frame)) = codec::frame(&mut input, limits::DEFAULT_PACKET_SIZE) {
        for version in [codec::Version::V4, codec::Version::V5] {
            if let Ok(codec::Incoming::Publish(publish)) = codec::decode(version, &frame) {
                assert!(publish.payload.len() <= frame.body.len());
            }
        }
    }
}

/// Milliseconds since 1970, now.
fn now_ms() -> u64 {
    Timestamp::from_system(SystemTime::now()).as_ms()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::route::Route;
    use crate::router::{Deliveries, LinkId};
    use bytes::Bytes;
    use cardshop_protocol::keys::{KeyList, KeyUse, PublicKey};
    use cardshop_protocol::token::{Claims, Role, TokenSigner};
    use ed25519_dalek::SigningKey;
    use rumqttc::{AsyncClient, MqttOptions, QoS};
    use std::time::Duration;

    const APPLIANCE: &str = "aaaaaaaaaaaaaaaa";

    /// Works until the first publish, as a router does whose thread panics.
    struct Mortal(Rumqttd);

    impl Router for Mortal {
        fn attach(&mut self) -> Result<(LinkId, Deliveries), RouterDead> {
            self.0.attach()
        }
        fn subscribe(&mut self, link: LinkId, routes: &[Route]) -> Result<(), RouterDead> {
            self.0.subscribe(link, routes)
        }
        fn publish(&mut self, batch: &mut Vec<(Bytes, message::Message)>) -> Result<(), RouterDead> {
            if batch.is_empty() { Ok(()) } else { Err(RouterDead("test".into())) }
        }
        fn detach(&mut self, link: LinkId) -> Result<(), RouterDead> {
            self.0.detach(link)
        }
    }

    fn keys_and_token() -> (SharedKeys, String) {
        let key = SigningKey::from_bytes(&[7; 32]);
        let keys = SharedKeys::default();
        let items = vec![PublicKey::new(&key.verifying_key(), KeyUse::Jwt)];
        keys.replace(KeyList { items, ..KeyList::default() });
        let claims = Claims {
            iss: "cardshop".into(),
            sub: APPLIANCE.into(),
            role: Role::Appliance,
            channel: Vec::new(),
            scope: None,
            epoch: 0,
            jti: "1".into(),
            iat: 0,
            exp: u64::MAX,
            signed_by: None,
        };
        (keys, TokenSigner::new(&key).sign(&claims))
    }

    #[tokio::test]
    async fn a_dead_router_is_reported_and_the_retained_picture_outlives_it() {
        let data = tempfile::tempdir().unwrap();
        let (keys, token) = keys_and_token();
        let config = || Config {
            listen: "127.0.0.1:0".parse().unwrap(),
            plain_anywhere: false,
            tls: None,
            data: data.path().into(),
            limits: Limits::default(),
        };
        let router = Box::new(Mortal(Rumqttd::start(10).unwrap()));
        let running = start_over(router, config(), keys.clone()).await.unwrap();
        let mut options = MqttOptions::new(APPLIANCE, "127.0.0.1", running.address().port());
        options.set_credentials(APPLIANCE, token);
        let (client, mut events) = AsyncClient::new(options, 10);
        let status = format!("cardshop/1/appliance/{APPLIANCE}/status");
        client.publish(status, QoS::AtLeastOnce, true, "online").await.unwrap();
        let driver = tokio::spawn(async move { while events.poll().await.is_ok() {} });
        let died = tokio::time::timeout(Duration::from_secs(20), running.died()).await.unwrap();
        assert!(
            matches!(&died, Error::RouterDead(text) if text.contains("start the broker again")),
            "{died}"
        );
        driver.abort();
        running.shutdown().await;

        let running = start(config(), keys).await.unwrap();
        assert_eq!(running.stats().retained, 1);
        running.shutdown().await;
    }
}
