//! The line to the shop is down for 200 hours, the power fails now and then, and the clock jumps both ways: cards are written
//! all the same, and when the line is back every fact arrives once and in order, over a broker that loses and repeats.

use std::time::Duration;

use cardshop_protocol::message::{Copies, Event as NumberedFact, Fact};
use cardshop_protocol::time::Timestamp;

use super::history::{History, MAX_UNACKED, Record};
use super::shop_tests::{World, lease};
use super::*;

/// A card every twenty minutes for 200 hours.
const CARDS: u32 = 600;
const EVERY: Duration = Duration::from_secs(20 * 60);
/// The power fails with every so many cards.
const CUT_EVERY: u32 = 37;

struct Outage {
    world: World,
    /// What is on the disk.
    journal: Vec<Record>,
    facts: Vec<NumberedFact>,
    seen: usize,
}

impl Outage {
    /// Takes what was done since the last time: records to the disk, facts to whoever listens.
    fn carry_out(&mut self) -> Vec<NumberedFact> {
        let mut sent = Vec::new();
        for effect in &self.world.effects[self.seen..] {
            match effect {
                Effect::Append(record) => {
                    if let Record::Fact { event } = record {
                        self.facts.push(event.clone());
                    }
                    self.journal.push(record.clone());
                }
                Effect::Publish(Message::Fact(fact)) => sent.push((**fact).clone()),
                _ => {}
            }
        }
        self.seen = self.world.effects.len();
        sent
    }

    /// The power fails: only the journal is left, and what was desired last.
    fn cut_power(&mut self) {
        self.carry_out();
        let mut history = History::default();
        self.journal.iter().for_each(|record| history.apply(record));
        let (now, desired) = (self.world.now, self.world.shop.desired().cloned().unwrap());
        self.world = World::with_history(history);
        (self.world.now, self.seen) = (now, 0);
        self.world.step(Event::Desired(Box::new(desired)));
        self.world.image_ready(1);
    }
}

#[test]
fn after_200_hours_without_a_line_every_fact_arrives_once_and_in_order() {
    let mut outage = Outage { world: World::new(), journal: Vec::new(), facts: Vec::new(), seen: 0 };
    let mut wanted = lease(1, Copies { first: 1, last: CARDS }, 50);
    (wanted.total, wanted.not_after) = (CARDS, Timestamp::from_ms(u64::MAX / 2));
    outage.world.lease(vec![wanted]);
    outage.world.image_ready(1);
    outage.world.step(Event::Disconnected);
    let begun = outage.world.now;
    for card in 1..=CARDS {
        outage.world.now = outage.world.now + EVERY;
        // Somebody sets the clock: an hour on, later an hour back.
        match card {
            100 => outage.world.now = outage.world.now + Duration::from_secs(3600),
            200 => outage.world.now = Timestamp::from_ms(outage.world.now.as_ms() - 3_600_000),
            _ => {}
        }
        if card % CUT_EVERY == 0 {
            outage.world.insert(1, 100);
            outage.cut_power();
        }
        outage.world.insert(1, 100);
        outage.world.verified(1);
        outage.world.in_slot(1, SlotEvent::CardGone);
        outage.carry_out();
    }
    assert_eq!(outage.world.now.since(begun).as_secs() / 3600, 200);
    let verified = outage.facts.iter().filter(|fact| matches!(fact.fact, Fact::CardVerified { .. })).count();
    assert_eq!(verified, CARDS as usize);
    assert!(
        outage.facts.len() < MAX_UNACKED / 2,
        "{} facts wait: there is room for as many",
        outage.facts.len()
    );

    // The line is back; one message of five is lost, one of three comes twice.
    let (mut stored, mut luck) = (Vec::<NumberedFact>::new(), blake3::Hasher::new().finalize_xof());
    outage.world.step(Event::Connected);
    for _ in 0..2_000 {
        let sent = outage.carry_out();
        for fact in sent {
            let mut byte = [0];
            luck.fill(&mut byte);
            let times = if byte[0] % 5 == 0 { 0 } else { 1 + usize::from(byte[0] % 3 == 0) };
            for _ in 0..times {
                // What the scheduler does: the next one is stored, all others are not.
                if fact.n == stored.last().map_or(1, |last| last.n + 1) {
                    stored.push(fact.clone());
                }
            }
        }
        let upto = stored.last().map_or(0, |last| last.n);
        outage.world.step(Event::Acked(upto));
        outage.world.now = outage.world.now + Duration::from_secs(11);
        outage.world.step(Event::Tick);
        if stored.len() == outage.facts.len() {
            break;
        }
    }
    assert!(stored == outage.facts, "each once, in order: {} of {}", stored.len(), outage.facts.len());
}
