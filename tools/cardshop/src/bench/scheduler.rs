//! `cardshop bench scheduler`: a site that has worked for years, and how it feels: how soon it is up, what memory it takes,
//! how fast its lists turn pages, and how late the dashboard shows what a slot does.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context;
use cardshop_scheduler::{Config, Keeping, RootCerts, furnish_store};
use cardshop_sim::client::Client;
use cardshop_sim::load::{Latencies, Load, run};
use serde_json::{Value, json};

use crate::exit::{Ending, stop_flag};
use crate::report::Output;
use crate::sim::server::Served;
use crate::up::runtime;

/// Pages in a row of one list.
const PAGES_IN_A_ROW: usize = 20;
/// Who asks, and as whom.
const USERNAME: &str = "admin";
/// Only this machine reaches the site, and only for the time of the benchmark.
const PASSWORD: &str = "benchmark password";
/// The lists, as people and programs ask for them.
const LISTS: [&str; 8] = [
    "/orders?limit=50",
    "/orders?status=written&limit=50",
    "/orders?status=shipped&limit=50",
    "/orders?status=canceled&limit=50",
    "/events?limit=50",
    "/tasks?limit=50",
    "/images?limit=50",
    "/slots?limit=50",
];

/// Measures a scheduler with very many orders and events: start, memory, lists, and how late the dashboard is.
///
/// Example: cardshop bench scheduler --dir /var/tmp
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct BenchScheduler {
    /// Orders in the store.
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    orders: u64,
    /// What happened to them, lines.
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(0..=100_000_000))]
    events: u64,
    /// Seconds of slot states.
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// Slot states a second.
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    rate: u64,
    /// Where the site is made, in a folder of its own.
    #[arg(long, default_value = ".")]
    dir: PathBuf,
}

impl BenchScheduler {
    pub(crate) fn run(self, output: &Output) -> anyhow::Result<Ending> {
        let folder = tempfile::Builder::new().prefix("cardshop-bench.").tempdir_in(&self.dir)?;
        let data = folder.path().join("site");
        let began = Instant::now();
        // A warehouse that is at another address after each start would have moved, and all orders with it.
        let warehouse = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let config = config(data.join("scheduler"), warehouse);
        let documents = runtime()?.block_on(furnish_store(config, self.orders, self.events))?;
        output.line(format_args!("{documents} documents in {:.0} s", began.elapsed().as_secs_f64()));
        // The first start makes sled's files of the import.
        let first = Served::start(&data, Some(warehouse))?;
        let made = first.took;
        output.line(format_args!("first start, from an import: {:.1} s", made.as_secs_f64()));
        first.stop()?;
        let served = Served::start(&data, Some(warehouse))?;
        let start = served.took.as_secs_f64();
        let idle = served.resident_mib()?;
        let client = Client::login(&served.http, USERNAME, PASSWORD)?;
        let mut slowest = 0.0_f64;
        for list in LISTS {
            let latencies = pages(&client, list).with_context(|| list.to_owned())?;
            output.line(format_args!(
                "{list:<36} p99 {:>7.1} ms, median {:.1} ms",
                latencies.p99_ms, latencies.median_ms
            ));
            output.event(json!({"event": "bench", "what": "scheduler", "list": list,
                "median_ms": latencies.median_ms, "p99_ms": latencies.p99_ms}));
            slowest = slowest.max(latencies.p99_ms);
        }
        let dashboard = self.dashboard(&served)?;
        let memory = served.resident_mib()?;
        output.event(json!({"event": "bench", "what": "scheduler", "orders": self.orders, "events": self.events,
            "start_seconds": start, "import_start_seconds": made.as_secs_f64(), "idle_mib": idle, "memory_mib": memory,
            "dashboard_median_ms": dashboard.median_ms, "dashboard_p99_ms": dashboard.p99_ms}));
        output.line("\ngoals");
        goal(output, "pages of the slowest list, p99, ms", slowest, 50.0);
        goal(output, "memory with all of it, MiB", memory, 256.0);
        goal(output, "start with all of it, s", start, 3.0);
        goal(output, "slot state to dashboard, p99, ms", dashboard.p99_ms, 50.0);
        served.stop()?;
        Ok(Ending::Done)
    }

    fn dashboard(&self, served: &Served) -> anyhow::Result<Latencies> {
        let load = Load {
            server: served.http.clone(),
            mqtt: served.mqtt.clone(),
            roots: RootCerts::WebPki,
            username: USERNAME.into(),
            password: PASSWORD.into(),
            appliances: 10,
            slots: 8,
            duration: Duration::from_secs(self.seconds),
            states_per_second: self.rate,
        };
        Ok(run(&load, &stop_flag())?.latencies)
    }
}

fn config(data: PathBuf, warehouse: u16) -> Config {
    Config {
        data,
        public_url: "http://127.0.0.1:1".into(),
        mqtt_url: "mqtt://127.0.0.1:1".into(),
        mqtt_ca: None,
        appliance_mqtt_url: None,
        own_ca: None,
        roots: RootCerts::WebPki,
        warehouses: vec![format!("http://127.0.0.1:{warehouse}")],
        admin_password: Some(PASSWORD.into()),
        catalogue: cardshop_scheduler::CatalogueConfig::default(),
        keeping: Keeping { backups: 0, ..Keeping::default() },
        notify: Default::default(),
    }
}

/// Turns the pages of a list, from its beginning and again from where each page ends.
fn pages(client: &Client, list: &str) -> anyhow::Result<Latencies> {
    let mut times = Vec::new();
    let mut cursor = String::new();
    for _ in 0..PAGES_IN_A_ROW {
        let began = Instant::now();
        let page: Value = client.get(&format!("{list}{cursor}"))?;
        times.push(began.elapsed());
        cursor = page["next_cursor"].as_str().map(|next| format!("&cursor={next}")).unwrap_or_default();
    }
    Ok(Latencies::of(times))
}

fn goal(output: &Output, text: &str, measured: f64, limit: f64) {
    let met = measured <= limit;
    let word = if met { "met" } else { "MISSED" };
    output.line(format_args!("  {word:<7}{measured:>9.1} ≤ {limit:<6} {text}"));
    output.event(json!({"event": "goal", "text": text, "limit": limit, "at_least": false,
        "measured": measured, "met": met}));
}
