//! One image into a folder, with the appliance's own fetcher and nothing else of the agent: for `cardshop bench
//! fetch`, and for whoever wants to fill a disk labelled `CARDSHOP-CACHE`.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::Duration;

use cardshop_card::StopFlag;
use cardshop_protocol::ids::ImageId;

use super::cache::Cache;
use super::cache_disk::CacheDisk;
use super::clock::Clock;
use super::fetch::{Fetcher, Pace, Shared, SignatureRule, Tokens};
use super::http;
use crate::config::{CacheConfig, FetchConfig};
use crate::core::Event;

/// The stop flag is asked this often.
const ASK_STOP_EVERY: Duration = Duration::from_millis(20);

/// What to fetch.
pub struct FetchJob {
    /// Which image.
    pub image: ImageId,
    /// Base addresses of warehouses, in order. Plain text goes to any of them: the token is not a secret of a shop's.
    pub warehouses: Vec<String>,
    /// What is sent as access token.
    pub token: String,
    /// Where images lie; older ones there save bytes.
    pub folder: PathBuf,
    /// How.
    pub fetch: FetchConfig,
}

/// How it went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FetchReport {
    /// Bytes of the image that came over the network, also those that came twice.
    pub received_bytes: u64,
    /// Bytes of it that need to be here.
    pub total_bytes: u64,
}

/// Why there is no image.
#[derive(Debug, thiserror::Error)]
pub enum FetchFailure {
    /// It cannot be had.
    #[error("{code}: {text}")]
    Refused {
        /// Stable name.
        code: String,
        /// For people.
        text: String,
    },
    /// The folder or the settings are no use.
    #[error("cannot fetch into {}: {why}", folder.display())]
    Start {
        /// Where.
        folder: PathBuf,
        /// For people.
        why: String,
    },
    /// The stop flag was raised.
    #[error("stopped")]
    Stopped,
}

/// Fetches one image; every chunk is checked. Waits for warehouses that are away until `stop` is raised.
///
/// # Errors
/// Any [`FetchFailure`].
pub fn fetch_one(job: FetchJob, stop: &StopFlag) -> Result<FetchReport, FetchFailure> {
    let start = |why: &dyn std::fmt::Display| FetchFailure::Start {
        folder: job.folder.clone(),
        why: why.to_string(),
    };
    let cache = Cache::open(&job.folder, CacheConfig::default()).map_err(|e| start(&e))?;
    let client = http::client_through(job.fetch.proxy.as_deref()).map_err(|e| start(&e))?;
    let (events, happened) = sync_channel(64);
    let received = Arc::new(AtomicU64::new(0));
    let mut fetcher = Fetcher::new(Shared {
        http: http::Http::new(client),
        tokens: Tokens::Fixed(job.token),
        cache,
        disk: CacheDisk::default(),
        pace: Pace::new(job.fetch.connections, job.fetch.max_bps),
        clock: Clock::default(),
        events,
        received: Arc::clone(&received),
        any_address: true,
    });
    let refused = |fault: cardshop_protocol::message::Fault| FetchFailure::Refused {
        code: fault.code,
        text: fault.text,
    };
    fetcher.fetch(job.image, &job.warehouses, SignatureRule::default()).map_err(refused)?;
    let mut total_bytes = None;
    let result = loop {
        match happened.recv_timeout(ASK_STOP_EVERY) {
            Ok(Event::ImageReady { total, .. }) => total_bytes = Some(total),
            Ok(Event::ImageRefused { fault, .. }) => break Err(refused(fault)),
            Ok(_) | Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break Err(FetchFailure::Stopped),
        }
        let store = fetcher.store(job.image);
        if let (Some(total_bytes), Some(store)) = (total_bytes, store)
            && store.is_complete()
        {
            if let Err(error) = store.save() {
                break Err(start(&error));
            }
            break Ok(FetchReport { received_bytes: received.load(Ordering::Relaxed), total_bytes });
        }
        if stop.is_stopped() {
            break Err(FetchFailure::Stopped);
        }
    };
    fetcher.end();
    result
}
