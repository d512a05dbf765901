//! The console's terminal: opens it, reads its keys, draws what `core::console` shows. A terminal that is not there, or
//! goes away, is tried again; what other programs wrote over the picture is gone with the next full drawing.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use cardshop_card::StopFlag;
use ratatui::layout::Rect;
use ratatui::{Terminal, TerminalOptions, Viewport};
use rustix::termios::{OptionalActions, SpecialCodeIndex, tcgetattr, tcgetwinsize, tcsetattr};

use super::ansi::Ansi;
use super::errands::Errands;
use crate::core::Event;
use crate::core::console::{Ask, Console, ConsoleView, Key};
use crate::core::draw;

/// Longest wait for a key, tenths of a second: how late a change is on the screen.
const KEY_WAIT_TENTHS: u8 = 2;
/// Everything is drawn again this often.
const DRAW_ALL_EVERY: Duration = Duration::from_secs(30);
/// Pause before a terminal is opened again.
const TRY_EVERY: Duration = Duration::from_secs(2);
/// A terminal that does not say its size.
const USUAL_SIZE: (u16, u16) = (80, 25);

/// What there is to show; clones are the same.
#[derive(Debug, Clone, Default)]
pub(crate) struct Shown(Arc<Mutex<ConsoleView>>);

impl Shown {
    /// There is something else to show.
    pub(crate) fn set(&self, view: ConsoleView) {
        *self.0.lock().expect("no holder panics") = view;
    }

    fn get(&self) -> ConsoleView {
        self.0.lock().expect("no holder panics").clone()
    }
}

/// Starts the thread.
///
/// # Errors
/// What the system says when it has no thread to give.
pub(crate) fn start(
    terminal: PathBuf,
    shown: Shown,
    errands: Errands,
    events: SyncSender<Event>,
    stop: StopFlag,
) -> io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name("console".into()).spawn(move || {
        let mut console = Console::default();
        while !stop.is_stopped() {
            let mut shows = || -> io::Result<()> {
                let tty = Tty::open(&terminal)?;
                work(&tty, &mut console, &shown, &errands, &events, &stop)
            };
            if let Err(error) = shows() {
                tracing::debug!(terminal = %terminal.display(), %error, "no console here");
            }
            let until = Instant::now() + TRY_EVERY;
            while !stop.is_stopped() && Instant::now() < until {
                std::thread::sleep(Duration::from_millis(100));
            }
        }
    })
}

/// A terminal without echo whose reads end after a moment; as it was before when it is dropped.
struct Tty {
    file: File,
    before: rustix::termios::Termios,
}

impl Tty {
    fn open(path: &Path) -> io::Result<Self> {
        let flags = nix::fcntl::OFlag::O_NOCTTY.bits();
        let file = OpenOptions::new().read(true).write(true).custom_flags(flags).open(path)?;
        let before = tcgetattr(&file)?;
        let mut raw = before.clone();
        raw.make_raw();
        raw.special_codes[SpecialCodeIndex::VMIN] = 0;
        raw.special_codes[SpecialCodeIndex::VTIME] = KEY_WAIT_TENTHS;
        tcsetattr(&file, OptionalActions::Now, &raw)?;
        // Linux: the screen never goes blank by itself.
        (&file).write_all(b"\x1b[9;0]")?;
        Ok(Self { file, before })
    }

    fn area(&self) -> Rect {
        let size = tcgetwinsize(&self.file).ok().map(|size| (size.ws_col, size.ws_row));
        let (width, height) = size.filter(|(w, h)| *w > 0 && *h > 0).unwrap_or(USUAL_SIZE);
        Rect::new(0, 0, width, height)
    }
}

impl Drop for Tty {
    fn drop(&mut self) {
        // A terminal that is gone needs nothing.
        let _ = (&self.file).write_all(b"\x1b[?25h\x1b[0m\r\n");
        let _ = tcsetattr(&self.file, OptionalActions::Now, &self.before);
    }
}

fn work(
    tty: &Tty,
    console: &mut Console,
    shown: &Shown,
    errands: &Errands,
    events: &SyncSender<Event>,
    stop: &StopFlag,
) -> io::Result<()> {
    loop {
        let area = tty.area();
        let options = TerminalOptions { viewport: Viewport::Fixed(area) };
        let mut terminal = Terminal::with_options(Ansi::new(tty.file.try_clone()?, area.as_size()), options)?;
        terminal.hide_cursor()?;
        terminal.clear()?;
        let drawn = Instant::now();
        while drawn.elapsed() < DRAW_ALL_EVERY && tty.area() == area {
            if stop.is_stopped() {
                return Ok(());
            }
            let view = shown.get();
            terminal.draw(|frame| draw(frame, console, &view))?;
            for key in read_keys(&tty.file)? {
                match console.key(key, &view) {
                    // Fails only when the agent has ended.
                    Some(Ask::Wish(wish)) => _ = events.send(Event::Wish(wish)),
                    Some(ask) => errands.run(ask, &view),
                    None => {}
                }
            }
        }
    }
}

/// Waits a moment for keys.
fn read_keys(mut tty: &File) -> io::Result<Vec<Key>> {
    let (mut bytes, began) = ([0; 64], Instant::now());
    let count = tty.read(&mut bytes)?;
    let wait = Duration::from_millis(100 * u64::from(KEY_WAIT_TENTHS));
    if count == 0 && began.elapsed() < wait / 2 {
        // Nobody is at the other end of it.
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(keys(&bytes[..count]))
}

/// The keys that a terminal's bytes stand for; what is none is passed over.
fn keys(bytes: &[u8]) -> Vec<Key> {
    let text = String::from_utf8_lossy(bytes);
    let (mut keys, mut rest) = (Vec::new(), text.chars());
    while let Some(c) = rest.next() {
        keys.extend(match c {
            '\x1b' => match rest.as_str().strip_prefix(['[', 'O']) {
                None => Some(Key::Escape),
                Some(sequence) => {
                    let end = sequence.find(|c: char| c.is_ascii_alphabetic() || c == '~');
                    let (key, after) = sequence.split_at(end.map_or(sequence.len(), |end| end + 1));
                    rest = after.chars();
                    match key {
                        "A" => Some(Key::Up),
                        "B" => Some(Key::Down),
                        _ => None,
                    }
                }
            },
            '\r' | '\n' => Some(Key::Enter),
            '\t' => Some(Key::Down),
            '\x08' | '\x7f' => Some(Key::Backspace),
            char::REPLACEMENT_CHARACTER => None,
            c if c.is_control() => None,
            c => Some(Key::Char(c)),
        });
    }
    keys
}

#[cfg(test)]
mod tests {
    use super::super::state::StateFolder;
    use super::super::{errands::LastTold, http};
    use super::*;
    use crate::core::Wish;
    use crate::core::notice::Notice;
    use cardshop_protocol::message::Action;
    use serialport::{SerialPort, TTYPort};
    use std::sync::mpsc::sync_channel;

    const PATIENCE: Duration = Duration::from_secs(30);

    #[test]
    fn a_terminals_bytes_are_keys_and_what_is_none_is_passed_over() {
        assert_eq!(keys(b"\x1b[A\x1b[B\x1bOA"), [Key::Up, Key::Down, Key::Up]);
        assert_eq!(keys(b"\x1b"), [Key::Escape]);
        assert_eq!(keys("é\r\t\x7f".as_bytes()), [Key::Char('é'), Key::Enter, Key::Down, Key::Backspace]);
        assert_eq!(keys(b"\x1b[15~\x1b[1;5C\x01\xffx"), [Key::Char('x')]);
    }

    /// Reads what is drawn until it has this text.
    fn reads(screen: &mut TTYPort, drawn: &mut String, wanted: &str) {
        let until = Instant::now() + PATIENCE;
        while !drawn.contains(wanted) {
            assert!(Instant::now() < until, "{wanted} is not on the screen: {drawn:?}");
            let mut bytes = [0; 4096];
            // Nothing comes while nothing changes.
            let count = screen.read(&mut bytes).unwrap_or(0);
            drawn.push_str(&String::from_utf8_lossy(&bytes[..count]));
        }
    }

    #[test]
    fn a_terminal_shows_the_appliance_and_its_keys_reach_the_shop() {
        let folder = tempfile::tempdir().unwrap();
        let (mut screen, line) = TTYPort::pair().unwrap();
        screen.set_timeout(Duration::from_millis(50)).unwrap();
        let errands = Errands {
            http: http::Http::new(http::client()),
            state: Arc::new(StateFolder::open(&folder.path().join("state"), Duration::ZERO).unwrap()),
            join: folder.path().join("JOIN.TXT"),
            network: None,
            told: LastTold::default(),
            secrets: Vec::new(),
            trying: Arc::default(),
        };
        let (shown, stop, (events, happened)) = (Shown::default(), StopFlag::new(), sync_channel(16));
        let notice = Notice { code: "waiting_for_approval", text: "Pairing code ABC123".into() };
        let view = ConsoleView { notice: Some(notice), ..ConsoleView::default() };
        shown.set(view.clone());
        let terminal = PathBuf::from(line.name().unwrap());
        let thread = start(terminal, shown.clone(), errands.clone(), events, stop.clone()).unwrap();
        let mut drawn = String::new();
        reads(&mut screen, &mut drawn, "ABC123");
        screen.write_all(b"R").unwrap();
        reads(&mut screen, &mut drawn, "Restart");
        screen.write_all(b"y").unwrap();
        match happened.recv_timeout(PATIENCE).expect("a wish reaches the shop") {
            Event::Wish(wish) => assert_eq!(wish, Wish::Act(Action::Reboot)),
            other => panic!("{other:?}"),
        }
        screen.write_all(b"s").unwrap();
        let until = Instant::now() + PATIENCE;
        while errands.told.last().is_empty() {
            assert!(Instant::now() < until, "the support file is not written");
            reads(&mut screen, &mut drawn, "");
            std::thread::yield_now();
        }
        assert!(folder.path().join("SUPPORT.TGZ").exists(), "{}", errands.told.last());
        stop.stop();
        thread.join().unwrap();
    }
}
