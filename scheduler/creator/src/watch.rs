//! Who watches a build beside its progress: lines for a log, and the sizes once they are known. Made by the worker for
//! each of its tasks.

use std::fmt;
use std::sync::Arc;

use crate::sizing::Sizing;

type OnLine = dyn Fn(&str) + Send + Sync;
type OnSizes = dyn Fn(&Sizing) + Send + Sync;

/// What hears of a build; nobody by default.
#[derive(Clone, Default)]
pub struct Watcher {
    line: Option<Arc<OnLine>>,
    sizes: Option<Arc<OnSizes>>,
}

impl Watcher {
    /// Gives each line of the log, which may have colours, to `line`, and the sizes to `sizes`.
    pub fn new(
        line: impl Fn(&str) + Send + Sync + 'static,
        sizes: impl Fn(&Sizing) + Send + Sync + 'static,
    ) -> Self {
        Self { line: Some(Arc::new(line)), sizes: Some(Arc::new(sizes)) }
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
