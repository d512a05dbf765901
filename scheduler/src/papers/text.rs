//! Texts made fit for paper: no control characters, bounded, on lines of a given width. Whatever a person typed comes
//! through here before it is shaped.

use super::face::{Line, Weight};

/// Longest text that is looked at, characters: more does not fit on any paper of ours.
const MAX_CHARS: usize = 4000;
/// Characters of a line, at most: twice what the widest line of ours has in narrow letters. Accents have no width, so that
/// a width alone bounds nothing.
const MAX_LINE: usize = 400;
const ELLIPSIS: char = '…';

/// True for characters that only steer how others are shown. Joiners stay: Persian and N’Ko need them.
fn steers(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
        | '\u{feff}' | '\u{fe00}'..='\u{fe0f}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}')
}

/// One line of plain text: control characters are spaces, runs of spaces one, nothing at its ends.
pub(super) fn clean(text: &str) -> String {
    let mut line = String::new();
    for c in text.chars().take(MAX_CHARS).filter(|c| !steers(*c)) {
        let space = c.is_control() || matches!(c, ' ' | '\u{2028}' | '\u{2029}');
        if !space {
            line.push(c);
        } else if !line.ends_with(' ') {
            line.push(' ');
        }
    }
    line.trim().to_owned()
}

/// The lines of a text, cleaned; empty ones are left out.
pub(super) fn lines(text: &str) -> Vec<String> {
    text.lines().take(MAX_CHARS).map(clean).filter(|line| !line.is_empty()).collect()
}

/// `text` on one line of at most `width` em, cut with `…` when it is longer.
pub(super) fn fit(text: &str, weight: Weight, width: f32) -> Line {
    let chars: Vec<char> = text.chars().take(MAX_LINE + 1).collect();
    if chars.len() <= MAX_LINE {
        let whole = Line::new(text, weight);
        if whole.width() <= width {
            return whole;
        }
    }
    // How many characters fit: a longer cut is never narrower, but for kerning, which no paper shows.
    let (mut fits, mut too_many) = (0, chars.len());
    let cut = |count: usize| {
        let mut cut: String = chars[..count].iter().collect::<String>().trim_end().to_owned();
        cut.push(ELLIPSIS);
        Line::new(&cut, weight)
    };
    while too_many - fits > 1 {
        let middle = fits.midpoint(too_many);
        if cut(middle).width() <= width { fits = middle } else { too_many = middle }
    }
    cut(fits)
}

/// `text` on at most `count` lines of `width` em; words break where they are longer than a line, and the last line is
/// cut with `…`.
pub(super) fn wrap(text: &str, weight: Weight, width: f32, count: usize) -> Vec<Line> {
    let mut lines = Vec::new();
    let mut rest = text.trim();
    while !rest.is_empty() && lines.len() + 1 < count {
        let end = first_line(rest, weight, width);
        lines.push(Line::new(rest[..end].trim_end(), weight));
        rest = rest[end..].trim_start();
    }
    if !rest.is_empty() && count > 0 {
        lines.push(fit(rest, weight, width));
    }
    lines
}

/// Where the first line of `text` ends: behind the last word that fits, or inside the first.
fn first_line(text: &str, weight: Weight, width: f32) -> usize {
    let text = text.char_indices().nth(MAX_LINE).map_or(text, |(end, _)| &text[..end]);
    if Line::new(text, weight).width() <= width {
        return text.len();
    }
    // Ends of what may stand on the line, each longer than the one before.
    let longest = |ends: &[usize]| {
        let fitting = ends.partition_point(|end| Line::new(&text[..*end], weight).width() <= width);
        fitting.checked_sub(1).map(|last| ends[last])
    };
    let words: Vec<usize> = text.match_indices(' ').map(|(at, _)| at).collect();
    longest(&words).unwrap_or_else(|| {
        let inside: Vec<usize> = text.char_indices().skip(1).map(|(at, _)| at).collect();
        // A line narrower than one character still takes one.
        longest(&inside).or(inside.first().copied()).unwrap_or(text.len())
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn control_characters_and_what_turns_the_reading_order_do_not_come_through() {
        assert_eq!(clean("  a\tb\r\n\0c \u{202e}d\u{feff}\u{2028} "), "a b c d");
        assert_eq!(lines("a\n\n \r\n b\u{1b}[31m"), ["a", "b [31m"]);
        assert_eq!(clean(&"x".repeat(100_000)).len(), MAX_CHARS);
    }

    #[test]
    fn no_line_is_wider_than_it_may_be_and_nothing_is_lost_before_the_last() {
        let text = "The quick brown fox jumps over Donaudampfschifffahrtsgesellschaft and more";
        let lines = wrap(text, Weight::Regular, 8.0, 100);
        assert!(lines.len() > 4 && lines.iter().all(|line| line.width() <= 8.01));
        let joined: String = lines.iter().map(Line::text).collect::<Vec<_>>().concat();
        assert_eq!(joined.replace(' ', ""), text.replace(' ', ""));
        let cut = wrap(text, Weight::Regular, 8.0, 2);
        assert!(cut.len() == 2 && cut[1].text().ends_with('…') && cut[1].width() <= 8.01);
        assert_eq!(wrap("ab", Weight::Bold, 0.0, 9).len(), 2, "narrower than a character");
        assert!(wrap("", Weight::Bold, 9.0, 9).is_empty());
    }

    proptest! {
        #[test]
        fn any_text_becomes_lines_that_fit_of_glyphs_that_the_font_has(text in any::<String>()) {
            let lines = wrap(&clean(&text), Weight::Bold, 6.0, 3);
            prop_assert!(lines.len() <= 3);
            for line in lines {
                // One character that is wider than the line is a line of its own.
                prop_assert!(line.width() <= 6.01 || line.text().chars().count() == 1, "{}", line.text());
                prop_assert!(line.glyphs.iter().all(|glyph| glyph.id != 0), "{}", line.text());
            }
        }
    }
}
