//! The centre: the real scheduler in a simulated world, started, killed and asked. Every question to it goes through
//! [`World::ask_centre`], which notices when its machine has stopped in the middle.

use std::collections::BTreeMap;
use std::future::Future;

use cardshop_protocol::ids::ApplianceId;
use cardshop_protocol::message::Presence;
use cardshop_protocol::time::Timestamp;
use cardshop_protocol::token::{Claims, Role};
use cardshop_scheduler::{Config, Keeping, Published, RootCerts, Scheduler, SchedulerError, Simulation};

use super::broker::{Message, Party, centre_filters, claims};
use super::images::WAREHOUSE;
use super::plants::Plant;
use super::world::{Happening, World};

/// The scheduler, while it runs, and what it runs in.
pub(super) struct Centre {
    pub(super) world: Simulation,
    pub(super) scheduler: Option<Scheduler>,
    runtime: tokio::runtime::Runtime,
    config: Config,
    presences: BTreeMap<ApplianceId, Presence>,
    connection: u64,
    pub(super) clock_s: i64,
    /// Faults that fill its disk.
    pub(super) full: u32,
    looks: u64,
}

/// How the scheduler of a simulation is set up: nothing of it is ever reached.
pub(super) fn config(data: &std::path::Path) -> Config {
    Config {
        data: data.to_owned(),
        public_url: "http://scheduler.example".into(),
        mqtt_url: "mqtt://127.0.0.1:1".into(),
        mqtt_ca: None,
        appliance_mqtt_url: None,
        own_ca: None,
        roots: RootCerts::WebPki,
        warehouses: vec![WAREHOUSE.into()],
        admin_password: Some("simulated password".into()),
        catalogue: cardshop_scheduler::CatalogueConfig::default(),
        keeping: Keeping { backups: 0, ..Keeping::default() },
        notify: Default::default(),
    }
}

/// One thread: what happens at the same time takes turns as the seed says.
pub(super) fn runtime() -> tokio::runtime::Runtime {
    let built = tokio::runtime::Builder::new_current_thread().enable_time().build();
    built.expect("a runtime without sockets can be made")
}

impl Centre {
    pub(super) fn new(world: Simulation, data: &std::path::Path) -> Self {
        Self {
            world,
            scheduler: None,
            runtime: runtime(),
            config: config(data),
            presences: BTreeMap::new(),
            connection: 0,
            clock_s: 0,
            full: 0,
            looks: 0,
        }
    }

    pub(super) fn is_running(&self) -> bool {
        self.scheduler.is_some()
    }
}

fn message(published: Published) -> Message {
    Message { topic: published.topic, payload: published.payload, retain: published.retain }
}

impl World {
    fn set_centre_clock(&self) {
        let now_ms = self.now_ms.saturating_add_signed(self.centre.clock_s * 1000);
        self.centre.world.set_clock(Timestamp::from_ms(now_ms));
    }

    /// The scheduler's process begins.
    pub(super) fn start_centre(&mut self) {
        if self.centre.is_running() {
            return;
        }
        self.set_centre_clock();
        let Centre { world, runtime, config, .. } = &self.centre;
        match runtime.block_on(Scheduler::open_simulated(config.clone(), world)) {
            Ok((scheduler, _)) => {
                self.centre.scheduler = Some(scheduler);
                self.centre.presences.clear();
                self.centre.connection = 0;
                self.say("the scheduler starts");
                self.after(200, Happening::Connect(Party::Centre));
                self.plan(true);
            }
            Err(error) => {
                self.say(&format!("the scheduler does not start: {error}"));
                self.after(10_000, Happening::StartCentre);
            }
        }
    }

    /// The scheduler's process ends at once.
    pub(super) fn kill_centre(&mut self) {
        if self.centre.scheduler.take().is_none() {
            return;
        }
        self.say("the scheduler is gone");
        self.hang_up(Party::Centre);
        let pause = self.wire.from(2_000..60_000);
        self.after(pause, Happening::StartCentre);
    }

    /// Asks the scheduler something; `None` while it is not running. Plans, publishes and checks what came of it.
    pub(super) fn ask_centre<T, F>(&mut self, what: impl FnOnce(Scheduler) -> F) -> Option<T>
    where
        F: Future<Output = T>,
    {
        let scheduler = self.centre.scheduler.clone()?;
        self.set_centre_clock();
        let answer = self.centre.runtime.block_on(what(scheduler));
        self.plan(false);
        Some(answer)
    }

    /// Says what was refused; `None` for an answer that is not known, because the machine stopped.
    pub(super) fn heard<T>(&mut self, what: &str, answer: Option<Result<T, SchedulerError>>) -> Option<T> {
        match answer? {
            Ok(value) => Some(value),
            Err(error) => {
                self.say(&format!("{what}: {error}"));
                None
            }
        }
    }

    fn plan(&mut self, again: bool) {
        let Some(scheduler) = self.centre.scheduler.clone() else { return };
        self.centre.runtime.block_on(scheduler.simulated_plan(again));
        // What a plan changes may ask for another one.
        self.centre.runtime.block_on(scheduler.simulated_plan(false));
        drop(scheduler);
        if self.centre.world.is_stopped() {
            self.say("the scheduler's machine stops");
            return self.kill_centre();
        }
        self.check_truth();
        self.publish_of_centre();
    }

    fn publish_of_centre(&mut self) {
        while self.line(Party::Centre).session.is_some() {
            let Some(published) = self.centre.scheduler.as_ref().and_then(Scheduler::simulated_publish)
            else {
                return;
            };
            self.publish(Party::Centre, message(published));
        }
    }

    pub(super) fn centre_introduces_itself(&mut self) -> (Claims, Option<Message>, Vec<String>) {
        self.centre.connection += 1;
        let connection = self.centre.connection;
        let will = self.centre.scheduler.as_ref().map(|s| message(s.simulated_will(connection)));
        (claims("scheduler", Role::Scheduler), will, centre_filters())
    }

    pub(super) fn centre_connected(&mut self) {
        let connection = self.centre.connection;
        if let Some(scheduler) = &self.centre.scheduler {
            scheduler.simulated_connected(connection);
        }
        self.publish_of_centre();
    }

    pub(super) fn centre_hears(&mut self, heard: Message) {
        let is_fact = heard.topic.ends_with("/event");
        if is_fact {
            self.facts_heard += 1;
            match self.plant {
                Plant::LosesAFact(n) if n == self.facts_heard => return self.acknowledge_unstored(&heard),
                Plant::CountsTwice(n) if n <= self.facts_heard => {
                    if let Some(twice) = super::plants::another_card(&heard) {
                        self.plant = Plant::None;
                        self.hear(twice);
                    }
                }
                _ => {}
            }
        }
        self.hear(heard);
    }

    fn hear(&mut self, heard: Message) {
        // Of progress and health nothing follows that could be planned.
        let Message { topic, payload, retain } = heard;
        self.ask_centre(|s| async move { s.simulated_message(topic, payload, retain).await });
    }

    /// A fault of ours: says that a fact is stored and throws it away.
    fn acknowledge_unstored(&mut self, fact: &Message) {
        let Ok(event) = serde_json::from_slice::<cardshop_protocol::message::Event>(&fact.payload) else {
            return;
        };
        let topic = format!("{}/ack", fact.topic);
        let payload = format!("{{\"v\":1,\"upto\":{}}}", event.n).into_bytes();
        self.publish(Party::Centre, Message { topic, payload, retain: true });
    }

    /// The scheduler's timers.
    pub(super) fn look(&mut self) {
        self.centre.world.set_disk_full(self.centre.full > 0);
        let mut presences = std::mem::take(&mut self.centre.presences);
        let looked = self.ask_centre(|scheduler| async move {
            let looked = scheduler.simulated_look(&mut presences).await;
            (looked, presences)
        });
        let Some((looked, presences)) = looked else { return };
        self.centre.presences = presences;
        self.heard("timers", Some(looked));
        self.centre.looks += 1;
        if self.centre.looks.is_multiple_of(6) {
            self.plan(true);
            if let Some(time) = self.centre.scheduler.as_ref().map(Scheduler::simulated_time) {
                self.publish(Party::Centre, message(time));
            }
        }
    }
}
