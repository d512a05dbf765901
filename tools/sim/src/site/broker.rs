//! The broker's contract without sockets: sessions with wills, retained messages, rights by the real tables. What is
//! published is given to whoever it is for at once; how long it is under way, and whether it arrives, is the world's.

use std::collections::BTreeMap;

use cardshop_broker::questions::{matches, may_publish, may_subscribe};
use cardshop_protocol::ids::ApplianceId;
use cardshop_protocol::token::{Claims, ISSUER, Role};
use cardshop_protocol::topic::PREFIX;

/// Somebody on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Party {
    /// The scheduler.
    Centre,
    /// The appliance with this number.
    Appliance(usize),
}

/// A message on the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) topic: String,
    pub(super) payload: Vec<u8>,
    pub(super) retain: bool,
}

/// A message for a session.
#[derive(Debug, Clone)]
pub(super) struct Delivery {
    pub(super) to: Party,
    pub(super) session: u64,
    pub(super) message: Message,
}

struct Session {
    number: u64,
    claims: Claims,
    filters: Vec<String>,
    will: Option<Message>,
}

/// All sessions, and what is retained.
#[derive(Default)]
pub(super) struct Broker {
    sessions: BTreeMap<Party, Session>,
    retained: BTreeMap<String, Vec<u8>>,
    last_session: u64,
    /// Publishes that the rights refused.
    pub(super) refused: u64,
}

/// What somebody's token says.
pub(super) fn claims(name: &str, role: Role) -> Claims {
    Claims {
        iss: ISSUER.into(),
        sub: name.into(),
        role,
        channel: Vec::new(),
        scope: None,
        epoch: 0,
        jti: String::new(),
        iat: 0,
        exp: u64::MAX,
        signed_by: None,
    }
}

/// What the scheduler listens to. **Source:** `scheduler/src/effects/link.rs`.
pub(super) fn centre_filters() -> Vec<String> {
    ["status", "info", "health", "reported", "slot/#", "event", "alert/+", "cmd/reply"]
        .map(|below| format!("{PREFIX}appliance/+/{below}"))
        .into()
}

/// What an appliance listens to. **Source:** `agent/src/effects/mqtt.rs`.
pub(super) fn appliance_filters(id: ApplianceId) -> Vec<String> {
    let own = ["desired", "event/ack", "cmd"].map(|below| format!("{PREFIX}appliance/{id}/{below}"));
    own.into_iter().chain([format!("{PREFIX}server/#")]).collect()
}

impl Broker {
    /// A session begins, in place of an earlier one of the same client, whose will is then published. Gives its number.
    pub(super) fn connect(
        &mut self,
        who: Party,
        claims: Claims,
        will: Option<Message>,
        filters: Vec<String>,
    ) -> (u64, Vec<Delivery>) {
        let mut out = self.end(who, None, true);
        self.last_session += 1;
        let number = self.last_session;
        let filters: Vec<String> = filters.into_iter().filter(|f| may_subscribe(&claims, f)).collect();
        let will = will.filter(|will| may_publish(&claims, &will.topic, will.retain));
        for (topic, payload) in &self.retained {
            if filters.iter().any(|filter| matches(filter, topic)) {
                let message = Message { topic: topic.clone(), payload: payload.clone(), retain: true };
                out.push(Delivery { to: who, session: number, message });
            }
        }
        self.sessions.insert(who, Session { number, claims, filters, will });
        (number, out)
    }

    /// True while this is the client's session.
    pub(super) fn is_live(&self, who: Party, number: u64) -> bool {
        self.sessions.get(&who).is_some_and(|session| session.number == number)
    }

    /// A session publishes; nothing when it has ended, or may not.
    pub(super) fn publish(&mut self, who: Party, number: u64, message: Message) -> Vec<Delivery> {
        if !self.is_live(who, number) {
            return Vec::new();
        }
        if !may_publish(&self.sessions[&who].claims, &message.topic, message.retain) {
            self.refused += 1;
            return Vec::new();
        }
        self.pass_on(message)
    }

    fn pass_on(&mut self, message: Message) -> Vec<Delivery> {
        if message.retain {
            if message.payload.is_empty() {
                self.retained.remove(&message.topic);
            } else {
                self.retained.insert(message.topic.clone(), message.payload.clone());
            }
        }
        let live = Message { retain: false, ..message };
        let hears = |session: &Session| session.filters.iter().any(|filter| matches(filter, &live.topic));
        let those = self.sessions.iter().filter(|(_, session)| hears(session));
        those
            .map(|(to, session)| Delivery { to: *to, session: session.number, message: live.clone() })
            .collect()
    }

    /// A session ends; its will is published unless it said goodbye. `number` = only when it is still that one.
    pub(super) fn end(&mut self, who: Party, number: Option<u64>, with_will: bool) -> Vec<Delivery> {
        if number.is_some_and(|number| !self.is_live(who, number)) {
            return Vec::new();
        }
        let will = self.sessions.remove(&who).and_then(|session| session.will).filter(|_| with_will);
        will.map(|will| self.pass_on(will)).unwrap_or_default()
    }

    /// The broker starts anew, perhaps without what it kept. Gives who was connected.
    pub(super) fn restart(&mut self, forgets: bool) -> Vec<Party> {
        if forgets {
            self.retained.clear();
        }
        std::mem::take(&mut self.sessions).into_keys().collect()
    }

    /// What is retained at a topic.
    pub(super) fn retained(&self, topic: &str) -> Option<&[u8]> {
        self.retained.get(topic).map(Vec::as_slice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(topic: &str, text: &str) -> Message {
        Message { topic: topic.into(), payload: text.into(), retain: true }
    }

    #[test]
    fn rights_wills_and_retained_messages_are_those_of_the_contract() {
        let id = ApplianceId([1; 8]);
        let (a, status) = (Party::Appliance(0), format!("{PREFIX}appliance/{id}/status"));
        let (desired, other) =
            (format!("{PREFIX}appliance/{id}/desired"), format!("{PREFIX}appliance/0000/desired"));
        let mut broker = Broker::default();
        let (centre, _) =
            broker.connect(Party::Centre, claims("scheduler", Role::Scheduler), None, centre_filters());
        assert!(broker.publish(Party::Centre, centre, message(&desired, "1")).is_empty());
        let own = claims(&id.to_string(), Role::Appliance);
        let filters = [appliance_filters(id), vec!["#".into(), other.clone()]].concat();
        let (session, given) = broker.connect(a, own.clone(), Some(message(&status, "gone")), filters);
        assert_eq!(given.len(), 1, "its desired state, and nothing of others: {given:?}");
        assert!(broker.publish(a, session, message(&desired, "mine")).is_empty());
        assert_eq!((broker.refused, broker.retained(&desired)), (1, Some(&b"1"[..])));
        assert_eq!(broker.publish(a, session, message(&status, "here")).len(), 1);
        let (_, given) = broker.connect(a, own, None, Vec::new());
        assert!(given.iter().any(|d| d.to == Party::Centre && d.message.payload == b"gone"), "taken over");
        assert!(broker.publish(a, session, message(&status, "late")).is_empty());
        assert_eq!(broker.restart(true).len(), 2);
        assert_eq!(broker.retained(&desired), None);
    }
}
