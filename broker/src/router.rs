//! The fan-out behind a small trait: rumqttd's Router, by its public API, as a plain log of keys and bytes.
//!
//! It is given so little because of what it does with more: its topics, retained messages, QoS, wills, packet ids
//! and client ids are all handled in front of it. What has to be kept (rumqttd 0.20):
//!
//! - A link's `Ready` after its `Disconnect` panics the router thread: sessions call [`Deliveries::resume`] only
//!   until they ask for the detach.
//! - Every link name costs 0.7 KB for ever: names are numbers that are used again. Connect and disconnect go through
//!   one queue, so a name is free as soon as its disconnect is queued.
//! - A link's packets lie in a buffer of its own, and what goes through the Router's queue only says that there are
//!   some: a publish may be read for an earlier one's sake, before a subscription that was queued between the two.
//!   So the first publish after a subscription waits until the Router has it.
//! - A log drops what nobody read in time, and only logs that: gaps in a log's offsets are an end of the session.
//! - Its thread ends only by a panic; a router that was shut down keeps its empty self and a sleeping thread.

use std::collections::{BTreeSet, HashMap};
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use rumqttd::local::{LinkBuilder, LinkError, LinkRx, LinkTx};
use rumqttd::protocol::{
    Disconnect, DisconnectReasonCode, Filter, Packet, Publish, QoS, RetainForwardRule, Subscribe,
};
use rumqttd::{Notification, RouterConfig, SegmentConfig};

use crate::message::Message;
use crate::route::{LOGS, Route, log_of};

/// The router stopped answering or its thread ended; the broker has to be started again.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the MQTT router is dead ({0}); start the broker again")]
pub(crate) struct RouterDead(pub(crate) String);

/// One client's connection to the router.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct LinkId(usize);

/// Delivers each message to every link that has its route, in the order of the publishes.
pub(crate) trait Router: Send {
    /// Adds a link.
    fn attach(&mut self) -> Result<(LinkId, Deliveries), RouterDead>;
    /// Adds routes to a link; what is published from now on is delivered.
    fn subscribe(&mut self, link: LinkId, routes: &[Route]) -> Result<(), RouterDead>;
    /// Takes all of `batch`, keys with messages.
    fn publish(&mut self, batch: &mut Vec<(Bytes, Message)>) -> Result<(), RouterDead>;
    /// Removes a link.
    fn detach(&mut self, link: LinkId) -> Result<(), RouterDead>;
}

/// A log of one wide route keeps this much at least, counted in payload bytes: a burst of 20,000 slot states.
const WIDE_SEGMENT_SIZE: usize = 2 * 1024 * 1024;
const WIDE_SEGMENTS: usize = 3;
/// The log of one appliance's inbox keeps three segments at least: three of the largest messages, or 190 of 126 bytes.
/// With half of it a hundred acknowledgements at once closed the appliance's session. Thousands of these logs exist,
/// and each holds what it has for ever: 32 KiB a segment costs 180 KiB more for each appliance (measured).
const INBOX_SEGMENT_SIZE: usize = 8 * 1024;
const INBOX_SEGMENTS: usize = 4;
/// Messages handed to a link at once; the Router pauses a link at about this many.
const READ_COUNT: u64 = 200;
/// Messages the Router may be behind before publishers wait.
const MAX_BACKLOG: usize = 1_000;
/// How long it may make no progress before it counts as dead.
const STALLED_AFTER: Duration = Duration::from_secs(10);

type Connect = dyn Fn(&str) -> Result<(LinkTx, LinkRx), RouterDead> + Send;

/// rumqttd's Router.
pub(crate) struct Rumqttd {
    connect: Box<Connect>,
    /// All publishes go through one link, so that they have one order.
    publisher: LinkTx,
    /// Keeps the publisher's side open.
    _publisher_rx: LinkRx,
    /// Routes were added since the last publish.
    subscribed: bool,
    links: HashMap<LinkId, (LinkTx, Arc<Starts>)>,
    free: BTreeSet<LinkId>,
    /// Messages ever written to each log, by the Router's filter.
    written: HashMap<Bytes, u64>,
}

/// Offset each of a link's logs starts at for it; [`UNKNOWN`] before it is subscribed.
type Starts = [AtomicU64; LOGS];
const UNKNOWN: u64 = u64::MAX;

impl Rumqttd {
    /// Starts the router's thread, for `connections` links.
    pub(crate) fn start(connections: usize) -> Result<Self, RouterDead> {
        let inbox = SegmentConfig { max_segment_size: INBOX_SEGMENT_SIZE, max_segment_count: INBOX_SEGMENTS };
        let config = RouterConfig {
            // Besides the sessions' links the publisher's, and one of `catch_up`.
            max_connections: connections + 2,
            max_outgoing_packet_count: READ_COUNT,
            max_segment_size: WIDE_SEGMENT_SIZE,
            max_segment_count: WIDE_SEGMENTS,
            custom_segment: Some(HashMap::from([("appliance/+/in".to_owned(), inbox)])),
            // A publish that matches no filter would scan all of them.
            initialized_filters: Some(Route::wide()),
            ..RouterConfig::default()
        };
        let router = rumqttd::Router::new(0, config).spawn();
        let connect: Box<Connect> = Box::new(move |name| {
            let (tx, rx, _welcome) = LinkBuilder::new(name, router.clone()).build().map_err(|e| dead(&e))?;
            Ok((tx, rx))
        });
        let (publisher, publisher_rx) = connect("publisher")?;
        Ok(Self {
            connect,
            publisher,
            _publisher_rx: publisher_rx,
            subscribed: false,
            links: HashMap::new(),
            free: BTreeSet::new(),
            written: Route::wide().into_iter().map(|filter| (filter.into(), 0)).collect(),
        })
    }

    /// Counts a publish in the logs it goes to.
    fn count(&mut self, key: &Bytes) {
        let wide: &[u8] = if key.starts_with(b"appliance/") { b"appliance/#" } else { key };
        if let Some(count) = self.written.get_mut(wide) {
            *count += 1;
        }
        if wide != key
            && let Some(count) = self.written.get_mut(key)
        {
            *count += 1;
        }
    }

    /// Waits until the Router has taken all that was queued: it answers a new link after that.
    fn catch_up(&self) -> Result<(), RouterDead> {
        let (mut tx, _rx) = (self.connect)("catch-up")?;
        disconnect(&mut tx)
    }

    fn wait_for_room(&self) -> Result<(), RouterDead> {
        let since = Instant::now();
        while self.publisher.buffer().len() > MAX_BACKLOG {
            if since.elapsed() > STALLED_AFTER {
                return Err(RouterDead("it takes no messages".into()));
            }
            std::thread::sleep(Duration::from_micros(100));
        }
        Ok(())
    }
}

fn dead(error: &LinkError) -> RouterDead {
    RouterDead(error.to_string())
}

/// `LinkTx::send` is async by name only: it blocks while the router's queue is full and never waits otherwise.
/// The exchange's thread may block.
fn send(link: &mut LinkTx, packet: Packet) -> Result<(), RouterDead> {
    match poll_once(link.send(packet)) {
        Poll::Ready(Ok(_)) => Ok(()),
        Poll::Ready(Err(error)) => Err(dead(&error)),
        Poll::Pending => Err(RouterDead("its link waits".into())),
    }
}

fn disconnect(link: &mut LinkTx) -> Result<(), RouterDead> {
    let reason_code = DisconnectReasonCode::NormalDisconnection;
    send(link, Packet::Disconnect(Disconnect { reason_code }, None))
}

fn poll_once<F: Future>(future: F) -> Poll<F::Output> {
    pin!(future).poll(&mut Context::from_waker(Waker::noop()))
}

impl Router for Rumqttd {
    fn attach(&mut self) -> Result<(LinkId, Deliveries), RouterDead> {
        let link = self.free.pop_first().unwrap_or(LinkId(self.links.len()));
        let (tx, rx) = (self.connect)(&format!("link-{}", link.0))?;
        let starts: Arc<Starts> = Arc::new(std::array::from_fn(|_| AtomicU64::new(UNKNOWN)));
        self.links.insert(link, (tx, starts.clone()));
        Ok((link, Deliveries { rx, starts, expected: [None; LOGS], paused: false }))
    }

    fn subscribe(&mut self, link: LinkId, routes: &[Route]) -> Result<(), RouterDead> {
        let Some((tx, starts)) = self.links.get_mut(&link) else { return Ok(()) };
        for route in routes {
            let filter = Bytes::from(route.filter());
            let log = log_of(&filter);
            // A log begins with its first subscriber and stays.
            starts[log].store(*self.written.entry(filter).or_default(), Ordering::Release);
        }
        let filter = |route: &Route| Filter {
            path: route.filter(),
            qos: QoS::AtMostOnce,
            nolocal: false,
            preserve_retain: false,
            retain_forward_rule: RetainForwardRule::Never,
        };
        let filters: Vec<Filter> = routes.iter().map(filter).collect();
        if filters.is_empty() {
            return Ok(());
        }
        self.subscribed = true;
        send(tx, Packet::Subscribe(Subscribe { pkid: 1, filters }, None))
    }

    fn publish(&mut self, batch: &mut Vec<(Bytes, Message)>) -> Result<(), RouterDead> {
        if batch.is_empty() {
            return Ok(());
        }
        self.wait_for_room()?;
        if std::mem::take(&mut self.subscribed) {
            self.catch_up()?;
        }
        for (key, _) in batch.iter() {
            self.count(key);
        }
        let packet = |(key, message): (Bytes, Message)| {
            Packet::Publish(Publish::new(key, message.bytes().clone(), false), None)
        };
        let Some(last) = batch.pop() else { return Ok(()) };
        self.publisher.buffer().extend(batch.drain(..).map(packet));
        send(&mut self.publisher, packet(last))
    }

    fn detach(&mut self, link: LinkId) -> Result<(), RouterDead> {
        let Some((mut tx, _)) = self.links.remove(&link) else { return Ok(()) };
        disconnect(&mut tx)?;
        self.free.insert(link);
        Ok(())
    }
}

/// Why a link gives nothing any more.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum LinkEnd {
    /// The router is gone.
    Dead,
    /// Messages were dropped before this link read them.
    Lost,
}

/// What the router has for one link.
pub(crate) struct Deliveries {
    rx: LinkRx,
    starts: Arc<Starts>,
    /// Offset of the next message of each log, once one has come.
    expected: [Option<u64>; LOGS],
    paused: bool,
}

impl Deliveries {
    /// Waits for messages and adds up to about `max` of them. Nothing is lost when it is dropped half-way. Call
    /// [`Self::resume`] after it.
    pub(crate) async fn next(&mut self, max: usize, into: &mut Vec<Message>) -> Result<(), LinkEnd> {
        let first = self.rx.next().await.map_err(|_| LinkEnd::Dead)?;
        self.take(first, into)?;
        while into.len() < max {
            match poll_once(self.rx.next()) {
                Poll::Ready(Ok(next)) => self.take(next, into)?,
                Poll::Ready(Err(_)) => return Err(LinkEnd::Dead),
                Poll::Pending => break,
            }
        }
        Ok(())
    }

    /// Tells a router that paused this link to go on. To be awaited to its end, and never once the link's detach
    /// was asked for.
    pub(crate) async fn resume(&mut self) -> Result<(), LinkEnd> {
        if std::mem::take(&mut self.paused) {
            self.rx.wake().await.map_err(|_| LinkEnd::Dead)?;
        }
        Ok(())
    }

    fn take(&mut self, next: Option<Notification>, into: &mut Vec<Message>) -> Result<(), LinkEnd> {
        match next {
            Some(Notification::Forward(forward)) => {
                let log = log_of(&forward.publish.topic);
                let offset = forward.cursor.map(|(_, offset)| offset);
                let start = || Some(self.starts[log].load(Ordering::Acquire)).filter(|at| *at != UNKNOWN);
                if offset != self.expected[log].or_else(start) {
                    return Err(LinkEnd::Lost);
                }
                self.expected[log] = offset.map(|offset| offset + 1);
                into.extend(Message::from_bytes(forward.publish.payload));
                Ok(())
            }
            Some(Notification::Unschedule) => {
                self.paused = true;
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{Draft, Parts};

    fn message(payload: &[u8]) -> Message {
        let parts =
            Parts { sender: 0, qos: 0, retain: false, topic: "t", properties: &[], payload, expires_ms: 0 };
        Draft::new(&parts).stamp(1)
    }

    fn batch(key: &str, count: usize) -> Vec<(Bytes, Message)> {
        (0..count)
            .map(|n| (Bytes::copy_from_slice(key.as_bytes()), message(&(n as u64).to_be_bytes())))
            .collect()
    }

    async fn receive(deliveries: &mut Deliveries, count: usize) -> Result<Vec<Message>, LinkEnd> {
        let mut messages = Vec::new();
        while messages.len() < count {
            let next = deliveries.next(10_000, &mut messages);
            tokio::time::timeout(Duration::from_secs(20), next).await.expect("messages come")?;
            deliveries.resume().await?;
        }
        Ok(messages)
    }

    #[tokio::test]
    async fn a_link_gets_all_of_its_routes_in_order_and_nothing_else() {
        let mut router = Rumqttd::start(10).unwrap();
        let (link, mut deliveries) = router.attach().unwrap();
        router.subscribe(link, &[Route::Board]).unwrap();
        for _ in 0..20 {
            router.publish(&mut batch("order", 50)).unwrap();
            router.publish(&mut batch("board", 100)).unwrap();
        }
        let messages = receive(&mut deliveries, 2_000).await.unwrap();
        assert_eq!(messages.len(), 2_000);
        for (index, message) in messages.iter().enumerate() {
            assert_eq!(message.payload(), (index as u64 % 100).to_be_bytes());
        }
    }

    #[tokio::test]
    async fn what_is_published_after_a_subscription_comes_also_from_a_router_that_is_behind() {
        let mut router = Rumqttd::start(10).unwrap();
        for round in 0..50 {
            let (link, mut deliveries) = router.attach().unwrap();
            // The first keeps it busy, the second is what the last may be read along with.
            router.publish(&mut batch("server", 2_000)).unwrap();
            router.publish(&mut batch("server", 1)).unwrap();
            router.subscribe(link, &[Route::Board]).unwrap();
            router.publish(&mut batch("board", 1)).unwrap();
            let messages = receive(&mut deliveries, 1).await.unwrap();
            assert_eq!(messages.len(), 1, "round {round}");
            router.detach(link).unwrap();
        }
    }

    #[tokio::test]
    async fn a_link_that_reads_too_late_is_told_that_messages_are_missing() {
        let mut router = Rumqttd::start(10).unwrap();
        let (link, mut deliveries) = router.attach().unwrap();
        router.subscribe(link, &[Route::Board]).unwrap();
        let big = message(&[7; 64 * 1024]);
        for _ in 0..1_000 {
            router.publish(&mut vec![(Bytes::from_static(b"board"), big.clone())]).unwrap();
        }
        assert_eq!(receive(&mut deliveries, 1_000).await.unwrap_err(), LinkEnd::Lost);
    }

    #[tokio::test]
    async fn names_are_used_again_and_the_router_outlives_thousands_of_links() {
        let mut router = Rumqttd::start(10).unwrap();
        for _ in 0..2_000 {
            let (link, _deliveries) = router.attach().unwrap();
            assert!(link.0 < 2, "{link:?}");
            router.subscribe(link, &[Route::Server, Route::Appliances]).unwrap();
            router.publish(&mut batch("server", 1)).unwrap();
            router.detach(link).unwrap();
        }
        let (link, mut deliveries) = router.attach().unwrap();
        router.subscribe(link, &[Route::Server]).unwrap();
        router.publish(&mut batch("server", 3)).unwrap();
        assert_eq!(receive(&mut deliveries, 3).await.unwrap().len(), 3);
    }

    #[tokio::test]
    async fn a_router_whose_thread_panicked_is_noticed() {
        let mut router = Rumqttd::start(10).unwrap();
        let (link, mut deliveries) = router.attach().unwrap();
        // What sessions never do: go on after the detach. It ends the router's thread.
        router.detach(link).unwrap();
        deliveries.paused = true;
        deliveries.resume().await.unwrap();
        let noticed = (0..1_000_000).any(|_| router.publish(&mut batch("server", 1)).is_err());
        assert!(noticed);
        assert!(router.attach().is_err());
    }
}
