//! The worker: claims creation tasks, several at once if it may, builds, uploads, reports.
//!
//! ```text
//! log in ─▶ claim ──task──▶ build ──▶ upload ──▶ report succeeded ─▶ claim …
//!             ▲ none, away     │ fails    │ fails    │ away: again until heard
//!             └── wait ◀───────┴─ report failed ◀────┘
//! beside a task: every few seconds, and at each new step, a report renews the claim and the upload token, and the
//! newest lines of the log go along; `stop` in an answer, or the task gone ─▶ the build stops, nothing is reported
//! the worker is told to stop ─▶ the build stops, the task is given back
//! ```
//!
//! A finished image is kept in the work folder until the scheduler has heard of its success: a warehouse or
//! scheduler that is away, or a restart here, costs an upload, never a build. A task that is given back, or whose
//! worker was killed, goes to the next who claims; the order loses no try.

mod folder;
mod job;
mod log;
mod pace;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use ureq::tls::RootCerts;

use crate::StopFlag;
use crate::http::{self, Backoff};
use crate::policy::Policy;
use crate::session::{ApiError, Session};
use folder::Folder;
use job::Job;
use pace::Rates;

/// A claim waits this long at the server: a stop is heard within it.
const CLAIM_WAIT_S: u32 = 2;
/// Shortest time between two claims that bring nothing, whatever the server does with the wait.
const CLAIM_INTERVAL: Duration = Duration::from_millis(500);
/// How often lanes look whether one of them has ended for good.
const LANE_POLL: Duration = Duration::from_millis(200);

/// Where the worker works and for whom.
#[derive(Clone)]
pub struct Config {
    /// Base address of the scheduler, without `/api/v1`.
    pub server: String,
    /// A user of role creator.
    pub username: String,
    /// Its password.
    pub password: String,
    /// A folder of its own: the download cache and images under way.
    pub work: PathBuf,
    /// Recipes may read files below this folder; `None`: no files of this machine.
    pub content: Option<PathBuf>,
    /// Between tries of anything that may work later.
    pub backoff: Backoff,
    /// Where downloads are kept; several creators of one machine may share it. `None`: in the work folder.
    pub cache: Option<PathBuf>,
    /// What the download cache keeps.
    pub policy: Policy,
    /// Whose certificates scheduler and warehouses are to have. Content comes from servers of the public CAs.
    pub roots: RootCerts,
    /// Tasks that are worked on at once, at least one.
    pub tasks: usize,
    /// Images are small stand-ins without content: recipes are checked, nothing is downloaded, no tool is run.
    pub simulate: bool,
}

impl Config {
    /// A worker that reads no files of this machine.
    pub fn new(server: &str, username: &str, password: &str, work: &Path) -> Self {
        let [server, username, password] = [server, username, password].map(str::to_owned);
        let (work, backoff, roots) = (work.to_owned(), Backoff::default(), RootCerts::WebPki);
        Self {
            server,
            username,
            password,
            work,
            content: None,
            backoff,
            cache: None,
            policy: Policy::default(),
            roots,
            tasks: 1,
            simulate: false,
        }
    }
}

/// Why the worker ended without being told to.
#[derive(Debug, thiserror::Error)]
pub enum WorkerError {
    /// Passwords would travel in the open.
    #[error("the server's address is refused: {0}")]
    Address(String),
    /// User name or password.
    #[error("the login is refused: {0}")]
    Login(String),
    /// Two workers cannot share a folder.
    #[error("{}: another creator works in this folder", .0.display())]
    WorkInUse(PathBuf),
    /// The work folder.
    #[error("{}: the work folder cannot be used", path.display())]
    Work {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Works until `stop` is raised.
///
/// # Errors
/// [`WorkerError`]: what no waiting mends. A server that is away is waited for.
pub fn run(config: Config, stop: StopFlag) -> Result<(), WorkerError> {
    http::check_address(&config.server).map_err(WorkerError::Address)?;
    let folder = Folder::open(&config.work)?;
    // Raised by `stop`, or by a lane that cannot go on.
    let inner = StopFlag::new();
    let session = Session::new(&config, &inner);
    let worker =
        Worker { config: &config, session: &session, folder: &folder, rates: Mutex::default(), stop: &inner };
    thread::scope(|scope| {
        let lanes: Vec<_> = (0..config.tasks.max(1)).map(|_| scope.spawn(|| worker.lane())).collect();
        while !lanes.iter().all(thread::ScopedJoinHandle::is_finished) {
            if stop.is_stopped() || lanes.iter().any(thread::ScopedJoinHandle::is_finished) {
                inner.stop();
            }
            thread::park_timeout(LANE_POLL);
        }
        lanes.into_iter().try_for_each(|lane| match lane.join() {
            Ok(ended) => ended,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    })
}

/// What the lanes share.
struct Worker<'a> {
    config: &'a Config,
    session: &'a Session,
    folder: &'a Folder,
    /// Of the last tasks.
    rates: Mutex<Rates>,
    stop: &'a StopFlag,
}

impl Worker<'_> {
    /// One task after the other.
    fn lane(&self) -> Result<(), WorkerError> {
        let mut failures = 0;
        while !self.stop.is_stopped() {
            let begun = Instant::now();
            let pause = match self.session.claim(CLAIM_WAIT_S) {
                Ok(Some(task)) => {
                    failures = 0;
                    self.work_on(task);
                    Duration::ZERO
                }
                Ok(None) => {
                    failures = 0;
                    CLAIM_INTERVAL.saturating_sub(begun.elapsed())
                }
                Err(ApiError::Login(text)) => return Err(WorkerError::Login(text)),
                Err(_) if self.stop.is_stopped() => break,
                Err(error) => {
                    failures += 1;
                    tracing::warn!(error = %error, failures, "no task can be claimed");
                    self.config.backoff.delay(failures)
                }
            };
            http::wait(pause, self.stop);
        }
        Ok(())
    }

    fn work_on(&self, task: cardshop_protocol::api::CreationTask) {
        let Some(_in_hand) = self.folder.take(task.task) else {
            // The lane that has it renews the claim from now on.
            tracing::info!(task = %task.task, "claimed again while it is in hand");
            http::wait(CLAIM_INTERVAL, self.stop);
            return;
        };
        let rates = *self.rates.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(measured) = Job::new(self, task, rates).run() {
            *self.rates.lock().unwrap_or_else(PoisonError::into_inner) = measured;
        }
    }
}
