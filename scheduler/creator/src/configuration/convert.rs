//! A checked configuration and a catalogue become a recipe. Pure: the same two always give the same recipe.

use cardshop_protocol::configuration::{App, Catalogue, Configuration, InvalidConfiguration, Vanished};
use serde_json::{Map, Value, json};

use crate::recipe::Recipe;

/// A recipe, and what of the configuration is not in it.
#[derive(Debug, Clone, PartialEq)]
pub struct Converted {
    /// What to build.
    pub recipe: Recipe,
    /// Content that the catalogue does not have.
    pub vanished: Vec<Vanished>,
}

/// The recipe, with content from `catalogue`.
///
/// # Errors
/// `InvalidConfiguration` for what only a recipe's own checks find: base, output, or a logo that is not base64.
pub fn recipe_of(
    configuration: &Configuration,
    catalogue: &Catalogue,
) -> Result<Converted, InvalidConfiguration> {
    let (chosen, vanished) = configuration.choose(catalogue);
    let (mut files, mut index) = (Vec::new(), Vec::new());
    for entry in chosen {
        let name = entry.file_name();
        files.push(json!({"to": format!("/data/content/{name}"), "url": entry.url}));
        index.push(json!({"file": name, "id": entry.id, "title": entry.title,
            "language": entry.language, "category": entry.category, "updated": entry.updated}));
    }
    if !index.is_empty() {
        let text = Value::from(index).to_string();
        files.push(json!({"to": "/data/content/content.json", "content": text}));
    }
    for (name, bytes) in &configuration.branding {
        files.push(json!({"to": format!("/data/branding/{name}"), "content": bytes, "via": "base64"}));
    }
    if let Some(colour) = &configuration.colour {
        let css = format!(":root {{ --brand-colour: {colour}; }}\n");
        files.push(json!({"to": "/data/branding/colour.css", "content": css}));
    }
    let mut images: Vec<Value> = Vec::new();
    for app in &configuration.apps {
        let mut image = json!({"ident": app.image});
        if let Some(platform) = &app.platform {
            image["platform"] = json!(platform);
        }
        if !images.contains(&image) {
            images.push(image);
        }
    }
    let mut recipe = json!({"files": files, "oci_images": images, "offspot": settings(configuration)});
    for (key, value) in [("base", &configuration.base), ("output", &configuration.output)] {
        if !value.is_null() {
            recipe[key] = value.clone();
        }
    }
    let recipe = Recipe::from_value(&recipe)
        .map_err(|error| InvalidConfiguration::new("configuration", error.to_string()))?;
    Ok(Converted { recipe, vanished })
}

/// What the card's system reads at its first start.
fn settings(configuration: &Configuration) -> Value {
    let mut access_point = json!({"ssid": configuration.ssid()});
    if let Some(password) = &configuration.wifi_password {
        access_point["passphrase"] = json!(password);
    }
    let mut settings = json!({"hostname": configuration.host_name(), "ap": access_point});
    if let Some(zone) = &configuration.time_zone {
        settings["timezone"] = json!(zone);
    }
    if let Some(language) = &configuration.language {
        settings["language"] = json!(language);
    }
    if !configuration.apps.is_empty() {
        let services: Map<_, _> =
            configuration.apps.iter().map(|app| (app.name.clone(), service(configuration, app))).collect();
        settings["containers"] = json!({"services": services});
    }
    settings
}

/// An app as a service of a compose file. **Source:** the Compose specification: `$$` is a dollar sign.
fn service(configuration: &Configuration, app: &App) -> Value {
    let value = |text: &String| Value::from(filled(configuration, text).replace('$', "$$"));
    let environment: Map<_, _> =
        app.environment.iter().map(|(key, text)| (key.clone(), value(text))).collect();
    let mut service = json!({"image": app.image, "container_name": app.name, "pull_policy": "never",
        "restart": "unless-stopped"});
    for (key, list) in [("ports", &app.ports), ("volumes", &app.volumes)] {
        if !list.is_empty() {
            service[key] = json!(list);
        }
    }
    if !environment.is_empty() {
        service["environment"] = Value::Object(environment);
    }
    service
}

/// A text with its placeholders filled in, each once: what comes in for one is not looked at again.
fn filled(configuration: &Configuration, text: &str) -> String {
    let admin = configuration.admin.as_ref();
    let known = [
        ("{name}", configuration.name.trim()),
        ("{ssid}", configuration.ssid()),
        ("{language}", configuration.language.as_deref().unwrap_or_default()),
        ("{colour}", configuration.colour.as_deref().unwrap_or_default()),
        ("{time_zone}", configuration.time_zone.as_deref().unwrap_or_default()),
        ("{admin_username}", admin.map_or("", |a| &a.username)),
        ("{admin_password}", admin.map_or("", |a| &a.password)),
    ];
    let (mut filled, mut rest) = (String::new(), text);
    while let Some(at) = rest.find('{') {
        filled.push_str(&rest[..at]);
        rest = &rest[at..];
        let (key, value) = known.iter().find(|(key, _)| rest.starts_with(key)).unwrap_or(&("{", "{"));
        filled.push_str(value);
        rest = &rest[key.len()..];
    }
    filled + rest
}
