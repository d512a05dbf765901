//! What the site is doing: queue, guesses, who is there, logs of tasks, jobs and maintenance.

use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, StatusCode};
use cardshop_protocol::message::Fact;
use serde_json::{Value, json};
use tower::ServiceExt;

use super::Site;

fn items(list: &Value) -> &Vec<Value> {
    list["items"].as_array().unwrap()
}

async fn hear(site: &Site, appliance: cardshop_protocol::ids::ApplianceId, topic: &str, message: Value) {
    let topic = format!("cardshop/1/appliance/{appliance}/{topic}");
    let payload = message.to_string().into_bytes();
    site.scheduler.take_message(crate::effects::inbox::Incoming { topic, payload, retained: false }).await;
}

#[tokio::test]
async fn an_order_tells_its_place_in_the_queue_and_guesses_its_end_from_what_was_measured_here() {
    let site = Site::new().await;
    let creator = site.user("maker", "creator", &[]).await;
    let first = site.order(&site.admin, json!({"kind": "virtual"})).await;
    let (_, guess) = site.get(&format!("/orders/{first}/estimate"), &site.admin).await;
    assert_eq!((&guess["position"], &guess["finish_p50"]), (&json!(1), &Value::Null), "nothing was measured");
    let task = site.made("/tasks/claim", &creator, json!({})).await;
    site.scheduler.advance_clock(Duration::from_secs(40));
    let (image, bytes) = super::index(1 << 20);
    site.shelf.0.lock().unwrap().insert(image.to_string(), bytes);
    let path = format!("/tasks/{}/report", task["task"].as_str().unwrap());
    site.made(&path, &creator, json!({"state": "succeeded", "image": image})).await;

    let second = site.order(&site.admin, json!({"kind": "virtual"})).await;
    let third = site.order(&site.admin, json!({"kind": "virtual"})).await;
    let (_, guess) = site.get(&format!("/orders/{third}/estimate"), &site.admin).await;
    let at = |field: &str| -> cardshop_protocol::time::Timestamp {
        guess[field].as_str().unwrap().parse().unwrap()
    };
    assert_eq!((&guess["position"], &guess["measured_images"]), (&json!(2), &json!(1)));
    let left = at("finish_p50").since(site.scheduler.now()).as_secs();
    assert!((78..=90).contains(&left), "two images of 40 s with one creator: {left}");
    assert!(at("finish_p90") >= at("finish_p50"));
    let (_, load) = site.get("/load", &site.admin).await;
    assert_eq!((&load["waiting"], &load["building"], &load["creators"]), (&json!(2), &json!(0), &json!(1)));
    assert!((40..45).contains(&load["image_p50_s"].as_u64().unwrap()), "{load}");
    site.made("/tasks/claim", &creator, json!({})).await;
    let (_, load) = site.get("/load", &site.admin).await;
    assert_eq!((&load["waiting"], &load["building"]), (&json!(1), &json!(1)));
    let (_, guess) = site.get(&format!("/orders/{second}/estimate"), &site.admin).await;
    assert_eq!(guess["position"], Value::Null, "it is being made");
}

#[tokio::test]
async fn creators_take_organizations_in_turn_and_higher_priority_first() {
    let site = Site::new().await;
    let creator = site.user("maker", "creator", &[]).await;
    let mut managers = Vec::new();
    for name in ["ada", "bob"] {
        let organization = json!({"name": name, "units": 100, "several_orders": true});
        let organization = site.made("/organizations", &site.admin, organization).await;
        let user = json!({
            "username": name, "password": super::PASSWORD, "role": "manager", "organization": organization["id"]
        });
        site.made("/users", &site.admin, user).await;
        managers.push(site.login(name, super::PASSWORD).await);
    }
    let mut orders = Vec::new();
    for (manager, priority) in [(0, 0), (0, 0), (0, 0), (1, 0), (1, 0), (0, 5)] {
        orders.push(site.order(&managers[manager], json!({"priority": priority})).await);
    }
    let mut taken = Vec::new();
    for _ in 0..orders.len() {
        let task = site.made("/tasks/claim", &creator, json!({})).await;
        let order = task["task"].as_str().unwrap().trim_end_matches("-image").to_owned();
        taken.push(orders.iter().position(|o| o.to_string() == order).unwrap());
    }
    assert_eq!(taken, [5, 3, 0, 4, 1, 2], "the urgent one, then each in turn");
}

#[tokio::test]
async fn who_is_there_is_listed_with_what_it_does_and_who_calls_for_help() {
    let site = Site::new().await;
    site.channel("north").await;
    let creator = site.user("maker", "creator", &["default"]).await;
    let order = site.order(&site.admin, json!({})).await;
    site.made("/tasks/claim", &creator, json!({})).await;
    let bench = site.appliance(1).await;
    let state = json!({
        "boot": 1, "n": 1, "state": "wanted", "led": {"pattern": "breathe_slow", "colour": "blue"},
        "since": "2026-11-23T00:00:00Z"
    });
    hear(&site, bench.id, "status", json!({"status": "online", "session": 1})).await;
    hear(&site, bench.id, "slot/s01/state", state).await;
    let alert = json!({"text": "Reader 2 is gone", "since": site.scheduler.now()});
    hear(&site, bench.id, "alert/reader_gone", alert).await;
    let (_, list) = site.get("/presence", &site.admin).await;
    let (maker, machine) = (&items(&list)[0], &items(&list)[1]);
    assert_eq!((&maker["kind"], &maker["online"]), (&json!("creator"), &json!(true)));
    assert_eq!(maker["task"], format!("{order}-image"));
    assert_eq!((&machine["kind"], &machine["slots"]), (&json!("appliance"), &json!({"s01": "wanted"})));
    assert_eq!((&machine["sos"], machine["seen"].is_string()), (&json!(["Reader 2 is gone"]), true));
    let other = site.user("eve", "operator", &["north"]).await;
    assert!(items(&site.get("/presence", &other).await.1).is_empty());
    site.scheduler.advance_clock(Duration::from_secs(120));
    let (_, list) = site.get("/presence", &site.admin).await;
    assert!(items(&list).iter().all(|p| p["online"] == false), "{list}");
}

async fn text(site: &Site, path: &str) -> (StatusCode, String) {
    let request = Request::builder()
        .uri(format!("/api/v1{path}"))
        .header("authorization", format!("Bearer {}", site.admin))
        .body(Body::empty())
        .unwrap();
    let response = site.scheduler.router().oneshot(request).await.unwrap();
    let status = response.status();
    let bytes = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
    (status, String::from_utf8(bytes.to_vec()).unwrap())
}

#[tokio::test]
async fn a_task_is_logged_while_it_runs_by_its_own_worker_and_each_piece_once() {
    let site = Site::new().await;
    let creator = site.user("maker", "creator", &[]).await;
    let other = site.user("other", "creator", &[]).await;
    let order = site.order(&site.admin, json!({"quantity": 1})).await;
    let piece = |kind: &str, offset: u64, text: &str| json!({"kind": kind, "offset": offset, "text": text});
    let path = format!("/tasks/{order}-image/log");
    let early = site.post(&path, &creator, piece("build", 0, "x")).await;
    assert_eq!((early.0, &early.1["code"]), (StatusCode::CONFLICT, &json!("not_your_task")));
    let task = site.made("/tasks/claim", &creator, json!({})).await;
    assert_eq!(task["task"], format!("{order}-image"));
    for kind in ["download", "build", "index", "upload"] {
        site.made(&path, &creator, piece(kind, 0, "one\n")).await;
    }
    let twice = site.made(&path, &creator, piece("build", 0, "one\ntwo\n")).await;
    assert_eq!((&twice["size"], &twice["kind"]), (&json!(8), &json!("build")));
    assert_eq!(site.post(&path, &creator, piece("build", 99, "x")).await.1["code"], "log_gap");
    assert_eq!(site.post(&path, &other, piece("build", 8, "x")).await.1["code"], "not_your_task");
    assert_eq!(site.post(&path, &creator, piece("write", 0, "x")).await.0, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(site.post(&path, &creator, piece("gossip", 0, "x")).await.0, StatusCode::BAD_REQUEST);
    let long = "x".repeat(70_000);
    assert_eq!(
        site.post(&path, &creator, piece("build", 8, &long)).await.0,
        StatusCode::UNPROCESSABLE_ENTITY
    );
    assert_eq!(text(&site, &format!("/tasks/{order}-image/logs/build")).await.1, "one\ntwo\n");
    assert_eq!(text(&site, &format!("/tasks/{order}-image/logs/verify")).await.0, StatusCode::NOT_FOUND);

    let (image, bytes) = super::index(1 << 20);
    site.shelf.0.lock().unwrap().insert(image.to_string(), bytes);
    let report = json!({"state": "succeeded", "image": image});
    site.made(&format!("/tasks/{order}-image/report"), &creator, report).await;
    let mut bench = site.appliance(1).await;
    let lease = site.leases(bench.id).await.remove(0);
    let slot = cardshop_protocol::ids::SlotId::numbered(1);
    let task = cardshop_protocol::ids::TaskId::write(order, 1);
    bench.tell(Fact::WriteStarted { task, lease: lease.lease, slot, card_size: 8_000_000_000 }).await;
    let appliance = super::matrix::appliance_token(&site).await;
    for kind in ["write", "verify"] {
        site.made(&format!("/tasks/{order}-1/log"), &appliance, piece(kind, 0, "card in\n")).await;
    }
    let (_, logs) = site.get(&format!("/tasks/{order}-1/logs"), &site.admin).await;
    let kinds: Vec<_> = items(&logs).iter().map(|l| l["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["write", "verify"]);
}

#[tokio::test]
async fn jobs_tell_when_they_ran_and_run_on_demand_one_at_a_time() {
    let site = Site::new().await;
    let (_, jobs) = site.get("/jobs", &site.admin).await;
    assert!(items(&jobs).len() >= 7 && items(&jobs).iter().all(|job| job["runs"] == 0));
    let ran = site.made("/jobs/old-documents/run", &site.admin, json!({})).await;
    assert_eq!((&ran["runs"], &ran["failures"], &ran["error"]), (&json!(1), &json!(0), &Value::Null));
    assert!(ran["last"].is_string() && ran["last_ms"].is_u64(), "{ran}");
    site.scheduler.run_due(&["old-documents"]).await;
    let (_, jobs) = site.get("/jobs", &site.admin).await;
    let job = |jobs: &Value| items(jobs).iter().find(|j| j["id"] == "old-documents").unwrap().clone();
    assert_eq!(job(&jobs)["runs"], 1, "it is not due for an hour");
    let runs: Vec<_> = (0..4).map(|_| site.made("/jobs/old-documents/run", &site.admin, json!({}))).collect();
    for run in runs {
        run.await;
    }
    assert_eq!(job(&site.get("/jobs", &site.admin).await.1)["runs"], 5);
    assert_eq!(site.post("/jobs/dance/run", &site.admin, json!({})).await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn while_the_site_is_maintained_nothing_new_begins_and_what_runs_is_finished() {
    let site = Site::new().await;
    let creator = site.user("maker", "creator", &[]).await;
    let ada = site.user("ada", "manager", &["default"]).await;
    let running = site.order(&ada, json!({"quantity": 1})).await;
    site.made("/tasks/claim", &creator, json!({})).await;
    let waiting = site.order(&ada, json!({})).await;
    site.made("/maintenance", &site.admin, json!({"on": true, "reason": "new disks"})).await;
    let site = site.restart().await;
    assert_eq!(site.get("/maintenance", &ada).await.1["reason"], "new disks", "also after a restart");
    let configuration = site.made("/configurations", &ada, json!({"name": "x", "recipe": {}})).await;
    let refused = site.post("/orders", &ada, json!({"configuration": configuration["id"]})).await;
    assert_eq!((refused.0, &refused.1["code"]), (StatusCode::SERVICE_UNAVAILABLE, &json!("maintenance")));
    assert!(refused.1["detail"].as_str().unwrap().contains("new disks"));
    assert_eq!(site.post("/tasks/claim", &creator, json!({})).await.0, StatusCode::NO_CONTENT);
    let (image, bytes) = super::index(1 << 20);
    site.shelf.0.lock().unwrap().insert(image.to_string(), bytes);
    let report = json!({"state": "succeeded", "image": image});
    site.made(&format!("/tasks/{running}-image/report"), &creator, report).await;
    let bench = site.appliance(1).await;
    assert!(site.leases(bench.id).await.is_empty(), "no card is begun");
    site.made("/maintenance", &site.admin, json!({"on": false})).await;
    assert_eq!(site.leases(bench.id).await.len(), 1);
    let task = site.made("/tasks/claim", &creator, json!({})).await;
    assert_eq!(task["task"], format!("{waiting}-image"));
}
