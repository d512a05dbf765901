//! The PostgreSQL server that this crate's tests share.

#[path = "../../../tools/testing/postgres.rs"]
mod server;

use std::sync::OnceLock;

pub(crate) use server::Server;

use super::{PostgresAddress, Store};

/// The address of an empty database; `None` where PostgreSQL is not installed.
pub(crate) fn database() -> Option<String> {
    static SERVER: OnceLock<Option<Server>> = OnceLock::new();
    SERVER.get_or_init(Server::start).as_ref().map(Server::database)
}

/// A store at this address.
pub(crate) fn open(url: &str) -> Store {
    Store::open_postgres(PostgresAddress::parse(url, None).unwrap()).unwrap()
}
