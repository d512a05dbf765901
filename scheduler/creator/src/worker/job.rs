//! One claimed task: build, upload, and beside it a thread that reports, sends the log, and hears of a stop.

use std::fmt;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use cardshop_protocol::api::{CreationPhase, CreationReport, CreationTask, Grant};
use cardshop_protocol::ids::ImageId;
use cardshop_protocol::index::Index;

use super::Worker;
use super::folder::whole;
use super::log::TaskLog;
use super::pace::{self, Pace, Rates};
use crate::StopFlag;
use crate::build::{self, BuildError, LocalFiles, Options, Progress};
use crate::configuration::{self, Catalogue, Configuration, recipe_of};
use crate::early::{AbandonOnDrop, Growing};
use crate::http;
use crate::recipe::Recipe;
use crate::session::{ApiError, Session};
use crate::simulate;
use crate::sizing::Sizing;
use crate::upload::{EarlyUpload, UploadError, Uploader};
use crate::watch::Watcher;

/// Rounds of fruitless tries after the first that a mirror gets: its image is one more copy, not the only one.
const MIRROR_ROUNDS: u32 = 2;
/// Between two reports of a task: a `stop` in an answer takes effect within it and 1 s.
const REPORT_INTERVAL: Duration = Duration::from_secs(3);
/// How often the reporting thread looks whether a stop was asked for or a step has begun.
const POLL: Duration = Duration::from_millis(200);
/// Longest reason that is reported, characters.
const MAX_REASON_LENGTH: usize = 500;
/// Rows of the size table that go into the log.
const MAX_ROWS_LOGGED: usize = 50;
/// An image of which at most this many bytes, or this part, are zeros is uploaded while it is built: they travel then.
const FEW_ZEROS: u64 = 64 * 1024 * 1024;
const ZEROS_DIVISOR: u64 = 5;
const YELLOW: &str = "\u{1b}[33m";
const RED: &str = "\u{1b}[31m";
const PLAIN: &str = "\u{1b}[0m";

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

/// What the reports tell, shared with the build's watcher.
struct Told {
    begun: Instant,
    progress: Mutex<Progress>,
    pace: Mutex<Pace>,
    log: Mutex<TaskLog>,
    /// Bytes that the scheduler has of each step's log, as far as it is known.
    log_sizes: Mutex<[Option<u64>; 4]>,
    growing: Growing,
    /// False when the image has so many zeros that it had better travel packed.
    early: AtomicBool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Told {
    fn line(&self, text: fmt::Arguments<'_>) {
        let phase = lock(&self.progress).phase;
        lock(&self.log).add(self.begun.elapsed(), phase, &text.to_string());
    }

    fn note(&self, progress: Progress) {
        let now = self.begun.elapsed();
        let before = std::mem::replace(&mut *lock(&self.progress), progress);
        lock(&self.pace).note(now, progress);
        if before.phase != progress.phase {
            self.line(format_args!("{}, {}", name(progress.phase), megabytes(progress.total)));
        }
    }

    fn sizes(&self, sizing: &Sizing) {
        lock(&self.pace).expect(sizing.download_bytes, sizing.disk_bytes);
        let zeros = sizing.image_bytes.saturating_sub(sizing.disk_bytes);
        let few = zeros <= FEW_ZEROS.max(sizing.image_bytes / ZEROS_DIVISOR);
        self.early.store(few, Ordering::Relaxed);
        for row in sizing.rows.iter().take(MAX_ROWS_LOGGED) {
            self.line(format_args!("{:>14}  {}", megabytes(row.bytes), row.what));
        }
        if let Some(more) = sizing.rows.len().checked_sub(MAX_ROWS_LOGGED).filter(|more| *more > 0) {
            self.line(format_args!("{:>14}  and {more} more", ""));
        }
        self.line(format_args!(
            "the image has {}, {} must be downloaded",
            megabytes(sizing.image_bytes),
            megabytes(sizing.download_bytes)
        ));
    }
}

fn name(phase: CreationPhase) -> &'static str {
    match phase {
        CreationPhase::Downloading => "downloading",
        CreationPhase::Building => "building",
        CreationPhase::Indexing => "indexing",
        CreationPhase::Uploading => "uploading",
    }
}

fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}

/// One claimed task.
pub(super) struct Job<'a> {
    worker: &'a Worker<'a>,
    session: &'a Session,
    task: CreationTask,
    grant: Mutex<Grant>,
    told: Arc<Told>,
    /// Ends the build and the upload.
    stop: StopFlag,
    /// Ends the reports.
    ended: StopFlag,
}

impl<'a> Job<'a> {
    pub(super) fn new(worker: &'a Worker<'a>, task: CreationTask, rates: Rates) -> Self {
        let progress = Progress { phase: CreationPhase::Downloading, done: 0, total: 0 };
        let told = Told {
            begun: Instant::now(),
            progress: Mutex::new(progress),
            pace: Mutex::new(Pace::new(rates)),
            log: Mutex::default(),
            log_sizes: Mutex::default(),
            growing: Growing::default(),
            early: AtomicBool::new(false),
        };
        let grant = Mutex::new(task.grant.clone());
        let (stop, ended) = (StopFlag::new(), StopFlag::new());
        Self { worker, session: worker.session, task, grant, told: Arc::new(told), stop, ended }
    }

    /// Works the task to its end, and gives the rates of a task that was done.
    pub(super) fn run(&self) -> Option<Rates> {
        let id = self.task.task;
        tracing::info!(task = %id, name = self.task.name, "claimed");
        self.told.line(format_args!("order {}, image for {}", self.task.name, self.task.channel));
        thread::scope(|scope| {
            let reports = scope.spawn(|| self.keep_reporting());
            let ending = Ending { ended: &self.ended, reports: reports.thread().clone() };
            let done = self.make();
            drop(ending);
            let report = match done {
                Ok(image) => CreationReport::Succeeded { image },
                Err(Failure::Reported { reason, permanent }) => CreationReport::Failed { reason, permanent },
                Err(Failure::Stopped) => {
                    tracing::info!(task = %id, "stopped");
                    if self.worker.stop.is_stopped() {
                        self.session.give_back(id);
                    }
                    return None;
                }
            };
            match &report {
                CreationReport::Failed { reason, .. } => self.told.line(format_args!("{RED}{reason}{PLAIN}")),
                _ => self.told.line(format_args!("done")),
            }
            self.send_log();
            self.finish(&report);
            let succeeded = matches!(report, CreationReport::Succeeded { .. });
            succeeded.then(|| lock(&self.told.pace).end(self.told.begun.elapsed()))
        })
    }

    /// Renews the claim until the task has ended, and hands on a stop from either side.
    fn keep_reporting(&self) {
        let (mut due, mut phase) = (Instant::now(), None);
        while !self.ended.is_stopped() {
            if self.worker.stop.is_stopped() {
                self.stop.stop();
                return;
            }
            let now_in = lock(&self.told.progress).phase;
            // A new step is told at once: who cancels because of it is heard in it.
            if Instant::now() >= due || phase != Some(now_in) {
                self.report_running();
                self.send_log();
                (due, phase) = (Instant::now() + REPORT_INTERVAL, Some(now_in));
            }
            thread::park_timeout(POLL);
        }
    }

    fn report_running(&self) {
        let Progress { phase, done, total } = *lock(&self.told.progress);
        let eta_s = lock(&self.told.pace).eta(self.told.begun.elapsed()).map(|eta| eta.as_secs());
        match self.session.report(self.task.task, &CreationReport::Running { phase, done, total, eta_s }) {
            Ok(answer) if answer.stop => self.stop.stop(),
            Ok(answer) => {
                if let Some(grant) = answer.grant {
                    *lock(&self.grant) = grant;
                }
            }
            Err(ApiError::Away(text)) => tracing::debug!(text, "a report was not heard"),
            Err(error) => {
                tracing::warn!(task = %self.task.task, error = %error, "the task is not ours any more");
                self.stop.stop();
            }
        }
    }

    /// Sends what the log has; what is not heard waits.
    fn send_log(&self) {
        let mut sizes = lock(&self.told.log_sizes);
        loop {
            let Some(piece) = lock(&self.told.log).piece() else { return };
            let size = &mut sizes[pace::step(piece.phase)];
            match self.send_piece(size, piece.phase, &piece.text) {
                Ok(()) => lock(&self.told.log).sent(&piece),
                Err(error) => return tracing::debug!(%error, "a piece of the log was not heard"),
            }
        }
    }

    /// Sends a piece to where the log ends; of a task that another worker had before, that is not its beginning.
    fn send_piece(&self, size: &mut Option<u64>, phase: CreationPhase, text: &str) -> Result<(), ApiError> {
        let task = self.task.task;
        let offset = match *size {
            Some(offset) => offset,
            None => self.session.log(task, phase, 0, "")?,
        };
        *size = Some(offset);
        let sent = self.session.log(task, phase, offset, text);
        match &sent {
            Ok(now) => *size = Some(*now),
            // Sent again with the same offset it is not there twice.
            Err(ApiError::Away(_)) => {}
            Err(_) => *size = None,
        }
        sent.map(|_| ())
    }

    /// Says how it ended until that is heard, then clears up.
    fn finish(&self, report: &CreationReport) {
        let id = self.task.task;
        let mut failures = 0;
        loop {
            match self.session.report(id, report) {
                Ok(_) => break,
                Err(ApiError::Away(text)) => {
                    failures += 1;
                    tracing::warn!(task = %id, text, failures, "the end of the task was not heard");
                    if !http::wait(self.worker.config.backoff.delay(failures), self.worker.stop) {
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
        if let Err(error) = fs::remove_dir_all(self.worker.folder.task(id)) {
            tracing::warn!(task = %id, error = %error, "the task's folder stays");
        }
    }

    fn make(&self) -> Result<ImageId, Failure> {
        // Before hours of work: the upload would refuse it.
        http::check_address(&self.task.warehouse).map_err(|fault| Failure::Reported {
            reason: format!("the warehouse: {fault}"),
            permanent: false,
        })?;
        let folder = self.worker.folder.prepare(self.task.task)?;
        let image = folder.join("card.img");
        let options = self.options(&image);
        let recipe = self.recipe(&options)?;
        let index = match whole(&folder, &image, &recipe) {
            Some(index) if index.image_size() <= self.task.max_image_bytes => {
                tracing::info!(task = %self.task.task, "its image is here already");
                self.told.line(format_args!("the image was built before and is here"));
                index
            }
            _ => self.build(&recipe, &folder, &options)?,
        };
        self.upload(&image, &index)?;
        Ok(index.id())
    }

    fn options(&self, image: &Path) -> Options {
        let config = self.worker.config;
        Options {
            image: image.to_owned(),
            cache: config.cache.clone().unwrap_or_else(|| self.worker.folder.root.join("cache")),
            local_files: config.content.clone().map_or(LocalFiles::Refused, LocalFiles::Below),
            max_image_bytes: Some(self.task.max_image_bytes),
            backoff: config.backoff,
            offline: false,
            policy: config.policy.clone(),
            watcher: self.watcher(),
        }
    }

    /// The task's recipe; of a configuration, with the catalogue as it is now.
    fn recipe(&self, options: &Options) -> Result<Recipe, Failure> {
        let configuration = Configuration::of_value(&self.task.recipe).map_err(BuildError::from)?;
        let Some(configuration) = configuration else {
            return Ok(Recipe::from_value(&self.task.recipe).map_err(BuildError::from)?);
        };
        let converted = match self.worker.config.simulate {
            true => recipe_of(&configuration, &Catalogue::default()).map_err(BuildError::from)?,
            false => configuration::resolve(&configuration, options, &self.stop)?,
        };
        for gone in &converted.vanished {
            tracing::warn!(task = %self.task.task, %gone);
            self.told.line(format_args!("{YELLOW}{gone}{PLAIN}"));
        }
        Ok(converted.recipe)
    }

    fn build(&self, recipe: &Recipe, folder: &Path, options: &Options) -> Result<Index, Failure> {
        let marker = folder.join("built");
        if marker.exists() {
            fs::remove_file(&marker)?;
        }
        let build = if self.worker.config.simulate { simulate::build } else { build::build };
        let built = thread::scope(|scope| {
            let ended = AbandonOnDrop(&self.told.growing);
            let early = scope.spawn(|| self.upload_early());
            let built = build(recipe, options, &self.stop, &mut |progress| self.told.note(progress))?;
            self.await_early(&built.index, &early);
            drop(ended);
            Ok::<_, BuildError>(built)
        })?;
        for note in &built.notes {
            tracing::info!(task = %self.task.task, note);
            self.told.line(format_args!("{YELLOW}{note}{PLAIN}"));
        }
        fs::write(folder.join("card.cardindex"), built.index.encode())?;
        fs::write(marker, recipe.digest().to_hex().as_bytes())?;
        Ok(built.index)
    }

    /// Uploads what is final of the image while the rest of it is built.
    fn upload_early(&self) {
        let CreationTask { task, name, warehouse, .. } = &self.task;
        let config = self.worker.config;
        let (backoff, roots) = (config.backoff, config.roots.clone());
        let upload = EarlyUpload { warehouse, task: *task, name, backoff, roots };
        let token = || lock(&self.grant).upload_token.clone();
        match upload.run(&self.told.growing, &token) {
            Ok(()) => tracing::debug!(%task, "uploaded while it was built"),
            Err(error) => tracing::debug!(%task, %error, "not uploaded while it was built"),
        }
    }

    /// Waits for the early upload if less is left of it than a new one would have to carry.
    fn await_early(&self, index: &Index, early: &thread::ScopedJoinHandle<'_, ()>) {
        let (size, growing) = (index.image_size(), &self.told.growing);
        let packed: u64 = index.travelling().map(|n| index.chunk_range(n)).map(|r| r.end - r.start).sum();
        let sent = growing.sent();
        if sent == 0 || size - sent.min(size) >= packed {
            return;
        }
        self.told.line(format_args!(
            "{} of {} were uploaded while the image was built",
            megabytes(sent),
            megabytes(size)
        ));
        while !early.is_finished() && !self.stop.is_stopped() {
            self.told.note(Progress { phase: CreationPhase::Uploading, done: growing.sent(), total: size });
            thread::park_timeout(POLL);
        }
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
                    self.told.line(format_args!("{YELLOW}mirror {mirror}: {reason}{PLAIN}"));
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
        let backoff = self.worker.config.backoff;
        let mut uploader = Uploader::new(warehouse, *task, name, image, index, backoff).map_err(reported)?;
        uploader.roots = self.worker.config.roots.clone();
        self.told.note(Progress { phase: CreationPhase::Uploading, done: 0, total: index.image_size() });
        let token = || lock(&self.grant).upload_token.clone();
        let mut rounds = 0;
        loop {
            let uploaded = uploader.run(&token, &self.stop, &mut |done, total| {
                self.told.note(Progress { phase: CreationPhase::Uploading, done, total });
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
                    self.told.line(format_args!("{YELLOW}the image waits for the warehouse: {last}{PLAIN}"));
                    http::wait(backoff.delay(rounds), &self.stop);
                }
                Err(error) => return Err(reported(error)),
            }
        }
    }

    fn watcher(&self) -> Watcher {
        let (lines, sizes, early) = (self.told.clone(), self.told.clone(), self.told.clone());
        let line = move |line: &str| lines.line(format_args!("{line}"));
        Watcher::new(line, move |sizing| sizes.sizes(sizing)).with_final(move |image, upto| {
            // Without the file there is no early upload, which is all that is lost.
            if early.early.load(Ordering::Relaxed) && early.growing.written(image, upto).is_err() {
                early.growing.abandon();
            }
        })
    }
}

/// An error and what caused it, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |e| e.source());
    let text = causes.map(ToString::to_string).collect::<Vec<_>>().join(": ");
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX_REASON_LENGTH).collect()
}
