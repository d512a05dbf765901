//! Facts of appliances: exactly once, in order, and only what the appliance may say.

use cardshop_protocol::message::Fact;
use cardshop_protocol::topic::{ApplianceTopic, Topic};
use serde_json::json;

use super::{Bench, Site};
use crate::effects::events::Taken;
use crate::effects::inbox::Incoming;

async fn ready(site: &Site) -> cardshop_protocol::ids::OrderId {
    let creator = site.user("maker", "creator", &[]).await;
    let order = site.order(&site.admin, json!({})).await;
    site.create_image(&creator, 1 << 20).await;
    order
}

fn acknowledged(bench: &Bench<'_>) -> Option<u64> {
    let topic = Topic::Appliance(bench.id, ApplianceTopic::EventAck);
    bench.site.scheduler.inner.retained.get(&topic).map(|ack| ack["upto"].as_u64().unwrap())
}

#[tokio::test]
async fn a_fact_told_twice_counts_once_and_a_gap_waits_for_the_missing_one() {
    let site = Site::new().await;
    let order = ready(&site).await;
    let bench = site.appliance(1).await;
    let lease = site.leases(bench.id).await.remove(0);
    let facts: Vec<_> =
        (1..=3).map(|n| bench.event(u64::from(n), bench.verified(&lease, n, u128::from(n)))).collect();
    let take = async |n: usize| site.scheduler.take_event(bench.id, &facts[n - 1]).await.unwrap();

    assert_eq!(take(2).await, Taken::TooEarly);
    assert_eq!(acknowledged(&bench), None);
    assert_eq!(take(1).await, Taken::Applied);
    assert_eq!(take(1).await, Taken::Known);
    assert_eq!(acknowledged(&bench), Some(1));
    assert_eq!(take(3).await, Taken::TooEarly);
    assert_eq!(take(2).await, Taken::Applied);
    assert_eq!(take(3).await, Taken::Applied);
    assert_eq!(take(2).await, Taken::Known);
    assert_eq!(acknowledged(&bench), Some(3));
    let (_, view) = site.get(&format!("/orders/{order}"), &site.admin).await;
    assert_eq!(
        (&view["status"], &view["verified"], &view["spare"]),
        (&json!("written"), &json!(3), &json!(0))
    );
}

#[tokio::test]
async fn after_a_restart_the_count_goes_on_and_the_acknowledgement_is_retained() {
    let site = Site::new().await;
    let order = ready(&site).await;
    let (id, event) = {
        let mut bench = site.appliance(1).await;
        let lease = site.leases(bench.id).await.remove(0);
        bench.tell(Fact::Started { boot: 1 }).await;
        (bench.id, bench.event(2, bench.verified(&lease, 1, 1)))
    };
    site.scheduler.take_event(id, &event).await.unwrap();
    let site = site.restart().await;
    let bench = Bench { site: &site, id, next: 3 };
    assert_eq!(acknowledged(&bench), Some(2));
    assert_eq!(site.scheduler.take_event(id, &event).await.unwrap(), Taken::Known);
    let (_, view) = site.get(&format!("/orders/{order}"), &site.admin).await;
    assert_eq!(view["verified"], 1);
}

#[tokio::test]
async fn more_cards_than_needed_are_spare_and_foreign_leases_do_not_count() {
    let site = Site::new().await;
    let order = ready(&site).await;
    let mut one = site.appliance(1).await;
    let mut two = site.appliance(2).await;
    let lease = site.leases(one.id).await.remove(0);
    let theirs = site.leases(two.id).await.remove(0);
    assert!(!lease.copies.contains(theirs.copies.first), "they share the copies");

    let copy = lease.copies.first;
    let again = one.verified(&lease, copy, 10);
    one.tell(again).await;
    let again = one.verified(&lease, copy, 11);
    one.tell(again).await;
    let outside = one.verified(&lease, theirs.copies.first, 12);
    one.tell(outside).await;
    let (_, view) = site.get(&format!("/orders/{order}"), &site.admin).await;
    assert_eq!((&view["verified"], &view["spare"]), (&json!(1), &json!(2)));

    let stolen = two.verified(&lease, copy, 13);
    assert_eq!(two.tell(stolen).await, Taken::Applied, "the fact is noted");
    let (_, after) = site.get(&format!("/orders/{order}"), &site.admin).await;
    assert_eq!((&after["verified"], &after["spare"]), (&json!(1), &json!(2)), "and does not count");
    let (status, _) = site
        .get(&format!("/cards/{}", cardshop_protocol::ids::ObjectId::from_parts(1, 13)), &site.admin)
        .await;
    assert_eq!(status.as_u16(), 404);
    let copied = two.verified(&theirs, theirs.copies.first, 11);
    two.tell(copied).await;
    let (_, card) = site
        .get(&format!("/cards/{}", cardshop_protocol::ids::ObjectId::from_parts(1, 11)), &site.admin)
        .await;
    assert_eq!(card["copy"], copy);
    assert_eq!(card["appliance"], json!(one.id), "a record stays with the appliance that made it");
}

#[tokio::test]
async fn messages_of_any_content_are_taken_or_dropped_without_harm() {
    let site = Site::new().await;
    let bench = site.appliance(1).await;
    let take = async |topic: &str, payload: &[u8]| {
        let topic = format!("cardshop/1/appliance/{}/{topic}", bench.id);
        site.scheduler.take_message(Incoming { topic, payload: payload.to_vec(), retained: false }).await;
    };
    let slot = json!({
        "boot": 1, "n": 1, "state": "wanted", "led": {"pattern": "breathe_slow", "colour": "blue"},
        "since": "2026-11-23T00:00:00Z", "unknown": [1]
    });
    take("slot/s01/state", slot.to_string().as_bytes()).await;
    take("status", br#"{"status": "online", "session": 1}"#).await;
    let progress = br#"{"phase": "writing", "done": 1, "total": 2, "rate_bps": 3}"#;
    take("slot/s01/progress", progress).await;
    for topic in ["slot/s02/state", "event", "status", "info", "alert/hot", "slot/../state", "x", "alert/A"] {
        for payload in [&b""[..], b"{}", b"null", b"\xff\xfe", b"[[[[", br#"{"n": -1}"#] {
            take(topic, payload).await;
        }
    }
    let (_, slots) = site.get("/slots", &site.admin).await;
    let slots = slots["items"].as_array().unwrap();
    assert_eq!(slots.len(), 1);
    assert_eq!(slots[0]["id"], format!("{}/s01", bench.id));
    assert_eq!((&slots[0]["online"], &slots[0]["progress"]["done"]), (&json!(true), &json!(1)));
    let stranger = site.user("watcher", "integrator", &["default"]).await;
    assert_eq!(site.get("/slots", &stranger).await.1["items"].as_array().unwrap().len(), 1);
}
