//! Webhooks and ntfy: what a receiver gets, how it checks it, and what happens when it does not take it.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::super::Site;
use super::{NotifySettings, messages, recipient};

/// Takes calls, and answers with what it is told to.
#[derive(Clone)]
struct Receiver {
    calls: Arc<Mutex<Vec<(HeaderMap, String)>>>,
    answer: Arc<Mutex<StatusCode>>,
    url: String,
}

impl Receiver {
    async fn open() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let receiver = Self { calls: Arc::default(), answer: Arc::new(Mutex::new(StatusCode::OK)), url };
        let take = |State(receiver): State<Self>, headers: HeaderMap, body: String| async move {
            receiver.calls.lock().unwrap().push((headers, body));
            *receiver.answer.lock().unwrap()
        };
        let router = Router::new()
            .route("/", post(take))
            .route("/hook", post(take))
            .route("/v3/example.org/messages.mime", post(take))
            .with_state(receiver.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        receiver
    }

    fn answers(&self, status: StatusCode) {
        *self.answer.lock().unwrap() = status;
    }

    fn taken(&self) -> Vec<(HeaderMap, String)> {
        std::mem::take(&mut *self.calls.lock().unwrap())
    }
}

async fn private_site() -> Site {
    Site::with(|config| config.notify.private_webhooks = true).await
}

/// The signature as Standard Webhooks has a receiver check it.
fn is_signed(secret: &str, headers: &HeaderMap, body: &str) -> bool {
    let header = |name: &str| headers[name].to_str().unwrap().to_owned();
    let secret = STANDARD.decode(secret.strip_prefix("whsec_").unwrap()).unwrap();
    let signed = format!("{}.{}.{body}", header("webhook-id"), header("webhook-timestamp"));
    let tag = STANDARD.decode(header("webhook-signature").strip_prefix("v1,").unwrap()).unwrap();
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &secret);
    ring::hmac::verify(&key, signed.as_bytes(), &tag).is_ok()
}

#[tokio::test]
async fn a_webhook_gets_what_it_asked_for_signed_and_again_until_it_takes_it() {
    let (site, receiver) = (private_site().await, Receiver::open().await);
    let shop = site.user("shop", "integrator", &["default"]).await;
    let hook =
        json!({"url": format!("{}/hook", receiver.url), "events": ["order_created", "order_canceled"]});
    let hook = site.made("/webhooks", &shop, hook).await;
    let secret = hook["secret"].as_str().unwrap().to_owned();
    let order = site.order(&site.admin, json!({"recipient": recipient("en")})).await;
    receiver.answers(StatusCode::INTERNAL_SERVER_ERROR);
    site.scheduler.call_webhooks().await.unwrap();
    receiver.answers(StatusCode::NO_CONTENT);
    site.scheduler.call_webhooks().await.unwrap();
    site.scheduler.advance_clock(Duration::from_secs(60));
    site.scheduler.call_webhooks().await.unwrap();
    let calls = receiver.taken();
    assert_eq!(calls.len(), 2, "once in vain, and once more a minute later");
    for (headers, body) in &calls {
        assert!(is_signed(&secret, headers, body), "{headers:?}");
        assert!(!is_signed(&secret, headers, &body.replace("School", "school")));
    }
    assert_eq!(calls[0].0["webhook-id"], calls[1].0["webhook-id"], "the receiver knows it again");
    assert_ne!(calls[0].0["webhook-timestamp"], calls[1].0["webhook-timestamp"]);
    let body: Value = serde_json::from_str(&calls[1].1).unwrap();
    assert_eq!((&body["type"], &body["data"]["order"]["id"]), (&json!("order_created"), &json!(order)));
    assert_eq!(body["data"]["order"]["status"], "created");
    assert!(!calls[1].1.contains("Lovelace"), "nothing of who gets it: {}", calls[1].1);

    let path = format!("/webhooks/{}", hook["id"].as_str().unwrap());
    let (_, log) = site.get(&format!("{path}/deliveries"), &shop).await;
    let delivery = &log["items"][0];
    let tries: Vec<_> =
        delivery["tries"].as_array().unwrap().iter().map(|t| t["result"].as_str().unwrap()).collect();
    assert_eq!((delivery["state"].as_str(), tries), (Some("sent"), vec!["answered 500", "answered 204"]));
    let again = format!("{path}/deliveries/{}/send", delivery["id"].as_str().unwrap());
    site.made(&again, &shop, json!({})).await;
    site.made(&format!("{path}/test"), &shop, json!({})).await;
    site.scheduler.call_webhooks().await.unwrap();
    let types: Vec<Value> = receiver
        .taken()
        .iter()
        .map(|(_, body)| serde_json::from_str::<Value>(body).unwrap()["type"].clone())
        .collect();
    assert_eq!(types, ["order_created", "test"]);

    site.made(&format!("/orders/{order}/cancel"), &site.admin, json!({})).await;
    site.made(&format!("{path}/delete"), &shop, json!({})).await;
    site.scheduler.call_webhooks().await.unwrap();
    assert_eq!(receiver.taken().len(), 0, "nobody is called who is not there any more");
}

#[tokio::test]
async fn a_webhook_is_for_channels_of_its_maker_and_never_for_letters_about_passwords() {
    let site = Site::new().await;
    site.channel("north").await;
    let shop = site.user("shop", "integrator", &["default"]).await;
    let url = "https://example.org/hook";
    for (wrong, field) in [
        (json!({"url": url, "events": ["password_reset"]}), "events"),
        (json!({"url": url, "events": []}), "events"),
        (json!({"url": url, "events": ["tea_time"]}), "events"),
        (json!({"url": url, "events": ["order_created"], "channels": ["north"]}), "channels"),
        (json!({"url": "ftp://example.org", "events": ["order_created"]}), "url"),
        (json!({"url": "https://a:b@example.org", "events": ["order_created"]}), "url"),
        (json!({"url": "https://example.org", "events": ["order_created"], "kind": "ntfy"}), "url"),
    ] {
        let (status, refused) = site.post("/webhooks", &shop, wrong.clone()).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{wrong}");
        assert!(refused["detail"].as_str().unwrap().starts_with(&format!("field {field}")), "{refused}");
    }
    site.made("/webhooks", &shop, json!({"url": url, "events": ["order_created"]})).await;
    let client = site.user("client", "manager", &["north"]).await;
    site.order(&client, json!({"channel": "north"})).await;
    assert_eq!(messages(&site, "").await.len(), 0, "an order of another channel");
    let other = site.user("other", "integrator", &["north"]).await;
    assert_eq!(site.get("/webhooks", &other).await.1["items"], json!([]));
    let (_, own) = site.get("/webhooks", &shop).await;
    assert_eq!((own["items"].as_array().unwrap().len(), &own["items"][0]["secret"]), (1, &Value::Null));
}

#[tokio::test]
async fn a_webhook_does_not_reach_what_only_this_machine_has() {
    let (site, receiver) = (Site::new().await, Receiver::open().await);
    let port = receiver.url.rsplit(':').next().unwrap();
    for host in ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]"] {
        let hook = json!({"url": format!("http://{host}:{port}/hook"), "events": ["order_created"]});
        site.made("/webhooks", &site.admin, hook).await;
    }
    site.order(&site.admin, json!({})).await;
    site.scheduler.call_webhooks().await.unwrap();
    let all = messages(&site, "").await;
    assert_eq!((all.len(), receiver.taken().len()), (3, 0));
    for message in all {
        let reason = message["reason"].as_str().unwrap();
        assert!(reason.contains("of this machine or its network"), "{reason}");
    }
}

#[tokio::test]
async fn a_topic_of_ntfy_hears_what_somebody_has_to_do_something_about() {
    let receiver = Receiver::open().await;
    let topic = format!("{}/shop-1", receiver.url);
    let site = Site::with(|config| {
        let (ntfy, ntfy_token) = (Some(topic), Some("tk_secret".into()));
        config.notify = NotifySettings { ntfy, ntfy_token, ..NotifySettings::default() };
    })
    .await;
    let creator = site.user("maker", "creator", &[]).await;
    site.order(&site.admin, json!({})).await;
    let task = site.made("/tasks/claim", &creator, json!({})).await;
    let path = format!("/tasks/{}/report", task["task"].as_str().unwrap());
    let failure = json!({"state": "failed", "reason": "no such content", "permanent": true});
    site.made(&path, &creator, failure).await;
    site.scheduler.call_webhooks().await.unwrap();
    let calls = receiver.taken();
    assert_eq!(calls.len(), 1, "placed orders are no news there");
    assert_eq!(calls[0].0["authorization"], "Bearer tk_secret");
    let body: Value = serde_json::from_str(&calls[0].1).unwrap();
    assert_eq!((&body["topic"], &body["title"]), (&json!("shop-1"), &json!("Order failed: School")));
    assert!(body["message"].as_str().unwrap().contains("Reason: no such content"), "{body}");
}

#[tokio::test]
async fn letters_go_to_a_service_that_takes_them_by_http() {
    let receiver = Receiver::open().await;
    let url = format!("{}/v3/example.org/", receiver.url);
    let site = Site::with(|config| {
        let mail_api = Some(crate::MailApi { url, key: "key-1".into() });
        let sender = Some("shop@example.org".into());
        config.notify = NotifySettings { mail_api, sender, ..NotifySettings::default() };
    })
    .await;
    site.order(&site.admin, json!({"recipient": recipient("fr")})).await;
    receiver.answers(StatusCode::UNAUTHORIZED);
    site.scheduler.send_mail().await.unwrap();
    let said = messages(&site, "").await;
    assert_eq!((&said[0]["state"], &said[0]["reason"]), (&json!("retrying"), &json!("answered 401")));
    receiver.answers(StatusCode::OK);
    site.scheduler.advance_clock(Duration::from_secs(60));
    site.scheduler.send_mail().await.unwrap();
    let calls = receiver.taken();
    assert_eq!((calls.len(), &messages(&site, "").await[0]["state"]), (2, &json!("sent")));
    assert_eq!(calls[1].0["authorization"], format!("Basic {}", STANDARD.encode("api:key-1")));
    let boundary = calls[1].0["content-type"].to_str().unwrap().split("boundary=").nth(1).unwrap();
    let parts: Vec<_> = calls[1].1.split(&format!("--{boundary}")).collect();
    assert_eq!((parts.len(), parts[3]), (4, "--\r\n"));
    assert!(parts[1].contains("name=\"to\"\r\n\r\nada@example.org\r\n"), "{}", parts[1]);
    assert!(
        parts[2].contains("name=\"message\"") && parts[2].contains("Content-Type: multipart/alternative")
    );
    assert!(
        parts[2].contains("From: shop@example.org") || parts[2].contains("<shop@example.org>"),
        "{}",
        parts[2]
    );
}
