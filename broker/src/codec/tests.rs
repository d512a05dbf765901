//! Packets as bytes, from the standard; and bytes that are none, which must never panic.

use bytes::BytesMut;
use proptest::prelude::*;

use super::decode::{Wanted, frame};
use super::*;
use crate::message::{Draft, Message, Parts};

fn framed(bytes: &[u8]) -> decode::Frame {
    frame(&mut BytesMut::from(bytes), 1 << 20).unwrap().expect("a whole packet")
}

fn packet(head: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![head, u8::try_from(body.len()).unwrap()];
    bytes.extend_from_slice(body);
    bytes
}

#[test]
fn a_frame_is_taken_only_when_it_is_whole() {
    let mut buffer = BytesMut::new();
    let whole = [&[0x30, 0x85, 0x01][..], &[7; 133]].concat();
    for byte in &whole {
        assert!(frame(&mut buffer, 1000).unwrap().is_none());
        buffer.extend_from_slice(&[*byte]);
    }
    buffer.extend_from_slice(&[0xc0, 0]);
    assert_eq!(frame(&mut buffer, 1000).unwrap().unwrap().body.len(), 133);
    assert_eq!(frame(&mut buffer, 1000).unwrap().unwrap().head, 0xc0);
    assert!(buffer.is_empty());
}

#[test]
fn a_frame_too_large_or_without_a_length_is_refused_before_it_arrives() {
    assert_eq!(
        frame(&mut BytesMut::from(&[0x30, 0xe9, 0x07][..]), 1003).unwrap_err(),
        WireError::TooLarge(1004)
    );
    assert!(frame(&mut BytesMut::from(&[0x30, 0xe8, 0x07][..]), 1003).unwrap().is_none());
    let endless = BytesMut::from(&[0x30, 0xff, 0xff, 0xff, 0xff][..]);
    assert!(matches!(frame(&mut endless.clone(), 1000), Err(WireError::Malformed(_))));
}

#[test]
fn a_publish_of_3_1_1_is_read() {
    let bytes = packet(0x3b, b"\0\x03a/b\0\x0ahello");
    let frame = framed(&bytes);
    let Ok(Incoming::Publish(publish)) = decode(Version::V4, &frame) else { panic!() };
    assert_eq!((publish.qos, publish.retain, publish.id), (1, true, 10));
    assert_eq!((publish.topic, publish.payload), ("a/b", &b"hello"[..]));
}

#[test]
fn a_publish_of_5_keeps_what_travels_and_takes_the_expiry_out() {
    let properties = b"\x01\x01\x02\0\0\0\x3c\x03\0\x02ct\x08\0\x01r\x09\0\x02\xff\x00\x26\0\x01k\0\x01v";
    let mut body = b"\0\x01t".to_vec();
    body.push(u8::try_from(properties.len()).unwrap());
    body.extend_from_slice(properties);
    body.extend_from_slice(b"payload");
    let bytes = packet(0x30, &body);
    let frame = framed(&bytes);
    let Ok(Incoming::Publish(publish)) = decode(Version::V5, &frame) else { panic!() };
    assert_eq!(publish.expiry_s, Some(60));
    assert_eq!(publish.properties, b"\x01\x01\x03\0\x02ct\x08\0\x01r\x09\0\x02\xff\x00\x26\0\x01k\0\x01v");
    assert_eq!(publish.payload, b"payload");
}

#[test]
fn what_no_client_may_send_is_an_error_and_not_a_panic() {
    for (version, bytes) in [
        (Version::V4, &b"\x36\x05\0\x01t\0\x01"[..]),        // QoS 3
        (Version::V4, b"\x32\x05\0\x01t\0\0"),               // packet id 0
        (Version::V4, b"\x30\x01\0"),                        // no topic
        (Version::V4, b"\x30\x03\0\x01\xff"),                // not UTF-8
        (Version::V4, b"\x80\x06\0\x01\0\x01a\0"),           // flags of SUBSCRIBE
        (Version::V4, b"\x82\x06\0\x01\0\x01a\x03"),         // QoS 3
        (Version::V4, b"\x82\x02\0\x01"),                    // no filter
        (Version::V4, b"\xa2\x02\0\x01"),                    // no filter
        (Version::V5, b"\x82\x09\0\x01\x02\x0b\0\0\x01a\0"), // subscription id 0
        (Version::V5, b"\x82\x07\0\x01\0\0\x01a\x30"),       // retain handling 3
        (Version::V5, b"\x30\x07\0\x01t\x03\x23\0\x01"),     // a topic alias
        (Version::V5, b"\x30\x06\0\x01t\x02\x0b\x01"),       // a subscription id
        (Version::V5, b"\x30\x0c\0\x01t\x08\x03\0\x01a\x03\0\x01a"), // a content type twice
        (Version::V5, b"\x30\x06\0\x01t\x02\x01\x02"),       // payload format 2
        (Version::V5, b"\x30\x08\0\x01t\x04\x08\0\x01#"),    // a response topic with a wildcard
        (Version::V4, b"\x30\x05\0\x03a\0b"),                // U+0000
        (Version::V5, b"\x20\x03\0\0\0"),                    // CONNACK
        (Version::V5, b"\xb0\x04\0\x01\0\0"),                // UNSUBACK
        (Version::V5, b"\xf0\x02\x18\0"),                    // AUTH
        (Version::V4, b"\x10\x00"),                          // a second CONNECT
        (Version::V4, b"\x00\x00"),
        (Version::V4, b"\x50\x02\0\x01"), // PUBREC
    ] {
        assert!(decode(version, &framed(bytes)).is_err(), "{bytes:02x?}");
    }
}

#[test]
fn a_subscription_is_read_with_its_options() {
    let bytes = packet(0x82, b"\0\x07\x03\x0b\x80\x01\0\x03a/b\x1d\0\x01c\x00");
    let frame = framed(&bytes);
    let Ok(Incoming::Subscribe(subscribe)) = decode(Version::V5, &frame) else { panic!() };
    assert_eq!((subscribe.id, subscribe.subscription_id), (7, Some(128)));
    let options = Wanted { qos: 1, no_local: true, retain_as_published: true, retain_handling: 1 };
    let plain = Wanted { qos: 0, no_local: false, retain_as_published: false, retain_handling: 0 };
    assert_eq!(subscribe.filters, [("a/b", options), ("c", plain)]);
}

#[test]
fn goodbyes_are_read_in_every_length_the_standard_allows() {
    for (version, bytes, with_will) in [
        (Version::V4, &b"\xe0\x00"[..], false),
        (Version::V5, b"\xe0\x00", false),
        (Version::V5, b"\xe0\x01\x00", false),
        (Version::V5, b"\xe0\x01\x04", true),
        (Version::V5, b"\xe0\x02\x04\x00", true),
    ] {
        let frame = framed(bytes);
        assert_eq!(decode(version, &frame), Ok(Incoming::Disconnect { with_will }), "{bytes:02x?}");
    }
    assert_eq!(decode(Version::V5, &framed(b"\x40\x03\0\x05\x10")), Ok(Incoming::PubAck(5)));
}

fn message(payload: &[u8]) -> Message {
    let parts = Parts {
        sender: 0,
        qos: 1,
        retain: true,
        topic: "a/b",
        properties: b"\x01\x01",
        payload,
        expires_ms: 0,
    };
    Draft::new(&parts).stamp(1)
}

#[test]
fn a_delivery_is_written_for_both_versions() {
    let how = Delivery { qos: 1, id: 5, retain: true, subscription_ids: &[200], expiry_s: Some(9) };
    let mut out = BytesMut::new();
    assert_eq!(publish(Version::V4, &message(b"hi"), &how, 100, &mut out), 11);
    assert_eq!(&out[..], b"\x33\x09\0\x03a/b\0\x05hi");
    out.clear();
    assert_eq!(publish(Version::V5, &message(b"hi"), &how, 100, &mut out), 22);
    assert_eq!(&out[..], b"\x33\x14\0\x03a/b\0\x05\x0a\x02\0\0\0\x09\x0b\xc8\x01\x01\x01hi");
    out.clear();
    assert_eq!(publish(Version::V5, &message(b"hi"), &how, 21, &mut out), 0);
    assert!(out.is_empty(), "nothing of a packet that is too large for the client");
}

#[test]
fn what_is_written_is_framed_right_for_every_payload_size() {
    let how = Delivery { qos: 1, id: 5, retain: false, subscription_ids: &[], expiry_s: None };
    for size in [0, 100, 116, 117, 118, 127, 128, 16_370, 16_384, 70_000] {
        for version in [Version::V4, Version::V5] {
            let mut out = BytesMut::new();
            let message = message(&vec![7; size]);
            let written = publish(version, &message, &how, usize::MAX, &mut out);
            assert_eq!(written, out.len());
            let frame = frame(&mut out, 1 << 20).unwrap().unwrap();
            assert!(out.is_empty(), "{size} bytes leave nothing behind");
            let Ok(Incoming::Publish(read)) = decode(version, &frame) else { panic!("{size} bytes") };
            assert_eq!((read.topic, read.payload, read.id), ("a/b", message.payload(), 5));
        }
    }
}

#[test]
fn answers_are_written_as_the_standard_shows_them() {
    let mut out = BytesMut::new();
    connack(Version::V4, &ConnAck { code: 4, reason: Some("no"), ..ConnAck::default() }, &mut out);
    connack(Version::V5, &ConnAck { code: 0x86, reason: Some("no"), ..ConnAck::default() }, &mut out);
    puback(Version::V4, 1, reason::NOT_AUTHORIZED, &mut out);
    puback(Version::V5, 1, reason::NOT_AUTHORIZED, &mut out);
    suback(Version::V5, 2, &[1, 0x87], &mut out);
    unsuback(Version::V4, 3, &[0], &mut out);
    unsuback(Version::V5, 3, &[0x11], &mut out);
    disconnect(Version::V4, reason::SESSION_TAKEN_OVER, &mut out);
    disconnect(Version::V5, reason::SESSION_TAKEN_OVER, &mut out);
    let expected = [
        &b"\x20\x02\0\x04"[..],
        b"\x20\x08\0\x86\x05\x1f\0\x02no",
        b"\x40\x02\0\x01",
        b"\x40\x03\0\x01\x87",
        b"\x90\x05\0\x02\0\x01\x87",
        b"\xb0\x02\0\x03",
        b"\xb0\x04\0\x03\0\x11",
        b"\xe0\x01\x8e",
    ];
    assert_eq!(&out[..], expected.concat());
}

#[test]
fn connect_is_read_with_will_and_login_and_does_not_show_its_password() {
    let body =
        b"\0\x04MQTT\x05\xee\0\x0a\x03\x21\0\x14\0\x01c\x05\x18\0\0\0\x09\0\x01w\0\x03off\0\x01u\0\x06hunter";
    let connect = connect(&framed(&packet(0x10, body))).unwrap();
    assert_eq!((connect.version, connect.keep_alive_s, connect.client_id.as_str()), (Version::V5, 10, "c"));
    assert_eq!((connect.user_name.as_deref(), connect.receive_maximum), (Some("u"), Some(20)));
    assert!(!format!("{connect:?}").contains("hunter"));
    assert_eq!(connect.password.unwrap().0, "hunter");
    let will = connect.will.unwrap();
    assert_eq!((will.topic.as_str(), &will.payload[..], will.qos, will.retain), ("w", &b"off"[..], 1, true));
}

#[test]
fn another_mqtt_is_told_apart_from_no_mqtt() {
    let level = |name: &[u8], level: u8| {
        let body = [&[0, u8::try_from(name.len()).unwrap()][..], name, &[level, 2, 0, 0, 0, 0]].concat();
        connect(&framed(&packet(0x10, &body))).unwrap_err()
    };
    assert_eq!(level(b"MQIsdp", 3), ConnectError::Level(3));
    assert_eq!(level(b"MQTT", 6), ConnectError::Level(6));
    assert!(matches!(level(b"HTTP", 4), ConnectError::Wire(_)));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 20_000, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_make_the_reader_panic(head: u8, body in prop::collection::vec(any::<u8>(), 0..120)) {
        let bytes = packet(head, &body);
        let frame = framed(&bytes);
        for version in [Version::V4, Version::V5] {
            drop(decode(version, &frame));
        }
        drop(connect(&frame));
    }

    #[test]
    fn no_damaged_connect_makes_the_reader_panic(at in 0_usize..66, value: u8, cut in 0_usize..67) {
        let body = b"\0\x04MQTT\x05\xee\0\x0a\x03\x21\0\x14\0\x01c\x05\x18\0\0\0\x09\0\x01w\0\x03off\0\x01u\0\x06hunter";
        let mut body = body.to_vec();
        let size = body.len();
        body[at % size] = value;
        body.truncate(cut);
        drop(connect(&framed(&packet(0x10, &body))));
    }
}
