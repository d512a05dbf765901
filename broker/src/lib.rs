//! The MQTT broker: our own front over rumqttd's Router. The front accepts connections, checks tokens and rights,
//! and does QoS, retained messages, wills and keep-alive; the Router does the fan-out and nothing else, because
//! its listeners and much of its protocol side can be brought down from outside. `cardshop up`, `demo` and
//! `broker` start it; whoever links it keeps [`SharedKeys`] up to date.
//!
//! ```text
//! listen ─▶ serve (CONNECT, login, seat) ─▶ session ⇄ exchange ─▶ router
//!                                                         └─▶ retained ─▶ store
//! ```

mod clients;
mod codec;
mod directory;
mod end;
mod exchange;
mod filter;
pub mod limits;
mod listen;
mod login;
mod message;
mod outbound;
mod retained;
mod rights;
mod route;
mod router;
mod serve;
mod session;
mod stats;
mod store;
mod subscriptions;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::SystemTime;

use cardshop_protocol::time::Timestamp;
use cardshop_protocol::token::SharedKeys;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tracing::info;

pub use limits::Limits;
pub use stats::{Refusal, Stats};
pub use store::StoreError;

use clients::Clients;
use directory::Directory;
use exchange::Exchange;
use retained::Retained;
use router::{Router, RouterDead, Rumqttd};
use serve::Hub;
use stats::Counters;
use store::Store;

/// How a broker is set up.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where it listens, plain: a loopback address, port 0 for any.
    pub listen: SocketAddr,
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
        "plain MQTT on {address} would send tokens in the clear; listen on 127.0.0.1 and let others in through a \
         TLS proxy or an SSH tunnel"
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
    counters: Arc<Counters>,
    stop: watch::Sender<bool>,
    dead: watch::Receiver<Option<RouterDead>>,
    listener: tokio::task::JoinHandle<()>,
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
    if !config.listen.ip().is_loopback() {
        return Err(Error::PlainBeyondLoopback { address: config.listen });
    }
    let directory = config.data.join("retained");
    let opened = tokio::task::spawn_blocking(move || Store::open(&directory)).await;
    let (store, messages) = opened.expect("opening catches what panics in it")?;
    let retained = Retained::new(messages, store, &config.limits);
    let counters = Arc::new(Counters::default());
    let (dead_tx, dead) = watch::channel(None);
    let (exchange, exchange_thread) =
        Exchange::start(router, retained, counters.clone(), dead_tx).map_err(Error::Thread)?;
    let failed = |source| Error::Listen { address: config.listen, source };
    let listener = TcpListener::bind(config.listen).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    let (stop, stopping) = watch::channel(false);
    let hub = Hub {
        limits: config.limits,
        keys,
        counters: counters.clone(),
        clients: Arc::new(Clients::default()),
        directory: Directory::default(),
        exchange: exchange.clone(),
        stopping,
    };
    let listener = tokio::spawn(listen::listen(listener, Arc::new(hub)));
    info!(%address, "the broker listens");
    Ok(Running { address, counters, stop, dead, listener, exchange, exchange_thread })
}

impl Running {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The counters now.
    pub fn stats(&self) -> Stats {
        self.counters.snapshot()
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
        // Both ends are only waited for; a panic in one was logged by its thread.
        self.listener.await.ok();
        self.exchange.stop().await;
        tokio::task::spawn_blocking(move || self.exchange_thread.join().ok()).await.ok();
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
        };
        (keys, TokenSigner::new(&key).sign(&claims))
    }

    #[tokio::test]
    async fn a_dead_router_is_reported_and_the_retained_picture_outlives_it() {
        let data = tempfile::tempdir().unwrap();
        let (keys, token) = keys_and_token();
        let config = || Config {
            listen: "127.0.0.1:0".parse().unwrap(),
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
