//! Logs as their workers wrote them, painted: colours and weights of ANSI become classes, all else is text. What a program
//! wrote is never HTML here, whatever it wrote; a sequence that is none of colours is dropped. **Source:** ECMA-48 §8.3.117
//! (SGR); the state machine is `anstyle-parse`'s.

use anstyle_parse::{Params, Parser, Perform, Utf8Parser};

/// Weight and colour of what comes next.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Style {
    bold: bool,
    faint: bool,
    /// 0 to 7, and 8 to 15 for the bright ones.
    colour: Option<u8>,
}

impl Style {
    fn set(&mut self, code: u16) {
        match code {
            0 => *self = Self::default(),
            1 => self.bold = true,
            2 => self.faint = true,
            22 => (self.bold, self.faint) = (false, false),
            39 => self.colour = None,
            30..=37 => self.colour = u8::try_from(code - 30).ok(),
            90..=97 => self.colour = u8::try_from(code - 82).ok(),
            _ => {}
        }
    }

    fn classes(self) -> String {
        let mut classes = Vec::new();
        if self.bold {
            classes.push("bold".to_owned());
        }
        if self.faint {
            classes.push("faint".to_owned());
        }
        classes.extend(self.colour.map(|colour| format!("c{colour}")));
        classes.join(" ")
    }
}

/// Paints a log piece by piece: what a piece begins, the next one goes on with.
#[derive(Default)]
pub(super) struct Painter {
    parser: Parser<Utf8Parser>,
    canvas: Canvas,
}

#[derive(Default)]
struct Canvas {
    html: String,
    style: Style,
    /// What the span that is open has.
    open: Option<Style>,
}

impl Painter {
    /// The HTML of the next piece; each piece closes what it opened.
    pub(super) fn paint(&mut self, text: &str) -> String {
        for byte in text.bytes() {
            self.parser.advance(&mut self.canvas, byte);
        }
        self.canvas.close();
        std::mem::take(&mut self.canvas.html)
    }
}

impl Canvas {
    fn close(&mut self) {
        if self.open.take().is_some() {
            self.html.push_str("</span>");
        }
    }

    fn put(&mut self, c: char) {
        if self.open != Some(self.style).filter(|style| *style != Style::default()) {
            self.close();
            if self.style != Style::default() {
                self.html.push_str(&format!("<span class=\"{}\">", self.style.classes()));
                self.open = Some(self.style);
            }
        }
        match c {
            '&' => self.html.push_str("&amp;"),
            '<' => self.html.push_str("&lt;"),
            '>' => self.html.push_str("&gt;"),
            '"' => self.html.push_str("&quot;"),
            '\'' => self.html.push_str("&#39;"),
            c => self.html.push(c),
        }
    }
}

impl Perform for Canvas {
    fn print(&mut self, c: char) {
        if !c.is_control() {
            self.put(c);
        }
    }

    fn execute(&mut self, byte: u8) {
        if matches!(byte, b'\n' | b'\t') {
            self.put(char::from(byte));
        }
    }

    fn csi_dispatch(&mut self, params: &Params, intermediates: &[u8], ignore: bool, action: u8) {
        if action != b'm' || ignore || !intermediates.is_empty() {
            return;
        }
        let mut codes = params.iter().flat_map(|param| param.iter().copied());
        if params.is_empty() {
            self.style = Style::default();
        }
        while let Some(code) = codes.next() {
            match code {
                // Colours of 256 or more: their numbers are not codes.
                38 | 48 => {
                    let skipped = if codes.next() == Some(2) { 3 } else { 1 };
                    codes.by_ref().take(skipped).for_each(drop);
                }
                code => self.style.set(code),
            }
        }
    }
}

/// A log without its colours.
pub(super) fn plain(text: &str) -> String {
    struct Plain(String);
    impl Perform for Plain {
        fn print(&mut self, c: char) {
            self.0.extend(Some(c).filter(|c| !c.is_control()));
        }
        fn execute(&mut self, byte: u8) {
            self.0.extend(Some(char::from(byte)).filter(|c| matches!(c, '\n' | '\t')));
        }
    }
    let (mut parser, mut plain) = (Parser::<Utf8Parser>::default(), Plain(String::new()));
    text.bytes().for_each(|byte| parser.advance(&mut plain, byte));
    plain.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paint(text: &str) -> String {
        Painter::default().paint(text)
    }

    #[test]
    fn colours_become_classes_and_what_is_html_stays_text() {
        assert_eq!(
            paint("ok \u{1b}[1;31mbad <b>\u{1b}[0m & \"good\"\n"),
            "ok <span class=\"bold c1\">bad &lt;b&gt;</span> &amp; &quot;good&quot;\n"
        );
        assert_eq!(
            paint("\u{1b}[92mé\u{1b}[39m\u{1b}[2mx\u{1b}[22my"),
            "<span class=\"c10\">é</span><span class=\"faint\">x</span>y"
        );
        assert_eq!(paint("\u{1b}[38;5;1mred?\u{1b}[38;2;1;31;1mno\u{1b}[m."), "red?no.");
        assert_eq!(paint("\u{1b}[2J\u{1b}]0;title\u{7}a\u{8}\rb\tc"), "ab\tc");
        assert_eq!(plain("ok \u{1b}[1;31m<b>\u{1b}[0m é\n"), "ok <b> é\n");
    }

    #[test]
    fn a_colour_goes_on_from_piece_to_piece_and_each_piece_is_whole() {
        let mut painter = Painter::default();
        assert_eq!(painter.paint("\u{1b}[33mone"), "<span class=\"c3\">one</span>");
        assert_eq!(painter.paint(" two\u{1b}["), "<span class=\"c3\"> two</span>");
        assert_eq!(painter.paint("0mthree"), "three");
    }

    #[test]
    fn whatever_is_written_is_balanced_and_holds_no_tag_of_its_own() {
        // xorshift64*: the same numbers in every run.
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut next = || {
            state ^= state >> 12;
            state ^= state << 25;
            state ^= state >> 27;
            state.wrapping_mul(0x2545_f491_4f6c_dd1d)
        };
        let pieces = [
            "\u{1b}[", "m", ";", "31", "0", "1", "38", "<script>", "&", "é", "\n", "\u{1b}]", "\u{7}",
            "\u{9b}", "a",
        ];
        for _ in 0..2000 {
            let text: String =
                (0..next() % 40).map(|_| pieces[(next() % pieces.len() as u64) as usize]).collect();
            let html = paint(&text);
            let bare = html.replace("</span>", "");
            let tags: Vec<&str> = bare.split('<').skip(1).collect();
            assert!(tags.iter().all(|tag| tag.starts_with("span class=\"")), "{text:?}: {html}");
            assert_eq!(tags.len(), html.matches("</span>").count(), "{text:?}: {html}");
        }
    }
}
