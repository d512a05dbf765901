//! What a manager wants of a card, as it crosses from pages and API to the creators: the fields, what they may be
//! (`checks`), the catalogue that content is named by, and how large a card becomes. Pure. The creator makes a recipe of
//! it, the scheduler keeps it and tells its size.
//!
//! ```yaml
//! configuration:
//!   name: School of Kita            # for people; the host name is made from it
//!   ssid: Kita                      # of the Wi-Fi [default: name]
//!   wifi_password: correct horse    # 8 to 63 characters; without it the Wi-Fi is open
//!   admin: {username: admin, password: …}   # apps get it where they ask for it
//!   language: fr
//!   time_zone: Africa/Bamako
//!   colour: "#0a56c2"               # to /data/branding/colour.css
//!   base: https://example.org/base.img.xz   # as in a recipe, and so is `output`
//!   branding: {logo.png: aGVsbG8=, style.css: aGVsbG8=}   # base64, to /data/branding
//!   catalogue: https://library.kiwix.org/catalog/v2/entries?count=-1   # or a file: OPDS
//!   content:
//!     - {name: wikipedia_fr_all, flavour: maxi}   # the newest version, to /data/content/wikipedia_fr_all_maxi.zim
//!   apps:
//!     - {name: kiwix, image: "ghcr.io/offspot/kiwix-serve:dev", ports: ["80:80"], environment: {TITLE: "{name}"}}
//! ```
//!
//! Values of `environment` may hold `{name}`, `{ssid}`, `{language}`, `{time_zone}`, `{colour}`, `{admin_username}` and
//! `{admin_password}`. Content that the catalogue does not have any more is left out and reported.

mod catalogue;
mod checks;
pub mod size;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use catalogue::{Catalogue, CatalogueError, Entry, MAX_FEED_SIZE};
pub use checks::InvalidConfiguration;

/// The key that a configuration stands under, where a recipe could stand too.
pub const KEY: &str = "configuration";

/// What a manager wants of a card.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Configuration {
    /// For people.
    pub name: String,
    /// Of the Wi-Fi; the name when it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ssid: Option<String>,
    /// Without it the Wi-Fi is open.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wifi_password: Option<String>,
    /// Who may change the hotspot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admin: Option<Admin>,
    /// ISO 639 or a tag of BCP 47.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub language: Option<String>,
    /// Of the IANA's list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time_zone: Option<String>,
    /// Of the hotspot's pages, `#rrggbb`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub colour: Option<String>,
    /// As in a recipe.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub base: Value,
    /// As in a recipe.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub output: Value,
    /// Files by name, base64.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub branding: BTreeMap<String, String>,
    /// Where the catalogue is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub catalogue: Option<String>,
    /// From the catalogue.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub content: Vec<Wanted>,
    /// Containers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub apps: Vec<App>,
}

/// Name and password.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
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
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wanted {
    /// The same for all versions.
    pub name: String,
    /// Any when it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flavour: Option<String>,
}

/// A container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct App {
    /// Of the service.
    pub name: String,
    /// Of the container image.
    pub image: String,
    /// `linux/arm64` when it is not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<String>,
    /// As compose files have them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<String>,
    /// As compose files have them; `/data` is the data partition.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<String>,
    /// With placeholders.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub environment: BTreeMap<String, String>,
}

/// Content that is wanted and that the catalogue does not have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vanished {
    /// What was wanted.
    pub wanted: Wanted,
    /// Flavours of the same name that it has.
    pub others: Vec<String>,
}

impl std::fmt::Display for Vanished {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "content {}", self.wanted.name)?;
        if let Some(flavour) = &self.wanted.flavour {
            write!(f, " {flavour}")?;
        }
        f.write_str(" is not in the catalogue any more")?;
        if self.others.is_empty() { Ok(()) } else { write!(f, "; there is {}", self.others.join(", ")) }
    }
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

    /// As [`Self::of_value`] reads it.
    pub fn to_value(&self) -> Value {
        serde_json::json!({ KEY: self })
    }

    /// What of the catalogue is on the card, each entry once, and what is not there any more.
    pub fn choose<'c>(&self, catalogue: &'c Catalogue) -> (Vec<&'c Entry>, Vec<Vanished>) {
        let (mut chosen, mut vanished): (Vec<&Entry>, _) = (Vec::new(), Vec::new());
        for wanted in &self.content {
            match catalogue.newest(&wanted.name, wanted.flavour.as_deref()) {
                // Named twice, with and without its flavour: it is there once.
                Some(entry) if chosen.iter().any(|c| c.file_name() == entry.file_name()) => {}
                Some(entry) => chosen.push(entry),
                None => vanished
                    .push(Vanished { wanted: wanted.clone(), others: catalogue.flavours_of(&wanted.name) }),
            }
        }
        (chosen, vanished)
    }
}
