//! Pages of lists: a limit, a cursor that is the last id, and a filter for what the caller may see.

use cardshop_protocol::api::Page;

use crate::core::fields::InvalidField;
use crate::store::{Document, Select, Stored};
use crate::{Scheduler, SchedulerError};

/// Items of a page when nobody says.
const DEFAULT_LIMIT: usize = 50;
/// Most items of a page.
const MAX_LIMIT: usize = 500;
/// Documents one request looks at: a page of somebody who may see few of many can come short, with a cursor.
const MAX_SCANNED: usize = 20_000;
/// Documents read at once.
const CHUNK: usize = 500;

/// Which page.
#[derive(Debug, Clone, Default)]
pub struct PageRequest {
    /// Most items.
    pub limit: Option<usize>,
    /// Where the page before ended.
    pub cursor: Option<String>,
}

impl PageRequest {
    /// Everything up to the largest page.
    pub fn first(limit: usize) -> Self {
        Self { limit: Some(limit), cursor: None }
    }

    pub(crate) fn limit(&self) -> usize {
        self.limit.unwrap_or(DEFAULT_LIMIT).clamp(1, MAX_LIMIT)
    }

    pub(crate) fn check(&self) -> Result<(), SchedulerError> {
        let good = |c: &String| c.len() <= 128 && c.bytes().all(|b| b.is_ascii_graphic());
        if self.cursor.as_ref().is_some_and(|c| !good(c)) {
            return Err(InvalidField::new("cursor", "is not one that a list gave").into());
        }
        Ok(())
    }
}

impl Scheduler {
    /// A page of documents that `keep` turns into items; newest first unless told otherwise.
    pub(crate) fn page<T: Document, V>(
        &self,
        request: &PageRequest,
        index: Option<(&str, &str)>,
        newest_first: bool,
        mut keep: impl FnMut(Stored<T>) -> Option<V>,
    ) -> Result<Page<V>, SchedulerError> {
        request.check()?;
        let limit = request.limit();
        let mut items = Vec::new();
        let mut after = request.cursor.clone();
        let mut scanned = 0;
        // Where nothing is left out the first read is the page, and one more says whether another follows.
        let mut chunk = (limit + 1).min(CHUNK);
        loop {
            let select = Select { index, after: after.as_deref(), newest_first, limit: chunk };
            let found = self.inner.store.list::<T>(select)?;
            let end = found.len() < chunk;
            chunk = CHUNK;
            scanned += found.len();
            for document in found {
                if items.len() == limit {
                    return Ok(Page { items, next_cursor: after });
                }
                after = Some(document.value.id());
                items.extend(keep(document));
            }
            if end {
                return Ok(Page { items, next_cursor: None });
            }
            if scanned >= MAX_SCANNED {
                return Ok(Page { items, next_cursor: after });
            }
        }
    }

    /// All documents of a kind or an index value, for the scheduler itself.
    pub(crate) fn all<T: Document>(&self, index: Option<(&str, &str)>) -> Result<Vec<T>, SchedulerError> {
        let mut items: Vec<T> = Vec::new();
        loop {
            let after = items.last().map(Document::id);
            let select = Select { index, after: after.as_deref(), limit: CHUNK, newest_first: false };
            let found = self.inner.store.list::<T>(select)?;
            let end = found.len() < CHUNK;
            items.extend(found.into_iter().map(|d| d.value));
            if end {
                return Ok(items);
            }
        }
    }
}
