//! Configurations that become recipes, and those that must be refused, each with its message.

use serde_json::{Value, json};

use super::*;

fn full() -> Value {
    json!({"configuration": {
        "name": "École de Kita", "ssid": "Kita", "wifi_password": "correct horse",
        "admin": {"username": "boss", "password": "s3cret $1 {name}"},
        "language": "fr", "time_zone": "Africa/Bamako", "colour": "#0a56c2",
        "base": {"source": "https://example.org/base.img.xz", "size": 4096},
        "output": {"size": "auto"},
        "branding": {"logo.png": "aGVsbG8="},
        "catalogue": "https://library.example/catalog/v2/entries",
        "content": [{"name": "wikipedia_fr_all", "flavour": "maxi"}, {"name": "small"},
            {"name": "wikipedia_fr_all"}, {"name": "wikipedia_fr_all", "flavour": "nopic"}, {"name": "gone"}],
        "apps": [{"name": "kiwix", "image": "ghcr.io/offspot/kiwix-serve:dev", "platform": "linux/arm/v7",
            "ports": ["80:80"], "volumes": ["/data/content:/data"],
            "environment": {"TITLE": "{name} on {ssid}", "PASSWORD": "{admin_password}", "ODD": "{x} {", "LANG": "{language}"}}],
    }})
}

fn read(value: &Value) -> Configuration {
    Configuration::of_value(value).unwrap().unwrap()
}

fn catalogue() -> Catalogue {
    let feed = include_bytes!("../../fuzz/seeds/catalogue/library.xml");
    Catalogue::parse(feed, Some("https://library.example/catalog/v2/entries")).unwrap()
}

#[test]
fn a_configuration_becomes_a_recipe_with_the_newest_content_and_vanished_content_is_reported() {
    let converted = recipe_of(&read(&full()), &catalogue()).unwrap();
    let recipe = converted.recipe.value();
    let files = recipe["files"].as_array().unwrap();
    let places: Vec<_> = files.iter().map(|f| f["to"].as_str().unwrap()).collect();
    assert_eq!(
        places,
        [
            "/data/content/wikipedia_fr_all_maxi.zim",
            "/data/content/small.zim",
            "/data/content/content.json",
            "/data/branding/logo.png",
            "/data/branding/colour.css"
        ]
    );
    assert_eq!(files[0]["url"], "https://download.example/zim/wikipedia_fr_all_maxi_2025-06.zim");
    let index: Value = serde_json::from_str(files[2]["content"].as_str().unwrap()).unwrap();
    assert_eq!(index[0]["title"], "Wikipédia & amis <fr>");
    let reported: Vec<_> = converted.vanished.iter().map(ToString::to_string).collect();
    assert_eq!(
        reported,
        [
            "content wikipedia_fr_all nopic is not in the catalogue any more; there is maxi",
            "content gone is not in the catalogue any more"
        ]
    );
    assert_eq!(files[4]["content"], ":root { --brand-colour: #0a56c2; }\n");
    assert_eq!(recipe["base"]["size"], 4096);
    let image = json!({"ident": "ghcr.io/offspot/kiwix-serve:dev", "platform": "linux/arm/v7"});
    assert_eq!(recipe["oci_images"], json!([image]));
    let settings = converted.recipe.offspot.as_ref().unwrap();
    assert_eq!(settings["ap"], json!({"ssid": "Kita", "passphrase": "correct horse"}));
    assert_eq!(settings["hostname"], "cole-de-kita");
    assert_eq!((&settings["timezone"], &settings["language"]), (&json!("Africa/Bamako"), &json!("fr")));
    let environment = &settings["containers"]["services"]["kiwix"]["environment"];
    assert_eq!(environment["TITLE"], "École de Kita on Kita");
    assert_eq!(environment["PASSWORD"], "s3cret $$1 {name}", "what comes in is not filled again");
    assert_eq!((&environment["ODD"], &environment["LANG"]), (&json!("{x} {"), &json!("fr")));
    assert_eq!(recipe_of(&read(&full()), &catalogue()).unwrap(), converted, "the same twice");
}

#[test]
fn the_smallest_configuration_is_an_open_hotspot_and_a_recipe_is_none() {
    let converted =
        recipe_of(&read(&json!({"configuration": {"name": "Kita"}})), &Catalogue::default()).unwrap();
    assert_eq!(converted.recipe.offspot, Some(json!({"hostname": "kita", "ap": {"ssid": "Kita"}})));
    assert!(converted.vanished.is_empty() && converted.recipe.files.is_empty());
    assert_eq!(Configuration::of_value(&json!({"files": []})), Ok(None));
}

#[test]
fn a_configuration_that_cannot_be_is_refused_by_its_field_and_without_its_passwords() {
    let table: [(&str, Value, &str); 20] = [
        ("name", json!(" "), "name: must be 1 to 64 characters in one line"),
        ("name", json!("学校"), "name: has no letter or digit that a host name could be made of"),
        ("ssid", json!("x".repeat(33)), "ssid: must be 1 to 32 bytes to be an SSID"),
        ("ssid", json!("a\nb"), "ssid: must be 1 to 32 bytes to be an SSID"),
        ("wifi_password", json!("short"), "wifi_password: must be 8 to 63 characters of ASCII"),
        ("wifi_password", json!("pässwörd"), "wifi_password: must be 8 to 63 characters of ASCII"),
        (
            "admin",
            json!({"username": "a b", "password": "x"}),
            "admin.username: must be letters, digits and . _ - @",
        ),
        ("admin", json!({"username": "a", "password": ""}), "admin.password: must be one line"),
        ("language", json!("French"), "language: must be a language tag like fr or pt-BR"),
        ("language", json!("fr-"), "language: must be a language tag like fr or pt-BR"),
        ("time_zone", json!("../etc"), "time_zone: must be a name like Africa/Bamako"),
        ("branding", json!({"../x": ""}), "branding.../x: must be letters, digits and . _ -"),
        (
            "branding",
            json!({"logo": "%"}),
            "configuration: files[3].content: not base64: Invalid symbol 37, offset 0.",
        ),
        ("content", json!([{"name": "a/b"}]), "content[0]: name and flavour are letters, digits and . _ -"),
        ("catalogue", json!(null), "catalogue: is needed for content"),
        ("apps", json!([{"name": "x y", "image": "x"}]), "apps[0].name: must be letters, digits, _ and -"),
        (
            "apps",
            json!([{"name": "x", "image": "a"}, {"name": "x", "image": "b"}]),
            "apps[1].name: is another app's too",
        ),
        ("apps", json!([{"name": "x", "image": "a", "ports": [""]}]), "apps[0].ports: must be one line each"),
        (
            "apps",
            json!([{"name": "x", "image": "a", "environment": {"A B": "x"}}]),
            "apps[0].environment: must be NAME: value, each in one line",
        ),
        (
            "base",
            json!("base.iso"),
            "configuration: base.source: \"base.iso\" is none of .img .img.xz .img.zst .img.gz",
        ),
    ];
    for (field, value, message) in table {
        let mut whole = full();
        whole["configuration"][field] = value;
        let refused = match Configuration::of_value(&whole) {
            Ok(configuration) => recipe_of(&configuration.unwrap(), &catalogue()).map(|_| ()),
            Err(error) => Err(error),
        };
        let error = refused.unwrap_err().to_string();
        assert_eq!(error, message);
        assert!(!error.contains("s3cret") && !error.contains("horse"));
    }
    let unknown = json!({"configuration": {"name": "x", "wify": 1}});
    assert!(Configuration::of_value(&unknown).unwrap_err().fault.contains("unknown field `wify`"));
    let beside = json!({"configuration": {"name": "x"}, "files": []});
    assert!(Configuration::of_value(&beside).unwrap_err().to_string().starts_with("files: stands beside"));
}
