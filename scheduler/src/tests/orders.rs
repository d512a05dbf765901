//! Orders through the API: who sees and does what, defaults, errors, repeated requests, claims.

use std::task::Poll;

use axum::body::Body;
use axum::http::{Request, StatusCode};
use cardshop_protocol::ids::OrderId;
use serde_json::{Value, json};

use super::{Site, id, index};

#[tokio::test]
async fn roles_and_channels_bound_what_is_seen_and_done() {
    let site = Site::new().await;
    site.channel("north").await;
    let manager = site.user("manager", "manager", &["north"]).await;
    let other = site.user("other", "manager", &["default"]).await;
    let operator = site.user("operator", "operator", &["north"]).await;
    let creator = site.user("maker", "creator", &["default"]).await;
    let order = site.order(&manager, json!({})).await;
    let path = format!("/orders/{order}");

    let (_, view) = site.get(&path, &manager).await;
    assert_eq!(view["channel"], "north", "the caller's only channel");
    assert_eq!(site.get(&path, &operator).await.0, StatusCode::OK);
    assert_eq!(site.get(&path, &other).await.0, StatusCode::NOT_FOUND);
    assert_eq!(site.get(&path, "").await.0, StatusCode::UNAUTHORIZED);
    assert_eq!(site.get(&path, &creator).await.0, StatusCode::FORBIDDEN);
    for (action, token, status) in [
        ("cancel", &operator, StatusCode::FORBIDDEN),
        ("cancel", &other, StatusCode::NOT_FOUND),
        ("ship", &other, StatusCode::NOT_FOUND),
        ("ship", &operator, StatusCode::CONFLICT),
        ("retry", &manager, StatusCode::CONFLICT),
    ] {
        assert_eq!(site.post(&format!("{path}/{action}"), token, json!({})).await.0, status, "{action}");
    }
    let items = |list: Value| list["items"].as_array().unwrap().len();
    for list in ["/orders", "/tasks", "/events", "/configurations"] {
        assert!(items(site.get(list, &manager).await.1) > 0, "{list}");
        assert_eq!(items(site.get(list, &other).await.1), 0, "{list}");
    }
    assert_eq!(site.post("/tasks/claim", &creator, json!({})).await.0, StatusCode::NO_CONTENT);
    assert_eq!(site.get("/users", &manager).await.0, StatusCode::FORBIDDEN);
    assert_eq!(site.get("/audit", &manager).await.0, StatusCode::FORBIDDEN);
    let (_, audit) = site.get("/audit", &site.admin).await;
    assert!(audit.to_string().contains("order.create"));
}

#[tokio::test]
async fn a_wrong_order_is_refused_and_the_field_is_named() {
    let site = Site::new().await;
    let configuration = json!({"name": "School", "recipe": {"files": []}});
    let configuration = site.made("/configurations", &site.admin, configuration).await["id"].clone();
    let with = |field: &str, value: Value| {
        let mut order = json!({"configuration": configuration.clone()});
        order[field] = value;
        order
    };
    for (field, value) in [
        ("configuration", json!("01arz3ndektsv4rrffq69g5fav")),
        ("configuration", json!("nothing")),
        ("quantity", json!(0)),
        ("quantity", json!(1001)),
        ("quantity", json!("three")),
        ("quantity", json!(-1)),
        ("kind", json!("imaginary")),
        ("media", json!("7 GB")),
        ("channel", json!("nowhere")),
        ("channel", json!("No Slug")),
        ("warehouse", json!("http://elsewhere")),
        ("recipient", json!([1])),
        ("recipient", json!("x".repeat(5000))),
        ("name", json!("x".repeat(121))),
    ] {
        let (status, problem) = site.post("/orders", &site.admin, with(field, value.clone())).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{field} {value}");
        assert_eq!(problem["code"], "invalid_field");
        assert!(problem["detail"].as_str().unwrap().starts_with(&format!("field {field}:")), "{problem}");
    }
    assert_eq!(site.post("/orders", &site.admin, json!({})).await.0, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(site.post("/orders", &site.admin, json!([])).await.0, StatusCode::UNPROCESSABLE_ENTITY);
    let (_, orders) = site.get("/orders", &site.admin).await;
    assert_eq!(orders["items"], json!([]), "nothing was made");

    let made = site.made("/orders", &site.admin, with("media", json!("32gb"))).await;
    assert_eq!(made["media"]["usable_bytes"], 30_720_000_000_u64);
    assert_eq!((&made["kind"], &made["quantity"]), (&json!("physical"), &json!(1)));
    assert_eq!((&made["channel"], &made["name"]), (&json!("default"), &json!("School")));
}

#[tokio::test]
async fn bad_requests_get_problem_documents() {
    let site = Site::new().await;
    let raw = |body: Vec<u8>| {
        let request =
            Request::post("/api/v1/orders").header("authorization", format!("Bearer {}", site.admin));
        request.body(Body::from(body)).unwrap()
    };
    for (body, status, code) in
        [(b"{not json".to_vec(), 400, "bad_body"), (vec![b' '; 600 * 1024], 413, "large_body")]
    {
        let (is, problem) = site.send(raw(body)).await;
        assert_eq!((is.as_u16(), &problem["code"]), (status, &json!(code)));
    }
    for (method, path, status, code) in [
        ("GET", "/nothing", 404, "no_such_path"),
        ("DELETE", "/orders", 405, "no_such_method"),
        ("GET", "/orders/not-an-id", 404, "not_found"),
        ("GET", "/orders?limit=many", 400, "bad_body"),
        ("GET", "/orders?cursor=%20", 422, "invalid_field"),
        ("GET", "/orders?status=lost", 400, "bad_body"),
    ] {
        let (is, problem) = site.call(method, path, &site.admin, Value::Null).await;
        assert_eq!((is.as_u16(), &problem["code"]), (status, &json!(code)), "{method} {path}");
    }
}

#[tokio::test]
async fn the_same_idempotency_key_makes_one_order() {
    let site = Site::new().await;
    let configuration = json!({"name": "School", "recipe": {}});
    let configuration = site.made("/configurations", &site.admin, configuration).await["id"].clone();
    let send = |key: &str, quantity: u32| {
        let body = json!({"configuration": configuration.clone(), "quantity": quantity}).to_string();
        let request = Request::post("/api/v1/orders")
            .header("authorization", format!("Bearer {}", site.admin))
            .header("idempotency-key", key)
            .body(Body::from(body))
            .unwrap();
        site.send(request)
    };
    let together = tokio::join!(send("k", 2), send("k", 2), send("k", 2));
    assert_eq!(together.0.0, StatusCode::CREATED);
    assert!(together.0 == together.1 && together.1 == together.2);
    assert_eq!(send("k", 2).await, together.0);
    let (status, problem) = send("k", 3).await;
    assert_eq!((status, &problem["code"]), (StatusCode::CONFLICT, &json!("idempotency_key_reused")));
    send("l", 2).await;
    let (_, orders) = site.get("/orders", &site.admin).await;
    assert_eq!(orders["items"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn lists_are_paged_to_the_end_without_repeats() {
    let site = Site::new().await;
    let mut made = Vec::new();
    for _ in 0..5 {
        made.push(site.order(&site.admin, json!({"quantity": 2})).await.to_string());
    }
    made.reverse();
    let walk = async |list: &str| {
        let (mut ids, mut cursor) = (Vec::new(), String::new());
        loop {
            let (_, page) = site.get(&format!("{list}?limit=2{cursor}"), &site.admin).await;
            let items = page["items"].as_array().unwrap();
            assert!(items.len() <= 2);
            ids.extend(items.iter().map(|i| i["id"].as_str().unwrap().to_owned()));
            match page["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return ids,
            }
        }
    };
    assert_eq!(walk("/orders").await, made, "newest first");
    let tasks = walk("/tasks").await;
    assert_eq!(tasks.len(), 15);
    assert_eq!(
        tasks[..3],
        [format!("{}-image", made[4]), format!("{}-1", made[4]), format!("{}-2", made[4])]
    );
}

#[tokio::test]
async fn of_two_creators_exactly_one_gets_the_task_and_a_waiting_one_is_woken() {
    let site = Site::new().await;
    let one = site.user("one", "creator", &[]).await;
    let two = site.user("two", "creator", &[]).await;
    let order = site.order(&site.admin, json!({})).await;
    let claim = |token: String| {
        let site = &site;
        async move { site.post("/tasks/claim", &token, json!({})).await }
    };
    let (first, second) = tokio::join!(claim(one.clone()), claim(two.clone()));
    let mut statuses = [first.0.as_u16(), second.0.as_u16()];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 204]);
    let (winner, loser, task) = if first.0 == 200 { (one, two, first.1) } else { (two, one, second.1) };
    let report = format!("/tasks/{}/report", task["task"].as_str().unwrap());
    let running = json!({"state": "running", "phase": "building", "done": 1, "total": 2});
    assert_eq!(site.made(&report, &loser, running.clone()).await["stop"], true, "not its own");
    assert_eq!(site.made(&report, &winner, running).await["stop"], false);

    let waiting = site.post("/tasks/claim", &loser, json!({"wait_s": 30}));
    let placing = async {
        tokio::task::yield_now().await;
        site.order(&site.admin, json!({})).await
    };
    let ((status, woken), next) = tokio::join!(waiting, placing);
    assert_eq!(status, StatusCode::OK);
    assert_eq!(woken["task"], format!("{next}-image"));
    assert_ne!(next, order);
}

#[tokio::test]
async fn a_silent_creator_loses_the_task_to_the_next_one() {
    let site = Site::new().await;
    let one = site.user("one", "creator", &[]).await;
    let two = site.user("two", "creator", &[]).await;
    let order = site.order(&site.admin, json!({})).await;
    site.made("/tasks/claim", &one, json!({})).await;
    assert_eq!(site.post("/tasks/claim", &two, json!({})).await.0, StatusCode::NO_CONTENT);
    site.scheduler.advance_clock(std::time::Duration::from_secs(61));
    site.scheduler.tick_orders().await.unwrap();
    site.made("/tasks/claim", &two, json!({})).await;
    let failed = json!({"state": "failed", "reason": "x", "permanent": true});
    let path = format!("/tasks/{order}-image/report");
    assert_eq!(site.made(&path, &one, failed).await["stop"], true);
    assert_eq!(site.status(order).await, "creating", "the late report changed nothing");
}

#[tokio::test]
async fn an_image_that_is_missing_unsigned_or_too_large_does_not_make_an_order_ready() {
    let site = Site::new().await;
    let creator = site.user("maker", "creator", &[]).await;
    let claim_and_report = async |order: OrderId, image: String| {
        site.made("/tasks/claim", &creator, json!({})).await;
        let report = json!({"state": "succeeded", "image": image});
        site.made(&format!("/tasks/{order}-image/report"), &creator, report).await
    };
    let order = site.order(&site.admin, json!({"media": "8 GB"})).await;
    let (missing, bytes) = index(1 << 21);
    assert_eq!(claim_and_report(order, missing.to_string()).await["stop"], true);
    let (_, story) = site.get(&format!("/orders/{order}/explain"), &site.admin).await;
    assert!(story.to_string().contains("is not in the warehouse"), "{story}");

    // Somebody else's signature.
    let mut unsigned = cardshop_protocol::index::Index::decode(&bytes).unwrap();
    unsigned.sign(&ed25519_dalek::SigningKey::from_bytes(&[1; 32]));
    site.shelf.0.lock().unwrap().insert(missing.to_string(), unsigned.encode());
    site.scheduler.advance_clock(std::time::Duration::from_secs(10));
    claim_and_report(order, missing.to_string()).await;
    let (_, story) = site.get(&format!("/orders/{order}/explain"), &site.admin).await;
    assert!(story.to_string().contains("not signed by the warehouse"), "{story}");

    let (large, bytes) = index(7_760_003_072 + 4096);
    site.shelf.0.lock().unwrap().insert(large.to_string(), bytes);
    site.scheduler.advance_clock(std::time::Duration::from_secs(40));
    claim_and_report(order, large.to_string()).await;
    assert_eq!(site.status(order).await, "failed");
    let (_, story) = site.get(&format!("/orders/{order}/explain"), &site.admin).await;
    assert!(story.to_string().contains("the media takes 7760000000"), "{story}");

    site.made(&format!("/orders/{order}/retry"), &site.admin, json!({})).await;
    let answer = site.create_image(&creator, 7_759_998_976).await;
    assert_eq!(answer["stop"], false);
    assert_eq!(site.status(order).await, "ready");
}

#[tokio::test]
async fn a_canceled_order_stops_its_creator_and_a_virtual_order_becomes_available_and_expires() {
    let site = Site::new().await;
    let creator = site.user("maker", "creator", &[]).await;
    let order = site.order(&site.admin, json!({})).await;
    site.made("/tasks/claim", &creator, json!({})).await;
    site.made(&format!("/orders/{order}/cancel"), &site.admin, json!({})).await;
    let running = json!({"state": "running", "phase": "building", "done": 1, "total": 2});
    let answer = site.made(&format!("/tasks/{order}-image/report"), &creator, running).await;
    assert_eq!(answer["stop"], true);
    assert_eq!(site.status(order).await, "canceled");

    let order = site.order(&site.admin, json!({"kind": "virtual", "quantity": 1})).await;
    site.create_image(&creator, 1 << 20).await;
    assert_eq!(site.status(order).await, "available");
    let tasks = site.get(&format!("/tasks?order={order}"), &site.admin).await.1;
    assert_eq!(tasks["items"].as_array().unwrap().len(), 1, "nothing is written to cards");
    site.scheduler.advance_clock(std::time::Duration::from_secs(14 * 86_400));
    site.scheduler.tick_orders().await.unwrap();
    let admin = site.login("admin", super::PASSWORD).await;
    let (_, view) = site.get(&format!("/orders/{order}"), &admin).await;
    assert_eq!(view["status"], "expired");
    let _: OrderId = id(&view["id"]);
}

#[tokio::test]
async fn the_warehouse_hears_when_a_link_ends_and_an_image_stays_as_long_as_its_last_link() {
    let site = Site::new().await;
    let creator = site.user("maker", "creator", &[]).await;
    let first = site.order(&site.admin, json!({"kind": "virtual"})).await;
    site.create_image(&creator, 1 << 20).await;
    let second = site.order(&site.admin, json!({"kind": "virtual"})).await;
    site.create_image(&creator, 1 << 20).await;
    let (_, view) = site.get(&format!("/orders/{first}"), &site.admin).await;
    assert_eq!(view["link"], json!(null), "not before the warehouse said where it is");
    site.scheduler.tell_links().await.unwrap();
    let (_, view) = site.get(&format!("/orders/{first}"), &site.admin).await;
    let image = view["image"]["id"].as_str().unwrap().to_owned();
    let link = |order: OrderId| site.shelf.told(&format!("/links/{order}"));
    let keep = || site.shelf.told(&format!("/images/{image}"))["keep_until"].clone();
    assert!(view["link"].as_str().unwrap().ends_with("/p/token/School.img"), "{view}");
    assert_eq!((&link(first)["image"], &link(first)["expires"]), (&json!(image), &view["available_until"]));

    let extended = site.made(&format!("/orders/{second}/extend"), &site.admin, json!({})).await;
    site.scheduler.tell_links().await.unwrap();
    assert_eq!(
        (&link(second)["expires"], &keep()),
        (&extended["available_until"], &extended["available_until"])
    );
    let ended = site.made(&format!("/orders/{second}/expire"), &site.admin, json!({})).await;
    assert_eq!((&ended["status"], &ended["link"]), (&json!("expired"), &json!(null)));
    site.scheduler.tell_links().await.unwrap();
    assert_eq!(link(second)["expires"], ended["available_until"]);
    assert_eq!(keep(), view["available_until"], "the first order's link is the last one");

    let physical = site.order(&site.admin, json!({})).await;
    site.create_image(&creator, 1 << 20).await;
    let (status, refused) = site.post(&format!("/orders/{physical}/extend"), &site.admin, json!({})).await;
    assert_eq!((status.as_u16(), &refused["code"]), (409, &json!("no_link")));
    site.made(&format!("/orders/{first}/cancel"), &site.admin, json!({})).await;
    site.scheduler.tell_links().await.unwrap();
    assert_eq!(keep(), json!(null), "cards are made of it");
}

#[tokio::test]
async fn a_change_is_announced_also_when_its_caller_hangs_up() {
    let site = Site::new().await;
    let order = site.order(&site.admin, json!({})).await;
    let admin = site.scheduler.authenticate(&site.admin, "").unwrap();
    let mut feed = site.scheduler.live(&admin, None).unwrap();
    let path = format!("/orders/{order}/cancel");
    let mut cancel = Box::pin(site.post(&path, &site.admin, json!({})));
    let waits = std::future::poll_fn(|context| Poll::Ready(cancel.as_mut().poll(context).is_pending())).await;
    assert!(waits, "the answer waits for the disk");
    drop(cancel);
    let told = async { while feed.next().await.unwrap().json["status"] != "canceled" {} };
    tokio::time::timeout(std::time::Duration::from_secs(20), told).await.expect("watchers are told");
}

#[tokio::test]
async fn an_image_is_listed_once_whatever_the_page_and_under_the_first_order_its_reader_sees() {
    let site = Site::new().await;
    site.channel("north").await;
    let creator = site.user("maker", "creator", &[]).await;
    let north = site.user("north", "manager", &["north"]).await;
    let mut orders = Vec::new();
    for (channel, size) in
        [("default", 1 << 20), ("north", 1 << 20), ("north", 1 << 20), ("default", 1 << 21)]
    {
        orders.push(site.order(&site.admin, json!({"channel": channel})).await);
        site.create_image(&creator, size).await;
    }
    let walk = async |token: &str| {
        let (mut found, mut cursor) = (Vec::new(), String::new());
        loop {
            let (_, page) = site.get(&format!("/images?limit=1{cursor}"), token).await;
            found.extend(page["items"].as_array().unwrap().iter().map(|i| i["order"].clone()));
            match page["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return found,
            }
        }
    };
    assert_eq!(walk(&site.admin).await, [json!(orders[3]), json!(orders[0])]);
    assert_eq!(walk(&north).await, [json!(orders[1])]);
}
