//! Every letter of the table, in each language, as a stock mail server takes it and Python's library reads it.

use std::collections::BTreeSet;
use std::time::Duration;

use cardshop_protocol::ids::{SlotId, TaskId};
use cardshop_protocol::message::Fact;
use serde_json::{Value, json};
use ureq::tls::{Certificate, RootCerts};

use super::super::{Bench, Site, id};
use super::server::MailServer;
use super::{person, recipient, settings, site_with_mail};
use crate::effects::inbox::Incoming;

/// What a letter is to say, in English and in French.
struct Wanted {
    subject: [&'static str; 2],
    says: [&'static str; 2],
}

/// A site with somebody in every part.
struct Shop {
    site: Site,
    server: MailServer,
    client: String,
    creator: String,
    /// 0 for English, 1 for French.
    tongue: usize,
}

const LANGUAGES: [&str; 2] = ["en", "fr"];

impl Shop {
    async fn open(tongue: usize) -> Option<Self> {
        let (site, server) = site_with_mail().await?;
        let client = person(&site, "client", "manager", LANGUAGES[tongue]).await;
        let operator = person(&site, "operator", "operator", LANGUAGES[tongue]).await;
        let all = json!({"events": {"writing_begun": true, "card_written": true}});
        site.made("/me/notifications", &operator, all).await;
        let creator = site.user("maker", "creator", &[]).await;
        Some(Self { site, server, client, creator, tongue })
    }

    async fn order(&self, more: Value) -> cardshop_protocol::ids::OrderId {
        let mut order = json!({"recipient": recipient(LANGUAGES[self.tongue]), "quantity": 2});
        order.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        self.site.order(&self.client, order).await
    }

    /// Sends what is due and compares: these persons, each once, and the support's copy of the first.
    async fn check(&mut self, to: &[&str], wanted: Wanted) -> Vec<Value> {
        self.site.scheduler.send_mail().await.unwrap();
        let letters = self.server.mode("take");
        let mut got: Vec<_> = letters.iter().map(|l| l["rcpt"][0].as_str().unwrap()).collect();
        got.sort_unstable();
        let mut expected: Vec<_> = to.iter().copied().chain(["help@example.org"]).collect();
        expected.sort_unstable();
        assert_eq!(got, expected, "{}", wanted.subject[0]);
        for letter in &letters {
            self.check_letter(letter, to[0], &wanted);
        }
        letters
    }

    fn check_letter(&self, letter: &Value, first: &str, wanted: &Wanted) {
        let (rcpt, headers) = (letter["rcpt"][0].as_str().unwrap(), &letter["headers"]);
        assert_eq!(letter["rcpt"].as_array().unwrap().len(), 1);
        assert_eq!(letter["from"], "shop@example.org");
        assert_eq!(headers["from"], "Card Shop <shop@example.org>");
        assert_eq!(headers["reply-to"], "help@example.org");
        assert_eq!(headers["auto-submitted"], "auto-generated");
        assert_eq!(headers["mime-version"], "1.0");
        let to = headers["to"].as_str().unwrap();
        // The blind copy is of the first letter, and is not named in it.
        let shown = if rcpt == "help@example.org" { first } else { rcpt };
        assert!(to.contains(shown), "{to} in the letter to {rcpt}");
        assert!(headers.get("bcc").is_none() && headers.get("cc").is_none());
        assert_eq!(headers["subject"], wanted.subject[self.tongue], "{rcpt}");
        assert!(headers["message-id"].as_str().unwrap().ends_with("@example.org>"));
        let has_files = letter["parts"].as_array().unwrap().len() > 2;
        let kind = if has_files { "multipart/mixed" } else { "multipart/alternative" };
        assert_eq!((&letter["type"], &letter["defects"]), (&json!(kind), &json!([])));
        // **Source:** RFC 5322 §2.1.1.
        assert!(letter["raw_lines"].as_u64().unwrap() <= 998);
        let [text, html] = [0, 1].map(|n| letter["parts"][n][1].as_str().unwrap());
        assert_eq!([&letter["parts"][0][0], &letter["parts"][1][0]], ["text/plain", "text/html"]);
        let says = wanted.says[self.tongue];
        assert!(text.contains(says), "{says} is not in: {text}");
        let shown = html.replace("&amp;", "&").replace("&#39;", "'").replace("&quot;", "\"");
        for line in says.lines().filter(|line| !line.starts_with("- ")) {
            assert!(shown.contains(line), "{line} is not in: {html}");
        }
        assert!(html.contains(&format!("<html lang=\"{}\">", LANGUAGES[self.tongue])), "{html}");
    }

    async fn see(&self, bench: &Bench<'_>, topic: &str, body: Value) {
        let topic = format!("cardshop/1/appliance/{}/{topic}", bench.id);
        let payload = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        self.site.scheduler.take_message(Incoming { topic, payload, retained: false }).await;
    }
}

/// The slip goes along with what tells operators that a parcel is to be sent.
fn check_slip(letter: &Value) {
    let files = &letter["parts"].as_array().unwrap()[2..];
    assert_eq!(files.len(), 1);
    assert_eq!(files[0].as_array().unwrap()[..3], ["application/pdf", "%PDF-", "slip.pdf"].map(Value::from));
    assert!(files[0][3].as_u64().unwrap() > 1000, "{}", files[0]);
}

#[tokio::test]
async fn each_letter_of_an_order_of_cards_reaches_whom_the_table_names_in_their_language() {
    for tongue in [0, 1] {
        let Some(mut shop) = Shop::open(tongue).await else { return };
        let order = shop.order(json!({})).await;
        let created = Wanted {
            subject: ["Order received: School", "Commande reçue : School"],
            says: [
                "an order for 2 cards with School has been placed for Ada Lovelace",
                "une commande de 2 cartes School a été passée pour Ada Lovelace",
            ],
        };
        let letters = shop.check(&["ada@example.org", "client@example.org"], created).await;
        let page = format!("http://127.0.0.1:8080/orders/{order}");
        for letter in &letters {
            let has_page = letter["parts"][0][1].as_str().unwrap().contains(&page);
            assert_eq!(
                has_page,
                letter["rcpt"][0] == "client@example.org",
                "who has no account gets no page"
            );
        }

        shop.site.create_image(&shop.creator, 1 << 20).await;
        let ready = Wanted {
            subject: ["Image ready: School", "Image prête : School"],
            says: [
                "is made (2 MB). The 2 cards are written next.",
                "est prête (2 Mo). Les 2 cartes vont être écrites.",
            ],
        };
        shop.check(&["client@example.org"], ready).await;

        let site = &shop.site;
        let mut bench = site.appliance(1).await;
        let bench_id = bench.id;
        let lease = site.leases(bench.id).await.remove(0);
        let (task, slot) = (TaskId { order, copy: Some(1) }, SlotId::numbered(1));
        bench.tell(Fact::WriteStarted { task, lease: lease.lease, slot, card_size: 8_000_000_000 }).await;
        let next = bench.next;
        let begun = Wanted {
            subject: ["Writing has begun: School", "L’écriture a commencé : School"],
            says: [
                "the first of 2 cards of School is being written",
                "la première des 2 cartes School est en cours d’écriture",
            ],
        };
        shop.check(&["operator@example.org"], begun).await;

        let mut bench = Bench { site: &shop.site, id: bench_id, next };
        let facts = [1, 2].map(|copy| bench.verified(&lease, copy, u128::from(copy)));
        let [first, second] = facts;
        bench.tell(first).await;
        let next = bench.next;
        let written = Wanted {
            subject: ["Card 1 of 2 is written: School", "Carte 1 sur 2 écrite : School"],
            says: [
                "a card of School is written and verified: 1 of 2",
                "une carte School est écrite et vérifiée : 1 sur 2",
            ],
        };
        shop.check(&["operator@example.org"], written).await;

        // The last card is one of its own, and ends the order.
        Bench { site: &shop.site, id: bench_id, next }.tell(second).await;
        shop.site.scheduler.send_mail().await.unwrap();
        let letters = shop.server.mode("take");
        let (all, card): (Vec<_>, Vec<_>) =
            letters.iter().partition(|l| !l["headers"]["subject"].as_str().unwrap().starts_with("Car"));
        assert_eq!((all.len(), card.len()), (2, 2), "each with its blind copy");
        let ship = Wanted {
            subject: ["To be shipped: 2 × School", "À expédier : 2 × School"],
            says: [
                "Ada Lovelace\n12 St James’s Square\nLondon\nGB\n\nThen say so",
                "Ada Lovelace\n12 St James’s Square\nLondon\nGB\n\nIndiquez-le",
            ],
        };
        for letter in all {
            shop.check_letter(letter, "operator@example.org", &ship);
            check_slip(letter);
        }
        assert!(
            card.iter().all(|letter| letter["parts"].as_array().unwrap().len() == 2),
            "only with the last"
        );

        shop.site
            .made(&format!("/orders/{order}/ship"), &shop.client, json!({"tracking": "RB 12 34", "count": 1}))
            .await;
        let shipped = Wanted {
            subject: ["Shipped: School", "Expédiée : School"],
            says: [
                "1 more will follow.\n\nTracking code: RB 12 34",
                "1 autres suivront.\n\nNuméro de suivi : RB 12 34",
            ],
        };
        let letters = shop.check(&["ada@example.org", "client@example.org"], shipped).await;
        let zone = |to: &str| {
            let letter = letters.iter().find(|l| l["rcpt"][0] == to).unwrap();
            letter["parts"][0][1].as_str().unwrap().to_owned()
        };
        let paris = zone("ada@example.org");
        assert!(paris.contains("(CET)") || paris.contains("(CEST)"), "the recipient's own zone: {paris}");
    }
}

#[tokio::test]
async fn failed_and_canceled_orders_and_downloads_are_told_to_whom_the_table_names() {
    for tongue in [0, 1] {
        let Some(mut shop) = Shop::open(tongue).await else { return };
        shop.order(json!({})).await;
        shop.site.scheduler.send_mail().await.unwrap();
        shop.server.mode("take");
        for permanent in [false, true] {
            let task = shop.site.made("/tasks/claim", &shop.creator, json!({})).await;
            let path = format!("/tasks/{}/report", task["task"].as_str().unwrap());
            let failure = json!({"state": "failed", "reason": "no such content", "permanent": permanent});
            shop.site.made(&path, &shop.creator, failure).await;
            if !permanent {
                shop.site.scheduler.send_mail().await.unwrap();
                assert_eq!(shop.server.mode("take").len(), 0, "it is tried again by itself");
                shop.site.scheduler.advance_clock(Duration::from_secs(60));
            }
        }
        let failed = Wanted {
            subject: ["Order failed: School", "Échec de la commande : School"],
            says: ["Reason: no such content", "Raison : no such content"],
        };
        let watch = ["ada@example.org", "client@example.org", "watch@example.org"];
        // The address that hears of failed orders reads the site's language.
        shop.site.scheduler.send_mail().await.unwrap();
        let letters = shop.server.mode("take");
        assert_eq!(letters.len(), 4);
        for to in watch {
            let letter = letters.iter().find(|l| l["rcpt"][0] == to).unwrap();
            if tongue == 0 || to != "watch@example.org" {
                shop.check_letter(letter, "ada@example.org", &failed);
            }
        }

        let canceled_order = shop.order(json!({})).await;
        shop.site.scheduler.send_mail().await.unwrap();
        shop.server.mode("take");
        shop.site.made(&format!("/orders/{canceled_order}/cancel"), &shop.client, json!({})).await;
        let canceled = Wanted {
            subject: ["Order canceled: School", "Commande annulée : School"],
            says: ["the order of School was canceled on", "la commande de School a été annulée le"],
        };
        shop.check(&["ada@example.org", "client@example.org"], canceled).await;

        shop.order(json!({"kind": "virtual", "quantity": 1})).await;
        shop.site.create_image(&shop.creator, 1 << 20).await;
        shop.site.scheduler.send_mail().await.unwrap();
        shop.server.mode("take");
        shop.site.scheduler.tell_links().await.unwrap();
        let link = format!("{}/p/token/School.img", shop.site.config.warehouses[0]);
        let download = Wanted {
            subject: ["Your download is ready: School", "Votre téléchargement est prêt : School"],
            says: ["is ready for download (2 MB), until", "est prêt au téléchargement (2 Mo), jusqu’au"],
        };
        let letters = shop.check(&["ada@example.org", "client@example.org"], download).await;
        for letter in letters {
            let text = letter["parts"][0][1].as_str().unwrap();
            assert!(text.contains(&link) && text.contains("balenaEtcher"), "{text}");
            assert!(letter["parts"][1][1].as_str().unwrap().contains(&format!("<a href=\"{link}\"")));
        }
    }
}

#[tokio::test]
async fn operators_are_called_when_cards_are_wanted_and_when_an_appliance_is_in_trouble_once() {
    for tongue in [0, 1] {
        let Some(mut shop) = Shop::open(tongue).await else { return };
        shop.order(json!({})).await;
        shop.site.create_image(&shop.creator, 1 << 20).await;
        let bench = shop.site.appliance(1).await;
        let (bench_id, next) = (bench.id, bench.next);
        shop.see(&bench, "status", json!({"status": "online", "session": 1})).await;
        let slot = json!({"boot": 1, "n": 1, "state": "wanted", "led": {"pattern": "breathe_slow", "colour": "blue"},
            "since": "2026-11-23T00:00:00Z"});
        shop.see(&bench, "slot/s01/state", slot).await;
        let since = shop.site.scheduler.now();
        shop.see(&bench, "alert/reader_missing", json!({"text": "Reader 2 is gone", "since": since})).await;
        shop.site.scheduler.watch_bench().await.unwrap();
        shop.site.scheduler.send_mail().await.unwrap();
        shop.server.mode("take");
        // Heard all the time.
        for minute in 1..=5 {
            shop.site.scheduler.advance_clock(Duration::from_secs(61));
            let bench = Bench { site: &shop.site, id: bench_id, next };
            shop.see(&bench, "status", json!({"status": "online", "session": 1})).await;
            shop.site.scheduler.watch_bench().await.unwrap();
            if minute == 1 {
                let trouble = Wanted {
                    subject: [
                        "Appliance bench one needs a look",
                        "La machine bench one demande votre attention",
                    ],
                    says: ["- Reader 2 is gone, since", "- Reader 2 is gone, depuis le"],
                };
                shop.check(&["operator@example.org"], trouble).await;
            }
        }
        let wanted = Wanted {
            subject: ["Cards wanted: 2 for School", "Cartes demandées : 2 pour School"],
            says: [
                "Please put cards of at least 2 MB into any free slots",
                "Merci d’insérer des cartes d’au moins 2 Mo dans les logements libres",
            ],
        };
        shop.check(&["operator@example.org"], wanted).await;
        // Silent from here on: cards are not asked for twice, and an hour later the silence is told.
        for _ in 0..8 {
            shop.site.scheduler.advance_clock(Duration::from_secs(600));
            shop.site.scheduler.watch_bench().await.unwrap();
        }
        let silent = Wanted {
            subject: ["Appliance bench one needs a look", "La machine bench one demande votre attention"],
            says: ["- It is offline", "- It is offline"],
        };
        shop.check(&["operator@example.org"], silent).await;
    }
}

#[tokio::test]
async fn letters_about_passwords_reach_the_user_and_support_sees_no_link() {
    for (tongue, subject) in [
        (0, ["A new password for eve", "Your account: eve"]),
        (1, ["Nouveau mot de passe pour eve", "Votre compte : eve"]),
    ] {
        let Some(mut shop) = Shop::open(tongue).await else { return };
        let eve = json!({"username": "eve", "role": "manager", "email": "eve@example.org"});
        let eve = shop.site.made("/users", &shop.site.admin, eve).await["id"].as_str().unwrap().to_owned();
        let path = format!("/users/{eve}/notifications");
        shop.site.made(&path, &shop.site.admin, json!({"language": LANGUAGES[tongue]})).await;
        for (act, subject) in ["reset", "invite"].into_iter().zip(subject) {
            shop.site.made(&format!("/users/{eve}/{act}"), &shop.site.admin, json!({})).await;
            shop.site.scheduler.send_mail().await.unwrap();
            let letters = shop.server.mode("take");
            let to: BTreeSet<_> = letters.iter().map(|l| l["rcpt"][0].as_str().unwrap()).collect();
            assert_eq!(to, BTreeSet::from(["eve@example.org", "help@example.org"]));
            for letter in &letters {
                assert_eq!(letter["headers"]["subject"], subject);
                let text = letter["parts"][0][1].as_str().unwrap();
                let has_link = text.contains("http://127.0.0.1:8080/password#");
                assert_eq!(has_link, letter["rcpt"][0] == "eve@example.org", "{text}");
            }
            let letter = letters.iter().find(|l| l["rcpt"][0] == "eve@example.org").unwrap();
            let text = letter["parts"][0][1].as_str().unwrap();
            let token = text.split("/password#").nth(1).unwrap().split_whitespace().next().unwrap();
            let set = json!({"token": token, "password": "a new password of eve"});
            shop.site.made("/auth/password", "", set).await;
            shop.site.login("eve", "a new password of eve").await;
        }
    }
}

#[tokio::test]
async fn letters_go_by_tls_and_starttls_with_a_login_and_only_to_a_server_that_is_trusted() {
    for kind in ["tls", "starttls"] {
        let Some(mut server) = MailServer::start(kind) else { return };
        let pem = std::fs::read(server.certificate()).unwrap();
        let roots = RootCerts::from([Certificate::from_pem(&pem).unwrap()]);
        let notify = settings(&server);
        let site = Site::with(|config| {
            config.notify = notify.clone();
            config.roots = roots;
        })
        .await;
        let sent = site.made("/messages/test", &site.admin, json!({"to": "ada@example.org"})).await;
        site.scheduler.send_mail().await.unwrap();
        let letters = server.mode("take");
        assert_eq!(letters.len(), 1, "{kind}");
        assert_eq!((&letters[0]["tls"], &letters[0]["login"]), (&json!(true), &json!("shop")), "{kind}");
        let (_, page) = site.get("/messages", &site.admin).await;
        assert_eq!((&page["items"][0]["id"], &page["items"][0]["state"]), (&sent["id"], &json!("sent")));

        let strangers = Site::with(|config| config.notify = notify).await;
        strangers.made("/messages/test", &strangers.admin, json!({"to": "ada@example.org"})).await;
        strangers.scheduler.send_mail().await.unwrap();
        assert_eq!(server.mode("take").len(), 0, "{kind}");
        let (_, page) = strangers.get("/messages", &strangers.admin).await;
        let reason = page["items"][0]["reason"].as_str().unwrap();
        assert!(page["items"][0]["state"] == "retrying" && reason.contains("UnknownIssuer"), "{reason}");
    }
}

#[tokio::test]
async fn a_start_sends_a_test_letter_where_one_is_asked_for() {
    let Some(mut server) = MailServer::start("plain") else { return };
    let mut notify = settings(&server);
    notify.test_mail = Some("admin@example.org".into());
    let site = Site::with(|config| config.notify = notify).await;
    site.scheduler.send_mail().await.unwrap();
    let letters = server.mode("take");
    assert_eq!((letters.len(), &letters[0]["rcpt"][0]), (1, &json!("admin@example.org")));
    assert_eq!(letters[0]["headers"]["subject"], "Test of mail");
    let _: cardshop_protocol::ids::ObjectId = {
        let (_, page) = site.get("/messages", &site.admin).await;
        id(&page["items"][0]["id"])
    };
}
