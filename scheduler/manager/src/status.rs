//! How the shop is, for everybody: each part in words, and 200 or 503 for monitors, for all or for one.

use askama::Template;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use cardshop_scheduler::Scheduler;
use cardshop_scheduler::core::health::{Health, Part};

use crate::locale::Locale;
use crate::page::show;
use crate::words::{Back, Words};

/// A part in the table.
struct Row {
    key: &'static str,
    name: &'static str,
    /// For programs.
    state: &'static str,
    word: &'static str,
    numbers: String,
}

#[derive(Template)]
#[template(path = "status.html")]
struct StatusPage {
    w: &'static Words,
    b: &'static Back,
    good: bool,
    rows: Vec<Row>,
    at: String,
}

fn row(part: &Part, w: &Words, b: &Back) -> Row {
    let (state, word) = match part.health {
        Health::Good => ("ok", b.good),
        Health::Resting => ("resting", b.resting),
        Health::Failed => ("failed", b.failed),
    };
    let name = match part.key {
        "store" => b.part_store,
        "broker" => b.part_broker,
        "background" => b.part_background,
        "warehouses" => b.warehouses,
        "creators" => b.part_creators,
        "queue" => b.part_queue,
        "auto-images" => b.part_auto_images,
        _ => w.appliances,
    };
    let numbers = match part.key {
        "store" | "broker" | "background" => String::new(),
        "creators" => part.count.to_string(),
        _ => format!("{} / {}", part.count, part.of),
    };
    Row { key: part.key, name, state, word, numbers }
}

fn status(parts: &[Part]) -> StatusCode {
    let good = parts.iter().all(|part| part.health != Health::Failed);
    if good { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}

fn draw(scheduler: &Scheduler, locale: &Locale, parts: &[Part]) -> Response {
    let w = locale.words;
    let b = w.language.back();
    let rows = parts.iter().map(|part| row(part, w, b)).collect();
    let status = status(parts);
    let at = locale.moment(&scheduler.now());
    (status, show(&StatusPage { w, b, good: status == StatusCode::OK, rows, at })).into_response()
}

pub(crate) async fn page(State(scheduler): State<Scheduler>, locale: Locale) -> Response {
    draw(&scheduler, &locale, &scheduler.health())
}

/// One part, for a monitor that looks at it alone.
pub(crate) async fn part(
    State(scheduler): State<Scheduler>,
    locale: Locale,
    Path(key): Path<String>,
) -> Response {
    let mut parts = scheduler.health();
    parts.retain(|part| part.key == key);
    if parts.is_empty() {
        return (StatusCode::NOT_FOUND, locale.words.not_found).into_response();
    }
    draw(&scheduler, &locale, &parts)
}
