//! Debian's Mosquitto with the access list we write for it, as the broker of a test.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};

use super::{Process, cardshop};

/// A Mosquitto with our access list, on two ports: plain and TLS.
pub(crate) struct Mosquitto {
    _process: Process,
    pub(crate) plain: u16,
    tls: u16,
    pub(crate) ca: PathBuf,
}

/// Debian puts daemons where people's PATH does not look.
fn program() -> Option<PathBuf> {
    let places = ["/usr/sbin/mosquitto", "/usr/bin/mosquitto", "/usr/local/sbin/mosquitto"];
    let found = places.iter().map(PathBuf::from).find(|path| path.is_file());
    if found.is_none() {
        println!("SKIPPED: mosquitto is not installed (package mosquitto)");
    }
    found
}

/// A port that was free a moment ago: Mosquitto cannot take any that is free.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn certificates(folder: &Path) {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, "Test CA");
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    fs::write(folder.join("ca.pem"), ca.pem()).unwrap();
    fs::write(folder.join("server.pem"), params.signed_by(&key, &ca).unwrap().pem()).unwrap();
    fs::write(folder.join("server.key"), key.serialize_pem()).unwrap();
}

/// True when Mosquitto answers here: it does so once it has both ports, and nobody else does.
fn is_serving(port: u16) -> bool {
    let answer = || {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        stream.write_all(&hello("probe"))?;
        let mut answer = [0; 4];
        stream.read_exact(&mut answer)?;
        Ok::<_, std::io::Error>(answer)
    };
    answer().is_ok_and(|answer| answer == [0x20, 2, 0, 0])
}

impl Mosquitto {
    /// Starts it with its files in `folder`; says SKIPPED when it is not installed.
    pub(crate) fn start(folder: &Path) -> Option<Self> {
        let program = program()?;
        certificates(folder);
        let acl = folder.join("acl");
        let people = ["--person", "ada:staff", "--person", "max:manager:demo"];
        let mut command = cardshop();
        command.args(["admin", "broker-acl", "--for", "mosquitto"]).args(people).arg("-o").arg(&acl);
        assert!(command.output().unwrap().status.success());
        // Another process may have taken a port meanwhile: then it ends, and others are tried.
        for _ in 0..5 {
            let (plain, tls) = (free_port(), free_port());
            let at = |name: &str| folder.join(name).display().to_string();
            // As root it would become another user, who cannot read the key.
            let config = format!(
                "user root\npersistence false\nallow_anonymous true\nacl_file {}\nmessage_size_limit 81920\n\
                 listener {plain} 127.0.0.1\nlistener {tls} 127.0.0.1\ncertfile {}\nkeyfile {}\n",
                at("acl"),
                at("server.pem"),
                at("server.key")
            );
            fs::write(folder.join("mosquitto.conf"), config).unwrap();
            let mut command = Command::new(&program);
            command.arg("-c").arg(folder.join("mosquitto.conf"));
            let process = Process::start(command.stdout(Stdio::null()).stderr(Stdio::null()));
            for _ in 0..200 {
                if is_serving(plain) {
                    return Some(Self { _process: process, plain, tls, ca: folder.join("ca.pem") });
                }
                std::thread::sleep(Duration::from_millis(25));
            }
        }
        panic!("mosquitto does not start");
    }

    /// Where it listens under TLS.
    pub(crate) fn url(&self) -> String {
        format!("mqtts://127.0.0.1:{}", self.tls)
    }
}

/// CONNECT with a clean session.
pub(crate) fn hello(name: &str) -> Vec<u8> {
    frame(0x10, &[&b"\0\x04MQTT\x04\x82\0\0"[..], &text(name), &text(name)].concat())
}

/// A packet: its first byte, its size, and the rest.
pub(crate) fn frame(head: u8, body: &[u8]) -> Vec<u8> {
    let size = u8::try_from(body.len()).unwrap();
    assert!(size < 128);
    [&[head, size], body].concat()
}

pub(crate) fn text(text: &str) -> Vec<u8> {
    [&[0, u8::try_from(text.len()).unwrap()], text.as_bytes()].concat()
}
