//! Brokers that are not ours: the whole way of an order over Debian's Mosquitto with the access list we write for it,
//! under TLS; and what that list allows and refuses there.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod common;

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use common::*;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use serde_json::Value;

const A: &str = "aaaaaaaaaaaaaaaa";
const B: &str = "bbbbbbbbbbbbbbbb";

/// A Mosquitto with our access list, on two ports: plain and TLS.
struct Mosquitto {
    _process: Process,
    plain: u16,
    tls: u16,
    ca: PathBuf,
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
        stream.write_all(&Raw::hello("probe"))?;
        let mut answer = [0; 4];
        stream.read_exact(&mut answer)?;
        Ok::<_, std::io::Error>(answer)
    };
    answer().is_ok_and(|answer| answer == [0x20, 2, 0, 0])
}

impl Mosquitto {
    fn start(folder: &Path) -> Option<Self> {
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

    fn client(&self, name: &str) -> Raw {
        Raw::connect(self.plain, name)
    }
}

/// Just enough MQTT 3.1.1 to see each answer.
struct Raw(TcpStream);

impl Raw {
    fn connect(port: u16, name: &str) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let mut raw = Self(stream);
        raw.0.write_all(&Self::hello(name)).unwrap();
        assert_eq!(raw.packet(), (0x20, vec![0, 0]), "{name} is let in");
        raw
    }

    /// CONNECT with a clean session.
    fn hello(name: &str) -> Vec<u8> {
        frame(0x10, &[&b"\0\x04MQTT\x04\x82\0\0"[..], &text(name), &text(name)].concat())
    }

    fn send(&mut self, head: u8, body: &[u8]) {
        self.0.write_all(&frame(head, body)).unwrap();
    }

    fn packet(&mut self) -> (u8, Vec<u8>) {
        let mut head = [0; 2];
        self.0.read_exact(&mut head).unwrap();
        let mut body = vec![0; usize::from(head[1])];
        self.0.read_exact(&mut body).unwrap();
        (head[0], body)
    }

    /// The code of SUBACK.
    fn subscribe(&mut self, filter: &str) -> u8 {
        self.send(0x82, &[&[0, 1][..], &text(filter), &[0]].concat());
        let (head, body) = self.packet();
        assert_eq!(head, 0x90);
        body[2]
    }

    fn publish(&mut self, topic: &str, payload: &str) {
        self.send(0x32, &[&text(topic)[..], &[0, 7], payload.as_bytes()].concat());
        assert_eq!(self.packet(), (0x40, vec![0, 7]));
    }

    /// Topic and payload of the next message.
    fn got(&mut self) -> (String, String) {
        let (head, body) = self.packet();
        assert_eq!(head >> 4, 3);
        let size = usize::from(body[1]);
        let part = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        (part(&body[2..2 + size]), part(&body[2 + size..]))
    }
}

/// A packet: its first byte, its size, and the rest.
fn frame(head: u8, body: &[u8]) -> Vec<u8> {
    let size = u8::try_from(body.len()).unwrap();
    assert!(size < 128);
    [&[head, size], body].concat()
}

fn text(text: &str) -> Vec<u8> {
    [&[0, u8::try_from(text.len()).unwrap()], text.as_bytes()].concat()
}

#[test]
fn an_order_is_written_over_mosquitto_under_tls_with_our_access_list() {
    let folder = tempfile::tempdir().unwrap();
    let Some(broker) = Mosquitto::start(folder.path()) else { return };
    let demo = cardshop()
        .args(["--json", "demo", "--exit-when-done", "--data"])
        .arg(folder.path().join("shop"))
        .args(["--broker", &format!("mqtts://127.0.0.1:{}", broker.tls), "--broker-ca"])
        .arg(&broker.ca)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert_eq!(demo.status.code(), Some(0), "{}", text_of(&demo));
    let lines = String::from_utf8(demo.stdout).unwrap();
    let events: Vec<Value> = lines.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(events[0]["mqtt"], format!("mqtts://127.0.0.1:{}", broker.tls));
    assert!(events.iter().any(|e| e["event"] == "order" && e["status"] == "written"));
    assert_eq!(events.last().unwrap()["verified"], 3);
    // What is retained there is the same picture: the order's board, and the slots of the appliance.
    let mut staff = broker.client("ada");
    assert_eq!(staff.subscribe("cardshop/1/board/+"), 0);
    assert_eq!(staff.got().0, "cardshop/1/board/default");
}

#[test]
fn mosquitto_refuses_with_our_access_list_what_our_broker_refuses() {
    let folder = tempfile::tempdir().unwrap();
    let Some(broker) = Mosquitto::start(folder.path()) else { return };
    let own = |id: &str, topic: &str| format!("cardshop/1/appliance/{id}/{topic}");
    let mut staff = broker.client("ada");
    assert_eq!(staff.subscribe("cardshop/#"), 0);
    let mut appliance = broker.client(A);
    let mut scheduler = broker.client("scheduler");
    let mut manager = broker.client("max");
    // Mosquitto acknowledges what it drops, so only what comes before the next allowed message tells.
    for topic in ["desired", "cmd", "event/ack", "slot", "other"] {
        appliance.publish(&own(A, topic), "forged");
    }
    appliance.publish(&own(B, "status"), "forged");
    appliance.publish("cardshop/1/board/demo", "forged");
    scheduler.publish(&own(A, "event"), "forged");
    manager.publish("cardshop/1/board/demo", "forged");
    staff.publish("cardshop/1/board/demo", "forged");
    for topic in ["status", "info", "health", "reported", "slot/s01/state", "event", "cmd/reply", "alert/x"] {
        appliance.publish(&own(A, topic), "real");
        assert_eq!(staff.got(), (own(A, topic), "real".to_owned()));
    }
    // Reading: a subscription to what is not one's own is refused, or nothing comes of it.
    for filter in [own(B, "desired"), own("+", "desired"), own(A, "#"), "#".to_owned()] {
        appliance.subscribe(&filter);
    }
    assert_eq!(appliance.subscribe(&own(A, "cmd")), 0);
    manager.subscribe(&own("+", "status"));
    assert_eq!(manager.subscribe("cardshop/1/board/demo"), 0);
    scheduler.publish(&own(B, "desired"), "secret");
    appliance.publish(&own(A, "status"), "not a manager's there");
    scheduler.publish(&own(A, "cmd"), "mine");
    scheduler.publish("cardshop/1/board/demo", "totals");
    assert_eq!(appliance.got(), (own(A, "cmd"), "mine".to_owned()));
    assert_eq!(manager.got(), ("cardshop/1/board/demo".to_owned(), "totals".to_owned()));
}
