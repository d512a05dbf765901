//! One connection from its first byte to its last: CONNECT within its time, login, the seat of its client id, a
//! link to the router, the session, and whatever way that ends, its will and its link's detach.
//!
//! ```text
//! accepted ─CONNECT, login─▶ known ─seat is free─▶ seated ─link─▶ session ─▶ will? ─▶ detach ─▶ seat free
//!     └─ 5 s / not MQTT: closed   └─ refused: CONNACK, closed       (a panic in it is an abnormal end)
//! ```

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::BytesMut;
use cardshop_protocol::time::Timestamp;
use cardshop_protocol::token::{Claims, SharedKeys};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::watch;
use tracing::{debug, info, warn};

use crate::clients::{Clients, Place};
use crate::codec::{self, ConnAck, Connect, ConnectError, Version, Will, WireError};
use crate::directory::Directory;
use crate::end::End;
use crate::exchange::Exchange;
use crate::limits::Limits;
use crate::login::{LoginRefusal, login};
use crate::message::{Draft, Parts};
use crate::now_ms;
use crate::rights::Principal;
use crate::session::Session;
use crate::stats::{Counters, Refusal, count};

/// A client that has not said CONNECT by then is closed.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);
/// Largest CONNECT, bytes: a 4 KiB token and an 8 KiB will. Nobody is known yet, so it is held small.
const MAX_CONNECT_SIZE: usize = 16 * 1024;
/// How long a refused client has to take its CONNACK.
const REFUSAL_WITHIN: Duration = Duration::from_secs(1);
/// Bytes read at once.
pub(crate) const READ_SIZE: usize = 4 * 1024;

/// What all connections share.
pub(crate) struct Hub {
    pub(crate) limits: Limits,
    pub(crate) keys: SharedKeys,
    pub(crate) counters: Arc<Counters>,
    pub(crate) clients: Arc<Clients>,
    pub(crate) directory: Directory,
    pub(crate) exchange: Exchange,
    /// True when the broker stops.
    pub(crate) stopping: watch::Receiver<bool>,
}

/// Waits until the broker stops, or is dropped without a word.
pub(crate) async fn stopped(stopping: &mut watch::Receiver<bool>) {
    stopping.wait_for(|stopping| *stopping).await.ok();
}

/// A byte stream to a client: TCP, or what is built on it.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send + 'static> Stream for T {}

/// Serves one connection to its end. `number` is its own among all of this broker's.
pub(crate) async fn serve(mut stream: impl Stream, peer: SocketAddr, number: u64, hub: Arc<Hub>) {
    let mut input = BytesMut::new();
    let first = tokio::time::timeout(CONNECT_WITHIN, read_connect(&mut stream, &mut input)).await;
    let connect = match first {
        Ok(Ok(Some(connect))) => connect,
        Ok(Err(ConnectError::Level(level))) => {
            debug!(%peer, level, "refused another version of MQTT");
            refuse(stream, Version::V4, LoginRefusal::Level, &hub).await;
            return;
        }
        Ok(Ok(None)) | Err(_) => return hub.counters.refuse(Refusal::NoConnect),
        Ok(Err(ConnectError::Wire(error))) => {
            debug!(%peer, %error, "closed before login");
            return hub.counters.refuse(Refusal::NoConnect);
        }
    };
    let version = connect.version;
    let now = Timestamp::from_system(SystemTime::now());
    let (principal, claims) = match login(&connect, &hub.keys.current(), now) {
        Ok(known) => known,
        Err(refusal) => {
            let user: String = connect.user_name.iter().flat_map(|name| name.chars()).take(64).collect();
            warn!(%peer, ?user, reason = %refusal, "login refused");
            return refuse(stream, version, refusal, &hub).await;
        }
    };
    let taken = hub.clients.take(&principal.name).await;
    let Ok((place, took_over)) = taken else {
        warn!(%peer, client = principal.name, "the session before does not leave");
        return refuse(stream, version, LoginRefusal::Busy, &hub).await;
    };
    if let Some(appliance) = principal.appliance {
        hub.directory.learn(appliance, &principal.channels);
    }
    info!(%peer, client = principal.name, role = ?principal.role, ?version, took_over, "logged in");
    count(&hub.counters.logged_in);
    run(stream, input, Known { connect, principal, claims }, place, number, hub).await;
}

/// A client that may come in.
pub(crate) struct Known {
    pub(crate) connect: Connect,
    pub(crate) principal: Principal,
    pub(crate) claims: Claims,
}

async fn read_connect(
    stream: &mut impl Stream,
    input: &mut BytesMut,
) -> Result<Option<Connect>, ConnectError> {
    loop {
        if let Some(frame) = codec::frame(input, MAX_CONNECT_SIZE)? {
            return codec::connect(&frame).map(Some);
        }
        // Another protocol is closed at its first byte, not after five seconds.
        if input.first().is_some_and(|head| *head != 0x10) {
            return Err(WireError::Protocol("the first packet is not CONNECT").into());
        }
        input.reserve(READ_SIZE);
        if !matches!(stream.read_buf(input).await, Ok(1..)) {
            return Ok(None);
        }
    }
}

async fn refuse(mut stream: impl Stream, version: Version, refusal: LoginRefusal, hub: &Hub) {
    hub.counters.refuse(refusal.counted());
    let mut out = BytesMut::new();
    let ack = ConnAck { code: refusal.code(version), reason: Some(refusal.text()), ..ConnAck::default() };
    codec::connack(version, &ack, &mut out);
    let goodbye = async {
        stream.write_all(&out).await?;
        stream.shutdown().await
    };
    // A client that does not take its refusal is closed without.
    tokio::time::timeout(REFUSAL_WITHIN, goodbye).await.ok();
}

async fn run(
    stream: impl Stream,
    input: BytesMut,
    known: Known,
    mut place: Place,
    number: u64,
    hub: Arc<Hub>,
) {
    let version = known.connect.version;
    let name = known.principal.name.clone();
    let will = known.connect.will.clone();
    let Ok((link, deliveries)) = hub.exchange.attach().await else {
        return refuse(stream, version, LoginRefusal::Busy, &hub).await;
    };
    let session = Session::new(number, known, link, hub.clone());
    // In a task of its own, so that even its panic ends here, with the will and the detach.
    let (ready_tx, ready) = tokio::sync::oneshot::channel();
    let task = tokio::spawn(async move { session.run(stream, input, deliveries, ready).await });
    let mut task = std::pin::pin!(task);
    let ended = tokio::select! {
        ended = &mut task => ended,
        _ = &mut place.taken_over => {
            // A session that has just ended by itself does not listen any more.
            ready_tx.send(()).ok();
            task.await
        }
    };
    let end = ended.unwrap_or(End::Panicked);
    info!(client = name, reason = %end, "session ended");
    if let Some(refusal) = end.counted() {
        hub.counters.refuse(refusal);
    }
    if end == End::RouterDead {
        hub.exchange.report_dead();
    }
    if let Some(will) = will.filter(|_| end.publishes_will()) {
        // A dead router has no receivers for it.
        hub.exchange.publish(draft_of(&will, number)).await.ok();
    }
    hub.exchange.detach(link).await.ok();
}

fn draft_of(will: &Will, sender: u64) -> Draft {
    let expires_ms = will.expiry_s.map_or(0, |s| now_ms() + u64::from(s) * 1000);
    Draft::new(&Parts {
        sender,
        qos: will.qos,
        retain: will.retain,
        topic: &will.topic,
        properties: &will.properties,
        payload: &will.payload,
        expires_ms,
    })
}
