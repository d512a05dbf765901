//! Logins, refresh tokens, disabling, keys.

use axum::body::Body;
use axum::http::{Request, StatusCode};
use cardshop_protocol::keys::{KeyList, KeyUse};
use serde_json::{Value, json};
use tower::ServiceExt;

use super::{PASSWORD, Site};

#[tokio::test]
async fn every_failed_login_has_the_same_answer() {
    let site = Site::new().await;
    let user = json!({"username": "gone", "password": PASSWORD, "role": "operator"});
    let user = site.made("/users", &site.admin, user).await;
    let path = format!("/users/{}/disable", user["id"].as_str().unwrap());
    site.made(&path, &site.admin, json!({})).await;
    let login = |name: &str, password: &str| json!({"username": name, "password": password});
    let wrong = site.post("/auth/login", "", login("admin", "wrong password")).await;
    assert_eq!((wrong.0, &wrong.1["code"]), (StatusCode::UNAUTHORIZED, &json!("not_known")));
    for (name, password) in [("nobody", PASSWORD), ("gone", PASSWORD), ("admin", ""), ("a\u{0}b", "x")] {
        assert_eq!(site.post("/auth/login", "", login(name, password)).await, wrong, "{name}");
    }
}

#[tokio::test]
async fn many_failed_logins_have_to_wait_and_a_valid_token_does_not() {
    let site = Site::new().await;
    let wrong = json!({"username": "admin", "password": "wrong password"});
    let mut last = StatusCode::OK;
    for _ in 0..11 {
        last = site.post("/auth/login", "", wrong.clone()).await.0;
    }
    assert_eq!(last, StatusCode::TOO_MANY_REQUESTS);
    let right = json!({"username": "admin", "password": PASSWORD});
    assert_eq!(site.post("/auth/login", "", right.clone()).await.0, StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(site.get("/users", &site.admin).await.0, StatusCode::OK);
    site.scheduler.advance_clock(std::time::Duration::from_secs(30));
    assert_eq!(site.post("/auth/login", "", right).await.0, StatusCode::OK);
}

#[tokio::test]
async fn a_refresh_token_is_good_once_and_its_second_use_ends_the_family() {
    let site = Site::new().await;
    let login = json!({"username": "admin", "password": PASSWORD});
    let first = site.made("/auth/login", "", login).await;
    let refresh = |pair: &Value| json!({"refresh_token": pair["refresh_token"]});
    let second = site.made("/auth/refresh", "", refresh(&first)).await;
    assert_ne!(first["refresh_token"], second["refresh_token"]);
    let site = site.restart().await;
    let third = site.made("/auth/refresh", "", refresh(&second)).await;
    assert_eq!(site.get("/users", third["access_token"].as_str().unwrap()).await.0, StatusCode::OK);

    let reused = site.post("/auth/refresh", "", refresh(&second)).await;
    assert_eq!((reused.0, &reused.1["code"]), (StatusCode::UNAUTHORIZED, &json!("not_known")));
    let ended = site.post("/auth/refresh", "", refresh(&third)).await;
    assert_eq!(ended, reused, "the thief's and the owner's copy have both ended");
}

#[tokio::test]
async fn a_made_up_refresh_token_is_refused_and_harms_nobody() {
    let site = Site::new().await;
    let login = json!({"username": "admin", "password": PASSWORD});
    let pair = site.made("/auth/login", "", login).await;
    let text = pair["refresh_token"].as_str().unwrap();
    let forged = text.replace(".1.", ".0.");
    for bad in [forged.as_str(), "", "csr1", "csr1.a.b.c", &text[..text.len() - 1]] {
        let answer = site.post("/auth/refresh", "", json!({"refresh_token": bad})).await;
        assert_eq!(answer.0, StatusCode::UNAUTHORIZED, "{bad}");
    }
    site.made("/auth/refresh", "", json!({"refresh_token": text})).await;
}

#[tokio::test]
async fn disabling_a_user_ends_its_tokens_and_says_so_to_other_services() {
    let site = Site::new().await;
    let user = json!({"username": "eve", "password": PASSWORD, "role": "manager"});
    let user = site.made("/users", &site.admin, user).await;
    let pair = site.made("/auth/login", "", json!({"username": "eve", "password": PASSWORD})).await;
    let token = pair["access_token"].as_str().unwrap();
    assert_eq!(site.get("/orders", token).await.0, StatusCode::OK);
    let before = site.scheduler.tagged_keys().0;

    let path = format!("/users/{}/disable", user["id"].as_str().unwrap());
    site.made(&path, &site.admin, json!({})).await;
    assert_eq!(site.get("/orders", token).await.0, StatusCode::UNAUTHORIZED);
    let refresh = json!({"refresh_token": pair["refresh_token"]});
    assert_eq!(site.post("/auth/refresh", "", refresh).await.0, StatusCode::UNAUTHORIZED);
    assert_ne!(site.scheduler.tagged_keys().0, before);
    let (_, keys) = site.get("/keys", "").await;
    let keys: KeyList = serde_json::from_value(keys).unwrap();
    assert_eq!((keys.revoked[0].sub.as_str(), keys.revoked[0].epoch), ("eve", 1));
    let site = site.restart().await;
    assert_eq!(site.get("/orders", token).await.0, StatusCode::UNAUTHORIZED, "also after a restart");
}

#[tokio::test]
async fn keys_are_listed_with_a_tag_and_not_sent_again() {
    let site = Site::new().await;
    let url = site.config.warehouses[0].clone();
    site.scheduler.pinned_keys(&url).await.unwrap();
    let request = |tag: Option<&str>| {
        let mut request = Request::get("/api/v1/keys");
        if let Some(tag) = tag {
            request = request.header("if-none-match", tag);
        }
        request.body(Body::empty()).unwrap()
    };
    let response = site.scheduler.router().oneshot(request(None)).await.unwrap();
    let tag = response.headers()["etag"].to_str().unwrap().to_owned();
    let same = site.scheduler.router().oneshot(request(Some(&tag))).await.unwrap();
    assert_eq!(same.status(), StatusCode::NOT_MODIFIED);
    let keys = site.scheduler.keys().current();
    let uses: Vec<_> = keys.items.iter().map(|k| k.key_use).collect();
    assert_eq!(uses, [KeyUse::Jwt, KeyUse::Index]);
}

#[tokio::test]
async fn the_cookie_of_the_pages_reads_and_never_changes() {
    let site = Site::new().await;
    let request = |method: &str| {
        Request::builder()
            .method(method)
            .uri("/api/v1/users")
            .header("cookie", format!("a=b; cardshop_session={}", site.admin))
            .body(Body::from("{}"))
            .unwrap()
    };
    assert_eq!(site.send(request("GET")).await.0, StatusCode::OK);
    assert_eq!(site.send(request("POST")).await.0, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn users_have_checked_names_and_roles_and_unique_ones() {
    let site = Site::new().await;
    let user = |name: &str, role: &str| json!({"username": name, "password": PASSWORD, "role": role});
    for (name, role, field) in [
        ("Ada", "manager", "username"),
        ("scheduler", "manager", "username"),
        ("0123456789abcdef", "manager", "username"),
        ("ada", "scheduler", "role"),
        ("ada", "king", "role"),
    ] {
        let (status, problem) = site.post("/users", &site.admin, user(name, role)).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{name} {role}");
        assert!(problem["detail"].as_str().unwrap().contains(field), "{problem}");
    }
    let made = site.made("/users", &site.admin, user("ada", "manager")).await;
    assert_eq!(made["channels"], json!(["default"]));
    assert!(!made.to_string().contains("argon2"));
    let (status, problem) = site.post("/users", &site.admin, user("ada", "operator")).await;
    assert_eq!((status, &problem["code"]), (StatusCode::CONFLICT, &json!("username_taken")));
}

#[tokio::test]
async fn a_changed_password_ends_what_was_logged_in_with_the_old_one() {
    const NEW: &str = "another horse battery";
    let site = Site::new().await;
    let token = site.user("olga", "operator", &["default"]).await;
    let pair = site.made("/auth/login", "", json!({"username": "olga", "password": PASSWORD})).await;
    let change = |old: &str, new: &str| json!({"old": old, "new": new});
    let (status, _) = site.post("/me/password", &token, change("wrong password", NEW)).await;
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    let (status, problem) = site.post("/me/password", &token, change(PASSWORD, "short")).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{problem}");
    site.made("/me/password", &token, change(PASSWORD, NEW)).await;
    assert_eq!(site.get("/orders", &token).await.0, StatusCode::UNAUTHORIZED);
    let refresh = json!({"refresh_token": pair["refresh_token"]});
    assert_eq!(site.post("/auth/refresh", "", refresh).await.0, StatusCode::UNAUTHORIZED);
    let old = json!({"username": "olga", "password": PASSWORD});
    assert_eq!(site.post("/auth/login", "", old).await.0, StatusCode::UNAUTHORIZED);
    let token = site.login("olga", NEW).await;
    assert_eq!(site.get("/orders", &token).await.0, StatusCode::OK);
}

#[tokio::test]
async fn wrong_old_passwords_are_counted_as_failed_logins() {
    let site = Site::new().await;
    let token = site.user("olga", "operator", &["default"]).await;
    let mut last = StatusCode::OK;
    for _ in 0..11 {
        let wrong = json!({"old": "wrong password", "new": "another horse battery"});
        last = site.post("/me/password", &token, wrong).await.0;
    }
    assert_eq!(last, StatusCode::TOO_MANY_REQUESTS);
}

#[tokio::test]
async fn staff_gives_a_new_password_and_lets_a_disabled_user_in_again() {
    let site = Site::new().await;
    let token = site.user("olga", "operator", &["default"]).await;
    let (_, users) = site.get("/users", &site.admin).await;
    let olga = users["items"].as_array().unwrap().iter().find(|u| u["username"] == "olga").unwrap();
    let path = |what: &str| format!("/users/{}/{what}", olga["id"].as_str().unwrap());
    for what in ["password", "disable", "enable"] {
        let body = json!({"password": "another horse battery"});
        assert_eq!(site.post(&path(what), &token, body).await.0, StatusCode::FORBIDDEN, "{what}");
    }
    site.made(&path("password"), &site.admin, json!({"password": "another horse battery"})).await;
    assert_eq!(site.get("/orders", &token).await.0, StatusCode::UNAUTHORIZED);
    site.made(&path("disable"), &site.admin, json!({})).await;
    let login = json!({"username": "olga", "password": "another horse battery"});
    assert_eq!(site.post("/auth/login", "", login).await.0, StatusCode::UNAUTHORIZED);
    site.made(&path("enable"), &site.admin, json!({})).await;
    let token = site.login("olga", "another horse battery").await;
    assert_eq!(site.get("/orders", &token).await.0, StatusCode::OK);
    let (_, audit) = site.get("/audit", &site.admin).await;
    let actions: Vec<_> = audit["items"].as_array().unwrap().iter().map(|a| a["action"].clone()).collect();
    for action in ["user.enable", "user.disable", "user.reset-password"] {
        assert!(actions.contains(&json!(action)), "{actions:?}");
    }
}
