//! A picture of the console: a pure function of what it shows to cells of a screen. A state has a glyph, a word and a
//! colour, in this order: glyphs are those that every PC's text font has.

use cardshop_protocol::led::LedColour;
use cardshop_protocol::message::{Progress, Sentence, SlotStatus};
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Clear, Paragraph, Wrap};

use super::bench::SlotLine;
use super::console::{Console, ConsoleView, Form, Page};
use super::naming::Question;

const KEYS: &str = "↑↓ choose  Enter erase  i which  r retry  e eject  h hold  n name  x forget\n\
    g name all  m move  N network  J join  o on/off  s support  u update  R restart  T reset";
/// Cells of a bar.
const BAR: usize = 12;

/// Draws everything.
pub fn draw(frame: &mut Frame<'_>, console: &Console, view: &ConsoleView) {
    let notice = view.notice.as_ref().map_or("", |notice| notice.text.as_str());
    let width = usize::from(frame.area().width.max(1));
    let lines = notice.chars().count().div_ceil(width).clamp(1, 4) as u16;
    let rows = [2, lines + 1].map(Constraint::Length);
    let [head, said, slots, told, keys] = Layout::vertical([
        rows[0],
        rows[1],
        Constraint::Min(1),
        Constraint::Length(2),
        Constraint::Length(2),
    ])
    .areas(frame.area());
    frame.render_widget(Paragraph::new(head_of(view)), head);
    let urgent = Style::new().add_modifier(Modifier::BOLD);
    frame.render_widget(Paragraph::new(notice).style(urgent).wrap(Wrap { trim: true }), said);
    draw_slots(frame, slots, console, view);
    frame.render_widget(Paragraph::new(what_now(console, view)).wrap(Wrap { trim: true }), told);
    frame.render_widget(Paragraph::new(KEYS).style(Style::new().fg(Color::DarkGray)), keys);
    match &console.page {
        Page::Slots => {}
        Page::Form(form) => draw_form(frame, form, console.problem.as_deref()),
        Page::Sure { text, .. } => {
            draw_box(frame, "Sure?", vec![Line::raw(text), Line::raw("y = yes, any other key = no")]);
        }
    }
}

fn head_of(view: &ConsoleView) -> Vec<Line<'_>> {
    let reached = if view.connected { "connected" } else { "not connected" };
    let addresses =
        if view.addresses.is_empty() { "no address".to_owned() } else { view.addresses.join(" ") };
    let off = if view.bench.on { "" } else { "  SWITCHED OFF" };
    vec![
        Line::from(vec![
            Span::styled(format!("Cardshop {}  ", view.version), Style::new().fg(Color::LightBlue)),
            Span::raw(format!("{}  {}  {}", view.label, view.appliance, view.time)),
            Span::styled(off, Style::new().fg(Color::LightRed)),
        ]),
        Line::raw(format!("Network {addresses}   Shop {} {reached}", view.server)),
    ]
}

/// What a person is to do now, or what came of the last key.
fn what_now(console: &Console, view: &ConsoleView) -> String {
    let asked = match &view.bench.question {
        Some(Question::Empty(slots)) => {
            let slots: Vec<String> = slots.iter().map(ToString::to_string).collect();
            Some(format!("Take the cards out of {}. (Esc ends the naming.)", slots.join(", ")))
        }
        Some(Question::PutIn(name)) => Some(format!(
            "Put any card into the slot you call {name}; it is not written. (Esc ends the naming.)"
        )),
        None => None,
    };
    let moved = || {
        let moved = view.bench.moved.first()?;
        Some(format!(
            "The reader of slot {} seems to be at {} now: m moves the slot there.",
            moved.slot, moved.to
        ))
    };
    let problem = console.problem.clone();
    let card = || view.bench.slots.get(console.chosen).and_then(about_card);
    let told = Some(view.told.clone()).filter(|told| !told.is_empty());
    [problem, asked, view.update.clone(), told, moved(), card()]
        .into_iter()
        .flatten()
        .collect::<Vec<_>>()
        .join("  ")
}

fn draw_slots(frame: &mut Frame<'_>, area: Rect, console: &Console, view: &ConsoleView) {
    let slots = &view.bench.slots;
    if slots.is_empty() {
        return frame.render_widget(Paragraph::new("No card reader is plugged in."), area);
    }
    let height = usize::from(area.height.max(1));
    let chosen = console.chosen.min(slots.len() - 1);
    let first = (chosen + 1).saturating_sub(height);
    let lines = slots.iter().enumerate().skip(first).take(height).map(|(at, line)| {
        let drawn = slot_line(line, view.progress.get(&line.slot));
        if at == chosen { drawn.style(Style::new().add_modifier(Modifier::REVERSED)) } else { drawn }
    });
    frame.render_widget(Paragraph::new(lines.collect::<Vec<_>>()), area);
}

fn slot_line(line: &SlotLine, progress: Option<&Progress>) -> Line<'static> {
    let (glyph, word) = glyph_and_word(line.state.state);
    let colour = match line.state.led.colour {
        LedColour::None => Color::Gray,
        LedColour::Blue => Color::LightBlue,
        LedColour::White => Color::White,
        LedColour::Yellow => Color::Yellow,
        LedColour::Teal => Color::LightCyan,
        LedColour::Red => Color::LightRed,
    };
    let name = line.name.clone().unwrap_or_else(|| line.slot.to_string());
    let busy = matches!(line.state.state, SlotStatus::Writing | SlotStatus::Verifying);
    let said = line.state.sentence.as_ref().map(sentence).unwrap_or_default();
    let how_far = progress.filter(|_| busy).map_or(said, bar);
    Line::from(vec![
        Span::raw(format!(" {name:<10.20} ")),
        Span::styled(format!("{glyph} {word:<14}"), Style::new().fg(colour)),
        Span::raw(how_far),
    ])
}

/// The card in the slot that is chosen, and what became of those before it.
fn about_card(line: &SlotLine) -> Option<String> {
    let counts = format!("{} good and {} bad before it.", line.counts.verified, line.counts.failed);
    let card = line.state.card.as_ref()?;
    let made = match &card.cid {
        Some(cid) => made(cid).unwrap_or_else(|| format!("CID {cid}")),
        None => "the reader hides its number".to_owned(),
    };
    Some(format!("Card of {:.1} GB, {made}; {counts}", card.size as f64 / 1e9))
}

/// Maker, number and date of a card. **Source:** SD Physical Layer Simplified Specification 9.10 §5.2 (CID).
fn made(cid: &str) -> Option<String> {
    let byte = |at: usize| u32::from_str_radix(cid.get(2 * at..2 * at + 2)?, 16).ok();
    let serial = (9..13).try_fold(0, |serial, at| Some(serial << 8 | byte(at)?))?;
    let date = (byte(13)? & 0xf) << 8 | byte(14)?;
    let (year, month) = (2000 + (date >> 4), date & 0xf);
    Some(format!("maker {:02x}, number {serial:08x}, made {year}-{month:02}", byte(0)?))
}

fn bar(progress: &Progress) -> String {
    let share = (progress.done as f64 / progress.total.max(1) as f64).clamp(0.0, 1.0);
    let full = (share * BAR as f64) as usize;
    let left = progress.eta_s.map_or(String::new(), |s| format!(", ready in {}:{:02}", s / 60, s % 60));
    let rate = progress.rate_bps as f64 / 1e6;
    format!("{}{} {:3.0} %, {rate:.1} MB/s{left}", "█".repeat(full), "░".repeat(BAR - full), share * 100.0)
}

fn glyph_and_word(status: SlotStatus) -> (char, &'static str) {
    match status {
        SlotStatus::Absent => ('!', "no reader"),
        SlotStatus::Empty => ('·', "empty"),
        SlotStatus::Wanted => ('▼', "insert a card"),
        SlotStatus::Idle => ('·', "nothing to do"),
        SlotStatus::Checking => ('?', "checking"),
        SlotStatus::Waiting => ('…', "waiting"),
        SlotStatus::Writing => ('►', "writing"),
        SlotStatus::Verifying => ('≡', "verifying"),
        SlotStatus::Done => ('√', "done"),
        SlotStatus::Unsuitable => ('x', "does not fit"),
        SlotStatus::Guarded => ('■', "finished card"),
        SlotStatus::Confirm => ('?', "erase it?"),
        SlotStatus::BadCard => ('X', "bad card"),
        SlotStatus::Retry => ('↕', "put in again"),
        SlotStatus::Held => ('-', "held"),
        SlotStatus::OutOfService => ('-', "out of service"),
    }
}

/// What a person should do, in words.
fn sentence(sentence: &Sentence) -> String {
    let gb = |bytes: &u64| format!("{:.1} GB", *bytes as f64 / 1e9);
    match sentence {
        Sentence::InsertCard { min_bytes } => format!("of at least {}", gb(min_bytes)),
        Sentence::Checking => "Checking the card".into(),
        Sentence::WaitingForImage { percent } => format!("Waiting for the image, {percent} % here"),
        Sentence::Writing => "Writing".into(),
        Sentence::Verifying => "Checking what was written".into(),
        Sentence::TakeCard { copy, total } => format!("Take the card, copy {copy} of {total}"),
        Sentence::TooSmall { min_bytes, actual_bytes } => {
            format!("Needs at least {}, has {}", gb(min_bytes), gb(actual_bytes))
        }
        Sentence::Locked => "Unlock the card: the switch on its side".into(),
        Sentence::Guarded { order } => format!("Finished card of order {order}, not shipped: take it out"),
        Sentence::ConfirmErase => "This card has data: Enter erases it".into(),
        Sentence::BadCard => "Put it aside".into(),
        Sentence::Reinsert => "Take the card out and put it in again".into(),
        Sentence::OutOfService { reason } => reason.clone(),
    }
}

fn draw_form(frame: &mut Frame<'_>, form: &Form, problem: Option<&str>) {
    let mut lines = Vec::new();
    for (at, field) in form.fields.iter().enumerate() {
        let here = at == form.at;
        let style = if here { Style::new().fg(Color::Yellow) } else { Style::new() };
        lines.push(Line::styled(
            format!("{}: {}{}", field.title, field.shown(), if here { "_" } else { "" }),
            style,
        ));
    }
    lines.push(Line::styled(problem.unwrap_or_default().to_owned(), Style::new().fg(Color::LightRed)));
    lines.push(Line::raw("Enter = next, and at the last line done; Esc = leave it"));
    draw_box(frame, &form.title, lines);
}

fn draw_box(frame: &mut Frame<'_>, title: &str, lines: Vec<Line<'_>>) {
    let whole = frame.area();
    let height = (lines.len() as u16 + 4).min(whole.height);
    let width = whole.width.saturating_sub(4).min(76);
    let at = Rect { x: (whole.width - width) / 2, y: (whole.height - height) / 2, width, height };
    frame.render_widget(Clear, at);
    let text = Paragraph::new(lines).wrap(Wrap { trim: false });
    frame.render_widget(text.block(Block::bordered().title(title)), at);
}

#[cfg(test)]
mod tests {
    use super::super::console::tests::{line, view};
    use super::super::console::{Ask, Key};
    use super::super::notice::Notice;
    use super::*;
    use cardshop_protocol::ids::SlotId;
    use cardshop_protocol::message::{CardFacts, WritePhase};
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    fn screen(console: &Console, view: &ConsoleView, (width, height): (u16, u16)) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, console, view)).unwrap();
        terminal.backend().to_string()
    }

    #[test]
    fn the_screen_says_where_the_appliance_stands_what_each_slot_does_and_what_to_do_now() {
        let mut done = line(2, Some("B"), SlotStatus::Done);
        done.state.sentence = Some(Sentence::TakeCard { copy: 2, total: 12 });
        let mut view =
            view(vec![line(1, Some("A"), SlotStatus::Writing), done, line(3, None, SlotStatus::Absent)]);
        let progress = Progress {
            v: 1,
            phase: WritePhase::Writing,
            done: 250,
            total: 1000,
            rate_bps: 21_500_000,
            eta_s: Some(125),
        };
        view.progress.insert(SlotId::numbered(1), progress);
        view.notice = Some(Notice { code: "waiting_for_approval", text: "Pairing code ABC123.".into() });
        view.addresses = vec!["192.168.1.20/24".into()];
        view.time = "2026-11-25 17:00:00 UTC".into();
        view.bench.question = Some(Question::PutIn("C".into()));
        let shown = screen(&Console::default(), &view, (80, 25));
        for text in [
            "Bench",
            "2026-11-25 17:00:00 UTC",
            "Network 192.168.1.20/24   Shop https://shop.example not connected",
            "Pairing code ABC123.",
            "A          ► writing       ███░░░░░░░░░  25 %, 21.5 MB/s, ready in 2:05",
            "B          √ done          Take the card, copy 2 of 12",
            "s03        ! no reader",
            "Put any card into the slot you call C",
            "N network",
        ] {
            assert!(shown.contains(text), "{text} is missing:\n{shown}");
        }
    }

    #[test]
    fn a_token_that_is_typed_is_not_on_the_screen() {
        let (view, mut console) = (view(vec![]), Console::default());
        for c in "J\tcsj1.topsecret".chars() {
            let key = if c == '\t' { Key::Down } else { Key::Char(c) };
            assert_eq!(console.key(key, &view), None::<Ask>);
        }
        let shown = screen(&console, &view, (80, 25));
        assert!(shown.contains("Token, csj1.… (not shown): **************_"), "{shown}");
        assert!(!shown.contains("topsecret"));
    }

    #[test]
    fn a_card_says_its_maker_number_and_date_where_the_reader_shows_them() {
        let card = |cid: Option<&str>| {
            let mut line = line(1, None, SlotStatus::Idle);
            line.state.card =
                Some(CardFacts { size: 31_900_000_000, uid: None, cid: cid.map(str::to_owned) });
            line.counts.verified = 12;
            screen(&Console::default(), &view(vec![line]), (100, 25))
        };
        let shown = card(Some("03534453433332478012345678018400"));
        assert!(
            shown.contains("maker 03, number 12345678, made 2024-04; 12 good and 0 bad before it."),
            "{shown}"
        );
        let hidden = card(None);
        assert!(hidden.contains("Card of 31.9 GB, the reader hides its number"), "{hidden}");
        assert!(card(Some("äöü")).contains("CID"));
    }

    #[test]
    fn the_slot_that_is_chosen_is_on_the_screen_however_many_there_are_and_however_small_it_is() {
        let slots = (1..=64).map(|n| line(n, None, SlotStatus::Empty)).collect();
        let view = view(slots);
        let console = Console { chosen: 63, ..Console::default() };
        assert!(screen(&console, &view, (80, 25)).contains("s64"));
        for size in [(1, 1), (10, 3), (200, 60)] {
            screen(
                &Console {
                    page: Page::Sure { text: "x".repeat(500), ask: Box::new(Ask::Support) },
                    ..console.clone()
                },
                &view,
                size,
            );
        }
    }
}
