//! The lines between the parties and the broker: how long a message is under way, and whether it arrives. A line keeps the
//! order of its messages, as TCP does; what is under way when it breaks is lost.

use super::broker::{Delivery, Message, Party};
use super::world::{Happening, World};

/// Longest until a side notices that a line is dead, milliseconds: one and a half keep-alives.
const NOTICED_MS: u64 = 45_000;

/// One party's line.
#[derive(Default)]
pub(super) struct Line {
    /// The session it believes to have.
    pub(super) session: Option<u64>,
    /// Nothing passes; counts the faults that say so.
    pub(super) cuts: u32,
    /// What was under way is lost, and what comes is too: a new session is needed.
    broken: bool,
    pub(super) late_ms: u64,
    pub(super) doubles: bool,
    pub(super) loses_facts: bool,
    /// When the last message each way arrives.
    last: [u64; 2],
}

impl World {
    pub(super) fn line(&mut self, who: Party) -> &mut Line {
        self.lines.entry(who).or_default()
    }

    /// When a message sent now arrives; `None` when it is lost.
    fn arrival(&mut self, who: Party, way: usize, message: &Message) -> Option<u64> {
        let (jitter, lost) = (self.wire.from(2..60), self.wire.percent(50));
        let now = self.now_ms;
        let line = self.line(who);
        let is_fact = message.topic.ends_with("/event") || message.topic.ends_with("/event/ack");
        let may_vanish = message.topic.ends_with("/progress") || message.topic.ends_with("/health");
        if line.broken || line.cuts > 0 || (line.loses_facts && lost && (is_fact || may_vanish)) {
            return None;
        }
        line.last[way] = line.last[way].max(now + jitter + line.late_ms);
        Some(line.last[way])
    }

    /// A party publishes.
    pub(super) fn publish(&mut self, from: Party, message: Message) {
        let Some(session) = self.line(from).session else { return };
        let Some(at) = self.arrival(from, 0, &message) else { return };
        let twice = self.line(from).doubles && self.wire.percent(50);
        for _ in 0..=usize::from(twice) {
            self.later(at, Happening::Arrives { from, session, message: message.clone() });
        }
    }

    /// A message reaches the broker.
    pub(super) fn arrives(&mut self, from: Party, session: u64, message: Message) {
        let deliveries = self.broker.publish(from, session, message);
        self.deliver(deliveries);
    }

    pub(super) fn deliver(&mut self, deliveries: Vec<Delivery>) {
        for Delivery { to, session, message } in deliveries {
            let Some(at) = self.arrival(to, 1, &message) else { continue };
            let twice = self.line(to).doubles && self.wire.percent(50);
            for _ in 0..=usize::from(twice) {
                self.later(at, Happening::Delivered { to, session, message: message.clone() });
            }
        }
    }

    /// A message comes out of the line.
    pub(super) fn delivered(&mut self, to: Party, session: u64, message: Message) {
        if self.line(to).session != Some(session) {
            return;
        }
        match to {
            Party::Centre => self.centre_hears(message),
            Party::Appliance(a) => self.agent_hears(a, &message),
        }
    }

    /// A party tries to reach the broker.
    pub(super) fn connect(&mut self, who: Party) {
        if self.line(who).session.is_some() || !self.is_running(who) {
            return;
        }
        if self.line(who).cuts > 0 || self.is_thrown_out(who) {
            let pause = self.wire.from(3_000..15_000);
            return self.after(pause, Happening::Connect(who));
        }
        let (claims, will, filters) = match who {
            Party::Centre => self.centre_introduces_itself(),
            Party::Appliance(a) => self.agent_introduces_itself(a),
        };
        let (session, deliveries) = self.broker.connect(who, claims, will, filters);
        let now = self.now_ms;
        let line = self.line(who);
        (line.session, line.broken, line.last) = (Some(session), false, [now; 2]);
        self.say(&format!("{who:?} is connected"));
        self.deliver(deliveries);
        match who {
            Party::Centre => self.centre_connected(),
            Party::Appliance(a) => self.agent_connected(a),
        }
    }

    /// The line breaks; each side notices in its own time.
    pub(super) fn break_line(&mut self, who: Party) {
        let Some(session) = self.line(who).session else { return };
        self.line(who).broken = true;
        let (own, brokers) = (self.wire.from(0..NOTICED_MS), self.wire.from(0..NOTICED_MS));
        self.after(own, Happening::NoticedByParty(who, session));
        self.after(brokers, Happening::NoticedByBroker(who, session));
    }

    /// The party's process has ended: the kernel tells the broker, unless the line is cut.
    pub(super) fn hang_up(&mut self, who: Party) {
        let Some(session) = self.line(who).session.take() else { return };
        let until = if self.line(who).cuts > 0 { NOTICED_MS } else { 20 };
        self.after(until, Happening::NoticedByBroker(who, session));
    }

    pub(super) fn noticed_by_party(&mut self, who: Party, session: u64) {
        if self.line(who).session != Some(session) {
            return;
        }
        self.line(who).session = None;
        if let Party::Appliance(a) = who {
            self.agent_disconnected(a);
        }
        let pause = self.wire.from(1_000..8_000);
        self.after(pause, Happening::Connect(who));
    }

    pub(super) fn noticed_by_broker(&mut self, who: Party, session: u64) {
        let deliveries = self.broker.end(who, Some(session), true);
        self.deliver(deliveries);
    }

    /// The broker's process starts anew: every line is gone at once.
    pub(super) fn broker_anew(&mut self, forgets: bool) {
        for who in self.broker.restart(forgets) {
            if let Some(session) = self.line(who).session {
                self.line(who).broken = true;
                self.noticed_by_party(who, session);
            }
        }
    }
}
