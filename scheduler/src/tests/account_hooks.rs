//! Accounts for what was bought elsewhere: only by a signature, once for each purchase, and only accounts of one's own.

use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, StatusCode};
use serde_json::{Value, json};

use super::{PASSWORD, Site};

const DAY: Duration = Duration::from_secs(86_400);

struct Shop<'a> {
    site: &'a Site,
    hook: String,
    secret: String,
}

impl Shop<'_> {
    async fn send(&self, body: &str, signature: &str) -> (StatusCode, Value) {
        let request = Request::builder()
            .method("POST")
            .uri(format!("/api/v1/account-hooks/{}/purchase", self.hook))
            .header("x-cardshop-signature", signature);
        self.site.send(request.body(Body::from(body.to_owned())).unwrap()).await
    }

    fn sign(&self, body: &str) -> String {
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, self.secret.as_bytes());
        let tag = ring::hmac::sign(&key, body.as_bytes());
        format!("sha256={}", data_encoding::HEXLOWER.encode(tag.as_ref()))
    }

    async fn buy(&self, purchase: &str, username: &str, days: u32) -> (StatusCode, Value) {
        let body = json!({
            "purchase": purchase, "at": self.site.scheduler.now(), "username": username,
            "email": "ada@example.org", "days": days,
        })
        .to_string();
        self.send(&body, &self.sign(&body)).await
    }
}

#[tokio::test]
async fn a_signed_purchase_makes_a_managers_account_that_ends_and_another_moves_its_end() {
    let site = Site::new().await;
    let made = site.made("/account-hooks", &site.admin, json!({"name": "web"})).await;
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let shop = Shop { site: &site, hook: text(&made["id"]), secret: text(&made["secret"]) };
    let (status, first) = shop.buy("1", "ada", 30).await;
    assert_eq!(
        (status, &first["made"], &first["user"]["role"]),
        (StatusCode::OK, &json!(true), &json!("manager"))
    );
    let start = site.scheduler.now();
    let ends = |answer: &Value| answer["user"]["expires"].as_str().unwrap().parse().unwrap();
    let days = |answer: &Value| {
        let end: cardshop_protocol::time::Timestamp = ends(answer);
        end.since(start).as_secs().div_ceil(86_400)
    };
    assert_eq!(days(&first), 30);
    site.made("/auth/password", "", json!({"token": first["token"], "password": PASSWORD})).await;
    site.login("ada", PASSWORD).await;

    let (_, again) = shop.buy("1", "ada", 30).await;
    assert_eq!((&again["made"], days(&again)), (&json!(false), 30), "the same purchase counts once");
    let (_, more) = shop.buy("2", "ada", 30).await;
    assert_eq!((&more["made"], days(&more), &more["token"]), (&json!(false), 60, &Value::Null));
    let (_, audit) = site.get("/audit?limit=500", &site.admin).await;
    let lines = audit["items"].as_array().unwrap();
    assert_eq!(lines.iter().filter(|l| l["who"] == "hook web" && l["action"] == "user.buy").count(), 2);

    site.scheduler.advance_clock(DAY * 61);
    let login = json!({"username": "ada", "password": PASSWORD});
    assert_eq!(site.post("/auth/login", "", login).await.0, StatusCode::UNAUTHORIZED, "it has ended");
    shop.buy("3", "ada", 1).await;
    site.login("ada", PASSWORD).await;
}

#[tokio::test]
async fn a_purchase_with_a_wrong_signature_or_time_or_of_somebody_elses_account_changes_nothing() {
    let site = Site::new().await;
    let made = site.made("/account-hooks", &site.admin, json!({"name": "web"})).await;
    let other = site.made("/account-hooks", &site.admin, json!({"name": "other"})).await;
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let shop = Shop { site: &site, hook: text(&made["id"]), secret: text(&made["secret"]) };
    let stranger = Shop { site: &site, hook: text(&made["id"]), secret: text(&other["secret"]) };
    site.user("bob", "manager", &["default"]).await;
    let before = site.scheduler.inner.store.fingerprint();
    let body =
        json!({"purchase": "1", "at": site.scheduler.now(), "username": "ada", "days": 30}).to_string();
    let good = shop.sign(&body);
    for signature in ["", "sha256=", "x", &"0".repeat(64), &stranger.sign(&body)] {
        assert_eq!(shop.send(&body, signature).await.0, StatusCode::UNAUTHORIZED, "{signature}");
    }
    let changed = body.replace("30", "31");
    assert_eq!(shop.send(&changed, &good).await.0, StatusCode::UNAUTHORIZED);
    for at in ["2020-01-01T00:00:00Z", "2200-01-01T00:00:00Z"] {
        let old = json!({"purchase": "1", "at": at, "username": "ada", "days": 30}).to_string();
        assert_eq!(shop.send(&old, &shop.sign(&old)).await.0, StatusCode::UNAUTHORIZED, "{at}");
    }
    for name in ["admin", "bob"] {
        assert_eq!(shop.buy("1", name, 30).await.0, StatusCode::CONFLICT, "{name}");
    }
    for (name, days) in [("Not A Name", 30), ("ada", 0), ("ada", 4000)] {
        assert_eq!(shop.buy("1", name, days).await.0, StatusCode::UNPROCESSABLE_ENTITY, "{name} {days}");
    }
    assert_eq!(site.scheduler.inner.store.fingerprint(), before);
    site.made(&format!("/account-hooks/{}/revoke", shop.hook), &site.admin, json!({})).await;
    assert_eq!(shop.buy("1", "ada", 30).await.0, StatusCode::UNAUTHORIZED, "revoked");
}
