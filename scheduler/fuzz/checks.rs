//! What every input has to keep to. Run by the fuzzer, and by an ordinary test over the seeds.

use cardshop_scheduler::outside;

/// An export or a backup.
pub fn dump(bytes: &[u8]) {
    outside::dump(bytes);
}
