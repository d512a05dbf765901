//! Downloading over a real socket: ranges and conditions as RFC 9110 has them.

use super::common::*;
use cardshop_protocol::ids::ImageId;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

const SIZE: usize = 3 * CHUNK + 1234;

#[test]
fn a_whole_image_comes_with_its_length_and_its_strong_entity_tag() {
    let shop = Shop::open();
    let (bytes, index) = solid(SIZE, 1);
    let id = shop.put(&bytes, &index);
    let path = format!("/images/{id}");
    for answer in [shop.staff().get(&path), shop.staff().head(&path)] {
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("etag"), format!("\"{id}\""));
        assert_eq!(answer.header("accept-ranges"), "bytes");
        assert_eq!(answer.header("content-length"), SIZE.to_string());
    }
    assert!(shop.staff().get(&path).body == bytes);
    let head = shop.staff().send("HEAD", &path, &[("Range", "bytes=0-1")], &[]);
    assert_eq!((head.status, head.header("content-length")), (200, SIZE.to_string()), "HEAD knows no ranges");
}

#[test]
fn conditions_decide_before_ranges() {
    let shop = Shop::open();
    let (bytes, index) = solid(SIZE, 2);
    let id = shop.put(&bytes, &index);
    let (path, tag) = (format!("/images/{id}"), format!("\"{id}\""));
    let get = |headers: &[(&str, &str)]| shop.staff().send("GET", &path, headers, &[]);
    assert_eq!(get(&[("If-None-Match", &tag)]).status, 304);
    assert_eq!(get(&[("If-None-Match", "\"other\"")]).status, 200);
    assert_eq!(get(&[("If-Match", "\"other\""), ("Range", "bytes=0-0")]).code(), "precondition_failed");
    let range = ("Range", "bytes=5-9");
    let same = get(&[range, ("If-Range", &tag)]);
    assert_eq!((same.status, same.body.as_slice()), (206, &bytes[5..10]));
    let changed = get(&[range, ("If-Range", "\"other\"")]);
    assert!(changed.status == 200 && changed.body == bytes);
    let weak = get(&[range, ("If-Range", &format!("W/{tag}"))]);
    assert_eq!(weak.status, 200);
    let outside = get(&[("Range", &format!("bytes={SIZE}-"))]);
    assert_eq!((outside.status, outside.header("content-range")), (416, format!("bytes */{SIZE}")));
    assert_eq!(outside.code(), "range_not_satisfiable");
}

#[test]
fn any_ranges_give_exactly_the_bytes_asked_for() {
    let shop = Shop::open();
    let (bytes, index) = solid(SIZE, 3);
    let id = shop.put(&bytes, &index);
    let (client, path) = (shop.staff(), format!("/images/{id}"));
    let at = 0..SIZE + 100;
    let spec = prop_oneof![
        (at.clone(), 0..SIZE).prop_map(|(first, more)| format!("{first}-{}", first + more)),
        (at.clone(), 0..300usize).prop_map(|(first, more)| format!("{first}-{}", first + more)),
        at.clone().prop_map(|first| format!("{first}-")),
        at.prop_map(|count| format!("-{count}")),
    ];
    let specs = prop::collection::vec(spec, 1..5);
    let mut runner = TestRunner::new(Config { failure_persistence: None, ..Config::with_cases(150) });
    runner
        .run(&specs, |specs| {
            let answer = client.range(&path, &format!("bytes={}", specs.join(",")));
            let mut wanted = vec![false; SIZE];
            specs.iter().for_each(|s| selected(s).into_iter().for_each(|r| wanted[r].fill(true)));
            if !wanted.contains(&true) {
                prop_assert_eq!(answer.status, 416);
                return Ok(());
            }
            prop_assert_eq!(answer.status, 206);
            prop_assert_eq!(answer.header("content-length"), answer.body.len().to_string());
            let mut got = vec![false; SIZE];
            for (first, part) in parts(&answer) {
                let range = first..first + part.len();
                prop_assert!(part == bytes[range.clone()], "part at {}", first);
                prop_assert!(!got[range.clone()].contains(&true), "no byte comes twice");
                got[range].fill(true);
            }
            prop_assert!(got == wanted, "every byte asked for and no other");
            Ok(())
        })
        .unwrap();
}

/// What RFC 9110 §14.1.2 lets a range select.
fn selected(spec: &str) -> Option<std::ops::Range<usize>> {
    let range = match spec.split_once('-').unwrap() {
        ("", count) => SIZE.saturating_sub(count.parse().unwrap())..SIZE,
        (first, "") => first.parse().unwrap()..SIZE,
        (first, last) => first.parse().unwrap()..(last.parse::<usize>().unwrap() + 1).min(SIZE),
    };
    (range.start < range.end).then_some(range)
}

/// The parts of a 206, by offset, with a reader of multipart/byteranges of its own.
fn parts(answer: &Answer) -> Vec<(usize, Vec<u8>)> {
    let kind = answer.header("content-type");
    let Some(boundary) = kind.strip_prefix("multipart/byteranges; boundary=") else {
        let (first, size) = first_and_size(&answer.header("content-range"));
        assert_eq!(size, answer.body.len());
        return vec![(first, answer.body.clone())];
    };
    let delimiter = format!("\r\n--{boundary}").into_bytes();
    let mut rest = &answer.body[..];
    let mut parts = Vec::new();
    loop {
        assert!(rest.starts_with(&delimiter));
        rest = &rest[delimiter.len()..];
        if rest == b"--\r\n" {
            return parts;
        }
        let end = rest.windows(4).position(|w| w == b"\r\n\r\n").unwrap();
        let head = std::str::from_utf8(&rest[..end]).unwrap();
        let range = head.lines().find_map(|l| l.strip_prefix("Content-Range: ")).unwrap();
        rest = &rest[end + 4..];
        let (first, size) = first_and_size(range);
        parts.push((first, rest[..size].to_vec()));
        rest = &rest[size..];
    }
}

fn first_and_size(content_range: &str) -> (usize, usize) {
    let bytes = content_range.strip_prefix("bytes ").unwrap();
    let (first, last) = bytes.strip_suffix(&format!("/{SIZE}")).unwrap().split_once('-').unwrap();
    let (first, last): (usize, usize) = (first.parse().unwrap(), last.parse().unwrap());
    (first, last + 1 - first)
}

#[test]
fn the_list_comes_in_pages_and_state_is_told_without_login() {
    let shop = Shop::open();
    let mut ids: Vec<_> = (0..3)
        .map(|seed| {
            let (bytes, index) = solid(5000, 20 + seed);
            shop.put(&bytes, &index)
        })
        .collect();
    ids.sort();
    let mut got = Vec::new();
    let mut path = "/images?limit=2".to_owned();
    loop {
        let page = shop.staff().get(&path).json();
        got.extend(
            page["items"]
                .as_array()
                .unwrap()
                .iter()
                .map(|i| i["id"].as_str().unwrap().parse::<ImageId>().unwrap()),
        );
        match page["next_cursor"].as_str() {
            Some(cursor) => path = format!("/images?limit=2&cursor={cursor}"),
            None => break,
        }
    }
    assert_eq!(got, ids);
    for query in ["cursor=../x", "limit=many", "limit=1&limit=2"] {
        let refused = shop.staff().get(&format!("/images?{query}"));
        assert_eq!((refused.status, refused.code().as_str()), (400, "bad_query"), "{query}");
    }
    let not_text = shop.staff().get("/images/%ff");
    assert_eq!((not_text.status, not_text.code().as_str()), (404, "not_found"));
    let nobody = Client::new(shop.address(), None);
    assert_eq!(nobody.get("/health").json()["status"], "ok");
    let metrics = nobody.get("/metrics").text();
    assert!(metrics.contains("cardshop_warehouse_images 3\n"), "{metrics}");
    assert!(metrics.contains("cardshop_warehouse_answers_total{class=\"2xx\"}"));
    assert_eq!(nobody.get("/nowhere").code(), "no_such_route");
    assert_eq!(nobody.send("POST", "/keys", &[], &[]).code(), "method_not_allowed");
}
