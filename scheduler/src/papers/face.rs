//! Text becomes glyphs: DejaVu Sans in two weights, shaped and put in the order it is read in. A character that the
//! font does not have becomes `�` before it is shaped, and the line remembers it.

use std::sync::LazyLock;

use harfrust::{Buffer, Direction, Font, ShapeOptions, ShaperFont, shape};
use unicode_bidi::ParagraphBidiInfo;

static REGULAR: &[u8] = include_bytes!("font/DejaVuSans.ttf");
static BOLD: &[u8] = include_bytes!("font/DejaVuSans-Bold.ttf");
/// What stands for a character that the font does not have.
const REPLACEMENT: char = '\u{fffd}';

/// How heavy a text is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Weight {
    Regular,
    Bold,
}

impl Weight {
    pub(super) const ALL: [Self; 2] = [Self::Regular, Self::Bold];

    /// The font's file.
    pub(super) fn bytes(self) -> &'static [u8] {
        match self {
            Self::Regular => REGULAR,
            Self::Bold => BOLD,
        }
    }

    /// The font.
    pub(super) fn font(self) -> &'static Font {
        static FONTS: LazyLock<[Font; 2]> =
            LazyLock::new(|| Weight::ALL.map(|w| Font::new(w.bytes(), 0).expect("a font of ours is one")));
        &FONTS[self as usize]
    }

    /// Its PostScript name.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Regular => "DejaVuSans",
            Self::Bold => "DejaVuSans-Bold",
        }
    }

    fn has(self, c: char) -> bool {
        // A joiner is never drawn.
        matches!(c, '\u{200c}' | '\u{200d}') || self.font().charmap().map_unicode(c).is_some()
    }
}

/// A glyph in its place; all lengths in units of the font.
pub(super) struct Glyph {
    pub(super) id: u16,
    pub(super) advance: i32,
    pub(super) x: i32,
    pub(super) y: i32,
    /// What it stands for: a range of the line's text. Empty for the second glyph of one character.
    pub(super) from: std::ops::Range<usize>,
}

/// A line of glyphs, from left to right.
pub(super) struct Line {
    pub(super) weight: Weight,
    pub(super) glyphs: Vec<Glyph>,
    /// Characters the font does not have.
    pub(super) missing: Vec<char>,
    text: String,
}

impl Line {
    pub(super) fn new(text: &str, weight: Weight) -> Self {
        // Some scripts are in the plain weight only.
        let plain = text.chars().any(|c| !weight.has(c) && Weight::Regular.has(c));
        let weight = if plain { Weight::Regular } else { weight };
        let missing: Vec<char> = text.chars().filter(|c| !weight.has(*c)).collect();
        let text: String = text.chars().map(|c| if weight.has(c) { c } else { REPLACEMENT }).collect();
        let mut glyphs = Vec::new();
        // No text has no runs, and may not be asked for them.
        if !text.is_empty() {
            let bidi = ParagraphBidiInfo::new(&text, None);
            let (levels, runs) = bidi.visual_runs(0..text.len());
            for run in runs.into_iter().filter(|run| !run.is_empty()) {
                shape_run(&text, run.clone(), levels[run.start].is_rtl(), weight, &mut glyphs);
            }
        }
        Self { weight, glyphs, missing, text }
    }

    /// In em.
    pub(super) fn width(&self) -> f32 {
        let units: i32 = self.glyphs.iter().map(|g| g.advance).sum();
        units as f32 / f32::from(self.weight.font().units_per_em())
    }

    /// What is shown.
    pub(super) fn text(&self) -> &str {
        &self.text
    }
}

/// Shapes a stretch of one direction.
fn shape_run(text: &str, run: std::ops::Range<usize>, rtl: bool, weight: Weight, glyphs: &mut Vec<Glyph>) {
    let mut buffer = Buffer::new();
    buffer.push_str(&text[run.clone()]);
    buffer.guess_segment_properties();
    buffer.set_direction(if rtl { Direction::RightToLeft } else { Direction::LeftToRight });
    shape(&ShaperFont::new(weight.font()), &mut buffer, ShapeOptions::new())
        .expect("the buffer has text, a direction and no plan of another");
    let clusters: Vec<usize> = buffer.glyph_infos().iter().map(|info| info.cluster as usize).collect();
    let mut sorted = clusters.clone();
    sorted.sort_unstable();
    sorted.dedup();
    for (number, (info, position)) in buffer.glyph_infos().iter().zip(buffer.glyph_positions()).enumerate() {
        let start = clusters[number];
        let end = sorted[sorted.partition_point(|c| *c <= start)..].first().copied().unwrap_or(run.len());
        // Of the glyphs of one cluster the first one says what it is.
        let first = number == 0 || clusters[number - 1] != start;
        glyphs.push(Glyph {
            id: u16::try_from(info.glyph_id).unwrap_or(0),
            advance: position.x_advance,
            x: position.x_offset,
            y: position.y_offset,
            from: if first { run.start + start..run.start + end } else { 0..0 },
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_font_lacks_is_shown_as_a_replacement_and_told() {
        let line = Line::new("a学b", Weight::Bold);
        assert_eq!((line.text(), line.missing.as_slice()), ("a\u{fffd}b", &['学'][..]));
        assert!(line.glyphs.iter().all(|g| g.id != 0), "every glyph is one of the font's");
        for covered in ["Éàçœßżłő", "Ελληνικά", "Українська", "العربية", "עברית", "ߒߞߏ", "ⵜⵉⴼⵉⵏⴰⵖ"]
        {
            let line = Line::new(covered, Weight::Bold);
            assert!(line.missing.is_empty() && line.width() > 1.0, "{covered}: {:?}", line.missing);
        }
    }

    #[test]
    fn letters_read_from_right_to_left_lie_so_and_numbers_between_them_do_not() {
        let line = Line::new("א12", Weight::Regular);
        let order: Vec<&str> = line.glyphs.iter().map(|g| &line.text()[g.from.clone()]).collect();
        assert_eq!(order, ["1", "2", "א"]);
    }

    #[test]
    fn a_letter_and_its_accent_are_one_glyph() {
        let line = Line::new("e\u{301}", Weight::Regular);
        assert_eq!((line.glyphs.len(), line.glyphs[0].from.clone()), (1, 0..3));
    }
}
