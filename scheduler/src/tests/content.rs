//! The catalogue of content: fetched, kept when its server fails, asked again by its entity tag, and never from an address
//! that is not public unless that was allowed.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::Site;
use crate::CatalogueConfig;

const FEED: &str = include_str!("../../creator/fuzz/seeds/catalogue/library.xml");

/// A library that answers what it is told to.
#[derive(Clone, Default)]
struct Library {
    body: Arc<Mutex<String>>,
    unchanged: Arc<AtomicU64>,
}

impl Library {
    async fn open(&self) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/catalog", listener.local_addr().unwrap());
        let (library, here) = (self.clone(), url.clone());
        let answer = move |headers: HeaderMap| async move { library.answer(&headers) };
        let away = move || async move { axum::response::Redirect::temporary(&here) };
        let router = axum::Router::new()
            .route("/catalog", axum::routing::get(answer))
            .route("/moved", axum::routing::get(away));
        tokio::spawn(async move { axum::serve(listener, router).await });
        url
    }

    fn answer(&self, headers: &HeaderMap) -> Response {
        let body = self.body.lock().unwrap().clone();
        let etag = format!("\"{}\"", body.len());
        if headers.get(header::IF_NONE_MATCH).is_some_and(|seen| seen == etag.as_str()) {
            self.unchanged.fetch_add(1, Ordering::Relaxed);
            return StatusCode::NOT_MODIFIED.into_response();
        }
        ([(header::ETAG, etag)], body).into_response()
    }

    fn says(&self, body: &str) {
        *self.body.lock().unwrap() = body.to_owned();
    }
}

/// A site whose catalogue is there.
async fn site(url: &str, private: bool) -> Site {
    let mut site = Site::new().await;
    site.config.catalogue = CatalogueConfig { url: Some(url.to_owned()), private };
    site.restart().await
}

#[tokio::test]
async fn the_catalogue_is_fetched_searched_and_kept_over_a_restart() {
    let library = Library::default();
    library.says(FEED);
    let url = library.open().await;
    let site = site(&url, true).await;
    assert_eq!(site.get("/content", &site.admin).await.1, json!({"items": [], "next_cursor": null}));
    site.scheduler.refresh_catalogue().await.unwrap();
    let (_, french) = site.get("/content?language=fra&search=amis&sort=size", &site.admin).await;
    assert_eq!(french["items"][0]["id"], "wikipedia_fr_all_maxi.zim");
    assert_eq!(french["items"][0]["bytes"], 38_654_705_664_u64);
    let (_, first) = site.get("/content?limit=1", &site.admin).await;
    let cursor = first["next_cursor"].as_str().unwrap();
    let (_, second) = site.get(&format!("/content?limit=1&cursor={cursor}"), &site.admin).await;
    assert_ne!(first["items"], second["items"]);
    for wrong in ["sort=name", "cursor=x", "limit=x"] {
        assert!(site.get(&format!("/content?{wrong}"), &site.admin).await.0.is_client_error(), "{wrong}");
    }

    library.says("");
    let site = site.restart().await;
    site.scheduler.refresh_catalogue().await.unwrap();
    let (_, again) = site.get("/content?language=fra", &site.admin).await;
    assert_eq!(again["items"][0]["id"], "wikipedia_fr_all_maxi.zim", "from the disk, without its server");
}

#[tokio::test]
async fn a_broken_or_unchanged_answer_leaves_the_last_good_catalogue() {
    let library = Library::default();
    library.says(FEED);
    let url = library.open().await;
    let site = site(&url, true).await;
    site.scheduler.refresh_catalogue().await.unwrap();
    let note = site.config.data.join("catalogue/note.json");
    let grow_old = || {
        let mut kept: serde_json::Value = serde_json::from_slice(&std::fs::read(&note).unwrap()).unwrap();
        kept["read"] = json!("2020-01-01T00:00:00Z");
        std::fs::write(&note, kept.to_string()).unwrap();
    };
    grow_old();
    site.scheduler.refresh_catalogue().await.unwrap();
    assert_eq!(library.unchanged.load(Ordering::Relaxed), 1, "asked by the entity tag");
    for (broken, why) in [
        ("<html></html>", "no Atom feed"),
        ("<feed></feed>", "no entry"),
        ("<feed><entry>", "ends in the middle"),
    ] {
        library.says(broken);
        grow_old();
        let error = site.scheduler.refresh_catalogue().await.unwrap_err().to_string();
        assert!(error.contains(why) && error.contains("the last good one stays"), "{error}");
        let (_, kept) = site.get("/content", &site.admin).await;
        assert!(!kept["items"].as_array().unwrap().is_empty());
    }
}

#[tokio::test]
async fn an_address_of_this_machine_is_not_asked_unless_that_was_allowed() {
    let library = Library::default();
    library.says(FEED);
    let url = library.open().await;
    let port = url.split(':').nth(2).unwrap().split('/').next().unwrap();
    for host in ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "2130706433", "0.0.0.0"] {
        let site = site(&format!("http://{host}:{port}/catalog"), false).await;
        let error = site.scheduler.refresh_catalogue().await.unwrap_err().to_string();
        assert!(error.contains("no public address") || error.contains("host"), "{host}: {error}");
        assert_eq!(site.get("/content", &site.admin).await.1["items"], json!([]));
    }
    let moved = site(&url.replace("/catalog", "/moved"), true).await;
    moved.scheduler.refresh_catalogue().await.unwrap();
}

#[tokio::test]
async fn a_configuration_tells_its_size_its_smallest_card_and_what_is_gone() {
    let library = Library::default();
    library.says(FEED);
    let url = library.open().await;
    let site = site(&url, true).await;
    site.scheduler.refresh_catalogue().await.unwrap();
    let content = json!([{"name": "wikipedia_fr_all", "flavour": "maxi"}, {"name": "gone"}]);
    let recipe = json!({"configuration": {"name": "Kita", "catalogue": url, "content": content,
        "base": {"source": "https://x.example/base.img.xz", "size": 2_000_000_000_u64}}});
    let made = site.made("/configurations", &site.admin, json!({"name": "Kita", "recipe": recipe})).await;
    let (_, size) =
        site.get(&format!("/configurations/{}/size", made["id"].as_str().unwrap()), &site.admin).await;
    assert_eq!(size["content_bytes"], 38_654_705_664_u64);
    assert_eq!(size["media"]["name"], "64 GB");
    let (image, usable) =
        (size["image_bytes"].as_u64().unwrap(), size["media"]["usable_bytes"].as_u64().unwrap());
    assert_eq!(size["free_bytes"], usable - image);
    assert_eq!(size["vanished"][0]["name"], "gone");
    assert_eq!(size["uncounted"], json!([]));
    let other =
        json!({"configuration": {"name": "Kita", "catalogue": "https://other.example/", "content": content}});
    let other = site.made("/configurations", &site.admin, json!({"name": "Kita", "recipe": other})).await;
    let (_, size) =
        site.get(&format!("/configurations/{}/size", other["id"].as_str().unwrap()), &site.admin).await;
    assert_eq!((&size["vanished"], &size["uncounted"]), (&json!([]), &json!(["wikipedia_fr_all", "gone"])));
}
