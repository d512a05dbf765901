//! Clients other people wrote, against the warehouse. One that is not installed is skipped, and says so.

use std::path::Path;
use std::process::{Command, Output};

use cardshop_protocol::index::{Extent, ExtentKind};
use cardshop_protocol::token::{Claims, Role};

use super::common::*;

/// Runs a program; `None`, and a line that says why, when it is not installed.
fn peer(program: &str, folder: &Path, arguments: &[&str]) -> Option<Output> {
    match Command::new(program).args(arguments).current_dir(folder).output() {
        Ok(output) => Some(output),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            println!("SKIPPED: {program} is not installed");
            None
        }
        Err(e) => panic!("{program}: {e}"),
    }
}

struct Scene {
    shop: Shop,
    bytes: Vec<u8>,
    url: String,
    /// `user:token`, for basic login.
    login: String,
    folder: tempfile::TempDir,
}

fn scene() -> Scene {
    let shop = Shop::open();
    let (bytes, index) = solid(100 * CHUNK + 77, 1);
    let id = shop.put(&bytes, &index);
    let url = format!("http://{}/images/{id}", shop.address());
    let login = format!("anybody:{}", shop.token(Role::Appliance, "demo", None));
    Scene { shop, bytes, url, login, folder: tempfile::tempdir().unwrap() }
}

#[test]
fn curl_gets_ranges_and_resumes() {
    let Scene { shop: _shop, bytes, url, login, folder } = scene();
    let curl = |arguments: &[&str]| {
        peer("curl", folder.path(), &[&["-sSf", "-u", &login, &url], arguments].concat())
    };
    let Some(one) = curl(&["-r", "1000-1999"]) else { return };
    assert!(one.status.success() && one.stdout == bytes[1000..2000], "{one:?}");
    assert!(curl(&["-r", "-50"]).unwrap().stdout == bytes[bytes.len() - 50..]);
    let two = curl(&["-r", "0-9,20-29"]).unwrap().stdout;
    assert!(two.windows(10).any(|w| w == &bytes[..10]) && two.windows(10).any(|w| w == &bytes[20..30]));
    std::fs::write(folder.path().join("half"), &bytes[..33 * CHUNK]).unwrap();
    assert!(curl(&["-C", "-", "-o", "half"]).unwrap().status.success());
    assert!(std::fs::read(folder.path().join("half")).unwrap() == bytes);
}

#[test]
fn wget_resumes() {
    let Scene { shop: _shop, bytes, url, login, folder } = scene();
    let (user, password) = login.split_once(':').unwrap();
    std::fs::write(folder.path().join("half"), &bytes[..33 * CHUNK]).unwrap();
    let (user, password) = (format!("--user={user}"), format!("--password={password}"));
    let arguments = ["-q", "-c", "-O", "half", &user, &password, &url];
    let Some(output) = peer("wget", folder.path(), &arguments) else { return };
    assert!(output.status.success(), "{output:?}");
    assert!(std::fs::read(folder.path().join("half")).unwrap() == bytes);
}

#[test]
fn aria2_gets_an_image_over_many_connections() {
    let Scene { shop: _shop, bytes, url, login, folder } = scene();
    let (user, password) = login.split_once(':').unwrap();
    let (user, password) = (format!("--http-user={user}"), format!("--http-passwd={password}"));
    let arguments = ["-q", "-x8", "-s8", "-k1M", "--no-conf", "-o", "image"];
    let Some(output) = peer("aria2c", folder.path(), &[&arguments[..], &[&user, &password, &url]].concat())
    else {
        return;
    };
    assert!(output.status.success(), "{output:?}");
    assert!(std::fs::read(folder.path().join("image")).unwrap() == bytes);
}

#[test]
fn curl_uploads_by_tus_and_waits_for_leave_to_send() {
    let shop = Shop::open();
    let (bytes, index) = solid(40 * CHUNK, 2);
    let task = task();
    let creator = shop.creator(task);
    creator.put("index", task, None, &index.encode());
    let place = creator.create("image", task, None, bytes.len()).header("location");
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("image"), &bytes).unwrap();
    let (url, bearer) = (format!("http://{}{place}", shop.address()), creator.token.clone().unwrap());
    let bearer = format!("Authorization: Bearer {bearer}");
    let send = |offset: &str| {
        let offset = format!("Upload-Offset: {offset}");
        let headers =
            ["-H", &bearer, "-H", "Tus-Resumable: 1.0.0", "-H", &offset, "-H", "Expect: 100-continue"];
        let kind = ["-H", "Content-Type: application/offset+octet-stream"];
        let data =
            ["-sS", "-X", "PATCH", "--data-binary", "@image", "-w", "%{http_code} %{size_upload}", &url];
        peer("curl", folder.path(), &[&headers[..], &kind, &data].concat())
    };
    let Some(early) = send("7") else { return };
    let early = String::from_utf8(early.stdout).unwrap();
    assert!(
        early.contains("offset_conflict") && early.ends_with("409 0"),
        "refused before a byte is sent: {early}"
    );
    let sent = String::from_utf8(send("0").unwrap().stdout).unwrap();
    assert_eq!(sent, format!("204 {}", bytes.len()));
    assert!(shop.staff().get(&format!("/images/{}", index.id())).body == bytes);
}

#[test]
fn tuspy_uploads_an_index_and_an_image_stops_and_resumes() {
    let shop = Shop::open();
    let (bytes, index) = solid(30 * CHUNK + 5, 3);
    let task = task();
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("index"), index.encode()).unwrap();
    std::fs::write(folder.path().join("image"), &bytes).unwrap();
    // In a file: whoever lists processes sees their arguments.
    std::fs::write(folder.path().join("token"), shop.creator_token(task)).unwrap();
    let ended = shop.token_from(Role::Creator, "demo", Some(Claims::upload_scope(task)), 1_700_000_000);
    std::fs::write(folder.path().join("ended-token"), ended).unwrap();
    let (address, task) = (shop.address(), task.to_string());
    // Debian's own, because its package brings the module.
    let python = |arguments: &[&str]| peer("/usr/bin/python3", folder.path(), arguments);
    let Some(there) = python(&["-c", "import tusclient"]) else { return };
    if !there.status.success() {
        return println!("SKIPPED: tuspy is not installed (package python3-tuspy)");
    }
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/http/tus_client.py");
    let output = python(&[script, &address, &task, "index", "image"]).unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "refused 401\nresumed at 700000\n");
    assert!(shop.staff().get(&format!("/images/{}", index.id())).body == bytes);
}

#[test]
fn bmaptool_writes_an_image_by_its_block_map_over_old_bytes() {
    let shop = Shop::open();
    // Data, must be zero, don't care: on a used card the second must become zeros and the third may stay.
    let mut bytes = noise(12 * CHUNK, 41);
    bytes[4 * CHUNK..].fill(0);
    bytes[10 * CHUNK..].copy_from_slice(&noise(2 * CHUNK, 42));
    let extent = |chunk: usize, chunks: usize, kind| Extent {
        offset: (chunk * CHUNK) as u64,
        length: (chunks * CHUNK) as u64,
        kind,
    };
    let extents =
        vec![extent(0, 4, ExtentKind::Data), extent(4, 3, ExtentKind::Zero), extent(10, 2, ExtentKind::Data)];
    let index = index_of(&bytes, extents);
    let id = shop.put(&bytes, &index);
    let folder = tempfile::tempdir().unwrap();
    let bmap = shop.staff().get(&format!("/images/{id}/bmap"));
    assert_eq!((bmap.status, bmap.header("content-type").as_str()), (200, "application/xml"));
    std::fs::write(folder.path().join("image.bmap"), &bmap.body).unwrap();
    std::fs::write(folder.path().join("card"), vec![0xee; 12 * CHUNK]).unwrap();
    let login = shop.token(Role::Appliance, "demo", None);
    let url = format!("http://anybody:{login}@{}/images/{id}", shop.address());
    let arguments = ["copy", "--bmap", "image.bmap", "--no-sig-verify", &url, "card"];
    let Some(output) = peer("bmaptool", folder.path(), &arguments) else { return };
    assert!(output.status.success(), "{output:?}");
    let card = std::fs::read(folder.path().join("card")).unwrap();
    assert!(card[..7 * CHUNK] == bytes[..7 * CHUNK] && card[10 * CHUNK..] == bytes[10 * CHUNK..]);
}

#[test]
fn aria2_downloads_a_public_image_by_its_torrent_from_the_web_seed() {
    let Scene { shop, bytes, url, login: _, folder } = scene();
    let id = url.rsplit('/').next().unwrap();
    let public = shop.staff().send("PATCH", &format!("/images/{id}"), &[], b"{\"public\":true}");
    assert_eq!(public.status, 200);
    let torrent = Client::new(shop.address(), None).get(&format!("/images/{id}/torrent"));
    std::fs::write(folder.path().join("image.torrent"), &torrent.body).unwrap();
    let arguments = [
        "--no-conf",
        "--seed-time=0",
        "--enable-dht=false",
        "--enable-peer-exchange=false",
        "--bt-enable-lpd=false",
        "--listen-port=1024-65535",
        "--check-integrity=true",
        "--file-allocation=none",
        "image.torrent",
    ];
    let Some(output) = peer("aria2c", folder.path(), &arguments) else { return };
    assert!(output.status.success(), "{output:?}");
    assert!(std::fs::read(folder.path().join("Library.img")).unwrap() == bytes);
}

#[test]
fn tus_js_client_uploads_is_cut_and_resumes_with_a_new_token() {
    let modules = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tus-js-client");
    if !modules.join("node_modules/tus-js-client").is_dir() {
        return println!("SKIPPED: tus-js-client is not installed (npm ci in {})", modules.display());
    }
    let shop = Shop::open();
    let (bytes, index) = solid(30 * CHUNK + 5, 43);
    let task = task();
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("index"), index.encode()).unwrap();
    std::fs::write(folder.path().join("image"), &bytes).unwrap();
    // The first token ends before the upload does; what refreshes it is a file here.
    let ended = shop.token_from(Role::Creator, "demo", Some(Claims::upload_scope(task)), 1_700_000_000);
    std::fs::write(folder.path().join("token"), shop.creator_token(task)).unwrap();
    std::fs::write(folder.path().join("ended-token"), ended).unwrap();
    let script = modules.join("upload.mjs");
    let (address, task) = (shop.address(), task.to_string());
    let Some(output) = peer("node", folder.path(), &[script.to_str().unwrap(), &address, &task]) else {
        return;
    };
    assert!(output.status.success(), "{output:?}");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(said, "cut\nrefused 401\nresumed at 900000\ndone\n");
    assert!(shop.staff().get(&format!("/images/{}", index.id())).body == bytes);
}
