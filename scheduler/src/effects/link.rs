//! The link to the broker: one client of the user `scheduler`. It subscribes anew on every connection, sends the
//! retained picture when it changes and whole after a reconnect, tells the time, and takes a new token before the
//! old one ends.
//!
//! ```text
//! connect with a fresh token and a will ─► ConnAck: subscribe, say online, send everything retained
//!      ▲                                      │ error: wait, longer each time
//!      └──── back off ◄───────────────────────┤ token near its end: DISCONNECT, then connect at once
//!                                             └ stop: say offline, DISCONNECT
//! ```
//!
//! Where several schedulers are, only the leader has a will and says what is retained; one that becomes it connects
//! anew. The will of the one before may come late: the leader hears it and says again who leads.

use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::Duration;

use cardshop_protocol::message::{Presence, StatusMessage, TimeMessage, VERSION};
use cardshop_protocol::topic::{PREFIX, Topic};
use rumqttc::{
    AsyncClient, Event, EventLoop, LastWill, MqttOptions, Outgoing, Packet, Publish, QoS, Transport,
};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::clock::random_bytes;
use super::inbox::Incoming;
use super::tokens::ACCESS_LIFE;
use crate::core::homeassistant::{BIRTH_TOPIC, BORN};
use crate::{Scheduler, SchedulerError};

/// User name; also the client id of a scheduler that is alone.
const NAME: &str = "scheduler";
/// Largest packet, bytes: 64 KiB of payload and its topic.
const MAX_PACKET: usize = 80 * 1024;
/// Requests that may wait inside the client.
const QUEUE_LENGTH: usize = 256;
/// A broker that is silent for one and a half of this is gone.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// The token is renewed this long before its end.
const RENEW_BEFORE: Duration = Duration::from_secs(300);
/// First and longest pause after a failed connection.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(10));
/// How often the time is told.
const TIME_EVERY: Duration = Duration::from_secs(60);
/// How long a stop waits for the last words.
const STOP_WITHIN: Duration = Duration::from_secs(2);
/// Connections of one start that get a session of their own.
pub(super) const SESSIONS_PER_START: u64 = 1_000_000;

/// What is listened to: few wide filters, because the broker pays for each.
const FILTERS: [&str; 8] =
    ["status", "info", "health", "reported", "slot/#", "event", "alert/+", "cmd/reply"];

/// Where the broker is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct BrokerAddress {
    host: String,
    port: u16,
    tls: bool,
}

impl BrokerAddress {
    pub(crate) fn parse(url: &str) -> Result<Self, SchedulerError> {
        let wrong = || {
            SchedulerError::Config(format!(
                "{url} is not an address such as mqtt://127.0.0.1:1883 or mqtts://broker.example"
            ))
        };
        let (scheme, rest) = url.split_once("://").ok_or_else(wrong)?;
        let (tls, default_port) = match scheme {
            "mqtt" => (false, 1883),
            "mqtts" => (true, 8883),
            _ => return Err(wrong()),
        };
        let rest = rest.trim_end_matches('/');
        let (host, port) = match rest.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, port.parse().map_err(|_| wrong())?),
            _ => (rest, default_port),
        };
        let host = host.trim_matches(['[', ']']);
        if host.is_empty() || host.contains(['/', '@']) {
            return Err(wrong());
        }
        Ok(Self { host: host.to_owned(), port, tls })
    }

    /// How to connect; `ca` names whom to trust, the system's CAs when it is `None`.
    pub(crate) fn transport(&self, ca: Option<&Path>) -> Result<Transport, SchedulerError> {
        match ca {
            _ if !self.tls => Ok(Transport::tcp()),
            None => Ok(Transport::tls_with_default_config()),
            Some(path) => {
                let unreadable = |e| {
                    SchedulerError::Config(format!("cannot read the broker's CA {}: {e}", path.display()))
                };
                Ok(Transport::tls(std::fs::read(path).map_err(unreadable)?, None, None))
            }
        }
    }
}

/// The workers that take messages: those of one appliance always go to the same.
pub(crate) struct Inboxes(pub(crate) Vec<mpsc::Sender<Incoming>>);

impl Inboxes {
    /// Waits when the worker is busy: then the broker waits too. Progress and health are dropped instead; the
    /// next comes soon.
    async fn give(&self, scheduler: &Scheduler, publish: Publish) {
        let worker =
            publish.topic.split('/').nth(3).map_or(0, |id| blake3::hash(id.as_bytes()).as_bytes()[0]);
        let inbox = &self.0[usize::from(worker) % self.0.len()];
        let droppable = publish.topic.ends_with("/progress") || publish.topic.ends_with("/health");
        let message =
            Incoming { topic: publish.topic, payload: publish.payload.to_vec(), retained: publish.retain };
        if droppable {
            if inbox.try_send(message).is_err() {
                scheduler.inner.metrics.messages_dropped.add();
            }
        } else if inbox.send(message).await.is_err() {
            tracing::debug!("the inboxes are closed");
        }
    }
}

struct Link {
    scheduler: Scheduler,
    client: AsyncClient,
    events: EventLoop,
    /// As at first: without a will.
    options: MqttOptions,
    /// Whether it led when the connection was made.
    leads: bool,
    connections: u64,
    session: u64,
    renew_at: Instant,
    back_off: Duration,
}

/// Keeps the link until `stop`.
pub(crate) async fn run(scheduler: Scheduler, inboxes: Inboxes, mut stop: watch::Receiver<bool>) {
    let config = &scheduler.inner.config;
    let address = BrokerAddress::parse(&config.mqtt_url)
        .and_then(|address| Ok((address.transport(config.mqtt_ca.as_deref())?, address)));
    let (transport, address) = match address {
        Ok(address) => address,
        Err(error) => {
            tracing::error!(%error, "there is no link to the broker");
            return;
        }
    };
    let mut options = MqttOptions::new(scheduler.client_id(), address.host, address.port);
    options.set_transport(transport);
    options.set_keep_alive(KEEP_ALIVE).set_max_packet_size(MAX_PACKET, MAX_PACKET).set_clean_session(true);
    let (client, events) = AsyncClient::new(options, QUEUE_LENGTH);
    let publisher = tokio::spawn(publish_retained(scheduler.clone(), client.clone()));
    let mut link = Link {
        options: events.mqtt_options.clone(),
        leads: scheduler.leads(),
        scheduler,
        client,
        events,
        connections: 0,
        session: 0,
        renew_at: Instant::now() + ACCESS_LIFE,
        back_off: BACK_OFF.0,
    };
    while !*stop.borrow() {
        link.prepare();
        tokio::select! {
            event = link.events.poll() => if let Some(pause) = link.take(event, &inboxes).await {
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    _ = stop.changed() => {}
                }
            },
            () = tokio::time::sleep_until(link.renew_at) => link.renew(),
            () = link.scheduler.inner.link_anew.notified() => link.renew(),
            _ = stop.changed() => {}
        }
    }
    publisher.abort();
    if tokio::time::timeout(STOP_WITHIN, link.say_offline()).await.is_err() {
        tracing::debug!("the broker did not hear the last words; the will speaks");
    }
}

impl Link {
    /// Before a connection is made: a fresh token, and a will for a session of its own.
    fn prepare(&mut self) {
        if self.events.network.is_some() {
            return;
        }
        self.scheduler.inner.metrics.broker_connected.store(false, Ordering::Relaxed);
        self.connections += 1;
        let start = self.scheduler.inner.start.load(Ordering::Acquire);
        self.session = start * SESSIONS_PER_START + self.connections;
        self.leads = self.scheduler.leads();
        let will = StatusMessage { v: VERSION, status: Presence::Offline, session: self.session };
        let payload = serde_json::to_vec(&will).expect("a message is plain JSON");
        let will = LastWill::new(Topic::ServerStatus.to_string(), payload, QoS::AtLeastOnce, true);
        let mut options = self.options.clone();
        if self.leads {
            options.set_last_will(will);
        }
        options.set_credentials(NAME, self.scheduler.own_token());
        self.events.mqtt_options = options;
        self.renew_at = Instant::now() + ACCESS_LIFE - RENEW_BEFORE;
    }

    /// Gives the pause before the next try after a failed connection.
    async fn take(
        &mut self,
        event: Result<Event, rumqttc::ConnectionError>,
        inboxes: &Inboxes,
    ) -> Option<Duration> {
        match event {
            Ok(Event::Incoming(Packet::ConnAck(_))) => self.connected(),
            Ok(Event::Incoming(Packet::Publish(publish))) if publish.topic == BIRTH_TOPIC => {
                if publish.payload[..] == *BORN {
                    self.scheduler.home_assistant_is_born();
                }
            }
            Ok(Event::Incoming(Packet::Publish(publish))) if publish.topic == self.status_topic() => {
                self.hear_status(&publish.payload);
            }
            Ok(Event::Incoming(Packet::Publish(publish))) => inboxes.give(&self.scheduler, publish).await,
            Ok(_) => {}
            Err(error) => {
                self.scheduler.inner.metrics.broker_connected.store(false, Ordering::Relaxed);
                tracing::warn!(%error, "no connection to the broker");
                // Several schedulers and a thousand agents come back after the same failure.
                let pause = self.back_off.mul_f64(0.5 + f64::from(random_bytes::<1>()[0]) / 510.0);
                self.back_off = (self.back_off * 2).min(BACK_OFF.1);
                return Some(pause);
            }
        }
        None
    }

    fn connected(&mut self) {
        tracing::info!(session = self.session, "connected to the broker");
        self.back_off = BACK_OFF.0;
        let own = FILTERS.map(|f| format!("{PREFIX}appliance/+/{f}")).into_iter();
        let filters = own.chain([BIRTH_TOPIC.to_owned(), self.status_topic()]);
        let filters = filters.map(|f| rumqttc::SubscribeFilter::new(f, QoS::AtLeastOnce));
        if let Err(error) = self.client.try_subscribe_many(filters) {
            // Only when the queue is full: a new connection starts over.
            tracing::warn!(%error, "could not subscribe");
            let _ = self.client.try_disconnect();
            return;
        }
        let inner = &self.scheduler.inner;
        inner.metrics.broker_connections.add();
        inner.metrics.broker_connected.store(true, Ordering::Relaxed);
        if self.leads {
            self.scheduler.greet_broker(&self.birth());
        }
    }

    fn status_topic(&self) -> String {
        Topic::ServerStatus.to_string()
    }

    fn birth(&self) -> StatusMessage {
        StatusMessage { v: VERSION, status: Presence::Online, session: self.session }
    }

    /// Somebody said who leads: a leader of before, whose will came late, is not the last to say so.
    fn hear_status(&self, payload: &[u8]) {
        let Ok(heard) = serde_json::from_slice::<StatusMessage>(payload) else { return };
        if self.leads && self.scheduler.leads() && heard.session < self.session {
            self.scheduler.inner.retained.send_again(&Topic::ServerStatus, &self.birth());
        }
    }

    fn renew(&mut self) {
        tracing::info!("a new token for the broker");
        self.renew_at = Instant::now() + RENEW_BEFORE;
        self.back_off = BACK_OFF.0;
        if let Err(error) = self.client.try_disconnect() {
            tracing::warn!(%error, "could not ask for a new connection");
        }
    }

    async fn say_offline(&mut self) {
        if self.events.network.is_none() || !self.leads {
            return;
        }
        let last = StatusMessage { v: VERSION, status: Presence::Offline, session: self.session };
        let payload = serde_json::to_vec(&last).expect("a message is plain JSON");
        let topic = Topic::ServerStatus.to_string();
        if self.client.try_publish(topic, QoS::AtLeastOnce, true, payload).is_err() {
            return;
        }
        // A DISCONNECT right behind it could cut off the answer, and with it the message.
        let mut sent = false;
        loop {
            match self.events.poll().await {
                Ok(Event::Outgoing(Outgoing::Publish(_))) => sent = true,
                Ok(Event::Incoming(Packet::PubAck(_))) if sent && self.events.state.inflight() == 0 => break,
                Ok(_) => {}
                Err(_) => return,
            }
        }
        let _ = self.client.try_disconnect();
        loop {
            match self.events.poll().await {
                Ok(Event::Outgoing(Outgoing::Disconnect)) | Err(_) => return,
                Ok(_) => {}
            }
        }
    }
}

impl Scheduler {
    /// A broker is there that may know nothing: who leads says so, and everything again.
    pub(crate) fn greet_broker(&self, birth: &StatusMessage) {
        self.inner.retained.set(&Topic::ServerStatus, birth);
        self.inner.retained.all_dirty();
        self.discover_all();
    }
}

/// Sends what is dirty while there is a connection, and the time.
async fn publish_retained(scheduler: Scheduler, client: AsyncClient) {
    let mut time = tokio::time::interval(TIME_EVERY);
    loop {
        tokio::select! {
            () = scheduler.inner.retained.changed() => {}
            _ = time.tick() => tell_time(&scheduler, &client),
        }
        while scheduler.inner.metrics.broker_connected.load(Ordering::Relaxed) {
            let Some(due) = scheduler.inner.retained.take(scheduler.leads()) else { break };
            // An error means that the client is gone; a lost connection makes everything dirty again.
            if client.publish(due.topic, QoS::AtLeastOnce, due.retain, due.payload).await.is_err() {
                return;
            }
        }
    }
}

fn tell_time(scheduler: &Scheduler, client: &AsyncClient) {
    if !scheduler.leads() || !scheduler.inner.metrics.broker_connected.load(Ordering::Relaxed) {
        return;
    }
    let message = TimeMessage { v: VERSION, now: scheduler.now() };
    let payload = serde_json::to_vec(&message).expect("a message is plain JSON");
    if let Err(error) = client.try_publish(Topic::ServerTime.to_string(), QoS::AtLeastOnce, false, payload) {
        tracing::debug!(%error, "the time is not told");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broker_addresses_are_read_or_refused() {
        let good = |url: &str| BrokerAddress::parse(url).map(|a| (a.host, a.port, a.tls)).unwrap();
        assert_eq!(good("mqtt://127.0.0.1:1884"), ("127.0.0.1".into(), 1884, false));
        assert_eq!(good("mqtt://broker.example/"), ("broker.example".into(), 1883, false));
        assert_eq!(good("mqtts://broker.example"), ("broker.example".into(), 8883, true));
        assert_eq!(good("mqtt://[::1]:1900"), ("::1".into(), 1900, false));
        for bad in ["", "http://x", "mqtt://", "mqtt://x:notaport", "mqtt://x/y:1", "mqtt://u:p@x:1"] {
            assert!(BrokerAddress::parse(bad).is_err(), "{bad}");
        }
    }
}
