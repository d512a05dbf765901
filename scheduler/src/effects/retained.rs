//! What the broker should keep for us: topic → payload; and single messages that wait to be passed on. The link
//! publishes what is dirty; on every new connection everything is. Newer payloads replace older ones that were not
//! sent yet, so it never grows past its topics. Reflexes go first, each one, and are void on a new connection.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Mutex;

use cardshop_protocol::topic::Topic;
use serde::Serialize;
use tokio::sync::Notify;

/// Reflexes that may wait for the link: more than people press in the moment it needs.
const MAX_REFLEXES: usize = 64;

struct Entry {
    payload: Vec<u8>,
    /// Not needed here any more once it is sent.
    last: bool,
    /// The broker is to keep it.
    retain: bool,
}

/// A message to be published.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Due {
    pub(crate) topic: String,
    pub(crate) payload: Vec<u8>,
    pub(crate) retain: bool,
}

/// The retained picture.
#[derive(Default)]
pub(crate) struct Retained {
    picture: Mutex<Picture>,
    changed: Notify,
}

#[derive(Default)]
struct Picture {
    entries: BTreeMap<String, Entry>,
    dirty: BTreeSet<String>,
    reflexes: VecDeque<Due>,
}

impl Retained {
    /// Wants `message` retained at `topic`; the same again changes nothing.
    pub(crate) fn set(&self, topic: &Topic, message: &impl Serialize) {
        self.put(topic, message, false, false);
    }

    /// Sends `message` even when the broker should have it: it may have been missed.
    pub(crate) fn send_again(&self, topic: &Topic, message: &impl Serialize) {
        self.put(topic, message, true, false);
    }

    /// The last word on `topic`: kept by the broker, forgotten here once it is sent.
    pub(crate) fn set_last(&self, topic: &Topic, message: &impl Serialize) {
        self.put(topic, message, false, true);
    }

    /// Has a message passed on once that the broker is not to keep. The newest of a topic replaces one that waits.
    pub(crate) fn pass(&self, topic: String, message: &impl Serialize) {
        let payload = serde_json::to_vec(message).expect("a message is plain JSON");
        let mut picture = self.picture.lock().expect("no holder panics");
        picture.entries.insert(topic.clone(), Entry { payload, last: true, retain: false });
        picture.dirty.insert(topic);
        self.changed.notify_one();
    }

    /// Sends `message` at once or never; false when too many wait.
    pub(crate) fn reflex(&self, topic: &Topic, message: &impl Serialize) -> bool {
        let payload = serde_json::to_vec(message).expect("a message is plain JSON");
        let mut picture = self.picture.lock().expect("no holder panics");
        if picture.reflexes.len() >= MAX_REFLEXES {
            return false;
        }
        picture.reflexes.push_back(Due { topic: topic.to_string(), payload, retain: false });
        self.changed.notify_one();
        true
    }

    fn put(&self, topic: &Topic, message: &impl Serialize, again: bool, last: bool) {
        let payload = serde_json::to_vec(message).expect("a message is plain JSON");
        if payload.len() > topic.max_payload_size() {
            tracing::error!(%topic, size = payload.len(), "a message is too large and is not sent");
            return;
        }
        let mut picture = self.picture.lock().expect("no holder panics");
        let topic = topic.to_string();
        let known = picture.entries.get(&topic).is_some_and(|e| e.payload == payload);
        picture.entries.insert(topic.clone(), Entry { payload, last, retain: true });
        if !known || again {
            picture.dirty.insert(topic);
            self.changed.notify_one();
        }
    }

    /// Everything has to be sent: the broker may have lost it. Reflexes of before the connection are late.
    pub(crate) fn all_dirty(&self) {
        let mut picture = self.picture.lock().expect("no holder panics");
        picture.reflexes.clear();
        picture.dirty = picture.entries.keys().cloned().collect();
        self.changed.notify_one();
    }

    /// One that is dirty, and is not any more. Who does not lead passes single messages on and says nothing else: once
    /// it leads, everything is dirty.
    pub(crate) fn take(&self, leads: bool) -> Option<Due> {
        let mut picture = self.picture.lock().expect("no holder panics");
        if let Some(reflex) = picture.reflexes.pop_front() {
            return Some(reflex);
        }
        let Picture { entries, dirty, .. } = &mut *picture;
        if !leads {
            dirty.retain(|topic| match entries.get(topic) {
                Some(entry) if entry.retain && entry.last => {
                    entries.remove(topic);
                    false
                }
                entry => entry.is_some_and(|entry| !entry.retain),
            });
        }
        let topic = dirty.pop_first()?;
        let entry = picture.entries.get(&topic)?;
        let (payload, retain) = (entry.payload.clone(), entry.retain);
        if entry.last {
            picture.entries.remove(&topic);
        }
        Some(Due { topic, payload, retain })
    }

    /// Waits until something may be dirty.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// What is wanted at `topic`.
    #[cfg(test)]
    pub(crate) fn get(&self, topic: &Topic) -> Option<serde_json::Value> {
        let picture = self.picture.lock().expect("no holder panics");
        picture.entries.get(&topic.to_string()).map(|e| serde_json::from_slice(&e.payload).unwrap())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_message_is_sent_once_and_everything_again_after_a_new_connection() {
        let retained = Retained::default();
        retained.set(&Topic::ServerStatus, &1);
        assert!(retained.take(true).is_some());
        retained.set(&Topic::ServerStatus, &1);
        assert!(retained.take(true).is_none());
        retained.send_again(&Topic::ServerStatus, &1);
        assert!(retained.take(true).is_some());
        retained.all_dirty();
        assert!(retained.take(true).is_some());
        retained.set_last(&Topic::ServerStatus, &2);
        assert_eq!(retained.take(true).unwrap().payload, b"2");
        retained.all_dirty();
        assert!(retained.take(true).is_none(), "the last word is forgotten once it is sent");
    }

    #[test]
    fn who_does_not_lead_only_passes_messages_on() {
        let retained = Retained::default();
        retained.set(&Topic::ServerStatus, &1);
        retained.pass("a".into(), &2);
        assert_eq!(retained.take(false).unwrap().topic, "a");
        assert_eq!(retained.take(false), None);
        retained.all_dirty();
        assert_eq!(retained.take(true).unwrap().payload, b"1");
    }

    #[test]
    fn reflexes_go_first_each_one_and_none_waits_for_another_connection() {
        let retained = Retained::default();
        retained.set(&Topic::ServerStatus, &0);
        assert!(retained.reflex(&Topic::ServerTime, &1) && retained.reflex(&Topic::ServerTime, &2));
        let sent: Vec<_> =
            std::iter::from_fn(|| retained.take(true)).map(|due| (due.payload, due.retain)).collect();
        assert_eq!(sent, [(b"1".to_vec(), false), (b"2".to_vec(), false), (b"0".to_vec(), true)]);
        for _ in 0..MAX_REFLEXES {
            assert!(retained.reflex(&Topic::ServerTime, &3));
        }
        assert!(!retained.reflex(&Topic::ServerTime, &3), "too many wait");
        retained.all_dirty();
        assert_eq!(std::iter::from_fn(|| retained.take(true)).count(), 1, "what is retained");
    }

    #[test]
    fn a_message_that_is_passed_on_is_sent_once_and_not_kept() {
        let retained = Retained::default();
        retained.pass("a".into(), &1);
        retained.pass("a".into(), &2);
        let due = Due { topic: "a".into(), payload: b"2".to_vec(), retain: false };
        assert_eq!(retained.take(true), Some(due));
        retained.all_dirty();
        assert_eq!(retained.take(true), None);
    }
}
