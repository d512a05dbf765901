//! The way from an order to verified cards, and every way it can be disturbed, with the real binaries.
#![allow(clippy::unwrap_used)]

mod common;

use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Stdio;

use cardshop_sim::client::{Client, ClientError};
use cardshop_sim::shop;
use common::link::SlowLink;
use common::*;
use serde_json::Value;

const MIB: u64 = 1 << 20;

fn quick_bench() -> Bench {
    Bench { slots: 2, card_sizes: vec![300 * MIB], write_bps: 0 }
}

/// Slow enough that a test can act while a card is being written: some 12 s for a card.
fn slow_bench() -> Bench {
    Bench { slots: 2, card_sizes: vec![300 * MIB], write_bps: 4_000_000 }
}

/// Waits until some slot shows this state.
fn wait_for_slot(manager: &Client, state: &str) -> Value {
    eventually(&format!("a slot {state}"), || {
        let slots = manager.list("/slots").ok()?;
        slots.into_iter().find(|s| s["state"]["state"] == state)
    })
}

fn assert_all_cards_good(shop: &Shop, copies: u32) {
    let (index, image) = shop.image();
    let cards = finished_cards(&shop.cards());
    let numbers: Vec<u32> = cards.iter().map(|c| c.1).collect();
    assert_eq!(numbers, (1..=copies).collect::<Vec<_>>(), "each copy is on one card");
    let index_file = image.with_extension("cardindex");
    for (card, _) in cards {
        let verify = cardshop().arg("verify").arg(&card).arg("--index").arg(&index_file).output().unwrap();
        assert_eq!(verify.status.code(), Some(0), "{}", text_of(&verify));
        assert_equal_in_every_extent(&index, &image, &card);
    }
}

/// `cardshop card --keys`: its exit code, what it said, and what the certificate is worth.
fn certificate(card: &Path, keys: &Path) -> (Option<i32>, String, Value) {
    let output = cardshop().args(["--json", "card"]).arg(card).arg("--keys").arg(keys).output().unwrap();
    let text = text_of(&output);
    let event: Value = serde_json::from_str(text.lines().next().unwrap()).unwrap_or_default();
    (output.status.code(), text, event)
}

#[test]
fn the_demo_ends_well_and_each_written_card_equals_the_image() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("shop");
    let demo = cardshop()
        .args(["--json", "demo", "--exit-when-done", "--data"])
        .arg(&data)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert_eq!(demo.status.code(), Some(0), "{}", text_of(&demo));
    let events: Vec<Value> =
        String::from_utf8(demo.stdout).unwrap().lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(events[0]["event"], "ready");
    assert_eq!(events.last().unwrap()["verified"], 3);

    let index_file = std::fs::read_dir(data.join("warehouse"))
        .unwrap()
        .map(|e| e.unwrap().path())
        .find(|p| p.extension().is_some_and(|e| e == "cardindex"))
        .unwrap();
    let index = cardshop_protocol::index::Index::decode(&std::fs::read(&index_file).unwrap()).unwrap();
    let image = index_file.with_extension("img");
    let cards = finished_cards(&data.join("cards"));
    assert_eq!(cards.len(), 3);
    for (card, _) in &cards {
        let verify = cardshop().arg("verify").arg(card).arg("--index").arg(&index_file).output().unwrap();
        assert_eq!(verify.status.code(), Some(0), "{}", text_of(&verify));
        assert_equal_in_every_extent(&index, &image, card);
    }

    // A flipped byte is found, and named by its place.
    let data_extent =
        index.extents().iter().rfind(|e| e.kind == cardshop_protocol::index::ExtentKind::Data).unwrap();
    let offset = data_extent.offset + data_extent.length / 2;
    flip_a_bit(&cards[1].0, offset);
    let verify = cardshop()
        .args(["--json", "verify"])
        .arg(&cards[1].0)
        .arg("--index")
        .arg(&index_file)
        .output()
        .unwrap();
    assert_eq!(verify.status.code(), Some(4), "{}", text_of(&verify));
    let named = named_offset(&text_of(&verify));
    assert!(
        named <= offset && offset - named < u64::from(index.chunk_size()),
        "{named} is not near {offset}"
    );
}

#[test]
fn an_order_becomes_verified_cards_and_is_shipped() {
    let shop = Shop::open();
    let manager = shop.manager();
    let configuration = shop.stock(&manager);
    let _agent = shop.new_agent(&manager, &quick_bench());
    let order = shop::order(&manager, &configuration, 3).unwrap();
    let written = shop.wait_for(&manager, order, "written");
    assert_eq!(written["verified"], 3);
    assert_eq!(shop.records(&manager, order).len(), 3);
    assert_all_cards_good(&shop, 3);

    let too_many = manager.post::<Value>(&format!("/orders/{order}/ship"), &serde_json::json!({"count": 4}));
    assert!(
        matches!(too_many, Err(ClientError::Refused { status: 409 | 422, .. })),
        "only what is verified is shipped"
    );
    let ship = serde_json::json!({"count": 3, "tracking": "LX123456789FR"});
    let _: Value = manager.post(&format!("/orders/{order}/ship"), &ship).unwrap();
    shop.wait_for(&manager, order, "shipped");
}

#[test]
fn a_cards_certificate_says_whose_it_is_and_a_changed_passport_is_not_genuine() {
    if !root() {
        return;
    }
    let shop = Shop::open();
    let manager = shop.manager();
    let configuration = shop.stock(&manager);
    let _agent = shop.new_agent(&manager, &quick_bench());
    let order = shop::order(&manager, &configuration, 1).unwrap();
    shop.wait_for(&manager, order, "written");
    let keys = shop.folder.path().join("keys.json");
    let list: Value = manager.get("/keys").unwrap();
    std::fs::write(&keys, list.to_string()).unwrap();
    let (file, _) = finished_cards(&shop.cards()).remove(0);
    let card = Loop::over(&file);

    let (code, text, event) = certificate(&card.0, &keys);
    assert_eq!((code, &event["certificate"]), (Some(0), &"genuine".into()), "{text}");
    let appliance = &event["passport"]["appliance"];
    let signer = |key: &Value| key["kid"] == *appliance && key["use"] == "appliance";
    assert!(list["items"].as_array().unwrap().iter().any(signer), "{list} {text}");
    let people = text_of(&cardshop().arg("card").arg(&card.0).arg("--keys").arg(&keys).output().unwrap());
    let named = format!("(appliance {})", appliance.as_str().unwrap());
    assert!(people.contains(&named) && people.contains("certificate: genuine"), "{people}");

    // Nobody's: the keys of a shop that does not know the appliance.
    let none = shop.folder.path().join("none.json");
    std::fs::write(&none, r#"{"items": [], "next_cursor": null}"#).unwrap();
    assert_eq!(certificate(&card.0, &none).0, Some(4));

    // Copy 1 of 1 says that it is one of nine.
    let (index, _) = shop.image();
    let place = index.passport().iter().find(|f| f.name == cardshop_card::CARD_FILE).unwrap().offset;
    let device = std::fs::File::options().read(true).write(true).open(&card.0).unwrap();
    let mut passport = vec![0; 4096];
    device.read_exact_at(&mut passport, place).unwrap();
    let end = passport.iter().rposition(|byte| *byte == b'}').expect("the passport lies there");
    let mut changed: Value = serde_json::from_slice(&passport[..=end]).unwrap();
    changed["total"] = 9.into();
    let mut changed = changed.to_string().into_bytes();
    changed.resize(4096, b' ');
    device.write_all_at(&changed, place).unwrap();
    device.sync_all().unwrap();
    let (code, text, event) = certificate(&card.0, &keys);
    assert_eq!((code, &event["certificate"]), (Some(4), &"not_genuine".into()), "{text}");
    assert_eq!(event["passport"]["total"], 9, "{text}");
}

#[test]
fn the_services_make_the_same_cards_each_in_a_process_of_its_own() {
    let shop = Shop::open_apart(str::to_owned);
    let manager = shop.manager();
    let configuration = shop.stock(&manager);
    let _agent = shop.new_agent(&manager, &quick_bench());
    let order = shop::order(&manager, &configuration, 2).unwrap();
    assert_eq!(shop.wait_for(&manager, order, "written")["verified"], 2);
    assert_all_cards_good(&shop, 2);
}

#[test]
fn the_first_card_is_being_written_while_the_image_is_still_on_its_way() {
    let mut road = None;
    let shop = Shop::open_apart(|warehouse| road.insert(SlowLink::to(warehouse, 2_000_000)).url.clone());
    let road = road.unwrap();
    let manager = shop.manager();
    let configuration = shop.stock(&manager);
    let order = shop::order(&manager, &configuration, 1).unwrap();
    shop.wait_for(&manager, order, "ready");
    let before = road.passed();
    let _agent = shop.new_agent(&manager, &quick_bench());
    let mut fetched_by_then = None;
    manager
        .live(&mut |name, data| {
            let written =
                data["progress"]["phase"] == "writing" && data["progress"]["done"].as_u64() > Some(0);
            if name == "progress" && written {
                fetched_by_then.get_or_insert(road.passed() - before);
            }
            !(name == "order" && shop::text(data, "status") == "written")
        })
        .unwrap();
    let (index, _) = shop.image();
    let fetched = fetched_by_then.expect("writing made progress before it ended");
    assert!(fetched < index.data_bytes(), "{fetched} of {} bytes were here", index.data_bytes());
    assert_all_cards_good(&shop, 1);
}

#[test]
fn a_wrong_password_and_an_unknown_name_get_the_same_refusal() {
    let shop = Shop::open();
    let refusal = |name: &str, password: &str| match Client::login(&shop.http, name, password) {
        Err(ClientError::Refused { status, problem, .. }) => (status, problem),
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("{name} was let in"),
    };
    let wrong = refusal(&shop.username, "wrong");
    assert_eq!(wrong.0, 401);
    assert_eq!(wrong, refusal("nobody", "wrong"));
}

#[test]
fn an_agent_killed_while_writing_calls_nothing_good_and_writes_the_copy_again() {
    let shop = Shop::open();
    let manager = shop.manager();
    let configuration = shop.stock(&manager);
    let agent = shop.new_agent(&manager, &slow_bench());
    let order = shop::order(&manager, &configuration, 2).unwrap();
    wait_for_slot(&manager, "writing");
    agent.kill();

    let (index, _) = shop.image();
    for card in std::fs::read_dir(shop.cards()).unwrap().map(|e| e.unwrap().path()) {
        assert!(
            cardshop_card::read_passport(&card).ok().flatten().is_none(),
            "no half-written card has a passport"
        );
        let mut start = vec![1; 512];
        std::fs::File::open(&card).unwrap().read_exact_at(&mut start, 0).unwrap();
        assert!(start.iter().all(|b| *b == 0), "and none would boot: {}", card.display());
    }
    assert!(shop.records(&manager, order).is_empty());

    let _agent = shop.start_agent();
    let written = shop.wait_for(&manager, order, "written");
    assert_eq!(written["verified"], 2);
    assert_eq!(shop.records(&manager, order).len(), 2);
    assert_all_cards_good(&shop, 2);
    assert!(index.data_bytes() > 0);
}

#[test]
fn the_centre_killed_in_mid_order_loses_nothing() {
    let mut shop = Shop::open();
    let manager = shop.manager();
    let configuration = shop.stock(&manager);
    let _agent = shop.new_agent(&manager, &slow_bench());
    let order = shop::order(&manager, &configuration, 3).unwrap();
    // A finished card proves that the whole image is here; the next one is begun while all are there to see it.
    eventually("the first card", || (!finished_cards(&shop.cards()).is_empty()).then_some(()));
    wait_for_slot(&manager, "writing");
    shop.kill();
    // Cards go on being written while nobody is there to hear of it.
    eventually("the last card, without the centre", || {
        (finished_cards(&shop.cards()).len() == 3).then_some(())
    });
    shop.restart();
    let written = shop.wait_for(&manager, order, "written");
    assert_eq!(written["verified"], 3);
    assert_eq!(shop.records(&manager, order).len(), 3, "each card is counted once");
    assert_all_cards_good(&shop, 3);
}

#[test]
fn the_centre_killed_while_the_image_is_made_makes_it_after_the_restart() {
    let mut shop = Shop::open();
    let manager = shop.manager();
    let configuration = shop.stock(&manager);
    let order = shop::order(&manager, &configuration, 1).unwrap();
    shop.wait_for(&manager, order, "creating");
    shop.kill();
    shop.restart();
    let _agent = shop.new_agent(&manager, &quick_bench());
    shop.wait_for(&manager, order, "written");
    assert_all_cards_good(&shop, 1);
}

#[test]
fn a_card_too_small_is_refused_with_both_sizes_and_the_order_goes_on() {
    let shop = Shop::open();
    let manager = shop.manager();
    let configuration = shop.stock(&manager);
    // Every second card is too small; the hands of the bench take it out and put the next in.
    let small = 32 * MIB;
    let bench = Bench { slots: 1, card_sizes: vec![small, 300 * MIB], write_bps: 0 };
    let order = {
        let seen = std::cell::RefCell::new(None);
        let _agent = shop.new_agent(&manager, &bench);
        let order = shop::order(&manager, &configuration, 2).unwrap();
        manager
            .live(&mut |name, data| {
                if name == "slot" && data["state"]["state"] == "unsuitable" {
                    *seen.borrow_mut() = Some(data.clone());
                }
                let status = shop::text(data, "status");
                assert!(!(name == "order" && ["failed", "canceled"].contains(&&*status)), "{data}");
                !(name == "order" && status == "written")
            })
            .unwrap();
        let refused = seen.into_inner().expect("a small card was refused");
        let (index, _) = shop.image();
        assert_eq!(refused["state"]["sentence"]["code"], "too_small");
        assert_eq!(refused["state"]["sentence"]["actual_bytes"], small);
        assert_eq!(refused["state"]["sentence"]["min_bytes"], index.image_size());
        order
    };
    assert_eq!(shop.wait_for(&manager, order, "written")["verified"], 2);
    assert_all_cards_good(&shop, 2);
}

#[test]
fn an_image_corrupted_in_the_warehouse_is_fetched_again_and_then_refused() {
    let shop = Shop::open();
    let manager = shop.manager();
    let configuration = shop.stock(&manager);
    let order = shop::order(&manager, &configuration, 1).unwrap();
    shop.wait_for(&manager, order, "ready");
    let (index, image) = shop.image();
    let chunk = index.travelling().last().unwrap();
    let extent = index.extents_in(index.chunk_range(chunk)).next().unwrap();
    flip_a_bit(&image, extent.offset);

    let _agent = shop.new_agent(&manager, &quick_bench());
    let story = eventually("the refusal is told", || {
        let story: Value = manager.get(&format!("/orders/{order}/explain")).ok()?;
        let text = story.to_string();
        text.contains("The image is held").then_some(text)
    });
    assert!(story.contains(&index.chunk_range(chunk).start.to_string()), "the offset is named: {story}");
    assert!(shop.records(&manager, order).is_empty(), "no card is called good");
    assert!(finished_cards(&shop.cards()).is_empty());
}
