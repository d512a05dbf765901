//! What staff changes and takes away: organizations, users, channels, warehouses, join tokens; and what people do with their
//! own account. Each removal is refused while something needs what is to go.

use std::time::Duration;

use axum::http::StatusCode;
use serde_json::{Value, json};

use super::{PASSWORD, Site};

const HOUR: Duration = Duration::from_secs(3600);

/// Must be refused with this code; gives the text.
async fn refused(site: &Site, path: &str, token: &str, body: Value, code: &str) -> String {
    let (status, problem) = site.post(path, token, body).await;
    assert!(status.is_client_error(), "{path}: {status} {problem}");
    assert_eq!(problem["code"], code, "{path}: {problem}");
    problem["detail"].as_str().unwrap().to_owned()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

#[tokio::test]
async fn an_organization_is_changed_and_goes_when_nobody_belongs_to_it() {
    let site = Site::new().await;
    let id =
        text(&site.made("/organizations", &site.admin, json!({"name": "School", "units": 9})).await["id"]);
    let path = |act: &str| format!("/organizations/{id}/{act}");
    let change = json!({"name": "College", "language": "fr", "several_orders": true});
    let changed = site.made(&path("update"), &site.admin, change).await;
    assert_eq!(
        (&changed["name"], &changed["language"], &changed["units"]),
        (&json!("College"), &json!("fr"), &json!(9))
    );
    for wrong in [json!({"language": "xx"}), json!({"channel": "nowhere"}), json!({"warehouses": ["x"]})] {
        refused(&site, &path("update"), &site.admin, wrong, "invalid_field").await;
    }
    let user = json!({"username": "ada", "role": "manager", "organization": id});
    let user = text(&site.made("/users", &site.admin, user).await["id"]);
    let why = refused(&site, &path("delete"), &site.admin, json!({}), "in_use").await;
    assert!(why.contains("1 users"), "{why}");
    let moved = site.made(&format!("/users/{user}/update"), &site.admin, json!({"organization": null})).await;
    assert_eq!(moved["organization"], Value::Null);
    site.made(&path("delete"), &site.admin, json!({})).await;
    assert_eq!(site.get(&format!("/organizations/{id}"), &site.admin).await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn another_role_ends_a_users_tokens_and_nobody_changes_their_own() {
    let site = Site::new().await;
    let ada = site.user("ada", "manager", &["default"]).await;
    let (_, users) = site.get("/users", &site.admin).await;
    let id = |name: &str| {
        let found = users["items"].as_array().unwrap().iter().find(|u| u["username"] == name);
        text(&found.unwrap()["id"])
    };
    let path = format!("/users/{}/update", id("ada"));
    site.made(&path, &site.admin, json!({"email": "ada@example.org"})).await;
    assert_eq!(site.get("/me", &ada).await.0, StatusCode::OK, "another address is no reason to end");
    let changed = site.made(&path, &site.admin, json!({"role": "operator"})).await;
    assert_eq!((&changed["role"], &changed["email"]), (&json!("operator"), &json!("ada@example.org")));
    assert_eq!(site.get("/me", &ada).await.0, StatusCode::UNAUTHORIZED);
    let own = format!("/users/{}/update", id("admin"));
    refused(&site, &own, &site.admin, json!({"role": "manager"}), "own_account").await;
    for wrong in [json!({"role": "appliance"}), json!({"channels": ["nowhere"]}), json!({"email": "x"})] {
        refused(&site, &path, &site.admin, wrong, "invalid_field").await;
    }
}

#[tokio::test]
async fn an_account_without_the_right_to_cards_orders_downloads_only() {
    let site = Site::new().await;
    let user = json!({"username": "ada", "password": PASSWORD, "role": "manager", "links_only": true});
    let id = text(&site.made("/users", &site.admin, user).await["id"]);
    let ada = site.login("ada", PASSWORD).await;
    let configuration = site.made("/configurations", &ada, json!({"name": "School", "recipe": {}})).await;
    let order = |kind: &str| json!({"configuration": configuration["id"], "kind": kind});
    let why = refused(&site, "/orders", &ada, order("physical"), "not_allowed").await;
    assert!(why.contains("downloads"), "{why}");
    site.made("/orders", &ada, order("virtual")).await;
    site.made(&format!("/users/{id}/update"), &site.admin, json!({"links_only": false})).await;
    site.made("/orders", &ada, order("physical")).await;
}

#[tokio::test]
async fn a_channel_is_closed_or_removed_only_while_nothing_names_it() {
    let site = Site::new().await;
    let id = text(&site.made("/channels", &site.admin, json!({"slug": "north"})).await["id"]);
    let path = |act: &str| format!("/channels/{id}/{act}");
    let change = json!({"sender_name": "The Shop", "active": false});
    let changed = site.made(&path("update"), &site.admin, change).await;
    assert_eq!(
        (&changed["sender_name"], &changed["active"], &changed["slug"]),
        (&json!("The Shop"), &json!(false), &json!("north"))
    );
    let cleared = site.made(&path("update"), &site.admin, json!({"sender_name": ""})).await;
    assert_eq!(cleared["sender_name"], "");
    let ada = site.user("ada", "manager", &["north"]).await;
    let why = refused(&site, &path("delete"), &site.admin, json!({}), "in_use").await;
    assert!(why.contains("1 users") && why.contains("close it"), "{why}");
    refused(&site, "/orders", &ada, json!({"configuration": "01ja0000000000000000000000"}), "invalid_field")
        .await;
    let (_, users) = site.get("/users", &site.admin).await;
    let ada = users["items"].as_array().unwrap().iter().find(|u| u["username"] == "ada").unwrap();
    let moved = json!({"channels": ["default"]});
    site.made(&format!("/users/{}/update", text(&ada["id"])), &site.admin, moved).await;
    site.made(&path("delete"), &site.admin, json!({})).await;
    site.made("/channels", &site.admin, json!({"slug": "north"})).await;
    let (_, channels) = site.get("/channels", &site.admin).await;
    let default = text(&channels["items"][0]["id"]);
    refused(&site, &format!("/channels/{default}/delete"), &site.admin, json!({}), "in_use").await;
}

#[tokio::test]
async fn a_warehouse_is_added_without_a_restart_and_forgotten_while_nothing_needs_it() {
    let site = Site::new().await;
    let second = super::Shelf::default();
    let url = second.open().await;
    for wrong in ["", "ftp://x", "http://", "http://user@x", "https://x?y"] {
        refused(&site, "/warehouses", &site.admin, json!({"url": wrong}), "invalid_field").await;
    }
    let added = site.made("/warehouses", &site.admin, json!({"url": format!("{url}/")})).await;
    assert_eq!((&added["url"], &added["added"]), (&json!(url), &json!(true)));
    refused(&site, "/warehouses", &site.admin, json!({"url": url}), "warehouse_known").await;
    site.scheduler.ask_warehouses().await.unwrap();
    let site = site.restart().await;
    let (_, all) = site.get("/warehouses", &site.admin).await;
    let pinned = all["items"].as_array().unwrap().iter().find(|w| w["url"] == json!(url)).unwrap();
    assert_eq!(
        pinned["keys"].as_array().unwrap().len(),
        1,
        "its key is pinned, and it is there after a restart"
    );
    let order = site.order(&site.admin, json!({"warehouse": url})).await;
    let path = format!("/warehouses/{}/delete", text(&added["id"]));
    refused(&site, &path, &site.admin, json!({}), "in_use").await;
    site.made(&format!("/orders/{order}/cancel"), &site.admin, json!({})).await;
    site.made(&path, &site.admin, json!({})).await;
    let (_, all) = site.get("/warehouses", &site.admin).await;
    let first = text(&all["items"][0]["id"]);
    let why = refused(&site, &format!("/warehouses/{first}/delete"), &site.admin, json!({}), "in_use").await;
    assert!(why.contains("settings"), "{why}");
}

#[tokio::test]
async fn a_revoked_join_token_lets_nobody_in_and_a_used_one_is_not_revoked() {
    let site = Site::new().await;
    let made = site.made("/join-tokens", &site.admin, json!({})).await;
    let path = format!("/join-tokens/{}/revoke", text(&made["id"]));
    site.made(&path, &site.admin, json!({})).await;
    site.scheduler.advance_clock(Duration::from_secs(1));
    let token: cardshop_protocol::join::JoinToken = text(&made["token"]).parse().unwrap();
    let key = ed25519_dalek::SigningKey::from_bytes(&[9; 32]);
    let body = serde_json::to_value(super::join_body(&token, &key)).unwrap();
    assert_eq!(site.post("/join", "", body).await.0, StatusCode::UNAUTHORIZED);
    site.appliance(1).await;
    let (_, tokens) = site.get("/join-tokens", &site.admin).await;
    let used = tokens["items"].as_array().unwrap().iter().find(|t| !t["used_by"].is_null()).unwrap();
    let path = format!("/join-tokens/{}/revoke", text(&used["id"]));
    refused(&site, &path, &site.admin, json!({}), "token_used").await;
}

#[tokio::test]
async fn a_paused_auto_image_is_not_built_until_it_goes_on() {
    let site = Site::new().await;
    let configuration = json!({"name": "Wiki", "recipe": {}});
    let configuration = site.made("/configurations", &site.admin, configuration).await["id"].clone();
    let auto = json!({"name": "wiki", "configuration": configuration, "paused": true});
    let id = text(&site.made("/auto-images", &site.admin, auto).await["id"]);
    site.scheduler.tick_auto_images().await.unwrap();
    let view = site.get(&format!("/auto-images/{id}"), &site.admin).await.1;
    assert_eq!((&view["paused"], &view["building"]), (&json!(true), &Value::Null));
    refused(&site, &format!("/auto-images/{id}/trigger"), &site.admin, json!({}), "paused").await;
    site.made(&format!("/auto-images/{id}/update"), &site.admin, json!({"paused": false})).await;
    site.scheduler.tick_auto_images().await.unwrap();
    assert!(site.get(&format!("/auto-images/{id}"), &site.admin).await.1["building"].is_string());
}

#[tokio::test]
async fn the_audit_is_asked_by_who_what_and_when() {
    let site = Site::new().await;
    let from = site.scheduler.now();
    site.channel("north").await;
    site.scheduler.advance_clock(HOUR);
    let later = site.scheduler.now();
    let admin = site.login("admin", PASSWORD).await;
    site.made("/maintenance", &admin, json!({"on": true, "reason": "stock-taking"})).await;
    let count = async |query: String| {
        let (_, lines) = site.get(&format!("/audit?{query}"), &admin).await;
        lines["items"].as_array().unwrap().len()
    };
    assert_eq!(count("action=channel.".into()).await, 1);
    assert_eq!(count(format!("from={later}")).await, 1);
    assert_eq!(count(format!("from={from}&to={later}&who=admin")).await, 1);
    assert_eq!(count("who=nobody".into()).await, 0);
    assert_eq!(count("object=site".into()).await, 1);
    assert_eq!(site.get("/audit?from=yesterday", &admin).await.0, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn a_session_lives_while_it_is_used_never_past_twelve_hours_and_ends_at_once_with_the_logout() {
    let site = Site::new().await;
    let begin = async || {
        let begun = site.scheduler.begin_session("admin", PASSWORD, "192.0.2.7", "a browser").await;
        begun.unwrap().token
    };
    let known = |token: &str| site.scheduler.authenticate(token, "").is_ok();
    let token = begin().await;
    assert!(known(&token));
    assert!(site.scheduler.renew_session(&token).await.unwrap().is_none(), "it is young");
    site.scheduler.end_session(&token).await.unwrap();
    assert!(!known(&token), "the logout ends it, whoever has a copy of the cookie");

    let mut token = begin().await;
    for half_hour in 1..24 {
        site.scheduler.advance_clock(HOUR / 2);
        token = site.scheduler.renew_session(&token).await.unwrap().expect("it is used").token;
        assert!(known(&token), "after {half_hour} half hours");
    }
    site.scheduler.advance_clock(HOUR / 2);
    assert!(!known(&token) && site.scheduler.renew_session(&token).await.is_err(), "twelve hours are over");
    let token = begin().await;
    site.scheduler.advance_clock(HOUR + Duration::from_secs(1));
    assert!(!known(&token), "nobody used it for an hour");
}

#[tokio::test]
async fn all_logins_end_together_and_an_account_is_deleted_by_its_own_user_with_the_password() {
    let site = Site::new().await;
    let ada = site.user("ada", "manager", &["default"]).await;
    let page = site.scheduler.begin_session("ada", PASSWORD, "192.0.2.7", "a browser").await.unwrap().token;
    let (_, sessions) = site.get("/me/sessions", &ada).await;
    assert_eq!(sessions["items"][0]["address"], "192.0.2.7");
    refused(&site, "/me/sessions/end", &ada, json!({"password": "wrong"}), "not_known").await;
    site.made("/me/sessions/end", &ada, json!({"password": PASSWORD})).await;
    for token in [&ada, &page] {
        assert_eq!(site.get("/me", token).await.0, StatusCode::UNAUTHORIZED);
    }
    let ada = site.login("ada", PASSWORD).await;
    let order = site.order(&ada, json!({"recipient": {"name": "Grace"}})).await;
    refused(&site, "/me/delete", &ada, json!({"password": PASSWORD}), "order_open").await;
    site.made(&format!("/orders/{order}/cancel"), &ada, json!({})).await;
    let gone = site.made("/me/delete", &ada, json!({"password": PASSWORD})).await;
    assert_eq!(gone["anonymised"], true);
    assert_eq!(site.get("/me", &ada).await.0, StatusCode::UNAUTHORIZED);
    for path in ["/orders", "/users", "/audit?limit=500", "/events"] {
        let told = site.get(path, &site.admin).await.1.to_string();
        assert!(!told.contains("\"ada\"") && !told.contains("Grace"), "{path}: {told}");
    }
    let why = refused(&site, "/me/delete", &site.admin, json!({"password": PASSWORD}), "last_of_staff").await;
    assert!(why.contains("last account"), "{why}");
}

#[tokio::test]
async fn the_parts_of_a_site_are_looked_at_and_one_that_is_away_is_named() {
    use crate::core::health::Health;
    let site = Site::new().await;
    let state = |key: &str| site.scheduler.health().into_iter().find(|p| p.key == key).map(|p| p.health);
    assert_eq!(
        (state("store"), state("broker"), state("warehouses")),
        (Some(Health::Good), Some(Health::Failed), None)
    );
    site.scheduler.look_around().await.unwrap();
    assert_eq!(state("warehouses"), Some(Health::Failed), "the warehouse of a test has no /health");
    assert_eq!((state("creators"), state("queue")), (Some(Health::Resting), Some(Health::Good)));
    site.order(&site.admin, json!({})).await;
    site.scheduler.look_around().await.unwrap();
    assert_eq!(state("creators"), Some(Health::Failed), "an order waits and nobody is there");
}

#[tokio::test]
async fn appliances_that_wait_are_counted_by_an_index_that_follows_their_state() {
    let site = Site::new().await;
    let caller = site.scheduler.authenticate(&site.admin, "").unwrap();
    let made = site.made("/join-tokens", &site.admin, json!({})).await;
    let token: cardshop_protocol::join::JoinToken = text(&made["token"]).parse().unwrap();
    let key = ed25519_dalek::SigningKey::from_bytes(&[3; 32]);
    site.made("/join", "", serde_json::to_value(super::join_body(&token, &key)).unwrap()).await;
    assert_eq!(site.scheduler.waiting_appliances(&caller).unwrap(), 1);
    let id = cardshop_protocol::keys::appliance_id(&key.verifying_key());
    site.made(&format!("/appliances/{id}/approve"), &site.admin, json!({})).await;
    assert_eq!(site.scheduler.waiting_appliances(&caller).unwrap(), 0);
}
