//! The warehouse over real sockets, one module per promise.

// As in #[test] functions, for the helpers beside them.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod common;
mod crash;
mod download;
mod log;
mod manage;
mod peers;
mod rights;
mod s3;
mod tls;
mod upload;
