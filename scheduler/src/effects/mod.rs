//! What does: clock, randomness, store, network and timers around `core`'s decisions. One file per group of
//! objects; the functions of [`crate::Scheduler`] that API and pages call are here.

pub(crate) mod account_hooks;
pub(crate) mod accounts;
pub(crate) mod action_links;
pub(crate) mod addresses;
pub(crate) mod api_keys;
pub(crate) mod appliances;
pub(crate) mod ask;
pub(crate) mod auto_images;
pub(crate) mod background;
pub(crate) mod bench;
pub(crate) mod bench_records;
pub(crate) mod board;
pub(crate) mod catalogue;
pub(crate) mod channels;
pub(crate) mod claims;
pub(crate) mod clock;
pub(crate) mod commands;
pub(crate) mod configurations;
pub(crate) mod content;
pub(crate) mod events;
pub(crate) mod forget;
pub(crate) mod furnish;
pub(crate) mod homeassistant;
pub(crate) mod idempotency;
pub(crate) mod inbox;
pub(crate) mod index;
pub(crate) mod jobs;
pub(crate) mod join;
pub(crate) mod keeping;
pub(crate) mod keys;
pub(crate) mod leading;
pub(crate) mod link;
pub(crate) mod live;
pub(crate) mod load;
pub(crate) mod maintenance;
pub(crate) mod media;
pub(crate) mod metrics;
pub(crate) mod notify;
pub(crate) mod orders;
pub(crate) mod organizations;
pub(crate) mod outlook;
pub(crate) mod paging;
pub(crate) mod papers;
pub(crate) mod passwords;
pub(crate) mod planner;
pub(crate) mod reach;
pub(crate) mod retained;
pub(crate) mod shelf;
pub(crate) mod simulation;
pub(crate) mod start;
pub(crate) mod task_logs;
pub(crate) mod tasks;
pub(crate) mod timers;
pub(crate) mod tokens;
pub(crate) mod updates;
pub(crate) mod users;
pub(crate) mod warehouses;
pub(crate) mod web_sessions;

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64};

use tokio::sync::{Notify, watch};

use crate::core::picture::Picture;
use crate::store::{Batch, Store, StoreError};
use crate::{Config, Scheduler, SchedulerError};

/// All that a scheduler holds.
pub(crate) struct Inner {
    pub(crate) config: Config,
    pub(crate) store: Store,
    pub(crate) clock: clock::Clock,
    pub(crate) ids: clock::Ids,
    pub(crate) outside: ask::Outside,
    pub(crate) passwords: passwords::Passwords,
    pub(crate) keys: keys::Keys,
    pub(crate) throttles: Mutex<accounts::Throttles>,
    pub(crate) key_uses: Mutex<api_keys::KeyUses>,
    pub(crate) nonces: Mutex<join::Nonces>,
    pub(crate) picture: Mutex<Picture>,
    pub(crate) creators: Mutex<load::Creators>,
    /// What was last seen of what lies outside.
    pub(crate) seen: Mutex<crate::core::health::Seen>,
    pub(crate) jobs: jobs::Jobs,
    pub(crate) content: content::Content,
    pub(crate) live: live::Live,
    pub(crate) retained: retained::Retained,
    pub(crate) reflexes: commands::Reflexes,
    pub(crate) supports: commands::Supports,
    pub(crate) metrics: metrics::Metrics,
    /// Sends messages.
    pub(crate) post: notify::Post,
    /// Home Assistant was born and will be told of the slots in a moment.
    pub(crate) discovery_due: AtomicBool,
    /// Leases may have to change.
    pub(crate) replan: Notify,
    /// A creation task may be waiting.
    pub(crate) work: Notify,
    /// The link to the broker has to be made anew.
    pub(crate) link_anew: Notify,
    /// Whether this scheduler leads, where there are several.
    pub(crate) leads: watch::Receiver<bool>,
    /// Counts starts, and changes of the leader; the upper part of the session the broker is told.
    pub(crate) start: AtomicU64,
    pub(crate) started: cardshop_protocol::time::Timestamp,
}

/// How often a change is tried against other writers of the same document before the caller is told to come back.
const MAX_TRIES: u32 = 16;

impl Scheduler {
    /// Stores the batch that `decide` makes of what it reads; anew whenever another writer was faster. Gives what it
    /// decided, and whether there was anything to store.
    ///
    /// # Errors
    /// What `decide` or the store gives; `Busy` when somebody always was faster.
    pub(crate) async fn change<T>(
        &self,
        mut decide: impl FnMut() -> Result<(Option<Batch>, T), SchedulerError>,
    ) -> Result<(T, bool), SchedulerError> {
        for _ in 0..MAX_TRIES {
            let (batch, decided) = decide()?;
            let Some(batch) = batch else { return Ok((decided, false)) };
            match self.inner.store.apply(batch).await {
                Ok(()) => return Ok((decided, true)),
                Err(StoreError::Conflict { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(SchedulerError::Busy)
    }
}
