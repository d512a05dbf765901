//! A configuration, as a manager describes a card (`cardshop_protocol::configuration`), becomes a recipe. [`recipe_of`]
//! joins it with a [`Catalogue`]: pure. [`resolve`] brings the catalogue.

mod convert;
#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::Read;
use std::path::Path;

use ureq::tls::RootCerts;

pub use cardshop_protocol::configuration::{
    Catalogue, CatalogueError, Configuration, Entry, InvalidConfiguration, MAX_FEED_SIZE, Vanished, Wanted,
};
pub use convert::{Converted, recipe_of};

use crate::StopFlag;
use crate::build::{BuildError, Options};
use crate::cache::Cache;
use crate::fetch::Fetcher;
use crate::http::Client;
use crate::recipe::{Source, plain_value};

/// The configuration in a text, YAML or JSON. What is none is left to the reader of recipes, which names the line.
///
/// # Errors
/// As [`Configuration::of_value`].
pub fn of_text(text: &str) -> Result<Option<Configuration>, InvalidConfiguration> {
    plain_value(text).map_or(Ok(None), |value| Configuration::of_value(&value))
}

/// The recipe of a configuration, with its catalogue as it is now; offline, as it was last.
///
/// # Errors
/// What keeps the catalogue from being had or read.
pub fn resolve(
    configuration: &Configuration,
    options: &Options,
    stop: &StopFlag,
) -> Result<Converted, BuildError> {
    let catalogue = match &configuration.catalogue {
        None => Catalogue::default(),
        Some(place) if place.contains("://") && !place.starts_with("file://") => {
            let client = Client::new(stop, RootCerts::WebPki);
            let cache = Cache { folder: &options.cache };
            let fetcher =
                Fetcher { client: &client, cache, backoff: options.backoff, stop, offline: options.offline };
            let feed = fetcher.text(place, MAX_FEED_SIZE as u64, &[])?;
            let shown = Source::Url(place.clone()).shown();
            parse(&feed, Some(place), &shown)?
        }
        Some(place) => {
            let path = Path::new(place.strip_prefix("file://").unwrap_or(place));
            let path = options.local_files.resolve(path)?;
            let mut feed = Vec::new();
            let read =
                File::open(&path).and_then(|f| f.take(MAX_FEED_SIZE as u64 + 1).read_to_end(&mut feed));
            read.map_err(|source| BuildError::File { path: path.clone(), source })?;
            parse(&feed, None, &path.display().to_string())?
        }
    };
    Ok(recipe_of(configuration, &catalogue)?)
}

fn parse(feed: &[u8], base: Option<&str>, what: &str) -> Result<Catalogue, BuildError> {
    Catalogue::parse(feed, base).map_err(|source| BuildError::Catalogue { what: what.to_owned(), source })
}
