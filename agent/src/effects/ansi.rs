//! Draws on a terminal by the control sequences that all of them know, the kernel's own above all: 16 colours, and
//! bold and reversed text. A back end of ratatui for a file that is not the one this process was started from.
//!
//! **Source:** ECMA-48 §8.3 (CUP, ED, EL, SGR); console_codes(4).

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Write};

use ratatui::backend::{Backend, ClearType, WindowSize};
use ratatui::buffer::Cell;
use ratatui::layout::{Position, Size};
use ratatui::style::{Color, Modifier};

/// The terminal. What is said is sent at once when a picture is complete.
#[derive(Debug)]
pub(super) struct Ansi {
    file: File,
    size: Size,
    said: String,
    cursor: Position,
}

impl Ansi {
    /// A terminal of this size.
    pub(super) fn new(file: File, size: Size) -> Self {
        Self { file, size, said: String::new(), cursor: Position::ORIGIN }
    }

    fn go_to(&mut self, Position { x, y }: Position) {
        let _ = write!(self.said, "\x1b[{};{}H", u32::from(y) + 1, u32::from(x) + 1);
    }
}

/// Number of a colour among the 16 as text; the background is 10 higher.
fn colour(colour: Color) -> u8 {
    match colour {
        Color::Black => 30,
        Color::Red => 31,
        Color::Green => 32,
        Color::Yellow => 33,
        Color::Blue => 34,
        Color::Magenta => 35,
        Color::Cyan => 36,
        Color::Gray => 37,
        Color::DarkGray => 90,
        Color::LightRed => 91,
        Color::LightGreen => 92,
        Color::LightYellow => 93,
        Color::LightBlue => 94,
        Color::LightMagenta => 95,
        Color::LightCyan => 96,
        Color::White => 97,
        Color::Reset | Color::Rgb(..) | Color::Indexed(_) => 39,
    }
}

impl Backend for Ansi {
    type Error = io::Error;

    fn draw<'a, I>(&mut self, content: I) -> io::Result<()>
    where
        I: Iterator<Item = (u16, u16, &'a Cell)>,
    {
        let (mut next, mut style) = (None, None);
        for (x, y, cell) in content {
            if next != Some((x, y)) {
                self.go_to(Position { x, y });
            }
            let wanted = (cell.fg, cell.bg, cell.modifier);
            if style != Some(wanted) {
                let bold = if cell.modifier.contains(Modifier::BOLD) { ";1" } else { "" };
                let reversed = if cell.modifier.contains(Modifier::REVERSED) { ";7" } else { "" };
                let (text, ground) = (colour(cell.fg), colour(cell.bg) + 10);
                let _ = write!(self.said, "\x1b[0{bold}{reversed};{text};{ground}m");
                style = Some(wanted);
            }
            self.said.push_str(cell.symbol());
            next = x.checked_add(1).map(|x| (x, y));
        }
        if style.is_some() {
            self.said.push_str("\x1b[0m");
        }
        Ok(())
    }

    fn hide_cursor(&mut self) -> io::Result<()> {
        self.said.push_str("\x1b[?25l");
        Ok(())
    }

    fn show_cursor(&mut self) -> io::Result<()> {
        self.said.push_str("\x1b[?25h");
        Ok(())
    }

    fn get_cursor_position(&mut self) -> io::Result<Position> {
        Ok(self.cursor)
    }

    fn set_cursor_position<P: Into<Position>>(&mut self, position: P) -> io::Result<()> {
        self.cursor = position.into();
        self.go_to(self.cursor);
        Ok(())
    }

    fn clear(&mut self) -> io::Result<()> {
        self.clear_region(ClearType::All)
    }

    fn clear_region(&mut self, region: ClearType) -> io::Result<()> {
        self.said.push_str(match region {
            ClearType::All => "\x1b[2J",
            ClearType::AfterCursor => "\x1b[J",
            ClearType::BeforeCursor => "\x1b[1J",
            ClearType::CurrentLine => "\x1b[2K",
            ClearType::UntilNewLine => "\x1b[K",
        });
        Ok(())
    }

    fn size(&self) -> io::Result<Size> {
        Ok(self.size)
    }

    fn window_size(&mut self) -> io::Result<WindowSize> {
        Ok(WindowSize { columns_rows: self.size, pixels: Size::ZERO })
    }

    fn flush(&mut self) -> io::Result<()> {
        let said = std::mem::take(&mut self.said);
        self.file.write_all(said.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ratatui::layout::Rect;
    use ratatui::style::Style;
    use ratatui::text::{Line, Span};
    use ratatui::{Terminal, TerminalOptions, Viewport};

    #[test]
    fn only_what_changes_is_said_and_each_style_once() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let said = || std::fs::read_to_string(file.path()).unwrap();
        let area = Rect::new(0, 0, 10, 2);
        let options = TerminalOptions { viewport: Viewport::Fixed(area) };
        let mut terminal =
            Terminal::with_options(Ansi::new(file.reopen().unwrap(), area.as_size()), options).unwrap();
        let mut draw = |word: &'static str| {
            let line =
                Line::from(vec![Span::raw("now: "), Span::styled(word, Style::new().fg(Color::LightRed))]);
            terminal.draw(|frame| frame.render_widget(line, area)).unwrap();
        };
        draw("bad");
        let first = said();
        assert!(
            first.contains("\x1b[1;1H\x1b[0;39;49mnow:") && first.contains("\x1b[0;91;49mbad"),
            "{first:?}"
        );
        draw("bat");
        assert_eq!(said().strip_prefix(&first).unwrap().matches('H').count(), 1, "one place");
        assert!(
            said().strip_prefix(&first).unwrap().contains("\x1b[1;8H\x1b[0;91;49mt\x1b[0m"),
            "{:?}",
            said()
        );
    }
}
