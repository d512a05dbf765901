//! How commands end: exit codes, Ctrl-C at every stage, words that are missing, ports and folders that are taken.
#![allow(clippy::unwrap_used)]

mod common;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use common::*;
use serde_json::Value;

const MIB: usize = 1 << 20;

/// Starts a command with its output to be read.
fn spawn(command: &mut Command) -> (Child, BufReader<std::process::ChildStdout>) {
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap());
    (child, lines)
}

/// What Ctrl-C sends.
fn interrupt(child: &Child) {
    let pid = nix::unistd::Pid::from_raw(child.id().try_into().unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
}

/// Its exit code and everything it said after what was read.
fn ending(mut child: Child, mut lines: BufReader<std::process::ChildStdout>) -> (Option<i32>, String) {
    let mut text = String::new();
    lines.read_to_string(&mut text).unwrap();
    child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
    (child.wait().unwrap().code(), text)
}

fn next_event(lines: &mut BufReader<std::process::ChildStdout>) -> Value {
    let mut line = String::new();
    assert!(lines.read_line(&mut line).unwrap() > 0, "it said nothing more");
    serde_json::from_str(&line).unwrap()
}

fn run(command: &mut Command) -> (Option<i32>, String) {
    let (child, lines) = spawn(command);
    ending(child, lines)
}

/// An image of data only and a used card that is large enough.
fn image_and_card(folder: &Path, size: usize) -> (std::path::PathBuf, std::path::PathBuf) {
    let (image, card) = (folder.join("a.img"), folder.join("card"));
    std::fs::write(&image, noise(size, 1)).unwrap();
    std::fs::write(&card, noise(size + MIB, 2)).unwrap();
    (image, card)
}

#[test]
fn nothing_is_erased_without_a_yes_and_json_is_none() {
    let folder = tempfile::tempdir().unwrap();
    let (image, card) = image_and_card(folder.path(), MIB);
    for words in [&["write"][..], &["--json", "write"]] {
        let (code, text) = run(cardshop().args(words).arg(&image).arg(&card));
        assert_eq!(code, Some(3), "{text}");
        assert!(text.contains("--yes"), "{text}");
    }
    assert!(std::fs::read(&card).unwrap() == noise(2 * MIB, 2));
}

#[test]
fn an_image_that_cannot_be_had_fails_in_words_before_the_card_is_touched() {
    let folder = tempfile::tempdir().unwrap();
    let (_, card) = image_and_card(folder.path(), MIB);
    let (packed, zip) = (folder.path().join("school.img.xz"), folder.path().join("school.zip"));
    std::fs::write(&packed, noise(MIB, 3)).unwrap();
    std::fs::write(&zip, noise(MIB, 3)).unwrap();
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let address = format!("http://{nobody}/school.img");
    for (source, word) in [
        (packed.as_path(), "cannot index"),
        (&zip, "unpack it first"),
        (Path::new(&address), "cannot reach"),
        (Path::new("ftp://a.example/x.img"), "http and https"),
        (Path::new("https://me:secret@a.example/x.img"), "CARDSHOP_TOKEN"),
    ] {
        let (code, text) = run(cardshop().arg("write").arg(source).arg(&card).arg("--yes"));
        assert_eq!(code, Some(1), "{text}");
        assert!(text.contains(word) && !text.contains("secret"), "{text}");
    }
    assert!(std::fs::read(&card).unwrap() == noise(2 * MIB, 2));
}

#[test]
fn sigusr1_prints_how_far_each_card_is_and_the_write_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let (image, card) = image_and_card(folder.path(), 128 * MIB);
    let (child, mut lines) = spawn(cardshop().args(["--json", "write", "--yes"]).arg(&image).arg(&card));
    while next_event(&mut lines)["phase"] != "writing" {}
    let pid = nix::unistd::Pid::from_raw(child.id().try_into().unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGUSR1).unwrap();
    let (code, text) = ending(child, lines);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("s left, ") && text.contains("card "), "{text}");
}

#[test]
fn an_interrupted_write_ends_with_130_and_leaves_a_card_that_does_not_boot() {
    let folder = tempfile::tempdir().unwrap();
    let (image, card) = image_and_card(folder.path(), 192 * MIB);
    let (child, mut lines) = spawn(cardshop().args(["--json", "write", "--yes"]).arg(&image).arg(&card));
    while next_event(&mut lines)["phase"] != "writing" {}
    interrupt(&child);
    let (code, text) = ending(child, lines);
    assert_eq!(code, Some(130), "{text}");
    let mut start = vec![1; 512];
    std::fs::File::open(&card).unwrap().read_exact_at(&mut start, 0).unwrap();
    assert!(start.iter().all(|b| *b == 0), "the partition table is gone");
}

#[test]
fn a_card_is_written_to_its_end_when_nobody_reads_what_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let (image, card) = image_and_card(folder.path(), 4 * MIB);
    let (mut child, lines) = spawn(cardshop().args(["write", "--yes"]).arg(&image).arg(&card));
    drop(lines);
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert!(std::fs::read(&card).unwrap()[..4 * MIB] == noise(4 * MIB, 1));
}

#[test]
fn sizing_that_waits_for_a_silent_server_can_be_interrupted() {
    let folder = tempfile::tempdir().unwrap();
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let recipe = folder.path().join("r.yaml");
    let text = format!("files: [{{to: /data/x, url: \"http://{}/x\"}}]\n", server.local_addr().unwrap());
    std::fs::write(&recipe, text).unwrap();
    for check in [&["--check"][..], &[]] {
        let mut command = cardshop();
        command.arg("build").arg(&recipe).arg("-o").arg(folder.path().join("i.img")).args(check);
        let (child, lines) = spawn(&mut command);
        let _silent = server.accept().unwrap();
        interrupt(&child);
        let (code, text) = ending(child, lines);
        assert_eq!(code, Some(130), "{text}");
    }
}

#[test]
fn a_demo_can_be_interrupted_while_its_appliance_joins_and_while_it_waits_for_cards() {
    for stage in ["ready", "order"] {
        let folder = tempfile::tempdir().unwrap();
        let mut command = cardshop();
        command.args(["--json", "demo", "--exit-when-done", "--data"]).arg(folder.path().join("shop"));
        let (child, mut lines) = spawn(&mut command);
        while next_event(&mut lines)["event"] != stage {}
        interrupt(&child);
        let (code, text) = ending(child, lines);
        assert_eq!(code, Some(130), "at {stage}: {text}");
        assert!(!text.contains("\"error\""), "an interrupt is no error: {text}");
    }
}

#[test]
fn missing_words_are_wrong_usage_and_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let work = folder.path().join("work");
    let up = run(cardshop().arg("up").env_remove("CARDSHOP_DATA"));
    let creator = run(cardshop().args(["creator", "--work"]).arg(&work).env_remove("CARDSHOP_PASSWORD"));
    for ((code, text), word) in [(up, "--data"), (creator, "--password-file")] {
        assert_eq!(code, Some(2), "{text}");
        assert!(text.contains(word), "{text}");
    }
}

#[test]
fn a_flag_goes_before_a_variable_and_a_variable_before_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("up.toml");
    std::fs::write(&file, "listen = \"127.0.0.2:0\"\nwith_creator = true\n").unwrap();
    let listens_at = |name: &str, variable: Option<&str>, words: &[&str]| {
        let data = folder.path().join(name);
        let mut command = cardshop();
        command.args(["--json", "up", "--config"]).arg(&file).arg("--data").arg(&data).args(words);
        if let Some(address) = variable {
            command.env("CARDSHOP_LISTEN", address).env("CARDSHOP_WITH_CREATOR", "false");
        }
        let (child, mut lines) = spawn(&mut command);
        let http = next_event(&mut lines)["http"].as_str().unwrap().to_owned();
        interrupt(&child);
        assert_eq!(ending(child, lines).0, Some(0));
        (http.split(':').nth(1).unwrap().to_owned(), data.join("creator").exists())
    };
    assert_eq!(listens_at("a", None, &[]), ("//127.0.0.2".into(), true));
    assert_eq!(listens_at("b", Some("127.0.0.3:0"), &[]), ("//127.0.0.3".into(), false));
    let words = ["--listen", "127.0.0.4:0", "--with-creator"];
    assert_eq!(listens_at("c", Some("127.0.0.3:0"), &words), ("//127.0.0.4".into(), true));
}

/// Sends a request and gives the connection.
fn ask(address: &str, request: &str) -> BufReader<TcpStream> {
    let mut connection = TcpStream::connect(address).unwrap();
    connection.write_all(request.as_bytes()).unwrap();
    BufReader::new(connection)
}

#[test]
fn a_site_that_is_told_to_stop_ends_open_streams_and_claims_and_exits_well() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = cardshop();
    command.args(["--json", "up", "--with-creator", "--listen", "127.0.0.1:0", "--data"]).arg(folder.path());
    let (child, mut lines) = spawn(&mut command);
    let ready = next_event(&mut lines);
    let address = ready["http"].as_str().unwrap().strip_prefix("http://").unwrap().to_owned();
    let text = |key: &str| ready[key].as_str().unwrap();
    let body = format!(r#"{{"username":"{}","password":"{}"}}"#, text("username"), text("password"));
    let length = body.len();
    let mut answer = String::new();
    let login = format!(
        "POST /api/v1/auth/login HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    ask(&address, &login).read_to_string(&mut answer).unwrap();
    let pair: Value = serde_json::from_str(answer.split("\r\n\r\n").nth(1).unwrap()).unwrap();
    let token = pair["access_token"].as_str().unwrap();
    let live = format!("GET /api/v1/live HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n");
    let mut stream = ask(&address, &live);
    let mut line = String::new();
    stream.read_line(&mut line).unwrap();
    assert!(line.contains("200"), "{line}");
    let pid = nix::unistd::Pid::from_raw(child.id().try_into().unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    // It ends; whether by its last chunk or by a reset does not matter.
    let _ = stream.read_to_end(&mut Vec::new());
    let (code, text) = ending(child, lines);
    assert_eq!(code, Some(0), "{text}");
    assert!(!text.contains("panicked") && !text.contains("cut off"), "{text}");
}

#[test]
fn with_log_format_json_each_line_of_the_log_is_an_object_that_names_its_request() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = cardshop();
    command
        .args(["--json", "--log-format", "json", "up", "--listen", "127.0.0.1:0", "--data"])
        .arg(folder.path());
    let (child, mut lines) = spawn(command.env("RUST_LOG", "cardshop_scheduler=info"));
    let ready = next_event(&mut lines);
    let address = ready["http"].as_str().unwrap().strip_prefix("http://").unwrap();
    let mut answer = String::new();
    let request = "GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    ask(address, request).read_to_string(&mut answer).unwrap();
    let id = answer.lines().find_map(|line| line.strip_prefix("x-request-id: ")).unwrap();
    interrupt(&child);
    let (code, text) = ending(child, lines);
    assert_eq!(code, Some(0), "{text}");
    let log: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(log.iter().any(|line| line["span"]["id"] == id && line["span"]["path"] == "/health"), "{text}");
}

#[test]
fn ports_and_folders_that_are_taken_are_named_with_the_way_out() {
    let folder = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    for word in ["--listen", "--warehouse-listen", "--mqtt-listen"] {
        let data = folder.path().join(word);
        let (code, text) = run(cardshop().args(["demo", "--data"]).arg(&data).args([word, &taken]));
        assert_eq!(code, Some(1), "{text}");
        assert!(text.contains(&taken) && text.contains(&format!("{word} ADDR:PORT")), "{text}");
    }
    let shop = folder.path().join("shop");
    std::fs::create_dir_all(shop.join("scheduler")).unwrap();
    let (code, text) = run(cardshop().args(["demo", "--data"]).arg(&shop));
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("cardshop up --data"), "{text}");
}
