//! The world of one life: simulated time, and everything that is to happen in the order it happens. Single-threaded; the
//! same seed gives the same life, step by step.

use std::collections::BTreeMap;
use std::sync::Arc;

use cardshop_protocol::ids::{ImageId, ObjectId, OrderId, SlotId};
use cardshop_protocol::message::WritePhase;
use cardshop_protocol::time::Timestamp;
use cardshop_scheduler::Truth;

use super::appliance::Appliance;
use super::broker::{Broker, Message, Party};
use super::cards::{Card, Kind};
use super::centre::Centre;
use super::chance::Chance;
use super::creators::{CREATORS, Creator};
use super::faults::{Fault, What};
use super::images::{Image, Warehouse};
use super::invariants::Placed;
use super::line::Line;
use super::plants::Plant;
use super::template::{UNITS, join, template};
use super::trace::Trace;

/// When lives begin, milliseconds since 1970: 2026-11-01.
pub(super) const BEGINNING_MS: u64 = 1_793_491_200_000;
/// How often time passes for agents, and timers look, milliseconds: rarer than in truth (250 ms, 2 s), because nothing
/// shorter than this is waited for but by chance.
const TICK_MS: u64 = 10_000;
/// Agents say that they are well with every so-manieth tick.
const HEALTH_TICKS: u64 = 3;
/// The same once nothing goes wrong any more for a while: a lease of a day is then all that is waited for.
const QUIET_TICK_MS: u64 = 60_000;
const QUIET_AFTER_MS: u64 = 3 * 3_600_000;
/// How long everything is watched after its end.
const SETTLING_MS: u64 = 120_000;

/// Something that is to happen.
#[derive(Debug, Clone)]
pub(super) enum Happening {
    Connect(Party),
    Arrives { from: Party, session: u64, message: Message },
    Delivered { to: Party, session: u64, message: Message },
    NoticedByParty(Party, u64),
    NoticedByBroker(Party, u64),
    StartAgent(usize),
    StartCentre,
    Tick(usize, u64),
    Look,
    Probed { a: usize, life: u64, slot: SlotId, visit: u64 },
    WriteGoesOn { a: usize, life: u64, slot: SlotId, job: u64, phase: WritePhase },
    WriteEnds { a: usize, life: u64, slot: SlotId, job: u64 },
    Fetches { a: usize, life: u64, image: ImageId },
    PlaceOrder,
    ManagerLooks,
    ClerkLooks,
    OperatorLooks(usize),
    CreatorsLook,
    LetIn(usize),
    Begins(What),
    Ends(What),
    Calm,
}

/// Everything.
pub(super) struct World {
    pub(super) seed: u64,
    pub(super) now_ms: u64,
    queue: BTreeMap<(u64, u64), Happening>,
    queued: u64,
    pub(super) steps: u64,
    pub(super) trace: Trace,
    /// What is wrong, once something is.
    pub(super) wrong: Option<String>,
    /// Chance of lines and machines, and of people.
    pub(super) wire: Chance,
    pub(super) chance: Chance,
    pub(super) broker: Broker,
    pub(super) lines: BTreeMap<Party, Line>,
    pub(super) centre: Centre,
    pub(super) appliances: Vec<Appliance>,
    pub(super) warehouse: Warehouse,
    pub(super) away: u32,
    pub(super) images: BTreeMap<ImageId, Arc<Image>>,
    pub(super) cards: Vec<Card>,
    /// The next cards somebody puts in, by appliance: of which kind, and how many.
    pub(super) supply: Vec<Option<(Kind, u64)>>,
    pub(super) creators: Vec<Creator>,
    pub(super) configurations: Vec<ObjectId>,
    pub(super) placed: BTreeMap<OrderId, Placed>,
    /// Orders whose placing was not answered: each may be there.
    pub(super) unheard_orders: u32,
    /// Cards on record in an appliance's journal: order, copy and which card.
    pub(super) verified: BTreeMap<ObjectId, (OrderId, u32, usize)>,
    pub(super) units: u64,
    pub(super) last_truth: Option<Truth>,
    pub(super) commands_checked: u64,
    pub(super) facts_heard: u64,
    pub(super) plant: Plant,
    /// The bad times are over.
    pub(super) calm: bool,
    calm_since: u64,
    over_since: Option<u64>,
    _data: tempfile::TempDir,
}

impl World {
    pub(super) fn new(seed: u64, appliances: usize, slots: u32, plant: Plant) -> Self {
        let warehouse = Warehouse::default();
        let data = tempfile::tempdir().expect("a temporary directory can be made");
        let centre = Centre::new(template().world.fork(seed, warehouse.answering()), data.path());
        let mut world = Self {
            seed,
            now_ms: BEGINNING_MS,
            queue: BTreeMap::new(),
            queued: 0,
            steps: 0,
            trace: Trace::new(BEGINNING_MS),
            wrong: None,
            wire: Chance::of(seed, "wire"),
            chance: Chance::of(seed, "people"),
            broker: Broker::default(),
            lines: BTreeMap::new(),
            centre,
            appliances: (0..appliances).map(|a| Appliance::new(a, slots)).collect(),
            warehouse,
            away: 0,
            images: BTreeMap::new(),
            cards: Vec::new(),
            supply: vec![None; appliances],
            creators: (0..CREATORS).map(|_| Creator::default()).collect(),
            configurations: template().configurations.clone(),
            placed: BTreeMap::new(),
            unheard_orders: 0,
            verified: BTreeMap::new(),
            units: UNITS,
            last_truth: None,
            commands_checked: 0,
            facts_heard: 0,
            plant,
            calm: false,
            calm_since: 0,
            over_since: None,
            _data: data,
        };
        world.begin();
        world
    }

    fn begin(&mut self) {
        self.start_centre();
        for a in 0..self.appliances.len() {
            let key = self.appliances[a].key.clone();
            let joined = self.ask_centre(|s| async move { join(&s, &key, a).await });
            joined.expect("it was started").expect("nothing goes wrong yet");
            self.after(1_000, Happening::StartAgent(a));
            self.after(2_000 + 700 * a as u64, Happening::Tick(a, 0));
            self.after(20_000, Happening::OperatorLooks(a));
        }
        self.after(1_000, Happening::Look);
        self.after(5_000, Happening::CreatorsLook);
        self.after(90_000, Happening::ManagerLooks);
        self.after(120_000, Happening::ClerkLooks);
    }

    /// What goes wrong, and when it ends; orders come meanwhile.
    pub(super) fn plan_life(&mut self, life_ms: u64, faults: &[Fault]) {
        let orders = 2 + self.chance.from(0..life_ms / 1_200_000 + 2);
        for n in 0..orders {
            let at = if n == 0 { 10_000 } else { self.chance.from(10_000..life_ms * 3 / 4) };
            self.after(at, Happening::PlaceOrder);
        }
        for fault in faults {
            self.after(fault.at_ms, Happening::Begins(fault.what));
            let lasts = match fault.what {
                // Until its leases are over, and longer.
                What::SwitchedOff(_) => 48 * 3_600_000,
                _ => fault.for_ms.min(life_ms.saturating_sub(fault.at_ms)),
            };
            self.after(fault.at_ms + lasts, Happening::Ends(fault.what));
        }
        self.after(life_ms, Happening::Calm);
    }

    pub(super) fn later(&mut self, at_ms: u64, happening: Happening) {
        self.queued += 1;
        self.queue.insert((at_ms, self.queued), happening);
    }

    pub(super) fn after(&mut self, pause_ms: u64, happening: Happening) {
        self.later(self.now_ms + pause_ms, happening);
    }

    pub(super) fn say(&mut self, text: &str) {
        self.trace.say(self.now_ms, text);
    }

    /// Something is wrong: the life ends here.
    pub(super) fn fail(&mut self, text: &str) {
        self.say(&format!("WRONG: {text}"));
        self.wrong.get_or_insert_with(|| text.to_owned());
    }

    pub(super) fn centre_now(&self) -> Timestamp {
        Timestamp::from_ms(self.now_ms.saturating_add_signed(self.centre.clock_s * 1000))
    }

    fn pause(&self) -> u64 {
        let quiet = self.calm && self.now_ms - self.calm_since > QUIET_AFTER_MS;
        if quiet { QUIET_TICK_MS } else { TICK_MS }
    }

    /// Lives until everything has come to its end, something is wrong, or `limit_ms` after the bad times.
    pub(super) fn live(&mut self, limit_ms: u64) {
        while let Some(((at, _), happening)) = self.queue.pop_first() {
            self.now_ms = self.now_ms.max(at);
            self.steps += 1;
            self.happens(happening);
            if self.wrong.is_some() {
                return;
            }
            if self.calm && (self.now_ms - self.calm_since > limit_ms || self.has_settled()) {
                return self.check_end();
            }
        }
    }

    /// True once everything has been at its end for as long as the last messages are under way.
    fn has_settled(&mut self) -> bool {
        if self.steps.is_multiple_of(16) {
            let since = self.over_since.unwrap_or(self.now_ms);
            self.over_since = self.is_over().then_some(since);
        }
        self.over_since.is_some_and(|since| self.now_ms - since > SETTLING_MS)
    }

    fn happens(&mut self, happening: Happening) {
        match happening {
            Happening::Connect(who) => self.connect(who),
            Happening::Arrives { from, session, message } => self.arrives(from, session, message),
            Happening::Delivered { to, session, message } => self.delivered(to, session, message),
            Happening::NoticedByParty(who, session) => self.noticed_by_party(who, session),
            Happening::NoticedByBroker(who, session) => self.noticed_by_broker(who, session),
            Happening::StartAgent(a) => self.start_agent(a),
            Happening::StartCentre => self.start_centre(),
            Happening::Tick(a, n) => {
                self.tick_agent(a, n.is_multiple_of(HEALTH_TICKS) || self.pause() > TICK_MS);
                self.after(self.pause(), Happening::Tick(a, n + 1));
            }
            Happening::Look => {
                self.look();
                self.after(self.pause(), Happening::Look);
            }
            Happening::Probed { a, life, slot, visit } => self.probed(a, life, slot, visit),
            Happening::WriteGoesOn { a, life, slot, job, phase } => {
                self.write_goes_on(a, life, slot, job, phase)
            }
            Happening::WriteEnds { a, life, slot, job } => self.write_ends(a, life, slot, job),
            Happening::Fetches { a, life, image } => self.fetches(a, life, image),
            Happening::PlaceOrder => self.place_order(),
            Happening::ManagerLooks => self.manager_looks(),
            Happening::ClerkLooks => self.clerk_looks(),
            Happening::OperatorLooks(a) => self.operator_looks(a),
            Happening::CreatorsLook => self.creators_look(),
            Happening::LetIn(a) => self.let_in(a),
            Happening::Begins(what) => {
                self.say(&format!("{what:?} begins"));
                self.goes_wrong(what, true);
            }
            Happening::Ends(what) => {
                self.say(&format!("{what:?} ends"));
                self.goes_wrong(what, false);
            }
            Happening::Calm => {
                self.say("the bad times are over");
                (self.calm, self.calm_since) = (true, self.now_ms);
            }
        }
    }
}
