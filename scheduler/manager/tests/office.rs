//! The back office, the account and the public pages, by their forms as a browser without a script sends them.
#![allow(clippy::unwrap_used)]

mod shop;

use axum::body::Body;
use axum::http::{Response, StatusCode, header};
use serde_json::json;

use shop::{PASSWORD, Shop, text};

fn led_to(answer: &Response<Body>) -> String {
    assert_eq!(answer.status(), StatusCode::SEE_OTHER);
    answer.headers()[header::LOCATION].to_str().unwrap().to_owned()
}

/// What is shown once.
fn secret(page: &str) -> String {
    let shown = page.split_once("id=\"secret\"").unwrap_or_else(|| panic!("no secret in {page}")).1;
    shown.split_once('>').unwrap().1.split('<').next().unwrap().to_owned()
}

fn cookie(answer: &Response<Body>) -> String {
    answer.headers()[header::SET_COOKIE].to_str().unwrap().split(';').next().unwrap().to_owned()
}

fn token(session: &str) -> &str {
    session.split_once('=').unwrap().1
}

#[tokio::test]
async fn an_organization_is_made_changed_given_units_with_a_reason_and_removed_after_a_question() {
    let shop = Shop::open().await;
    let staff = shop.staff().await;
    let made =
        shop.post(&staff, "/office/organizations", "name=School&units=5&channel=default&language=fr").await;
    let path = led_to(&made).split('?').next().unwrap().to_owned();
    let page = text(shop.get(&format!("{path}?done=made"), &staff).await).await;
    assert!(page.contains("<h1>School</h1>") && page.contains("Made"), "{page}");
    let wrong = shop.post(&staff, "/office/organizations", "name=&units=many").await;
    assert_eq!(wrong.status(), StatusCode::UNPROCESSABLE_ENTITY);
    let wrong = text(wrong).await;
    assert!(
        wrong.contains("field units: is not a whole number") && wrong.contains("value=\"many\""),
        "{wrong}"
    );

    led_to(&shop.post(&staff, &path, "do=units&add=-2&reason=a+parcel+was+lost").await);
    assert!(text(shop.get(&path, &staff).await).await.contains("<dd>3</dd>"));
    for _ in 0..2 {
        let twice = "do=units&add=4&reason=a+gift&key=the-same-button";
        led_to(&shop.post(&staff, &path, twice).await);
    }
    assert!(text(shop.get(&path, &staff).await).await.contains("<dd>7</dd>"), "a second press books nothing");
    let less = shop.post(&staff, &path, "do=units&add=-9&reason=x").await;
    assert_eq!(less.status(), StatusCode::UNPROCESSABLE_ENTITY);
    led_to(&shop.post(&staff, &path, "do=save&name=College&channel=default&language=en").await);
    assert!(text(shop.get(&path, &staff).await).await.contains("<h1>College</h1>"));

    let question = text(shop.post(&staff, &path, "do=delete").await).await;
    assert!(question.contains("Do you mean it?") && question.contains("name=\"sure\""), "{question}");
    assert_eq!(shop.get(&path, &staff).await.status(), StatusCode::OK, "a question removes nothing");
    assert_eq!(
        led_to(&shop.post(&staff, &path, "do=delete&sure=yes").await),
        "/office/organizations?done=deleted"
    );
    assert_eq!(shop.get(&path, &staff).await.status(), StatusCode::NOT_FOUND);
    let audit = text(shop.get("/office/audit?what=organization.", &staff).await).await;
    assert!(
        audit.contains("organization.units -2: a parcel was lost") && audit.contains("organization.delete")
    );
}

#[tokio::test]
async fn a_user_is_invited_by_a_link_that_is_shown_once_and_sets_a_password_with_it_once() {
    let shop = Shop::open().await;
    let staff = shop.staff().await;
    let form = "do=make&username=Ada&role=manager&channels=default&email=ada@example.org";
    let made = shop.post(&staff, "/office/users", form).await;
    assert_eq!(made.status(), StatusCode::CREATED);
    let page = text(made).await;
    let link = secret(&page);
    let key = link.split_once("/password#").unwrap().1.to_owned();
    let path = page.split_once("action=\"/office/users/").unwrap().1.split('"').next().unwrap();
    let path = format!("/office/users/{path}");
    assert!(!text(shop.get(&path, &staff).await).await.contains(&key), "shown once");

    let short = shop.post("", "/password", &format!("token={key}&new=short")).await;
    assert_eq!(short.status(), StatusCode::UNPROCESSABLE_ENTITY);
    assert!(text(short).await.contains(&key), "the link stays good");
    let set = shop.post("", "/password", &format!("token=%23{key}&new={PASSWORD}")).await;
    assert_eq!(set.status(), StatusCode::OK);
    assert!(text(set).await.contains("log in with it"));
    let again = shop.post("", "/password", &format!("token={key}&new={PASSWORD}")).await;
    assert_eq!(again.status(), StatusCode::UNAUTHORIZED);
    assert!(text(again).await.contains("does not count any more"));
    let ada = shop.log_in_as("ada", PASSWORD).await.split(';').next().unwrap().to_owned();
    assert_eq!(shop.get("/office/users", &ada).await.status(), StatusCode::FORBIDDEN);

    led_to(&shop.post(&staff, &path, "do=save&role=operator&channels=default").await);
    assert_eq!(led_to(&shop.get("/bench", &ada).await), "/login", "another role ends the login");
    led_to(&shop.post(&staff, &path, "do=expiry&expires=2020-01-01").await);
    assert!(text(shop.get(&path, &staff).await).await.contains("data-state=\"expired\""));
    let question = text(shop.post(&staff, &path, "do=forget").await).await;
    assert!(question.contains("forgotten everywhere"), "{question}");
    led_to(&shop.post(&staff, &path, "do=forget&sure=yes").await);
    assert!(!text(shop.get("/office/users", &staff).await).await.contains("ada@example.org"));
}

#[tokio::test]
async fn several_users_are_locked_out_at_once_and_who_cannot_be_is_named() {
    let shop = Shop::open().await;
    let staff = shop.staff().await;
    for name in ["ada", "bob"] {
        let form = format!("do=make&username={name}&role=operator&password={PASSWORD}");
        led_to(&shop.post(&staff, "/office/users", &form).await);
    }
    let list = text(shop.get("/office/users", &staff).await).await;
    let ids: Vec<&str> =
        list.split("name=\"chosen\" value=\"").skip(1).map(|part| part.split('"').next().unwrap()).collect();
    assert_eq!(ids.len(), 3);
    let chosen = |ids: &[&str]| ids.iter().map(|id| format!("&chosen={id}")).collect::<String>();
    let none = shop.post(&staff, "/office/users", "do=disable").await;
    assert!(text(none).await.contains("Choose at least one"));
    let all = shop.post(&staff, "/office/users", &format!("do=disable{}", chosen(&ids))).await;
    assert_eq!(all.status(), StatusCode::CONFLICT, "nobody locks themselves out");
    let told = text(all).await;
    assert!(told.contains("<strong>admin</strong>") && !told.contains("<strong>ada</strong>"), "{told}");
    let locked = text(shop.get("/office/users?state=disabled", &staff).await).await;
    assert!(locked.contains(">ada</a>") && locked.contains(">bob</a>") && !locked.contains(">admin</a>"));
    let back = shop.post(&staff, "/office/users", &format!("do=enable{}", chosen(&ids[1..]))).await;
    assert_eq!(led_to(&back), "/office/users?done=all");
}

#[tokio::test]
async fn keys_hooks_and_tokens_are_shown_once_and_ended_after_a_question() {
    let shop = Shop::open().await;
    let staff = shop.staff().await;
    for (path, form) in [
        ("/office/api-keys", "do=make&name=program&rights=order&days=30"),
        ("/office/hooks", "do=make&name=web"),
        ("/office/join-tokens", "do=make"),
    ] {
        let made = shop.post(&staff, path, form).await;
        assert_eq!(made.status(), StatusCode::CREATED, "{path}");
        let key = secret(&text(made).await);
        let list = text(shop.get(path, &staff).await).await;
        assert!(key.len() > 20 && !list.contains(&key), "{path}");
        let id = list.split_once("name=\"chosen\" value=\"").unwrap().1.split('"').next().unwrap().to_owned();
        let question = text(shop.post(&staff, path, &format!("do=revoke&chosen={id}")).await).await;
        assert!(question.contains(&format!("name=\"chosen\" value=\"{id}\"")), "{question}");
        let ended = shop.post(&staff, path, &format!("do=revoke&sure=yes&chosen={id}")).await;
        assert_eq!(led_to(&ended), format!("{path}?done=ended"));
        assert!(!text(shop.get(path, &staff).await).await.contains("name=\"chosen\""), "{path}");
    }
    let twice = shop.post(&staff, "/office/api-keys", "do=make&name=admin&rights=watch").await;
    assert_eq!(twice.status(), StatusCode::CONFLICT);
}

#[tokio::test]
async fn a_log_is_painted_escaped_and_plain_and_its_stream_ends_with_the_task() {
    use tokio_stream::StreamExt;
    let shop = Shop::open().await;
    let configuration = shop.configuration().await;
    let staff = shop.staff().await;
    let user = json!({"username": "maker", "password": PASSWORD, "role": "creator"});
    shop.api("/users", token(&staff), user).await;
    let order = json!({"kind": "virtual", "configuration": configuration, "channel": "c"});
    let order = shop.api("/orders", token(&staff), order).await["id"].as_str().unwrap().to_owned();
    let maker = shop.log_in_as("maker", PASSWORD).await.split(';').next().unwrap().to_owned();
    shop.api("/tasks/claim", token(&maker), json!({})).await;
    let say = async |offset: usize, words: &str| {
        let piece = json!({"kind": "build", "offset": offset, "text": words});
        shop.api(&format!("/tasks/{order}-image/log"), token(&maker), piece).await;
    };
    let first = "\u{1b}[31m<img src=x>\u{1b}[0m\n";
    say(0, first).await;
    let path = format!("/office/tasks/{order}-image/build");
    let page = text(shop.get(&path, &staff).await).await;
    assert!(page.contains("<span class=\"c1\">&lt;img src=x&gt;</span>"), "{page}");
    assert!(
        page.contains("<noscript><meta http-equiv=\"refresh\"") && page.contains(&format!("{path}/live"))
    );
    let plain = shop.get(&format!("{path}/text"), &staff).await;
    assert_eq!(plain.headers()[header::CONTENT_TYPE], "text/plain; charset=utf-8");
    assert_eq!(text(plain).await, "<img src=x>\n");

    let mut stream = shop.get(&format!("{path}/live"), &staff).await.into_body().into_data_stream();
    let mut heard = String::new();
    let mut until = async |word: &str| {
        while !heard.contains(word) {
            heard.push_str(std::str::from_utf8(&stream.next().await.unwrap().unwrap()).unwrap());
        }
    };
    until("\"all\"").await;
    say(first.len(), "more & more\n").await;
    until("{\"add\":\"more &amp; more").await;
    shop.api(&format!("/orders/{order}/cancel"), token(&staff), json!({})).await;
    until("event: end").await;
    assert!(!text(shop.get(&path, &staff).await).await.contains("<noscript>"), "it grows no more");
}

#[tokio::test]
async fn maintenance_has_a_reason_and_every_page_says_it_and_keys_are_rotated_after_a_question() {
    let shop = Shop::open().await;
    let staff = shop.staff().await;
    led_to(&shop.post(&staff, "/office/site", "do=begin&reason=stock-taking").await);
    let page = text(shop.get("/office/site", &staff).await).await;
    assert!(page.contains("stock-taking") && page.contains("End maintenance"), "{page}");
    assert!(
        text(shop.get("/orders", &staff).await)
            .await
            .contains("class=\"banner\" role=\"status\">Maintenance")
    );
    led_to(&shop.post(&staff, "/office/site", "do=end").await);
    assert!(!text(shop.get("/orders", &staff).await).await.contains("class=\"banner\""));
    let question = text(shop.post(&staff, "/office/site", "do=rotate&revoke=yes").await).await;
    assert!(
        question.contains("Everybody logs in again") && question.contains("name=\"revoke\""),
        "{question}"
    );
    led_to(&shop.post(&staff, "/office/site", "do=rotate&revoke=yes&sure=yes").await);
    assert_eq!(led_to(&shop.get("/bench", &staff).await), "/login");
    let jobs = text(shop.get("/office/jobs", &shop.staff().await).await).await;
    assert!(jobs.contains("backups") && jobs.contains("reach"));
}

#[tokio::test]
async fn the_audit_is_exported_as_asked_for_and_no_cell_is_a_formula() {
    let shop = Shop::open().await;
    let staff = shop.staff().await;
    led_to(&shop.post(&staff, "/office/channels", "slug=north&active=yes").await);
    led_to(&shop.post(&staff, "/office/site", "do=begin&reason=x").await);
    let csv = text(shop.get("/office/audit/audit.csv?what=channel.", &staff).await).await;
    assert!(csv.starts_with("at,who,action,object,address\n") && csv.lines().count() == 2, "{csv}");
    let json = text(shop.get("/office/audit/audit.json?who=admin", &staff).await).await;
    let lines: Vec<serde_json::Value> = serde_json::from_str(&json).unwrap();
    assert_eq!(
        lines.iter().map(|l| l["action"].as_str().unwrap()).collect::<Vec<_>>(),
        ["maintenance.on", "channel.create"]
    );
    let wrong = shop.get("/office/audit?from=yesterday", &staff).await;
    assert_eq!(wrong.status(), StatusCode::UNPROCESSABLE_ENTITY);
}

#[tokio::test]
async fn a_new_shop_is_set_up_in_five_steps_that_can_be_skipped_and_what_is_left_stays_told() {
    let shop = Shop::open().await;
    let login = format!("username={}&password={}", shop.login.username, shop.login.password);
    let answer = shop.post("", "/login", &login).await;
    assert_eq!(led_to(&answer), "/first");
    let staff = cookie(&answer);
    let left = text(shop.get("/office", &staff).await).await;
    assert!(left.contains("What is left") && left.contains("Make the first organization"), "{left}");
    for step in 1..=6 {
        let page = shop.get(&format!("/first?step={step}"), &staff).await;
        assert_eq!(page.status(), StatusCode::OK);
        assert!(text(page).await.contains("href=\"/bench\""));
    }
    let wrong = shop.post(&staff, "/first", &format!("step=1&old=wrong&new={PASSWORD}")).await;
    assert_eq!(wrong.status(), StatusCode::UNPROCESSABLE_ENTITY);
    let changed =
        shop.post(&staff, "/first", &format!("step=1&old={}&new={PASSWORD}", shop.login.password)).await;
    assert_eq!(led_to(&changed), "/first?step=2");
    let staff = cookie(&changed);
    assert_eq!(led_to(&shop.post(&staff, "/first", "step=2&name=School&units=100").await), "/first?step=3");
    assert_eq!(led_to(&shop.post(&staff, "/first", "step=3&sender_name=The+Shop").await), "/first?step=4");
    let left = text(shop.get("/office", &staff).await).await;
    assert!(!left.contains("Make the first organization") && left.contains("Let the first appliance join"));
    let login = format!("username=admin&password={PASSWORD}");
    assert_eq!(led_to(&shop.post("", "/login", &login).await), "/bench", "once is enough");
}

#[tokio::test]
async fn an_account_changes_its_password_ends_its_logins_and_is_deleted_by_its_user() {
    let shop = Shop::open().await;
    let ada = shop.session("manager", &["default"]).await;
    let page = text(shop.get("/account", &ada).await).await;
    assert!(page.contains("Manager") && page.matches("<tr id=").count() == 1, "{page}");
    let wrong = shop.post(&ada, "/account", "do=password&old=wrong&new=another-password").await;
    assert_eq!(wrong.status(), StatusCode::UNPROCESSABLE_ENTITY);
    assert!(text(wrong).await.contains("the password is not right"));
    let changed =
        shop.post(&ada, "/account", &format!("do=password&old={PASSWORD}&new=another-password")).await;
    assert_eq!(led_to(&changed), "/account?done=saved");
    let (before, ada) = (ada, cookie(&changed));
    assert_eq!(led_to(&shop.get("/account", &before).await), "/login");
    assert_eq!(shop.get("/account", &ada).await.status(), StatusCode::OK);
    let other = shop.log_in_as("manager", "another-password").await.split(';').next().unwrap().to_owned();
    let out = shop.post(&ada, "/account", "do=end&confirm=another-password").await;
    assert!(cookie(&out).ends_with("cardshop_session="));
    for session in [&ada, &other] {
        assert_eq!(led_to(&shop.get("/account", session).await), "/login");
    }
    let ada = shop.log_in_as("manager", "another-password").await.split(';').next().unwrap().to_owned();
    led_to(&shop.post(&ada, "/account", "do=delete&confirm=another-password").await);
    let gone = shop.post("", "/login", "username=manager&password=another-password").await;
    assert_eq!(gone.status(), StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_logout_ends_the_session_for_whoever_copied_the_cookie() {
    let shop = Shop::open().await;
    let staff = shop.staff().await;
    led_to(&shop.post(&staff, "/logout", "").await);
    assert_eq!(led_to(&shop.get("/bench", &staff).await), "/login");
}

#[tokio::test]
async fn behind_tls_cookies_are_secure_and_browsers_are_told_to_stay_there() {
    let plain = Shop::open().await;
    assert!(!plain.log_in().await.contains("; Secure"));
    let shop = Shop::open_at("https://shop.example").await;
    let session = shop.log_in().await;
    assert!(session.contains("; Secure") && session.contains("; HttpOnly; SameSite=Strict"), "{session}");
    let staff = session.split(';').next().unwrap();
    let page = shop.get("/bench", staff).await;
    let said = |name: &str| page.headers()[name].to_str().unwrap().to_owned();
    assert_eq!(said("strict-transport-security"), "max-age=15768000");
    assert_eq!(said("x-content-type-options"), "nosniff");
    assert_eq!(said("referrer-policy"), "same-origin");
    assert!(said("permissions-policy").contains("camera=()"));
    let policy = said("content-security-policy");
    assert!(policy.contains("frame-ancestors 'none'") && !policy.contains("unsafe"), "{policy}");
    for kept in
        shop.post(staff, "/preferences", "language=fr&zone=").await.headers().get_all(header::SET_COOKIE)
    {
        assert!(kept.to_str().unwrap().contains("; Secure"));
    }
    let none = plain.get("/bench", "").await;
    assert!(!none.headers().contains_key("strict-transport-security"));
    let large = "x".repeat(512 * 1024 + 1);
    let refused = shop.post(staff, "/office/organizations", &format!("name={large}")).await;
    assert_eq!(refused.status(), StatusCode::PAYLOAD_TOO_LARGE);
}

#[tokio::test]
async fn the_page_of_the_parts_is_for_everybody_and_says_503_when_one_is_away() {
    let shop = Shop::open().await;
    let all = shop.get("/status", "").await;
    assert_eq!(all.status(), StatusCode::SERVICE_UNAVAILABLE, "there is no broker");
    let page = text(all).await;
    assert!(page.contains("id=\"broker\"") && page.contains("data-state=\"failed\">Away"), "{page}");
    assert_eq!(shop.get("/status/store", "").await.status(), StatusCode::OK);
    assert_eq!(shop.get("/status/broker", "").await.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(shop.get("/status/nothing", "").await.status(), StatusCode::NOT_FOUND);
    let french = text(shop.get("/status", "cardshop_language=fr").await).await;
    assert!(french.contains("Quelque chose manque") && french.contains("<html lang=\"fr\">"));
    let api = text(shop.get("/api", "").await).await;
    assert!(api.contains("/api/v1/organizations/{id}/units") && api.contains("/api/v1/openapi.json"));
}

#[tokio::test]
async fn orders_of_all_organizations_are_filtered_and_several_are_canceled_at_once() {
    let shop = Shop::open().await;
    let configuration = shop.configuration().await;
    let staff = shop.staff().await;
    let mut ids = Vec::new();
    for name in ["North school", "South school", "South library"] {
        let order = json!({"kind": "virtual", "configuration": configuration, "channel": "c", "name": name});
        ids.push(shop.api("/orders", token(&staff), order).await["id"].as_str().unwrap().to_owned());
    }
    let found = async |query: &str| {
        let page = text(shop.get(&format!("/office/orders?{query}"), &staff).await).await;
        page.matches("name=\"chosen\"").count()
    };
    assert_eq!(found("").await, 3);
    assert_eq!(found("text=south").await, 2);
    assert_eq!(found("channel=default").await, 0);
    assert_eq!(found("kind=virtual&status=created&who=admin").await, 3);
    assert_eq!(found("to=2020-01-01").await, 0);
    let both = format!("do=cancel&chosen={}&chosen={}", ids[0], ids[1]);
    let question = text(shop.post(&staff, "/office/orders", &both).await).await;
    assert!(question.contains("North school, South school"), "{question}");
    led_to(&shop.post(&staff, "/office/orders", &format!("{both}&sure=yes")).await);
    assert_eq!(found("status=canceled").await, 2);
    let again =
        shop.post(&staff, "/office/orders", &format!("do=retry&chosen={}&chosen={}", ids[0], ids[2])).await;
    assert_eq!(again.status(), StatusCode::CONFLICT);
    let told = text(again).await;
    assert_eq!(told.matches("<li><strong>").count(), 2, "{told}");
}

#[tokio::test]
async fn statistics_count_accounts_orders_durations_sizes_and_what_is_wanted_most() {
    let shop = Shop::open().await;
    let staff = shop.staff().await;
    let recipe = json!({"files": [{"to": "/data/a", "url": "https://x.example/books/wiki.zim"}]});
    let configuration =
        shop.api("/configurations", token(&staff), json!({"name": "Wiki", "recipe": recipe})).await;
    for quantity in [2, 1] {
        let order = json!({"kind": "physical", "configuration": configuration["id"], "quantity": quantity});
        shop.api("/orders", token(&staff), order).await;
    }
    let page = text(shop.get("/office/statistics", &staff).await).await;
    let row = |name: &str| {
        let row = page
            .split_once(&format!("<th scope=\"row\">{name}</th>"))
            .unwrap_or_else(|| panic!("{name}: {page}"))
            .1;
        row.split("<td>")
            .skip(1)
            .map(|cell| cell.split('<').next().unwrap().to_owned())
            .take(2)
            .collect::<Vec<_>>()
    };
    assert_eq!(row("Staff"), ["1", "1"]);
    assert_eq!(row("default"), ["2", "0"]);
    assert_eq!(row("Wiki"), ["2", "0"]);
    assert_eq!(row("wiki.zim"), ["2", "0"]);
    assert_eq!(page.matches("<svg class=\"chart\"").count(), 7, "{page}");
    for title in ["How long things take", "Images by size", "Orders by month", "Orders by organization"] {
        assert!(page.contains(title), "{title}");
    }
}

#[tokio::test]
async fn an_auto_image_a_channel_and_a_warehouse_are_added_changed_toggled_and_removed_by_their_pages() {
    let shop = Shop::open().await;
    let configuration = shop.configuration().await;
    let staff = shop.staff().await;
    let form = format!("name=wiki&channel=c&configuration={configuration}&every_days=30");
    let path =
        led_to(&shop.post(&staff, "/office/auto-images", &form).await).split('?').next().unwrap().to_owned();
    let shown = async |path: &str| text(shop.get(path, &staff).await).await;
    assert!(
        shown(&path).await.contains("name=\"every_days\" type=\"number\" min=\"1\" max=\"365\" value=\"30\"")
    );
    led_to(&shop.post(&staff, &path, "do=pause").await);
    assert!(shown(&path).await.contains("data-state=\"paused\""));
    let change = format!("do=save&configuration={configuration}&every_days=7&public=yes");
    led_to(&shop.post(&staff, &path, &change).await);
    let page = shown(&path).await;
    assert!(page.contains("value=\"7\"") && page.contains("data-state=\"paused\""), "{page}");
    led_to(&shop.post(&staff, &path, "do=resume").await);
    led_to(&shop.post(&staff, &path, "do=trigger").await);
    let wrong =
        shop.post(&staff, &path, &format!("do=save&configuration={configuration}&every_days=0")).await;
    assert_eq!(wrong.status(), StatusCode::UNPROCESSABLE_ENTITY);
    assert!(text(shop.post(&staff, &path, "do=delete").await).await.contains("Do you mean it?"));
    led_to(&shop.post(&staff, &path, "do=delete&sure=yes").await);
    assert_eq!(shop.get(&path, &staff).await.status(), StatusCode::NOT_FOUND);

    let path = led_to(&shop.post(&staff, "/office/channels", "slug=north&active=yes").await);
    let path = path.split('?').next().unwrap();
    led_to(
        &shop
            .post(&staff, path, "do=save&name=North&sender_name=The+Shop&sender_address=1+Road%0D%0ATown")
            .await,
    );
    let page = shown(path).await;
    assert!(page.contains("data-state=\"closed\"") && page.contains("1 Road\nTown</textarea>"), "{page}");
    let used = shown("/office/channels").await;
    let used = used.split("href=\"/office/channels/").find(|part| part.contains(">C</a>")).unwrap();
    let used = format!("/office/channels/{}", used.split('"').next().unwrap());
    let refused = shop.post(&staff, &used, "do=delete&sure=yes").await;
    assert_eq!(refused.status(), StatusCode::CONFLICT);
    assert!(text(refused).await.contains("1 configurations name it"));
    assert_eq!(led_to(&shop.post(&staff, path, "do=delete&sure=yes").await), "/office/channels?done=deleted");

    led_to(&shop.post(&staff, "/office/warehouses", "do=add&url=http://127.0.0.1:2").await);
    let list = shown("/office/warehouses").await;
    assert!(list.contains("From the settings") && list.contains("Not reached yet"), "{list}");
    let id = list.split_once("name=\"chosen\" value=\"").unwrap().1.split('"').next().unwrap().to_owned();
    let gone = shop.post(&staff, "/office/warehouses", &format!("do=delete&sure=yes&chosen={id}")).await;
    assert_eq!(led_to(&gone), "/office/warehouses?done=deleted");
    assert!(!shown("/office/warehouses").await.contains("http://127.0.0.1:2<"));
}

/// A shop with an order of channel `c`, whose recipient has an address.
async fn shop_with_order() -> (Shop, String, String) {
    let shop = Shop::open().await;
    let configuration = shop.configuration().await;
    let staff = shop.staff().await;
    let order = json!({"kind": "physical", "configuration": configuration, "channel": "c", "quantity": 1,
        "recipient": {"name": "Vera", "address": "2 Example Road", "country": "FR", "email": "vera@example.org"}});
    let order = shop.api("/orders", token(&staff), order).await["id"].as_str().unwrap().to_owned();
    (shop, staff, order)
}

#[tokio::test]
async fn messages_tell_what_went_to_whom_by_order_and_state_and_are_sent_once_more() {
    let (shop, staff, order) = shop_with_order().await;
    let page = text(shop.get(&format!("/orders/{order}"), &staff).await).await;
    let path = format!("/office/messages?order={order}");
    assert!(page.contains(&format!("href=\"{path}\"")), "{page}");
    let page = text(shop.get(&path, &staff).await).await;
    assert!(page.contains("vera@example.org") && page.contains("data-state=\"waiting\""), "{page}");
    assert!(page.contains("Order placed") && page.contains("Recipient"), "{page}");
    let message = page.split_once("name=\"chosen\" value=\"").unwrap().1.split('"').next().unwrap();
    let none = text(shop.get(&format!("{path}&state=sent"), &staff).await).await;
    assert!(!none.contains("vera@example.org"), "{none}");
    let wrong = shop.get("/office/messages?state=lost", &staff).await;
    assert_eq!(wrong.status(), StatusCode::UNPROCESSABLE_ENTITY);

    let again = format!("do=send&chosen={message}&order={order}");
    let to = led_to(&shop.post(&staff, "/office/messages", &again).await);
    assert_eq!(to, format!("{path}&done=queued"));
    assert!(text(shop.get(&to, &staff).await).await.contains("It goes out with the next ones"));
    let other = shop.session("manager", &["default"]).await;
    assert_eq!(shop.get(&path, &other).await.status(), StatusCode::NOT_FOUND);
    assert_eq!(shop.post(&other, "/office/messages", &again).await.status(), StatusCode::NOT_FOUND);
    let operator = shop.session("operator", &["c"]).await;
    assert_eq!(shop.get(&path, &operator).await.status(), StatusCode::FORBIDDEN);
    let page = text(shop.get(&format!("/orders/{order}"), &operator).await).await;
    assert!(!page.contains("/office/messages"), "no link to what is not theirs");

    shop.api(&format!("/orders/{order}/cancel"), token(&staff), json!({})).await;
    let page = text(shop.get(&path, &staff).await).await;
    assert!(page.contains("the order was canceled before this was sent"), "{page}");
    let refused = shop.post(&staff, "/office/messages", &again).await;
    assert_eq!(refused.status(), StatusCode::CONFLICT);
    assert!(text(refused).await.contains("only the message that says so is sent again"));
    let test = shop.post(&staff, "/office/messages", "do=test&to=nobody").await;
    assert_eq!(test.status(), StatusCode::UNPROCESSABLE_ENTITY);
    assert!(text(test).await.contains("value=\"nobody\""), "what was typed is kept");
    led_to(&shop.post(&staff, "/office/messages", "do=test&to=me@example.org").await);
    assert!(text(shop.get("/office/messages", &staff).await).await.contains("me@example.org"));
}

#[tokio::test]
async fn a_webhook_is_made_with_a_secret_shown_once_tested_told_again_and_removed_after_a_question() {
    let shop = Shop::open().await;
    shop.configuration().await;
    let staff = shop.staff().await;
    let wrong = shop.post(&staff, "/office/webhooks", "url=ftp://x.example&events=order_created").await;
    assert_eq!(wrong.status(), StatusCode::UNPROCESSABLE_ENTITY);
    let page = text(wrong).await;
    assert!(
        page.contains("field url: must begin with https://") && page.contains("value=\"ftp://x.example\"")
    );
    assert!(page.contains("value=\"order_created\" checked"), "what was ticked stays: {page}");
    let form = "url=https://x.example/told&events=order_created&events=order_failed&channels=c&language=fr";
    let made = shop.post(&staff, "/office/webhooks", form).await;
    assert_eq!(made.status(), StatusCode::CREATED);
    let page = text(made).await;
    let key = secret(&page);
    assert!(key.starts_with("whsec_"), "{key}");
    let path = page.split_once("href=\"/office/webhooks/").unwrap().1.split('"').next().unwrap();
    let path = format!("/office/webhooks/{path}");
    for page in ["/office/webhooks", &path] {
        let page = text(shop.get(page, &staff).await).await;
        assert!(page.contains("https://x.example/told") && !page.contains(&key), "shown once: {page}");
    }

    led_to(&shop.post(&staff, &path, "do=test").await);
    let page = text(shop.get(&path, &staff).await).await;
    assert!(page.contains("data-state=\"waiting\"") && page.contains("Order placed, Order failed"), "{page}");
    let message = page.split_once("name=\"chosen\" value=\"").unwrap().1.split('"').next().unwrap();
    led_to(&shop.post(&staff, &path, &format!("do=send&chosen={message}")).await);
    let none = shop.post(&staff, &path, "do=send&chosen=x").await;
    assert_eq!(none.status(), StatusCode::NOT_FOUND);
    let list = text(shop.get("/office/messages", &staff).await).await;
    assert!(list.contains(&format!("href=\"{path}\"")), "a message leads to its webhook: {list}");

    // An integrator has those of its own channels, and finds them from its account.
    let other = shop.session("integrator", &["default"]).await;
    assert!(text(shop.get("/account", &other).await).await.contains("href=\"/office/webhooks\""));
    assert!(!text(shop.get("/office/webhooks", &other).await).await.contains("x.example"));
    for act in ["test", "delete", "delete&sure=yes"] {
        let answer = shop.post(&other, &path, &format!("do={act}")).await;
        assert_eq!(answer.status(), StatusCode::NOT_FOUND, "{act}");
    }
    let own = shop.session("integrator2", &["c"]).await;
    assert_eq!(shop.get(&path, &own).await.status(), StatusCode::OK);

    let question = text(shop.post(&staff, &path, "do=delete").await).await;
    assert!(question.contains("Do you mean it?"), "{question}");
    let gone = led_to(&shop.post(&staff, &path, "do=delete&sure=yes").await);
    assert_eq!(gone, "/office/webhooks?done=deleted");
    assert_eq!(shop.get(&path, &staff).await.status(), StatusCode::NOT_FOUND);
    assert!(!text(shop.get("/office/messages", &staff).await).await.contains(&path), "no dead link");
}

#[tokio::test]
async fn a_letters_template_is_previewed_refused_with_what_was_typed_kept_tested_and_set_back() {
    let shop = Shop::open().await;
    let staff = shop.staff().await;
    let path = "/office/templates/order_created/en";
    let ours = text(shop.get(path, &staff).await).await;
    assert!(ours.contains("name=\"body\"") && !ours.contains("value=\"reset\""), "{ours}");
    let wrong = "do=save&subject=Thanks&body=Dear+%7B%7B+nobody+%7D%7D%0D%0A%3Cb%3E";
    let refused = shop.post(&staff, path, wrong).await;
    assert_eq!(refused.status(), StatusCode::UNPROCESSABLE_ENTITY);
    let page = text(refused).await;
    assert!(page.contains("role=\"alert\"") && page.contains("there is no nobody"), "{page}");
    assert!(page.contains("Dear {{ nobody }}\n&#60;b&#62;</textarea>"), "{page}");
    assert!(page.contains("value=\"Thanks\""), "{page}");

    let right = "subject=Thanks+for+%7B%7B+order_name+%7D%7D&body=Hello%0D%0A%0D%0A%3Cb%3Ethere%3C/b%3E";
    let right = right.replace("order_name", variable(&ours));
    let preview = shop.post(&staff, path, &format!("do=preview&{right}")).await;
    assert_eq!(preview.status(), StatusCode::OK);
    let page = text(preview).await;
    assert!(page.contains("As HTML") && page.contains("&#60;p&#62;Hello"), "{page}");
    assert!(!page.contains("<b>there</b>") && !page.contains("<iframe"), "nothing of it runs: {page}");
    assert!(!text(shop.get(path, &staff).await).await.contains("there"), "a preview keeps nothing");

    assert_eq!(
        led_to(&shop.post(&staff, path, &format!("do=save&{right}")).await),
        format!("{path}?done=saved")
    );
    let page = text(shop.get(path, &staff).await).await;
    assert!(page.contains("Hello\n\n&#60;b&#62;there") && page.contains("value=\"reset\""), "{page}");
    let list = text(shop.get("/office/templates", &staff).await).await;
    assert!(list.contains("· Changed") && list.matches("href=\"/office/templates/").count() == 28, "{list}");
    led_to(&shop.post(&staff, path, "do=test&to=me@example.org").await);
    assert!(text(shop.get("/office/messages", &staff).await).await.contains("me@example.org"));
    assert!(text(shop.post(&staff, path, "do=reset").await).await.contains("Do you mean it?"));
    led_to(&shop.post(&staff, path, "do=reset&sure=yes").await);
    assert_eq!(text(shop.get(path, &staff).await).await, ours);
    for none in ["/office/templates/nothing/en", "/office/templates/test/de"] {
        assert_eq!(shop.get(none, &staff).await.status(), StatusCode::NOT_FOUND, "{none}");
    }
    let manager = shop.session("manager", &["default"]).await;
    assert_eq!(shop.get(path, &manager).await.status(), StatusCode::FORBIDDEN);
}

/// One of the names that a template may use.
fn variable(page: &str) -> &str {
    page.split_once("<dt>May use</dt><dd><code>").unwrap().1.split([',', '<']).next().unwrap()
}

#[tokio::test]
async fn an_account_says_what_it_is_told_of_and_in_which_language() {
    let shop = Shop::open().await;
    let ada = shop.session("manager", &["default"]).await;
    let page = text(shop.get("/account", &ada).await).await;
    assert!(
        page.contains("value=\"order_failed\" checked") && page.contains("As your organization"),
        "{page}"
    );
    assert!(!page.contains("value=\"card_written\" checked") && !page.contains("value=\"password_reset\""));
    let saved =
        shop.post(&ada, "/account", "do=letters&events=card_written&language=fr&zone=Europe/Paris").await;
    assert_eq!(led_to(&saved), "/account?done=saved");
    let page = text(shop.get("/account", &ada).await).await;
    assert!(
        page.contains("value=\"card_written\" checked") && page.contains("value=\"Europe/Paris\""),
        "{page}"
    );
    assert!(!page.contains("value=\"order_failed\" checked") && page.contains("value=\"fr\" selected"));
    let wrong = shop.post(&ada, "/account", "do=letters&events=image_ready&language=en&zone=Mars").await;
    assert_eq!(wrong.status(), StatusCode::UNPROCESSABLE_ENTITY);
    let page = text(wrong).await;
    assert!(page.contains("Mars is no time zone") && page.contains("value=\"Mars\""), "{page}");
    assert!(page.contains("value=\"image_ready\" checked"), "what was ticked stays: {page}");
}

#[tokio::test]
async fn a_forgotten_password_is_asked_for_by_a_form_that_answers_everybody_alike() {
    let shop = Shop::open().await;
    let staff = shop.staff().await;
    let user = json!({"username": "ada", "password": PASSWORD, "role": "manager", "channels": ["default"],
        "email": "ada@example.org"});
    shop.api("/users", token(&staff), user).await;
    assert!(text(shop.get("/login", "").await).await.contains("href=\"/forgot\""));
    let mut answers = Vec::new();
    for name in ["ada", "nobody", "%3Cb%3E"] {
        let answer = shop.post("", "/forgot", &format!("name={name}")).await;
        assert_eq!(answer.status(), StatusCode::OK);
        answers.push(text(answer).await);
    }
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
    assert!(answers[0].contains("If there is such an account"));
    // The letter is made behind the answer.
    let made = async || {
        for _ in 0..1000 {
            tokio::task::yield_now().await;
            let page = text(shop.get("/office/messages", &staff).await).await;
            if page.contains("ada@example.org") {
                return page;
            }
        }
        panic!("no letter was made");
    };
    let page = made().await;
    assert!(page.contains("New password") && page.matches("<tr id=").count() == 1, "{page}");
    for _ in 0..2 {
        shop.post("", "/forgot", "name=nobody").await;
    }
    let many = shop.post("", "/forgot", "name=nobody").await;
    assert_eq!(many.status(), StatusCode::TOO_MANY_REQUESTS);
    assert!(text(many).await.contains("value=\"nobody\""));
}
