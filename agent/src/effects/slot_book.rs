//! The book of slots as threads see it: the main thread keeps what the shop decided (`slots.json` in the state folder),
//! `readers` looks up which slot a port is.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use cardshop_protocol::message::SlotInfo;

use super::state::{StateFolder, replace_file};
use crate::config::read_bounded;
use crate::core::book::Book;

/// Clones are the same book.
#[derive(Debug, Clone)]
pub(crate) struct SlotBook {
    file: PathBuf,
    book: Arc<Mutex<Book>>,
}

impl SlotBook {
    /// What was kept before this start.
    pub(crate) fn open(state: &StateFolder) -> Self {
        let file = state.path("slots.json");
        let read = read_bounded(&file).ok().map(|text| serde_json::from_str(&text));
        let book = read.and_then(|read| {
            read.inspect_err(
                |error| tracing::error!(%error, "slots.json is damaged: slots are numbered anew"),
            )
            .ok()
        });
        Self { file, book: Arc::new(Mutex::new(book.unwrap_or_default())) }
    }

    /// The book as it is now.
    pub(crate) fn get(&self) -> Book {
        self.book.lock().expect("no holder panics").clone()
    }

    /// It has changed.
    ///
    /// # Errors
    /// What the disk says; the change counts until the next start all the same.
    pub(crate) fn keep(&self, book: &Book) -> io::Result<()> {
        self.book.lock().expect("no holder panics").clone_from(book);
        replace_file(&self.file, &serde_json::to_vec(book).expect("plain data has a JSON form"))
    }
}

/// What the broker is told of the slots that are ports.
pub(crate) fn infos(book: &Book) -> Vec<SlotInfo> {
    let info = |(slot, key, reader): (_, &str, &str)| SlotInfo {
        slot,
        port_path: key.into(),
        reader: if reader.is_empty() { "reader".into() } else { reader.into() },
    };
    book.all().map(info).collect()
}
