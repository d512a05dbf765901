//! The pages as a browser gets them, over a scheduler of its own: login, cookie, other sites' forms, names that
//! are HTML.
#![allow(clippy::unwrap_used)]

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{Request, Response, StatusCode, header};
use cardshop_scheduler::{Config, FirstLogin, Scheduler};
use serde_json::{Value, json};
use tokio_stream::StreamExt;
use tower::ServiceExt;

const HOST: &str = "shop.example";
/// Would run in whoever looks at it.
const EVIL: &str = "<img src=x onerror=alert(1)>\"'";
const ESCAPED: &str = "&#60;img src=x onerror=alert(1)&#62;&#34;&#39;";

struct Shop {
    router: Router,
    login: FirstLogin,
    _folder: tempfile::TempDir,
}

impl Shop {
    async fn open() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = Config {
            data: folder.path().to_owned(),
            public_url: format!("http://{HOST}"),
            mqtt_url: "mqtt://127.0.0.1:1".into(),
            mqtt_ca: None,
            appliance_mqtt_url: None,
            own_ca: None,
            roots: cardshop_scheduler::RootCerts::WebPki,
            warehouses: vec!["http://127.0.0.1:1".into()],
            admin_password: None,
        };
        let (scheduler, login) = Scheduler::open(config).await.unwrap();
        let router = scheduler.router().merge(cardshop_manager::pages(scheduler));
        Self { router, login: login.unwrap(), _folder: folder }
    }

    async fn send(&self, request: Request<Body>) -> Response<Body> {
        self.router.clone().oneshot(request).await.unwrap()
    }

    async fn get(&self, path: &str, cookie: &str) -> Response<Body> {
        let request = Request::get(path).header(header::HOST, HOST).header(header::COOKIE, cookie);
        self.send(request.body(Body::empty()).unwrap()).await
    }

    async fn form(&self, path: &str, origin: &str, body: String) -> Response<Body> {
        let request = Request::post(path)
            .header(header::HOST, HOST)
            .header(header::ORIGIN, origin)
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
        self.send(request.body(Body::from(body)).unwrap()).await
    }

    /// Logs in and gives the whole `Set-Cookie`.
    async fn log_in(&self) -> String {
        let body = format!("username={}&password={}", self.login.username, self.login.password);
        let answer = self.form("/login", &format!("http://{HOST}"), body).await;
        assert_eq!(answer.status(), StatusCode::SEE_OTHER);
        answer.headers()[header::SET_COOKIE].to_str().unwrap().to_owned()
    }

    /// A call of the API.
    async fn api(&self, path: &str, token: &str, body: Value) -> Value {
        let request = Request::post(format!("/api/v1{path}"))
            .header(header::AUTHORIZATION, format!("Bearer {token}"))
            .header(header::CONTENT_TYPE, "application/json");
        let answer = self.send(request.body(Body::from(body.to_string())).unwrap()).await;
        let (status, text) = (answer.status(), text(answer).await);
        assert!(status.is_success(), "{path}: {status} {text}");
        serde_json::from_str(&text).unwrap()
    }
}

async fn text(answer: Response<Body>) -> String {
    String::from_utf8(to_bytes(answer.into_body(), 1 << 20).await.unwrap().to_vec()).unwrap()
}

#[tokio::test]
async fn without_a_session_every_page_leads_to_the_login() {
    let shop = Shop::open().await;
    for path in ["/bench", "/bench/live"] {
        for cookie in ["", "cardshop_session=", "cardshop_session=a.b.c"] {
            let answer = shop.get(path, cookie).await;
            assert_eq!(answer.status(), StatusCode::SEE_OTHER, "{path} {cookie}");
            assert_eq!(answer.headers()[header::LOCATION], "/login");
        }
    }
}

#[tokio::test]
async fn the_session_cookie_is_for_this_site_and_no_script_and_ends_with_the_logout() {
    let shop = Shop::open().await;
    let cookie = shop.log_in().await;
    for flag in ["; HttpOnly", "; SameSite=Strict", "; Path=/", "; Max-Age=3600"] {
        assert!(cookie.contains(flag), "{flag} in {cookie}");
    }
    let page = shop.get("/bench", cookie.split(';').next().unwrap()).await;
    assert_eq!(page.status(), StatusCode::OK);
    assert_eq!(page.headers()[header::CACHE_CONTROL], "no-store");
    let policy = page.headers()[header::CONTENT_SECURITY_POLICY].to_str().unwrap().to_owned();
    assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
    let out = shop.form("/logout", &format!("http://{HOST}"), String::new()).await;
    assert!(out.headers()[header::SET_COOKIE].to_str().unwrap().starts_with("cardshop_session=; "));
}

#[tokio::test]
async fn forms_of_other_sites_are_refused_before_they_do_anything() {
    let shop = Shop::open().await;
    let right = format!("username={}&password={}", shop.login.username, shop.login.password);
    for origin in ["http://evil.example", "null", "http://shop.example.evil.example"] {
        let answer = shop.form("/login", origin, right.clone()).await;
        assert_eq!(answer.status(), StatusCode::FORBIDDEN, "{origin}");
        assert!(!answer.headers().contains_key(header::SET_COOKIE));
        assert_eq!(shop.form("/logout", origin, String::new()).await.status(), StatusCode::FORBIDDEN);
    }
}

#[tokio::test]
async fn names_that_are_html_are_text_on_the_page_in_the_live_stream_and_at_the_login() {
    let shop = Shop::open().await;
    let answer = shop
        .form(
            "/login",
            &format!("http://{HOST}"),
            "username=%3Cimg+src%3Dx+onerror%3Dalert(1)%3E%22'&password=x".into(),
        )
        .await;
    assert_eq!(answer.status(), StatusCode::UNAUTHORIZED);
    let page = text(answer).await;
    assert!(page.contains(ESCAPED) && !page.contains("<img"), "{page}");

    let cookie = shop.log_in().await;
    let cookie = cookie.split(';').next().unwrap();
    let token = cookie.split_once('=').unwrap().1;
    let channel = json!({"slug": "c", "name": "C", "active": true, "private": false, "sender_name": "C",
        "sender_address": "1 Example Street", "sender_email": "c@example.org"});
    shop.api("/channels", token, channel).await;
    let configuration = json!({"name": "S", "channel": "c", "recipe": {"offspot": {}}});
    let configuration = shop.api("/configurations", token, configuration).await;
    let order = json!({"kind": "physical", "configuration": configuration["id"], "quantity": 1, "channel": "c",
        "recipient": {"name": "V", "address": "2 Example Road", "country": "FR"}, "name": EVIL});
    shop.api("/orders", token, order).await;

    let page = text(shop.get("/bench", cookie).await).await;
    assert!(page.contains(ESCAPED) && !page.contains("<img"), "{page}");

    let mut stream = shop.get("/bench/live", cookie).await.into_body().into_data_stream();
    let mut heard = String::new();
    while !heard.contains("event: order") || !heard.ends_with("\n\n") {
        heard.push_str(std::str::from_utf8(&stream.next().await.unwrap().unwrap()).unwrap());
    }
    assert!(heard.contains(ESCAPED) && !heard.contains("<img"), "{heard}");
}
