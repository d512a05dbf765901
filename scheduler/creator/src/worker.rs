//! The worker: claims creation tasks, builds, uploads, reports.
//!
//! ```text
//! log in ─▶ claim ──task──▶ build ──▶ upload ──▶ report succeeded ─▶ claim …
//!             ▲ none, away     │ fails    │ fails    │ away: again until heard
//!             └── wait ◀───────┴─ report failed ◀────┘
//! beside a task: every REPORT_INTERVAL a report renews the claim and the upload token;
//! `stop` in an answer, or the task gone ─▶ the build stops, nothing is reported
//! ```
//!
//! A finished image is kept in the work folder until the scheduler has heard of its success: a warehouse or
//! scheduler that is away, or a restart here, costs an upload, never a build. When the worker itself is told to
//! stop it reports nothing: the claim runs out and the task goes to the next, the order loses no try.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use cardshop_protocol::api::{CreationPhase, CreationReport, CreationTask, Grant};
use cardshop_protocol::ids::{ImageId, TaskId};
use cardshop_protocol::index::Index;

use ureq::tls::RootCerts;

use crate::StopFlag;
use crate::build::{self, BuildError, LocalFiles, Options, Progress};
use crate::http::{self, Backoff};
use crate::policy::Policy;
use crate::recipe::Recipe;
use crate::session::{ApiError, Session};
use crate::upload::{UploadError, Uploader};

/// A claim waits this long at the server: a stop is heard within it.
const CLAIM_WAIT_S: u32 = 2;
/// Shortest time between two claims that bring nothing, whatever the server does with the wait.
const CLAIM_INTERVAL: Duration = Duration::from_millis(500);
/// Rounds of fruitless tries after the first that a mirror gets: its image is one more copy, not the only one.
const MIRROR_ROUNDS: u32 = 2;
/// Between two reports of a task: a `stop` in an answer takes effect within it and 1 s.
const REPORT_INTERVAL: Duration = Duration::from_secs(3);
/// Longest reason that is reported, characters.
const MAX_REASON_LENGTH: usize = 500;

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
    let session = Session::new(&config, &stop);
    let mut failures = 0;
    while !stop.is_stopped() {
        let begun = Instant::now();
        let pause = match session.claim(CLAIM_WAIT_S) {
            Ok(Some(task)) => {
                failures = 0;
                Job::new(&config, &session, &folder, task).run(&stop);
                Duration::ZERO
            }
            Ok(None) => {
                failures = 0;
                CLAIM_INTERVAL.saturating_sub(begun.elapsed())
            }
            Err(ApiError::Login(text)) => return Err(WorkerError::Login(text)),
            Err(_) if stop.is_stopped() => break,
            Err(error) => {
                failures += 1;
                tracing::warn!(error = %error, failures, "no task can be claimed");
                config.backoff.delay(failures)
            }
        };
        http::wait(pause, &stop);
    }
    Ok(())
}

/// The work folder: `cache/`, and `tasks/{task}/` with `card.img`, `card.cardindex` and, when both are whole, `built`
/// holding the recipe's digest.
struct Folder {
    root: PathBuf,
    /// Locked as long as the worker lives.
    _lock: File,
}

impl Folder {
    fn open(root: &Path) -> Result<Self, WorkerError> {
        let error = |source| WorkerError::Work { path: root.to_owned(), source };
        fs::create_dir_all(root.join("tasks")).map_err(error)?;
        let lock = File::create(root.join("lock")).map_err(error)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(WorkerError::WorkInUse(root.to_owned())),
            Err(TryLockError::Error(source)) => return Err(error(source)),
        }
        // Left by a worker that was killed: everything but whole images.
        for entry in fs::read_dir(root.join("tasks")).map_err(error)? {
            let path = entry.map_err(error)?.path();
            if !path.join("built").is_file() {
                fs::remove_dir_all(&path).map_err(error)?;
            }
        }
        Ok(Self { root: root.to_owned(), _lock: lock })
    }

    fn task(&self, task: TaskId) -> PathBuf {
        self.root.join("tasks").join(task.to_string())
    }

    /// Makes room for a task: images of others that nobody asked for again go.
    fn prepare(&self, task: TaskId) -> io::Result<PathBuf> {
        let own = self.task(task);
        for entry in fs::read_dir(self.root.join("tasks"))? {
            let path = entry?.path();
            if path != own {
                fs::remove_dir_all(path)?;
            }
        }
        fs::create_dir_all(&own)?;
        Ok(own)
    }
}

/// Why a task is not done.
enum Failure {
    /// The scheduler should hear this.
    Reported { reason: String, permanent: bool },
    /// The task is not ours any more, or the worker ends.
    Stopped,
}

impl From<BuildError> for Failure {
    fn from(error: BuildError) -> Self {
        if error.is_stopped() {
            return Self::Stopped;
        }
        Self::Reported { reason: chain(&error), permanent: error.is_permanent() }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Reported { reason: format!("the creator's work folder: {error}"), permanent: false }
    }
}

/// Ends the reports, also when the build panics: else they would hold the task for ever.
struct Ending<'a> {
    ended: &'a StopFlag,
    reports: thread::Thread,
}

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.ended.stop();
        self.reports.unpark();
    }
}

/// One claimed task.
struct Job<'a> {
    config: &'a Config,
    session: &'a Session,
    folder: &'a Folder,
    task: CreationTask,
    grant: Mutex<Grant>,
    progress: Mutex<Progress>,
    /// Ends the build and the upload.
    stop: StopFlag,
    /// Ends the reports.
    ended: StopFlag,
}

impl<'a> Job<'a> {
    fn new(config: &'a Config, session: &'a Session, folder: &'a Folder, task: CreationTask) -> Self {
        let grant = Mutex::new(task.grant.clone());
        let progress = Mutex::new(Progress { phase: CreationPhase::Downloading, done: 0, total: 0 });
        let (stop, ended) = (StopFlag::new(), StopFlag::new());
        Self { config, session, folder, task, grant, progress, stop, ended }
    }

    fn run(&self, worker_stop: &StopFlag) {
        let id = self.task.task;
        tracing::info!(task = %id, name = self.task.name, "claimed");
        thread::scope(|scope| {
            let reports = scope.spawn(|| self.keep_reporting(worker_stop));
            let ending = Ending { ended: &self.ended, reports: reports.thread().clone() };
            let done = self.make();
            drop(ending);
            let report = match done {
                Ok(image) => CreationReport::Succeeded { image },
                Err(Failure::Reported { reason, permanent }) => CreationReport::Failed { reason, permanent },
                Err(Failure::Stopped) => {
                    tracing::info!(task = %id, "stopped");
                    return;
                }
            };
            self.finish(&report, worker_stop);
        });
    }

    /// Renews the claim until the task has ended, and hands on a stop from either side.
    fn keep_reporting(&self, worker_stop: &StopFlag) {
        let mut due = Instant::now();
        while !self.ended.is_stopped() {
            if worker_stop.is_stopped() {
                self.stop.stop();
                return;
            }
            if Instant::now() >= due {
                self.report_running();
                due = Instant::now() + REPORT_INTERVAL;
            }
            thread::park_timeout(Duration::from_millis(200));
        }
    }

    fn report_running(&self) {
        let Progress { phase, done, total } = *self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        match self.session.report(self.task.task, &CreationReport::Running { phase, done, total }) {
            Ok(answer) if answer.stop => self.stop.stop(),
            Ok(answer) => {
                if let Some(grant) = answer.grant {
                    *self.grant.lock().unwrap_or_else(PoisonError::into_inner) = grant;
                }
            }
            Err(ApiError::Away(text)) => tracing::debug!(text, "a report was not heard"),
            Err(error) => {
                tracing::warn!(task = %self.task.task, error = %error, "the task is not ours any more");
                self.stop.stop();
            }
        }
    }

    /// Says how it ended until that is heard, then clears up.
    fn finish(&self, report: &CreationReport, worker_stop: &StopFlag) {
        let id = self.task.task;
        let mut failures = 0;
        loop {
            match self.session.report(id, report) {
                Ok(_) => break,
                Err(ApiError::Away(text)) => {
                    failures += 1;
                    tracing::warn!(task = %id, text, failures, "the end of the task was not heard");
                    if !http::wait(self.config.backoff.delay(failures), worker_stop) {
                        return; // a whole image stays for the next claim
                    }
                }
                Err(error) => {
                    tracing::warn!(task = %id, error = %error, "the end of the task is not wanted");
                    break;
                }
            }
        }
        match report {
            CreationReport::Failed { reason, permanent } => {
                tracing::warn!(task = %id, reason, permanent, "failed");
            }
            _ => tracing::info!(task = %id, "done"),
        }
        if let Err(error) = fs::remove_dir_all(self.folder.task(id)) {
            tracing::warn!(task = %id, error = %error, "the task's folder stays");
        }
    }

    fn make(&self) -> Result<ImageId, Failure> {
        // Before hours of work: the upload would refuse it.
        http::check_address(&self.task.warehouse).map_err(|fault| Failure::Reported {
            reason: format!("the warehouse: {fault}"),
            permanent: false,
        })?;
        let recipe = Recipe::from_value(&self.task.recipe).map_err(BuildError::from)?;
        let folder = self.folder.prepare(self.task.task)?;
        let image = folder.join("card.img");
        let index = match whole(&folder, &image, &recipe) {
            Some(index) if index.image_size() <= self.task.max_image_bytes => {
                tracing::info!(task = %self.task.task, "its image is here already");
                index
            }
            _ => self.build(&recipe, &folder, &image)?,
        };
        self.upload(&image, &index)?;
        Ok(index.id())
    }

    fn build(&self, recipe: &Recipe, folder: &Path, image: &Path) -> Result<Index, Failure> {
        let marker = folder.join("built");
        if marker.exists() {
            fs::remove_file(&marker)?;
        }
        let options = Options {
            image: image.to_owned(),
            cache: self.config.cache.clone().unwrap_or_else(|| self.folder.root.join("cache")),
            local_files: self.config.content.clone().map_or(LocalFiles::Refused, LocalFiles::Below),
            max_image_bytes: Some(self.task.max_image_bytes),
            backoff: self.config.backoff,
            offline: false,
            policy: self.config.policy.clone(),
        };
        let built = build::build(recipe, &options, &self.stop, &mut |progress| self.note(progress))?;
        for note in &built.notes {
            tracing::info!(task = %self.task.task, note);
        }
        fs::write(folder.join("card.cardindex"), built.index.encode())?;
        fs::write(marker, recipe.digest().to_hex().as_bytes())?;
        Ok(built.index)
    }

    /// To the warehouse, however long it takes; then to the mirrors, which the order does not wait for long.
    fn upload(&self, image: &Path, index: &Index) -> Result<(), Failure> {
        self.upload_to(&self.task.warehouse, image, index, None)?;
        for mirror in &self.task.mirrors {
            match self.upload_to(mirror, image, index, Some(MIRROR_ROUNDS)) {
                Ok(()) => {}
                Err(Failure::Stopped) => return Err(Failure::Stopped),
                Err(Failure::Reported { reason, .. }) => {
                    tracing::warn!(task = %self.task.task, mirror, reason, "a mirror does not have the image");
                }
            }
        }
        Ok(())
    }

    fn upload_to(
        &self,
        warehouse: &str,
        image: &Path,
        index: &Index,
        most_rounds: Option<u32>,
    ) -> Result<(), Failure> {
        let reported = |error: UploadError| Failure::Reported { reason: chain(&error), permanent: false };
        let CreationTask { task, name, .. } = &self.task;
        let backoff = self.config.backoff;
        let mut uploader = Uploader::new(warehouse, *task, name, image, index, backoff).map_err(reported)?;
        uploader.roots = self.config.roots.clone();
        self.note(Progress { phase: CreationPhase::Uploading, done: 0, total: index.image_size() });
        let token = || self.grant.lock().unwrap_or_else(PoisonError::into_inner).upload_token.clone();
        let mut rounds = 0;
        loop {
            let uploaded = uploader.run(&token, &self.stop, &mut |done, total| {
                self.note(Progress { phase: CreationPhase::Uploading, done, total });
            });
            match uploaded {
                Ok(()) => return Ok(()),
                Err(_) if self.stop.is_stopped() => return Err(Failure::Stopped),
                // The claim is renewed all the while: the scheduler decides how long this may go on.
                Err(error @ UploadError::Unreachable { .. }) if most_rounds == Some(rounds) => {
                    return Err(reported(error));
                }
                Err(UploadError::Unreachable { last, .. }) => {
                    rounds += 1;
                    tracing::warn!(task = %task, last, rounds, "the image waits for the warehouse");
                    http::wait(backoff.delay(rounds), &self.stop);
                }
                Err(error) => return Err(reported(error)),
            }
        }
    }

    fn note(&self, progress: Progress) {
        *self.progress.lock().unwrap_or_else(PoisonError::into_inner) = progress;
    }
}

/// The index of an image built from this recipe earlier, if both are here and whole.
fn whole(folder: &Path, image: &Path, recipe: &Recipe) -> Option<Index> {
    let built = fs::read_to_string(folder.join("built")).ok()?;
    let index = Index::decode(&fs::read(folder.join("card.cardindex")).ok()?).ok()?;
    let fits = built == recipe.digest().to_hex().as_str();
    (fits && image.metadata().ok()?.len() == index.image_size()).then_some(index)
}

/// An error and what caused it, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |e| e.source());
    let text = causes.map(ToString::to_string).collect::<Vec<_>>().join(": ");
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX_REASON_LENGTH).collect()
}
