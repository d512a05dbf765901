//! The benchmarks of cards, builds, the store and the scheduler run, with little to do: what they say can be read, and nothing stays behind.
#![allow(clippy::unwrap_used)] // a test helper that cannot unwrap reads worse and asserts less
#![allow(clippy::print_stdout)] // a test that is skipped says so

use std::path::Path;
use std::process::Command;

use serde_json::Value;

/// Runs `cardshop bench` in a folder; gives what it said, and the events in it.
fn bench(words: &[&str], folder: &Path) -> (String, Vec<Value>) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cardshop"));
    let output = command.arg("bench").args(words).args(["--json", "--dir"]).arg(folder).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let events = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    (text, events)
}

#[test]
fn a_bench_of_two_cards_times_the_raw_rate_and_ours_and_leaves_no_device_behind() {
    if !nix::unistd::geteuid().is_root() {
        println!("SKIPPED: needs root");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (text, events) =
        bench(&["card", "--size", "8388608", "--rounds", "1", "--cards", "2", "--uncapped"], folder.path());
    if let Some(reason) = events
        .iter()
        .find(|event| event["event"] == "skipped" && event["text"].as_str().unwrap().starts_with("2 cards"))
    {
        println!("SKIPPED: {}", reason["text"]);
        return;
    }
    for writer in ["raw O_DIRECT", "cardshop", "dd + cmp"] {
        let line = events.iter().find(|e| e["event"] == "bench" && e["writer"] == writer).expect(writer);
        assert!(line["seconds"].as_f64().unwrap() > 0.0 && line["cards"] == 2, "{line}");
    }
    let goal = |text: &str| {
        events.iter().any(|e| e["event"] == "goal" && e["text"].as_str().unwrap().contains(text))
    };
    assert!(goal("share of the raw rate"), "{text}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "all files are gone");
    let devices = Command::new("losetup").arg("--list").output().unwrap().stdout;
    let folder = folder.path().to_string_lossy().into_owned();
    assert!(!String::from_utf8_lossy(&devices).contains(&folder), "all loop devices are let go");
}

#[test]
fn a_bench_of_a_build_times_it_beside_cp_and_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let (text, events) = bench(&["build", "--size", "20000000", "--rounds", "1"], folder.path());
    let upload = events.iter().find(|e| e["what"] == "upload").unwrap();
    let number = |name: &str| upload[name].as_f64().unwrap();
    assert!(number("uploaded_share") <= 1.0 && number("shown_seconds") >= number("seconds"), "{upload}");
    assert!(number("index_seconds") <= number("seconds") && number("chunks") >= 76.0, "{upload}");
    assert!(number("index_bytes") > 40.0 * number("chunks"), "{upload}");
    let round = events.iter().find(|e| e["event"] == "bench").unwrap();
    assert!(
        round["seconds"].as_f64().unwrap() > 0.0 && round["cp_seconds"].as_f64().unwrap() > 0.0,
        "{round}"
    );
    let goals: Vec<f64> =
        events.iter().filter(|e| e["event"] == "goal").map(|e| e["measured"].as_f64().unwrap()).collect();
    assert_eq!(goals.len(), 3, "{text}");
    assert!(goals.iter().all(|measured| measured.is_finite()) && goals[2] > 1.0, "{goals:?}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "all files are gone");
}

#[test]
fn a_bench_of_the_store_counts_transitions_beside_the_disks_own_syncs() {
    let folder = tempfile::tempdir().unwrap();
    let (text, events) = bench(&["store", "--seconds", "1", "--rounds", "1"], folder.path());
    let round = events.iter().find(|e| e["event"] == "bench").unwrap();
    assert!(round["per_second"].as_f64().unwrap() > 0.0 && round["limit"].as_f64().unwrap() > 0.0, "{text}");
    assert_eq!(events.iter().filter(|e| e["event"] == "goal").count(), 2, "{text}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "all files are gone");
}

#[test]
fn a_bench_of_the_scheduler_turns_pages_watches_the_dashboard_and_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let few = ["scheduler", "--orders", "700", "--events", "3000", "--seconds", "2", "--rate", "50"];
    let (text, events) = bench(&few, folder.path());
    let lists = events.iter().filter(|e| e["event"] == "bench" && e["list"].is_string());
    assert!(lists.filter(|e| e["p99_ms"].as_f64().unwrap() > 0.0).count() >= 8, "{text}");
    let goals: Vec<_> = events.iter().filter(|e| e["event"] == "goal").collect();
    assert!(goals.len() == 4 && goals.iter().all(|goal| goal["measured"].as_f64().unwrap() > 0.0), "{text}");
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "all files are gone");
}
