//! The address book: whose it is, what an order keeps of it, and that nobody overwrites another's change.

use axum::http::StatusCode;
use serde_json::{Value, json};

use super::{PASSWORD, Site};

fn school() -> Value {
    json!({"name": "Awa", "company": "École", "street": ["2 rue X"], "city": "Kita", "country": "ml",
        "phone": "00223 20 21 22 23", "email": "awa@example.org", "language": "fr"})
}

/// A manager of an organization of its own in channel `default`.
async fn manager_of(site: &Site, name: &str) -> String {
    let organization = json!({"name": name, "units": 10, "several_orders": true});
    let organization = site.made("/organizations", &site.admin, organization).await;
    let user = json!({"username": name, "password": PASSWORD, "role": "manager", "organization": organization["id"]});
    site.made("/users", &site.admin, user).await;
    site.login(name, PASSWORD).await
}

#[tokio::test]
async fn an_address_is_its_organizations_and_nobody_elses() {
    let site = Site::new().await;
    let (one, other) = (manager_of(&site, "one").await, manager_of(&site, "other").await);
    let made = site.made("/addresses", &one, school()).await;
    assert_eq!((&made["country"], &made["phone"]), (&json!("ML"), &json!("+22320212223")));
    assert_eq!((&made["shippable"], &made["version"]), (&json!(true), &json!(1)));
    let path = format!("/addresses/{}", made["id"].as_str().unwrap());
    for act in ["", "/update", "/delete"] {
        let answer = match act {
            "" => site.get(&path, &other).await,
            act => site.post(&format!("{path}{act}"), &other, json!({"version": 1})).await,
        };
        assert_eq!(answer.0, StatusCode::NOT_FOUND, "{act}");
    }
    let list = |answer: (StatusCode, Value)| answer.1["items"].as_array().unwrap().len();
    assert_eq!(list(site.get("/addresses", &other).await), 0);
    assert_eq!(list(site.get("/addresses", &one).await), 1);
    assert_eq!(list(site.get("/addresses", &site.admin).await), 1);
}

#[tokio::test]
async fn a_change_that_was_made_from_an_older_version_is_refused_and_names_both() {
    let site = Site::new().await;
    let made = site.made("/addresses", &site.admin, school()).await;
    let path = format!("/addresses/{}/update", made["id"].as_str().unwrap());
    let changed =
        site.made(&path, &site.admin, json!({"version": 1, "street": null, "city": "Bamako"})).await;
    assert_eq!(
        (&changed["version"], &changed["city"], &changed["name"]),
        (&json!(2), &json!("Bamako"), &json!("Awa"))
    );
    assert_eq!((&changed["shippable"], &changed["missing"]), (&json!(false), &json!(["street"])));
    let (status, answer) = site.post(&path, &site.admin, json!({"version": 1, "city": "Ségou"})).await;
    assert_eq!((status, &answer["code"]), (StatusCode::CONFLICT, &json!("changed")));
    assert!(answer["detail"].as_str().unwrap().contains("version 2 is there, yours is 1"), "{answer}");
    let (status, answer) = site.post(&path, &site.admin, json!({"version": 2, "phone": "12"})).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(answer["detail"].as_str().unwrap().contains("field phone: must begin with +"), "{answer}");
}

#[tokio::test]
async fn an_order_keeps_a_copy_of_an_address_that_a_parcel_reaches() {
    let site = Site::new().await;
    let (one, other) = (manager_of(&site, "one").await, manager_of(&site, "other").await);
    let address = site.made("/addresses", &one, school()).await;
    let id = address["id"].as_str().unwrap();
    let order = site.order(&one, json!({"address": id})).await;
    site.made(&format!("/addresses/{id}/delete"), &one, json!({})).await;
    let (_, view) = site.get(&format!("/orders/{order}"), &one).await;
    assert_eq!(view["recipient"]["address"], "2 rue X\nKita");
    assert_eq!((&view["recipient"]["language"], &view["recipient"]["country"]), (&json!("fr"), &json!("ML")));

    let vague = site.made("/addresses", &one, json!({"name": "Awa", "email": "awa@example.org"})).await;
    let configuration = site.made("/configurations", &one, json!({"name": "S", "recipe": {}})).await;
    let order = |address: &Value, kind: &str| json!({"configuration": configuration["id"], "kind": kind, "address": address["id"]});
    let (status, answer) = site.post("/orders", &one, order(&vague, "physical")).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(
        answer["detail"].as_str().unwrap().contains("it has no street, postal_code, city, country"),
        "{answer}"
    );
    site.made("/orders", &one, order(&vague, "virtual")).await;
    let (status, answer) = site.post("/orders", &other, order(&vague, "virtual")).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{answer}");
    let mut both = order(&vague, "virtual");
    both["recipient"] = json!("somebody");
    let (_, answer) = site.post("/orders", &one, both).await;
    assert!(answer["detail"].as_str().unwrap().contains("beside a recipient"), "{answer}");
}
