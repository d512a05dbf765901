//! Uploading over a real socket: what tus 1.0 promises, and what makes an upload an image.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::MetadataExt;
use std::process::Command;
use std::time::{Duration, Instant};

use super::common::*;
use cardshop_protocol::index::{Extent, ExtentKind, Index};
use cardshop_protocol::keys::{KeyList, KeyUse};
use cardshop_protocol::time::Timestamp;

const SIZE: usize = 5 * CHUNK + 12_345;

#[test]
fn an_image_appears_when_it_and_its_index_are_here_in_either_order() {
    let shop = Shop::open();
    for (order, image_first) in [false, true].into_iter().enumerate() {
        let (bytes, index) = solid(SIZE, 10 + order as u64);
        let (task, id) = (task(), index.id());
        let creator = shop.creator(task);
        let head = || creator.head(&format!("/images/{id}")).status;
        if image_first {
            assert_eq!(creator.put("image", task, None, &bytes).header("upload-offset"), SIZE.to_string());
            assert_eq!(head(), 404, "without its index it is not served");
            assert_eq!(creator.put("index", task, None, &index.encode()).status, 201);
        } else {
            assert_eq!(creator.put("index", task, Some(id), &index.encode()).status, 201);
            assert_eq!(head(), 404, "without its bytes it is not served");
            assert_eq!(creator.put("image", task, Some(id), &bytes).status, 201);
        }
        let got = creator.get(&format!("/images/{id}"));
        assert!(got.status == 200 && got.body == bytes);
        assert!(shop.files().contains(&format!("{id}.cardindex")), "outside checks look for it there");
    }
}

#[test]
fn the_index_is_served_signed_by_the_key_the_warehouse_publishes() {
    let shop = Shop::open();
    let (bytes, index) = solid(SIZE, 1);
    let id = shop.put(&bytes, &index);
    let keys: KeyList = serde_json::from_slice(&shop.staff().get("/keys").body).unwrap();
    let served = Index::decode(&shop.staff().get(&format!("/images/{id}/index")).body).unwrap();
    let key = keys.find(served.signature().unwrap().key, KeyUse::Index, Timestamp::default()).unwrap();
    assert_eq!(served.verify_signature(&key), Ok(()));
    assert_eq!(served.id(), id);
}

#[test]
fn bytes_come_in_any_pieces_and_a_wrong_offset_is_a_conflict_that_names_the_right_one() {
    let shop = Shop::open();
    let (bytes, index) = solid(SIZE, 2);
    let task = task();
    let creator = shop.creator(task);
    creator.put("index", task, None, &index.encode());
    let place = creator.create("image", task, Some(index.id()), SIZE).header("location");
    let mut at = 0;
    for step in [1, 4095, CHUNK - 4096, 0, 3 * CHUNK + 7, 99, usize::MAX] {
        let end = at + step.min(SIZE - at);
        let answer = creator.patch(&place, at, &bytes[at..end]);
        assert_eq!(
            (answer.status, answer.header("upload-offset")),
            (204, end.to_string()),
            "{}",
            answer.text()
        );
        let refused = creator.patch(&place, end + 1, b"x");
        assert_eq!((refused.status, refused.code().as_str()), (409, "offset_conflict"));
        assert!(refused.text().contains(&format!("resume from {end}")));
        at = end;
        assert_eq!(creator.offset(&place), at);
    }
    assert!(shop.staff().get(&format!("/images/{}", index.id())).body == bytes);
}

#[test]
fn a_cut_connection_keeps_what_arrived_and_the_upload_goes_on_from_there_also_after_a_restart() {
    let mut shop = Shop::open();
    let (bytes, index) = solid(SIZE, 3);
    let task = task();
    shop.creator(task).put("index", task, None, &index.encode());
    let place = shop.creator(task).create("image", task, Some(index.id()), SIZE).header("location");
    let sent = 2 * CHUNK + 777;
    let mut socket = TcpStream::connect(shop.address()).unwrap();
    let token = shop.creator(task).token.unwrap();
    write!(
        socket,
        "PATCH {place} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nTus-Resumable: 1.0.0\r\n\
         Upload-Offset: 0\r\nContent-Type: application/offset+octet-stream\r\nContent-Length: {SIZE}\r\n\r\n"
    )
    .unwrap();
    socket.write_all(&bytes[..sent]).unwrap();
    socket.shutdown(std::net::Shutdown::Write).unwrap();
    let mut rest = Vec::new();
    socket.read_to_end(&mut rest).unwrap(); // the warehouse is done with it
    assert_eq!(shop.creator(task).offset(&place), sent);

    shop.restart();
    let creator = shop.creator(task);
    assert_eq!(creator.offset(&place), sent);
    assert_eq!(creator.patch(&place, sent, &bytes[sent..]).status, 204);
    assert!(creator.get(&format!("/images/{}", index.id())).body == bytes);
    assert_eq!(creator.offset(&place), SIZE, "who lost the last answer can still ask");
    shop.restart();
    assert!(shop.creator(task).get(&format!("/images/{}", index.id())).body == bytes);
    assert_eq!(shop.creator(task).offset(&place), SIZE);
}

#[test]
fn a_newer_request_takes_over_from_one_that_hangs() {
    let shop = Shop::open();
    let (bytes, index) = solid(SIZE, 4);
    let task = task();
    let creator = shop.creator(task);
    creator.put("index", task, None, &index.encode());
    let place = creator.create("image", task, None, SIZE).header("location");
    let mut hanging = TcpStream::connect(shop.address()).unwrap();
    let token = creator.token.clone().unwrap();
    write!(
        hanging,
        "PATCH {place} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nTus-Resumable: 1.0.0\r\n\
         Upload-Offset: 0\r\nContent-Type: application/offset+octet-stream\r\nContent-Length: {SIZE}\r\n\
         Expect: 100-continue\r\n\r\n"
    )
    .unwrap();
    let mut go_on = [0; 25];
    hanging.read_exact(&mut go_on).unwrap(); // "100 Continue": it has the turn
    assert!(go_on.starts_with(b"HTTP/1.1 100"));
    hanging.write_all(&bytes[..CHUNK]).unwrap();
    let at = creator.offset(&place);
    assert!(at <= CHUNK);
    let mut answer = [0; 12];
    hanging.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 423");
    assert_eq!(creator.patch(&place, at, &bytes[at..]).status, 204);
    assert!(creator.get(&format!("/images/{}", index.id())).body == bytes);
}

#[test]
fn corrupted_chunks_are_refused_by_offset_and_the_upload_goes_on_from_the_first() {
    for image_first in [false, true] {
        let shop = Shop::open();
        let (bytes, index) = solid(SIZE, 5);
        let task = task();
        let creator = shop.creator(task);
        let mut bad = bytes.clone();
        bad[2 * CHUNK + 5] ^= 1;
        bad[4 * CHUNK] ^= 0x80;
        let place = creator.create("image", task, None, SIZE).header("location");
        let refused = if image_first {
            assert_eq!(creator.patch(&place, 0, &bad).status, 204);
            creator.put("index", task, None, &index.encode())
        } else {
            creator.put("index", task, None, &index.encode());
            creator.patch(&place, 0, &bad)
        };
        assert_eq!((refused.status, refused.code().as_str()), (422, "chunk_mismatch"));
        assert_eq!(refused.json()["offsets"], serde_json::json!([2 * CHUNK, 4 * CHUNK]));
        assert_eq!(creator.offset(&place), 2 * CHUNK);
        assert_eq!(creator.head(&format!("/images/{}", index.id())).status, 404);
        assert_eq!(creator.patch(&place, 2 * CHUNK, &bytes[2 * CHUNK..]).status, 204);
        assert!(creator.get(&format!("/images/{}", index.id())).body == bytes);
    }
}

#[test]
fn what_came_before_its_index_is_compared_even_when_a_restart_came_between() {
    let mut shop = Shop::open();
    let (bytes, index) = solid(SIZE, 6);
    let task = task();
    let mut bad = bytes.clone();
    bad[CHUNK + 1] ^= 1;
    let place = shop.creator(task).create("image", task, None, SIZE).header("location");
    assert_eq!(shop.creator(task).patch(&place, 0, &bad[..3 * CHUNK + 9]).status, 204);
    shop.restart();
    let creator = shop.creator(task);
    creator.put("index", task, None, &index.encode());
    let refused = creator.patch(&place, 3 * CHUNK + 9, &bad[3 * CHUNK + 9..]);
    assert_eq!(refused.json()["offsets"], serde_json::json!([CHUNK]));
    assert_eq!(creator.patch(&place, CHUNK, &bytes[CHUNK..]).status, 204);
    assert!(creator.get(&format!("/images/{}", index.id())).body == bytes);
}

#[test]
fn a_wrong_checksum_drops_the_bytes_of_its_request_only() {
    let shop = Shop::open();
    let (bytes, index) = solid(SIZE, 7);
    let task = task();
    let creator = shop.creator(task);
    creator.put("index", task, None, &index.encode());
    let place = creator.create("image", task, None, SIZE).header("location");
    creator.patch(&place, 0, &bytes[..100]);
    let digest = |bytes: &[u8]| {
        let sha = ring::digest::digest(&ring::digest::SHA256, bytes);
        format!("sha256 {}", encode(sha.as_ref()))
    };
    let good = digest(&bytes[100..2 * CHUNK]);
    let mut torn = bytes[100..2 * CHUNK].to_vec();
    torn[3] ^= 1;
    let refused = creator.patch_with(&place, 100, &torn, &[("Upload-Checksum", &good)]);
    assert_eq!((refused.status, refused.code().as_str()), (460, "checksum_mismatch"));
    assert_eq!(creator.offset(&place), 100);
    assert_eq!(
        creator.patch_with(&place, 100, b"x", &[("Upload-Checksum", "md5 AA==")]).code(),
        "bad_header"
    );
    assert_eq!(
        creator.patch_with(&place, 100, &bytes[100..2 * CHUNK], &[("Upload-Checksum", &good)]).status,
        204
    );
    let sha1 = ring::digest::digest(&ring::digest::SHA1_FOR_LEGACY_USE_ONLY, &bytes[2 * CHUNK..]);
    let sha1 = format!("sha1 {}", encode(sha1.as_ref()));
    assert_eq!(
        creator.patch_with(&place, 2 * CHUNK, &bytes[2 * CHUNK..], &[("Upload-Checksum", &sha1)]).status,
        204
    );
    assert!(creator.get(&format!("/images/{}", index.id())).body == bytes);
}

#[test]
fn a_length_may_come_later_and_an_upload_may_be_ended() {
    let shop = Shop::open();
    let (bytes, index) = solid(SIZE, 8);
    let task = task();
    let creator = shop.creator(task);
    creator.put("index", task, None, &index.encode());
    let meta = metadata("image", task, None);
    let made =
        creator.tus("POST", "/files", &[("Upload-Defer-Length", "1"), ("Upload-Metadata", &meta)], &[]);
    assert_eq!(made.status, 201);
    assert!(made.header("upload-expires").ends_with("GMT"));
    let place = made.header("location");
    creator.patch(&place, 0, &bytes[..CHUNK + 1]);
    let head = creator.tus("HEAD", &place, &[], &[]);
    assert_eq!(
        (head.header("upload-defer-length"), head.header("upload-length")),
        ("1".into(), String::new())
    );
    assert_eq!((head.header("upload-metadata"), head.header("cache-control")), (meta, "no-store".into()));
    let wrong = creator.patch_with(&place, CHUNK + 1, b"x", &[("Upload-Length", "5")]);
    assert_eq!(wrong.code(), "other_length");
    let more = (SIZE + CHUNK).to_string();
    let wrong = creator.patch_with(&place, CHUNK + 1, b"x", &[("Upload-Length", &more)]);
    assert_eq!(wrong.code(), "size_mismatch", "its index knows better");
    let size = SIZE.to_string();
    let done = creator.patch_with(&place, CHUNK + 1, &bytes[CHUNK + 1..], &[("Upload-Length", &size)]);
    assert_eq!(done.status, 204);
    assert!(creator.get(&format!("/images/{}", index.id())).body == bytes);

    let place = creator.create("image", task, None, SIZE).header("location");
    creator.patch(&place, 0, &bytes[..CHUNK]);
    assert_eq!(creator.tus("DELETE", &place, &[], &[]).status, 204);
    assert_eq!(creator.tus("HEAD", &place, &[], &[]).status, 404);
    assert_eq!(
        std::fs::read_dir(shop.data().join("uploads"))
            .unwrap()
            .filter(|e| { e.as_ref().unwrap().path().extension().is_some_and(|e| e == "part") })
            .count(),
        0
    );
}

#[test]
fn zero_chunks_and_dont_care_bytes_take_no_room_and_read_as_zero() {
    let shop = Shop::open();
    let mut bytes = noise(64 * CHUNK, 11);
    bytes[8 * CHUNK..40 * CHUNK].fill(0);
    let data = |from: usize, to: usize| Extent {
        offset: from as u64,
        length: (to - from) as u64,
        kind: ExtentKind::Data,
    };
    let zero = Extent { kind: ExtentKind::Zero, ..data(8 * CHUNK, 40 * CHUNK) };
    let index = index_of(&bytes, vec![data(0, 8 * CHUNK), zero, data(40 * CHUNK, 48 * CHUNK + 4096)]);
    let id = shop.put(&bytes, &index);
    bytes[48 * CHUNK + 4096..].fill(0);
    assert!(shop.staff().get(&format!("/images/{id}")).body == bytes);
    let blocks = std::fs::metadata(shop.data().join(format!("{id}.img"))).unwrap().blocks();
    assert!(blocks * 512 <= 17 * CHUNK as u64, "{blocks} blocks for 16 chunks of data");
}

#[test]
fn an_image_that_is_here_already_only_gains_the_channel() {
    let shop = Shop::open();
    let (bytes, index) = solid(SIZE, 12);
    let id = shop.put(&bytes, &index);
    let other = task();
    let scope = cardshop_protocol::token::Claims::upload_scope(other);
    let creator = shop.client(shop.token(cardshop_protocol::token::Role::Creator, "other", Some(scope)));
    assert_eq!(creator.head(&format!("/images/{id}")).status, 404);
    assert_eq!(creator.put("index", other, Some(id), &index.encode()).status, 201);
    assert_eq!(creator.head(&format!("/images/{id}")).status, 200);
    let listed = shop.staff().get("/images").json();
    assert_eq!(listed["items"][0]["channels"], serde_json::json!(["demo", "other"]));
    assert_eq!(creator.put("image", other, Some(id), &bytes).status, 201, "sending it all the same is fine");
    assert_eq!(shop.files().len(), 3);
}

#[test]
fn what_no_image_can_be_is_refused_with_its_reason() {
    let shop =
        Shop::with(|l| (l.max_image_size, l.max_index_size, l.max_open_uploads) = (1 << 20, 1 << 16, 3));
    let (bytes, index) = solid(SIZE, 13);
    let task = task();
    let creator = shop.creator(task);
    let meta = metadata("image", task, None);
    let create = |length: &str| {
        creator.tus("POST", "/files", &[("Upload-Length", length), ("Upload-Metadata", &meta)], &[])
    };
    assert_eq!(create("1048577").code(), "too_large");
    for length in ["0", "-1", "x", "99999999999999999999"] {
        assert_eq!(create(length).code(), "bad_header", "{length}");
    }
    let noise = creator.put("index", task, None, b"CARDIDX1 and then nothing of the kind");
    assert_eq!((noise.status, noise.code().as_str()), (422, "bad_index"));
    let other = creator.put("index", task, Some(cardshop_protocol::ids::ImageId([1; 32])), &index.encode());
    assert_eq!(other.code(), "other_image");

    creator.put("index", task, None, &index.encode());
    let short = creator.put("image", task, None, &bytes[..SIZE - 1]);
    assert_eq!(short.code(), "size_mismatch");
    assert!(short.text().contains(&SIZE.to_string()));
    let place = creator.create("image", task, None, SIZE).header("location");
    assert_eq!(creator.patch(&place, 0, &[&bytes[..], b"more"].concat()).code(), "too_large");
    let deferred =
        creator.tus("POST", "/files", &[("Upload-Defer-Length", "1"), ("Upload-Metadata", &meta)], &[]);
    let too_long = creator.patch(&deferred.header("location"), 0, &[&bytes[..], b"more"].concat());
    assert_eq!(too_long.code(), "too_large");
    assert_eq!(create("100").code(), "too_many_uploads");
    assert_eq!(creator.tus("DELETE", &place, &[], &[]).status, 204);
    assert_eq!(create("100").status, 201);
}

#[test]
fn an_upload_that_outgrew_its_image_before_the_index_came_is_refused() {
    let shop = Shop::open();
    let (bytes, index) = solid(SIZE, 15);
    let task = task();
    let creator = shop.creator(task);
    let meta = metadata("image", task, None);
    let deferred = [("Upload-Defer-Length", "1"), ("Upload-Metadata", meta.as_str())];
    let place = creator.tus("POST", "/files", &deferred, &[]).header("location");
    let long = [&bytes[..], &noise(2 * CHUNK, 16)].concat();
    assert_eq!(creator.patch(&place, 0, &long).status, 204);
    creator.put("index", task, None, &index.encode());
    assert_eq!(creator.patch(&place, long.len(), b"x").code(), "size_mismatch");
    let told = creator.patch_with(&place, long.len(), b"", &[("Upload-Length", &long.len().to_string())]);
    assert_eq!(told.code(), "size_mismatch");
    assert_eq!(creator.put("image", task, None, &bytes).status, 201, "another one is fine");
}

#[test]
fn a_disk_that_is_nearly_full_takes_nothing_more_and_says_so() {
    let mut shop = Shop::open();
    let (bytes, index) = solid(SIZE, 14);
    let task = task();
    shop.creator(task).put("index", task, None, &index.encode());
    let place = shop.creator(task).create("image", task, None, SIZE).header("location");
    shop.creator(task).patch(&place, 0, &bytes[..CHUNK]);
    shop.stop();
    shop.limits.space_margin = u64::MAX;
    shop.start();
    let creator = shop.creator(task);
    let refused = creator.patch(&place, CHUNK, &bytes[CHUNK..]);
    assert_eq!((refused.status, refused.code().as_str()), (507, "no_space"));
    assert_eq!(creator.create("image", task, None, SIZE).status, 507);
    assert_eq!(creator.offset(&place), CHUNK, "nothing is lost");
    assert_eq!(creator.get("/health").json()["takes_uploads"], false);
    shop.stop();
    shop.limits.space_margin = 0;
    shop.start();
    assert_eq!(shop.creator(task).patch(&place, CHUNK, &bytes[CHUNK..]).status, 204);
}

/// A file system of its own for a folder, gone with it.
pub(crate) struct Mounted(std::path::PathBuf);

impl Mounted {
    fn new(folder: std::path::PathBuf, size: &str) -> Option<Self> {
        mount(&["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs", folder.to_str()?])
            .then_some(Self(folder))
    }
}
impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

fn mount(arguments: &[&str]) -> bool {
    Command::new("mount").args(arguments).output().is_ok_and(|o| o.status.success())
}

#[test]
fn a_disk_that_is_really_full_loses_nothing_and_the_upload_goes_on_when_there_is_room() {
    let mut shop = Shop::with(|l| l.space_margin = 0);
    shop.stop();
    let Some(disk) = Mounted::new(shop.data(), "4m") else {
        return println!("SKIPPED: mounting a tmpfs needs root");
    };
    shop.start();
    let (bytes, index) = solid(96 * CHUNK, 17);
    let task = task();
    let creator = shop.creator(task);
    creator.put("index", task, None, &index.encode());
    let place = creator.create("image", task, None, bytes.len()).header("location");
    let full = creator.patch(&place, 0, &bytes);
    assert_eq!((full.status, full.code().as_str()), (507, "no_space"));
    let at = creator.offset(&place);
    assert!(at > 48 * CHUNK && at < 64 * CHUNK, "{at} bytes of 4 MiB are kept");
    shop.restart();
    let creator = shop.creator(task);
    assert_eq!(creator.offset(&place), at);
    assert!(mount(&["-o", "remount,size=16m", disk.0.to_str().unwrap()]));
    assert_eq!(creator.patch(&place, at, &bytes[at..]).status, 204);
    assert!(creator.get(&format!("/images/{}", index.id())).body == bytes);
    shop.stop();
}

#[test]
fn the_protocol_is_told_and_its_headers_are_asked_for() {
    let shop = Shop::open();
    let task = task();
    let creator = shop.creator(task);
    let options = Client::new(shop.address(), None).send("OPTIONS", "/files", &[], &[]);
    assert_eq!((options.status, options.header("tus-version")), (204, "1.0.0".into()));
    assert!(options.header("tus-extension").contains("creation-defer-length"));
    assert_eq!(options.header("tus-checksum-algorithm"), "sha1,sha256");
    let old = creator.send("POST", "/files", &[("Tus-Resumable", "0.2.2")], &[]);
    assert_eq!((old.status, old.header("tus-version")), (412, "1.0.0".into()));
    let place = creator.create("image", task, None, 10).header("location");
    assert_eq!(creator.tus("PATCH", &place, &[("Upload-Offset", "0")], b"x").code(), "content_type");
    assert_eq!(creator.tus("PATCH", &place, &[OFFSET_BYTES], b"x").code(), "bad_header");
    let over = [("X-HTTP-Method-Override", "PATCH"), ("Upload-Offset", "0"), OFFSET_BYTES];
    assert_eq!(creator.tus("POST", &place, &over, b"12345").header("upload-offset"), "5");
}

/// Noise with a chunk of zeros at each place in `zeros`, and its index.
pub(crate) fn with_zero_chunks(chunks: usize, tail: usize, zeros: &[usize], seed: u64) -> (Vec<u8>, Index) {
    let mut bytes = noise(chunks * CHUNK + tail, seed);
    zeros.iter().for_each(|chunk| bytes[chunk * CHUNK..][..CHUNK].fill(0));
    let extent = Extent { offset: 0, length: bytes.len() as u64, kind: ExtentKind::Data };
    let index = index_of(&bytes, vec![extent]);
    (bytes, index)
}

#[test]
fn a_packed_upload_carries_only_chunks_that_are_not_zero_and_resumes_inside_one() {
    let mut shop = Shop::open();
    let (bytes, index) = with_zero_chunks(12, 777, &[0, 3, 4, 11], 31);
    let packed: Vec<u8> =
        bytes.chunks(CHUNK).filter(|c| c.iter().any(|b| *b != 0)).flatten().copied().collect();
    let task = task();
    let creator = shop.creator(task);
    assert_eq!(creator.create("packed", task, None, packed.len()).status, 201);
    let early = creator.put("packed", task, None, &packed);
    assert_eq!((early.status, early.code().as_str()), (409, "index_first"));
    creator.put("index", task, None, &index.encode());
    let place = creator.create("packed", task, Some(index.id()), packed.len()).header("location");
    // Ends inside the chunk that follows two chunks of zeros.
    let at = 2 * CHUNK + 100;
    assert_eq!(creator.patch(&place, 0, &packed[..at]).status, 204);
    shop.restart();
    let creator = shop.creator(task);
    assert_eq!(creator.offset(&place), at);
    let mut wrong = packed[at..].to_vec();
    wrong[3 * CHUNK] ^= 1;
    let refused = creator.patch(&place, at, &wrong);
    assert_eq!((refused.status, refused.code().as_str()), (422, "chunk_mismatch"));
    let first = refused.json()["offsets"][0].as_u64().unwrap() as usize;
    assert_eq!((first, creator.offset(&place)), (5 * CHUNK, 5 * CHUNK));
    assert_eq!(creator.patch(&place, first, &packed[first..]).status, 204);
    assert!(shop.staff().get(&format!("/images/{}", index.id())).body == bytes);
    assert_eq!(shop.files().len(), 3);
}

#[test]
fn a_packed_upload_of_another_length_than_its_index_packs_to_is_refused() {
    let shop = Shop::open();
    let (bytes, index) = with_zero_chunks(4, 0, &[1], 32);
    let task = task();
    let creator = shop.creator(task);
    creator.put("index", task, None, &index.encode());
    let whole = creator.put("packed", task, None, &bytes);
    assert_eq!(
        (whole.status, whole.code().as_str()),
        (422, "chunk_mismatch".replace("chunk", "size").as_str())
    );
}

#[test]
fn a_rebuild_of_an_image_costs_what_changed_and_a_removed_image_frees_the_rest() {
    let mut shop = Shop::with(|l| l.space_margin = 0);
    shop.stop();
    let folder = tempfile::tempdir().unwrap();
    let disk = folder.path().join("disk");
    std::fs::File::create(&disk).unwrap().set_len(400 << 20).unwrap();
    let made = Command::new("mkfs.xfs").args(["-q", "-m", "reflink=1"]).arg(&disk).output();
    if !made.is_ok_and(|made| made.status.success()) {
        return println!("SKIPPED: mkfs.xfs is not installed (package xfsprogs)");
    }
    std::fs::remove_dir_all(shop.data()).unwrap();
    std::fs::create_dir_all(shop.data()).unwrap();
    if !mount(&["-o", "loop", disk.to_str().unwrap(), shop.data().to_str().unwrap()]) {
        return println!("SKIPPED: mounting XFS needs root and a kernel that has it");
    }
    let _mounted = Mounted(shop.data());
    shop.start();
    let used = || {
        let facts = nix::sys::statvfs::statvfs(&shop.data()).unwrap();
        (facts.blocks() - facts.blocks_free()) * facts.fragment_size()
    };
    let (mut bytes, index) = solid(640 * CHUNK + 99, 51);
    let empty = used();
    let first = shop.put(&bytes, &index);
    let one = used() - empty;
    // A chunk changes, and what follows a place moves by a chunk: the same bytes elsewhere are found too.
    bytes[10 * CHUNK] ^= 1;
    let tail = bytes.split_off(320 * CHUNK);
    bytes.extend(noise(CHUNK, 52));
    bytes.extend(tail);
    let extent = Extent { offset: 0, length: bytes.len() as u64, kind: ExtentKind::Data };
    let index = index_of(&bytes, vec![extent]);
    let second = shop.put(&bytes, &index);
    let two = used() - empty;
    println!("an image of 40 MiB takes {one} bytes, its rebuild with two new chunks {} more", two - one);
    assert!(one > 40 << 20 && two - one < 4 << 20, "{one}, then {two}");
    let staff = shop.staff();
    assert!(staff.get(&format!("/images/{second}")).body == bytes);
    assert_eq!(staff.send("DELETE", &format!("/images/{first}"), &[], &[]).status, 204);
    assert!(staff.get(&format!("/images/{second}")).body == bytes);
    assert_eq!(staff.send("DELETE", &format!("/images/{second}"), &[], &[]).status, 204);
    // XFS gives the room back a moment later.
    let until = Instant::now() + Duration::from_secs(30);
    while used() - empty >= 4 << 20 {
        assert!(Instant::now() < until, "its room is free again");
        std::thread::sleep(Duration::from_millis(50));
    }
    shop.stop();
}
