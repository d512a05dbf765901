//! How long a step may take for its size, so that a worker that goes on renewing its lease without getting anywhere does
//! not hold an order for ever. A step that takes longer fails as any other: it is tried again, by another if there is one.
//!
//! ```text
//! a step of a creation   ALLOWANCE + bytes / the slowest rate that is worth waiting for, at most MAX_STEP
//! a whole creation       MAX_CREATION
//! a card                 CARD_ALLOWANCE + twice the image / SLOWEST_CARD: then the copy counts as waiting again, and a card
//!                        that is verified later still counts
//! ```

use std::time::Duration;

use cardshop_protocol::api::CreationPhase;
use cardshop_protocol::time::Timestamp;

use super::step::Notes;
use super::{Order, TaskStatus, Write};

/// What any step may take, whatever its size.
const ALLOWANCE: Duration = Duration::from_secs(15 * 60);
/// Longest step.
const MAX_STEP: Duration = Duration::from_secs(48 * 3600);
/// Longest creation from claim to image.
pub(super) const MAX_CREATION: Duration = Duration::from_secs(72 * 3600);
/// What a card may take whatever its size: probing, and a warehouse that is away for a while.
const CARD_ALLOWANCE: Duration = Duration::from_secs(2 * 3600);
/// Cards slower than this are replaced, bytes a second. **Source:** half of speed class 2, the slowest there is.
const SLOWEST_CARD: u64 = 1_000_000;

/// The slowest rate that is waited for, bytes a second: a poor line for what travels, a poor disk for what does not.
fn slowest(phase: CreationPhase) -> u64 {
    match phase {
        CreationPhase::Downloading | CreationPhase::Uploading => 256 * 1024,
        CreationPhase::Building => 1_000_000,
        CreationPhase::Indexing => 4_000_000,
    }
}

/// Longest time for a step of `total` bytes.
pub(super) fn allowed(phase: CreationPhase, total: u64) -> Duration {
    (ALLOWANCE + Duration::from_secs(total / slowest(phase))).min(MAX_STEP)
}

impl Order {
    /// Since when it is written counts; a copy that takes too long is waiting again.
    pub(super) fn end_overdue_cards(&mut self, now: Timestamp, notes: &mut Notes<'_>) {
        let Some(allowed) = self.card_allowance() else { return };
        for (copy, write) in self.writes.iter_mut().filter(|(_, write)| is_overdue(write, allowed, now)) {
            write.status = TaskStatus::Pending;
            write.started = None;
            let text = format!(
                "Copy {copy} was begun more than {} minutes ago: it waits for a card again.",
                allowed.as_secs() / 60
            );
            notes.add("write_overdue", text);
        }
    }

    /// True when time alone changes something for one of its cards.
    pub(crate) fn has_overdue_cards(&self, now: Timestamp) -> bool {
        let allowed = self.card_allowance();
        allowed.is_some_and(|allowed| self.writes.values().any(|write| is_overdue(write, allowed, now)))
    }

    fn card_allowance(&self) -> Option<Duration> {
        let size = self.image.as_ref().filter(|_| self.canceled.is_none())?.size;
        Some(CARD_ALLOWANCE + Duration::from_secs(2 * size / SLOWEST_CARD))
    }
}

fn is_overdue(write: &Write, allowed: Duration, now: Timestamp) -> bool {
    write.status == TaskStatus::Running && write.started.is_some_and(|at| now.since(at) > allowed)
}
