//! What the warehouse decides, without a clock, a file or a socket: which bytes a request wants, what an
//! upload says of itself, who may do what. Called by `http`, which does what is decided here.

pub(crate) mod checksum;
pub(crate) mod difference;
pub(crate) mod link;
pub(crate) mod metadata;
pub(crate) mod packed;
pub(crate) mod precondition;
pub(crate) mod range;
pub(crate) mod rights;
pub(crate) mod torrent;
