//! What every input has to keep to. Run by the fuzzer, and by an ordinary test over the seeds.

/// Bytes of a connection as they come, whatever they are.
pub fn packets(bytes: &[u8]) {
    cardshop_broker::read_packets(bytes);
}
