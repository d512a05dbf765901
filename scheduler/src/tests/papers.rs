//! Slips and labels as they are served: to whom, as what, and what is refused.

use axum::body::Body;
use axum::http::{HeaderMap, Request, StatusCode, header};
use serde_json::{Value, json};
use tower::ServiceExt;

use super::{Site, matrix};
use crate::papers::Paper;
use crate::papers::tests::Printed;

/// Status, headers, body.
async fn fetch(site: &Site, path: &str, token: &str) -> (StatusCode, HeaderMap, Vec<u8>) {
    let request = Request::get(format!("/api/v1{path}")).header("authorization", format!("Bearer {token}"));
    let response = site.scheduler.router().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
    let (status, headers) = (response.status(), response.headers().clone());
    let bytes = axum::body::to_bytes(response.into_body(), 1 << 24).await.unwrap();
    (status, headers, bytes.to_vec())
}

/// The text of a PDF that is served; `None` where no tool reads it.
async fn told(site: &Site, path: &str, token: &str) -> Option<String> {
    let (status, headers, bytes) = fetch(site, path, token).await;
    assert_eq!(
        (status, headers[header::CONTENT_TYPE].to_str().unwrap()),
        (StatusCode::OK, "application/pdf")
    );
    Some(Printed::new(&Paper { bytes, missing: vec![] })?.text())
}

async fn refused(site: &Site, path: &str) -> (StatusCode, Value) {
    let (status, _, bytes) = fetch(site, path, &site.admin).await;
    let problem: Value = serde_json::from_slice(&bytes).unwrap();
    (status, problem["code"].clone())
}

#[tokio::test]
async fn a_slip_tells_each_reader_what_its_rights_allow() {
    let site = Site::new().await;
    let recipe = json!({"configuration": {"name": "Kita", "wifi_password": "correct horse"}});
    let configuration = json!({"name": "Kita", "recipe": recipe, "channel": "default"});
    let configuration = site.made("/configurations", &site.admin, configuration).await;
    let order = json!({"configuration": configuration["id"], "quantity": 2, "name": "Kita 学",
        "recipient": {"name": "Aïssata Traoré"}});
    let order = site.made("/orders", &site.admin, order).await["id"].as_str().unwrap().to_owned();
    let path = format!("/orders/{order}/slip.pdf");
    let operator = site.user("op", "operator", &["default"]).await;
    let integrator = site.user("int", "integrator", &["default"]).await;
    let key = site.made(
        "/api-keys",
        &site.admin,
        json!({"name": "wall", "rights": ["watch"], "channels": ["default"]}),
    );
    let key = key.await["key"].as_str().unwrap().to_owned();

    let (_, headers, _) = fetch(&site, &path, &operator).await;
    assert_eq!(headers["cardshop-missing-characters"], "U+5B66");
    assert_eq!(headers[header::CACHE_CONTROL], "private, no-store");
    let Some(text) = told(&site, &format!("{path}?lang=fr"), &operator).await else { return };
    for word in ["Bordereau d’expédition", "Aïssata Traoré", "Sur chaque carte", "Kita (avec mot de passe)"]
    {
        assert!(text.contains(word), "{word} is not in {text}");
    }
    assert!(!text.contains("correct horse"), "{text}");
    let seen = told(&site, &path, &integrator).await.unwrap();
    assert!(seen.contains("Aïssata Traoré") && !seen.contains("On each card"), "{seen}");
    let seen = told(&site, &path, &key).await.unwrap();
    assert!(seen.contains("No recipient") && !seen.contains("Aïssata"), "{seen}");
}

#[tokio::test]
async fn labels_are_served_as_pdf_and_zpl_and_what_cannot_be_is_refused_by_name() {
    let site = Site::new().await;
    let objects = matrix::objects(&site).await;
    let (order, card, appliance) = objects.printed();
    for (path, kind, begins) in [
        (format!("/orders/{order}/labels?format=l7651&start=65"), "application/pdf", &b"%PDF-1.7"[..]),
        (format!("/cards/{card}/label?format=zpl"), "text/plain; charset=utf-8", b"^XA"),
        (format!("/cards/{card}/label"), "application/pdf", b"%PDF-1.7"),
        (format!("/appliances/{appliance}/labels?format=62mm&lang=fr"), "application/pdf", b"%PDF-1.7"),
    ] {
        let (status, headers, bytes) = fetch(&site, &path, &site.admin).await;
        assert_eq!(
            (status, headers[header::CONTENT_TYPE].to_str().unwrap()),
            (StatusCode::OK, kind),
            "{path}"
        );
        assert!(bytes.starts_with(begins), "{path}");
    }
    let empty = site.order(&site.admin, json!({})).await;
    let virtual_order = site.order(&site.admin, json!({"kind": "virtual"})).await;
    for (path, status, code) in [
        (format!("/orders/{order}/labels?format=a5"), StatusCode::BAD_REQUEST, "bad_body"),
        (format!("/orders/{order}/labels?start=22"), StatusCode::UNPROCESSABLE_ENTITY, "invalid_field"),
        (format!("/orders/{order}/slip.pdf?lang=de"), StatusCode::BAD_REQUEST, "bad_body"),
        (format!("/orders/{empty}/labels"), StatusCode::CONFLICT, "no_cards"),
        (format!("/orders/{virtual_order}/slip.pdf"), StatusCode::CONFLICT, "no_parcel"),
        ("/cards/00000000000000000000000000/label".into(), StatusCode::NOT_FOUND, "not_found"),
    ] {
        assert_eq!(refused(&site, &path).await, (status, code.into()), "{path}");
    }
}
