//! The life of orders, from the first request to the parcel.

use cardshop_protocol::ids::{SlotId, TaskId};
use cardshop_protocol::message::{Fact, Fault, Remedy};
use serde_json::json;

use super::{Site, index};

#[tokio::test]
async fn a_physical_order_goes_from_created_to_shipped_over_restarts() {
    let site = Site::new().await;
    site.user("maker", "creator", &[]).await;
    let order = site.order(&site.admin, json!({"recipient": "Ada, Main Street 1"})).await;
    assert_eq!(site.status(order).await, "created");

    let site = site.restart().await;
    let creator = site.login("maker", super::PASSWORD).await;
    let task = site.made("/tasks/claim", &creator, json!({})).await;
    assert_eq!(task["task"], TaskId::creation(order).to_string());
    assert_eq!(task["recipe"], json!({"files": []}));
    let report = format!("/tasks/{order}-image/report");
    let running = json!({"state": "running", "phase": "building", "done": 1, "total": 2});
    let answer = site.made(&report, &creator, running).await;
    assert_eq!(answer["stop"], false);
    assert!(answer["grant"]["upload_token"].is_string());
    assert_eq!(site.status(order).await, "creating");

    let (image, bytes) = index(1 << 20);
    site.shelf.0.lock().unwrap().insert(image.to_string(), bytes);
    let succeeded = json!({"state": "succeeded", "image": image});
    for _ in 0..2 {
        let answer = site.made(&report, &creator, succeeded.clone()).await;
        assert_eq!(answer["stop"], false, "told twice, the answer is the same");
    }
    assert_eq!(site.status(order).await, "ready");

    let site = site.restart().await;
    let mut bench = site.appliance(1).await;
    let leases = site.leases(bench.id).await;
    assert_eq!(leases.len(), 1);
    let lease = &leases[0];
    assert_eq!((lease.copies.first, lease.copies.last, lease.min_card_bytes), (1, 3, 1 << 20));
    let slot = SlotId::numbered(1);
    let started = Fact::WriteStarted {
        task: TaskId::write(order, 1),
        lease: lease.lease,
        slot: slot.clone(),
        card_size: 9,
    };
    bench.tell(started).await;
    assert_eq!(site.status(order).await, "writing");
    let fault = Fault { code: "verify_mismatch".into(), text: "byte 7 differs".into(), offset: Some(7) };
    let remedy = Remedy::ReplaceCard;
    let task = TaskId::write(order, 1);
    let repeated = Fact::WriteRepeated { task, lease: lease.lease, slot: slot.clone(), fault: fault.clone() };
    bench.tell(repeated).await;
    let failed = Fact::WriteFailed { task, lease: lease.lease, slot, fault, remedy, card: None };
    bench.tell(failed).await;
    for copy in 1..=3 {
        let fact = bench.verified(lease, copy, u128::from(copy));
        bench.tell(fact).await;
    }
    assert_eq!(site.status(order).await, "written");
    assert!(site.leases(bench.id).await.is_empty(), "the lease is withdrawn");

    let path = format!("/orders/{order}/ship");
    let (status, problem) = site.post(&path, &site.admin, json!({"count": 4})).await;
    assert_eq!((status.as_u16(), &problem["code"]), (409, &json!("not_enough_cards")));
    site.made(&path, &site.admin, json!({"count": 1, "tracking": "AB1"})).await;
    assert_eq!(site.status(order).await, "written");
    site.made(&path, &site.admin, json!({})).await;
    assert_eq!(site.status(order).await, "shipped");

    let (_, story) = site.get(&format!("/orders/{order}/explain"), &site.admin).await;
    let story = story["story"].to_string();
    for part in [
        "Creator maker took the image",
        "byte 7 differs. It is written again in place",
        "3 of 3 cards",
        "tracking code AB1",
    ] {
        assert!(story.contains(part), "{part} is missing in {story}");
    }
    let (_, cards) = site.get(&format!("/cards?order={order}"), &site.admin).await;
    assert_eq!(cards["items"].as_array().unwrap().len(), 3);
}

#[tokio::test]
async fn a_warehouse_that_comes_back_at_another_address_keeps_its_orders() {
    let mut site = Site::new().await;
    let creator = site.user("maker", "creator", &[]).await;
    let order = site.order(&site.admin, json!({})).await;
    site.create_image(&creator, 1 << 20).await;
    let id = site.appliance(1).await.id;
    let old = site.leases(id).await.remove(0);
    assert_eq!(old.warehouses, site.config.warehouses);

    let address = site.shelf.open().await;
    site.config.warehouses = vec![address.clone()];
    let site = site.restart().await;
    site.scheduler.ask_warehouses().await.unwrap();
    let lease = site.leases(id).await.remove(0);
    assert_eq!((lease.lease, &lease.warehouses), (old.lease, &vec![address.clone()]));
    let (_, view) = site.get(&format!("/orders/{order}"), &site.admin).await;
    assert_eq!(view["warehouse"], address);
    let (_, warehouses) = site.get("/warehouses", &site.admin).await;
    assert_eq!(warehouses["items"].as_array().unwrap().len(), 1, "it is the same one");
}

#[tokio::test]
async fn who_has_to_act_is_named_while_an_appliance_is_away_or_cannot_use_the_image() {
    let site = Site::new().await;
    let creator = site.user("maker", "creator", &[]).await;
    let order = site.order(&site.admin, json!({})).await;
    site.create_image(&creator, 1 << 20).await;
    let now = async || {
        let (_, explained) = site.get(&format!("/orders/{order}/explain"), &site.admin).await;
        explained["now"].to_string()
    };
    assert!(now().await.contains("waits for an approved appliance of channel default"));
    let mut bench = site.appliance(1).await;
    let lease = site.leases(bench.id).await.remove(0);
    let told = now().await;
    assert!(told.contains("bench one") && told.contains("3 copies and is offline"), "{told}");
    assert!(told.contains(&lease.not_after.to_string()), "a time is named: {told}");

    let topic = format!("cardshop/1/appliance/{}/status", bench.id);
    let payload = br#"{"status": "online", "session": 1}"#.to_vec();
    site.scheduler.take_message(crate::effects::inbox::Incoming { topic, payload, retained: true }).await;
    let told = now().await;
    assert!(told.contains("insert cards of at least 1048576 bytes") && !told.contains("offline"), "{told}");

    let fault = Fault { code: "index_signature".into(), text: "chunk 3 is wrong".into(), offset: None };
    let (image, id) = (lease.image, lease.lease);
    bench.tell(Fact::ImageRefused { image, lease: id, fault }).await;
    let told = now().await;
    assert!(
        told.contains("chunk 3 is wrong") && told.contains("a manager restarts appliance bench one"),
        "{told}"
    );
    assert!(!told.contains("insert cards"), "nobody is sent for cards in vain: {told}");

    let slot = SlotId::numbered(1);
    bench.tell(Fact::WriteStarted { task: TaskId::write(order, 1), lease: id, slot, card_size: 9 }).await;
    assert!(now().await.contains("insert cards"), "it has found a way");
}

#[tokio::test]
async fn a_wrong_image_is_held_for_everybody_until_a_person_retries_and_no_card_is_blamed() {
    let site = Site::new().await;
    let creator = site.user("maker", "creator", &[]).await;
    let order = site.order(&site.admin, json!({})).await;
    site.create_image(&creator, 1 << 20).await;
    let mut bench = site.appliance(1).await;
    let lease = site.leases(bench.id).await.remove(0);
    let retry = format!("/orders/{order}/retry");
    assert_eq!(site.post(&retry, &site.admin, json!({})).await.0, 409);

    let fault = Fault { code: "chunk_mismatch".into(), text: "chunk 3 never matches".into(), offset: None };
    let told = Fact::ImageRefused { image: lease.image, lease: lease.lease, fault };
    bench.tell(told.clone()).await;
    bench.tell(told).await;
    let late = bench.verified(&lease, 1, 1);
    bench.tell(late).await;
    assert!(site.leases(bench.id).await.is_empty(), "nobody writes it");
    let (_, view) = site.get(&format!("/orders/{order}"), &site.admin).await;
    assert_eq!((&view["verified"], &view["spare"]), (&json!(1), &json!(0)), "a card on its way still counts");
    let (_, explained) = site.get(&format!("/orders/{order}/explain"), &site.admin).await;
    let now = explained["now"].to_string();
    assert!(now.contains("held") && now.contains("chunk 3 never matches"), "{now}");
    assert_eq!(explained["story"].to_string().matches("No card is to blame").count(), 1);

    site.made(&retry, &site.admin, json!({})).await;
    let again = site.leases(bench.id).await.remove(0);
    assert_ne!(again.lease, lease.lease, "a new lease is asked for anew");
    assert_eq!(again.copies.first, 2);
}

#[tokio::test]
async fn a_slot_in_which_two_cards_fail_is_held_until_an_operator_lets_it_go_on() {
    let site = Site::new().await;
    let creator = site.user("maker", "creator", &[]).await;
    let operator = site.user("operator", "operator", &["default"]).await;
    site.channel("north").await;
    let other = site.user("other", "operator", &["north"]).await;
    let order = site.order(&site.admin, json!({})).await;
    site.create_image(&creator, 1 << 20).await;
    let bench = site.appliance(1).await;
    let lease = site.leases(bench.id).await.remove(0);
    let held = async |site: &Site| {
        site.scheduler.plan_leases().await.unwrap();
        let id = bench.id.to_string();
        let told = site.scheduler.inner.store.get::<crate::core::documents::DesiredDocument>(&id).unwrap();
        told.unwrap().value.desired.slots
    };
    let fails = |copy: u32, slot: u32, card: u128, remedy: Remedy| Fact::WriteFailed {
        task: TaskId::write(order, copy),
        lease: lease.lease,
        slot: SlotId::numbered(slot),
        fault: Fault { code: "verify_mismatch".into(), text: "byte 7 differs".into(), offset: None },
        remedy,
        card: Some(cardshop_protocol::ids::ObjectId::from_parts(7, card)),
    };
    let (id, mut n) = (bench.id, 0);
    let mut tell = async |fact: Fact| {
        n += 1;
        let event = cardshop_protocol::message::Event { v: 1, n, at: site.scheduler.now(), fact };
        site.scheduler.take_event(id, &event).await.unwrap();
    };
    tell(fails(1, 1, 1, Remedy::Retry)).await;
    tell(fails(1, 2, 2, Remedy::Retry)).await;
    assert!(held(&site).await.is_empty());
    tell(fails(1, 1, 3, Remedy::Retry)).await;
    let slots = held(&site).await;
    assert_eq!((slots.len(), &slots[0].slot), (1, &SlotId::numbered(1)));
    assert!(slots[0].hold.as_ref().unwrap().contains("byte 7 differs"));

    let path = format!("/slots/{id}/s01");
    assert_eq!(site.post(&format!("{path}/resume"), &other, json!({})).await.0, 404);
    assert_eq!(site.post(&format!("{path}/resume"), &creator, json!({})).await.0, 403);
    assert_eq!(site.post(&format!("/slots/{id}/s99/hold"), &operator, json!({})).await.0, 404);
    let view = site.made(&format!("{path}/resume"), &operator, json!({})).await;
    assert_eq!((&view["id"], &view["hold"]), (&json!(format!("{id}/s01")), &json!(null)));
    assert!(held(&site).await.is_empty());
    site.made(&format!("{path}/hold"), &operator, json!({"reason": "loose cable"})).await;
    assert_eq!(held(&site).await[0].hold.as_deref(), Some("loose cable"));
    site.made(&format!("{path}/resume"), &operator, json!({})).await;

    tell(fails(1, 1, 2, Remedy::ReplaceCard)).await;
    let (_, explained) = site.get(&format!("/orders/{order}/explain"), &site.admin).await;
    let story = explained["story"].to_string();
    for part in ["Slot s01 is held: 2 cards failed in it", "the card is bad, and no slot is to blame"] {
        assert!(story.contains(part), "{part} is missing in {story}");
    }
    let (_, audit) = site.get("/audit", &site.admin).await;
    assert!(audit.to_string().contains("slot.resume"));
}
