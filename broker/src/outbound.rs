//! What waits for one client: retained messages first, then live ones in their order, within a window of
//! unacknowledged ones. Pure: it neither sends nor knows the time; the session asks for what may go next.
//!
//! Retained messages go first because each is older than any live message of its topic that is queued behind.

use std::collections::{HashSet, VecDeque};

use crate::limits::Limits;
use crate::message::Message;

/// A message with how this client gets it.
#[derive(Debug, Clone)]
pub(crate) struct Outgoing {
    pub(crate) message: Message,
    /// 0 or 1.
    pub(crate) qos: u8,
    pub(crate) retain: bool,
    pub(crate) subscription_ids: Vec<u32>,
}

/// The queue is full: the client reads slower than messages come.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct QueueFull;

/// The waiting messages of one client.
pub(crate) struct Outbound {
    retained: VecDeque<Outgoing>,
    live: VecDeque<Outgoing>,
    live_bytes: usize,
    max_messages: usize,
    max_bytes: usize,
    max_retained: usize,
    unacknowledged: HashSet<u16>,
    window: usize,
    last_id: u16,
}

impl Outbound {
    /// `window` unacknowledged messages at most, at least one; what may wait is in `limits`.
    pub(crate) fn new(window: u16, limits: &Limits) -> Self {
        Self {
            retained: VecDeque::new(),
            live: VecDeque::new(),
            live_bytes: 0,
            max_messages: limits.queue_messages,
            max_bytes: limits.queue_bytes,
            max_retained: limits.retained_messages,
            unacknowledged: HashSet::new(),
            window: usize::from(window.max(1)),
            last_id: 0,
        }
    }

    /// Messages that wait.
    pub(crate) fn len(&self) -> usize {
        self.retained.len() + self.live.len()
    }

    /// Queues what a new subscription matches: at most as many messages as the retained picture may have, which
    /// shares its bytes with them.
    ///
    /// # Errors
    /// [`QueueFull`] when the client subscribes again and again without reading.
    pub(crate) fn push_retained(&mut self, messages: Vec<Outgoing>) -> Result<(), QueueFull> {
        if self.retained.len() + messages.len() > self.max_retained {
            return Err(QueueFull);
        }
        self.retained.extend(messages);
        Ok(())
    }

    /// Queues a live message.
    ///
    /// # Errors
    /// [`QueueFull`]: the session is to be ended.
    pub(crate) fn push(&mut self, outgoing: Outgoing) -> Result<(), QueueFull> {
        self.live_bytes += outgoing.message.bytes().len();
        self.live.push_back(outgoing);
        let full = self.live.len() > self.max_messages || self.live_bytes > self.max_bytes;
        if full { Err(QueueFull) } else { Ok(()) }
    }

    /// The next message that may be sent, with its packet id (0 at QoS 0). A QoS 1 message that finds the window
    /// full holds up all behind it, so that order is kept.
    pub(crate) fn pop(&mut self) -> Option<(Outgoing, u16)> {
        let from_retained = !self.retained.is_empty();
        let next = if from_retained { self.retained.front() } else { self.live.front() }?;
        if next.qos > 0 && self.unacknowledged.len() >= self.window {
            return None;
        }
        let id = if next.qos > 0 { self.new_id() } else { 0 };
        let outgoing = if from_retained { self.retained.pop_front() } else { self.live.pop_front() }?;
        if !from_retained {
            self.live_bytes -= outgoing.message.bytes().len();
        }
        Some((outgoing, id))
    }

    /// Frees a packet id; false when nothing waited for it.
    pub(crate) fn acknowledge(&mut self, id: u16) -> bool {
        self.unacknowledged.remove(&id)
    }

    fn new_id(&mut self) -> u16 {
        loop {
            self.last_id = self.last_id.checked_add(1).unwrap_or(1);
            if self.unacknowledged.insert(self.last_id) {
                return self.last_id;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{Draft, Parts};

    fn outgoing(topic: &str, qos: u8) -> Outgoing {
        let parts =
            Parts { sender: 0, qos, retain: false, topic, properties: &[], payload: &[0; 50], expires_ms: 0 };
        Outgoing { message: Draft::new(&parts).stamp(0), qos, retain: false, subscription_ids: Vec::new() }
    }

    fn limits(queue_messages: usize, queue_bytes: usize) -> Limits {
        Limits { queue_messages, queue_bytes, retained_messages: 3, ..Limits::default() }
    }

    fn topics(outbound: &mut Outbound) -> Vec<(String, u16)> {
        std::iter::from_fn(|| outbound.pop()).map(|(o, id)| (o.message.topic().to_owned(), id)).collect()
    }

    #[test]
    fn retained_messages_go_before_live_ones_and_both_in_order() {
        let mut outbound = Outbound::new(10, &limits(10, 10_000));
        outbound.push(outgoing("live/1", 0)).unwrap();
        outbound.push_retained(vec![outgoing("kept/1", 1), outgoing("kept/2", 0)]).unwrap();
        outbound.push(outgoing("live/2", 1)).unwrap();
        let expected = [("kept/1", 1), ("kept/2", 0), ("live/1", 0), ("live/2", 2)];
        assert_eq!(topics(&mut outbound), expected.map(|(t, id)| (t.to_owned(), id)));
    }

    #[test]
    fn the_window_holds_messages_back_until_one_is_acknowledged() {
        let mut outbound = Outbound::new(2, &limits(10, 10_000));
        for topic in ["a", "b", "c"] {
            outbound.push(outgoing(topic, 1)).unwrap();
        }
        outbound.push(outgoing("d", 0)).unwrap();
        assert_eq!(topics(&mut outbound), [("a".into(), 1), ("b".into(), 2)]);
        assert!(!outbound.acknowledge(9));
        assert!(outbound.acknowledge(2));
        assert!(!outbound.acknowledge(2), "an id is freed once");
        assert_eq!(topics(&mut outbound), [("c".into(), 3), ("d".into(), 0)]);
    }

    #[test]
    fn retained_messages_wait_once_and_not_for_every_repeated_subscription() {
        let mut outbound = Outbound::new(1, &limits(10, 10_000));
        let picture = || vec![outgoing("kept/1", 0), outgoing("kept/2", 0), outgoing("kept/3", 0)];
        assert_eq!(outbound.push_retained(picture()), Ok(()));
        assert_eq!(outbound.push_retained(picture()), Err(QueueFull));
        assert_eq!(topics(&mut outbound).len(), 3);
        assert_eq!(outbound.push_retained(picture()), Ok(()), "who reads may ask again");
    }

    #[test]
    fn packet_ids_wrap_and_skip_those_in_use() {
        let mut outbound = Outbound::new(3, &limits(10, 10_000));
        outbound.push(outgoing("first", 1)).unwrap();
        assert_eq!(outbound.pop().unwrap().1, 1);
        for _ in 0..65_534 {
            outbound.push(outgoing("x", 1)).unwrap();
            let (_, id) = outbound.pop().unwrap();
            assert!(id > 1 && outbound.acknowledge(id));
        }
        outbound.push(outgoing("wrapped", 1)).unwrap();
        assert_eq!(outbound.pop().unwrap().1, 2, "1 is still in use and 0 is none");
    }

    #[test]
    fn too_many_messages_or_bytes_are_refused() {
        let mut outbound = Outbound::new(1, &limits(2, 10_000));
        assert_eq!(outbound.push(outgoing("a", 0)), Ok(()));
        assert_eq!(outbound.push(outgoing("b", 0)), Ok(()));
        assert_eq!(outbound.push(outgoing("c", 0)), Err(QueueFull));
        let size = outgoing("a", 0).message.bytes().len();
        let mut outbound = Outbound::new(1, &limits(100, 2 * size));
        assert_eq!(outbound.push(outgoing("a", 0)), Ok(()));
        assert!(outbound.pop().is_some());
        assert_eq!(outbound.push(outgoing("b", 0)), Ok(()));
        assert_eq!(outbound.push(outgoing("c", 0)), Ok(()), "what was sent does not count");
        assert_eq!(outbound.push(outgoing("d", 0)), Err(QueueFull));
    }
}
