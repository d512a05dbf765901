//! `cardshop sim`: under a seed a whole site on simulated time, in which everything goes wrong; without one, load on a real
//! broker and scheduler (`load`).

use cardshop_sim::site::{Life, Lived, faults_of, live, shrink};
use serde_json::json;

use crate::exit::{Ending, stop_flag, wrong_usage};
use crate::report::Output;

/// Lines of a story that are shown.
const STORY_LINES: usize = 80;

/// Plays a site. With --seed on simulated time: the same seed gives the same life, and a life that goes wrong is told
/// with the faults that matter.
///
/// Example: cardshop sim --seed 42 --seeds 100
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct Sim {
    /// Where all chance comes from.
    #[arg(long)]
    seed: u64,
    /// Lives, of this seed and those that follow.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    seeds: u64,
    /// Hours in which things go wrong, instead of --minutes.
    #[arg(long, conflicts_with = "minutes", value_parser = clap::value_parser!(u64).range(1..=1000))]
    hours: Option<u64>,
    /// Minutes in which things go wrong [default: 90].
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=60_000))]
    minutes: Option<u64>,
    /// Appliances [default: 1 to 3, by the seed].
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=64))]
    appliances: Option<u16>,
    /// Slots of each appliance.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=64))]
    slots: u32,
    /// Which of the drawn faults happen, by number: all, none, or as 3,5,7.
    #[arg(long, default_value = "all")]
    faults: String,
}

impl Sim {
    pub(crate) fn run(self, output: &Output) -> anyhow::Result<Ending> {
        let stop = stop_flag();
        let mut all_well = true;
        for seed in self.seed..self.seed.saturating_add(self.seeds) {
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
        Ok(Life {
            minutes: self.hours.map(|hours| hours * 60).or(self.minutes).unwrap_or(usual.minutes),
            appliances: self.appliances.map_or(usual.appliances, usize::from),
            slots: self.slots,
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
