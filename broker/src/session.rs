//! A logged-in client: its packets in, its messages out, its keep-alive and its token's end. One task; what it
//! decides by is pure ([`crate::rights`], [`crate::filter`], [`crate::subscriptions`], [`crate::outbound`]).
//!
//! Backpressure: a client that does not read is not read from either once [`MAX_UNSENT`] is waiting; messages for
//! it queue up to its limits, and then it is dropped. Nobody else waits for it.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::BytesMut;
use cardshop_protocol::time::Timestamp;
use cardshop_protocol::token::{Claims, Role, check_claims};
use cardshop_protocol::topic::Topic;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::sync::oneshot;
use tokio::time::Instant;
use tracing::warn;

use crate::alarms::{Alarm, refused_text, was_alive};
use crate::codec::{self, ConnAck, Delivery, Incoming, PublishIn, SubscribeIn, Version, WireError, reason};
use crate::end::End;
use crate::filter::{BadTopic, check_filter, check_topic};
use crate::message::{Draft, Message, Parts};
use crate::now_ms;
use crate::outbound::{Outbound, Outgoing};
use crate::pressure::Reader;
use crate::rights::{self, Grant, Principal, may_read, may_write};
use crate::route::Route;
use crate::router::{Deliveries, LinkEnd, LinkId};
use crate::serve::{Hub, Known, READ_SIZE, Stream, stopped};
use crate::stats::{Dropped, Refusal, count};
use crate::subscriptions::{Subscription, Subscriptions};

/// A token that ended or was revoked is noticed within this; the keys themselves are at most 2 s old.
const TOKEN_CHECK_EVERY: Duration = Duration::from_secs(1);
/// Bytes encoded ahead of what the socket takes.
const ENCODE_AHEAD: usize = 64 * 1024;
/// Unsent bytes at which the client is not read from.
const MAX_UNSENT: usize = 256 * 1024;
/// Messages that wait for a scheduler, besides those in the router, before appliances are held back.
const MAX_WAITING_FOR_SCHEDULER: usize = 4_000;
/// Messages taken from the router in one go.
const DELIVERY_BATCH: usize = 256;
/// QoS 2 publishes whose second half is missing.
const MAX_HALF_RECEIVED: usize = 1_024;
/// How long a client has to take what is left, when the broker closes.
const GOODBYE_WITHIN: Duration = Duration::from_millis(500);
/// How long a session that has to leave is asked for words that have arrived already.
const LAST_WORDS_WITHIN: Duration = Duration::from_millis(20);
/// Refused publishes and subscriptions of one session that are logged each; more are counted only.
const MAX_LOGGED_REFUSALS: u32 = 20;
/// Characters of a refused topic in the log.
const MAX_LOGGED_CHARS: usize = 128;

/// The session.
pub(crate) struct Session {
    number: u64,
    version: Version,
    principal: Principal,
    claims: Claims,
    /// Within this the client has promised to be heard.
    keep_alive: Option<Duration>,
    last_heard: Instant,
    link: LinkId,
    routes: Vec<Route>,
    subscriptions: Subscriptions,
    outbound: Outbound,
    half_received: HashSet<u16>,
    /// Largest packet the client takes, bytes.
    packet_size: usize,
    refused: u32,
    /// Of a scheduler that reads all appliances.
    reader: Option<Reader>,
    output: BytesMut,
    hub: Arc<Hub>,
}

impl Session {
    /// A session that has its seat and link; its welcome is the first thing it sends.
    pub(crate) fn new(number: u64, known: Known, link: LinkId, hub: Arc<Hub>) -> Self {
        let Known { connect, principal, claims } = known;
        let limits = &hub.limits;
        let mut output = BytesMut::new();
        let packet_size = u32::try_from(limits.packet_size).unwrap_or(u32::MAX);
        let assigned_id = connect.client_id.is_empty().then_some(principal.name.as_str());
        let welcome =
            ConnAck { limits: Some((limits.inflight, packet_size)), assigned_id, ..ConnAck::default() };
        codec::connack(connect.version, &welcome, &mut output);
        let window = connect.receive_maximum.unwrap_or(u16::MAX).min(limits.inflight);
        Self {
            number,
            version: connect.version,
            keep_alive: (connect.keep_alive_s > 0).then(|| Duration::from_secs(connect.keep_alive_s.into())),
            last_heard: Instant::now(),
            link,
            routes: Vec::new(),
            subscriptions: Subscriptions::default(),
            outbound: Outbound::new(window, limits),
            half_received: HashSet::new(),
            packet_size: connect.packet_size.map_or(usize::MAX, |size| size as usize),
            refused: 0,
            reader: None,
            output,
            principal,
            claims,
            hub,
        }
    }

    /// Runs until one side ends it. `taken_over` becomes ready when another session wants the seat.
    pub(crate) async fn run(
        mut self,
        stream: impl Stream,
        mut input: BytesMut,
        mut deliveries: Deliveries,
        mut taken_over: oneshot::Receiver<()>,
    ) -> End {
        let (mut reader, mut writer) = tokio::io::split(stream);
        let mut stopping = self.hub.stopping.clone();
        let mut messages = Vec::new();
        // What came with CONNECT is here already.
        let mut step = self.take_input(&mut input).await;
        let mut timer = std::pin::pin!(tokio::time::sleep_until(self.wake_at()));
        let end = loop {
            if let Err(end) = step {
                break end;
            }
            self.encode_ahead();
            if let Some(reader) = &mut self.reader
                && self.outbound.len() < MAX_WAITING_FOR_SCHEDULER
            {
                reader.tell();
            }
            input.reserve(READ_SIZE);
            step = tokio::select! {
                _ = &mut taken_over => Err(End::TakenOver { alive: was_alive(self.last_heard.elapsed(), self.keep_alive) }),
                () = stopped(&mut stopping) => Err(End::Stopping),
                read = reader.read_buf(&mut input), if self.output.len() < MAX_UNSENT => match read {
                    Ok(1..) => {
                        self.last_heard = Instant::now();
                        self.take_input(&mut input).await
                    }
                    _ => Err(End::Broken),
                },
                written = writer.write_buf(&mut self.output), if !self.output.is_empty() => match written {
                    Ok(1..) => Ok(()),
                    _ => Err(End::Broken),
                },
                come = deliveries.next(DELIVERY_BATCH, &mut messages) => {
                    self.deliver(&mut messages, come, &mut deliveries).await
                }
                () = &mut timer => {
                    let checked = self.check_time();
                    timer.as_mut().reset(self.wake_at());
                    checked
                }
            };
        };
        let end = match end {
            End::TakenOver { alive: true } => {
                End::TakenOver { alive: !self.is_leaving(&mut reader, &mut input).await }
            }
            end => end,
        };
        self.hub.counters.dropped(Dropped::SessionEnded, self.outbound.len() as u64);
        if let Some(reason) = end.reason() {
            codec::disconnect(self.version, reason, &mut self.output);
        }
        let goodbye = async {
            writer.write_all(&self.output).await?;
            writer.shutdown().await
        };
        // A client that does not read is closed without.
        tokio::time::timeout(GOODBYE_WITHIN, goodbye).await.ok();
        end
    }

    /// Whether the client has gone by itself, and its last words are here and not looked at yet: a program that ends
    /// and starts again is there before them.
    async fn is_leaving(&self, reader: &mut (impl AsyncRead + Unpin), input: &mut BytesMut) -> bool {
        let goodbye = async {
            while let Ok(1..) = reader.read_buf(input).await {
                while let Ok(Some(frame)) = codec::frame(input, self.hub.limits.packet_size) {
                    if frame.is_disconnect() {
                        return;
                    }
                }
            }
        };
        tokio::time::timeout(LAST_WORDS_WITHIN, goodbye).await.is_ok()
    }

    /// One and a half times the keep-alive (MQTT §3.1.2.10).
    fn silence_limit(&self) -> Option<Duration> {
        self.keep_alive.map(|keep_alive| keep_alive * 3 / 2)
    }

    fn wake_at(&self) -> Instant {
        let check = Instant::now() + TOKEN_CHECK_EVERY;
        self.silence_limit().map_or(check, |limit| check.min(self.last_heard + limit))
    }

    fn check_time(&self) -> Result<(), End> {
        if self.silence_limit().is_some_and(|limit| self.last_heard.elapsed() >= limit) {
            return Err(End::KeepAlive);
        }
        let now = Timestamp::from_system(SystemTime::now());
        check_claims(&self.hub.keys.current(), &self.claims, now).map_err(End::Token)
    }

    async fn take_input(&mut self, input: &mut BytesMut) -> Result<(), End> {
        while let Some(frame) = codec::frame(input, self.hub.limits.packet_size).map_err(End::Wire)? {
            match codec::decode(self.version, &frame).map_err(End::Wire)? {
                Incoming::Publish(publish) => self.on_publish(publish).await?,
                Incoming::PubAck(id) => {
                    self.outbound.acknowledge(id);
                }
                Incoming::PubRel(id) => {
                    self.half_received.remove(&id);
                    codec::pubcomp(self.version, id, &mut self.output);
                }
                Incoming::Subscribe(subscribe) => self.on_subscribe(subscribe).await?,
                Incoming::Unsubscribe { id, filters } => {
                    let reason = |filter: &&str| match self.subscriptions.remove(filter) {
                        true => reason::SUCCESS,
                        false => reason::NO_SUBSCRIPTION_EXISTED,
                    };
                    let reasons: Vec<u8> = filters.iter().map(reason).collect();
                    codec::unsuback(self.version, id, &reasons, &mut self.output);
                }
                Incoming::PingReq => codec::pingresp(&mut self.output),
                Incoming::Disconnect { with_will } => {
                    return Err(if with_will { End::WithWill } else { End::Clean });
                }
            }
        }
        Ok(())
    }

    async fn on_publish(&mut self, publish: PublishIn<'_>) -> Result<(), End> {
        if check_topic(publish.topic) == Err(BadTopic::NotATopic) {
            return Err(End::Wire(WireError::NotATopic));
        }
        let repeated = publish.qos == 2 && self.half_received.contains(&publish.id);
        let mut verdict = reason::SUCCESS;
        if !repeated {
            match self.judge(&publish) {
                reason::SUCCESS => {
                    let expires_ms = publish.expiry_s.map_or(0, |s| now_ms() + u64::from(s) * 1000);
                    let draft = Draft::new(&Parts {
                        sender: self.number,
                        qos: publish.qos,
                        retain: publish.retain,
                        topic: publish.topic,
                        properties: &publish.properties,
                        payload: publish.payload,
                        expires_ms,
                    });
                    if self.principal.appliance.is_some() {
                        self.hub.pressure.wait().await;
                    }
                    self.hub.exchange.publish(draft).await?;
                }
                refused => {
                    self.hub.counters.refuse(Refusal::Publish);
                    self.log_refused("publish", publish.topic, refused);
                    if let Some(appliance) = self.principal.appliance
                        && refused == reason::NOT_AUTHORIZED
                    {
                        let text = || refused_text(publish.topic);
                        self.hub.alarm(Alarm::Refused, appliance, text).await;
                    }
                    verdict = refused;
                }
            }
        }
        match publish.qos {
            // 3.1.1 has no way to say no: it is acknowledged and dropped (§3.3.5).
            1 => codec::puback(self.version, publish.id, verdict, &mut self.output),
            2 => {
                self.half_received.insert(publish.id);
                if self.half_received.len() > MAX_HALF_RECEIVED {
                    return Err(End::Wire(WireError::Protocol("too many unfinished QoS 2 publishes")));
                }
                codec::pubrec(self.version, publish.id, verdict, &mut self.output);
            }
            _ => {}
        }
        if verdict != reason::SUCCESS && self.version == Version::V5 {
            return Err(End::Refused(verdict));
        }
        Ok(())
    }

    /// The reason code of MQTT 5 for a publish.
    fn judge(&self, publish: &PublishIn<'_>) -> u8 {
        match check_topic(publish.topic) {
            Err(_) => reason::NOT_AUTHORIZED,
            Ok(()) if publish.payload.is_empty() && !publish.retain => reason::PAYLOAD_FORMAT_INVALID,
            Ok(()) if !may_write(&self.principal, publish.topic, publish.retain) => reason::NOT_AUTHORIZED,
            Ok(()) if !fits(publish.topic, publish.payload.len()) => reason::QUOTA_EXCEEDED,
            Ok(()) => reason::SUCCESS,
        }
    }

    /// Logs that something was refused, up to a number of times for each session.
    fn log_refused(&mut self, what: &str, topic: &str, reason: u8) {
        self.refused += 1;
        let client = &self.principal.name;
        let topic: String = topic.chars().take(MAX_LOGGED_CHARS).collect();
        match self.refused {
            ..MAX_LOGGED_REFUSALS => warn!(client, ?topic, reason, "refused a {what}"),
            MAX_LOGGED_REFUSALS => warn!(client, "what else it is refused is only counted"),
            _ => {}
        }
    }

    async fn on_subscribe(&mut self, subscribe: SubscribeIn<'_>) -> Result<(), End> {
        let mut reasons = Vec::with_capacity(subscribe.filters.len());
        let mut granted = Vec::new();
        let mut with_retained = Vec::new();
        let mut new_routes = Vec::new();
        for (filter, wanted) in &subscribe.filters {
            let grant = match self.judge_filter(filter, granted.len()) {
                Ok(grant) => grant,
                Err(refused) => {
                    self.hub.counters.refuse(Refusal::Subscribe);
                    self.log_refused("subscription", filter, refused);
                    reasons.push(if self.version == Version::V4 { reason::FAILURE } else { refused });
                    continue;
                }
            };
            let qos = wanted.qos.min(1);
            reasons.push(qos);
            for route in Route::of_filter(&self.principal, filter) {
                if !self.routes.contains(&route) {
                    self.routes.push(route);
                    new_routes.push(route);
                }
            }
            let known = self.subscriptions.contains(filter);
            if wanted.retain_handling == 0 || (wanted.retain_handling == 1 && !known) {
                with_retained.push((granted.len(), (*filter).to_owned()));
            }
            granted.push((
                (*filter).to_owned(),
                Subscription {
                    qos,
                    no_local: wanted.no_local,
                    retain_as_published: wanted.retain_as_published,
                    id: subscribe.subscription_id,
                    each_message: grant == Grant::EachMessage,
                    since: 0,
                },
            ));
        }
        let mut retained = Vec::new();
        if !granted.is_empty() {
            let filters = with_retained.iter().map(|(_, filter)| filter.clone()).collect();
            let reads_all = new_routes.contains(&Route::Appliances);
            let subscribed = self.hub.exchange.subscribe(self.link, new_routes, filters).await?;
            if reads_all && self.principal.role == Role::Scheduler {
                self.reader = Some(Reader::new(self.hub.pressure.clone(), subscribed.since));
            }
            for ((index, _), found) in with_retained.iter().zip(subscribed.retained) {
                let subscription = granted[*index].1.clone();
                retained.extend(found.into_iter().filter_map(|m| self.outgoing_retained(m, &subscription)));
            }
            for (filter, subscription) in granted {
                self.subscriptions.add(filter, Subscription { since: subscribed.since, ..subscription });
            }
        }
        codec::suback(self.version, subscribe.id, &reasons, &mut self.output);
        self.outbound.push_retained(retained).map_err(|_| End::Slow)
    }

    /// What a filter is granted, or the reason code of MQTT 5 why not.
    fn judge_filter(&self, filter: &str, granted: usize) -> Result<Grant, u8> {
        match check_filter(filter) {
            Ok(()) => {}
            Err(BadTopic::Shared) => return Err(reason::SHARED_NOT_SUPPORTED),
            Err(BadTopic::Reserved) => return Err(reason::NOT_AUTHORIZED),
            Err(_) => return Err(reason::TOPIC_FILTER_INVALID),
        }
        let most = self.hub.limits.subscriptions;
        let full = self.subscriptions.len() + granted >= most && !self.subscriptions.contains(filter);
        // One packet cannot have the retained picture searched more often than that either.
        if full || granted >= most {
            return Err(reason::QUOTA_EXCEEDED);
        }
        match rights::subscription(&self.principal, filter) {
            Grant::Refused => Err(reason::NOT_AUTHORIZED),
            grant => Ok(grant),
        }
    }

    fn outgoing_retained(&self, message: Message, subscription: &Subscription) -> Option<Outgoing> {
        if subscription.each_message && !self.may_read(message.topic()) {
            return None;
        }
        let qos = subscription.qos.min(message.qos());
        Some(Outgoing { message, qos, retain: true, subscription_ids: subscription.id.into_iter().collect() })
    }

    fn may_read(&self, topic: &str) -> bool {
        let shares = |appliance| self.hub.directory.shares(appliance, &self.principal.channels);
        may_read(&self.principal, topic, &shares)
    }

    /// Queues those of `messages` that a subscription matches.
    async fn deliver(
        &mut self,
        messages: &mut Vec<Message>,
        come: Result<(), LinkEnd>,
        deliveries: &mut Deliveries,
    ) -> Result<(), End> {
        come?;
        deliveries.resume().await?;
        let of_appliances = |message: &&Message| message.topic().starts_with("cardshop/1/appliance/");
        if let Some(reader) = &mut self.reader
            && let Some(newest) = messages.iter().rev().find(of_appliances)
        {
            reader.has_read(newest.seq(), messages.len() < DELIVERY_BATCH);
        }
        for message in messages.drain(..) {
            let found = self.subscriptions.find(&message, self.number, &|topic| self.may_read(topic));
            if let Some(found) = found {
                let retain = found.retain_as_published && message.retain();
                let outgoing =
                    Outgoing { message, qos: found.qos, retain, subscription_ids: found.subscription_ids };
                self.outbound.push(outgoing).map_err(|_| End::Slow)?;
            }
        }
        Ok(())
    }

    fn encode_ahead(&mut self) {
        while self.output.len() < ENCODE_AHEAD {
            let Some((outgoing, id)) = self.outbound.pop() else { return };
            let expiry_s = outgoing.message.expires_in_s(now_ms());
            let how = Delivery {
                qos: outgoing.qos,
                id,
                retain: outgoing.retain,
                subscription_ids: &outgoing.subscription_ids,
                expiry_s,
            };
            let sent = expiry_s != Some(0)
                && codec::publish(self.version, &outgoing.message, &how, self.packet_size, &mut self.output)
                    > 0;
            if sent {
                count(&self.hub.counters.messages_out);
            } else {
                let why = if expiry_s == Some(0) { Dropped::Expired } else { Dropped::TooLarge };
                self.hub.counters.dropped(why, 1);
                self.outbound.acknowledge(id);
            }
        }
    }
}

/// Whether a payload of `size` bytes is one of the contract: a few appliances with large ones would fill the
/// retained picture for all. Topics of others have the limit of packets only.
fn fits(topic: &str, size: usize) -> bool {
    topic.parse::<Topic>().map_or(true, |topic| size <= topic.max_payload_size())
}
