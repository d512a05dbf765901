//! `cardshop sim`: under a seed a whole site on simulated time, in which everything goes wrong; without one, load on a real
//! broker and scheduler (`load`).

mod load;
pub(crate) mod server;

use std::time::Duration;

use cardshop_card::StopFlag;
use cardshop_sim::site::{Life, Lived, faults_of, live, shrink};
use serde_json::json;

use crate::exit::{Ending, stop_flag, wrong_usage};
use crate::report::Output;

/// Lines of a story that are shown.
const STORY_LINES: usize = 80;

/// Slots of each appliance, unless told otherwise: of a life, in which every card is written, and of a load.
const SLOTS: (u32, u32) = (2, 8);

/// Plays a site. With --seed on simulated time, and everything goes wrong: the same seed gives the same life, and a life
/// that breaks a promise is told with the faults that matter. Without --seed it is load: appliances that join a real site,
/// a new one unless --server names one, and the password of --username is in CARDSHOP_PASSWORD then.
///
/// Example: cardshop sim --seed 42 --seeds 100
/// Load: cardshop sim --appliances 500 --slots 8 --minutes 5
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct Sim {
    /// Where all chance comes from.
    #[arg(long)]
    seed: Option<u64>,
    /// Lives, of this seed and those that follow.
    #[arg(long, requires = "seed", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    seeds: u64,
    /// Hours in which things go wrong, instead of --minutes.
    #[arg(long, requires = "seed", conflicts_with = "minutes", value_parser = clap::value_parser!(u64).range(1..=1000))]
    hours: Option<u64>,
    /// Minutes in which things go wrong, or of load; parts of one, too [default: 60, or 1 of load].
    #[arg(long)]
    minutes: Option<f64>,
    /// Appliances [default: 1 to 3, by the seed, or 50 of load].
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    appliances: Option<u16>,
    /// Slots of each appliance [default: 2, or 8 of load].
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=64))]
    slots: Option<u32>,
    /// Which of the drawn faults happen, by number: all, none, or as 3,5,7.
    #[arg(long, requires = "seed", default_value = "all")]
    faults: String,
    /// Slot states a second of the load, of all appliances together.
    #[arg(long, conflicts_with = "seed", default_value_t = 500, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    rate: u64,
    /// A site that is there.
    #[arg(long, conflicts_with = "seed", requires = "mqtt", value_name = "URL")]
    server: Option<String>,
    /// Its broker.
    #[arg(long, conflicts_with = "seed", requires = "server", value_name = "URL")]
    mqtt: Option<String>,
    /// Somebody of its staff.
    #[arg(long, conflicts_with = "seed", default_value = "admin")]
    username: String,
}

impl Sim {
    pub(crate) fn run(self, output: &Output) -> anyhow::Result<Ending> {
        if !self.minutes.unwrap_or(1.0).is_finite() || self.minutes.is_some_and(|minutes| minutes <= 0.0) {
            return Err(wrong_usage("--minutes is a number above 0"));
        }
        let stop = stop_flag();
        match self.seed {
            Some(seed) => self.live_all(seed, &stop, output),
            None => self.load(&stop, output),
        }
    }

    fn load(self, stop: &StopFlag, output: &Output) -> anyhow::Result<Ending> {
        let words = load::Words {
            site: self.server.zip(self.mqtt),
            username: self.username,
            appliances: usize::from(self.appliances.unwrap_or(50)),
            slots: self.slots.unwrap_or(SLOTS.1),
            duration: Duration::from_secs_f64((self.minutes.unwrap_or(1.0) * 60.0).min(1e6)),
            rate: self.rate,
        };
        load::play(&words, output, stop)
    }

    fn live_all(&self, first: u64, stop: &StopFlag, output: &Output) -> anyhow::Result<Ending> {
        let mut all_well = true;
        for seed in first..first.saturating_add(self.seeds) {
            if stop.is_stopped() {
                return Ok(Ending::Interrupted);
            }
            all_well &= self.live_one(seed, output)?;
        }
        Ok(if all_well { Ending::Done } else { Ending::Failed })
    }

    fn life(&self, seed: u64) -> anyhow::Result<Life> {
        let usual = Life::of(seed);
        let wrong = || wrong_usage("--faults is all, none, or numbers as 3,5,7");
        let number = |text: &str| text.trim().parse::<usize>().map_err(|_| wrong());
        let faults = match self.faults.as_str() {
            "all" => None,
            "none" => Some(Vec::new()),
            numbers => Some(numbers.split(',').map(number).collect::<anyhow::Result<_>>()?),
        };
        let minutes = self.minutes.map(|minutes| (minutes.ceil() as u64).min(60_000));
        Ok(Life {
            minutes: self.hours.map(|hours| hours * 60).or(minutes).unwrap_or(usual.minutes),
            appliances: self.appliances.map_or(usual.appliances, usize::from),
            slots: self.slots.unwrap_or(SLOTS.0),
            faults,
            ..usual
        })
    }

    /// True when nothing went wrong that may not.
    fn live_one(&self, seed: u64, output: &Output) -> anyhow::Result<bool> {
        let life = self.life(seed)?;
        let lived = live(&life);
        let Lived { wrong, digest, steps, orders, cards, seconds, .. } = &lived;
        output.event(json!({"event": "life", "seed": seed, "wrong": wrong, "digest": digest, "steps": steps,
            "orders": orders, "cards": cards, "simulated_seconds": seconds, "command": life.command()}));
        output.line(format_args!(
            "seed {seed}: {orders} orders, {cards} verified cards, {} simulated hours, {steps} steps, {}",
            seconds / 3600,
            &digest[..16]
        ));
        if wrong.is_some() {
            output.line("  it went wrong; taking out what does not matter");
            tell(&shrink(&life), output);
        }
        Ok(wrong.is_none())
    }
}

/// Tells the story of a life that goes wrong.
fn tell(life: &Life, output: &Output) {
    let lived = live(life);
    let wrong = lived.wrong.clone().unwrap_or_default();
    output.event(json!({"event": "wrong", "command": life.command(), "wrong": wrong,
        "faults": faults_of(life), "story": lived.story}));
    output.line(format_args!("\n{}\n{wrong}\n", life.command()));
    faults_of(life).iter().for_each(|fault| output.line(format_args!("  {fault}")));
    let newest = lived.story.len().saturating_sub(STORY_LINES);
    lived.story[newest..].iter().for_each(|line| output.line(format_args!("  {line}")));
}
