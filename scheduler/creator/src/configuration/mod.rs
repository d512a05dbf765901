//! A configuration, as a manager describes a card, becomes a recipe. [`Configuration`] says what is wanted, a
//! [`Catalogue`] where content is, [`Configuration::recipe`] joins them: pure. [`resolve`] brings the catalogue.
//!
//! ```yaml
//! configuration:
//!   name: School of Kita            # for people; the host name is made from it
//!   ssid: Kita                      # of the Wi-Fi [default: name]
//!   wifi_password: correct horse    # 8 to 63 characters; without it the Wi-Fi is open
//!   admin: {username: admin, password: …}   # apps get it where they ask for it
//!   language: fr
//!   time_zone: Africa/Bamako
//!   base: https://example.org/base.img.xz   # as in a recipe, and so is `output`
//!   branding: {logo: aGVsbG8=, css: aGVsbG8=}   # base64, to /data/branding
//!   catalogue: https://library.kiwix.org/catalog/v2/entries?count=-1   # or a file: OPDS
//!   content:
//!     - {name: wikipedia_fr_all, flavour: maxi}   # the newest version, to /data/content/wikipedia_fr_all_maxi.zim
//!   apps:
//!     - {name: kiwix, image: "ghcr.io/offspot/kiwix-serve:dev", ports: ["80:80"], environment: {TITLE: "{name}"}}
//! ```
//!
//! Values of `environment` may hold `{name}`, `{ssid}`, `{language}`, `{time_zone}`, `{admin_username}` and
//! `{admin_password}`. Content that the catalogue does not have any more is left out and reported.

mod catalogue;
mod checks;
mod convert;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;
use ureq::tls::RootCerts;

pub use catalogue::{Catalogue, CatalogueError, Entry, MAX_FEED_SIZE};
pub use checks::InvalidConfiguration;
pub use convert::{Converted, Vanished};

use crate::StopFlag;
use crate::build::{BuildError, Options};
use crate::cache::Cache;
use crate::fetch::Fetcher;
use crate::http::Client;
use crate::recipe::{Source, plain_value};

/// The key that a configuration stands under, where a recipe could stand too.
const KEY: &str = "configuration";

/// What a manager wants of a card.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Configuration {
    /// For people.
    pub name: String,
    /// Of the Wi-Fi; the name when it is not given.
    #[serde(default)]
    pub ssid: Option<String>,
    /// Without it the Wi-Fi is open.
    #[serde(default)]
    pub wifi_password: Option<String>,
    /// Who may change the hotspot.
    #[serde(default)]
    pub admin: Option<Admin>,
    /// ISO 639 or a tag of BCP 47.
    #[serde(default)]
    pub language: Option<String>,
    /// Of the IANA's list.
    #[serde(default)]
    pub time_zone: Option<String>,
    /// As in a recipe.
    #[serde(default)]
    pub base: Value,
    /// As in a recipe.
    #[serde(default)]
    pub output: Value,
    /// Files by name, base64.
    #[serde(default)]
    pub branding: BTreeMap<String, String>,
    /// Where the catalogue is.
    #[serde(default)]
    pub catalogue: Option<String>,
    /// From the catalogue.
    #[serde(default)]
    pub content: Vec<Wanted>,
    /// Containers.
    #[serde(default)]
    pub apps: Vec<App>,
}

/// Name and password.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Admin {
    /// Login name.
    pub username: String,
    /// Password.
    pub password: String,
}

impl std::fmt::Debug for Admin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Admin({})", self.username)
    }
}

/// Content by its name in the catalogue.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wanted {
    /// The same for all versions.
    pub name: String,
    /// Any when it is not given.
    #[serde(default)]
    pub flavour: Option<String>,
}

/// A container.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct App {
    /// Of the service.
    pub name: String,
    /// Of the container image.
    pub image: String,
    /// `linux/arm64` when it is not given.
    #[serde(default)]
    pub platform: Option<String>,
    /// As compose files have them.
    #[serde(default)]
    pub ports: Vec<String>,
    /// As compose files have them; `/data` is the data partition.
    #[serde(default)]
    pub volumes: Vec<String>,
    /// With placeholders.
    #[serde(default)]
    pub environment: BTreeMap<String, String>,
}

impl Configuration {
    /// The configuration in a value that is either one, under the key `configuration`, or a recipe (`None`).
    ///
    /// # Errors
    /// [`InvalidConfiguration`], by part.
    pub fn of_value(value: &Value) -> Result<Option<Self>, InvalidConfiguration> {
        let Some(inner) = value.get(KEY) else { return Ok(None) };
        if let Some(other) = value.as_object().into_iter().flatten().map(|(key, _)| key).find(|k| *k != KEY) {
            return Err(InvalidConfiguration::new(
                other,
                "stands beside a configuration, which is all there is",
            ));
        }
        let configuration: Self = serde_json::from_value(inner.clone())
            .map_err(|error| InvalidConfiguration::new(KEY, error.to_string()))?;
        configuration.check()?;
        Ok(Some(configuration))
    }

    /// The same of a text, YAML or JSON. What is neither is left to the reader of recipes, which names the line.
    ///
    /// # Errors
    /// As [`Self::of_value`].
    pub fn of_text(text: &str) -> Result<Option<Self>, InvalidConfiguration> {
        plain_value(text).map_or(Ok(None), |value| Self::of_value(&value))
    }
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
    Ok(configuration.recipe(&catalogue)?)
}

fn parse(feed: &[u8], base: Option<&str>, what: &str) -> Result<Catalogue, BuildError> {
    Catalogue::parse(feed, base).map_err(|source| BuildError::Catalogue { what: what.to_owned(), source })
}
