//! The appliance's consoles: one line whenever the notice changes, on every console the kernel has (the screen, a
//! serial line). The main thread calls it.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::fcntl::OFlag;

use crate::core::notice::Notice;

/// Shows notices; knows the last one.
#[derive(Debug, Default)]
pub(crate) struct Screen {
    shown: Option<Notice>,
    /// The screen shows the console: it is left alone.
    screen_taken: bool,
}

impl Screen {
    /// `screen_taken`: the console is drawn on the machine's own screen.
    pub(crate) fn new(screen_taken: bool) -> Self {
        Self { shown: None, screen_taken }
    }

    /// Shows a notice, once.
    pub(crate) fn show(&mut self, notice: Notice) {
        if self.shown.as_ref() == Some(&notice) {
            return;
        }
        self.say(notice.code, &notice.text);
        self.shown = Some(notice);
    }

    /// Says something beside the notice, such as how far an update is.
    pub(crate) fn say(&self, code: &str, text: &str) {
        let names = fs::read_to_string("/sys/class/tty/console/active").unwrap_or_default();
        // What a server says may hold anything.
        let text: String = text.chars().filter(|c| !c.is_control()).take(400).collect();
        let is_screen = |name: &str| {
            name.strip_prefix("tty").is_some_and(|rest| rest.bytes().all(|b| b.is_ascii_digit()))
        };
        for name in names.split_whitespace().filter(|name| !self.screen_taken || !is_screen(name)) {
            say(&Path::new("/dev").join(name), &format!("\r\n[{code}] {text}\r\n"));
        }
    }
}

/// A console that takes nothing (a serial line nobody reads, stopped by flow control) is passed over.
fn say(console: &Path, line: &str) {
    let flags = (OFlag::O_NONBLOCK | OFlag::O_NOCTTY).bits();
    let opened = OpenOptions::new().write(true).custom_flags(flags).open(console);
    if let Err(error) = opened.and_then(|mut file| file.write_all(line.as_bytes())) {
        tracing::debug!(console = %console.display(), %error, "a console is not written");
    }
}

/// True when there is a way out of this machine: a route over IPv4, or a default route over IPv6.
pub(crate) fn has_route() -> bool {
    let v4 = fs::read_to_string("/proc/net/route").unwrap_or_default();
    let v6 = fs::read_to_string("/proc/net/ipv6_route").unwrap_or_default();
    let none = "00000000000000000000000000000000 00 ";
    v4.lines().count() > 1 || v6.lines().any(|line| line.starts_with(none) && !line.ends_with(" lo"))
}
