//! `cardshop sim` as people and CI call it.
#![allow(clippy::unwrap_used)] // a test helper that cannot unwrap reads worse and asserts less

use std::process::Command;

use serde_json::Value;

/// Runs it; gives its exit code and events.
fn sim(words: &[&str]) -> (Option<i32>, Vec<Value>) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cardshop"));
    let output = command.args(["sim", "--json"]).args(words).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    (output.status.code(), text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
}

#[test]
fn a_life_is_told_with_its_digest_and_the_command_that_lives_it_again() {
    let words = ["--seed", "3", "--minutes", "20", "--appliances", "2"];
    let (code, told) = sim(&words);
    assert_eq!(code, Some(0), "{told:?}");
    let life = &told[0];
    assert!(
        life["event"] == "life" && life["wrong"].is_null() && life["cards"].as_u64().unwrap() > 0,
        "{life}"
    );
    let again = life["command"].as_str().unwrap().strip_prefix("cardshop sim ").unwrap().to_owned();
    let again: Vec<&str> = again.split(' ').collect();
    assert_eq!(sim(&again).1[0]["digest"], life["digest"], "in another process, too");
    assert_eq!(sim(&["--seed", "3", "--faults", "some"]).0, Some(2));
}

#[test]
fn fifty_appliances_at_a_real_site_are_seen_and_every_card_they_tell_of_counts_once() {
    let (code, told) = sim(&["--appliances", "50", "--slots", "8", "--minutes", "0.1", "--rate", "200"]);
    let load = told.iter().find(|event| event["event"] == "load").unwrap_or_else(|| panic!("{told:?}"));
    let number = |field: &str| load[field].as_u64().unwrap();
    assert_eq!(code, Some(0), "{load}");
    assert_eq!(number("appliances"), 50);
    assert!(number("cards") > 0 && number("cards") == number("cards_counted"), "{load}");
    assert_eq!(number("facts"), number("facts_stored"));
    // Two states of a slot may be one line when they come at once.
    assert!(number("states") > 0 && number("states_seen") * 10 >= number("states") * 9, "{load}");
    assert!(load["memory_mib"].as_f64().unwrap() > 0.0 && load["p99_ms"].as_f64().unwrap() > 0.0);
}
