//! The real program and a stock mail server: settings in a file, STARTTLS with a login, and the whole site killed between the
//! server's yes and the store's.
#![allow(clippy::unwrap_used, clippy::print_stdout)] // a test that cannot unwrap reads worse, and what is skipped is said

mod common;
#[path = "../../testing/mail.rs"]
mod mail;

use std::collections::BTreeSet;

use cardshop_sim::client::Client;
use common::{cardshop, eventually, start_ready};
use mail::MailServer;
use serde_json::{Value, json};

#[test]
fn letters_outlive_a_killed_site_and_come_again_only_under_the_same_id() {
    let Some(mut server) = MailServer::start("starttls") else { return };
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    std::fs::write(folder.join("password"), mail::PASSWORD).unwrap();
    let settings = format!(
        "data = {:?}\nsmtp = {:?}\nsmtp_password_file = {:?}\nmail_sender = \"The Shop <shop@example.org>\"\n\
         mail_support = \"help@example.org\"\n",
        folder.join("site"),
        server.url(),
        folder.join("password"),
    );
    std::fs::write(folder.join("cardshop.toml"), settings).unwrap();
    // Its certificate is of no public CA.
    let ca = server.certificate();
    let start = || {
        let mut command = cardshop();
        command
            .args(["--json", "up", "--listen", "127.0.0.1:0", "--config"])
            .arg(folder.join("cardshop.toml"));
        start_ready(command.arg("--ca").arg(&ca))
    };
    let (site, ready) = start();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let (username, password) = (text(&ready["username"]), text(&ready["password"]));
    let staff = Client::login(&text(&ready["http"]), &username, &password).unwrap();
    let configuration: Value =
        staff.post("/configurations", &json!({"name": "School", "recipe": {"files": []}})).unwrap();

    // It takes the letter, and before its answer is heard everything is killed.
    server.mode("wait");
    let recipient = json!({"email": "ada@example.org", "language": "fr"});
    let order = json!({"configuration": configuration["id"], "recipient": recipient});
    let _: Value = staff.post("/orders", &order).unwrap();
    let first = server.next();
    assert_eq!((&first["rcpt"][0], &first["tls"]), (&json!("ada@example.org"), &json!(true)));
    assert_eq!(
        (&first["login"], &first["headers"]["subject"]),
        (&json!("shop"), &json!("Commande reçue : School"))
    );
    site.kill();
    server.mode("take");

    let (site, ready) = start();
    let staff = Client::login(&text(&ready["http"]), &username, &password).unwrap();
    eventually("both letters are sent", || {
        let messages = staff.list("/messages").unwrap();
        (messages.len() == 2 && messages.iter().all(|m| m["state"] == "sent")).then_some(())
    });
    assert!(site.terminate().success());
    let letters = server.mode("take");
    let to: BTreeSet<_> = letters.iter().map(|letter| text(&letter["rcpt"][0])).collect();
    assert_eq!((letters.len(), to.len()), (2, 2), "each person once: {to:?}");
    let ids: BTreeSet<_> = letters.iter().map(|letter| text(&letter["headers"]["message-id"])).collect();
    assert_eq!(ids, BTreeSet::from([text(&first["headers"]["message-id"])]));
}
