//! The line to the broker: MQTT 3.1.1 through rumqttc, on a thread of its own. Connects with the newest access
//! token, says it is online, subscribes, hands in what arrives and sends what it is given. What is sent while
//! the line is down is dropped: on `Connected` the shop publishes everything retained again, and facts are
//! resent until acknowledged.
//!
//! ```text
//!   wait for a token ─► CONNECT (will: offline) ─► birth, info, subscribe ─► Connected ─► …
//!        ▲                 │ refused: another token          ┌── newer token: DISCONNECT without "stopped"
//!        └── pause 1…30 s ─┴── line broken: Disconnected ◄───┴── end: "stopped", DISCONNECT
//! ```

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use cardshop_protocol::ids::ApplianceId;
use cardshop_protocol::message::{
    Ack, Command, Desired, Info, Presence, StatusMessage, TimeMessage, VERSION,
};
use cardshop_protocol::topic::{ApplianceTopic, MAX_LARGE_PAYLOAD_SIZE, PREFIX, Topic};
use rumqttc::{
    AsyncClient, ConnectReturnCode, ConnectionError, EventLoop, LastWill, MqttOptions, Outgoing, Packet, QoS,
    SubscribeFilter, SubscribeReasonCode, Transport,
};
use serde::Serialize;

use super::address::{AddressError, check_mqtt};
use super::clock::Clock;
use super::http::{Http, jitter};
use super::session::{Broker, Session, Token};
use crate::config::read_bounded;
use crate::core::Event;
use crate::core::backoff::Backoff;

/// Largest packet either way: `desired` and `reported` may have 64 KiB, plus topic and header.
const MAX_PACKET_SIZE: usize = MAX_LARGE_PAYLOAD_SIZE + 16 * 1024;
/// Messages that may wait to be sent: 64 slots' states and a window of facts, several times over.
const QUEUE: usize = 512;
const KEEP_ALIVE: Duration = Duration::from_secs(30);
const CONNECT_LIMIT_S: u64 = 10;
/// How often a quiet line looks whether there is a newer token.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// A connection that held this long was a good one: what follows is not a loop.
const STEADY_AFTER: Duration = Duration::from_secs(30);
/// How long a clean end may take.
const END_LIMIT: Duration = Duration::from_secs(3);
/// Connections of one start of the agent; `session` is boot × this + connection, exact in JSON numbers.
const CONNECTIONS_PER_BOOT: u64 = 1 << 20;

#[derive(Default)]
struct Shared {
    client: Mutex<Option<AsyncClient>>,
    /// The queue was full: the line is to be broken and everything published again.
    overflowed: AtomicBool,
    /// What this appliance is, as it was told last.
    info: Mutex<Option<Info>>,
    ending: AtomicBool,
}

/// Sends messages; clones are the same line.
#[derive(Clone)]
pub(crate) struct Link {
    appliance: ApplianceId,
    shared: Arc<Shared>,
}

/// What the line's thread needs.
pub(crate) struct LinkConfig {
    pub(crate) appliance: ApplianceId,
    pub(crate) boot: u64,
    pub(crate) info: Info,
    pub(crate) session: Session,
    pub(crate) clock: Clock,
    /// PEM: whose certificate the broker is to show. When it is `None`, what the site has said; without that the
    /// site's own CA, and without one the system's.
    pub(crate) ca: Option<PathBuf>,
    /// Knows the site's own CA.
    pub(crate) http: Http,
    pub(crate) events: SyncSender<Event>,
}

/// Starts the line's thread.
///
/// # Errors
/// What the system says when it has no thread or runtime to give.
pub(crate) fn start(config: LinkConfig) -> std::io::Result<(Link, JoinHandle<()>)> {
    let link = Link { appliance: config.appliance, shared: Arc::default() };
    *link.shared.info.lock().expect("no holder panics") = Some(config.info.clone());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut line = Line { link: link.clone(), config, connections: 0 };
    let thread =
        std::thread::Builder::new().name("mqtt".into()).spawn(move || runtime.block_on(line.run()))?;
    Ok((link, thread))
}

impl Link {
    /// Publishes a message of ours if the line is up. QoS 0 messages may be lost.
    pub(crate) fn publish(&self, topic: ApplianceTopic, message: &impl Serialize) {
        self.send(topic, serde_json::to_vec(message).expect("plain data has a JSON form"));
    }

    fn send(&self, topic: ApplianceTopic, payload: Vec<u8>) {
        let qos = match topic {
            ApplianceTopic::SlotProgress(_) | ApplianceTopic::Health => QoS::AtMostOnce,
            _ => QoS::AtLeastOnce,
        };
        let topic = Topic::Appliance(self.appliance, topic);
        if payload.len() > topic.max_payload_size() {
            tracing::error!(%topic, size = payload.len(), "a message is too large and not sent");
            return;
        }
        let client = self.shared.client.lock().expect("no holder panics").clone();
        let Some(client) = client else { return };
        if client.try_publish(topic.to_string(), qos, topic.retained(), payload).is_err()
            && qos != QoS::AtMostOnce
        {
            self.shared.overflowed.store(true, Ordering::Release);
        }
    }

    /// Clears what is kept under a topic of ours.
    pub(crate) fn clear(&self, topic: ApplianceTopic) {
        self.send(topic, Vec::new());
    }

    /// Tells the broker what this appliance is, now and at every connect.
    pub(crate) fn set_info(&self, info: Info) {
        self.publish(ApplianceTopic::Info, &info);
        *self.shared.info.lock().expect("no holder panics") = Some(info);
    }

    /// Says that the appliance has stopped on purpose, or restarts into another partition set, and ends the line.
    pub(crate) fn end(&self, boot: u64, presence: Presence) {
        self.shared.ending.store(true, Ordering::Release);
        // Any session number of this boot above all births: the last one that can be.
        let session = (boot + 1) * CONNECTIONS_PER_BOOT - 1;
        let stopped = StatusMessage { v: VERSION, status: presence, session };
        self.publish(ApplianceTopic::Status, &stopped);
        if let Some(client) = self.shared.client.lock().expect("no holder panics").take() {
            // Refused only when the queue is full: then the will speaks.
            let _ = client.try_disconnect();
        }
    }

    fn is_ending(&self) -> bool {
        self.shared.ending.load(Ordering::Acquire)
    }
}

/// Why a connection is not even tried.
#[derive(Debug, thiserror::Error)]
enum ConnectError {
    #[error(transparent)]
    Address(#[from] AddressError),
    #[error("cannot read {}: {source}", path.display())]
    Ca { path: PathBuf, source: std::io::Error },
}

fn read_ca(path: &Path) -> Result<Vec<u8>, ConnectError> {
    let wrong = |source| ConnectError::Ca { path: path.to_owned(), source };
    read_bounded(path).map(String::into_bytes).map_err(wrong)
}

struct Line {
    link: Link,
    config: LinkConfig,
    connections: u64,
}

impl Line {
    async fn run(&mut self) {
        let mut pause = Backoff::new(Duration::from_secs(1), Duration::from_secs(30));
        while !self.link.is_ending() {
            let Some((token, broker)) = self.config.session.broker() else {
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            };
            let connected = Instant::now();
            match self.connect(&token, &broker) {
                Ok((client, eventloop)) => self.drive(client, eventloop, &token).await,
                Err(error) => tracing::error!(%error, "the broker cannot be reached"),
            }
            *self.link.shared.client.lock().expect("no holder panics") = None;
            if self.config.events.send(Event::Disconnected).is_err() {
                return;
            }
            if connected.elapsed() > STEADY_AFTER {
                pause.reset();
                if self.has_newer(&token) {
                    continue;
                }
            }
            self.sleep(pause.failed(jitter())).await;
        }
    }

    /// Sleeps, but not through the end.
    async fn sleep(&self, pause: Duration) {
        let until = Instant::now() + pause;
        while Instant::now() < until && !self.link.is_ending() {
            tokio::time::sleep(Duration::from_millis(100).min(pause)).await;
        }
    }

    fn connect(&mut self, token: &Token, broker: &Broker) -> Result<(AsyncClient, EventLoop), ConnectError> {
        let address = check_mqtt(&broker.url)?;
        self.connections += 1;
        let id = self.config.appliance.to_string();
        let port = address.port.unwrap_or(if address.tls { 8883 } else { 1883 });
        let mut options = MqttOptions::new(&id, address.host, port);
        options.set_credentials(&id, &token.text);
        options.set_keep_alive(KEEP_ALIVE);
        options.set_clean_session(true);
        options.set_max_packet_size(MAX_PACKET_SIZE, MAX_PACKET_SIZE);
        if address.tls {
            // Read anew for each connection: it may have been replaced.
            let ca = self.config.ca.as_deref().map(read_ca).transpose()?;
            let told = || broker.ca.clone().or_else(|| self.config.http.ca());
            let ca = ca.or_else(|| told().map(String::into_bytes));
            options.set_transport(match ca {
                Some(pem) => Transport::tls(pem, None, None),
                None => Transport::tls_with_default_config(),
            });
        }
        let topic = Topic::Appliance(self.config.appliance, ApplianceTopic::Status).to_string();
        let will = serde_json::to_vec(&self.status(Presence::Offline)).expect("plain data has a JSON form");
        options.set_last_will(LastWill::new(topic, will, QoS::AtLeastOnce, true));
        let (client, mut eventloop) = AsyncClient::new(options, QUEUE);
        eventloop.network_options.set_connection_timeout(CONNECT_LIMIT_S);
        Ok((client, eventloop))
    }

    fn status(&self, status: Presence) -> StatusMessage {
        let session =
            self.config.boot * CONNECTIONS_PER_BOOT + self.connections.min(CONNECTIONS_PER_BOOT - 2);
        StatusMessage { v: VERSION, status, session }
    }

    /// Polls one connection until it ends.
    async fn drive(&self, client: AsyncClient, mut eventloop: EventLoop, token: &Token) {
        let mut leaving: Option<Instant> = None;
        self.link.shared.overflowed.store(false, Ordering::Release);
        loop {
            // The poll is never dropped half done: it may have read or written half a packet.
            let polled = {
                let mut poll = std::pin::pin!(eventloop.poll());
                loop {
                    tokio::select! {
                        polled = &mut poll => break polled,
                        () = tokio::time::sleep(LOOK_EVERY) => {
                            if !self.may_go_on(&client, token, &mut leaving) {
                                return;
                            }
                        }
                    }
                }
            };
            let going_on = match polled {
                Ok(rumqttc::Event::Incoming(packet)) => self.incoming(&client, packet),
                Ok(rumqttc::Event::Outgoing(Outgoing::Disconnect)) => {
                    // The broker closes. Closing first, with an answer of its unread, would reset the connection
                    // and could take our last words back (RFC 1122 §4.2.2.13).
                    leaving = leaving.or(Some(Instant::now()));
                    true
                }
                Ok(rumqttc::Event::Outgoing(_)) => true,
                Err(error) => {
                    if leaving.is_none() && !self.link.is_ending() {
                        self.broken(&error, token);
                    }
                    false
                }
            };
            if !going_on || !self.may_go_on(&client, token, &mut leaving) {
                return;
            }
        }
    }

    /// Leaves cleanly for a newer token; false when the connection is to be dropped at once.
    fn may_go_on(&self, client: &AsyncClient, token: &Token, leaving: &mut Option<Instant>) -> bool {
        if self.link.shared.overflowed.load(Ordering::Acquire) {
            tracing::warn!("more to send than the broker takes: connecting again");
            return false;
        }
        if let Some(since) = *leaving {
            return since.elapsed() < END_LIMIT;
        }
        if self.has_newer(token) {
            tracing::info!("renewing the connection with a new access token");
            *leaving = Some(Instant::now());
            return client.try_disconnect().is_ok();
        }
        true
    }

    fn has_newer(&self, token: &Token) -> bool {
        self.config.session.token().is_some_and(|t| t.generation > token.generation)
    }

    /// Takes in a packet; false when the connection is of no use any more.
    fn incoming(&self, client: &AsyncClient, packet: Packet) -> bool {
        match packet {
            Packet::ConnAck(_) => self.connected(client),
            Packet::SubAck(ack) if ack.return_codes.contains(&SubscribeReasonCode::Failure) => {
                tracing::error!("the broker refuses our own topics");
                return false;
            }
            Packet::SubAck(_) => {
                tracing::info!("connected to the broker");
                return self.config.events.send(Event::Connected).is_ok();
            }
            Packet::Publish(publish) => return self.arrived(&publish.topic, &publish.payload),
            _ => {}
        }
        true
    }

    fn broken(&self, error: &ConnectionError, token: &Token) {
        let refused = matches!(
            error,
            ConnectionError::ConnectionRefused(
                ConnectReturnCode::BadUserNamePassword | ConnectReturnCode::NotAuthorized
            )
        );
        if refused {
            tracing::warn!("the broker refuses the access token: getting another");
            self.config.session.refused(token.generation);
        } else {
            tracing::warn!(%error, "the line to the broker is broken");
        }
    }

    fn connected(&self, client: &AsyncClient) {
        *self.link.shared.client.lock().expect("no holder panics") = Some(client.clone());
        self.link.publish(ApplianceTopic::Status, &self.status(Presence::Online));
        let info = self.link.shared.info.lock().expect("no holder panics").clone();
        if let Some(info) = info {
            self.link.publish(ApplianceTopic::Info, &info);
        }
        let own = [ApplianceTopic::Desired, ApplianceTopic::EventAck, ApplianceTopic::Cmd];
        let own = own.map(|t| Topic::Appliance(self.config.appliance, t).to_string());
        let filters = own.into_iter().chain([format!("{PREFIX}server/#")]);
        let filters: Vec<_> = filters.map(|path| SubscribeFilter { path, qos: QoS::AtLeastOnce }).collect();
        if client.try_subscribe_many(filters).is_err() {
            self.link.shared.overflowed.store(true, Ordering::Release);
        }
    }

    /// Hands in a message; false when the agent has ended.
    fn arrived(&self, topic: &str, payload: &[u8]) -> bool {
        let Ok(topic) = topic.parse::<Topic>() else { return true };
        if payload.len() > topic.max_payload_size() {
            tracing::warn!(%topic, size = payload.len(), "a message is too large and ignored");
            return true;
        }
        match parse(&topic, payload, &self.config) {
            Ok(Some(event)) => self.config.events.send(event).is_ok(),
            Ok(None) => true,
            Err(error) => {
                tracing::warn!(%topic, %error, "a message cannot be read");
                let desired = matches!(topic, Topic::Appliance(_, ApplianceTopic::Desired));
                !desired || self.config.events.send(Event::UnreadableDesired(error.to_string())).is_ok()
            }
        }
    }
}

/// What a message means to the shop; `None` when it is for the clock, or nothing.
fn parse(topic: &Topic, payload: &[u8], config: &LinkConfig) -> Result<Option<Event>, serde_json::Error> {
    Ok(match topic {
        Topic::ServerTime => {
            config.clock.heard(serde_json::from_slice::<TimeMessage>(payload)?.now);
            None
        }
        Topic::Appliance(id, topic) if *id == config.appliance => match topic {
            // A message that was cleared says nothing: what was desired last goes on.
            ApplianceTopic::Desired if payload.is_empty() => None,
            ApplianceTopic::Desired => {
                Some(Event::Desired(Box::new(serde_json::from_slice::<Desired>(payload)?)))
            }
            ApplianceTopic::EventAck if payload.is_empty() => None,
            ApplianceTopic::EventAck => Some(Event::Acked(serde_json::from_slice::<Ack>(payload)?.upto)),
            ApplianceTopic::Cmd => {
                let command = serde_json::from_slice::<Command>(payload)?;
                Some(Event::Command { command, received: config.clock.now() })
            }
            _ => None,
        },
        _ => None,
    })
}
