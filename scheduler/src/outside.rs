//! Files that people bring, through the readers that use them, with what must hold whatever they are. For the fuzzer and
//! for the test that replays what it kept; nothing else calls it.
//!
//! | reader | most bytes | where the limit is |
//! |---|---|---|
//! | exports and backups | a line of one document and its names | `store::dump` |

pub use crate::store::read_any_dump as dump;
