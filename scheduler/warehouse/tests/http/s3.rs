//! Images whose bytes go to an S3-compatible store: s3rver, which speaks S3 from a folder, behind a line that can be
//! cut. Without s3rver these are skipped, and say so.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use cardshop_protocol::ids::ImageId;
use cardshop_protocol::token::{Role, SharedKeys};
use cardshop_warehouse::{Config, S3, S3Keys, start};

use super::common::*;
use super::crash::Process;

/// Three parts.
const SIZE: usize = 17 * (1 << 20) + 77;
/// For events of other threads and processes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

fn wait_for(what: &str, mut happened: impl FnMut() -> bool) {
    let began = Instant::now();
    while !happened() {
        assert!(began.elapsed() < PATIENCE, "{what} does not happen");
        std::thread::yield_now();
    }
}

/// What anybody may be told about the S3 server of these tests.
pub(crate) fn s3(address: &str) -> S3 {
    let keys =
        S3Keys { access_key_id: "S3RVER".into(), secret_access_key: "S3RVER".into(), session_token: None };
    S3 { url: format!("http://{address}/shop/site"), region: "us-east-1".into(), keys }
}

/// s3rver with an empty bucket, and the line to it.
struct Bucket {
    server: Child,
    folder: tempfile::TempDir,
    line: Line,
}

impl Bucket {
    /// `None`, and a line that says why, where it cannot run.
    fn open() -> Option<Self> {
        let modules = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/s3rver");
        let program = modules.join("node_modules/s3rver/bin/s3rver.js");
        if !program.is_file() {
            println!("SKIPPED: s3rver is not installed (npm ci in {})", modules.display());
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let started = Command::new("node")
            .arg(program)
            .args(["-s", "-a", "127.0.0.1", "-p", "0", "--no-vhost-buckets", "--configure-bucket", "shop"])
            .arg("-d")
            .arg(folder.path())
            .stdout(Stdio::piped())
            .spawn();
        let Ok(mut server) = started else {
            println!("SKIPPED: node is not installed");
            return None;
        };
        let lines = BufReader::new(server.stdout.take().unwrap()).lines().map_while(Result::ok);
        let mut ports = lines.filter_map(|line| line.split_once("listening on 127.0.0.1:")?.1.parse().ok());
        let port: u16 = ports.next().expect("s3rver says where it listens");
        Some(Self { server, folder, line: Line::to(SocketAddr::from(([127, 0, 0, 1], port))) })
    }

    fn shop(&self) -> Shop {
        Shop::with_s3(Some(s3(&self.line.address.to_string())))
    }

    /// Parts of objects that are not whole.
    fn parts(&self) -> usize {
        let files = files_below(&self.folder.path().join("shop"));
        files.iter().filter(|path| path.to_str().unwrap().contains("_S3rver_uploads")).count()
    }

    /// The bytes of every object there is.
    fn objects(&self) -> Vec<Vec<u8>> {
        let files = files_below(&self.folder.path().join("shop"));
        let objects = files.iter().filter(|path| path.to_str().unwrap().ends_with("._S3rver_object"));
        objects.map(|path| fs::read(path).unwrap()).collect()
    }
}

impl Drop for Bucket {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return vec![] };
    let paths = entries.map(|entry| entry.unwrap().path());
    paths.flat_map(|path| if path.is_dir() { files_below(&path) } else { vec![path] }).collect()
}

/// A TCP line that can be cut, at once or after some bytes, and mended.
struct Line {
    address: SocketAddr,
    state: Arc<Mutex<LineState>>,
}

#[derive(Default)]
struct LineState {
    cut: bool,
    /// Bytes to the server until it is cut by itself.
    left: Option<usize>,
    open: Vec<TcpStream>,
    /// First lines of requests without a body.
    asked: Vec<String>,
}

impl LineState {
    fn cut(&mut self) {
        self.cut = true;
        self.left = None;
        for socket in self.open.drain(..) {
            let _ = socket.shutdown(Shutdown::Both);
        }
    }
}

impl Line {
    fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, state) = (listener.local_addr().unwrap(), Arc::<Mutex<LineState>>::default());
        let shared = state.clone();
        // Ends with the process of the tests.
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let Ok(upstream) = TcpStream::connect(server) else { continue };
                let mut known = shared.lock().unwrap();
                if known.cut {
                    continue;
                }
                known.open.extend([client.try_clone().unwrap(), upstream.try_clone().unwrap()]);
                let ways = [(&client, &upstream, true), (&upstream, &client, false)];
                for (from, to, is_up) in ways {
                    let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    let state = shared.clone();
                    std::thread::spawn(move || carry(from, to, is_up.then_some(state)));
                }
            }
        });
        Self { address, state }
    }

    fn cut(&self) {
        self.state.lock().unwrap().cut();
    }
    fn cut_after(&self, bytes: usize) {
        self.state.lock().unwrap().left = Some(bytes);
    }
    fn is_cut(&self) -> bool {
        self.state.lock().unwrap().cut
    }
    fn mend(&self) {
        self.state.lock().unwrap().cut = false;
    }
    fn asked(&self, method: &str, part: &str) -> bool {
        self.state.lock().unwrap().asked.iter().any(|line| line.starts_with(method) && line.contains(part))
    }
}

fn carry(mut from: TcpStream, mut to: TcpStream, up: Option<Arc<Mutex<LineState>>>) {
    let mut buffer = [0; 64 * 1024];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        if let Some(state) = &up {
            let mut state = state.lock().unwrap();
            if ["DELETE ", "GET ", "HEAD "].iter().any(|method| buffer.starts_with(method.as_bytes())) {
                let text = String::from_utf8_lossy(&buffer[..count]).into_owned();
                state.asked.extend(text.lines().next().map(str::to_owned));
            }
            state.left = state.left.map(|left| left.saturating_sub(count));
            if state.left == Some(0) {
                state.cut();
            }
        }
        if to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Both);
}

impl Shop {
    /// What the warehouse itself answers.
    fn answer_of(&self, client: &Client, path: &str) -> Answer {
        client.unled().get(path)
    }
    fn wait_until_stored(&self, id: ImageId) {
        let staff = self.staff();
        wait_for("storing an image", || self.answer_of(&staff, &format!("/images/{id}")).status == 307);
    }
    /// The image files here.
    fn kept(&self) -> Vec<String> {
        self.files().into_iter().filter(|name| name.ends_with(".img")).collect()
    }
    fn record(&self, id: ImageId) -> String {
        fs::read_to_string(self.data().join(format!("objects/{id}.json"))).unwrap_or_default()
    }
}

#[test]
fn an_image_becomes_one_object_and_is_downloaded_by_range_from_an_address_that_ends() {
    let Some(bucket) = Bucket::open() else { return };
    let shop = bucket.shop();
    let (bytes, index) = solid(SIZE, 1);
    let id = shop.put(&bytes, &index);
    shop.wait_until_stored(id);
    wait_for("freeing its room here", || shop.kept().is_empty());
    assert!(bucket.objects() == [bytes.clone()], "one object, and it is the image");

    let (reader, path) = (shop.client(shop.token(Role::Appliance, "demo", None)), format!("/images/{id}"));
    let told = shop.answer_of(&reader, &path);
    let address = told.header("location");
    assert_eq!((told.status, told.header("cache-control").as_str()), (307, "no-store"));
    assert!(address.contains("X-Amz-Expires=60&") && !address.contains("S3RVER&"), "{address}");
    assert!(reader.get(&path).body == bytes);
    let part = reader.range(&path, "bytes=9000000-9000099");
    assert!(part.status == 206 && part.body == bytes[9_000_000..9_000_100]);
    let head = reader.head(&path);
    assert_eq!((head.status, head.header("content-length")), (200, SIZE.to_string()));
    let known = reader.unled().send("GET", &path, &[("If-None-Match", &format!("\"{id}\""))], &[]);
    assert_eq!(known.status, 304);

    let stranger = shop.client(shop.token(Role::Appliance, "other", None));
    assert_eq!(shop.answer_of(&stranger, &path).status, 404);
    assert_eq!(shop.answer_of(&Client::new(shop.address(), None), &path).status, 401);
    shop.revoke("appliance-demo");
    let out = shop.answer_of(&reader, &path);
    assert_eq!((out.status, out.header("location")), (401, String::new()));
}

#[test]
fn what_follows_from_an_image_and_its_links_work_as_ever_when_it_is_stored_away() {
    let Some(bucket) = Bucket::open() else { return };
    let mut shop = bucket.shop();
    let (mut bytes, index) = solid(SIZE, 2);
    let older = shop.put(&bytes, &index);
    bytes[5 * CHUNK..6 * CHUNK].copy_from_slice(&noise(CHUNK, 3));
    let extent = index.extents()[0];
    let index = index_of(&bytes, vec![extent]);
    let id = shop.put(&bytes, &index);
    let path = format!("/images/{id}");
    // Of a file, before it leaves or after.
    let local = Shop::open();
    local.put(&bytes, &index);
    let expected = local.staff().get(&format!("{path}/bmap"));
    for image in [older, id] {
        shop.wait_until_stored(image);
    }
    shop.restart();
    assert_eq!(shop.answer_of(&shop.staff(), &path).status, 307);
    let staff = shop.staff();
    let bmap = staff.get(&format!("{path}/bmap"));
    assert!(bmap.status == 200 && bmap.body == expected.body, "{}", bmap.text());
    let lacking = staff.get(&format!("{path}/chunks?have={older}"));
    assert_eq!(lacking.status, 200);
    assert_eq!(staff.send("PATCH", &path, &[], br#"{"public":true}"#).status, 200);
    assert_eq!(Client::new(shop.address(), None).get(&format!("{path}/torrent")).status, 200);

    let order = cardshop_protocol::ids::ObjectId::from_parts(1, 1);
    let ends = cardshop_protocol::time::Timestamp::from_system(std::time::SystemTime::now() + PATIENCE * 60);
    let link = serde_json::json!({"image": id, "name": "Books", "expires": ends}).to_string();
    let made = staff.send("PUT", &format!("/links/{order}"), &[], link.as_bytes());
    let link = made.json()["path"].as_str().unwrap().to_owned();
    let anybody = Client::new(shop.address(), None);
    let got = anybody.get(&link);
    assert!(got.body == bytes);
    assert_eq!(got.header("content-disposition"), "attachment; filename=\"Books.img\"");
    assert_eq!(staff.send("DELETE", &format!("/links/{order}"), &[], &[]).status, 204);
    assert_eq!(shop.answer_of(&anybody, &link).status, 410);
}

#[test]
fn a_kill_while_an_image_is_sent_costs_nothing_and_it_is_sent_on_in_the_same_parts_at_the_next_start() {
    let Some(bucket) = Bucket::open() else { return };
    let mut shop = bucket.shop();
    shop.stop(); // its folder and tokens are of use; the warehouse is another process
    bucket.line.cut_after(9 << 20);
    let process = Process::start_with(&shop, Some(&bucket.line.address.to_string()));
    let (bytes, index) = solid(SIZE, 4);
    let (task, id) = (task(), index.id());
    let path = format!("/images/{id}");
    let creator = Client::new(process.address.clone(), Some(shop.creator_token(task)));
    assert_eq!(creator.put("index", task, None, &index.encode()).status, 201);
    // Cut off, and gone on with.
    let place = creator.create("image", task, Some(id), SIZE).header("location");
    assert_eq!(creator.patch(&place, 0, &bytes[..3 * CHUNK + 5]).status, 204);
    let at = creator.offset(&place);
    assert_eq!(creator.patch(&place, at, &bytes[at..]).status, 204);
    wait_for("cutting the line", || bucket.line.is_cut());
    assert!(creator.get(&path).body == bytes, "what was said to be complete is served at once");
    process.kill();
    assert!(shop.record(id).contains("sending") && bucket.objects().is_empty() && bucket.parts() > 0);

    bucket.line.mend();
    shop.start();
    shop.wait_until_stored(id);
    assert!(bucket.objects() == [bytes.clone()] && shop.staff().get(&path).body == bytes);
    assert_eq!(bucket.parts(), 0, "what was sent by half has become part of it");
    wait_for("freeing its room here", || shop.kept().is_empty());

    // As if the crash had come after the object was whole and before the file here was removed.
    shop.stop();
    fs::write(shop.data().join(format!("{id}.img")), b"torn").unwrap();
    shop.start();
    assert!(shop.kept().is_empty() && shop.staff().get(&path).body == bytes);
}

#[test]
fn a_removed_image_is_gone_at_once_and_its_object_as_soon_as_the_store_can_be_asked() {
    let Some(bucket) = Bucket::open() else { return };
    let mut shop = bucket.shop();
    let ids = [5, 6].map(|seed| {
        let (bytes, index) = solid(2 * CHUNK, seed);
        shop.put(&bytes, &index)
    });
    for id in ids {
        shop.wait_until_stored(id);
    }
    let remove =
        |shop: &Shop, id: ImageId| shop.staff().send("DELETE", &format!("/images/{id}"), &[], &[]).status;
    assert_eq!(remove(&shop, ids[0]), 204);
    wait_for("removing an object", || bucket.objects().len() == 1);

    bucket.line.cut();
    assert_eq!(remove(&shop, ids[1]), 204);
    assert_eq!(shop.answer_of(&shop.staff(), &format!("/images/{}", ids[1])).status, 404);
    shop.stop();
    assert!(bucket.objects().len() == 1 && shop.record(ids[1]).contains("gone"));
    bucket.line.mend();
    shop.start();
    wait_for("removing the other object", || bucket.objects().is_empty());
    wait_for("forgetting it", || shop.record(ids[1]).is_empty());
    assert_eq!(shop.files(), Vec::<String>::new());

    // In the middle of being sent: s3rver cannot drop the parts, but it is asked to.
    bucket.line.cut_after(9 << 20);
    let (bytes, index) = solid(SIZE, 11);
    let id = shop.put(&bytes, &index);
    wait_for("cutting the line", || bucket.line.is_cut());
    assert_eq!(remove(&shop, id), 204);
    assert_eq!(shop.answer_of(&shop.staff(), &format!("/images/{id}")).status, 404);
    bucket.line.mend();
    wait_for("dropping the parts", || bucket.line.asked("DELETE", "uploadId="));
    assert!(bucket.objects().is_empty() && shop.files().is_empty());
}

#[test]
fn while_the_store_is_away_images_come_and_wait_here_and_what_needs_it_is_told_to_wait() {
    let Some(bucket) = Bucket::open() else { return };
    let shop = bucket.shop();
    let put = |seed: u64| {
        let (bytes, index) = solid(3 * CHUNK + 1, seed);
        (shop.put(&bytes, &index), bytes)
    };
    let (first, first_bytes) = put(7);
    shop.wait_until_stored(first);
    bucket.line.cut();
    let (second, second_bytes) = put(8);
    let staff = shop.staff();
    assert!(staff.get(&format!("/images/{second}")).body == second_bytes, "it is served from here");
    assert!(staff.get("/metrics").text().contains("cardshop_warehouse_images_to_move 1\n"));
    let refused = staff.get(&format!("/images/{first}/bmap"));
    assert_eq!((refused.status, refused.code().as_str()), (503, "store_away"));
    assert_eq!(refused.header("retry-after"), "30");
    assert!(!refused.text().contains("127.0.0.1"), "{}", refused.text());

    bucket.line.mend();
    shop.wait_until_stored(second);
    for (id, bytes) in [(first, first_bytes), (second, second_bytes)] {
        assert!(staff.get(&format!("/images/{id}")).body == bytes);
        assert_eq!(staff.get(&format!("/images/{id}/bmap")).status, 200);
    }
}

#[test]
fn a_folder_whose_images_are_in_a_store_is_not_opened_without_it() {
    let Some(bucket) = Bucket::open() else { return };
    let mut shop = bucket.shop();
    let (bytes, index) = solid(CHUNK, 9);
    let id = shop.put(&bytes, &index);
    shop.wait_until_stored(id);
    shop.stop();
    let refusal = |s3: Option<S3>| {
        let config = Config { s3, ..Config::new("127.0.0.1:0".parse().unwrap(), shop.data()) };
        let refused = shop.runtime.block_on(start(config, SharedKeys::default())).err().unwrap();
        std::error::Error::source(&refused).unwrap().to_string()
    };
    assert!(refusal(None).contains("lie in an S3 store"));
    let record = shop.data().join(format!("objects/{id}.json"));
    let kept = fs::read(&record).unwrap();
    fs::write(&record, "{").unwrap();
    let store = s3(&bucket.line.address.to_string());
    assert!(refusal(Some(store)).contains("does not say where"), "nothing is guessed");
    fs::write(&record, kept).unwrap();
    shop.start();
    assert!(shop.staff().get(&format!("/images/{id}")).body == bytes);
}

#[test]
fn curl_follows_to_the_store_and_gets_ranges_there() {
    let Some(bucket) = Bucket::open() else { return };
    let shop = bucket.shop();
    let (bytes, index) = solid(SIZE, 10);
    let id = shop.put(&bytes, &index);
    shop.wait_until_stored(id);
    let login = format!("anybody:{}", shop.token(Role::Appliance, "demo", None));
    let url = format!("http://{}/images/{id}", shop.address());
    let curl = Command::new("curl").args(["-sSfL", "-u", &login, "-r", "1000-1999", &url]).output();
    match curl {
        Ok(got) => assert!(got.status.success() && got.stdout == bytes[1000..2000], "{got:?}"),
        Err(_) => println!("SKIPPED: curl is not installed"),
    }
}
