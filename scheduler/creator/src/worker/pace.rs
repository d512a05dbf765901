//! When a task will be done: what is left of its step at the step's own rate, and the steps to come at the rates of this
//! worker's last tasks. Pure: time is an argument.

use std::time::Duration;

use cardshop_protocol::api::CreationPhase;

use crate::build::Progress;

const STEPS: usize = 4;
/// A step's own rate counts once it has run this long; before, the earlier tasks' does.
const SETTLED: Duration = Duration::from_secs(2);

/// Bytes a second of each step, of the last task that did it.
pub(super) type Rates = [Option<f64>; STEPS];

pub(super) fn step(phase: CreationPhase) -> usize {
    match phase {
        CreationPhase::Downloading => 0,
        CreationPhase::Building => 1,
        CreationPhase::Indexing => 2,
        CreationPhase::Uploading => 3,
    }
}

/// How one task goes.
#[derive(Debug)]
pub(super) struct Pace {
    /// Bytes of each step, once they are known.
    bytes: [Option<u64>; STEPS],
    known: Rates,
    step: usize,
    done: u64,
    /// When the step began, and how much was done by then.
    begun: (Duration, u64),
    /// Of this task's steps that have ended.
    pub(super) measured: Rates,
}

impl Pace {
    pub(super) fn new(known: Rates) -> Self {
        let none = [None; STEPS];
        Self { bytes: [None; STEPS], known, step: 0, done: 0, begun: (Duration::ZERO, 0), measured: none }
    }

    /// Sizes that are known before any step but the first has begun.
    pub(super) fn expect(&mut self, download_bytes: u64, image_bytes: u64) {
        self.bytes = [download_bytes, image_bytes, image_bytes, image_bytes].map(Some);
    }

    /// Hears of progress, at a time since the task began.
    pub(super) fn note(&mut self, now: Duration, progress: Progress) {
        let step = step(progress.phase);
        if step != self.step {
            self.measured[self.step] = self.rate(now).or(self.measured[self.step]);
            (self.step, self.begun) = (step, (now, progress.done));
        }
        self.bytes[step] = Some(progress.total);
        self.done = progress.done;
    }

    /// The task is done: what its last step took is known too.
    pub(super) fn end(&mut self, now: Duration) -> Rates {
        self.measured[self.step] = self.rate(now);
        std::array::from_fn(|step| self.measured[step].or(self.known[step]))
    }

    /// Of the step under way, when it can be told.
    fn rate(&self, now: Duration) -> Option<f64> {
        let (begun, before) = self.begun;
        let (bytes, time) = (self.done.saturating_sub(before), now.saturating_sub(begun));
        (bytes > 0 && time >= Duration::from_millis(1)).then(|| bytes as f64 / time.as_secs_f64())
    }

    /// Time until the task is done; `None` while too little is known to say.
    pub(super) fn eta(&self, now: Duration) -> Option<Duration> {
        let settled = now.saturating_sub(self.begun.0) >= SETTLED;
        let own = self.rate(now).filter(|_| settled || self.known[self.step].is_none());
        let mut seconds = 0.0;
        for step in self.step..STEPS {
            let here = step == self.step;
            let left = self.bytes[step]?.saturating_sub(if here { self.done } else { 0 });
            if left == 0 {
                continue;
            }
            let rate = if here { own.or(self.known[step]) } else { self.known[step] };
            seconds += left as f64 / rate?.max(1.0);
        }
        Duration::try_from_secs_f64(seconds).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(phase: CreationPhase, done: u64, total: u64) -> Progress {
        Progress { phase, done, total }
    }
    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn the_first_task_has_an_eta_once_it_uploads_and_the_second_from_its_start() {
        use CreationPhase::{Building, Downloading, Indexing, Uploading};
        let mut first = Pace::new([None; 4]);
        first.expect(1000, 4000);
        first.note(s(1), at(Downloading, 100, 1000));
        assert_eq!(first.eta(s(1)), None, "nobody knows how fast it builds");
        first.note(s(10), at(Downloading, 1000, 1000));
        first.note(s(10), at(Building, 0, 4000));
        first.note(s(30), at(Building, 4000, 4000));
        first.note(s(30), at(Indexing, 0, 4000));
        first.note(s(34), at(Indexing, 4000, 4000));
        first.note(s(34), at(Uploading, 0, 4000));
        first.note(s(44), at(Uploading, 1000, 4000));
        assert_eq!(first.eta(s(44)), Some(s(30)));
        first.note(s(74), at(Uploading, 4000, 4000));
        assert_eq!(first.eta(s(74)), Some(s(0)));

        let rates = first.end(s(74));
        assert_eq!(rates, [Some(100.0), Some(200.0), Some(1000.0), Some(100.0)]);
        let mut second = Pace::new(rates);
        assert_eq!(second.eta(s(0)), None, "its sizes are not known yet");
        second.expect(500, 2000);
        assert_eq!(second.eta(s(0)), Some(s(5 + 10 + 2 + 20)));
        second.note(s(4), at(Downloading, 200, 500));
        assert_eq!(second.eta(s(4)), Some(s(6 + 10 + 2 + 20)), "its own rate is half of the last task's");
    }

    #[test]
    fn a_step_that_was_not_needed_keeps_the_rate_of_an_earlier_task() {
        let mut pace = Pace::new([Some(7.0), None, None, None]);
        pace.expect(0, 10);
        pace.note(s(1), at(CreationPhase::Downloading, 0, 0));
        pace.note(s(1), at(CreationPhase::Uploading, 0, 10));
        assert_eq!(pace.end(s(2))[0], Some(7.0));
    }
}
