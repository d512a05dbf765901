//! Jobs that run by themselves again and again: when each ran last, how long it took, whether it failed. One run of a job at
//! a time, whoever started it.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use cardshop_protocol::api::Page;
use cardshop_protocol::time::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::core::rights::{Action, Principal};
use crate::{Scheduler, SchedulerError};

/// Name, pause and purpose of each job.
const JOBS: &[(&str, Duration, &str)] = &[
    ("orders", Duration::from_secs(2), "ends lost leases, overdue steps and downloads whose time is over"),
    ("auto-images", Duration::from_secs(2), "builds images that are due and serves what is built"),
    ("links", Duration::from_secs(2), "tells warehouses until when downloads are good"),
    ("updates", Duration::from_secs(10), "opens the next ring of a roll-out, or stops it"),
    ("warehouses", Duration::from_secs(5), "asks warehouses for their keys"),
    ("reach", Duration::from_secs(30), "looks whether warehouses, downloads and workers are there"),
    ("mail", Duration::from_secs(2), "sends letters that are due"),
    ("webhooks", Duration::from_secs(2), "calls webhooks and ntfy"),
    ("bench", Duration::from_secs(10), "looks for appliances in trouble and for work that waits for cards"),
    ("keys", Duration::from_secs(60), "publishes keys and whose tokens ended"),
    ("api-keys", Duration::from_secs(60), "writes down when API keys were used"),
    ("catalogue", Duration::from_secs(300), "fetches the catalogue of content when it has become old"),
    ("old-documents", Duration::from_secs(3600), "removes what nobody needs any more"),
    (
        "history",
        Duration::from_secs(3600),
        "removes stories and audit lines that are older than they are kept",
    ),
    ("backups", Duration::from_secs(3600), "writes the backup of the day"),
];

/// Of several schedulers each runs these, the leader alone the others.
const OF_EACH: [&str; 4] = ["reach", "keys", "api-keys", "catalogue"];

/// One job, as the API shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct JobView {
    /// Its name.
    pub id: String,
    /// What it does.
    pub purpose: String,
    /// Seconds from one run to the next.
    pub every_s: u64,
    /// Runs since the start.
    pub runs: u64,
    /// Of these, failed ones.
    pub failures: u64,
    /// When it ran last.
    pub last: Option<Timestamp>,
    /// How long that took, milliseconds.
    pub last_ms: Option<u64>,
    /// Why that failed.
    pub error: Option<String>,
}

#[derive(Default)]
struct Job {
    turn: tokio::sync::Mutex<()>,
    ran: Mutex<Ran>,
}

#[derive(Default)]
struct Ran {
    runs: u64,
    failures: u64,
    last: Option<Timestamp>,
    last_ms: Option<u64>,
    error: Option<String>,
    due: Option<tokio::time::Instant>,
}

/// All of them, by name.
pub(crate) struct Jobs(BTreeMap<&'static str, Job>);

impl Default for Jobs {
    fn default() -> Self {
        Self(JOBS.iter().map(|(name, _, _)| (*name, Job::default())).collect())
    }
}

impl Scheduler {
    pub(crate) async fn work(&self, name: &str) -> Result<(), SchedulerError> {
        match name {
            "orders" => self.tick_orders().await,
            "auto-images" => self.tick_auto_images().await,
            "links" => self.tell_links().await,
            "updates" => self.tick_updates().await,
            "warehouses" => self.ask_warehouses().await,
            "reach" => self.look_around().await,
            "mail" => self.send_mail().await,
            "webhooks" => self.call_webhooks().await,
            "bench" => self.watch_bench().await,
            "keys" => self.publish_keys(),
            "api-keys" => self.keep_key_uses().await,
            "catalogue" => self.refresh_catalogue().await,
            "old-documents" => self.clear_old().await,
            "history" => self.clear_history().await,
            "backups" => self.back_up_daily().await,
            _ => Err(SchedulerError::NotFound("job")),
        }
    }

    /// Runs a job now, after a run that is under way.
    async fn run(&self, name: &str) -> Result<(), SchedulerError> {
        let job = self.inner.jobs.0.get(name).ok_or(SchedulerError::NotFound("job"))?;
        let _turn = job.turn.lock().await;
        let (started, at) = (tokio::time::Instant::now(), self.now());
        let result = self.work(name).await;
        let every = JOBS.iter().find(|(n, _, _)| *n == name).map_or(Duration::ZERO, |(_, every, _)| *every);
        let mut ran = job.ran.lock().expect("no holder panics");
        ran.runs += 1;
        ran.last = Some(at);
        ran.last_ms = u64::try_from(started.elapsed().as_millis()).ok();
        ran.due = Some(started + every);
        ran.error = result.as_ref().err().map(ToString::to_string);
        if let Err(error) = &result {
            ran.failures += 1;
            tracing::error!(job = name, %error, "a job failed; it runs again");
        }
        result
    }

    /// Runs those of `names` that are due. What fails is told and runs again.
    pub(crate) async fn run_due(&self, names: &[&str]) {
        for name in names {
            if !OF_EACH.contains(name) && !self.leads() {
                continue;
            }
            let due = {
                let Some(job) = self.inner.jobs.0.get(name) else { continue };
                job.ran.lock().expect("no holder panics").due
            };
            if due.is_none_or(|due| tokio::time::Instant::now() >= due) {
                let _ = self.run(name).await;
            }
        }
    }

    /// All jobs.
    ///
    /// # Errors
    /// `NotAllowed`.
    pub fn jobs(&self, caller: &Principal) -> Result<Page<JobView>, SchedulerError> {
        caller.must(Action::Administer)?;
        let items = JOBS.iter().map(|(name, _, _)| self.view_job(name)).collect::<Result<_, _>>()?;
        Ok(Page { items, next_cursor: None })
    }

    fn view_job(&self, name: &str) -> Result<JobView, SchedulerError> {
        let none = SchedulerError::NotFound("job");
        let Some((id, every, purpose)) = JOBS.iter().find(|(n, _, _)| *n == name) else { return Err(none) };
        let ran = self.inner.jobs.0[id].ran.lock().expect("no holder panics");
        Ok(JobView {
            id: (*id).to_owned(),
            purpose: (*purpose).to_owned(),
            every_s: every.as_secs(),
            runs: ran.runs,
            failures: ran.failures,
            last: ran.last,
            last_ms: ran.last_ms,
            error: ran.error.clone(),
        })
    }

    /// Runs a job now; whether it failed is in the answer.
    ///
    /// # Errors
    /// `NotAllowed`, `NotFound`.
    pub async fn run_job(&self, caller: &Principal, name: &str) -> Result<JobView, SchedulerError> {
        caller.must(Action::Administer)?;
        self.view_job(name)?;
        self.inner.store.apply(self.audited(caller, "job.run", name)).await?;
        let _ = self.run(name).await;
        self.view_job(name)
    }
}
