//! An appliance: the agent's real deciding core, with everything around it played. Its disk is the list of records it has
//! appended; its slots hold cards of `cards`; fetching and writing take simulated time.

use std::collections::{BTreeMap, BTreeSet};

use cardshop_agent::core::book::Book;
use cardshop_agent::core::history::{History, Record};
use cardshop_agent::core::{Effect, Event, Message as Told, Shop, SlotEvent};
use cardshop_protocol::ids::{ApplianceId, ImageId, SlotId};
use cardshop_protocol::keys::appliance_id;
use cardshop_protocol::message::{
    Ack, Command, CommandReply, Desired, Health, Info, Presence, SlotInfo, StatusMessage, TimeMessage,
    VERSION,
};
use cardshop_protocol::time::Timestamp;
use cardshop_protocol::token::{Claims, Role};
use cardshop_protocol::topic::{ApplianceTopic, Topic};
use ed25519_dalek::SigningKey;
use serde::Serialize;

use super::broker::{Message, Party, appliance_filters, claims};
use super::plants::Plant;
use super::world::{Happening, World};
use super::writing::Job;

/// A journal longer than this is compacted at an acknowledgement, records.
const COMPACT_ABOVE: usize = 60;
/// Differences of clocks that an agent does not mind, milliseconds. **Source:** `agent/src/effects/clock.rs`.
const TOLERANCE_MS: i64 = 5_000;
/// Connections of one start. **Source:** `agent/src/effects/mqtt.rs`.
const CONNECTIONS_PER_BOOT: u64 = 1 << 20;

/// What survives the end of the agent's process.
#[derive(Default)]
pub(super) struct Disk {
    pub(super) journal: Vec<Record>,
    desired: Option<Desired>,
    book: Book,
    /// How much of each image is here, of a hundred.
    pub(super) images: BTreeMap<ImageId, u64>,
    pub(super) full: u32,
}

/// The agent's process.
pub(super) struct Agent {
    pub(super) shop: Shop,
    pub(super) jobs: BTreeMap<SlotId, Job>,
    pub(super) fetching: BTreeSet<ImageId>,
}

/// One place for a card.
#[derive(Default, Clone, Copy)]
pub(super) struct Slot {
    pub(super) card: Option<usize>,
    /// Faults that unplug its reader, and that make it flip bits.
    pub(super) unplugged: u32,
    pub(super) bad: u32,
}

/// One appliance.
pub(super) struct Appliance {
    pub(super) id: ApplianceId,
    pub(super) key: SigningKey,
    pub(super) disk: Disk,
    pub(super) agent: Option<Agent>,
    /// Counts starts of the process: what was begun before concerns nobody.
    pub(super) life: u64,
    connections: u64,
    pub(super) slots: BTreeMap<SlotId, Slot>,
    /// Its own clock minus the world's, and what the server said on top.
    pub(super) clock_ms: i64,
    heard_ms: Option<i64>,
    /// It stays off.
    pub(super) off: u32,
    pub(super) thrown_out: u32,
    pub(super) fetch_cut: u32,
    pub(super) cache_full: u32,
    pub(super) lied_to: u32,
    /// The highest acknowledgement it has heard.
    pub(super) acked: u64,
}

impl Appliance {
    pub(super) fn new(number: usize, slots: u32) -> Self {
        let key = SigningKey::from_bytes(&[number as u8 + 1; 32]);
        Self {
            id: appliance_id(&key.verifying_key()),
            key,
            disk: Disk::default(),
            agent: None,
            life: 0,
            connections: 0,
            slots: (1..=slots).map(|n| (SlotId::numbered(n), Slot::default())).collect(),
            clock_ms: 0,
            heard_ms: None,
            off: 0,
            thrown_out: 0,
            fetch_cut: 0,
            cache_full: 0,
            lied_to: 0,
            acked: 0,
        }
    }

    /// What time it is here.
    pub(super) fn now(&self, world_ms: u64) -> Timestamp {
        let system = world_ms.saturating_add_signed(self.clock_ms);
        let offset = self.heard_ms.filter(|offset| offset.abs() > TOLERANCE_MS).unwrap_or(0);
        Timestamp::from_ms(system.saturating_add_signed(offset))
    }

    pub(super) fn history(&self) -> History {
        let mut history = History::default();
        self.disk.journal.iter().for_each(|record| history.apply(record));
        history
    }
}

impl World {
    pub(super) fn is_running(&self, who: Party) -> bool {
        match who {
            Party::Centre => self.centre.is_running(),
            Party::Appliance(a) => self.appliances[a].agent.is_some(),
        }
    }

    pub(super) fn is_thrown_out(&self, who: Party) -> bool {
        matches!(who, Party::Appliance(a) if self.appliances[a].thrown_out > 0)
    }

    /// The agent's process begins.
    pub(super) fn start_agent(&mut self, a: usize) {
        if self.appliances[a].agent.is_some() || self.appliances[a].off > 0 {
            return;
        }
        let appliance = &mut self.appliances[a];
        appliance.life += 1;
        appliance.connections = 0;
        appliance.heard_ms = None;
        let now = appliance.now(self.now_ms);
        let slots: Vec<SlotId> = appliance.slots.keys().cloned().collect();
        let mut effects = Vec::new();
        let mut shop = Shop::start(now, appliance.history(), &slots, &mut effects);
        shop.open_book(appliance.disk.book.clone(), false);
        appliance.agent = Some(Agent { shop, jobs: BTreeMap::new(), fetching: BTreeSet::new() });
        let life = appliance.life;
        self.say(&format!("a{a} starts for the {life}. time"));
        self.carry_out(a, effects);
        if let Some(desired) = self.appliances[a].disk.desired.clone() {
            self.tell_agent(a, Event::Desired(Box::new(desired)));
        }
        for slot in slots {
            self.look_at_slot(a, &slot);
        }
        self.after(500, Happening::Connect(Party::Appliance(a)));
    }

    /// What the readers' thread says of a slot.
    pub(super) fn look_at_slot(&mut self, a: usize, slot: &SlotId) {
        let place = self.appliances[a].slots[slot];
        let event = match place.card {
            _ if place.unplugged > 0 => SlotEvent::ReaderGone,
            Some(card) => SlotEvent::CardHere { size: self.cards[card].size },
            None => SlotEvent::CardGone,
        };
        self.tell_agent(a, Event::Slot { slot: slot.clone(), event });
    }

    /// The agent's process ends at once.
    pub(super) fn kill_agent(&mut self, a: usize, power: bool) {
        if self.appliances[a].agent.take().is_none() {
            return;
        }
        self.say(&format!("a{a} is gone{}", if power { ", with its power" } else { "" }));
        if power {
            // What was not synced may be lost, from the end.
            let journal = &mut self.appliances[a].disk.journal;
            let kept = |r: &Record| {
                matches!(r, Record::Fact { .. } | Record::Renumbered { .. } | Record::Snapshot(_))
            };
            while journal.last().is_some_and(|record| !kept(record)) && self.wire.percent(50) {
                journal.pop();
            }
        }
        if self.plant == Plant::ForgetfulDisk {
            self.appliances[a].disk.journal.pop();
        }
        self.hang_up(Party::Appliance(a));
        let pause = self.wire.from(1_000..20_000);
        self.after(pause, Happening::StartAgent(a));
    }

    pub(super) fn agent_introduces_itself(&mut self, a: usize) -> (Claims, Option<Message>, Vec<String>) {
        self.appliances[a].connections += 1;
        let id = self.appliances[a].id;
        let will = self.agent_status(a, Presence::Offline);
        (claims(&id.to_string(), Role::Appliance), Some(will), appliance_filters(id))
    }

    fn agent_status(&self, a: usize, status: Presence) -> Message {
        let appliance = &self.appliances[a];
        let boot = appliance.agent.as_ref().map_or(0, |agent| agent.shop.history().boot());
        let session = boot * CONNECTIONS_PER_BOOT + appliance.connections;
        self.of_agent(a, ApplianceTopic::Status, &StatusMessage { v: VERSION, status, session })
    }

    fn of_agent(&self, a: usize, topic: ApplianceTopic, message: &impl Serialize) -> Message {
        let payload = serde_json::to_vec(message).expect("plain data has a JSON form");
        let topic = Topic::Appliance(self.appliances[a].id, topic);
        Message { retain: topic.retained(), topic: topic.to_string(), payload }
    }

    fn publish_of_agent(&mut self, a: usize, topic: ApplianceTopic, message: &impl Serialize) {
        let message = self.of_agent(a, topic, message);
        self.publish(Party::Appliance(a), message);
    }

    pub(super) fn agent_connected(&mut self, a: usize) {
        let birth = self.agent_status(a, Presence::Online);
        self.publish(Party::Appliance(a), birth);
        let slots = self.appliances[a].slots.keys();
        let slots = slots.map(|slot| SlotInfo {
            slot: slot.clone(),
            port_path: format!("simulated/{slot}"),
            reader: "simulated reader".into(),
        });
        let info = Info {
            v: VERSION,
            agent_version: "simulated".into(),
            label: format!("a{a}"),
            hardware: Default::default(),
            slots: slots.collect(),
            names: BTreeMap::new(),
            capabilities: Vec::new(),
            system: None,
        };
        self.publish_of_agent(a, ApplianceTopic::Info, &info);
        self.tell_agent(a, Event::Connected);
    }

    pub(super) fn agent_disconnected(&mut self, a: usize) {
        self.tell_agent(a, Event::Disconnected);
    }

    /// Time passes for an agent; now and then it says that it is well.
    pub(super) fn tick_agent(&mut self, a: usize, healthy: bool) {
        self.tell_agent(a, Event::Tick);
        if healthy && self.appliances[a].agent.is_some() {
            let health = Health {
                v: VERSION,
                temperature_c: None,
                cache_used_bytes: 0,
                cache_free_bytes: 1,
                link_bps: 0,
                clock_offset_ms: self.appliances[a].heard_ms,
                uptime_s: 1,
            };
            self.publish_of_agent(a, ApplianceTopic::Health, &health);
        }
    }

    /// A message of the broker. **Source:** `agent/src/effects/mqtt.rs`.
    pub(super) fn agent_hears(&mut self, a: usize, message: &Message) {
        let Ok(topic) = message.topic.parse::<Topic>() else { return };
        let payload = &message.payload;
        let event = match topic {
            Topic::ServerTime => {
                let Ok(heard) = serde_json::from_slice::<TimeMessage>(payload) else { return };
                let appliance = &mut self.appliances[a];
                let system = self.now_ms.saturating_add_signed(appliance.clock_ms);
                appliance.heard_ms = Some(heard.now.as_ms() as i64 - system as i64);
                return;
            }
            Topic::Appliance(_, ApplianceTopic::Desired) => {
                serde_json::from_slice::<Desired>(payload).map(|desired| Event::Desired(Box::new(desired)))
            }
            Topic::Appliance(_, ApplianceTopic::EventAck) => {
                serde_json::from_slice::<Ack>(payload).map(|ack| Event::Acked(ack.upto))
            }
            Topic::Appliance(_, ApplianceTopic::Cmd) => {
                let received = self.appliances[a].now(self.now_ms);
                let command = serde_json::from_slice::<Command>(payload);
                command.map(|command| Event::Command { command, received })
            }
            _ => return,
        };
        match event {
            Ok(event) => self.tell_agent(a, event),
            Err(error) => self.fail(&format!("a{a} cannot read {}: {error}", message.topic)),
        }
    }

    /// Gives the agent an event and does what follows.
    pub(super) fn tell_agent(&mut self, a: usize, event: Event) {
        let world_ms = self.now_ms;
        let appliance = &mut self.appliances[a];
        let now = appliance.now(world_ms);
        let Some(agent) = &mut appliance.agent else { return };
        if let Event::Desired(desired) = &event {
            appliance.disk.desired = Some((**desired).clone());
        }
        if let Event::Slot { slot, event: SlotEvent::Ended { .. } } = &event {
            agent.jobs.remove(slot);
        }
        let acked = if let Event::Acked(upto) = &event { Some(*upto) } else { None };
        let mut effects = Vec::new();
        agent.shop.step(now, event, &mut effects);
        self.carry_out(a, effects);
        if let Some(upto) = acked {
            self.check_ack(a, upto);
            self.compact(a);
        }
    }

    fn compact(&mut self, a: usize) {
        let appliance = &mut self.appliances[a];
        let Some(agent) = &appliance.agent else { return };
        if appliance.disk.journal.len() > COMPACT_ABOVE {
            appliance.disk.journal = agent.shop.history().compacted();
        }
    }

    fn carry_out(&mut self, a: usize, effects: Vec<Effect>) {
        for effect in effects {
            if self.appliances[a].agent.is_none() {
                // It ended in the middle of this.
                return;
            }
            match effect {
                Effect::Append(record) => self.append(a, record),
                Effect::Show(slot, state) => {
                    self.check_shown(a, &slot, &state);
                    self.publish_of_agent(a, ApplianceTopic::SlotState(slot), &state);
                }
                Effect::Publish(message) => self.publish_told(a, message),
                Effect::Probe { slot, visit } => {
                    let (life, pause) = (self.appliances[a].life, self.wire.from(300..4_000));
                    self.after(pause, Happening::Probed { a, life, slot, visit });
                }
                Effect::Write { slot, job, work, again, .. } => self.begin_write(a, slot, job, *work, again),
                Effect::Stop { slot, job } => self.stop_write(a, slot, job),
                Effect::Fetch { image, .. } => self.begin_fetch(a, image),
                Effect::Abandon(image) => {
                    self.appliances[a].agent.iter_mut().for_each(|agent| {
                        agent.fetching.remove(&image);
                    });
                }
                Effect::ReplyLogs(id) => {
                    let reply = CommandReply { v: VERSION, id, ok: true, text: "quiet".into() };
                    self.publish_of_agent(a, ApplianceTopic::CmdReply, &reply);
                }
                Effect::KeepBook(book) => self.appliances[a].disk.book = *book,
                Effect::Forget(slot) => {
                    let topic = Topic::Appliance(self.appliances[a].id, ApplianceTopic::SlotState(slot));
                    let message = Message { topic: topic.to_string(), payload: Vec::new(), retain: true };
                    self.publish(Party::Appliance(a), message);
                }
                Effect::Tell(_)
                | Effect::Reboot
                | Effect::Update
                | Effect::SendSupport(_)
                | Effect::LogLevel(_) => {}
            }
        }
    }

    fn append(&mut self, a: usize, record: Record) {
        if self.appliances[a].disk.full > 0 && matches!(record, Record::Fact { .. }) {
            // Nothing may be called done that is not on record: the agent ends.
            self.say(&format!("a{a} cannot write a fact down"));
            return self.kill_agent(a, false);
        }
        self.check_record(a, &record);
        self.appliances[a].disk.journal.push(record);
    }

    fn publish_told(&mut self, a: usize, told: Told) {
        match told {
            Told::Progress(slot, progress) => {
                self.publish_of_agent(a, ApplianceTopic::SlotProgress(slot), &progress);
            }
            Told::Fact(fact) => self.publish_of_agent(a, ApplianceTopic::Event, &fact),
            Told::Reported(reported) => self.publish_of_agent(a, ApplianceTopic::Reported, &reported),
            Told::Reply(reply) => self.publish_of_agent(a, ApplianceTopic::CmdReply, &reply),
            Told::Alert { code, alert: Some(alert) } => {
                self.publish_of_agent(a, ApplianceTopic::Alert(code), &alert);
            }
            Told::Alert { code, alert: None } => {
                let topic = Topic::Appliance(self.appliances[a].id, ApplianceTopic::Alert(code));
                let message = Message { topic: topic.to_string(), payload: Vec::new(), retain: true };
                self.publish(Party::Appliance(a), message);
            }
        }
    }
}
