//! What is kept and tried again: mail servers that refuse, greylist, break off or are not there, restarts in the middle, and
//! what people see of it.

use std::collections::BTreeSet;
use std::time::Duration;

use axum::http::StatusCode;
use serde_json::{Value, json};

use super::super::Site;
use super::{messages, person, recipient, settings, site_with_mail};
use crate::NotifySettings;

const MINUTE: Duration = Duration::from_secs(60);

async fn try_mail(site: &Site) {
    site.scheduler.send_mail().await.unwrap();
}

/// States of all messages to this address.
async fn states(site: &Site, to: &str) -> Vec<(String, Value)> {
    let all = messages(site, "").await;
    let own = all.into_iter().filter(|m| m["to"] == to);
    own.map(|m| (m["state"].as_str().unwrap().to_owned(), m["reason"].clone())).collect()
}

#[tokio::test]
async fn a_letter_that_is_greylisted_or_broken_off_goes_out_later_under_the_same_message_id() {
    let Some((site, mut server)) = site_with_mail().await else { return };
    site.order(&site.admin, json!({"recipient": recipient("en")})).await;
    server.mode("grey");
    try_mail(&site).await;
    let said = states(&site, "ada@example.org").await;
    assert!(said[0].0 == "retrying" && said[0].1.as_str().unwrap().contains("451"), "{said:?}");
    try_mail(&site).await;
    assert_eq!(states(&site, "ada@example.org").await, said, "not before its time");

    // The server has the letter whole and breaks off before it says so: nobody knows whether it was taken.
    server.mode("drop");
    site.scheduler.advance_clock(MINUTE);
    try_mail(&site).await;
    assert_eq!(server.mode("take").len(), 0);
    assert_eq!(states(&site, "ada@example.org").await[0].0, "retrying");
    site.scheduler.advance_clock(5 * MINUTE);
    try_mail(&site).await;
    let letters = server.mode("take");
    assert_eq!(letters.len(), 2, "one to the recipient, one copy to support");
    assert_eq!(
        letters[0]["headers"]["message-id"], letters[1]["headers"]["message-id"],
        "it is the same letter"
    );
    assert_eq!(states(&site, "ada@example.org").await, [("sent".to_owned(), Value::Null)]);
    try_mail(&site).await;
    assert_eq!(server.mode("take").len(), 0);
}

#[tokio::test]
async fn a_refusal_for_good_is_told_and_holds_up_nobody_else_and_a_person_may_send_it_again() {
    let Some((site, mut server)) = site_with_mail().await else { return };
    person(&site, "client", "manager", "en").await;
    let client = site.login("client", super::PASSWORD).await;
    let nobody = json!({"email": "nobody@example.org", "name": "Nobody"});
    let order = site.order(&client, json!({"recipient": nobody})).await;
    try_mail(&site).await;
    let to: BTreeSet<_> =
        server.mode("take").iter().map(|l| l["rcpt"][0].as_str().unwrap().to_owned()).collect();
    assert_eq!(to, BTreeSet::from(["client@example.org".into(), "help@example.org".into()]));
    let said = states(&site, "nobody@example.org").await;
    assert!(said[0].0 == "failed" && said[0].1.as_str().unwrap().contains("550"), "{said:?}");
    let (_, story) = site.get(&format!("/events?order={order}"), &client).await;
    let told =
        story["items"].as_array().unwrap().iter().find(|line| line["kind"] == "message_failed").unwrap();
    assert!(told["text"].as_str().unwrap().contains("order created"), "{told}");
    let (_, metrics) = site.get_text("/metrics").await;
    assert!(
        metrics.contains("cardshop_messages_failed_total 1")
            && metrics.contains("cardshop_messages_sent_total 2")
    );

    let failed = messages(&site, &format!("&order={order}&state=failed")).await.remove(0);
    let path = format!("/messages/{}/send", failed["id"].as_str().unwrap());
    let again = site.made(&path, &client, json!({})).await;
    assert_eq!(again["state"], "waiting");
    // A letter that was sent goes out again when a person says so, as another letter.
    let sent =
        messages(&site, "&state=sent").await.into_iter().find(|m| m["to"] == "client@example.org").unwrap();
    let path = format!("/messages/{}/send", sent["id"].as_str().unwrap());
    site.made(&path, &client, json!({})).await;
    try_mail(&site).await;
    let letters = server.mode("take");
    assert_eq!((letters.len(), &letters[0]["rcpt"][0]), (1, &json!("client@example.org")));
    assert!(letters[0]["headers"]["message-id"].as_str().unwrap().contains(".1@"));
    // A manager of another channel sees none of it.
    site.channel("north").await;
    let stranger = site.user("stranger", "manager", &["north"]).await;
    assert_eq!(site.post(&path, &stranger, json!({})).await.0, StatusCode::NOT_FOUND);
    assert_eq!(site.get("/messages", &stranger).await.1["items"], json!([]));
}

#[tokio::test]
async fn a_restart_between_store_and_mail_server_loses_and_doubles_nothing() {
    let Some((mut site, mut server)) = site_with_mail().await else { return };
    let recipients = ["a", "b", "c"].map(|name| format!("{name}@example.org"));
    for email in &recipients {
        site.order(&site.admin, json!({"recipient": {"email": email}})).await;
        site = site.restart().await;
    }
    try_mail(&site).await;
    site = site.restart().await;
    try_mail(&site).await;
    let letters = server.mode("take");
    let mut to: Vec<_> = letters.iter().map(|l| l["rcpt"][0].as_str().unwrap()).collect();
    to.retain(|to| *to != "help@example.org");
    assert_eq!(to, recipients);
    let ids: BTreeSet<_> = letters.iter().map(|l| l["headers"]["message-id"].to_string()).collect();
    assert_eq!((ids.len(), letters.len()), (3, 6), "three letters and their blind copies");
}

#[tokio::test(flavor = "multi_thread")]
async fn ended_after_the_server_took_a_letter_and_before_that_is_stored_it_comes_again_under_the_same_id() {
    let Some((site, mut server)) = site_with_mail().await else { return };
    site.made("/messages/test", &site.admin, json!({"to": "ada@example.org"})).await;
    server.mode("wait");
    let scheduler = site.scheduler.clone();
    let sending = tokio::spawn(async move { scheduler.send_mail().await });
    let first = server.next();
    sending.abort();
    assert!(sending.await.unwrap_err().is_cancelled());
    let site = site.restart().await;
    server.mode("take");
    try_mail(&site).await;
    let letters = server.mode("take");
    assert_eq!(letters.len(), 1);
    assert_eq!(letters[0]["headers"]["message-id"], first["headers"]["message-id"]);
    assert_eq!(letters[0]["headers"]["date"], first["headers"]["date"]);
}

#[tokio::test]
async fn a_cancel_drops_what_waits_and_only_the_letter_that_says_so_goes_out() {
    let Some((site, mut server)) = site_with_mail().await else { return };
    let creator = site.user("maker", "creator", &[]).await;
    let client = person(&site, "client", "manager", "en").await;
    let order = site.order(&client, json!({"recipient": recipient("en")})).await;
    server.mode("grey");
    try_mail(&site).await;
    site.create_image(&creator, 1 << 20).await;
    let path = format!("/orders/{order}/cancel");
    site.made(&path, &client, json!({})).await;
    site.made(&path, &client, json!({})).await;
    server.mode("take");
    for _ in 0..3 {
        try_mail(&site).await;
        site.scheduler.advance_clock(60 * MINUTE);
    }
    let letters = server.mode("take");
    let subjects: BTreeSet<_> = letters.iter().map(|l| l["headers"]["subject"].as_str().unwrap()).collect();
    assert_eq!((subjects, letters.len()), (BTreeSet::from(["Order canceled: School"]), 3));
    let dropped = messages(&site, "&state=dropped").await;
    assert_eq!(dropped.len(), 5, "{dropped:?}");
    assert!(dropped[0]["reason"].as_str().unwrap().contains("canceled"));
    let path = format!("/messages/{}/send", dropped[0]["id"].as_str().unwrap());
    let client = site.login("client", super::PASSWORD).await;
    let (status, refused) = site.post(&path, &client, json!({})).await;
    assert_eq!((status, &refused["code"]), (StatusCode::CONFLICT, &json!("order_canceled")));
}

#[tokio::test]
async fn without_a_mail_server_letters_say_so_and_go_out_when_there_is_one() {
    let mut site = Site::new().await;
    site.order(&site.admin, json!({"recipient": recipient("en")})).await;
    try_mail(&site).await;
    assert_eq!(states(&site, "ada@example.org").await, [("held".to_owned(), json!("no mail server is set"))]);
    let Some(mut server) = super::server::MailServer::start("plain") else { return };
    site.config.notify = NotifySettings { support: None, ..settings(&server) };
    site = site.restart().await;
    try_mail(&site).await;
    assert_eq!(server.mode("take").len(), 1);
    assert_eq!(states(&site, "ada@example.org").await[0].0, "sent");
}

#[tokio::test]
async fn a_server_that_is_away_is_left_alone_for_a_while_and_given_up_after_three_days_with_a_line_for_people()
 {
    let site = Site::with(|config| {
        let smtp = crate::SmtpAddress::parse("smtp+plain://127.0.0.1:1", None).ok();
        let sender = Some("shop@example.org".into());
        config.notify = NotifySettings { smtp, sender, ..NotifySettings::default() };
    })
    .await;
    let order = site.order(&site.admin, json!({"recipient": recipient("en")})).await;
    site.order(&site.admin, json!({"recipient": {"email": "bob@example.org"}})).await;
    try_mail(&site).await;
    assert_eq!(states(&site, "ada@example.org").await[0].0, "retrying");
    assert_eq!(states(&site, "bob@example.org").await[0].0, "waiting", "nobody else is tried in vain");
    for _ in 0..80 {
        site.scheduler.advance_clock(60 * MINUTE);
        try_mail(&site).await;
    }
    let said = states(&site, "ada@example.org").await;
    assert!(said[0].0 == "failed" && !said[0].1.is_null(), "{said:?}");
    let staff = site.login("admin", super::PASSWORD).await;
    let (_, story) = site.get(&format!("/events?order={order}"), &staff).await;
    assert!(story["items"].as_array().unwrap().iter().any(|line| line["kind"] == "message_failed"));
}

#[tokio::test]
async fn people_choose_what_they_are_told_and_a_forgotten_order_forgets_its_letters() {
    let Some((site, mut server)) = site_with_mail().await else { return };
    let client = person(&site, "client", "manager", "fr").await;
    let off = json!({"events": {"order_created": false}, "time_zone": "UTC"});
    let view = site.made("/me/notifications", &client, off).await;
    assert_eq!((&view["language"], &view["time_zone"]), (&json!("fr"), &json!("UTC")));
    assert_eq!(view["events"]["order_created"], false);
    assert_eq!(
        (&view["events"]["card_written"], &view["events"]["writing_begun"]),
        (&json!(false), &json!(false))
    );
    assert_eq!(
        (&view["events"]["order_failed"], &view["events"]["password_reset"]),
        (&json!(true), &Value::Null)
    );
    for wrong in [
        json!({"events": {"password_reset": false}}),
        json!({"events": {"tea_time": true}}),
        json!({"language": "xx"}),
        json!({"time_zone": "Mars/Olympus"}),
    ] {
        let (status, _) = site.post("/me/notifications", &client, wrong).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    }
    let order = site.order(&client, json!({"recipient": recipient("en")})).await;
    try_mail(&site).await;
    let to: Vec<_> = server.mode("take").iter().map(|l| l["rcpt"][0].clone()).collect();
    assert_eq!(to, [json!("ada@example.org"), json!("help@example.org")]);
    site.made(&format!("/orders/{order}/cancel"), &client, json!({})).await;
    try_mail(&site).await;
    site.made(&format!("/orders/{order}/anonymise"), &client, json!({})).await;
    assert_eq!(messages(&site, "").await, Vec::<Value>::new());
}
