//! One thread that gives everything its order: publishes, subscriptions, links. It changes the retained picture
//! and tells the router in the same step, so that a new subscriber gets each retained message exactly once and
//! every later publish live. Sessions send it commands through a bounded queue and so wait when it is behind.
//!
//! ```text
//! sessions ──commands──▶ exchange ──▶ retained picture ──▶ store (disk)
//!     ▲                      └─────▶ Router ──deliveries──┐
//!     └───────────────────────────────────────────────────┘
//! ```

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{error, warn};

use crate::message::{Draft, Message};
use crate::pressure::Pressure;
use crate::retained::{PictureFull, Retained};
use crate::route::Route;
use crate::router::{Deliveries, LinkId, Router, RouterDead};
use crate::stats::{Counters, Refusal, count};
use crate::{now_ms, route};

/// Commands waiting for the exchange; a session that finds it full waits, and its client with it (TCP).
const MAX_COMMANDS: usize = 1_024;
/// Commands handled in one go: one wake-up of the router for that many publishes.
const BATCH: usize = 128;
/// An exchange that does not answer this long has a dead router under it.
const ANSWER_WITHIN: Duration = Duration::from_secs(15);

enum Command {
    Publish(Draft),
    Attach(oneshot::Sender<(LinkId, Deliveries)>),
    Subscribe { link: LinkId, routes: Vec<Route>, filters: Vec<String>, reply: oneshot::Sender<Subscribed> },
    Detach(LinkId),
    Stop,
}

/// The place of a subscription in the order of all messages.
pub(crate) struct Subscribed {
    /// Messages up to this one were published before it.
    pub(crate) since: u64,
    /// What was retained then, filter by filter.
    pub(crate) retained: Vec<Vec<Message>>,
}

/// The sessions' side.
#[derive(Clone)]
pub(crate) struct Exchange {
    commands: mpsc::Sender<Command>,
    dead: watch::Sender<Option<RouterDead>>,
}

impl Exchange {
    /// Starts the thread. `dead` is set when the router dies.
    pub(crate) fn start(
        router: Box<dyn Router>,
        retained: Retained,
        counters: Arc<Counters>,
        pressure: Arc<Pressure>,
        dead: watch::Sender<Option<RouterDead>>,
    ) -> std::io::Result<(Self, JoinHandle<()>)> {
        let (commands, inbox) = mpsc::channel(MAX_COMMANDS);
        let mut exchange =
            Thread { router, retained, counters, pressure, seq: 0, batch: Vec::with_capacity(BATCH), now_ms };
        exchange.counters.retained.store(exchange.retained.len() as u64, Ordering::Relaxed);
        let told = dead.clone();
        let thread = std::thread::Builder::new().name("exchange".into()).spawn(move || {
            if let Err(reason) = exchange.run(inbox) {
                error!(%reason, "the router died");
                told.send_replace(Some(reason));
            }
        })?;
        Ok((Self { commands, dead }, thread))
    }

    pub(crate) async fn publish(&self, draft: Draft) -> Result<(), RouterDead> {
        self.send(Command::Publish(draft)).await
    }

    pub(crate) async fn attach(&self) -> Result<(LinkId, Deliveries), RouterDead> {
        self.ask(Command::Attach).await
    }

    /// Adds `routes` to the link and gives what is retained for each of `filters`.
    pub(crate) async fn subscribe(
        &self,
        link: LinkId,
        routes: Vec<Route>,
        filters: Vec<String>,
    ) -> Result<Subscribed, RouterDead> {
        self.ask(|reply| Command::Subscribe { link, routes, filters, reply }).await
    }

    pub(crate) async fn detach(&self, link: LinkId) -> Result<(), RouterDead> {
        self.send(Command::Detach(link)).await
    }

    /// Ends the thread after all that was sent before.
    pub(crate) async fn stop(&self) {
        // An exchange that is gone has stopped.
        self.send(Command::Stop).await.ok();
    }

    /// A session saw that its link is dead.
    pub(crate) fn report_dead(&self) {
        self.dead.send_if_modified(|dead| {
            dead.is_none() && dead.replace(RouterDead("its links broke".into())).is_none()
        });
    }

    async fn send(&self, command: Command) -> Result<(), RouterDead> {
        self.commands.send(command).await.map_err(|_| self.gone())
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Result<T, RouterDead> {
        let (reply, answer) = oneshot::channel();
        self.send(command(reply)).await?;
        match tokio::time::timeout(ANSWER_WITHIN, answer).await {
            Ok(answer) => answer.map_err(|_| self.gone()),
            Err(_) => {
                let reason = RouterDead("it does not answer".into());
                self.dead.send_replace(Some(reason.clone()));
                Err(reason)
            }
        }
    }

    fn gone(&self) -> RouterDead {
        self.dead.borrow().clone().unwrap_or_else(|| RouterDead("it was stopped".into()))
    }
}

struct Thread {
    router: Box<dyn Router>,
    retained: Retained,
    counters: Arc<Counters>,
    pressure: Arc<Pressure>,
    seq: u64,
    batch: Vec<(Bytes, Message)>,
    now_ms: fn() -> u64,
}

impl Thread {
    fn run(&mut self, mut inbox: mpsc::Receiver<Command>) -> Result<(), RouterDead> {
        let mut commands = Vec::with_capacity(BATCH);
        while inbox.blocking_recv_many(&mut commands, BATCH) > 0 {
            for command in commands.drain(..) {
                match command {
                    Command::Publish(draft) => self.publish(draft),
                    Command::Stop => return self.flush(),
                    other => {
                        // What was published before a subscription is routed before it.
                        self.flush()?;
                        self.handle(other)?;
                    }
                }
            }
            self.flush()?;
        }
        Ok(())
    }

    fn publish(&mut self, draft: Draft) {
        self.seq += 1;
        let message = draft.stamp(self.seq);
        count(&self.counters.messages_in);
        if message.retain() {
            if let Err(PictureFull) = self.retained.set(&message) {
                warn!(
                    topic = message.topic(),
                    "the retained picture is full; the message is delivered, not kept"
                );
                self.counters.refuse(Refusal::RetainedFull);
            }
            self.counters.retained.store(self.retained.len() as u64, Ordering::Relaxed);
        }
        if let Some(key) = route::key_of(message.topic()) {
            if key.starts_with(b"appliance/") {
                self.pressure.written(self.seq);
            }
            self.batch.push((key, message));
        }
    }

    fn flush(&mut self) -> Result<(), RouterDead> {
        self.router.publish(&mut self.batch)
    }

    fn handle(&mut self, command: Command) -> Result<(), RouterDead> {
        match command {
            Command::Attach(reply) => {
                let (link, deliveries) = self.router.attach()?;
                if reply.send((link, deliveries)).is_err() {
                    self.router.detach(link)?;
                }
            }
            Command::Subscribe { link, routes, filters, reply } => {
                self.router.subscribe(link, &routes)?;
                let now_ms = (self.now_ms)();
                let retained = filters.iter().map(|filter| self.retained.matching(filter, now_ms)).collect();
                // A session that ended meanwhile detaches its link itself.
                reply.send(Subscribed { since: self.seq, retained }).ok();
            }
            Command::Detach(link) => self.router.detach(link)?,
            Command::Publish(_) | Command::Stop => {}
        }
        Ok(())
    }
}
