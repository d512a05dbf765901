//! Tells people and programs: makes messages in the batch of what they tell of, and sends them, from the scheduler that
//! leads. What is due, to whom and in which words is decided in `core::notify`.
//!
//! ```text
//! step_order, watch, passwords ─► enqueue ─► store ─► outbox ─┬─► letter, attachments ─► smtp, or api over calls
//!                                                   └► shown  └─► programs: webhooks, ntfy ─► calls
//! ```
//!
//! A message is sent at least once: killed between the server's yes and the store's, it goes out again, under the same
//! `Message-ID` or `webhook-id`, by which a receiver knows it.

mod api;
mod attachments;
mod calls;
mod enqueue;
mod hooks;
mod letter;
mod outbox;
mod passwords;
mod preferences;
mod programs;
mod settings;
mod shown;
mod smtp;
mod templates;
mod watch;

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use cardshop_protocol::ids::OrderId;
use cardshop_protocol::time::Timestamp;
use ureq::tls::RootCerts;

use crate::SchedulerError;
use crate::core::notify::message::Fault;

pub use api::MailApi;
pub use settings::{NotifySettings, SmtpAddress, SmtpSecurity};

/// Why mail is not sent at all.
pub(crate) const NO_SERVER: &str = "no mail server is set";

/// What takes letters.
enum Mailer {
    Smtp(smtp::Server),
    Api(MailApi, RootCerts),
}

impl Mailer {
    /// Gives it one letter for one mailbox; its answer.
    async fn send(&self, letter: letter::Letter) -> Result<String, Fault> {
        let letter::Letter { from, to, mime, .. } = letter;
        match self {
            Self::Smtp(server) => server.send(from, to, &mime).await,
            Self::Api(api, roots) => api.send(&to, &mime, roots.clone()).await,
        }
    }
}

/// What sends, and what it remembers.
pub(crate) struct Post {
    mailer: Option<Mailer>,
    /// The mail server takes nothing now.
    away: Mutex<Away>,
    /// Orders whose cards are wanted, and since when.
    wanted: Mutex<BTreeMap<OrderId, Timestamp>>,
    /// What was held when there was no mail server was looked at since the start.
    released: AtomicBool,
    /// Who asked for new passwords how often.
    forgotten: Mutex<passwords::Asked>,
}

/// How long a server that takes nothing is left alone.
#[derive(Default)]
struct Away {
    until: Option<Timestamp>,
    times: u32,
}

impl Away {
    /// First and longest pause.
    const PAUSE: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(300));

    fn is_over(&self, now: Timestamp) -> bool {
        self.until.is_none_or(|until| until <= now)
    }

    fn begin(&mut self, now: Timestamp) {
        let pause = Self::PAUSE.0.saturating_mul(1 << self.times.min(10)).min(Self::PAUSE.1);
        self.times += 1;
        self.until = Some(now + pause);
    }
}

impl Post {
    /// # Errors
    /// `Config` when an address of the settings cannot be used.
    pub(crate) fn new(settings: &NotifySettings, roots: &RootCerts) -> Result<Self, SchedulerError> {
        settings.check()?;
        let mailer = match (&settings.smtp, &settings.mail_api) {
            (Some(server), None) => Some(Mailer::Smtp(smtp::Server::new(server, roots)?)),
            (None, Some(api)) => Some(Mailer::Api(api.clone(), roots.clone())),
            _ => None,
        };
        Ok(Self {
            mailer,
            away: Mutex::default(),
            wanted: Mutex::default(),
            released: AtomicBool::new(false),
            forgotten: Mutex::default(),
        })
    }
}
