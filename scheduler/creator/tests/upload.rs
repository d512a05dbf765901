//! Uploads to a warehouse that cuts, forgets, refuses and is away.

#![allow(clippy::unwrap_used)] // helpers of tests

mod common;

use std::fs::File;
use std::sync::Mutex;
use std::time::Duration;

use cardshop_creator::{Backoff, EarlyUpload, Growing, StopFlag, UploadError, Uploader};
use cardshop_protocol::ids::{OrderId, TaskId};
use cardshop_protocol::index::{Extent, ExtentKind, ImageMap, Index, IndexBuilder};
use common::server::{Reply, Server};
use common::warehouse::{Misfortune, Warehouse};
use common::{Bench, noise};
use ureq::tls::RootCerts;

/// Three pieces, the last of them short.
const SIZE: usize = 40_000_000 / 4096 * 4096;

struct Setting {
    bench: Bench,
    index: Index,
    warehouse: Warehouse,
    server: Server,
}

fn setting() -> Setting {
    let bench = Bench::new();
    let bytes = noise(1, SIZE);
    bench.write("card.img", &bytes);
    let extents = vec![Extent { offset: 0, length: SIZE as u64, kind: ExtentKind::Data }];
    let map = ImageMap { image_size: SIZE as u64, extents, passport: Vec::new() };
    let mut builder = IndexBuilder::new(map, 256 * 1024).unwrap();
    builder.data(&bytes).unwrap();
    let index = builder.finish().unwrap();
    let warehouse = Warehouse::default();
    let behind = warehouse.clone();
    Setting { bench, index, warehouse, server: Server::start(move |request| behind.answer(request)) }
}

impl Setting {
    fn upload_with(&self, token: &dyn Fn() -> String) -> Result<Vec<u64>, UploadError> {
        let (url, path) = (self.server.url("/"), self.bench.path("card.img"));
        let task = TaskId::creation(OrderId::from_parts(1, 1));
        let backoff = Backoff { first: Duration::from_millis(1), most: Duration::from_millis(2) };
        let mut uploader = Uploader::new(&url, task, "Demo\n1", &path, &self.index, backoff)?;
        let mut offsets = Vec::new();
        uploader.run(token, &StopFlag::new(), &mut |done, _| offsets.push(done))?;
        Ok(offsets)
    }
    fn upload(&self) -> Result<Vec<u64>, UploadError> {
        self.upload_with(&|| "token".into())
    }
    /// Waits until so many pieces have been sent and taken.
    fn wait_for_patches(&self, count: usize) {
        let begun = std::time::Instant::now();
        while self.server.requests("PATCH", "/files").len() < count {
            assert!(begun.elapsed() < Duration::from_secs(30), "no piece came");
            std::thread::park_timeout(Duration::from_millis(5));
        }
    }
    fn is_stored(&self) -> bool {
        self.warehouse.image(&self.index.id().to_string()) == Some(noise(1, SIZE))
    }
}

#[test]
fn the_index_goes_first_and_then_the_image_in_pieces() {
    let setting = setting();
    let piece = 16 << 20;
    assert_eq!(setting.upload().unwrap(), [piece, 2 * piece, SIZE as u64]);
    assert!(setting.is_stored());
    let metadata = setting.warehouse.metadata();
    let said: Vec<_> =
        metadata.iter().map(|m| (m["kind"].as_str(), m["name"].as_str(), m["task"].as_str())).collect();
    let task = TaskId::creation(OrderId::from_parts(1, 1)).to_string();
    assert_eq!(said, [("index", "Demo1", task.as_str()), ("image", "Demo1", task.as_str())]);
    assert_eq!(metadata[1]["image"], setting.index.id().to_string());
}

#[test]
fn chunks_of_zeros_do_not_travel() {
    let bench = Bench::new();
    let (chunk, pieces) = (256 * 1024, 90);
    let mut bytes = noise(2, pieces * chunk + 4096);
    for zero in [0, 5, 6, 7, 88] {
        bytes[zero * chunk..][..chunk].fill(0);
    }
    bench.write("card.img", &bytes);
    let extents = vec![Extent { offset: 0, length: bytes.len() as u64, kind: ExtentKind::Data }];
    let map = ImageMap { image_size: bytes.len() as u64, extents, passport: Vec::new() };
    let mut builder = IndexBuilder::new(map, chunk as u32).unwrap();
    builder.data(&bytes).unwrap();
    let index = builder.finish().unwrap();
    let warehouse = Warehouse::default();
    let behind = warehouse.clone();
    let server = Server::start(move |request| behind.answer(request));
    let setting = Setting { bench, index, warehouse, server };
    setting.warehouse.will_suffer(&[Misfortune::HalfKept]);
    let offsets = setting.upload().unwrap();
    assert_eq!(*offsets.last().unwrap(), ((pieces - 5) * chunk + 4096) as u64);
    assert_eq!(setting.warehouse.metadata()[1]["kind"], "packed");
    assert!(setting.warehouse.image(&setting.index.id().to_string()).unwrap() == bytes);
}

#[test]
fn an_image_that_is_there_already_is_not_sent() {
    let setting = setting();
    setting.warehouse.put(&setting.index, noise(1, SIZE));
    assert_eq!(setting.upload().unwrap(), [SIZE as u64]);
    assert_eq!(setting.warehouse.metadata().len(), 1);
}

#[test]
fn a_piece_that_is_cut_goes_on_from_the_offset_the_warehouse_tells() {
    let setting = setting();
    setting.warehouse.will_suffer(&[Misfortune::HalfKept, Misfortune::HalfKept]);
    let piece = 16 << 20;
    assert_eq!(setting.upload().unwrap()[..3], [piece / 2, piece, 2 * piece]);
    assert!(setting.is_stored());
    assert_eq!(setting.server.requests("HEAD", "/files/2").len(), 2);
}

#[test]
fn refused_bytes_are_sent_once_more_and_then_it_fails_clearly() {
    let setting = setting();
    setting.warehouse.will_suffer(&[Misfortune::BytesRefused]);
    setting.upload().unwrap();
    assert!(setting.is_stored());

    let setting = self::setting();
    setting.warehouse.will_suffer(&[Misfortune::BytesRefused, Misfortune::BytesRefused]);
    let error = setting.upload().unwrap_err();
    assert_eq!(error.to_string(), "the warehouse refuses the image: 422 Unprocessable Entity");
    assert!(!setting.is_stored());
}

#[test]
fn an_upload_the_warehouse_forgot_is_begun_anew() {
    let setting = setting();
    setting.warehouse.will_suffer(&[Misfortune::HalfKept, Misfortune::Forgotten]);
    setting.upload().unwrap();
    assert!(setting.is_stored());
    let kinds: Vec<_> = setting.warehouse.metadata().iter().map(|m| m["kind"].clone()).collect();
    assert_eq!(kinds, ["index", "image", "image"]);
}

#[test]
fn the_newest_token_is_used_for_every_request() {
    let setting = setting();
    setting.warehouse.will_suffer(&[Misfortune::TokenEnded]);
    let asked = Mutex::new(0);
    let token = || {
        let mut asked = asked.lock().unwrap();
        *asked += 1;
        if *asked < 4 { "old".to_owned() } else { "new".to_owned() }
    };
    setting.upload_with(&token).unwrap();
    assert!(setting.is_stored());
}

#[test]
fn a_warehouse_that_is_away_is_given_up_for_now() {
    let setting = setting();
    setting.warehouse.set_away(true);
    let error = setting.upload().unwrap_err();
    assert!(matches!(error, UploadError::Unreachable { tries: 8, .. }), "{error}");
}

#[test]
fn the_token_goes_to_the_warehouse_only() {
    let away = Server::start(|_| Reply::status(204).with("upload-offset", 0));
    let elsewhere = away.url("/files/1");
    let setting = setting();
    let server = Server::start(move |_| Reply::status(201).with("location", &elsewhere));
    let refused = Setting { server, ..setting };
    let error = refused.upload().unwrap_err();
    assert!(error.to_string().contains("no location of its own"), "{error}");
    assert!(away.requests("PATCH", "/").is_empty());
    let path = refused.bench.path("card.img");
    let task = TaskId::creation(OrderId::from_parts(1, 1));
    let plain = Uploader::new("http://shop.example", task, "", &path, &refused.index, Backoff::default());
    assert!(matches!(plain.err(), Some(UploadError::Address(_))));
}

#[test]
fn an_image_travels_while_it_grows_and_its_index_alone_follows() {
    let setting = setting();
    let (growing, image) = (Growing::default(), File::open(setting.bench.path("card.img")).unwrap());
    let url = setting.server.url("");
    let backoff = Backoff { first: Duration::from_millis(1), most: Duration::from_millis(2) };
    let task = TaskId::creation(OrderId::from_parts(1, 1));
    let early = EarlyUpload { warehouse: &url, task, name: "Demo", backoff, roots: RootCerts::WebPki };
    let piece = 16 << 20;
    std::thread::scope(|scope| {
        let upload = scope.spawn(|| early.run(&growing, &|| "token".into()));
        // The second piece is not whole yet.
        growing.written(&image, piece + 4096).unwrap();
        setting.wait_for_patches(1);
        assert_eq!(setting.server.requests("PATCH", "/files").len(), 1, "no byte that may change");
        growing.written(&image, u64::MAX).unwrap();
        upload.join().unwrap().unwrap();
    });
    assert_eq!(growing.sent(), SIZE as u64);
    assert!(!setting.is_stored(), "its index is missing");
    setting.upload().unwrap();
    assert!(setting.is_stored());
    let kinds: Vec<_> = setting.warehouse.metadata().iter().map(|m| m["kind"].clone()).collect();
    assert_eq!(kinds, ["image", "index"]);
}

#[test]
fn an_early_upload_that_is_not_needed_ends_at_once_and_leaves_nothing_at_the_warehouse() {
    let setting = setting();
    let (growing, image) = (Growing::default(), File::open(setting.bench.path("card.img")).unwrap());
    let url = setting.server.url("");
    let task = TaskId::creation(OrderId::from_parts(1, 1));
    let backoff = Backoff::default();
    let early = EarlyUpload { warehouse: &url, task, name: "Demo", backoff, roots: RootCerts::WebPki };
    std::thread::scope(|scope| {
        let upload = scope.spawn(|| early.run(&growing, &|| "token".into()));
        growing.written(&image, 17 << 20).unwrap();
        setting.wait_for_patches(1);
        growing.abandon();
        assert!(upload.join().unwrap().is_err());
    });
    assert_eq!(setting.server.requests("DELETE", "/files").len(), 1);
    setting.upload().unwrap();
    assert!(setting.is_stored());
}
