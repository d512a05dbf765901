//! The appliance's fetcher as a real process that is really killed.

use std::process::Command;

#[test]
fn an_image_fetched_through_twenty_kills_repeats_at_most_a_chunk_a_connection() {
    let output = Command::new(env!("CARGO_BIN_EXE_cardshop"))
        .args(["bench", "fetch", "--only", "kills", "--json"])
        .output()
        .expect("the command starts");
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}{errors}");
    let report: serde_json::Value =
        serde_json::from_str(text.lines().last().expect("it says what it found")).expect("it is JSON");
    let number = |name: &str| report[name].as_u64().expect("it is a number");
    assert_eq!(number("kills"), 20);
    assert!(number("repeated_bytes") <= number("allowed_bytes"), "{report}");
    assert!(number("sent_bytes") >= number("image_bytes"), "{report}");
}

#[test]
fn of_the_next_build_of_an_image_little_more_travels_than_was_changed() {
    let output = Command::new(env!("CARGO_BIN_EXE_cardshop"))
        .args(["bench", "fetch", "--only", "changed", "--json"])
        .output()
        .expect("the command starts");
    let text = String::from_utf8_lossy(&output.stdout);
    let report: serde_json::Value =
        serde_json::from_str(text.lines().last().expect("it says what it found")).expect("it is JSON");
    assert!(report["share"].as_f64().expect("it is a number") <= 0.06, "{report}");
    assert!(output.status.success(), "{text}");
}
