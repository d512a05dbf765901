//! A whole site in one process on simulated time, under one seed: the scheduler's real core and effects on a disk that
//! fails, the broker's contract, the agents' real core, real card writing into memory, and people who make mistakes. What
//! goes wrong is drawn from the seed; what must be true is asked after every step.
//!
//! ```text
//!            people, creators ──► Scheduler (real) ◄──► line ◄──► broker ◄──► line ◄──► Shop (real) ◄── cards, people
//!  faults ──►  a disk that fills, stops, forgets nothing      cuts, delays, twice       journal, power cuts, bad cards
//!                              └───────────────── invariants after every step ─────────────────┘
//! ```
//!
//! A life has bad times, in which orders come and faults begin and end, and good ones, in which everybody does what they
//! should until every order has reached its end. A life that goes wrong can be lived again: the same seed and faults give
//! the same life; [`shrink`] takes out the faults that do not matter.

mod appliance;
mod broker;
mod cards;
mod centre;
mod chance;
mod creators;
mod faults;
mod images;
mod invariants;
mod line;
mod operators;
mod people;
mod plants;
mod strikes;
mod template;
mod trace;
mod world;
mod writing;

pub use cards::Kind;
pub use faults::{Clash, Fault, What};
pub use plants::Plant;

use world::World;

/// How long the good times last at most, milliseconds: leases of an appliance that never came back are over, and what they
/// held is made.
const GOOD_TIMES_MS: u64 = 44 * 3_600_000;
/// Lives that are lived to shorten a story.
const MAX_TRIES: usize = 200;

/// Which life.
#[derive(Debug, Clone, PartialEq)]
pub struct Life {
    /// Where all chance comes from.
    pub seed: u64,
    /// Minutes of bad times.
    pub minutes: u64,
    /// Appliances.
    pub appliances: usize,
    /// Slots of each.
    pub slots: u32,
    /// Which of the drawn faults happen, by number; `None` = all.
    pub faults: Option<Vec<usize>>,
    /// A mistake on purpose.
    pub plant: Plant,
}

impl Life {
    /// The usual life of a seed: a bad hour.
    pub fn of(seed: u64) -> Self {
        let plant = Plant::None;
        Self { seed, minutes: 60, appliances: 1 + seed as usize % 3, slots: 2, faults: None, plant }
    }

    /// What may go wrong in it.
    pub fn drawn(&self) -> Vec<Fault> {
        faults::draw(self.seed, self.minutes * 60_000, self.appliances, self.slots)
    }

    /// What goes wrong in it, with its number.
    fn chosen(&self) -> Vec<(usize, Fault)> {
        let drawn = self.drawn().into_iter().enumerate();
        drawn.filter(|(n, _)| self.faults.as_ref().is_none_or(|kept| kept.contains(n))).collect()
    }

    /// The command that lives it again.
    pub fn command(&self) -> String {
        let numbers = |kept: &Vec<usize>| {
            let kept: Vec<_> = kept.iter().map(usize::to_string).collect();
            if kept.is_empty() { "none".to_owned() } else { kept.join(",") }
        };
        let faults = self.faults.as_ref().map_or("all".to_owned(), numbers);
        let Self { seed, minutes, appliances, slots, .. } = self;
        format!(
            "cardshop sim --seed {seed} --minutes {minutes} --appliances {appliances} --slots {slots} --faults {faults}"
        )
    }
}

/// How a life went.
#[derive(Debug, Clone)]
pub struct Lived {
    /// What was wrong.
    pub wrong: Option<String>,
    /// A digest of everything that happened.
    pub digest: String,
    /// The newest lines of its story.
    pub story: Vec<String>,
    /// What happened in it.
    pub steps: u64,
    /// Orders placed.
    pub orders: usize,
    /// Cards verified.
    pub cards: usize,
    /// Simulated seconds.
    pub seconds: u64,
}

/// Lives a life.
pub fn live(life: &Life) -> Lived {
    let mut world = World::new(life.seed, life.appliances, life.slots, life.plant);
    let faults: Vec<Fault> = life.chosen().into_iter().map(|(_, fault)| fault).collect();
    let began_ms = world.now_ms;
    world.plan_life(life.minutes * 60_000, &faults);
    world.live(GOOD_TIMES_MS);
    Lived {
        wrong: world.wrong.take(),
        digest: world.trace.digest(),
        steps: world.steps,
        orders: world.placed.len(),
        cards: world.verified.len(),
        seconds: (world.now_ms - began_ms) / 1000,
        story: world.trace.lines(),
    }
}

/// A life that goes wrong with as few faults as can be found: every one is needed, for this or another wrong.
pub fn shrink(life: &Life) -> Life {
    let mut kept: Vec<usize> = life.chosen().into_iter().map(|(n, _)| n).collect();
    let mut tries = 0;
    let mut goes_wrong = |faults: &[usize]| {
        tries += 1;
        let life = Life { faults: Some(faults.to_vec()), ..life.clone() };
        tries <= MAX_TRIES && live(&life).wrong.is_some()
    };
    // Halves first, then one by one.
    let mut size = kept.len().div_ceil(2);
    while size > 0 {
        let mut at = 0;
        while at < kept.len() {
            let mut fewer = kept.clone();
            fewer.drain(at..(at + size).min(kept.len()));
            if goes_wrong(&fewer) {
                kept = fewer;
            } else {
                at += size;
            }
        }
        size /= 2;
    }
    Life { faults: Some(kept), ..life.clone() }
}

/// The faults of a life, a line each.
pub fn faults_of(life: &Life) -> Vec<String> {
    let line = |(n, Fault { what, at_ms, for_ms }): (usize, Fault)| {
        format!("{n}: after {} s, {what:?}, for {} s", at_ms / 1000, for_ms / 1000)
    };
    life.chosen().into_iter().map(line).collect()
}
