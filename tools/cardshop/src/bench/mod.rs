//! `cardshop bench`: speed is shown beside a peer, or beside the limit of the same machine, in one run. Ratios
//! are what counts; a figure alone says how busy the machine was.

mod broker;
mod build;
mod card;
mod fetch;
mod scheduler;
mod store;

use clap::Subcommand;

use crate::exit::Ending;
use crate::report::Output;

/// Measures speed, each figure beside a peer or a limit in the same run.
///
/// Example: cardshop bench fetch --rounds 1
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct Bench {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    Broker(broker::BenchBroker),
    Build(build::BenchBuild),
    Card(card::BenchCard),
    Fetch(fetch::BenchFetch),
    Scheduler(scheduler::BenchScheduler),
    Store(store::BenchStore),
}

impl Bench {
    pub(crate) fn run(self, output: &Output) -> anyhow::Result<Ending> {
        match self.what {
            What::Broker(bench) => bench.run(output),
            What::Build(bench) => bench.run(output),
            What::Card(bench) => bench.run(output),
            What::Fetch(bench) => bench.run(output),
            What::Scheduler(bench) => bench.run(output),
            What::Store(bench) => bench.run(output),
        }
    }
}
