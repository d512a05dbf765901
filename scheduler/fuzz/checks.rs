//! What every input has to keep to. Run by the fuzzer, and by an ordinary test over the seeds.

use cardshop_scheduler::outside;

/// An export or a backup.
pub fn dump(bytes: &[u8]) {
    outside::dump(bytes);
}

/// JSON of a recipe.
pub fn configuration(bytes: &[u8]) {
    outside::configuration(bytes);
}

/// A picture of a brand.
pub fn picture(bytes: &[u8]) {
    outside::picture(bytes);
}

/// JSON of an address, or a telephone number.
pub fn address(bytes: &[u8]) {
    outside::address(bytes);
}
