//! The warehouse: images are put here once by resumable upload (tus 1.0) and pulled by HTTP byte range, by
//! those who may. It decides who may and whether the bytes are the image; it makes no image and knows no
//! order. Started by the `cardshop` command, which also fills the [`SharedKeys`] it checks tokens with.
//!
//! ```text
//! server   accepts, limits, ends the connections of revoked accounts
//! http     one handler per route, logs and counts
//! core     ranges, preconditions, metadata, checksums, rights: decides, touches nothing
//! store    the folder: uploads, images, what happens when one becomes the other
//! ```

mod core;
mod http;
#[doc(hidden)]
pub mod outside;
mod server;
mod socket;
mod store;
mod tls;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use cardshop_protocol::time::Timestamp;
use cardshop_protocol::token::SharedKeys;

use crate::core::metadata::Kind;
pub use server::Running;
pub use store::{S3, S3Keys};
pub use tls::{Tls, TlsError, TlsFiles};

const MIB: u64 = 1024 * 1024;

/// Where the warehouse listens and what it keeps where.
#[derive(Debug, Clone)]
pub struct Config {
    /// Address and port; port 0 takes a free one. Without `tls` loopback only.
    pub listen: SocketAddr,
    /// Certificate and key, read again when they change.
    pub tls: Option<TlsFiles>,
    /// Its folder; made when missing.
    pub data: PathBuf,
    /// Where images' bytes go once they are whole; without it they stay in the folder.
    pub s3: Option<S3>,
    /// What it refuses to exceed.
    pub limits: Limits,
}

impl Config {
    /// With the default limits.
    pub fn new(listen: SocketAddr, data: impl Into<PathBuf>) -> Self {
        Self { listen, tls: None, data: data.into(), s3: None, limits: Limits::default() }
    }
}

/// What the warehouse refuses to exceed.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Largest image, bytes.
    pub max_image_size: u64,
    /// Largest index, bytes. It is decoded in memory; a 1 TB image has one of about 50 MB.
    pub max_index_size: u64,
    /// Most uploads that are open, moving or not.
    pub max_open_uploads: usize,
    /// Most uploads that move at once; each takes a thread and a chunk of memory.
    pub max_moving_uploads: usize,
    /// Most connections. More wait in the kernel's queue.
    pub max_connections: usize,
    /// Bytes of the disk that stay free: uploads get 507 before. Above what may be written between two looks
    /// (32 MiB for each moving upload).
    pub space_margin: u64,
    /// How long an upload that nobody continues is kept.
    pub upload_life: Duration,
}

impl Limits {
    /// Most bytes of an upload of this kind.
    pub(crate) fn max_size(&self, kind: Kind) -> u64 {
        match kind {
            Kind::Image | Kind::Packed => self.max_image_size,
            Kind::Index => self.max_index_size,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_image_size: 2 * 1024 * 1024 * MIB,
            max_index_size: cardshop_protocol::index::MAX_INDEX_SIZE,
            max_open_uploads: 1000,
            max_moving_uploads: 16,
            max_connections: 4096,
            space_margin: 1024 * MIB,
            upload_life: Duration::from_secs(3 * 24 * 3600),
        }
    }
}

/// Why a warehouse does not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Tokens and images would cross a network in the clear.
    #[error(
        "{0} is not a loopback address, and in the clear: give a certificate and its key, or listen on 127.0.0.1 or [::1]"
    )]
    PlainOnNetwork(SocketAddr),
    /// The certificate or its key.
    #[error("cannot encrypt")]
    Tls(#[from] TlsError),
    /// The address is taken or not ours.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address asked for.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The folder cannot be used.
    #[error("cannot use the folder {data}")]
    Data {
        /// The folder.
        data: PathBuf,
        /// What is wrong with it.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// Starts a warehouse. `keys` is filled, and kept filled, by the caller.
///
/// # Errors
/// [`Error`]; nothing runs then.
pub async fn start(config: Config, keys: SharedKeys) -> Result<Running, Error> {
    if config.tls.is_none() && !config.listen.ip().is_loopback() {
        return Err(Error::PlainOnNetwork(config.listen));
    }
    let tls = config.tls.clone().map(tls::Tls::open).transpose()?;
    let failed = |source| Error::Listen { address: config.listen, source };
    let listener = tokio::net::TcpListener::bind(config.listen).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    let (data, limits, s3) = (config.data.clone(), config.limits.clone(), config.s3.clone());
    let opened = tokio::task::spawn_blocking(move || store::Store::open(&data, limits, s3.as_ref(), now()));
    let store = opened.await.expect("opening the store does not panic");
    let store = store.map_err(|e| Error::Data { data: config.data.clone(), source: Box::new(e) })?;
    tracing::info!(%address, data = %config.data.display(), images = store.images(None).len(), "warehouse");
    Ok(Running::serve(
        listener,
        address,
        tls,
        Arc::new(http::Warehouse::new(store, keys, &config.limits, config.tls.is_some())),
    ))
}

/// The one place that reads the clock.
fn now() -> Timestamp {
    Timestamp::from_system(SystemTime::now())
}
