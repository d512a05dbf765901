//! The link to the broker, against a broker of a few lines that shows every packet and can hang up.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::BytesMut;
use cardshop_protocol::message::{Event, Fact, StatusMessage};
use cardshop_protocol::token::Role;
use rumqttc::mqttbytes::v4::{
    ConnAck, Connect, ConnectReturnCode, Packet, PubAck, Publish, SubAck, SubscribeReasonCode,
};
use rumqttc::mqttbytes::{Error, QoS};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::Site;

const LIMIT: usize = 1 << 20;

/// One connection of the scheduler, seen from the broker.
struct Connection {
    socket: TcpStream,
    read: BytesMut,
    connect: Connect,
    filters: Vec<String>,
    /// Messages that came while another was waited for.
    seen: BTreeMap<String, (Value, bool)>,
}

impl Connection {
    async fn accept(listener: &TcpListener) -> Self {
        let (socket, _) = within(listener.accept()).await.unwrap();
        let connect = Connect::new("");
        let mut connection =
            Self { socket, read: BytesMut::new(), connect, filters: Vec::new(), seen: BTreeMap::new() };
        match connection.packet().await {
            Some(Packet::Connect(connect)) => connection.connect = connect,
            other => panic!("{other:?} instead of a CONNECT"),
        }
        connection.send(Packet::ConnAck(ConnAck::new(ConnectReturnCode::Success, false))).await;
        connection
    }

    async fn send(&mut self, packet: Packet) {
        let mut bytes = BytesMut::new();
        packet.write(&mut bytes, LIMIT).unwrap();
        self.socket.write_all(&bytes).await.unwrap();
    }

    async fn packet(&mut self) -> Option<Packet> {
        loop {
            match Packet::read(&mut self.read, LIMIT) {
                Ok(packet) => return Some(packet),
                Err(Error::InsufficientBytes(_)) => {
                    if within(self.socket.read_buf(&mut self.read)).await.unwrap() == 0 {
                        return None;
                    }
                }
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// The next message at `topic` that the scheduler publishes, or published meanwhile.
    async fn published(&mut self, topic: &str) -> (Value, bool) {
        within(async {
            loop {
                if let Some(message) = self.seen.remove(topic) {
                    return message;
                }
                self.take_packet().await;
            }
        })
        .await
    }

    async fn take_packet(&mut self) {
        match self.packet().await.expect("the scheduler hung up") {
            Packet::Publish(publish) => {
                self.send(Packet::PubAck(PubAck::new(publish.pkid))).await;
                let message = serde_json::from_slice(&publish.payload).unwrap();
                self.seen.insert(publish.topic, (message, publish.retain));
            }
            Packet::Subscribe(subscribe) => {
                self.filters = subscribe.filters.iter().map(|f| f.path.clone()).collect();
                let codes = vec![SubscribeReasonCode::Success(QoS::AtLeastOnce); self.filters.len()];
                self.send(Packet::SubAck(SubAck::new(subscribe.pkid, codes))).await;
            }
            Packet::PingReq => self.send(Packet::PingResp).await,
            _ => {}
        }
    }

    async fn give(&mut self, topic: &str, payload: &impl serde::Serialize) {
        let payload = serde_json::to_vec(payload).unwrap();
        self.send(Packet::Publish(Publish::new(topic, QoS::AtMostOnce, payload))).await;
    }

    fn will(&self) -> StatusMessage {
        serde_json::from_slice(&self.connect.last_will.as_ref().unwrap().message).unwrap()
    }
}

/// A limit, so that a test fails instead of hanging.
async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), future).await.expect("nothing happened for 20 s")
}

#[tokio::test]
async fn the_link_says_what_is_retained_and_says_it_again_after_a_break() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let site = Site::with_broker(format!("mqtt://{}", listener.local_addr().unwrap())).await;
    let creator = site.user("maker", "creator", &[]).await;
    let order = site.order(&site.admin, json!({})).await;
    site.create_image(&creator, 1 << 20).await;
    let id = site.appliance(1).await.id;
    let background = site.scheduler.start_background();

    let mut broker = Connection::accept(&listener).await;
    let login = broker.connect.login.clone().unwrap();
    let claims = site.scheduler.keys().verify(&login.password, site.scheduler.now()).unwrap();
    assert_eq!((login.username.as_str(), broker.connect.client_id.as_str()), ("scheduler", "scheduler"));
    assert_eq!((claims.role, claims.sub.as_str()), (Role::Scheduler, "scheduler"));
    let desired = format!("cardshop/1/appliance/{id}/desired");
    let (message, retained) = broker.published(&desired).await;
    assert!(retained);
    let lease = &message["leases"][0];
    assert_eq!((&lease["order"], &lease["copies"]), (&json!(order), &json!({"first": 1, "last": 3})));
    let mut board = json!({});
    while board["open_orders"] != 1 {
        board = broker.published("cardshop/1/board/default").await.0;
    }
    assert_eq!(board["wanted"], 3);
    let (view, _) = broker.published(&format!("cardshop/1/order/default/{order}")).await;
    assert_eq!(view["status"], "ready");
    let (birth, _) = broker.published("cardshop/1/server/status").await;
    assert_eq!(birth["status"], "online");
    let first = broker.will().session;
    assert_eq!(birth["session"], first, "the will speaks for the same session");
    assert!(broker.filters.contains(&"cardshop/1/appliance/+/event".to_owned()));

    drop(broker);
    let mut broker = Connection::accept(&listener).await;
    assert!(broker.will().session > first);
    let (again, _) = broker.published(&desired).await;
    assert_eq!(again, message, "nothing changed, and it is said again");

    let event = Event { v: 1, n: 1, at: site.scheduler.now(), fact: Fact::Started { boot: 1 } };
    broker.give(&format!("cardshop/1/appliance/{id}/event"), &event).await;
    let ack = format!("cardshop/1/appliance/{id}/event/ack");
    let (acknowledged, retained) = broker.published(&ack).await;
    assert_eq!((&acknowledged["upto"], retained), (&json!(1), true));
    broker.give(&format!("cardshop/1/appliance/{id}/event"), &event).await;
    let (acknowledged, _) = broker.published(&ack).await;
    assert_eq!(acknowledged["upto"], 1, "a fact told twice is acknowledged twice");

    let goodbye =
        async { while broker.published("cardshop/1/server/status").await.0["status"] != "offline" {} };
    tokio::join!(goodbye, background.shutdown());
}

#[tokio::test]
async fn home_assistant_is_told_of_each_slot_when_it_appears_and_after_every_birth() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let site = Site::with_broker(format!("mqtt://{}", listener.local_addr().unwrap())).await;
    let id = site.appliance(1).await.id;
    let background = site.scheduler.start_background();
    let mut broker = Connection::accept(&listener).await;
    broker.published("cardshop/1/server/status").await;
    let slot = |slot: &str| json!({"slot": slot, "port_path": "1-1:0", "reader": "Reader"});
    let info = json!({"v": 1, "agent_version": "1", "label": "bench one", "slots": [slot("s01"), slot("s02")],
        "hardware": {"model": "", "arch": "", "memory_bytes": 0}});
    broker.give(&format!("cardshop/1/appliance/{id}/info"), &info).await;
    let topic = |slot: &str| format!("homeassistant/device/cardshop-{id}-{slot}/config");
    for slot in ["s01", "s02"] {
        let (device, retained) = broker.published(&topic(slot)).await;
        assert!(!retained, "slots that are gone would stay as ghosts");
        assert_eq!(device["device"]["name"], format!("bench one {slot}"));
    }
    assert!(broker.filters.contains(&"homeassistant/status".to_owned()));
    for birth in ["offline", "online", "online"] {
        broker.send(Packet::Publish(Publish::new("homeassistant/status", QoS::AtMostOnce, birth))).await;
    }
    for slot in ["s01", "s02"] {
        assert!(!broker.published(&topic(slot)).await.1);
    }
    tokio::join!(async { while broker.packet().await.is_some() {} }, background.shutdown());
}

#[tokio::test]
async fn a_person_has_a_slot_strobe_within_seconds_or_is_told_why_not() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let site = Site::with_broker(format!("mqtt://{}", listener.local_addr().unwrap())).await;
    let id = site.appliance(1).await.id;
    let operator = site.user("hands", "operator", &["default"]).await;
    let path = |slot: &str, what: &str| format!("/slots/{id}/{slot}/{what}");
    let background = site.scheduler.start_background();
    let mut broker = Connection::accept(&listener).await;
    broker.published("cardshop/1/server/status").await;
    let state = json!({
        "boot": 1, "n": 1, "state": "guarded", "led": {"pattern": "on", "colour": "blue"}, "since": "2026-11-23T00:00:00Z"
    });
    broker.give(&format!("cardshop/1/appliance/{id}/slot/s01/state"), &state).await;
    within(async {
        while site.post(&path("s01", "identify"), &operator, json!({})).await.0 == 404 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let (status, problem) = site.post(&path("s01", "identify"), &operator, json!({})).await;
    assert_eq!((status.as_u16(), &problem["code"]), (409, &json!("appliance_offline")));

    let birth = StatusMessage { v: 1, status: cardshop_protocol::message::Presence::Online, session: 1 };
    broker.give(&format!("cardshop/1/appliance/{id}/status"), &birth).await;
    let cmd = format!("cardshop/1/appliance/{id}/cmd");
    for (what, ok, answer) in [("identify", true, 200), ("release", true, 200), ("eject", false, 409)] {
        let (path, nothing) = (path("s01", what), json!({}));
        let asked = async {
            loop {
                let (status, answer) = site.post(&path, &operator, nothing.clone()).await;
                if answer["code"] != "appliance_offline" {
                    break (status, answer);
                }
            }
        };
        let told = async {
            let (command, retained) = broker.published(&cmd).await;
            assert!(!retained, "a command that is kept would be carried out again");
            assert_eq!((&command["cmd"], &command["slot"]), (&json!(what), &json!("s01")));
            let reply = json!({"v": 1, "id": command["id"], "ok": ok, "text": "so it is"});
            broker.give(&format!("{cmd}/reply"), &reply).await;
        };
        let ((status, said), ()) = within(async { tokio::join!(asked, told) }).await;
        assert_eq!(
            (status.as_u16(), ok.then_some(&said["text"])),
            (answer, ok.then_some(&json!("so it is")))
        );
    }
    let (status, _) = site.post(&path("s09", "identify"), &operator, json!({})).await;
    assert_eq!(status, 404, "no such slot");
    let (_, audit) = site.get("/audit", &site.admin).await;
    let actions: Vec<_> = audit["items"].as_array().unwrap().iter().map(|a| a["action"].clone()).collect();
    assert!(actions.contains(&json!("slot.release")), "{actions:?}");
    tokio::join!(async { while broker.packet().await.is_some() {} }, background.shutdown());
}

#[tokio::test]
async fn a_slot_has_one_name_that_its_appliance_is_told_and_no_other_slot_has() {
    let site = Site::new().await;
    let bench = site.appliance(2).await;
    for slot in ["s01", "s02"] {
        let topic = format!("cardshop/1/appliance/{}/slot/{slot}/state", bench.id);
        let state = json!({"boot": 1, "n": 1, "state": "empty", "led": {"pattern": "off", "colour": "blue"},
            "since": "2026-11-23T00:00:00Z"});
        let payload = state.to_string().into_bytes();
        site.scheduler.take_message(crate::effects::inbox::Incoming { topic, payload, retained: true }).await;
    }
    let name = |slot: &str, name: &str| {
        let path = format!("/slots/{}/{slot}/name", bench.id);
        let (site, name) = (&site, json!({"name": name}));
        async move { site.post(&path, &site.admin, name).await }
    };
    assert_eq!(name("s01", " A ").await.0, 200);
    let (status, problem) = name("s02", "a").await;
    assert_eq!((status.as_u16(), &problem["code"]), (409, &json!("name_taken")));
    assert_eq!(name("s02", "B").await.0, 200);
    assert_eq!(name("s02", &"B".repeat(25)).await.0, 422, "too long to be read from afar");
    let names = |slots: &Value| -> Vec<String> {
        slots["items"].as_array().unwrap().iter().map(|s| s["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(&site.get("/slots", &site.admin).await.1), ["A", "B"]);
    site.scheduler.plan_leases().await.unwrap();
    let topic = cardshop_protocol::topic::ApplianceTopic::Desired;
    let desired =
        site.scheduler.inner.retained.get(&cardshop_protocol::topic::Topic::Appliance(bench.id, topic));
    assert_eq!(
        desired.unwrap()["slots"],
        json!([{"slot": "s01", "name": "A"}, {"slot": "s02", "name": "B"}])
    );
    assert_eq!(name("s01", "").await.0, 200);
    assert_eq!(names(&site.get("/slots", &site.admin).await.1), ["s01", "B"]);
}
