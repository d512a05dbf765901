//! One appliance of a load: a client of the broker that shows its slots, takes its leases and tells the facts of the cards
//! it would have written, in order, again until they are stored. No card and no image is touched.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use cardshop_card::StopFlag;
use cardshop_protocol::api::CardRecord;
use cardshop_protocol::ids::{ObjectId, OrderId, SlotId, TaskId};
use cardshop_protocol::led::{Overlay, led};
use cardshop_protocol::message::{
    Ack, Desired, Event as NumberedFact, Fact, Info, Lease, Presence, Progress, SlotInfo, SlotState,
    SlotStatus, StatusMessage, VERSION, WritePhase,
};
use cardshop_protocol::time::Timestamp;
use cardshop_protocol::topic::{ApplianceTopic, Topic};
use rumqttc::{AsyncClient, Event, EventLoop, LastWill, MqttOptions, Packet, QoS};
use serde::Serialize;

use super::Counters;
use super::enrol::Member;
use super::watch::Sent;

/// Packets of `desired` have up to 64 KiB.
const MAX_PACKET: usize = 80 * 1024;
/// Messages that may wait to be sent.
const QUEUE: usize = 256;
/// Facts under way without acknowledgement, and how long until they are told again.
const WINDOW: usize = 32;
const TELL_AGAIN: Duration = Duration::from_secs(10);
/// A fact of a card is told with every so-manieth state.
const STATES_PER_FACT: u64 = 4;
/// What a slot shows, one after the other.
const FACES: [SlotStatus; 4] =
    [SlotStatus::Checking, SlotStatus::Writing, SlotStatus::Verifying, SlotStatus::Done];

/// What one of them needs.
pub(super) struct Part {
    pub(super) member: Member,
    pub(super) broker: (String, u16),
    pub(super) slots: u32,
    /// From one state of a slot to its next.
    pub(super) pace: Duration,
    pub(super) begins_in: Duration,
    pub(super) counters: Arc<Counters>,
    pub(super) sent: Sent,
    pub(super) ended: StopFlag,
}

struct Appliance {
    part: Part,
    client: AsyncClient,
    connected: bool,
    /// Counts states, over all slots.
    n: u64,
    /// Facts that are not stored, the first with number `first`.
    facts: VecDeque<NumberedFact>,
    first: u64,
    told: tokio::time::Instant,
    /// Copies that were told of.
    done: BTreeSet<(OrderId, u32)>,
    work: VecDeque<(Lease, u32)>,
}

/// Plays it until the load has ended and its facts are stored.
pub(super) async fn run(part: Part) {
    tokio::time::sleep(part.begins_in).await;
    let id = part.member.id.to_string();
    let mut options = MqttOptions::new(&id, &part.broker.0, part.broker.1);
    options.set_credentials(&id, &part.member.token).set_keep_alive(Duration::from_secs(60));
    options.set_max_packet_size(MAX_PACKET, MAX_PACKET);
    let will = serde_json::to_vec(&status(Presence::Offline)).expect("plain data has a JSON form");
    let topic = Topic::Appliance(part.member.id, ApplianceTopic::Status).to_string();
    options.set_last_will(LastWill::new(topic, will, QoS::AtLeastOnce, true));
    let (client, events) = AsyncClient::new(options, QUEUE);
    let told = tokio::time::Instant::now();
    let appliance = Appliance {
        part,
        client,
        connected: false,
        n: 0,
        facts: VecDeque::new(),
        first: 1,
        told,
        done: BTreeSet::new(),
        work: VecDeque::new(),
    };
    appliance.play(events).await;
}

fn status(status: Presence) -> StatusMessage {
    StatusMessage { v: VERSION, status, session: 1 }
}

fn now() -> Timestamp {
    Timestamp::from_system(SystemTime::now())
}

impl Appliance {
    async fn play(mut self, mut events: EventLoop) {
        let slots = self.part.slots.max(1);
        let mut turn = tokio::time::interval(self.part.pace / slots);
        turn.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut given_up = None;
        loop {
            tokio::select! {
                event = events.poll() => match event {
                    Ok(Event::Incoming(packet)) => self.take(packet),
                    Ok(Event::Outgoing(_)) => {}
                    Err(error) => {
                        tracing::debug!(%error, "an appliance of the load has no line");
                        self.connected = false;
                        tokio::time::sleep(Duration::from_secs(1)).await;
                    }
                },
                _ = turn.tick(), if self.connected => {
                    if self.part.ended.is_stopped() {
                        let until = *given_up.get_or_insert(tokio::time::Instant::now() + super::LAST_WORDS);
                        if self.facts.is_empty() || tokio::time::Instant::now() > until {
                            return;
                        }
                    } else {
                        self.next_state();
                    }
                    self.tell_again();
                }
            }
            if self.part.ended.is_stopped() && !self.connected {
                return;
            }
        }
    }

    fn publish(&self, topic: ApplianceTopic, message: &impl Serialize) {
        let qos =
            if matches!(topic, ApplianceTopic::SlotProgress(_)) { QoS::AtMostOnce } else { QoS::AtLeastOnce };
        let topic = Topic::Appliance(self.part.member.id, topic);
        let payload = serde_json::to_vec(message).expect("plain data has a JSON form");
        // Full only when the broker does not keep up; then there is less load.
        let _ = self.client.try_publish(topic.to_string(), qos, topic.retained(), payload);
    }

    fn take(&mut self, packet: Packet) {
        match packet {
            Packet::ConnAck(_) => self.begin(),
            Packet::Publish(publish) => match publish.topic.parse::<Topic>() {
                Ok(Topic::Appliance(_, ApplianceTopic::Desired)) => {
                    if let Ok(desired) = serde_json::from_slice::<Desired>(&publish.payload) {
                        self.lease(&desired);
                    }
                }
                Ok(Topic::Appliance(_, ApplianceTopic::EventAck)) => {
                    if let Ok(ack) = serde_json::from_slice::<Ack>(&publish.payload) {
                        self.stored(ack.upto);
                    }
                }
                _ => {}
            },
            _ => {}
        }
    }

    fn begin(&mut self) {
        if !self.connected {
            self.part.counters.connected.fetch_add(1, Ordering::Relaxed);
        }
        self.connected = true;
        self.publish(ApplianceTopic::Status, &status(Presence::Online));
        let slots = (1..=self.part.slots).map(SlotId::numbered).map(|slot| SlotInfo {
            port_path: format!("load/{slot}"),
            reader: "load".into(),
            slot,
        });
        let info = Info {
            v: VERSION,
            agent_version: "load".into(),
            label: String::new(),
            hardware: Default::default(),
            slots: slots.collect(),
            names: Default::default(),
            capabilities: Vec::new(),
            system: None,
        };
        self.publish(ApplianceTopic::Info, &info);
        for topic in [ApplianceTopic::Desired, ApplianceTopic::EventAck] {
            let topic = Topic::Appliance(self.part.member.id, topic).to_string();
            let _ = self.client.try_subscribe(topic, QoS::AtLeastOnce);
        }
    }

    /// What a lease asks for and was not told of.
    fn lease(&mut self, desired: &Desired) {
        for lease in &desired.leases {
            for copy in lease.copies.first..=lease.copies.last {
                if !lease.done.contains(&copy) && self.done.insert((lease.order, copy)) {
                    self.work.push_back((lease.clone(), copy));
                }
            }
        }
    }

    fn next_state(&mut self) {
        self.n += 1;
        let slot = SlotId::numbered((self.n % u64::from(self.part.slots)) as u32 + 1);
        let face = FACES[(self.n / u64::from(self.part.slots)) as usize % FACES.len()];
        let state = SlotState {
            v: VERSION,
            boot: 1,
            n: self.n,
            state: face,
            led: led(face, Overlay::None),
            card: None,
            task: None,
            image: None,
            copy: None,
            total: None,
            sentence: None,
            fault: None,
            since: now(),
        };
        self.part.sent.note(self.part.member.id, &slot, self.n);
        self.publish(ApplianceTopic::SlotState(slot.clone()), &state);
        self.part.counters.states.fetch_add(1, Ordering::Relaxed);
        if matches!(face, SlotStatus::Writing | SlotStatus::Verifying) {
            let phase = if face == SlotStatus::Writing { WritePhase::Writing } else { WritePhase::Verifying };
            let progress = Progress { v: VERSION, phase, done: 1, total: 2, rate_bps: 1, eta_s: None };
            self.publish(ApplianceTopic::SlotProgress(slot.clone()), &progress);
            self.part.counters.progress.fetch_add(1, Ordering::Relaxed);
        }
        if self.n.is_multiple_of(STATES_PER_FACT) && self.facts.len() + 2 <= WINDOW {
            self.next_card(slot);
        }
    }

    /// A card is begun and verified.
    fn next_card(&mut self, slot: SlotId) {
        let Some((lease, copy)) = self.work.pop_front() else { return };
        let task = TaskId::write(lease.order, copy);
        let begun = Fact::WriteStarted {
            task,
            lease: lease.lease,
            slot: slot.clone(),
            card_size: lease.min_card_bytes,
        };
        self.tell(begun);
        let record = CardRecord {
            uid: ObjectId::from_parts(now().as_ms(), fastrand::u128(..)),
            order: lease.order,
            copy,
            total: lease.total,
            lease: lease.lease,
            image: lease.image,
            card_size: lease.min_card_bytes,
            cid: None,
            appliance: self.part.member.id,
            slot,
            reader: "load".into(),
            written_bytes: lease.min_card_bytes,
            verified_bytes: lease.min_card_bytes,
            write_bps: 1,
            verify_bps: 1,
            started: now(),
            finished: now(),
            passport: None,
        };
        self.tell(Fact::CardVerified { lease: lease.lease, record: Box::new(record) });
        self.part.counters.cards.fetch_add(1, Ordering::Relaxed);
    }

    fn tell(&mut self, fact: Fact) {
        let event = NumberedFact { v: VERSION, n: self.first + self.facts.len() as u64, at: now(), fact };
        self.publish(ApplianceTopic::Event, &event);
        self.part.counters.facts.fetch_add(1, Ordering::Relaxed);
        self.facts.push_back(event);
        self.told = tokio::time::Instant::now();
    }

    fn tell_again(&mut self) {
        if !self.facts.is_empty() && self.told.elapsed() > TELL_AGAIN {
            self.facts.iter().for_each(|event| self.publish(ApplianceTopic::Event, event));
            self.told = tokio::time::Instant::now();
        }
    }

    fn stored(&mut self, upto: u64) {
        while self.first <= upto && self.facts.pop_front().is_some() {
            self.first += 1;
            self.part.counters.facts_stored.fetch_add(1, Ordering::Relaxed);
        }
    }
}
