//! The line against a broker of a few lines over real TCP, which shows every packet it gets.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::BytesMut;
use cardshop_protocol::ids::{ApplianceId, SlotId};
use cardshop_protocol::message::{Desired, Hardware, Info, Presence, Settings, StatusMessage};
use cardshop_protocol::topic::ApplianceTopic;
use rumqttc::mqttbytes::v4::{
    ConnAck, Connect, ConnectReturnCode, Packet, PubAck, Publish, SubAck, SubscribeReasonCode,
};
use rumqttc::{QoS, mqttbytes};

use super::clock::Clock;
use super::http::Http;
use super::mqtt::{Link, LinkConfig, start};
use super::session::Session;
use crate::core::Event;

const LIMIT: Duration = Duration::from_secs(30);
const ME: ApplianceId = ApplianceId([0xab; 8]);

/// Accepts one client after the other; answers and shows what it gets.
struct Broker {
    address: String,
    packets: Receiver<Packet>,
    /// Sends a message to the client that is connected.
    tell: Sender<Publish>,
}

impl Broker {
    /// The first client is refused when `refuse`.
    fn start(refuse: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("mqtt://{}", listener.local_addr().unwrap());
        let (seen, packets) = channel();
        let (tell, told) = channel();
        std::thread::spawn(move || {
            for (number, stream) in listener.incoming().flatten().enumerate() {
                let code = if refuse && number == 0 {
                    ConnectReturnCode::BadUserNamePassword
                } else {
                    ConnectReturnCode::Success
                };
                let _ = serve(stream, code, &seen, &told);
            }
        });
        Self { address, packets, tell }
    }

    fn next(&self) -> Packet {
        self.packets.recv_timeout(LIMIT).expect("the client sends something")
    }
    fn connect(&self) -> Connect {
        match self.next() {
            Packet::Connect(connect) => connect,
            other => panic!("{other:?}"),
        }
    }
    fn publish(&self) -> Publish {
        match self.next() {
            Packet::Publish(publish) => publish,
            other => panic!("{other:?}"),
        }
    }
    /// Birth, info and subscriptions.
    fn greeting(&self) -> (StatusMessage, Vec<String>) {
        let birth = self.publish();
        assert!(birth.retain && birth.topic.ends_with(&format!("appliance/{ME}/status")), "{birth:?}");
        let info = self.publish();
        assert!(info.retain && info.topic.ends_with("/info"), "{info:?}");
        let Packet::Subscribe(subscribe) = self.next() else { panic!("subscriptions follow") };
        let filters = subscribe.filters.into_iter().map(|f| f.path).collect();
        (serde_json::from_slice(&birth.payload).unwrap(), filters)
    }
}

fn serve(
    mut stream: TcpStream,
    code: ConnectReturnCode,
    seen: &Sender<Packet>,
    told: &Receiver<Publish>,
) -> Option<()> {
    stream.set_read_timeout(Some(Duration::from_millis(10))).ok()?;
    let mut buffer = BytesMut::new();
    loop {
        match Packet::read(&mut buffer, 100_000) {
            Ok(packet) => {
                let answer = match &packet {
                    Packet::Connect(_) => Some(Packet::ConnAck(ConnAck::new(code, false))),
                    Packet::Subscribe(s) => {
                        let codes = vec![SubscribeReasonCode::Success(QoS::AtLeastOnce); s.filters.len()];
                        Some(Packet::SubAck(SubAck::new(s.pkid, codes)))
                    }
                    Packet::Publish(p) if p.qos == QoS::AtLeastOnce => {
                        Some(Packet::PubAck(PubAck::new(p.pkid)))
                    }
                    Packet::PingReq => Some(Packet::PingResp),
                    _ => None,
                };
                let ends = matches!(packet, Packet::Disconnect) || code != ConnectReturnCode::Success;
                seen.send(packet).ok()?;
                if let Some(answer) = answer {
                    write(&mut stream, &answer)?;
                }
                if ends {
                    return None;
                }
            }
            Err(mqttbytes::Error::InsufficientBytes(_)) => {
                let mut bytes = [0; 4096];
                match stream.read(&mut bytes) {
                    Ok(0) => return None,
                    Ok(count) => buffer.extend_from_slice(&bytes[..count]),
                    Err(_) => {
                        for publish in told.try_iter() {
                            write(&mut stream, &Packet::Publish(publish))?;
                        }
                    }
                }
            }
            Err(error) => panic!("{error}"),
        }
    }
}

fn write(stream: &mut TcpStream, packet: &Packet) -> Option<()> {
    let mut bytes = BytesMut::new();
    packet.write(&mut bytes, 100_000).ok()?;
    stream.write_all(&bytes).ok()
}

/// An agent's line.
struct Running {
    link: Link,
    thread: JoinHandle<()>,
    session: Session,
    events: Receiver<Event>,
}

fn line(broker: &Broker) -> Running {
    let session = Session::default();
    session.set("token 1", 1, &broker.address);
    let (events, happened) = sync_channel(64);
    let info = Info {
        v: 1,
        agent_version: "0".into(),
        label: "Bench".into(),
        hardware: Hardware::default(),
        slots: vec![],
        names: Default::default(),
        system: None,
        capabilities: vec![],
    };
    let config = LinkConfig {
        appliance: ME,
        boot: 5,
        info,
        session: session.clone(),
        clock: Clock::default(),
        ca: None,
        http: Http::new(super::http::client()),
        events,
    };
    let (link, thread) = start(config).unwrap();
    Running { link, thread, session, events: happened }
}

impl Running {
    fn wait_for(&self, wanted: impl Fn(&Event) -> bool) -> Event {
        loop {
            let event = self.events.recv_timeout(LIMIT).expect("the line says something");
            if wanted(&event) {
                return event;
            }
        }
    }
    fn end(self, broker: &Broker) {
        self.link.end(5, Presence::Stopped);
        let stopped: StatusMessage = serde_json::from_slice(&broker.publish().payload).unwrap();
        assert_eq!(stopped.status, Presence::Stopped);
        assert!(matches!(broker.next(), Packet::Disconnect));
        self.thread.join().unwrap();
    }
}

#[test]
fn the_line_says_who_it_is_leaves_a_will_subscribes_and_says_stopped_at_its_end() {
    let broker = Broker::start(false);
    let running = line(&broker);
    let connect = broker.connect();
    let id = ME.to_string();
    assert_eq!(connect.client_id, id);
    let login = connect.login.unwrap();
    assert_eq!((login.username, login.password), (id.clone(), "token 1".into()));
    assert!(connect.clean_session);
    let will = connect.last_will.unwrap();
    let left: StatusMessage = serde_json::from_slice(&will.message).unwrap();
    assert!(will.retain && left.status == Presence::Offline);
    let (birth, filters) = broker.greeting();
    assert_eq!((birth.status, birth.session), (Presence::Online, left.session));
    let own = ["desired", "event/ack", "cmd"].map(|t| format!("cardshop/1/appliance/{id}/{t}"));
    assert_eq!(filters[..3], own);
    assert_eq!(filters[3], "cardshop/1/server/#");
    running.wait_for(|e| matches!(e, Event::Connected));
    running.link.publish(ApplianceTopic::SlotProgress(SlotId::numbered(1)), &1);
    assert_eq!(broker.publish().qos, QoS::AtMostOnce);
    running.end(&broker);
}

#[test]
fn a_new_token_is_used_by_leaving_without_stopped_and_coming_back_with_a_higher_session() {
    let broker = Broker::start(false);
    let running = line(&broker);
    broker.connect();
    let (first, _) = broker.greeting();
    running.wait_for(|e| matches!(e, Event::Connected));
    running.session.set("token 2", 2, &broker.address);
    assert!(matches!(broker.next(), Packet::Disconnect), "and nothing before it");
    assert_eq!(broker.connect().login.unwrap().password, "token 2");
    let (second, _) = broker.greeting();
    assert!(second.session > first.session);
    running.wait_for(|e| matches!(e, Event::Connected));
    running.end(&broker);
}

#[test]
fn a_refused_token_is_reported_and_another_is_used() {
    let broker = Broker::start(true);
    let running = line(&broker);
    broker.connect();
    while running.session.refused_generation() != 1 {
        std::thread::yield_now();
    }
    running.session.set("token 2", 2, &broker.address);
    let mut password = broker.connect().login.unwrap().password;
    if password == "token 1" {
        // It had come back already; it leaves when it sees the new one.
        broker.greeting();
        assert!(matches!(broker.next(), Packet::Disconnect));
        password = broker.connect().login.unwrap().password;
    }
    assert_eq!(password, "token 2");
    broker.greeting();
    running.end(&broker);
}

#[test]
fn large_and_unreadable_messages_do_not_break_the_line() {
    let broker = Broker::start(false);
    let running = line(&broker);
    broker.connect();
    broker.greeting();
    let topic = format!("cardshop/1/appliance/{ME}/desired");
    let tell = |payload: Vec<u8>| broker.tell.send(Publish::new(&topic, QoS::AtMostOnce, payload)).unwrap();
    tell(b"{\"rev\":".to_vec());
    running.wait_for(|e| matches!(e, Event::UnreadableDesired(_)));
    // 60 KiB of shop name: far above rumqttc's own 10 KiB, below the contract's 64.
    let settings = Settings { shop: "x".repeat(60 * 1024), ..Settings::default() };
    let desired = Desired { v: 1, rev: 7, settings, slots: vec![], leases: vec![] };
    tell(serde_json::to_vec(&desired).unwrap());
    let Event::Desired(got) = running.wait_for(|e| matches!(e, Event::Desired(_))) else { unreachable!() };
    assert_eq!(*got, desired);
    running.end(&broker);
}
