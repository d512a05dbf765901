//! Fetching against a warehouse over real TCP that does everything wrong a warehouse can do.

use std::sync::Arc;
use std::time::Duration;

use cardshop_card::{ChunkSource, SourceError, StopFlag};
use cardshop_protocol::keys::{KeyUse, PublicKey};
use ed25519_dalek::SigningKey;

use super::fetch::SignatureRule;
use super::test_fetch::{Bench, CHUNK, CHUNKS, DATA_BYTES, Setup, image};
use super::test_http::{send, serve};
use super::test_warehouse::{Faults, Lie, Warehouse};

#[test]
fn an_image_arrives_whole_by_ranges_and_zero_chunks_never_travel() {
    let (bytes, index) = image();
    let warehouse = Warehouse::start(bytes.clone(), &index, Faults::default());
    let mut bench = Bench::new();
    bench.fetch(&index, &[&warehouse], SignatureRule::default());
    assert!(bench.read_all(&index).unwrap() == bytes);
    assert_eq!(warehouse.given_bytes(), DATA_BYTES);
    let requests = warehouse.log.lock().unwrap().given.len();
    assert_eq!(requests, 3, "neighbouring chunks travel together, at least a MiB where there is one");
}

#[test]
fn what_is_in_the_cache_is_not_fetched_again_and_what_the_disk_lost_is() {
    let (bytes, index) = image();
    let warehouse = Warehouse::start(bytes.clone(), &index, Faults::default());
    let folder = Arc::new(tempfile::tempdir().unwrap());
    let mut bench = Bench::in_folder(Arc::clone(&folder), Setup::default());
    bench.fetch(&index, &[&warehouse], SignatureRule::default());
    bench.read_all(&index).unwrap();
    drop(bench);

    let path = folder.path().join(format!("{}.img", index.id()));
    let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"rot", 33 * CHUNK).unwrap();
    let mut bench = Bench::in_folder(folder, Setup::default());
    bench.fetch(&index, &[&warehouse], SignatureRule::default());
    assert!(bench.read_all(&index).unwrap() == bytes);
    assert_eq!(warehouse.given_bytes(), DATA_BYTES + CHUNK);
}

#[test]
fn a_chunk_corrupted_once_is_fetched_again_alone() {
    let (bytes, index) = image();
    let faults = Faults { corrupt: Some((7 * CHUNK + 5, 1)), ..Faults::default() };
    let warehouse = Warehouse::start(bytes.clone(), &index, faults);
    let mut bench = Bench::new();
    bench.fetch(&index, &[&warehouse], SignatureRule::default());
    assert!(bench.read_all(&index).unwrap() == bytes);
    assert_eq!(warehouse.given_bytes(), DATA_BYTES + CHUNK);
}

#[test]
fn a_chunk_always_corrupted_refuses_the_image_and_names_the_offset() {
    let (bytes, index) = image();
    let faults = Faults { corrupt: Some((7 * CHUNK + 5, u32::MAX)), ..Faults::default() };
    let warehouse = Warehouse::start(bytes, &index, faults);
    let mut bench = Bench::new();
    bench.fetch(&index, &[&warehouse], SignatureRule::default());
    let fault = bench.refusal();
    assert_eq!((fault.code.as_str(), fault.offset), ("chunk_mismatch", Some(7 * CHUNK)));
    let times = warehouse.log.lock().unwrap().given.iter().filter(|r| r.contains(&(7 * CHUNK))).count();
    assert_eq!(times, 4, "once, and three times again");
    let store = bench.fetcher.store(index.id()).unwrap();
    let mut buffer = vec![0; CHUNK as usize];
    let error = store.read_chunk(7, &mut buffer, &StopFlag::new()).unwrap_err();
    assert!(matches!(error, SourceError::Unavailable { chunk: 7, .. }), "{error}");
}

#[test]
fn a_corrupted_chunk_is_asked_of_the_other_warehouse() {
    let (bytes, index) = image();
    let faults = Faults { corrupt: Some((7 * CHUNK, u32::MAX)), ..Faults::default() };
    let bad = Warehouse::start(bytes.clone(), &index, faults);
    let good = Warehouse::start(bytes.clone(), &index, Faults::default());
    let mut bench = Bench::new();
    bench.fetch(&index, &[&bad, &good], SignatureRule::default());
    assert!(bench.read_all(&index).unwrap() == bytes);
    assert_eq!(good.given_bytes(), CHUNK, "only the wrong chunk: one is no reason to leave a warehouse");
}

#[test]
fn a_cut_connection_is_resumed_where_it_was_cut() {
    let (bytes, index) = image();
    let faults = Faults { cut_at: Some(12 * CHUNK + 100), ..Faults::default() };
    let warehouse = Warehouse::start(bytes.clone(), &index, faults);
    let mut bench = Bench::new();
    bench.fetch(&index, &[&warehouse], SignatureRule::default());
    assert!(bench.read_all(&index).unwrap() == bytes);
    assert_eq!(warehouse.given_bytes(), DATA_BYTES + 100, "only the chunk that was cut is repeated");
}

#[test]
fn a_refused_token_is_reported_and_the_fetch_goes_on_with_the_next() {
    let (bytes, index) = image();
    let faults = Faults { token: Some("good".into()), ..Faults::default() };
    let warehouse = Warehouse::start(bytes.clone(), &index, faults);
    let mut bench = Bench::with(Setup { token: "old", ..Setup::default() });
    bench.fetch(&index, &[&warehouse], SignatureRule::default());
    while bench.session.refused_generation() == 0 {
        std::thread::yield_now();
    }
    warehouse.faults.lock().unwrap().token = Some("old".into());
    assert!(bench.read_all(&index).unwrap() == bytes);
    assert!(warehouse.log.lock().unwrap().refused > 0);
}

#[test]
fn a_warehouse_that_is_ill_is_asked_again_and_one_that_says_no_ends_in_a_refusal() {
    let (bytes, index) = image();
    let faults = Faults { status: Some((503, 2)), ..Faults::default() };
    let warehouse = Warehouse::start(bytes.clone(), &index, faults);
    let mut bench = Bench::new();
    bench.fetch(&index, &[&warehouse], SignatureRule::default());
    assert!(bench.read_all(&index).unwrap() == bytes);
}

#[test]
fn a_server_that_lies_about_ranges_is_never_believed() {
    let (bytes, index) = image();
    for lie in [Lie::Whole, Lie::OtherRange, Lie::OtherSize, Lie::NoRange, Lie::OtherTag] {
        let liar = Warehouse::start(bytes.clone(), &index, Faults { lie: Some(lie), ..Faults::default() });
        let good = Warehouse::start(bytes.clone(), &index, Faults::default());
        let mut bench = Bench::new();
        bench.fetch(&index, &[&liar, &good], SignatureRule::default());
        assert!(bench.read_all(&index).unwrap() == bytes, "{lie:?}");
        assert_eq!(good.given_bytes(), DATA_BYTES, "{lie:?}");
    }
    let liar = Warehouse::start(bytes, &index, Faults { lie: Some(Lie::Whole), ..Faults::default() });
    let mut bench = Bench::new();
    bench.fetch(&index, &[&liar], SignatureRule::default());
    let fault = bench.refusal();
    assert_eq!(fault.code, "image_unavailable");
    assert!(fault.text.contains("other bytes"), "{}", fault.text);
}

#[test]
fn a_warehouse_that_says_no_or_not_now_is_left_for_another() {
    let (bytes, index) = image();
    for status in [401, 403, 404, 408, 410, 416, 429, 500, 503] {
        let faults = Faults { status: Some((status, u32::MAX)), ..Faults::default() };
        let ill = Warehouse::start(bytes.clone(), &index, faults);
        let good = Warehouse::start(bytes.clone(), &index, Faults::default());
        let mut bench = Bench::new();
        bench.fetch(&index, &[&ill, &good], SignatureRule::default());
        assert!(bench.read_all(&index).unwrap() == bytes, "{status}");
        assert_eq!(good.given_bytes(), DATA_BYTES, "{status}");
    }
}

#[test]
fn a_warehouse_that_asks_to_be_left_alone_is_until_then() {
    let (bytes, index) = image();
    for status in [429, 503] {
        let faults = Faults { status: Some((status, 1)), retry_after: Some(2), ..Faults::default() };
        let busy = Warehouse::start(bytes.clone(), &index, faults);
        let begun = std::time::Instant::now();
        let mut bench = Bench::new();
        bench.fetch(&index, &[&busy], SignatureRule::default());
        assert!(bench.read_all(&index).unwrap() == bytes, "{status}");
        assert!(begun.elapsed() >= Duration::from_secs(2), "{status}: the wait it asked for");
        assert_eq!(busy.log.lock().unwrap().refused, 1, "{status}: nobody asked meanwhile");
    }
}

#[test]
fn an_image_that_no_warehouse_has_is_refused_and_one_whose_warehouse_is_away_is_not() {
    let (bytes, index) = image();
    let faults = Faults { status: Some((404, u32::MAX)), ..Faults::default() };
    let gone = Warehouse::start(bytes.clone(), &index, faults);
    let mut bench = Bench::new();
    bench.fetch(&index, &[&gone], SignatureRule::default());
    assert_eq!(bench.refusal().code, "image_unavailable");
    // The same, but another might have it: nothing listens on port 9 here.
    let mut bench = Bench::new();
    let warehouses = [gone.address.clone(), "http://127.0.0.1:9".into()];
    bench.fetcher.fetch(index.id(), &warehouses, SignatureRule::default()).unwrap();
    while gone.log.lock().unwrap().refused < 5 {
        assert!(bench.events.try_recv().is_err(), "nothing is told while one is only away");
        std::thread::yield_now();
    }
    let back = Warehouse::start(bytes.clone(), &index, Faults::default());
    bench.fetch(&index, &[&back], SignatureRule::default());
    assert!(bench.read_all(&index).unwrap() == bytes);
}

#[test]
fn a_connection_that_stalls_is_given_up_and_what_came_is_kept() {
    let (bytes, index) = image();
    let faults = Faults { stall_at: Some(12 * CHUNK + 100), ..Faults::default() };
    let warehouse = Warehouse::start(bytes.clone(), &index, faults);
    let mut bench = Bench::with(Setup { patience: Duration::from_secs(2), ..Setup::default() });
    bench.fetch(&index, &[&warehouse], SignatureRule::default());
    assert!(bench.read_all(&index).unwrap() == bytes);
    assert_eq!(warehouse.given_bytes(), DATA_BYTES + 100, "only the chunk that stalled is repeated");
}

#[test]
fn a_limit_on_the_rate_is_kept_by_all_connections_together() {
    let (bytes, index) = image();
    let warehouse = Warehouse::start(bytes.clone(), &index, Faults::default());
    let mut bench = Bench::with(Setup { max_bps: Some(DATA_BYTES), ..Setup::default() });
    let begun = std::time::Instant::now();
    bench.fetch(&index, &[&warehouse], SignatureRule::default());
    assert!(bench.read_all(&index).unwrap() == bytes);
    // A second's worth, less the burst and what each connection holds of the last chunk.
    assert!(begun.elapsed() >= Duration::from_millis(600), "{:?}", begun.elapsed());
}

#[test]
fn a_warehouse_in_plain_text_on_another_machine_is_not_asked() {
    let mut bench = Bench::new();
    let (_, index) = image();
    let warehouses = ["http://127.0.0.1:9".to_owned(), "http://10.0.0.1:80".to_owned()];
    let fault = bench.fetcher.fetch(index.id(), &warehouses, SignatureRule::default()).unwrap_err();
    assert_eq!(fault.code, "bad_address");
}

#[test]
fn a_warehouse_that_moves_is_followed_without_starting_over() {
    let (bytes, index) = image();
    let gone = Warehouse::start(
        bytes.clone(),
        &index,
        Faults { cut_at: Some(12 * CHUNK), then_silent: true, ..Faults::default() },
    );
    let moved = Warehouse::start(bytes.clone(), &index, Faults::default());
    let mut bench = Bench::new();
    bench.fetch(&index, &[&gone], SignatureRule::default());
    bench.outcome().unwrap();
    let store = bench.fetcher.store(index.id()).unwrap();
    while gone.log.lock().unwrap().given.is_empty() {
        std::thread::yield_now();
    }
    bench.fetch(&index, &[&moved], SignatureRule::default());
    let mut buffer = vec![0; CHUNK as usize];
    for chunk in 0..CHUNKS as usize {
        store.read_chunk(chunk, &mut buffer, &StopFlag::new()).unwrap();
        assert!(buffer[..] == bytes[chunk * CHUNK as usize..][..CHUNK as usize]);
    }
    assert!(moved.given_bytes() < DATA_BYTES, "what the first one gave is kept");
}

#[test]
fn an_index_must_be_signed_by_a_listed_key_when_there_are_any() {
    let (bytes, mut index) = image();
    let unsigned = index.clone();
    let (ours, other) = (SigningKey::from_bytes(&[1; 32]), SigningKey::from_bytes(&[2; 32]));
    index.sign(&ours);
    let rule = |key: &SigningKey, required| SignatureRule {
        keys: vec![PublicKey::new(&key.verifying_key(), KeyUse::Index)],
        required,
    };
    let cases = [
        (&index, rule(&ours, true), true),
        (&index, rule(&other, false), false),
        (&index, SignatureRule::default(), true),
        (&unsigned, rule(&ours, false), true),
        (&unsigned, rule(&ours, true), false),
        (&index, SignatureRule { keys: vec![], required: true }, false),
    ];
    for (number, (index, rule, accepted)) in cases.into_iter().enumerate() {
        let warehouse = Warehouse::start(bytes.clone(), index, Faults::default());
        let mut bench = Bench::new();
        bench.fetch(index, &[&warehouse], rule);
        let outcome = bench.outcome();
        assert_eq!(outcome.is_ok(), accepted, "case {number}: {outcome:?}");
        if let Err(fault) = outcome {
            assert_eq!(fault.code, "index_signature", "case {number}");
        }
        bench.fetcher.abandon(index.id());
    }
}

#[test]
fn abandoning_an_image_lets_its_readers_go() {
    let (bytes, index) = image();
    // The first range is cut before its first byte, and nothing comes after.
    let faults = Faults { cut_at: Some(0), then_silent: true, ..Faults::default() };
    let warehouse = Warehouse::start(bytes, &index, faults);
    let mut bench = Bench::new();
    bench.fetch(&index, &[&warehouse], SignatureRule::default());
    bench.outcome().unwrap();
    let store = bench.fetcher.store(index.id()).unwrap();
    let reader =
        std::thread::spawn(move || store.read_chunk(0, &mut vec![0; CHUNK as usize], &StopFlag::new()));
    bench.fetcher.abandon(index.id());
    let result = reader.join().unwrap();
    assert!(matches!(result, Err(SourceError::Stopped { chunk: 0 })), "{result:?}");
}

#[test]
fn a_warehouse_that_sends_on_to_its_store_is_followed_without_token_or_entity_tag() {
    let (bytes, index) = image();
    let image = bytes.clone();
    let store = serve(move |request, stream| {
        assert!(request.header("authorization").is_none(), "the token stays behind");
        if request.header("if-range").is_some() {
            // Its own tag is another: it would send everything.
            return send(stream, "200 OK", &image);
        }
        let (from, to) = request.header("range")?.strip_prefix("bytes=")?.split_once('-')?;
        let (from, to) = (from.parse::<usize>().ok()?, to.parse::<usize>().ok()?);
        let head =
            format!("206 Partial\r\nETag: \"another\"\r\nContent-Range: bytes {from}-{to}/{}", image.len());
        send(stream, &head, &image[from..=to])
    });
    let encoded = index.encode();
    let warehouse = serve(move |request, stream| {
        if request.path.ends_with("/index") {
            return send(stream, "200 OK", &encoded);
        }
        send(stream, &format!("307 Temporary Redirect\r\nLocation: {store}/object?signature=secret"), b"")
    });
    let mut bench = Bench::new();
    bench.fetcher.fetch(index.id(), &[warehouse], SignatureRule::default()).unwrap();
    assert!(bench.read_all(&index).unwrap() == bytes);

    // A store in plain text on another machine is none.
    let encoded = index.encode();
    let careless = serve(move |request, stream| {
        if request.path.ends_with("/index") {
            return send(stream, "200 OK", &encoded);
        }
        send(stream, "307 Temporary Redirect\r\nLocation: http://store.example/object?signature=secret", b"")
    });
    let mut bench = Bench::new();
    bench.fetcher.fetch(index.id(), &[careless], SignatureRule::default()).unwrap();
    let fault = bench.refusal();
    assert_eq!(fault.code, "image_unavailable");
    assert!(fault.text.contains("not safe") && !fault.text.contains("secret"), "{}", fault.text);
}
