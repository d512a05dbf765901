//! A warehouse in memory: the tus upload and the HEAD of images, with the misfortunes a test asks for.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cardshop_protocol::index::Index;

use super::server::{Reply, Request};

/// What goes wrong at the next request of its kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Misfortune {
    /// A PATCH whose first half is kept and which is answered 500.
    HalfKept,
    /// A PATCH whose bytes are refused: 422, and the offset goes back to 0.
    BytesRefused,
    /// An upload that is not known any more.
    Forgotten,
    /// A token that has ended.
    TokenEnded,
}

#[derive(Default)]
struct State {
    uploads: HashMap<String, Upload>,
    /// Index and bytes by image id.
    images: HashMap<String, (Index, Vec<u8>)>,
    misfortunes: Vec<Misfortune>,
    metadata: Vec<HashMap<String, String>>,
    away: bool,
}

struct Upload {
    metadata: HashMap<String, String>,
    length: usize,
    bytes: Vec<u8>,
}

#[derive(Clone, Default)]
pub(crate) struct Warehouse(Arc<Mutex<State>>);

impl Warehouse {
    pub(crate) fn will_suffer(&self, misfortunes: &[Misfortune]) {
        self.0.lock().unwrap().misfortunes = misfortunes.to_vec();
    }
    pub(crate) fn set_away(&self, away: bool) {
        self.0.lock().unwrap().away = away;
    }
    pub(crate) fn put(&self, index: &Index, bytes: Vec<u8>) {
        self.0.lock().unwrap().images.insert(index.id().to_string(), (index.clone(), bytes));
    }
    pub(crate) fn image(&self, id: &str) -> Option<Vec<u8>> {
        self.0.lock().unwrap().images.get(id).map(|i| i.1.clone())
    }
    pub(crate) fn metadata(&self) -> Vec<HashMap<String, String>> {
        self.0.lock().unwrap().metadata.clone()
    }

    pub(crate) fn answer(&self, request: &Request) -> Reply {
        let mut state = self.0.lock().unwrap();
        if state.away {
            return Reply::status(503);
        }
        if let Some(id) = request.path.strip_prefix("/images/") {
            return Reply::status(if state.images.contains_key(id) { 200 } else { 404 });
        }
        assert_eq!(request.header("tus-resumable"), Some("1.0.0"));
        if request.method == "POST" {
            return state.create(request);
        }
        let misfortune = state.misfortunes.first().copied();
        let name = request.path.clone();
        if misfortune == Some(Misfortune::Forgotten) {
            state.uploads.remove(&name);
        }
        if misfortune == Some(Misfortune::TokenEnded) && request.header("authorization") != Some("Bearer old")
        {
            state.misfortunes.remove(0);
        } else if misfortune == Some(Misfortune::TokenEnded) {
            return Reply::status(401);
        }
        if !state.uploads.contains_key(&name) {
            state.misfortunes.retain(|m| *m != Misfortune::Forgotten);
            return Reply::status(404);
        }
        match request.method.as_str() {
            "HEAD" => Reply::status(200).with("upload-offset", state.uploads[&name].bytes.len()),
            "DELETE" => {
                state.uploads.remove(&name);
                Reply::status(204)
            }
            _ => state.patch(&name, request),
        }
    }
}

impl State {
    fn create(&mut self, request: &Request) -> Reply {
        let pairs = request.header("upload-metadata").unwrap().split(',').map(|pair| {
            let (key, value) = pair.split_once(' ').unwrap();
            (key.to_owned(), String::from_utf8(STANDARD.decode(value).unwrap()).unwrap())
        });
        let metadata: HashMap<_, _> = pairs.collect();
        self.metadata.push(metadata.clone());
        let length = request.header("upload-length").unwrap().parse().unwrap();
        let name = format!("/files/{}", self.metadata.len());
        self.uploads.insert(name.clone(), Upload { metadata, length, bytes: Vec::new() });
        Reply::status(201).with("location", name)
    }

    fn patch(&mut self, name: &str, request: &Request) -> Reply {
        let upload = self.uploads.get_mut(name).unwrap();
        let is_image = upload.metadata["kind"] != "index";
        let misfortune = self.misfortunes.first().copied().filter(|_| is_image);
        if request.header("upload-offset").unwrap() != upload.bytes.len().to_string() {
            return Reply::status(409);
        }
        match misfortune {
            Some(Misfortune::HalfKept) => {
                upload.bytes.extend(&request.body[..request.body.len() / 2]);
                self.misfortunes.remove(0);
                return Reply::status(500);
            }
            Some(Misfortune::BytesRefused) => {
                upload.bytes.clear();
                self.misfortunes.remove(0);
                return Reply::status(422);
            }
            _ => upload.bytes.extend(&request.body),
        }
        let offset = upload.bytes.len();
        if offset == upload.length {
            match is_image {
                true => self.complete(name),
                // An image may have been here before its index.
                false => {
                    let whole = |u: &Upload| u.metadata["kind"] == "image" && u.bytes.len() == u.length;
                    let waiting = self.uploads.iter().filter(|(_, u)| whole(u));
                    let waiting: Vec<String> = waiting.map(|(name, _)| name.clone()).collect();
                    waiting.iter().for_each(|name| self.complete(name));
                }
            }
        }
        Reply::status(204).with("upload-offset", offset)
    }

    /// Shows an image whose bytes are what its index says.
    fn complete(&mut self, name: &str) {
        let image = &self.uploads[name];
        let of_index = |u: &&Upload| u.metadata["kind"] == "index" && u.bytes.len() == u.length;
        let mut index = self.uploads.values().filter(of_index).map(|u| Index::decode(&u.bytes).unwrap());
        let of_image = |i: &Index| match image.metadata.get("image") {
            Some(id) => *id == i.id().to_string(),
            None => i.image_size() == image.length as u64,
        };
        let Some(index) = index.find(of_image) else {
            assert_eq!(image.metadata["kind"], "image", "a packed image comes after its index");
            return;
        };
        let bytes = match image.metadata["kind"].as_str() {
            "packed" => unpack(&index, &image.bytes),
            _ => image.bytes.clone(),
        };
        for chunk in 0..index.chunks().len() {
            let range = index.chunk_range(chunk);
            assert!(index.chunk_matches(chunk, &bytes[range.start as usize..range.end as usize]));
        }
        self.images.insert(index.id().to_string(), (index, bytes));
    }
}

/// The image of a packed upload: the chunks that are not all zero, each where it belongs.
fn unpack(index: &Index, mut packed: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; index.image_size() as usize];
    for chunk in index.travelling() {
        let range = index.chunk_range(chunk);
        let (now, later) = packed.split_at((range.end - range.start) as usize);
        bytes[range.start as usize..range.end as usize].copy_from_slice(now);
        packed = later;
    }
    assert!(packed.is_empty(), "nothing else travels");
    bytes
}
