//! Messages: to a mail server on loopback that is not ours (aiosmtpd), and to a receiver of webhooks.

mod mail;
mod outbox;
mod passwords;
#[path = "../../../../tools/testing/mail.rs"]
mod server;
mod templates;
mod webhooks;

use serde_json::{Value, json};

use super::{PASSWORD, Site};
use crate::{NotifySettings, SmtpAddress};
use server::MailServer;

/// How a site with this mail server is set up.
fn settings(server: &MailServer) -> NotifySettings {
    NotifySettings {
        smtp: SmtpAddress::parse(&server.url(), Some(server::PASSWORD)).ok(),
        sender: Some("Card Shop <shop@example.org>".into()),
        support: Some("help@example.org".into()),
        failed_orders: Some("watch@example.org".into()),
        ..NotifySettings::default()
    }
}

/// A site with a mail server; `None` where there is none to be had.
async fn site_with_mail() -> Option<(Site, MailServer)> {
    let server = MailServer::start("plain")?;
    let notify = settings(&server);
    Some((Site::with(|config| config.notify = notify).await, server))
}

/// Makes a user with an address and a language, and logs it in.
async fn person(site: &Site, name: &str, role: &str, language: &str) -> String {
    let user = json!({
        "username": name, "password": PASSWORD, "role": role, "email": format!("{name}@example.org"),
    });
    site.made("/users", &site.admin, user).await;
    let token = site.login(name, PASSWORD).await;
    site.made("/me/notifications", &token, json!({"language": language})).await;
    token
}

/// A recipient with everything that a letter can use.
fn recipient(language: &str) -> Value {
    json!({
        "name": "Ada Lovelace", "email": "ada@example.org", "language": language, "time_zone": "Europe/Paris",
        "address": "12 St James’s Square\nLondon", "country": "GB",
    })
}

/// All messages, for staff; the clock may have gone past the end of an earlier login.
async fn messages(site: &Site, query: &str) -> Vec<Value> {
    let staff = site.login("admin", PASSWORD).await;
    let (_, page) = site.get(&format!("/messages?limit=500{query}"), &staff).await;
    page["items"].as_array().unwrap().clone()
}
