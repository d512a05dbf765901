//! How fast images leave: this warehouse beside Debian's nginx, which serves the same file with sendfile, by turns, over
//! loopback, in the clear and encrypted, to 1 and 16 clients; then one client while 1,000 slow ones are held.
//!
//!     cargo bench -p cardshop-warehouse --bench serve -- [--mib 1024] [--rounds 3]
//!
//! Each server is a process of its own; client and servers share the machine. Prints medians, ratios, and the memory
//! of this warehouse.

#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cardshop_protocol::ids::{ImageId, OrderId, TaskId};
use cardshop_protocol::index::{Extent, ExtentKind, ImageMap, IndexBuilder, default_chunk_size};
use cardshop_protocol::keys::{KeyList, KeyUse, PublicKey};
use cardshop_protocol::token::{Claims, ISSUER, Role, SharedKeys, TokenSigner};
use cardshop_warehouse::{Config, TlsFiles, start};
use ed25519_dalek::SigningKey;
use rustls::pki_types::ServerName;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

const KEY: [u8; 32] = [9; 32];
const SLOW_CLIENTS: usize = 1000;
/// The child serves this folder when the variable is set.
const SERVE: &str = "CARDSHOP_BENCH_SERVE";

fn main() {
    if let Some(folder) = std::env::var_os(SERVE) {
        return serve(Path::new(&folder));
    }
    let option = |name: &str, default: u64| {
        let mut words = std::env::args().skip_while(|word| word != name);
        words.nth(1).map_or(default, |value| value.parse().expect("a number"))
    };
    let (mib, rounds) = (option("--mib", 1024), option("--rounds", 3) as usize);
    // In memory, so that no disk is measured.
    let folder = tempfile::Builder::new().prefix("cardshop-bench").tempdir_in("/dev/shm").unwrap();
    // nginx's workers give root up.
    Command::new("chmod").args(["-R", "a+rx"]).arg(folder.path()).status().unwrap();
    certify(folder.path());
    println!("{mib} MiB, {rounds} rounds, MB/s (median)");
    let mut image = None;
    for tls in [false, true] {
        let mut ours = Ours::start(folder.path(), tls);
        let id = *image.get_or_insert_with(|| put(ours.address, mib << 20));
        let path = folder.path().join(format!("warehouse/{id}.img"));
        let nginx = Nginx::start(folder.path(), &path, tls);
        let ours_at = Target {
            address: ours.address,
            path: format!("/images/{id}"),
            tls: tls.then(|| trust(folder.path())),
        };
        let nginx_at = nginx.as_ref().map(|nginx| Target {
            address: nginx.address,
            path: format!("/{id}.img"),
            tls: ours_at.tls.clone(),
        });
        let label = if tls { "TLS" } else { "plain" };
        for clients in [1, 16] {
            let each = if clients == 1 { mib << 20 } else { (mib << 20) / 4 };
            let mut rates = [Vec::new(), Vec::new()];
            for _ in 0..rounds {
                rates[0].push(rate(&ours_at, clients, each));
                rates[1].extend(nginx_at.as_ref().map(|nginx| rate(nginx, clients, each)));
            }
            let [ours_rate, nginx_rate] = rates.map(median);
            println!(
                "{label:5} {clients:2} clients   ours {ours_rate:6.0}   nginx {nginx_rate:6.0}   ratio {:.2}   our memory {} MiB",
                ours_rate / nginx_rate,
                memory_kib(&ours.child) / 1024
            );
        }
        if !tls {
            let alone = median((0..rounds).map(|_| rate(&ours_at, 1, mib << 20)).collect());
            let before = memory_kib(&ours.child);
            let held = hold(&ours_at);
            let beside = median((0..rounds).map(|_| rate(&ours_at, 1, mib << 20)).collect());
            let after = memory_kib(&ours.child);
            println!(
                "{} slow clients held: a fast one gets {beside:.0}, alone {alone:.0}, ratio {:.2}; memory {} MiB, {} KiB for each",
                held.len(),
                beside / alone,
                after / 1024,
                after.saturating_sub(before) / held.len() as u64
            );
        }
        drop(nginx);
        ours.child.kill().unwrap();
        ours.child.wait().unwrap();
    }
}

/// The child: a warehouse that says where it listens, until it is killed.
fn serve(folder: &Path) {
    let keys = SharedKeys::default();
    let key = SigningKey::from_bytes(&KEY).verifying_key();
    keys.replace(KeyList { items: vec![PublicKey::new(&key, KeyUse::Jwt)], ..KeyList::default() });
    let mut config = Config::new("127.0.0.1:0".parse().unwrap(), folder.join("warehouse"));
    config.limits.space_margin = 0;
    if std::env::var_os("CARDSHOP_BENCH_TLS").is_some() {
        config.tls = Some(TlsFiles { cert: folder.join("cert.pem"), key: folder.join("key.pem") });
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let running = runtime.block_on(start(config, keys)).unwrap();
    println!("{}", running.address());
    std::thread::park();
}

struct Ours {
    child: Child,
    address: SocketAddr,
}

impl Ours {
    fn start(folder: &Path, tls: bool) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.env(SERVE, folder).stdout(Stdio::piped());
        if tls {
            command.env("CARDSHOP_BENCH_TLS", "1");
        }
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        Self { child, address: line.trim().parse().unwrap() }
    }
}

struct Nginx {
    child: Child,
    address: SocketAddr,
}

impl Nginx {
    /// `None`, and a line that says why, where nginx is not installed.
    fn start(folder: &Path, image: &Path, tls: bool) -> Option<Self> {
        // Free a moment ago; nginx cannot say which port it got.
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let root = image.parent().unwrap().display().to_string();
        let here = folder.display();
        let (kind, certificate) = match tls {
            true => (" ssl", format!("ssl_certificate {here}/cert.pem; ssl_certificate_key {here}/key.pem;")),
            false => ("", String::new()),
        };
        let text = format!(
            "daemon off; user root; worker_processes auto; pid {here}/nginx.pid; error_log {here}/nginx.log;\n\
             events {{ worker_connections 4096; }}\n\
             http {{ access_log off; sendfile on; tcp_nopush on; client_body_temp_path {here}/b; proxy_temp_path {here}/p;\n\
             fastcgi_temp_path {here}/f; uwsgi_temp_path {here}/u; scgi_temp_path {here}/s;\n\
             server {{ listen {address}{kind}; {certificate} root {root}; }} }}\n"
        );
        let file = folder.join("nginx.conf");
        std::fs::write(&file, text).unwrap();
        let child = Command::new("nginx").arg("-c").arg(&file).spawn();
        let Ok(child) = child else {
            println!("SKIPPED: nginx is not installed, so there is nothing to compare with");
            return None;
        };
        while TcpStream::connect(address).is_err() {
            std::thread::yield_now();
        }
        Some(Self { child, address })
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // Its workers end with a master that is asked to, not with one that is killed.
        let _ = Command::new("kill").arg(self.child.id().to_string()).status();
        let _ = self.child.wait();
    }
}

#[derive(Clone)]
struct Target {
    address: SocketAddr,
    path: String,
    tls: Option<Arc<ClientConfig>>,
}

fn token(role: Role, scope: Option<String>) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    TokenSigner::new(&SigningKey::from_bytes(&KEY)).sign(&Claims {
        iss: ISSUER.into(),
        sub: "bench".into(),
        role,
        channel: vec!["demo".parse().unwrap()],
        scope,
        epoch: 1,
        jti: "1".into(),
        iat: now,
        exp: now + 36_000,
        signed_by: None,
    })
}

/// Puts an image of noise there by tus, in two requests.
fn put(address: SocketAddr, size: u64) -> ImageId {
    let extents = vec![Extent { offset: 0, length: size, kind: ExtentKind::Data }];
    let map = ImageMap { image_size: size, extents, passport: vec![] };
    let mut builder = IndexBuilder::new(map, default_chunk_size(size)).unwrap();
    let noise = || blake3::Hasher::new().finalize_xof();
    let (mut reader, mut block) = (noise(), vec![0; 1 << 20]);
    for _ in 0..size >> 20 {
        reader.fill(&mut block);
        builder.data(&block).unwrap();
    }
    let index = builder.finish().unwrap();
    let task = TaskId::creation(OrderId::from_parts(1, 1));
    let bearer = token(Role::Creator, Some(Claims::upload_scope(task)));
    let send = |kind: &str, length: u64, body: &mut dyn Read| {
        let pair = |key: &str, value: &str| format!("{key} {}", STANDARD.encode(value));
        let metadata = [pair("kind", kind), pair("task", &task.to_string())].join(",");
        let head = format!(
            "POST /files HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {bearer}\r\nTus-Resumable: 1.0.0\r\nConnection: close\r\n\
             Upload-Length: {length}\r\nUpload-Metadata: {metadata}\r\nContent-Length: {length}\r\n\
             Content-Type: application/offset+octet-stream\r\n\r\n"
        );
        let mut socket = TcpStream::connect(address).unwrap();
        socket.write_all(head.as_bytes()).unwrap();
        std::io::copy(body, &mut socket).unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
    };
    let encoded = index.encode();
    send("index", encoded.len() as u64, &mut &encoded[..]);
    let began = Instant::now();
    send("image", size, &mut Noise(noise()).take(size));
    println!("uploaded with {:.0} MB/s", size as f64 / 1e6 / began.elapsed().as_secs_f64());
    index.id()
}

struct Noise(blake3::OutputReader);

impl Read for Noise {
    fn read(&mut self, to: &mut [u8]) -> std::io::Result<usize> {
        self.0.fill(to);
        Ok(to.len())
    }
}

/// MB/s of `clients` that get `each` bytes at the same time.
fn rate(target: &Target, clients: usize, each: u64) -> f64 {
    let began = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..clients {
            scope.spawn(|| {
                let mut stream = ask(target, each);
                let (mut left, mut buffer) = (each, vec![0; 256 * 1024]);
                while left > 0 {
                    let got = stream.read(&mut buffer).unwrap();
                    assert!(got > 0, "broke off");
                    left = left.saturating_sub(got as u64);
                }
            });
        }
    });
    clients as f64 * each as f64 / 1e6 / began.elapsed().as_secs_f64()
}

/// The connection behind the head of an answer that carries the first `bytes` of the image.
fn ask(target: &Target, bytes: u64) -> Box<dyn ReadWrite> {
    let socket = TcpStream::connect(target.address).unwrap();
    let mut stream: Box<dyn ReadWrite> = match &target.tls {
        None => Box::new(socket),
        Some(config) => {
            let name = ServerName::try_from("localhost").unwrap();
            Box::new(StreamOwned::new(ClientConnection::new(config.clone(), name).unwrap(), socket))
        }
    };
    let mut head = String::new();
    let (path, bearer) = (&target.path, token(Role::Appliance, None));
    write!(head, "GET {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {bearer}\r\n").unwrap();
    write!(head, "Range: bytes=0-{}\r\n\r\n", bytes - 1).unwrap();
    stream.write_all(head.as_bytes()).unwrap();
    let (mut answer, mut byte) = (Vec::new(), [0]);
    while !answer.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).unwrap();
        answer.push(byte[0]);
    }
    assert!(answer.starts_with(b"HTTP/1.1 206"), "{}", String::from_utf8_lossy(&answer));
    stream
}

trait ReadWrite: Read + Write + Send {}
impl<T: Read + Write + Send> ReadWrite for T {}

/// Clients that asked for everything and take nothing more.
fn hold(target: &Target) -> Vec<Box<dyn ReadWrite>> {
    (0..SLOW_CLIENTS).map(|_| ask(target, 64 << 20)).collect()
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Resident memory of a process.
fn memory_kib(child: &Child) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    let line = text.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

fn certify(folder: &Path) {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    std::fs::write(folder.join("cert.pem"), made.cert.pem()).unwrap();
    std::fs::write(folder.join("key.pem"), made.signing_key.serialize_pem()).unwrap();
}

fn trust(folder: &Path) -> Arc<ClientConfig> {
    let file: PathBuf = folder.join("cert.pem");
    let mut roots = RootCertStore::empty();
    roots.add(rustls::pki_types::CertificateDer::from_pem_file(file).unwrap()).unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
    let config = builder.with_safe_default_protocol_versions().unwrap();
    Arc::new(config.with_root_certificates(roots).with_no_client_auth())
}
