//! What a command shows while it works: a bar with rate and ETA on a terminal, a line every 10 % elsewhere, or
//! one JSON object per event.

use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use cardshop_protocol::time::Timestamp;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Value, json};

/// A bar while bytes move, and while none do.
const AT_WORK: &str =
    "{prefix:18} {msg:10} [{bar:24}] {percent:>3} % {decimal_bytes_per_sec:>12}  {eta:>4} left, {clock}";
const AT_REST: &str = "{prefix:18} {msg}";

fn style(template: &str) -> ProgressStyle {
    let clock = |state: &indicatif::ProgressState, text: &mut dyn std::fmt::Write| {
        let _ = text.write_str(&clock_in(state.eta()));
    };
    let style = ProgressStyle::with_template(template).expect("the templates are constant");
    style.with_key("clock", clock).progress_chars("=> ")
}

/// The time of day in so long, UTC.
fn clock_in(left: Duration) -> String {
    let finish = finish_in(left).to_string();
    let time = finish.split('T').nth(1).and_then(|time| time.get(..5)).unwrap_or_default();
    format!("{time} UTC")
}

fn finish_in(left: Duration) -> Timestamp {
    // Further than a week is as good as never, and no reason to overflow.
    let left = left.min(Duration::from_secs(7 * 24 * 3600));
    Timestamp::from_system(SystemTime::now()) + left
}

/// How far one thing is.
struct Shown {
    name: String,
    phase: String,
    done: u64,
    total: u64,
    since: Instant,
}

impl Shown {
    fn rate(&self) -> f64 {
        self.done as f64 / self.since.elapsed().as_secs_f64().max(0.001)
    }

    /// What is left of this phase at the rate so far.
    fn left(&self) -> Duration {
        let seconds = self.total.saturating_sub(self.done) as f64 / self.rate().max(1.0);
        Duration::from_secs_f64(seconds.min(1e7))
    }
}

/// Everything that is at work in this process.
static AT_WORK_NOW: Mutex<Vec<Arc<Mutex<Shown>>>> = Mutex::new(Vec::new());

/// Prints how far everything is, to standard error as `dd` does.
fn print_status() {
    for shown in AT_WORK_NOW.lock().unwrap_or_else(PoisonError::into_inner).iter() {
        let shown = shown.lock().unwrap_or_else(PoisonError::into_inner);
        let Shown { name, phase, done, total, .. } = &*shown;
        let text = match total {
            0 => format!("{name} {phase}"),
            _ => format!(
                "{name} {phase} {} of {}, {}/s, {} s left, {}",
                size(*done),
                size(*total),
                size(shown.rate() as u64),
                shown.left().as_secs(),
                clock_in(shown.left())
            ),
        };
        let _ = writeln!(std::io::stderr(), "{text}");
    }
}

/// Prints the status whenever SIGUSR1 comes. To be called before other threads are made: they inherit that the
/// signal goes to the one made here.
pub(crate) fn print_status_on_signal() {
    use nix::sys::signal::{SigSet, Signal};
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGUSR1);
    if let Err(error) = signals.thread_block() {
        tracing::warn!(%error, "SIGUSR1 cannot be heard");
        return;
    }
    let listen = move || {
        while signals.wait().is_ok() {
            print_status();
        }
    };
    if let Err(error) = std::thread::Builder::new().name("status".into()).spawn(listen) {
        tracing::warn!(%error, "SIGUSR1 cannot be heard");
    }
}

/// A line on standard output. That nobody reads any more (`cardshop write … | head`) ends no half-written card.
fn say(text: impl std::fmt::Display) {
    let _ = writeln!(std::io::stdout(), "{text}");
}

/// How this run talks.
#[derive(Clone, Copy)]
pub(crate) struct Output {
    pub(crate) json: bool,
}

impl Output {
    /// A line for people; nothing with `--json`.
    pub(crate) fn line(&self, text: impl std::fmt::Display) {
        if !self.json {
            say(text);
        }
    }

    /// An object for programs; nothing without `--json`.
    pub(crate) fn event(&self, event: Value) {
        if self.json {
            say(event);
        }
    }

    /// The error chain, once.
    pub(crate) fn failure(&self, error: &anyhow::Error) {
        let text = format!("{error:#}");
        if self.json {
            self.event(json!({"event": "error", "text": text}));
        } else {
            let _ = writeln!(std::io::stderr(), "cardshop: {text}");
        }
    }

    /// A set of bars drawn together.
    pub(crate) fn bars(&self) -> MultiProgress {
        let target = if self.json { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stdout() };
        MultiProgress::with_draw_target(target)
    }

    /// Progress of one thing with a name.
    pub(crate) fn progress(&self, bars: &MultiProgress, name: &str) -> Progress {
        let bar = bars.add(ProgressBar::no_length());
        bar.set_style(style(AT_REST));
        bar.set_prefix(name.to_owned());
        let shown = Shown {
            name: name.to_owned(),
            phase: "waiting".to_owned(),
            done: 0,
            total: 0,
            since: Instant::now(),
        };
        let shown = Arc::new(Mutex::new(shown));
        AT_WORK_NOW.lock().unwrap_or_else(PoisonError::into_inner).push(shown.clone());
        Progress {
            output: *self,
            bar,
            name: name.to_owned(),
            phase: String::new(),
            moving: false,
            told: 0,
            shown,
        }
    }
}

/// Progress of one thing through its phases.
pub(crate) struct Progress {
    output: Output,
    bar: ProgressBar,
    name: String,
    phase: String,
    /// Whether bytes move in it.
    moving: bool,
    /// Tenths told of this phase.
    told: u64,
    shown: Arc<Mutex<Shown>>,
}

impl Drop for Progress {
    fn drop(&mut self) {
        let mut all = AT_WORK_NOW.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|shown| !Arc::ptr_eq(shown, &self.shown));
    }
}

impl Progress {
    /// A phase in which no bytes move.
    pub(crate) fn rest(&mut self, phase: &str) {
        if phase != self.phase {
            self.begin(phase, false);
            self.bar.unset_length();
            if !self.output.json && self.bar.is_hidden() {
                say(format_args!("{} {phase}", self.name));
            }
        }
    }

    fn begin(&mut self, phase: &str, moving: bool) {
        self.moving = moving;
        self.bar.set_style(style(if moving { AT_WORK } else { AT_REST }));
        phase.clone_into(&mut self.phase);
        self.told = 0;
        self.bar.reset();
        self.bar.set_message(phase.to_owned());
        let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        (shown.done, shown.total, shown.since) = (0, 0, Instant::now());
        phase.clone_into(&mut shown.phase);
    }

    /// Bytes done of this phase.
    pub(crate) fn at(&mut self, phase: &str, done: u64, total: u64) {
        if phase != self.phase || !self.moving {
            self.begin(phase, true);
        }
        self.bar.set_length(total);
        self.bar.set_position(done);
        let (rate, left) = {
            let mut shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
            (shown.done, shown.total) = (done, total);
            (shown.rate(), shown.left())
        };
        let tenths = (done * 10).checked_div(total).unwrap_or(10);
        if tenths <= self.told {
            return;
        }
        self.told = tenths;
        if self.output.json {
            self.output.event(json!({"event": "progress", "name": self.name, "phase": phase,
                "done": done, "total": total, "rate_bps": rate as u64, "eta_s": left.as_secs(),
                "finish": finish_in(left).to_string()}));
        } else if self.bar.is_hidden() {
            let (name, percent) = (&self.name, tenths * 10);
            let clock = clock_in(left);
            say(format_args!(
                "{name} {phase} {percent} % {:.1} MB/s {} s left, {clock}",
                rate / 1e6,
                left.as_secs()
            ));
        }
    }

    /// A last word.
    pub(crate) fn finish(&self, text: impl std::fmt::Display) {
        self.bar.finish_with_message(text.to_string());
    }
}

/// Bytes as people read them on a card's label: decimal units.
pub(crate) fn size(bytes: u64) -> String {
    match bytes {
        0..1_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", bytes as f64 / 1e6),
        _ => format!("{:.1} GB", bytes as f64 / 1e9),
    }
}
