//! What brings rumqttd's own listener down, and other mischief, against ours: the broker goes on, and others
//! notice nothing.

mod common;

use std::sync::Arc;

use cardshop_broker::{Limits, Refusal};
use cardshop_protocol::token::Role;
use common::{A, B, Hello, Random, Shop, got, limits, own, packet, soon, text};
use tempfile::tempdir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// A client that is there before the mischief and has to be fine after it.
async fn unaffected(shop: &Shop, witness: &mut common::Raw) {
    witness.ping().await;
    let mut other = shop.client("scheduler", Role::Scheduler).await;
    other.put("cardshop/1/board/demo", "still here", false).await;
    other.goodbye().await;
    assert_eq!(witness.got().await, got("cardshop/1/board/demo", "still here", 1, false));
}

async fn witness(shop: &Shop) -> common::Raw {
    let mut witness = shop.client("witness", Role::Staff).await;
    assert_eq!(witness.subscribe(&[("cardshop/1/board/#", 1)]).await, [1]);
    witness
}

#[tokio::test(flavor = "multi_thread")]
async fn client_ids_with_topic_characters_are_ordinary_names() {
    let data = tempdir().unwrap();
    let shop = Shop::open(data.path()).await;
    let mut witness = witness(&shop).await;
    for name in ["a/b#c", "+/+", "$share/x/#", "####", "publisher", "link-0", "ä ö\t/"] {
        for _ in 0..2 {
            let mut client = shop.client(name, Role::Staff).await;
            assert_eq!(client.subscribe(&[("cardshop/1/board/demo", 0)]).await, [0], "{name}");
            client.reset();
        }
    }
    unaffected(&shop, &mut witness).await;
    shop.broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn twenty_thousand_connects_with_a_reset_leave_nothing_behind() {
    const COUNT: usize = 20_000;
    /// Clients that do it side by side.
    const ABREAST: usize = 8;
    let data = tempdir().unwrap();
    let shop = Arc::new(Shop::open(data.path()).await);
    let mut witness = witness(&shop).await;
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..ABREAST {
        let shop = shop.clone();
        tasks.spawn(async move {
            let names: Vec<String> = (0..7).map(|n| format!("{:016x}", task * 7 + n)).collect();
            let tokens: Vec<String> = names.iter().map(|name| shop.token(name, Role::Appliance)).collect();
            for n in 0..COUNT / ABREAST {
                let mut bytes = Hello::new(&names[n % 7], &tokens[n % 7]).packet();
                // Some are cut in the middle of CONNECT, some right after it, some have asked for more.
                match n % 3 {
                    0 => bytes.truncate(bytes.len() / 2),
                    1 => {}
                    _ => bytes
                        .extend(packet(0x82, &[&[0, 1][..], &text("cardshop/1/server/#"), &[1]].concat())),
                }
                let mut raw = shop.raw().await;
                raw.send(&bytes).await;
                raw.reset();
            }
        });
    }
    while let Some(done) = tasks.join_next().await {
        done.unwrap();
    }
    shop.until("all being gone", |stats| stats.open == 1).await;
    // A connection that is reset before it was accepted never gets here.
    assert!(shop.broker.stats().accepted > 1_000);
    unaffected(&shop, &mut witness).await;
    Arc::into_inner(shop).unwrap().broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_connection_limit_can_be_hit_again_and_again() {
    let data = tempdir().unwrap();
    let shop = Shop::with_limits(data.path(), Limits { connections: 3, ..limits() }).await;
    let mut witness = witness(&shop).await;
    for round in 0..3 {
        let one = shop.client("one", Role::Staff).await;
        let two = shop.client("two", Role::Staff).await;
        for _ in 0..5 {
            let mut refused = shop.raw().await;
            refused.is_closed().await;
        }
        one.goodbye().await;
        two.goodbye().await;
        shop.until("both being gone", |stats| stats.open == 1).await;
        assert_eq!(shop.broker.stats().refused(Refusal::Connections), 5 * (round + 1));
    }
    unaffected(&shop, &mut witness).await;
    shop.broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connects_above_the_rate_of_an_address_are_closed_at_once() {
    let data = tempdir().unwrap();
    let shop = Shop::with_limits(data.path(), Limits { connects_per_second: 20, ..limits() }).await;
    let mut kept = Vec::new();
    for _ in 0..100 {
        kept.push(shop.raw().await);
    }
    shop.until("a hundred accepts", |stats| stats.accepted == 100).await;
    let refused = shop.broker.stats().refused(Refusal::ConnectRate);
    // A slow machine may see several seconds begin.
    assert!((20..=80).contains(&refused), "{refused} refused");
    shop.broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_take_over_ends_the_first_session_without_its_will() {
    let data = tempdir().unwrap();
    let shop = Shop::open(data.path()).await;
    let mut staff = shop.client("ada", Role::Staff).await;
    staff.subscribe(&[("cardshop/1/appliance/+/status", 1)]).await;
    let (token, status) = (shop.token(A, Role::Appliance), own(A, "status"));
    let will = Some((status.as_str(), "offline", true));
    let mut first = shop.login(&Hello { version: 5, will, ..Hello::new(A, &token) }).await;
    let mut second = shop.login(&Hello { will, ..Hello::new(A, &token) }).await;
    assert_eq!(first.packet().await, [0xe0, 1, 0x8e], "session taken over");
    first.is_closed().await;
    second.put(&status, "online", true).await;
    assert_eq!(staff.got().await, got(&status, "online", 1, false), "no will in between");
    // Both were alive: a copied stick. Whoever watches the appliance hears it, now and later.
    for mut watcher in
        [shop.client("scheduler", Role::Scheduler).await, shop.client5("max", Role::Manager).await]
    {
        watcher.subscribe(&[("cardshop/1/appliance/+/alert/+", 1)]).await;
        let alert = watcher.got().await;
        assert!(alert.retain && alert.topic == own(A, "alert/taken_over"), "{alert:?}");
        assert!(alert.payload.contains("two machines") && alert.payload.contains("127.0.0.1"), "{alert:?}");
    }
    assert_eq!(shop.broker.stats().refused(Refusal::TakenOver), 1);
    shop.broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storm_of_take_overs_leaves_exactly_one_session() {
    const STORM: usize = 60;
    let data = tempdir().unwrap();
    let shop = Shop::open(data.path()).await;
    let mut witness = witness(&shop).await;
    let token = shop.token(A, Role::Appliance);
    let hello = Hello { keep_alive_s: 0, ..Hello::new(A, &token) }.packet();
    let mut storm = Vec::new();
    for _ in 0..STORM {
        let mut raw = shop.raw().await;
        raw.send(&hello).await;
        storm.push(raw);
    }
    shop.until("all but one being gone", |stats| stats.open == 2 && stats.logged_in == STORM as u64 + 1)
        .await;
    let mut alive = 0;
    for mut raw in storm {
        let welcome = raw.packet().await;
        assert_eq!(welcome, [0x20, 2, 0, 0]);
        // The session that is left answers; the others were closed.
        raw.stream.write_all(&[0xc0, 0]).await.ok();
        alive += usize::from(raw.maybe_packet().await.is_some());
    }
    assert_eq!(alive, 1);
    unaffected(&shop, &mut witness).await;
    shop.broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn forged_publishes_reach_nobody() {
    let data = tempdir().unwrap();
    let shop = Shop::open(data.path()).await;
    let mut staff = shop.client("ada", Role::Staff).await;
    staff.subscribe(&[("#", 1)]).await;
    let forged = [
        own(B, "status"),
        own(B, "slot/s01/state"),
        own(A, "desired"),
        own(A, "cmd"),
        own(A, "event/ack"),
        "cardshop/1/server/status".into(),
        "cardshop/1/board/demo".into(),
        "homeassistant/status".into(),
        "a/b/c/d/e/f/g/h/i".into(),
        "$SYS/x".into(),
    ];
    let mut appliance = shop.client(A, Role::Appliance).await;
    for topic in &forged {
        // 3.1.1 cannot be told: it is acknowledged and goes nowhere.
        appliance.put(topic, "forged", true).await;
    }
    let alert = staff.got().await;
    assert_eq!(alert.topic, own(A, "alert/refused"), "once, however often it tries");
    assert!(alert.payload.contains(&own(B, "status")), "{alert:?}");
    appliance.publish(&own(A, "event"), "", 0, false).await;
    for topic in &forged {
        for qos in [0, 1] {
            let mut appliance = shop.client5(B, Role::Appliance).await;
            let topic = topic.replace(B, A);
            let id = appliance.publish(&topic, "forged", qos, true).await;
            if qos == 1 {
                assert_eq!(appliance.packet().await, [&[0x40, 3][..], &id.to_be_bytes(), &[0x87]].concat());
            }
            assert_eq!(appliance.packet().await, [0xe0, 1, 0x87], "{topic}");
            appliance.is_closed().await;
        }
    }
    assert_eq!(staff.got().await.topic, own(B, "alert/refused"));
    let mut person = shop.client("max", Role::Manager).await;
    person.put("cardshop/1/order/demo/01jd0000000000000000000000", "forged", true).await;
    let mut scheduler = shop.client("scheduler", Role::Scheduler).await;
    scheduler.put(&own(A, "cmd"), "retained commands come back as ghosts", true).await;
    appliance.put(&own(A, "event"), "real", false).await;
    assert_eq!(staff.got().await, got(&own(A, "event"), "real", 1, false), "nothing forged came before it");
    let stats = shop.broker.stats();
    assert_eq!((stats.refused(Refusal::Publish), stats.retained), (forged.len() as u64 * 3 + 3, 2));
    shop.broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn filters_that_reach_too_far_are_refused_and_the_good_ones_beside_them_granted() {
    let data = tempdir().unwrap();
    let shop = Shop::open(data.path()).await;
    let mut scheduler = shop.client("scheduler", Role::Scheduler).await;
    scheduler.put(&own(B, "desired"), "secret", true).await;
    let all = format!("cardshop/1/appliance/{A}/#");
    let (theirs, mine) = (own(B, "desired"), own(A, "cmd"));
    let filters = [
        ("#", 1),
        ("cardshop/1/appliance/+/desired", 1),
        (&all, 1),
        (&theirs, 1),
        ("$share/group/cardshop/1/server/#", 1),
        ("cardshop/#/x", 1),
        ("a/b/c/d/e/f/g/h/#", 1),
        (&mine, 1),
    ];
    let mut v4 = shop.client(A, Role::Appliance).await;
    assert_eq!(v4.subscribe(&filters).await, [0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 1]);
    let mut v5 = shop.client5(A, Role::Appliance).await;
    assert_eq!(v5.subscribe(&filters).await, [0x87, 0x87, 0x87, 0x87, 0x9e, 0x8f, 0x8f, 1]);
    scheduler.put(&own(B, "desired"), "secret", true).await;
    scheduler.put(&mine, "mine", false).await;
    assert_eq!(v5.got().await, got(&mine, "mine", 1, false));
    shop.broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_client_has_its_number_of_filters_and_no_more() {
    let data = tempdir().unwrap();
    let shop = Shop::with_limits(data.path(), Limits { subscriptions: 3, ..limits() }).await;
    let mut staff = shop.client5("ada", Role::Staff).await;
    assert_eq!(staff.subscribe(&[("a", 0), ("b", 0), ("c", 0), ("d", 0)]).await, [0, 0, 0, 0x97]);
    assert_eq!(staff.subscribe(&[("a", 1), ("d", 0)]).await, [1, 0x97], "a known one is replaced");
    assert_eq!(staff.subscribe(&[("a", 1); 5]).await, [1, 1, 1, 0x97, 0x97], "also in one packet");
    let body = [&[0, 9, 0][..], &text("b"), &text("x")].concat();
    staff.send(&packet(0xa2, &body)).await;
    assert_eq!(staff.packet().await, [0xb0, 5, 0, 9, 0, 0, 0x11]);
    assert_eq!(staff.subscribe(&[("d", 0)]).await, [0]);
    shop.broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_read_is_dropped_and_nobody_waits_for_it() {
    const COUNT: usize = 4_000;
    let data = tempdir().unwrap();
    let limits = Limits { queue_messages: 500, ..limits() };
    let shop = Shop::with_limits(data.path(), limits).await;
    let mut slow = shop.client("slow", Role::Staff).await;
    slow.subscribe(&[("cardshop/1/appliance/#", 0)]).await;
    let mut reader = shop.client("ada", Role::Staff).await;
    reader.subscribe(&[("cardshop/1/appliance/#", 0)]).await;
    let mut appliance = shop.client(A, Role::Appliance).await;
    let payload = "x".repeat(8_000);
    let read = tokio::spawn(async move {
        for _ in 0..COUNT {
            assert_eq!(reader.got().await.payload.len(), 8_000);
        }
    });
    for _ in 0..COUNT {
        appliance.put(&own(A, "event"), &payload, false).await;
    }
    soon("reading all", read).await.unwrap();
    shop.until("the slow one being dropped", |stats| stats.refused(Refusal::SlowConsumer) == 1).await;
    drop(slow);
    shop.broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scheduler_reads_all_that_a_site_writes_at_once_however_much_that_is() {
    const APPLIANCES: usize = 20;
    const EACH: usize = 1_500;
    let data = tempdir().unwrap();
    let shop = Shop::open(data.path()).await;
    let mut scheduler = shop.client("scheduler", Role::Scheduler).await;
    scheduler.subscribe(&[("cardshop/1/appliance/+/slot/+/state", 0)]).await;
    // Five times what the router keeps for somebody who is behind.
    let payload = "x".repeat(1_000);
    let mut writing = tokio::task::JoinSet::new();
    for n in 0..APPLIANCES {
        let name = format!("{n:016x}");
        let mut appliance = shop.client(&name, Role::Appliance).await;
        let payload = payload.clone();
        writing.spawn(async move {
            for _ in 0..EACH {
                appliance.publish(&own(&name, "slot/s01/state"), &payload, 0, false).await;
            }
            appliance
        });
    }
    let read = async {
        for _ in 0..APPLIANCES * EACH {
            scheduler.got().await;
        }
    };
    soon("reading all", read).await;
    assert_eq!(shop.broker.stats().refused(Refusal::SlowConsumer), 0);
    writing.join_all().await;
    shop.broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_subscribes_again_and_again_without_reading_is_dropped() {
    const PICTURE: usize = 100;
    let data = tempdir().unwrap();
    let shop = Shop::with_limits(data.path(), Limits { retained_messages: PICTURE, ..limits() }).await;
    let mut scheduler = shop.client("scheduler", Role::Scheduler).await;
    for n in 0..PICTURE {
        let topic = format!("cardshop/1/appliance/{n:016x}/desired");
        scheduler.put(&topic, &"x".repeat(1_000), true).await;
    }
    let mut greedy = shop.client("ada", Role::Staff).await;
    let subscribe = packet(0x82, &[&[0, 1][..], &text("#"), &[1]].concat());
    // It acknowledges nothing, so nothing of this can leave.
    greedy.stream.write_all(&subscribe.repeat(50)).await.ok();
    shop.until("its being dropped", |stats| stats.refused(Refusal::SlowConsumer) == 1).await;
    let mut patient = shop.client("olga", Role::Staff).await;
    patient.subscribe(&[("#", 1)]).await;
    for _ in 0..PICTURE {
        assert!(patient.got().await.retain);
    }
    shop.broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn oversized_and_malformed_packets_end_their_own_session_only() {
    let data = tempdir().unwrap();
    let shop = Shop::open(data.path()).await;
    let mut witness = witness(&shop).await;
    let mut large = shop.client5(A, Role::Appliance).await;
    large.publish(&own(A, "info"), &"x".repeat(64 * 1024), 0, false).await;
    large.ping().await;
    // The length alone is enough.
    large.send(&[0x30, 0x81, 0x80, 0x06]).await;
    assert_eq!(large.packet().await, [0xe0, 1, 0x95]);
    large.is_closed().await;
    for (topic, size) in [("info", 64 * 1024 + 1), ("slot/s01/state", 8 * 1024 + 1)] {
        let mut large = shop.client5(A, Role::Appliance).await;
        let id = large.publish(&own(A, topic), &"x".repeat(size), 1, true).await;
        assert_eq!(large.packet().await, [&[0x40, 3][..], &id.to_be_bytes(), &[0x97]].concat(), "{topic}");
        assert_eq!(large.packet().await, [0xe0, 1, 0x97]);
    }
    assert_eq!(shop.broker.stats().retained, 0);
    let topic_alias = packet(0x30, &[&text(&own(A, "event"))[..], &[3, 0x23, 0, 1], b"x"].concat());
    for (bytes, reason) in [
        (&b"\x20\x03\0\0\0"[..], 0x82),
        (b"\x36\x05\0\x01t\0\x01", 0x81),
        (b"\x30\xff\xff\xff\xff", 0x81),
        (b"\x82\x02\0\x01", 0x81),
        (&topic_alias, 0x94),
    ] {
        let mut bad = shop.client5(A, Role::Appliance).await;
        bad.send(bytes).await;
        assert_eq!(bad.packet().await, [0xe0, 1, reason], "{bytes:02x?}");
        bad.is_closed().await;
    }
    unaffected(&shop, &mut witness).await;
    shop.broker.shutdown().await;
}

/// Packets that a client may send, each with the right of appliance A.
fn legal(random: &mut Random, version: u8, id: u16) -> Vec<u8> {
    let none = if version == 5 { &[0][..] } else { &[] };
    let id = id.to_be_bytes();
    let publish =
        |head: u8, id: &[u8]| packet(head, &[&text(&own(A, "event"))[..], id, none, b"{}"].concat());
    match random.next(8) {
        0 => packet(0x82, &[&id[..], none, &text(&own(A, "cmd")), &[1]].concat()),
        1 => packet(0x82, &[&id[..], none, &text("cardshop/1/server/#"), &[0]].concat()),
        2 => packet(0xa2, &[&id[..], none, &text(&own(A, "cmd"))].concat()),
        3 => publish(0x30, &[]),
        4 => publish(0x32, &id),
        5 => publish(0x34, &id),
        6 => packet(0x62, &id),
        _ => vec![0xc0, 0],
    }
}

/// Flips a bit, cuts the end off or puts a byte in, somewhere.
fn damage(random: &mut Random, bytes: &mut Vec<u8>) {
    let at = random.next(bytes.len());
    match random.next(3) {
        0 => bytes[at] ^= 1 << random.next(8),
        1 => bytes.truncate(at),
        _ => bytes.insert(at, random.next(256) as u8),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hundred_thousand_packets_with_random_damage_harm_nobody() {
    const PACKETS: usize = 200_000;
    /// Packets of one conversation; one in so many is damaged.
    const LONGEST: usize = 40;
    let data = tempdir().unwrap();
    let shop = Shop::open(data.path()).await;
    let mut witness = witness(&shop).await;
    let token = shop.token(A, Role::Appliance);
    let mut random = Random(7);
    let (mut sent, mut round) = (0, 0);
    while sent < PACKETS {
        round += 1;
        let version = 4 + (round % 2) as u8;
        let mut bytes = Hello { version, ..Hello::new(A, &token) }.packet();
        if round % 10 == 0 {
            damage(&mut random, &mut bytes);
        }
        for n in 0..LONGEST {
            let mut packet = legal(&mut random, version, n as u16 + 1);
            if random.next(LONGEST) == 0 {
                damage(&mut random, &mut packet);
            }
            bytes.extend(packet);
        }
        sent += 1 + LONGEST;
        let mut raw = shop.raw().await;
        raw.stream.write_all(&bytes).await.ok();
        // It reads all, and then there is nothing more to wait for.
        raw.stream.shutdown().await.ok();
        let mut rest = Vec::new();
        soon("its end", raw.stream.read_to_end(&mut rest)).await.ok();
    }
    shop.until("all being gone", |stats| stats.open == 1).await;
    let stats = shop.broker.stats();
    assert!(stats.messages_in > 10_000 && stats.refused(Refusal::Malformed) > 500, "{stats:?}");
    unaffected(&shop, &mut witness).await;
    shop.broker.shutdown().await;
}
