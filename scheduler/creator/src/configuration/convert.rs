//! A checked configuration and a catalogue become a recipe. Pure: the same two always give the same recipe.

use serde_json::{Map, Value, json};

use super::checks::InvalidConfiguration;
use super::{App, Catalogue, Configuration, Entry, Wanted};
use crate::recipe::Recipe;

/// A recipe, and what of the configuration is not in it.
#[derive(Debug, Clone, PartialEq)]
pub struct Converted {
    /// What to build.
    pub recipe: Recipe,
    /// Content that the catalogue does not have.
    pub vanished: Vec<Vanished>,
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
    /// The recipe, with content from `catalogue`.
    ///
    /// # Errors
    /// `InvalidConfiguration` for what only a recipe's own checks find: base, output, or a logo that is not base64.
    pub fn recipe(&self, catalogue: &Catalogue) -> Result<Converted, InvalidConfiguration> {
        let (mut files, mut index, mut vanished) = (Vec::new(), Vec::new(), Vec::new());
        for wanted in &self.content {
            match catalogue.newest(&wanted.name, wanted.flavour.as_deref()) {
                Some(entry) => {
                    let name = file_name(entry);
                    let to = format!("/data/content/{name}");
                    // Named twice, with and without its flavour: it is there once.
                    if !files.iter().any(|file: &Value| file["to"] == to.as_str()) {
                        files.push(json!({"to": to, "url": entry.url}));
                        index.push(json!({"file": name, "id": entry.id, "title": entry.title,
                            "language": entry.language, "category": entry.category, "updated": entry.updated}));
                    }
                }
                None => vanished.push(Vanished { wanted: wanted.clone(), others: others(catalogue, wanted) }),
            }
        }
        if !index.is_empty() {
            let text = Value::from(index).to_string();
            files.push(json!({"to": "/data/content/content.json", "content": text}));
        }
        for (name, bytes) in &self.branding {
            files.push(json!({"to": format!("/data/branding/{name}"), "content": bytes, "via": "base64"}));
        }
        let mut images: Vec<Value> = Vec::new();
        for app in &self.apps {
            let mut image = json!({"ident": app.image});
            if let Some(platform) = &app.platform {
                image["platform"] = json!(platform);
            }
            if !images.contains(&image) {
                images.push(image);
            }
        }
        let mut recipe = json!({"files": files, "oci_images": images, "offspot": self.settings()});
        for (key, value) in [("base", &self.base), ("output", &self.output)] {
            if !value.is_null() {
                recipe[key] = value.clone();
            }
        }
        let recipe = Recipe::from_value(&recipe)
            .map_err(|error| InvalidConfiguration::new("configuration", error.to_string()))?;
        Ok(Converted { recipe, vanished })
    }

    /// What the card's system reads at its first start.
    fn settings(&self) -> Value {
        let mut access_point = json!({"ssid": self.ssid()});
        if let Some(password) = &self.wifi_password {
            access_point["passphrase"] = json!(password);
        }
        let mut settings = json!({"hostname": self.host_name(), "ap": access_point});
        if let Some(zone) = &self.time_zone {
            settings["timezone"] = json!(zone);
        }
        if let Some(language) = &self.language {
            settings["language"] = json!(language);
        }
        if !self.apps.is_empty() {
            let services: Map<_, _> =
                self.apps.iter().map(|app| (app.name.clone(), self.service(app))).collect();
            settings["containers"] = json!({"services": services});
        }
        settings
    }

    /// An app as a service of a compose file. **Source:** the Compose specification: `$$` is a dollar sign.
    fn service(&self, app: &App) -> Value {
        let value = |text: &String| Value::from(self.filled(text).replace('$', "$$"));
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
    fn filled(&self, text: &str) -> String {
        let admin = self.admin.as_ref();
        let known = [
            ("{name}", self.name.trim()),
            ("{ssid}", self.ssid()),
            ("{language}", self.language.as_deref().unwrap_or_default()),
            ("{time_zone}", self.time_zone.as_deref().unwrap_or_default()),
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
}

/// The same for all versions, so that a new one takes the old one's place.
fn file_name(entry: &Entry) -> String {
    let ending = if entry.url.ends_with(".zim") { ".zim" } else { "" };
    match entry.flavour.as_str() {
        "" => format!("{}{ending}", entry.name),
        flavour => format!("{}_{flavour}{ending}", entry.name),
    }
}

fn others(catalogue: &Catalogue, wanted: &Wanted) -> Vec<String> {
    let same = catalogue.entries.iter().filter(|e| e.name == wanted.name && !e.flavour.is_empty());
    let mut flavours: Vec<String> = same.map(|e| e.flavour.clone()).collect();
    flavours.sort();
    flavours.dedup();
    flavours
}
