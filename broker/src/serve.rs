//! One connection from its first byte to its last: TLS on a port that has it, WebSocket when it begins like HTTP,
//! CONNECT within its time, login, the seat of its client id, a link to the router, the session, and whatever way that
//! ends, its will and its link's detach.
//!
//! ```text
//! accepted ─TLS?─▶ ─WebSocket?─▶ ─CONNECT, login─▶ known ─seat is free─▶ seated ─link─▶ session ─▶ will? ─▶ detach
//!     └─ 5 s / not MQTT: closed        └─ refused: CONNACK, closed                (a panic in it is an abnormal end)
//! ```

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use bytes::BytesMut;
use cardshop_protocol::ids::ApplianceId;
use cardshop_protocol::time::Timestamp;
use cardshop_protocol::token::{Claims, SharedKeys};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tracing::{debug, info, warn};

use crate::admission::{Admission, Source};
use crate::alarms::{Alarm, Alarms};
use crate::clients::{Clients, Place};
use crate::codec::{self, ConnAck, Connect, ConnectError, Version, Will, WireError};
use crate::directory::Directory;
use crate::end::End;
use crate::exchange::Exchange;
use crate::failures::Failures;
use crate::limits::Limits;
use crate::login::{LoginRefusal, login};
use crate::message::{Draft, Parts};
use crate::now_ms;
use crate::pressure::Pressure;
use crate::rights::Principal;
use crate::session::Session;
use crate::stats::{Counters, Refusal, count};
use crate::tls::Tls;
use crate::websocket;

/// A TLS handshake takes two round trips; a client that has not finished by then is closed.
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(5);
/// A client that has not said CONNECT by then is closed.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);
/// Largest CONNECT, bytes: a 4 KiB token and an 8 KiB will. Nobody is known yet, so it is held small.
const MAX_CONNECT_SIZE: usize = 16 * 1024;
/// How long a refused client has to take its CONNACK.
const REFUSAL_WITHIN: Duration = Duration::from_secs(1);
/// How often is looked for alerts to clear.
const CLEAR_EVERY: Duration = Duration::from_secs(5);
/// Bytes read at once.
pub(crate) const READ_SIZE: usize = 4 * 1024;

/// What all connections share.
pub(crate) struct Hub {
    pub(crate) limits: Limits,
    pub(crate) admission: Mutex<Admission>,
    /// Sessions so far: each has a number of its own.
    pub(crate) sessions: AtomicU64,
    pub(crate) keys: SharedKeys,
    pub(crate) counters: Arc<Counters>,
    pub(crate) clients: Arc<Clients>,
    pub(crate) directory: Directory,
    pub(crate) exchange: Exchange,
    pub(crate) pressure: Arc<Pressure>,
    pub(crate) alarms: Mutex<Alarms>,
    pub(crate) failures: Mutex<Failures>,
    /// True when the broker stops.
    pub(crate) stopping: watch::Receiver<bool>,
}

impl Hub {
    /// Raises an alert for an appliance, unless it stands already.
    pub(crate) async fn alarm(&self, alarm: Alarm, appliance: ApplianceId, text: impl FnOnce() -> String) {
        let new = self.alarms.lock().expect("no holder panics").happened(alarm, appliance, Instant::now());
        if new {
            let now = Timestamp::from_system(SystemTime::now());
            // A dead router has no receivers for it.
            self.exchange.publish(alarm.raise(appliance, text(), now)).await.ok();
        }
    }

    /// Clears alerts whose cause has not come again, until the broker stops.
    pub(crate) async fn clear_alarms(self: Arc<Self>) {
        let mut stopping = self.stopping.clone();
        loop {
            tokio::select! {
                () = stopped(&mut stopping) => return,
                () = tokio::time::sleep(CLEAR_EVERY) => {}
            }
            let quiet = self.alarms.lock().expect("no holder panics").quiet(Instant::now());
            for (alarm, appliance) in quiet {
                self.exchange.publish(alarm.clear(appliance)).await.ok();
            }
        }
    }
}

/// Waits until the broker stops, or is dropped without a word.
pub(crate) async fn stopped(stopping: &mut watch::Receiver<bool>) {
    stopping.wait_for(|stopping| *stopping).await.ok();
}

/// A byte stream to a client: TCP, or what is built on it.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send + 'static> Stream for T {}

/// Serves one connection to its end, under TLS if the port has it.
pub(crate) async fn greet(stream: TcpStream, tls: Option<Arc<Tls>>, peer: SocketAddr, hub: Arc<Hub>) {
    let Some(tls) = tls else { return serve(stream, peer, hub).await };
    match tokio::time::timeout(HANDSHAKE_WITHIN, tls.acceptor().accept(stream)).await {
        Ok(Ok(stream)) => serve(stream, peer, hub).await,
        Ok(Err(error)) => {
            debug!(%peer, %error, "no TLS");
            hub.counters.refuse(Refusal::NoTls);
        }
        Err(_) => hub.counters.refuse(Refusal::NoTls),
    }
}

/// What a connection turns out to be.
enum First {
    Mqtt(Box<Connect>),
    /// An HTTP request begins: WebSocket, if anything.
    Http,
    Gone,
}

/// Serves what may be MQTT or WebSocket.
async fn serve(mut stream: impl Stream, peer: SocketAddr, hub: Arc<Hub>) {
    let mut input = BytesMut::new();
    let first = tokio::time::timeout(CONNECT_WITHIN, read_first(&mut stream, &mut input, true)).await;
    if !matches!(first, Ok(Ok(First::Http))) {
        return login_and_run(stream, input, first.unwrap_or(Ok(First::Gone)), peer, hub).await;
    }
    let upgrade = async {
        let mut stream = websocket::accept(stream, input, hub.limits.packet_size).await?;
        let mut input = BytesMut::new();
        let first = read_first(&mut stream, &mut input, false).await;
        Ok::<_, tokio_tungstenite::tungstenite::Error>((stream, input, first))
    };
    // Boxed: it would else make the memory of every plain connection larger.
    match tokio::time::timeout(CONNECT_WITHIN, Box::pin(upgrade)).await {
        Ok(Ok((stream, input, first))) => Box::pin(login_and_run(stream, input, first, peer, hub)).await,
        Ok(Err(error)) => {
            debug!(%peer, %error, "no WebSocket");
            hub.counters.refuse(Refusal::NoConnect);
        }
        Err(_) => hub.counters.refuse(Refusal::NoConnect),
    }
}

async fn login_and_run(
    stream: impl Stream,
    input: BytesMut,
    first: Result<First, ConnectError>,
    peer: SocketAddr,
    hub: Arc<Hub>,
) {
    let connect = match first {
        Ok(First::Mqtt(connect)) => *connect,
        Err(ConnectError::Level(level)) => {
            debug!(%peer, level, "refused another version of MQTT");
            refuse(stream, Version::V4, LoginRefusal::Level, &hub).await;
            return;
        }
        Ok(First::Gone | First::Http) => return hub.counters.refuse(Refusal::NoConnect),
        Err(ConnectError::Wire(error)) => {
            debug!(%peer, %error, "closed before login");
            return hub.counters.refuse(Refusal::NoConnect);
        }
    };
    let version = connect.version;
    let number = hub.sessions.fetch_add(1, Ordering::Relaxed) + 1;
    let now = Timestamp::from_system(SystemTime::now());
    let (principal, claims) = match login(&connect, &hub.keys.current(), now) {
        Ok(known) => known,
        Err(refusal) => {
            let user: String = connect.user_name.iter().flat_map(|name| name.chars()).take(64).collect();
            let source = Source::of(peer.ip());
            let number = hub.failures.lock().expect("no holder panics").failed(&user, source, Instant::now());
            if let Some(number) = number {
                warn!(%peer, ?user, reason = %refusal, number, "login refused");
            }
            return refuse(stream, version, refusal, &hub).await;
        }
    };
    let seat = if connect.client_id.is_empty() { &principal.name } else { &connect.client_id };
    let taken = hub.clients.take(seat, peer).await;
    let Ok((place, took_over)) = taken else {
        warn!(%peer, client = principal.name, "the session before does not leave");
        return refuse(stream, version, LoginRefusal::Busy, &hub).await;
    };
    if let Some(appliance) = principal.appliance {
        hub.directory.learn(appliance, &principal.channels);
    }
    info!(%peer, client = principal.name, role = ?principal.role, ?version, took_over, "logged in");
    count(&hub.counters.logged_in);
    run(stream, input, Known { connect, principal, claims }, place, (number, peer), hub).await;
}

/// A client that may come in.
pub(crate) struct Known {
    pub(crate) connect: Connect,
    pub(crate) principal: Principal,
    pub(crate) claims: Claims,
}

async fn read_first(
    stream: &mut impl Stream,
    input: &mut BytesMut,
    maybe_http: bool,
) -> Result<First, ConnectError> {
    loop {
        match input.first() {
            None => {}
            Some(0x10) => {
                if let Some(frame) = codec::frame(input, MAX_CONNECT_SIZE)? {
                    return codec::connect(&frame).map(|connect| First::Mqtt(Box::new(connect)));
                }
            }
            Some(b'G') if maybe_http => return Ok(First::Http),
            // Another protocol is closed at its first byte, not after five seconds.
            Some(_) => return Err(WireError::Protocol("the first packet is not CONNECT").into()),
        }
        input.reserve(READ_SIZE);
        if !matches!(stream.read_buf(input).await, Ok(1..)) {
            return Ok(First::Gone);
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
    (number, peer): (u64, SocketAddr),
    hub: Arc<Hub>,
) {
    let appliance = known.principal.appliance;
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
    let (ended, newcomer) = tokio::select! {
        ended = &mut task => (ended, None),
        newcomer = &mut place.taken_over => {
            // A session that has just ended by itself does not listen any more.
            ready_tx.send(()).ok();
            (task.await, newcomer.ok())
        }
    };
    let end = ended.unwrap_or(End::Panicked);
    info!(client = name, reason = %end, "session ended");
    if let Some(refusal) = end.counted() {
        hub.counters.refuse(refusal);
    }
    if let (End::TakenOver { alive: true }, Some(appliance), Some(newcomer)) = (&end, appliance, newcomer) {
        warn!(client = name, %peer, %newcomer, "two machines say that they are this appliance");
        let text = || {
            let (old, new) = (peer.ip(), newcomer.ip());
            format!(
                "two machines say that they are this appliance, at {old} and {new}: was its stick copied?"
            )
        };
        hub.alarm(Alarm::TakenOver, appliance, text).await;
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
