//! Tests of the whole scheduler, through its routes: a site in a temporary directory, with a warehouse that is a
//! few lines of axum, a creator that only reports, and appliances whose messages are given below MQTT.

mod account_hooks;
mod accounts;
mod addresses;
mod api_keys;
mod audit;
mod auto_images;
mod bad_requests;
mod configurations;
mod content;
mod events;
mod join;
mod keeping;
mod life;
mod link;
mod live;
mod load;
mod matrix;
mod metrics;
mod notify;
mod openapi;
mod orders;
mod papers;
mod people;
mod site;
mod staff;
mod tokens;
mod units;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{Request, StatusCode};
use axum::routing::get;
use cardshop_protocol::api::{ApplianceLogin, CardRecord, Join};
use cardshop_protocol::ids::{ApplianceId, ImageId, ObjectId, OrderId, SlotId};
use cardshop_protocol::index::{Extent, ExtentKind, ImageMap, IndexBuilder};
use cardshop_protocol::join::JoinToken;
use cardshop_protocol::keys::{KeyList, KeyUse, PublicKey, appliance_id, encode_public, encode_signature};
use cardshop_protocol::message::{Event, Fact, Lease};
use ed25519_dalek::{Signer, SigningKey};
use serde_json::{Value, json};
use tower::ServiceExt;

use crate::{Config, Scheduler};

const PASSWORD: &str = "correct horse battery";

/// What the warehouse of a test has.
#[derive(Clone, Default)]
struct Shelf(Arc<Mutex<BTreeMap<String, Vec<u8>>>>);

impl Shelf {
    /// Serves it as a warehouse and gives its address.
    async fn open(&self) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let keys = || async {
            let key = PublicKey::new(&warehouse_key().verifying_key(), KeyUse::Index);
            axum::Json(KeyList { items: vec![key], ..KeyList::default() })
        };
        let index = |State(shelf): State<Shelf>, Path(id): Path<String>| async move {
            shelf.0.lock().unwrap().get(&id).cloned().ok_or(StatusCode::NOT_FOUND)
        };
        // What it was told is on the shelf too, under the path it was told at.
        let told = |State(shelf): State<Shelf>, uri: axum::http::Uri, body: String| async move {
            shelf.0.lock().unwrap().insert(uri.path().to_owned(), body.into_bytes());
            axum::Json(json!({"path": "/p/token/School.img"}))
        };
        let router = Router::new()
            .route("/keys", get(keys))
            .route("/links/{id}", axum::routing::put(told))
            .route("/images/{id}", axum::routing::patch(told))
            .route("/images/{id}/index", get(index))
            .with_state(self.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        url
    }
}

impl Shelf {
    /// What the warehouse was told last at this path.
    fn told(&self, path: &str) -> Value {
        self.0.lock().unwrap().get(path).map_or(Value::Null, |body| serde_json::from_slice(body).unwrap())
    }
}

fn warehouse_key() -> SigningKey {
    SigningKey::from_bytes(&[42; 32])
}

/// A signed index of an image with this many bytes.
fn index(image_size: u64) -> (ImageId, Vec<u8>) {
    let extents = vec![Extent { offset: 0, length: 4096, kind: ExtentKind::Data }];
    let map = ImageMap { image_size, extents, passport: vec![] };
    let mut builder = IndexBuilder::new(map, 64 * 1024).unwrap();
    builder.data(&[7; 4096]).unwrap();
    let mut index = builder.finish().unwrap();
    index.sign(&warehouse_key());
    (index.id(), index.encode())
}

/// A scheduler with everything around it.
struct Site {
    scheduler: Scheduler,
    shelf: Shelf,
    config: Config,
    admin: String,
    _directory: tempfile::TempDir,
}

impl Site {
    async fn new() -> Self {
        Self::with_broker("mqtt://127.0.0.1:1".into()).await
    }

    async fn with_broker(mqtt_url: String) -> Self {
        Self::with(|config| config.mqtt_url = mqtt_url).await
    }

    /// With settings of its own.
    async fn with(change: impl FnOnce(&mut Config)) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let shelf = Shelf::default();
        let url = shelf.open().await;
        let mut config = Config {
            data: directory.path().join("scheduler"),
            public_url: "http://127.0.0.1:8080".into(),
            mqtt_url: "mqtt://127.0.0.1:1".into(),
            mqtt_ca: None,
            appliance_mqtt_url: None,
            own_ca: None,
            roots: ureq::tls::RootCerts::WebPki,
            warehouses: vec![url],
            admin_password: Some(PASSWORD.into()),
            catalogue: crate::CatalogueConfig::default(),
            keeping: crate::Keeping::default(),
            notify: Default::default(),
        };
        change(&mut config);
        let (scheduler, first) = Scheduler::open(config.clone()).await.unwrap();
        assert_eq!(first.unwrap().password, PASSWORD);
        let mut site = Self { scheduler, shelf, config, admin: String::new(), _directory: directory };
        site.admin = site.login("admin", PASSWORD).await;
        site
    }

    /// Closes the scheduler and opens it again on the same data.
    async fn restart(self) -> Self {
        let Self { scheduler, shelf, config, admin, _directory } = self;
        drop(scheduler);
        let (scheduler, first) = Scheduler::open(config.clone()).await.unwrap();
        assert!(first.is_none(), "the first login is told once");
        Self { scheduler, shelf, config, admin, _directory }
    }

    async fn send(&self, request: Request<Body>) -> (StatusCode, Value) {
        let response = self.scheduler.router().oneshot(request).await.unwrap();
        let status = response.status();
        let bytes = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
        (status, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
    }

    async fn call(&self, method: &str, path: &str, token: &str, body: Value) -> (StatusCode, Value) {
        let mut request = Request::builder().method(method).uri(format!("/api/v1{path}"));
        if !token.is_empty() {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let body = if body.is_null() { Body::empty() } else { Body::from(body.to_string()) };
        self.send(request.body(body).unwrap()).await
    }

    async fn get_text(&self, path: &str) -> (StatusCode, String) {
        let request = Request::builder().uri(path).body(Body::empty()).unwrap();
        let response = self.scheduler.router().oneshot(request).await.unwrap();
        let status = response.status();
        let bytes = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
        (status, String::from_utf8(bytes.to_vec()).unwrap())
    }

    async fn get(&self, path: &str, token: &str) -> (StatusCode, Value) {
        self.call("GET", path, token, Value::Null).await
    }

    async fn post(&self, path: &str, token: &str, body: Value) -> (StatusCode, Value) {
        self.call("POST", path, token, body).await
    }

    /// As [`Site::post`], which must succeed.
    async fn made(&self, path: &str, token: &str, body: Value) -> Value {
        let (status, answer) = self.post(path, token, body).await;
        assert!(status.is_success(), "{path}: {status} {answer}");
        answer
    }

    async fn login(&self, username: &str, password: &str) -> String {
        let answer = self.made("/auth/login", "", json!({"username": username, "password": password})).await;
        answer["access_token"].as_str().unwrap().to_owned()
    }

    /// Makes a user and logs it in.
    async fn user(&self, name: &str, role: &str, channels: &[&str]) -> String {
        let user = json!({"username": name, "password": PASSWORD, "role": role, "channels": channels});
        self.made("/users", &self.admin, user).await;
        self.login(name, PASSWORD).await
    }

    async fn channel(&self, slug: &str) {
        self.made("/channels", &self.admin, json!({"slug": slug, "sender_name": "The Shop"})).await;
    }

    async fn order(&self, token: &str, more: Value) -> OrderId {
        let configuration =
            self.made("/configurations", token, json!({"name": "School", "recipe": {"files": []}})).await;
        let mut order = json!({"configuration": configuration["id"], "kind": "physical", "quantity": 3});
        order.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        id(&self.made("/orders", token, order).await["id"])
    }

    async fn status(&self, order: OrderId) -> String {
        let (_, answer) = self.get(&format!("/orders/{order}"), &self.admin).await;
        answer["status"].as_str().unwrap().to_owned()
    }

    /// A creator takes the one waiting task and puts an image of this size.
    async fn create_image(&self, creator: &str, image_size: u64) -> Value {
        let task = self.made("/tasks/claim", creator, json!({})).await;
        let (image, bytes) = index(image_size);
        self.shelf.0.lock().unwrap().insert(image.to_string(), bytes);
        let path = format!("/tasks/{}/report", task["task"].as_str().unwrap());
        self.made(&path, creator, json!({"state": "succeeded", "image": image})).await
    }

    /// An approved appliance of the default channel.
    async fn appliance(&self, seed: u8) -> Bench<'_> {
        let token = self.made("/join-tokens", &self.admin, json!({})).await;
        let token: JoinToken = token["token"].as_str().unwrap().parse().unwrap();
        let key = SigningKey::from_bytes(&[seed; 32]);
        self.made("/join", "", serde_json::to_value(join_body(&token, &key)).unwrap()).await;
        let id = appliance_id(&key.verifying_key());
        self.made(&format!("/appliances/{id}/approve"), &self.admin, json!({})).await;
        Bench { site: self, id, next: 1 }
    }

    /// What an appliance is told.
    async fn leases(&self, appliance: ApplianceId) -> Vec<Lease> {
        self.scheduler.plan_leases().await.unwrap();
        let stored =
            self.scheduler.inner.store.get::<crate::core::documents::DesiredDocument>(&appliance.to_string());
        stored.unwrap().map(|d| d.value.desired.leases).unwrap_or_default()
    }
}

fn id<T: std::str::FromStr>(value: &Value) -> T
where
    T::Err: std::fmt::Debug,
{
    value.as_str().unwrap().parse().unwrap()
}

fn join_body(token: &JoinToken, key: &SigningKey) -> Join {
    let public = key.verifying_key();
    Join {
        token: token.to_string(),
        public_key: encode_public(&public),
        proof: encode_signature(&key.sign(&token.proof_message(public.as_bytes())).to_bytes()),
        label: "bench one".into(),
        hardware: Default::default(),
    }
}

fn login_body(key: &SigningKey, nonce: &str) -> ApplianceLogin {
    let appliance = appliance_id(&key.verifying_key());
    let signature = key.sign(&ApplianceLogin::message(appliance, nonce)).to_bytes();
    ApplianceLogin { appliance, nonce: nonce.into(), signature: encode_signature(&signature) }
}

/// An appliance that tells facts.
struct Bench<'a> {
    site: &'a Site,
    id: ApplianceId,
    next: u64,
}

impl Bench<'_> {
    fn event(&self, n: u64, fact: Fact) -> Event {
        Event { v: 1, n, at: self.site.scheduler.now(), fact }
    }

    /// Tells the next fact.
    async fn tell(&mut self, fact: Fact) -> crate::effects::events::Taken {
        let event = self.event(self.next, fact);
        self.next += 1;
        self.site.scheduler.take_event(self.id, &event).await.unwrap()
    }

    fn verified(&self, lease: &Lease, copy: u32, card: u128) -> Fact {
        let record = CardRecord {
            uid: ObjectId::from_parts(1, card),
            order: lease.order,
            copy,
            total: lease.total,
            lease: lease.lease,
            image: lease.image,
            card_size: 8_000_000_000,
            cid: None,
            appliance: self.id,
            slot: SlotId::numbered(1),
            reader: "reader".into(),
            written_bytes: 4096,
            verified_bytes: 4096,
            write_bps: 1,
            verify_bps: 1,
            started: self.site.scheduler.now(),
            finished: self.site.scheduler.now(),
            passport: None,
        };
        Fact::CardVerified { lease: lease.lease, record: Box::new(record) }
    }
}
