//! What the appliance must still know after a power cut: numbered facts until they are acknowledged, which
//! copies are verified, which write was under way in which slot, and how often the agent has started.
//!
//! There is one journal, and the facts sent to the scheduler are its records: "copy 3 is verified" and "tell
//! the scheduler that copy 3 is verified" are one write to the disk, so a crash can neither lose nor double a
//! card. State is what [`History::apply`] makes of the records; `effects::outbox` stores and replays them.

use std::collections::{BTreeMap, VecDeque};

use cardshop_protocol::ids::{LeaseId, OrderId, SlotId, TaskId};
use cardshop_protocol::message::{Event as NumberedFact, Fact, VERSION};
use cardshop_protocol::time::Timestamp;
use serde::{Deserialize, Serialize};

/// Most facts that may wait for an acknowledgement; no card is begun beyond it. A card makes two or three: a
/// week without a server for sixteen slots.
pub const MAX_UNACKED: usize = 20_000;

/// One record of the journal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "record", rename_all = "snake_case")]
pub enum Record {
    /// A fact happened.
    Fact {
        /// The fact as it is sent.
        event: NumberedFact,
    },
    /// The scheduler has stored all facts up to this number.
    Acked {
        /// The number.
        upto: u64,
    },
    /// The scheduler knows of more facts than this journal: those that wait here are numbered anew, after its
    /// last.
    Renumbered {
        /// The last number the scheduler has.
        last: u64,
    },
    /// An order is over: its verified copies need no guard.
    Forgotten {
        /// Which.
        order: OrderId,
    },
    /// All that earlier records amount to; facts not yet acknowledged follow.
    Snapshot(Snapshot),
}

/// A [`History`] without the facts that wait for an acknowledgement.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Snapshot {
    /// Starts of the agent.
    pub boot: u64,
    /// Last number given to a fact.
    pub last: u64,
    /// Last number acknowledged.
    pub acked: u64,
    /// Verified copies, each with the number of its fact.
    pub verified: Vec<(OrderId, u32, u64)>,
    /// Writes under way.
    pub open: Vec<OpenWrite>,
}

/// A write that was begun and has not ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenWrite {
    /// Where.
    pub slot: SlotId,
    /// Which task.
    pub task: TaskId,
    /// Under which lease.
    pub lease: LeaseId,
}

/// What the records of the journal amount to.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct History {
    boot: u64,
    last: u64,
    acked: u64,
    verified: BTreeMap<(OrderId, u32), u64>,
    open: BTreeMap<SlotId, OpenWrite>,
    unacked: VecDeque<NumberedFact>,
}

impl History {
    /// Numbers a fact and takes it in; the caller makes the record durable before it acts on it.
    pub fn record(&mut self, now: Timestamp, fact: Fact) -> Record {
        let record = Record::Fact { event: NumberedFact { v: VERSION, n: self.last + 1, at: now, fact } };
        self.apply(&record);
        record
    }

    /// Takes in a record, new or replayed. A fact whose number was seen before changes nothing.
    pub fn apply(&mut self, record: &Record) {
        match record {
            Record::Fact { event } => self.apply_fact(event),
            Record::Acked { upto } => {
                self.acked = self.acked.max((*upto).min(self.last));
                while self.unacked.front().is_some_and(|e| e.n <= self.acked) {
                    self.unacked.pop_front();
                }
            }
            Record::Renumbered { last } => self.renumber(*last),
            Record::Forgotten { order } => self.verified.retain(|(o, _), _| o != order),
            Record::Snapshot(snapshot) => {
                *self = Self {
                    boot: snapshot.boot,
                    // Facts that follow were already counted: `last` grows to its old value by them.
                    last: snapshot.acked,
                    acked: snapshot.acked,
                    verified: snapshot.verified.iter().map(|(o, c, n)| ((*o, *c), *n)).collect(),
                    open: snapshot.open.iter().map(|w| (w.slot.clone(), w.clone())).collect(),
                    unacked: VecDeque::new(),
                }
            }
        }
    }

    fn apply_fact(&mut self, event: &NumberedFact) {
        if event.n <= self.last {
            return;
        }
        self.last = event.n;
        self.unacked.push_back(event.clone());
        match &event.fact {
            Fact::Started { boot } => self.boot = self.boot.max(*boot),
            Fact::WriteStarted { task, lease, slot, .. } => {
                let open = OpenWrite { slot: slot.clone(), task: *task, lease: *lease };
                self.open.insert(slot.clone(), open);
            }
            Fact::CardVerified { record, .. } => {
                self.close(&record.slot, TaskId::write(record.order, record.copy));
                self.verified.insert((record.order, record.copy), event.n);
            }
            Fact::WriteFailed { task, slot, .. } => self.close(slot, *task),
            Fact::WriteRepeated { .. } | Fact::ImageRefused { .. } => {}
        }
    }

    /// Facts that wait follow each other from `acked + 1` to `last`: all move by the same distance. One that the
    /// scheduler has already under its old number changes nothing there; one that it has not would be lost.
    fn renumber(&mut self, last: u64) {
        let by = last.saturating_sub(self.acked);
        self.unacked.iter_mut().for_each(|event| event.n += by);
        self.verified.values_mut().filter(|n| **n > self.acked).for_each(|n| *n += by);
        self.last += by;
        self.acked += by;
    }

    fn close(&mut self, slot: &SlotId, task: TaskId) {
        if self.open.get(slot).is_some_and(|w| w.task == task) {
            self.open.remove(slot);
        }
    }

    /// The records of a journal that says the same in fewer: a snapshot and the facts not yet acknowledged.
    pub fn compacted(&self) -> Vec<Record> {
        let snapshot = Snapshot {
            boot: self.boot,
            last: self.last,
            acked: self.acked,
            verified: self.verified.iter().map(|((o, c), n)| (*o, *c, *n)).collect(),
            open: self.open.values().cloned().collect(),
        };
        let facts = self.unacked.iter().map(|event| Record::Fact { event: event.clone() });
        std::iter::once(Record::Snapshot(snapshot)).chain(facts).collect()
    }

    /// Starts of the agent.
    pub fn boot(&self) -> u64 {
        self.boot
    }
    /// Last number given to a fact; 0 before the first.
    pub fn last(&self) -> u64 {
        self.last
    }
    /// Last number acknowledged.
    pub fn acked(&self) -> u64 {
        self.acked
    }
    /// True when this copy is verified here and its order not forgotten.
    pub fn is_verified(&self, order: OrderId, copy: u32) -> bool {
        self.verified.contains_key(&(order, copy))
    }
    /// Verified copies of an order from `first` to `last`.
    pub fn verified_copies(&self, order: OrderId, first: u32, last: u32) -> Vec<u32> {
        if first > last {
            return Vec::new();
        }
        self.verified.range((order, first)..=(order, last)).map(|((_, copy), _)| *copy).collect()
    }
    /// Orders with verified copies whose facts are all acknowledged.
    pub fn settled_orders(&self) -> Vec<OrderId> {
        let mut settled: Vec<OrderId> = self.verified.keys().map(|(order, _)| *order).collect();
        settled.dedup();
        let waits = |order| self.verified.iter().any(|((o, _), n)| *o == order && *n > self.acked);
        settled.retain(|order| !waits(*order));
        settled
    }
    /// Writes that were under way.
    pub fn open_writes(&self) -> impl Iterator<Item = &OpenWrite> {
        self.open.values()
    }
    /// Facts not yet acknowledged, from number `from` on.
    pub fn unacked_from(&self, from: u64) -> impl Iterator<Item = &NumberedFact> {
        let first = self.unacked.partition_point(|e| e.n < from);
        self.unacked.range(first..)
    }
    /// True while another card may be begun.
    pub fn has_room(&self) -> bool {
        self.unacked.len() < MAX_UNACKED
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cardshop_protocol::message::{Fault, Remedy};

    fn started(n: u32, slot: u32) -> Fact {
        let order = OrderId::from_parts(1, 1);
        let slot = SlotId::numbered(slot);
        Fact::WriteStarted { task: TaskId::write(order, n), lease: order, slot, card_size: 1 }
    }
    fn failed(n: u32, slot: u32) -> Fact {
        let order = OrderId::from_parts(1, 1);
        let fault = Fault { code: "io_error".into(), text: String::new(), offset: None };
        Fact::WriteFailed {
            task: TaskId::write(order, n),
            lease: order,
            slot: SlotId::numbered(slot),
            fault,
            remedy: Remedy::Retry,
            card: None,
        }
    }
    fn replay(records: &[Record]) -> History {
        let mut history = History::default();
        records.iter().for_each(|r| history.apply(r));
        history
    }

    #[test]
    fn a_compacted_journal_says_what_the_long_one_said() {
        let mut history = History::default();
        let mut records = Vec::new();
        for fact in [
            Fact::Started { boot: 3 },
            started(1, 1),
            started(2, 2),
            failed(1, 1),
            started(3, 1),
            failed(2, 2),
        ] {
            records.push(history.record(Timestamp::from_ms(5), fact));
        }
        for acked in [0, 1, 3, 6] {
            let record = Record::Acked { upto: acked };
            history.apply(&record);
            records.push(record);
            assert_eq!(replay(&records), history, "acked {acked}");
            assert_eq!(replay(&history.compacted()), history, "acked {acked}");
        }
        assert_eq!(history.open_writes().count(), 1);
        assert_eq!((history.boot(), history.last(), history.unacked_from(1).count()), (3, 6, 0));
    }

    #[test]
    fn a_fact_seen_before_changes_nothing() {
        let mut history = History::default();
        let records = [started(1, 1), failed(1, 1)].map(|fact| history.record(Timestamp::from_ms(5), fact));
        let before = history.clone();
        history.apply(&records[0]);
        assert_eq!(history, before);
    }

    #[test]
    fn numbers_go_on_without_gaps_and_after_what_the_scheduler_already_has() {
        let mut history = History::default();
        history.record(Timestamp::from_ms(1), Fact::Started { boot: 1 });
        history.apply(&Record::Acked { upto: 1 });
        history = replay(&history.compacted());
        let Record::Fact { event } = history.record(Timestamp::from_ms(2), Fact::Started { boot: 2 }) else {
            panic!("a fact is recorded as a fact")
        };
        assert_eq!(event.n, 2);
        history.apply(&Record::Renumbered { last: 9 });
        let history = replay(&history.compacted());
        assert_eq!((history.last(), history.acked()), (10, 9));
        let waiting: Vec<_> = history.unacked_from(0).map(|e| (e.n, e.fact.clone())).collect();
        assert_eq!(waiting, [(10, Fact::Started { boot: 2 })], "what the scheduler has not is not lost");
    }
}
