//! Configurations: versions, copies, files, secrets, and what keeps one from being removed; and sizes of cards.

use axum::http::StatusCode;
use serde_json::{Value, json};

use super::{PASSWORD, Site};

fn hotspot() -> Value {
    json!({"configuration": {"name": "Kita", "wifi_password": "correct horse",
        "admin": {"username": "boss", "password": "s3cret-word"}, "language": "fr", "time_zone": "Africa/Bamako"}})
}

async fn made(site: &Site, token: &str) -> String {
    let body = json!({"name": "School", "channel": "default", "recipe": hotspot()});
    site.made("/configurations", token, body).await["id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_configuration_is_changed_from_its_newest_version_only() {
    let site = Site::new().await;
    let id = made(&site, &site.admin).await;
    let path = format!("/configurations/{id}/update");
    let mut recipe = hotspot();
    recipe["configuration"]["ssid"] = json!("École");
    let changed = site.made(&path, &site.admin, json!({"version": 1, "recipe": recipe})).await;
    assert_eq!((&changed["version"], &changed["name"]), (&json!(2), &json!("School")));
    assert_eq!(changed["recipe"], recipe);
    let (status, answer) = site.post(&path, &site.admin, json!({"version": 1, "name": "Mine"})).await;
    assert_eq!((status, &answer["code"]), (StatusCode::CONFLICT, &json!("changed")));
    recipe["configuration"]["ssid"] = json!("x".repeat(33));
    let (status, answer) = site.post(&path, &site.admin, json!({"version": 2, "recipe": recipe})).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(answer["detail"], "field recipe: ssid: must be 1 to 32 bytes to be an SSID");
}

#[tokio::test]
async fn secrets_are_shown_to_staff_and_managers_one_by_one_and_nowhere_else() {
    let site = Site::new().await;
    let manager = site.user("manager", "manager", &["default"]).await;
    let operator = site.user("operator", "operator", &["default"]).await;
    let id = made(&site, &manager).await;
    let key = site.made("/api-keys", &manager, json!({"name": "shop", "rights": ["order"]})).await;
    let key = key["key"].as_str().unwrap();
    let path = format!("/configurations/{id}");
    let secret = |answer: &Value| {
        let text = answer.to_string();
        text.contains("horse") || text.contains("s3cret-word") || text.contains("boss")
    };
    for (token, sees) in [(&site.admin, true), (&manager, true), (&operator, false), (&key.to_owned(), false)]
    {
        let (status, answer) = site.get(&path, token).await;
        assert_eq!((status, secret(&answer)), (StatusCode::OK, sees), "{answer}");
        let (_, list) = site.get("/configurations", token).await;
        assert!(!secret(&list) && list.to_string().contains("School"), "{list}");
    }
    let (_, hidden) = site.get(&path, &operator).await;
    assert_eq!(
        hidden["secrets_left_out"],
        json!(["configuration.wifi_password", "configuration.admin.password"])
    );
    let (_, file) = site.get(&format!("{path}/export"), &manager).await;
    assert!(!secret(&file), "not asked for");
    let (_, file) = site.get(&format!("{path}/export?secrets=true"), &manager).await;
    assert!(secret(&file));
    let (status, _) = site.get(&format!("{path}/export?secrets=true"), key).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    let copy = site.made(&format!("{path}/duplicate"), key, json!({})).await;
    let (_, copy) = site.get(&format!("/configurations/{}", copy["id"].as_str().unwrap()), &manager).await;
    assert!(!secret(&copy), "a key cannot copy what it cannot read");
    let (_, audit) = site.get("/audit", &site.admin).await;
    assert!(!secret(&audit));
}

#[tokio::test]
async fn what_is_another_organizations_or_everybodys_is_not_a_managers_to_change() {
    let site = Site::new().await;
    let organization = site.made("/organizations", &site.admin, json!({"name": "School"})).await;
    let user = json!({"username": "owner", "password": PASSWORD, "role": "manager", "organization": organization["id"]});
    site.made("/users", &site.admin, user).await;
    let owner = site.login("owner", PASSWORD).await;
    let neighbour = site.user("neighbour", "manager", &["default"]).await;
    let path = format!("/configurations/{}", made(&site, &owner).await);
    assert_eq!(site.get(&path, &neighbour).await.0, StatusCode::NOT_FOUND);
    assert_eq!(site.post(&format!("{path}/delete"), &neighbour, json!({})).await.0, StatusCode::NOT_FOUND);
    assert_eq!(site.get(&path, &owner).await.0, StatusCode::OK);

    let everybodys =
        site.made("/configurations", &site.admin, json!({"name": "All", "recipe": hotspot()})).await;
    let path = format!("/configurations/{}", everybodys["id"].as_str().unwrap());
    let (status, answer) =
        site.post(&format!("{path}/update"), &owner, json!({"version": 1, "name": "x"})).await;
    assert_eq!(status, StatusCode::FORBIDDEN);
    assert!(answer["detail"].as_str().unwrap().contains("duplicate it"));
    let (_, seen) = site.get(&path, &owner).await;
    assert!(!seen.to_string().contains("horse"), "the passwords of everybody's are staff's");
    let copy = site.made(&format!("{path}/duplicate"), &owner, json!({"name": "Ours"})).await;
    assert_eq!((&copy["name"], &copy["channel"]), (&json!("Ours"), &json!("default")));
}

#[tokio::test]
async fn a_configuration_that_is_needed_stays_and_says_by_what() {
    let site = Site::new().await;
    let id = made(&site, &site.admin).await;
    let order = json!({"configuration": id, "kind": "virtual", "name": "Spring", "channel": "default"});
    let order = site.made("/orders", &site.admin, order).await;
    let auto = site.made("/auto-images", &site.admin, json!({"name": "wiki", "configuration": id})).await;
    let path = format!("/configurations/{id}/delete");
    let (status, answer) = site.post(&path, &site.admin, json!({})).await;
    assert_eq!((status, &answer["code"]), (StatusCode::CONFLICT, &json!("in_use")));
    let said = answer["detail"].as_str().unwrap();
    assert!(said.contains("auto-image wiki") && said.contains("order Spring"), "{said}");
    site.made(&format!("/auto-images/{}/delete", auto["id"].as_str().unwrap()), &site.admin, json!({})).await;
    assert_eq!(site.post(&path, &site.admin, json!({})).await.0, StatusCode::CONFLICT);
    site.made(&format!("/orders/{}/cancel", order["id"].as_str().unwrap()), &site.admin, json!({})).await;
    site.made(&path, &site.admin, json!({})).await;
    assert_eq!(site.get(&format!("/configurations/{id}"), &site.admin).await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn an_exported_configuration_is_imported_again_and_a_strange_file_is_refused_by_its_key() {
    let site = Site::new().await;
    let manager = site.user("manager", "manager", &["default"]).await;
    let id = made(&site, &manager).await;
    let (_, file) = site.get(&format!("/configurations/{id}/export?secrets=true"), &manager).await;
    let again = site.made("/configurations/import", &manager, file.clone()).await;
    assert_eq!((&again["recipe"], &again["name"]), (&hotspot(), &json!("School")));
    let (_, bare) = site.get(&format!("/configurations/{id}/export"), &manager).await;
    let again = site.made("/configurations/import", &manager, bare).await;
    assert_eq!(again["recipe"]["configuration"]["language"], "fr");
    for (key, value, said) in [
        ("schema", json!(2), "field schema: is 2, and this server reads 1"),
        ("wify", json!(1), "has a key \"wify\" that this server does not know"),
        ("recipe", json!({"configuration": {"name": "x", "wify": 1}}), "unknown field `wify`"),
        ("name", json!(""), "field name: is missing"),
    ] {
        let mut wrong = file.clone();
        wrong[key] = value;
        let (status, answer) = site.post("/configurations/import", &manager, wrong).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
        assert!(answer["detail"].as_str().unwrap().contains(said), "{answer}");
    }
}

#[tokio::test]
async fn a_size_of_card_is_changed_by_what_was_measured_and_stays_while_an_order_needs_it() {
    let site = Site::new().await;
    let (_, media) = site.get("/media", &site.admin).await;
    let eight = &media["items"][0];
    let path = format!("/media/{}", eight["id"].as_str().unwrap());
    let order = site.order(&site.admin, json!({"media": "8 GB", "quantity": 1})).await;
    let (status, answer) = site.post(&format!("{path}/delete"), &site.admin, json!({})).await;
    assert_eq!(status, StatusCode::CONFLICT);
    assert!(answer["detail"].as_str().unwrap().contains(&order.to_string()), "{answer}");

    let creator = site.user("maker", "creator", &[]).await;
    site.create_image(&creator, 1 << 20).await;
    let mut bench = site.appliance(1).await;
    let lease = site.leases(bench.id).await.remove(0);
    let fact = bench.verified(&lease, 1, 1);
    bench.tell(fact).await;
    let (_, measured) = site.get(&format!("{path}/measured"), &site.admin).await;
    assert_eq!((&measured["cards"], &measured["smallest_bytes"]), (&json!(1), &json!(8_000_000_000_u64)));
    let usable = measured["usable_bytes"].as_u64().unwrap();
    assert!(usable <= 8_000_000_000 && usable > 7_990_000_000);
    let changed = site.made(&format!("{path}/update"), &site.admin, json!({"usable_bytes": usable})).await;
    assert_eq!(changed["usable_bytes"], usable);
    let (status, _) =
        site.post(&format!("{path}/update"), &site.admin, json!({"usable_bytes": 9_000_000_000_u64})).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    site.made(&format!("/orders/{order}/ship"), &site.admin, json!({})).await;
    site.made(&format!("{path}/delete"), &site.admin, json!({})).await;
    let (_, media) = site.get("/media", &site.admin).await;
    assert!(!media.to_string().contains("\"8 GB\""));
}
