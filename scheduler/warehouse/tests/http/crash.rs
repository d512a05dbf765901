//! Crashes: what each possible moment of one leaves on disk, and a real process that is killed for real.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

use cardshop_protocol::token::SharedKeys;
use cardshop_warehouse::{Config, Error, start};

use super::common::*;

const SIZE: usize = 4 * CHUNK + 321;

#[test]
fn what_was_never_put_in_place_is_removed_and_everything_else_stays() {
    let mut shop = Shop::open();
    let (bytes, index) = solid(SIZE, 1);
    let id = shop.put(&bytes, &index);
    let before = shop.files();
    shop.stop();
    let other = "ab".repeat(32);
    let (data, upload) = (shop.data(), "cd".repeat(16));
    for name in [
        format!("{other}.cardindex"),
        format!("{other}.json"),
        format!("{other}.json.tmp"),
        format!("{id}.cardindex.tmp"),
        format!("uploads/{upload}.part"),
        format!("uploads/{}.json", "ef".repeat(16)),
        format!("pending/{}.cardindex", task()),
    ] {
        fs::write(data.join(name), b"torn").unwrap();
    }
    fs::write(data.join("notes.txt"), b"somebody's own").unwrap();
    shop.start();
    assert_eq!(shop.files(), [before, vec!["notes.txt".into()]].concat());
    assert_eq!(fs::read_dir(data.join("pending")).unwrap().count(), 0);
    assert!(!data.join("uploads").join(format!("{upload}.part")).exists());
    assert!(shop.staff().get(&format!("/images/{id}")).body == bytes);
}

#[test]
fn an_image_whose_companions_are_damaged_is_set_aside_and_never_served() {
    let mut shop = Shop::open();
    let ids: Vec<_> = (0..4)
        .map(|seed| {
            let (bytes, index) = solid(SIZE, 20 + seed);
            shop.put(&bytes, &index)
        })
        .collect();
    shop.stop();
    let file = |i: usize, kind: &str| shop.data().join(format!("{}.{kind}", ids[i]));
    fs::write(file(0, "json"), b"{").unwrap();
    fs::copy(file(3, "cardindex"), file(1, "cardindex")).unwrap();
    fs::File::options().write(true).open(file(2, "img")).unwrap().set_len(SIZE as u64 - 1).unwrap();
    shop.start();
    let status = |i: usize| shop.staff().get(&format!("/images/{}", ids[i])).status;
    assert_eq!([0, 1, 2, 3].map(status), [404, 404, 404, 200]);
    assert_eq!(fs::read_dir(shop.data().join("damaged")).unwrap().count(), 9, "nothing is lost");
}

#[test]
fn without_its_key_a_folder_with_images_is_refused_and_nothing_in_it_is_touched() {
    let mut shop = Shop::open();
    let (bytes, index) = solid(SIZE, 8);
    let id = shop.put(&bytes, &index);
    shop.stop();
    let (key, away) = (shop.data().join("index.key"), shop.data().join("kept"));
    fs::rename(&key, &away).unwrap();
    let config = Config::new("127.0.0.1:0".parse().unwrap(), shop.data());
    let refused = shop.runtime.block_on(start(config, SharedKeys::default())).err().unwrap();
    let cause = std::error::Error::source(&refused).unwrap().to_string();
    assert!(cause.contains("index.key is gone"), "{cause}");
    fs::rename(&away, &key).unwrap();
    shop.start();
    assert!(shop.staff().get(&format!("/images/{id}")).body == bytes);
}

#[test]
fn a_crash_between_the_last_byte_and_the_image_is_made_up_for_at_the_next_start() {
    let mut shop = Shop::open();
    let (bytes, index) = solid(SIZE, 3);
    let task = task();
    let path = format!("/images/{}", index.id());
    let place = shop.creator(task).put("image", task, None, &bytes).header("location");
    shop.stop();
    // As if the index had been put down, and the crash came before it met the image.
    fs::write(shop.data().join(format!("pending/{task}.cardindex")), index.encode()).unwrap();
    shop.start();
    assert!(shop.creator(task).get(&path).body == bytes);

    // As if the crash had come after the image appeared and before the upload was marked as done.
    shop.stop();
    let state = shop.data().join(format!("uploads/{}.json", place.rsplit('/').next().unwrap()));
    let text = fs::read_to_string(&state).unwrap();
    fs::write(&state, text.replace("\"done\":true", "\"done\":false")).unwrap();
    fs::write(shop.data().join(format!("pending/{task}.cardindex")), index.encode()).unwrap();
    shop.start();
    assert_eq!(shop.creator(task).offset(&place), SIZE);
    assert!(shop.creator(task).get(&path).body == bytes);
    assert_eq!(fs::read_dir(shop.data().join("pending")).unwrap().count(), 0);
}

#[test]
fn bytes_behind_the_promised_offset_are_dropped() {
    let mut shop = Shop::open();
    let mut bytes = noise(SIZE, 4);
    bytes[2 * CHUNK..3 * CHUNK].fill(0);
    let extent = cardshop_protocol::index::Extent {
        offset: 0,
        length: SIZE as u64,
        kind: cardshop_protocol::index::ExtentKind::Data,
    };
    let index = index_of(&bytes, vec![extent]);
    let task = task();
    shop.creator(task).put("index", task, None, &index.encode());
    let place = shop.creator(task).create("image", task, None, SIZE).header("location");
    let sent = CHUNK + 99;
    shop.creator(task).patch(&place, 0, &bytes[..sent]);
    shop.stop();
    let part = shop.data().join(format!("uploads/{}.part", place.rsplit('/').next().unwrap()));
    fs::File::options().append(true).open(&part).unwrap().write_all(&[7; 3 * CHUNK]).unwrap();
    shop.start();
    assert_eq!(shop.creator(task).offset(&place), sent);
    // The zero chunk is not written but left a hole: old bytes there would show.
    assert_eq!(shop.creator(task).patch(&place, sent, &bytes[sent..]).status, 204);
    assert!(shop.staff().get(&format!("/images/{}", index.id())).body == bytes);
}

#[test]
fn a_folder_in_use_and_an_address_on_the_network_are_refused_by_name() {
    let shop = Shop::open();
    let begin = |listen: &str| {
        let config = Config::new(listen.parse().unwrap(), shop.data());
        shop.runtime.block_on(start(config, SharedKeys::default()))
    };
    let in_use = begin("127.0.0.1:0").err().unwrap();
    assert!(matches!(in_use, Error::Data { .. }));
    let cause = std::error::Error::source(&in_use).unwrap().to_string();
    assert!(cause.contains("another warehouse"), "{cause}");
    let open = begin("0.0.0.0:0").err().unwrap();
    assert!(matches!(open, Error::PlainOnNetwork(_)));
    assert!(open.to_string().contains("127.0.0.1"), "{open}");
}

#[test]
fn an_upload_survives_twenty_cuts_and_five_kills_and_its_image_is_identical() {
    let mut shop = Shop::open();
    shop.stop(); // its folder and tokens are of use; the warehouse is another process
    let size = 160 * CHUNK + 4321;
    let (bytes, index) = solid(size, 5);
    let task = task();
    let mut steps = noise(4096, 6).into_iter().map(usize::from);
    let mut process = Process::start(&shop);
    let client = |process: &Process| Client::new(process.address.clone(), Some(shop.creator_token(task)));
    client(&process).put("index", task, None, &index.encode());
    let place = client(&process).create("image", task, Some(index.id()), size).header("location");
    for round in 0..20 {
        let creator = client(&process);
        let kept = go_on(&creator, &place, &bytes, 1 + steps.next().unwrap() * 400);
        let cut = kept + (steps.next().unwrap() * 400).min(size - kept);
        cut_off(&creator, &place, kept, &bytes[kept..cut], size);
        if round % 4 == 3 {
            process = process.kill_and_restart(&shop);
        }
        let now = client(&process).offset(&place);
        assert!((kept..=cut).contains(&now), "{kept} was promised and {cut} sent, {now} is claimed");
    }
    let creator = client(&process);
    assert_eq!(go_on(&creator, &place, &bytes, size), size);
    let path = format!("/images/{}", index.id());
    assert!(creator.get(&path).body == bytes);
    process = process.kill_and_restart(&shop);
    assert!(client(&process).get(&path).body == bytes, "what was said to be complete is complete");
    process.kill();
}

#[test]
fn a_kill_in_the_middle_of_a_long_request_costs_less_than_the_bytes_between_two_syncs() {
    let mut shop = Shop::open();
    shop.stop();
    let size = 48 << 20;
    let (bytes, index) = solid(size, 7);
    let task = task();
    let process = Process::start(&shop);
    let creator = Client::new(process.address.clone(), Some(shop.creator_token(task)));
    creator.put("index", task, None, &index.encode());
    let place = creator.create("image", task, Some(index.id()), size).header("location");
    let socket = begin_patch(&creator, &place, 0, &bytes[..36 << 20], size);
    let received = || -> usize {
        let metrics = creator.get("/metrics").text();
        let line = metrics.lines().find_map(|l| l.strip_prefix("cardshop_warehouse_received_bytes_total "));
        line.unwrap().parse().unwrap()
    };
    // The index came before; what lies between socket and disk is below 2 MiB.
    while received() < (36 << 20) + index.encode().len() {}
    let process = process.kill_and_restart(&shop);
    drop(socket);
    let creator = Client::new(process.address.clone(), creator.token);
    let at = creator.offset(&place);
    assert!(at >= 32 << 20, "{at} bytes are left");
    assert_eq!(creator.patch(&place, at, &bytes[at..]).status, 204);
    assert!(creator.get(&format!("/images/{}", index.id())).body == bytes);
    process.kill();
}

/// Sends up to `most` bytes from where the upload is, as a client does: the request that was cut off before may be
/// served only now and move or take the upload, and then it asks again. The offset afterwards.
fn go_on(creator: &Client, place: &str, bytes: &[u8], most: usize) -> usize {
    for _ in 0..100 {
        let at = creator.offset(place);
        let end = (at + most).min(bytes.len());
        match creator.patch(place, at, &bytes[at..end]).status {
            204 => return end,
            status => assert!([409, 423].contains(&status), "{status}"),
        }
    }
    panic!("the upload is not given free")
}

/// Sends some bytes of a PATCH that says it has all the others too, and goes.
fn cut_off(creator: &Client, place: &str, at: usize, bytes: &[u8], size: usize) {
    drop(begin_patch(creator, place, at, bytes, size));
}

fn begin_patch(creator: &Client, place: &str, at: usize, bytes: &[u8], size: usize) -> TcpStream {
    let mut socket = TcpStream::connect(&creator.address).unwrap();
    let token = creator.token.clone().unwrap();
    let length = size - at;
    write!(
        socket,
        "PATCH {place} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nTus-Resumable: 1.0.0\r\n\
         Upload-Offset: {at}\r\nContent-Type: application/offset+octet-stream\r\nContent-Length: {length}\r\n\r\n"
    )
    .unwrap();
    socket.write_all(bytes).unwrap();
    socket
}

/// A warehouse in a process of its own: this test binary, told to run one test.
pub(crate) struct Process {
    child: Child,
    pub(crate) address: String,
}

impl Process {
    fn start(shop: &Shop) -> Self {
        Self::start_with(shop, None)
    }

    /// With its images in the S3 store at this address.
    pub(crate) fn start_with(shop: &Shop, s3: Option<&str>) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "crash::the_process_that_is_killed", "--ignored", "--nocapture"])
            .env("CARDSHOP_TEST_DATA", shop.data())
            .envs(s3.map(|address| ("CARDSHOP_TEST_S3", address)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut addresses =
            lines.map_while(Result::ok).filter_map(|l| l.strip_prefix("at ").map(str::to_owned));
        let address = addresses.next().expect("the process says where it listens");
        Self { child, address }
    }

    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap(); // SIGKILL
        self.child.wait().unwrap();
    }

    fn kill_and_restart(self, shop: &Shop) -> Self {
        self.kill();
        Self::start(shop)
    }
}

#[test]
#[ignore = "not a test: other tests run it as a process of its own, and kill it"]
fn the_process_that_is_killed() {
    let Some(data) = std::env::var_os("CARDSHOP_TEST_DATA") else { return };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut config = Config::new("127.0.0.1:0".parse().unwrap(), data);
    config.s3 = std::env::var("CARDSHOP_TEST_S3").ok().map(|address| super::s3::s3(&address));
    let running = runtime.block_on(start(config, Shop::published_keys())).unwrap();
    println!("at {}", running.address());
    // Ends with the test that started it, should that fail to kill it.
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
}
