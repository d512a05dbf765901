//! Several slow things at once: downloads, and questions to servers. The first failure ends the others.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use crate::StopFlag;

/// Connections at once. One host rarely gives a client more, and the disk is shared by all.
pub(crate) const CONNECTIONS: usize = 6;
/// How often a raised stop is handed on and `look` is called.
const POLL: Duration = Duration::from_millis(100);

/// [`several`] for what waits for servers.
pub(crate) fn each<T: Send, E: Send>(
    count: usize,
    stop: &StopFlag,
    inner: &StopFlag,
    look: &mut dyn FnMut(),
    work: &(dyn Fn(usize) -> Result<T, E> + Sync),
) -> Result<Vec<T>, E> {
    several(CONNECTIONS, count, stop, inner, look, work)
}

/// Calls `work` for every number below `count`, `at_once` of them at a time, the lower numbers first, and gives the results in order, or the first error.
/// `inner` is raised when `stop` is or one has failed: `work` watches it. `look` is called now and then on this thread.
pub(crate) fn several<T: Send, E: Send>(
    at_once: usize,
    count: usize,
    stop: &StopFlag,
    inner: &StopFlag,
    look: &mut dyn FnMut(),
    work: &(dyn Fn(usize) -> Result<T, E> + Sync),
) -> Result<Vec<T>, E> {
    let (next, failed) = (AtomicUsize::new(0), AtomicBool::new(false));
    let results: Mutex<Vec<(usize, Result<T, E>)>> = Mutex::new(Vec::with_capacity(count));
    let main = thread::current();
    let worker = || {
        loop {
            let number = next.fetch_add(1, Ordering::AcqRel);
            if number >= count || failed.load(Ordering::Acquire) {
                break;
            }
            let result = work(number);
            // What ends because another has failed is not the cause.
            if result.is_ok() || !failed.swap(true, Ordering::AcqRel) {
                results.lock().unwrap_or_else(PoisonError::into_inner).push((number, result));
            }
        }
        main.unpark();
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..at_once.min(count)).map(|_| scope.spawn(worker)).collect();
        while !workers.iter().all(thread::ScopedJoinHandle::is_finished) {
            if stop.is_stopped() || failed.load(Ordering::Acquire) {
                inner.stop();
            }
            look();
            thread::park_timeout(POLL);
        }
    });
    look();
    let mut results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
    results.sort_by_key(|(number, _)| *number);
    results.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Barrier;

    #[test]
    fn as_many_as_there_are_connections_run_at_once_and_results_keep_their_order() {
        let (stop, barrier) = (StopFlag::new(), Barrier::new(CONNECTIONS));
        let work = |number: usize| {
            // Ends only if all are under way together.
            barrier.wait();
            Ok::<_, ()>(number * 2)
        };
        let results = each(CONNECTIONS, &stop, &StopFlag::new(), &mut || (), &work).unwrap();
        assert_eq!(results, (0..CONNECTIONS).map(|n| n * 2).collect::<Vec<_>>());
    }

    #[test]
    fn the_first_failure_ends_the_others_and_is_the_one_that_is_told() {
        let (stop, inner) = (StopFlag::new(), StopFlag::new());
        let work = |number: usize| {
            if number == 3 {
                return Err("the cause".to_owned());
            }
            while !inner.is_stopped() {
                thread::park_timeout(Duration::from_millis(1));
            }
            Err(format!("{number} was ended"))
        };
        assert_eq!(each(100, &stop, &inner, &mut || (), &work), Err::<Vec<()>, _>("the cause".to_owned()));
        assert!(!stop.is_stopped());
    }

    #[test]
    fn nothing_to_do_is_done() {
        let stop = StopFlag::new();
        assert_eq!(each(0, &stop, &stop, &mut || (), &|_| Ok::<(), ()>(())), Ok(Vec::new()));
    }
}
