//! MQTT inside WebSocket, on the same port as plain MQTT: the upgrade, packets that ignore the borders of messages,
//! limits, and paho-mqtt as a peer that others wrote.

// clippy.toml allows both in tests, and does not see that helpers are part of one.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod common;

use cardshop_broker::Refusal;
use cardshop_protocol::token::Role;
use common::{A, Hello, Shop, got, own, soon};
use futures_util::{SinkExt, StreamExt};
use tempfile::tempdir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error, Message};

type Ws = WebSocketStream<TcpStream>;

async fn upgrade(shop: &Shop, subprotocols: &str) -> Result<Ws, Error> {
    let stream = TcpStream::connect(shop.address()).await.unwrap();
    let mut request = format!("ws://{}/mqtt", shop.address()).into_client_request().unwrap();
    if !subprotocols.is_empty() {
        request.headers_mut().insert("Sec-WebSocket-Protocol", subprotocols.parse().unwrap());
    }
    let (stream, response) = soon("the upgrade", tokio_tungstenite::client_async(request, stream)).await?;
    assert_eq!(response.headers()["Sec-WebSocket-Protocol"], "mqtt");
    Ok(stream)
}

/// The next `size` bytes, whatever messages they come in.
async fn bytes(ws: &mut Ws, size: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while bytes.len() < size {
        match soon("a message", ws.next()).await.expect("it is open").unwrap() {
            Message::Binary(part) => bytes.extend_from_slice(&part),
            Message::Ping(_) | Message::Pong(_) => {}
            other => panic!("{other:?}"),
        }
    }
    bytes
}

async fn is_closed(ws: &mut Ws) {
    soon("its end", async { while let Some(Ok(_)) = ws.next().await {} }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn packets_arrive_however_they_are_cut_into_messages() {
    let data = tempdir().unwrap();
    let shop = Shop::open(data.path()).await;
    let mut staff = shop.client("ada", Role::Staff).await;
    staff.subscribe(&[("cardshop/1/#", 1)]).await;
    let token = shop.token(A, Role::Appliance);
    let mut ws = upgrade(&shop, "other, mqtt").await.unwrap();
    let mut all = Hello::new(A, &token).packet();
    all.extend(common::packet(0x30, &[common::text(&own(A, "event")), b"one".to_vec()].concat()));
    all.extend([0xc0, 0]);
    for part in all.chunks(7) {
        ws.send(Message::binary(part.to_vec())).await.unwrap();
    }
    assert_eq!(bytes(&mut ws, 6).await, [0x20, 2, 0, 0, 0xd0, 0]);
    assert_eq!(staff.got().await, got(&own(A, "event"), "one", 0, false));
    // Several packets in one message, and what is larger than one of ours.
    ws.send(Message::binary(common::packet(
        0x82,
        &[&[0, 1][..], &common::text(&own(A, "desired")), &[0]].concat(),
    )))
    .await
    .unwrap();
    assert_eq!(bytes(&mut ws, 5).await, [0x90, 3, 0, 1, 0]);
    let mut scheduler = shop.client("scheduler", Role::Scheduler).await;
    let large = "x".repeat(60_000);
    scheduler.put(&own(A, "desired"), &large, true).await;
    let whole = bytes(&mut ws, 60_000 + 2 + own(A, "desired").len() + 4).await;
    assert!(whole.ends_with(large.as_bytes()));
    ws.send(Message::Ping(b"x".to_vec().into())).await.unwrap();
    ws.send(Message::binary(vec![0xc0, 0, 0xc0, 0])).await.unwrap();
    assert_eq!(bytes(&mut ws, 4).await, [0xd0, 0, 0xd0, 0]);
    ws.send(Message::binary(vec![0xe0, 0])).await.unwrap();
    is_closed(&mut ws).await;
    shop.broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_mqtt_over_websocket_is_refused() {
    let data = tempdir().unwrap();
    let shop = Shop::open(data.path()).await;
    for subprotocols in ["", "other", "mqttv3.1"] {
        let Err(Error::Http(response)) = upgrade(&shop, subprotocols).await else { panic!("{subprotocols}") };
        assert_eq!(response.status(), 400);
    }
    let mut stream = TcpStream::connect(shop.address()).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut rest = Vec::new();
    soon("its end", stream.read_to_end(&mut rest)).await.ok();

    let token = shop.token(A, Role::Appliance);
    let mut ws = upgrade(&shop, "mqtt").await.unwrap();
    ws.send(Message::binary(Hello::new(A, &token).packet())).await.unwrap();
    bytes(&mut ws, 4).await;
    ws.send(Message::text("hello")).await.unwrap();
    is_closed(&mut ws).await;

    let mut ws = upgrade(&shop, "mqtt").await.unwrap();
    ws.send(Message::binary(Hello::new(A, &token).packet())).await.unwrap();
    bytes(&mut ws, 4).await;
    // Larger than any packet: refused by its length, before it is here.
    ws.send(Message::binary(vec![0; 1 << 20])).await.ok();
    is_closed(&mut ws).await;
    shop.until("the refusals", |stats| stats.refused(Refusal::NoConnect) == 4 && stats.open == 0).await;
    shop.broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_that_does_not_end_is_closed_in_time() {
    let data = tempdir().unwrap();
    let shop = Shop::open(data.path()).await;
    let mut half = TcpStream::connect(shop.address()).await.unwrap();
    half.write_all(b"GET /mqtt HTTP/1.1\r\nHost: x\r\n").await.unwrap();
    // Upgraded, and then silent.
    let mut silent = upgrade(&shop, "mqtt").await.unwrap();
    let mut rest = Vec::new();
    soon("its end", half.read_to_end(&mut rest)).await.ok();
    is_closed(&mut silent).await;
    shop.until("both refusals", |stats| stats.refused(Refusal::NoConnect) == 2).await;
    shop.broker.shutdown().await;
}

/// Debian's, whatever other Python there is: that is where its packages are.
const PYTHON: &str = "/usr/bin/python3";
/// Subscribes to its own `desired`, then publishes at every QoS; prints what arrives.
const PAHO: &str = r#"
import sys, paho.mqtt.client as mqtt
transport, version, port, me, token = sys.argv[1:6]
version = {"3": mqtt.MQTTv311, "5": mqtt.MQTTv5}[version]
client = mqtt.Client(client_id=me, protocol=version, transport=transport)
client.username_pw_set(me, token)
def on_connect(client, userdata, flags, reason, properties=None):
    print("connected", int(getattr(reason, "value", reason)), flush=True)
    client.subscribe("cardshop/1/appliance/%s/desired" % me, qos=1)
def on_subscribe(client, userdata, mid, granted, properties=None):
    print("granted", int(getattr(granted[0], "value", granted[0])), flush=True)
    for qos in (0, 1, 2):
        client.publish("cardshop/1/appliance/%s/event" % me, "qos %d" % qos, qos=qos)
def on_message(client, userdata, message):
    print("got", message.payload.decode(), message.qos, int(message.retain), flush=True)
    client.disconnect()
client.on_connect, client.on_subscribe, client.on_message = on_connect, on_subscribe, on_message
client.connect("127.0.0.1", int(port), keepalive=10)
client.loop_forever()
"#;

#[tokio::test(flavor = "multi_thread")]
async fn paho_mqtt_speaks_to_us_by_tcp_and_websocket_in_both_versions() {
    let installed = std::process::Command::new(PYTHON).args(["-c", "import paho.mqtt.client"]).output();
    if !installed.is_ok_and(|output| output.status.success()) {
        return println!("SKIPPED: python3-paho-mqtt is not installed");
    }
    let data = tempdir().unwrap();
    let shop = Shop::open(data.path()).await;
    let mut staff = shop.client("ada", Role::Staff).await;
    staff.subscribe(&[("cardshop/1/appliance/+/event", 1)]).await;
    let mut scheduler = shop.client("scheduler", Role::Scheduler).await;
    scheduler.put(&own(A, "desired"), "wanted", true).await;
    let (port, token) = (shop.address().port().to_string(), shop.token(A, Role::Appliance));
    for transport in ["tcp", "websockets"] {
        for version in ["3", "5"] {
            let mut command = tokio::process::Command::new(PYTHON);
            let arguments = ["-c", PAHO, transport, version, &port, A, &token];
            let output = soon("its end", command.args(arguments).kill_on_drop(true).output()).await.unwrap();
            let text = String::from_utf8_lossy(&output.stdout);
            let errors = String::from_utf8_lossy(&output.stderr);
            let expected = "connected 0\ngranted 1\ngot wanted 1 1\n";
            assert_eq!(text, expected, "{transport} {version}: {errors}");
            // It may have left before its QoS 1 and 2 were acknowledged, but it had sent them.
            for qos in 0..3_u8 {
                let expected = got(&own(A, "event"), &format!("qos {qos}"), qos.min(1), false);
                assert_eq!(staff.got().await, expected);
            }
        }
    }
    shop.broker.shutdown().await;
}
