//! A PDF being drawn: pages as large as the paper, text, lines, boxes and codes on them, in millimetres from the upper
//! left corner. Of the font only the glyphs that are used go into the file. **Source:** ISO 32000-1 (PDF 1.7):
//! §9.7 composite fonts, §12.2 viewer preferences, §14.11.2 page boundaries.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;

use flate2::Compression;
use flate2::write::ZlibEncoder;
use harfrust::GlyphId;
use pdf_writer::types::{CidFontType, FontFlags, SystemInfo, UnicodeCmap};
use pdf_writer::{Content, Filter, Finish, Name, Pdf, Rect, Ref, Str, TextStr};
use subsetter::GlyphRemapper;

use super::code::{Code, QUIET};
use super::face::{Line, Weight};
use super::{Language, Paper, PaperError};

/// **Source:** ISO 32000-1 §8.3.2.3: a point is 1/72 inch.
const POINTS_PER_MM: f32 = 72.0 / 25.4;
const IDENTITY: SystemInfo =
    SystemInfo { registry: Str(b"Adobe"), ordering: Str(b"Identity"), supplement: 0 };
/// Most characters that a glyph is said to stand for: readers take no more than 512 bytes, and a letter may have thousands of
/// accents.
const MAX_SAID: usize = 32;
/// Where the resources of a page have a weight.
const RESOURCES: [Name<'static>; 2] = [Name(b"R"), Name(b"B")];

/// Points in em: how wide `mm` are for a text of this size.
pub(super) fn em(mm: f32, size: f32) -> f32 {
    mm * POINTS_PER_MM / size
}

/// A box, millimetres.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Area {
    pub(super) x: f32,
    pub(super) y: f32,
    pub(super) width: f32,
    pub(super) height: f32,
}

/// What is used of one weight.
#[derive(Default)]
struct Used {
    glyphs: GlyphRemapper,
    /// What a glyph of the file stands for.
    unicode: BTreeMap<u16, String>,
}

struct Page {
    width: f32,
    height: f32,
    content: Content,
}

pub(super) struct Canvas {
    pages: Vec<Page>,
    used: [Used; 2],
    missing: BTreeSet<char>,
}

fn deflated(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).expect("into memory");
    encoder.finish().expect("into memory")
}

impl Canvas {
    pub(super) fn new() -> Self {
        Self { pages: Vec::new(), used: Default::default(), missing: BTreeSet::new() }
    }

    /// Begins a page, millimetres.
    pub(super) fn page(&mut self, width: f32, height: f32) {
        self.pages.push(Page { width, height, content: Content::new() });
    }

    fn last(&mut self) -> &mut Page {
        self.pages.last_mut().expect("a page was begun")
    }

    /// Characters so far that the font does not have.
    pub(super) fn missing(&self) -> Vec<char> {
        self.missing.iter().copied().collect()
    }

    /// Draws a line of text, `size` in points, its base line beginning at `x`, `y`.
    pub(super) fn text(&mut self, x: f32, y: f32, size: f32, line: &Line) {
        if line.glyphs.is_empty() {
            // It would name a font that the file may not have.
            return;
        }
        self.missing.extend(&line.missing);
        let used = &mut self.used[line.weight as usize];
        let font = line.weight.font();
        let per_em = f32::from(font.units_per_em());
        let natural = font.glyph_metrics();
        let page = self.pages.last_mut().expect("a page was begun");
        let (left, base) = (x * POINTS_PER_MM, (page.height - y) * POINTS_PER_MM);
        let content = &mut page.content;
        content.begin_text().set_font(RESOURCES[line.weight as usize], size);
        let mut pen = 0.0;
        let mut glyphs = line.glyphs.iter().peekable();
        while let Some(first) = glyphs.peek() {
            let at = |units: f32| units * size / per_em;
            let (dx, dy) = (at(first.x as f32), at(first.y as f32));
            content.set_text_matrix([1.0, 0.0, 0.0, 1.0, left + at(pen) + dx, base + dy]);
            let mut shown = content.show_positioned();
            let mut items = shown.items();
            let moved = (first.x, first.y);
            // Glyphs in a row; one that is moved from its place is shown alone.
            while let Some(glyph) = glyphs.next_if(|g| (g.x, g.y) == moved) {
                let id = used.glyphs.remap(glyph.id);
                let said = &line.text()[glyph.from.clone()];
                if !said.is_empty() {
                    used.unicode.entry(id).or_insert_with(|| said.chars().take(MAX_SAID).collect());
                }
                items.show(Str(&id.to_be_bytes()));
                let advance = glyph.advance as f32;
                let differs = natural.h_advance(GlyphId::new(u32::from(glyph.id))) - advance;
                if differs != 0.0 {
                    items.adjust(differs * 1000.0 / per_em);
                }
                pen += advance;
                if moved != (0, 0) {
                    break;
                }
            }
        }
        content.end_text();
    }

    /// A thin frame.
    pub(super) fn frame(&mut self, area: Area) {
        let rect = self.points(area);
        let content = &mut self.last().content;
        content.set_line_width(0.4).rect(rect[0], rect[1], rect[2], rect[3]).stroke();
    }

    /// A thin horizontal line.
    pub(super) fn rule(&mut self, x: f32, y: f32, width: f32) {
        let [left, base, length, _] = self.points(Area { x, y, width, height: 0.0 });
        let content = &mut self.last().content;
        content.set_line_width(0.4).move_to(left, base).line_to(left + length, base).stroke();
    }

    /// A code in a square, the white around it included.
    pub(super) fn code(&mut self, x: f32, y: f32, side: f32, code: &Code) {
        let module = side / (code.width + 2 * QUIET) as f32;
        let at = |count: usize| (count + QUIET) as f32 * module;
        for (row, column, count) in &code.dark {
            let area =
                Area { x: x + at(*column), y: y + at(*row), width: *count as f32 * module, height: module };
            let rect = self.points(area);
            self.last().content.rect(rect[0], rect[1], rect[2], rect[3]);
        }
        self.last().content.fill_nonzero();
    }

    /// Draws inside of an area only.
    pub(super) fn within(&mut self, area: Area, draw: impl FnOnce(&mut Self)) {
        let rect = self.points(area);
        let content = &mut self.last().content;
        content.save_state().rect(rect[0], rect[1], rect[2], rect[3]).clip_nonzero().end_path();
        draw(self);
        self.last().content.restore_state();
    }

    /// In points, from the lower left corner: left, bottom, width, height.
    fn points(&mut self, area: Area) -> [f32; 4] {
        let height = self.last().height;
        [area.x, height - area.y - area.height, area.width, area.height].map(|mm| mm * POINTS_PER_MM)
    }

    /// The file.
    pub(super) fn finish(self, title: &str, language: Language) -> Result<Paper, PaperError> {
        let mut pdf = Pdf::new();
        pdf.set_version(1, 7);
        let mut next = Ref::new(1);
        let (catalog, tree, info) = (next.bump(), next.bump(), next.bump());
        let mut document = pdf.catalog(catalog);
        document.pages(tree).lang(TextStr(language.tag()));
        let mut wishes = document.viewer_preferences();
        wishes.display_doc_title(true);
        wishes.pair(Name(b"PrintScaling"), Name(b"None"));
        wishes.pair(Name(b"PickTrayByPDFSize"), true);
        wishes.finish();
        document.finish();
        pdf.document_info(info).title(TextStr(title)).producer(TextStr("Cardshop"));

        let mut fonts = Vec::new();
        for (weight, used) in
            Weight::ALL.into_iter().zip(&self.used).filter(|(_, used)| !used.unicode.is_empty())
        {
            fonts.push((RESOURCES[weight as usize], embed(&mut pdf, &mut next, weight, used)?));
        }
        let pages: Vec<Ref> = self.pages.iter().map(|_| next.bump()).collect();
        let count = i32::try_from(pages.len()).expect("labels are limited");
        pdf.pages(tree).kids(pages.iter().copied()).count(count);
        for (page, id) in self.pages.into_iter().zip(pages) {
            let stream = next.bump();
            let mut written = pdf.page(id);
            let size = Rect::new(0.0, 0.0, page.width * POINTS_PER_MM, page.height * POINTS_PER_MM);
            written.media_box(size).parent(tree).contents(stream);
            let mut resources = written.resources();
            let mut named = resources.fonts();
            for (name, font) in &fonts {
                named.pair(*name, *font);
            }
            named.finish();
            resources.finish();
            written.finish();
            pdf.stream(stream, &deflated(&page.content.finish())).filter(Filter::FlateDecode);
        }
        Ok(Paper { bytes: pdf.finish(), missing: self.missing.into_iter().collect() })
    }
}

/// Writes the part of a font that is used, and gives its id.
fn embed(pdf: &mut Pdf, next: &mut Ref, weight: Weight, used: &Used) -> Result<Ref, PaperError> {
    let file = subsetter::subset(weight.bytes(), 0, &used.glyphs)
        .map_err(|error| PaperError::Font(error.to_string()))?;
    let ids: [Ref; 5] = std::array::from_fn(|_| next.bump());
    let [font_id, cid, descriptor, file_id, cmap_id] = ids;
    let font = weight.font();
    let metrics = font.metrics();
    let per_em = f32::from(font.units_per_em());
    let thousandths = |units: f32| units * 1000.0 / per_em;
    // Six capitals in front say that the file has a part of the font only.
    let name = format!("CARDSH+{}", weight.name());
    let name = Name(name.as_bytes());

    pdf.type0_font(font_id)
        .base_font(name)
        .encoding_predefined(Name(b"Identity-H"))
        .descendant_font(cid)
        .to_unicode(cmap_id);
    let mut cid_font = pdf.cid_font(cid);
    cid_font.subtype(CidFontType::Type2).base_font(name).system_info(IDENTITY).font_descriptor(descriptor);
    cid_font.default_width(0.0).cid_to_gid_map_predefined(Name(b"Identity"));
    let advances = font.glyph_metrics();
    let widths =
        used.glyphs.remapped_gids().map(|gid| thousandths(advances.h_advance(GlyphId::new(u32::from(gid)))));
    cid_font.widths().consecutive(0, widths);
    cid_font.finish();

    let bounds = metrics.scaled_f32(1000.0).bounds();
    let line = metrics.scaled_f32(1000.0).hhea_line();
    let (ascent, descent) = line.map_or((1000.0, -250.0), |l| (l.ascender, l.descender));
    let mut described = pdf.font_descriptor(descriptor);
    described
        .name(name)
        .flags(FontFlags::SYMBOLIC)
        .bbox(Rect::new(bounds.x_min, bounds.y_min, bounds.x_max, bounds.y_max))
        .italic_angle(0.0)
        .ascent(ascent)
        .descent(descent)
        .cap_height(metrics.scaled_f32(1000.0).cap_height().unwrap_or(ascent))
        .stem_v(if weight == Weight::Bold { 160.0 } else { 90.0 })
        .font_file2(file_id);
    described.finish();

    let packed = deflated(&file);
    let mut stream = pdf.stream(file_id, &packed);
    stream.filter(Filter::FlateDecode);
    stream.pair(Name(b"Length1"), i32::try_from(file.len()).expect("a part of a font of ours"));
    stream.finish();
    let mut cmap = UnicodeCmap::new(Name(b"Custom"), IDENTITY);
    for (glyph, text) in &used.unicode {
        cmap.pair_with_multiple(*glyph, text.chars());
    }
    pdf.cmap(cmap_id, &cmap.finish());
    Ok(font_id)
}
