//! How appliances get in, and out.

use axum::http::StatusCode;
use cardshop_protocol::join::{JoinToken, pairing_code};
use cardshop_protocol::keys::{KeyUse, appliance_id, decode_public};
use ed25519_dalek::SigningKey;
use serde_json::{Value, json, to_value};

use super::{Site, join_body, login_body};

async fn token(site: &Site) -> JoinToken {
    let answer = site.made("/join-tokens", &site.admin, json!({})).await;
    answer["token"].as_str().unwrap().parse().unwrap()
}

async fn login(site: &Site, key: &SigningKey) -> (StatusCode, Value) {
    let nonce = site.made("/auth/nonce", "", json!({"appliance": appliance_id(&key.verifying_key())})).await;
    let body = login_body(key, nonce["nonce"].as_str().unwrap());
    site.post("/auth/appliance", "", to_value(body).unwrap()).await
}

#[tokio::test]
async fn an_appliance_joins_waits_is_approved_and_logs_in() {
    let site = Site::new().await;
    let key = SigningKey::from_bytes(&[9; 32]);
    let id = appliance_id(&key.verifying_key());
    let token = token(&site).await;
    let body = to_value(join_body(&token, &key)).unwrap();
    let joined = site.made("/join", "", body.clone()).await;
    assert_eq!((&joined["state"], &joined["mqtt"]), (&json!("pending"), &Value::Null));
    let server = decode_public(joined["server_key"].as_str().unwrap()).unwrap();
    assert_eq!(joined["code"], pairing_code(key.verifying_key().as_bytes(), server.as_bytes()));
    assert_eq!(site.made("/join", "", body).await, joined, "asking again changes nothing");
    let (status, problem) = login(&site, &key).await;
    assert_eq!((status, &problem["code"]), (StatusCode::FORBIDDEN, &json!("not_allowed")));

    site.made(&format!("/appliances/{id}/approve"), &site.admin, json!({})).await;
    let state = site.get(&format!("/join/{id}"), "").await.1;
    assert_eq!((&state["state"], &state["mqtt"]), (&json!("approved"), &json!(site.config.mqtt_url)));
    let (status, pair) = login(&site, &key).await;
    assert_eq!(status, StatusCode::OK);
    let claims = site.scheduler.keys().verify(pair["access_token"].as_str().unwrap(), site.scheduler.now());
    let claims = claims.unwrap();
    assert_eq!((claims.sub, claims.channel[0].as_str()), (id.to_string(), "default"));
    let keys = site.scheduler.keys().current();
    assert!(keys.items.iter().any(|k| k.key_use == KeyUse::Appliance));
    let site = site.restart().await;
    site.made("/auth/refresh", "", json!({"refresh_token": pair["refresh_token"]})).await;
}

#[tokio::test]
async fn a_join_token_is_for_one_appliance_and_one_day() {
    let site = Site::new().await;
    let (one, two) = (SigningKey::from_bytes(&[1; 32]), SigningKey::from_bytes(&[2; 32]));
    let token = token(&site).await;
    site.made("/join", "", to_value(join_body(&token, &one)).unwrap()).await;
    let used = site.post("/join", "", to_value(join_body(&token, &two)).unwrap()).await;
    assert_eq!((used.0, &used.1["code"]), (StatusCode::UNAUTHORIZED, &json!("not_known")));

    let late = self::token(&site).await;
    site.scheduler.advance_clock(std::time::Duration::from_secs(86_401));
    assert_eq!(site.post("/join", "", to_value(join_body(&late, &two)).unwrap()).await, used);
    let mut guessed = late.clone();
    guessed.secret = "0".repeat(26);
    assert_eq!(site.post("/join", "", to_value(join_body(&guessed, &two)).unwrap()).await, used);
    let mut stolen = join_body(&late, &two);
    stolen.public_key = join_body(&late, &one).public_key;
    assert_eq!(site.post("/join", "", to_value(stolen).unwrap()).await, used, "no proof of the key");
}

#[tokio::test]
async fn a_signature_is_good_for_one_login() {
    let site = Site::new().await;
    let bench = site.appliance(3).await;
    let key = SigningKey::from_bytes(&[3; 32]);
    let nonce = site.made("/auth/nonce", "", json!({"appliance": bench.id})).await;
    let body = to_value(login_body(&key, nonce["nonce"].as_str().unwrap())).unwrap();
    site.made("/auth/appliance", "", body.clone()).await;
    assert_eq!(site.post("/auth/appliance", "", body).await.0, StatusCode::UNAUTHORIZED);
    let other = SigningKey::from_bytes(&[4; 32]);
    let nonce = site.made("/auth/nonce", "", json!({"appliance": bench.id})).await;
    let mut body = login_body(&other, nonce["nonce"].as_str().unwrap());
    body.appliance = bench.id;
    assert_eq!(site.post("/auth/appliance", "", to_value(body).unwrap()).await.0, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_rejected_appliance_loses_its_tokens_and_its_facts_do_not_count() {
    let site = Site::new().await;
    let creator = site.user("maker", "creator", &[]).await;
    let order = site.order(&site.admin, json!({})).await;
    site.create_image(&creator, 1 << 20).await;
    let mut bench = site.appliance(3).await;
    let (_, pair) = login(&site, &SigningKey::from_bytes(&[3; 32])).await;
    let lease = site.leases(bench.id).await.remove(0);
    site.made(&format!("/appliances/{}/reject", bench.id), &site.admin, json!({})).await;
    assert!(site.leases(bench.id).await.is_empty());
    let token = pair["access_token"].as_str().unwrap();
    assert!(site.scheduler.keys().verify(token, site.scheduler.now()).is_err());
    let fact = bench.verified(&lease, 1, 1);
    assert_eq!(bench.tell(fact).await, crate::effects::events::Taken::Stranger);
    assert_eq!(site.status(order).await, "ready");
}

#[tokio::test]
async fn a_join_token_is_scoped_and_its_key_repeats_it() {
    let site = Site::new().await;
    site.channel("north").await;
    let manager = site.user("manager", "manager", &["north"]).await;
    let (status, _) = site.post("/join-tokens", &manager, json!({"channels": ["default"]})).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    let send = || {
        let request = axum::http::Request::post("/api/v1/join-tokens")
            .header("authorization", format!("Bearer {manager}"))
            .header("idempotency-key", "k")
            .body(axum::body::Body::from("{}"))
            .unwrap();
        site.send(request)
    };
    let first = send().await;
    assert_eq!(first.0, StatusCode::CREATED);
    assert_eq!(send().await, first);
    let (_, list) = site.get("/join-tokens", &manager).await;
    assert_eq!(list["items"].as_array().unwrap().len(), 1);
    assert!(!list.to_string().contains(first.1["token"].as_str().unwrap()), "the secret is shown once");
}

#[tokio::test]
async fn a_join_token_asked_for_twice_at_once_under_one_key_is_one_token() {
    let site = Site::new().await;
    let send = || {
        let request = axum::http::Request::post("/api/v1/join-tokens")
            .header("authorization", format!("Bearer {}", site.admin))
            .header("idempotency-key", "k")
            .body(axum::body::Body::from("{}"))
            .unwrap();
        site.send(request)
    };
    let (one, two, three) = tokio::join!(send(), send(), send());
    assert_eq!(one.0.as_u16(), 201, "{}", one.1);
    assert!(one == two && two == three, "{two:?} {three:?}");
    let (_, list) = site.get("/join-tokens", &site.admin).await;
    assert_eq!(list["items"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn an_appliance_that_says_too_much_of_itself_is_refused() {
    let site = Site::new().await;
    let token = site.made("/join-tokens", &site.admin, json!({})).await;
    let token: JoinToken = token["token"].as_str().unwrap().parse().unwrap();
    let mut join = join_body(&token, &SigningKey::from_bytes(&[1; 32]));
    join.hardware.model = "x".repeat(121);
    let (status, problem) = site.post("/join", "", serde_json::to_value(&join).unwrap()).await;
    assert_eq!((status.as_u16(), &problem["code"]), (422, &json!("invalid_field")));
    join.hardware.model = "x".repeat(120);
    site.made("/join", "", serde_json::to_value(&join).unwrap()).await;
}
