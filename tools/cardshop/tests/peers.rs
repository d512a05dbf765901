//! Stock tools talk to our services: mosquitto_sub to the broker, curl to the warehouse.
#![allow(clippy::unwrap_used)]

mod common;

use std::process::{Command, Stdio};

use cardshop_sim::shop;
use common::*;

const BENCH: Bench = Bench { slots: 2, card_sizes: Vec::new(), write_bps: 0 };

/// `-o` files keep tokens off the command line.
fn mosquitto_sub(shop: &Shop, password: &str) -> std::process::Output {
    let address = shop.mqtt.strip_prefix("mqtt://").unwrap();
    let (host, port) = address.split_once(':').unwrap();
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("mosquitto_sub"), format!("-P {password}\n")).unwrap();
    Command::new("mosquitto_sub")
        .env("XDG_CONFIG_HOME", folder.path())
        .args([
            "-h",
            host,
            "-p",
            port,
            "-i",
            &shop.username,
            "-u",
            &shop.username,
            "-W",
            "20",
            "-C",
            "2",
            "-v",
        ])
        .args(["--retained-only", "-t", "cardshop/1/appliance/+/slot/+/state"])
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

#[test]
fn mosquitto_sub_sees_the_retained_slot_states_with_a_token_and_nothing_without() {
    if !have("mosquitto_sub", "mosquitto-clients") {
        return;
    }
    let shop = Shop::open();
    let manager = shop.manager();
    shop.stock(&manager);
    let bench = Bench { card_sizes: vec![300 << 20], ..BENCH };
    let _agent = shop.new_agent(&manager, &bench);
    eventually("two slots are known", || (manager.list("/slots").ok()?.len() == 2).then_some(()));

    let seen = mosquitto_sub(&shop, &manager.access_token());
    let text = text_of(&seen);
    assert!(seen.status.success(), "{text}");
    assert!(
        text.contains("/slot/s01/state") && text.contains("/slot/s02/state") && text.contains("\"led\""),
        "{text}"
    );

    let refused = mosquitto_sub(&shop, "not-a-token");
    assert!(!refused.status.success());
    assert!(!text_of(&refused).contains("/state {"), "nothing is seen without a token");
}

#[test]
fn curl_gets_ranges_of_an_image_with_a_token_and_nothing_without() {
    if !have("curl", "curl") {
        return;
    }
    let shop = Shop::open();
    let manager = shop.manager();
    let configuration = shop.stock(&manager);
    let order = shop::order(&manager, &configuration, 1).unwrap();
    shop.wait_for(&manager, order, "ready");
    let (index, image) = shop.image();
    let bytes = std::fs::read(image).unwrap();

    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("curlrc");
    let header = format!("header = \"Authorization: Bearer {}\"\n", manager.access_token());
    std::fs::write(&config, header).unwrap();
    let curl = |range: &str, config: &std::path::Path| {
        let url = format!("{}/images/{}", shop.warehouse, index.id());
        let output = Command::new("curl")
            .args(["-s", "-w", "%{stderr}%{http_code}", "-K"])
            .arg(config)
            .args(["-r", range, &url])
            .output();
        let output = output.unwrap();
        (String::from_utf8(output.stderr).unwrap(), output.stdout)
    };
    let size = bytes.len();
    assert_eq!(curl("0-511", &config), ("206".into(), bytes[..512].to_vec()));
    assert_eq!(curl("-1000", &config), ("206".into(), bytes[size - 1000..].to_vec()));
    assert_eq!(curl(&format!("{}-", size - 5), &config), ("206".into(), bytes[size - 5..].to_vec()));
    assert_eq!(curl(&format!("{size}-"), &config).0, "416");

    let nobody = folder.path().join("nobody");
    std::fs::write(&nobody, "").unwrap();
    let (status, body) = curl("0-511", &nobody);
    assert_eq!(status, "401");
    assert!(!body.starts_with(&bytes[..64]));
}
