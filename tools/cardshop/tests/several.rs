//! Three schedulers on one database and one broker, behind one address that passes connections on to whichever of them is
//! there; each is killed in turn while an order is written. Cards are counted once, time is noted once, and clients do
//! no more than connect again.
#![allow(clippy::unwrap_used)] // a test helper that cannot unwrap reads worse and asserts less

mod common;
#[path = "../../testing/postgres.rs"]
mod postgres;

use std::collections::BTreeMap;
use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex};

use cardshop_sim::client::Client;
use cardshop_sim::{content, shop};
use common::{Process, cardshop, eventually, finished_cards, start_ready};
use serde_json::{Value, json};
use ureq::tls::RootCerts;

const CARDS: u32 = 10;

/// The one address of all schedulers.
#[derive(Clone)]
struct Front {
    address: SocketAddr,
    behind: Arc<Mutex<Vec<SocketAddr>>>,
}

impl Front {
    fn open() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let front = Self { address: listener.local_addr().unwrap(), behind: Arc::default() };
        let behind = front.behind.clone();
        std::thread::spawn(move || {
            for (n, client) in listener.incoming().flatten().enumerate() {
                let behind = behind.clone();
                std::thread::spawn(move || pass_on(&client, &behind, n));
            }
        });
        front
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

/// To the next of those that are there, by turns.
fn pass_on(client: &TcpStream, behind: &Mutex<Vec<SocketAddr>>, n: usize) {
    let addresses = behind.lock().unwrap().clone();
    let mut turns = addresses.iter().cycle().skip(n).take(addresses.len());
    let Some(server) = turns.find_map(|address| TcpStream::connect(address).ok()) else { return };
    std::thread::scope(|scope| {
        for (mut from, mut to) in [(client, &server), (&server, client)] {
            scope.spawn(move || {
                let _ = io::copy(&mut from, &mut to);
                let _ = from.shutdown(Shutdown::Both);
                let _ = to.shutdown(Shutdown::Both);
            });
        }
    });
}

struct Site<'a> {
    folder: &'a Path,
    store: String,
    mqtt: String,
    warehouse: String,
    front: Front,
}

impl Site<'_> {
    fn scheduler(&self, n: usize) -> (Process, SocketAddr, Value) {
        let mut command = cardshop();
        command.args(["--json", "scheduler", "--listen", "127.0.0.1:0", "--store", &self.store]);
        command.args(["--mqtt", &self.mqtt, "--warehouse", &self.warehouse, "--data"]);
        let (process, ready) = start_ready(command.arg(self.folder.join(format!("scheduler-{n}"))));
        let http = ready["http"].as_str().unwrap();
        (process, http.rsplit_once('/').unwrap().1.parse().unwrap(), ready)
    }
}

#[test]
fn each_of_three_schedulers_is_killed_and_no_card_is_lost_or_counted_twice() {
    let Some(server) = postgres::Server::start() else { return };
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("site");
    let front = Front::open();
    let service = |name: &str| {
        let mut command = cardshop();
        command.args(["--json", name, "--listen", "127.0.0.1:0", "--scheduler", &front.url(), "--data"]);
        start_ready(command.arg(&data))
    };
    let (_broker, broker) = service("broker");
    let (_warehouse, warehouse) = service("warehouse");
    let text = |value: &Value, field: &str| value[field].as_str().unwrap().to_owned();
    let site = Site {
        folder: folder.path(),
        store: server.database(),
        mqtt: text(&broker, "mqtt"),
        warehouse: text(&warehouse, "warehouse"),
        front: front.clone(),
    };
    let mut schedulers = Vec::new();
    let mut login = Value::Null;
    for n in 0..3 {
        let (process, address, ready) = site.scheduler(n);
        assert_eq!(ready["password"].is_null(), n > 0, "the first login is told once: {ready}");
        if n == 0 {
            login = ready;
        }
        site.front.behind.lock().unwrap().push(address);
        schedulers.push(Some(process));
    }
    let log_in =
        || Client::login_trusting(&front.url(), RootCerts::WebPki, "admin", &text(&login, "password"));
    let manager = log_in().unwrap();

    let password = "a creator's own password";
    let creator = json!({"username": "builder", "password": password, "role": "creator"});
    let _: Value = manager.post("/users", &creator).unwrap();
    let mut creator = cardshop();
    creator.args(["creator", "--server", &front.url(), "--username", "builder", "--work"]);
    creator.arg(data.join("creator")).env("CARDSHOP_PASSWORD", password).stdout(Stdio::null());
    let _creator = Process::start(&mut creator);

    let files = content::make(&folder.path().join("content")).unwrap();
    let url = content::serve(folder.path().join("content")).unwrap();
    let configuration = shop::open(&manager, &url, &files).unwrap();
    let appliance = folder.path().join("appliance");
    std::fs::create_dir_all(&appliance).unwrap();
    let join = appliance.join("JOIN.TXT");
    std::fs::write(&join, shop::join_file(&manager, &front.url()).unwrap()).unwrap();
    let cards = folder.path().join("cards");
    let config = json!({"data": appliance, "join": join, "simulate": {"slots": 2, "cards": cards,
        "card_sizes": [300 << 20], "write_bps": 8_000_000}});
    let config_file = folder.path().join("agent.toml");
    std::fs::write(&config_file, toml::to_string(&config).unwrap()).unwrap();
    let mut agent = std::process::Command::new(common::agent_binary());
    let _agent = Process::start(agent.arg("--config").arg(&config_file));
    shop::approve_first(&manager, &|| true).unwrap().unwrap();
    let order = shop::order(&manager, &configuration, CARDS).unwrap();

    let verified = |at_least: u64| {
        eventually(&format!("{at_least} verified cards"), || {
            // Whoever is asked may just be killed.
            let found = manager.get::<Value>(&format!("/orders/{order}")).ok()?;
            (found["verified"].as_u64()? >= at_least).then_some(found)
        })
    };
    for (round, scheduler) in schedulers.iter_mut().enumerate() {
        verified(1 + 2 * round as u64);
        scheduler.take().unwrap().kill();
        verified(2 + 2 * round as u64);
        let (process, address, _) = site.scheduler(round);
        site.front.behind.lock().unwrap()[round] = address;
        *scheduler = Some(process);
    }
    let written = eventually("the order written", || {
        let found = manager.get::<Value>(&format!("/orders/{order}")).ok()?;
        (found["status"] == "written").then_some(found)
    });
    assert_eq!(written["verified"], CARDS);
    let records: Vec<Value> = manager.list(&format!("/cards?order={order}")).unwrap();
    assert_eq!(records.len(), CARDS as usize, "each card is counted once");
    assert_eq!(finished_cards(&cards).len(), CARDS as usize);
    let mut stories = BTreeMap::<String, u32>::new();
    for story in manager.list(&format!("/events?order={order}")).unwrap() {
        *stories.entry(format!("{} {}", story["kind"], story["text"])).or_default() += 1;
    }
    assert!(stories.len() > CARDS as usize, "{stories:?}");
    assert!(stories.values().all(|times| *times == 1), "something happened twice: {stories:?}");
}
