//! Keys of integrators' programs.

use std::time::Duration;

use axum::http::StatusCode;
use cardshop_protocol::token::{ApiRight, Role, verify};
use serde_json::json;

use super::Site;

#[tokio::test]
async fn an_api_key_does_what_it_was_given_in_its_channels_until_it_is_revoked() {
    let site = Site::new().await;
    site.channel("school").await;
    let recipient = json!({"name": "Village school"});
    site.order(&site.admin, json!({"channel": "school", "recipient": recipient})).await;
    let others = site.order(&site.admin, json!({"channel": "default"})).await;
    let new = json!({"name": "board", "channels": ["school"]});
    let made = site.made("/api-keys", &site.admin, new.clone()).await;
    let key = made["key"].as_str().unwrap();
    let (_, orders) = site.get("/orders", key).await;
    assert_eq!(orders["items"].as_array().unwrap().len(), 1, "{orders}");
    assert_eq!(orders["items"][0]["recipient"], json!(null), "who only watches does not learn who gets it");
    let own = orders["items"][0]["id"].as_str().unwrap();
    assert_eq!(site.get(&format!("/orders/{own}"), key).await.1["recipient"], json!(null));
    assert!(site.get(&format!("/orders/{own}"), &site.admin).await.1["recipient"].is_object());
    let watcher = site.scheduler.authenticate(key, "").unwrap();
    let event = site.scheduler.live(&watcher, None).unwrap().next().await.unwrap();
    assert_eq!((event.kind, &event.json["recipient"]), ("order", &json!(null)));
    assert_eq!(site.get(&format!("/orders/{others}"), key).await.0, StatusCode::NOT_FOUND);
    for path in ["/orders", "/configurations", "/api-keys", "/users", "/join-tokens"] {
        assert_eq!(site.post(path, key, json!({})).await.0, StatusCode::FORBIDDEN, "{path}");
    }
    let buyer = json!({"name": "buyer", "channels": ["school"], "rights": ["order"]});
    let buyer = site.made("/api-keys", &site.admin, buyer).await;
    site.order(buyer["key"].as_str().unwrap(), json!({"channel": "school"})).await;

    // Everybody else checks it offline, by the same list.
    let claims = verify(&site.scheduler.keys().current(), key, site.scheduler.now()).unwrap();
    assert_eq!((claims.role, claims.api_rights()), (Role::Integrator, Some(vec![ApiRight::Watch])));
    let (status, problem) = site.post("/api-keys", &site.admin, new).await;
    assert_eq!((status, &problem["code"]), (StatusCode::CONFLICT, &json!("name_taken")));

    site.scheduler.keep_key_uses().await.unwrap();
    let (_, list) = site.get("/api-keys", &site.admin).await;
    assert!(list["items"][0]["last_used"].is_string(), "{list}");
    assert!(!list.to_string().contains(key));
    let path = format!("/api-keys/{}/revoke", made["id"].as_str().unwrap());
    site.made(&path, &site.admin, json!({})).await;
    assert_eq!(site.get("/orders", key).await.0, StatusCode::UNAUTHORIZED);
    let site = site.restart().await;
    assert_eq!(site.get("/orders", key).await.0, StatusCode::UNAUTHORIZED, "also after a restart");
    let buyer = buyer["key"].as_str().unwrap();
    assert_eq!(site.get("/orders", buyer).await.0, StatusCode::OK);
    site.scheduler.advance_clock(Duration::from_secs(366 * 86_400));
    assert_eq!(site.get("/orders", buyer).await.0, StatusCode::UNAUTHORIZED, "it ends by itself");
}

#[tokio::test]
async fn a_manager_makes_and_sees_keys_of_its_own_channels_only() {
    let site = Site::new().await;
    site.channel("school").await;
    let manager = site.user("mia", "manager", &["school"]).await;
    site.made("/api-keys", &site.admin, json!({"name": "others"})).await;
    let made = site.made("/api-keys", &manager, json!({"name": "own", "days": 1})).await;
    assert_eq!(made["channels"], json!(["school"]));
    let (_, list) = site.get("/api-keys", &manager).await;
    assert_eq!(list["items"].as_array().unwrap().len(), 1, "{list}");
    for (body, field) in [
        (json!({"name": "x", "channels": ["default"]}), "channels"),
        (json!({"name": "X"}), "name"),
        (json!({"name": "x", "rights": []}), "rights"),
        (json!({"name": "x", "rights": ["administer"]}), "rights"),
        (json!({"name": "x", "days": 0}), "days"),
    ] {
        let (status, problem) = site.post("/api-keys", &manager, body).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{problem}");
        assert!(problem["detail"].as_str().unwrap().contains(field), "{problem}");
    }
}
