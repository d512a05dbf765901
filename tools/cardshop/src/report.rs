//! What a command shows while it works: a bar with rate and ETA on a terminal, a line every 10 % elsewhere, or
//! one JSON object per event.

use std::io::Write;
use std::time::Instant;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Value, json};

/// A bar while bytes move, and while none do.
const AT_WORK: &str =
    "{prefix:18} {msg:10} [{bar:28}] {percent:>3} % {decimal_bytes_per_sec:>12}  {eta:>4} left";
const AT_REST: &str = "{prefix:18} {msg}";

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("the templates are constant").progress_chars("=> ")
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
        Progress {
            output: *self,
            bar,
            name: name.to_owned(),
            phase: String::new(),
            moving: false,
            told: 0,
            since: Instant::now(),
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
    since: Instant,
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
        self.since = Instant::now();
        self.bar.reset();
        self.bar.set_message(phase.to_owned());
    }

    /// Bytes done of this phase.
    pub(crate) fn at(&mut self, phase: &str, done: u64, total: u64) {
        if phase != self.phase || !self.moving {
            self.begin(phase, true);
        }
        self.bar.set_length(total);
        self.bar.set_position(done);
        let tenths = (done * 10).checked_div(total).unwrap_or(10);
        if tenths <= self.told {
            return;
        }
        self.told = tenths;
        let rate = done as f64 / self.since.elapsed().as_secs_f64().max(0.001);
        if self.output.json {
            self.output.event(json!({"event": "progress", "name": self.name, "phase": phase,
                "done": done, "total": total, "rate_bps": rate as u64}));
        } else if self.bar.is_hidden() {
            say(format_args!("{} {phase} {} % {:.1} MB/s", self.name, tenths * 10, rate / 1e6));
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
