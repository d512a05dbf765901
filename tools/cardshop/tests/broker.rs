//! Brokers that are not ours: the whole way of an order over Debian's Mosquitto with the access list we write for it,
//! under TLS; and what that list allows and refuses there.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod common;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Stdio;
use std::time::Duration;

use common::mosquitto::{Mosquitto, frame, hello, text};
use common::*;
use serde_json::Value;

const A: &str = "aaaaaaaaaaaaaaaa";
const B: &str = "bbbbbbbbbbbbbbbb";

/// Just enough MQTT 3.1.1 to see each answer.
struct Raw(TcpStream);

impl Raw {
    fn connect(port: u16, name: &str) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        let mut raw = Self(stream);
        raw.0.write_all(&hello(name)).unwrap();
        assert_eq!(raw.packet(), (0x20, vec![0, 0]), "{name} is let in");
        raw
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

#[test]
fn an_order_is_written_over_mosquitto_under_tls_with_our_access_list() {
    let folder = tempfile::tempdir().unwrap();
    let Some(broker) = Mosquitto::start(folder.path()) else { return };
    let demo = cardshop()
        .args(["--json", "demo", "--exit-when-done", "--data"])
        .arg(folder.path().join("shop"))
        .args(["--broker", &broker.url(), "--broker-ca"])
        .arg(&broker.ca)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert_eq!(demo.status.code(), Some(0), "{}", text_of(&demo));
    let lines = String::from_utf8(demo.stdout).unwrap();
    let events: Vec<Value> = lines.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(events[0]["mqtt"], broker.url());
    assert!(events.iter().any(|e| e["event"] == "order" && e["status"] == "written"));
    assert_eq!(events.last().unwrap()["verified"], 3);
    // What is retained there is the same picture: the order's board, and the slots of the appliance.
    let mut staff = Raw::connect(broker.plain, "ada");
    assert_eq!(staff.subscribe("cardshop/1/board/+"), 0);
    assert_eq!(staff.got().0, "cardshop/1/board/default");
}

#[test]
fn mosquitto_refuses_with_our_access_list_what_our_broker_refuses() {
    let folder = tempfile::tempdir().unwrap();
    let Some(broker) = Mosquitto::start(folder.path()) else { return };
    let own = |id: &str, topic: &str| format!("cardshop/1/appliance/{id}/{topic}");
    let mut staff = Raw::connect(broker.plain, "ada");
    assert_eq!(staff.subscribe("cardshop/#"), 0);
    let mut appliance = Raw::connect(broker.plain, A);
    let mut scheduler = Raw::connect(broker.plain, "scheduler");
    let mut manager = Raw::connect(broker.plain, "max");
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
