//! The centre: orders, tasks, leases, users, tokens, the HTTP API and the store. `core` decides and is pure,
//! `effects` does, `store` keeps, `api` translates HTTP. The commands `up`, `demo` and `scheduler` link it; the
//! manager's pages call the functions of [`Scheduler`] and mount their own routes beside [`Scheduler::router`].

mod api;
pub mod core;
mod effects;
pub mod outside;
pub mod papers;
mod store;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::Arc;

pub use api::table::{RouteView, routes};
pub use effects::ask::Answering;
pub use effects::background::Background;
pub use effects::content::CatalogueConfig;
pub use effects::furnish::furnish_store;
pub use effects::idempotency::Once;
pub use effects::keeping::Keeping;
pub use effects::live::{LiveEvent, LiveFeed};
pub use effects::notify::{MailApi, NotifySettings, SmtpAddress, SmtpSecurity};
pub use effects::outlook::Outlook;
pub use effects::paging::PageRequest;
pub use effects::papers::LabelRequest;
pub use effects::passwords::random_password;
pub use effects::simulation::{Published, Simulation, Truth};
pub use effects::start::FirstLogin;
pub use effects::users::NewUser;
pub use effects::web_sessions::OpenSession;
pub use ureq::tls::RootCerts;

pub use crate::core::fields::InvalidField;
use crate::core::order::Refusal;
pub use crate::store::{
    Loaded, PostgresAddress, StoreAddress, StoreError, TRANSITION_SIZE, export_store, import_store,
    load_store,
};

/// How a scheduler is set up. It may hold a password, so it has no `Debug`.
#[derive(Clone)]
pub struct Config {
    /// Directory of its store; made when it does not exist.
    pub data: PathBuf,
    /// Where people and appliances reach it, no slash at the end.
    pub public_url: String,
    /// Where it reaches the broker: `mqtt://host:port`, or `mqtts://host:port`.
    pub mqtt_url: String,
    /// PEM: CAs that the broker's certificate is to be of; those of the system when `None`.
    pub mqtt_ca: Option<PathBuf>,
    /// Where appliances reach the broker; the same when `None`.
    pub appliance_mqtt_url: Option<String>,
    /// Fingerprint of the CA of the server's certificate when that is the site's own: join tokens carry it. `None` for
    /// public CAs.
    pub own_ca: Option<[u8; 10]>,
    /// Whose certificates warehouses are to have.
    pub roots: RootCerts,
    /// Base addresses of warehouses; the first is the default.
    pub warehouses: Vec<String>,
    /// Password of `admin` at the first start; random and told once when `None`.
    pub admin_password: Option<String>,
    /// Where content is looked up.
    pub catalogue: CatalogueConfig,
    /// Where the state is kept, and for how long.
    pub keeping: Keeping,
    /// How people and programs are told of what happens.
    pub notify: NotifySettings,
}

/// The scheduler. Cheap to clone.
#[derive(Clone)]
pub struct Scheduler {
    inner: Arc<effects::Inner>,
}

/// Why something was not done.
#[derive(Debug, thiserror::Error)]
pub enum SchedulerError {
    /// The configuration cannot work.
    #[error("{0}")]
    Config(String),
    /// The store refuses.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// One text for every cause.
    #[error("user name and password, or token, are not valid")]
    NotKnown,
    /// The caller is known and may not do this.
    #[error("{0}")]
    NotAllowed(String),
    /// It does not exist, or is not the caller's to see.
    #[error("there is no such {0}")]
    NotFound(&'static str),
    /// It contradicts what is there.
    #[error("{text}")]
    Conflict {
        /// For programs.
        code: &'static str,
        /// For people.
        text: String,
    },
    /// It means nothing in the order's state.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// A field of the request is wrong.
    #[error(transparent)]
    Invalid(#[from] InvalidField),
    /// Too many failures: wait.
    #[error("too many failed attempts: wait a minute")]
    TooManyAttempts,
    /// The site is being maintained.
    #[error("{0}")]
    Maintenance(String),
    /// Too much at once: try again.
    #[error("the scheduler is busy: try again in a few seconds")]
    Busy,
    /// Another service could not be reached: try again.
    #[error("{0}")]
    Unreachable(String),
    /// The system has no randomness to give.
    #[error("the system has no randomness to give")]
    NoRandomness(#[from] getrandom::Error),
}
