//! A shop for tests: the real binaries on free ports and a temporary folder, and a manager's client. Killing a
//! process and starting it again keeps its folder and ports.
#![allow(clippy::unwrap_used, clippy::print_stdout, dead_code)] // a harness: not every test uses all of it

pub(crate) mod link;
pub(crate) mod mosquitto;

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use cardshop_protocol::ids::OrderId;
use cardshop_protocol::index::Index;
use cardshop_sim::client::Client;
use cardshop_sim::{content, shop};
use serde_json::{Value, json};
use ureq::tls::{Certificate, RootCerts};

use self::mosquitto::Mosquitto;

/// What takes longer has failed: many times what a busy machine needs.
const PATIENCE: Duration = Duration::from_secs(180);

/// The `cardshop` binary.
pub(crate) fn cardshop() -> Command {
    Command::new(env!("CARGO_BIN_EXE_cardshop"))
}

/// The `cardshop-agent` binary beside it. Cargo builds no other package's programs for a test, so this does: the
/// newest, also in a fresh clone.
pub(crate) fn agent_binary() -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    let build = || {
        let path = Path::new(env!("CARGO_BIN_EXE_cardshop")).with_file_name("cardshop-agent");
        let folder = path.ancestors().nth(2).unwrap();
        let profile = if cfg!(debug_assertions) { "dev" } else { "release" };
        let built = Command::new(env!("CARGO"))
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .args(["build", "--quiet", "--locked", "--package", "cardshop-agent", "--profile", profile])
            .arg("--target-dir")
            .arg(folder)
            .status();
        assert!(built.unwrap().success() && path.exists(), "{} cannot be built", path.display());
        path
    };
    BUILT.get_or_init(build).clone()
}

/// True when a program can be found; says SKIPPED when not.
pub(crate) fn have(program: &str, package: &str) -> bool {
    let found = std::env::split_paths(&std::env::var_os("PATH").unwrap()).any(|d| d.join(program).is_file());
    if !found {
        println!("SKIPPED: {program} is not installed (package {package})");
    }
    found
}

/// True for root; says SKIPPED when not.
pub(crate) fn root() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        println!("SKIPPED: loop devices need root");
    }
    root
}

/// A loop device over a file, detached at the end.
pub(crate) struct Loop(pub(crate) PathBuf);

impl Loop {
    pub(crate) fn over(file: &Path) -> Self {
        let output = Command::new("losetup").args(["--find", "--show"]).arg(file).output().unwrap();
        assert!(output.status.success(), "{}", text_of(&output));
        Self(PathBuf::from(String::from_utf8(output.stdout).unwrap().trim()))
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let _ = Command::new("losetup").arg("--detach").arg(&self.0).status();
    }
}

/// Calls `check` until it gives something.
pub(crate) fn eventually<T>(what: &str, mut check: impl FnMut() -> Option<T>) -> T {
    let until = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = check() {
            return found;
        }
        assert!(Instant::now() < until, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A child that is killed when the test ends.
pub(crate) struct Process(Child);

impl Process {
    pub(crate) fn start(command: &mut Command) -> Self {
        Self(command.stdin(Stdio::null()).spawn().unwrap())
    }
    /// SIGKILL, as a power cut would.
    pub(crate) fn kill(mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
    /// SIGTERM, and its exit status.
    pub(crate) fn terminate(mut self) -> ExitStatus {
        let pid = nix::unistd::Pid::from_raw(self.0.id().try_into().unwrap());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
        self.0.wait().unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A site with its manager.
pub(crate) struct Shop {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) http: String,
    pub(crate) warehouse: String,
    pub(crate) mqtt: String,
    pub(crate) username: String,
    pub(crate) password: String,
    /// The site's own CA, where it encrypts with one.
    pub(crate) ca: Option<PathBuf>,
    /// The broker that is not ours, where there is one.
    other_broker: Option<Mosquitto>,
    processes: Vec<Process>,
}

/// With `CARDSHOP_TEST_BROKER=mosquitto` each site of a test gets a Mosquitto instead of our own broker.
fn other_broker(folder: &Path) -> Option<Mosquitto> {
    match std::env::var("CARDSHOP_TEST_BROKER").as_deref() {
        Err(_) => None,
        Ok("mosquitto") => Some(Mosquitto::start(folder).expect("Mosquitto is asked for")),
        Ok(other) => panic!("CARDSHOP_TEST_BROKER can be mosquitto, not {other}"),
    }
}

/// How an agent's virtual cards behave.
pub(crate) struct Bench {
    pub(crate) slots: u32,
    pub(crate) card_sizes: Vec<u64>,
    /// Bytes a second per card; 0 = as fast as it goes.
    pub(crate) write_bps: u64,
}

impl Shop {
    /// Starts `cardshop up --with-creator` in a new folder.
    pub(crate) fn open() -> Self {
        Self::open_with(&["--listen", "127.0.0.1:0"])
    }

    /// The same with other words.
    pub(crate) fn open_with(words: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let other_broker = other_broker(folder.path());
        let (up, ready) = start_up(folder.path(), words, other_broker.as_ref());
        let text = |field: &str| ready[field].as_str().unwrap().to_owned();
        Self {
            folder,
            http: text("http"),
            warehouse: text("warehouse"),
            mqtt: text("mqtt"),
            username: text("username"),
            password: text("password"),
            ca: ready["ca"].as_str().map(PathBuf::from),
            other_broker,
            processes: vec![up],
        }
    }

    /// Starts broker, warehouse, scheduler and creator each in a process of its own, as on four machines. `road`
    /// gets the warehouse's address and gives the one by which all others reach it.
    pub(crate) fn open_apart(road: impl FnOnce(&str) -> String) -> Self {
        Self::apart(road, false)
    }

    /// The same under TLS, with one CA of the site's own.
    pub(crate) fn open_apart_encrypted() -> Self {
        Self::apart(str::to_owned, true)
    }

    fn apart(road: impl FnOnce(&str) -> String, encrypted: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        // Broker and warehouse want to know where the scheduler will be.
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let scheme = if encrypted { "https" } else { "http" };
        let http = format!("{scheme}://{}", free.local_addr().unwrap());
        drop(free);
        let data = folder.path().join("site");
        let ca = encrypted.then(|| data.join("tls/ca.pem"));
        let service = |name: &str, words: &[&str]| {
            let mut command = cardshop();
            command.args(["--json", name]).args(words).arg("--data").arg(&data);
            start_ready(if encrypted { command.arg("--tls") } else { &mut command })
        };
        let mut processes = Vec::new();
        let other_broker = other_broker(folder.path());
        let mqtt = other_broker.as_ref().map_or_else(
            || {
                let (broker, at) = service("broker", &["--listen", "127.0.0.1:0", "--scheduler", &http]);
                processes.push(broker);
                at[if encrypted { "mqtts" } else { "mqtt" }].as_str().unwrap().to_owned()
            },
            Mosquitto::url,
        );
        let (warehouse, at) = service("warehouse", &["--listen", "127.0.0.1:0", "--scheduler", &http]);
        let warehouse_url = road(at["warehouse"].as_str().unwrap());
        let listen = http.rsplit_once('/').unwrap().1;
        let mut words = vec!["--listen", listen, "--mqtt", &mqtt, "--warehouse", &warehouse_url];
        words.extend(ca.iter().flat_map(|ca| ["--ca", ca.to_str().unwrap()]));
        let broker_ca = other_broker.as_ref().map(|broker| &broker.ca);
        words.extend(broker_ca.iter().flat_map(|ca| ["--mqtt-ca", ca.to_str().unwrap()]));
        let (scheduler, at) = service("scheduler", &words);
        let text = |field: &str| at[field].as_str().unwrap().to_owned();
        processes.extend([warehouse, scheduler]);
        let mut shop = Self {
            folder,
            username: text("username"),
            password: text("password"),
            http,
            warehouse: warehouse_url,
            mqtt,
            ca,
            other_broker,
            processes,
        };
        let password = "a creator's own password";
        let creator = json!({"username": "builder", "password": password, "role": "creator"});
        let _: Value = shop.manager().post("/users", &creator).unwrap();
        let mut creator = cardshop();
        creator
            .args(["creator", "--server", &shop.http, "--username", "builder", "--work"])
            .arg(data.join("creator"));
        if let Some(ca) = &shop.ca {
            creator.arg("--ca").arg(ca);
        }
        shop.processes.push(Process::start(creator.env("CARDSHOP_PASSWORD", password).stdout(Stdio::null())));
        shop
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.folder.path().join("site")
    }
    pub(crate) fn cards(&self) -> PathBuf {
        self.folder.path().join("cards")
    }

    /// SIGKILL to all services at once.
    pub(crate) fn kill(&mut self) {
        self.processes.drain(..).for_each(Process::kill);
    }

    /// Starts the services again, on the same ports.
    pub(crate) fn restart(&mut self) {
        let port = |url: &str| url.rsplit_once("//").unwrap().1.to_owned();
        let (http, warehouse, mqtt) = (port(&self.http), port(&self.warehouse), port(&self.mqtt));
        let words = ["--listen", &http, "--warehouse-listen", &warehouse, "--mqtt-listen", &mqtt];
        let (up, ready) = start_up(self.folder.path(), &words, self.other_broker.as_ref());
        assert!(ready["password"].is_null(), "the first login is told once");
        self.processes.push(up);
    }

    /// The manager, logged in.
    pub(crate) fn manager(&self) -> Client {
        let roots = self.ca.as_ref().map_or(RootCerts::WebPki, |ca| {
            let pem = std::fs::read(ca).unwrap();
            RootCerts::from([Certificate::from_pem(&pem).unwrap()])
        });
        Client::login_trusting(&self.http, roots, &self.username, &self.password).unwrap()
    }

    /// Opens the demo shop's channel and configuration; gives the configuration.
    pub(crate) fn stock(&self, manager: &Client) -> String {
        let folder = self.folder.path().join("content");
        let files = content::make(&folder).unwrap();
        let url = content::serve(folder).unwrap();
        shop::open(manager, &url, &files).unwrap()
    }

    /// Starts an appliance that is new to the site, and lets it in.
    pub(crate) fn new_agent(&self, manager: &Client, bench: &Bench) -> Process {
        self.prepare_agent(&shop::join_file(manager, &self.http).unwrap(), bench);
        let agent = self.start_agent();
        shop::approve_first(manager, &|| true).unwrap().unwrap();
        agent
    }

    /// Writes a new appliance's settings and join file.
    pub(crate) fn prepare_agent(&self, join_file: &str, bench: &Bench) {
        let folder = self.folder.path().join("appliance");
        std::fs::create_dir_all(&folder).unwrap();
        let join = folder.join("JOIN.TXT");
        std::fs::write(&join, join_file).unwrap();
        let mut config = json!({"data": folder, "join": join, "simulate": {"slots": bench.slots,
            "cards": self.cards(), "card_sizes": bench.card_sizes}});
        if bench.write_bps > 0 {
            config["simulate"]["write_bps"] = bench.write_bps.into();
        }
        std::fs::write(self.agent_config(), toml::to_string(&config).unwrap()).unwrap();
    }

    /// Starts the same appliance (again).
    pub(crate) fn start_agent(&self) -> Process {
        Process::start(Command::new(agent_binary()).arg("--config").arg(self.agent_config()))
    }

    pub(crate) fn agent_config(&self) -> PathBuf {
        self.folder.path().join("agent.toml")
    }

    /// Waits until the order has this status.
    pub(crate) fn wait_for(&self, manager: &Client, order: OrderId, status: &str) -> Value {
        let mut last = Value::Null;
        eventually(&format!("order {status}"), || {
            // Nobody may be there for a moment when a test has just killed it.
            last = manager.get(&format!("/orders/{order}")).ok()?;
            let now = shop::text(&last, "status");
            assert!(now == status || !["failed", "canceled"].contains(&&*now), "the order is {now}: {last}");
            (now == status).then(|| last.clone())
        })
    }

    /// The order's card records.
    pub(crate) fn records(&self, manager: &Client, order: OrderId) -> Vec<Value> {
        manager.list(&format!("/cards?order={order}")).unwrap()
    }

    /// The only image's index in the warehouse, and the image itself.
    pub(crate) fn image(&self) -> (Index, PathBuf) {
        let folder = self.data().join("warehouse");
        let index = std::fs::read_dir(&folder)
            .unwrap()
            .map(|e| e.unwrap().path())
            .find(|p| p.extension().is_some_and(|e| e == "cardindex"))
            .expect("one index");
        (Index::decode(&std::fs::read(&index).unwrap()).unwrap(), index.with_extension("img"))
    }
}

fn start_up(folder: &Path, words: &[&str], broker: Option<&Mosquitto>) -> (Process, Value) {
    let mut command = cardshop();
    command.args(["--json", "up", "--with-creator", "--data"]).arg(folder.join("site")).args(words);
    if let Some(broker) = broker {
        command.args(["--broker", &broker.url(), "--broker-ca"]).arg(&broker.ca);
    }
    start_ready(&mut command)
}

/// Starts a service and waits for its first line.
pub(crate) fn start_ready(command: &mut Command) -> (Process, Value) {
    let mut process = Process::start(command.stdout(Stdio::piped()));
    let mut line = String::new();
    BufReader::new(process.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let ready: Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("not ready: {line:?}"));
    assert_eq!(ready["event"], "ready");
    (process, ready)
}

/// The card files that carry a passport: file and the passport's copy number.
pub(crate) fn finished_cards(folder: &Path) -> Vec<(PathBuf, u32)> {
    let mut cards: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|e| e.unwrap().path())
        .filter_map(|p| cardshop_card::read_passport(&p).ok().flatten().map(|passport| (p, passport.copy)))
        .collect();
    cards.sort_by_key(|c| c.1);
    cards
}

/// Compares a card with its image by reading both files, extent by extent: no code of the engine is used.
pub(crate) fn assert_equal_in_every_extent(index: &Index, image: &Path, card: &Path) {
    use std::os::unix::fs::FileExt;
    let (image, card) = (std::fs::File::open(image).unwrap(), std::fs::File::open(card).unwrap());
    for extent in index.extents() {
        let (mut wanted, mut found) = (vec![0; extent.length as usize], vec![1; extent.length as usize]);
        image.read_exact_at(&mut wanted, extent.offset).unwrap();
        card.read_exact_at(&mut found, extent.offset).unwrap();
        assert!(wanted == found, "different in {extent:?}");
    }
}

/// Random bytes from a fixed seed.
pub(crate) fn noise(size: usize, seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; size];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// Changes one bit of the byte at `offset`.
pub(crate) fn flip_a_bit(path: &Path, offset: u64) {
    use std::os::unix::fs::FileExt;
    let file = std::fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).unwrap();
    file.write_all_at(&[byte[0] ^ 0x10], offset).unwrap();
}

/// Standard output and error as one text.
pub(crate) fn text_of(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// The offset that an error names: the first number behind "at offset".
pub(crate) fn named_offset(text: &str) -> u64 {
    let (_, rest) = text.split_once("at offset ").unwrap_or_else(|| panic!("no offset is named: {text}"));
    rest.split(|c: char| !c.is_ascii_digit()).next().unwrap().parse().unwrap()
}
