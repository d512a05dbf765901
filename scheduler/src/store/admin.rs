//! Stores as their keeper handles them: export and import as JSON lines, which is also what a backup is. An export of
//! an embedded store may run beside the process that has it open.

use std::io::{Read, Write};
use std::path::PathBuf;

use super::dump::{self, DumpWriter};
use super::{PostgresAddress, Store, StoreError, embedded, postgres};

/// Where a store is.
#[derive(Debug, Clone)]
pub enum StoreAddress {
    /// In a directory of this machine.
    Directory(PathBuf),
    /// In a database.
    Postgres(PostgresAddress),
    /// In memory, until it is closed: for tests and simulations.
    Memory,
}

impl StoreAddress {
    /// Opens it.
    pub(crate) fn open(self) -> Result<Store, StoreError> {
        match self {
            Self::Directory(path) => Store::open(&path),
            Self::Postgres(address) => Store::open_postgres(address),
            Self::Memory => Ok(Store::memory()),
        }
    }
}

/// Writes everything in a store as it is at one moment, while others work with it; the number of documents. Only when
/// `Ok` is returned is it whole: the last line says so.
///
/// # Errors
/// What reading and writing give.
pub fn export_store(from: StoreAddress, to: impl Write) -> Result<u64, StoreError> {
    let mut writer = DumpWriter::new(to).map_err(StoreError::Dump)?;
    let sink = &mut |record| writer.record(&record);
    match from {
        StoreAddress::Directory(path) => embedded::dump_files(&path, sink)?,
        StoreAddress::Postgres(_) | StoreAddress::Memory => from.open()?.engine.dump(sink)?,
    }
    Ok(writer.finish().map_err(StoreError::Dump)?.0)
}

/// Makes a store from an export: all of it or nothing.
///
/// # Errors
/// `NotEmpty` when there is something already, `Dump` for what is no export, cut off or damaged.
pub fn import_store(to: StoreAddress, from: impl Read) -> Result<u64, StoreError> {
    let fill = |sink: super::engine::Sink<'_>| {
        dump::read(from, &mut |record| sink(record).map_err(StoreError::Dump)).map(|_| ())
    };
    match to {
        StoreAddress::Directory(path) => embedded::restore(&path, fill),
        StoreAddress::Postgres(address) => postgres::restore(address, fill),
        StoreAddress::Memory => Err(StoreError::NotEmpty("memory, which keeps nothing".into())),
    }
}
