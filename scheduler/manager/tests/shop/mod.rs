//! A shop of its own for each test: a scheduler in a temporary folder with its API and pages, as a browser gets them.
#![allow(dead_code)] // each file of tests takes what it needs

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{Request, Response, StatusCode, header};
use cardshop_scheduler::{Config, FirstLogin, Scheduler};
use serde_json::{Value, json};
use tower::ServiceExt;

pub(crate) const HOST: &str = "shop.example";
pub(crate) const PASSWORD: &str = "correct-horse-battery";

pub(crate) struct Shop {
    pub(crate) router: Router,
    pub(crate) login: FirstLogin,
    pub(crate) folder: tempfile::TempDir,
}

impl Shop {
    pub(crate) async fn open() -> Self {
        Self::open_at(&format!("http://{HOST}")).await
    }

    /// A shop that people reach at this address.
    pub(crate) async fn open_at(public_url: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = Config {
            data: folder.path().to_owned(),
            public_url: public_url.into(),
            mqtt_url: "mqtt://127.0.0.1:1".into(),
            mqtt_ca: None,
            appliance_mqtt_url: None,
            own_ca: None,
            roots: cardshop_scheduler::RootCerts::WebPki,
            // Nothing is there, in the clear or under TLS as the shop is.
            warehouses: vec![format!("{}://127.0.0.1:1", public_url.split(':').next().unwrap())],
            admin_password: None,
            catalogue: cardshop_scheduler::CatalogueConfig::default(),
            keeping: cardshop_scheduler::Keeping::default(),
            notify: Default::default(),
        };
        let (scheduler, login) = Scheduler::open(config).await.unwrap();
        let router = scheduler.router().merge(cardshop_manager::pages(scheduler));
        Self { router, login: login.unwrap(), folder }
    }

    pub(crate) async fn send(&self, request: Request<Body>) -> Response<Body> {
        self.router.clone().oneshot(request).await.unwrap()
    }

    pub(crate) async fn get(&self, path: &str, cookie: &str) -> Response<Body> {
        let request = Request::get(path).header(header::HOST, HOST).header(header::COOKIE, cookie);
        self.send(request.body(Body::empty()).unwrap()).await
    }

    pub(crate) async fn form(&self, path: &str, origin: &str, body: String) -> Response<Body> {
        self.form_of("", path, origin, body).await
    }

    /// A form of our own page.
    pub(crate) async fn post(&self, cookie: &str, path: &str, body: &str) -> Response<Body> {
        self.form_of(cookie, path, &format!("http://{HOST}"), body.to_owned()).await
    }

    pub(crate) async fn form_of(
        &self,
        cookie: &str,
        path: &str,
        origin: &str,
        body: String,
    ) -> Response<Body> {
        let request = Request::post(path)
            .header(header::HOST, HOST)
            .header(header::COOKIE, cookie)
            .header(header::ORIGIN, origin)
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
        self.send(request.body(Body::from(body)).unwrap()).await
    }

    /// Logs in and gives the whole `Set-Cookie`.
    pub(crate) async fn log_in(&self) -> String {
        self.log_in_as(&self.login.username, &self.login.password).await
    }

    pub(crate) async fn log_in_as(&self, username: &str, password: &str) -> String {
        let body = format!("username={username}&password={password}");
        let answer = self.form("/login", &format!("http://{HOST}"), body).await;
        assert_eq!(answer.status(), StatusCode::SEE_OTHER);
        answer.headers()[header::SET_COOKIE].to_str().unwrap().to_owned()
    }

    /// The session of the first login.
    pub(crate) async fn staff(&self) -> String {
        self.log_in().await.split(';').next().unwrap().to_owned()
    }

    /// Makes somebody and gives the session.
    pub(crate) async fn session(&self, role: &str, channels: &[&str]) -> String {
        let staff = self.staff().await;
        // `manager2` is another manager.
        let kind = role.trim_end_matches('2');
        let user = json!({"username": role, "password": PASSWORD, "role": kind, "channels": channels});
        self.api("/users", staff.split_once('=').unwrap().1, user).await;
        self.log_in_as(role, PASSWORD).await.split(';').next().unwrap().to_owned()
    }

    /// Makes channel `c` with a configuration, and gives that.
    pub(crate) async fn configuration(&self) -> String {
        let staff = self.staff().await;
        let token = staff.split_once('=').unwrap().1;
        let channel = json!({"slug": "c", "name": "C", "active": true, "private": false, "sender_name": "C",
            "sender_address": "1 Example Street", "sender_email": "c@example.org"});
        self.api("/channels", token, channel).await;
        let configuration = json!({"name": "S", "channel": "c", "recipe": {"offspot": {}}});
        self.api("/configurations", token, configuration).await["id"].as_str().unwrap().to_owned()
    }

    /// A call of the API.
    pub(crate) async fn api(&self, path: &str, token: &str, body: Value) -> Value {
        let request = Request::post(format!("/api/v1{path}"))
            .header(header::AUTHORIZATION, format!("Bearer {token}"))
            .header(header::CONTENT_TYPE, "application/json");
        let answer = self.send(request.body(Body::from(body.to_string())).unwrap()).await;
        let (status, text) = (answer.status(), text(answer).await);
        assert!(status.is_success(), "{path}: {status} {text}");
        serde_json::from_str(&text).unwrap()
    }
}

pub(crate) async fn text(answer: Response<Body>) -> String {
    String::from_utf8(to_bytes(answer.into_body(), 1 << 20).await.unwrap().to_vec()).unwrap()
}
