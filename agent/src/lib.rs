//! The one program on the appliance: joins a shop, fetches images, writes and verifies cards in all slots at
//! once, reports. [`core`] decides and is pure; `effects` does what it says; [`run`] puts both together. The
//! binary and `cardshop demo` call [`run`].

pub mod core;

mod config;
mod effects;
mod run;

pub use cardshop_card::StopFlag;
pub use config::{
    BenchConfig, CacheConfig, Config, ConfigError, FetchConfig, MAX_CONNECTIONS, MAX_SLOTS, SimulateConfig,
    SlotConfig,
};
pub use core::network_file::{NetworkFile, NetworkFileError};
pub use effects::address::AddressError;
pub use effects::join_file::{JoinFileError, check_join_file};
pub use effects::logs;
pub use effects::outbox::OutboxError;
pub use effects::single::{FetchFailure, FetchJob, FetchReport, fetch_one};
pub use effects::state::StateError;
pub use run::{AgentError, run};
