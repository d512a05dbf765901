//! The worker against a scheduler and a warehouse that the test plays.

#![allow(clippy::unwrap_used)] // helpers of tests

mod common;

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use cardshop_creator::worker::{self, Config, WorkerError};
use cardshop_creator::{Backoff, StopFlag};
use cardshop_protocol::api::{CreationPhase, CreationReport, CreationTask, Grant, ReportAnswer, TokenPair};
use cardshop_protocol::ids::{OrderId, TaskId};
use cardshop_protocol::time::Timestamp;
use common::server::{Reply, Request, Server};
use common::warehouse::Warehouse;
use common::{Bench, DATA_START, read_data};
use serde_json::{Value, json};

/// Longest a test waits for the worker to get somewhere.
const PATIENCE: Duration = Duration::from_secs(30);
const PASSWORD: &str = "correct horse";

/// By task and kind.
type Logs = Arc<Mutex<HashMap<(String, String), String>>>;
type OnReport = dyn Fn(&CreationReport) -> bool + Send + Sync;

/// A scheduler with at most one task to give, and the warehouse at the same address.
struct Site {
    server: Server,
    warehouse: Warehouse,
    tasks: Arc<Mutex<Vec<CreationTask>>>,
    reports: Arc<Mutex<Vec<CreationReport>>>,
    logs: Logs,
    /// While true, nobody answers below `/api`.
    away: Arc<Mutex<bool>>,
    /// Says whether a report is answered with stop.
    on_report: Arc<Mutex<Box<OnReport>>>,
}

fn grant() -> Grant {
    Grant { lease_until: Timestamp::from_ms(0), upload_token: "upload".into() }
}

impl Site {
    fn start() -> Self {
        let warehouse = Warehouse::default();
        let (tasks, reports) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(Vec::new())));
        let away = Arc::new(Mutex::new(false));
        let on_report: Arc<Mutex<Box<OnReport>>> = Arc::new(Mutex::new(Box::new(|_| false)));
        let (store, queue, heard) = (warehouse.clone(), tasks.clone(), reports.clone());
        let (gone, decide) = (away.clone(), on_report.clone());
        let logs = Logs::default();
        let written = logs.clone();
        let server = Server::start(move |request| {
            let Some(path) = request.path.strip_prefix("/api/v1") else { return store.answer(request) };
            if *gone.lock().unwrap() {
                return Reply::status(503);
            }
            match path {
                "/auth/login" if request.json()["password"] == PASSWORD => Reply::json(&pair(1)),
                "/auth/login" => Reply::status(401),
                "/auth/refresh" => Reply::json(&pair(2)),
                _ if request.header("authorization").is_none() => Reply::status(401),
                "/tasks/claim" => queue.lock().unwrap().pop().map_or(Reply::status(204), |t| Reply::json(&t)),
                path if path.ends_with("/log") => append(path, &request.json(), &written),
                _ => report(request, &heard, &**decide.lock().unwrap()),
            }
        });
        Self { server, warehouse, tasks, reports, logs, away, on_report }
    }

    fn give(&self, recipe: Value) -> TaskId {
        self.give_with(recipe, Vec::new())
    }

    fn give_with(&self, recipe: Value, mirrors: Vec<String>) -> TaskId {
        self.give_order(1, recipe, mirrors)
    }

    /// A task of order number `n`.
    fn give_order(&self, n: u64, recipe: Value, mirrors: Vec<String>) -> TaskId {
        let task = TaskId::creation(OrderId::from_parts(n, 1));
        self.tasks.lock().unwrap().push(CreationTask {
            task,
            name: "Demo".into(),
            channel: "demo".parse().unwrap(),
            recipe,
            max_image_bytes: 8_000_000_000,
            warehouse: self.server.url(""),
            mirrors,
            grant: grant(),
        });
        task
    }

    fn worker(&self, work: &Path, content: &Path) -> Worker {
        self.worker_with(work, content, |_| ())
    }

    fn worker_with(&self, work: &Path, content: &Path, change: impl FnOnce(&mut Config)) -> Worker {
        let backoff = Backoff { first: Duration::from_millis(5), most: Duration::from_millis(20) };
        let content = Some(content.to_owned());
        let mut config =
            Config { content, backoff, ..Config::new(&self.server.url("/"), "maker", PASSWORD, work) };
        change(&mut config);
        let stop = StopFlag::new();
        let flag = stop.clone();
        Worker { stop, thread: Some(thread::spawn(move || worker::run(config, flag))) }
    }

    fn reports(&self) -> Vec<CreationReport> {
        self.reports.lock().unwrap().clone()
    }

    /// What of a task's logs has arrived, step after step.
    fn log(&self, task: TaskId) -> String {
        let (logs, path) = (self.logs.lock().unwrap(), format!("/tasks/{task}/log"));
        let kinds = ["download", "build", "index", "upload"].map(|kind| (path.clone(), kind.to_owned()));
        kinds.iter().filter_map(|key| logs.get(key)).cloned().collect()
    }

    /// Waits for the report that ends a task.
    fn end(&self) -> CreationReport {
        let ends = |r: &CreationReport| {
            matches!(r, CreationReport::Succeeded { .. } | CreationReport::Failed { .. })
        };
        wait_for("the end of the task", || self.reports().into_iter().find(ends))
    }
}

fn pair(number: u32) -> TokenPair {
    let [access_token, refresh_token] = ["access", "refresh"].map(|kind| format!("{kind} {number}"));
    TokenPair { access_token, refresh_token, expires_in: 3600 }
}

fn report(request: &Request, heard: &Mutex<Vec<CreationReport>>, decide: &OnReport) -> Reply {
    let report: CreationReport = serde_json::from_slice(&request.body).unwrap();
    let stop = decide(&report);
    heard.lock().unwrap().push(report);
    Reply::json(&ReportAnswer { stop, grant: Some(grant()) })
}

/// Takes what of a piece is new, and says where the next one begins.
fn append(path: &str, piece: &Value, logs: &Logs) -> Reply {
    let (kind, text) = (piece["kind"].as_str().unwrap(), piece["text"].as_str().unwrap());
    let mut logs = logs.lock().unwrap();
    let log = logs.entry((path.to_owned(), kind.to_owned())).or_default();
    let offset = piece["offset"].as_u64().unwrap() as usize;
    if offset > log.len() {
        return Reply::status(409);
    }
    let new = text.get(log.len() - offset..).unwrap_or_default().to_owned();
    log.push_str(&new);
    Reply::json(&json!({"task": path, "kind": kind, "size": log.len()}))
}

fn wait_for<T>(what: &str, found: impl Fn() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(value) = found() {
            return value;
        }
        assert!(begun.elapsed() < PATIENCE, "waited too long for {what}");
        thread::park_timeout(Duration::from_millis(5));
    }
}

struct Worker {
    stop: StopFlag,
    thread: Option<thread::JoinHandle<Result<(), WorkerError>>>,
}

impl Worker {
    fn end(mut self) -> Result<(), WorkerError> {
        self.stop.stop();
        self.thread.take().unwrap().join().unwrap()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.stop.stop();
    }
}

fn recipe() -> Value {
    json!({"files": [{"to": "/data/a.txt", "url": "a.txt"}]})
}

fn bench() -> Bench {
    let bench = Bench::new();
    std::fs::create_dir(bench.path("content")).unwrap();
    bench.write("content/a.txt", b"hello");
    bench
}

fn leftovers(work: &Path) -> usize {
    std::fs::read_dir(work.join("tasks")).unwrap().count()
}

#[test]
fn a_task_becomes_an_image_in_the_warehouse_and_nothing_stays_behind() {
    let (bench, site) = (bench(), Site::start());
    site.give(recipe());
    let work = bench.path("work");
    let worker = site.worker(&work, &bench.path("content"));
    let CreationReport::Succeeded { image } = site.end() else { panic!("{:?}", site.reports()) };
    wait_for("the work folder to be cleared", || (leftovers(&work) == 0).then_some(()));
    worker.end().unwrap();
    assert!(matches!(site.reports()[0], CreationReport::Running { .. }), "the claim is renewed at once");
    bench.write("card.img", &site.warehouse.image(&image.to_string()).unwrap());
    assert_eq!(read_data(&bench.path("card.img"), DATA_START, "/a.txt"), b"hello");
    assert_eq!(site.warehouse.metadata()[0]["name"], "Demo");
}

#[test]
fn an_image_goes_to_its_mirrors_too_and_one_that_is_away_does_not_hold_up_the_order() {
    let (bench, site) = (bench(), Site::start());
    let mirror = Warehouse::default();
    let behind = mirror.clone();
    let server = Server::start(move |request| behind.answer(request));
    let away = Server::start(|_| Reply::status(503));
    site.give_with(recipe(), vec![away.url(""), server.url("")]);
    let worker = site.worker(&bench.path("work"), &bench.path("content"));
    let CreationReport::Succeeded { image } = site.end() else { panic!("{:?}", site.reports()) };
    worker.end().unwrap();
    let stored = site.warehouse.image(&image.to_string()).unwrap();
    assert!(mirror.image(&image.to_string()).unwrap() == stored);
}

#[test]
fn a_wrong_recipe_is_reported_for_good_and_a_forbidden_file_too() {
    for (recipe, reason) in [
        (json!({"fils": []}), "unknown field `fils`"),
        (json!({"files": [{"to": "/data/p", "url": "../../../etc/passwd"}]}), "may not read files"),
        (json!({"files": [{"to": "/data/p", "url": "/etc/passwd"}]}), "may not read files"),
    ] {
        let (bench, site) = (bench(), Site::start());
        site.give(recipe);
        let _worker = site.worker(&bench.path("work"), &bench.path("content"));
        let CreationReport::Failed { reason: said, permanent: true } = site.end() else {
            panic!("{:?}", site.reports())
        };
        assert!(said.contains(reason), "{said}");
    }
}

#[test]
fn a_wrong_password_ends_the_worker_and_a_server_that_is_away_does_not() {
    let (bench, site) = (bench(), Site::start());
    let config = Config::new(&site.server.url(""), "maker", "wrong", &bench.path("work"));
    let error = worker::run(config, StopFlag::new()).unwrap_err();
    assert!(matches!(error, WorkerError::Login(_)), "{error}");
    let config = Config::new("http://shop.example", "maker", PASSWORD, &bench.path("work"));
    assert!(matches!(worker::run(config, StopFlag::new()), Err(WorkerError::Address(_))));

    *site.away.lock().unwrap() = true;
    site.give(recipe());
    let worker = site.worker(&bench.path("work"), &bench.path("content"));
    wait_for("some tries", || (site.server.requests("POST", "/api/v1/auth/login").len() > 3).then_some(()));
    *site.away.lock().unwrap() = false;
    assert!(matches!(site.end(), CreationReport::Succeeded { .. }));
    worker.end().unwrap();
}

#[test]
fn a_stop_in_an_answer_ends_a_download_that_hangs() {
    let (bench, site) = (bench(), Site::start());
    // Accepts and says nothing.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/f", silent.local_addr().unwrap());
    *site.on_report.lock().unwrap() = Box::new(|_| true);
    site.give(json!({"files": [{"to": "/data/f", "url": url}]}));
    let work = bench.path("work");
    let worker = site.worker(&work, &bench.path("content"));
    wait_for("the first report", || site.reports().first().cloned());
    let begun = Instant::now();
    let claims = || site.server.requests("POST", "/api/v1/tasks/claim").len();
    wait_for("the next claim", || (claims() > 1).then_some(()));
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    assert!(site.reports().iter().all(|r| matches!(r, CreationReport::Running { .. })));
    worker.end().unwrap();
}

#[test]
fn an_image_waits_for_its_warehouse_and_is_not_built_again_even_after_a_restart() {
    let (bench, site) = (bench(), Site::start());
    let (work, content) = (bench.path("work"), bench.path("content"));
    site.warehouse.set_away(true);
    site.give(recipe());
    let worker = site.worker(&work, &content);
    let tried = || site.server.requests("POST", "/files").len();
    wait_for("some uploads", || (tried() > 10).then_some(()));
    worker.end().unwrap();
    assert_eq!(leftovers(&work), 1, "the image is kept");
    assert!(
        !site.reports().iter().any(|r| matches!(r, CreationReport::Failed { .. })),
        "the order loses no try"
    );

    // Without its content it cannot be built again.
    std::fs::remove_file(bench.path("content/a.txt")).unwrap();
    site.give(recipe());
    let worker = site.worker(&work, &content);
    wait_for("another upload", || (tried() > 20).then_some(()));
    site.warehouse.set_away(false);
    assert!(matches!(site.end(), CreationReport::Succeeded { .. }), "{:?}", site.reports());
    wait_for("the work folder to be cleared", || (leftovers(&work) == 0).then_some(()));
    worker.end().unwrap();
}

#[test]
fn two_workers_do_not_share_a_folder_and_a_killed_ones_leftovers_go() {
    let (bench, site) = (bench(), Site::start());
    let work = bench.path("work");
    std::fs::create_dir_all(work.join("tasks/half")).unwrap();
    std::fs::write(work.join("tasks/half/card.img.part"), b"half").unwrap();
    let worker = site.worker(&work, &bench.path("content"));
    wait_for("a claim", || (!site.server.requests("POST", "/api/v1/tasks/claim").is_empty()).then_some(()));
    assert_eq!(leftovers(&work), 0);
    let second = Config::new(&site.server.url(""), "maker", PASSWORD, &work);
    assert!(matches!(worker::run(second, StopFlag::new()), Err(WorkerError::WorkInUse(_))));
    worker.end().unwrap();
}

#[test]
fn a_stop_in_an_answer_ends_an_upload_that_hangs() {
    let (bench, site) = (bench(), Site::start());
    // A warehouse that accepts and says nothing.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let warehouse = format!("http://{}", silent.local_addr().unwrap());
    *site.on_report.lock().unwrap() =
        Box::new(|report| matches!(report, CreationReport::Running { phase: CreationPhase::Uploading, .. }));
    site.give(recipe());
    site.tasks.lock().unwrap()[0].warehouse = warehouse;
    let work = bench.path("work");
    let worker = site.worker(&work, &bench.path("content"));
    let stopped_at = wait_for("a report of the upload", || {
        let uploading =
            |r: &CreationReport| matches!(r, CreationReport::Running { phase: CreationPhase::Uploading, .. });
        site.reports().iter().any(uploading).then(Instant::now)
    });
    let claims = || site.server.requests("POST", "/api/v1/tasks/claim").len();
    wait_for("the next claim", || (claims() > 1).then_some(()));
    assert!(stopped_at.elapsed() < Duration::from_secs(5), "{:?}", stopped_at.elapsed());
    assert!(site.reports().iter().all(|r| matches!(r, CreationReport::Running { .. })));
    worker.end().unwrap();
}

#[test]
fn several_tasks_are_worked_on_at_once_and_each_becomes_its_image() {
    let (bench, site) = (bench(), Site::start());
    let ids: Vec<TaskId> = (1..=3).map(|n| site.give_order(n, recipe(), Vec::new())).collect();
    // Nobody answers an upload before all three are there.
    site.warehouse.set_away(true);
    let worker = site.worker_with(&bench.path("work"), &bench.path("content"), |config| config.tasks = 3);
    let uploading = |task: &TaskId| {
        let path = format!("/api/v1/tasks/{task}/report");
        site.server.requests("POST", &path).iter().any(|r| r.json()["phase"] == "uploading")
    };
    wait_for("three uploads at once", || ids.iter().all(uploading).then_some(()));
    assert_eq!(leftovers(&bench.path("work")), 3);
    site.warehouse.set_away(false);
    let done = |r: &CreationReport| matches!(r, CreationReport::Succeeded { .. });
    wait_for("three images", || (site.reports().iter().filter(|r| done(r)).count() == 3).then_some(()));
    wait_for("the work folder to be cleared", || (leftovers(&bench.path("work")) == 0).then_some(()));
    worker.end().unwrap();
}

#[test]
fn a_worker_that_is_told_to_end_gives_its_tasks_back_and_another_goes_on_with_the_image() {
    let (bench, site) = (bench(), Site::start());
    let (work, content) = (bench.path("work"), bench.path("content"));
    site.warehouse.set_away(true);
    let task = site.give(recipe());
    let worker = site.worker(&work, &content);
    wait_for("an upload", || (!site.server.requests("POST", "/files").is_empty()).then_some(()));
    worker.end().unwrap();
    assert_eq!(site.reports().last(), Some(&CreationReport::Returned), "{:?}", site.reports());
    assert!(!site.reports().iter().any(|r| matches!(r, CreationReport::Failed { .. })));

    site.warehouse.set_away(false);
    assert_eq!(site.give(recipe()), task);
    std::fs::remove_file(bench.path("content/a.txt")).unwrap();
    let worker = site.worker(&work, &content);
    assert!(matches!(site.end(), CreationReport::Succeeded { .. }));
    worker.end().unwrap();
    let log = site.log(task);
    assert_eq!(
        log.matches("order Demo").count(),
        2,
        "the second worker's log goes on behind the first's: {log}"
    );
    assert!(log.contains("was built before"), "{log}");
}

#[test]
fn the_log_of_a_task_arrives_in_order_while_it_runs_and_its_reports_tell_the_steps() {
    let (bench, site) = (bench(), Site::start());
    site.warehouse.set_away(true);
    let first = site.give_order(1, recipe(), Vec::new());
    let worker = site.worker(&bench.path("work"), &bench.path("content"));
    wait_for("word of the warehouse", || {
        site.log(first).contains("\u{1b}[33mthe image waits for the warehouse").then_some(())
    });
    site.warehouse.set_away(false);
    site.end();
    let log = wait_for("the last line", || Some(site.log(first)).filter(|log| log.ends_with("done\n")));
    let places: Vec<_> =
        ["order Demo", "/data/a.txt", "a.txt: here, 5 bytes", "mke2fs took", "indexing", "uploading"]
            .iter()
            .map(|text| log.find(text).unwrap_or_else(|| panic!("{text} is not in {log}")))
            .collect();
    assert!(places.is_sorted(), "{log}");

    worker.end().unwrap();
    // Steps that take no time have no report of their own; the upload took until the warehouse was back.
    let running = site.reports().into_iter().filter_map(|report| match report {
        CreationReport::Running { phase, .. } => Some(phase),
        _ => None,
    });
    let running: Vec<_> = running.collect();
    assert!(
        running.contains(&CreationPhase::Downloading) && running.contains(&CreationPhase::Uploading),
        "{running:?}"
    );
}

#[test]
fn a_worker_that_simulates_checks_the_recipe_and_uploads_a_small_card_without_content() {
    let (bench, site) = (bench(), Site::start());
    let far = json!({"files": [{"to": "/data/f", "url": "https://nowhere.invalid/f"}]});
    site.give_order(1, far, Vec::new());
    let worker =
        site.worker_with(&bench.path("work"), &bench.path("content"), |config| config.simulate = true);
    let CreationReport::Succeeded { image } = site.end() else { panic!("{:?}", site.reports()) };
    let stored = site.warehouse.image(&image.to_string()).unwrap();
    assert_eq!(stored.len(), DATA_START as usize);
    site.give_order(2, json!({"fils": []}), Vec::new());
    wait_for("the refusal of a wrong recipe", || {
        let wrong = |r: &CreationReport| matches!(r, CreationReport::Failed { permanent: true, .. });
        site.reports().iter().any(wrong).then_some(())
    });
    worker.end().unwrap();
}

#[test]
fn a_large_image_is_there_whether_it_was_uploaded_early_or_not() {
    let (bench, site) = (bench(), Site::start());
    bench.write("content/large.bin", &common::noise(7, 48 << 20));
    let recipe = json!({"files": [{"to": "/data/large.bin", "url": "large.bin"}]});
    let worker = site.worker(&bench.path("work"), &bench.path("content"));
    let task = site.give(recipe);
    let CreationReport::Succeeded { image } = site.end() else { panic!("{:?}", site.reports()) };
    worker.end().unwrap();
    let kinds: Vec<_> = site.warehouse.metadata().iter().map(|m| m["kind"].clone()).collect();
    assert!(kinds.contains(&"image".to_owned()), "the upload began before the image was built: {kinds:?}");
    bench.write("card.img", &site.warehouse.image(&image.to_string()).unwrap());
    assert!(read_data(&bench.path("card.img"), DATA_START, "/large.bin") == common::noise(7, 48 << 20));
    assert!(site.log(task).contains("bytes of large files copied"), "{}", site.log(task));
}
