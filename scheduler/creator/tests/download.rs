//! Content that comes over HTTP: from servers that cut, change, refuse and lie.

#![allow(clippy::unwrap_used)] // helpers of tests

mod common;

use std::sync::atomic::{AtomicU32, Ordering};

use cardshop_creator::{BuildError, Recipe, StopFlag, check};
use common::server::{Reply, Server, file};
use common::{Bench, DATA_START, noise, read_data};

const SIZE: usize = 3_000_000;

fn recipe(url: &str, more: &str) -> String {
    format!("files: [{{to: /data/f, url: \"{url}\"{more}}}]")
}

fn checksum(content: &[u8]) -> String {
    format!(", checksum: {{algo: blake3, value: {}}}", blake3::hash(content).to_hex())
}

#[test]
fn a_download_that_is_cut_goes_on_where_it_was() {
    let cuts = AtomicU32::new(3);
    let server = Server::start(move |request| {
        let mut reply = file(request, &noise(1, SIZE), "v1");
        if request.method == "GET"
            && cuts.fetch_update(Ordering::AcqRel, Ordering::Acquire, |n| n.checked_sub(1)).is_ok()
        {
            reply.cut = Some(500_000);
        }
        reply
    });
    let bench = Bench::new();
    let built = bench.build("card.img", &recipe(&server.url("/f"), &checksum(&noise(1, SIZE))));
    assert_eq!(read_data(&built.image, DATA_START, "/f"), noise(1, SIZE));
    let ranges: Vec<_> =
        server.requests("GET", "/f").iter().map(|r| r.header("range").map(str::to_owned)).collect();
    let range = |first: usize| Some(format!("bytes={first}-"));
    assert_eq!(ranges, [None, range(500_000), range(1_000_000), range(1_500_000)]);
}

#[test]
fn a_file_that_changes_between_two_parts_is_fetched_whole() {
    let asked = AtomicU32::new(0);
    let server = Server::start(move |request| {
        if request.method == "HEAD" {
            return file(request, &noise(1, SIZE), "old");
        }
        match asked.fetch_add(1, Ordering::AcqRel) {
            0 => Reply { cut: Some(1_000_000), ..file(request, &noise(1, SIZE), "old") },
            _ => file(request, &noise(2, SIZE), "new"),
        }
    });
    let bench = Bench::new();
    let built = bench.build("card.img", &recipe(&server.url("/f"), ""));
    assert_eq!(read_data(&built.image, DATA_START, "/f"), noise(2, SIZE));
}

#[test]
fn what_is_in_the_cache_is_not_fetched_again() {
    let server = Server::start(|request| file(request, &noise(1, SIZE), "v1"));
    let bench = Bench::new();
    let known = recipe(&server.url("/known"), &checksum(&noise(1, SIZE)));
    let first = bench.build("1.img", &known);
    drop(bench.build("2.img", &known));
    assert_eq!((server.requests("GET", "/known").len(), server.requests("HEAD", "/known").len()), (1, 1));
    // Without a checksum the server is asked whether it is still the same.
    let asked = recipe(&server.url("/asked"), "");
    drop((bench.build("3.img", &asked), bench.build("4.img", &asked)));
    assert_eq!((server.requests("GET", "/asked").len(), server.requests("HEAD", "/asked").len()), (1, 2));
    assert_eq!(first.index.data_bytes() / 1_000_000, 3);
}

#[test]
fn a_server_that_is_away_for_a_while_is_waited_for() {
    let asked = AtomicU32::new(0);
    let server = Server::start(move |request| match asked.fetch_add(1, Ordering::AcqRel) {
        0 | 2 => Reply::status(503),
        _ => file(request, &noise(1, SIZE), "v1"),
    });
    let bench = Bench::new();
    bench.build("card.img", &recipe(&server.url("/f"), ""));
    assert_eq!((server.requests("HEAD", "/f").len(), server.requests("GET", "/f").len()), (2, 2));
}

#[test]
fn a_server_that_knows_no_head_is_asked_for_one_byte() {
    let server = Server::start(|request| match request.method.as_str() {
        "HEAD" => Reply::status(405),
        _ => file(request, &noise(1, SIZE), "v1"),
    });
    let bench = Bench::new();
    let recipe = Recipe::from_text(&recipe(&server.url("/f"), "")).unwrap();
    let sizing = check(&recipe, &bench.options("card.img"), &StopFlag::new()).unwrap();
    assert_eq!(sizing.download_bytes, SIZE as u64);
    assert_eq!(server.requests("GET", "/f")[0].header("range"), Some("bytes=0-0"));
}

#[test]
fn checking_sizes_everything_and_downloads_nothing() {
    let server = Server::start(|request| file(request, &noise(1, SIZE), "v1"));
    let bench = Bench::new();
    bench.write("local.bin", &noise(2, 10_000));
    let text = format!(
        "files: [{{to: /data/f, url: \"{}\"}}, {{to: /data/l, url: local.bin}}, {{to: /data/t, content: abc}}]",
        server.url("/f")
    );
    let sizing =
        check(&Recipe::from_text(&text).unwrap(), &bench.options("card.img"), &StopFlag::new()).unwrap();
    let rows: Vec<_> = sizing.rows.iter().map(|r| (r.what.as_str(), r.bytes, r.download_bytes)).collect();
    let free = sizing.image_bytes - DATA_START - 3_010_003;
    assert_eq!(
        rows,
        [
            ("boot partition", 40 << 20, 0),
            ("/data/f", 3_000_000, 3_000_000),
            ("/data/l", 10_000, 0),
            ("/data/t", 3, 0),
            ("data partition: tables and free space", free, 0),
        ]
    );
    assert_eq!(server.requests("GET", "/").len(), 0);
    assert_eq!(bench.build("card.img", &text).index.image_size(), sizing.image_bytes);
}

/// Builds from a server's answers and gives the error.
fn refused(
    more: &str,
    handler: impl Fn(&common::server::Request) -> Reply + Send + Sync + 'static,
) -> BuildError {
    let server = Server::start(handler);
    let bench = Bench::new();
    let error = bench.try_build("card.img", &recipe(&server.url("/f?key=secret"), more)).unwrap_err();
    let left: Vec<_> =
        std::fs::read_dir(bench.path("cache")).into_iter().flatten().flatten().map(|e| e.path()).collect();
    assert!(left.iter().all(|p| p.extension().is_some()), "nothing refused counts as complete: {left:?}");
    let text = error.to_string();
    assert!(!text.contains("secret") && text.contains("/f"), "{text}");
    error
}

#[test]
fn wrong_content_is_refused_by_name_and_for_good() {
    let wrong = refused(&checksum(b"other"), |r| file(r, &noise(1, 5000), "v1"));
    assert!(wrong.is_permanent() && wrong.to_string().contains("its digest is blake3:"), "{wrong}");
    let size = refused(", size: 4999", |r| file(r, &noise(1, 5000), "v1"));
    assert!(size.is_permanent() && size.to_string().ends_with("5000 bytes, expected 4999"), "{size}");
    let missing = refused("", |_| Reply::status(404));
    assert!(missing.is_permanent() && missing.to_string().contains("the server answers 404"), "{missing}");
    let endless = refused("", |request| match request.method.as_str() {
        "HEAD" => Reply::status(200).with("content-length", 5000),
        _ => Reply { body: vec![7; 6000], ..Reply::status(200) },
    });
    assert!(endless.to_string().contains("6000 bytes, expected 5000"), "{endless}");
    let sizeless = refused(", via: gztar", |r| file(r, &noise(1, 5000), "v1"));
    assert!(sizeless.to_string().ends_with("say `size` in bytes"), "{sizeless}");
}

#[test]
fn sizes_that_no_image_can_have_are_refused_also_from_a_server() {
    for more in ["", ", via: tar"] {
        let server =
            Server::start(|_| Reply::status(200).with("content-length", u64::MAX).with("etag", "\"v1\""));
        let bench = Bench::new();
        let error = bench.try_build("card.img", &recipe(&server.url("/f"), more)).unwrap_err();
        assert!(matches!(error, BuildError::TooLarge { image: u64::MAX, .. }), "{error}");
    }
}

#[test]
fn a_server_that_only_fails_is_given_up_and_may_be_tried_later() {
    let away = refused("", |_| Reply::status(503));
    assert!(!away.is_permanent() && away.to_string().contains("given up after 6 tries"), "{away}");
    let silent = refused("", |request| match request.method.as_str() {
        "HEAD" => file(request, &noise(1, 5000), "v1"),
        _ => Reply { cut: Some(0), ..file(request, &noise(1, 5000), "v1") },
    });
    assert!(!silent.is_permanent() && silent.to_string().contains("given up after 6 tries"), "{silent}");
}
