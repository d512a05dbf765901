//! Who works here and who calls for help, what there is to do, and how long things take.

use axum::extract::{Query, State};
use axum::response::Html;
use cardshop_scheduler::core::views::PresenceView;
use cardshop_scheduler::{Scheduler, SchedulerError};

use super::{Cell, Part, Row, Sheet, Table};
use crate::page::{After, InLanguage, Refused, show};
use crate::session::Session;

fn row(worker: PresenceView, session: &Session) -> Row {
    let (b, w) = (session.locale.words.language.back(), session.locale.words);
    let channels: Vec<&str> = worker.channels.iter().map(|c| c.as_str()).collect();
    let is_creator = worker.kind == "creator";
    let name = if is_creator {
        Cell::Text(worker.label.clone())
    } else {
        Cell::Link(format!("/appliances/{}", worker.id), worker.label.clone())
    };
    let works_at = match worker.task {
        Some(task) => Cell::Link(format!("/office/tasks/{task}"), task.to_string()),
        None => {
            let mut counts = std::collections::BTreeMap::<&str, usize>::new();
            for state in worker.slots.values() {
                *counts.entry(crate::tile::word(*state, w)).or_default() += 1;
            }
            let counts: Vec<String> =
                counts.iter().map(|(word, count)| format!("{count} × {word}")).collect();
            Cell::Text(counts.join(", "))
        }
    };
    let (key, word) = if worker.online { ("online", b.there) } else { ("offline", b.away) };
    Row {
        cells: vec![
            name,
            Cell::Text(if is_creator { b.kind_creator } else { b.kind_appliance }.into()),
            Cell::Text(if channels.is_empty() { b.all.into() } else { channels.join(", ") }),
            Cell::State(key, word.into()),
            Cell::Text(session.locale.moment_or_dash(&worker.seen)),
            works_at,
            Cell::Text(worker.sos.join("; ")),
        ],
        id: worker.id,
        name: worker.label,
    }
}

pub(super) async fn page(
    State(scheduler): State<Scheduler>,
    session: Session,
    Query(after): Query<After>,
) -> Result<Html<String>, Refused> {
    let draw = || -> Result<_, SchedulerError> {
        let (caller, locale) = (&session.principal, &session.locale);
        let mut workers = scheduler.presence(caller)?.items;
        let load = scheduler.load(caller)?;
        let sheet = Sheet::new(&scheduler, &session, &after, "")?;
        let b = sheet.b;
        // Who calls for help comes first, then who is away.
        workers.sort_by_key(|worker| (worker.sos.is_empty(), worker.online, worker.label.clone()));
        let rows = workers.into_iter().map(|worker| row(worker, &session)).collect();
        let table = Table {
            title: b.workers,
            heads: vec![b.worker, b.kind, b.channels, b.state, b.seen, b.works_at, b.sos],
            rows,
            ..Table::default()
        };
        let took = |half: Option<u64>, most: Option<u64>| match (half, most) {
            (Some(half), Some(most)) => {
                Cell::Text(format!("{}, {}", locale.duration(&half), locale.duration(&most)))
            }
            _ => Cell::Text("–".into()),
        };
        let facts = vec![
            (b.load_waiting, Cell::Text(load.waiting.to_string())),
            (b.load_building, Cell::Text(load.building.to_string())),
            (b.load_creators, Cell::Text(load.creators.to_string())),
            (b.load_cards, Cell::Text(load.cards_wanted.to_string())),
            (b.load_appliances, Cell::Text(format!("{}, {}", load.appliances, load.slots))),
            (b.load_image, took(load.image_p50_s, load.image_p90_s)),
            (b.load_card, took(load.card_p50_s, load.card_p90_s)),
        ];
        let sheet = Sheet { title: b.workers.into(), ..sheet };
        Ok(sheet.help(b.workers_help).with(Part::Facts(facts)).with(Part::Table(table)))
    };
    Ok(show(&draw().told(&session)?))
}
