//! Messages get where they belong: live, retained, by will, over a restart, in order, to all who may have them.

mod common;

use cardshop_protocol::token::Role;
use common::{A, B, Hello, Shop, got, own};
use tempfile::tempdir;

#[tokio::test(flavor = "multi_thread")]
async fn a_report_reaches_staff_and_the_scheduler_live_with_the_lower_qos() {
    let data = tempdir().unwrap();
    let shop = Shop::open(data.path()).await;
    let mut staff = shop.client("ada", Role::Staff).await;
    let mut scheduler = shop.client("scheduler", Role::Scheduler).await;
    assert_eq!(staff.subscribe(&[("cardshop/1/appliance/+/slot/+/state", 0)]).await, [0]);
    assert_eq!(scheduler.subscribe(&[("cardshop/1/appliance/#", 2)]).await, [1], "QoS 2 is granted as 1");
    let mut appliance = shop.client(A, Role::Appliance).await;
    let topic = own(A, "slot/s01/state");
    appliance.put(&topic, "one", true).await;
    appliance.publish(&topic, "two", 0, true).await;
    assert_eq!(staff.got().await, got(&topic, "one", 0, false));
    assert_eq!(staff.got().await, got(&topic, "two", 0, false));
    assert_eq!(scheduler.got().await, got(&topic, "one", 1, false));
    assert_eq!(scheduler.got().await, got(&topic, "two", 0, false));
    shop.broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_appliance_hears_its_scheduler_and_not_the_next_appliances() {
    let data = tempdir().unwrap();
    let shop = Shop::open(data.path()).await;
    let mut scheduler = shop.client("scheduler", Role::Scheduler).await;
    scheduler.put(&own(A, "desired"), "for a", true).await;
    scheduler.put(&own(B, "desired"), "for b", true).await;
    let mut a = shop.client(A, Role::Appliance).await;
    let filters = [own(A, "desired"), own(A, "cmd"), own(A, "event/ack"), "cardshop/1/server/#".into()];
    for filter in &filters {
        assert_eq!(a.subscribe(&[(filter, 1)]).await, [1], "{filter}");
        if filter == &filters[0] {
            assert_eq!(a.got().await, got(&own(A, "desired"), "for a", 1, true));
        }
    }
    scheduler.put(&own(B, "cmd"), "not yours", false).await;
    scheduler.put(&own(A, "cmd"), "identify", false).await;
    scheduler.put("cardshop/1/server/time", "now", false).await;
    // Order holds within a topic, and within the topics of one appliance.
    let mut heard = [a.got().await, a.got().await];
    heard.sort_by(|x, y| x.topic.cmp(&y.topic));
    let expected = [(own(A, "cmd"), "identify"), ("cardshop/1/server/time".into(), "now")];
    assert_eq!(heard, expected.map(|(topic, payload)| got(&topic, payload, 1, false)));
    shop.broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_subscriber_gets_every_retained_message_however_many() {
    const COUNT: usize = 3_000;
    let data = tempdir().unwrap();
    let shop = Shop::open(data.path()).await;
    let mut scheduler = shop.client("scheduler", Role::Scheduler).await;
    for n in 0..COUNT {
        scheduler.publish(&format!("cardshop/1/appliance/{n:016x}/desired"), &n.to_string(), 0, true).await;
    }
    scheduler.ping().await;
    for qos in [0, 1] {
        let mut staff = shop.client("ada", Role::Staff).await;
        staff.subscribe(&[("cardshop/1/#", qos)]).await;
        let mut seen = vec![false; COUNT];
        for _ in 0..COUNT {
            let message = staff.got().await;
            assert!(message.retain);
            let n: usize = message.payload.parse().unwrap();
            assert!(!std::mem::replace(&mut seen[n], true), "{n} came twice");
        }
        staff.goodbye().await;
    }
    shop.broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_retained_picture_survives_a_restart_and_an_empty_payload_removes() {
    let data = tempdir().unwrap();
    let shop = Shop::open(data.path()).await;
    let mut appliance = shop.client(A, Role::Appliance).await;
    for (topic, payload) in [
        ("status", "online"),
        ("slot/s01/state", "old"),
        ("slot/s01/state", "new"),
        ("alert/cache_full", "x"),
    ] {
        appliance.put(&own(A, topic), payload, true).await;
    }
    appliance.put(&own(A, "health"), "not retained", false).await;
    appliance.put(&own(A, "alert/cache_full"), "", true).await;
    appliance.goodbye().await;
    shop.until("keeping two", |stats| stats.retained == 2).await;
    shop.broker.shutdown().await;

    let shop = Shop::open(data.path()).await;
    assert_eq!(shop.broker.stats().retained, 2);
    let mut staff = shop.client("ada", Role::Staff).await;
    staff.subscribe(&[("cardshop/1/appliance/#", 1)]).await;
    assert_eq!(staff.got().await, got(&own(A, "slot/s01/state"), "new", 1, true));
    assert_eq!(staff.got().await, got(&own(A, "status"), "online", 1, true));
    staff.ping().await;
    shop.broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_will_is_published_when_the_connection_breaks_and_not_after_a_goodbye() {
    let data = tempdir().unwrap();
    let shop = Shop::open(data.path()).await;
    let mut staff = shop.client("ada", Role::Staff).await;
    staff.subscribe(&[("cardshop/1/appliance/+/status", 1)]).await;
    let (token, status) = (shop.token(A, Role::Appliance), own(A, "status"));
    let hello = Hello { will: Some((&status, "offline", true)), ..Hello::new(A, &token) };
    for version in [4, 5] {
        let mut appliance = shop.login(&Hello { version, ..hello.clone() }).await;
        appliance.put(&status, "stopped", true).await;
        assert_eq!(staff.got().await, got(&status, "stopped", 1, false));
        appliance.goodbye().await;
        let mut appliance = shop.login(&Hello { version, ..hello.clone() }).await;
        appliance.put(&status, "online", true).await;
        assert_eq!(staff.got().await, got(&status, "online", 1, false), "no will in between");
        appliance.reset();
        assert_eq!(staff.got().await, got(&status, "offline", 1, false));
    }
    let mut asks_for_it = shop.login(&Hello { version: 5, ..hello.clone() }).await;
    asks_for_it.send(&[0xe0, 1, 4]).await;
    assert_eq!(staff.got().await, got(&status, "offline", 1, false));
    shop.broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_falls_silent_is_closed_after_one_and_a_half_keep_alives() {
    let data = tempdir().unwrap();
    let shop = Shop::open(data.path()).await;
    let (token, status) = (shop.token(A, Role::Appliance), own(A, "status"));
    let will = Some((status.as_str(), "offline", true));
    let mut silent = shop.login(&Hello { keep_alive_s: 1, will, version: 5, ..Hello::new(A, &token) }).await;
    let since = std::time::Instant::now();
    silent.ping().await;
    assert_eq!(silent.packet().await, [0xe0, 1, 0x8d], "keep alive timeout");
    silent.is_closed().await;
    let after = since.elapsed().as_secs_f64();
    // A busy machine may be late, never early.
    assert!((1.4..10.0).contains(&after), "closed after {after} s");
    let mut staff = shop.client("ada", Role::Staff).await;
    staff.subscribe(&[(&status, 0)]).await;
    assert_eq!(staff.got().await, got(&status, "offline", 0, true));
    shop.broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn qos_2_publishes_are_taken_once_however_often_they_are_sent() {
    let data = tempdir().unwrap();
    let shop = Shop::open(data.path()).await;
    let mut staff = shop.client("ada", Role::Staff).await;
    staff.subscribe(&[("cardshop/1/#", 1)]).await;
    let mut a = shop.client(A, Role::Appliance).await;
    let body = [&common::text(&own(A, "event"))[..], &[0, 9], b"one"].concat();
    for head in [0x34, 0x3c] {
        a.send(&common::packet(head, &body)).await;
        assert_eq!(a.packet().await, [0x50, 2, 0, 9]);
    }
    a.send(&[0x62, 2, 0, 9]).await;
    assert_eq!(a.packet().await, [0x70, 2, 0, 9]);
    a.put(&own(A, "event"), "two", false).await;
    assert_eq!(staff.got().await, got(&own(A, "event"), "one", 1, false));
    assert_eq!(staff.got().await, got(&own(A, "event"), "two", 1, false));
    shop.broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn people_see_the_appliances_of_their_channels_and_no_others() {
    let data = tempdir().unwrap();
    let shop = Shop::open(data.path()).await;
    let mut mine = shop.client(A, Role::Appliance).await;
    let mut others = common::claims(B, Role::Appliance, 3600);
    others.channel = vec!["other".parse().unwrap()];
    let token = shop.signer.sign(&others);
    let mut theirs = shop.login(&Hello::new(B, &token)).await;
    mine.put(&own(A, "status"), "retained", true).await;
    theirs.put(&own(B, "status"), "retained", true).await;
    for (name, role) in [("olga", Role::Operator), ("ha", Role::Integrator), ("max", Role::Manager)] {
        let mut person = shop.client(name, role).await;
        person.subscribe(&[("cardshop/1/appliance/+/status", 1)]).await;
        assert_eq!(person.got().await, got(&own(A, "status"), "retained", 1, true));
        theirs.put(&own(B, "status"), "live", false).await;
        mine.put(&own(A, "status"), "live", false).await;
        assert_eq!(person.got().await, got(&own(A, "status"), "live", 1, false), "{name}");
        assert_eq!(
            person.subscribe(&[("cardshop/1/board/other", 1), ("cardshop/1/board/demo", 1)]).await,
            [0x80, 1]
        );
        person.goodbye().await;
    }
    shop.broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_burst_for_one_appliance_reaches_it_whole() {
    let data = tempdir().unwrap();
    let shop = Shop::open(data.path()).await;
    let mut scheduler = shop.client("scheduler", Role::Scheduler).await;
    let mut appliance = shop.client(A, Role::Appliance).await;
    assert_eq!(appliance.subscribe(&[(&own(A, "event/ack"), 1), (&own(A, "desired"), 1)]).await, [1, 1]);
    // As after an outage: the outbox came at once, and so do the answers; then three plans in a row.
    for (topic, count, size) in [("event/ack", 150, 20), ("desired", 3, 60_000)] {
        let payload = |n: usize| format!("{n:0size$}");
        let publish = |n: usize| {
            common::packet(0x30, &[&common::text(&own(A, topic))[..], payload(n).as_bytes()].concat())
        };
        scheduler.send(&(0..count).flat_map(publish).collect::<Vec<u8>>()).await;
        for n in 0..count {
            assert!(appliance.got().await.payload == payload(n), "{topic} {n}");
        }
    }
    shop.broker.shutdown().await;
}
