//! Every route that changes something leaves a line in the audit: who, what, from where.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::Request;
use serde_json::{Value, json};

use super::{PASSWORD, Site};
use crate::api::table::{Method, OPERATIONS};

/// Routes that take a POST and are no change by a person: logins, questions, what workers tell of their tasks, which the
/// orders' own stories keep, and purchases, whose lines a test of their own looks at.
const NO_CHANGE: &[&str] = &[
    "/auth/login",
    "/auth/refresh",
    "/auth/nonce",
    "/auth/appliance",
    "/auth/validate",
    // Its line, if there is such an account, comes behind the answer: a test of its own looks at it.
    "/auth/forgot",
    "/templates/{event}/{language}/preview",
    "/action-links/look",
    "/join",
    "/account-hooks/{id}/purchase",
    "/tasks/claim",
    "/tasks/{id}/report",
    "/tasks/{id}/log",
    "/support",
];

/// Commands to an appliance, which needs a broker: the tests of the link to it look at their lines.
const COMMANDS: &[&str] =
    &["identify", "eject", "retry", "release", "reboot", "logs", "support", "log-level", "update"];

/// Calls routes, each as a person would, and keeps which were audited.
struct Walk {
    site: Site,
    walked: BTreeSet<String>,
}

impl Walk {
    async fn lines(&self) -> Vec<Value> {
        let (_, audit) = self.site.get("/audit?limit=500", &self.site.admin).await;
        audit["items"].as_array().unwrap().clone()
    }

    /// Posts to a route of the table whose `{…}` are replaced by `ids`.
    async fn post(&mut self, route: &str, ids: &[&str], body: Value) -> Value {
        let before = self.lines().await.len();
        let mut path = route.to_owned();
        for id in ids {
            let (from, to) = (path.find('{').unwrap(), path.find('}').unwrap());
            path.replace_range(from..=to, id);
        }
        let from: SocketAddr = "192.0.2.7:1234".parse().unwrap();
        let request = Request::builder()
            .method("POST")
            .uri(format!("/api/v1{path}"))
            .extension(ConnectInfo(from))
            .header("authorization", format!("Bearer {}", self.site.admin));
        let (status, answer) = self.site.send(request.body(Body::from(body.to_string())).unwrap()).await;
        assert!(status.is_success(), "{path}: {status} {answer}");
        let lines = self.lines().await;
        assert!(lines.len() > before, "{path} left no line in the audit");
        let line = &lines[0];
        assert_eq!(
            (&line["who"], &line["address"]),
            (&json!("admin"), &json!("192.0.2.7")),
            "{path}: {line}"
        );
        assert!(!line["action"].as_str().unwrap().is_empty() && !line["object"].as_str().unwrap().is_empty());
        self.walked.insert(route.to_owned());
        answer
    }

    /// As [`Walk::post`]; gives the id of what was made.
    async fn make(&mut self, route: &str, body: Value) -> String {
        self.post(route, &[], body).await["id"].as_str().unwrap().to_owned()
    }

    async fn people(&mut self) {
        let channel = self.make("/channels", json!({"slug": "north"})).await;
        self.post("/channels/{id}/update", &[&channel], json!({"sender_name": "The Shop"})).await;
        self.post("/channels/{id}/delete", &[&channel], json!({})).await;
        let warehouse = self.make("/warehouses", json!({"url": "http://127.0.0.1:3/"})).await;
        self.post("/warehouses/{id}/delete", &[&warehouse], json!({})).await;
        let organization = self.make("/organizations", json!({"name": "School"})).await;
        self.post("/organizations/{id}/units", &[&organization], json!({"add": 5})).await;
        self.post("/organizations/{id}/update", &[&organization], json!({"name": "College"})).await;
        self.post("/organizations/{id}/delete", &[&organization], json!({})).await;
        let user = self.make("/users", json!({"username": "eve", "role": "manager"})).await;
        for (act, body) in [
            ("invite", json!({})),
            ("reset", json!({})),
            ("password", json!({"password": PASSWORD})),
            ("expiry", json!({"expires": "2100-01-01T00:00:00Z"})),
            ("update", json!({"role": "operator"})),
            ("notifications", json!({"language": "fr"})),
            ("disable", json!({})),
            ("enable", json!({})),
            ("anonymise", json!({})),
        ] {
            self.post(&format!("/users/{{id}}/{act}"), &[&user], body).await;
        }
        let key = self.make("/api-keys", json!({"name": "shop"})).await;
        self.post("/api-keys/{id}/revoke", &[&key], json!({})).await;
        self.post("/keys/rotate", &[], json!({})).await;
        self.post("/jobs/{id}/run", &["keys"], json!({})).await;
        self.post("/maintenance", &[], json!({"on": false})).await;
        let hook = self.make("/account-hooks", json!({"name": "web"})).await;
        self.post("/account-hooks/{id}/revoke", &[&hook], json!({})).await;
    }

    async fn messages(&mut self) {
        self.post("/me/notifications", &[], json!({"language": "en"})).await;
        let test = self.make("/messages/test", json!({"to": "ada@example.org"})).await;
        self.post("/messages/{id}/send", &[&test], json!({})).await;
        let hook = json!({"url": "https://192.0.2.1/", "events": ["order_created"]});
        let hook = self.make("/webhooks", hook).await;
        let test = self.post("/webhooks/{id}/test", &[&hook], json!({})).await;
        let test = test["id"].as_str().unwrap();
        self.post("/webhooks/{id}/deliveries/{message}/send", &[&hook, test], json!({})).await;
        self.post("/webhooks/{id}/delete", &[&hook], json!({})).await;
        let (one, mine) = (["test", "en"], json!({"subject": "Mail works", "body": "It does."}));
        self.post("/templates/{event}/{language}", &one, mine).await;
        self.post("/templates/{event}/{language}/test", &one, json!({"to": "ada@example.org"})).await;
        self.post("/templates/{event}/{language}/reset", &one, json!({})).await;
    }

    async fn orders(&mut self) {
        let configuration = self.make("/configurations", json!({"name": "School", "recipe": {}})).await;
        let creator = self.site.user("maker", "creator", &[]).await;
        let change = json!({"version": 1, "name": "Lycée"});
        self.post("/configurations/{id}/update", &[&configuration], change).await;
        let copy = self.post("/configurations/{id}/duplicate", &[&configuration], json!({})).await;
        self.post("/configurations/{id}/delete", &[copy["id"].as_str().unwrap()], json!({})).await;
        let file = json!({"schema": 1, "name": "School", "recipe": {}});
        self.make("/configurations/import", file).await;
        let address = self.make("/addresses", json!({"name": "Ada"})).await;
        self.post("/addresses/{id}/update", &[&address], json!({"version": 1, "city": "Kita"})).await;
        self.post("/addresses/{id}/delete", &[&address], json!({})).await;
        let media = json!({"name": "4 GB", "advertised_bytes": 4_000_000_000_u64});
        let media = self.make("/media", media).await;
        self.post("/media/{id}/update", &[&media], json!({"name": "4 GB, small"})).await;
        self.post("/media/{id}/delete", &[&media], json!({})).await;
        let auto = self.make("/auto-images", json!({"name": "wiki", "configuration": configuration})).await;
        for (act, body) in
            [("update", json!({"every_days": 7})), ("trigger", json!({})), ("delete", json!({}))]
        {
            self.post(&format!("/auto-images/{{id}}/{act}"), &[&auto], body).await;
        }
        let order = json!({"configuration": configuration, "kind": "virtual"});
        let link = self.make("/orders", order.clone()).await;
        self.site.create_image(&creator, 1 << 20).await;
        let made = self.post("/orders/{id}/action-links", &[&link], json!({"act": "extend"})).await;
        self.post("/action-links/use", &[], json!({"token": made["token"]})).await;
        self.post("/orders/{id}/extend", &[&link], json!({})).await;
        self.post("/orders/{id}/expire", &[&link], json!({})).await;
        self.post("/orders/{id}/anonymise", &[&link], json!({})).await;
        self.site.scheduler.tell_links().await.unwrap();
        self.post("/orders/{id}/delete", &[&link], json!({})).await;

        let failed = self.make("/orders", order).await;
        let task = self.site.made("/tasks/claim", &creator, json!({})).await;
        let path = format!("/tasks/{}/report", task["task"].as_str().unwrap());
        let failure = json!({"state": "failed", "reason": "no", "permanent": true});
        self.site.made(&path, &creator, failure).await;
        self.post("/orders/{id}/retry", &[&failed], json!({})).await;
        self.post("/orders/{id}/cancel", &[&failed], json!({})).await;
    }

    async fn bench(&mut self) {
        let token = self.make("/join-tokens", json!({})).await;
        self.post("/join-tokens/{id}/revoke", &[&token], json!({})).await;
        let order = self.site.order(&self.site.admin, json!({"quantity": 1})).await;
        let creator = self.site.login("maker", PASSWORD).await;
        self.site.create_image(&creator, 1 << 20).await;
        let id = {
            let mut bench = self.site.appliance(1).await;
            let lease = self.site.leases(bench.id).await.remove(0);
            let fact = bench.verified(&lease, 1, 1);
            bench.tell(fact).await;
            let topic = format!("cardshop/1/appliance/{}/slot/s01/state", bench.id);
            let state = json!({
                "boot": 1, "n": 1, "state": "wanted", "led": {"pattern": "breathe_slow", "colour": "blue"},
                "since": "2026-11-23T00:00:00Z"
            });
            let payload = state.to_string().into_bytes();
            let message = crate::effects::inbox::Incoming { topic, payload, retained: true };
            self.site.scheduler.take_message(message).await;
            bench.id.to_string()
        };
        self.post("/orders/{id}/ship", &[&order.to_string()], json!({})).await;
        self.post("/slots/{appliance}/{slot}/hold", &[&id, "s01"], json!({"reason": "dust"})).await;
        self.post("/slots/{appliance}/{slot}/resume", &[&id, "s01"], json!({})).await;
        self.post("/slots/{appliance}/{slot}/name", &[&id, "s01"], json!({"name": "A"})).await;
        self.post("/appliances/{id}/reject", &[&id], json!({})).await;
        self.post("/appliances/{id}/approve", &[&id], json!({})).await;
        let update = json!({"version": "2.1", "image": "0".repeat(64), "size": 9, "kid": "0".repeat(16)});
        let update = self.make("/updates", update).await;
        // It begins paused.
        self.post("/updates/{id}/resume", &[&update], json!({})).await;
        self.post("/updates/{id}/pause", &[&update], json!({})).await;
        self.post("/updates/{id}/stop", &[&update], json!({})).await;
    }

    /// What ends the walker's own login comes last.
    async fn own_password(&mut self) {
        let ada = json!({"username": "ada", "password": PASSWORD, "role": "staff"});
        self.make("/users", ada).await;
        let ada = self.site.login("ada", PASSWORD).await;
        let before = self.lines().await.len();
        let change = json!({"old": PASSWORD, "new": "another password"});
        self.site.made("/me/password", &ada, change).await;
        let ada = self.site.login("ada", "another password").await;
        self.site.made("/me/sessions/end", &ada, json!({"password": "another password"})).await;
        let (_, users) = self.site.get("/users", &self.site.admin).await;
        let ada = users["items"].as_array().unwrap().iter().find(|u| u["username"] == "ada").unwrap();
        let path = format!("/users/{}/reset", ada["id"].as_str().unwrap());
        let reset = self.site.made(&path, &self.site.admin, json!({})).await;
        let set = json!({"token": reset["token"], "password": PASSWORD});
        self.site.made("/auth/password", "", set).await;
        let ada = self.site.login("ada", PASSWORD).await;
        let gone = self.site.made("/me/delete", &ada, json!({"password": PASSWORD})).await;
        let former = &gone["username"];
        let lines = self.lines().await;
        let told: Vec<_> = lines[..lines.len() - before].iter().map(|l| (&l["who"], &l["action"])).collect();
        let own = [
            "user.change-password",
            "user.end-sessions",
            "user.password-by-link",
            "user.disable",
            "user.anonymise",
        ];
        for action in own {
            assert!(told.contains(&(former, &json!(action))), "{action}: {told:?}");
        }
        let walked = ["/me/password", "/auth/password", "/me/sessions/end", "/me/delete"];
        self.walked.extend(walked.map(str::to_owned));
    }
}

fn is_command(path: &str) -> bool {
    let to_appliance = path.starts_with("/slots/") || path.starts_with("/appliances/");
    to_appliance && COMMANDS.iter().any(|command| path.ends_with(&format!("/{command}")))
}

#[tokio::test]
async fn every_change_is_in_the_audit_with_who_did_what_from_where() {
    let mut walk = Walk { site: Site::new().await, walked: BTreeSet::new() };
    walk.people().await;
    walk.messages().await;
    walk.orders().await;
    walk.bench().await;
    walk.own_password().await;
    let changing = OPERATIONS.iter().filter(|o| o.method == Method::Post).map(|o| &o.path["/api/v1".len()..]);
    let changing: BTreeSet<String> =
        changing.filter(|path| !NO_CHANGE.contains(path) && !is_command(path)).map(str::to_owned).collect();
    assert_eq!(walk.walked, changing, "a route that changes something is not walked here");
}
