//! What runs beside the requests: the link to the broker with its inboxes, the planner and the timers; and how
//! they are stopped.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use super::inbox::Incoming;
use super::link::{self, Inboxes};
use super::{leading, timers};
use crate::{Scheduler, SchedulerError, StoreError};

/// Workers that take messages side by side, so that their facts share a sync of the disk.
const WORKERS: usize = 8;
/// Messages that may wait for one worker.
const INBOX_LENGTH: usize = 1024;
/// Longest a stop waits before the rest is cut off.
const STOP_WITHIN: Duration = Duration::from_secs(5);

/// The running background. Dropping it stops it without last words.
pub struct Background {
    stop: watch::Sender<bool>,
    tasks: JoinSet<()>,
}

impl Background {
    /// Says goodbye to the broker and ends everything, within seconds.
    pub async fn shutdown(mut self) {
        let _ = self.stop.send(true);
        let all = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(STOP_WITHIN, all).await.is_err() {
            tracing::warn!("the background did not stop in time and is cut off");
            self.tasks.shutdown().await;
        }
    }
}

/// Lies in every part of the background: when one ends that nobody stopped, `/health` says so.
struct Alarm {
    scheduler: Scheduler,
    stop: watch::Receiver<bool>,
}

impl Drop for Alarm {
    fn drop(&mut self) {
        // An error: the background was dropped as a whole.
        let stopped = *self.stop.borrow() || self.stop.has_changed().is_err();
        if !stopped {
            tracing::error!("a part of the background ended by a mistake: restart the scheduler");
            self.scheduler.inner.metrics.background_failed.store(true, Ordering::Relaxed);
        }
    }
}

impl Scheduler {
    /// Starts the link to the broker, the planner and the timers. To be called once, inside a tokio runtime.
    pub fn start_background(&self) -> Background {
        let (stop, stopped) = watch::channel(false);
        let mut tasks = JoinSet::new();
        let mut inboxes = Vec::new();
        for _ in 0..WORKERS {
            let (inbox, messages) = mpsc::channel(INBOX_LENGTH);
            inboxes.push(inbox);
            tasks.spawn(self.watched(&stopped, take_messages(self.clone(), messages, stopped.clone())));
        }
        tasks.spawn(self.watched(&stopped, link::run(self.clone(), Inboxes(inboxes), stopped.clone())));
        tasks.spawn(self.watched(&stopped, plan(self.clone(), stopped.clone())));
        tasks.spawn(self.watched(&stopped, timers::run(self.clone(), stopped.clone())));
        tasks.spawn(self.watched(&stopped, leading::run(self.clone(), stopped.clone())));
        Background { stop, tasks }
    }

    fn watched<P: Future<Output = ()>>(
        &self,
        stop: &watch::Receiver<bool>,
        part: P,
    ) -> impl Future<Output = ()> + use<P> {
        let alarm = Alarm { scheduler: self.clone(), stop: stop.clone() };
        async move {
            let _alarm = alarm;
            part.await;
        }
    }
}

async fn take_messages(
    scheduler: Scheduler,
    mut messages: mpsc::Receiver<Incoming>,
    mut stop: watch::Receiver<bool>,
) {
    loop {
        tokio::select! {
            message = messages.recv() => match message {
                Some(message) => scheduler.take_message(message).await,
                None => return,
            },
            _ = stop.changed() => return,
        }
    }
}

async fn plan(scheduler: Scheduler, mut stop: watch::Receiver<bool>) {
    loop {
        tokio::select! {
            () = scheduler.inner.replan.notified() => {}
            _ = stop.changed() => return,
        }
        if !scheduler.leads() {
            continue;
        }
        scheduler.plan_now().await;
    }
}

impl Scheduler {
    /// Plans leases and tells the boards; anew when somebody changed what the plan was made of.
    pub(crate) async fn plan_now(&self) {
        match self.plan_leases().await.and_then(|()| self.publish_boards()) {
            Ok(()) => {}
            Err(SchedulerError::Store(StoreError::Conflict { .. })) => self.inner.replan.notify_one(),
            Err(error) => tracing::error!(%error, "planning failed; it runs again within a minute"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use tokio::sync::watch;

    use crate::{Config, Scheduler};

    #[tokio::test]
    async fn a_part_that_ends_by_a_mistake_is_told_and_one_that_is_stopped_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let config = Config {
            data: directory.path().into(),
            public_url: "http://127.0.0.1:1".into(),
            mqtt_url: "mqtt://127.0.0.1:1".into(),
            mqtt_ca: None,
            appliance_mqtt_url: None,
            own_ca: None,
            roots: ureq::tls::RootCerts::WebPki,
            warehouses: Vec::new(),
            admin_password: None,
            catalogue: crate::CatalogueConfig::default(),
            keeping: crate::Keeping::default(),
            notify: Default::default(),
        };
        let (scheduler, _) = Scheduler::open(config).await.unwrap();
        let failed = || scheduler.inner.metrics.background_failed.load(Ordering::Relaxed);
        scheduler.start_background().shutdown().await;
        drop(scheduler.start_background());
        tokio::task::yield_now().await;
        assert!(!failed());
        let (_stop, stopped) = watch::channel(false);
        let part = scheduler.watched(&stopped, async { panic!("a mistake") });
        assert!(tokio::spawn(part).await.is_err());
        assert!(failed());
    }
}
