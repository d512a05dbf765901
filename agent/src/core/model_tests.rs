//! Random histories against a model of the workshop: whatever happens, in whatever order, the invariants hold.

use std::collections::{BTreeMap, BTreeSet};

use cardshop_protocol::ids::{OrderId, SlotId};
use cardshop_protocol::message::{Copies, Desired, DesiredSlot, Fact, Lease, Remedy, SlotStatus};
use cardshop_protocol::time::Timestamp;
use proptest::prelude::*;

use super::history::{History, Record};
use super::shop_tests::{desired, image, lease, order, record};
use super::*;

const SLOTS: u32 = 3;

/// One random happening; numbers pick among what is possible.
#[derive(Debug, Clone)]
enum Happening {
    Card { slot: u32, size: u64 },
    CardOut { slot: u32 },
    ReaderOut { slot: u32 },
    Probed { slot: u32, stale: bool, locked: bool, passport_copy: u32, in_use: bool },
    Ended { slot: u32, good: bool },
    Desired { leases: Vec<(u128, u32, u32, u64, Vec<u32>)>, held: Option<u32> },
    ImageReady { image: u8 },
    ImageRefused { image: u8 },
    Connected { yes: bool },
    Acked { behind: u64 },
    Command { id: u128, slot: u32, which: u8 },
    Kill,
    Time { ms: u64 },
}

fn happening() -> impl Strategy<Value = Happening> {
    use Happening::*;
    let slot = 1..=SLOTS;
    let leases = prop::collection::vec(
        (1u128..3, 1u32..3, 1u32..5, 0u64..3, prop::collection::vec(1u32..5, 0..3)),
        0..3,
    );
    prop_oneof![
        4 => (slot.clone(), 0u64..4).prop_map(|(slot, size)| Card { slot, size: size * 50 }),
        2 => slot.clone().prop_map(|slot| CardOut { slot }),
        1 => slot.clone().prop_map(|slot| ReaderOut { slot }),
        6 => (slot.clone(), prop::bool::weighted(0.1), prop::bool::weighted(0.1), 0u32..5, prop::bool::weighted(0.2))
            .prop_map(|(slot, stale, locked, passport_copy, in_use)| Probed { slot, stale, locked, passport_copy, in_use }),
        5 => (slot.clone(), any::<bool>()).prop_map(|(slot, good)| Ended { slot, good }),
        3 => (leases, prop::option::weighted(0.2, 1..=SLOTS)).prop_map(|(leases, held)| Desired { leases, held }),
        3 => (1u8..3).prop_map(|image| ImageReady { image }),
        1 => (1u8..3).prop_map(|image| ImageRefused { image }),
        1 => any::<bool>().prop_map(|yes| Connected { yes }),
        1 => (0u64..4).prop_map(|behind| Acked { behind }),
        1 => (0u128..6, slot, 0u8..4).prop_map(|(id, slot, which)| Command { id, slot, which }),
        1 => Just(Kill),
        3 => (0u64..400).prop_map(|ms| Time { ms }),
    ]
}

/// What the workshop knows by itself.
struct Model {
    shop: Shop,
    now: Timestamp,
    /// The journal on the disk.
    journal: Vec<Record>,
    desired: Option<Desired>,
    running: BTreeMap<SlotId, (u64, Work)>,
    visits: BTreeMap<SlotId, u64>,
    /// Copies that are verified and not forgotten: none of them is written again.
    verified: BTreeSet<(OrderId, u32)>,
    generations: BTreeMap<SlotId, (u64, u64)>,
    last_n: u64,
}

impl Model {
    fn new() -> Self {
        let now = Timestamp::from_ms(1);
        let mut effects = Vec::new();
        let shop = Shop::start(now, History::default(), &Self::slots(), &mut effects);
        let mut model = Self {
            shop,
            now,
            journal: Vec::new(),
            desired: None,
            running: BTreeMap::new(),
            visits: BTreeMap::new(),
            verified: BTreeSet::new(),
            generations: BTreeMap::new(),
            last_n: 0,
        };
        model.check(effects);
        model
    }

    fn slots() -> Vec<SlotId> {
        (1..=SLOTS).map(SlotId::numbered).collect()
    }

    fn step(&mut self, event: Event) {
        self.now = self.now + std::time::Duration::from_millis(1);
        let mut effects = Vec::new();
        self.shop.step(self.now, event, &mut effects);
        self.check(effects);
    }

    fn happens(&mut self, happening: Happening) {
        let in_slot = |slot: u32, event| Event::Slot { slot: SlotId::numbered(slot), event };
        match happening {
            Happening::Card { slot, size } => self.step(in_slot(slot, SlotEvent::CardHere { size })),
            Happening::CardOut { slot } => self.step(in_slot(slot, SlotEvent::CardGone)),
            Happening::ReaderOut { slot } => self.step(in_slot(slot, SlotEvent::ReaderGone)),
            Happening::Probed { slot, stale, locked, passport_copy, in_use } => {
                let visit = self.visits.get(&SlotId::numbered(slot)).copied().unwrap_or(0) + u64::from(stale);
                let passport = (passport_copy > 0).then(|| PassportFacts {
                    uid: order(8),
                    order: order(1),
                    copy: passport_copy,
                });
                let finding = if locked {
                    Finding::Locked
                } else {
                    Finding::Card { passport, in_use, note: None, cid: None }
                };
                self.step(in_slot(slot, SlotEvent::Probed { visit, finding }));
            }
            Happening::Ended { slot, good } => {
                let id = SlotId::numbered(slot);
                let Some((job, work)) = self.running.remove(&id) else { return };
                let result = if good {
                    Ok(record(&work, &id, 100))
                } else {
                    // Every other write is tried again in place.
                    let code = if job % 2 == 0 { "verify_mismatch" } else { "io_error" };
                    Err(Failure::new(code, "broken", Remedy::ReplaceCard))
                };
                self.step(in_slot(slot, SlotEvent::Ended { job, result }));
            }
            Happening::Desired { leases, held } => self.desired(leases, held),
            Happening::ImageReady { image: n } => self.step(Event::ImageReady { image: image(n), total: 10 }),
            Happening::ImageRefused { image: n } => {
                let fault = Failure::new("chunk_mismatch", "wrong", Remedy::CallOperator).fault;
                self.step(Event::ImageRefused { image: image(n), fault });
            }
            Happening::Connected { yes } => {
                self.step(if yes { Event::Connected } else { Event::Disconnected })
            }
            Happening::Acked { behind } => self.step(Event::Acked(self.last_n.saturating_sub(behind))),
            Happening::Command { id, slot, which } => self.command(id, slot, which),
            Happening::Kill => self.kill(),
            Happening::Time { ms } => self.now = self.now + std::time::Duration::from_millis(ms),
        }
    }

    fn desired(&mut self, leases: Vec<(u128, u32, u32, u64, Vec<u32>)>, held: Option<u32>) {
        // Copies of live leases of one order never overlap: one lease an order.
        let mut leases: Vec<Lease> = leases
            .into_iter()
            .map(|(n, first, last, min, done)| Lease {
                done,
                not_after: Timestamp::from_ms(500 * u64::from(last)),
                ..lease(n, Copies { first, last }, min * 50)
            })
            .collect();
        leases.sort_by_key(|l| l.order);
        leases.dedup_by_key(|l| l.order);
        let mut wanted = desired(1, leases);
        wanted.slots = held
            .into_iter()
            .map(|n| DesiredSlot { slot: SlotId::numbered(n), name: None, hold: Some("x".into()) })
            .collect();
        self.desired = Some(wanted.clone());
        self.step(Event::Desired(Box::new(wanted)));
    }

    fn command(&mut self, id: u128, slot: u32, which: u8) {
        use cardshop_protocol::message::{Action, Command};
        let slot = SlotId::numbered(slot);
        let action = match which {
            0 => Action::Identify { slot },
            1 => Action::Eject { slot },
            2 => Action::Retry { slot },
            _ => Action::Release { slot },
        };
        let command = Command { v: 1, id: order(id), deadline_s: 9, action };
        self.step(Event::Command { command, received: self.now });
    }

    /// The process ends at once; only the journal is left.
    fn kill(&mut self) {
        let mut history = History::default();
        self.journal.iter().for_each(|r| history.apply(r));
        assert_eq!(&history, self.shop.history(), "what is on disk is what is known");
        let mut effects = Vec::new();
        self.shop = Shop::start(self.now, history, &Self::slots(), &mut effects);
        self.running.clear();
        self.visits.clear();
        self.desired = None;
        self.check(effects);
    }

    fn check(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Append(record) => self.check_record(record),
                Effect::Write { slot, job, work, .. } => self.check_write(slot, job, *work),
                Effect::Probe { slot, visit } => {
                    self.visits.insert(slot, visit);
                }
                Effect::Show(slot, state) => {
                    let before = self.generations.insert(slot.clone(), state.generation());
                    assert!(before <= Some(state.generation()), "{slot}: generations never fall");
                    if state.state == SlotStatus::Done {
                        let copy = (state.task.unwrap().order, state.copy.unwrap());
                        assert!(self.is_on_record(copy), "done is on record first");
                    }
                }
                _ => {}
            }
        }
        let work = self.shop.work_in_slots();
        let copies: BTreeSet<_> = work.iter().map(|w| (w.order, w.copy)).collect();
        assert_eq!(copies.len(), work.len(), "a copy is in one slot at most: {work:?}");
    }

    /// True when the journal says that this copy was verified, also after its order was forgotten: the card may
    /// still lie in its slot then.
    fn is_on_record(&self, copy: (OrderId, u32)) -> bool {
        self.journal.iter().any(|record| {
            matches!(record, Record::Fact { event } if matches!(&event.fact,
                Fact::CardVerified { record, .. } if (record.order, record.copy) == copy))
        })
    }

    fn check_record(&mut self, record: Record) {
        if let Record::Fact { event } = &record {
            assert_eq!(event.n, self.last_n + 1, "numbers have no gaps, over restarts");
            self.last_n = event.n;
            if let Fact::CardVerified { record, .. } = &event.fact {
                assert!(self.verified.insert((record.order, record.copy)), "a copy is verified once");
            }
        }
        if let Record::Forgotten { order } = &record {
            self.verified.retain(|(o, _)| o != order);
        }
        self.journal.push(record);
    }

    fn check_write(&mut self, slot: SlotId, job: u64, work: Work) {
        let on_record = self.journal.iter().rev().any(|r| {
            matches!(r, Record::Fact { event } if matches!(&event.fact,
                Fact::WriteStarted { task, slot: s, .. } if *task == work.task() && *s == slot))
        });
        assert!(on_record, "a write is on record before it begins");
        let desired = self.desired.as_ref().expect("nothing is written before leases are known");
        let leased = desired
            .leases
            .iter()
            .filter(|l| l.lease == work.lease && l.copies.contains(work.copy) && !l.done.contains(&work.copy))
            .any(|l| self.now <= l.not_after);
        assert!(leased, "only what a live lease asks for is begun: {work:?}");
        let held = desired.slots.iter().any(|s| s.slot == slot && s.hold.is_some());
        assert!(!held, "a held slot begins nothing");
        assert!(!self.verified.contains(&(work.order, work.copy)), "a verified copy is not written again");
        assert!(self.running.insert(slot, (job, work)).is_none(), "one thread a slot");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]
    #[test]
    fn whatever_happens_the_invariants_hold(happenings in prop::collection::vec(happening(), 1..120)) {
        let mut model = Model::new();
        happenings.into_iter().for_each(|h| model.happens(h));
        // And all of it can come to an end.
        let running: Vec<SlotId> = model.running.keys().cloned().collect();
        model.step(Event::Stop);
        for slot in running {
            let (job, _) = model.running.remove(&slot).unwrap();
            let result = Err(Failure::new("stopped", "stopped", Remedy::Retry));
            model.step(Event::Slot { slot, event: SlotEvent::Ended { job, result } });
        }
        prop_assert!(model.shop.is_quiet());
    }
}
