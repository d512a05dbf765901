//! What `cardshop write` takes: packed files and addresses, to several cards at once; refreshed cards.
#![allow(clippy::unwrap_used)]

mod common;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use common::*;

const MIB: usize = 1 << 20;

/// An image of 12 MiB: data, zeros, data, and an end within a block.
fn image() -> Vec<u8> {
    let mut bytes = noise(12 * MIB - 1000, 7);
    bytes[3 * MIB..8 * MIB].fill(0);
    bytes
}

fn run(command: &mut Command) -> (Option<i32>, String) {
    let output = command.output().unwrap();
    (output.status.code(), text_of(&output))
}

fn used_card(folder: &Path, name: &str) -> PathBuf {
    let path = folder.join(name);
    std::fs::write(&path, noise(14 * MIB, 99)).unwrap();
    path
}

fn assert_holds(card: &Path, image: &[u8]) {
    assert!(std::fs::read(card).unwrap()[..image.len()] == *image, "{}", card.display());
}

fn pack(ending: &str, bytes: &[u8]) -> Vec<u8> {
    match ending {
        "xz" => {
            let mut packer = liblzma::write::XzEncoder::new(Vec::new(), 1);
            packer.write_all(bytes).unwrap();
            packer.finish().unwrap()
        }
        "zst" => zstd::encode_all(bytes, 1).unwrap(),
        _ => {
            let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            packer.write_all(bytes).unwrap();
            packer.finish().unwrap()
        }
    }
}

#[test]
fn packed_images_are_written_to_several_cards_with_and_without_an_index() {
    let image = image();
    for ending in ["xz", "zst", "gz"] {
        let folder = tempfile::tempdir().unwrap();
        let packed = folder.path().join(format!("school.img.{ending}"));
        std::fs::write(&packed, pack(ending, &image)).unwrap();
        let cards = ["a", "b", "c"].map(|name| used_card(folder.path(), name));
        let (code, text) = run(cardshop().arg("write").arg(&packed).args(&cards).arg("--yes"));
        assert_eq!(code, Some(0), "{ending}: {text}");
        cards.iter().for_each(|card| assert_holds(card, &image));

        // The index of the image itself serves its packed form too.
        let plain = folder.path().join("school.img");
        std::fs::write(&plain, &image).unwrap();
        assert_eq!(run(cardshop().arg("index").arg(&plain)).0, Some(0));
        std::fs::remove_file(&plain).unwrap();
        let card = used_card(folder.path(), "d");
        let (code, text) = run(cardshop().arg("write").arg(&packed).arg(&card).arg("--yes"));
        assert_eq!(code, Some(0), "{ending}: {text}");
        assert!(!text.contains("index"), "no index was made: {text}");
        assert_holds(&card, &image);
    }
}

#[test]
fn an_index_of_a_packed_image_is_made_by_the_index_command_and_cards_verify_against_it() {
    let folder = tempfile::tempdir().unwrap();
    let packed = folder.path().join("school.img.zst");
    std::fs::write(&packed, pack("zst", &image())).unwrap();
    let (code, text) = run(cardshop().arg("index").arg(&packed));
    assert_eq!(code, Some(0), "{text}");
    let card = used_card(folder.path(), "card");
    assert_eq!(run(cardshop().arg("write").arg(&packed).arg(&card).arg("--yes")).0, Some(0));
    let index = folder.path().join("school.img.zst.cardindex");
    assert_eq!(run(cardshop().arg("verify").arg(&card).arg("--index").arg(index)).0, Some(0));
}

#[test]
fn what_unpacks_to_more_than_the_card_holds_ends_there_and_leaves_the_card_alone() {
    let folder = tempfile::tempdir().unwrap();
    let bomb = folder.path().join("bomb.img.gz");
    std::fs::write(&bomb, pack("gz", &vec![0; 200 * MIB])).unwrap();
    let card = used_card(folder.path(), "card");
    let (code, text) = run(cardshop().arg("write").arg(&bomb).arg(&card).arg("--yes"));
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("unpacks to more than"), "{text}");
    assert!(std::fs::read(&card).unwrap() == noise(14 * MIB, 99));
}

#[test]
fn a_damaged_packed_image_fails_every_card_and_none_of_them_boots() {
    let folder = tempfile::tempdir().unwrap();
    let plain = folder.path().join("school.img");
    std::fs::write(&plain, image()).unwrap();
    assert_eq!(run(cardshop().arg("index").arg(&plain)).0, Some(0));
    let mut bytes = pack("gz", &image());
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x20;
    let packed = folder.path().join("school.img.gz");
    std::fs::write(&packed, bytes).unwrap();
    let cards = ["a", "b"].map(|name| used_card(folder.path(), name));
    let (code, text) = run(cardshop().args(["--json", "write"]).arg(&packed).args(&cards).arg("--yes"));
    assert_eq!(code, Some(1), "{text}");
    assert_eq!(text.matches("\"event\":\"failed\"").count(), 2, "{text}");
    for card in cards {
        assert!(std::fs::read(card).unwrap()[..512].iter().all(|b| *b == 0));
    }
}

#[test]
fn a_bad_card_fails_alone_and_the_others_are_written() {
    let folder = tempfile::tempdir().unwrap();
    let packed = folder.path().join("school.img.zst");
    std::fs::write(&packed, pack("zst", &image())).unwrap();
    let (good, small) = (used_card(folder.path(), "good"), folder.path().join("small"));
    std::fs::write(&small, noise(2 * MIB, 1)).unwrap();
    let nowhere = folder.path().join("nowhere");
    let cards = [&small, &good, &nowhere];
    let (code, text) = run(cardshop().arg("write").arg(&packed).args(cards).arg("--yes"));
    assert_eq!(code, Some(1), "{text}");
    assert_holds(&good, &image());
    assert!(std::fs::read(&small).unwrap() == noise(2 * MIB, 1));
}

#[test]
fn a_refreshed_card_gets_only_what_differs_and_is_verified_in_full() {
    let folder = tempfile::tempdir().unwrap();
    let (plain, card) = (folder.path().join("school.img"), used_card(folder.path(), "card"));
    let mut build = image();
    std::fs::write(&plain, &build).unwrap();
    assert_eq!(run(cardshop().arg("write").arg(&plain).arg(&card).arg("--yes")).0, Some(0));
    build[9 * MIB + 5] ^= 0xff;
    std::fs::write(&plain, &build).unwrap();
    let (code, text) = run(cardshop().args(["--json", "write", "--refresh", "--yes"]).arg(&plain).arg(&card));
    assert_eq!(code, Some(0), "{text}");
    assert_holds(&card, &build);
    let written = text.lines().find(|line| line.contains("\"event\":\"written\"")).unwrap();
    let event: serde_json::Value = serde_json::from_str(written).unwrap();
    // The first chunk and the one that differs, of 256 KiB each.
    assert_eq!(event["written_bytes"], 512 * 1024, "{event}");
    assert_eq!(event["verified_bytes"], build.len(), "{event}");
}

/// A server of one file: ranges, an ETag, and answers that it cuts short.
struct Server {
    address: String,
    requests: Arc<AtomicUsize>,
    sent: Arc<AtomicU64>,
    tokens: Arc<Mutex<Vec<String>>>,
}

#[derive(Clone)]
struct Behaviour {
    /// Answers end after so many bytes.
    cut_after: usize,
    /// From this request on the file is another.
    changes_at: usize,
    ranges: bool,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self { cut_after: usize::MAX, changes_at: usize::MAX, ranges: true }
    }
}

impl Server {
    /// Serves `files` (path, bytes) until the test ends.
    fn start(files: Vec<(String, Vec<u8>)>, behaviour: Behaviour) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let server = Self { address, requests: Arc::default(), sent: Arc::default(), tokens: Arc::default() };
        let (requests, sent, tokens) = (server.requests.clone(), server.sent.clone(), server.tokens.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let number = requests.fetch_add(1, Ordering::Relaxed);
                // The client may have gone.
                let _ = answer(stream, &files, &behaviour, number, &sent, &tokens);
            }
        });
        server
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}/{path}", self.address)
    }
}

fn answer(
    mut stream: TcpStream,
    files: &[(String, Vec<u8>)],
    behaviour: &Behaviour,
    number: usize,
    sent: &AtomicU64,
    tokens: &Mutex<Vec<String>>,
) -> std::io::Result<()> {
    let (mut path, mut range, mut if_range) = (String::new(), None, None);
    let mut lines = BufReader::new(stream.try_clone()?);
    loop {
        let mut line = String::new();
        lines.read_line(&mut line)?;
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        if let Some(rest) = line.strip_prefix("GET /") {
            path = rest.split(' ').next().unwrap_or_default().to_owned();
        }
        let Some((name, value)) = line.split_once(": ") else { continue };
        match name.to_ascii_lowercase().as_str() {
            "range" => range = value.strip_prefix("bytes=").map(str::to_owned),
            "if-range" => if_range = Some(value.to_owned()),
            "authorization" => tokens.lock().unwrap().push(value.to_owned()),
            _ => {}
        }
    }
    let Some((_, bytes)) = files.iter().find(|(name, _)| *name == path) else {
        return stream.write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    };
    let etag = if number >= behaviour.changes_at { "\"new\"" } else { "\"one\"" };
    let same = if_range.is_none_or(|tag| tag == etag);
    let (head, body) = match range.filter(|_| behaviour.ranges && same) {
        Some(range) => {
            let (start, end) = range.split_once('-').unwrap();
            let start: usize = start.parse().unwrap();
            let end = end.parse::<usize>().unwrap().min(bytes.len() - 1);
            let line = format!("206 Partial Content\r\ncontent-range: bytes {start}-{end}/{}", bytes.len());
            (line, &bytes[start..=end])
        }
        None => ("200 OK".to_owned(), &bytes[..]),
    };
    write!(stream, "HTTP/1.1 {head}\r\netag: {etag}\r\ncontent-length: {}\r\n", body.len())?;
    stream.write_all(b"connection: close\r\n\r\n")?;
    let body = &body[..body.len().min(behaviour.cut_after)];
    stream.write_all(body)?;
    sent.fetch_add(body.len() as u64, Ordering::Relaxed);
    stream.shutdown(std::net::Shutdown::Write)?;
    // Until the client has read it.
    stream.read_to_end(&mut Vec::new()).map(drop)
}

/// The image at `school.img`, with its index beside it.
fn files(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let plain = folder.join("made.img");
    std::fs::write(&plain, image()).unwrap();
    assert_eq!(run(cardshop().arg("index").arg(&plain)).0, Some(0));
    let index = std::fs::read(folder.join("made.img.cardindex")).unwrap();
    vec![("school.img".into(), image()), ("school.img.cardindex".into(), index)]
}

#[test]
fn an_image_at_an_address_is_written_to_several_cards_over_cut_answers_and_zeros_do_not_travel() {
    let folder = tempfile::tempdir().unwrap();
    let server =
        Server::start(files(folder.path()), Behaviour { cut_after: 2_500_000, ..Behaviour::default() });
    let cards = ["a", "b"].map(|name| used_card(folder.path(), name));
    let mut command = cardshop();
    command.arg("write").arg(server.url("school.img")).args(&cards).arg("--yes");
    let (code, text) = run(command.env("CARDSHOP_TOKEN", "t0ken"));
    assert_eq!(code, Some(0), "{text}");
    cards.iter().for_each(|card| assert_holds(card, &image()));
    assert!(server.requests.load(Ordering::Relaxed) >= 4, "it was cut and asked for again");
    let most = 8 * MIB as u64;
    let sent = server.sent.load(Ordering::Relaxed);
    assert!(sent < most, "once for both cards, and not the zeros: {sent}");
    assert!(server.tokens.lock().unwrap().iter().all(|token| token == "Bearer t0ken"));
    assert!(!server.tokens.lock().unwrap().is_empty() && !text.contains("t0ken"));
}

#[test]
fn an_address_without_an_index_or_without_ranges_and_a_packed_one_are_written_too() {
    let folder = tempfile::tempdir().unwrap();
    let plain = vec![("school.img".to_owned(), image())];
    let packed = vec![("school.img.gz".to_owned(), pack("gz", &image()))];
    for (files, ranges, name) in
        [(plain.clone(), true, "school.img"), (plain, false, "school.img"), (packed, true, "school.img.gz")]
    {
        let server = Server::start(files, Behaviour { ranges, ..Behaviour::default() });
        let card = used_card(folder.path(), "card");
        let (code, text) = run(cardshop().arg("write").arg(server.url(name)).arg(&card).arg("--yes"));
        assert_eq!(code, Some(0), "{name}, ranges {ranges}: {text}");
        assert_holds(&card, &image());
    }
}

#[test]
fn an_image_that_changes_on_the_server_while_it_is_read_is_named_and_no_card_boots() {
    let folder = tempfile::tempdir().unwrap();
    let behaviour = Behaviour { cut_after: 2_500_000, changes_at: 2, ..Behaviour::default() };
    let server = Server::start(files(folder.path()), behaviour);
    let card = used_card(folder.path(), "card");
    let (code, text) = run(cardshop().arg("write").arg(server.url("school.img")).arg(&card).arg("--yes"));
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("changed on the server"), "{text}");
    assert!(std::fs::read(card).unwrap()[..512].iter().all(|b| *b == 0));
}
