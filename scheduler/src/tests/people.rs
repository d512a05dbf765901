//! Users over time: an account that ends, a password set by a letter, and who is forgotten.

use std::time::Duration;

use axum::http::StatusCode;
use serde_json::{Value, json};

use super::{PASSWORD, Site};

const HOUR: Duration = Duration::from_secs(3600);

async fn user_id(site: &Site, name: &str) -> String {
    let (_, users) = site.get("/users?limit=500", &site.admin).await;
    let found = users["items"].as_array().unwrap().iter().find(|u| u["username"] == name);
    found.unwrap()["id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn an_account_ends_at_its_time_with_all_its_tokens_and_may_be_given_more() {
    let site = Site::new().await;
    let ends = site.scheduler.now() + HOUR / 2;
    let user = json!({"username": "ada", "password": PASSWORD, "role": "manager", "expires": ends});
    site.made("/users", &site.admin, user).await;
    let login = json!({"username": "ada", "password": PASSWORD});
    let pair = site.made("/auth/login", "", login.clone()).await;
    let token = pair["access_token"].as_str().unwrap();
    assert_eq!(site.get("/me", token).await.0, StatusCode::OK);
    site.scheduler.advance_clock(HOUR / 2 + Duration::from_secs(1));
    let refresh = json!({"refresh_token": pair["refresh_token"]});
    assert_eq!(site.get("/me", token).await.0, StatusCode::UNAUTHORIZED);
    assert_eq!(site.post("/auth/refresh", "", refresh).await.0, StatusCode::UNAUTHORIZED);
    assert_eq!(site.post("/auth/login", "", login.clone()).await.0, StatusCode::UNAUTHORIZED);

    let path = format!("/users/{}/expiry", user_id(&site, "ada").await);
    let later = site.scheduler.now() + HOUR * 100;
    site.made(&path, &site.admin, json!({"expires": later})).await;
    let pair = site.made("/auth/login", "", login.clone()).await;
    site.made(&path, &site.admin, json!({"expires": site.scheduler.now() + HOUR})).await;
    let token = pair["access_token"].as_str().unwrap();
    assert_eq!(site.get("/me", token).await.0, StatusCode::UNAUTHORIZED, "less than its tokens were told");
    let pair = site.made("/auth/login", "", login).await;
    site.made(&path, &site.admin, json!({"expires": null})).await;
    assert_eq!(
        site.get("/me", pair["access_token"].as_str().unwrap()).await.0,
        StatusCode::OK,
        "more is no reason to end"
    );
}

#[tokio::test]
async fn an_invitation_sets_a_first_password_once_and_a_reset_another() {
    let site = Site::new().await;
    let user = json!({"username": "ada", "role": "manager", "email": "ada@example.org"});
    let id = site.made("/users", &site.admin, user).await["id"].as_str().unwrap().to_owned();
    let invitation = site.made(&format!("/users/{id}/invite"), &site.admin, json!({})).await;
    let other = site.made(&format!("/users/{id}/invite"), &site.admin, json!({})).await;
    let set = |link: &Value, password: &str| json!({"token": link["token"], "password": password});
    assert_eq!(site.get("/me", invitation["token"].as_str().unwrap()).await.0, StatusCode::UNAUTHORIZED);
    let short = site.post("/auth/password", "", set(&invitation, "short")).await;
    assert_eq!(short.0, StatusCode::UNPROCESSABLE_ENTITY);
    site.made("/auth/password", "", set(&invitation, PASSWORD)).await;
    site.login("ada", PASSWORD).await;
    for used in [&invitation, &other] {
        let again = site.post("/auth/password", "", set(used, "another password")).await;
        assert_eq!(again.0, StatusCode::UNAUTHORIZED, "the password is set: no earlier letter sets it again");
    }
    let reset = site.made(&format!("/users/{id}/reset"), &site.admin, json!({})).await;
    site.scheduler.advance_clock(HOUR * 25);
    let late = site.post("/auth/password", "", set(&reset, "another password")).await;
    assert_eq!(late.0, StatusCode::UNAUTHORIZED);
    for wrong in ["ada", "@example.org", "a b@example.org", "ada@localhost"] {
        let user = json!({"username": "eve", "role": "manager", "email": wrong});
        let admin = site.login("admin", PASSWORD).await;
        assert_eq!(site.post("/users", &admin, user).await.0, StatusCode::UNPROCESSABLE_ENTITY, "{wrong}");
    }
}

#[tokio::test]
async fn an_order_is_removed_with_its_tasks_only_after_its_end_and_a_forgotten_user_is_named_nowhere() {
    let site = Site::new().await;
    let creator = site.user("maker", "creator", &[]).await;
    let ada = site.user("ada", "manager", &["default"]).await;
    let order = site.order(&ada, json!({"recipient": {"name": "Grace"}})).await;
    site.made("/addresses", &ada, json!({"company": "School"})).await;
    let image = site.create_image(&creator, 1 << 20).await;
    assert_eq!(image["stop"], false);
    let id = user_id(&site, "ada").await;
    for path in [
        format!("/orders/{order}/delete"),
        format!("/orders/{order}/anonymise"),
        format!("/users/{id}/anonymise"),
    ] {
        let (status, problem) = site.post(&path, &site.admin, json!({})).await;
        assert_eq!((status, &problem["code"]), (StatusCode::CONFLICT, &json!("order_open")), "{path}");
    }
    site.made(&format!("/orders/{order}/cancel"), &ada, json!({})).await;

    let former = site.made(&format!("/users/{id}/anonymise"), &site.admin, json!({})).await;
    assert_eq!((&former["anonymised"], &former["disabled"]), (&json!(true), &json!(true)));
    let name = former["username"].as_str().unwrap();
    assert_eq!(site.get("/me", &ada).await.0, StatusCode::UNAUTHORIZED);
    for path in ["/orders", "/events", "/configurations", "/addresses", "/users", "/audit?limit=500", "/keys"]
    {
        let (_, told) = site.get(path, &site.admin).await;
        let told = told.to_string();
        // The key list has to say whose tokens ended until the last of them has.
        assert_eq!(told.contains("\"ada") || told.contains("ada "), path == "/keys", "{path}: {told}");
        assert!(!told.contains("Grace"), "{path}");
    }
    let (_, view) = site.get(&format!("/orders/{order}"), &site.admin).await;
    assert_eq!(view["created_by"], name);
    let taken = json!({"username": "ada", "password": PASSWORD, "role": "manager"});
    assert_eq!(site.post("/users", &site.admin, taken.clone()).await.0, StatusCode::CONFLICT, "not yet");
    let back = site.post(&format!("/users/{id}/enable"), &site.admin, json!({})).await;
    assert_eq!((back.0, &back.1["code"]), (StatusCode::CONFLICT, &json!("anonymised")));
    site.scheduler.advance_clock(HOUR * 3);
    site.scheduler.clear_old().await.unwrap();
    site.scheduler.publish_keys().unwrap();
    let admin = site.login("admin", PASSWORD).await;
    site.made("/users", &admin, taken).await;
    assert_eq!(site.get("/me", &ada).await.0, StatusCode::UNAUTHORIZED);

    let gone = site.made(&format!("/orders/{order}/delete"), &admin, json!({})).await;
    assert_eq!(gone["id"], order.to_string());
    let keep = site.shelf.told(&format!("/images/{}", gone["image"]["id"].as_str().unwrap()));
    assert!(keep["keep_until"].is_string(), "the warehouse may remove the image: {keep}");
    for path in
        [format!("/orders/{order}"), format!("/tasks?order={order}"), format!("/events?order={order}")]
    {
        assert_eq!(site.get(&path, &admin).await.0, StatusCode::NOT_FOUND, "{path}");
    }
}
