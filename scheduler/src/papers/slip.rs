//! The slip of a parcel: one page of A4 with who sends what to whom. What does not fit is cut, and says so. The
//! recipient stands where the window of a long envelope is. **Source:** ISO 216 (A4), DIN 680 (window).

use cardshop_protocol::time::Timestamp;
use serde_json::Value;

use super::canvas::{Area, Canvas, em};
use super::code::Code;
use super::contents::contents;
use super::face::{Line, Weight};
use super::text::{clean, lines, wrap};
use super::words::{Words, fill};
use super::{Language, Paper, PaperError, code_points};
use crate::core::order::Shipment;
use crate::core::views::OrderView;

/// A4.
const PAGE: (f32, f32) = (210.0, 297.0);
/// Left and right edge of what is printed, millimetres: printers reach it, punches do not.
const MARGIN: f32 = 20.0;
const WIDTH: f32 = PAGE.0 - 2.0 * MARGIN;
/// Where the last line of the body may stand.
const BOTTOM: f32 = 274.0;
/// From one line of the table to the next, and between rows besides.
const LINE: f32 = 5.2;
const ROW_GAP: f32 = 0.8;
/// Of the table: what a row is called.
const NAMES_WIDTH: f32 = 40.0;
/// Lines of an address, at most.
const ADDRESS_LINES: usize = 8;
/// Shipments that are told one by one, the newest; an order has hundreds at most.
const SHIPMENTS_TOLD: usize = 6;
/// Lines that one thing on the card may take.
const LINES_OF_ONE: usize = 12;
/// Missing characters that the footer names.
const MISSING_TOLD: usize = 20;
/// Side of the code with its white, millimetres.
const CODE_SIDE: f32 = 34.0;

/// Who sends the parcel.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sender {
    /// Name.
    pub name: String,
    /// Address, several lines.
    pub address: String,
    /// E-mail.
    pub email: String,
}

/// What a slip is made from.
#[derive(Clone, Copy)]
pub struct Slip<'a> {
    /// The order.
    pub order: &'a OrderView,
    /// Who sends it.
    pub sender: &'a Sender,
    /// The recipe its image is made of, where the reader may know.
    pub recipe: Option<&'a Value>,
    /// The day on it.
    pub now: Timestamp,
}

/// The slip of an order.
///
/// # Errors
/// `Font` and `Code`, which are mistakes of ours.
pub fn slip(slip: &Slip<'_>, language: Language) -> Result<Paper, PaperError> {
    let words = language.words();
    let mut page = Page { canvas: Canvas::new(), y: 0.0 };
    page.canvas.page(PAGE.0, PAGE.1);
    page.head(slip, words)?;
    page.addresses(slip, words);
    page.y = 112.0;
    for (name, value) in rows(slip, language) {
        page.row(name, &value, 2, 0);
    }
    let told = slip.recipe.map(|recipe| contents(recipe, language)).unwrap_or_default();
    if !told.is_empty() {
        page.y += 4.0;
        page.canvas.rule(MARGIN, page.y, WIDTH);
        page.y += 7.0;
        page.canvas.text(MARGIN, page.y, 12.0, &Line::new(words.on_the_card, Weight::Bold));
        page.y += 7.0;
        page.list(&told, words);
    }
    let title = format!("{} {}", words.slip, clean(&slip.order.name));
    page.footer(words);
    page.canvas.finish(&title, language)
}

/// The rows of the table.
fn rows(slip: &Slip<'_>, language: Language) -> Vec<(&'static str, String)> {
    let (order, words) = (slip.order, language.words());
    let mut rows = vec![
        (words.order, order.id.to_string()),
        (words.date, language.day(slip.now)),
        (words.placed, language.day(order.created)),
        (words.quantity, words.count(order.quantity)),
    ];
    if let Some(media) = &order.media {
        rows.push((words.media, media.name.clone()));
    }
    if let Some(image) = &order.image {
        rows.push((words.image, format!("{}, {}", &image.id.to_string()[..16], language.size(image.size))));
    }
    let earlier = order.shipments.len().saturating_sub(SHIPMENTS_TOLD);
    for (number, shipment) in order.shipments[earlier..].iter().enumerate() {
        rows.push((if number == 0 { words.shipments } else { "" }, sent(shipment, language)));
    }
    if earlier > 0 {
        rows.push(("", fill(words.more, &[("n", &earlier)])));
    }
    rows
}

fn sent(shipment: &Shipment, language: Language) -> String {
    let words = language.words();
    let (count, day) = (words.count(shipment.count), language.day(shipment.at));
    match shipment.tracking.as_deref().map(clean).filter(|code| !code.is_empty()) {
        Some(code) => fill(words.shipment_tracked, &[("n", &count), ("day", &day), ("code", &code)]),
        None => fill(words.shipment, &[("n", &count), ("day", &day)]),
    }
}

/// Parts of an address in the order they are written, by the names that they have.
const ADDRESS: [&[&str]; 9] = [
    &["name"],
    &["company", "organization", "organisation"],
    &["address", "street", "address1", "line1"],
    &["address2", "line2"],
    &["postcode", "postal_code", "zip", "city", "town"],
    &["state", "region", "province"],
    &["country"],
    &["phone", "telephone"],
    &["email"],
];

/// An order's recipient as lines: what an address has, in its order, then whatever else was given.
fn address(recipient: &Value) -> Vec<String> {
    let said = |value: &Value| match value {
        Value::String(text) => lines(text),
        Value::Number(number) => vec![number.to_string()],
        _ => vec![],
    };
    let Value::Object(fields) = recipient else { return said(recipient) };
    let mut all = Vec::new();
    for names in ADDRESS {
        let parts: Vec<String> = names.iter().filter_map(|name| fields.get(*name)).flat_map(said).collect();
        match names[0] {
            "postcode" if !parts.is_empty() => all.push(parts.join(" ")),
            _ => all.extend(parts),
        }
    }
    let known = |name: &str| ADDRESS.iter().any(|names| names.contains(&name));
    for (name, value) in fields.iter().filter(|(name, _)| !known(name)) {
        all.extend(said(value).into_iter().map(|line| format!("{}: {line}", clean(name))));
    }
    all
}

struct Page {
    canvas: Canvas,
    /// Base of the next line.
    y: f32,
}

impl Page {
    /// Title, name and code.
    fn head(&mut self, slip: &Slip<'_>, words: &Words) -> Result<(), PaperError> {
        let id = slip.order.id.to_string();
        let width = WIDTH - CODE_SIDE - 6.0;
        self.canvas.text(MARGIN, 24.0, 20.0, &Line::new(words.slip, Weight::Bold));
        let name = wrap(&clean(&slip.order.name), Weight::Regular, em(width, 13.0), 2);
        for (number, line) in name.iter().enumerate() {
            self.canvas.text(MARGIN, 33.0 + 6.0 * number as f32, 13.0, line);
        }
        let left = PAGE.0 - MARGIN - CODE_SIDE;
        self.canvas.code(left, 10.0, CODE_SIDE, &Code::new(&id)?);
        Ok(())
    }

    fn addresses(&mut self, slip: &Slip<'_>, words: &Words) {
        let Sender { name, address: at, email } = slip.sender;
        let from: Vec<String> = [name, at, email].into_iter().flat_map(|text| lines(text)).collect();
        self.block(words.sender, &from, Area { x: MARGIN, y: 50.0, width: 72.0, height: 50.0 }, 10.0);
        let mut to = address(&slip.order.recipient);
        if to.is_empty() {
            to.push(words.no_recipient.to_owned());
        }
        let area = Area { x: 104.0, y: 50.0, width: 86.0, height: 52.0 };
        self.canvas.frame(area);
        let inside = Area { x: area.x + 4.0, width: area.width - 8.0, ..area };
        self.block(words.recipient, &to, inside, 11.0);
    }

    /// A heading with lines below it.
    fn block(&mut self, heading: &str, texts: &[String], area: Area, size: f32) {
        self.canvas.text(area.x, area.y + 6.0, 8.0, &Line::new(heading, Weight::Regular));
        let width = em(area.width, size);
        let mut shown: Vec<Line> = texts
            .iter()
            .flat_map(|text| wrap(text, Weight::Regular, width, 3))
            .take(ADDRESS_LINES + 1)
            .collect();
        if shown.len() > ADDRESS_LINES {
            shown.truncate(ADDRESS_LINES - 1);
            shown.push(Line::new("…", Weight::Regular));
        }
        for (number, line) in shown.iter().enumerate() {
            self.canvas.text(area.x, area.y + 12.5 + 4.8 * number as f32, size, line);
        }
    }

    /// A row of the table, on at most `count` lines, leaving room for `others` of one line; false when the page is full.
    fn row(&mut self, name: &str, value: &str, count: usize, others: usize) -> bool {
        let room = |bottom: f32| ((bottom - self.y) / LINE).floor().max(0.0) as usize;
        if room(BOTTOM) == 0 {
            return false;
        }
        let room = room(BOTTOM - others as f32 * (LINE + ROW_GAP)).max(1);
        self.canvas.text(MARGIN, self.y, 10.0, &Line::new(name, Weight::Regular));
        let width = em(WIDTH - NAMES_WIDTH, 10.0);
        for line in wrap(&clean(value), Weight::Bold, width, count.min(room)) {
            self.canvas.text(MARGIN + NAMES_WIDTH, self.y, 10.0, &line);
            self.y += LINE;
        }
        self.y += ROW_GAP;
        true
    }

    /// What is on the card, as far as there is room.
    fn list(&mut self, told: &[(&'static str, String)], words: &Words) {
        for (number, (name, value)) in told.iter().enumerate() {
            if !self.row(name, value, LINES_OF_ONE, told.len() - number - 1) {
                let more = fill(words.more, &[("n", &(told.len() - number))]);
                self.canvas.text(MARGIN, self.y, 10.0, &Line::new(&more, Weight::Regular));
                return;
            }
        }
    }

    /// Which characters could not be printed: whoever reads the paper should not wonder.
    fn footer(&mut self, words: &Words) {
        let missing = self.canvas.missing();
        if missing.is_empty() {
            return;
        }
        let mut named = code_points(&missing, MISSING_TOLD);
        if missing.len() > MISSING_TOLD {
            named = format!("{named} {}", fill(words.more, &[("n", &(missing.len() - MISSING_TOLD))]));
        }
        let text = fill(words.missing, &[("text", &named)]);
        for (number, line) in wrap(&text, Weight::Regular, em(WIDTH, 7.0), 3).iter().enumerate() {
            self.canvas.text(MARGIN, 282.0 + 3.2 * number as f32, 7.0, line);
        }
    }
}
