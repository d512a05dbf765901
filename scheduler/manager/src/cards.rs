//! The cards: the list with its search and exports, one card's record with its passport, and sheets of labels for
//! cards and slots.

use askama::Template;
use axum::extract::{Path, Query, State};
use axum::http::header;
use axum::response::{Html, IntoResponse, Response};
use cardshop_protocol::ids::{ApplianceId, ObjectId, OrderId};
use cardshop_scheduler::core::views::CardView;
use cardshop_scheduler::{PageRequest, Scheduler, SchedulerError};
use qrcode::render::svg;
use qrcode::{EcLevel, QrCode};
use serde::Deserialize;

use crate::page::{After, InLanguage, Refused, Shell, all, read_id, show};
use crate::session::Session;

/// Cards of one page of the list.
const PER_PAGE: usize = 100;

#[derive(Default, Deserialize)]
pub(crate) struct Filter {
    /// Only those of this order.
    #[serde(default)]
    order: String,
    #[serde(default)]
    cursor: String,
}

impl Filter {
    fn order(&self) -> Result<Option<OrderId>, SchedulerError> {
        match self.order.trim() {
            "" => Ok(None),
            text => text.parse().map(Some).map_err(|_| SchedulerError::NotFound("order")),
        }
    }
}

#[derive(Template)]
#[template(path = "cards.html")]
struct CardsPage {
    shell: Shell,
    order: String,
    cards: Vec<CardView>,
    next: Option<String>,
}

pub(crate) async fn list(
    State(scheduler): State<Scheduler>,
    session: Session,
    Query(filter): Query<Filter>,
    Query(after): Query<After>,
) -> Result<Html<String>, Refused> {
    let draw = || {
        let cursor = Some(filter.cursor.clone()).filter(|c| !c.is_empty());
        let request = PageRequest { limit: Some(PER_PAGE), cursor };
        let page = scheduler.cards(&session.principal, filter.order()?, &request)?;
        let shell = Shell::new(&scheduler, &session, &after)?;
        Ok(CardsPage { shell, order: filter.order.clone(), cards: page.items, next: page.next_cursor })
    };
    Ok(show(&draw().told(&session)?))
}

#[derive(Template)]
#[template(path = "card.html")]
struct CardPage {
    shell: Shell,
    card: CardView,
    qr: String,
}

pub(crate) async fn detail(
    State(scheduler): State<Scheduler>,
    session: Session,
    Path(uid): Path<String>,
    Query(after): Query<After>,
) -> Result<Html<String>, Refused> {
    let draw = || {
        let uid: ObjectId = read_id(&uid, "card")?;
        let card = scheduler.card(&session.principal, uid)?;
        Ok(CardPage { shell: Shell::new(&scheduler, &session, &after)?, card, qr: qr(&uid.to_string()) })
    };
    Ok(show(&draw().told(&session)?))
}

/// A QR code as SVG. **Source:** ISO/IEC 18004; level M survives a scratched label.
fn qr(text: &str) -> String {
    let code = QrCode::with_error_correction_level(text, EcLevel::M).expect("an id fits a QR code");
    let picture = code.render::<svg::Color<'_>>().min_dimensions(120, 120).quiet_zone(true).build();
    // Without the XML head it is a part of the page.
    picture[picture.find("<svg").unwrap_or(0)..].to_owned()
}

/// One label of a sheet.
struct Label {
    qr: String,
    title: String,
    lines: Vec<String>,
}

#[derive(Template)]
#[template(path = "labels.html")]
struct LabelSheet {
    shell: Shell,
    title: &'static str,
    labels: Vec<Label>,
}

/// A label for each card of an order.
pub(crate) async fn labels(
    State(scheduler): State<Scheduler>,
    session: Session,
    Query(filter): Query<Filter>,
) -> Result<Html<String>, Refused> {
    let draw = || {
        let order = filter.order()?.ok_or(SchedulerError::NotFound("order"))?;
        let name = scheduler.order(&session.principal, order)?.name;
        let w = session.locale.words;
        let mut cards = all(|page| scheduler.cards(&session.principal, Some(order), page))?;
        cards.sort_by_key(|card| (card.spare, card.record.copy));
        let label = |card: &CardView| {
            let copy =
                if card.spare { w.spare.into() } else { w.copy_of(card.record.copy, card.record.total) };
            let uid = card.id.to_string();
            Label { qr: qr(&uid), title: name.clone(), lines: vec![copy, uid] }
        };
        let labels = cards.iter().map(label).collect();
        let shell = Shell::new(&scheduler, &session, &After::default())?;
        Ok(LabelSheet { shell, title: w.label_sheet, labels })
    };
    Ok(show(&draw().told(&session)?))
}

/// A label for each slot of an appliance, whose code the scanner field understands.
pub(crate) async fn slot_labels(
    State(scheduler): State<Scheduler>,
    session: Session,
    Path(id): Path<String>,
) -> Result<Html<String>, Refused> {
    let draw = || {
        let id: ApplianceId = read_id(&id, "appliance")?;
        let appliance = scheduler.appliance(&session.principal, id)?;
        let mut slots = all(|page| scheduler.slots(&session.principal, page))?;
        slots.retain(|slot| slot.appliance == id);
        let labels = slots.iter().map(|slot| Label {
            qr: qr(&slot.id),
            title: slot.name.clone(),
            lines: vec![appliance.label.clone(), slot.id.clone()],
        });
        let labels = labels.collect();
        let shell = Shell::new(&scheduler, &session, &After::default())?;
        Ok(LabelSheet { shell, title: session.locale.words.slot_labels, labels })
    };
    Ok(show(&draw().told(&session)?))
}

/// A card in a spreadsheet; rates in bytes a second, sizes in bytes.
#[derive(serde::Serialize)]
struct Line {
    uid: String,
    order: String,
    copy: u32,
    total: u32,
    spare: bool,
    image: String,
    card_size: u64,
    cid: String,
    appliance: String,
    slot: String,
    reader: String,
    written_bytes: u64,
    verified_bytes: u64,
    write_bps: u64,
    verify_bps: u64,
    started: String,
    finished: String,
}

impl From<&CardView> for Line {
    fn from(card: &CardView) -> Self {
        let record = &card.record;
        Self {
            uid: card.id.to_string(),
            order: record.order.to_string(),
            copy: record.copy,
            total: record.total,
            spare: card.spare,
            image: record.image.to_string(),
            card_size: record.card_size,
            cid: record.cid.clone().unwrap_or_default(),
            appliance: record.appliance.to_string(),
            slot: record.slot.to_string(),
            reader: no_formula(&record.reader),
            written_bytes: record.written_bytes,
            verified_bytes: record.verified_bytes,
            write_bps: record.write_bps,
            verify_bps: record.verify_bps,
            started: record.started.to_string(),
            finished: record.finished.to_string(),
        }
    }
}

/// A spreadsheet would take what begins like a formula for one.
pub(crate) fn no_formula(text: &str) -> String {
    text.trim_start_matches(['=', '+', '-', '@', '\t']).to_owned()
}

pub(crate) fn attachment(kind: &'static str, name: &'static str, body: Vec<u8>) -> Response {
    let disposition = format!("attachment; filename=\"{name}\"");
    ([(header::CONTENT_TYPE, kind.to_owned()), (header::CONTENT_DISPOSITION, disposition)], body)
        .into_response()
}

pub(crate) async fn csv(
    State(scheduler): State<Scheduler>,
    session: Session,
    Query(filter): Query<Filter>,
) -> Result<Response, Refused> {
    let write = || {
        let order = filter.order()?;
        let mut writer = ::csv::Writer::from_writer(Vec::new());
        for card in all(|page| scheduler.cards(&session.principal, order, page))? {
            writer.serialize(Line::from(&card)).expect("into memory");
        }
        Ok(writer.into_inner().expect("into memory"))
    };
    let body: Result<_, SchedulerError> = write();
    Ok(attachment("text/csv; charset=utf-8", "cards.csv", body.told(&session)?))
}

pub(crate) async fn json(
    State(scheduler): State<Scheduler>,
    session: Session,
    Query(filter): Query<Filter>,
) -> Result<Response, Refused> {
    let read = || {
        let order = filter.order()?;
        all(|page| scheduler.cards(&session.principal, order, page))
    };
    let cards = read().told(&session)?;
    let body = serde_json::to_vec_pretty(&cards).expect("records are plain JSON");
    Ok(attachment("application/json", "cards.json", body))
}
