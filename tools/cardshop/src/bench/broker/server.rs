//! The brokers that are measured, each in a process of its own so that its memory is its own.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime};

use anyhow::{Context, bail};
use cardshop_broker::{Config, Limits};
use cardshop_protocol::keys::{KeyList, KeyUse, PublicKey, decode_public, encode_public, generate};
use cardshop_protocol::time::Timestamp;
use cardshop_protocol::token::{Claims, ISSUER, Role, SharedKeys, TokenSigner};

/// How long the tokens of a run are good.
const TOKEN_LIFE_S: u64 = 24 * 3600;
/// How long Mosquitto may take to listen.
const START_WITHIN: Duration = Duration::from_secs(10);

/// Who is measured.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Ours,
    Mosquitto,
}

impl Kind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::Mosquitto => "mosquitto",
        }
    }
}

/// Signs the tokens of a run.
pub(super) struct Signer {
    signer: TokenSigner,
    public: String,
}

impl Signer {
    pub(super) fn new() -> anyhow::Result<Self> {
        let key = generate().context("the system has no randomness to give")?;
        Ok(Self { signer: TokenSigner::new(&key), public: encode_public(&key.verifying_key()) })
    }

    fn token(&self, name: &str, role: Role) -> String {
        let now_s = Timestamp::from_system(SystemTime::now()).as_ms() / 1000;
        self.signer.sign(&Claims {
            iss: ISSUER.into(),
            sub: name.into(),
            role,
            channel: Vec::new(),
            scope: None,
            epoch: 0,
            jti: "bench".into(),
            iat: now_s,
            exp: now_s + TOKEN_LIFE_S,
            signed_by: None,
        })
    }
}

/// Who reads what all appliances write.
pub(super) const READER: &str = "scheduler";

/// A running broker.
pub(super) struct Server {
    child: Child,
    pub(super) address: SocketAddr,
    reader: String,
    signer: TokenSigner,
    _folder: tempfile::TempDir,
}

/// Where Debian puts it.
pub(super) fn mosquitto() -> Option<PathBuf> {
    let places = ["/usr/sbin/mosquitto", "/usr/bin/mosquitto", "/usr/local/sbin/mosquitto"];
    places.iter().map(PathBuf::from).find(|path| path.is_file())
}

impl Server {
    /// `limited`: with the limits on connections that a broker has unless told otherwise.
    pub(super) async fn start(kind: Kind, signer: &Signer, limited: bool) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let (child, address) = match kind {
            Kind::Ours => start_ours(signer, limited)?,
            Kind::Mosquitto => start_mosquitto(&folder).await?,
        };
        let reader = signer.token(READER, Role::Scheduler);
        Ok(Self { child, address, reader, signer: signer.signer.clone(), _folder: folder })
    }

    /// The token of [`READER`].
    pub(super) fn reader(&self) -> &str {
        &self.reader
    }

    /// Name and token of appliance `n`.
    pub(super) fn appliance(&self, n: usize) -> (String, String) {
        let name = format!("{n:016x}");
        let signer = Signer { signer: self.signer.clone(), public: String::new() };
        let token = signer.token(&name, Role::Appliance);
        (name, token)
    }

    /// Memory of its process, KiB.
    pub(super) fn resident_kib(&self) -> anyhow::Result<f64> {
        let path = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(&path).with_context(|| path.clone())?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        line.trim().trim_end_matches(" kB").trim().parse().context("VmRSS is a number")
    }

    pub(super) async fn stop(mut self) {
        // A broker that has ended by itself has been noticed by its clients.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn start_ours(signer: &Signer, limited: bool) -> anyhow::Result<(Child, SocketAddr)> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["bench", "broker", "--serve"]);
    if limited {
        command.arg("--limited");
    }
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let mut stdin = child.stdin.take().context("it has a standard input")?;
    writeln!(stdin, "{}", signer.public)?;
    drop(stdin);
    let mut line = String::new();
    BufReader::new(child.stdout.take().context("it has a standard output")?).read_line(&mut line)?;
    let address = line.trim().parse().with_context(|| format!("{line:?} is no address"))?;
    Ok((child, address))
}

async fn start_mosquitto(folder: &tempfile::TempDir) -> anyhow::Result<(Child, SocketAddr)> {
    // It cannot take any port that is free.
    let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let file = folder.path().join("mosquitto.conf");
    let port = address.port();
    // As ours: a hundred in flight, nothing dropped, packets to 80 KiB.
    let config = format!(
        "allow_anonymous true\npersistence false\nmax_inflight_messages 100\nmax_queued_messages 0\n\
         max_packet_size 81920\nlistener {port} 127.0.0.1\n"
    );
    std::fs::write(&file, config)?;
    let program = mosquitto().context("mosquitto is not installed")?;
    let mut command = Command::new(program);
    let child = command
        .arg("-c")
        .arg(&file)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let since = std::time::Instant::now();
    while tokio::net::TcpStream::connect(address).await.is_err() {
        if since.elapsed() > START_WITHIN {
            bail!("mosquitto does not listen");
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok((child, address))
}

/// Is our broker: reads the key of the tokens from standard input, and prints its address.
pub(super) async fn serve(limited: bool) -> anyhow::Result<()> {
    let mut line = String::new();
    std::io::stdin().read_line(&mut line)?;
    let key = decode_public(line.trim()).context("a public key comes first")?;
    let keys = SharedKeys::default();
    keys.replace(KeyList { items: vec![PublicKey::new(&key, KeyUse::Jwt)], ..KeyList::default() });
    let data = tempfile::tempdir()?;
    let mut limits = Limits::default();
    if !limited {
        limits.connects_per_second = u32::MAX;
    }
    let listen = SocketAddr::from(([127, 0, 0, 1], 0));
    let config = Config { listen, plain_anywhere: false, tls: None, data: data.path().to_owned(), limits };
    let broker = cardshop_broker::start(config, keys).await?;
    writeln!(std::io::stdout(), "{}", broker.address())?;
    std::io::stdout().flush()?;
    Err(broker.died().await.into())
}
