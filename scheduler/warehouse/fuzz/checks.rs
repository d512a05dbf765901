//! What every input has to keep to. Run by the fuzzer, and by an ordinary test over the seeds.

/// Headers of a request, one a line.
pub fn headers(bytes: &[u8]) {
    cardshop_warehouse::outside::headers(bytes);
}

/// A JSON body.
pub fn bodies(bytes: &[u8]) {
    cardshop_warehouse::outside::bodies(bytes);
}
