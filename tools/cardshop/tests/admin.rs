//! What a site's keeper types: backups while the site runs, restoring, moving to a database and back.
#![allow(clippy::unwrap_used)] // a test helper that cannot unwrap reads worse and asserts less

mod common;
#[path = "../../testing/postgres.rs"]
mod postgres;

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Output;

use common::{Process, cardshop, start_ready, text_of};
use serde_json::Value;

fn start(words: &[&str]) -> (Process, Value) {
    let mut command = cardshop();
    // Nobody is at the broker's address: only the store is wanted.
    command.args(["--json", "scheduler", "--listen", "127.0.0.1:0", "--mqtt", "mqtt://127.0.0.1:1"]);
    start_ready(command.args(words))
}

fn admin(words: &[&str]) -> Output {
    cardshop().arg("admin").args(words).output().unwrap()
}

fn good(words: &[&str]) -> Vec<u8> {
    let output = admin(words);
    assert!(output.status.success(), "{words:?}: {}", text_of(&output));
    output.stdout
}

fn refused(words: &[&str], code: i32, why: &str) {
    let output = admin(words);
    assert_eq!(output.status.code(), Some(code), "{words:?}: {}", text_of(&output));
    assert!(text_of(&output).contains(why), "{words:?}: {}", text_of(&output));
}

#[test]
fn a_backup_of_a_running_site_is_restored_elsewhere_and_never_over_another() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (site, copy, file) = (path("site"), path("copy"), path("backup"));
    let (running, ready) = start(&["--data", &site]);
    assert!(ready["password"].is_string());
    good(&["backup", "--data", &site, "-o", &file]);
    let mode = std::fs::metadata(&file).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "secrets are inside");
    let backup = std::fs::read(&file).unwrap();
    refused(&["backup", "--data", &site, "-o", &file], 1, "cannot write");
    refused(&["restore", &file, "--data", &site], 1, "in use");
    running.terminate();
    refused(&["restore", &file, "--data", &site], 1, "nothing is overwritten");
    assert_eq!(std::fs::read(&file).unwrap(), backup);

    std::fs::write(path("cut"), &backup[..backup.len() - 50]).unwrap();
    refused(&["restore", &path("cut"), "--data", &copy], 1, "not restored");
    good(&["restore", &file, "--data", &copy]);
    assert!(good(&["export", "--data", &copy]) == backup, "identical after the round trip");
    let (_running, ready) = start(&["--data", &copy]);
    assert!(ready["password"].is_null(), "the site is known");
    refused(&["backup", "-o", &path("x")], 2, "--data");
    refused(&["backup", "--data", &path("nowhere"), "-o", &path("x")], 1, "no store");
    assert!(!Path::new(&path("x")).exists());
}

#[test]
fn a_site_moves_into_a_database_and_back_and_no_password_is_on_a_command_line() {
    let with_password = ["export", "--store", "postgres://shop:geheim@127.0.0.1/shop"];
    let output = admin(&with_password);
    assert_eq!(output.status.code(), Some(2));
    assert!(!text_of(&output).contains("geheim"), "{}", text_of(&output));
    let Some(server) = postgres::Server::start() else { return };
    let database = server.database();
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    start(&["--data", &path("site")]).0.terminate();
    good(&["export", "--data", &path("site"), "-o", &path("file")]);
    good(&["import", &path("file"), "--store", &database]);
    refused(&["import", &path("file"), "--store", &database], 1, "nothing is overwritten");
    let exported = good(&["export", "--store", &database]);
    assert!(exported == std::fs::read(path("file")).unwrap());
    let (running, ready) = start(&["--data", &path("other"), "--store", &database]);
    assert!(ready["password"].is_null(), "the site is known");
    good(&["backup", "--store", &database, "-o", &path("backup")]);
    running.terminate();
    good(&["restore", &path("backup"), "--data", &path("back")]);
    assert!(good(&["export", "--data", &path("back")]) == std::fs::read(path("backup")).unwrap());
}
