//! Organizations pay for orders in units: charged when an order is placed, given back when it fails or is canceled.

use axum::http::StatusCode;
use serde_json::{Value, json};

use super::{Site, id};

async fn school(site: &Site, more: Value) -> (String, String) {
    let mut body = json!({"name": "School", "units": 5});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let organization = site.made("/organizations", &site.admin, body).await;
    let organization = organization["id"].as_str().unwrap().to_owned();
    let user = json!({
        "username": "teacher", "password": super::PASSWORD, "role": "manager", "organization": organization,
    });
    site.made("/users", &site.admin, user).await;
    (organization, site.login("teacher", super::PASSWORD).await)
}

async fn units(site: &Site, token: &str) -> Value {
    let (_, list) = site.get("/organizations", token).await;
    assert_eq!(list["items"].as_array().unwrap().len(), 1, "one sees one's own: {list}");
    list["items"][0]["units"].clone()
}

#[tokio::test]
async fn units_are_charged_when_an_order_is_placed_and_given_back_when_it_is_canceled_or_fails() {
    let site = Site::new().await;
    let creator = site.user("maker", "creator", &[]).await;
    site.made("/organizations", &site.admin, json!({"name": "Another", "units": 9})).await;
    site.channel("north").await;
    let warehouse = site.get("/warehouses", &site.admin).await.1["items"][0]["id"].clone();
    let more =
        json!({"several_orders": true, "channel": "north", "warehouses": [warehouse], "language": "fr"});
    let (_, teacher) = school(&site, more).await;
    let order = site.order(&teacher, json!({"quantity": 3})).await;
    assert_eq!(units(&site, &teacher).await, 2);
    let (_, view) = site.get(&format!("/orders/{order}"), &teacher).await;
    assert_eq!(
        (&view["units"], &view["channel"]),
        (&json!(3), &json!("north")),
        "the organization's channel"
    );
    assert_eq!((&view["warehouse"], &view["mirrors"]), (&json!(site.config.warehouses[0]), &json!([])));

    let body = json!({"configuration": view["configuration"], "quantity": 3});
    let (status, problem) = site.post("/orders", &teacher, body).await;
    assert_eq!((status, &problem["code"]), (StatusCode::CONFLICT, &json!("not_enough_units")));
    assert_eq!(units(&site, &teacher).await, 2, "a refused order costs nothing");

    site.made("/tasks/claim", &creator, json!({})).await;
    let failed = json!({"state": "failed", "reason": "wrong recipe", "permanent": true});
    site.made(&format!("/tasks/{order}-image/report"), &creator, failed).await;
    assert_eq!(units(&site, &teacher).await, 5);
    site.made(&format!("/orders/{order}/retry"), &teacher, json!({})).await;
    assert_eq!(units(&site, &teacher).await, 2, "another try costs again");
    site.made(&format!("/orders/{order}/cancel"), &teacher, json!({})).await;
    site.made(&format!("/orders/{order}/cancel"), &teacher, json!({})).await;
    assert_eq!(units(&site, &teacher).await, 5, "once");
    let (_, explained) = site.get(&format!("/orders/{order}/explain"), &teacher).await;
    assert!(explained["story"].to_string().contains("3 units were given back to School"), "{explained}");
}

#[tokio::test]
async fn orders_placed_at_once_never_spend_a_unit_twice_and_only_one_is_open_at_a_time() {
    let site = Site::new().await;
    let (organization, teacher) = school(&site, json!({})).await;
    let configuration = json!({"name": "School", "recipe": {"files": []}});
    let configuration = site.made("/configurations", &teacher, configuration).await["id"].clone();
    let body = json!({"configuration": configuration, "quantity": 2});
    let place = || site.post("/orders", &teacher, body.clone());
    let (a, b, c, d) = tokio::join!(place(), place(), place(), place());
    let answers = [a, b, c, d];
    let placed: Vec<_> = answers.iter().filter(|(status, _)| *status == StatusCode::CREATED).collect();
    assert_eq!(placed.len(), 1, "{answers:?}");
    assert!(answers.iter().any(|(_, problem)| problem["code"] == "one_open_order"));
    assert_eq!(units(&site, &teacher).await, 3);

    let first: cardshop_protocol::ids::OrderId = id(&placed[0].1["id"]);
    site.made(&format!("/orders/{first}/cancel"), &teacher, json!({})).await;
    assert_eq!(place().await.0, StatusCode::CREATED, "the next one when the first has ended");
    let path = format!("/organizations/{organization}/units");
    let (status, _) = site.post(&path, &site.admin, json!({"add": -4})).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "never below none");
    site.made(&path, &site.admin, json!({"add": 10, "reason": "invoice 7"})).await;
    assert_eq!(units(&site, &teacher).await, 13);
    assert_eq!(site.post(&path, &teacher, json!({"add": 10})).await.0, StatusCode::FORBIDDEN);
    let (_, audit) = site.get("/audit", &site.admin).await;
    assert!(audit.to_string().contains("invoice 7"));
}
