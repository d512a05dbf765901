//! The one HTTP client of the agent: shared connections, no status turned into an error, no plain text to
//! another machine (callers check addresses with [`super::address`]), every call bounded in time.

use std::time::Duration;

/// One call to the server's API, from first byte to last.
pub(crate) const CALL_LIMIT: Duration = Duration::from_secs(20);
/// Connections kept open: four fetch threads for two images, and the session's.
const IDLE_CONNECTIONS: usize = 10;

/// Makes the client.
pub(crate) fn client() -> ureq::Agent {
    ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(CALL_LIMIT))
        // A captive portal redirects; the server does not, and a warehouse's redirects are the fetcher's to allow.
        .max_redirects(0)
        .timeout_connect(Some(Duration::from_secs(10)))
        .max_idle_connections(IDLE_CONNECTIONS)
        .max_idle_connections_per_host(IDLE_CONNECTIONS)
        .user_agent(concat!("cardshop-agent/", env!("CARGO_PKG_VERSION")))
        .build()
        .new_agent()
}

/// Randomness for jitter: nobody gains from guessing it.
pub(crate) fn jitter() -> u32 {
    use std::hash::{BuildHasher, Hasher};
    std::collections::hash_map::RandomState::new().build_hasher().finish() as u32
}
