//! A request to stop, shared between threads: the engine asks it between requests to the card, sources ask
//! it while they wait. It decides nothing; whoever owns the work (agent, command line) raises it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Raised once, never lowered. Clones are the same flag.
#[derive(Debug, Clone, Default)]
pub struct StopFlag(Arc<AtomicBool>);

impl StopFlag {
    /// A flag that is not raised.
    pub fn new() -> Self {
        Self::default()
    }
    /// Asks everyone who holds a clone to stop. May be called from a signal handler's thread, any number of times.
    pub fn stop(&self) {
        self.0.store(true, Ordering::Release);
    }
    /// True once [`StopFlag::stop`] was called on any clone.
    pub fn is_stopped(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}
