//! `/keys`, `/health` and `/metrics`: what the scheduler, a load balancer and a monitor ask. No login; nothing
//! here names an image, a task or a person.

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::Ordering::{self, Relaxed};

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use cardshop_protocol::keys::KeyList;
use serde_json::json;

use super::Warehouse;
use super::refusal::Refusal;

/// `GET /keys`: the key that signs the indexes of this warehouse.
pub(crate) async fn keys(State(warehouse): State<Arc<Warehouse>>) -> Json<KeyList> {
    Json(KeyList { items: vec![warehouse.store.public_key()], ..KeyList::default() })
}

/// `GET /health`: 200 while the folder answers; a disk without room for uploads still serves downloads.
pub(crate) async fn health(State(warehouse): State<Arc<Warehouse>>) -> Response {
    match free_bytes(&warehouse).await {
        Ok(free) => {
            let margin = warehouse.store.limits.space_margin;
            let (takes_uploads, space_is_low) = (free >= margin, is_low(free, margin));
            Json(json!({ "status": "ok", "takes_uploads": takes_uploads, "space_is_low": space_is_low }))
                .into_response()
        }
        Err(_) => (StatusCode::SERVICE_UNAVAILABLE, Json(json!({ "status": "disk" }))).into_response(),
    }
}

/// `GET /metrics`: Prometheus text. **Source:** Prometheus text exposition format 0.0.4.
pub(crate) async fn metrics(State(warehouse): State<Arc<Warehouse>>) -> Result<impl IntoResponse, Refusal> {
    let free = free_bytes(&warehouse).await?;
    let (store, metrics) = (&warehouse.store, &warehouse.metrics);
    let images = store.images(None);
    let mut text = String::new();
    let mut add = |name: &str, kind: &str, help: &str, value: u64| {
        let _ = write!(
            text,
            "# HELP cardshop_warehouse_{name} {help}\n# TYPE cardshop_warehouse_{name} {kind}\n"
        );
        let _ = writeln!(text, "cardshop_warehouse_{name} {value}");
    };
    add("images", "gauge", "Complete images.", images.len() as u64);
    add("image_bytes", "gauge", "Sum of their sizes, holes included.", images.iter().map(|i| i.size).sum());
    add("open_uploads", "gauge", "Uploads that are not done.", store.open_uploads() as u64);
    add("free_bytes", "gauge", "Bytes that may still be written, margin included.", free);
    if store.has_bucket() {
        let waiting = store.images_to_move() as u64;
        add("images_to_move", "gauge", "Images that are not in the S3 store yet.", waiting);
    }
    let low = is_low(free, store.limits.space_margin);
    add("space_low", "gauge", "1 when soon uploads are refused for want of space.", low.into());
    add("running_requests", "gauge", "Requests whose answer has not left.", metrics.running.load(Relaxed));
    add("received_bytes_total", "counter", "Bytes of uploads.", metrics.received_bytes.load(Relaxed));
    add("sent_bytes_total", "counter", "Bytes of answers.", metrics.sent_bytes.load(Relaxed));
    let name = "cardshop_warehouse_answers_total";
    let _ = write!(text, "# HELP {name} Answers by status class.\n# TYPE {name} counter\n");
    for (i, count) in metrics.answers.iter().enumerate() {
        let _ = writeln!(text, "{name}{{class=\"{}xx\"}} {}", i + 1, count.load(Relaxed));
    }
    Ok(([(CONTENT_TYPE, "text/plain; version=0.0.4")], text))
}

/// Said before uploads are refused: less than twice the margin is free.
fn is_low(free: u64, margin: u64) -> bool {
    free < margin.saturating_mul(2)
}

impl Warehouse {
    /// Says in the log when space becomes short, and when there is room again. Blocks.
    pub(crate) fn look_after_space(&self) {
        let Ok(free) = self.store.free_bytes() else { return };
        let margin = self.store.limits.space_margin;
        let low = is_low(free, margin);
        if self.metrics.space_is_low.swap(low, Ordering::Relaxed) == low {
            return;
        }
        if low {
            tracing::warn!(free, margin, "space is short: below the margin uploads are refused");
        } else {
            tracing::info!(free, margin, "there is room again");
        }
    }
}

async fn free_bytes(warehouse: &Arc<Warehouse>) -> Result<u64, Refusal> {
    warehouse.blocking(|store| store.free_bytes()).await
}
