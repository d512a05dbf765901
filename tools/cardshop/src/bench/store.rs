//! `cardshop bench store`: durable transitions a second, beside what the same disk's fdatasync allows: with group commit
//! each sync can carry one transition of every client that waits.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::ensure;
use cardshop_scheduler::{StoreAddress, TRANSITION_SIZE, load_store};
use serde_json::json;

use crate::exit::Ending;
use crate::report::Output;
use crate::store::StoreArgs;
use crate::up::runtime;

/// Measures how many changes of state the store makes durable, beside what the disk allows.
///
/// Example: cardshop bench store --dir /var/tmp --store postgres://cardshop@/bench?host=/run/postgresql
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct BenchStore {
    /// Clients that each wait for an answer before they go on.
    #[arg(long, default_value_t = 8)]
    clients: usize,
    /// Seconds of each turn.
    #[arg(long, default_value_t = 5)]
    seconds: u64,
    /// How often each has its turn.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Where the embedded store is made, in a folder of its own.
    #[arg(long, default_value = ".")]
    dir: PathBuf,
    #[command(flatten)]
    store: StoreArgs,
}

impl BenchStore {
    pub(crate) fn run(self, output: &Output) -> anyhow::Result<Ending> {
        ensure!(self.clients > 0 && self.seconds > 0 && self.rounds > 0, "each must be at least 1");
        let folder = tempfile::Builder::new().prefix("cardshop-bench.").tempdir_in(&self.dir)?;
        let mut engines = vec![("embedded", StoreAddress::Directory(folder.path().join("store")))];
        engines.extend(self.store.choose()?.map(|database| ("PostgreSQL", database)));
        let runtime = runtime()?;
        let how_long = Duration::from_secs(self.seconds);
        let mut rates = vec![Vec::new(); engines.len()];
        let mut limits = Vec::new();
        for round in 1..=self.rounds {
            let limit = syncs(folder.path(), self.clients, how_long)? * self.clients as f64;
            output.line(format_args!("round {round}: the disk allows {limit:.0} transitions a second"));
            limits.push(limit);
            for ((name, address), rates) in engines.iter().zip(&mut rates) {
                let loaded = runtime.block_on(load_store(address.clone(), self.clients, how_long))?;
                let rate = loaded.transitions as f64 / loaded.took.as_secs_f64();
                output.line(format_args!("round {round}: {name} {rate:.0}, {:.2} of it", rate / limit));
                output.event(json!({"event": "bench", "what": "store", "round": round, "engine": name,
                    "clients": self.clients, "per_second": rate, "limit": limit}));
                rates.push(rate);
            }
        }
        let limit = super::fetch::median(&mut limits);
        output.line(format_args!("\ngoals, medians of {}", self.rounds));
        for ((name, _), rates) in engines.iter().zip(&mut rates) {
            let rate = super::fetch::median(rates);
            goal(
                output,
                &format!("durable transitions, {name}, share of what the disk allows"),
                rate / limit,
                0.5,
            );
            goal(output, &format!("durable transitions, {name}, a second"), rate, 2000.0);
        }
        Ok(Ending::Done)
    }
}

fn goal(output: &Output, text: &str, measured: f64, limit: f64) {
    let met = measured >= limit;
    let word = if met { "met" } else { "MISSED" };
    output.line(format_args!("  {word:<7}{measured:>8.3} ≥ {limit:<6} {text}"));
    output.event(json!({"event": "goal", "text": text, "limit": limit, "at_least": true,
        "measured": measured, "met": met}));
}

/// Syncs a second of a file to which each adds a transition of every client.
fn syncs(folder: &Path, clients: usize, how_long: Duration) -> anyhow::Result<f64> {
    let path = folder.join("syncs");
    let mut file = File::options().create(true).append(true).open(&path)?;
    let group = vec![b's'; clients * TRANSITION_SIZE];
    let begun = Instant::now();
    let mut count = 0_u32;
    while begun.elapsed() < how_long {
        file.write_all(&group)?;
        file.sync_data()?;
        count += 1;
    }
    let rate = f64::from(count) / begun.elapsed().as_secs_f64();
    std::fs::remove_file(path)?;
    Ok(rate)
}
