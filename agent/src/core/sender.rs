//! Sends facts to the scheduler in order, a few ahead of the acknowledgement, and again when none comes. What
//! is sent and what is stored is [`super::History`]'s; this only remembers how far it has gone.

use std::time::Duration;

use cardshop_protocol::time::Timestamp;

use super::event::{Effect, Message};
use super::history::History;

/// Facts that may be under way without acknowledgement: well below rumqttc's 100 packets in flight, so that
/// slot states always find room.
pub const WINDOW: u64 = 32;
/// Without an acknowledgement for this long the window is sent again.
pub const RESEND_AFTER: Duration = Duration::from_secs(10);

/// Position in the stream of facts.
#[derive(Debug, Default)]
pub(super) struct Sender {
    /// Next number to send.
    next: u64,
    /// When the acknowledgement last moved or the window was last sent from its start.
    since: Timestamp,
}

impl Sender {
    /// Starts again from the first fact that is not acknowledged.
    pub(super) fn restart(&mut self, now: Timestamp) {
        self.next = 0;
        self.since = now;
    }

    /// The acknowledgement has moved.
    pub(super) fn acked(&mut self, now: Timestamp) {
        self.since = now;
    }

    /// Sends what the window allows.
    pub(super) fn fill(&mut self, now: Timestamp, history: &History, effects: &mut Vec<Effect>) {
        let first = history.acked() + 1;
        // The clock was put back: waiting until it is as late again could take days.
        self.since = self.since.min(now);
        if self.next > first && now.since(self.since) >= RESEND_AFTER {
            self.restart(now);
        }
        if self.next <= first {
            self.next = first;
            self.since = now;
        }
        let end = first + WINDOW;
        for fact in history.unacked_from(self.next).take_while(|f| f.n < end) {
            effects.push(Effect::Publish(Message::Fact(Box::new(fact.clone()))));
            self.next = fact.n + 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::history::Record;
    use cardshop_protocol::message::Fact;

    fn sent(sender: &mut Sender, now_s: u64, history: &History) -> Vec<u64> {
        let mut effects = Vec::new();
        sender.fill(Timestamp::from_ms(now_s * 1000), history, &mut effects);
        let number = |effect: &Effect| match effect {
            Effect::Publish(Message::Fact(fact)) => fact.n,
            other => panic!("{other:?}"),
        };
        effects.iter().map(number).collect()
    }

    #[test]
    fn facts_go_in_order_a_window_ahead_and_again_when_nothing_is_heard() {
        let mut history = History::default();
        for boot in 1..=40 {
            history.record(Timestamp::from_ms(0), Fact::Started { boot });
        }
        let mut sender = Sender::default();
        sender.restart(Timestamp::from_ms(0));
        assert_eq!(sent(&mut sender, 0, &history), (1..=32).collect::<Vec<_>>());
        assert_eq!(sent(&mut sender, 1, &history), Vec::<u64>::new());
        history.apply(&Record::Acked { upto: 3 });
        sender.acked(Timestamp::from_ms(2000));
        assert_eq!(sent(&mut sender, 2, &history), [33, 34, 35]);
        assert_eq!(sent(&mut sender, 11, &history), Vec::<u64>::new());
        assert_eq!(sent(&mut sender, 12, &history), (4..=35).collect::<Vec<_>>());
        assert_eq!(sent(&mut sender, 5, &history), Vec::<u64>::new(), "the clock was put back by 7 s");
        assert_eq!(sent(&mut sender, 15, &history), (4..=35).collect::<Vec<_>>());
        history.apply(&Record::Acked { upto: 40 });
        assert_eq!(sent(&mut sender, 16, &history), Vec::<u64>::new());
    }
}
