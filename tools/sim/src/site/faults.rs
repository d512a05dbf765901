//! What goes wrong in a life: drawn from the seed before it begins, a list, so that one can be taken out and the rest
//! happens as before.

use super::cards::Kind;
use super::chance::Chance;

/// Something that goes wrong, for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// An agent's process is killed.
    AgentKilled(usize),
    /// An appliance loses its power: what its disk was not made to keep may be gone.
    PowerCut(usize),
    /// An appliance is switched off, and not on again for two days.
    SwitchedOff(usize),
    /// The scheduler's process is killed.
    CentreKilled,
    /// The scheduler's machine stops at its command to the disk after so many, with that one carried out or not.
    CentreStops(u32, bool),
    /// The scheduler's disk has no room.
    CentreDiskFull,
    /// The scheduler's clock is so many seconds off.
    CentreClock(i64),
    /// Nothing passes between the scheduler and the broker.
    CentreCut,
    /// Nothing passes between an appliance and the broker.
    Cut(usize),
    /// Nothing passes between an appliance and the warehouse.
    FetchCut(usize),
    /// Messages of an appliance take so many milliseconds longer.
    Late(usize, u64),
    /// Messages of an appliance come twice.
    Doubled(usize),
    /// Facts and acknowledgements of an appliance are lost.
    FactsLost(usize),
    /// The broker starts anew, with what it kept or without.
    BrokerAnew(bool),
    /// Somebody with an appliance's token publishes what is not its own.
    Impostor(usize),
    /// An appliance's clock jumps by so many seconds.
    AgentClock(usize, i64),
    /// An appliance cannot write down facts.
    AgentDiskFull(usize),
    /// An appliance has no room for images.
    CacheFull(usize),
    /// The next cards somebody puts in at an appliance are of this kind.
    Supply(usize, Kind, u64),
    /// A reader flips bits.
    BadReader(usize, u32),
    /// A card is pulled out, whatever is being done to it.
    Pulled(usize, u32),
    /// A reader is unplugged.
    Unplugged(usize, u32),
    /// The warehouse is away.
    WarehouseAway,
    /// What an appliance gets of the images is not what their index says.
    WarehouseLies(usize),
    /// A creator's process is killed.
    CreatorKilled(usize),
    /// A creator says nothing.
    CreatorSilent(usize),
    /// A creator cannot make the image it is at; nobody can, when it is for good.
    CreatorFails(usize, bool),
    /// A creator says it put an image that is not there.
    CreatorLies(usize),
    /// A manager cancels an order.
    Canceled,
    /// A manager wants another try of whatever there is.
    Retried,
    /// An operator puts a finished card back into a slot.
    PutBack(usize),
    /// A person holds a slot for a while.
    Held(usize, u32),
    /// An appliance is thrown out, and let in again later.
    ThrownOut(usize),
    /// The site is maintained: nothing new begins.
    Maintenance,
    /// Two people act at the same moment.
    Clash(Clash),
}

/// What two people do at the same moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Clash {
    /// Both ship all there is.
    ShipAndShip,
    /// One ships, the other cancels.
    ShipAndCancel,
    /// Both order for one organization.
    OrderAndOrder,
    /// Both cancel.
    CancelAndCancel,
}

/// A fault: what, when, for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// What.
    pub what: What,
    /// Milliseconds after the beginning.
    pub at_ms: u64,
    /// Milliseconds it lasts, where it lasts.
    pub for_ms: u64,
}

/// Draws the faults of a life of so long.
pub(super) fn draw(seed: u64, life_ms: u64, appliances: usize, slots: u32) -> Vec<Fault> {
    let mut chance = Chance::of(seed, "faults");
    // About one in three or four minutes: enough to meet each other, few enough that cards are made at all.
    let count = 6 + chance.from(0..life_ms / 180_000 + 1);
    let mut faults: Vec<Fault> = (0..count)
        .map(|_| Fault {
            what: one(&mut chance, appliances, slots),
            at_ms: chance.from(30_000..life_ms),
            for_ms: chance.from(5_000..1_200_000),
        })
        .collect();
    faults.sort_by_key(|fault| fault.at_ms);
    faults
}

fn one(chance: &mut Chance, appliances: usize, slots: u32) -> What {
    let a = chance.from(0..appliances as u64) as usize;
    let slot = chance.from(0..u64::from(slots)) as u32;
    let seconds = chance.one(&[-7200, -600, -30, 30, 600, 7200, 86_400 * 400]);
    match chance.from(0..36) {
        0 => What::AgentKilled(a),
        1 => What::PowerCut(a),
        2 if appliances > 1 && chance.percent(40) => What::SwitchedOff(a),
        2 | 3 => What::CentreKilled,
        4 | 5 => What::CentreStops(chance.from(0..12) as u32, chance.percent(70)),
        6 => What::CentreDiskFull,
        7 => What::CentreClock(seconds.clamp(-600, 7200)),
        8 => What::CentreCut,
        9 | 10 => What::Cut(a),
        11 => What::FetchCut(a),
        12 => What::Late(a, chance.from(500..60_000)),
        13 => What::Doubled(a),
        14 => What::FactsLost(a),
        15 => What::BrokerAnew(chance.percent(50)),
        16 => What::Impostor(a),
        17 => What::AgentClock(a, seconds),
        18 => What::AgentDiskFull(a),
        19 => What::CacheFull(a),
        20 | 21 => What::Supply(a, chance.one(&Kind::BAD), chance.from(1..4)),
        22 => What::BadReader(a, slot),
        23 => What::Pulled(a, slot),
        24 => What::Unplugged(a, slot),
        25 => What::WarehouseAway,
        26 => What::WarehouseLies(a),
        27 => What::CreatorKilled(a % 2),
        28 => What::CreatorSilent(a % 2),
        29 => What::CreatorFails(a % 2, chance.percent(20)),
        30 => What::CreatorLies(a % 2),
        31 => What::Canceled,
        32 => What::Retried,
        33 => match chance.from(0..3) {
            0 => What::PutBack(a),
            1 => What::Held(a, slot),
            _ => What::Maintenance,
        },
        34 => What::ThrownOut(a),
        _ => What::Clash(chance.one(&[
            Clash::ShipAndShip,
            Clash::ShipAndCancel,
            Clash::OrderAndOrder,
            Clash::CancelAndCancel,
        ])),
    }
}
