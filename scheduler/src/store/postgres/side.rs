//! The connection beside the pool: hears what other schedulers change, tells what this one does, and holds the lock of
//! the leader. When it is lost, this process leads no longer, and whatever may have been missed is news.
//!
//! ```text
//! connect ─► LISTEN ─► everything may be new ─► every second: try the lock, or see that the connection still is
//!    ▲                                                │ no answer, or closed
//!    └──────────────────── not leading ◄──────────────┘
//! ```

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::{broadcast, mpsc, watch};
use tokio_postgres::AsyncMessage;

use super::super::engine::News;
use super::PostgresAddress;

/// Name of the channel.
const CHANNEL: &str = "cardshop";
/// The leader's lock: any number, the same for all.
const LEADER: i64 = 0x6361_7264_6c65_6164;
/// How often the lock is tried.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A leader that gets no answer for this long steps down. Shorter than the server's patience with a silent client,
/// which is [`SERVER_SETTINGS`], so that there are never two for long; the store compares versions in any case.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// 5 + 3 × 3 s.
const SERVER_SETTINGS: &str =
    "SET tcp_keepalives_idle = 5; SET tcp_keepalives_interval = 3; SET tcp_keepalives_count = 3";
/// Longest message: the server takes 8000 bytes.
const MAX_MESSAGE: usize = 7900;
/// Looks between two clearings of what was remembered of old batches.
const CLEAR_EVERY: u32 = 600;
/// Nobody asks about a batch this old.
const CLEAR: &str = "DELETE FROM cardshop_batch WHERE made < now() - interval '1 hour'";

/// What the engine and this connection share.
pub(super) struct Side {
    pub(super) address: PostgresAddress,
    /// Names this process among all.
    pub(super) me: String,
    pub(super) changed: mpsc::Receiver<(String, String)>,
    /// More was changed than could wait.
    pub(super) overflow: Arc<AtomicBool>,
    pub(super) leads: watch::Sender<bool>,
    pub(super) news: broadcast::Sender<News>,
    pub(super) connected: Arc<AtomicBool>,
}

impl Side {
    /// Runs until the engine is closed.
    pub(super) async fn run(mut self) {
        loop {
            let ended = self.session().await;
            self.connected.store(false, Ordering::Release);
            self.leads.send_replace(false);
            match ended {
                Ok(()) => return,
                Err(error) => {
                    tracing::warn!(%error, store = self.address.shown, "no connection to the database")
                }
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    async fn session(&mut self) -> Result<(), String> {
        let text = |error: tokio_postgres::Error| super::describe(&error);
        let (client, mut connection) =
            self.address.config.connect(self.address.tls.clone()).await.map_err(text)?;
        let (heard, mut messages) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Some(Ok(message)) = std::future::poll_fn(|cx| connection.poll_message(cx)).await {
                if let AsyncMessage::Notification(message) = message
                    && heard.send(message.payload().to_owned()).is_err()
                {
                    return;
                }
            }
        });
        client.batch_execute(SERVER_SETTINGS).await.map_err(text)?;
        client.batch_execute(&format!("LISTEN {CHANNEL}")).await.map_err(text)?;
        self.connected.store(true, Ordering::Release);
        // Nobody listens: nobody has to be told.
        let _ = self.news.send(News::Everything);
        let mut look = tokio::time::interval(LOOK_EVERY);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut looks = 0;
        loop {
            let asked = async {
                tokio::select! {
                    message = messages.recv() => {
                        let message = message.ok_or("the connection is closed")?;
                        self.news.send(read(&message, &self.me).unwrap_or(News::Documents(Vec::new()))).ok();
                    }
                    changed = self.changed.recv() => {
                        let Some(first) = changed else { return Ok(true) };
                        let message = self.message(first);
                        client.execute("SELECT pg_notify($1, $2)", &[&CHANNEL, &message]).await.map_err(text)?;
                    }
                    _ = look.tick() => {
                        looks += 1;
                        let leads = *self.leads.borrow();
                        let sql = if leads { "SELECT true, $1::bigint" } else { "SELECT pg_try_advisory_lock($1)" };
                        let asked = client.query_one(sql, &[&LEADER]);
                        let answer = tokio::time::timeout(ANSWER_WITHIN, asked).await;
                        let answer = answer.map_err(|_| "the database does not answer")?.map_err(text)?;
                        if answer.get::<_, bool>(0) && !leads {
                            tracing::info!("this scheduler leads");
                            self.leads.send_replace(true);
                        }
                        if leads && looks % CLEAR_EVERY == 0 {
                            client.execute(CLEAR, &[]).await.map_err(text)?;
                        }
                    }
                }
                Ok::<_, String>(false)
            };
            if asked.await? {
                return Ok(());
            }
        }
    }

    /// What was changed by now, for the others: name of the sender, then a line for each document.
    fn message(&mut self, first: (String, String)) -> String {
        let mut all = BTreeSet::from([first]);
        while let Ok(next) = self.changed.try_recv() {
            all.insert(next);
        }
        let mut message = self.me.clone();
        for (kind, id) in all {
            message.push_str(&format!("\n{kind} {id}"));
        }
        if self.overflow.swap(false, Ordering::AcqRel) || message.len() > MAX_MESSAGE {
            message = format!("{}\n*", self.me);
        }
        message
    }
}

/// What a message of another says; `None` for one's own.
fn read(message: &str, me: &str) -> Option<News> {
    let mut lines = message.split('\n');
    if lines.next() == Some(me) {
        return None;
    }
    let names: Option<Vec<_>> =
        lines.map(|line| line.split_once(' ').map(|(kind, id)| (kind.to_owned(), id.to_owned()))).collect();
    Some(names.map_or(News::Everything, News::Documents))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_names_documents_and_ones_own_is_no_news() {
        let names = News::Documents(vec![("order".into(), "1".into()), ("user".into(), "a b".into())]);
        assert_eq!(read("x\norder 1\nuser a b", "me"), Some(names));
        assert_eq!(read("me\norder 1", "me"), None);
        for everything in ["x\n*", "x\norder"] {
            assert_eq!(read(everything, "me"), Some(News::Everything));
        }
    }
}
