//! `/health` and `/metrics`.

use std::sync::atomic::Ordering;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use cardshop_protocol::message::Presence;
use serde_json::json;

use crate::Scheduler;

pub(super) fn routes() -> Router<Scheduler> {
    Router::new().route("/health", get(health)).route("/metrics", get(metrics))
}

/// 200 while store, broker and background are there, 503 with the same body else.
async fn health(State(scheduler): State<Scheduler>) -> Response {
    let store = scheduler.inner.store.is_healthy();
    let broker = scheduler.inner.metrics.broker_connected.load(Ordering::Relaxed);
    let word = |good| if good { "ok" } else { "failed" };
    let background = !scheduler.inner.metrics.background_failed.load(Ordering::Relaxed);
    let good = store && broker && background;
    let body = json!({
        "status": word(good),
        "components": {"store": word(store), "broker": word(broker), "background": word(background)},
        "version": env!("CARGO_PKG_VERSION"),
    });
    let status = if good { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(body)).into_response()
}

async fn metrics(State(scheduler): State<Scheduler>) -> Response {
    let now = scheduler.now();
    let (online, slots) = {
        let picture = scheduler.inner.picture.lock().expect("no holder panics");
        let online = picture.appliances().filter(|(_, p)| p.presence(now) == Presence::Online).count();
        (online as u64, picture.appliances().map(|(_, p)| p.slots.len() as u64).sum())
    };
    let repaired = u64::from(scheduler.inner.store.repaired().is_some());
    let gauges = [
        ("appliances_online", "Appliances online", online),
        ("slots_known", "Slots that told their state", slots),
        ("leads", "1 while this scheduler leads, where there are several", u64::from(scheduler.leads())),
        ("store_repaired", "1 when the store was found damaged at this start and repaired", repaired),
    ];
    let text = scheduler.inner.metrics.render(scheduler.inner.store.is_healthy(), &gauges);
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response()
}
