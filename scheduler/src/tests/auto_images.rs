//! Auto-images: built on a schedule and on demand, served by a name that stays.

use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, StatusCode, header};
use serde_json::{Value, json};
use tower::ServiceExt;

use super::{PASSWORD, Site};

const DAY: Duration = Duration::from_secs(86_400);

/// Where the stable name leads.
async fn leads_to(site: &Site, name: &str, token: &str) -> (StatusCode, Option<String>) {
    let mut request = Request::builder().uri(format!("/api/v1/auto/{name}/image"));
    if !token.is_empty() {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    let response = site.scheduler.router().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
    let location = response.headers().get(header::LOCATION).map(|l| l.to_str().unwrap().to_owned());
    (response.status(), location)
}

/// Lets the timers run once.
async fn tick(site: &Site) {
    site.scheduler.tick_orders().await.unwrap();
    site.scheduler.tell_links().await.unwrap();
    site.scheduler.tick_auto_images().await.unwrap();
}

async fn view(site: &Site, id: &str) -> Value {
    site.scheduler
        .auto_image(&admin(site), id.parse().unwrap())
        .map(|v| serde_json::to_value(v).unwrap())
        .unwrap()
}

fn admin(site: &Site) -> crate::core::rights::Principal {
    crate::core::rights::Principal {
        sub: "admin".into(),
        role: cardshop_protocol::token::Role::Staff,
        channels: vec![],
        epoch: 0,
        rights: None,
        expires: site.scheduler.now().as_secs() + 60,
        signed_by: None,
        address: "here".into(),
    }
}

#[tokio::test]
async fn an_auto_image_is_built_monthly_and_on_demand_and_the_old_one_is_served_until_the_new_is_there() {
    let site = Site::new().await;
    let creator = site.user("maker", "creator", &[]).await;
    let configuration =
        site.made("/configurations", &site.admin, json!({"name": "Wiki", "recipe": {}})).await;
    let body = json!({"name": "wiki-en", "configuration": configuration["id"], "public": true});
    let made = site.made("/auto-images", &site.admin, body.clone()).await;
    let id = made["id"].as_str().unwrap();
    assert_eq!(site.post("/auto-images", &site.admin, body).await.1["code"], "name_taken");
    assert_eq!(leads_to(&site, "wiki-en", "").await.0, StatusCode::NOT_FOUND, "nothing is built yet");
    tick(&site).await;
    site.create_image(&creator, 1 << 20).await;
    tick(&site).await;
    let first = view(&site, id).await;
    assert_eq!((&first["building"], &first["size"]), (&Value::Null, &json!(1 << 20)));
    let (status, location) = leads_to(&site, "wiki-en", "").await;
    assert_eq!((status, location.as_deref()), (StatusCode::TEMPORARY_REDIRECT, first["link"].as_str()));
    let (_, told) = site.get("/auto/wiki-en", "").await;
    assert_eq!((&told["link"], &told["current"]), (&first["link"], &first["current"]));

    site.scheduler.advance_clock(DAY * 31);
    tick(&site).await;
    let creator = site.login("maker", PASSWORD).await;
    for try_of in 0..3 {
        let task = site.made("/tasks/claim", &creator, json!({})).await;
        assert!(task["task"].is_string(), "try {try_of}");
        let path = format!("/tasks/{}/report", task["task"].as_str().unwrap());
        site.made(&path, &creator, json!({"state": "failed", "reason": "no space", "permanent": false}))
            .await;
        site.scheduler.advance_clock(Duration::from_secs(100));
    }
    tick(&site).await;
    let failed = view(&site, id).await;
    assert_eq!((&failed["failures"], &failed["current"]), (&json!(1), &first["current"]));
    assert_eq!(failed["failure"], "no space");
    assert_eq!(
        leads_to(&site, "wiki-en", "").await.1.as_deref(),
        first["link"].as_str(),
        "the old file is kept"
    );
    assert_eq!(site.get("/auto/wiki-en", "").await.1["failure"], Value::Null, "not everybody's to know");
    tick(&site).await;
    assert_eq!(view(&site, id).await["building"], Value::Null, "it waits an hour before it tries again");

    let admin = site.login("admin", PASSWORD).await;
    site.made(&format!("/auto-images/{id}/trigger"), &admin, json!({})).await;
    tick(&site).await;
    site.create_image(&creator, 2 << 20).await;
    tick(&site).await;
    let second = view(&site, id).await;
    assert_eq!((&second["failures"], &second["size"]), (&json!(0), &json!(2 << 20)));
    assert_ne!(second["current"], first["current"]);
    let (_, old) = site.get(&format!("/orders/{}", first["current"].as_str().unwrap()), &admin).await;
    assert_eq!(old["status"], "expired", "the warehouse removes the old file");
    let (_, orders) = site.get("/orders", &admin).await;
    assert_eq!(orders["items"].as_array().unwrap().len(), 3, "one for each build");
}

#[tokio::test]
async fn a_private_auto_image_is_for_those_of_its_channel_and_a_deleted_one_ends() {
    let site = Site::new().await;
    site.channel("north").await;
    let creator = site.user("maker", "creator", &[]).await;
    let ada = site.user("ada", "manager", &["default"]).await;
    let eve = site.user("eve", "manager", &["north"]).await;
    let configuration = site.made("/configurations", &ada, json!({"name": "Wiki", "recipe": {}})).await;
    let body = json!({"name": "ours", "configuration": configuration["id"], "every_days": 7});
    let made = site.made("/auto-images", &ada, body).await;
    let id = made["id"].as_str().unwrap();
    tick(&site).await;
    site.create_image(&creator, 1 << 20).await;
    tick(&site).await;
    for (token, status) in
        [("", StatusCode::NOT_FOUND), (&eve, StatusCode::NOT_FOUND), (&ada, StatusCode::TEMPORARY_REDIRECT)]
    {
        assert_eq!(leads_to(&site, "ours", token).await.0, status);
    }
    let path = format!("/auto-images/{id}/update");
    assert_eq!(site.post(&path, &eve, json!({"public": true})).await.0, StatusCode::NOT_FOUND);
    assert_eq!(site.post(&path, &ada, json!({"every_days": 0})).await.0, StatusCode::UNPROCESSABLE_ENTITY);
    let changed = site.made(&path, &ada, json!({"public": true, "every_days": 60})).await;
    assert_eq!((&changed["public"], &changed["every_days"]), (&json!(true), &json!(60)));
    assert_eq!(leads_to(&site, "ours", "").await.0, StatusCode::TEMPORARY_REDIRECT);

    let gone = site.made(&format!("/auto-images/{id}/delete"), &ada, json!({})).await;
    assert_eq!(leads_to(&site, "ours", &ada).await.0, StatusCode::NOT_FOUND);
    let (_, order) = site.get(&format!("/orders/{}", gone["current"].as_str().unwrap()), &ada).await;
    assert_eq!(order["status"], "expired");
    let body = json!({"name": "ours", "configuration": configuration["id"]});
    site.made("/auto-images", &ada, body).await;
}
