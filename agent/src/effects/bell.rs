//! A bell that ends waits early: whoever looks at something now and then looks at once when it rings.

use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

/// Clones are the same bell.
#[derive(Debug, Clone, Default)]
pub(crate) struct Bell(Arc<(Mutex<u64>, Condvar)>);

impl Bell {
    /// Rings: everyone who waits, or will wait and has not heard it, goes on.
    pub(crate) fn ring(&self) {
        *self.0.0.lock().expect("no holder panics") += 1;
        self.0.1.notify_all();
    }

    /// Waits for a ring that is not among `heard`, `limit` at most.
    pub(crate) fn wait(&self, heard: &mut u64, limit: Duration) {
        let rings = self.0.0.lock().expect("no holder panics");
        let waited = self.0.1.wait_timeout_while(rings, limit, |rings| *rings == *heard);
        *heard = *waited.expect("no holder panics").0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ring_before_the_wait_is_not_lost() {
        let (bell, mut heard) = (Bell::default(), 0);
        bell.ring();
        bell.wait(&mut heard, Duration::from_secs(60));
        assert_eq!(heard, 1);
        let other = bell.clone();
        let thread = std::thread::spawn(move || other.wait(&mut heard, Duration::from_secs(60)));
        bell.ring();
        thread.join().unwrap();
    }
}
