//! A scheduler inside a simulation: everything of it but the edges. Its disk, clock, ids and warehouses are the
//! simulation's, and what `link`, `background` and `timers` do at their own pace is done here when the simulation says so.
//! `cardshop sim` drives it; nothing here decides anything about orders.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use cardshop_protocol::ids::ApplianceId;
use cardshop_protocol::message::{Desired, Presence, StatusMessage, TimeMessage, VERSION};
use cardshop_protocol::time::Timestamp;
use cardshop_protocol::topic::Topic;

use super::ask::{Answering, Outside};
use super::clock::{Clock, Ids};
use super::inbox::Incoming;
use super::link::SESSIONS_PER_START;
use super::start::FirstLogin;
use crate::core::documents::{Applied, CardDocument, DesiredDocument};
use crate::core::order::Order;
use crate::core::rights::Principal;
use crate::core::units::Organization;
use crate::store::{Simulated, Store};
use crate::{Config, Scheduler, SchedulerError};

/// Jobs that a simulation runs at each look: those of the timers, but for backups and old history, which need a real disk
/// and years.
const JOBS: [&str; 6] = ["orders", "auto-images", "links", "warehouses", "keys", "old-documents"];

/// The world around a simulated scheduler. Clones are the same world; schedulers opened one after the other in it are one
/// that is restarted.
#[derive(Clone)]
pub struct Simulation {
    disk: Simulated,
    clock_ms: Arc<AtomicU64>,
    seed: u64,
    ids_made: Arc<AtomicU64>,
    warehouse: Arc<Answering>,
}

/// A message for the broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// Where.
    pub topic: String,
    /// What.
    pub payload: Vec<u8>,
    /// The broker keeps it.
    pub retain: bool,
}

/// What the scheduler has on its disk, for invariants.
#[derive(Debug)]
pub struct Truth {
    /// All orders.
    pub orders: Vec<Order>,
    /// What each appliance was told last.
    pub told: Vec<(ApplianceId, Desired)>,
    /// Who pays.
    pub organizations: Vec<Organization>,
    /// The last fact of each appliance that is stored.
    pub applied: BTreeMap<ApplianceId, u64>,
    /// Order and copy of every card on record, by its own identity.
    pub cards: BTreeMap<String, (cardshop_protocol::ids::OrderId, u32)>,
}

impl Simulation {
    /// A world with an empty disk.
    pub fn new(seed: u64, now: Timestamp, warehouse: Arc<Answering>) -> Self {
        Self {
            disk: Simulated::default(),
            clock_ms: Arc::new(AtomicU64::new(now.as_ms())),
            seed,
            ids_made: Arc::default(),
            warehouse,
        }
    }

    /// Another world that begins with what is on this one's disk.
    pub fn fork(&self, seed: u64, warehouse: Arc<Answering>) -> Self {
        let now = self.clock_ms.load(Ordering::Relaxed);
        let clock_ms = Arc::new(AtomicU64::new(now));
        Self { disk: self.disk.copy(), clock_ms, seed, ids_made: Arc::default(), warehouse }
    }

    /// Sets the scheduler's clock, forward or back.
    pub fn set_clock(&self, now: Timestamp) {
        self.clock_ms.store(now.as_ms(), Ordering::Relaxed);
    }

    /// The disk has no room, or has again.
    pub fn set_disk_full(&self, full: bool) {
        self.disk.set_full(full);
    }

    /// The machine stops at the command to the disk after so many; whether that one is still carried out. It has to be
    /// opened anew then.
    pub fn stop_in(&self, commands: u32, carried_out: bool) {
        self.disk.stop_in(commands, carried_out);
    }

    /// True when it has stopped.
    pub fn is_stopped(&self) -> bool {
        self.disk.is_stopped()
    }

    /// Counts what was changed on the disk: while it stays, nothing was.
    pub fn commands(&self) -> u64 {
        self.disk.commands()
    }

    /// Requests that run at the same time overtake each other as this seed says; 0 = not at all.
    pub fn interleave(&self, seed: u64) {
        self.disk.pause_by(seed);
    }
}

impl Scheduler {
    /// Opens the scheduler of a simulated world, as after a start of its process.
    ///
    /// # Errors
    /// As [`Scheduler::open`].
    pub async fn open_simulated(
        config: Config,
        world: &Simulation,
    ) -> Result<(Self, Option<FirstLogin>), SchedulerError> {
        world.disk.start();
        let clock = Clock::simulated(Arc::clone(&world.clock_ms));
        let ids = Ids::seeded(world.seed, Arc::clone(&world.ids_made));
        let disk = world.disk.clone();
        let open = move || Ok(Store::simulated(disk));
        Self::open_on(config, open, (clock, ids), Outside::Simulated(Arc::clone(&world.warehouse))).await
    }

    /// The will of a connection to the broker: its topic is the scheduler's status.
    pub fn simulated_will(&self, connection: u64) -> Published {
        self.status_for(Presence::Offline, connection)
    }

    fn status_for(&self, status: Presence, connection: u64) -> Published {
        let session = self.inner.start.load(Ordering::Acquire) * SESSIONS_PER_START + connection;
        let payload = serde_json::to_vec(&StatusMessage { v: VERSION, status, session });
        let payload = payload.expect("a message is plain JSON");
        Published { topic: Topic::ServerStatus.to_string(), payload, retain: true }
    }

    /// A connection to the broker was made, the so-manieth of this start.
    pub fn simulated_connected(&self, connection: u64) {
        let birth = self.status_for(Presence::Online, connection);
        self.greet_broker(&serde_json::from_slice(&birth.payload).expect("written above"));
    }

    /// What is to be published next, while there is a connection.
    pub fn simulated_publish(&self) -> Option<Published> {
        let due = self.inner.retained.take(self.leads())?;
        Some(Published { topic: due.topic, payload: due.payload, retain: due.retain })
    }

    /// The time, for whoever has no clock.
    pub fn simulated_time(&self) -> Published {
        let payload = serde_json::to_vec(&TimeMessage { v: VERSION, now: self.now() });
        let payload = payload.expect("a message is plain JSON");
        Published { topic: Topic::ServerTime.to_string(), payload, retain: false }
    }

    /// Takes a message of the broker. Those of one appliance must be given in their order.
    pub async fn simulated_message(&self, topic: String, payload: Vec<u8>, retained: bool) {
        self.take_message(Incoming { topic, payload, retained }).await;
    }

    /// What timers do each time they look.
    ///
    /// # Errors
    /// The first that failed; it runs again with the next look.
    pub async fn simulated_look(
        &self,
        presences: &mut BTreeMap<ApplianceId, Presence>,
    ) -> Result<(), SchedulerError> {
        let mut first = Ok(());
        for job in JOBS {
            first = first.and(self.work(job).await);
        }
        first.and(self.notice_silence(presences))
    }

    /// Plans leases anew when something asked for it since the last time; `again` = also when nothing did.
    pub async fn simulated_plan(&self, again: bool) {
        // Also when it is planned anyway: what was asked for until now is done with.
        let asked = pin!(self.inner.replan.notified()).as_mut().enable();
        if asked || again {
            self.plan_now().await;
        }
    }

    /// Everything that invariants are about.
    ///
    /// # Errors
    /// What the store gives.
    pub fn simulated_truth(&self) -> Result<Truth, SchedulerError> {
        let cards = self.all::<CardDocument>(None)?.into_iter().map(|card| card.record);
        Ok(Truth {
            orders: self.all::<Order>(None)?,
            told: self.all::<DesiredDocument>(None)?.into_iter().map(|d| (d.appliance, d.desired)).collect(),
            organizations: self.all::<Organization>(None)?,
            applied: self.all::<Applied>(None)?.into_iter().map(|a| (a.appliance, a.upto)).collect(),
            cards: cards.map(|card| (card.uid.to_string(), (card.order, card.copy))).collect(),
        })
    }

    /// One of the people of a simulation, as its access token would make it.
    pub fn simulated_person(
        name: &str,
        role: cardshop_protocol::token::Role,
        channels: Vec<cardshop_protocol::ids::Channel>,
    ) -> Principal {
        Principal {
            sub: name.to_owned(),
            role,
            channels,
            epoch: 0,
            rights: None,
            expires: u64::MAX,
            signed_by: None,
            address: "simulated".into(),
        }
    }
}
