//! A manager opening the demo shop through the HTTP API: a channel, a configuration, a creator's account, a
//! join token, an approval, an order. Each step is what a person would do in the browser.

use std::time::Duration;

use cardshop_protocol::ids::{ApplianceId, OrderId};
use serde_json::{Value, json};

use crate::client::{Client, ClientError};
use crate::content::ContentFile;

/// Slug of the demo shop's channel.
pub const CHANNEL: &str = "demo";
/// Login name of the demo's creator.
pub const CREATOR: &str = "creator";

/// How often an appliance that should join is looked for.
const JOIN_POLL: Duration = Duration::from_millis(200);

/// Opens the shop: its channel and its configuration, whose content lies at `content_url`. Gives the
/// configuration's id.
///
/// # Errors
/// What the server refuses.
pub fn open(client: &Client, content_url: &str, files: &[ContentFile]) -> Result<String, ClientError> {
    let channel = json!({"slug": CHANNEL, "name": "Demo shop", "active": true, "private": false,
        "sender_name": "Demo shop", "sender_address": "1 Example Street", "sender_email": "demo@example.org"});
    let _: Value = client.post("/channels", &channel)?;
    let configuration =
        json!({"name": "School library", "channel": CHANNEL, "recipe": recipe(content_url, files)});
    let configuration: Value = client.post("/configurations", &configuration)?;
    Ok(text(&configuration, "id"))
}

/// What the creator builds: no base, the library below `/data`, settings on the boot partition.
fn recipe(content_url: &str, files: &[ContentFile]) -> Value {
    let files: Vec<Value> = files
        .iter()
        .map(|f| {
            json!({"to": format!("/data/library/{}", f.name), "url": format!("{content_url}/{}", f.name),
                "size": f.size, "checksum": {"algo": "blake3", "value": f.blake3}})
        })
        .collect();
    json!({"files": files, "offspot": {"name": "school-library", "language": "en", "timezone": "UTC"}})
}

/// Makes the creator's account with this password.
///
/// # Errors
/// What the server refuses.
pub fn hire_creator(client: &Client, password: &str) -> Result<(), ClientError> {
    let user = json!({"username": CREATOR, "password": password, "role": "creator", "channels": [CHANNEL]});
    client.post::<Value>("/users", &user).map(|_| ())
}

/// Makes a join token for an appliance of the demo shop and gives the text of its `JOIN.TXT`.
///
/// # Errors
/// What the server refuses.
pub fn join_file(client: &Client, server: &str) -> Result<String, ClientError> {
    let token: Value = client.post("/join-tokens", &json!({"channels": [CHANNEL]}))?;
    Ok(format!("server = \"{server}\"\ntoken = \"{}\"\nlabel = \"Demo bench\"\n", text(&token, "token")))
}

/// Waits for an appliance that asks to join and lets it in.
///
/// # Errors
/// What the server refuses, or `still_wanted` saying no.
pub fn approve_first(
    client: &Client,
    still_wanted: &dyn Fn() -> bool,
) -> Result<Option<ApplianceId>, ClientError> {
    while still_wanted() {
        let waiting = client.list("/appliances")?.into_iter().find(|a| text(a, "state") == "pending");
        if let Some(id) = waiting.and_then(|a| text(&a, "id").parse().ok()) {
            let _: Value =
                client.post(&format!("/appliances/{id}/approve"), &json!({"channels": [CHANNEL]}))?;
            return Ok(Some(id));
        }
        std::thread::sleep(JOIN_POLL);
    }
    Ok(None)
}

/// Orders `quantity` cards of a configuration.
///
/// # Errors
/// What the server refuses.
pub fn order(client: &Client, configuration: &str, quantity: u32) -> Result<OrderId, ClientError> {
    let order = json!({"kind": "physical", "configuration": configuration, "quantity": quantity, "channel": CHANNEL,
        "recipient": {"name": "Village school", "address": "2 Example Road", "country": "FR"},
        "name": "Cards for the village school"});
    let order: Value = client.post("/orders", &order)?;
    Ok(text(&order, "id").parse().expect("the server names an order by an object id"))
}

/// A text field of an object; empty when it is not there.
pub fn text(object: &Value, field: &str) -> String {
    object[field].as_str().unwrap_or_default().to_owned()
}
