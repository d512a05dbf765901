//! Who watches a build beside its progress: lines for a log, the sizes once they are known, and what of the
//! image is final. Made by the worker for each of its tasks.

use std::fmt;
use std::fs::File;
use std::sync::Arc;

use crate::sizing::Sizing;

type OnLine = dyn Fn(&str) + Send + Sync;
type OnFinal = dyn Fn(&File, u64) + Send + Sync;
type OnSizes = dyn Fn(&Sizing) + Send + Sync;

/// What hears of a build; nobody by default.
#[derive(Clone, Default)]
pub struct Watcher {
    line: Option<Arc<OnLine>>,
    sizes: Option<Arc<OnSizes>>,
    final_bytes: Option<Arc<OnFinal>>,
}

impl Watcher {
    /// Gives each line of the log, which may have colours, to `line`, and the sizes to `sizes`.
    pub fn new(
        line: impl Fn(&str) + Send + Sync + 'static,
        sizes: impl Fn(&Sizing) + Send + Sync + 'static,
    ) -> Self {
        Self { line: Some(Arc::new(line)), sizes: Some(Arc::new(sizes)), final_bytes: None }
    }

    /// Also tells how many bytes from the image's start will not change any more.
    pub fn with_final(mut self, final_bytes: impl Fn(&File, u64) + Send + Sync + 'static) -> Self {
        self.final_bytes = Some(Arc::new(final_bytes));
        self
    }

    pub(crate) fn is_final(&self, image: &File, upto: u64) {
        if let Some(final_bytes) = &self.final_bytes {
            final_bytes(image, upto);
        }
    }

    pub(crate) fn line(&self, text: fmt::Arguments<'_>) {
        if let Some(line) = &self.line {
            line(&text.to_string());
        }
    }

    pub(crate) fn sizes(&self, sizing: &Sizing) {
        if let Some(sizes) = &self.sizes {
            sizes(sizing);
        }
    }
}

impl fmt::Debug for Watcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.line.is_some() { "Watcher" } else { "nobody" })
    }
}
