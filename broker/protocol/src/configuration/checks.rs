//! What a configuration's fields may be. Pure.

use super::{App, Configuration};

/// Longest name for people, characters.
const MAX_NAME: usize = 64;
/// Bytes of an SSID. **Source:** IEEE 802.11-2020 §9.4.2.2.
const MAX_SSID: usize = 32;
/// Characters of a WPA passphrase. **Source:** IEEE 802.11-2020 §J.4.1.
const WIFI_PASSWORD: std::ops::RangeInclusive<usize> = 8..=63;
/// Longest login name, password or value, bytes.
const MAX_VALUE: usize = 1000;
/// Longest name of a container image, bytes: the creator reads it, and knows more of it.
const MAX_IMAGE_NAME: usize = 400;
/// Most entries of content, and of apps.
const MAX_ITEMS: usize = 2000;
/// Most bytes of branding, in base64.
const MAX_BRANDING: usize = 4 * 1024 * 1024;

/// A field that cannot be what it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what}: {fault}")]
pub struct InvalidConfiguration {
    /// Which, as a path into the configuration.
    pub what: String,
    /// What is wrong with it. Never holds a password.
    pub fault: String,
}

impl InvalidConfiguration {
    /// A field and what is wrong with it.
    pub fn new(what: impl Into<String>, fault: impl Into<String>) -> Self {
        Self { what: what.into(), fault: fault.into() }
    }
}

fn must(holds: bool, what: &str, fault: &str) -> Result<(), InvalidConfiguration> {
    if holds { Ok(()) } else { Err(InvalidConfiguration::new(what, fault)) }
}

/// Letters, digits and what else is allowed; not empty.
fn word(text: &str, also: &str) -> bool {
    !text.is_empty()
        && text.len() <= MAX_VALUE
        && text.chars().all(|c| c.is_ascii_alphanumeric() || also.contains(c))
}

fn plain(text: &str) -> bool {
    text.len() <= MAX_VALUE && !text.chars().any(char::is_control)
}

impl Configuration {
    pub(super) fn check(&self) -> Result<(), InvalidConfiguration> {
        let name = self.name.trim();
        let short = (1..=MAX_NAME).contains(&name.chars().count());
        must(short && plain(name), "name", "must be 1 to 64 characters in one line")?;
        must(
            !self.host_name().is_empty(),
            "name",
            "has no letter or digit that a host name could be made of",
        )?;
        let ssid = self.ssid();
        let fits = (1..=MAX_SSID).contains(&ssid.len()) && !ssid.chars().any(char::is_control);
        must(fits, if self.ssid.is_some() { "ssid" } else { "name" }, "must be 1 to 32 bytes to be an SSID")?;
        if let Some(password) = &self.wifi_password {
            let visible = password.bytes().all(|b| (b' '..=b'~').contains(&b));
            let fits = WIFI_PASSWORD.contains(&password.len()) && visible;
            must(fits, "wifi_password", "must be 8 to 63 characters of ASCII")?;
        }
        if let Some(admin) = &self.admin {
            must(word(&admin.username, "._-@"), "admin.username", "must be letters, digits and . _ - @")?;
            must(!admin.password.is_empty() && plain(&admin.password), "admin.password", "must be one line")?;
        }
        if let Some(language) = &self.language {
            let parts: Vec<&str> = language.split('-').collect();
            let fits = (2..=3).contains(&parts[0].len())
                && parts[0].bytes().all(|b| b.is_ascii_lowercase())
                && parts.iter().all(|part| word(part, "") && part.len() <= 8);
            must(fits, "language", "must be a language tag like fr or pt-BR")?;
        }
        if let Some(zone) = &self.time_zone {
            let fits = zone.split('/').all(|part| word(part, "_+-")) && !zone.starts_with('-');
            must(fits, "time_zone", "must be a name like Africa/Bamako")?;
        }
        if let Some(colour) = &self.colour {
            let digits = colour.strip_prefix('#').unwrap_or_default();
            let fits = digits.len() == 6 && digits.bytes().all(|b| b.is_ascii_hexdigit());
            must(fits, "colour", "must be a colour like #0a56c2")?;
        }
        let branding: usize = self.branding.values().map(String::len).sum();
        must(branding <= MAX_BRANDING, "branding", "has more than 4 MiB")?;
        for name in self.branding.keys() {
            let what = format!("branding.{name}");
            must(word(name, "._-") && !name.starts_with('.'), &what, "must be letters, digits and . _ -")?;
        }
        must(self.content.len() <= MAX_ITEMS, "content", "has more than 2000 entries")?;
        for (index, wanted) in self.content.iter().enumerate() {
            let what = format!("content[{index}]");
            let flavour = wanted.flavour.as_deref().is_none_or(|f| f.is_empty() || word(f, "._-"));
            must(
                word(&wanted.name, "._-") && flavour,
                &what,
                "name and flavour are letters, digits and . _ -",
            )?;
        }
        must(self.catalogue.is_some() || self.content.is_empty(), "catalogue", "is needed for content")?;
        must(self.apps.len() <= MAX_ITEMS, "apps", "has more than 2000 entries")?;
        self.apps.iter().enumerate().try_for_each(|(index, app)| app.check(index, &self.apps[..index]))
    }

    /// Name of its Wi-Fi.
    pub fn ssid(&self) -> &str {
        self.ssid.as_deref().unwrap_or_else(|| self.name.trim())
    }

    /// Its host name: a label of at most 63 letters, digits and hyphens. **Source:** RFC 1123 §2.1.
    pub fn host_name(&self) -> String {
        let mut label = String::new();
        for c in self.name.chars().map(|c| c.to_ascii_lowercase()) {
            if c.is_ascii_alphanumeric() {
                label.push(c);
            } else if !label.is_empty() && !label.ends_with('-') {
                label.push('-');
            }
        }
        label.truncate(63);
        label.trim_end_matches('-').to_owned()
    }
}

impl App {
    fn check(&self, index: usize, before: &[App]) -> Result<(), InvalidConfiguration> {
        let what = |field: &str| format!("apps[{index}].{field}");
        must(word(&self.name, "_-"), &what("name"), "must be letters, digits, _ and -")?;
        must(before.iter().all(|app| app.name != self.name), &what("name"), "is another app's too")?;
        let named = (1..=MAX_IMAGE_NAME).contains(&self.image.len())
            && self.image.chars().all(|c| c.is_ascii_graphic())
            && !self.image.contains("://");
        must(named, &what("image"), "must be a name like ghcr.io/offspot/kiwix-serve:dev")?;
        for (field, values) in [("ports", &self.ports), ("volumes", &self.volumes)] {
            let fits = values.iter().all(|value| !value.is_empty() && plain(value));
            must(fits, &what(field), "must be one line each")?;
        }
        let fits = self.environment.iter().all(|(key, value)| word(key, "_") && plain(value));
        must(fits, &what("environment"), "must be NAME: value, each in one line")
    }
}
