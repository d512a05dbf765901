//! The rate of a write and how long it will still take, from what the device has acknowledged so far. Used by
//! the thread that writes a card; also decides when progress is worth a message (at most 1 Hz).

use std::time::Duration;

use cardshop_protocol::message::{Progress, VERSION, WritePhase};

/// Progress goes to the broker at most this often. **Source:** [`Progress`].
pub const REPORT_EVERY: Duration = Duration::from_secs(1);
/// Rates are averaged over about this long.
const AVERAGED_OVER: Duration = Duration::from_secs(5);

/// Watches one write. `now` is the time since the write began.
#[derive(Debug)]
pub struct Meter {
    phase: Option<WritePhase>,
    /// Time and bytes at the start of the current average.
    mark: (Duration, u64),
    rate_bps: u64,
    last_report: Duration,
    /// Bytes of the phase that follows the current one.
    verify_bytes: u64,
}

impl Meter {
    /// For a write that reads `verify_bytes` back at its end.
    pub fn new(verify_bytes: u64) -> Self {
        let zero = Duration::ZERO;
        Self { phase: None, mark: (zero, 0), rate_bps: 0, last_report: zero, verify_bytes }
    }

    /// Takes in a step; `Some` when it is worth a message: at a new phase, at its end, or after a second.
    pub fn step(&mut self, now: Duration, phase: WritePhase, done: u64, total: u64) -> Option<Progress> {
        let new_phase = self.phase != Some(phase);
        if new_phase {
            self.phase = Some(phase);
            self.mark = (now, done);
        }
        let span = now.saturating_sub(self.mark.0);
        if span >= Duration::from_millis(200) {
            self.rate_bps = (done.saturating_sub(self.mark.1) as f64 / span.as_secs_f64()) as u64;
        }
        if span >= AVERAGED_OVER {
            self.mark = (now, done);
        }
        let due = now.saturating_sub(self.last_report) >= REPORT_EVERY;
        if !new_phase && !due {
            return None;
        }
        self.last_report = now;
        Some(Progress {
            v: VERSION,
            phase,
            done,
            total,
            rate_bps: self.rate_bps,
            eta_s: self.eta(phase, done, total),
        })
    }

    fn eta(&self, phase: WritePhase, done: u64, total: u64) -> Option<u64> {
        let after = if phase == WritePhase::Verifying { 0 } else { self.verify_bytes };
        let left = total.saturating_sub(done).saturating_add(after);
        // The read-back is taken to be as fast as the write: cards read faster, so this errs on the long side.
        (self.rate_bps > 0).then(|| left.div_ceil(self.rate_bps))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    const MB: u64 = 1_000_000;

    fn at(s: f64) -> Duration {
        Duration::from_secs_f64(s)
    }

    #[test]
    fn a_steady_write_reports_once_a_second_with_its_rate_and_end() {
        let mut meter = Meter::new(100 * MB);
        let mut reports = Vec::new();
        for tick in 0..=40 {
            let now = f64::from(tick) / 10.0;
            let done = (now * 20e6) as u64;
            reports.extend(meter.step(at(now), WritePhase::Writing, done, 100 * MB));
        }
        assert_eq!(reports.len(), 5, "one at the start, then one a second");
        let last = reports.last().unwrap();
        assert!((19_900_000..=20_100_000).contains(&last.rate_bps), "{}", last.rate_bps);
        // 20 MB left to write and 100 MB to read back at 20 MB/s.
        assert!((5..=7).contains(&last.eta_s.unwrap()), "{last:?}");
    }

    #[test]
    fn a_new_phase_is_reported_at_once() {
        let mut meter = Meter::new(10);
        assert!(meter.step(at(0.0), WritePhase::Writing, 0, 10).is_some());
        assert!(meter.step(at(0.1), WritePhase::Writing, 5, 10).is_none());
        assert!(meter.step(at(0.2), WritePhase::Verifying, 0, 10).is_some());
    }
}
