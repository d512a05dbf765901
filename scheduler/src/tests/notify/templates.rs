//! Templates of staff: refused when they are wrong, shown, and in the letters from then on.

use axum::http::StatusCode;
use serde_json::json;

use super::super::Site;
use super::{recipient, site_with_mail};

#[tokio::test]
async fn a_template_of_staff_is_checked_shown_and_used_and_the_own_one_comes_back() {
    let Some((site, mut server)) = site_with_mail().await else { return };
    let path = "/templates/order_created/fr";
    for (body, says) in [
        ("{{ nom }}", "field body: there is no nom: it may use"),
        ("{% if name %}", "field body: "),
        ("{{ name.first }}", "field body: "),
    ] {
        let (status, refused) = site.post(path, &site.admin, json!({"subject": "x", "body": body})).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
        assert!(refused["detail"].as_str().unwrap().starts_with(says), "{refused}");
    }
    let draft = json!({"subject": "Merci : {{ name }}", "body": "Merci {{ recipient }} !\n\n{{ order }}"});
    let shown = site.made(&format!("{path}/preview"), &site.admin, draft.clone()).await;
    assert_eq!(shown["subject"], "Merci : School library");
    assert!(shown["text"].as_str().unwrap().starts_with("Merci Ada Lovelace !\n\n"), "{shown}");
    assert!(shown["html"].as_str().unwrap().contains("<p>Merci Ada Lovelace !</p>"), "{shown}");
    let kept = site.made(path, &site.admin, draft).await;
    assert_eq!((&kept["changed"], &kept["changed_by"]), (&json!(true), &json!("admin")));

    site.made(&format!("{path}/test"), &site.admin, json!({"to": "staff@example.org"})).await;
    site.order(&site.admin, json!({"recipient": recipient("fr")})).await;
    site.scheduler.send_mail().await.unwrap();
    let subjects: Vec<_> = server.mode("take").iter().map(|l| l["headers"]["subject"].clone()).collect();
    assert_eq!(subjects, ["Merci : School library", "Merci : School", "Merci : School"]);

    let (_, list) = site.get("/templates", &site.admin).await;
    assert_eq!(list["items"].as_array().unwrap().len(), 28);
    let changed: Vec<_> = list["items"].as_array().unwrap().iter().filter(|t| t["changed"] == true).collect();
    assert_eq!((changed.len(), &changed[0]["id"]), (1, &json!("order_created.fr")));
    let back = site.made(&format!("{path}/reset"), &site.admin, json!({})).await;
    assert_eq!((&back["changed"], &back["subject"]), (&json!(false), &json!("Commande reçue : {{ name }}")));
}

#[tokio::test]
async fn there_is_a_template_for_each_message_and_language_and_no_other() {
    let site = Site::new().await;
    for path in [
        "/templates/order_created/de/preview",
        "/templates/tea_time/en/preview",
        "/templates/test/FR/preview",
    ] {
        assert_eq!(site.post(path, &site.admin, json!({})).await.0, StatusCode::NOT_FOUND, "{path}");
    }
    let manager = site.user("manager", "manager", &["default"]).await;
    let refused = site.post("/templates/order_created/en", &manager, json!({})).await;
    assert_eq!(refused.0, StatusCode::FORBIDDEN);
}
