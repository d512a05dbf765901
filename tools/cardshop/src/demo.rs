//! `cardshop demo`: the whole shop on this machine. Starts every service on free ports, plays the manager who
//! opens a shop and orders three cards, runs a creator and a virtual appliance, and shows the order through to
//! verified cards. Everybody talks over TCP with real tokens.
//!
//! ```text
//! services up → manager logs in → channel, configuration, creator, join token
//!   → agent joins → manager approves → order → bars until `written` → table
//! ```

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context;
use cardshop_card::StopFlag;
use cardshop_creator::worker;
use cardshop_protocol::api::{CardRecord, SlotView};
use cardshop_protocol::ids::OrderId;
use cardshop_protocol::message::SlotStatus;
use cardshop_scheduler::FirstLogin;
use cardshop_sim::client::Client;
use cardshop_sim::{content, shop};
use serde_json::{Value, json};

use crate::broker::{BrokerArgs, OtherBrokerArgs};
use crate::exit::{Ending, stop_flag};
use crate::report::{Output, Progress};
use crate::services::Site;
use crate::trust::TrustArgs;
use crate::up::{Listen, STOP_POLL, run_creator, runtime};

/// Cards the demo orders.
const QUANTITY: u32 = 3;
/// Sizes of the cards that virtual hands put in, bytes, in turn. The second is too small for the image: it is
/// refused with both sizes and taken out again.
const CARD_SIZES: [u64; 4] = [512 << 20, 48 << 20, 256 << 20, 1 << 30];
/// How fast a virtual card takes bytes: as a usual card does, so that there is something to watch, bytes a second.
const CARD_RATE: u64 = 20_000_000;
/// What is said when a worker could not go on; it has said why itself.
const WORKER_ENDED: &str = "the appliance or the creator ended; the line above says why";
/// Pause after the live stream broke.
const LIVE_RETRY: Duration = Duration::from_millis(500);

/// Runs the whole shop on this machine, with virtual cards, and writes an order of three.
///
/// Example: cardshop demo --exit-when-done --data /tmp/shop
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct Demo {
    /// Slots of the virtual appliance.
    #[arg(long, env = "CARDSHOP_SLOTS", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=64))]
    slots: u32,
    /// End when the order is written: with 0 only if all cards are verified.
    #[arg(long)]
    exit_when_done: bool,
    /// Keep everything in DIR (cards/, warehouse/, scheduler/) [default: a temporary folder, removed at the end].
    #[arg(long, env = "CARDSHOP_DATA", value_name = "DIR")]
    data: Option<PathBuf>,
    #[command(flatten)]
    listen: Listen,
    #[command(flatten)]
    other_broker: OtherBrokerArgs,
}

impl Demo {
    pub(crate) fn run(self, output: &Output) -> anyhow::Result<Ending> {
        cardshop_creator::check_tools().context("the demo builds an image with ext4")?;
        let (data, _temporary) = self.folder()?;
        let stop = stop_flag();
        let runtime = runtime()?;
        let local = SocketAddr::from(([127, 0, 0, 1], 0));
        let (own, trust) = (BrokerArgs::default(), TrustArgs::default());
        let setup = self.listen.clone().setup(local, &data, &own, &self.other_broker, &trust)?;
        let site = runtime.block_on(Site::start(setup))?;
        output.event(site.ready());
        let login = site.first_login.clone().context("a new shop has a first login")?;
        output.line(format_args!("Dashboard  {}", site.http));
        output.line(format_args!("Login      {}  {}", login.username, login.password));
        output.line(format_args!("Kept in    {}", data.display()));

        let mut workers = Workers::new();
        let parts = Parts {
            data: &data,
            slots: self.slots,
            mqtt_ca: self.other_broker.broker_ca.as_deref(),
            stop: &stop,
        };
        let ending = parts.play(output, &site, &login, &mut workers);
        if matches!(ending, Ok(Ending::Done)) && !self.exit_when_done {
            output.line("The shop stays open: look at the dashboard, end with Ctrl-C.");
            while !stop.is_stopped() {
                std::thread::sleep(STOP_POLL);
            }
        }
        let interrupted = stop.is_stopped() && !matches!(ending, Ok(Ending::Done));
        stop.stop();
        for worker in workers {
            let _ = worker.join();
        }
        runtime.block_on(site.shutdown());
        if interrupted { Ok(Ending::Interrupted) } else { ending }
    }

    /// The folder, and what removes it at the end when nobody named one.
    fn folder(&self) -> anyhow::Result<(PathBuf, Option<tempfile::TempDir>)> {
        let Some(data) = &self.data else {
            let folder =
                tempfile::Builder::new().prefix("cardshop-demo-").tempdir().context("no temporary folder")?;
            return Ok((folder.path().to_owned(), Some(folder)));
        };
        anyhow::ensure!(
            !data.join("scheduler").exists(),
            "{} holds a shop already: `cardshop up --data {0}` opens it, or name another folder for the demo",
            data.display()
        );
        std::fs::create_dir_all(data).with_context(|| format!("cannot make {}", data.display()))?;
        // Images and addresses name files absolutely.
        Ok((std::path::absolute(data)?, None))
    }
}

/// What the demo starts beside the services.
struct Parts<'a> {
    data: &'a Path,
    slots: u32,
    mqtt_ca: Option<&'a Path>,
    stop: &'a StopFlag,
}

type Workers = Vec<JoinHandle<()>>;

impl Parts<'_> {
    /// The whole play: from the empty shop to the table of cards.
    fn play(
        &self,
        output: &Output,
        site: &Site,
        login: &FirstLogin,
        workers: &mut Workers,
    ) -> anyhow::Result<Ending> {
        let manager =
            Client::login_trusting(&site.http, site.roots.clone(), &login.username, &login.password)?;
        let Some(order) = self.start(site, &manager, workers)? else { return Ok(Ending::Interrupted) };
        if watch(output, &manager, order, self.stop, workers)? {
            table(output, &manager, order, self.data)
        } else {
            Ok(Ending::Failed)
        }
    }

    /// Opens the shop, hires the workers and places the order. Nothing when the person stopped it before that.
    fn start(&self, site: &Site, manager: &Client, workers: &mut Workers) -> anyhow::Result<Option<OrderId>> {
        let folder = self.data.join("content");
        let files = content::make(&folder).context("cannot make the demo's content")?;
        let content_url = content::serve(folder).context("cannot serve the demo's content")?;
        let configuration = shop::open(manager, &content_url, &files)?;
        workers.push(self.start_creator(site, manager)?);
        workers.push(self.start_agent(site, manager)?);
        let still_wanted = || !self.stop.is_stopped() && !one_ended(workers);
        if shop::approve_first(manager, &still_wanted)?.is_none() {
            anyhow::ensure!(self.stop.is_stopped(), "{WORKER_ENDED}");
            return Ok(None);
        }
        Ok(Some(shop::order(manager, &configuration, QUANTITY)?))
    }

    fn start_creator(&self, site: &Site, manager: &Client) -> anyhow::Result<JoinHandle<()>> {
        let password = cardshop_scheduler::random_password();
        shop::hire_creator(manager, &password)?;
        let mut config =
            worker::Config::new(&site.http, shop::CREATOR, &password, &self.data.join("creator"));
        config.roots = site.roots.clone();
        Ok(run_creator(config, self.stop.clone()))
    }

    fn start_agent(&self, site: &Site, manager: &Client) -> anyhow::Result<JoinHandle<()>> {
        let folder = self.data.join("appliance");
        std::fs::create_dir_all(&folder)?;
        let join = folder.join("JOIN.TXT");
        std::fs::write(&join, shop::join_file(manager, &site.http)?)?;
        let config = cardshop_agent::Config {
            data: folder,
            join,
            mqtt_ca: self.mqtt_ca.map(Path::to_owned),
            slots: Vec::new(),
            readers: false,
            screens: false,
            bench: Default::default(),
            update: Default::default(),
            simulate: Some(cardshop_agent::SimulateConfig {
                slots: self.slots,
                cards: Some(self.data.join("cards")),
                card_sizes: CARD_SIZES.to_vec(),
                write_bps: Some(CARD_RATE),
                ..Default::default()
            }),
            fetch: Default::default(),
            cache: Default::default(),
        };
        let stop = self.stop.clone();
        Ok(std::thread::spawn(move || {
            if let Err(error) = cardshop_agent::run(config, stop) {
                tracing::error!(%error, "the agent ended");
            }
        }))
    }
}

/// Workers end only when they are told to, or when they cannot go on.
fn one_ended(workers: &Workers) -> bool {
    workers.iter().any(JoinHandle::is_finished)
}

/// Follows the order until it is written: true. False when it ended otherwise or the person stopped it.
fn watch(
    output: &Output,
    manager: &Client,
    order: OrderId,
    stop: &StopFlag,
    workers: &Workers,
) -> anyhow::Result<bool> {
    let followed = StopFlag::new();
    let status = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !followed.is_stopped() {
                if stop.is_stopped() || one_ended(workers) {
                    // The live stream may be silent for long.
                    return manager.hang_up();
                }
                std::thread::sleep(STOP_POLL);
            }
        });
        let status = follow(output, manager, order, &|| !stop.is_stopped() && !one_ended(workers));
        followed.stop();
        status
    });
    if !is_final(&status) {
        anyhow::ensure!(stop.is_stopped(), "{WORKER_ENDED}");
    } else if status != "written" {
        let story: Value = manager.get(&format!("/orders/{order}/explain"))?;
        output.line(format_args!("The order is {status}: {story}"));
    }
    Ok(status == "written")
}

/// Shows what happens until the order has ended or is not wanted any more; gives its last status.
fn follow(output: &Output, manager: &Client, order: OrderId, still_wanted: &dyn Fn() -> bool) -> String {
    let bars = output.bars();
    let mut slots: HashMap<String, Progress> = HashMap::new();
    let mut status = String::new();
    while still_wanted() && !is_final(&status) {
        let ended = manager.live(&mut |name, data| {
            match name {
                "slot" | "progress" => {
                    if let Ok(slot) = serde_json::from_value::<SlotView>(data.clone()) {
                        let bar = slots
                            .entry(slot.id.clone())
                            .or_insert_with(|| output.progress(&bars, &slot.name));
                        draw(bar, &slot);
                    }
                }
                "order" if shop::text(data, "id") == order.to_string() => {
                    let now = shop::text(data, "status");
                    if now != status {
                        output.event(json!({"event": "order", "order": order, "status": now}));
                        bars.suspend(|| output.line(format_args!("Order      {now}")));
                        status = now;
                    }
                }
                _ => {}
            }
            still_wanted() && !is_final(&status)
        });
        if let Err(error) = ended
            && still_wanted()
        {
            tracing::info!(%error, "following again");
            std::thread::sleep(LIVE_RETRY);
        }
    }
    status
}

fn is_final(status: &str) -> bool {
    matches!(status, "written" | "shipped" | "failed" | "canceled" | "expired")
}

fn draw(bar: &mut Progress, slot: &SlotView) {
    let word = match slot.state.state {
        SlotStatus::Writing => "writing",
        SlotStatus::Verifying => "verifying",
        SlotStatus::Waiting => "waiting",
        SlotStatus::Checking => "checking",
        SlotStatus::Wanted => "wanted",
        SlotStatus::Done => "done",
        SlotStatus::Unsuitable => "too small",
        SlotStatus::BadCard => "bad card",
        _ => "resting",
    };
    match &slot.progress {
        Some(p) if p.total > 0 => bar.at(word, p.done, p.total),
        _ => bar.rest(word),
    }
}

/// Shows the order's cards, each looked up by its passport in the virtual cards' folder.
fn table(output: &Output, manager: &Client, order: OrderId, data: &Path) -> anyhow::Result<Ending> {
    let cards = manager.list(&format!("/cards?order={order}"))?;
    let files = files_by_card(&data.join("cards"))?;
    output.line(format_args!("\n{:<6} {:<20} {:<64} {:>8}  verified", "slot", "card", "image", "MB/s"));
    let mut verified = 0;
    for card in cards {
        let record: CardRecord = serde_json::from_value(card).context("the card's record")?;
        let file = files.get(&record.uid.to_string()).cloned().unwrap_or_else(|| record.uid.to_string());
        let good = record.verified_bytes > 0;
        verified += u32::from(good);
        output.event(json!({"event": "card", "slot": record.slot, "card": file, "uid": record.uid, "image": record.image,
            "write_bps": record.write_bps, "verified": good}));
        let word = if good { "yes" } else { "NO" };
        let rate = record.write_bps as f64 / 1e6;
        output.line(format_args!("{:<6} {file:<20} {:<64} {rate:>8.1}  {word}", record.slot, record.image));
    }
    output.event(json!({"event": "done", "order": order, "verified": verified, "ordered": QUANTITY}));
    output.line(format_args!("\n{verified} of {QUANTITY} cards verified"));
    Ok(if verified >= QUANTITY { Ending::Done } else { Ending::Failed })
}

/// Card identity → file name, read from the cards themselves.
fn files_by_card(folder: &Path) -> anyhow::Result<HashMap<String, String>> {
    let mut files = HashMap::new();
    for entry in std::fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if let Ok(Some(passport)) = cardshop_card::read_passport(&path) {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            files.insert(passport.uid.to_string(), name);
        }
    }
    Ok(files)
}
