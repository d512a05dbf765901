//! Load on a real site, started for it or named: appliances over MQTT, orders for them, and what they and the dashboard saw.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use cardshop_card::StopFlag;
use cardshop_creator::worker;
use cardshop_sim::client::Client;
use cardshop_sim::load::{Load, Report, run};
use serde_json::{Value, json};
use ureq::tls::RootCerts;

use super::server::Served;
use crate::exit::{Ending, wrong_usage};
use crate::report::Output;
use crate::up::{STOP_POLL, run_creator};

/// Where the password for a site of others is: never on the command line.
pub(super) const PASSWORD_VARIABLE: &str = "CARDSHOP_PASSWORD";
/// Most copies of one order. **Source:** the scheduler's limit.
const MAX_COPIES: usize = 1000;
/// How long an image that has no content may take.
const IMAGE_WITHIN: Duration = Duration::from_secs(120);
/// Copies ordered for each slot: a load of some minutes does not run out of them.
const COPIES_PER_SLOT: usize = 4;
/// Orders at most: leases of very many would say nothing new.
const MAX_ORDERS: usize = 20;

/// The words of a load.
pub(super) struct Words {
    pub(super) site: Option<(String, String)>,
    pub(super) username: String,
    pub(super) appliances: usize,
    pub(super) slots: u32,
    pub(super) duration: Duration,
    pub(super) rate: u64,
}

pub(super) fn play(words: &Words, output: &Output, stop: &StopFlag) -> anyhow::Result<Ending> {
    let folder = tempfile::Builder::new().prefix("cardshop-sim-").tempdir().context("no temporary folder")?;
    let (mut served, mut password) = (None, std::env::var(PASSWORD_VARIABLE).ok());
    let (http, mqtt) = match &words.site {
        Some(site) => site.clone(),
        None => {
            let own = served.insert(Served::start(&folder.path().join("site"), None)?);
            password = own.password.clone();
            (own.http.clone(), own.mqtt.clone())
        }
    };
    let Some(password) = password else {
        return Err(wrong_usage(format!(
            "{PASSWORD_VARIABLE} is to hold the password of {}",
            words.username
        )));
    };
    let manager = Client::login(&http, &words.username, &password).context("cannot log in at the site")?;
    let creator_stop = StopFlag::new();
    let creator = hire(&manager, &http, folder.path(), &creator_stop)?;
    let orders = order(&manager, words)?;
    let ready = wait_for_images(&manager, &orders, stop);
    creator_stop.stop();
    let _ = creator.join();
    ready?;
    output.line(format_args!(
        "{} orders are ready at {http}; {} appliances join",
        orders.len(),
        words.appliances
    ));
    let before = served.as_ref().map(Served::resident_mib).transpose()?;
    let load = Load {
        server: http,
        mqtt,
        roots: RootCerts::WebPki,
        username: words.username.clone(),
        password,
        appliances: words.appliances,
        slots: words.slots,
        duration: words.duration,
        states_per_second: words.rate,
    };
    let report = run(&load, stop)?;
    let memory = served.as_ref().map(Served::resident_mib).transpose()?;
    let counted = counted(&manager, &orders)?;
    tell(&report, (before, memory), counted, output);
    if let Some(served) = served {
        served.stop()?;
    }
    if stop.is_stopped() {
        return Ok(Ending::Interrupted);
    }
    // What was told and stored is what the orders count, no more and no less.
    let whole = report.facts_stored == report.facts && counted == report.cards;
    Ok(if whole { Ending::Done } else { Ending::Failed })
}

fn hire(
    manager: &Client,
    http: &str,
    folder: &Path,
    stop: &StopFlag,
) -> anyhow::Result<std::thread::JoinHandle<()>> {
    let (name, password) = (format!("sim-{}", std::process::id()), cardshop_scheduler::random_password());
    let user = json!({"username": name, "password": password, "role": "creator"});
    let _: Value = manager.post("/users", &user)?;
    let mut config = worker::Config::new(http, &name, &password, &folder.join("creator"));
    config.simulate = true;
    Ok(run_creator(config, stop.clone()))
}

fn order(manager: &Client, words: &Words) -> anyhow::Result<Vec<String>> {
    let configuration: Value =
        manager.post("/configurations", &json!({"name": "Load", "recipe": {"files": []}}))?;
    let mut left = words.appliances * words.slots as usize * COPIES_PER_SLOT;
    let mut orders = Vec::new();
    while left > 0 && orders.len() < MAX_ORDERS {
        let quantity = left.min(MAX_COPIES);
        left -= quantity;
        let order = json!({"configuration": configuration["id"], "kind": "physical", "quantity": quantity});
        let order: Value = manager.post("/orders", &order)?;
        orders.push(order["id"].as_str().context("an order has an id")?.to_owned());
    }
    Ok(orders)
}

fn wait_for_images(manager: &Client, orders: &[String], stop: &StopFlag) -> anyhow::Result<()> {
    let began = Instant::now();
    for order in orders {
        loop {
            let now: Value = manager.get(&format!("/orders/{order}"))?;
            if now["status"] == "ready" {
                break;
            }
            ensure!(!stop.is_stopped(), "stopped while images were made");
            ensure!(began.elapsed() < IMAGE_WITHIN, "order {order} has no image, it is {}", now["status"]);
            std::thread::sleep(STOP_POLL);
        }
    }
    Ok(())
}

/// Cards that the orders count, spare ones too.
fn counted(manager: &Client, orders: &[String]) -> anyhow::Result<u64> {
    let mut cards = 0;
    for order in orders {
        let order: Value = manager.get(&format!("/orders/{order}"))?;
        cards += order["verified"].as_u64().unwrap_or(0) + order["spare"].as_u64().unwrap_or(0);
    }
    Ok(cards)
}

fn tell(report: &Report, (before, after): (Option<f64>, Option<f64>), counted: u64, output: &Output) {
    let Report { joined, join_seconds, messages, seconds, states, states_seen, latencies, .. } = report;
    let rate = *messages as f64 / seconds.max(0.001);
    output.event(json!({"event": "load", "appliances": joined, "join_seconds": join_seconds, "seconds": seconds,
        "messages": messages, "messages_per_second": rate, "states": states, "states_seen": states_seen,
        "median_ms": latencies.median_ms, "p99_ms": latencies.p99_ms, "max_ms": latencies.max_ms,
        "facts": report.facts, "facts_stored": report.facts_stored, "cards": report.cards, "cards_counted": counted,
        "memory_mib": after, "memory_before_mib": before}));
    output.line(format_args!("joined      {joined} in {join_seconds:.1} s"));
    output.line(format_args!("messages    {messages} in {seconds:.1} s, {rate:.0} a second"));
    output.line(format_args!(
        "dashboard   {states_seen} of {states} states, median {:.1} ms, p99 {:.1} ms, slowest {:.1} ms",
        latencies.median_ms, latencies.p99_ms, latencies.max_ms
    ));
    output.line(format_args!(
        "facts       {} told, {} stored; {} cards told, {counted} counted",
        report.facts, report.facts_stored, report.cards
    ));
    if let (Some(before), Some(after)) = (before, after) {
        output.line(format_args!("memory      {after:.0} MiB, {before:.0} before they came"));
    }
}
