//! The API for people who read: every route, as the table says that its description for programs is made of too.

use askama::Template;
use axum::response::Html;
use cardshop_scheduler::{RouteView, routes};

use crate::locale::Locale;
use crate::page::show;
use crate::words::{Back, Words};

/// Routes of one kind of object.
struct Room {
    name: String,
    routes: Vec<RouteView>,
}

#[derive(Template)]
#[template(path = "api.html")]
struct ApiPage {
    w: &'static Words,
    b: &'static Back,
    rooms: Vec<Room>,
}

fn rooms() -> Vec<Room> {
    let mut rooms: Vec<Room> = Vec::new();
    for route in routes() {
        let name = route.path.trim_start_matches("/api/v1").trim_start_matches('/');
        let name = name.split(['/', '.']).next().unwrap_or_default().to_owned();
        match rooms.iter_mut().find(|room| room.name == name) {
            Some(room) => room.routes.push(route),
            None => rooms.push(Room { name, routes: vec![route] }),
        }
    }
    rooms.sort_by(|a, b| a.name.cmp(&b.name));
    rooms
}

pub(crate) async fn page(locale: Locale) -> Html<String> {
    let w = locale.words;
    show(&ApiPage { w, b: w.language.back(), rooms: rooms() })
}
