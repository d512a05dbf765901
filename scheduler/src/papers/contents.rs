//! What is on a card, for the paper that goes with it: a list of what may be told of a recipe. Everything else of it,
//! passwords and what may hold one, is not looked at: environments of apps, settings of the system, contents of files,
//! addresses with their users and queries.

use serde_json::Value;

use super::Language;
use super::text::clean;
use super::words::Words;

/// Names of one kind that are told, at most.
const MAX_NAMES: usize = 200;

/// A line of a paper: what it is, and its value.
type Told = (&'static str, String);

/// What may be told of a recipe, or of the configuration it holds.
pub fn contents(recipe: &Value, language: Language) -> Vec<(&'static str, String)> {
    let words = language.words();
    match recipe.get("configuration") {
        Some(configuration) => of_configuration(configuration, words),
        None => of_recipe(recipe, words),
    }
}

fn of_configuration(configuration: &Value, words: &'static Words) -> Vec<Told> {
    let text = |key: &str| configuration[key].as_str().map(clean).filter(|text| !text.is_empty());
    let mut told: Vec<Told> = Vec::new();
    told.extend(text("name").map(|name| (words.name, name)));
    if let Some(ssid) = text("ssid").or_else(|| text("name")) {
        let closed = configuration.get("wifi_password").is_some_and(|p| !p.is_null());
        let lock = if closed { words.wifi_closed } else { words.wifi_open };
        told.push((words.wifi, format!("{ssid} ({lock})")));
    }
    told.extend(text("language").map(|language| (words.language, language)));
    told.extend(text("time_zone").map(|zone| (words.time_zone, zone)));
    told.extend(base(&configuration["base"]).map(|name| (words.base, name)));
    let content = |wanted: &Value| {
        let (name, flavour) = (wanted["name"].as_str()?, wanted["flavour"].as_str());
        Some(flavour.map_or_else(|| name.to_owned(), |flavour| format!("{name} ({flavour})")))
    };
    told.extend(names(&configuration["content"], content).map(|list| (words.content, list)));
    let app = |app: &Value| app["name"].as_str().map(str::to_owned);
    told.extend(names(&configuration["apps"], app).map(|list| (words.apps, list)));
    told
}

fn of_recipe(recipe: &Value, words: &'static Words) -> Vec<Told> {
    let mut told: Vec<Told> = Vec::new();
    told.extend(base(&recipe["base"]).map(|name| (words.base, name)));
    let image = |image: &Value| image_name(image["ident"].as_str()?);
    told.extend(names(&recipe["oci_images"], image).map(|list| (words.apps, list)));
    let file = |file: &Value| Some(file["to"].as_str()?.strip_prefix("/data/")?.to_owned());
    told.extend(names(&recipe["files"], file).map(|list| (words.files, list)));
    told
}

/// Names of a list's entries, cleaned, each once.
fn names(list: &Value, name: impl Fn(&Value) -> Option<String>) -> Option<String> {
    let mut all: Vec<String> = Vec::new();
    let entries = list.as_array().into_iter().flatten().filter_map(|entry| name(entry).map(|n| clean(&n)));
    for name in entries.filter(|name| !name.is_empty()).take(MAX_NAMES) {
        if !all.contains(&name) {
            all.push(name);
        }
    }
    (!all.is_empty()).then(|| all.join(", "))
}

/// The file name of a base, without the address it lies at.
fn base(base: &Value) -> Option<String> {
    let source = base.as_str().or_else(|| base["source"].as_str())?;
    let path = match source.split_once("://") {
        // What stands before the first slash may hold a password.
        Some((_, rest)) => rest.split(['?', '#']).next()?.split_once('/')?.1,
        None => source,
    };
    path.rsplit('/').next().map(clean).filter(|name| !name.is_empty() && name != "none")
}

/// `kiwix-serve:dev` of `ghcr.io/offspot/kiwix-serve:dev`.
fn image_name(ident: &str) -> Option<String> {
    let name = ident.rsplit('/').next()?;
    match name.split_once('@') {
        None => Some(name.to_owned()),
        Some((name, digest)) if digest.starts_with("sha256:") => Some(name.to_owned()),
        Some(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_configuration_tells_its_name_network_content_and_apps() {
        let recipe = json!({"configuration": {
            "name": "École de Kita", "ssid": "Kita", "wifi_password": "correct horse", "language": "fr",
            "time_zone": "Africa/Bamako", "base": "https://ada:pw@example.org/dl/base.img.xz?sig=1",
            "content": [{"name": "wikipedia_fr_all", "flavour": "maxi"}, {"name": "gutenberg"}, {"name": "gutenberg"}],
            "apps": [{"name": "kiwix", "image": "x", "environment": {"PASSWORD": "battery"}}],
        }});
        assert_eq!(
            contents(&recipe, Language::French),
            [
                ("Nom", "École de Kita".into()),
                ("Wi-Fi", "Kita (avec mot de passe)".into()),
                ("Langue", "fr".into()),
                ("Fuseau horaire", "Africa/Bamako".into()),
                ("Système", "base.img.xz".into()),
                ("Contenus", "wikipedia_fr_all (maxi), gutenberg".to_owned()),
                ("Applications", "kiwix".into()),
            ]
        );
    }

    #[test]
    fn a_recipe_tells_its_base_images_and_files_and_no_address() {
        let recipe = json!({
            "base": {"source": "https://ada:secret@example.org"},
            "oci_images": [{"ident": "ghcr.io/offspot/kiwix-serve:dev"}, {"ident": "a/b:1@sha256:00"}, {"ident": "ada:secret@x"}],
            "files": [{"to": "/data/a/b.zim", "url": "https://x/?token=secret"}, {"to": "/etc/x"}],
            "offspot": {"ap": {"passphrase": "secret"}},
        });
        let told = contents(&recipe, Language::English);
        assert_eq!(told, [("Apps", "kiwix-serve:dev, b:1".to_owned()), ("Files", "a/b.zim".into())]);
        for nothing in [json!({}), json!(null), json!([1]), json!({"configuration": 3, "files": {"to": 1}})] {
            assert!(contents(&nothing, Language::English).is_empty(), "{nothing}");
        }
    }
}
