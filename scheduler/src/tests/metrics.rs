//! What operators of a site watch.

use axum::body::Body;
use axum::http::Request;
use serde_json::Value;
use tower::ServiceExt;

use super::Site;

#[tokio::test]
async fn each_panel_of_the_grafana_dashboard_shows_a_metric_that_is_served() {
    let site = Site::new().await;
    let request = Request::builder().uri("/metrics").body(Body::empty()).unwrap();
    let response = site.scheduler.router().oneshot(request).await.unwrap();
    let bytes = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
    let served = String::from_utf8(bytes.to_vec()).unwrap();
    let served: Vec<&str> =
        served.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();

    let dashboard: Value = serde_json::from_str(include_str!("../../grafana.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let mut shown = Vec::new();
    for target in panels.iter().flat_map(|panel| panel["targets"].as_array().unwrap()) {
        let expression = target["expr"].as_str().unwrap();
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let names = expression.split(|c| !is_name(c)).filter(|word| word.starts_with("cardshop_"));
        let before = shown.len();
        shown.extend(names);
        assert!(shown.len() > before, "{expression} shows nothing of ours");
    }
    for name in &shown {
        assert!(served.contains(name), "{name} is shown and not served: {served:?}");
    }
    for name in served {
        assert!(shown.contains(&name), "{name} is served and on no panel");
    }
}

#[tokio::test]
async fn each_answer_has_an_id_of_its_own() {
    let site = Site::new().await;
    let mut ids = std::collections::BTreeSet::new();
    for path in ["/health", "/api/v1/keys", "/api/v1/me", "/api/v1/nothing"] {
        let request = Request::builder().uri(path).body(Body::empty()).unwrap();
        let response = site.scheduler.router().oneshot(request).await.unwrap();
        let id = response.headers()["x-request-id"].to_str().unwrap().to_owned();
        assert!(id.parse::<cardshop_protocol::ids::ObjectId>().is_ok() && ids.insert(id), "{path}");
    }
}
