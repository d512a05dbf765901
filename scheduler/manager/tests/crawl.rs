//! A crawler in place of a person with much patience: as each role it looks at every link and sends every form that a page
//! offers. It finds no error of ours, no dead link, no page without a title, and no change by looking.
#![allow(clippy::unwrap_used)]

mod shop;

use std::collections::{BTreeMap, BTreeSet};

use axum::body::Body;
use axum::http::{Request, StatusCode, header};
use cardshop_protocol::join::JoinToken;
use cardshop_protocol::keys::{appliance_id, encode_public, encode_signature};
use cardshop_scheduler::{StoreAddress, export_store};
use ed25519_dalek::{Signer, SigningKey};
use serde_json::json;

use shop::{HOST, PASSWORD, Shop, text};

/// Pages that anybody may see.
const OPEN: [&str; 10] = [
    "/login",
    "/forgot",
    "/password",
    "/status",
    "/status/{part}",
    "/api",
    "/tv",
    "/tv/live",
    "/",
    "/static/",
];

/// The routes that the sources mount, with the methods each takes.
fn mounted() -> Vec<(String, &'static str)> {
    let sources = [include_str!("../src/lib.rs"), include_str!("../src/office/mod.rs")];
    let mut routes = Vec::new();
    for call in sources.iter().flat_map(|source| source.split(".route(").skip(1)) {
        let mut parts = call.splitn(3, '"');
        let (_, path, rest) = (parts.next(), parts.next().unwrap(), parts.next().unwrap());
        let handlers = rest.split(".route(").next().unwrap().lines().next().unwrap();
        routes.extend(handlers.contains("get(").then(|| (path.to_owned(), "GET")));
        routes.extend(handlers.contains("post(").then(|| (path.to_owned(), "POST")));
    }
    assert!(routes.len() > 60, "{routes:?}");
    routes
}

/// Everything the shop keeps, by kind and id.
fn kept(shop: &Shop) -> BTreeSet<String> {
    let mut bytes = Vec::new();
    export_store(StoreAddress::Directory(shop.folder.path().join("store")), &mut bytes).unwrap();
    let text = String::from_utf8(bytes).unwrap();
    // The first and the last line are about the export.
    let lines: Vec<&str> = text.lines().collect();
    lines[1..lines.len() - 1].iter().map(|line| (*line).to_owned()).collect()
}

/// A form, as a browser would send it without anything typed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct PageForm {
    posts: bool,
    action: String,
    fields: Vec<(String, String)>,
}

fn unescaped(text: &str) -> String {
    text.replace("&#34;", "\"")
        .replace("&#39;", "'")
        .replace("&#60;", "<")
        .replace("&#62;", ">")
        .replace("&#38;", "&")
}

fn attribute(tag: &str, name: &str) -> Option<String> {
    let value = tag.split_once(&format!(" {name}=\""))?.1;
    Some(unescaped(value.split('"').next()?))
}

/// What a person who fills in only what must be would type.
fn filled(tag: &str) -> String {
    let value = attribute(tag, "value").unwrap_or_default();
    if !value.is_empty() || !tag.contains(" required") {
        return value;
    }
    match attribute(tag, "type").as_deref() {
        Some("number") => "1".into(),
        Some("email") => "a@example.org".into(),
        Some("password") => "not the password".into(),
        _ => "x1".into(),
    }
}

/// The forms of a page, one for each of their buttons.
fn forms(page: &str) -> Vec<PageForm> {
    let mut open: Option<(PageForm, Vec<String>)> = None;
    let mut found = Vec::new();
    let mut sends_files = false;
    let mut select: Option<(String, Option<String>)> = None;
    for tag in page.split('<').skip(1) {
        let (tag, behind) = tag.split_once('>').unwrap_or((tag, ""));
        match tag.split([' ', '\n']).next().unwrap() {
            "form" => {
                let action = attribute(tag, "action").unwrap();
                let posts = attribute(tag, "method").unwrap() == "post";
                sends_files = tag.contains("multipart/form-data");
                open = Some((PageForm { posts, action, fields: Vec::new() }, Vec::new()));
            }
            "/form" => {
                let (form, buttons) = open.take().unwrap();
                // A form whose buttons are elsewhere is for what is chosen in a table; files are not made up here.
                for value in buttons.into_iter().filter(|_| !sends_files) {
                    let mut form = form.clone();
                    form.fields.extend((!value.is_empty()).then(|| ("do".to_owned(), value)));
                    found.push(form);
                }
            }
            kind @ ("input" | "textarea" | "button" | "select" | "option" | "/select") => {
                let Some((form, buttons)) = &mut open else {
                    if kind == "button" && tag.contains(" form=\"") {
                        let path = page.split("id=\"bulk\" method=\"post\" action=\"").nth(1).unwrap();
                        let action = path.split('"').next().unwrap().to_owned();
                        let fields = vec![("do".to_owned(), attribute(tag, "value").unwrap())];
                        found.push(PageForm { posts: true, action, fields });
                    }
                    continue;
                };
                let name = attribute(tag, "name").unwrap_or_default();
                match kind {
                    "button" => buttons.push(attribute(tag, "value").unwrap_or_default()),
                    "textarea" => form.fields.push((name, unescaped(behind))),
                    "select" => select = Some((name, None)),
                    "option" => {
                        let (_, chosen) = select.as_mut().unwrap();
                        if chosen.is_none() || tag.contains(" selected") {
                            *chosen = attribute(tag, "value");
                        }
                    }
                    "/select" => {
                        let (name, chosen) = select.take().unwrap();
                        form.fields.push((name, chosen.unwrap_or_default()));
                    }
                    _ => {
                        let is_box = attribute(tag, "type").as_deref() == Some("checkbox");
                        if !is_box || tag.contains(" checked") {
                            form.fields.push((name, filled(tag)));
                        }
                    }
                }
            }
            _ => {}
        }
    }
    found
}

fn encoded(fields: &[(String, String)]) -> String {
    let encode = |text: &str| -> String {
        text.bytes()
            .map(|b| if b.is_ascii_alphanumeric() { char::from(b).to_string() } else { format!("%{b:02X}") })
            .collect()
    };
    let pairs: Vec<String> = fields.iter().map(|(n, v)| format!("{}={}", encode(n), encode(v))).collect();
    pairs.join("&")
}

/// What one role finds.
struct Walk<'a> {
    shop: &'a Shop,
    cookie: String,
    language: &'static str,
    wrong: Vec<String>,
    forms: BTreeMap<(String, Vec<String>), PageForm>,
    pages: BTreeSet<String>,
}

impl Walk<'_> {
    /// Looks at everything that can be reached from `starts` by links and by forms that ask.
    async fn look(&mut self, starts: &[&str]) {
        let mut next: Vec<String> = starts.iter().map(|path| (*path).to_owned()).collect();
        while let Some(path) = next.pop() {
            if !self.pages.insert(path.clone()) {
                continue;
            }
            let answer = self.shop.get(&path, &self.cookie).await;
            let status = answer.status();
            // No broker is there, and the page of the parts says so.
            let expected = status == StatusCode::OK || path.starts_with("/status");
            if !expected {
                self.wrong.push(format!("GET {path}: {status}"));
                continue;
            }
            let kind = answer.headers().get(header::CONTENT_TYPE).map(|v| v.to_str().unwrap().to_owned());
            if !kind.is_some_and(|kind| kind.starts_with("text/html")) {
                continue;
            }
            let page = text(answer).await;
            let title =
                page.split_once("<title>").and_then(|(_, rest)| rest.split_once(" · Cardshop</title>"));
            if title.is_none_or(|(title, _)| title.trim().is_empty()) {
                self.wrong.push(format!("GET {path}: no title"));
            }
            if !page.contains(&format!("<html lang=\"{}\">", self.language)) {
                self.wrong.push(format!("GET {path}: in another language"));
            }
            for link in page.split("href=\"").skip(1).map(|part| unescaped(part.split('"').next().unwrap())) {
                if link.starts_with('/') {
                    next.push(link.split('#').next().unwrap().to_owned());
                } else if !link.starts_with('#') {
                    self.wrong.push(format!("GET {path} leads away: {link}"));
                }
            }
            for form in forms(&page) {
                if form.posts {
                    let names = form
                        .fields
                        .iter()
                        .map(|(n, v)| if n == "do" { format!("do={v}") } else { n.clone() });
                    self.forms.entry((form.action.clone(), names.collect())).or_insert(form);
                } else {
                    next.push(format!("{}?{}", form.action, encoded(&form.fields)));
                }
            }
        }
    }

    /// Sends every form that was found. What is refused is told on a page, and nothing that a page offers is not there.
    async fn send(&mut self) {
        let mut forms: Vec<PageForm> = std::mem::take(&mut self.forms).into_values().collect();
        // What is removed is not there for the others.
        forms.sort_by_key(|form| form.fields.iter().any(|(_, value)| value == "delete"));
        for form in forms {
            if form.action == "/logout" {
                continue;
            }
            let answer = self.shop.post(&self.cookie, &form.action, &encoded(&form.fields)).await;
            let status = answer.status();
            let told = matches!(status.as_u16(), 200 | 201 | 409 | 422);
            let away = answer.headers().get(header::LOCATION).is_some_and(|to| to == "/login");
            if (!told && status != StatusCode::SEE_OTHER) || away {
                self.wrong.push(format!("POST {form:?}: {status} {}", text(answer).await));
            }
        }
    }
}

/// An appliance that asks to join; gives its id.
async fn join(shop: &Shop, staff: &str, seed: u8) -> String {
    let made = shop.api("/join-tokens", staff, json!({})).await;
    let token: JoinToken = made["token"].as_str().unwrap().parse().unwrap();
    let key = SigningKey::from_bytes(&[seed; 32]);
    let public = key.verifying_key();
    let proof = key.sign(&token.proof_message(public.as_bytes())).to_bytes();
    let body = json!({"token": token.to_string(), "public_key": encode_public(&public),
        "proof": encode_signature(&proof), "label": "Front bench", "hardware": {"model": "PC", "arch": "x86_64", "memory_bytes": 1}});
    shop.api("/join", "", body).await;
    appliance_id(&public).to_string()
}

/// A shop with something of everything: gives the id of an order.
async fn furnished(shop: &Shop) -> String {
    let staff = shop.staff().await;
    let token = staff.split_once('=').unwrap().1.to_owned();
    let api = async |path: &str, body| shop.api(path, &token, body).await;
    let organization = api("/organizations", json!({"name": "School", "units": 50})).await["id"].clone();
    for (name, role) in [("ada", "manager"), ("bob", "operator"), ("maker", "creator")] {
        let user = json!({"username": name, "password": PASSWORD, "role": role, "channels": ["default"]});
        api("/users", user).await;
    }
    let user = json!({"username": "eve", "role": "manager", "organization": organization});
    let user = api("/users", user).await["id"].as_str().unwrap().to_owned();
    api(&format!("/users/{user}/disable"), json!({})).await;
    let recipe = json!({"files": [{"to": "/data/a", "url": "https://x.example/a.zim"}]});
    let configuration =
        api("/configurations", json!({"name": "Wiki", "channel": "default", "recipe": recipe})).await;
    let hook = json!({"url": "https://x.example/told", "events": ["order_created"], "channels": ["default"]});
    api("/webhooks", hook).await;
    let order = json!({"kind": "physical", "configuration": configuration["id"], "quantity": 2, "channel": "default",
        "recipient": {"name": "V", "address": "2 Example Road", "country": "FR", "email": "v@example.org"}});
    let order = api("/orders", order).await["id"].as_str().unwrap().to_owned();
    let maker = shop.log_in_as("maker", PASSWORD).await;
    let maker = maker.split(';').next().unwrap().split_once('=').unwrap().1.to_owned();
    shop.api("/tasks/claim", &maker, json!({})).await;
    let log = json!({"kind": "build", "offset": 0, "text": "\u{1b}[1;31mbad <b>\u{1b}[0m\n"});
    shop.api(&format!("/tasks/{order}-image/log"), &maker, log).await;
    let auto = json!({"name": "wiki", "configuration": configuration["id"], "paused": true});
    api("/auto-images", auto).await;
    api("/api-keys", json!({"name": "program", "rights": ["order"]})).await;
    api("/api-keys", json!({"name": "wall", "rights": ["watch"]})).await;
    api("/account-hooks", json!({"name": "web"})).await;
    api("/join-tokens", json!({})).await;
    for (seed, approved) in [(1, true), (2, false)] {
        let joined = join(shop, &token, seed).await;
        if approved {
            api(&format!("/appliances/{joined}/approve"), json!({})).await;
        }
    }
    api("/warehouses", json!({"url": "http://127.0.0.1:2"})).await;
    order
}

#[tokio::test]
async fn as_each_role_every_link_and_form_leads_somewhere_and_looking_changes_nothing() {
    let shop = Shop::open().await;
    let order = furnished(&shop).await;
    let mut counts = Vec::new();
    for (name, password) in [("bob", PASSWORD), ("ada", PASSWORD), ("admin", &shop.login.password)] {
        let cookie = shop.log_in_as(name, password).await.split(';').next().unwrap().to_owned();
        let before = kept(&shop);
        let mut wrong = Vec::new();
        for language in ["en", "fr"] {
            let cookie = format!("{cookie}; cardshop_language={language}");
            let mut walk = Walk {
                shop: &shop,
                cookie,
                language,
                wrong: Vec::new(),
                forms: BTreeMap::new(),
                pages: BTreeSet::new(),
            };
            walk.look(&["/bench", "/office", "/status", "/api", "/account"]).await;
            let task = format!("/office/tasks/{order}-image");
            assert!(walk.pages.contains(&format!("{task}/build")), "{name} finds the log: {:?}", walk.pages);
            if language == "fr" {
                let after = kept(&shop);
                let changed: Vec<_> = before.symmetric_difference(&after).collect();
                assert!(changed.is_empty(), "looking as {name} changed {changed:?}");
                counts.push((name, walk.pages.len(), walk.forms.len()));
                walk.send().await;
            }
            wrong.append(&mut walk.wrong);
        }
        assert!(wrong.is_empty(), "as {name}:\n{}", wrong.join("\n"));
    }
    println!("role, pages, forms: {counts:?}");
    assert!(counts.windows(2).all(|pair| pair[0].1 < pair[1].1 && pair[0].2 < pair[1].2), "{counts:?}");
}

#[tokio::test]
async fn without_a_session_every_page_but_the_open_ones_leads_to_the_login() {
    let shop = Shop::open().await;
    for (path, method) in mounted() {
        let is_open = OPEN
            .iter()
            .any(|open| *open == path || (open.len() > 1 && open.ends_with('/') && path.starts_with(open)));
        if method != "GET" || is_open {
            continue;
        }
        let answer = shop.get(&path.replace(['{', '}'], ""), "").await;
        assert_eq!(answer.status(), StatusCode::SEE_OTHER, "{path}");
        assert_eq!(answer.headers()[header::LOCATION], "/login", "{path}");
    }
}

#[tokio::test]
async fn a_form_that_was_not_sent_from_this_site_changes_nothing_at_any_route() {
    let shop = Shop::open().await;
    furnished(&shop).await;
    let staff = shop.staff().await;
    let before = kept(&shop);
    let fetch_site = "sec-fetch-site";
    for (path, method) in mounted().into_iter().filter(|(_, method)| *method == "POST") {
        let path = path.replace(['{', '}'], "");
        let foreign: [&[(&str, &str)]; 5] = [
            &[],
            &[("origin", "http://evil.example")],
            &[("origin", "null")],
            &[(fetch_site, "cross-site")],
            &[(fetch_site, "same-site")],
        ];
        for headers in foreign {
            let mut request = Request::builder().method(method).uri(&path).header(header::HOST, HOST);
            request = request.header(header::COOKIE, &staff);
            request = request.header(header::CONTENT_TYPE, "application/x-www-form-urlencoded");
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            let body = Body::from("do=end&name=x&slug=x&reason=x&username=x&role=staff&key=x&label=x");
            let answer = shop.send(request.body(body).unwrap()).await;
            assert_eq!(answer.status(), StatusCode::FORBIDDEN, "{path} {headers:?}");
        }
        for other in ["PUT", "PATCH", "DELETE"] {
            let request = Request::builder().method(other).uri(&path).header(header::HOST, HOST);
            let request = request.header(header::COOKIE, &staff).header("origin", format!("http://{HOST}"));
            let status = shop.send(request.body(Body::empty()).unwrap()).await.status();
            assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED, "{other} {path}");
        }
    }
    let after = kept(&shop);
    let changed: Vec<_> = before.symmetric_difference(&after).collect();
    assert!(changed.is_empty(), "{changed:?}");
}

#[tokio::test]
async fn what_is_another_channels_or_staffs_is_not_there_for_a_manager() {
    let shop = Shop::open().await;
    let order = furnished(&shop).await;
    let staff = shop.staff().await;
    let token = staff.split_once('=').unwrap().1.to_owned();
    shop.api("/channels", &token, json!({"slug": "north"})).await;
    let user = json!({"username": "nora", "password": PASSWORD, "role": "manager", "channels": ["north"]});
    shop.api("/users", &token, user).await;
    let nora = shop.log_in_as("nora", PASSWORD).await.split(';').next().unwrap().to_owned();
    let list = text(shop.get("/office/auto-images", &staff).await).await;
    let auto =
        list.split_once("href=\"/office/auto-images/").unwrap().1.split('"').next().unwrap().to_owned();
    let task = format!("/office/tasks/{order}-image");
    for path in [
        format!("/orders/{order}"),
        task.clone(),
        format!("{task}/build"),
        format!("{task}/build/text"),
        format!("{task}/build/live"),
        format!("/office/tasks?order={order}"),
        format!("/office/messages?order={order}"),
        format!("/office/auto-images/{auto}"),
    ] {
        assert_eq!(shop.get(&path, &staff).await.status(), StatusCode::OK, "{path}");
        assert_eq!(shop.get(&path, &nora).await.status(), StatusCode::NOT_FOUND, "{path}");
    }
    let before = kept(&shop);
    for act in ["save", "pause", "trigger", "delete&sure=yes"] {
        let answer = shop
            .post(&nora, &format!("/office/auto-images/{auto}"), &format!("do={act}&configuration={order}"))
            .await;
        assert!(matches!(answer.status().as_u16(), 404 | 422), "{act}: {}", answer.status());
    }
    let bulk = shop.post(&nora, "/office/orders", &format!("do=cancel&sure=yes&chosen={order}")).await;
    assert_eq!(bulk.status(), StatusCode::CONFLICT);
    assert!(text(bulk).await.contains("there is no such order"));
    let told = text(shop.get("/office/messages", &staff).await).await;
    let message = told.split_once("name=\"chosen\" value=\"").unwrap().1.split('"').next().unwrap();
    let again = shop.post(&nora, "/office/messages", &format!("do=send&chosen={message}")).await;
    assert_eq!(again.status(), StatusCode::NOT_FOUND);
    assert!(!text(shop.get("/office/messages", &nora).await).await.contains("v@example.org"));
    for room in [
        "webhooks",
        "templates",
        "templates/test/en",
        "organizations",
        "users",
        "channels",
        "warehouses",
        "hooks",
        "site",
        "jobs",
        "audit",
        "statistics",
    ] {
        assert_eq!(
            shop.get(&format!("/office/{room}"), &nora).await.status(),
            StatusCode::FORBIDDEN,
            "{room}"
        );
    }
    for (path, form) in [
        ("/office/organizations", "name=Mine&units=9"),
        ("/office/users", "do=make&username=mine&role=staff&password=correct-horse"),
        ("/office/channels", "slug=mine"),
        ("/office/warehouses", "do=add&url=http://127.0.0.1:9"),
        ("/office/hooks", "do=make&name=mine"),
        ("/office/site", "do=begin&reason=mine"),
        ("/office/site", "do=rotate&revoke=yes&sure=yes"),
        ("/office/jobs", "do=run&chosen=keys"),
        ("/office/messages", "do=test&to=n@example.org"),
        ("/office/webhooks", "url=https://x.example/mine&events=order_created"),
        ("/office/templates/order_created/en", "do=save&subject=x&body=y"),
        ("/first", "step=2&name=Mine"),
    ] {
        assert_eq!(shop.post(&nora, path, form).await.status(), StatusCode::FORBIDDEN, "{path}");
    }
    assert_eq!(kept(&shop), before, "a refused form changed something");
}
