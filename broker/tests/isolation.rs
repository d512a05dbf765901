//! No sequence of legal packets lets appliance A read or write below appliance B: random conversations of A, in both
//! versions, with wills, take-overs and broken lines, beside a B that lives its life.

mod common;

use cardshop_protocol::token::Role;
use common::{A, B, Hello, Random, Raw, Shop, own, packet, text};
use tempfile::tempdir;
use tokio::io::AsyncWriteExt;

/// In every message of B and to B, and in no other.
const SECRET: &str = "only-for-b";
/// In every message of A.
const FORGED: &str = "from-a";
const CONVERSATIONS: usize = 300;
const PACKETS: usize = 20;

/// Below A, B, anybody, or elsewhere; with wildcards when it is a filter.
fn topic(random: &mut Random, filter: bool) -> String {
    let id = if filter { random.one_of(&[A, B, B, "+", "#"]) } else { random.one_of(&[A, B, B]) };
    if id == "#" {
        return random
            .one_of(&["#", "cardshop/#", "cardshop/1/appliance/#", "+/1/#", "$share/x/cardshop/#"])
            .to_owned();
    }
    let below = random.one_of(&[
        "status",
        "desired",
        "cmd",
        "cmd/reply",
        "event",
        "event/ack",
        "slot/s01/state",
        "alert/x",
        "info",
    ]);
    let below = match random.next(4) {
        0 if filter => random.one_of(&["#", "+", "+/+", "slot/+/state", "slot/#", "+/#"]),
        _ => below,
    };
    let root = random.one_of(&[
        "cardshop/1/appliance",
        "cardshop/1/appliance",
        "cardshop/+/appliance",
        "+/1/appliance",
        "cardshop/1//appliance",
    ]);
    let root = if filter { root } else { "cardshop/1/appliance" };
    format!("{root}/{id}/{below}")
}

fn legal(random: &mut Random, version: u8, id: u16) -> Vec<u8> {
    let none = if version == 5 { &[0][..] } else { &[] };
    let id = id.to_be_bytes();
    match random.next(6) {
        0 | 1 => {
            // Options of 5: retain handling, retain as published, no local.
            let options = if version == 5 { (random.next(12) << 2) as u8 & 0x2c } else { 0 };
            let body =
                [&id[..], none, &text(&topic(random, true)), &[options | random.next(3) as u8]].concat();
            packet(0x82, &body)
        }
        2 => packet(0xa2, &[&id[..], none, &text(&topic(random, true))].concat()),
        3 => vec![0xc0, 0],
        _ => {
            let qos = random.next(3) as u8;
            let retain = random.next(2) as u8;
            let id = if qos > 0 { &id[..] } else { &[] };
            let payload = if random.next(8) == 0 && retain == 1 { "" } else { FORGED };
            let body = [&text(&topic(random, false))[..], id, none, payload.as_bytes()].concat();
            packet(0x30 | qos << 1 | retain, &body)
        }
    }
}

/// Everything that has come until the broker closes or answers the last ping; none of it may be B's.
async fn read_all(client: &mut Raw, pings: usize) {
    let mut pongs = 0;
    while pongs < pings {
        let Some(bytes) = client.maybe_packet().await else { return };
        pongs += usize::from(bytes[0] == 0xd0);
        let leaked = bytes.windows(SECRET.len()).any(|window| window == SECRET.as_bytes());
        assert!(!leaked, "A was given {}", String::from_utf8_lossy(&bytes));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_sequence_of_legal_packets_lets_an_appliance_read_or_write_below_another() {
    let data = tempdir().unwrap();
    let shop = Shop::open(data.path()).await;
    let mut staff = shop.client("ada", Role::Staff).await;
    assert_eq!(staff.subscribe(&[(&format!("cardshop/1/appliance/{B}/#"), 1)]).await, [1]);
    let mut scheduler = shop.client("scheduler", Role::Scheduler).await;
    let mut b = shop.client(B, Role::Appliance).await;
    let token = shop.token(A, Role::Appliance);
    let mut random = Random(5);
    let mut expected = 0;
    for _ in 0..CONVERSATIONS {
        for topic in ["status", "slot/s01/state"] {
            b.put(&own(B, topic), SECRET, true).await;
        }
        scheduler.put(&own(B, "desired"), SECRET, true).await;
        expected += 3;
        let version = 4 + random.next(2) as u8;
        let will = topic(&mut random, false);
        let will = (random.next(3) == 0).then_some((will.as_str(), FORGED, random.next(2) == 0));
        let mut a = shop.raw().await;
        a.version = version;
        a.send(&Hello { version, will, ..Hello::new(A, &token) }.packet()).await;
        let welcome = a.packet().await;
        if welcome[3] != 0 {
            continue; // Its will was below B.
        }
        let mut pings = 1;
        for n in 0..PACKETS {
            let bytes = legal(&mut random, version, n as u16 + 1);
            pings += usize::from(bytes[0] == 0xc0);
            if a.stream.write_all(&bytes).await.is_err() {
                break;
            }
        }
        // What B's scheduler says while A listens.
        scheduler.put(&own(B, "cmd"), SECRET, false).await;
        expected += 1;
        a.stream.write_all(&[0xc0, 0]).await.ok();
        read_all(&mut a, pings).await;
        match random.next(3) {
            0 => a.reset(),
            1 => drop(a.stream.write_all(&[0xe0, 0]).await),
            _ => drop(a),
        }
    }
    b.put(&own(B, "event"), "the end", false).await;
    let mut seen = 0;
    loop {
        let message = staff.got().await;
        if message.payload == "the end" {
            break;
        }
        assert_eq!(message.payload, SECRET, "A wrote {message:?}");
        seen += 1;
    }
    assert_eq!(seen, expected, "and nothing of B's was lost or cleared");
    shop.broker.shutdown().await;
}
