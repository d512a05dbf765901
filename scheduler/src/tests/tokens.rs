//! Tokens that are narrowed to one purpose, keys that are rotated, and what a service may ask about a token.

use std::time::Duration;

use axum::http::StatusCode;
use cardshop_protocol::keys::{KeyList, KeyUse};
use serde_json::{Value, json};

use super::{PASSWORD, Site};

const DAY: Duration = Duration::from_secs(86_400);

async fn link(site: &Site, token: &str, order: &str, act: &str) -> String {
    let made = site.made(&format!("/orders/{order}/action-links"), token, json!({"act": act})).await;
    made["token"].as_str().unwrap().to_owned()
}

/// An order with two verified cards.
async fn written_order(site: &Site) -> String {
    let creator = site.user("maker", "creator", &[]).await;
    let order = site.order(&site.admin, json!({"quantity": 2})).await;
    site.create_image(&creator, 1 << 20).await;
    let mut bench = site.appliance(1).await;
    let lease = site.leases(bench.id).await.remove(0);
    for copy in [1, 2] {
        let fact = bench.verified(&lease, copy, u128::from(copy));
        bench.tell(fact).await;
    }
    order.to_string()
}

#[tokio::test]
async fn a_link_ships_one_order_once_when_it_is_posted_and_is_good_for_nothing_else() {
    let site = Site::new().await;
    let order = written_order(&site).await;
    let operator = site.user("bob", "operator", &["default"]).await;
    let token = link(&site, &operator, &order, "ship").await;

    let (status, look) = site.post("/action-links/look", "", json!({"token": token})).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!((&look["act"], &look["cards"], &look["used"]), (&json!("ship"), &json!(2), &json!(false)));
    assert_eq!((site.status(order.parse().unwrap()).await, &look["by"]), ("written".into(), &json!("bob")));

    for path in ["/me", "/orders", "/slots", "/configurations"] {
        assert_eq!(site.get(path, &token).await.0, StatusCode::UNAUTHORIZED, "{path}");
    }
    let path = format!("/orders/{order}/ship");
    assert_eq!(site.post(&path, &token, json!({})).await.0, StatusCode::UNAUTHORIZED);
    let password = json!({"token": token, "password": "a new password"});
    assert_eq!(site.post("/auth/password", "", password).await.0, StatusCode::UNAUTHORIZED);
    let (status, _) = site.call("GET", "/action-links/use", "", Value::Null).await;
    assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED);

    let body = json!({"token": token, "tracking": "RA123"});
    let shipped = site.made("/action-links/use", "", body.clone()).await;
    assert_eq!((&shipped["status"], &shipped["shipments"][0]["by"]), (&json!("shipped"), &json!("bob")));
    let (status, again) = site.post("/action-links/use", "", body).await;
    assert_eq!((status, &again["code"]), (StatusCode::CONFLICT, &json!("link_used")));
    let (_, audit) = site.get("/audit?limit=1", &site.admin).await;
    assert_eq!(audit["items"][0]["who"], "bob");
    assert_eq!(audit["items"][0]["action"], "order.ship by link");
}

#[tokio::test]
async fn a_link_ends_with_its_time_with_its_makers_rights_and_with_a_changed_letter() {
    let site = Site::new().await;
    let order = site.order(&site.admin, json!({})).await.to_string();
    let bob = site.user("bob", "operator", &["default"]).await;
    let path = format!("/orders/{order}/action-links");
    let refused = site.post(&path, &bob, json!({"act": "cancel"})).await;
    assert_eq!(refused.0, StatusCode::FORBIDDEN, "an operator cancels nothing, also not by a link");
    assert_eq!(
        site.post(&path, &site.admin, json!({"act": "burn"})).await.0,
        StatusCode::BAD_REQUEST,
        "there is no such act"
    );
    let ada = site.user("ada", "manager", &["default"]).await;
    let cancel = link(&site, &ada, &order, "cancel").await;
    let used = async |token: &str| site.post("/action-links/use", "", json!({"token": token})).await.0;
    let changed = cancel.replacen(|c: char| c.is_ascii_lowercase(), "A", 1);
    assert_eq!(used(&changed).await, StatusCode::UNAUTHORIZED);
    let (_, users) = site.get("/users", &site.admin).await;
    let id =
        users["items"].as_array().unwrap().iter().find(|u| u["username"] == "ada").unwrap()["id"].clone();
    site.made(&format!("/users/{}/disable", id.as_str().unwrap()), &site.admin, json!({})).await;
    // Revocations are published for two hours only; a link lives for weeks.
    site.scheduler.advance_clock(DAY);
    assert_eq!(used(&cancel).await, StatusCode::UNAUTHORIZED);
    let admin = site.login("admin", PASSWORD).await;
    let late = link(&site, &admin, &order, "cancel").await;
    site.scheduler.advance_clock(DAY * 15);
    assert_eq!(used(&late).await, StatusCode::UNAUTHORIZED);
    assert_eq!(
        site.scheduler.inner.store.get::<crate::core::order::Order>(&order).unwrap().unwrap().value.canceled,
        None
    );
}

#[tokio::test]
async fn a_service_may_ask_what_a_token_says_and_hears_of_a_disabled_user_at_once() {
    let site = Site::new().await;
    let ada = site.user("ada", "manager", &["default"]).await;
    let asked = async |token: &str| site.post("/auth/validate", "", json!({"token": token})).await;
    let (status, said) = asked(&ada).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!((&said["sub"], &said["role"]), (&json!("ada"), &json!("manager")));
    assert_eq!((&said["channels"], &said["scope"]), (&json!(["default"]), &Value::Null));
    let creator = site.user("maker", "creator", &[]).await;
    let order = site.order(&site.admin, json!({})).await.to_string();
    let task = site.made("/tasks/claim", &creator, json!({})).await;
    let (_, upload) = asked(task["upload_token"].as_str().unwrap()).await;
    assert_eq!(upload["scope"], format!("upload:{order}-image"));
    let act = link(&site, &site.admin, &order, "cancel").await;
    for other in ["", "x.y.z", &act] {
        assert_eq!(asked(other).await.0, StatusCode::UNAUTHORIZED);
    }
    let (_, users) = site.get("/users", &site.admin).await;
    let id =
        users["items"].as_array().unwrap().iter().find(|u| u["username"] == "ada").unwrap()["id"].clone();
    site.made(&format!("/users/{}/disable", id.as_str().unwrap()), &site.admin, json!({})).await;
    assert_eq!(asked(&ada).await.0, StatusCode::UNAUTHORIZED);
}

fn token_keys(site: &Site) -> KeyList {
    let mut keys = (*site.scheduler.keys().current()).clone();
    keys.items.retain(|k| k.key_use == KeyUse::Jwt);
    keys
}

#[tokio::test]
async fn tokens_outlive_a_restart_and_a_rotation_of_keys_and_end_when_the_keys_are_revoked() {
    let site = Site::new().await;
    let api_key = site.made("/api-keys", &site.admin, json!({"name": "shop", "days": 1000})).await;
    let api_key = api_key["key"].as_str().unwrap().to_owned();
    let login = json!({"username": "admin", "password": PASSWORD});
    let pair = site.made("/auth/login", "", login.clone()).await;
    let site = site.restart().await;
    assert_eq!(site.get("/me", &site.admin).await.0, StatusCode::OK);

    let old = token_keys(&site).items.remove(0);
    site.made("/keys/rotate", &site.admin, json!({})).await;
    let keys = token_keys(&site);
    assert_eq!(keys.items.len(), 2, "the new one is published before it signs");
    let signed_by = |token: &str| {
        let header =
            data_encoding::BASE64URL_NOPAD.decode(token.split('.').next().unwrap().as_bytes()).unwrap();
        serde_json::from_slice::<Value>(&header).unwrap()["kid"].as_str().unwrap().to_owned()
    };
    assert_eq!(signed_by(&site.login("admin", PASSWORD).await), old.kid.to_string());
    site.scheduler.advance_clock(Duration::from_secs(11));
    let site = site.restart().await;
    site.scheduler.advance_clock(Duration::from_secs(11));
    let new = site.login("admin", PASSWORD).await;
    assert_ne!(signed_by(&new), old.kid.to_string());
    for token in [&site.admin, &new, &api_key] {
        assert_eq!(site.get("/me", token).await.0, StatusCode::OK);
    }
    let refresh = json!({"refresh_token": pair["refresh_token"]});
    let pair = site.made("/auth/refresh", "", refresh).await;
    let ends = token_keys(&site).items.iter().find(|k| k.kid == old.kid).unwrap().not_after.unwrap();
    assert!(ends > site.scheduler.now() + DAY * 990, "an API key that it signed still counts");

    let watcher = site.scheduler.authenticate(&new, "here").unwrap();
    let mut stream = site.scheduler.live(&watcher, None).unwrap();
    let list = site.made("/keys/rotate", &new, json!({"revoke": true})).await;
    while stream.next().await.is_some() {}
    let revoked = list["items"].as_array().unwrap().iter().filter(|k| k["revoked"] == true).count();
    assert_eq!(revoked, 2);
    for token in [&site.admin, &new, &api_key] {
        assert_eq!(site.get("/me", token).await.0, StatusCode::UNAUTHORIZED);
    }
    let refresh = json!({"refresh_token": pair["refresh_token"]});
    assert_eq!(site.post("/auth/refresh", "", refresh).await.0, StatusCode::UNAUTHORIZED);
    let admin = site.login("admin", PASSWORD).await;
    assert_eq!(site.get("/me", &admin).await.0, StatusCode::OK, "who knows the password logs in again");
}
