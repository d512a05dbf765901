//! A forgotten password: the same answer for everybody, at once, and not too often.

use axum::http::StatusCode;
use serde_json::{Value, json};

use super::super::{PASSWORD, Site};
use super::{messages, site_with_mail};

async fn ask(site: &Site, name: &str, address: &str) {
    site.scheduler.forgot_password(name, address).unwrap().await.unwrap();
}

#[tokio::test]
async fn who_forgot_a_password_gets_a_letter_with_a_link_and_nobody_learns_who_has_an_account() {
    let Some((site, mut server)) = site_with_mail().await else { return };
    let eve = json!({"username": "eve", "password": PASSWORD, "role": "manager", "email": "Eve@example.org"});
    site.made("/users", &site.admin, eve).await;
    let mut answers = Vec::new();
    for name in ["eve", "nobody", "admin", ""] {
        answers.push(site.post("/auth/forgot", "", json!({"username": name})).await);
    }
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
    assert_eq!(answers[0].0, StatusCode::OK);
    ask(&site, "eve@EXAMPLE.org", "192.0.2.9").await;
    site.scheduler.send_mail().await.unwrap();
    let letters: Vec<_> =
        server.mode("take").into_iter().filter(|l| l["rcpt"][0] == "Eve@example.org").collect();
    assert!(!letters.is_empty() && letters.len() <= 2, "by name, perhaps, and by address");
    let text = letters[0]["parts"][0][1].as_str().unwrap().to_owned();
    let token = text.split("/password#").nth(1).unwrap().split_whitespace().next().unwrap();
    site.made("/auth/password", "", json!({"token": token, "password": "another one of eve"})).await;
    site.login("eve", "another one of eve").await;
    let (_, audit) = site.get("/audit", &site.admin).await;
    let lines = audit["items"].as_array().unwrap();
    let line = lines.iter().find(|l| l["action"] == "user.forgot-password").unwrap();
    assert_eq!(line["who"], "eve");
    assert!(
        messages(&site, "").await.iter().all(|m| !m.to_string().contains("password#")),
        "no link is kept"
    );
}

#[tokio::test]
async fn an_address_asks_five_times_and_a_mailbox_is_not_filled() {
    let site = Site::new().await;
    let eve = json!({"username": "eve", "role": "manager", "email": "eve@example.org"});
    site.made("/users", &site.admin, eve).await;
    for n in 0..5 {
        ask(&site, "eve", &format!("192.0.2.{n}")).await;
        ask(&site, "nobody", "192.0.2.99").await;
    }
    assert!(site.scheduler.forgot_password("nobody", "192.0.2.99").is_err());
    assert_eq!(messages(&site, "").await.len(), 3, "of one account in an hour");
    site.scheduler.advance_clock(std::time::Duration::from_secs(3600));
    ask(&site, "eve", "192.0.2.99").await;
    assert_eq!(messages(&site, "").await.len(), 4);
    let (status, answer) = site.post("/auth/forgot", "", json!({"username": 5})).await;
    assert!(status.is_client_error(), "{answer}");
    let _: &Value = &answer;
}
