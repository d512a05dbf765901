//! Content that comes over HTTP: from servers that cut, change, refuse and lie.

#![allow(clippy::unwrap_used)] // helpers of tests
#![allow(clippy::print_stdout)] // a test that is skipped says so

mod common;

use std::sync::atomic::{AtomicU32, Ordering};

use cardshop_creator::{BuildError, Options, Policy, Recipe, StopFlag, check};
use cardshop_protocol::api::CreationPhase;
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

#[test]
fn several_files_come_at_once() {
    // Each answer waits for the other two: one after the other they would never come.
    let barrier = std::sync::Barrier::new(3);
    let server = Server::start(move |request| {
        if request.method == "GET" {
            barrier.wait();
        }
        file(request, request.path.as_bytes(), "v1")
    });
    let bench = Bench::new();
    let files: Vec<_> =
        ["/a", "/b", "/c"].iter().map(|p| format!("{{to: /data{p}, url: \"{}\"}}", server.url(p))).collect();
    let built = bench.build("card.img", &format!("files: [{}]", files.join(", ")));
    for path in ["/a", "/b", "/c"] {
        assert_eq!(read_data(&built.image, DATA_START, path), path.as_bytes());
    }
}

#[test]
fn one_download_that_fails_ends_the_others_and_is_the_one_that_is_told() {
    let server = Server::start(|request| match (request.method.as_str(), request.path.as_str()) {
        ("GET", "/bad") => Reply::status(410),
        // Never comes to its end.
        ("GET", _) => Reply { cut: Some(1), ..file(request, &noise(1, SIZE), "v1") },
        _ => file(request, &noise(1, SIZE), "v1"),
    });
    let bench = Bench::new();
    let (slow, bad) = (server.url("/slow"), server.url("/bad"));
    let recipe = format!("files: [{{to: /data/s, url: \"{slow}\"}}, {{to: /data/b, url: \"{bad}\"}}]");
    let options = Options {
        backoff: cardshop_creator::Backoff {
            first: std::time::Duration::from_secs(3600),
            most: std::time::Duration::from_secs(3600),
        },
        ..bench.options("card.img")
    };
    let recipe = Recipe::from_text(&recipe).unwrap();
    let error = cardshop_creator::build(&recipe, &options, &StopFlag::new(), &mut |_| ()).unwrap_err();
    assert!(error.to_string().contains("/bad: the server answers 410"), "{error}");
}

#[test]
fn a_checksum_may_be_a_file_beside_the_content() {
    let content = noise(1, SIZE);
    let sums = format!("{}  other\n{}  f\n", blake3::hash(b"x").to_hex(), blake3::hash(&content).to_hex());
    let server = Server::start(move |request| match request.path.as_str() {
        "/B3SUMS" => file(request, sums.as_bytes(), "s"),
        _ => file(request, &content, "v1"),
    });
    let bench = Bench::new();
    let with = |url: &str| format!(", checksum: {{algo: blake3, kind: url, value: \"{url}\"}}");
    let good = recipe(&server.url("/f"), &with(&server.url("/B3SUMS")));
    let built = bench.build("card.img", &good);
    assert_eq!(read_data(&built.image, DATA_START, "/f"), noise(1, SIZE));
    let error =
        bench.try_build("x.img", &recipe(&server.url("/g"), &with(&server.url("/B3SUMS")))).unwrap_err();
    assert!(error.to_string().ends_with("/B3SUMS: has no blake3 of \"g\""), "{error}");
    let wrong = recipe(&server.url("/other"), &with(&server.url("/B3SUMS")));
    let error = bench.try_build("x.img", &wrong).unwrap_err();
    assert!(error.to_string().contains("its digest is blake3:") && error.is_permanent(), "{error}");
    bench.write("SUMS", format!("{}\n", blake3::hash(b"local").to_hex()).as_bytes());
    bench.write("l", b"local");
    bench.build("card.img", &recipe("l", &with("SUMS")));
}

#[test]
fn offline_the_cache_does_and_what_is_not_in_it_is_named() {
    let server = Server::start(|request| match request.path.as_str() {
        "/SUMS" => file(request, blake3::hash(&noise(1, SIZE)).to_hex().as_bytes(), "s"),
        _ => file(request, &noise(1, SIZE), "v1"),
    });
    let bench = Bench::new();
    let sums = format!(", checksum: {{algo: blake3, kind: url, value: \"{}\"}}", server.url("/SUMS"));
    let offline = Options { offline: true, ..bench.options("card.img") };
    let try_offline = |text: &str| {
        let recipe = Recipe::from_text(text).unwrap();
        cardshop_creator::build(&recipe, &offline, &StopFlag::new(), &mut |_| ())
    };
    let table = [recipe(&server.url("/plain"), ""), recipe(&server.url("/checked"), &sums)];
    for text in &table {
        let error = try_offline(text).unwrap_err();
        assert!(error.to_string().ends_with("not in the cache, and this build is offline"), "{error}");
    }
    let ids: Vec<_> = table.iter().map(|text| bench.build("card.img", text).index.id()).collect();
    let asked = || server.requests("GET", "/").len() + server.requests("HEAD", "/").len();
    let before = asked();
    for (text, id) in table.iter().zip(ids) {
        assert_eq!(try_offline(text).unwrap().index.id(), id);
    }
    assert_eq!(asked(), before, "nobody was asked");
}

#[test]
fn creators_that_share_a_cache_download_once_and_keep_what_the_others_build_from() {
    let server = Server::start(|request| file(request, &noise(1, SIZE), "v1"));
    let bench = Bench::new();
    let text = recipe(&server.url("/f"), &checksum(&noise(1, SIZE)));
    // The second one keeps nothing, and begins while the first one builds.
    let policy = Policy::from_text("limits: {max_count: 0}").unwrap();
    let (first, second) = (bench.options("1.img"), Options { policy, ..bench.options("2.img") });
    let recipe = Recipe::from_text(&text).unwrap();
    let (mut other, mut asked) = (None, 0);
    let built = cardshop_creator::build(&recipe, &first, &StopFlag::new(), &mut |progress| {
        if progress.phase == CreationPhase::Building && other.is_none() {
            asked = server.requests("GET", "/f").len();
            other = Some(cardshop_creator::build(&recipe, &second, &StopFlag::new(), &mut |_| ()).unwrap());
        }
    });
    assert_eq!(built.unwrap().index.id(), other.unwrap().index.id());
    assert_eq!((asked, server.requests("GET", "/f").len()), (1, 1));
    // Now nobody holds it, but for a moment the programs that other tests start.
    let empty = Recipe::from_text("{}").unwrap();
    let begun = std::time::Instant::now();
    while std::fs::read_dir(bench.path("cache")).unwrap().count() > 0 {
        assert!(begun.elapsed().as_secs() < 60, "it stays");
        cardshop_creator::build(&empty, &second, &StopFlag::new(), &mut |_| ()).unwrap();
    }
}

#[test]
fn a_disk_without_room_is_told_with_both_sizes_before_any_content_comes() {
    // Sparse: nothing of it is read, let alone written.
    let bench = Bench::new();
    std::fs::File::create(bench.path("huge")).unwrap().set_len(1 << 40).unwrap();
    let recipe = Recipe::from_text("files: [{to: /data/huge, url: huge}]").unwrap();
    let sizing = check(&recipe, &bench.options("card.img"), &StopFlag::new()).unwrap();
    let volume = &sizing.volumes[0];
    if volume.free > 1 << 40 {
        println!("SKIPPED: this disk has more than 1 TiB free");
        return;
    }
    assert!(volume.needed > 1 << 40 && volume.path == bench.path(""), "{volume:?}");
    let error = bench.try_build("card.img", "files: [{to: /data/huge, url: huge}]").unwrap_err();
    assert!(matches!(error, BuildError::NoSpace { .. }) && !error.is_permanent(), "{error}");
}
