//! The filters of one client and what they make of a message. Pure.

use std::collections::HashMap;

use crate::filter;
use crate::message::Message;

/// How one filter is served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Subscription {
    /// Granted, 0 or 1.
    pub(crate) qos: u8,
    /// Not to who published it (MQTT 5).
    pub(crate) no_local: bool,
    /// The retain flag travels on (MQTT 5).
    pub(crate) retain_as_published: bool,
    /// Comes with what matches (MQTT 5).
    pub(crate) id: Option<u32>,
    /// It matches topics the client may not read: each is asked for.
    pub(crate) each_message: bool,
    /// Messages up to this one were published before it.
    pub(crate) since: u64,
}

/// How a message is to be delivered.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Found {
    /// The highest of all filters that match, but never above the message's own (MQTT §3.3.5).
    pub(crate) qos: u8,
    pub(crate) retain_as_published: bool,
    pub(crate) subscription_ids: Vec<u32>,
}

/// All filters of one client.
#[derive(Default)]
pub(crate) struct Subscriptions {
    exact: HashMap<String, Subscription>,
    wild: Vec<(String, Subscription)>,
}

impl Subscriptions {
    pub(crate) fn len(&self) -> usize {
        self.exact.len() + self.wild.len()
    }

    pub(crate) fn contains(&self, filter: &str) -> bool {
        self.exact.contains_key(filter) || self.wild.iter().any(|(known, _)| known == filter)
    }

    /// Adds or replaces. A replaced one keeps its place in the order: what was on its way to it still comes.
    pub(crate) fn add(&mut self, filter: String, mut subscription: Subscription) {
        if !filter::is_wild(&filter) {
            if let Some(old) = self.exact.get(&filter) {
                subscription.since = old.since;
            }
            self.exact.insert(filter, subscription);
        } else if let Some((_, old)) = self.wild.iter_mut().find(|(known, _)| *known == filter) {
            subscription.since = old.since;
            *old = subscription;
        } else {
            self.wild.push((filter, subscription));
        }
    }

    /// False when there was none.
    pub(crate) fn remove(&mut self, filter: &str) -> bool {
        let before = self.len();
        self.exact.remove(filter);
        self.wild.retain(|(known, _)| known != filter);
        self.len() < before
    }

    /// How `message` is delivered to the client `me`; `None` when no filter matches. Once, however many match.
    pub(crate) fn find(&self, message: &Message, me: u64, may_read: &dyn Fn(&str) -> bool) -> Option<Found> {
        let topic = message.topic();
        let wild = self.wild.iter().filter(|(filter, _)| filter::matches(filter, topic));
        let mut found: Option<Found> = None;
        for subscription in self.exact.get(topic).into_iter().chain(wild.map(|(_, s)| s)) {
            let own = subscription.no_local && message.sender() == me;
            if own || message.seq() <= subscription.since || (subscription.each_message && !may_read(topic)) {
                continue;
            }
            let found = found.get_or_insert(Found {
                qos: 0,
                retain_as_published: false,
                subscription_ids: Vec::new(),
            });
            found.qos = found.qos.max(subscription.qos.min(message.qos()));
            found.retain_as_published |= subscription.retain_as_published;
            found.subscription_ids.extend(subscription.id);
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{Draft, Parts};

    const PLAIN: Subscription = Subscription {
        qos: 1,
        no_local: false,
        retain_as_published: false,
        id: None,
        each_message: false,
        since: 0,
    };

    fn message(topic: &str, qos: u8, seq: u64) -> Message {
        let parts =
            Parts { sender: 7, qos, retain: false, topic, properties: &[], payload: b"x", expires_ms: 0 };
        Draft::new(&parts).stamp(seq)
    }

    fn found(subscriptions: &Subscriptions, message: &Message, me: u64) -> Option<(u8, Vec<u32>)> {
        subscriptions.find(message, me, &|_| true).map(|f| (f.qos, f.subscription_ids))
    }

    #[test]
    fn overlapping_filters_deliver_once_with_the_highest_qos_and_all_ids() {
        let mut subscriptions = Subscriptions::default();
        subscriptions.add("a/b".into(), Subscription { qos: 0, id: Some(1), ..PLAIN });
        subscriptions.add("a/+".into(), Subscription { id: Some(2), ..PLAIN });
        subscriptions.add("c".into(), PLAIN);
        assert_eq!(found(&subscriptions, &message("a/b", 2, 1), 0), Some((1, vec![1, 2])));
        assert_eq!(found(&subscriptions, &message("a/b", 0, 1), 0), Some((0, vec![1, 2])));
        assert_eq!(found(&subscriptions, &message("x", 1, 1), 0), None);
    }

    #[test]
    fn a_filter_gets_nothing_published_before_it_and_keeps_its_place_when_repeated() {
        let mut subscriptions = Subscriptions::default();
        subscriptions.add("a/#".into(), Subscription { since: 5, ..PLAIN });
        assert_eq!(found(&subscriptions, &message("a", 1, 5), 0), None);
        assert!(found(&subscriptions, &message("a", 1, 6), 0).is_some());
        subscriptions.add("a/#".into(), Subscription { since: 9, qos: 0, ..PLAIN });
        assert_eq!(subscriptions.len(), 1);
        assert_eq!(found(&subscriptions, &message("a", 1, 6), 0), Some((0, vec![])));
        assert!(subscriptions.remove("a/#") && !subscriptions.remove("a/#"));
        assert_eq!(found(&subscriptions, &message("a", 1, 6), 0), None);
    }

    #[test]
    fn no_local_and_rights_hold_single_messages_back() {
        let mut subscriptions = Subscriptions::default();
        subscriptions.add("a".into(), Subscription { no_local: true, ..PLAIN });
        assert_eq!(found(&subscriptions, &message("a", 1, 1), 7), None);
        assert!(found(&subscriptions, &message("a", 1, 1), 8).is_some());
        subscriptions.add("b/+".into(), Subscription { each_message: true, ..PLAIN });
        let mine = |topic: &str| topic == "b/mine";
        assert!(subscriptions.find(&message("b/mine", 1, 1), 0, &mine).is_some());
        assert!(subscriptions.find(&message("b/other", 1, 1), 0, &mine).is_none());
    }
}
