//! A warehouse on a free port with tokens for everybody, and a client that speaks to it over a real socket.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cardshop_protocol::ids::{ImageId, OrderId, TaskId};
use cardshop_protocol::index::{Extent, ExtentKind, ImageMap, Index, IndexBuilder, MIN_CHUNK_SIZE};
use cardshop_protocol::keys::{KeyList, KeyUse, PublicKey, RevokedSubject};
use cardshop_protocol::token::{Claims, ISSUER, Role, SharedKeys, TokenSigner};
use cardshop_warehouse::{Config, Limits, Running, S3, start};
use ed25519_dalek::SigningKey;
use tempfile::TempDir;

/// The scheduler's secret.
const KEY: [u8; 32] = [9; 32];
pub(crate) const CHUNK: usize = MIN_CHUNK_SIZE as usize;
pub(crate) const OFFSET_BYTES: (&str, &str) = ("Content-Type", "application/offset+octet-stream");

/// Random bytes from a fixed seed.
pub(crate) fn noise(size: usize, seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; size];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// An image all of whose bytes are data.
pub(crate) fn solid(size: usize, seed: u64) -> (Vec<u8>, Index) {
    let bytes = noise(size, seed);
    let extent = Extent { offset: 0, length: size as u64, kind: ExtentKind::Data };
    let index = index_of(&bytes, vec![extent]);
    (bytes, index)
}

/// The index of `bytes` with this map.
pub(crate) fn index_of(bytes: &[u8], extents: Vec<Extent>) -> Index {
    let map = ImageMap { image_size: bytes.len() as u64, extents: extents.clone(), passport: vec![] };
    let mut builder = IndexBuilder::new(map, MIN_CHUNK_SIZE).unwrap();
    for extent in extents.iter().filter(|e| e.kind == ExtentKind::Data) {
        builder.data(&bytes[extent.offset as usize..extent.end() as usize]).unwrap();
    }
    builder.finish().unwrap()
}

/// A task nobody else has.
pub(crate) fn task() -> TaskId {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    TaskId::creation(OrderId::from_parts(1_790_000_000_000, NEXT.fetch_add(1, Ordering::Relaxed).into()))
}

pub(crate) struct Shop {
    pub(crate) runtime: tokio::runtime::Runtime,
    pub(crate) running: Option<Running>,
    pub(crate) keys: SharedKeys,
    pub(crate) limits: Limits,
    s3: Option<S3>,
    key: SigningKey,
    folder: TempDir,
}

impl Shop {
    pub(crate) fn open() -> Self {
        Self::with(|_| ())
    }

    pub(crate) fn with(change: impl FnOnce(&mut Limits)) -> Self {
        Self::new(change, None)
    }

    pub(crate) fn with_s3(s3: Option<S3>) -> Self {
        Self::new(|_| (), s3)
    }

    fn new(change: impl FnOnce(&mut Limits), s3: Option<S3>) -> Self {
        let mut limits = Limits { space_margin: 1 << 20, ..Limits::default() };
        change(&mut limits);
        let key = SigningKey::from_bytes(&KEY);
        let keys = Self::published_keys();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let mut shop = Self { runtime, running: None, keys, limits, s3, key, folder };
        shop.start();
        shop
    }

    /// What the scheduler would publish.
    pub(crate) fn published_keys() -> SharedKeys {
        let keys = SharedKeys::default();
        keys.replace(key_list(&SigningKey::from_bytes(&KEY)));
        keys
    }
    pub(crate) fn data(&self) -> PathBuf {
        self.folder.path().join("warehouse")
    }
    pub(crate) fn start(&mut self) {
        let mut config = Config::new("127.0.0.1:0".parse().unwrap(), self.data());
        config.limits = self.limits.clone();
        config.s3 = self.s3.clone();
        self.running = Some(self.runtime.block_on(start(config, self.keys.clone())).unwrap());
    }
    pub(crate) fn stop(&mut self) {
        let running = self.running.take().unwrap();
        self.runtime.block_on(running.shutdown());
    }
    pub(crate) fn restart(&mut self) {
        self.stop();
        self.start();
    }
    pub(crate) fn address(&self) -> String {
        self.running.as_ref().unwrap().address().to_string()
    }

    pub(crate) fn token(&self, role: Role, channel: &str, scope: Option<String>) -> String {
        self.token_from(role, channel, scope, SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs())
    }
    pub(crate) fn token_from(&self, role: Role, channel: &str, scope: Option<String>, now: u64) -> String {
        TokenSigner::new(&self.key).sign(&Claims {
            iss: ISSUER.into(),
            sub: format!("{role:?}-{channel}").to_lowercase(),
            role,
            channel: if channel.is_empty() { vec![] } else { vec![channel.parse().unwrap()] },
            scope,
            epoch: 1,
            jti: "1".into(),
            iat: now,
            exp: now + 3600,
            signed_by: None,
        })
    }
    pub(crate) fn creator_token(&self, task: TaskId) -> String {
        self.token(Role::Creator, "demo", Some(Claims::upload_scope(task)))
    }
    pub(crate) fn creator(&self, task: TaskId) -> Client {
        self.client(self.creator_token(task))
    }
    pub(crate) fn staff(&self) -> Client {
        self.client(self.token(Role::Staff, "", None))
    }
    pub(crate) fn client(&self, token: String) -> Client {
        Client::new(self.address(), Some(token))
    }
    pub(crate) fn revoke(&self, sub: &str) {
        let mut keys = key_list(&self.key);
        keys.revoked.push(RevokedSubject { sub: sub.into(), epoch: 2 });
        self.keys.replace(keys);
    }

    /// Puts an image for a task of its own; the image is there afterwards.
    pub(crate) fn put(&self, bytes: &[u8], index: &Index) -> ImageId {
        let task = task();
        let creator = self.creator(task);
        assert_eq!(creator.put("index", task, None, &index.encode()).status, 201);
        let put = creator.put("image", task, Some(index.id()), bytes);
        assert_eq!(
            (put.status, put.header("upload-offset")),
            (201, bytes.len().to_string()),
            "{}",
            put.text()
        );
        index.id()
    }
    /// Files in the folder, without what is always there.
    pub(crate) fn files(&self) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(self.data())
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .filter(|n| {
                !["index.key", "lock", "uploads", "pending", "links", "objects"].contains(&n.as_str())
            })
            .collect();
        names.sort();
        names
    }
}

fn key_list(key: &SigningKey) -> KeyList {
    KeyList { items: vec![PublicKey::new(&key.verifying_key(), KeyUse::Jwt)], ..KeyList::default() }
}

#[derive(Clone)]
pub(crate) struct Client {
    agent: ureq::Agent,
    pub(crate) address: String,
    pub(crate) token: Option<String>,
}

pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> String {
        self.headers.get(name).cloned().unwrap_or_default()
    }
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }
    pub(crate) fn code(&self) -> String {
        assert_eq!(self.header("content-type"), "application/problem+json", "{}", self.text());
        let problem = self.json();
        assert_eq!(problem["status"], self.status);
        problem["code"].as_str().unwrap().to_owned()
    }
}

impl Client {
    pub(crate) fn new(address: String, token: Option<String>) -> Self {
        let agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
        Self { agent, address, token }
    }

    /// The same client, which does not go where it is sent.
    pub(crate) fn unled(&self) -> Self {
        let agent = ureq::Agent::config_builder().http_status_as_error(false).max_redirects(0).build().into();
        Self { agent, ..self.clone() }
    }

    pub(crate) fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        self.try_send(method, path, headers, body).unwrap()
    }

    pub(crate) fn try_send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Result<Answer, ureq::Error> {
        let mut request =
            ureq::http::Request::builder().method(method).uri(format!("http://{}{path}", self.address));
        if let Some(token) = &self.token {
            request = request.header("Authorization", format!("Bearer {token}"));
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut response = if matches!(method, "POST" | "PATCH" | "PUT") {
            self.agent.run(request.body(body).unwrap())?
        } else {
            self.agent.run(request.body(()).unwrap())?
        };
        let mut bytes = Vec::new();
        if method != "HEAD" {
            response.body_mut().as_reader().read_to_end(&mut bytes)?;
        }
        let headers = response
            .headers()
            .iter()
            .map(|(n, v)| (n.to_string(), v.to_str().unwrap_or("?").to_owned()))
            .collect();
        Ok(Answer { status: response.status().as_u16(), headers, body: bytes })
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], &[])
    }
    pub(crate) fn head(&self, path: &str) -> Answer {
        self.send("HEAD", path, &[], &[])
    }
    pub(crate) fn range(&self, path: &str, range: &str) -> Answer {
        self.send("GET", path, &[("Range", range)], &[])
    }

    /// A tus request.
    pub(crate) fn tus(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let headers: Vec<_> = [("Tus-Resumable", "1.0.0")].iter().chain(headers).copied().collect();
        self.send(method, path, &headers, body)
    }
    pub(crate) fn create(&self, kind: &str, task: TaskId, image: Option<ImageId>, size: usize) -> Answer {
        let (metadata, size) = (metadata(kind, task, image), size.to_string());
        self.tus("POST", "/files", &[("Upload-Length", &size), ("Upload-Metadata", &metadata)], &[])
    }
    /// All in one request.
    pub(crate) fn put(&self, kind: &str, task: TaskId, image: Option<ImageId>, bytes: &[u8]) -> Answer {
        let (metadata, size) = (metadata(kind, task, image), bytes.len().to_string());
        let headers = [("Upload-Length", size.as_str()), ("Upload-Metadata", &metadata), OFFSET_BYTES];
        self.tus("POST", "/files", &headers, bytes)
    }
    pub(crate) fn patch(&self, path: &str, offset: usize, bytes: &[u8]) -> Answer {
        self.patch_with(path, offset, bytes, &[])
    }
    pub(crate) fn patch_with(
        &self,
        path: &str,
        offset: usize,
        bytes: &[u8],
        more: &[(&str, &str)],
    ) -> Answer {
        let offset = offset.to_string();
        let headers: Vec<_> =
            [("Upload-Offset", offset.as_str()), OFFSET_BYTES].iter().chain(more).copied().collect();
        self.tus("PATCH", path, &headers, bytes)
    }
    pub(crate) fn offset(&self, path: &str) -> usize {
        let answer = self.tus("HEAD", path, &[], &[]);
        assert_eq!(answer.status, 200);
        answer.header("upload-offset").parse().unwrap()
    }
}

pub(crate) fn metadata(kind: &str, task: TaskId, image: Option<ImageId>) -> String {
    let mut pairs = vec![("kind", kind.to_owned()), ("task", task.to_string()), ("name", "Library".into())];
    pairs.extend(image.map(|i| ("image", i.to_string())));
    let pairs: Vec<_> = pairs.iter().map(|(k, v)| format!("{k} {}", encode(v))).collect();
    pairs.join(",")
}

pub(crate) fn encode(bytes: impl AsRef<[u8]>) -> String {
    STANDARD.encode(bytes)
}
