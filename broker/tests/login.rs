//! Who is let in, who is not and how they are told, and when a session ends because its token does.

mod common;

use cardshop_broker::{Config, Error, Limits, Refusal, start};
use cardshop_protocol::keys::{KeyList, RevokedSubject};
use cardshop_protocol::token::{Claims, Role, SharedKeys, TokenSigner};
use common::{A, B, Hello, Shop, claims, now_s, own};
use ed25519_dalek::SigningKey;
use tempfile::tempdir;

const BAD_LOGIN: [u8; 2] = [4, 0x86];
const NOT_AUTHORIZED: [u8; 2] = [5, 0x87];
const BAD_CLIENT_ID: [u8; 2] = [2, 0x85];
const UNAVAILABLE: [u8; 2] = [3, 0x88];

/// Asserts that both versions get their code and are closed.
async fn refused(shop: &Shop, hello: Hello<'_>, codes: [u8; 2], why: &str) {
    for (version, code) in [(4, codes[0]), (5, codes[1])] {
        let mut raw = shop.raw().await;
        raw.send(&Hello { version, ..hello.clone() }.packet()).await;
        let answer = raw.packet().await;
        assert_eq!((answer[0], answer[2], answer[3]), (0x20, 0, code), "{why}, version {version}");
        raw.is_closed().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_logins_are_refused_with_the_code_of_each_version() {
    let data = tempdir().unwrap();
    let shop = Shop::open(data.path()).await;
    let good = shop.token("ada", Role::Staff);
    refused(&shop, Hello::new("ada", "wrong"), BAD_LOGIN, "no token").await;
    let stranger = TokenSigner::new(&SigningKey::from_bytes(&[8; 32])).sign(&claims("ada", Role::Staff, 60));
    refused(&shop, Hello::new("ada", &stranger), BAD_LOGIN, "another's signature").await;
    let expired = shop.signer.sign(&claims("ada", Role::Staff, 0));
    refused(&shop, Hello::new("ada", &expired), BAD_LOGIN, "expired").await;
    refused(&shop, Hello::new("eve", &good), BAD_LOGIN, "another's token").await;
    refused(&shop, Hello { client_id: B, ..Hello::new("ada", &good) }, BAD_CLIENT_ID, "another's id").await;
    let creator = shop.token("carl", Role::Creator);
    refused(&shop, Hello::new("carl", &creator), NOT_AUTHORIZED, "a role without rights").await;
    let scoped = Claims { scope: Some("upload:x".into()), ..claims("ada", Role::Staff, 60) };
    refused(&shop, Hello::new("ada", &shop.signer.sign(&scoped)), NOT_AUTHORIZED, "a scoped token").await;
    let key = |role| Claims { scope: Some("api:watch".into()), ..claims("board", role, 60) };
    let key = |role| shop.signer.sign(&key(role));
    shop.login(&Hello::new("board", &key(Role::Integrator))).await.goodbye().await;
    refused(&shop, Hello::new("board", &key(Role::Staff)), NOT_AUTHORIZED, "a key of another role").await;
    let appliance = shop.token(A, Role::Appliance);
    for (topic, retain) in
        [(own(B, "status"), true), (own(A, "desired"), true), ("cardshop/1/#".into(), false)]
    {
        let will = Some((topic.as_str(), "x", retain));
        refused(&shop, Hello { will, ..Hello::new(A, &appliance) }, NOT_AUTHORIZED, "a forged will").await;
    }
    shop.revoke(vec![RevokedSubject { sub: "ada".into(), epoch: 2 }]);
    refused(&shop, Hello::new("ada", &good), BAD_LOGIN, "revoked").await;
    let newer = shop.signer.sign(&Claims { epoch: 2, ..claims("ada", Role::Staff, 60) });
    shop.login(&Hello::new("ada", &newer)).await.goodbye().await;

    let stats = shop.broker.stats();
    assert_eq!(stats.refused(Refusal::BadLogin), 10);
    assert_eq!(stats.refused(Refusal::ClientId), 2);
    assert_eq!(stats.refused(Refusal::NotAuthorized), 12);
    assert_eq!(stats.logged_in, 2);
    shop.broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn before_the_keys_are_known_clients_are_told_to_come_again() {
    let data = tempdir().unwrap();
    let shop = Shop::open(data.path()).await;
    let token = shop.token("ada", Role::Staff);
    let keys = shop.keys.current();
    shop.keys.replace(KeyList::default());
    refused(&shop, Hello::new("ada", &token), UNAVAILABLE, "no keys yet").await;
    shop.keys.replace((*keys).clone());
    shop.login(&Hello::new("ada", &token)).await.goodbye().await;
    assert_eq!(shop.broker.stats().refused(Refusal::NoKeys), 2);
    shop.broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_without_an_id_gets_its_user_name_as_one() {
    let data = tempdir().unwrap();
    let shop = Shop::open(data.path()).await;
    let token = shop.token("ada", Role::Staff);
    let mut raw = shop.raw().await;
    raw.send(&Hello { version: 5, client_id: "", ..Hello::new("ada", &token) }.packet()).await;
    let welcome = raw.packet().await;
    assert_eq!((welcome[0], welcome[3]), (0x20, 0));
    assert!(welcome.windows(6).any(|w| w == b"\x12\0\x03ada"), "{welcome:02x?}");
    shop.broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_mqtt_is_told_and_other_protocols_are_closed() {
    let data = tempdir().unwrap();
    let shop = Shop::open(data.path()).await;
    let mut old = shop.raw().await;
    old.send(b"\x10\x0f\0\x06MQIsdp\x03\x02\0\x3c\0\x01c").await;
    assert_eq!(old.packet().await, [0x20, 2, 0, 1]);
    old.is_closed().await;
    for bytes in
        [&b"GET / HTTP/1.1\r\n\r\n"[..], b"\x16\x03\x01\x02\0\x01", b"\xc0\0", b"\x10\xff\xff\xff\xff"]
    {
        let mut other = shop.raw().await;
        other.send(bytes).await;
        other.is_closed().await;
    }
    shop.until("five refusals", |stats| stats.refused(Refusal::NoConnect) == 5).await;
    shop.broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_ends_or_is_revoked_closes_its_session_within_five_seconds() {
    let data = tempdir().unwrap();
    let shop = Shop::open(data.path()).await;
    let status = own(A, "status");
    let claims_of_short = claims(A, Role::Appliance, 4);
    let short = shop.signer.sign(&claims_of_short);
    let will = Some((status.as_str(), "offline", true));
    let mut expires = shop.login(&Hello { version: 5, will, ..Hello::new(A, &short) }).await;
    let mut disabled = shop.client5("eve", Role::Manager).await;
    let mut renewed = shop.client5("max", Role::Manager).await;
    let since = std::time::Instant::now();
    let revoked =
        ["eve", "max"].map(|sub| RevokedSubject { sub: sub.into(), epoch: 1 + u64::from(sub == "eve") });
    shop.revoke(revoked.to_vec());
    assert_eq!(disabled.packet().await, [0xe0, 1, 0x87]);
    disabled.is_closed().await;
    assert!(since.elapsed().as_secs() < 5);
    assert_eq!(expires.packet().await, [0xe0, 1, 0xa0]);
    expires.is_closed().await;
    assert!((claims_of_short.exp..claims_of_short.exp + 5).contains(&now_s()));
    renewed.ping().await;
    shop.revoke_the_key();
    assert_eq!(renewed.packet().await, [0xe0, 1, 0x87]);
    renewed.is_closed().await;
    shop.revoke(revoked.to_vec());
    let mut staff = shop.client("ada", Role::Staff).await;
    staff.subscribe(&[(&status, 0)]).await;
    assert_eq!(staff.got().await.payload, "offline", "it did not say goodbye");
    shop.broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_say_nothing_are_closed_and_hold_nobody_up() {
    let data = tempdir().unwrap();
    let shop = Shop::open(data.path()).await;
    let mut silent = Vec::new();
    for n in 0..50 {
        let mut raw = shop.raw().await;
        // Some begin and do not go on.
        raw.send(&Hello::new("ada", "token").packet()[..n % 5]).await;
        silent.push(raw);
    }
    let since = std::time::Instant::now();
    let mut staff = shop.client("ada", Role::Staff).await;
    staff.ping().await;
    assert!(since.elapsed().as_secs() < 4, "a login does not wait for the silent");
    for mut raw in silent {
        raw.is_closed().await;
    }
    assert!((4..15).contains(&since.elapsed().as_secs()));
    shop.until("fifty refusals", |stats| stats.refused(Refusal::NoConnect) == 50 && stats.open == 1).await;
    shop.broker.shutdown().await;
}

#[tokio::test]
async fn a_plain_port_for_others_is_refused_with_the_way_out() {
    let data = tempdir().unwrap();
    for address in ["0.0.0.0:0", "192.0.2.1:1883", "[::]:0"] {
        let listen = address.parse().unwrap();
        let config = Config { listen, ..common::config(data.path(), Limits::default()) };
        let Err(error) = start(config, SharedKeys::default()).await else { panic!("{address} is refused") };
        assert!(matches!(error, Error::PlainBeyondLoopback { .. }), "{error}");
        assert!(error.to_string().contains("listen on 127.0.0.1"), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_broker_on_the_same_data_or_port_is_refused() {
    let data = tempdir().unwrap();
    let shop = Shop::open(data.path()).await;
    let config =
        |data: &std::path::Path, listen| Config { listen, ..common::config(data, Limits::default()) };
    let same_data = config(data.path(), "127.0.0.1:0".parse().unwrap());
    let Err(error) = start(same_data, SharedKeys::default()).await else { panic!("same data") };
    assert!(matches!(error, Error::Store(_)), "{error}");
    let other = tempdir().unwrap();
    let Err(error) = start(config(other.path(), shop.address()), SharedKeys::default()).await else {
        panic!("same port")
    };
    assert!(matches!(error, Error::Listen { .. }), "{error}");
    shop.broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn schedulers_may_be_several_with_a_name_behind_theirs_and_nobody_else() {
    let data = tempdir().unwrap();
    let shop = Shop::open(data.path()).await;
    let scheduler = shop.token("scheduler", Role::Scheduler);
    let named = |client_id| Hello { client_id, ..Hello::new("scheduler", &scheduler) };
    let mut one = shop.login(&named("scheduler-1")).await;
    let mut two = shop.login(&named("scheduler-2")).await;
    one.ping().await;
    two.ping().await;
    let again = shop.login(&named("scheduler-1")).await;
    one.is_closed().await;
    two.ping().await;
    again.goodbye().await;
    let staff = shop.token("ada", Role::Staff);
    for (user, token, client_id) in [("ada", &staff, "ada-1"), ("scheduler", &scheduler, "scheduler1")] {
        let hello = Hello { client_id, ..Hello::new(user, token) };
        refused(&shop, hello, BAD_CLIENT_ID, "a client id of its own").await;
    }
    shop.broker.shutdown().await;
}
