//! A site from its first start on: what it begins with, what it keeps, how lists are read, who serves which channel.

use std::time::Duration;

use axum::http::StatusCode;
use serde_json::{Value, json};

use super::{Site, id};

fn items(list: &Value) -> &Vec<Value> {
    list["items"].as_array().unwrap()
}

#[tokio::test]
async fn an_empty_site_begins_with_staff_a_channel_a_catalogue_and_its_warehouses_once() {
    let mut site = Site::new().await;
    site.config.warehouses.push("http://127.0.0.1:2".into());
    let site = site.restart().await.restart().await;
    let (_, users) = site.get("/users", &site.admin).await;
    assert_eq!((items(&users).len(), &items(&users)[0]["role"]), (1, &json!("staff")));
    let (_, channels) = site.get("/channels", &site.admin).await;
    assert_eq!((items(&channels).len(), &items(&channels)[0]["slug"]), (1, &json!("default")));
    let (_, warehouses) = site.get("/warehouses", &site.admin).await;
    let urls: Vec<_> = items(&warehouses).iter().map(|w| w["url"].as_str().unwrap()).collect();
    assert_eq!(urls, site.config.warehouses);
    let (_, media) = site.get("/media", &site.admin).await;
    let sizes: Vec<_> = items(&media).iter().map(|m| m["usable_bytes"].as_u64().unwrap()).collect();
    assert_eq!(sizes[..3], [7_760_000_000, 15_520_000_000, 30_720_000_000], "real usable bytes");
}

#[tokio::test]
async fn an_access_token_ends_after_an_hour_and_a_refresh_token_after_thirty_days() {
    let site = Site::new().await;
    let login = json!({"username": "admin", "password": super::PASSWORD});
    let pair = site.made("/auth/login", "", login).await;
    assert_eq!(pair["expires_in"], 3600);
    let token = pair["access_token"].as_str().unwrap();
    site.scheduler.advance_clock(Duration::from_secs(3590));
    assert_eq!(site.get("/me", token).await.0, StatusCode::OK);
    site.scheduler.advance_clock(Duration::from_secs(20));
    assert_eq!(site.get("/me", token).await.0, StatusCode::UNAUTHORIZED);
    let refresh = |pair: &Value| json!({"refresh_token": pair["refresh_token"]});
    site.scheduler.advance_clock(Duration::from_secs(29 * 86_400));
    let next = site.made("/auth/refresh", "", refresh(&pair)).await;
    site.scheduler.advance_clock(Duration::from_secs(30 * 86_400));
    assert_eq!(site.post("/auth/refresh", "", refresh(&next)).await.0, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn an_order_and_its_tasks_tell_each_status_with_its_time_also_after_a_restart() {
    let site = Site::new().await;
    let creator = site.user("maker", "creator", &[]).await;
    let order = site.order(&site.admin, json!({})).await;
    site.scheduler.advance_clock(Duration::from_secs(60));
    site.create_image(&creator, 1 << 20).await;
    site.made(&format!("/orders/{order}/cancel"), &site.admin, json!({})).await;
    let site = site.restart().await;
    let (_, view) = site.get(&format!("/orders/{order}"), &site.admin).await;
    let history = view["history"].as_array().unwrap();
    let statuses: Vec<_> = history.iter().map(|h| h["status"].as_str().unwrap()).collect();
    assert_eq!(statuses, ["created", "creating", "ready", "canceled"]);
    let times: Vec<_> = history.iter().map(|h| h["at"].as_str().unwrap()).collect();
    assert!(times.is_sorted() && times[0] < times[1], "{times:?}");
    let (_, events) = site.get(&format!("/events?order={order}"), &site.admin).await;
    let told = events.to_string();
    assert!(
        told.contains("Creator maker took the image") && told.contains("admin canceled the order"),
        "{told}"
    );
    let (_, tasks) = site.get(&format!("/tasks?order={order}"), &site.admin).await;
    let statuses: Vec<_> = items(&tasks).iter().map(|t| t["status"].as_str().unwrap()).collect();
    assert_eq!(statuses, ["succeeded", "canceled", "canceled", "canceled"]);
}

#[tokio::test]
async fn lists_are_read_in_pages_and_no_item_is_missed_or_shown_twice() {
    let site = Site::new().await;
    let mut made = Vec::new();
    for _ in 0..7 {
        made.push(site.order(&site.admin, json!({})).await);
    }
    made.reverse();
    let (mut seen, mut cursor) = (Vec::new(), String::new());
    loop {
        let (_, page) = site.get(&format!("/orders?limit=3{cursor}"), &site.admin).await;
        seen.extend(items(&page).iter().map(|o| id::<cardshop_protocol::ids::OrderId>(&o["id"])));
        let Some(next) = page["next_cursor"].as_str() else { break };
        assert_eq!(items(&page).len(), 3);
        cursor = format!("&cursor={next}");
    }
    assert_eq!(seen, made, "newest first");
}

#[tokio::test]
async fn a_private_channel_is_served_by_those_who_name_it_and_an_inactive_one_takes_no_orders() {
    let site = Site::new().await;
    site.channel("open").await;
    site.made("/channels", &site.admin, json!({"slug": "closed", "active": false})).await;
    site.made("/channels", &site.admin, json!({"slug": "secret", "private": true})).await;
    let anybody = site.user("anybody", "creator", &[]).await;
    let own = site.user("own", "creator", &["secret"]).await;
    let other = site.user("other", "creator", &["open"]).await;
    let secret = site.order(&site.admin, json!({"channel": "secret"})).await;
    let claims = async |creator: &str| site.post("/tasks/claim", creator, json!({})).await;
    assert_eq!(claims(&anybody).await.0, StatusCode::NO_CONTENT, "it was not named by anybody");
    assert_eq!(claims(&other).await.0, StatusCode::NO_CONTENT);
    assert_eq!(claims(&own).await.1["task"], format!("{secret}-image"));
    let open = site.order(&site.admin, json!({"channel": "open"})).await;
    assert_eq!(claims(&own).await.0, StatusCode::NO_CONTENT);
    assert_eq!(claims(&anybody).await.1["task"], format!("{open}-image"));

    let configuration = site.made("/configurations", &site.admin, json!({"name": "x", "recipe": {}})).await;
    let body = json!({"configuration": configuration["id"], "channel": "closed"});
    let (status, problem) = site.post("/orders", &site.admin, body).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(problem["detail"].as_str().unwrap().contains("takes no orders now"), "{problem}");
}
