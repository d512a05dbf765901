//! Clients that others wrote, against our front: rumqttc (the agent's), and Debian's mosquitto-clients when they
//! are installed.

// clippy.toml allows both in tests, and does not see that helpers are part of one.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod common;

use std::process::Stdio;
use std::time::Duration;

use cardshop_protocol::token::Role;
use common::{A, B, Shop, own, soon};
use rumqttc::v5::mqttbytes as mqtt5;
use rumqttc::{AsyncClient, Event, MqttOptions, Packet, QoS};
use tempfile::tempdir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

fn options(shop: &Shop, name: &str, role: Role) -> MqttOptions {
    let mut options = MqttOptions::new(name, "127.0.0.1", shop.address().port());
    options.set_credentials(name, shop.token(name, role));
    options.set_keep_alive(Duration::from_secs(5));
    options.set_max_packet_size(80 * 1024, 80 * 1024);
    options
}

#[tokio::test(flavor = "multi_thread")]
async fn rumqttc_publishes_and_subscribes_as_the_agent_and_the_scheduler_do() {
    const COUNT: usize = 2_000;
    let data = tempdir().unwrap();
    let shop = Shop::open(data.path()).await;
    let (scheduler, mut scheduler_loop) = AsyncClient::new(options(&shop, "scheduler", Role::Scheduler), 100);
    scheduler.subscribe("cardshop/1/appliance/+/event", QoS::AtLeastOnce).await.unwrap();
    let (ready_tx, ready) = tokio::sync::oneshot::channel();
    let received = tokio::spawn(async move {
        let (mut ready_tx, mut payloads) = (Some(ready_tx), Vec::new());
        while payloads.len() < COUNT {
            match scheduler_loop.poll().await.unwrap() {
                Event::Incoming(Packet::SubAck(_)) => ready_tx.take().unwrap().send(()).unwrap(),
                Event::Incoming(Packet::Publish(publish)) => payloads.push(publish.payload),
                _ => {}
            }
        }
        payloads
    });
    soon("the subscription", ready).await.unwrap();
    let (agent, mut agent_loop) = AsyncClient::new(options(&shop, A, Role::Appliance), 100);
    let driver = tokio::spawn(async move { while agent_loop.poll().await.is_ok() {} });
    for n in 0..COUNT {
        agent.publish(own(A, "event"), QoS::AtLeastOnce, false, n.to_string()).await.unwrap();
    }
    let payloads = soon("all events", received).await.unwrap();
    let expected: Vec<String> = (0..COUNT).map(|n| n.to_string()).collect();
    assert_eq!(payloads, expected, "each once, in order");
    agent.disconnect().await.unwrap();
    soon("the agent's end", driver).await.unwrap();
    shop.broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rumqttc_with_mqtt_5_gets_properties_and_subscription_ids_back() {
    let data = tempdir().unwrap();
    let shop = Shop::open(data.path()).await;
    let mut options = rumqttc::v5::MqttOptions::new("ada", "127.0.0.1", shop.address().port());
    options.set_credentials("ada", shop.token("ada", Role::Staff));
    let (staff, mut staff_loop) = rumqttc::v5::AsyncClient::new(options, 10);
    let properties = mqtt5::v5::SubscribeProperties { id: Some(42), user_properties: Vec::new() };
    staff
        .subscribe_with_properties("cardshop/1/appliance/#", mqtt5::QoS::AtLeastOnce, properties)
        .await
        .unwrap();
    let mut options = rumqttc::v5::MqttOptions::new(A, "127.0.0.1", shop.address().port());
    options.set_credentials(A, shop.token(A, Role::Appliance));
    let (agent, mut agent_loop) = rumqttc::v5::AsyncClient::new(options, 10);
    let driver = tokio::spawn(async move { while agent_loop.poll().await.is_ok() {} });
    let publish = soon("the reply", async {
        loop {
            match staff_loop.poll().await.unwrap() {
                rumqttc::v5::Event::Incoming(mqtt5::v5::Packet::SubAck(_)) => {
                    let properties = mqtt5::v5::PublishProperties {
                        content_type: Some("application/json".into()),
                        correlation_data: Some(vec![0, 255].into()),
                        user_properties: vec![("k".into(), "v".into())],
                        message_expiry_interval: Some(60),
                        ..Default::default()
                    };
                    agent
                        .publish_with_properties(
                            own(A, "cmd/reply"),
                            mqtt5::QoS::AtLeastOnce,
                            false,
                            "{}",
                            properties,
                        )
                        .await
                        .unwrap();
                }
                rumqttc::v5::Event::Incoming(mqtt5::v5::Packet::Publish(publish)) => return publish,
                _ => {}
            }
        }
    })
    .await;
    let properties = publish.properties.unwrap();
    assert_eq!(properties.content_type.as_deref(), Some("application/json"));
    assert_eq!(properties.correlation_data.as_deref(), Some(&[0, 255][..]));
    assert_eq!(properties.user_properties, [("k".to_owned(), "v".to_owned())]);
    assert_eq!(properties.subscription_identifiers, [42]);
    assert!(properties.message_expiry_interval.is_some_and(|s| (55..=60).contains(&s)));
    driver.abort();
    shop.broker.shutdown().await;
}

/// One of mosquitto's clients, or nothing where they are not installed.
fn mosquitto(shop: &Shop, program: &str, name: &str, password: &str, arguments: &[&str]) -> Option<Child> {
    if !common::is_installed(program) {
        println!("SKIPPED: mosquitto-clients is not installed");
        return None;
    }
    let port = shop.address().port().to_string();
    let login = ["-h", "127.0.0.1", "-p", &port, "-i", name, "-u", name, "-P", password];
    let mut command = Command::new(program);
    command.args(login).args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    Some(command.spawn().unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn mosquitto_sub_sees_the_retained_slot_states_and_then_the_live_ones() {
    let data = tempdir().unwrap();
    let shop = Shop::open(data.path()).await;
    let mut appliances = [shop.client(A, Role::Appliance).await, shop.client(B, Role::Appliance).await];
    for (appliance, id) in appliances.iter_mut().zip([A, B]) {
        for slot in ["s01", "s02"] {
            appliance.put(&own(id, &format!("slot/{slot}/state")), slot, true).await;
        }
    }
    for version in ["311", "5"] {
        let token = shop.token("ada", Role::Staff);
        let filter = "cardshop/1/appliance/+/slot/+/state";
        let arguments = ["-V", version, "-q", "1", "-t", filter, "-F", "%r %t %p"];
        let Some(mut child) = mosquitto(&shop, "mosquitto_sub", "ada", &token, &arguments) else { return };
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut seen = Vec::new();
        for _ in 0..4 {
            seen.push(soon("a line", lines.next_line()).await.unwrap().unwrap());
        }
        let expected: Vec<String> = [A, B]
            .iter()
            .flat_map(|id| {
                ["s01", "s02"].map(|slot| format!("1 {} {slot}", own(id, &format!("slot/{slot}/state"))))
            })
            .collect();
        assert_eq!(seen, expected);
        appliances[0].put(&own(A, "slot/s01/state"), "s01", true).await;
        let live = soon("a live line", lines.next_line()).await.unwrap().unwrap();
        assert_eq!(live, format!("0 {} s01", own(A, "slot/s01/state")));
        child.kill().await.unwrap();
    }
    shop.broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mosquitto_clients_are_told_why_they_are_refused() {
    let data = tempdir().unwrap();
    let shop = Shop::open(data.path()).await;
    let arguments = ["-t", "cardshop/1/#", "-W", "5"];
    let Some(child) = mosquitto(&shop, "mosquitto_sub", "ada", "wrong", &arguments) else { return };
    let output = soon("its end", child.wait_with_output()).await.unwrap();
    let text = String::from_utf8_lossy(&output.stderr).to_lowercase();
    assert!(!output.status.success() && text.contains("bad user name or password"), "{text}");

    let token = shop.token(A, Role::Appliance);
    let arguments = ["-t", "cardshop/1/#", "-W", "5"];
    let child = mosquitto(&shop, "mosquitto_sub", A, &token, &arguments).unwrap();
    let output = soon("its end", child.wait_with_output()).await.unwrap();
    let text = String::from_utf8_lossy(&output.stderr).to_lowercase();
    assert!(text.contains("denied"), "{text}");

    let forged = own(B, "status");
    let arguments = ["-V", "5", "-q", "1", "-t", &forged, "-m", "forged"];
    let child = mosquitto(&shop, "mosquitto_pub", A, &token, &arguments).unwrap();
    let output = soon("its end", child.wait_with_output()).await.unwrap();
    let text = String::from_utf8_lossy(&output.stderr).to_lowercase();
    assert!(text.contains("not authorized"), "{text}");
    shop.broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn mosquitto_pub_delivers_at_every_qos() {
    let data = tempdir().unwrap();
    let shop = Shop::open(data.path()).await;
    let mut staff = shop.client("ada", Role::Staff).await;
    staff.subscribe(&[("cardshop/1/#", 1)]).await;
    let (token, topic) = (shop.token(A, Role::Appliance), own(A, "event"));
    for version in ["311", "5"] {
        for qos in ["0", "1", "2"] {
            let arguments = ["-V", version, "-q", qos, "-t", &topic, "-m", qos];
            let Some(child) = mosquitto(&shop, "mosquitto_pub", A, &token, &arguments) else { return };
            let output = soon("its end", child.wait_with_output()).await.unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            assert_eq!(staff.got().await.payload, qos);
        }
    }
    shop.broker.shutdown().await;
}
