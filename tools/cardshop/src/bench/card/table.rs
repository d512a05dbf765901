//! What was measured, as a table for people and as events for programs, and the goals beside it.

use serde_json::json;

use super::case::{Line, Result, Run};
use super::writers::Writer;
use crate::report::Output;

const MIB: f64 = (1 << 20) as f64;

fn name(line: &Line) -> String {
    line.writer.map_or("raw O_DIRECT".to_owned(), |writer| writer.to_string())
}

/// A figure, or a dash.
fn cell(value: Option<f64>, digits: usize) -> String {
    value.map_or("-".to_owned(), |value| format!("{value:.digits$}"))
}

/// Share of a processor core per card.
fn cores(result: &Result, line: &Line) -> Option<f64> {
    line.median(|run| Some(run.cpu_seconds / run.seconds / result.case.cards as f64))
}

pub(super) fn print(output: &Output, result: &Result) {
    output.line(format_args!("\n{}", result.case));
    output.line(format_args!(
        "{:<20}{:>9}{:>12}{:>12}{:>10}{:>10}{:>12}{:>12}",
        "", "seconds", "write MB/s", "read MB/s", "× ours", "of raw", "memory MiB", "cores/card"
    ));
    let ours = result.line(Some(Writer::Cardshop)).map(Line::seconds);
    let raw = result.line(None).map_or(f64::NAN, Line::seconds);
    for line in &result.lines {
        let seconds = line.seconds();
        let megabytes = |figure: fn(&Run) -> Option<f64>| cell(line.median(figure).map(|bps| bps / 1e6), 1);
        output.line(format_args!(
            "{:<20}{seconds:>9.2}{:>12}{:>12}{:>10}{:>10.2}{:>12}{:>12}",
            name(line),
            megabytes(|run| run.write_bps),
            megabytes(|run| run.read_bps),
            cell(ours.map(|ours| seconds / ours), 2),
            raw / seconds,
            cell(line.median(|run| run.peak_memory.map(|bytes| bytes as f64 / MIB)), 1),
            cell(cores(result, line), 3),
        ));
        output.event(json!({
            "event": "bench", "case": result.case.to_string(), "cards": result.case.cards, "caps_bps": result.case.caps,
            "writer": name(line), "mapped_bytes": result.mapped, "seconds": seconds,
            "all_seconds": line.runs.iter().map(|run| run.seconds).collect::<Vec<_>>(),
            "write_bps": line.median(|run| run.write_bps), "read_bps": line.median(|run| run.read_bps),
            "of_raw": raw / seconds, "peak_memory": line.median(|run| run.peak_memory.map(|bytes| bytes as f64)),
            "cores_per_card": cores(result, line),
        }));
    }
}

/// What was promised, beside what these cases showed.
pub(super) fn goals(output: &Output, results: &[Result]) {
    output.line("\ngoals");
    for goal in measured_goals(results) {
        let Goal { text, limit, at_least, measured } = &goal;
        let met = if *at_least { measured >= limit } else { measured <= limit };
        let (sign, word) = (if *at_least { "≥" } else { "≤" }, if met { "met" } else { "MISSED" });
        output.line(format_args!("  {word:<7}{measured:>8.3} {sign} {limit:<6} {text}"));
        output.event(json!({"event": "goal", "text": text, "limit": limit, "at_least": at_least,
            "measured": measured, "met": met}));
    }
}

struct Goal {
    text: String,
    limit: f64,
    at_least: bool,
    measured: f64,
}

fn measured_goals(results: &[Result]) -> Vec<Goal> {
    let mut goals = Vec::new();
    let mut add = |text: String, limit, at_least, measured: Option<f64>| {
        goals.extend(measured.map(|measured| Goal { text, limit, at_least, measured }));
    };
    for result in results {
        let case = &result.case;
        let Some(ours) = result.line(Some(Writer::Cardshop)) else { continue };
        let raw = result.line(None).and_then(|line| line.median(|run| run.write_bps));
        let write = ours.median(|run| run.write_bps);
        add(
            format!("writing, share of the raw rate: {case}"),
            0.97,
            true,
            write.zip(raw).map(|(a, b)| a / b),
        );
        if !case.is_capped() {
            for (peer, times) in [(Writer::Bmaptool, 4.0), (Writer::Caligula, 2.0)] {
                let ratio = result.line(Some(peer)).map(|line| line.seconds() / ours.seconds());
                add(format!("times as fast as {peer}: {case}"), times, true, ratio);
            }
        } else if case.is_even() {
            let rate = case.caps[0].unwrap_or(1) as f64;
            let per_90 = cores(result, ours).map(|cores| cores * 90e6 / rate);
            add(format!("cores for each 90 MB/s card: {case}"), 0.15, false, per_90);
        }
        let memory = ours.median(|run| run.peak_memory.map(|bytes| bytes as f64 / MIB));
        if case.cards == 8 {
            add(format!("MiB of memory: {case}"), 48.0, false, memory);
        }
    }
    let time = |cards| {
        let is_it = |r: &&Result| r.case.cards == cards && r.case.is_capped() && r.case.is_even();
        results.iter().find(is_it)?.line(Some(Writer::Cardshop)).map(Line::seconds)
    };
    add(
        "time of 8 capped cards, times that of one".into(),
        1.03,
        false,
        time(8).zip(time(1)).map(|(a, b)| a / b),
    );
    goals
}
