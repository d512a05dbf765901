//! MQTT 3.1.1 and 5, packet by packet: the same conversations with our broker and with Debian's Mosquitto, and the same
//! expectations of both. What Mosquitto does otherwise on purpose (shared subscriptions, stored sessions, QoS 2 to
//! subscribers) is not asked here. **Source:** the sections named at each test.

// clippy.toml allows both in tests, and does not see that helpers are part of one.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod common;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use cardshop_protocol::token::Role;
use common::{A, B, Got, Hello, Raw, Shop, got, own, packet, soon, text};
use tempfile::{TempDir, tempdir};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const SCHEDULER: &str = "scheduler";
const BOARD: &str = "cardshop/1/board/demo";

/// A broker that is asked.
struct Target {
    name: &'static str,
    address: SocketAddr,
    /// Signs tokens for ours; the other takes anybody.
    shop: Option<Shop>,
    process: Option<Child>,
    _folder: TempDir,
}

impl Drop for Target {
    fn drop(&mut self) {
        if let Some(process) = &mut self.process {
            process.kill().ok();
            process.wait().ok();
        }
    }
}

/// True when a broker lets somebody in without a token here: Mosquitto, and not one of ours that took the port.
async fn takes_anybody(address: SocketAddr) -> std::io::Result<bool> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(b"\x10\x11\0\x04MQTT\x04\x02\0\0\0\x05probe").await?;
    let mut answer = [0; 4];
    stream.read_exact(&mut answer).await?;
    Ok(answer == [0x20, 2, 0, 0])
}

impl Target {
    async fn ours() -> Self {
        let folder = tempdir().unwrap();
        let shop = Shop::open(folder.path()).await;
        Self { name: "ours", address: shop.address(), shop: Some(shop), process: None, _folder: folder }
    }

    async fn mosquitto() -> Option<Self> {
        // Debian puts daemons where people's PATH does not look.
        let places = ["/usr/sbin/mosquitto", "/usr/bin/mosquitto", "/usr/local/sbin/mosquitto"];
        let Some(program) = places.iter().map(PathBuf::from).find(|path| path.is_file()) else {
            println!("SKIPPED: mosquitto is not installed");
            return None;
        };
        // Another process may take the port before it: then it ends, and another is tried.
        for _ in 0..5 {
            let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let address = free.local_addr().unwrap();
            drop(free);
            let folder = tempdir().unwrap();
            let file = folder.path().join("mosquitto.conf");
            let port = address.port();
            let config = format!(
                "allow_anonymous true\npersistence false\nmax_packet_size 81920\nlistener {port} 127.0.0.1\n"
            );
            std::fs::write(&file, config).unwrap();
            let mut command = Command::new(&program);
            command.arg("-c").arg(&file).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            let process = Some(command.spawn().unwrap());
            let mut target = Self { name: "mosquitto", address, shop: None, process, _folder: folder };
            let runs = |target: &mut Self| target.process.as_mut().unwrap().try_wait().unwrap().is_none();
            while runs(&mut target) {
                if takes_anybody(address).await.unwrap_or(false) {
                    return Some(target);
                }
                tokio::time::sleep(std::time::Duration::from_millis(25)).await;
            }
        }
        panic!("mosquitto does not start");
    }

    fn token(&self, name: &str) -> String {
        let role = match name {
            A | B => Role::Appliance,
            SCHEDULER => Role::Scheduler,
            _ => Role::Staff,
        };
        self.shop.as_ref().map_or_else(String::new, |shop| shop.token(name, role))
    }

    async fn raw(&self) -> Raw {
        Raw::new(TcpStream::connect(self.address).await.unwrap())
    }

    async fn client(&self, version: u8, name: &str) -> Raw {
        self.hello(&Hello { version, ..Hello::new(name, &self.token(name)) }).await
    }

    async fn hello(&self, hello: &Hello<'_>) -> Raw {
        let mut raw = self.raw().await;
        raw.hello(hello).await;
        raw
    }
}

/// Publishes at QoS 1 and takes any acknowledgement that is a success.
async fn put(client: &mut Raw, topic: &str, payload: &str, retain: bool) {
    let id = client.publish(topic, payload, 1, retain).await;
    let ack = client.packet().await;
    assert_eq!((ack[0], &ack[2..4]), (0x40, &id.to_be_bytes()[..]));
    assert!(ack.get(4).is_none_or(|reason| *reason < 0x80), "{ack:02x?}");
}

/// Nothing but what was published last has come before it.
async fn only(client: &mut Raw, expected: &[Got]) {
    for expected in expected {
        assert_eq!(client.got().await, *expected);
    }
}

/// Runs the conversation with both brokers, in both versions.
macro_rules! conformance {
    ($($(#[$attribute:meta])* $name:ident => $talk:ident;)*) => {$(
        $(#[$attribute])*
        #[tokio::test(flavor = "multi_thread")]
        async fn $name() {
            for target in [Some(Target::ours().await), Target::mosquitto().await].into_iter().flatten() {
                for version in [4, 5] {
                    println!("{} in version {version}", target.name);
                    $talk(&target, version).await;
                }
            }
        }
    )*};
}

conformance! {
    /// §3.1, §3.2, §3.12
    a_client_connects_and_is_answered_its_pings => connect;
    /// §3.1.2.1
    another_level_of_the_protocol_is_refused => level;
    /// §3.3, §4.3, §4.6
    each_qos_is_acknowledged_and_delivered_in_order => qos;
    /// §3.3.1.3
    a_retained_message_is_kept_replaced_and_cleared => retain;
    /// §3.1.2.5, §3.14
    the_will_comes_after_a_break_and_not_after_a_goodbye => will;
    /// §3.1.2.4
    a_clean_session_begins_without_subscriptions => session;
    /// §4.7
    wildcards_match_whole_levels => wildcard;
    /// §3.8.4, §3.10
    filters_are_replaced_and_removed => subscriptions;
    /// §3.1.2.10
    a_silent_client_is_closed_and_its_will_published => keep_alive;
    /// §3.1.4
    the_second_client_of_a_name_takes_over => take_over;
    /// §2.2.3, 5.0 §3.1.2.11.4
    what_is_too_large_ends_its_own_connection_only => oversize;
    /// §4.8, §2.2.2, §1.5.3
    what_is_malformed_ends_its_own_connection_only => malformed;
}

async fn connect(target: &Target, version: u8) {
    let mut client = target.raw().await;
    let token = target.token("ada");
    client.send(&Hello { version, ..Hello::new("ada", &token) }.packet()).await;
    let welcome = client.packet().await;
    assert_eq!((welcome[0], welcome[2], welcome[3]), (0x20, 0, 0), "no session is present");
    client.version = version;
    for _ in 0..3 {
        client.ping().await;
    }
    // DISCONNECT closes.
    client.goodbye().await;
    // Bytes that come one by one are one packet all the same.
    let mut slow = target.raw().await;
    for byte in (Hello { version, ..Hello::new("ada", &token) }).packet() {
        slow.send(&[byte]).await;
    }
    assert_eq!(slow.packet().await[0], 0x20);
}

async fn level(target: &Target, version: u8) {
    let mut client = target.raw().await;
    let body = [&text("MQTT")[..], &[version + 100, 2, 0, 10], &text("x")].concat();
    client.send(&packet(0x10, &body)).await;
    let refusal = client.maybe_packet().await;
    // 3.1.1 code 1 is "unacceptable protocol version"; a server of 5 may say 0x84 or only close.
    assert!(refusal.is_none_or(|r| r[0] == 0x20 && [1, 0x84].contains(&r[3])));
}

async fn qos(target: &Target, version: u8) {
    let mut reader = target.client(version, "ada").await;
    assert_eq!(reader.subscribe(&[("cardshop/1/appliance/+/event", 1)]).await, [1]);
    let mut reader0 = target.client(version, "max").await;
    assert_eq!(reader0.subscribe(&[("cardshop/1/appliance/+/event", 0)]).await, [0]);
    let mut sender = target.client(version, A).await;
    let event = own(A, "event");
    sender.publish(&event, "at most once", 0, false).await;
    put(&mut sender, &event, "at least once", false).await;
    let id = sender.publish(&event, "exactly once", 2, false).await.to_be_bytes();
    assert_eq!(sender.packet().await[..4], [0x50, 2, id[0], id[1]]);
    // The same again before the second step is not another one.
    let mut again = [&text(&event)[..], &id].concat();
    if version == 5 {
        again.push(0);
    }
    again.extend(b"exactly once");
    sender.send(&packet(0x3c, &again)).await;
    assert_eq!(sender.packet().await[..4], [0x50, 2, id[0], id[1]]);
    sender.send(&[0x62, 2, id[0], id[1]]).await;
    assert_eq!(sender.packet().await[..4], [0x70, 2, id[0], id[1]]);
    for n in 0..50 {
        put(&mut sender, &event, &n.to_string(), false).await;
    }
    for (reader, granted) in [(&mut reader, 1), (&mut reader0, 0)] {
        for (payload, qos) in [("at most once", 0), ("at least once", 1), ("exactly once", 2)] {
            assert_eq!(reader.got().await, got(&event, payload, granted.min(qos), false));
        }
        for n in 0..50 {
            assert_eq!(reader.got().await, got(&event, &n.to_string(), granted, false));
        }
    }
}

async fn retain(target: &Target, version: u8) {
    let mut sender = target.client(version, SCHEDULER).await;
    let mut early = target.client(version, "ada").await;
    early.subscribe(&[(BOARD, 1)]).await;
    put(&mut sender, BOARD, "one", true).await;
    put(&mut sender, BOARD, "two", true).await;
    put(&mut sender, BOARD, "passing", false).await;
    only(
        &mut early,
        &[got(BOARD, "one", 1, false), got(BOARD, "two", 1, false), got(BOARD, "passing", 1, false)],
    )
    .await;
    let mut late = target.client(version, "max").await;
    late.subscribe(&[("cardshop/1/board/+", 1)]).await;
    assert_eq!(late.got().await, got(BOARD, "two", 1, true), "the newest that was to be kept");
    // Subscribing again gives it again.
    late.subscribe(&[("cardshop/1/board/+", 0)]).await;
    assert_eq!(late.got().await, got(BOARD, "two", 0, true));
    put(&mut sender, BOARD, "", true).await;
    assert_eq!(late.got().await, got(BOARD, "", 0, false), "who listens hears that it is cleared");
    let mut later = target.client(version, "olga").await;
    later.subscribe(&[(BOARD, 1)]).await;
    put(&mut sender, BOARD, "live", false).await;
    assert_eq!(later.got().await, got(BOARD, "live", 1, false), "nothing is kept any more");
}

async fn will(target: &Target, version: u8) {
    let status = own(A, "status");
    let token = target.token(A);
    let hello = Hello { version, will: Some((&status, "offline", true)), ..Hello::new(A, &token) };
    let mut reader = target.client(version, "ada").await;
    reader.subscribe(&[(&status, 1)]).await;
    target.hello(&hello).await.goodbye().await;
    let mut client = target.hello(&hello).await;
    put(&mut client, &status, "online", true).await;
    assert_eq!(reader.got().await, got(&status, "online", 1, false), "no will in between");
    client.reset();
    assert_eq!(reader.got().await, got(&status, "offline", 1, false));
    let mut late = target.client(version, "max").await;
    late.subscribe(&[(&status, 1)]).await;
    assert_eq!(late.got().await, got(&status, "offline", 1, true), "a will can be retained");
    if version == 5 {
        let mut client = target.hello(&hello).await;
        client.send(&[0xe0, 1, 4]).await;
        assert_eq!(reader.got().await, got(&status, "offline", 1, false), "DISCONNECT with will");
    }
    let mut clean = target.client(version, A).await;
    put(&mut clean, &status, "", true).await;
}

async fn session(target: &Target, version: u8) {
    let mut first = target.client(version, "ada").await;
    first.subscribe(&[("cardshop/1/board/#", 1)]).await;
    first.goodbye().await;
    let mut second = target.client(version, "ada").await;
    let mut sender = target.client(version, SCHEDULER).await;
    put(&mut sender, BOARD, "not for the second", false).await;
    second.subscribe(&[(BOARD, 1)]).await;
    put(&mut sender, BOARD, "for it", false).await;
    assert_eq!(second.got().await, got(BOARD, "for it", 1, false));
}

async fn wildcard(target: &Target, version: u8) {
    let mut sender = target.client(version, A).await;
    let mut scheduler = target.client(version, SCHEDULER).await;
    let topics = [
        own(A, "status"),
        own(A, "slot/s01/state"),
        own(A, "slot/s02/state"),
        own(A, "event"),
        BOARD.to_owned(),
    ];
    for (filter, matched) in [
        ("#", &[0, 1, 2, 3, 4][..]),
        ("cardshop/#", &[0, 1, 2, 3, 4]),
        ("cardshop/1/+/+/+", &[0, 3]),
        ("cardshop/1/appliance/+/slot/+/state", &[1, 2]),
        ("cardshop/1/appliance/+/slot/s02/#", &[2]),
        ("+/+/+/+", &[4]),
        ("+/1/board/#", &[4]),
        ("cardshop/1/board/demo/#", &[4]),
        ("/#", &[]),
        ("cardshop/1", &[]),
        ("+", &[]),
    ] {
        let mut reader = target.client(version, "ada").await;
        assert_eq!(reader.subscribe(&[(filter, 1)]).await, [1], "{filter}");
        for (index, topic) in topics.iter().enumerate() {
            let from = if index == 4 { &mut scheduler } else { &mut sender };
            put(from, topic, &index.to_string(), false).await;
            if matched.contains(&index) {
                assert_eq!(reader.got().await, got(topic, &index.to_string(), 1, false), "{filter}");
            }
        }
        // Nothing else has come: the answer to a ping is next.
        reader.ping().await;
    }
}

async fn subscriptions(target: &Target, version: u8) {
    let mut reader = target.client(version, "ada").await;
    let mut sender = target.client(version, SCHEDULER).await;
    assert_eq!(reader.subscribe(&[(BOARD, 0), ("cardshop/1/order/#", 1)]).await, [0, 1], "in their order");
    put(&mut sender, BOARD, "zero", false).await;
    only(&mut reader, &[got(BOARD, "zero", 0, false)]).await;
    assert_eq!(reader.subscribe(&[(BOARD, 1)]).await, [1]);
    put(&mut sender, BOARD, "one", false).await;
    only(&mut reader, &[got(BOARD, "one", 1, false)]).await;
    let none = if version == 5 { &[0][..] } else { &[] };
    reader
        .send(&packet(0xa2, &[&[0, 77][..], none, &text(BOARD), &text("cardshop/1/never/#")].concat()))
        .await;
    let ack = reader.packet().await;
    let expected = if version == 5 { vec![0xb0, 5, 0, 77, 0, 0, 0x11] } else { vec![0xb0, 2, 0, 77] };
    assert_eq!(ack, expected);
    put(&mut sender, BOARD, "nobody", false).await;
    reader.ping().await;
}

async fn keep_alive(target: &Target, version: u8) {
    let status = own(B, "status");
    let mut reader = target.client(version, "ada").await;
    reader.subscribe(&[(&status, 1)]).await;
    let token = target.token(B);
    let will = Some((status.as_str(), "silent", false));
    let mut silent = target.hello(&Hello { version, keep_alive_s: 1, will, ..Hello::new(B, &token) }).await;
    assert_eq!(reader.got().await, got(&status, "silent", 1, false));
    // In 5 it may be told why.
    let last = silent.maybe_packet().await;
    assert!(last.is_none_or(|last| version == 5 && last[0] == 0xe0 && last[2] == 0x8d));
}

async fn take_over(target: &Target, version: u8) {
    let mut first = target.client(version, "ada").await;
    first.subscribe(&[(BOARD, 1)]).await;
    let mut second = target.client(version, "ada").await;
    let last = first.maybe_packet().await;
    // In 5 it may be told why.
    assert!(last.is_none_or(|last| version == 5 && last[0] == 0xe0 && last[2] == 0x8e));
    second.subscribe(&[(BOARD, 1)]).await;
    let mut sender = target.client(version, SCHEDULER).await;
    put(&mut sender, BOARD, "to the second", false).await;
    assert_eq!(second.got().await, got(BOARD, "to the second", 1, false));
}

async fn oversize(target: &Target, version: u8) {
    let mut witness = target.client(version, "ada").await;
    let mut large = target.client(version, A).await;
    // The length alone: 98,304 bytes are promised.
    large.send(&[0x30, 0x80, 0x80, 0x06]).await;
    large.send(&[7; 1024]).await;
    let last = large.maybe_packet().await;
    assert!(last.is_none_or(|last| version == 5 && last[0] == 0xe0 && last[2] == 0x95));
    // A length that is none.
    let mut endless = target.client(version, A).await;
    endless.send(&[0x30, 0xff, 0xff, 0xff, 0xff, 1]).await;
    let last = endless.maybe_packet().await;
    assert!(last.is_none_or(|last| version == 5 && last[0] == 0xe0));
    let mut fits = target.client(version, A).await;
    put(&mut fits, &own(A, "info"), &"x".repeat(60_000), false).await;
    witness.ping().await;
}

async fn malformed(target: &Target, version: u8) {
    let mut witness = target.client(version, "ada").await;
    let event = text(&own(A, "event"));
    let none = if version == 5 { &[0][..] } else { &[] };
    let mut cases: Vec<(&str, Vec<u8>)> = vec![
        ("QoS 3", packet(0x36, &[&event[..], &[0, 1], none, b"x"].concat())),
        ("a wildcard in a topic", packet(0x30, &[&text(&own("+", "event"))[..], none, b"x"].concat())),
        ("a topic that is not UTF-8", packet(0x30, &[&[0, 2, 0xc3, 0x28][..], none, b"x"].concat())),
        ("no topic", packet(0x30, &[0])),
        ("a topic longer than the packet", packet(0x30, &[0, 200, b'a'])),
        ("packet id 0", packet(0x32, &[&event[..], &[0, 0], none, b"x"].concat())),
        ("SUBSCRIBE without its flags", packet(0x80, &[&[0, 1][..], none, &text("a"), &[0]].concat())),
        ("SUBSCRIBE without a filter", packet(0x82, &[&[0, 1][..], none].concat())),
        ("a filter with QoS 3", packet(0x82, &[&[0, 1][..], none, &text("a"), &[3]].concat())),
        ("UNSUBSCRIBE without its flags", packet(0xa0, &[&[0, 1][..], none, &text("a")].concat())),
        ("a second CONNECT", Hello { version, ..Hello::new(A, "") }.packet()),
        ("CONNACK from a client", packet(0x20, &[0, 0])),
        ("packet type 0", packet(0x00, &[])),
    ];
    if version == 5 {
        let twice = [&event[..], &[8], b"\x03\0\x01a\x03\0\x01a", b"x"].concat();
        cases.push(("a property twice", packet(0x30, &twice)));
        cases.push((
            "a property of another packet",
            packet(0x30, &[&event[..], &[3, 0x21, 0, 9], b"x"].concat()),
        ));
    }
    if target.shop.is_some() {
        // Mosquitto takes the first two, for it can be a client itself, as a bridge; and does not look at the third.
        cases.push(("SUBACK from a client", packet(0x90, &[0, 1, 0])));
        cases.push(("PINGRESP from a client", packet(0xd0, &[])));
        if version == 5 {
            cases.push((
                "a payload format that is none",
                packet(0x30, &[&event[..], &[2, 1, 2], b"x"].concat()),
            ));
        }
    }
    for (what, bytes) in cases {
        let mut bad = target.client(version, A).await;
        println!("{what}");
        bad.send(&bytes).await;
        let mut last = bad.maybe_packet().await;
        if version == 5 && last.as_ref().is_some_and(|last| last[0] == 0xe0 && last[2] >= 0x80) {
            last = bad.maybe_packet().await;
        }
        assert_eq!(last, None, "{what} ends the connection of version {version} at {}", target.name);
    }
    witness.ping().await;
    // Before CONNECT nothing else is heard.
    let mut early = target.raw().await;
    early.send(&[0xc0, 0]).await;
    early.is_closed().await;
}

/// What only 5 has: options of subscriptions, and properties that travel.
#[tokio::test(flavor = "multi_thread")]
async fn options_and_properties_of_version_5_are_kept() {
    for target in [Some(Target::ours().await), Target::mosquitto().await].into_iter().flatten() {
        let mut sender = target.client(5, SCHEDULER).await;
        put(&mut sender, BOARD, "kept", true).await;
        // Retain as published (bit 3), retain handling 1 and 2 (bits 4 and 5), no local (bit 2).
        let mut reader = target.client(5, "ada").await;
        assert_eq!(reader.subscribe(&[(BOARD, 0x08 | 0x20 | 1)]).await, [1]);
        put(&mut sender, BOARD, "as published", true).await;
        assert_eq!(
            reader.got().await,
            got(BOARD, "as published", 1, true),
            "{}: not the kept one",
            target.name
        );
        assert_eq!(reader.subscribe(&[(BOARD, 0x10 | 1)]).await, [1]);
        put(&mut sender, BOARD, "not new", false).await;
        assert_eq!(
            reader.got().await,
            got(BOARD, "not new", 1, false),
            "{}: the filter was known",
            target.name
        );
        assert_eq!(sender.subscribe(&[(BOARD, 0x04 | 0x20 | 1)]).await, [1]);
        put(&mut sender, BOARD, "own", false).await;
        sender.ping().await;
        assert_eq!(reader.got().await.payload, "own");

        // A subscription id comes back, the expiry counts down, and user properties travel in their order.
        let mut tagged = target.client(5, "max").await;
        let body = [&[0, 5, 2, 0x0b, 42][..], &text(BOARD), &[0x20]].concat();
        tagged.send(&packet(0x82, &body)).await;
        assert_eq!(tagged.packet().await, [0x90, 4, 0, 5, 0, 0]);
        let properties = b"\x02\0\0\0\x3c\x26\0\x01a\0\x011\x26\0\x01a\0\x012";
        let size = u8::try_from(properties.len()).unwrap();
        sender.send(&packet(0x30, &[&text(BOARD)[..], &[size], properties, b"tagged"].concat())).await;
        let bytes = tagged.packet().await;
        let contains = |part: &[u8]| bytes.windows(part.len()).any(|window| window == part);
        assert!(contains(b"\x26\0\x01a\0\x011\x26\0\x01a\0\x012"), "{bytes:02x?}");
        assert!(contains(&[0x0b, 42]) && bytes.ends_with(b"tagged"), "{bytes:02x?}");
        assert!(contains(&[0x02, 0, 0, 0, 60]) || contains(&[0x02, 0, 0, 0, 59]), "{bytes:02x?}");
        put(&mut sender, BOARD, "", true).await;
        soon("its end", sender.goodbye()).await;
    }
}
