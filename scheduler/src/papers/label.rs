//! Labels: what stands on them, and how they are drawn into an area of any size: the code on the left, lines beside it.

use cardshop_protocol::api::SlotView;

use super::canvas::{Area, Canvas, em};
use super::code::Code;
use super::face::{Line, Weight};
use super::text::{clean, fit};
use super::words::fill;
use super::{Format, Language, Paper, PaperError, zpl};
use crate::core::views::{CardView, OrderView};

/// Labels of one request: an order's most copies, and as many again.
pub const MAX_LABELS: usize = 2 * crate::core::order::MAX_QUANTITY as usize;
/// Between a label's edge and what is on it, millimetres: cutters are not exact.
const PADDING: f32 = 1.6;
/// Letters no larger and no smaller than this, points.
const SIZES: (f32, f32) = (4.5, 11.0);
/// The shorter wording is taken rather than letters smaller than this, points.
const READABLE: f32 = 7.0;
/// From one line's base to the next, in em.
const LEADING: f32 = 1.25;
/// Digits of an image's id that tell images apart at a bench.
const DIGEST_CHARS: usize = 12;
/// Of a name, on a narrow label.
const NAME_CHARS: usize = 16;
/// Of the end of an order's id: those that no other order shares.
const ID_CHARS: usize = 8;

/// A line of a label: as it is, and shorter for a narrow one.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Said {
    whole: String,
    short: String,
}

impl Said {
    fn new(whole: &str) -> Self {
        let whole = clean(whole);
        Self { short: whole.clone(), whole }
    }

    /// What a person called something: a long name does not make the letters of all lines small.
    fn name(name: &str) -> Self {
        let whole = clean(name);
        match whole.char_indices().nth(NAME_CHARS) {
            Some((end, _)) => Self { short: format!("{}…", &whole[..end]), whole },
            None => Self::new(&whole),
        }
    }

    fn or(whole: &str, short: &str) -> Self {
        Self { whole: clean(whole), short: short.to_owned() }
    }

    /// An id, and its end.
    fn id(id: &str) -> Self {
        Self::or(id, &format!("…{}", &id[id.len() - ID_CHARS..]))
    }
}

/// What stands on a label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Label {
    /// What its code says.
    pub(super) code: String,
    title: String,
    said: Vec<Said>,
}

impl Label {
    /// Of a card: its order, which copy it is, its image, and when it was verified.
    pub fn card(order: Option<&OrderView>, card: &CardView, language: Language) -> Self {
        let words = language.words();
        let record = &card.record;
        let copy = if card.spare {
            words.spare.to_owned()
        } else {
            fill(words.copy_of, &[("n", &record.copy), ("m", &record.total)])
        };
        let image = record.image.to_string();
        let digest = &image[..DIGEST_CHARS];
        let id = record.order.to_string();
        Self {
            code: card.id.to_string(),
            title: clean(&order.map_or_else(|| id.clone(), |order| order.name.clone())),
            said: vec![
                Said::new(&copy),
                Said::id(&id),
                Said::or(&fill(words.image_short, &[("text", &digest)]), digest),
                Said::or(&language.day(record.finished), &record.finished.to_string()[..10]),
            ],
        }
    }

    /// Of a slot: its name and its appliance's.
    pub fn slot(slot: &SlotView) -> Self {
        let appliance = slot.appliance.to_string();
        Self {
            code: slot.id.clone(),
            title: clean(&slot.name),
            said: vec![Said::name(&slot.label), Said::new(slot.slot.as_str()), Said::id(&appliance)],
        }
    }
}

/// Labels on a paper; on a sheet they begin with label `start`, from 1.
///
/// # Errors
/// `TooManyLabels`, `NotOnSheet`; `Font` and `Code`, which are mistakes of ours.
pub fn labels(
    labels: &[Label],
    format: Format,
    start: u32,
    title: &str,
    language: Language,
) -> Result<Paper, PaperError> {
    let grid = format.grid();
    if labels.len() > MAX_LABELS {
        return Err(PaperError::TooManyLabels { count: labels.len() });
    }
    if !(1..=grid.labels()).contains(&start) {
        return Err(PaperError::NotOnSheet { start, count: grid.labels() });
    }
    if let Some(dots) = format.dots_per_mm() {
        return zpl::labels(labels, grid.label, dots);
    }
    let mut canvas = Canvas::new();
    let mut place = start - 1;
    for (number, label) in labels.iter().enumerate() {
        if number == 0 || place == grid.labels() {
            canvas.page(grid.page.0, grid.page.1);
            place %= grid.labels();
        }
        draw(&mut canvas, grid.area(place), label)?;
        place += 1;
    }
    if labels.is_empty() {
        canvas.page(grid.page.0, grid.page.1);
    }
    canvas.finish(title, language)
}

/// Where the parts of a label are.
pub(super) struct Parts {
    /// Side of the code.
    pub(super) code: f32,
    /// Left edge of the lines.
    pub(super) left: f32,
    /// Base of the first line.
    pub(super) base: f32,
    /// From one line's base to the next.
    pub(super) leading: f32,
    /// Size of the letters, points.
    pub(super) size: f32,
    /// What is written.
    pub(super) lines: Vec<Line>,
}

/// How a label fills an area: letters as large as its height allows and its width takes in the shorter wording.
pub(super) fn parts(label: &Label, area: Area) -> Parts {
    let height = area.height - 2.0 * PADDING;
    let code = height.min(area.width * 0.45);
    // The code has white around it already.
    let left = area.x + PADDING + code;
    let width = area.x + area.width - PADDING - left;
    let count = label.said.len() as f32 + 1.0;
    let taking = |wording: fn(&Said) -> &str| {
        let widths = label.said.iter().map(|said| Line::new(wording(said), Weight::Regular).width());
        em(width, 1.0) / widths.fold(1.0, f32::max)
    };
    let whole = Some(taking(|said| &said.whole)).filter(|size| *size >= READABLE);
    let widest = whole.unwrap_or_else(|| taking(|said| &said.short));
    let size = (em(height / count, 1.0) / LEADING).min(widest).clamp(SIZES.0, SIZES.1);
    let room = em(width, size);
    let mut lines = vec![fit(&label.title, Weight::Bold, room)];
    for said in &label.said {
        let whole = Line::new(&said.whole, Weight::Regular);
        let fits = whole.width() <= room;
        lines.push(if fits { whole } else { fit(&said.short, Weight::Regular, room) });
    }
    let leading = size * LEADING / em(1.0, 1.0);
    let top = area.y + PADDING + (height - leading * count).max(0.0) / 2.0;
    Parts { code, left, base: top + leading * 0.8, leading, size, lines }
}

fn draw(canvas: &mut Canvas, area: Area, label: &Label) -> Result<(), PaperError> {
    let code = Code::new(&label.code)?;
    let parts = parts(label, area);
    canvas.within(area, |canvas| {
        canvas.code(area.x + PADDING / 2.0, area.y + (area.height - parts.code) / 2.0, parts.code, &code);
        for (number, line) in parts.lines.iter().enumerate() {
            canvas.text(parts.left, parts.base + parts.leading * number as f32, parts.size, line);
        }
    });
    Ok(())
}
