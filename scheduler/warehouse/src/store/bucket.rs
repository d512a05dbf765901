//! The S3-compatible store that takes images' bytes off this machine: one object for each image, named for the key
//! that signs the indexes here, so that no other warehouse's objects are ever touched. Speaks to the store and decides
//! nothing; called by `objects`. Blocks, except for [`Bucket::address`], which asks nobody.

use std::fmt;
use std::fs::File;
use std::future::Future;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::http::{Method, Uri};
use cardshop_protocol::ids::ImageId;
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::multipart::{MultipartStore, PartId};
use object_store::signer::{SignedUrlOptions, Signer};
use object_store::{ClientOptions, ObjectStoreExt, RetryConfig};
use tokio::runtime::Handle;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::error::StoreError;

/// How long an address for a download is good; a disabled account can begin none with it after that.
const ADDRESS_LIFE: Duration = Duration::from_secs(60);
/// Least bytes of a part. **Source:** Amazon S3 user guide, *multipart upload limits*: 5 MiB to 5 GiB.
const MIN_PART_SIZE: u64 = 8 * 1024 * 1024;
/// Most parts; the store takes 10,000 (same source).
const MAX_PARTS: u64 = 9_000;
/// Parts that travel at once; each is in memory.
const PARTS_AT_ONCE: usize = 4;
/// How long one part or piece may take. The largest is 233 MiB, of an image of 2 TiB.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(300);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How often a failed request is repeated before the image is left for later.
const RETRIES: usize = 3;

/// An S3-compatible store for the bytes of images.
#[derive(Debug, Clone)]
pub struct S3 {
    /// `https://host[:port]/bucket[/prefix]`; `http` on loopback only.
    pub url: String,
    /// Its region; stores that have none take any.
    pub region: String,
    /// Who we are there.
    pub keys: S3Keys,
}

/// The access key of an S3 account.
#[derive(Clone)]
pub struct S3Keys {
    /// Its id.
    pub access_key_id: String,
    /// Its secret.
    pub secret_access_key: String,
    /// Comes with keys that end.
    pub session_token: Option<String>,
}

impl fmt::Debug for S3Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("S3Keys").finish_non_exhaustive()
    }
}

/// Why an address is none of a store.
#[derive(Debug, thiserror::Error)]
#[error("{url} is not {wanted}")]
pub(super) struct BadAddress {
    url: String,
    wanted: &'static str,
}

/// An S3 address, taken apart.
#[derive(Debug, PartialEq, Eq)]
struct Address {
    endpoint: String,
    bucket: String,
    /// Ends with a slash, or is empty.
    prefix: String,
}

impl Address {
    fn parse(url: &str) -> Result<Self, BadAddress> {
        let wrong = |wanted| BadAddress { url: url.to_owned(), wanted };
        let shape = "https://HOST[:PORT]/BUCKET[/PREFIX]";
        let uri: Uri = url.parse().map_err(|_| wrong(shape))?;
        let (Some(scheme), Some(host), None) = (uri.scheme_str(), uri.authority(), uri.query()) else {
            return Err(wrong(shape));
        };
        if host.as_str().contains('@') {
            // Not repeated: what stands before the @ is a secret.
            return Err(BadAddress { url: "the address of the store".into(), wanted: "one without a login" });
        }
        let is_loopback = ["127.0.0.1", "[::1]", "localhost"].contains(&host.host());
        if !(scheme == "https" || scheme == "http" && is_loopback) {
            return Err(wrong("https, and not on this machine"));
        }
        let path = uri.path().trim_matches('/');
        let (bucket, prefix) = path.split_once('/').unwrap_or((path, ""));
        if bucket.is_empty() {
            return Err(wrong(shape));
        }
        let prefix = if prefix.is_empty() { String::new() } else { format!("{prefix}/") };
        Ok(Self { endpoint: format!("{scheme}://{host}"), bucket: bucket.into(), prefix })
    }
}

/// The open store.
pub(super) struct Bucket {
    store: Arc<AmazonS3>,
    prefix: String,
    runtime: Handle,
}

impl Bucket {
    /// Does not ask the store yet: it may be away when the warehouse starts. `owner` keeps apart what several
    /// warehouses put into one bucket. Called inside a runtime.
    pub(super) fn open(s3: &S3, owner: impl fmt::Display) -> Result<Self, StoreError> {
        let address = Address::parse(&s3.url).map_err(|e| StoreError::BadStore(Box::new(e)))?;
        // The library asks for the process's provider; that there is one already is fine.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = ClientOptions::new()
            .with_allow_http(address.endpoint.starts_with("http:"))
            .with_connect_timeout(CONNECT_TIMEOUT)
            .with_timeout(REQUEST_TIMEOUT);
        let retry = RetryConfig { max_retries: RETRIES, ..RetryConfig::default() };
        let mut builder = AmazonS3Builder::new()
            .with_endpoint(address.endpoint)
            .with_bucket_name(address.bucket)
            .with_region(&s3.region)
            .with_access_key_id(&s3.keys.access_key_id)
            .with_secret_access_key(&s3.keys.secret_access_key)
            .with_client_options(client)
            .with_retry(retry)
            // One object is removed at a time, which every store can do.
            .with_disable_bulk_delete(true);
        if let Some(token) = &s3.keys.session_token {
            builder = builder.with_token(token);
        }
        let store = builder.build().map_err(|e| StoreError::BadStore(Box::new(e)))?;
        let prefix = format!("{}{owner}/", address.prefix);
        Ok(Self { store: Arc::new(store), prefix, runtime: Handle::current() })
    }

    fn key(&self, id: ImageId) -> object_store::path::Path {
        format!("{}{id}.img", self.prefix).into()
    }

    fn wait<T>(&self, work: impl Future<Output = object_store::Result<T>>) -> Result<T, StoreError> {
        self.runtime.block_on(work).map_err(StoreError::Away)
    }

    /// Where a client gets the image for a short while: by this method only, as a file of this name if there is one.
    pub(super) async fn address(
        &self,
        id: ImageId,
        method: Method,
        name: Option<&str>,
    ) -> Result<String, StoreError> {
        let disposition = name.map(|name| format!("attachment; filename=\"{name}\""));
        let query = disposition.map(|text| ("response-content-disposition", text));
        let options = SignedUrlOptions::new().with_query(query);
        let signed = self.store.signed_url_opts(method, &self.key(id), ADDRESS_LIFE, &options).await;
        Ok(signed.map_err(StoreError::Away)?.into())
    }

    /// Begins to send an image; the multipart upload's id.
    pub(super) fn begin(&self, id: ImageId) -> Result<String, StoreError> {
        self.wait(self.store.create_multipart(&self.key(id)))
    }

    /// Drops what was sent of an image. That the store knows nothing of it is fine.
    pub(super) fn abort(&self, id: ImageId, multipart: &str) -> Result<(), StoreError> {
        let key = self.key(id);
        fine_without(self.wait(self.store.abort_multipart(&key, &multipart.to_owned())))
    }

    /// Sends the file as the parts of a begun upload; the object is whole on return. False when `stop` came first.
    /// Doing it again in the same upload is fine.
    pub(super) fn send(
        &self,
        id: ImageId,
        multipart: &str,
        (file, size): (File, u64),
        path: &Path,
        stop: &CancellationToken,
    ) -> Result<bool, StoreError> {
        let (file, key, multipart) = (Arc::new(file), self.key(id), multipart.to_owned());
        let sending = async {
            let (mut parts, mut moving) = (Vec::new(), JoinSet::new());
            for (number, range) in parts_of(size).enumerate() {
                if moving.len() == PARTS_AT_ONCE {
                    parts.extend(joined(moving.join_next().await)?);
                }
                let bytes = read(file.clone(), range).await.map_err(StoreError::io("read", path))?;
                let (store, key, multipart) = (self.store.clone(), key.clone(), multipart.clone());
                moving.spawn(async move {
                    let sent = store.put_part(&key, &multipart, number, bytes.into()).await;
                    sent.map(|part| (number, part)).map_err(StoreError::Away)
                });
            }
            while let Some(part) = joined(moving.join_next().await)? {
                parts.push(part);
            }
            parts.sort_by_key(|(number, _)| *number);
            let parts = parts.into_iter().map(|(_, part)| part).collect();
            self.store.complete_multipart(&key, &multipart, parts).await.map_err(StoreError::Away)
        };
        self.runtime.block_on(stop.run_until_cancelled(sending)).map_or(Ok(false), |sent| sent.map(|_| true))
    }

    /// Bytes of an object; `None` when there is none.
    pub(super) fn size(&self, id: ImageId) -> Result<Option<u64>, StoreError> {
        match self.wait(self.store.head(&self.key(id))) {
            Err(StoreError::Away(object_store::Error::NotFound { .. })) => Ok(None),
            facts => Ok(Some(facts?.size)),
        }
    }

    /// Removes an object; that it is gone already is fine.
    pub(super) fn remove(&self, id: ImageId) -> Result<(), StoreError> {
        fine_without(self.wait(self.store.delete(&self.key(id))))
    }

    /// Reads bytes of an image.
    pub(super) fn read_exact_at(&self, id: ImageId, bytes: &mut [u8], at: u64) -> Result<(), StoreError> {
        let got = self.wait(self.store.get_range(&self.key(id), at..at + bytes.len() as u64))?;
        if got.len() != bytes.len() {
            let (expected, actual) = (at + bytes.len() as u64, at + got.len() as u64);
            return Err(StoreError::ObjectSize { expected, actual });
        }
        bytes.copy_from_slice(&got);
        Ok(())
    }
}

fn fine_without(done: Result<(), StoreError>) -> Result<(), StoreError> {
    match done {
        Err(StoreError::Away(object_store::Error::NotFound { .. })) => Ok(()),
        other => other,
    }
}

type Sent = Result<(usize, PartId), StoreError>;

fn joined(part: Option<Result<Sent, tokio::task::JoinError>>) -> Result<Option<(usize, PartId)>, StoreError> {
    part.map(|part| part.expect("sending does not panic")).transpose()
}

async fn read(file: Arc<File>, range: Range<u64>) -> std::io::Result<Vec<u8>> {
    let read = tokio::task::spawn_blocking(move || {
        let mut bytes = vec![0; (range.end - range.start) as usize];
        file.read_exact_at(&mut bytes, range.start).map(|()| bytes)
    });
    read.await.expect("reading does not panic")
}

/// The parts of an image: as many as there may be at most, none too small.
fn parts_of(size: u64) -> impl Iterator<Item = Range<u64>> {
    let step = size.div_ceil(MAX_PARTS).max(MIN_PART_SIZE);
    (0..size.div_ceil(step)).map(move |number| number * step..size.min((number + 1) * step))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_of_a_bucket_encrypted_or_on_this_machine_and_names_no_login() {
        let parts = |url: &str| Address::parse(url).map(|a| [a.endpoint, a.bucket, a.prefix]);
        assert_eq!(parts("https://s3.example/shop").unwrap(), ["https://s3.example", "shop", ""]);
        let deep = parts("http://127.0.0.1:9000/shop/a/b/").unwrap();
        assert_eq!(deep, ["http://127.0.0.1:9000", "shop", "a/b/"]);
        for url in ["", "s3.example/shop", "https://s3.example", "https://s3.example/", "ftp://s3.example/a"]
        {
            assert!(parts(url).is_err(), "{url}");
        }
        assert!(parts("http://s3.example/shop").unwrap_err().to_string().contains("https"));
        assert!(parts("https://s3.example/shop?x=1").is_err());
        let refused = parts("https://me:secret@s3.example/shop").unwrap_err().to_string();
        assert!(!refused.contains("secret"), "{refused}");
    }

    #[test]
    fn parts_cover_every_image_in_no_more_pieces_than_a_store_takes() {
        for size in [1, MIN_PART_SIZE, MIN_PART_SIZE + 1, 100 << 30, 2 << 40] {
            let parts: Vec<_> = parts_of(size).collect();
            assert!(parts.len() <= 10_000 && parts[0].start == 0 && parts.last().unwrap().end == size);
            assert!(parts.windows(2).all(|pair| pair[0].end == pair[1].start));
            let all_but_last = &parts[..parts.len() - 1];
            assert!(all_but_last.iter().all(|part| part.end - part.start >= MIN_PART_SIZE));
        }
    }
}
